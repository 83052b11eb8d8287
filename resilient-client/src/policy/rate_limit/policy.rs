//! What you ask for.

use std::time::Duration;

use super::{MOST, Rules, SHORTEST_INTERVAL};
use crate::invalid::{Invalid, LONGEST, count, positive};
use crate::time::nanos;

/// How many calls an upstream may get in how much time. Plain data: [`compile`](Self::compile)
/// checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RateLimitPolicy {
    pub(crate) count: u32,
    pub(crate) per: Duration,
    pub(crate) burst: Option<u32>,
    pub(crate) wait: bool,
    pub(crate) observe_only: bool,
}

impl RateLimitPolicy {
    /// `count` calls per `per`: 1 to 1,000,000 of them, in a time that leaves at least 1 us to
    /// each. All of them may come at once, and what exceeds the rate is refused.
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per, burst: None, wait: false, observe_only: false }
    }

    /// How many calls may go at once after a quiet spell: 1 to 1,000,000. Default the count.
    pub const fn burst(mut self, calls: u32) -> Self {
        self.burst = Some(calls);
        self
    }

    /// Whether a call that exceeds the rate waits, as long as its deadline allows, instead of being
    /// refused. Default no.
    pub const fn wait(mut self, wait: bool) -> Self {
        self.wait = wait;
        self
    }

    /// Whether it only says what it would have refused or delayed, and lets it through. Default no.
    pub const fn observe_only(mut self, observe_only: bool) -> Self {
        self.observe_only = observe_only;
        self
    }

    /// Checks the settings.
    ///
    /// The time between two calls is rounded up to whole nanoseconds, so that rounding never lets a
    /// call go.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter, or
    /// when saving up the burst would take more than ten years.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let calls = count("rate_limit.count", self.count, 1, MOST)?;
        let interval_nanos = positive("rate_limit.per", self.per)?.div_ceil(u64::from(calls));
        if interval_nanos < SHORTEST_INTERVAL {
            let problem = format!("must leave at least 1us to each of {calls} calls, got {:?}", self.per);
            return Err(Invalid::new("rate_limit.per", problem));
        }
        let burst = count("rate_limit.burst", self.burst.unwrap_or(calls), 1, MOST)?;
        let whole = interval_nanos.saturating_mul(u64::from(burst));
        if whole > nanos(LONGEST).saturating_add(u64::from(MOST)) {
            let interval = Duration::from_nanos(interval_nanos);
            let problem =
                format!("of {burst} calls every {interval:?} would take more than ten years to save up");
            return Err(Invalid::new("rate_limit.burst", problem));
        }
        Ok(Rules { interval_nanos, tolerance_nanos: whole - interval_nanos, wait: self.wait })
    }
}
