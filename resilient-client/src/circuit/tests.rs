use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Mutex;

use super::*;
use crate::policy::breaker::Cause;

mod half_open;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn policy() -> BreakerPolicy {
    BreakerPolicy::standard().cold_consecutive_failures(2).probes(1)
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new(&policy()).unwrap()
}

async fn fail(breaker: &CircuitBreaker) -> Result<(), CircuitError<&'static str>> {
    breaker.call(async { Err("broken") }).await
}

async fn succeed(breaker: &CircuitBreaker) -> Result<u32, CircuitError<&'static str>> {
    breaker.call(async { Ok(7) }).await
}

/// Opens it, and waits until it would let a probe pass.
async fn reopening(breaker: &CircuitBreaker) {
    while fail(breaker).await == Err(CircuitError::Inner("broken")) {}
    let open = breaker.try_acquire().unwrap_err();
    tokio::time::advance(open.retry_after.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn failures_open_it_for_every_clone_and_a_probe_closes_it() {
    let breaker = breaker();
    let other = breaker.clone();
    for _ in 0..2 {
        assert_eq!(fail(&breaker).await, Err(CircuitError::Inner("broken")));
    }
    let Err(CircuitError::Open(Open { retry_after: Some(retry_after) })) = succeed(&other).await else {
        panic!("open")
    };
    assert!(retry_after >= ms(225) && retry_after <= ms(275), "{retry_after:?}");
    tokio::time::advance(retry_after).await;
    assert_eq!(succeed(&other).await, Ok(7));
    assert_eq!((breaker.state(), breaker.snapshot().generation), (State::Closed, 3));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_is_not_polled() {
    let breaker = breaker();
    breaker.force_open();
    let call = async { unreachable!("polled") };
    assert_eq!(breaker.call::<(), ()>(call).await, Err(CircuitError::Open(Open { retry_after: None })));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_no_failure_counts_as_a_success() {
    let breaker = breaker();
    for _ in 0..10 {
        let result =
            breaker.call_if(|error| *error != "not found", async { Err::<(), _>("not found") }).await;
        assert_eq!(result, Err(CircuitError::Inner("not found")));
    }
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.failures, snapshot.successes), (State::Closed, 0, 10));
}

#[tokio::test(start_paused = true)]
async fn a_classifier_sees_the_whole_result() {
    let breaker = breaker();
    let by_code = |result: &Result<u16, ()>| match result {
        Ok(503) => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(()) => Verdict::Neutral,
    };
    for (result, counts) in [(Ok(200), (0, 1)), (Ok(503), (1, 1)), (Err(()), (1, 1))] {
        let _ = breaker.call_with(by_code, async { result }).await;
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.failures, snapshot.successes), counts, "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_counts_as_a_failure_only_when_it_was_out_for_long() {
    let breaker = breaker();
    for (patience, failures) in [(ms(1000), 0), (ms(1001), 1)] {
        let call = breaker.call(pending::<Result<(), ()>>());
        assert!(tokio::time::timeout(patience, call).await.is_err());
        assert_eq!(breaker.snapshot().failures, failures, "after {patience:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_slot_back() {
    let breaker = breaker();
    reopening(&breaker).await;
    let probe = breaker.try_acquire().unwrap();
    assert!(probe.is_probe());
    assert!(breaker.try_acquire().is_err());
    drop(probe);
    let held_back = breaker.try_acquire().unwrap_err();
    tokio::time::advance(held_back.retry_after.unwrap()).await;
    assert_eq!(succeed(&breaker).await, Ok(7));
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_call_gives_the_slot_back() {
    let breaker = breaker();
    reopening(&breaker).await;
    let panicking = breaker.clone();
    let buggy = async { resume_unwind(Box::new("a bug")) };
    let task = tokio::spawn(async move { panicking.call::<(), ()>(buggy).await });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(breaker.snapshot().probes, 0);
    tokio::time::advance(ms(275)).await;
    assert_eq!(succeed(&breaker).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_classifier_gives_the_slot_back() {
    let breaker = breaker();
    reopening(&breaker).await;
    let is_failure = |(): &()| -> bool { resume_unwind(Box::new("a bug")) };
    let mut call = Box::pin(breaker.call_if(is_failure, async { Err::<(), ()>(()) }));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context)));
    assert!(polled.is_err());
    drop(call);
    assert_eq!(breaker.snapshot().probes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_says_what_became_of_the_call() {
    let breaker = breaker();
    breaker.try_acquire().unwrap().success();
    breaker.try_acquire().unwrap().failure();
    breaker.try_acquire().unwrap().ignore();
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.failures, snapshot.successes), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it() {
    let policy = BreakerPolicy::standard().slow_call(ms(100), 0.5).min_calls(2);
    let breaker = CircuitBreaker::new(&policy).unwrap();
    let slowly = |time| async move {
        tokio::time::sleep(time).await;
        Ok::<(), ()>(())
    };
    breaker.call(slowly(ms(100))).await.unwrap();
    for _ in 0..2 {
        assert_eq!(breaker.state(), State::Closed);
        breaker.call(slowly(ms(101))).await.unwrap();
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn the_observer_hears_each_change_once_and_its_panics_harm_nobody() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let heard = Arc::clone(&heard);
        move |change: &Transition| {
            heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((change.to, change.cause));
            resume_unwind(Box::new("a bug"));
        }
    };
    let breaker = CircuitBreaker::with_observer(&policy(), observer).unwrap();
    reopening(&breaker).await;
    succeed(&breaker).await.unwrap();
    breaker.force_open();
    breaker.force_open();
    breaker.enable();
    let expected = [
        (State::Open, Cause::ColdFailures(2)),
        (State::HalfOpen, Cause::OpenTimeElapsed),
        (State::Closed, Cause::ProbesSucceeded),
        (State::ForcedOpen, Cause::Forced),
        (State::Closed, Cause::Released),
    ];
    assert_eq!(*heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner), expected);
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_hold_it_and_a_new_policy_leaves_that_alone() {
    let breaker = breaker();
    breaker.force_closed();
    for _ in 0..100 {
        let _ = fail(&breaker).await;
    }
    breaker.set_policy(&policy().probes(2)).unwrap();
    assert_eq!((breaker.state(), breaker.snapshot().failures), (State::ForcedClosed, 100));
    breaker.disable();
    let _ = fail(&breaker).await;
    assert_eq!((breaker.state(), breaker.snapshot().failures), (State::Disabled, 100));
    breaker.reset();
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.failures, snapshot.forced), (State::Closed, 0, false));
}

#[test]
fn an_operator_hears_what_changed() {
    let breaker = breaker();
    let states = |change: Option<Transition>| change.map(|change| (change.from, change.to));
    assert_eq!(states(breaker.force_open()), Some((State::Closed, State::ForcedOpen)));
    assert_eq!(states(breaker.force_open()), None, "it is forced already");
    assert_eq!(states(breaker.observe()), None, "the state is what it was, only nobody is refused");
    assert!(breaker.try_acquire().unwrap().would_reject().is_some());
    assert_eq!(states(breaker.enable()), Some((State::ForcedOpen, State::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_bad_policy_changes_nothing() {
    let breaker = breaker();
    let bad = policy().failure_rate(2.0).abandoned_after(Duration::ZERO);
    assert_eq!(breaker.set_policy(&bad).unwrap_err().setting(), "breaker.failure_rate");
    assert!(CircuitBreaker::new(&bad).is_err());
    drop(breaker.try_acquire().unwrap());
    assert_eq!(breaker.snapshot().failures, 0);
    breaker.set_policy(&policy().abandoned_after(Duration::ZERO)).unwrap();
    let permit = breaker.try_acquire().unwrap();
    tokio::time::advance(ms(1)).await;
    drop(permit);
    assert_eq!(breaker.snapshot().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn observing_only_it_says_what_it_would_have_done() {
    let breaker = CircuitBreaker::new(&policy().observe_only(true)).unwrap();
    for _ in 0..2 {
        let _ = fail(&breaker).await;
    }
    assert_eq!(breaker.state(), State::Open);
    let permit = breaker.try_acquire().unwrap();
    assert!(permit.would_reject().is_some_and(|open| open.retry_after >= Some(ms(225))));
    assert_eq!(succeed(&breaker).await, Ok(7));
}

#[test]
fn errors_speak_for_themselves() {
    let open = |retry_after| CircuitError::<io::Error>::from(Open { retry_after });
    assert_eq!(open(Some(ms(1500))).to_string(), "circuit breaker is open: next probe in 1.5s");
    assert_eq!(open(None).to_string(), "circuit breaker is open: somebody has forced it");
    let inner = CircuitError::Inner(io::Error::other("no route"));
    assert_eq!(inner.to_string(), "no route");
}
