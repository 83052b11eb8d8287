//! Why an attempt was refused before anything was sent.

use std::fmt;

use std::time::Duration;

/// Why an attempt was refused before anything was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The circuit breaker is open, or half-open with all its probes out.
    CircuitOpen {
        /// How long until a probe may pass; `None` when none will, as somebody has forced it open.
        retry_after: Option<Duration>,
    },
    /// As many attempts as allowed are in flight, and there is no place to wait.
    BulkheadFull {
        /// How many are allowed.
        limit: u32,
    },
    /// It waited for a place in the bulkhead, in vain.
    QueueWait {
        /// How long it waited.
        waited: Duration,
        /// Whether a call of a higher priority took its place in the queue.
        displaced: bool,
    },
    /// As many attempts are in flight as the upstream can answer in time.
    Overloaded {
        /// How many those are; zero when it was the bulkhead that was full meanwhile.
        limit: u32,
        /// How long it waited for a place, if it did.
        waited: Duration,
    },
    /// The upstream is [silent](crate::policy::overload#silence), and what would have been sent
    /// beside another attempt doesn't wait. Others aren't refused for that; they wait, which a
    /// policy that only observes tells by this.
    Silent,
    /// The rate agreed on for this upstream is used up.
    RateLimited {
        /// How long until an attempt would be let go.
        retry_after: Duration,
    },
    /// The upstream accepts too little of what it is sent, so that most of it is refused here.
    Throttled {
        /// How many in a hundred are.
        percent: u8,
    },
    /// The upstream's name has no endpoint: it doesn't resolve, or no list of them has been given.
    NoEndpoint,
    /// The upstream asked for a wait with 503s and `Retry-After`: ten in a row, or one while
    /// nothing had succeeded for 10 s.
    HeldBack {
        /// How long the wait still lasts.
        retry_after: Duration,
    },
}

impl Rejection {
    /// The stable name used in metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::CircuitOpen { .. } => "circuit_open",
            Self::BulkheadFull { .. } => "bulkhead_full",
            Self::QueueWait { displaced: false, .. } => "queue_wait",
            Self::QueueWait { displaced: true, .. } => "displaced",
            Self::Overloaded { .. } => "overloaded",
            Self::Silent => "silent",
            Self::RateLimited { .. } => "rate_limited",
            Self::Throttled { .. } => "throttled",
            Self::NoEndpoint => "no_endpoint",
            Self::HeldBack { .. } => "held_back",
        }
    }

    /// How long until another call has a chance, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match *self {
            Self::CircuitOpen { retry_after } => retry_after,
            Self::HeldBack { retry_after } | Self::RateLimited { retry_after } => Some(retry_after),
            Self::BulkheadFull { .. }
            | Self::QueueWait { .. }
            | Self::Overloaded { .. }
            | Self::Silent
            | Self::Throttled { .. }
            | Self::NoEndpoint => None,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitOpen { retry_after: Some(wait) } => write!(f, "next probe in {wait:.1?}"),
            Self::CircuitOpen { retry_after: None } => f.write_str("somebody has forced it"),
            Self::BulkheadFull { limit } => write!(f, "{limit} attempts in flight"),
            Self::Overloaded { limit, waited } if waited.is_zero() => {
                write!(f, "{limit} attempts in flight are all it can answer in time")
            }
            Self::Silent => f.write_str("it has answered nothing lately"),
            Self::QueueWait { waited, displaced: false } | Self::Overloaded { waited, .. } => {
                write!(f, "waited {waited:.1?} for a place")
            }
            Self::QueueWait { waited, displaced: true } => {
                write!(f, "gave its place in the queue, after {waited:.1?}, to a call of a higher priority")
            }
            Self::RateLimited { retry_after } => write!(f, "the next may go in {retry_after:.1?}"),
            Self::Throttled { percent } => write!(f, "{percent} % of requests are held back"),
            Self::NoEndpoint => f.write_str("no endpoint is known"),
            Self::HeldBack { retry_after } => write!(f, "for another {retry_after:.1?}"),
        }
    }
}
