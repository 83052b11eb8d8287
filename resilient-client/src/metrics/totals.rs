//! Levels of upstreams that have the same labels, summed.

use crate::policy::breaker::{Control, State};
use crate::policy::overload;
use crate::upstream::UpstreamSnapshot;

/// Breakers' states, each of which has a gauge.
pub(super) const STATES: [State; 6] =
    [State::Closed, State::Open, State::HalfOpen, State::Disabled, State::ForcedOpen, State::ForcedClosed];

/// What somebody may have told a breaker, each of which has a gauge.
pub(super) const HELD: [Control; 4] =
    [Control::ForceOpen, Control::ForceClosed, Control::Disable, Control::Observe];

/// Those of one client's host first, by [`add`](Self::add), and then of all, by [`and`](Self::and).
#[derive(Default)]
pub(super) struct Totals {
    pub(super) states: [u32; STATES.len()],
    pub(super) held: [u32; HELD.len()],
    pub(super) in_use: u64,
    pub(super) queued: u64,
    pub(super) silent: u32,
    pub(super) limit: Option<u64>,
    pub(super) budget: Option<f64>,
}

impl Totals {
    pub(super) fn add(&mut self, upstream: &UpstreamSnapshot) {
        let endpoints = upstream.endpoints.iter().map(|endpoint| endpoint.breaker.state);
        let own = upstream.endpoints.is_empty().then_some(upstream.breaker.state);
        for state in endpoints.chain(own) {
            if let Some(index) = STATES.iter().position(|known| *known == state) {
                self.states[index] += 1;
            }
        }
        // The upstream's own, too, where it isn't one: calls ask it before its endpoints'.
        let held = upstream.endpoints.iter().map(|endpoint| endpoint.breaker.held);
        for control in held.chain([upstream.breaker.held]).flatten() {
            if let Some(index) = HELD.iter().position(|known| *known == control) {
                self.held[index] += 1;
            }
        }
        let (in_use, queued) = (u64::from(upstream.in_flight), upstream.queued as u64);
        let limit = upstream.limit.map(u64::from);
        let is_silent = |overload: &overload::Snapshot| overload.silent_for.is_some();
        if upstream.endpoints.is_empty() {
            // Routes and keys tell their host's.
            self.silent = self.silent.max(upstream.overload.as_ref().is_some_and(is_silent).into());
        } else {
            let silent = upstream.endpoints.iter().filter(|endpoint| is_silent(&endpoint.overload));
            self.silent += silent.count() as u32;
        }
        if upstream.concurrency.is_some() {
            // Routes and keys tell their host's.
            self.in_use = self.in_use.max(in_use);
            self.queued = self.queued.max(queued);
            self.limit = self.limit.max(limit);
        } else {
            self.in_use += in_use;
            self.queued += queued;
            self.limit = limit.map_or(self.limit, |limit| Some(self.limit.unwrap_or(0) + limit));
        }
        if upstream.budget.is_finite() {
            self.budget = Some(self.budget.unwrap_or(0.0) + upstream.budget);
        }
    }

    /// Those of another host, or of another client's.
    pub(super) fn and(&mut self, other: &Self) {
        for (all, own) in self.states.iter_mut().zip(other.states) {
            *all += own;
        }
        for (all, own) in self.held.iter_mut().zip(other.held) {
            *all += own;
        }
        self.in_use += other.in_use;
        self.queued += other.queued;
        self.silent += other.silent;
        self.limit = self.limit.into_iter().chain(other.limit).reduce(|all, own| all + own);
        self.budget = self.budget.into_iter().chain(other.budget).reduce(|all, own| all + own);
    }
}
