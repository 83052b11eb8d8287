//! What belongs to a whole host, and not to each of its parts.
//!
//! A route or a key may have live state of its own: a breaker, a budget, a bulkhead, hedges. What stands for the server
//! as such isn't multiplied by them: the rate agreed on, the quiet it asked for, the throttle, and the limit that is found.
//! A part uses its host's, whose upstream it keeps. A route whose own policy differs from its host's in one of them has
//! that one of its own, in place of the host's.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Upstream;
use super::quiet::Quiet;
use crate::policy::Modes;
use crate::policy::bulkhead::Bulkhead;
use crate::policy::concurrency::Concurrency;
use crate::policy::rate_limit::RateLimit;
use crate::policy::throttle::Throttle;
use crate::sync::Ordering;
use crate::time::Tick;

/// A part's hold on the upstream of its whole authority, which isn't forgotten meanwhile.
#[derive(Debug)]
pub(crate) struct Whole(Arc<Upstream>);

impl Whole {
    /// Of an upstream that a call is in, so that it can't be evicted just now.
    pub(super) fn of(upstream: &Arc<Upstream>) -> Self {
        upstream.parts.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(upstream))
    }
}

impl Deref for Whole {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.0
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.0.parts.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whose slot an attempt holds. It is given back to the same bulkhead, whatever a reload says meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The upstream's own.
    Own,
    /// That of its whole host.
    Whole,
}

impl Upstream {
    /// The host, unless `own` says that the route has this of its own.
    fn whole_unless(&self, own: Modes) -> &Self {
        match &self.whole {
            Some(whole) if !self.modes().has(own) => whole,
            _ => self,
        }
    }

    pub(super) fn rate_limit(&self) -> &RateLimit {
        &self.whole_unless(Modes::OWN_RATE).rate_limit
    }

    pub(super) fn throttle(&self) -> &Throttle {
        &self.whole_unless(Modes::OWN_THROTTLE).throttle
    }

    /// A server that asks for quiet means everybody.
    pub(super) fn quiet(&self) -> &Quiet {
        &self.whole.as_deref().unwrap_or(self).quiet
    }

    /// Wakes who waits to be let in when a server's wish for quiet begins.
    pub(super) fn hold_begins(&self) -> &Notify {
        &self.whole.as_deref().unwrap_or(self).hold_begins
    }

    /// The machine that finds the limit, while it is asked to.
    pub(super) fn adaptive(&self) -> Option<&Concurrency> {
        if self.modes().has(Modes::ADAPTS) {
            self.whole_unless(Modes::OWN_LIMIT).concurrency.get()
        } else {
            None
        }
    }

    /// Where an attempt that asks now gets its slot: where a limit is found it is the host's.
    pub(super) fn slot(&self) -> Slot {
        let modes = self.modes();
        let of_whole = self.whole.is_some() && modes.has(Modes::ADAPTS) && !modes.has(Modes::OWN_LIMIT);
        if of_whole { Slot::Whole } else { Slot::Own }
    }

    pub(super) fn bulkhead(&self, slot: Slot) -> &Bulkhead {
        match (slot, &self.whole) {
            (Slot::Whole, Some(whole)) => &whole.bulkhead,
            _ => &self.bulkhead,
        }
    }

    /// A slot is free again.
    pub(super) fn release(&self, slot: Slot, now: impl FnOnce() -> Tick) {
        self.bulkhead(slot).release(now);
    }
}
