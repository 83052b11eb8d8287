//! Why a call goes on no further.

use std::fmt;
use std::time::Duration;

use crate::outcome::Outcome;
use crate::outcome::rejection::Rejection;

/// Why a failed attempt was not followed by another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decline {
    /// The policy has no retries.
    RetriesOff,
    /// The outcome is final: another attempt would get the same.
    Final(Outcome),
    /// The server may have processed it, the method isn't idempotent, and there is no
    /// `Idempotency-Key`.
    NotSafe,
    /// The body is a stream: it could be sent only once.
    BodyIsStream,
    /// The body is a stream and outgrew its replay buffer, or failed.
    BodyNotKept,
    /// Every attempt the policy allows was made.
    AttemptsExhausted(u32),
    /// The policy's own delays have come to their end.
    DelaysEnded,
    /// The upstream's budget for extra attempts is empty.
    BudgetExhausted,
    /// Another attempt could not be expected to end before the deadline.
    #[non_exhaustive]
    NoTime {
        /// The wait before it and the time an attempt usually takes.
        needed: Duration,
        /// How long the call had left.
        left: Duration,
    },
    /// The server asked for a longer wait than the time left.
    #[non_exhaustive]
    RetryAfterTooLong {
        /// What the server asked for.
        asked: Duration,
        /// How long the call had left.
        left: Duration,
    },
    /// Hedges have their own cap, a share of all calls, and it is used up.
    HedgeCap,
    /// The circuit breaker is open: waiting for it would be a wait for ourselves.
    CircuitOpen,
    /// The attempt was due, and refused here.
    Rejected(Rejection),
    /// The response was a 425 and had been tried once more already.
    TriedOnceMore,
}

impl Decline {
    /// The stable name used in metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RetriesOff => "retries_off",
            Self::Final(_) => "final",
            Self::NotSafe => "not_safe",
            Self::BodyIsStream => "body_is_stream",
            Self::BodyNotKept => "body_not_kept",
            Self::AttemptsExhausted(_) => "attempts_exhausted",
            Self::DelaysEnded => "delays_ended",
            Self::BudgetExhausted => "budget_exhausted",
            Self::NoTime { .. } => "no_time",
            Self::RetryAfterTooLong { .. } => "retry_after_too_long",
            Self::HedgeCap => "hedge_cap",
            Self::CircuitOpen => "circuit_open",
            Self::Rejected(_) => "rejected",
            Self::TriedOnceMore => "tried_once_more",
        }
    }
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetriesOff => f.write_str("retries are off"),
            Self::Final(outcome) => write!(f, "{outcome} is final"),
            Self::NotSafe => f.write_str("not idempotent, and no Idempotency-Key"),
            Self::BodyIsStream => f.write_str("body is a stream"),
            Self::BodyNotKept => f.write_str("body is a stream longer than its replay buffer"),
            Self::AttemptsExhausted(n) => write!(f, "all {n} attempts made"),
            Self::DelaysEnded => f.write_str("no further delay in the policy"),
            Self::BudgetExhausted => f.write_str("retry budget is empty"),
            Self::NoTime { needed, left } => write!(f, "needs {needed:.1?}, {left:.1?} left"),
            Self::RetryAfterTooLong { asked, left } => {
                write!(f, "server asked for {asked:.1?}, {left:.1?} left")
            }
            Self::HedgeCap => f.write_str("cap on hedges is used up"),
            Self::CircuitOpen => f.write_str("circuit breaker is open"),
            Self::Rejected(rejection) => write!(f, "refused here, {rejection}"),
            Self::TriedOnceMore => f.write_str("tried once more already"),
        }
    }
}
