//! What all calls of a client share, and how a call starts.

use std::sync::Arc;

use super::ledger::Terms;
use super::options::CallOptions;
use super::{Call, Start, Ways};
use crate::error::Error;
use crate::event::Events;
use crate::policy::Plan;
use crate::rng::Entropy;
use crate::time::{self, Tick};
use crate::transport::Exchange;
use crate::upstream::Upstream;
use crate::upstream::registry::{Authority, Registry};

/// The most upstreams kept apart, unless the builder says otherwise.
pub(crate) const MAX_UPSTREAMS: usize = 1024;

/// The checked policy and the live state of every upstream.
#[derive(Debug)]
pub(crate) struct Core {
    plan: Plan,
    registry: Registry,
    entropy: Entropy,
    events: Events,
}

impl Core {
    pub(crate) fn new(plan: Plan, max_upstreams: usize, entropy: Entropy, events: Events) -> Self {
        let overflow = Upstream::new("overflow".into(), &plan, entropy.clone(), events.clone(), time::now());
        Self { plan, registry: Registry::new(max_upstreams, overflow), entropy, events }
    }

    /// The upstream a request goes to, and the time its call begins.
    pub(crate) fn upstream(&self, authority: Authority<'_>) -> (Arc<Upstream>, Tick) {
        let now = time::now();
        let make = |name| Upstream::new(name, &self.plan, self.entropy.clone(), self.events.clone(), now);
        (self.registry.get(authority, now, make), now)
    }

    /// Begins a call.
    pub(crate) fn call<X: Exchange>(
        &self,
        exchange: X,
        (upstream, now): (Arc<Upstream>, Tick),
        safe: bool,
        options: &CallOptions,
    ) -> Result<Call<X>, Error> {
        let timeout = self.plan.timeout.overridden(options.total, options.attempt).map_err(Error::config)?;
        let terms = Terms {
            deadline: now.after_nanos(timeout.total),
            attempt_timeout: timeout.attempt,
            retry: self.plan.retry,
            hedge_after: None,
            hedges: 0,
            replayable: exchange.is_replayable(),
            safe,
        };
        let ways = Ways {
            classifier: self.plan.classifier.clone(),
            buffer: options.buffer,
            body_idle: timeout.body_idle,
        };
        Ok(Call::new(Start { exchange, upstream, terms, ways, now }))
    }

    /// How many upstreams are kept apart.
    pub(crate) fn upstreams(&self) -> usize {
        self.registry.len()
    }
}
