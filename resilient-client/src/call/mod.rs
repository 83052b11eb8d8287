//! One call, from its request to its response.
//!
//! [`future`] is the loop, and the only place that waits: it asks the [`ledger`] what to do, sends
//! an [`attempt`] over an [`exchange`] and hands out a [`response_body`] that still holds the
//! attempt's place. What the loop acts on stands in [`state`]. What all calls of a client share is
//! [`engine`](crate::engine), which knows nothing of single calls.

mod attempt;
mod begin;
mod drain;
pub(crate) mod exchange;
mod future;
pub(crate) mod http_request;
mod idle_timer;
pub(crate) mod kept_body;
mod ledger;
pub(crate) mod options;
pub(crate) mod pending;
pub(crate) mod response_body;
mod state;
mod step;
#[cfg(test)]
mod tests;
pub(crate) mod trail;
