//! The endpoints behind one name: what is known of each, which of them takes an attempt, and how the list is kept.
//!
//! [`Balancer`] is what a call deals with. It keeps an [`EndpointSet`] in step with where the list comes from; the set
//! chooses ([`choose`]) and hands out an [`EndpointPermit`]. The rules are told at [`policy::balance`](crate::policy::balance).

mod balancer;
mod choose;
mod endpoint;
mod permit;
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
pub(crate) use endpoint::{Endpoint, EndpointId};
pub(crate) use permit::EndpointPermit;

use crate::endpoints::{Changed, MOST_ENDPOINTS, Origin};
use crate::event::Events;
use crate::policy::balance::Rules;
use crate::policy::breaker::{self, Control, Transition};
use crate::rng::{Entropy, Rng};
use crate::sync::Mutex;
use crate::time::Tick;

/// What every endpoint of a set is made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    /// `None`: no endpoint is ever out.
    pub(crate) breaker: Option<breaker::Rules>,
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
    /// What an update needs and a choice doesn't. Held while the list is replaced, so that no update is lost.
    writer: Mutex<Writer>,
    /// How long one that left is remembered.
    grace: Duration,
}

/// The endpoints there are, and how one is chosen.
#[derive(Debug)]
struct List {
    endpoints: Box<[Arc<Endpoint>]>,
    rules: Rules,
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
        Self {
            list: ArcSwap::from_pointee(List { endpoints: Box::default(), rules }),
            writer: Mutex::new(Writer { checks, next_id: 0, gone: HashMap::new() }),
            grace,
        }
    }

    /// These are the endpoints now. Those that stay, or come back in time, keep their state; those that leave finish the
    /// attempts they have. An endpoint named twice is there once.
    pub(crate) fn update(&self, origins: &[Origin], now: Tick) -> Changed {
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
        endpoint.map(|endpoint| endpoint.control(control)).ok_or(NoSuchEndpoint)
    }

    /// Follows other rules from now on, and keeps its state.
    pub(crate) fn follow(&self, rules: Rules, breaker: Option<breaker::Rules>) {
        let mut writer = self.writer.lock();
        writer.checks.breaker = breaker;
        let before = self.list.load_full();
        self.list.store(Arc::new(List { endpoints: before.endpoints.clone(), rules }));
        for endpoint in &before.endpoints {
            endpoint.follow(&writer.checks);
        }
    }

    /// A place at the best endpoint for an attempt of a call that has `tried` those before. `None` when there is none.
    ///
    /// Of a single endpoint nothing is asked: the upstream's own breaker governs.
    pub(crate) fn admit(&self, tried: &[EndpointId], now: Tick, rng: &mut Rng) -> Option<EndpointPermit> {
        // Each lost race is another call's doing, so few are lost in a row.
        const RACES: usize = 8;
        let list = self.list.load();
        let permit = |endpoint: &Arc<Endpoint>, breaker| {
            Some(EndpointPermit::new(Arc::clone(endpoint), breaker, list.rules, now))
        };
        if let [only] = &*list.endpoints {
            return permit(only, None);
        }
        for _ in 0..RACES {
            let pick = list.choose(tried, now, rng)?;
            match pick.endpoint.breaker.try_acquire(now) {
                Ok(admitted) => {
                    if let Some(transition) = admitted.transition {
                        pick.endpoint.emit(transition);
                    }
                    return permit(pick.endpoint, Some(admitted.permit));
                }
                Err(_) if pick.panic => return permit(pick.endpoint, None),
                // Opened, or gave its last probe away, since it was chosen.
                Err(_) => {}
            }
        }
        permit(list.choose(tried, now, rng)?.endpoint, None)
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
