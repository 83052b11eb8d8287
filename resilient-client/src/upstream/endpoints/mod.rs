//! The endpoints behind one name: what is known of each, which of them takes an attempt, and how
//! the list is kept.
//!
//! [`Balancer`] is what a call deals with. It keeps an [`EndpointSet`] in step with where the list
//! comes from; the set chooses ([`choose`]) and hands out an [`EndpointPermit`]. The rules are
//! described at [`policy::balance`](crate::policy::balance).

mod balancer;
mod choose;
mod endpoint;
mod endpoint_permit;
mod probation;
mod refresh;
mod score;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub(crate) use balancer::Balancer;
pub use endpoint::EndpointSnapshot;
use endpoint::Takes;
pub(crate) use endpoint::{Endpoint, EndpointId};
pub(crate) use endpoint_permit::EndpointPermit;

use crate::endpoints::Changed;
use crate::origin::{MOST_ENDPOINTS, Origin};
use crate::policy::balance::Rules;
use crate::policy::breaker::{self, Control, Transition};
use crate::policy::overload::{self, Ended, Line};
use crate::policy::priority::Priority;
use crate::rng::{Entropy, Rng};
use crate::sync::Mutex;
use crate::telemetry::{Events, Held};
use crate::time::{self, Tick};

/// What every endpoint of a set is made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    /// `None`: no endpoint is ever out.
    pub(crate) breaker: Option<breaker::Rules>,
    /// `None`: none ever has too much in flight.
    pub(crate) overload: Option<overload::Rules>,
    /// Where who finds no place at any of them waits.
    pub(crate) line: Arc<Line>,
    pub(crate) entropy: Entropy,
    pub(crate) events: Events,
}

/// A name has no endpoint of this origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoSuchEndpoint;

/// The endpoints of one name, shared by its calls.
#[derive(Debug)]
pub(crate) struct EndpointSet {
    list: ArcSwap<List>,
    /// What an update needs and a choice doesn't. Held while the list is replaced, so that no
    /// update is lost.
    writer: Mutex<Writer>,
    /// Who waits for a place at any of them.
    line: Arc<Line>,
    /// How long one that left is remembered.
    grace: Duration,
}

/// The endpoints there are, and how one is chosen.
#[derive(Debug)]
struct List {
    endpoints: Box<[Arc<Endpoint>]>,
    rules: Rules,
}

/// Where an attempt of a call has been.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) id: EndpointId,
    /// It isn't asked again before this: it answered the call with `Retry-After`.
    pub(crate) rests_until: Tick,
}

impl Trial {
    pub(crate) fn of(id: EndpointId) -> Self {
        Self { id, rests_until: Tick::ZERO }
    }
}

/// What an attempt looks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seek<'a> {
    /// Where its call has been.
    pub(crate) tried: &'a [Trial],
    /// Another attempt could follow, whatever comes of this one.
    pub(crate) repeatable: bool,
    /// Somebody forced the name's breaker closed: its endpoints' aren't asked.
    pub(crate) overrules: bool,
    pub(crate) priority: Priority,
    pub(crate) heeds: Heeds,
}

/// What keeps an attempt from an endpoint that may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heeds {
    /// Whether there is a place is of no interest.
    Nothing,
    /// Its limit.
    Limit,
    /// Its limit and its silence.
    Silence,
}

impl Seek<'_> {
    /// The first attempt of a call that can't be repeated.
    pub(crate) const fn first() -> Self {
        Seek {
            tried: &[],
            repeatable: false,
            overrules: false,
            priority: Priority::Normal,
            heeds: Heeds::Silence,
        }
    }
}

fn has_been(tried: &[Trial], endpoint: &Endpoint) -> bool {
    tried.iter().any(|trial| trial.id == endpoint.id())
}

/// Until when the call leaves this one alone; long past if it never asked for that.
fn rests_until(tried: &[Trial], endpoint: &Endpoint) -> Tick {
    let its = tried.iter().filter(|trial| trial.id == endpoint.id());
    its.map(|trial| trial.rests_until).max().unwrap_or(Tick::ZERO)
}

/// Why no endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// There is none.
    Empty,
    /// Their breakers refuse: the first to let a probe through does so after this, or none does, as
    /// somebody has forced all of them open.
    Open(Option<Duration>),
    /// They asked to be left alone: the first may be asked after this.
    Held(Duration),
    /// Those that may be asked have as much in flight as they can answer in time, one of them so
    /// much.
    Full(u32),
    /// Those that may be asked answer nothing.
    Silent,
}

#[derive(Debug)]
struct Writer {
    checks: Checks,
    next_id: u64,
    /// Endpoints that left, and when.
    gone: HashMap<Origin, (Arc<Endpoint>, Tick)>,
}

impl EndpointSet {
    /// A set without endpoints.
    pub(crate) fn new(rules: Rules, checks: Checks, grace: Duration) -> Self {
        checks.line.set_rules(checks.overload);
        Self {
            line: Arc::clone(&checks.line),
            list: ArcSwap::from_pointee(List { endpoints: Box::default(), rules }),
            writer: Mutex::new(Writer { checks, next_id: 0, gone: HashMap::new() }),
            grace,
        }
    }

    /// These are the endpoints now. Those that stay, or come back in time, keep their state; those
    /// that leave finish the attempts they have. An endpoint named twice is there once.
    pub(crate) fn update(&self, origins: &[Origin], now: Tick) -> Changed {
        // Observers hear what a return changes when the lock is free: they may reload.
        let _events = Held::begin();
        let mut writer = self.writer.lock();
        let Writer { checks, next_id, gone } = &mut *writer;
        let before = self.list.load_full();
        let mut known: HashMap<&Origin, &Arc<Endpoint>> =
            before.endpoints.iter().map(|endpoint| (endpoint.origin(), endpoint)).collect();
        gone.retain(|_, (_, left)| now.since(*left) <= self.grace);
        // Those of the first list have nobody to take the load while they start.
        let since = if before.endpoints.is_empty() && gone.is_empty() { 0 } else { now.as_nanos().max(1) };
        let (mut seen, mut added) = (HashSet::new(), 0);
        let mut endpoints = Vec::with_capacity(origins.len());
        for origin in origins {
            if !seen.insert(origin) {
                continue;
            }
            if let Some(stays) = known.remove(origin) {
                endpoints.push(Arc::clone(stays));
                continue;
            }
            added += 1;
            if let Some((returns, _)) = gone.remove(origin) {
                returns.follow(checks);
                // What went away and came back has been started anew, as likely as not.
                returns.returned(now);
                endpoints.push(returns);
                continue;
            }
            *next_id += 1;
            endpoints.push(Arc::new(Endpoint::new(EndpointId(*next_id), origin.clone(), checks, since)));
        }
        let changed = Changed { added, removed: known.len() };
        for (origin, leaves) in known {
            // A name that never answers the same twice must not make us remember without bound.
            if gone.len() < MOST_ENDPOINTS {
                gone.insert(origin.clone(), (Arc::clone(leaves), now));
            }
        }
        if changed.any() {
            self.list.store(Arc::new(List { endpoints: endpoints.into(), rules: before.rules }));
        }
        changed
    }

    /// Does with one of them as an operator says.
    pub(crate) fn control(
        &self,
        origin: &Origin,
        control: Control,
    ) -> Result<Option<Transition>, NoSuchEndpoint> {
        let list = self.list.load();
        let endpoint = list.endpoints.iter().find(|endpoint| endpoint.origin() == origin);
        endpoint.map(|endpoint| endpoint.control(control, time::now())).ok_or(NoSuchEndpoint)
    }

    /// Follows other rules from now on, and keeps its state.
    pub(crate) fn follow(
        &self,
        rules: Rules,
        breaker: Option<breaker::Rules>,
        overload: Option<overload::Rules>,
    ) {
        let mut writer = self.writer.lock();
        writer.checks.breaker = breaker;
        writer.checks.overload = overload;
        self.line.set_rules(overload);
        let before = self.list.load_full();
        self.list.store(Arc::new(List { endpoints: before.endpoints.clone(), rules }));
        for endpoint in &before.endpoints {
            endpoint.follow(&writer.checks);
        }
    }

    /// A place at the best endpoint for an attempt.
    ///
    /// # Errors
    /// [`Shut`] when no endpoint may be asked.
    pub(crate) fn admit(&self, seek: &Seek<'_>, now: Tick, rng: &mut Rng) -> Result<EndpointPermit, Shut> {
        // Each lost race is another call's doing, so few are lost in a row.
        const RACES: usize = 64;
        let list = self.list.load();
        let permit = |endpoint: &Arc<Endpoint>, breaker| {
            Ok(EndpointPermit::new(Arc::clone(endpoint), breaker, list.rules, now))
        };
        for _ in 0..RACES {
            let Some(endpoint) = list.choose(seek, now, rng) else { break };
            // Many may have chosen it for its last place.
            if !seek.enters(endpoint, now) {
                continue;
            }
            if seek.overrules {
                return permit(endpoint, None);
            }
            // Many may have chosen one that is on probation; its breaker lets one go, and the
            // others look elsewhere. Or it has opened since it was chosen.
            let Ok(admitted) = endpoint.breaker.try_acquire(now) else {
                endpoint.overload.release(Ended::Unsent);
                continue;
            };
            if admitted.permit.is_probe() {
                endpoint.probation.taken();
            }
            if let Some(transition) = admitted.transition {
                endpoint.emit(transition);
            }
            if admitted.would_reject.is_some() {
                list.would_refuse(endpoint, now);
            }
            return permit(endpoint, Some(admitted.permit));
        }
        let shut = list.shut(seek, now);
        if shut == Shut::Silent && list.scouts(now) {
            return self.admit(&Seek { heeds: Heeds::Limit, ..*seek }, now, rng);
        }
        // Who waits for a place isn't turned away.
        if !matches!(shut, Shut::Full(_) | Shut::Silent) {
            list.turn_away(now);
        }
        Err(shut)
    }

    /// Who waits for a place at any endpoint.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Whether an endpoint's limit is in force.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.list.load().endpoints.iter().any(|endpoint| endpoint.overload.limit().is_some())
    }

    /// Whether a probe has succeeded at one of them, and the others are out; when to look again, as
    /// [`Breaker::recovers`](crate::policy::breaker::Breaker) has it.
    pub(crate) fn recovers(&self, now: Tick) -> Option<Duration> {
        self.list.load().endpoints.iter().filter_map(|endpoint| endpoint.breaker.recovers(now)).min()
    }

    /// Whether an attempt would wait for an answer of a silent one.
    pub(crate) fn keeps_back(&self, seek: &Seek<'_>, now: Tick) -> bool {
        self.list.load().keeps_back(seek, now)
    }

    /// Tells of those that are silent.
    pub(crate) fn tell_silence(&self, now: Tick) {
        self.list.load().silent(now).for_each(|endpoint| endpoint.found_silent(now));
    }

    /// Whether one of them is silent.
    pub(crate) fn is_silent(&self, now: Tick) -> bool {
        self.list.load().silent(now).next().is_some()
    }

    /// Whether one that is silent may be asked whether it is still.
    pub(crate) fn is_scout_due(&self, now: Tick) -> bool {
        self.list.load().silent(now).any(|endpoint| endpoint.overload.is_scout_due(now))
    }

    /// Whether an endpoint has a place.
    pub(crate) fn has_place(&self, priority: Priority, now: Tick) -> bool {
        self.list.load().endpoints.iter().any(|endpoint| endpoint.overload.place(priority, now).is_ok())
    }

    /// Why no endpoint may be asked now, if that is so; nothing is known of an empty list.
    pub(crate) fn shut(&self, now: Tick) -> Option<Shut> {
        let list = self.list.load();
        let refuses = |endpoint: &Arc<Endpoint>| !matches!(endpoint.takes(now), Takes::Any | Takes::Probe);
        let all = !list.endpoints.is_empty() && list.endpoints.iter().all(refuses);
        all.then(|| list.shut(&Seek::first(), now))
    }

    /// Whether there is an endpoint that a call hasn't `tried`, may ask, and wasn't asked to spare.
    pub(crate) fn has_another(&self, tried: &[Trial], now: Tick) -> bool {
        self.list.load().endpoints.iter().any(|endpoint| {
            !has_been(tried, endpoint)
                && !endpoint.is_spared(now)
                && matches!(endpoint.takes(now), Takes::Any | Takes::Probe)
        })
    }

    /// From when on a call that has `tried` some may ask one again, as far as they ask for time;
    /// `None` where no breaker lets it.
    pub(crate) fn again_from(&self, tried: &[Trial], now: Tick) -> Option<Tick> {
        let list = self.list.load();
        let from = |endpoint: &Arc<Endpoint>| {
            let rests_until = rests_until(tried, endpoint);
            match endpoint.takes(now) {
                Takes::Any | Takes::Probe => Some(rests_until.max(now)),
                Takes::Held(wait) => Some(rests_until.max(now.after(wait))),
                Takes::Nothing(_) => None,
            }
        };
        list.endpoints.iter().filter_map(from).min()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.load().endpoints.len()
    }

    pub(crate) fn snapshot(&self, now: Tick) -> Vec<EndpointSnapshot> {
        let list = self.list.load();
        list.endpoints.iter().map(|endpoint| endpoint.snapshot(&list.rules, now)).collect()
    }
}
