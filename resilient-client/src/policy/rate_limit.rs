//! Rate limit: keep to a rate that was agreed on, instead of finding out at the other end.
//!
//! An upstream with a quota answers 429 to what exceeds it, and may lock out who keeps trying. A limit on this side says
//! no, or later, before anything was sent.
//!
//! - [`RateLimitPolicy::new`]`(count, per)` spaces calls `per / count` apart on average; a [`burst`](RateLimitPolicy::burst)
//!   of them may go at once after a quiet spell.
//! - In any stretch of time `t` at most `burst + t / (per / count)` calls are let go: exactly, under any concurrency,
//!   wherever the stretch begins. So a stretch of `per` may hold `burst + count`; with a burst of 1 it holds `count + 1`.
//! - A refusal says when a call would be let go. With [`wait`](RateLimitPolicy::wait) the call waits that long, if its
//!   deadline allows, and goes in the order in which it asked.
//!
//! The rule is the generic cell rate algorithm (ITU-T I.371, the "virtual scheduling" form), as in the governor crate: the
//! whole state is one number, the theoretical arrival time at which the next call would come if calls came evenly. There
//! is no counter to reset, hence no window whose edge lets twice the rate through.
//!
//! One caveat: the limit is this client's own. Ten processes with the same policy make ten times the rate.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::rate_limit::{RateLimit, RateLimitPolicy};
//! use resilient_client::time::Tick;
//!
//! let limit = RateLimit::new(RateLimitPolicy::new(10, Duration::from_secs(1)).burst(2).compile()?);
//! let now = Tick::ZERO;
//! assert!(limit.try_acquire(now).is_ok() && limit.try_acquire(now).is_ok());
//! let limited = limit.try_acquire(now).unwrap_err();
//! assert_eq!(limited.retry_after, Duration::from_millis(100));
//!
//! // Or ask when to go, waiting 150 ms at most.
//! let place = limit.reserve(now, 150_000_000).unwrap();
//! assert_eq!(place.go_at(), now.after(Duration::from_millis(100)));
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

use std::fmt;
use std::time::Duration;

use super::Invalid;
use super::invalid::{LONGEST, count, positive};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::{Tick, nanos};

const MOST: u32 = 1_000_000;
/// Shorter intervals would lose more than a thousandth of the rate to rounding.
const SHORTEST_INTERVAL: u64 = 1_000;
/// The interval of a limit that lets everything go.
const UNLIMITED: u64 = 0;

/// How many calls an upstream may get in how much time. Plain data: [`compile`](Self::compile) checks it.
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
    /// `count` calls per `per`: 1 to 1,000,000 of them, in a time that leaves at least 1 us to each. All of them may come
    /// at once, and what exceeds the rate is refused.
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per, burst: None, wait: false, observe_only: false }
    }

    /// How many calls may go at once after a quiet spell: 1 to 1,000,000. Default the count.
    pub const fn burst(mut self, calls: u32) -> Self {
        self.burst = Some(calls);
        self
    }

    /// Whether a call that exceeds the rate waits, as long as its deadline allows, instead of being refused. Default no.
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
    /// The time between two calls is rounded up to whole nanoseconds, so that rounding never lets a call go.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter, or when saving up the burst
    /// would take more than ten years.
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

/// Checked settings, in nanoseconds. Made by [`RateLimitPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    interval_nanos: u64,
    /// How far the theoretical arrival time may lie ahead of a call that is let go.
    tolerance_nanos: u64,
    wait: bool,
}

impl Rules {
    /// Whether a call that exceeds the rate waits.
    pub fn waits(self) -> bool {
        self.wait
    }
}

/// The rate is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// How long until a call would be let go, if nobody else came first. Longer than zero.
    pub retry_after: Duration,
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rate is used up for another {:.1?}", self.retry_after)
    }
}

impl std::error::Error for Limited {}

/// A call's place in the rate. Made by [`RateLimit::reserve`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Reservation {
    go_at: Tick,
    /// The theoretical arrival time before and after it.
    before: u64,
    after: u64,
    /// The rules it was made by.
    version: u32,
}

impl Reservation {
    /// When the call may go.
    pub fn go_at(&self) -> Tick {
        self.go_at
    }
}

/// A rate limit, shared by every call to one upstream.
///
/// Every decision is one atomic step on one word: what each call adds to it can't be missed by another.
#[derive(Debug)]
pub struct RateLimit {
    /// The theoretical arrival time. A call let go leaves it one interval or more past where it was and past the call's
    /// own time, and met it no further ahead than the tolerance. So the n-th call of a stretch from `a` to `b` met it at
    /// `a + (n - 1) * interval` or later, yet at `b + tolerance` or earlier: `n <= burst + (b - a) / interval`, whatever
    /// the clock readings and in whatever order they come.
    arrival: AtomicU64,
    /// [`UNLIMITED`] when there is no limit.
    interval_nanos: AtomicU64,
    tolerance_nanos: AtomicU64,
    version: AtomicU32,
}

impl RateLimit {
    /// A limit with its whole burst to give.
    pub fn new(rules: Rules) -> Self {
        Self {
            arrival: AtomicU64::new(0),
            interval_nanos: AtomicU64::new(rules.interval_nanos),
            tolerance_nanos: AtomicU64::new(rules.tolerance_nanos),
            version: AtomicU32::new(0),
        }
    }

    /// A limit that lets everything go.
    pub fn unlimited() -> Self {
        Self::new(Rules { interval_nanos: UNLIMITED, tolerance_nanos: 0, wait: false })
    }

    /// Changes the rules; `None` lifts the limit. Calls let go count on: what was owed in calls is owed in calls at the
    /// new rate. Who reserved a time keeps it. A limit that comes after none starts with its whole burst.
    ///
    /// Calls to this must not overlap one another. They may overlap anything else; a call meanwhile may be judged by the
    /// old rules, the new, or one's interval and the other's burst.
    pub fn set_rules(&self, rules: Option<Rules>, now: Tick) {
        let former = self.interval_nanos.load(Ordering::Relaxed);
        let (interval, tolerance) =
            rules.map_or((UNLIMITED, 0), |rules| (rules.interval_nanos, rules.tolerance_nanos));
        self.tolerance_nanos.store(tolerance, Ordering::Relaxed);
        if interval == former {
            return;
        }
        // First, so that nothing reserved by the old numbers is given back in the new.
        self.version.fetch_add(1, Ordering::AcqRel);
        let _ = self.arrival.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |arrival| {
            let owed = u128::from(arrival.saturating_sub(now.as_nanos()));
            let owed = (owed * u128::from(interval)).checked_div(u128::from(former)).unwrap_or(0);
            Some(now.after_nanos(u64::try_from(owed).unwrap_or(u64::MAX)).as_nanos())
        });
        self.interval_nanos.store(interval, Ordering::Release);
    }

    /// Lets a call go now.
    ///
    /// # Errors
    /// [`Limited`] when the rate is used up. A refused call costs nothing.
    pub fn try_acquire(&self, now: Tick) -> Result<(), Limited> {
        self.reserve(now, 0).map(drop)
    }

    /// The next time a call may go, at most `longest_wait_nanos` from now, and takes it.
    ///
    /// # Errors
    /// [`Limited`] when it lies further ahead. A refused call costs nothing.
    pub fn reserve(&self, now: Tick, longest_wait_nanos: u64) -> Result<Reservation, Limited> {
        let interval = self.interval_nanos.load(Ordering::Acquire);
        let version = self.version.load(Ordering::Acquire);
        if interval == UNLIMITED {
            return Ok(Reservation { go_at: now, before: 0, after: 0, version });
        }
        let tolerance = self.tolerance_nanos.load(Ordering::Relaxed);
        let wait = |arrival: u64| arrival.saturating_sub(tolerance).saturating_sub(now.as_nanos());
        let step = |arrival: u64| arrival.max(now.as_nanos()).saturating_add(interval);
        let reserved = self.arrival.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |arrival| {
            (wait(arrival) <= longest_wait_nanos).then(|| step(arrival))
        });
        match reserved {
            Ok(before) => {
                let go_at = now.after_nanos(wait(before));
                Ok(Reservation { go_at, before, after: step(before), version })
            }
            Err(arrival) => Err(Limited { retry_after: Duration::from_nanos(wait(arrival)) }),
        }
    }

    /// Gives back a place that nobody went on: the call was cancelled while it waited, or refused by something else.
    /// Whether that did any good.
    ///
    /// Only the newest place can be had again. Those behind an older one were told their times in the belief that it
    /// would be used; moving the end of the line up would send the next call at the same time as the last of them, more
    /// than the limit allows. So an older place stays spent: the upstream gets a call less than it might, never one more.
    /// A line that is cancelled from its end comes back whole.
    #[allow(clippy::needless_pass_by_value, reason = "a place is given back once")]
    pub fn give_back(&self, place: Reservation) -> bool {
        let Reservation { before, after, version, .. } = place;
        // The word grows with every place taken, so it is `after` only while this one is the newest.
        version == self.version.load(Ordering::Acquire)
            && before != after
            && self.arrival.compare_exchange(after, before, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether a fresh limit would let more calls go than this one.
    pub(crate) fn owes(&self, now: Tick) -> bool {
        !self.is_unlimited() && self.arrival.load(Ordering::Relaxed) > now.as_nanos()
    }

    /// Whether everything is let go.
    pub fn is_unlimited(&self) -> bool {
        self.interval_nanos.load(Ordering::Relaxed) == UNLIMITED
    }
}

#[cfg(test)]
mod tests;
