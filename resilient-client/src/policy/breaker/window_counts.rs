//! The part of counting that needs the breaker's lock: slow calls, and windows counted in calls.
//!
//! Ordinary successes go straight to the time [`Window`], lock-free. Slow calls are rare, so theirs
//! is a plain count beside it. A ring has one place where the next outcome goes, which lock-free
//! writers would fight over anyway: with a window counted in calls every outcome takes the lock.

use super::last_calls::LastCalls;
use super::rules::{Numbers, Span};
use super::window::{SlowCalls, Totals, Window};
use crate::time::Tick;

/// Boxed, so that those who use neither pay two pointers.
#[derive(Debug, Default)]
pub(super) struct WindowCounts {
    /// Stands in for the time window.
    last_calls: Option<Box<LastCalls>>,
    /// Stands beside the time window.
    slow: Option<Box<SlowCalls>>,
}

impl WindowCounts {
    pub(super) fn new(rules: &Numbers) -> Self {
        match rules.span {
            Span::Time { .. } => {
                Self { last_calls: None, slow: rules.judges_slowness().then(|| Box::new(SlowCalls::new())) }
            }
            Span::Calls(size) => {
                Self { last_calls: Some(Box::new(LastCalls::new(size, rules.judges_slowness()))), slow: None }
            }
        }
    }

    /// Follows new rules. What was counted stays, unless the window is of another kind or length.
    pub(super) fn follow(&mut self, rules: &Numbers) {
        match (&mut self.last_calls, rules.span) {
            (Some(last_calls), Span::Calls(size)) if last_calls.size() == size => {
                last_calls.judge_slowness(rules.judges_slowness());
            }
            (None, Span::Time { .. }) if self.slow.is_some() == rules.judges_slowness() => {}
            _ => *self = Self::new(rules),
        }
    }

    pub(super) fn count(&mut self, window: &Window, failed: bool, slow: bool, now: Tick) {
        if let Some(last_calls) = &mut self.last_calls {
            return last_calls.push(failed, slow);
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
        if let Some(last_calls) = &mut self.last_calls {
            if !last_calls.revise() {
                last_calls.push(true, false);
            }
            return;
        }
        window.take_back_success(then);
        self.count(window, true, false, now);
    }

    /// A call counted as a success at `then` was none, and isn't counted as a failure either. In a
    /// window of calls it stays one: that has no place for what is neither. So it does where slow
    /// calls are counted beside, of which it may be one.
    pub(super) fn take_back(&self, window: &Window, then: Tick) {
        if self.last_calls.is_none() && self.slow.is_none() {
            window.take_back_success(then);
        }
    }

    pub(super) fn totals(&self, window: &Window, now: Tick) -> Totals {
        match &self.last_calls {
            Some(last_calls) => Totals {
                failures: last_calls.failures(),
                successes: last_calls.successes(),
                slow: last_calls.slow(),
            },
            None => window.totals(now, self.slow.as_deref()),
        }
    }

    pub(super) fn clear(&mut self, window: &Window) {
        window.clear();
        if let Some(last_calls) = &mut self.last_calls {
            last_calls.clear();
        }
        if let Some(slow) = &mut self.slow {
            **slow = SlowCalls::new();
        }
    }
}
