//! The part of counting that needs the breaker's lock: slow calls, and windows counted in calls.
//!
//! Ordinary successes go straight to the time [`Window`], lock-free. Slow calls are rare, so theirs is a plain count
//! beside it. A ring has one place where the next outcome goes, which lock-free writers would fight over anyway: with a
//! window counted in calls every outcome takes the lock.

use super::ring::Ring;
use super::rules::{Numbers, Span};
use super::window::{SlowCalls, Totals, Window};
use crate::time::Tick;

/// Boxed, so that those who use neither pay two pointers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Stands in for the time window.
    ring: Option<Box<Ring>>,
    /// Stands beside the time window.
    slow: Option<Box<SlowCalls>>,
}

impl Tally {
    pub(super) fn new(rules: &Numbers) -> Self {
        match rules.span {
            Span::Time { .. } => {
                Self { ring: None, slow: rules.judges_slowness().then(|| Box::new(SlowCalls::new())) }
            }
            Span::Calls(size) => {
                Self { ring: Some(Box::new(Ring::new(size, rules.judges_slowness()))), slow: None }
            }
        }
    }

    /// Follows new rules. What was counted stays, unless the window is of another kind or length.
    pub(super) fn follow(&mut self, rules: &Numbers) {
        match (&mut self.ring, rules.span) {
            (Some(ring), Span::Calls(size)) if ring.size() == size => {
                ring.judge_slowness(rules.judges_slowness());
            }
            (None, Span::Time { .. }) if self.slow.is_some() == rules.judges_slowness() => {}
            _ => *self = Self::new(rules),
        }
    }

    pub(super) fn count(&mut self, window: &Window, failed: bool, slow: bool, now: Tick) {
        if let Some(ring) = &mut self.ring {
            return ring.push(failed, slow);
        }
        let counted = if failed { window.failure(now) } else { window.success(now) };
        if counted.is_err() {
            window.round(now, self.slow.as_deref_mut());
            // Half a bucket has just been freed.
            let _ = if failed { window.failure(now) } else { window.success(now) };
        }
        if slow && let Some(calls) = &mut self.slow {
            window.slow_call(now, calls);
        }
    }

    /// A call counted as a success at `then` has failed after all.
    pub(super) fn revise(&mut self, window: &Window, then: Tick, now: Tick) {
        if let Some(ring) = &mut self.ring {
            if !ring.revise() {
                ring.push(true, false);
            }
            return;
        }
        window.take_back_success(then);
        self.count(window, true, false, now);
    }

    pub(super) fn totals(&self, window: &Window, now: Tick) -> Totals {
        match &self.ring {
            Some(ring) => {
                Totals { failures: ring.failures(), successes: ring.successes(), slow: ring.slow() }
            }
            None => window.totals(now, self.slow.as_deref()),
        }
    }

    pub(super) fn clear(&mut self, window: &Window) {
        window.clear();
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
        if let Some(slow) = &mut self.slow {
            **slow = SlowCalls::new();
        }
    }
}
