//! E16: a server that is back is back at once, and one that isn't is left alone.
//! `Policy::standard()` is untouched.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::script::{Step, answer, ms};
use super::*;
use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::rng::Rng;
use resilient_client::time::{Tick, now};

const SECOND: Duration = Duration::from_secs(1);

/// A server that can be down in some way.
#[derive(Clone)]
struct Host {
    down: Arc<AtomicBool>,
    rig: Arc<Rig>,
}

impl Host {
    fn new(policy: &Policy, seed: u64, how: Step) -> Self {
        let rig = Rig::seeded(policy, seed, [answer(200)]);
        let down = Arc::new(AtomicBool::new(false));
        let is_down = Arc::clone(&down);
        rig.script.follow(move || if is_down.load(Ordering::SeqCst) { how.clone() } else { answer(200) });
        Self { down, rig: Arc::new(rig) }
    }

    fn set(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Calls at random times for so long: when each began, and whether it was served.
    async fn drive(&self, rate: f64, time: Duration, rng: &mut Rng) -> JoinSet<(Tick, bool)> {
        let (mut calls, end) = (JoinSet::new(), now().after(time));
        loop {
            sleep(Duration::from_secs_f64(-(1.0 - rng.unit()).ln() / rate)).await;
            if now() >= end {
                return calls;
            }
            let call = self.rig.start(Method::GET, CallOptions::new());
            calls.spawn(async move { (now(), call.await.is_ok_and(|response| response.status() == 200)) });
        }
    }
}

/// How long after a server's return the last call begins that isn't served.
async fn back_after(policy: &Policy, how: &Step, rate: f64, outage: Duration, seed: u64) -> Duration {
    let (host, mut rng) = (Host::new(policy, seed, how.clone()), Rng::seeded(seed));
    host.drive(rate, 2 * SECOND, &mut rng).await.join_all().await;
    host.set(true);
    // Not always at the same moment of an opening.
    let before = host.drive(rate, outage + SECOND.mul_f64(rng.unit()), &mut rng).await;
    host.set(false);
    let returned = now();
    let after = host.drive(rate, 12 * SECOND, &mut rng).await;
    drop(before);
    let lost = after.join_all().await.into_iter().filter(|(_, served)| !served);
    lost.map(|(began, _)| began.since(returned)).max().unwrap_or_default()
}

fn ways_to_be_down() -> [(&'static str, Step); 3] {
    let fails = Step::Answer { after: ms(5), status: 503, retry_after: None, body: Vec::new() };
    [("refuses", Step::Refuse), ("says 503", fails), ("hangs", Step::Hang)]
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_up_again_gets_full_traffic_at_once() {
    for (name, how) in ways_to_be_down() {
        for (rate, outage, seeds, within) in [
            (5.0, 5, 10, ms(3_000)),
            (5.0, 60, 10, ms(3_500)),
            (50.0, 5, 10, SECOND),
            (50.0, 60, 5, SECOND),
            (300.0, 5, 5, ms(500)),
            (300.0, 60, 1, ms(500)),
        ] {
            let mut longest = Duration::ZERO;
            for seed in 0..seeds {
                let back = back_after(&Policy::standard(), &how, rate, outage * SECOND, seed).await;
                longest = longest.max(back);
            }
            // At few calls a second the next probe comes no sooner than the one that hangs has used
            // up its time.
            let within = if name == "hangs" && rate < 50.0 { within + 3 * SECOND } else { within };
            println!(
                "{name} for {outage} s at {rate}/s: full traffic after {longest:.2?} at most, {seeds} seeds"
            );
            assert!(longest <= within, "{name} for {outage} s at {rate}/s: {longest:?}");
        }
    }
}

/// The rule of before: 1, 2, 4, 5 s, however many are turned away.
#[tokio::test(start_paused = true)]
async fn control_times_that_mind_no_traffic_keep_it_waiting() {
    let policy = Policy::standard().breaker(BreakerPolicy::standard().open_for(SECOND).probe_share(0.0));
    let mut longest = Duration::ZERO;
    for seed in 0..5 {
        longest = longest.max(back_after(&policy, &Step::Refuse, 300.0, 20 * SECOND, seed).await);
    }
    println!("with times alone: full traffic after {longest:.2?} at most");
    assert!(longest > ms(1_500), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_dead_gets_two_percent_and_one_a_second_at_most() {
    for (name, how) in ways_to_be_down() {
        for (rate, time) in [(1.0, 120), (10.0, 60), (50.0, 60), (130.0, 30), (300.0, 20), (3000.0, 6)] {
            let (host, mut rng) = (Host::new(&Policy::standard(), 1, how.clone()), Rng::seeded(1));
            host.set(true);
            host.drive(rate, 15 * SECOND, &mut rng).await;
            assert_ne!(host.rig.state(), State::Closed);
            let before = host.rig.script.count();
            let calls = host.drive(rate, time * SECOND, &mut rng).await.len();
            let sent = host.rig.script.count() - before;
            let allowed = calls as f64 * 0.02 + f64::from(time);
            println!("{name} at {rate}/s: {sent} sent in {time} s, of {allowed:.0} allowed");
            assert!(sent as f64 <= allowed, "{name} at {rate}/s: {sent}");
        }
    }
}

/// One is turned away for no longer than before: 1, 2, 4, 5 s.
#[tokio::test(start_paused = true)]
async fn at_one_call_a_second_nobody_is_turned_away_for_longer_than_five_seconds() {
    let host = Host::new(&Policy::standard(), 1, Step::Refuse);
    host.set(true);
    let mut turned_away = Vec::new();
    let mut row = 0;
    for _ in 0..120 {
        let before = host.rig.script.count();
        let _ = host.rig.get().await;
        if host.rig.script.count() == before {
            row += 1;
        } else {
            turned_away.push(std::mem::take(&mut row));
        }
        sleep(SECOND).await;
    }
    println!("turned away between probes: {turned_away:?}");
    assert!(turned_away.iter().all(|row| *row <= 5), "{turned_away:?}");
}
