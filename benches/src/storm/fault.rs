//! What goes wrong, and when.

use std::time::Duration;

use crate::args::Effort;

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

impl Gone {
    /// When they are back.
    pub fn back(self) -> Duration {
        self.from + self.length
    }
}

/// A replica whose process ends without a goodbye, and is started again at the same address.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Which one.
    pub replica: usize,
    /// When it ends, from the first call on.
    pub from: Duration,
    /// How long nobody listens there.
    pub length: Duration,
}

/// What the servers do wrong.
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
    /// The same by one of two servers; the other has no fault.
    RetryAfterOne,
    /// From the second second on, one of three servers takes a second for each answer: longer than
    /// an attempt may take, and short enough for a success.
    SlowReplica,
    /// Three servers, each ended and started again in turn.
    Rolling,
    /// The only server is ended and comes back after a while.
    Outage,
    /// Ten workers, 25 ms a request, an endless queue that nothing leaves; for a while half of the
    /// workers are gone.
    Overload,
    /// The same, and for a while all of them are gone: a call of those 2.43 s can succeed only if
    /// it is sent to a server that does nothing, so who stops sending loses up to 17 % of all.
    Stall,
    /// Half of the workers are gone for so long that who sends everything is answered too late ever
    /// after.
    LongOverload,
}

impl Fault {
    /// In the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Some503,
        Self::All503,
        Self::Hang,
        Self::StalledBody,
        Self::Close,
        Self::RetryAfter,
        Self::RetryAfterOne,
        Self::SlowReplica,
        Self::Rolling,
        Self::Outage,
        Self::Overload,
        Self::Stall,
        Self::LongOverload,
    ];
    /// How many of them strike single requests; the others strike servers, for a time. Each kind
    /// has a table of its own.
    pub const OF_REQUESTS: usize = 7;

    /// Its heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Some503 => "503 x 30 %",
            Self::All503 => "503 x 100 %",
            Self::Hang => "hang 5 %",
            Self::StalledBody => "stalled body 5 %",
            Self::Close => "close 10 %",
            Self::RetryAfter => "Retry-After: 1 x 30 %",
            Self::RetryAfterOne => "Retry-After, 1 of 2",
            Self::SlowReplica => "slow, 1 of 3",
            Self::Rolling => "rolling restart of 3",
            Self::Outage => "outage, back",
            Self::Overload => "overload, recovery",
            Self::Stall => "stall, recovery",
            Self::LongOverload => "long overload",
        }
    }

    /// How many servers there are. The first one has the fault, where not all have it.
    pub fn replicas(self) -> usize {
        match self {
            Self::RetryAfterOne => 2,
            Self::SlowReplica | Self::Rolling => 3,
            _ => 1,
        }
    }

    /// The share of requests it strikes at a server.
    pub(super) fn share(self, replica: usize) -> f64 {
        match self {
            Self::Some503 | Self::RetryAfter => 0.3,
            Self::RetryAfterOne if replica == 0 => 0.3,
            Self::All503 => 1.0,
            Self::Hang | Self::StalledBody => 0.05,
            Self::Close => 0.1,
            _ => 0.0,
        }
    }

    /// How long calls set out.
    pub fn length(self, effort: Effort) -> Duration {
        Duration::from_secs(match self {
            Self::Overload | Self::Stall => 14,
            Self::LongOverload => effort.pick(70, 16, 16),
            Self::Outage => effort.pick(12, 8, 8),
            Self::Rolling => effort.pick(8, 4, 4),
            _ => effort.pick(6, 3, 3),
        })
    }

    /// The workers that leave, if the server has any.
    pub fn gone(self, effort: Effort) -> Option<Gone> {
        let gone = |workers, from, length| {
            let from = Duration::from_secs(from);
            Some(Gone { workers, from, length: Duration::from_millis(length) })
        };
        match self {
            // So long that of 14 s of calls without retries, timeouts or a breaker 12 % aren't
            // served in time.
            Self::Overload => gone(5, 2, 6700),
            // As long as it takes for the same share when none is left.
            Self::Stall => gone(10, 3, 2430),
            Self::LongOverload => gone(5, 2, effort.pick(60_000, 12_000, 12_000)),
            _ => None,
        }
    }

    /// The servers that end and come back, in this order.
    pub fn restarts(self, effort: Effort) -> Vec<Restart> {
        match self {
            Self::Rolling => {
                let step = Duration::from_millis(effort.pick(1000, 500, 500));
                let from = |replica: usize| step * (1 + 2 * replica as u32);
                (0..self.replicas())
                    .map(|replica| Restart { replica, from: from(replica), length: step })
                    .collect()
            }
            Self::Outage => {
                let (from, length) = effort.pick((2, 5), (1, 4), (1, 4));
                let (from, length) = (Duration::from_secs(from), Duration::from_secs(length));
                vec![Restart { replica: 0, from, length }]
            }
            _ => Vec::new(),
        }
    }
}
