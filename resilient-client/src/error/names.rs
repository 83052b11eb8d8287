//! What kinds of errors are called in metrics and logs.

use super::ErrorKind;

impl ErrorKind {
    /// The stable name used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Request => "request",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::CircuitOpen => "circuit_open",
            Self::Draining => "draining",
            Self::WouldBlock => "would_block",
            Self::BulkheadFull => "bulkhead_full",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::Throttled => "throttled",
            Self::NoEndpoint => "no_endpoint",
            Self::Transport => "transport",
            Self::Body => "body",
            Self::BodyIdle => "body_idle",
            Self::BodyTooLarge => "body_too_large",
            Self::Decode => "decode",
            Self::Redirect => "redirect",
            Self::Status => "status",
        }
    }
}
