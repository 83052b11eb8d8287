//! The one place here that reads a clock.

use std::time::{Instant, SystemTime};

/// The time now.
#[allow(clippy::disallowed_methods, reason = "stories over real sockets run on the real clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, to write HTTP dates relative to it.
#[allow(clippy::disallowed_methods, reason = "stories over real sockets run on the real clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
