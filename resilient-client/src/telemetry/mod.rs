//! Events as `tracing` lines, and calls and attempts as its spans (`spans.rs`).
//!
//! Target `resilient_client`. What an operator acts on (a breaker opening, an upstream asking for a
//! wait) is a warning, a recovery is info, and each attempt is debug, so the default level tells a
//! story without drowning it.

mod dispatch;
mod listeners;
mod log;
mod spans;

pub(crate) use self::dispatch::{Events, Heard, Held};
pub(crate) use self::listeners::OnlyOne;
pub(crate) use self::spans::{AttemptSpan, CallSpan, Departing, heard as spans_heard};
