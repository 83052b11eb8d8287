//! One endpoint: where it is and what is known of it.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::event::Event;
use crate::origin::Origin;
use crate::policy::balance;
use crate::policy::breaker::{Breaker, Control, Snapshot, State, Transition};
use crate::policy::overload::{self, Ended, Line, OverloadLimit};
use crate::rng::Entropy;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::telemetry::Events;
use crate::time::{self, Tick, nanos};

use super::Checks;
use super::probation::Probation;
use super::score::{Load, Score};
use crate::upstream::retry_after_hold::{LONGEST, RetryAfterHold};

/// Tells a set's endpoints apart, even after one has left and another has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId(pub(super) u64);

/// Which calls an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Any,
    /// The next call would be a probe.
    Probe,
    /// None: its breaker is open, or its probes are out, for another so long; or until somebody
    /// lifts what was forced.
    Nothing(Option<Duration>),
    /// None: it asked everybody to stay away, for another so long.
    Held(Duration),
}

/// One endpoint of a set. It lives as long as the set lists it or a call holds it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    id: EndpointId,
    origin: Origin,
    pub(super) breaker: Breaker,
    in_flight: AtomicU32,
    /// How many attempts it can answer in time.
    pub(super) overload: OverloadLimit,
    /// Who waits for a place at it or any other.
    line: Arc<Line>,
    pub(super) score: Score,
    /// When it was added or came back, as a `Tick`; zero if that needs no care.
    since: AtomicU64,
    /// Beside others that are well.
    pub(super) probation: Probation,
    /// Whether its `Retry-After` holds for everybody.
    hold: RetryAfterHold,
    /// Until when others are asked rather than this one, as it wished, as a `Tick`. Never before
    /// the end of `hold`.
    spared_until: AtomicU64,
    /// A dropped attempt older than this counts as a failure, in nanoseconds.
    pub(super) abandoned_after: AtomicU64,
    pub(super) entropy: Entropy,
    events: Events,
    /// Whether it may be told how long its answers are waited for.
    told: OnceLock<bool>,
    /// What a transport keeps of it: a pool of connections.
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// One of the endpoints behind a name at one moment. From
/// [`UpstreamSnapshot`](crate::UpstreamSnapshot).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Where it is.
    pub origin: Origin,
    /// Attempts in flight there, and answered ones whose bodies haven't ended.
    pub in_flight: u32,
    /// The latency it is judged by: the peak of late, decaying. Zero before anything is known.
    pub latency: Duration,
    /// The share of its attempts that failed or were overtaken lately, 0 to 1, the newest weighing
    /// most.
    pub failing: f32,
    /// Its own circuit breaker.
    pub breaker: Snapshot,
    /// How many attempts it can answer in time.
    pub overload: overload::Snapshot,
}

impl Endpoint {
    pub(super) fn new(id: EndpointId, origin: Origin, checks: &Checks, since: u64) -> Self {
        let endpoint = Self {
            id,
            origin,
            breaker: Breaker::disabled(),
            in_flight: AtomicU32::new(0),
            overload: OverloadLimit::new(checks.overload.is_some()),
            line: Arc::clone(&checks.line),
            score: Score::new(),
            since: AtomicU64::new(since),
            probation: Probation::default(),
            hold: RetryAfterHold::new(),
            spared_until: AtomicU64::new(0),
            abandoned_after: AtomicU64::new(u64::MAX),
            entropy: checks.entropy.clone(),
            events: checks.events.clone(),
            told: OnceLock::new(),
            kept: OnceLock::new(),
        };
        // Not `follow`: that a new breaker is closed is nobody's news.
        endpoint.take_rules(checks);
        endpoint
    }

    /// Whether it may be told how long its answers are waited for: as `decide` says, which is asked
    /// once.
    pub(crate) fn is_told(&self, decide: impl FnOnce() -> bool) -> bool {
        *self.told.get_or_init(decide)
    }

    /// Follows other rules, and keeps its state.
    pub(super) fn follow(&self, checks: &Checks) {
        if let Some(transition) = self.take_rules(checks) {
            self.probation.taken();
            self.emit(transition);
        }
        let changed = self.overload.switch(checks.overload.is_some());
        self.has_answered(time::now());
        if let Some(change) = changed {
            self.overload_changed(change);
        }
    }

    /// Does as an operator says, and tells of it.
    pub(super) fn control(&self, control: Control, now: Tick) -> Option<Transition> {
        let transition = self.breaker.control(control)?;
        // Whatever a probation had come to, it is over.
        self.probation.taken();
        let took_none = matches!(transition.from, State::Open | State::HalfOpen | State::ForcedOpen);
        if took_none && transition.to == State::Closed {
            self.returned(now);
        }
        self.emit(transition);
        Some(transition)
    }

    fn take_rules(&self, checks: &Checks) -> Option<Transition> {
        let abandoned_after =
            checks.breaker.as_ref().map_or(u64::MAX, |rules| nanos(rules.abandoned_after()));
        self.abandoned_after.store(abandoned_after, Ordering::Relaxed);
        self.breaker.set_rules(checks.breaker.clone())
    }

    /// An attempt came to something, or its time passed.
    pub(crate) fn tell_overload(&self, sample: overload::Sample, now: Tick) {
        if let Some(change) = self.overload.record(sample, now) {
            self.overload_changed(change);
        }
    }

    #[cold]
    fn overload_changed(&self, change: overload::Change) {
        if change.from.is_some() != change.to.is_some() {
            self.events.emit(self.origin.as_str(), || Event::OverloadLimit { limit: change.to });
        }
        self.line.wake();
    }

    /// Its place is free again.
    pub(super) fn leave(&self, ended: Ended, now: impl FnOnce() -> Tick) {
        if self.overload.release(ended) {
            if ended == Ended::Answered {
                self.has_answered(now());
            }
            self.line.wake();
        }
    }

    /// It may have been silent.
    #[cold]
    fn has_answered(&self, now: Tick) {
        if let Some(duration) = self.overload.notes_answer(now) {
            self.tell(|| Event::Silence { silent: false, duration });
        }
    }

    /// An attempt found it silent.
    #[cold]
    pub(super) fn found_silent(&self, now: Tick) {
        if let Some(duration) = self.overload.notes_silence(now) {
            self.tell(|| Event::Silence { silent: true, duration });
        }
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What the client's one transport keeps of it, made at first; `None` for what another kind has
    /// made.
    #[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "reqwest keeps nothing of an endpoint"))]
    pub(crate) fn keeps<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.kept.get_or_init(|| Box::new(make())).downcast_ref()
    }

    /// Attempts it has, bodies being read included.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it takes any call and nothing speaks for asking another one: two loads, for the many
    /// draws in which that is all there is to know.
    pub(super) fn is_well(&self, now: Tick) -> bool {
        self.takes_any() && !self.is_spared(now)
    }

    /// Whether its breaker lets every call through.
    pub(super) fn takes_any(&self) -> bool {
        self.breaker.takes_any()
    }

    /// Whether it asked to be left alone, so that others are asked first.
    pub(super) fn is_spared(&self, now: Tick) -> bool {
        now.as_nanos() < self.spared_until.load(Ordering::Relaxed)
    }

    pub(super) fn takes(&self, now: Tick) -> Takes {
        let held = now.until(self.hold.until());
        if !held.is_zero() {
            return Takes::Held(held);
        }
        if self.takes_any() {
            return Takes::Any;
        }
        self.breaker.rejects_now(now).map_or(Takes::Probe, |rejected| Takes::Nothing(rejected.retry_after))
    }

    /// It answered with `Retry-After`: others are asked first for so long. For how long nobody may
    /// ask it, as far as one answer can say that.
    pub(crate) fn asked_for_time(&self, asked: Duration, now: Tick) -> Option<Duration> {
        let until = now.after(asked.min(LONGEST));
        self.spared_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
        let held = self.hold.asked(asked, now);
        if let Some(duration) = held {
            self.events.emit(self.origin.as_str(), || Event::HeldBack { duration });
        }
        held
    }

    pub(super) fn succeeded(&self, now: Tick) {
        self.hold.succeeded(now);
    }

    /// Whether an attempt has succeeded within so many nanoseconds, or up to a second more.
    pub(crate) fn has_served_within(&self, nanos: u64, now: Tick) -> bool {
        self.hold.has_succeeded_within(nanos, now)
    }

    pub(super) fn load(&self, rules: &balance::Rules, now: Tick) -> Load {
        self.score.load(self.in_flight(), rules, now)
    }

    /// The probability with which it takes part in a draw.
    pub(super) fn share_of_draws(&self, rules: &balance::Rules, now: Tick) -> f64 {
        rules.share_of_draws(self.since.load(Ordering::Relaxed), now)
    }

    /// Its breaker closed: what is remembered of the bad time says nothing any more, and the good
    /// one begins slowly.
    pub(super) fn recovered(&self, now: Tick) {
        self.score.clear();
        self.returned(now);
    }

    /// It takes calls again after a time in which it took none: slowly at first.
    pub(super) fn returned(&self, now: Tick) {
        self.since.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    /// Its breaker changed its state, and it wasn't by a change of rules.
    pub(super) fn changed(&self, transition: Transition, now: Tick) {
        match (transition.from, transition.to) {
            (_, State::Closed) => {
                self.probation.taken();
                self.recovered(now);
            }
            (State::Closed, _) => self.probation.taken(),
            _ => {}
        }
        self.emit(transition);
    }

    pub(super) fn emit(&self, transition: Transition) {
        self.tell(|| Event::BreakerTransition(transition));
    }

    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        self.events.emit(self.origin.as_str(), event);
    }

    pub(crate) fn snapshot(&self, rules: &balance::Rules, now: Tick) -> EndpointSnapshot {
        let (latency, failing) = self.score.estimate(rules, now);
        EndpointSnapshot {
            origin: self.origin.clone(),
            in_flight: self.in_flight(),
            latency: Duration::from_nanos(latency),
            failing,
            breaker: self.breaker.snapshot(now),
            overload: self.overload.snapshot(now),
        }
    }
}
