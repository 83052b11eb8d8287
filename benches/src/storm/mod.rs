//! Stacks under fault: an open loop over loopback against a server, in another process, that fails as its seed says.
//!
//! ```text
//! server.rs   the faults, and what only a server can count: requests, and retries that came no sooner than told
//! stack.rs    each stack, set up as its docs advise, as one thing: make a call, was it a success?
//! load.rs     the open loop of one stack against one fault
//! ```

pub mod load;
pub mod server;
pub mod stack;

use std::time::Duration;

/// Calls a second.
pub const RATE: u64 = 300;
/// A success is a full body within this.
pub const IN_TIME: Duration = Duration::from_secs(2);
/// The bound of an attempt, for every stack that has one.
pub const ATTEMPT: Duration = Duration::from_millis(500);
/// Workers of the server that are gone for a while.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    /// How many of the ten.
    pub workers: u32,
    /// When they leave, from the first request on.
    pub from: Duration,
    /// How long they stay away.
    pub length: Duration,
}

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 30 % of requests are answered 503 at once.
    Some503,
    /// All are.
    All503,
    /// 5 % get no answer for 5 s.
    Hang,
    /// 5 % get half a body, and the rest 5 s later.
    StalledBody,
    /// On 10 % the connection is closed without an answer.
    Close,
    /// 30 % of requests are answered 503 with `Retry-After: 1`.
    RetryAfter,
    /// Ten workers, 25 ms a request, an endless queue that nothing leaves; for a while half of the workers are gone.
    Overload,
    /// The same, and for a while all of them are gone: a call of those 2.43 s can succeed only if it is sent to a server that
    /// does nothing, so who stops sending loses up to 17 % of all.
    Stall,
}

impl Fault {
    /// In the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Some503,
        Self::All503,
        Self::Hang,
        Self::StalledBody,
        Self::Close,
        Self::RetryAfter,
        Self::Overload,
        Self::Stall,
    ];

    /// Its heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Some503 => "503 x 30 %",
            Self::All503 => "503 x 100 %",
            Self::Hang => "hang 5 %",
            Self::StalledBody => "stalled body 5 %",
            Self::Close => "close 10 %",
            Self::RetryAfter => "Retry-After: 1 x 30 %",
            Self::Overload => "overload, recovery",
            Self::Stall => "stall, recovery",
        }
    }

    /// The share of requests it strikes.
    fn share(self) -> f64 {
        match self {
            Self::Some503 | Self::RetryAfter => 0.3,
            Self::All503 => 1.0,
            Self::Hang | Self::StalledBody => 0.05,
            Self::Close => 0.1,
            Self::Overload | Self::Stall => 0.0,
        }
    }

    /// The workers that leave, if the server has any.
    pub fn gone(self) -> Option<Gone> {
        match self {
            // So long that of 14 s of calls without retries, timeouts or a breaker 12 % aren't served in time.
            Self::Overload => {
                Some(Gone { workers: 5, from: Duration::from_secs(2), length: Duration::from_millis(6700) })
            }
            // As long as it takes for the same share when none is left.
            Self::Stall => {
                Some(Gone { workers: 10, from: Duration::from_secs(3), length: Duration::from_millis(2430) })
            }
            _ => None,
        }
    }
}
