//! The only place that reads the wall clock, so that everything else can be tested at any time of
//! day.
//!
//! Libraries of mock clocks replace the monotonic clock; what is stored in a table is wall time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use uuid::{ContextV7, Timestamp, Uuid};

/// Where the time comes from. A clone shows the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// Tells ids of one millisecond apart, and keeps them in order.
    ids: Arc<Mutex<ContextV7>>,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self::of(Source::System)
    }

    /// A clock that starts at `unix_ms` and moves only when told.
    pub fn manual(unix_ms: i64) -> Self {
        Self::of(Source::Manual(Arc::new(AtomicI64::new(unix_ms))))
    }

    fn of(source: Source) -> Self {
        Self { source, ids: Arc::new(Mutex::new(ContextV7::new())) }
    }

    /// Moves a manual clock forward; the system's clock doesn't listen.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.source {
            now.fetch_add(millis(by), Ordering::Relaxed);
        }
    }

    /// Turns a manual clock back, as whoever sets a system's clock may do.
    pub fn turn_back(&self, by: Duration) {
        if let Source::Manual(now) = &self.source {
            now.fetch_sub(millis(by), Ordering::Relaxed);
        }
    }

    /// A new id: a version 7 UUID of this clock's time. Of one process, later ids sort later, also
    /// when the clock is turned back; of several, or after a restart, they may not.
    pub fn new_id(&self) -> String {
        let now = u64::try_from(self.now_ms()).unwrap_or(0);
        let since = Duration::from_millis(now);
        Uuid::new_v7(Timestamp::from_unix(&*self.ids, since.as_secs(), since.subsec_nanos())).to_string()
    }

    /// Milliseconds since the Unix epoch.
    #[allow(clippy::disallowed_methods, reason = "the one clock read of the service")]
    pub fn now_ms(&self) -> i64 {
        match &self.source {
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
