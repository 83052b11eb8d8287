//! A call may be dropped at any point: everything it holds comes back.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::script::{Step, answer, broken, ms, quiet};
use super::*;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::time::now;

/// Polls a call `polls` times, letting time pass in between, then drops it. True if it had ended by then.
async fn dropped_after(rig: &Rig, polls: u32) -> bool {
    let mut call = pin!(rig.start(Method::GET, CallOptions::new()));
    for _ in 0..polls {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(end) = call.as_mut().poll(&mut cx) {
            drop(end);
            return true;
        }
        tokio::time::sleep(ms(1)).await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_any_poll_gives_everything_back() {
    let scripts: [(&str, Vec<Step>); 5] = [
        ("success", vec![answer(200)]),
        ("retries", vec![answer(503), broken(), answer(503), answer(200)]),
        ("hang", vec![Step::Hang]),
        ("throttled", vec![quiet(429, "1"), answer(200)]),
        ("exhausted", vec![broken()]),
    ];
    for (name, steps) in scripts {
        for polls in 0..40 {
            let rig = Rig::new(&Policy::standard(), steps.clone());
            let ended = dropped_after(&rig, polls).await;
            let sent = f64::from(u32::try_from(rig.script.count()).unwrap().saturating_sub(1));
            assert_eq!(rig.in_use(), 0, "{name}, dropped after {polls} polls");
            // Every token is either unspent, spent on an attempt that was sent, or back because it succeeded.
            let spent = 10.0 - rig.tokens();
            let refunded = if ended { 1.25 } else { 0.0 };
            assert!(
                spent <= sent + 1e-9 && spent >= sent - refunded - 1e-9,
                "{name}, {polls}: {spent} of {sent}"
            );
            if !ended && name == "hang" {
                assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0, "young and abandoned");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_round_the_call_reaches_the_breaker() {
    let rig = Rig::new(&Policy::standard(), [Step::Hang]);
    let mut sent = 0;
    for _ in 0..300 {
        let call = rig.start(Method::GET, CallOptions::new());
        let _ = tokio::time::timeout(ms(1_500), call).await;
        sent = rig.script.count();
        if rig.state() == State::Open {
            break;
        }
    }
    assert_eq!((rig.state(), sent), (State::Open, 5));
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
        dropped_after(&rig, 2).await;
    }
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
    }
    rig.script.then([answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.in_use(), 0);
    assert_eq!(rig.state(), State::Closed);
}
