//! Circuit breaker: stop calling what isn't answering, and find out cheaply when it answers again.
//!
//! A dependency that fails takes time, connections and patience from its callers, and their calls
//! keep it from recovering. A breaker turns that into an immediate local answer, then lets a
//! counted few calls through to see. (The pattern is Michael Nygard's, *Release It!*, 2007.)
//!
//! Any one of these rules opens it:
//!
//! | rule | default | meant for |
//! |---|---|---|
//! | failure rate in a sliding window | 50 % of at least 50 calls in 10 s | steady traffic |
//! | failures in a row | 20 | an outage amid fast traffic |
//! | failures in a row while the window holds no success | 5 | low traffic |
//! | [slow-call rate](BreakerPolicy::slow_call) in the same window | off | brownouts: late answers that are right |
//! | [a rule of one's own](Trip), instead of all these | none | |
//!
//! - A call's head and its body give a verdict each, when they come ([`record`](Breaker::record),
//!   [`record_body`](Breaker::record_body)). A body that fails takes back the success of its head,
//!   and bodies that fail one after another count as failures in a row whatever the heads between
//!   them said.
//! - Failures with one [cause](crate::outcome::FailureCause) count once: what one connection, or
//!   one restart, ended is one event.
//! - Open lasts as long as probing would cost too much: 250 ms, twice as long after each failed
//!   recovery up to 5 s, but no longer than 250 ms once a probe is no more than 2.5 % of the calls
//!   turned away. So a probe goes to a dead server every 4.4 s at one call a second, and every 250
//!   ms at 300. It all varies by 10 % either way so that a fleet doesn't come back in step. A
//!   rejection says how long is left.
//! - Half-open admits exactly [`probes`](BreakerPolicy::probes) calls at any concurrency: the first
//!   alone, the others the moment it has succeeded. All must succeed to close it; one failure opens
//!   it again. A probe that decides nothing (answered with 429, or left by its caller) gives its
//!   slot back, and holds the next one back as long as one that failed. Probes that never answer
//!   expire.
//! - A first probe that doesn't answer loses its slot to another when one that failed would be
//!   followed, so that a server that hung is found well before the probe's time is up. What it says
//!   then is old: only a success counts.
//! - Once a probe has succeeded, calls wait for the others, a quarter of a second at most, rather
//!   than fail in front of a server that answers. They may
//!   [wait](BreakerPolicy::wait_for_ready) for an open breaker as well: off by default.
//! - A [`Permit`] bears the generation it was issued in. A result that arrives after a change of
//!   state moves nothing.
//! - Memory is fixed whatever the rate: at most 336 bytes, and 416 with the slow-call rule. A
//!   success costs a few loads and one atomic add.
//! - An operator can [force it](Control) open or closed, switch it off and reset it; new rules
//!   leave that in place. A policy can be tried out with
//!   [`observe_only`](BreakerPolicy::observe_only).
//!
//! The time window slides by tenths: an outcome counts for at least nine tenths of it and never
//! longer than all of it. [`window_calls`](BreakerPolicy::window_calls) counts in calls instead,
//! for one bit each, two with the slow-call rule (25 kB for 100,000 calls), and a lock.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::outcome::Verdict;
//! use resilient_client::policy::breaker::{Breaker, BreakerPolicy, CallResult, State};
//! use resilient_client::{rng::Rng, time::Tick};
//!
//! let breaker = Breaker::new(BreakerPolicy::standard().consecutive_failures(2).compile()?);
//! let mut rng = Rng::seeded(1);
//! let start = Tick::ZERO;
//!
//! for _ in 0..2 {
//!     let call = breaker.try_acquire(start).expect("closed");
//!     let failed = CallResult::new(Verdict::Failure, Duration::from_millis(3));
//!     breaker.record(call.permit, failed, start, || rng.unit());
//! }
//! let rejected = breaker.try_acquire(start).unwrap_err();
//! let wait = rejected.retry_after.expect("nobody has forced it open");
//! assert!(wait >= Duration::from_millis(225));
//!
//! let probe = breaker.try_acquire(start.after(wait)).expect("open time is over");
//! assert_eq!(probe.transition.map(|change| change.to), Some(State::HalfOpen));
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod bodies;
mod causes;
mod compiled;
mod control;
mod custom_trip;
mod last_calls;
mod locked_state;
mod machine;
mod pause;
mod permit;
mod policy;
mod ready;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod transitions;
pub(super) mod window;
mod window_counts;

pub use compiled::Rules;
pub use control::Control;
pub use custom_trip::Trip;
pub use machine::Breaker;
pub(crate) use machine::Probing;
pub use permit::{Admitted, BodyPermit, BodyResult, CallResult, Permit, Rejected, Snapshot};
pub use policy::BreakerPolicy;
pub(crate) use ready::{ForReady, Place, ReadyQueue, ReadyWaiter};
pub use state::{Cause, State, Transition};
