//! What the stories share: servers that do as they are told and count what they see, an observer
//! that remembers, and waits that end.
//!
//! No story sleeps to let something happen: it waits for a condition on a [`Watched`] value,
//! [`within`] a limit.

#![allow(clippy::missing_panics_doc, reason = "a helper that panics fails its test, which is what it is for")]

pub mod cargo;
pub mod clock;
pub mod crowd;
pub mod front;
pub mod h2_peer;
pub mod h2_server;
pub mod observer;
pub mod server;
pub mod tls;
mod watched;

use std::fmt::Write as _;
use std::panic::Location;
use std::time::Duration;

pub use observer::Heard;
pub use server::{Reply, Server};
pub use watched::{Gate, Watched};

/// Long enough for anything that should happen at once, on a machine that is busy with something
/// else.
pub const SOON: Duration = Duration::from_secs(10);

/// The future's output, or a panic that names the caller once `limit` has passed.
#[track_caller]
pub fn within<F: Future>(limit: Duration, future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        let ended = tokio::time::timeout(limit, future).await;
        ended.unwrap_or_else(|elapsed| panic!("not done within {limit:?}, at {caller}: {elapsed}"))
    }
}

/// Every message in a chain of errors, and how each level prints for debugging: all that could end
/// up in a log.
pub fn everything_it_says(error: &(dyn std::error::Error + 'static)) -> String {
    let mut all = String::new();
    let mut link = Some(error);
    while let Some(this) = link {
        let _ = writeln!(all, "{this}\n{this:?}\n{this:#?}");
        link = this.source();
    }
    all
}

/// The code in the repository's README compiles, or this crate's tests fail. The library's own
/// README is its own to test, as its package must stand alone.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
