//! The only file that reads a clock.
//!
//! Every machine in this crate takes `now` as an argument. That keeps decisions pure, lets tests
//! drive them on a virtual clock (tokio's paused clock included), and makes a clock read a thing
//! one can count: they cost about as much as a whole closed-breaker check.
//!
//! Inside the crate time is a [`Tick`]: nanoseconds since a base fixed when the process first asks.
//! Sums saturate, so an absurd duration means "never", not a panic.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// A point in time, in nanoseconds since a base private to this process.
///
/// Comparable only with other `Tick`s of the same process. Arithmetic saturates: [`Tick::NEVER`]
/// stays `NEVER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The base itself.
    pub const ZERO: Self = Self(0);
    /// A time that doesn't come (584 years from the base).
    pub const NEVER: Self = Self(u64::MAX);

    /// The tick `nanos` nanoseconds after the base.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the base.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This time plus `duration`, at most [`Tick::NEVER`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        self.after_nanos(nanos(duration))
    }

    /// This time plus `nanos` nanoseconds, at most [`Tick::NEVER`].
    #[must_use]
    pub const fn after_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same in nanoseconds.
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How long until `later`; zero when it has passed.
    pub const fn until(self, later: Self) -> Duration {
        later.since(self)
    }

    /// Whether this is [`Tick::NEVER`].
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }
}

/// A duration in nanoseconds, saturating at 584 years.
pub const fn nanos(duration: Duration) -> u64 {
    const PER_SECOND: u64 = 1_000_000_000;
    match duration.as_secs().checked_mul(PER_SECOND) {
        Some(whole) => whole.saturating_add(duration.subsec_nanos() as u64),
        None => u64::MAX,
    }
}

/// The base lies an hour before first use: a paused test clock may have been frozen before the base
/// was fixed, and its readings must not fall below zero.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    #[cfg(feature = "testing")]
    if let Some(base) = simulated::BASE.get() {
        return base;
    }
    *BASE.get_or_init(|| {
        #[allow(clippy::disallowed_methods, reason = "the one place")]
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)
    })
}

/// A simulation's thread has a base of its own, so that what it comes to doesn't follow from when
/// it was begun.
#[cfg(feature = "testing")]
mod simulated {
    use std::cell::Cell;
    use std::time::Instant;

    thread_local! {
        pub(super) static BASE: Cell<Option<Instant>> = const { Cell::new(None) };
    }
}

/// From now on this thread's ticks count from an hour ago.
#[cfg(feature = "testing")]
pub(crate) fn simulated_from_now() {
    #[allow(clippy::disallowed_methods, reason = "the one place")]
    let now = tokio::time::Instant::now().into_std();
    simulated::BASE.set(Some(now.checked_sub(Duration::from_secs(3_600)).unwrap_or(now)));
}

/// The time now, by tokio's clock: real in production, virtual under `tokio::time::pause`.
pub fn now() -> Tick {
    #[allow(clippy::disallowed_methods, reason = "the one place")]
    let now = tokio::time::Instant::now().into_std();
    Tick(nanos(now.saturating_duration_since(base())))
}

/// The instant to hand a tokio timer; [`Tick::NEVER`] becomes about thirty years from now.
pub(crate) fn instant(tick: Tick) -> tokio::time::Instant {
    const FAR: Duration = Duration::from_secs(24 * 365 * 30 * 3600);
    let base = base();
    base.checked_add(Duration::from_nanos(tick.0).min(FAR)).unwrap_or(base).into()
}

/// Milliseconds since 1970, for people to read.
#[cfg(feature = "admin")]
pub(crate) fn unix_millis() -> u64 {
    let since = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock, needed only to read HTTP dates and to tell people when something was.
pub(crate) fn wall() -> SystemTime {
    #[allow(clippy::disallowed_methods, reason = "the one place")]
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_at_never() {
        assert_eq!(Tick::NEVER.after(Duration::from_secs(1)), Tick::NEVER);
        assert_eq!(Tick::ZERO.after(Duration::MAX), Tick::NEVER);
        assert_eq!(Tick::ZERO.since(Tick::NEVER), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn follows_tokios_paused_clock_to_the_nanosecond() {
        let before = now();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(now().since(before), Duration::from_secs(7));
        assert_eq!(instant(now()).into_std(), instant(before).into_std() + Duration::from_secs(7));
    }
}
