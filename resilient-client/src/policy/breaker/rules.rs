//! Checked settings, and the questions they answer.

use super::pause::Length;
use super::state::Cause;
use super::window::{BUCKETS, Totals};

/// Checked settings, in nanoseconds and counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Numbers {
    pub(super) failure_rate: f64,
    /// Above which too many calls are slow.
    pub(super) slow_rate: f64,
    /// Above which a call is slow; `u64::MAX` for never.
    pub(super) slow_nanos: u64,
    pub(super) span: Span,
    pub(super) min_calls: u32,
    pub(super) consecutive_failures: u32,
    pub(super) cold_consecutive_failures: u32,
    pub(super) probes: u32,
    pub(super) open_nanos: u64,
    pub(super) open_cap_nanos: u64,
    pub(super) probe_timeout_nanos: u64,
    pub(super) probe_share: f32,
    pub(super) observe_only: bool,
}

/// What the window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The outcomes of ten buckets, each this many nanoseconds long.
    Time { bucket_nanos: u64 },
    /// The last so many outcomes.
    Calls(u32),
}

impl Span {
    /// The length of the time window's buckets; any will do when it isn't in use.
    pub(super) const fn bucket_nanos(self) -> u64 {
        match self {
            Self::Time { bucket_nanos } => bucket_nanos,
            Self::Calls(_) => 1,
        }
    }
}

/// What the rules judge when a call has been counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) failed: bool,
    pub(super) slow: bool,
    /// Failures in a row, this one the last.
    pub(super) streak: u32,
    /// Nothing has succeeded within the window.
    pub(super) cold: bool,
    /// This call among them.
    pub(super) window: Totals,
}

impl Numbers {
    /// What a breaker without rules tells those it rejects, being forced open: the standard open
    /// time.
    pub(super) const HINT_WITHOUT: u64 = 250_000_000;

    pub(super) const fn is_slow(&self, took: u64) -> bool {
        took > self.slow_nanos
    }

    pub(super) const fn judges_slowness(&self) -> bool {
        self.slow_nanos != u64::MAX
    }

    /// The rule, if any, that the call just counted breaks.
    pub(super) fn broken_by(&self, call: Counted) -> Option<Cause> {
        let Counted { failed, slow, streak, cold, window } = call;
        let calls = window.calls();
        // A quotient of integers rounds to the very f64 the policy's author wrote; a product
        // needn't.
        let share = |part: u32| f64::from(part) / f64::from(calls);
        let enough = calls >= self.min_calls;
        if failed && enough && share(window.failures) >= self.failure_rate {
            Some(Cause::FailureRate { failures: window.failures, calls })
        } else if failed && streak >= self.consecutive_failures {
            Some(Cause::ConsecutiveFailures(streak))
        } else if failed && streak >= self.cold_consecutive_failures && cold {
            Some(Cause::ColdFailures(streak))
        } else if slow && enough && share(window.slow) > self.slow_rate {
            Some(Cause::SlowRate { slow: window.slow, calls })
        } else {
            None
        }
    }

    /// How long the window is; `None` for one counted in calls.
    pub(super) const fn window_nanos(&self) -> Option<u64> {
        match self.span {
            Span::Time { bucket_nanos } => Some(bucket_nanos.saturating_mul(BUCKETS as u64)),
            Span::Calls(_) => None,
        }
    }

    /// How long to let nobody in after `vain` probes in a row came to nothing good; `unit` in [0,
    /// 1] places it within the 10 % either way.
    pub(super) fn pause(&self, vain: u32, unit: f64) -> Length {
        let spread = |nanos: u64| nanos - nanos / 10 + (nanos as f64 / 5.0 * unit.clamp(0.0, 1.0)) as u64;
        let doublings = 1_u64.checked_shl(vain).unwrap_or(u64::MAX);
        let longest = self.open_nanos.saturating_mul(doublings).min(self.open_cap_nanos);
        let forward = (longest as f64 * f64::from(self.probe_share)) as u64;
        Length { shortest: spread(self.open_nanos), longest: spread(longest), forward }
    }

    /// How long a probe goes alone that doesn't answer, `vain` others in a row having brought no
    /// success. It sets out at a time of its own, so that this needs no spreading.
    pub(super) fn alone(&self, vain: u32) -> Length {
        let Length { shortest, longest, forward } = self.pause(vain, 0.5);
        let most = self.probe_timeout_nanos;
        Length { shortest: shortest.min(most), longest: longest.min(most), forward }
    }
}
