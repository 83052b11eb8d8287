//! What is asked of a bulkhead.

use std::time::Duration;

use crate::invalid::Invalid;
use crate::invalid::{count, positive};

pub(super) const MOST_IN_FLIGHT: u32 = 1_000_000;
const MOST_QUEUED: u32 = 1_000_000;

/// How many attempts one upstream may hold, and how many may wait. Plain data:
/// [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct BulkheadPolicy {
    pub(crate) max_in_flight: u32,
    pub(crate) max_queued: u32,
    pub(crate) queue_wait: Duration,
    pub(crate) observe_only: bool,
}

impl BulkheadPolicy {
    /// At most 256 in flight, and no queue.
    pub const fn standard() -> Self {
        Self { max_in_flight: 256, max_queued: 0, queue_wait: Duration::from_secs(1), observe_only: false }
    }

    /// The most attempts in flight, bodies being read included: 1 to 1,000,000. Default 256.
    pub const fn max_in_flight(mut self, attempts: u32) -> Self {
        self.max_in_flight = attempts;
        self
    }

    /// The most attempts waiting for a slot: at most 1,000,000. Default 0: who finds no slot is
    /// refused at once.
    ///
    /// A queue evens out bursts. It can't help an upstream that is too slow for its traffic: there
    /// it only makes every call late, so keep it about as long as the limit or shorter.
    pub const fn max_queued(mut self, attempts: u32) -> Self {
        self.max_queued = attempts;
        self
    }

    /// The longest wait for a slot, within the call's own deadline; longer than zero. Default 1 s.
    ///
    /// A burst that evens out at all does so within a few answers' time. Who has waited a second
    /// stands in a queue that doesn't drain, and is better told while the caller can still do
    /// something else; it also leaves the greater part of the standard policy's attempt timeout and
    /// total to the attempt itself.
    pub const fn queue_wait(mut self, longest: Duration) -> Self {
        self.queue_wait = longest;
        self
    }

    /// Whether it only counts, and says what it would have refused or made wait. Default no.
    pub const fn observe_only(mut self, observe_only: bool) -> Self {
        self.observe_only = observe_only;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        Ok(Rules {
            max_in_flight: count("bulkhead.max_in_flight", self.max_in_flight, 1, MOST_IN_FLIGHT)?,
            max_queued: count("bulkhead.max_queued", self.max_queued, 0, MOST_QUEUED)?,
            queue_wait_nanos: positive("bulkhead.queue_wait", self.queue_wait)?,
        })
    }
}

impl Default for BulkheadPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Checked settings. Made by [`BulkheadPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(super) max_in_flight: u32,
    pub(super) max_queued: u32,
    pub(super) queue_wait_nanos: u64,
}
