//! A call may be dropped at any point: everything it holds comes back.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::script::{Piece, Step, answer, answer_with, asks_to_wait, broken, ms};
use super::*;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;
use crate::{Attempt, Prepared};

/// Polls a call, and the reading of its body if it `reads`, `polls` times, letting time pass in
/// between, then drops it. True if it had ended by then.
async fn dropped_after(rig: &Rig, polls: u32, options: &CallOptions, reads: bool) -> bool {
    let call = rig.start(Method::GET, options.clone());
    let mut call = pin!(async move {
        if let Ok(response) = call.await
            && reads
        {
            let _ = text(response).await;
        }
    });
    for _ in 0..polls {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(()) = call.as_mut().poll(&mut cx) {
            return true;
        }
        tokio::time::sleep(ms(1)).await;
    }
    false
}

/// What a rig had given out before the call that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    tokens: f64,
    sent: usize,
}

impl Before {
    pub(super) fn of(rig: &Rig) -> Self {
        Self { tokens: rig.tokens(), sent: rig.script.count() }
    }

    /// Whether one call since then left everything as it found it: slots, gauges, probe places,
    /// tokens. `ended` if it came to its end.
    pub(super) fn is_back(self, rig: &Rig, ended: bool) -> Result<(), String> {
        let upstream = rig.upstream();
        let held = (rig.in_use(), upstream.unfinished(), upstream.breaker_snapshot(now()).probes);
        if held != (0, 0, 0) {
            return Err(format!("slots, calls and probe places kept: {held:?}"));
        }
        // Every token is unspent, spent on an attempt that was admitted, or back because it
        // succeeded.
        let extra = (rig.script.count() - self.sent).saturating_sub(1) as f64;
        let spent = self.tokens - rig.tokens();
        // A success is paid for at its head; a call dropped while its body comes has had that.
        let back = if ended { 1.25 } else { 0.25 };
        if spent > extra + 1e-9 || spent < extra - back - 1e-9 {
            return Err(format!("{spent} tokens spent on {extra} extra attempts"));
        }
        Ok(())
    }
}

/// A hook that takes a while.
fn slow_hook() -> Hook {
    Hook::new(|_: &Attempt<'_>| {
        Prepared::later(async {
            tokio::time::sleep(ms(2)).await;
            Ok::<_, std::io::Error>(http::HeaderMap::new())
        })
    })
}

/// The cancellation matrix: every policy combination that holds something, every kind of server,
/// every poll.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_any_poll_gives_everything_back() {
    let scripts: [(&str, Vec<Step>); 6] = [
        ("success", vec![answer(200)]),
        ("retries", vec![answer(503), broken(), answer(503), answer(200)]),
        ("hang", vec![Step::Hang]),
        ("throttled", vec![asks_to_wait(429, "1"), answer(200)]),
        ("exhausted", vec![broken()]),
        ("drip", vec![answer_with(200, vec![Piece::Data("x".into()), Piece::Pause(ms(9)), Piece::Break])]),
    ];
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(ms(3))).max_hedges(2);
    let policies: [(&str, Policy); 6] = [
        ("standard", Policy::standard()),
        ("hedged", Policy::standard().hedge(hedge.clone())),
        ("hedged only", Policy::standard().hedge(hedge).retry(None)),
        ("no breaker", Policy::standard().breaker(None)),
        ("quick attempts", Policy::standard().timeout(TimeoutPolicy::standard().attempt(ms(5)))),
        (HALF_OPEN, brittle()),
    ];
    let plain = CallOptions::new;
    let ways = [
        (plain(), false, false),
        (plain(), false, true),
        (plain().buffered(1024), false, false),
        (plain(), true, false),
    ];
    let mut runs = 0;
    for (script, steps) in &scripts {
        for (policy_name, policy) in &policies {
            for (options, hooked, reads) in &ways {
                for polls in 0..40 {
                    let rig = Rig::with(policy.into(), hooked.then(slow_hook), steps.clone());
                    if *policy_name == HALF_OPEN {
                        reopening(&rig, steps.clone()).await;
                    }
                    let (before, failed) = (Before::of(&rig), failures(&rig));
                    let ended = dropped_after(&rig, polls, options, *reads).await;
                    let name = format!("{script}, {policy_name}, {options:?}, hook {hooked}, {polls} polls");
                    before.is_back(&rig, ended).unwrap_or_else(|found| panic!("{name}: {found}"));
                    if !ended && *script == "hang" && *policy_name != "quick attempts" {
                        assert_eq!(failures(&rig), failed, "{name}: young and abandoned");
                    }
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} calls dropped, nothing kept");
}

fn failures(rig: &Rig) -> u32 {
    rig.upstream().breaker_snapshot(now()).failures
}

const HALF_OPEN: &str = "half open";

/// Opens at the first failure, and lets two probes out a little later.
fn brittle() -> Policy {
    let breaker = BreakerPolicy::standard().cold_consecutive_failures(1).probes(2);
    Policy::standard().breaker(breaker)
}

/// Opens the breaker, and waits until it would let probes out to a server that then follows
/// `steps`.
async fn reopening(rig: &Rig, steps: Vec<Step>) {
    rig.script.then([answer(500)]);
    drop(rig.get().await);
    assert_eq!(rig.state(), State::Open);
    tokio::time::sleep(ms(1_200)).await;
    rig.script.then(steps);
}

/// The control: what is kept on purpose is found, one thing at a time.
#[tokio::test(start_paused = true)]
async fn control_what_a_call_keeps_is_found() {
    async fn found(name: &str, half_open: bool, leak: impl AsyncFnOnce(&Rig)) {
        let rig = Rig::new(&brittle(), [answer(200)]);
        if half_open {
            reopening(&rig, vec![answer(200)]).await;
        }
        let before = Before::of(&rig);
        leak(&rig).await;
        let found = before.is_back(&rig, false).expect_err("the check must find it");
        println!("cancellation: {name} found: {found}");
    }
    async fn forget_midway(rig: &Rig) {
        let mut call = Box::pin(rig.start(Method::GET, CallOptions::new()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        std::mem::forget(call);
    }
    let forget_response = async |rig: &Rig| std::mem::forget(rig.get().await.unwrap());
    found("a response nobody drops", false, forget_response).await;
    found("a call nobody drops", false, forget_midway).await;
    found("a probe nobody drops", true, forget_midway).await;
    found("a token taken for nothing", false, async |rig: &Rig| {
        assert!(rig.upstream().budget().try_withdraw().is_some());
    })
    .await;
    found("a token made of nothing", false, async |rig: &Rig| {
        (0..8).for_each(|_| rig.upstream().budget().deposit());
    })
    .await;
    // And a call that keeps nothing is not accused.
    let rig = Rig::new(&brittle(), [answer(200)]);
    let before = Before::of(&rig);
    assert!(text(rig.get().await.unwrap()).await.is_ok());
    assert_eq!(before.is_back(&rig, true), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_slot_back() {
    let policy = Policy::standard().retry(None).breaker(BreakerPolicy::standard().probes(1));
    let rig = Rig::new(&policy, [answer(500)]);
    while rig.state() != State::Open {
        let _ = rig.get().await;
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    rig.script.then([Step::Hang]);
    for _ in 0..1_000 {
        dropped_after(&rig, 2, &CallOptions::new(), false).await;
        // One that decides nothing holds the next back.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    assert!(rig.script.count() >= 1_000);
    assert_eq!(rig.state(), State::HalfOpen);
    rig.script.then([answer(200)]);
    assert_eq!(text(rig.get().await.unwrap()).await.unwrap(), "body");
    assert_eq!(rig.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_transport_costs_no_slot_and_no_probe() {
    let policy = Policy::standard()
        .retry(None)
        .breaker(BreakerPolicy::standard().probes(1))
        .bulkhead(BulkheadPolicy::standard().max_in_flight(1));
    let rig = Rig::new(&policy, [answer(500)]);
    while rig.state() != State::Open {
        let _ = rig.get().await;
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    rig.script.then([Step::Panic]);
    for _ in 0..10 {
        let call = tokio::spawn(AssertUnwindSafe(rig.start(Method::GET, CallOptions::new())).0);
        assert!(call.await.unwrap_err().is_panic());
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    rig.script.then([answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.in_use(), 0);
    assert_eq!(rig.state(), State::Closed);
}

/// Its second attempt may have been sent before the service panicked, so its token is spent; all
/// else comes back.
#[tokio::test(start_paused = true)]
async fn a_service_that_panics_while_it_is_called_has_had_its_attempt() {
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    let service = tower::service_fn(move |_: Request<String>| {
        let nth = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(nth == 0, "as it happens");
        let answer = Response::builder().status(503).body(http_body_util::Empty::<bytes::Bytes>::new());
        std::future::ready(Ok::<_, crate::error::BoxError>(answer.unwrap()))
    });
    let core = Arc::new(Core::new(Setup::default()).unwrap());
    let upstream = core.upstream_of(&Authority::of_uri(&URL.parse().unwrap()));
    let before = upstream.budget().available();
    let call = ResilienceLayer::of(core).layer(service).call(Rig::request(Method::GET, CallOptions::new()));
    assert!(tokio::spawn(call).await.unwrap_err().is_panic());
    assert_eq!((upstream.in_use(), upstream.unfinished()), (0, 0));
    assert_eq!(
        (asked.load(std::sync::atomic::Ordering::Relaxed), before - upstream.budget().available()),
        (2, 1.0)
    );
}
