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
/// When the overloaded server's workers stop, from the first request on.
pub const STALL_FROM: Duration = Duration::from_secs(3);
/// How long they do nothing. Then without retries, timeouts or a breaker 12 % of 14 s of calls aren't served in time.
pub const STALL_FOR: Duration = Duration::from_millis(2430);

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
    /// Ten workers, 25 ms a request, an endless queue that nothing leaves; for a while all of them stand still.
    Overload,
}

impl Fault {
    /// In the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Some503,
        Self::All503,
        Self::Hang,
        Self::StalledBody,
        Self::Close,
        Self::RetryAfter,
        Self::Overload,
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
        }
    }

    /// The share of requests it strikes.
    fn share(self) -> f64 {
        match self {
            Self::Some503 | Self::RetryAfter => 0.3,
            Self::All503 => 1.0,
            Self::Hang | Self::StalledBody => 0.05,
            Self::Close => 0.1,
            Self::Overload => 0.0,
        }
    }
}
