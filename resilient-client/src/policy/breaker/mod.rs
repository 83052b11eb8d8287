//! Circuit breaker: stop calling what isn't answering, and find out cheaply when it answers again.
//!
//! A dependency that fails takes time, connections and patience from its callers, and their calls keep it from
//! recovering. A breaker turns that into an immediate local answer, then lets a counted few calls through to see.
//! (The pattern is Michael Nygard's, *Release It!*, 2007.)
//!
//! Any one of three rules opens it:
//!
//! | rule | default | meant for |
//! |---|---|---|
//! | failure rate in a sliding window | 50 % of at least 50 calls in 10 s | steady traffic |
//! | failures in a row | 20 | an outage amid fast traffic |
//! | failures in a row while the window holds no success | 5 | low traffic |
//!
//! - Open lasts 1 s, doubles with each failed recovery up to 5 s, and varies by 10 % either way so that a fleet doesn't
//!   come back in step. A rejection says how long is left.
//! - Half-open admits exactly [`probes`](BreakerPolicy::probes) calls at any concurrency. All must succeed to close it;
//!   one failure opens it again. A probe that comes to nothing gives its slot back, and probes that never answer expire.
//! - A [`Permit`] bears the generation it was issued in. A result that arrives after a change of state moves nothing.
//! - Memory is fixed whatever the rate: under 400 bytes. A success costs a few loads and one atomic add.
//!
//! The window slides by tenths: an outcome counts for at least nine tenths of it and never longer than all of it.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::breaker::{Breaker, BreakerPolicy, State, Verdict};
//! use resilient_client::{rng::Rng, time::Tick};
//!
//! let breaker = Breaker::new(BreakerPolicy::standard().consecutive_failures(2).compile()?);
//! let mut rng = Rng::seeded(1);
//! let start = Tick::ZERO;
//!
//! for _ in 0..2 {
//!     let call = breaker.try_acquire(start).expect("closed");
//!     breaker.record(call.permit, Verdict::Failure, start, || rng.unit());
//! }
//! let rejected = breaker.try_acquire(start).unwrap_err();
//! assert!(rejected.retry_after >= Duration::from_millis(900));
//!
//! let probe = breaker.try_acquire(start.after(rejected.retry_after)).expect("open time is over");
//! assert_eq!(probe.transition.map(|change| change.to), Some(State::HalfOpen));
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod machine;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use super::Invalid;
use super::invalid::{at_most_ten_years, count, positive, rate};
pub use machine::{Admitted, Breaker, Permit, Rejected, Snapshot, Verdict};
pub use state::{Cause, State, Transition};
use window::{BUCKETS, Totals};

/// Shorter windows would say more about the scheduler than about the upstream.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// A bucket can count at least this many calls before it has to round.
const MOST_MIN_CALLS: u32 = 100_000;
const MOST_PROBES: u32 = 10_000;

/// When to stop calling an upstream, and how to find out that it is back. Plain data: [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BreakerPolicy {
    pub(crate) failure_rate: f64,
    pub(crate) window: Duration,
    pub(crate) min_calls: u32,
    pub(crate) consecutive_failures: u32,
    pub(crate) cold_consecutive_failures: u32,
    pub(crate) open_for: Duration,
    pub(crate) open_cap: Duration,
    pub(crate) probes: u32,
    pub(crate) probe_timeout: Duration,
    pub(crate) abandoned_after: Duration,
}

impl BreakerPolicy {
    /// The defaults named at each setting. An outage opens it within 20 calls.
    ///
    /// A backend failing 30 % of its calls at random leaves it closed once the window holds some hundred calls. With
    /// fewer, chance weighs more: of breakers that meet such a backend from their first call, 0.6 % open early, and at 5
    /// calls a second 4 % do within a minute.
    pub const fn standard() -> Self {
        Self {
            failure_rate: 0.5,
            window: Duration::from_secs(10),
            min_calls: 50,
            consecutive_failures: 20,
            cold_consecutive_failures: 5,
            open_for: Duration::from_secs(1),
            open_cap: Duration::from_secs(5),
            probes: 3,
            probe_timeout: Duration::from_secs(10),
            abandoned_after: Duration::from_secs(1),
        }
    }

    /// Opens when at least this share of the window's calls failed: above 0, at most 1. Default 0.5.
    pub const fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = share;
        self
    }

    /// How far back the failure rate looks, at least 100 ms. Default 10 s. Should be at least twice the attempt timeout,
    /// or a backend that hangs is forgotten as fast as it is noticed.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Calls the window must hold before the rate means anything: 1 to 100,000. Default 50.
    pub const fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Opens after this many failures in a row: 1 to 1,000,000 (as good as never). Default 20.
    pub const fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Opens after this many failures in a row when the window holds no success: 1 to 1,000,000. Default 5.
    pub const fn cold_consecutive_failures(mut self, failures: u32) -> Self {
        self.cold_consecutive_failures = failures;
        self
    }

    /// How long the first opening lasts, give or take 10 %. Default 1 s.
    pub const fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// The most an opening lasts after doubling, give or take 10 %; at least `open_for`. Default 5 s.
    pub const fn open_cap(mut self, time: Duration) -> Self {
        self.open_cap = time;
        self
    }

    /// Calls let through when half-open, all of which must succeed: 1 to 10,000. Default 3.
    pub const fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// When this long has passed since the last probe set out and they haven't all answered, new ones may. Default 10 s.
    pub const fn probe_timeout(mut self, time: Duration) -> Self {
        self.probe_timeout = time;
        self
    }

    /// A call dropped by its caller counts as a failure when its attempt had been out longer than this; a call dropped
    /// sooner doesn't count. Default 1 s. Zero counts every dropped call.
    pub const fn abandoned_after(mut self, time: Duration) -> Self {
        self.abandoned_after = time;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter, when a duration is zero or
    /// longer than ten years, or when `open_cap` is shorter than `open_for`.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let rules = Rules {
            failure_rate: rate("breaker.failure_rate", self.failure_rate)?,
            bucket_nanos: positive("breaker.window", self.window)? / u64::from(BUCKETS),
            min_calls: count("breaker.min_calls", self.min_calls, 1, MOST_MIN_CALLS)?,
            consecutive_failures: streak("breaker.consecutive_failures", self.consecutive_failures)?,
            cold_consecutive_failures: streak(
                "breaker.cold_consecutive_failures",
                self.cold_consecutive_failures,
            )?,
            open_nanos: positive("breaker.open_for", self.open_for)?,
            open_cap_nanos: positive("breaker.open_cap", self.open_cap)?,
            probes: count("breaker.probes", self.probes, 1, MOST_PROBES)?,
            probe_timeout_nanos: positive("breaker.probe_timeout", self.probe_timeout)?,
            abandoned_after_nanos: at_most_ten_years("breaker.abandoned_after", self.abandoned_after)?,
        };
        if self.window < SHORTEST_WINDOW {
            let problem = format!("must be at least {SHORTEST_WINDOW:?}, got {:?}", self.window);
            return Err(Invalid::new("breaker.window", problem));
        }
        if self.open_for > self.open_cap {
            let problem =
                format!("must be at least breaker.open_for ({:?}), got {:?}", self.open_for, self.open_cap);
            return Err(Invalid::new("breaker.open_cap", problem));
        }
        Ok(rules)
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

fn streak(setting: &'static str, value: u32) -> Result<u32, Invalid> {
    count(setting, value, 1, state::LONGEST_STREAK)
}

/// Checked settings, in nanoseconds and counts. Made by [`BreakerPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    failure_rate: f64,
    bucket_nanos: u64,
    min_calls: u32,
    consecutive_failures: u32,
    cold_consecutive_failures: u32,
    probes: u32,
    open_nanos: u64,
    open_cap_nanos: u64,
    probe_timeout_nanos: u64,
    abandoned_after_nanos: u64,
}

impl Rules {
    /// The age past which a dropped call counts as a failure.
    pub const fn abandoned_after(&self) -> Duration {
        Duration::from_nanos(self.abandoned_after_nanos)
    }

    /// The rule, if any, that a failure breaks when `streak` calls, itself the last, have failed in a row.
    fn broken_by(&self, streak: u32, window: Totals) -> Option<Cause> {
        let calls = window.calls();
        // A quotient of integers rounds to the very f64 the policy's author wrote; a product needn't.
        if calls >= self.min_calls && f64::from(window.failures) / f64::from(calls) >= self.failure_rate {
            Some(Cause::FailureRate { failures: window.failures, calls })
        } else if streak >= self.consecutive_failures {
            Some(Cause::ConsecutiveFailures(streak))
        } else if streak >= self.cold_consecutive_failures && window.successes == 0 {
            Some(Cause::ColdFailures(streak))
        } else {
            None
        }
    }

    /// How long to stay open after `reopens` failed recoveries; `unit` in [0, 1] places it within the 10 % either way.
    fn open_time_nanos(&self, reopens: u32, unit: f64) -> u64 {
        let doublings = 1_u64.checked_shl(reopens).unwrap_or(u64::MAX);
        let nanos = self.open_nanos.saturating_mul(doublings).min(self.open_cap_nanos);
        nanos - nanos / 10 + (nanos as f64 / 5.0 * unit.clamp(0.0, 1.0)) as u64
    }
}
