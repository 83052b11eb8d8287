//! What every call tells, in values.

use http::StatusCode;

use super::{CallEnd, EventKinds, KnownMethod};
use crate::outcome::Outcome;
use crate::outcome::report::Trigger;

/// One who only counts. It is told what every call tells as values, since an event that is built,
/// handed on and taken apart again costs more than counting it. Where somebody else wants the same
/// as an event, it gets that as well, and not both.
#[doc(hidden)]
pub trait Counts: Send + Sync + 'static {
    /// [`Event::AttemptStarted`](super::Event::AttemptStarted).
    fn attempt_started(&self, method: KnownMethod, trigger: Trigger);
    /// [`Event::AttemptFinished`](super::Event::AttemptFinished), after so many nanoseconds.
    fn attempt_finished(&self, method: KnownMethod, nanos: u64, outcome: Outcome, status: Option<StatusCode>);
    /// [`Event::CallFinished`](super::Event::CallFinished), after so many nanoseconds.
    fn call_finished(&self, method: KnownMethod, nanos: u64, end: CallEnd);
    /// Another observer has panicked at an event, which is lost to it.
    fn event_lost(&self);
}

impl EventKinds {
    /// What those who only count are told in values.
    pub(crate) const IN_VALUES: Self =
        Self::ATTEMPT_STARTED.and(Self::ATTEMPT_FINISHED).and(Self::CALL_FINISHED);
}
