//! The demo's only clock. Everything else takes a moment as an argument, so it can be tested
//! without waiting.

use std::time::Instant;

/// The time now.
pub(crate) fn now() -> Instant {
    #[allow(
        clippy::disallowed_methods,
        reason = "the demo measures real processes on the real clock, here only"
    )]
    Instant::now()
}
