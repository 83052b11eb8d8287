//! What belongs to a whole host, and not to each of its parts.
//!
//! A route or a key may have live state of its own: a breaker, a budget, a bulkhead, hedges. What
//! stands for the server as such isn't multiplied by them: the rate agreed on, the wait it asked
//! for, the throttle, and the limit that is found. A part uses its host's, whose upstream it keeps.
//! A route whose own policy differs from its host's in one of them has that one of its own, in
//! place of the host's.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Upstream;
use super::retry_after_hold::RetryAfterHold;
use crate::event::Event;
use crate::policy::bulkhead::Bulkhead;
use crate::policy::concurrency::Concurrency;
use crate::policy::overload::{Line, OverloadLimit};
use crate::policy::plan::{Modes, Plan};
use crate::policy::rate_limit::RateLimit;
use crate::policy::throttle::Throttle;
use crate::sync::Ordering;
use crate::time::{self, Tick};

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

/// Whose machine an attempt holds something of, or waits for. It stays with that one, whatever a
/// reload says meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The upstream's own.
    Own,
    /// That of its whole host.
    Whole,
}

/// Whose bulkhead an attempt has its slot in, and whose overload limit its place: one byte, since
/// every permit is moved with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose(u8);

impl Whose {
    pub(crate) fn new(slot: Part, gate: Part) -> Self {
        Self(slot as u8 | ((gate as u8) << 1))
    }

    pub(crate) fn slot(self) -> Part {
        if self.0 & 1 == Part::Own as u8 { Part::Own } else { Part::Whole }
    }

    pub(crate) fn gate(self) -> Part {
        if self.0 >> 1 == Part::Own as u8 { Part::Own } else { Part::Whole }
    }
}

impl Upstream {
    /// As a part of another, if there is one.
    pub(crate) fn part_of(mut self, whole: Option<Whole>) -> Self {
        self.whole = whole;
        self
    }

    /// Whether requests to it say how long their answers are waited for.
    pub(crate) fn told(mut self, told: bool) -> Self {
        self.told = told;
        self
    }

    #[inline]
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// The host, unless `own` says that the route has this of its own.
    pub(super) fn whole_unless(&self, own: Modes) -> &Self {
        match &self.whole {
            Some(whole) if !self.modes().has(own) => whole,
            _ => self,
        }
    }

    /// Whose rate an attempt that asks now goes by.
    pub(super) fn rate(&self) -> Part {
        if self.whole.is_some() && !self.modes().has(Modes::OWN_RATE) { Part::Whole } else { Part::Own }
    }

    pub(super) fn rate_limit(&self, whose: Part) -> &RateLimit {
        match (whose, &self.whole) {
            (Part::Whole, Some(whole)) => &whole.rate_limit,
            _ => &self.rate_limit,
        }
    }

    pub(super) fn throttle(&self) -> &Throttle {
        &self.whole_unless(Modes::OWN_THROTTLE).throttle
    }

    /// A server that asks for a wait means everybody.
    pub(super) fn retry_after_hold(&self) -> &RetryAfterHold {
        &self.whole.as_deref().unwrap_or(self).retry_after_hold
    }

    /// Wakes who waits to be let in when a server's wish for a wait begins.
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
    pub(super) fn slot(&self) -> Part {
        let modes = self.modes();
        let of_whole = self.whole.is_some() && modes.has(Modes::ADAPTS) && !modes.has(Modes::OWN_LIMIT);
        if of_whole { Part::Whole } else { Part::Own }
    }

    /// Follows what a plan says of how many may be in flight. The limit in force is decided in one
    /// place, so that no other holds in between.
    pub(super) fn follow_limits(&self, plan: &Plan, now: impl Fn() -> Tick) {
        if let Some(rules) = plan.concurrency {
            self.concurrency.get_or_init(|| Concurrency::new(rules)).set_rules(rules);
        }
        self.bulkhead.set_rules_but_limit(plan.bulkhead);
        self.install_limit(now);
    }

    /// Puts in force whichever limit this upstream's own bulkhead is to keep: the one that is found
    /// or the one that is given.
    pub(super) fn install_limit(&self, now: impl Fn() -> Tick) {
        let found = || {
            let adapts = Modes::from_bits(self.modes.load(Ordering::Acquire)).has(Modes::ADAPTS);
            self.concurrency.get().filter(|_| adapts).map(Concurrency::limit)
        };
        loop {
            let limit = found();
            match limit {
                Some(limit) => self.bulkhead.set_limit(limit, &now),
                None => self.bulkhead.reset_limit(&now),
            }
            // Somebody may have found or been given another meanwhile, and put it in force before
            // this one.
            if found() == limit {
                return;
            }
        }
    }

    /// Whose overload limit an attempt that asks now goes by, where the name has no endpoints.
    pub(super) fn gate(&self) -> Part {
        if self.whole.is_some() && !self.modes().has(Modes::OWN_OVERLOAD) { Part::Whole } else { Part::Own }
    }

    pub(super) fn overload(&self, gate: Part) -> &OverloadLimit {
        &self.behind_gate(gate).overload
    }

    /// Whose news it is what becomes of that limit.
    pub(super) fn behind_gate(&self, gate: Part) -> &Self {
        match (gate, &self.whole) {
            (Part::Whole, Some(whole)) => whole,
            _ => self,
        }
    }

    /// Who waits for a place that the upstream, or any of its endpoints, can answer in time.
    pub(super) fn line(&self, gate: Part) -> &Line {
        match (&self.balancer, gate, &self.whole) {
            (Some(balancer), ..) => balancer.set().line(),
            (None, Part::Whole, Some(whole)) => &whole.line,
            _ => &self.line,
        }
    }

    /// Follows what a plan says of who is held back under overload.
    pub(super) fn follow_overload(&self, plan: &Plan) {
        self.line.set_rules(plan.overload);
        let changed = self.overload.switch(plan.overload.is_some());
        if let Some(duration) = self.overload.notes_answer(time::now()) {
            self.emit(|| Event::Silence { silent: false, duration });
        }
        if let Some(change) = changed {
            self.overload_changed(Part::Own, change);
        }
    }

    pub(super) fn bulkhead(&self, slot: Part) -> &Bulkhead {
        match (slot, &self.whole) {
            (Part::Whole, Some(whole)) => &whole.bulkhead,
            _ => &self.bulkhead,
        }
    }

    /// A slot is free again.
    pub(super) fn release(&self, slot: Part, now: impl FnOnce() -> Tick) {
        self.bulkhead(slot).release(now);
        // Whoever found no slot while the server is overloaded waits for this one too.
        let line = self.line(self.gate());
        if !line.is_empty() {
            line.wake();
        }
    }
}
