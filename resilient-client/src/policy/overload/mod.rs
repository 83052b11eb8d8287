//! Overload limit: no more attempts in flight than the upstream can answer within the time they
//! have.
//!
//! A server that gets more than it can do lets it queue. Soon every answer comes after its timeout,
//! the server works on what nobody waits for, and a breaker, which learns of each failure a timeout
//! late, shuts everybody out of a server that could serve many. What it can serve need not be
//! searched for. By Little's law, what is in flight is throughput times time: of attempts that have
//! 500 ms, an upstream that ends 200 a second can answer 100 in time. So that is the limit, less a
//! margin.
//!
//! - The limit is what ended a second, lately, times the time attempts have, times 0.85. An
//!   attempt's time is its timeout, or what its call has left if that is less. Without an attempt
//!   timeout there is no limit.
//! - It is in force only while round trips take a third of that time *and* twice what is usual: a
//!   mean over a minute, which all but stands still while attempts find no place.
//! - Who finds no place [waits](OverloadPolicy::wait) for one, first come, first served within a
//!   priority, higher priorities first. A hedge doesn't wait. Who has waited in vain is refused.
//! - [`Priority::Sheddable`](super::priority::Priority::Sheddable) attempts may fill three quarters
//!   of the limit.
//! - With few attempts a second little is known of their rate: eight may always be in flight, fewer
//!   where more than 2.5 end a second (twenty divided by their rate, at least two).
//! - Each of several endpoints behind a name has its own. One without a place isn't chosen while
//!   another may be asked that has one; when none has, calls wait in one line for whichever has a
//!   place first.
//!
//! # Silence
//! An upstream that stalls ends nothing, and so tells nothing of its throughput. What is sent to it
//! until the first attempts time out it works on for nothing once it goes on. So while it is
//! silent, attempts wait in the same line:
//!
//! - It is silent when twenty attempts have no answer: those that were in flight at its last one
//!   and three at least that were sent since. That must have lasted for two round trips, recent
//!   or usual, and 50 ms at least, since the first of the latter (since the fourth without an
//!   answer, where fewer had none), and lasts while four are in flight.
//! - Its first answer ends that, and everybody goes. Word that there will be no answer (a broken
//!   connection, say) is one.
//! - One attempt goes when three times that time has passed, and one each time it has been silent
//!   four times as long: those that it doesn't answer may be slow by themselves.
//! - *It delays, and refuses nobody.* Who has waited for as long as one waits, or for half of the
//!   call's time, goes all the same; so does who finds the line full. A breaker that opens
//!   meanwhile turns away whoever waits. Twenty attempts is what the standard breaker needs for
//!   that, so that it opens no later.
//! - A hedge, which doesn't wait, is refused, and that after one round trip and five attempts
//!   without an answer, where there is one endpoint: it is against one answer that is late, and
//!   where all are it would be one more that waits.
//! - Of several endpoints a silent one isn't chosen while another may be asked: a replica that
//!   hangs is left alone after a few round trips, not after a timeout.
//! - The first attempt that finds it silent [tells](crate::event::Event::Silence), and its first
//!   answer does. A policy that only observes tells the same, and of each attempt that would have
//!   waited.
//! - When it ends, what was kept back is missing from what ends one round trip later, too: for one
//!   timeout the limit isn't in force.
//!
//! Taking and giving back a place is one atomic step each, what an attempt tells is two additions.
//! Every 25 ms one of them looks at what came together, under a lock nobody waits for.
//!
//! # Why no search
//! In an upstream that is only slow, throughput grows with what is let in, so the limit grows until
//! nobody is held back, unless round trips take more than 0.85 of the attempts' time. In an
//! overloaded one throughput doesn't grow, and the limit rests where its queue is 0.85 of that
//! time: all that is let in is answered, and every worker has something to do. There is no round
//! trip at rest to be found wrong, and so it is on by default, which the
//! [adaptive limit](super::concurrency) isn't.
//!
//! # What an attempt in flight is
//! One whose timeout runs: until its head comes or, where the body is part of the attempt
//! (`send_buffered()` and its kin), until that has been read. The law needs the same time on both
//! sides: what is in flight, and what the timeout bounds. An open stream or a long download isn't
//! counted. It occupies a slot of the [bulkhead](super::bulkhead), which stays the outer bound; but
//! a hundred open event streams must not keep anybody from an upstream whose answers are late.
//!
//! # What simulation changed
//! The rule began as completions times timeout times 0.9, without attempts that time out, and eight
//! at least.
//! - *Timeouts count as ends.* Without them, the limit falls to the least where times spread about
//!   0.9 of the timeout, as a quarter time out then: of 50 calls a second to a server without a
//!   queue 17 % were served in the end; now 99 %. With them it still falls while all time out, by
//!   15 % in each timeout.
//! - *0.85.* Clients that share an upstream need the margin, as each hears late of the others. Ten,
//!   through a minute at half speed: 73 % served at 0.85, where 71 % is what the server can do in
//!   that minute; 58 % at 0.9, with 69 openings of breakers.
//! - *Fewer than eight* for who has many answers: twenty clients got 89 % instead of 59 % through
//!   an overload of seven seconds, thirty 85 % instead of 54 % (with 40 in place of 20 divided by
//!   the rate 70 %).
//!
//! One caveat: an upstream that becomes so slow for good that calls take more than four fifths of
//! their time, and twice the usual, can't be told from an overloaded one. At ten calls a second and
//! fewer it may then refuse some in a hundred for a few minutes, until that is what is usual.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::overload::{OverloadLimit, Sample};
//! use resilient_client::policy::priority::Priority;
//! use resilient_client::time::Tick;
//!
//! let limit = OverloadLimit::new(true);
//! let feed = |from: u64, rtt_millis: u64| {
//!     for n in 0..400 {
//!         let took = Duration::from_millis(rtt_millis);
//!         let sample = Sample::new(took, Duration::from_millis(500));
//!         limit.record(sample, Tick::from_nanos((from + n * 5) * 1_000_000));
//!     }
//! };
//! feed(0, 20);
//! assert_eq!(limit.limit(), None);
//! // 200 a second, each after 450 of its 500 ms.
//! feed(2_000, 450);
//! let found = limit.limit().expect("in force");
//! assert!((75..95).contains(&found));
//! let now = Tick::from_nanos(4_000_000_000);
//! assert!((0..found).all(|_| limit.try_acquire(Priority::Normal, now).is_ok()));
//! assert!(limit.try_acquire(Priority::Normal, now).is_err());
//! ```

mod law;
mod limit;
mod line;
mod policy;
mod slot;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::time::nanos;
pub use limit::{Change, OverloadLimit};
pub(crate) use line::Line;
pub use policy::{OverloadPolicy, Rules};
pub(crate) use slot::UNIT_BITS;

/// Why an attempt finds no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoPlace {
    /// As many attempts are in flight as the upstream can answer in time.
    #[non_exhaustive]
    Full {
        /// How many of them there may be, of this class.
        limit: u32,
    },
    /// The upstream has answered nothing for longer than can be chance.
    Silent,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { limit } => {
                write!(f, "{limit} attempts in flight are all that can be answered in time")
            }
            Self::Silent => f.write_str("nothing has been answered lately"),
        }
    }
}

impl std::error::Error for NoPlace {}

/// How an attempt gives its place back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Something came of it: an answer, or word that there will be none.
    Answered,
    /// Its time was over, or nobody waited for it any more.
    Unanswered,
    /// It never set out.
    Unsent,
}

/// How one attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// From sending it to its end, in nanoseconds: to its answer, its failure, or the end of its
    /// time.
    pub rtt_nanos: u64,
    /// The time it had, in nanoseconds: its timeout, or what its call had left.
    pub allowed_nanos: u64,
}

impl Sample {
    /// Of one that took so long, and had so much time.
    pub const fn new(round_trip: Duration, allowed: Duration) -> Self {
        Self { rtt_nanos: nanos(round_trip), allowed_nanos: nanos(allowed) }
    }
}

/// What an [`OverloadLimit`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Attempts that may be in flight; `None` while no limit is in force.
    pub limit: Option<u32>,
    /// Attempts in flight: sent, and neither answered nor given up. Bodies that are still coming
    /// aren't counted.
    pub in_flight: u32,
    /// The mean of the last round trips; `None` before the first.
    pub round_trip: Option<Duration>,
    /// The usual round trip; `None` before the first.
    pub usual_round_trip: Option<Duration>,
    /// For how long it has answered nothing, if it is [silent](self#silence).
    pub silent_for: Option<Duration>,
}
