//! The pure machines, and the peers' breakers beside ours.
//!
//! Ours takes `now`; the peers read the clock themselves where they need it, so there is a subject
//! of ours that does too. Every peer is set up as its own README shows.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use failsafe::CircuitBreaker;
use recloser::Recloser;
use resilient_client::outcome::Verdict;
use resilient_client::policy::breaker::{Breaker, BreakerPolicy, CallResult, Rejected};
use resilient_client::policy::budget::{Budget, BudgetPolicy};
use resilient_client::policy::bulkhead::{Bulkhead, BulkheadPolicy};
use resilient_client::policy::priority::Priority;
use resilient_client::time::{self, Tick};
use tower::{Layer as _, Service as _};
use tower_resilience::circuitbreaker::CircuitBreakerLayer;
use tower_resilience::core::DefaultClassifier;

use crate::subject::Subject;

/// Long enough for an open breaker to stay open while it is measured.
const LONG: Duration = Duration::from_hours(24);
/// How long a call took that is not slow, in nanoseconds.
const QUICK: Duration = Duration::from_millis(1);
/// What a virtual clock moves on from one call to the next.
const STEP: u64 = 100;

/// A time that only grows: the `i`-th call's.
fn tick(i: u64) -> Tick {
    Tick::from_nanos(3_600_000_000_000 + i * STEP)
}

/// A breaker with the standard rules.
pub fn breaker() -> Breaker {
    Breaker::new(BreakerPolicy::standard().compile().expect("standard rules"))
}

/// failsafe's, as its README makes it.
pub fn failsafe() -> impl CircuitBreaker + Sync {
    failsafe::Config::new().build()
}

/// recloser's, as its README makes it.
pub fn recloser() -> Recloser {
    Recloser::default()
}

/// tower-resilience's, its standard preset, round a service that does nothing.
pub fn tower_resilience() -> TowerResilienceBreaker {
    let layer = CircuitBreakerLayer::standard().build().expect("breaker");
    layer.layer(tower::service_fn(nothing as fn(()) -> _))
}

fn nothing((): ()) -> std::future::Ready<Result<(), ()>> {
    std::future::ready(Ok(()))
}

type Nothing = tower::util::ServiceFn<fn(()) -> std::future::Ready<Result<(), ()>>>;
/// The breaker round it.
pub type TowerResilienceBreaker =
    tower_resilience::circuitbreaker::CircuitBreaker<Nothing, DefaultClassifier>;

fn open_breaker(policy: &BreakerPolicy) -> Breaker {
    let breaker = Breaker::new(policy.compile().expect("rules"));
    while let Ok(call) = breaker.try_acquire(tick(0)) {
        breaker.record(call.permit, CallResult::new(Verdict::Failure, QUICK), tick(0), || 0.5);
    }
    breaker
}

fn succeed(breaker: &Breaker, acquired: Tick, recorded: Tick) {
    let call = breaker.try_acquire(acquired).expect("closed");
    breaker.record(call.permit, CallResult::new(Verdict::Success, QUICK), recorded, || 0.5);
}

/// Ours, closed: acquire, and record a success.
pub fn closed(name: &'static str, threads: usize) -> Subject {
    let breaker = breaker();
    Subject::shared(name, threads, move |i| succeed(&breaker, tick(i), tick(i)))
}

/// The same, reading the clock for each of the two.
pub fn closed_with_clock(name: &'static str, threads: usize) -> Subject {
    let breaker = breaker();
    Subject::shared(name, threads, move |_| succeed(&breaker, time::now(), time::now()))
}

/// failsafe, closed.
pub fn failsafe_closed(name: &'static str, threads: usize) -> Subject {
    let breaker = failsafe();
    Subject::shared(name, threads, move |_| breaker.call(|| Ok::<(), ()>(())).is_ok())
}

/// recloser, closed.
pub fn recloser_closed(name: &'static str, threads: usize) -> Subject {
    let breaker = recloser();
    Subject::shared(name, threads, move |_| breaker.call(|| Ok::<(), ()>(())).is_ok())
}

/// tower-resilience, closed: its layer round a ready future, polled by hand, since it has no
/// breaker apart from its layer.
pub fn tower_resilience_closed(name: &'static str, threads: usize) -> Subject {
    let breaker = tower_resilience();
    Subject::shared(name, threads, move |_| {
        // Each caller has a clone of the service, as tower has it; the state is shared.
        let mut breaker = breaker.clone();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(breaker.poll_ready(&mut cx).is_ready());
        let mut call = breaker.call(());
        // Its lock is tokio's, which gives way when the other thread holds it.
        loop {
            match call.as_mut().poll(&mut cx) {
                Poll::Ready(result) => return result.is_ok(),
                Poll::Pending => std::hint::spin_loop(),
            }
        }
    })
}

/// Ours, open: the rejection.
pub fn rejected(name: &'static str, threads: usize) -> Subject {
    let breaker = open_breaker(&BreakerPolicy::standard().open_for(LONG).open_cap(LONG));
    Subject::shared(name, threads, move |i| -> Rejected { breaker.try_acquire(tick(i)).expect_err("open") })
}

/// failsafe, open.
pub fn failsafe_rejected(name: &'static str, threads: usize) -> Subject {
    let policy = failsafe::failure_policy::consecutive_failures(3, failsafe::backoff::constant(LONG));
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    while !matches!(breaker.call(|| Err::<(), ()>(())), Err(failsafe::Error::Rejected)) {}
    Subject::shared(name, threads, move |_| breaker.call(|| Ok::<(), ()>(())).is_err())
}

/// recloser, open.
pub fn recloser_rejected(name: &'static str, threads: usize) -> Subject {
    let breaker = Recloser::custom().closed_len(3).open_wait(LONG).build();
    while !matches!(breaker.call(|| Err::<(), ()>(())), Err(recloser::Error::Rejected)) {}
    Subject::shared(name, threads, move |_| breaker.call(|| Ok::<(), ()>(())).is_err())
}

/// An open breaker whose probes never expire while it is measured, and which holds none back for
/// longer than a moment.
fn short_breaker(probes: u32) -> Breaker {
    let moment = Duration::from_nanos(1);
    open_breaker(
        &BreakerPolicy::standard().open_for(moment).open_cap(moment).probes(probes).probe_timeout(LONG),
    )
}

/// Ours, half-open: a probe that gives its slot back. The state stays, so this can be done for
/// ever.
pub fn half_open(name: &'static str, threads: usize) -> Subject {
    let breaker = short_breaker(1);
    Subject::shared(name, threads, move |i| {
        let now = tick(i).after(Duration::from_secs(2));
        // Of two threads one may find the other's probe out.
        let probe = breaker.try_acquire(now).ok()?;
        breaker.record(probe.permit, CallResult::new(Verdict::Neutral, QUICK), now, || 0.5)
    })
}

/// Ours, half-open with every probe out: the rejection.
pub fn half_open_rejected(name: &'static str, threads: usize) -> Subject {
    let (breaker, now) = (short_breaker(2), tick(0).after(Duration::from_secs(2)));
    let probe = || breaker.try_acquire(now).expect("a slot is free").permit;
    breaker.record(probe(), CallResult::new(Verdict::Success, QUICK), now, || 0.5);
    // Never recorded: the slot stays taken until it expires, long after this.
    let _ = probe();
    Subject::shared(name, threads, move |i| -> Rejected {
        breaker.try_acquire(tick(i).after(Duration::from_secs(2))).expect_err("every probe is out")
    })
}

/// A first-try success pays in. The budget is full, as a healthy upstream's is.
pub fn deposit(name: &'static str, threads: usize) -> Subject {
    let budget = Budget::new(BudgetPolicy::standard().initial(100).compile().expect("rules"));
    Subject::shared(name, threads, move |_| budget.deposit())
}

/// An extra attempt is paid for and gets its token back.
pub fn withdraw_refund(name: &'static str, threads: usize) -> Subject {
    let budget = Budget::new(BudgetPolicy::standard().compile().expect("rules"));
    Subject::shared(name, threads, move |_| {
        let granted = budget.try_withdraw();
        granted.map(|token| budget.refund(token))
    })
}

/// A slot is taken and given back.
pub fn bulkhead(name: &'static str, threads: usize) -> Subject {
    let bulkhead = Bulkhead::new(BulkheadPolicy::standard().compile().expect("rules"));
    Subject::shared(name, threads, move |i| {
        let taken = bulkhead.try_acquire(Priority::Normal);
        bulkhead.release(|| tick(i));
        taken
    })
}
