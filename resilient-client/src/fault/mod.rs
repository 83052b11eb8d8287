//! Faults on purpose (feature `fault`): what goes wrong in production, tried at noon.
//!
//! A retry, a breaker or a deadline that nobody has seen at work may not work. Here are the ways in
//! which an answer goes wrong, to be put in front of a service, below a client, or at the wire of a
//! [`Client`](crate::Client); by percentage, route, method, host or header; in code, from a file,
//! from the environment, or at run time over an [admin service](admin).
//!
//! | kind | the request | what comes |
//! |---|---|---|
//! | `delay` | is served, after a wait: fixed, uniform or log-normal | the answer |
//! | `abort` | isn't served | a status, headers (`Retry-After`), a body |
//! | `hang` | isn't served | nothing, and a reset after [`Limits::max_delay`] |
//! | `reset_before_head` | isn't served | the connection's reset |
//! | `reset_after_head` | is served | the head, and the connection's reset |
//! | `truncate` | is served | the head, so many bytes of the body, and the connection's end |
//! | `trickle` | is served | the answer, so many bytes at a time |
//! | `garbage` | isn't served | bytes that aren't HTTP, and the connection's end |
//! | `wrong_page` | isn't served | a proxy's page of HTML, with a 404 or a 200 |
//!
//! - **Which rule has a request?** They are asked in their order; the first that matches and draws
//!   it. Percentages are of the requests that match and that no earlier rule has taken.
//! - **What may it cost?** At most [`Limits::max_active`] faults are in force at a time, none lasts
//!   longer than [`Limits::max_delay`], and no answer is made larger than [`Limits::max_bytes`].
//!   Beyond, requests are served as if there were no faults.
//! - **Can it be repeated?** With a [seed](Settings::seed) the n-th request that a rule matches has
//!   the same fate in every run.
//! - **What does it cost when there are none?** A flag is read. A client without a handle on faults
//!   looks at that.
//!
//! To the engine a fault is the real thing: a synthetic answer is classified, an error is hyper's
//! own, a body breaks as bodies do. What is injected on this side has come over a connection in
//! memory, of hyper's own HTTP/1.1, whose other end misbehaves.
//!
//! One caveat: on this side a fault is an attempt's, not a connection's. Nothing is learnt from it
//! about connections in the pool.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::Client;
//! use resilient_client::fault::{Faults, Kind, Rule, Settings};
//!
//! // A fifth of the reads take two seconds, and a tenth of the rest are cut off.
//! let faults = Faults::new(
//!     Settings::new()
//!         .rule(Rule::delay(Duration::from_secs(2)).method("GET").percentage(20.0))
//!         .rule(Rule::new(Kind::Truncate { bytes: 100 }).percentage(10.0))
//!         .seed(7),
//! )?;
//! let client = Client::builder().faults(faults.clone()).build()?;
//! // Later:
//! faults.clear();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod admin;
mod body;
mod client;
mod connection;
mod envoy;
mod far_end;
mod faults;
mod limits;
mod machine;
mod read;
mod rule;
mod server;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use crate::time;

pub use body::Body;
pub use client::{ClientFuture, ClientLayer, FaultyClient};
pub use connection::{BreakableStream, Connection, ResetOnDrop};
pub use faults::{ENVIRONMENT, Faults, FaultsSnapshot, Settings};
pub use limits::Limits;
pub use machine::RuleCounts;
pub use rule::{Delay, Kind, Rule};
pub use server::{FaultyServer, ServerFuture, ServerLayer};

/// Ready when a fault's delay is over; `None` where it has none.
fn timer(delay: Duration) -> Option<Pin<Box<Sleep>>> {
    (!delay.is_zero()).then(|| Box::pin(sleep_until(time::instant(time::now().after(delay)))))
}
