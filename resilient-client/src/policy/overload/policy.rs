//! What is asked of the overload limit.

use std::time::Duration;

use crate::invalid::Invalid;
use crate::invalid::{count, positive};

const MOST_WAITING: u32 = 1_000_000;

/// Whether attempts are held back that an overloaded upstream would answer too late, and who may
/// wait. Plain data: [`compile`](Self::compile) checks it.
///
/// The limit itself has no setting: it follows from the attempt timeout and from what the upstream
/// answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct OverloadPolicy {
    pub(crate) max_waiting: u32,
    pub(crate) wait: Duration,
    pub(crate) observe_only: bool,
}

impl OverloadPolicy {
    /// Up to 512 attempts wait for a place, for one second at most.
    pub const fn standard() -> Self {
        Self { max_waiting: 512, wait: Duration::from_secs(1), observe_only: false }
    }

    /// The most attempts that wait for a place while the limit is in force: at most 1,000,000.
    /// Default 512; with 0 who finds no place is refused at once.
    pub const fn max_waiting(mut self, attempts: u32) -> Self {
        self.max_waiting = attempts;
        self
    }

    /// The longest wait for a place, within the call's own deadline; longer than zero. Default 1 s.
    ///
    /// What waits when an overload ends is served, and a limit that is too low for a moment refuses
    /// nobody meanwhile. Longer, an attempt timeout of some seconds and the wait together leave a
    /// call no time for another attempt.
    pub const fn wait(mut self, longest: Duration) -> Self {
        self.wait = longest;
        self
    }

    /// Whether it only says what it would have refused or made wait, and lets it through. Default
    /// no.
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
            max_waiting: count("overload.max_waiting", self.max_waiting, 0, MOST_WAITING)?,
            wait_nanos: positive("overload.wait", self.wait)?,
        })
    }
}

impl Default for OverloadPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Checked settings. Made by [`OverloadPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(super) max_waiting: u32,
    pub(super) wait_nanos: u64,
}
