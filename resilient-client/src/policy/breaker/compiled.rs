//! What a policy compiles to.

use std::time::Duration;

use super::custom_trip::TripFactory;
use super::ready::ForReady;
use super::rules::Numbers;

/// Checked settings, with the [rule of one's own](super::Trip) if the policy has one. Made by
/// [`BreakerPolicy::compile`](super::BreakerPolicy::compile).
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub(super) numbers: Numbers,
    pub(super) abandoned_after: Duration,
    pub(super) wait_for_ready: bool,
    pub(super) max_waiting: u32,
    pub(super) ready_wait_nanos: u64,
    pub(super) trip: Option<TripFactory>,
}

impl Rules {
    /// A call dropped after more than this counts as a failure.
    pub const fn abandoned_after(&self) -> Duration {
        self.abandoned_after
    }

    /// What calls that don't say otherwise wait for.
    pub(crate) const fn for_ready(&self) -> ForReady {
        if self.wait_for_ready { ForReady::Always } else { ForReady::LastProbes }
    }
}
