//! Tests of one's own code (feature `testing`): the wire as a test wants it, responses and errors
//! to hand over, and what a report must say.
//!
//! The feature is for `[dev-dependencies]`. It brings tokio's `test-util` and the feature `fault`,
//! and adds nothing to a build without it.
//!
//! | what | for |
//! |---|---|
//! | [`Script`], [`get`] and its like, [`Answer`] | what comes of a client's requests: a test of code that has a client |
//! | [`assert_attempts`], [`assert_declined`] | how a call went, by its report |
//! | [`response`], [`error()`], [`rejected`], [`report`] | a test of code that is given these, without a client |
//! | [`simulate`] | what a policy would do in an outage, an overload, a retry storm |
//! | [`Client::breaker`](crate::Client::breaker) | a breaker that is open: it needs no feature |
//!
//! - **On which clock?** On tokio's. Under `#[tokio::test(start_paused = true)]` waits, timeouts
//!   and a script's delays take no time at all, and come in their order; on any other runtime,
//!   that of several threads among them, they take the time they say.
//! - **What is real?** All but the sockets: policies, breakers, budgets, reports and events. What a
//!   script answers has come over a connection in memory of hyper's own, so that errors and bodies
//!   that break are hyper's, too.
//! - **What isn't?** Nothing connects, so that the connect timeout, pools, TLS, HTTP/2 and what the
//!   transport does itself can't be seen: headers that it adds, cookies, bodies that it decodes.
//!   Redirects are followed as by the client that it will be, to the same origin unless it says
//!   otherwise, each as a request to the script. Over real sockets, with wiremock:
//!   `docs/testing.md`.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::testing::{Answer, Script, assert_attempts, get};
//! use resilient_client::{Client, ErrorKind};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), resilient_client::Error> {
//! let script = Script::new()
//!     .on(get("/users/{id}").then(Answer::hang()).then(Answer::reset()).then_text("Ada"))
//!     .on(get("/slow").always(Answer::text(200, "late").after(Duration::from_secs(60))));
//! let client = Client::builder().script(&script).build()?;
//!
//! let response = client.get("http://users/users/7").send().await?;
//! assert_attempts(&response, ["first timeout", "retry transport", "retry 200"]);
//!
//! let error = client.get("http://users/slow").send().await.unwrap_err();
//! assert!(error.is_timeout()); // ten seconds later, and at once on the paused clock
//!
//! client.breaker("http://users")?.force_open()?;
//! let error = client.get("http://users/users/7").send().await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::CircuitOpen);
//! script.verify();
//! # Ok(())
//! # }
//! ```

#![allow(clippy::panic, reason = "an assertion's way to fail")]

mod answer;
mod attempts;
mod doors;
mod made;
#[cfg(any(feature = "reqwest", feature = "hyper"))]
mod made_response;
mod route;
mod script;
pub mod simulate;
#[cfg(all(test, feature = "reqwest"))]
mod tests;

pub use answer::Answer;
pub use attempts::{Reported, assert_attempts, assert_declined};
pub use doors::ScriptBody;
pub use made::{ErrorMaker, ReportMaker, error, rejected, report};
#[cfg(any(feature = "reqwest", feature = "hyper"))]
pub use made_response::{ResponseMaker, response};
pub use route::{Route, anything, delete, get, head, patch, post, put};
pub use script::{Recorded, Script};

mod sealed {
    /// Nobody else has a report.
    pub trait Sealed {}
}
