//! The one reader of the clock.

use tokio::time::Instant;

#[allow(clippy::disallowed_methods, reason = "here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
