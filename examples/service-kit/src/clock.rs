//! The only place that reads the wall clock, so that everything else can be tested at any time of day.
//!
//! Libraries of mock clocks replace the monotonic clock; what is stored in a table is wall time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where the time comes from. A clone shows the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that starts at `unix_ms` and moves only by [`Clock::advance`].
    pub fn manual(unix_ms: i64) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(unix_ms))))
    }

    /// Moves a manual clock forward; the system's clock doesn't listen.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(millis(by), Ordering::Relaxed);
        }
    }

    /// Milliseconds since the Unix epoch.
    #[allow(clippy::disallowed_methods, reason = "the one clock read of the service")]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            // A clock set before 1970 is broken; showing the epoch keeps every comparison defined.
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }
}

/// A duration in the unit that every timestamp column has.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
