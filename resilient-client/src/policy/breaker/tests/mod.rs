use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use std::time::Duration;

use proptest::prelude::*;

use super::rules::Numbers;
use super::*;
use crate::outcome::{FailureCause, Verdict};
use crate::rng::Rng;
use crate::time::Tick;

mod bodies;
mod changes;
mod half_open;
mod model;
mod modes;
mod open;
mod opening;
mod threads;
#[cfg(resilient_loom)]
mod under_loom;

const START: Tick = Tick::from_nanos(3600 * 1_000_000_000);
/// A call that took no time to speak of.
const QUICK: Duration = Duration::from_millis(1);
const MIDDLE: fn() -> f64 = || 0.5;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[allow(clippy::needless_pass_by_value, reason = "policies are built where they are used")]
fn breaker(policy: BreakerPolicy) -> Breaker {
    Breaker::new(policy.compile().unwrap())
}

/// For how long it rejects calls, if it does. Nobody has forced it open.
fn shut_for(breaker: &Breaker, now: Tick) -> Option<Duration> {
    breaker.rejects_now(now).map(|rejected| rejected.retry_after.expect("not forced"))
}

fn call(breaker: &Breaker, verdict: Verdict, now: Tick) -> Option<Transition> {
    let admitted = breaker.try_acquire(now).expect("admitted");
    breaker.record(admitted.permit, CallResult::new(verdict, QUICK), now, MIDDLE)
}

/// Fails calls one by one, and says how many it took to open and why.
fn failures_to_open(breaker: &Breaker, now: Tick) -> (u32, Cause) {
    for n in 1..=1000 {
        if let Some(transition) = call(breaker, Verdict::Failure, now) {
            assert_eq!((transition.from, transition.to), (State::Closed, State::Open));
            return (n, transition.cause);
        }
    }
    panic!("a thousand failures did not open it");
}

/// An open breaker with probes `k`, and the time its open time ends.
fn opened(policy: BreakerPolicy) -> (Breaker, Tick) {
    let breaker = breaker(policy);
    failures_to_open(&breaker, START);
    let wait = shut_for(&breaker, START).expect("open");
    (breaker, START.after(wait))
}

fn probe(breaker: &Breaker, now: Tick) -> Permit {
    let permit = breaker.try_acquire(now).expect("a free probe slot").permit;
    assert!(permit.is_probe());
    permit
}

/// One probe after the other succeeds, until that closes it.
fn recover(breaker: &Breaker, now: Tick) -> Transition {
    let succeeds =
        || breaker.record(probe(breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    std::iter::repeat_with(succeeds).flatten().next().expect("it closes")
}

/// The first probe has succeeded: the others.
fn others(breaker: &Breaker, now: Tick) -> Vec<Permit> {
    assert_eq!(
        breaker.record(probe(breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE),
        None
    );
    std::iter::from_fn(|| breaker.try_acquire(now).ok()).map(|admitted| admitted.permit).collect()
}

/// A call whose head succeeds, and its body later.
fn head(breaker: &Breaker, now: Tick) -> BodyPermit {
    let permit = breaker.try_acquire(now).expect("admitted").permit;
    let body = permit.body();
    assert_eq!(breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE), None);
    body
}

fn body_fails(breaker: &Breaker, body: BodyPermit, at: Tick, now: Tick) -> Option<Transition> {
    breaker.record_body(body, BodyResult::new(Verdict::Failure, at), now, MIDDLE)
}

/// After how many milliseconds the next probe goes, with so many calls a second in between.
fn next_probe(breaker: &Breaker, from: Tick, per_second: u64) -> u64 {
    let at = |n: u64| from.after_nanos(n * 1_000_000_000 / per_second);
    let first = (1..=10 * per_second).find(|n| breaker.try_acquire(at(*n)).is_ok()).unwrap();
    from.until(at(first)).as_millis() as u64
}
