//! Adaptive concurrency: find out how many attempts an upstream can take at once, and keep finding
//! out.
//!
//! A fixed bulkhead is right for one capacity. Too low, it wastes what the upstream could do; too
//! high, it lets a queue grow in the upstream that makes every call late. By Little's law the right
//! number is throughput times round trip at rest, and both can be watched from here. This machine
//! says what the limit should be; a [`Bulkhead`](crate::policy::bulkhead) keeps it and holds who
//! waits.
//!
//! | kind | moved by | rests where |
//! |---|---|---|
//! | [gradient](ConcurrencyPolicy::gradient) | mean round trip over that at rest | it is about 1.25 to 1.4 |
//! | [Vegas](ConcurrencyPolicy::vegas) | share of the limit that waits, `1 - base / rtt` | 20 to 35 % wait |
//! | [AIMD](ConcurrencyPolicy::aimd) | drops alone | just below what gets dropped |
//!
//! - Samples are gathered in a [window](ConcurrencyPolicy::window) and decided on once. One with
//!   too few says nothing.
//! - A limit nobody reaches (less than 80 % in flight at the peak) neither grows nor shrinks for
//!   latency.
//! - Drops take half of their share off the limit, window by window (DCTCP, RFC 8257): one in a
//!   hundred is half a percent, all of them a half. AIMD backs off when more than 2 % were dropped.
//! - Growth speeds up with every window in a row that reached the limit and saw no queue, to half
//!   of it a window.
//! - Differences within one and a half standard errors are put down to chance, so spread costs
//!   time, not throughput; only surer ones (two and a half) lower what is taken for rest.
//!
//! # The round trip at rest
//! Everything hangs on it, and an overloaded upstream never shows it. Netflix's `Gradient2Limit`
//! compares with a long average, which takes in the queue it should see: simulated here for ten
//! minutes at 1.2 times capacity its limit climbs from 137 to 346 and goes on, while these go from
//! 144 to 136 and from 148 to 146. Envoy measures it with nearly all traffic held back. Here it is
//! lowered by any window surely faster, and experiments keep it true:
//!
//! - **The dip.** While a queue is seen, every ten seconds or so, the limit goes for one window to
//!   just below where the queue should be gone. A round trip that falls below the base shows that
//!   the base was too long: lower it and dip again. What is held back is mostly the queue: ten
//!   minutes simulated lose 0.2 % of throughput to it at most.
//! - **The decline in vain.** A queue of our own gets shorter as fast as we shrink. When, twice in
//!   a row, a quarter fewer in flight made the round trip no shorter, the upstream became slower or
//!   farther: the base rises, and the limit goes back to where it was. So a longer route is learnt
//!   within seconds.
//! - **The floor.** Below the minimum there is nothing to try. What is seen there is taken for
//!   rest: the base rises to it, however high the limit is by then. So no limit is held at its
//!   minimum by a base that is too low.
//!
//! What none of them shows: an upstream that became up to 1.6 times slower while the limit was low.
//! The headroom then balances what the gradient takes away: at 8 attempts when it is 1.5 times
//! slower, at 37 when 1.36 times.
//!
//! After an outage that drove the limit to its minimum the base is measured anew, there, where no
//! queue can be ours.
//!
//! # What it keeps, simulated
//! 100, then 40, then 100 workers at 1.2 times capacity, from ten seconds after each step, with
//! lognormal (sigma 0.3 and 1), exponential and two-endpoint (10 and 100 ms) service times. On 200
//! seeds each that nothing here was tuned on, the worst run kept workers busy 96.5 % of the time,
//! and the worst p99 was 1.44 times that at rest (1.88 on the 400 seeds looked at before). A fixed
//! limit of 256 has a p99 of 3.8 times, one of 40 loses 60 % of the throughput.
//!
//! One caveat: clients that share an upstream can't tell each other's queue from its own slowness.
//! Those that all begin on a server already overloaded take what they see for rest, and stay there:
//! no throughput lost, no drift (within a tenth in five minutes), but what the sum of their initial
//! limits made of the p99. Ten that begin with 20 each keep a server of 100 workers at about twice
//! its p99 at rest (Jain index 0.78 to 0.96), one of 40 workers at 3.5 times, at twice the load 4.5
//! times. Where many clients share a small server, begin low.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::concurrency::{Concurrency, ConcurrencyPolicy, Outcome, Sample};
//! use resilient_client::time::Tick;
//!
//! let limit = Concurrency::new(ConcurrencyPolicy::gradient().initial(20).compile()?);
//! // Each finished attempt is recorded; now and then that changes the limit.
//! for ms in 0..2_000_u64 {
//!     let sample = Sample::new(Duration::from_millis(10), limit.limit(), Outcome::Completed);
//!     if let Some(changed) = limit.record(sample, Tick::from_nanos(ms * 1_000_000)) {
//!         assert!(changed > 20);
//!     }
//! }
//! assert!(limit.limit() > 40, "the limit was reached and no queue seen");
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod aimd;
use std::time::Duration;

mod baseline;
mod control;
mod gradient;
mod machine;
mod policy;
#[cfg(test)]
mod tests;
mod vegas;
mod window;

use crate::time::nanos;
pub use machine::Concurrency;
pub use policy::{ConcurrencyPolicy, Kind, Rules};

/// How one attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// From sending it to its answer's head, in nanoseconds, time spent waiting for a slot
    /// excluded. The age of one that was dropped.
    pub rtt_nanos: u64,
    /// Attempts in flight when this one was admitted, itself included: whether the limit was
    /// reached is decided then.
    pub in_flight: u32,
    /// What came of it.
    pub outcome: Outcome,
}

impl Sample {
    /// Of one that took so long, beside so many.
    pub const fn new(round_trip: Duration, in_flight: u32, outcome: Outcome) -> Self {
        Self { rtt_nanos: nanos(round_trip), in_flight, outcome }
    }
}

/// What an attempt says about the upstream's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// An answer came, good or bad; its time counts.
    Completed,
    /// The upstream couldn't: a time-out, a 429 or 503, a connection refused.
    Dropped,
    /// It says nothing: cancelled by the caller, or failed before it was sent.
    Ignored,
}

/// What a [`Concurrency`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Attempts that may be in flight.
    pub limit: u32,
    /// The mean round trip when nothing queues; `None` before the first window.
    pub base_round_trip: Option<Duration>,
    /// The mean round trip of the last window; `None` before the first.
    pub round_trip: Option<Duration>,
    /// Attempts recorded as completed so far.
    pub completed: u64,
    /// Attempts recorded as dropped so far.
    pub dropped: u64,
}

impl Snapshot {
    /// How many of a full limit's attempts wait in the upstream's queue, by Little's law.
    pub fn queued(&self) -> u32 {
        match (self.base_round_trip, self.round_trip) {
            (Some(base), Some(now)) if now > base => {
                (f64::from(self.limit) * (1.0 - base.as_secs_f64() / now.as_secs_f64())) as u32
            }
            _ => 0,
        }
    }
}
