//! The other side of a call: what a server does with its callers' deadlines, and what it tells them
//! (feature `server`).
//!
//! A server that doesn't know its callers' deadlines works on requests nobody waits for any more,
//! most of all when it is overloaded and can least afford it. Tower layers, for axum, hyper or
//! tonic:
//!
//! - [`DeadlineLayer`] reads the time left from the request
//!   ([`deadline::header`](crate::deadline::header)), turns away what can't be done in it, makes it
//!   the ambient deadline of the calls the handler makes, less a reserve for its answer, and drops
//!   the handler when it has passed.
//! - [`RetryAdviceLayer`] marks a 5xx whose repetition is pointless, because a call made for it had
//!   no retry budget left ([`advice`](crate::advice)).
//! - [`TraceContextLayer`] reads which trace a request belongs to
//!   ([`trace_context`](crate::trace_context)), for the calls that the handler makes and for its
//!   log.
//!
//! What is turned away gets a `504 Gateway Timeout` that bears
//! [`advice::SHED`](crate::advice::SHED), or for a gRPC request the status `DEADLINE_EXCEEDED` with
//! the same header. Our client neither repeats nor counts it.
//!
//! One caveat: the deadline is enforced up to the response's head. A body that streams on is
//! bounded by the calls it makes, or not at all.
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use resilient_client::server::{DeadlineLayer, DeadlinePolicy, RetryAdviceLayer};
//!
//! // This route can't answer within 20 ms: don't let it try.
//! let report = DeadlineLayer::new(&DeadlinePolicy::standard().need(Duration::from_millis(20)))?;
//! let app: Router = Router::new()
//!     .route("/report", get(|| async { "a lot of work" }).layer(report))
//!     .route("/users", get(|| async { "[]" }))
//!     .layer(RetryAdviceLayer::new())
//!     .layer(DeadlineLayer::standard());
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod advice;
mod deadline;
#[cfg(test)]
mod tests;
mod trace;

pub use advice::{AdviceFuture, RetryAdvice, RetryAdviceLayer};
pub use deadline::{DeadlineFuture, DeadlineLayer, DeadlinePolicy, DeadlineService};
pub use trace::{RequestSpan, TraceContextLayer, TraceContextService};
