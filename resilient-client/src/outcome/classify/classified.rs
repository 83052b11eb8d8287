//! What an attempt's end means.

use std::time::Duration;

use http::StatusCode;

use crate::outcome::{FailureCause, FailureKind, Outcome, Verdict};

/// Whether another attempt makes sense after this one, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeat {
    /// No: the answer would be the same, or isn't a failure.
    Never,
    /// No, and it was provably never sent: the server's certificate isn't accepted, say.
    Futile,
    /// If the request is safe to repeat: the server may have processed it.
    IfSafe,
    /// Whatever the method: the server provably did not process it.
    Unprocessed,
    /// Whatever the method, at once and at no cost: it was provably never sent, on a connection
    /// that is no more. Another connection will do, and a request that nobody saw adds no load. So
    /// it takes no token of the budget and isn't counted among the policy's attempts; it has a
    /// bound of its own, 16 a call.
    Unsent,
    /// The same after the usual wait: the server said that it would not look at it now. The bound
    /// is 8 a call.
    Refused,
    /// If the request is safe to repeat, and at no cost: most likely it was never sent, but nothing
    /// proves it.
    Doubtful,
    /// Whatever the method, but only one more time.
    Once,
}

impl Repeat {
    /// Whether there is no repeat, whatever the method.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Never | Self::Futile)
    }

    /// Whether it rests on a proof that the server did not process the request.
    pub const fn is_proof(self) -> bool {
        matches!(self, Self::Futile | Self::Unprocessed | Self::Unsent | Self::Refused)
    }

    /// Whether such a repeat takes no token and isn't counted among the policy's attempts.
    pub const fn is_free(self) -> bool {
        matches!(self, Self::Unsent | Self::Refused | Self::Doubtful)
    }
}

/// Everything the rest of the call needs to know about an attempt's end.
///
/// A classifier begins with what it is given, or with one of the functions and constants here, and
/// changes what it knows better: by `with_…`, or a field itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Classified {
    /// What the caller and the report see.
    pub outcome: Outcome,
    /// What the circuit breaker counts.
    pub verdict: Verdict,
    /// What a failure is put down to. Failures of one cause count once.
    pub cause: FailureCause,
    /// Whether to try again.
    pub repeat: Repeat,
    /// How long the server asked to be left alone, if it did.
    pub retry_after: Option<Duration>,
    /// Whether `retry_after` is asked of the one call that was told, because the failure is about
    /// its request; otherwise everybody may be held back.
    pub asks_one: bool,
    /// Whether a failure of the kind `Status` refuses load, as a 503 does: throttle and adaptive
    /// limit take any other for an answer. What is throttled, or has no answer, always does.
    pub refuses_load: bool,
    /// The response's status, where there was one.
    pub status: Option<StatusCode>,
}

impl Classified {
    /// A failure of `kind` that counts against the breaker.
    pub const fn failure(kind: FailureKind, repeat: Repeat) -> Self {
        Self {
            outcome: Outcome::Failure(kind),
            verdict: Verdict::Failure,
            cause: FailureCause::Own,
            repeat,
            retry_after: None,
            asks_one: false,
            refuses_load: false,
            status: None,
        }
    }

    /// The same of a connection that was lost or not made.
    pub const fn lost(kind: FailureKind, repeat: Repeat) -> Self {
        Self { cause: FailureCause::Lost, ..Self::failure(kind, repeat) }
    }

    /// A failure of `kind` that says nothing about the server.
    pub const fn neutral(kind: FailureKind, repeat: Repeat) -> Self {
        Self { verdict: Verdict::Neutral, ..Self::failure(kind, repeat) }
    }

    /// With another answer to whether it is tried again.
    #[must_use]
    pub const fn with_repeat(self, repeat: Repeat) -> Self {
        Self { repeat, ..self }
    }

    /// With something else for the circuit breaker to count.
    #[must_use]
    pub const fn with_verdict(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// With another wait that the server asked for, such as one in a header of its own.
    #[must_use]
    pub const fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The attempt timeout passed before the response's head came.
    pub const TIMEOUT: Self = Self::failure(FailureKind::Timeout, Repeat::IfSafe);

    /// An answer, whatever its status: final, and a sign that the server is well.
    pub const SUCCESS: Self = Self { outcome: Outcome::Success, verdict: Verdict::Success, ..Self::IGNORED };

    /// The answer is there, its body read or not wanted.
    pub(crate) const fn answered(status: Option<StatusCode>) -> Self {
        Self { status, ..Self::SUCCESS }
    }

    /// A gRPC answer whose body ended without saying how the call went.
    #[cfg(feature = "grpc")]
    pub(crate) const WITHOUT_STATUS: Self = Self::lost(FailureKind::Body, Repeat::IfSafe);

    /// Nobody waited for the answer, or not for long.
    pub(crate) const ABANDONED: Self = Self { outcome: Outcome::Abandoned, ..Self::IGNORED };

    /// An end that says nothing about the server.
    pub const IGNORED: Self = Self {
        outcome: Outcome::Ignored,
        verdict: Verdict::Neutral,
        cause: FailureCause::Own,
        repeat: Repeat::Never,
        retry_after: None,
        asks_one: false,
        refuses_load: false,
        status: None,
    };
}

impl Classified {
    /// Whether the caller has the answer.
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Success
    }
}
