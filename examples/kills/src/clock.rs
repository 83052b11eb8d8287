//! The only clock here: real processes are killed on the real one.

use std::time::Instant;

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

impl Moment {
    #[allow(clippy::disallowed_methods, reason = "the one clock read of this program")]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_duration_since(earlier.0).as_secs()
    }
}

impl std::ops::Add<std::time::Duration> for Moment {
    type Output = Self;

    fn add(self, span: std::time::Duration) -> Self {
        Self(self.0 + span)
    }
}
