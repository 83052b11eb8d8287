//! A call may be dropped at any point: everything it holds comes back.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::script::{Piece, Step, answer, answer_with, broken, ms, quiet};
use super::*;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;
use crate::{Attempt, Prepared};

/// Polls a call `polls` times, letting time pass in between, then drops it. True if it had ended by then.
async fn dropped_after(rig: &Rig, polls: u32, options: &CallOptions) -> bool {
    let mut call = pin!(rig.start(Method::GET, options.clone()));
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

/// A hook that takes a while.
fn slow_hook() -> Hook {
    Hook::new(|_: &Attempt<'_>| {
        Prepared::later(async {
            tokio::time::sleep(ms(2)).await;
            Ok::<_, std::io::Error>(http::HeaderMap::new())
        })
    })
}

/// The cancellation matrix: every policy combination that holds something, every kind of server, every poll.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_any_poll_gives_everything_back() {
    let scripts: [(&str, Vec<Step>); 6] = [
        ("success", vec![answer(200)]),
        ("retries", vec![answer(503), broken(), answer(503), answer(200)]),
        ("hang", vec![Step::Hang]),
        ("throttled", vec![quiet(429, "1"), answer(200)]),
        ("exhausted", vec![broken()]),
        ("drip", vec![answer_with(200, vec![Piece::Data("x".into()), Piece::Pause(ms(9)), Piece::Break])]),
    ];
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(ms(3))).max_hedges(2);
    let policies: [(&str, Policy); 5] = [
        ("standard", Policy::standard()),
        ("hedged", Policy::standard().hedge(hedge.clone())),
        ("hedged only", Policy::standard().hedge(hedge).retry(None)),
        ("no breaker", Policy::standard().breaker(None)),
        ("quick attempts", Policy::standard().timeout(TimeoutPolicy::standard().attempt(ms(5)))),
    ];
    let ways =
        [(CallOptions::new(), false), (CallOptions::new().buffered(1024), false), (CallOptions::new(), true)];
    let mut runs = 0;
    for (script, steps) in &scripts {
        for (policy_name, policy) in &policies {
            for (options, hooked) in &ways {
                for polls in 0..40 {
                    let rig = Rig::with(policy.into(), hooked.then(slow_hook), steps.clone());
                    let ended = dropped_after(&rig, polls, options).await;
                    let name = format!("{script}, {policy_name}, {options:?}, hook {hooked}, {polls} polls");
                    assert_eq!((rig.in_use(), rig.upstream().unfinished()), (0, 0), "{name}");
                    // Every token is unspent, spent on an attempt that was admitted, or back because it succeeded.
                    let extra = f64::from(u32::try_from(rig.script.count()).unwrap().saturating_sub(1));
                    let spent = 10.0 - rig.tokens();
                    let back = if ended { 1.25 } else { 0.0 };
                    let preparing = if *hooked { 2.0 } else { 0.0 };
                    assert!(spent <= extra + preparing + 1e-9, "{name}: {spent} of {extra}");
                    assert!(spent >= extra - back - 1e-9, "{name}: {spent} of {extra}");
                    if !ended && *script == "hang" && *policy_name != "quick attempts" {
                        let failures = rig.upstream().breaker_snapshot(now()).failures;
                        assert_eq!(failures, 0, "{name}: young and abandoned");
                    }
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} calls dropped, nothing kept");
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
        dropped_after(&rig, 2, &CallOptions::new()).await;
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
