//! E6 over real sockets: a second attempt is sent beside a slow one, within its cap, and the one
//! that loses is cancelled on the wire. How much of the tail that cuts is printed here and judged
//! on the virtual clock (`simulations/`): a busy machine has a tail of its own.

use std::sync::Mutex;
use std::time::Duration;

use resilient_client::event::Event;
use resilient_client::outcome::Outcome;
use resilient_client::policy::hedge::HedgePolicy;
use resilient_client::rng::Rng;
use resilient_client::{Client, Policy, Trigger};
use resilient_client_tests::{Heard, Reply, SOON, Server, clock, within};
use tokio::task::JoinSet;

const CALLS: usize = 2_000;
const EVERY: Duration = Duration::from_millis(4);
/// Before them, so that it's known what is usual here.
const WARM_UP: usize = 500;
const CAP: f64 = 0.07;
const BURST: u32 = 5;

/// Lognormal with a median of 10 ms and a sigma of 0.5; one in twenty takes 200 ms more.
fn work(rng: &mut Rng) -> Duration {
    // Box and Muller's normal from two uniforms.
    let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.unit()).cos();
    let late = if rng.unit() < 0.05 { 0.2 } else { 0.0 };
    Duration::from_secs_f64(0.010 * (0.5 * normal).exp() + late)
}

struct Found {
    p50: Duration,
    p99: Duration,
    /// Requests the server read, and attempts the client made, in all.
    seen: usize,
    made: usize,
    hedges: usize,
    /// Attempts the client gave up, and requests whose client hung up on the server at work.
    abandoned: usize,
    hung_up: usize,
}

async fn run(policy: Policy, seed: u64) -> Found {
    let rng = Mutex::new(Rng::seeded(seed));
    let server =
        Server::start(move |_| Reply::answer(200, "late or soon").delayed(work(&mut rng.lock().unwrap())))
            .await;
    let heard = Heard::new();
    let client = Client::builder().policy(policy).observer(heard.clone()).build().unwrap();
    let mut calls = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    for n in 0..WARM_UP + CALLS {
        ticks.tick().await;
        let (begun, call) = (clock::now(), client.get(server.url("/")).send());
        calls.spawn(async move {
            assert_eq!(call.await.unwrap().text().await.unwrap(), "late or soon");
            (n >= WARM_UP).then(|| begun.elapsed())
        });
    }
    let mut latencies: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    latencies.sort();
    let hedges = heard.count(|event| matches!(event, Event::AttemptStarted { trigger: Trigger::Hedge, .. }));
    // What was cancelled, the server hears a moment later; what it had answered by then, it never
    // does.
    let settled = server.seen().until(|seen| seen.delayed == 0);
    within(SOON, settled).await;
    Found {
        p50: latencies[CALLS / 2],
        p99: latencies[CALLS * 99 / 100],
        seen: server.count(),
        made: heard.attempts(),
        hedges,
        abandoned: heard.ended_as(Outcome::Abandoned),
        hung_up: server.seen().read(|seen| seen.hung_up),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hedges_keep_within_their_cap_and_each_loser_is_cancelled_on_the_wire() {
    // No retries: whatever is sent more than once is a hedge. No breaker and no bulkhead: they are
    // other stories.
    let bare = Policy::standard().retry(None).breaker(None).bulkhead(None).overload(None);
    let hedge = HedgePolicy::standard().max_share(CAP).burst(BURST);
    let both = async { tokio::join!(run(bare.clone().hedge(hedge), 1), run(bare.clone(), 1)) };
    let (ours, control) = within(Duration::from_mins(1), both).await;
    let all = WARM_UP + CALLS;
    println!(
        "E6 over sockets: p99 {:.1?} from {:.1?} (median {:.1?}, {:.1?}), {} hedges for {all} calls ({:.2} %), \
         {} losers, {} of them heard hanging up at work",
        ours.p99,
        control.p99,
        ours.p50,
        control.p50,
        ours.hedges,
        ours.hedges as f64 / all as f64 * 100.0,
        ours.abandoned,
        ours.hung_up,
    );
    assert_eq!((control.seen, control.made), (all, all));
    assert_eq!((control.hung_up, control.hedges), (0, 0), "the control cancels nothing");

    // A loser may be cancelled before a byte of it was written; nobody hears that one.
    let unheard = ours.abandoned - ours.hung_up;
    let uncounted = ours.made.checked_sub(ours.seen).expect("the server counts no more than the client");
    assert!(uncounted <= unheard, "{uncounted} of {} never arrived, {unheard} losers unheard", ours.made);
    assert_eq!(ours.made, all + ours.hedges, "and what is beyond the calls is hedges");
    let most = f64::from(BURST) + CAP * all as f64;
    assert!(ours.hedges as f64 <= most, "{} hedges, {most} allowed", ours.hedges);
    assert!(ours.hedges >= all / 50, "only {} hedges: nothing was tried", ours.hedges);
    assert_eq!(ours.abandoned, ours.hedges, "each hedged call has one loser");
    // The others had been answered by the time their client let go.
    assert!(ours.hung_up * 2 >= ours.hedges, "{} of {} heard", ours.hung_up, ours.hedges);
    assert!(ours.hung_up <= ours.hedges, "only losers are cancelled");
}
