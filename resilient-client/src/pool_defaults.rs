//! What both clients do unless their builders say otherwise.

use std::time::Duration;

/// The most a convenience reader reads of a body, unless the builder says otherwise.
pub(crate) const MAX_BODY: usize = 16 * 1024 * 1024;

/// Idle connections older than this are closed: shorter than what servers and load balancers
/// commonly allow, so that it is rarely the server who closes first.
pub(crate) const POOL_IDLE: Duration = Duration::from_secs(15);

#[cfg(feature = "http2")]
pub(crate) const PING_EVERY: Duration = Duration::from_secs(5);

#[cfg(feature = "http2")]
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);
