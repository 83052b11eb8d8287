//! One endpoint: where it is and what is known of it.

use std::time::Duration;

use crate::endpoints::Origin;
use crate::event::{Event, Events};
use crate::policy::balance;
use crate::policy::breaker::{Breaker, Control, Snapshot, State, Transition};
use crate::rng::Entropy;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::{Tick, nanos};

use super::Checks;
use super::score::{Load, Score};

/// Tells a set's endpoints apart, even after one has left and another has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId(pub(super) u64);

/// What an endpoint's breaker would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It takes any call.
    In,
    /// The next call would be a probe.
    Probing,
    /// It takes none.
    Out,
}

/// One endpoint of a set. It lives as long as the set lists it or a call holds it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    id: EndpointId,
    origin: Origin,
    pub(super) breaker: Breaker,
    in_flight: AtomicU32,
    pub(super) score: Score,
    /// When it was added or came back, as a `Tick`; zero if that needs no care.
    since: AtomicU64,
    /// When the probe that is out set out, as a `Tick`; zero while none is.
    probed: AtomicU64,
    /// A dropped attempt older than this counts as a failure, in nanoseconds.
    pub(super) abandoned_after: AtomicU64,
    pub(super) entropy: Entropy,
    events: Events,
}

/// One of the endpoints behind a name at one moment. From [`UpstreamSnapshot`](crate::UpstreamSnapshot).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Where it is.
    pub origin: Origin,
    /// Attempts in flight there, and answered ones whose bodies haven't ended.
    pub in_flight: u32,
    /// The latency it is judged by: the peak of late, decaying. Zero before anything is known.
    pub latency: Duration,
    /// The share of its attempts that failed or were overtaken lately, 0 to 1, the newest weighing most.
    pub failing: f32,
    /// Its own circuit breaker.
    pub breaker: Snapshot,
}

impl Endpoint {
    pub(super) fn new(id: EndpointId, origin: Origin, checks: &Checks, since: u64) -> Self {
        let endpoint = Self {
            id,
            origin,
            breaker: Breaker::disabled(),
            in_flight: AtomicU32::new(0),
            score: Score::new(),
            since: AtomicU64::new(since),
            probed: AtomicU64::new(0),
            abandoned_after: AtomicU64::new(u64::MAX),
            entropy: checks.entropy.clone(),
            events: checks.events.clone(),
        };
        // Not `follow`: that a new breaker is closed is nobody's news.
        endpoint.take_rules(checks);
        endpoint
    }

    /// Follows other rules, and keeps its state.
    pub(super) fn follow(&self, checks: &Checks) {
        if let Some(transition) = self.take_rules(checks) {
            self.emit(transition);
        }
    }

    /// Does as an operator says, and tells of it.
    pub(super) fn control(&self, control: Control) -> Option<Transition> {
        let transition = self.breaker.control(control)?;
        self.emit(transition);
        Some(transition)
    }

    fn take_rules(&self, checks: &Checks) -> Option<Transition> {
        let abandoned_after =
            checks.breaker.as_ref().map_or(u64::MAX, |rules| nanos(rules.abandoned_after()));
        self.abandoned_after.store(abandoned_after, Ordering::Relaxed);
        self.breaker.set_rules(checks.breaker.clone())
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
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

    pub(super) fn standing(&self, now: Tick) -> Standing {
        match self.breaker.state() {
            State::Closed | State::Disabled | State::ForcedClosed => Standing::In,
            State::Open | State::HalfOpen | State::ForcedOpen if self.breaker.only_observes() => Standing::In,
            State::Open | State::HalfOpen | State::ForcedOpen => match self.breaker.rejects_now(now) {
                Some(_) => Standing::Out,
                None => Standing::Probing,
            },
        }
    }

    /// Whether the next probe should set out: one at a time, so that an endpoint that hangs costs one call per opening and not
    /// as many as its breaker would admit. One that is out for long, an endless stream perhaps, keeps no other waiting.
    pub(super) fn wants_probe(&self, now: Tick) -> bool {
        const LONG: u64 = 5_000_000_000;
        let probed = self.probed.load(Ordering::Relaxed);
        probed == 0 || now.as_nanos().saturating_sub(probed) >= LONG
    }

    pub(super) fn probe_began(&self, now: Tick) {
        self.probed.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    pub(super) fn probe_ended(&self) {
        self.probed.store(0, Ordering::Relaxed);
    }

    pub(super) fn load(&self, rules: &balance::Rules, now: Tick) -> Load {
        self.score.load(self.in_flight(), rules, now)
    }

    /// The probability with which it stands for a draw.
    pub(super) fn standing_chance(&self, rules: &balance::Rules, now: Tick) -> f64 {
        rules.standing(self.since.load(Ordering::Relaxed), now)
    }

    /// Its breaker closed: what is remembered of the bad time says nothing any more, and the good one begins slowly.
    pub(super) fn recovered(&self, now: Tick) {
        self.score.clear();
        self.since.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    pub(super) fn emit(&self, transition: Transition) {
        self.events.emit(self.origin.as_str(), || Event::BreakerTransition(transition));
    }

    pub(crate) fn snapshot(&self, rules: &balance::Rules, now: Tick) -> EndpointSnapshot {
        let (latency, failing) = self.score.estimate(rules, now);
        EndpointSnapshot {
            origin: self.origin.clone(),
            in_flight: self.in_flight(),
            latency: Duration::from_nanos(latency),
            failing,
            breaker: self.breaker.snapshot(now),
        }
    }
}
