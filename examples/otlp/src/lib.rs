//! Spans of calls and requests, as OpenTelemetry has them: what a service that uses
//! resilient-client adds to be seen in a tracer.
//!
//! resilient-client speaks to `tracing`, and tracing-opentelemetry makes OpenTelemetry's spans of
//! that, with the names and attributes as they are. Here is what is left:
//!
//! - [`spans`]: which spans and events are taken, and what takes them.
//! - [`propagation`]: the attempt's ids go out with it, and a request's come in.
//! - `collector`, with the feature of that name: spans to a collector.
//! - [`file`](mod@file): spans as lines of JSON, for whoever has no collector.
//! - [`story`]: what such a file says about one order, for people.
//!
//! `main.rs` puts it together: run it beside a collector.

#[cfg(feature = "collector")]
pub mod collector;
pub mod file;
pub mod propagation;
pub mod spans;
pub mod story;
