//! What is known of an upstream at one moment, for people and for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Upstream;
use super::endpoints::EndpointSnapshot;
use crate::authority::Authority;
use crate::authority::identity::UpstreamIdentity;
use crate::policy::breaker;
use crate::policy::concurrency::{self, Concurrency};
use crate::policy::overload;
use crate::policy::plan::Modes;
use crate::time::Tick;

/// Which of this process's clients, clones as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNumber(u64);

impl ClientNumber {
    const NONE: Self = Self(0);

    /// That of another client.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// One upstream's live state at one moment. From [`Client::snapshot`](crate::Client::snapshot) and
/// [`ResilienceLayer::snapshot`](crate::ResilienceLayer::snapshot).
///
/// Its parts are read one after the other while calls go on, so they may be a call apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpstreamSnapshot {
    /// The authority, such as `http://users:3000`, followed by the route, or by the key in quotes,
    /// if it has state of its own; `overflow` for all those together that have no place, and of
    /// which nothing is kept but the budget they share. At most 200 bytes: a longer one ends in an
    /// ellipsis and a hash.
    pub name: Arc<str>,
    /// The same taken apart.
    pub identity: UpstreamIdentity,
    /// Calls that have begun and aren't over: waiting, in flight, between attempts, or with a body
    /// still open.
    pub calls: u64,
    /// Attempts that hold a place: in flight, or with a body still open. Where a limit is found
    /// this, the limit and who waits are the whole host's.
    pub in_flight: u32,
    /// The most that may; `None` without a limit.
    pub limit: Option<u32>,
    /// What the adaptive limit knows, if there is one.
    pub concurrency: Option<concurrency::Snapshot>,
    /// Attempts that wait for a place.
    pub queued: usize,
    /// How many attempts it can answer in time; `None` where that is off, or known of each
    /// endpoint.
    pub overload: Option<overload::Snapshot>,
    /// Attempts that [wait for an open breaker](breaker::BreakerPolicy::wait_for_ready).
    pub waiting_for_ready: usize,
    /// The circuit breaker. Where the name stands for several endpoints theirs judge, and this one
    /// is disabled unless somebody forced it.
    pub breaker: breaker::Snapshot,
    /// Tokens in the budget for retries and hedges; infinite without a budget.
    pub budget: f64,
    /// The most the budget holds; infinite without a budget.
    pub budget_capacity: f64,
    /// Hedges that could be sent now under their cap.
    pub hedges: f64,
    /// The endpoints its name stands for; empty when it is the only one.
    pub endpoints: Vec<EndpointSnapshot>,
    /// What is left of a wait the upstream asked for; usually zero.
    pub held_back_for: Duration,
    /// Connections that are open to its host, or to its endpoints, whatever route or key they were
    /// made for; `None` where the transport doesn't tell, as hyper alone does.
    pub open_connections: Option<u64>,
    /// Whose it is: what its upstreams have in common is theirs, and no other client's.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "metrics alone ask"))]
    pub(crate) client: ClientNumber,
}

impl UpstreamSnapshot {
    /// Counts its connections, by the origin they go to.
    pub(crate) fn connected(&mut self, authority: &Authority<'_>, open_to: impl Fn(&str) -> u64) {
        let endpoints = self.endpoints.iter().map(|endpoint| open_to(endpoint.origin.as_str()));
        let own = self.endpoints.is_empty().then(|| open_to(&authority.to_string()));
        self.open_connections = Some(endpoints.chain(own).sum());
    }
}

impl Upstream {
    fn overload_snapshot(&self, now: Tick) -> Option<overload::Snapshot> {
        let on = self.balancer.is_none() && self.modes().has(Modes::OVERLOAD);
        on.then(|| self.overload(self.gate()).snapshot(now))
    }

    /// Its name, taken apart.
    pub(crate) fn identity(&self) -> UpstreamIdentity {
        UpstreamIdentity::of(&self.key)
    }

    pub(crate) fn snapshot(&self, now: Tick) -> UpstreamSnapshot {
        let bulkhead = self.bulkhead(self.slot());
        UpstreamSnapshot {
            name: Arc::clone(self.name()),
            identity: self.identity(),
            calls: self.unfinished(),
            in_flight: self.in_use(),
            limit: bulkhead.limit(),
            concurrency: self.adaptive().map(Concurrency::snapshot),
            queued: bulkhead.queued() + self.line(self.gate()).len(),
            overload: self.overload_snapshot(now),
            waiting_for_ready: self.ready.len(),
            breaker: self.breaker_snapshot(now),
            budget: self.budget().available(),
            budget_capacity: self.budget().capacity(),
            hedges: self.hedges.available(),
            endpoints: self.balancer.as_ref().map_or_else(Vec::new, |balancer| balancer.set().snapshot(now)),
            held_back_for: now.until(self.held_until()),
            open_connections: None,
            client: ClientNumber::NONE,
        }
    }
}
