//! A circuit breaker of one's own, round anything that can fail: a database call, a gRPC call, a
//! queue.
//!
//! The [client](crate::Client) keeps one breaker for each upstream and feeds it by itself. What a
//! service depends on besides fails in the same ways, so here is the same machine as a handle. The
//! rules are those of [`policy::breaker`](crate::policy::breaker); what this adds is the clock, and
//! permits that give themselves back.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::circuit::{CircuitBreaker, CircuitError};
//! use resilient_client::policy::breaker::BreakerPolicy;
//!
//! #[derive(Debug)]
//! enum DbError {
//!     NotFound,
//!     PoolTimedOut,
//! }
//! # async fn find_user(id: u64) -> Result<String, DbError> {
//! #     match id { 0 => Err(DbError::NotFound), 9 => Err(DbError::PoolTimedOut), _ => Ok("Ada".into()) }
//! # }
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let database = CircuitBreaker::new(&BreakerPolicy::standard().consecutive_failures(3))?;
//!
//! // That there is no such user says that the database works.
//! let is_failure = |error: &DbError| !matches!(error, DbError::NotFound);
//! let user = database.call_if(is_failure, find_user(7)).await;
//! assert_eq!(user.unwrap(), "Ada");
//!
//! for _ in 0..3 {
//!     let _ = database.call_if(is_failure, find_user(9)).await;
//! }
//! match database.call_if(is_failure, find_user(7)).await {
//!     Err(CircuitError::Open(open)) => assert!(open.retry_after > Some(Duration::ZERO)),
//!     other => panic!("the database wasn't to be asked: {other:?}"),
//! }
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One caveat: a breaker knows only what is reported to it. A call that hangs for ever tells
//! nothing, so put a timeout inside; one put round the call counts once the call was out for longer
//! than [`abandoned_after`](BreakerPolicy::abandoned_after).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::invalid::Invalid;
use crate::outcome::Verdict;
use crate::policy::breaker::{
    self, Breaker, BreakerPolicy, CallResult, Control, Snapshot, State, Transition,
};
use crate::rng::Rng;
use crate::sync::{AtomicU64, Ordering};
use crate::time::{self, Tick, nanos};

/// A circuit breaker to put round calls of one's own. Clones are handles on the same breaker.
///
/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    shared: Arc<Shared>,
}

struct Shared {
    breaker: Breaker,
    /// In nanoseconds.
    abandoned_after: AtomicU64,
    observer: Option<Box<Observer>>,
}

type Observer = dyn Fn(&Transition) + Send + Sync;

impl CircuitBreaker {
    /// A closed breaker.
    ///
    /// # Errors
    /// As [`BreakerPolicy::compile`].
    pub fn new(policy: &BreakerPolicy) -> Result<Self, Invalid> {
        Self::build(policy, None)
    }

    /// The same, telling `observer` of each change of state: once, on the task that brought it
    /// about, after the fact. It should be quick. A panic in it is dropped.
    ///
    /// # Errors
    /// As [`BreakerPolicy::compile`].
    pub fn with_observer(
        policy: &BreakerPolicy,
        observer: impl Fn(&Transition) + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        Self::build(policy, Some(Box::new(observer)))
    }

    fn build(policy: &BreakerPolicy, observer: Option<Box<Observer>>) -> Result<Self, Invalid> {
        let rules = policy.compile()?;
        let abandoned_after = AtomicU64::new(nanos(rules.abandoned_after()));
        let breaker = Breaker::new(rules);
        Ok(Self { shared: Arc::new(Shared { breaker, abandoned_after, observer }) })
    }

    /// Makes a call if the breaker lets it. Every `Err` is a failure.
    ///
    /// # Errors
    /// [`CircuitError::Open`] without polling `call` at all, or what `call` came to.
    pub async fn call<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, CircuitError<E>> {
        self.call_if(|_| true, call).await
    }

    /// Makes a call if the breaker lets it. An `Err` that isn't a failure (no such row, say) shows
    /// that the other side works, and counts as a success.
    ///
    /// # Errors
    /// [`CircuitError::Open`] without polling `call` at all, or what `call` came to.
    pub async fn call_if<T, E>(
        &self,
        is_failure: impl FnOnce(&E) -> bool,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CircuitError<E>> {
        let classify = |result: &Result<T, E>| match result {
            Err(error) if is_failure(error) => Verdict::Failure,
            Ok(_) | Err(_) => Verdict::Success,
        };
        self.call_with(classify, call).await
    }

    /// Makes a call if the breaker lets it, and counts it as `classify` says: for an `Ok` that is a
    /// failure, or a result that says nothing.
    ///
    /// # Errors
    /// [`CircuitError::Open`] without polling `call` at all, or what `call` came to.
    pub async fn call_with<T, E>(
        &self,
        classify: impl FnOnce(&Result<T, E>) -> Verdict,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CircuitError<E>> {
        let permit = self.try_acquire()?;
        let result = call.await;
        permit.settle(classify(&result));
        result.map_err(CircuitError::Inner)
    }

    /// Leave to make one call, for what no future can wrap. Say what became of it with the permit's
    /// methods.
    ///
    /// # Errors
    /// [`Open`] while the breaker rejects calls.
    pub fn try_acquire(&self) -> Result<CircuitPermit, Open> {
        let now = time::now();
        match self.shared.breaker.try_acquire(now) {
            Ok(admitted) => {
                self.shared.observe(admitted.transition);
                Ok(CircuitPermit {
                    shared: Arc::clone(&self.shared),
                    would_reject: admitted.would_reject.map(Open::from),
                    permit: Some(admitted.permit),
                    started: now,
                })
            }
            Err(rejected) => Err(rejected.into()),
        }
    }

    /// The state. Open lasts until a call comes, even when the open time is over.
    pub fn state(&self) -> State {
        self.shared.breaker.state()
    }

    /// The state and the counts.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.breaker.snapshot(time::now())
    }

    /// Follows another policy and keeps state and counts, as [`Breaker::set_rules`] says.
    ///
    /// # Errors
    /// As [`BreakerPolicy::compile`]; nothing has changed then.
    pub fn set_policy(&self, policy: &BreakerPolicy) -> Result<(), Invalid> {
        let rules = policy.compile()?;
        self.shared.abandoned_after.store(nanos(rules.abandoned_after()), Ordering::Relaxed);
        self.shared.observe(self.shared.breaker.set_rules(Some(rules)));
        Ok(())
    }

    /// Rejects every call from now on: [`Control::ForceOpen`].
    pub fn force_open(&self) -> Option<Transition> {
        self.control(Control::ForceOpen)
    }

    /// Admits every call from now on, and counts it: [`Control::ForceClosed`].
    pub fn force_closed(&self) -> Option<Transition> {
        self.control(Control::ForceClosed)
    }

    /// Admits every call from now on, and counts nothing: [`Control::Disable`].
    pub fn disable(&self) -> Option<Transition> {
        self.control(Control::Disable)
    }

    /// Rejects nothing from now on, and goes on judging: [`Control::Observe`].
    pub fn observe(&self) -> Option<Transition> {
        self.control(Control::Observe)
    }

    /// Lifts any of these: [`Control::Enable`].
    pub fn enable(&self) -> Option<Transition> {
        self.control(Control::Enable)
    }

    /// Closes it and forgets everything: [`Control::Reset`].
    pub fn reset(&self) -> Option<Transition> {
        self.control(Control::Reset)
    }

    /// Does as an operator says. `None` when there was nothing to change, or the state is as it
    /// was.
    ///
    /// It can't fail, as [`BreakerControl`](crate::BreakerControl)'s can: that one looks a client's
    /// upstream up, which may be gone.
    pub fn control(&self, control: Control) -> Option<Transition> {
        let transition = self.shared.breaker.control(control);
        self.shared.observe(transition);
        transition
    }
}

impl Shared {
    fn observe(&self, transition: Option<Transition>) {
        if let (Some(transition), Some(observer)) = (transition, &self.observer) {
            let _ = catch_unwind(AssertUnwindSafe(|| observer(&transition)));
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.breaker.snapshot(time::now()).fmt(f)
    }
}

/// Leave to make one call.
///
/// Dropped without a word, as when the future that holds it is dropped or panics, it gives its
/// place back. It then counts as a failure if it was out for longer than
/// [`abandoned_after`](BreakerPolicy::abandoned_after), else as nothing.
#[derive(Debug)]
#[must_use = "say what became of the call"]
pub struct CircuitPermit {
    shared: Arc<Shared>,
    /// `None` once settled.
    permit: Option<breaker::Permit>,
    would_reject: Option<Open>,
    started: Tick,
}

impl CircuitPermit {
    /// The call succeeded.
    pub fn success(self) {
        self.settle(Verdict::Success);
    }

    /// The call failed.
    pub fn failure(self) {
        self.settle(Verdict::Failure);
    }

    /// The call says nothing about the other side.
    pub fn ignore(self) {
        self.settle(Verdict::Neutral);
    }

    /// Whether this is one of the few calls let through to see whether the other side is back.
    pub fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(breaker::Permit::is_probe)
    }

    /// The rejection that this call would have had, were the breaker not in
    /// [`observe_only`](BreakerPolicy::observe_only).
    pub fn would_reject(&self) -> Option<Open> {
        self.would_reject
    }

    fn settle(mut self, verdict: Verdict) {
        self.record(Some(verdict));
    }

    fn record(&mut self, verdict: Option<Verdict>) {
        let Some(permit) = self.permit.take() else { return };
        let now = time::now();
        let took = now.since(self.started);
        let verdict = verdict.unwrap_or_else(|| {
            let abandoned = time::nanos(took) > self.shared.abandoned_after.load(Ordering::Relaxed);
            if abandoned { Verdict::Failure } else { Verdict::Neutral }
        });
        let unit = || Rng::from_thread().unit();
        let result = CallResult::new(verdict, took);
        self.shared.observe(self.shared.breaker.record(permit, result, now, unit));
    }
}

impl Drop for CircuitPermit {
    fn drop(&mut self) {
        self.record(None);
    }
}

/// The breaker rejects calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Open {
    /// When to try again, as [`Rejected::retry_after`](breaker::Rejected).
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(wait) => write!(f, "circuit breaker is open: next probe in {wait:.1?}"),
            None => f.write_str("circuit breaker is open: somebody has forced it"),
        }
    }
}

impl std::error::Error for Open {}

/// Why a call round a breaker failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CircuitError<E> {
    /// It wasn't made: the breaker rejects calls.
    Open(Open),
    /// It was made, and this came of it.
    Inner(E),
}

impl From<breaker::Rejected> for Open {
    fn from(breaker::Rejected { retry_after }: breaker::Rejected) -> Self {
        Self { retry_after }
    }
}

impl<E> From<Open> for CircuitError<E> {
    fn from(open: Open) -> Self {
        Self::Open(open)
    }
}

/// The inner error speaks for itself, with no level of ours above it.
impl<E: fmt::Display> fmt::Display for CircuitError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(open) => open.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for CircuitError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_) => None,
            Self::Inner(error) => error.source(),
        }
    }
}

#[cfg(test)]
mod tests;
