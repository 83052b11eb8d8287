//! What a breaker hands out and takes back: permits, refusals, results.

use std::time::Duration;

use super::control::Control;
use super::state::{Era, State, Transition, Word};
use crate::outcome::{FailureCause, Verdict};
use crate::time::{Tick, nanos};

/// Permits one call. Give it back with [`Breaker::record`](super::Breaker::record); a call that
/// decides nothing is [`Verdict::Neutral`](crate::outcome::Verdict::Neutral).
///
/// A permit can't be copied, so it is recorded at most once. One that never comes back holds a
/// probe slot until it expires, and holds nothing while the breaker is closed.
#[derive(Debug)]
#[must_use = "record the call's outcome, or a probe slot stays taken until it expires"]
pub struct Permit {
    /// A probe's has its number in place of a streak.
    pub(super) word: Word,
}

impl Permit {
    pub(super) const fn era(&self) -> Era {
        self.word.era()
    }

    /// Which of its generation's probes this is.
    #[allow(clippy::cast_possible_truncation, reason = "nothing but what was put in")]
    pub(super) const fn number(&self) -> u16 {
        self.word.streak() as u16
    }

    /// Whether this call is one of the few let through to test the upstream.
    pub fn is_probe(&self) -> bool {
        self.era().state() == State::HalfOpen
    }

    /// The generation it was issued in. Its result counts only in that one.
    pub fn generation(&self) -> u64 {
        self.era().generation()
    }

    /// Permits a report on the call's body, later. Take it before the head's success is recorded.
    pub fn body(&self) -> BodyPermit {
        BodyPermit { era: self.era() }
    }
}

/// Permits a report on a body whose head has been recorded as a success. Give it back with
/// [`Breaker::record_body`](super::Breaker::record_body), or drop it where the body decides
/// nothing.
#[derive(Debug)]
pub struct BodyPermit {
    pub(super) era: Era,
}

/// How a call ended, for [`Breaker::record`](super::Breaker::record).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallResult {
    pub(super) verdict: Verdict,
    pub(super) cause: FailureCause,
    pub(super) took_nanos: u64,
}

impl CallResult {
    /// What the call says about the server, and how long it took. A failure is a cause of its own.
    pub const fn new(verdict: Verdict, took: Duration) -> Self {
        Self::from_nanos(verdict, nanos(took))
    }

    /// The same, of a call that took so many nanoseconds.
    pub(crate) const fn from_nanos(verdict: Verdict, took_nanos: u64) -> Self {
        Self { verdict, cause: FailureCause::Own, took_nanos }
    }

    /// The failure has a cause that other calls may report, too. Of failures with one cause only
    /// the first counts; a probe whose failure has one that has been counted decides nothing.
    #[must_use]
    pub const fn caused_by(mut self, cause: FailureCause) -> Self {
        self.cause = cause;
        self
    }
}

/// How the body of a call ended, for [`Breaker::record_body`](super::Breaker::record_body).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyResult {
    pub(super) verdict: Verdict,
    pub(super) cause: FailureCause,
    pub(super) head_at: Tick,
}

impl BodyResult {
    /// What the body says about the server, and when its head was recorded as a success. A failure
    /// is a cause of its own.
    pub const fn new(verdict: Verdict, head_at: Tick) -> Self {
        Self { verdict, cause: FailureCause::Own, head_at }
    }

    /// The same as for [`CallResult::caused_by`].
    #[must_use]
    pub const fn caused_by(mut self, cause: FailureCause) -> Self {
        self.cause = cause;
        self
    }
}

/// What [`Breaker::try_acquire`](super::Breaker::try_acquire) answers when the call may go ahead.
#[derive(Debug)]
#[non_exhaustive]
pub struct Admitted {
    /// The permit for the call.
    pub permit: Permit,
    /// The change this call brought about by arriving, if any.
    pub transition: Option<Transition>,
    /// The rejection this would have been, were the breaker not in
    /// [`observe_only`](super::BreakerPolicy::observe_only). The call's result doesn't count then.
    pub would_reject: Option<Rejected>,
}

impl Admitted {
    pub(super) fn plainly(word: Word, transition: Option<Transition>) -> Self {
        Self { permit: Permit { word }, transition, would_reject: None }
    }

    /// As probe of that number.
    pub(super) fn as_probe(word: Word, number: u16, transition: Option<Transition>) -> Self {
        Self::plainly(word.with_streak(number.into()), transition)
    }

    /// Let through by a breaker that only observes.
    pub(super) fn all_the_same(word: Word, rejected: Rejected) -> Self {
        let permit = Permit { word: word.uncounted() };
        Self { permit, transition: None, would_reject: Some(rejected) }
    }
}

/// What [`Breaker::try_acquire`](super::Breaker::try_acquire) answers when the call may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// When to try again: the rest of the open time, should calls go on to come as they have, and
    /// never more than is left when none do. Half-open with every probe out, at most the shortest
    /// open time. Never zero. `None` when somebody has forced it open: there is no next probe, and
    /// whoever did that lifts it.
    pub retry_after: Option<Duration>,
}

/// A breaker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state. Open lasts until a call comes, even when the open time is over.
    pub state: State,
    /// Whether somebody put it in this state with a [`Control`](super::Control), and only that can
    /// end it.
    pub forced: bool,
    /// What somebody told it with a [`Control`](super::Control), and has not lifted since:
    /// [`ForceOpen`](super::Control::ForceOpen), [`ForceClosed`](super::Control::ForceClosed),
    /// [`Disable`](super::Control::Disable) or [`Observe`](super::Control::Observe). `None` for
    /// what is so by the policy.
    pub held: Option<Control>,
    /// Whether it only observes: it changes its state as ever and rejects nothing.
    pub observe_only: bool,
    /// How many transitions led here.
    pub generation: u64,
    /// Failures in the window. While open, those of the time before.
    pub failures: u32,
    /// Successes in the window.
    pub successes: u32,
    /// Slow calls in the window, failed or not; zero without a
    /// [slow-call rule](super::BreakerPolicy::slow_call).
    pub slow: u32,
    /// Failures in a row, counted up to a million.
    pub streak: u32,
    /// What is left of the open time, should calls go on to come as they have; zero unless open.
    pub open_for: Duration,
    /// Failed recoveries since the breaker last recovered: probes that failed, and times it closed
    /// while bodies kept failing.
    pub reopens: u32,
    /// Probe slots that are taken by probes under way; zero unless half-open. One that doesn't
    /// answer loses its slot to another.
    pub probes: u32,
}
