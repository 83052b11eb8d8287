//! The one question order-service asks user-service, and the only three ways it can come out.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::timeout;

/// What user-service said about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// It showed the user.
    Exists,
    /// It said that there is no such user.
    Unknown,
}

/// user-service gave no answer that settles the question: unreachable, slow, refusing, or
/// somebody else answered in its stead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    reason: String,
}

impl Unavailable {
    /// `reason` is for the log; a client of order-service never sees it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unavailable {}

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct LookupRequest<'a> {
    /// The user asked about: a UUID in its canonical form, so it is safe in a path.
    pub user_id: &'a str,
    /// Sent along as `x-request-id`, so that both services' logs tell one story.
    pub request_id: &'a str,
}

/// The answer, some time later.
pub type LookupFuture<'a> = Pin<Box<dyn Future<Output = Result<Existence, Unavailable>> + Send + 'a>>;

/// Who knows which users exist.
///
/// Dropping the future abandons the question. An implementation need not bound its own time:
/// order-service gives every lookup `Config::lookup_limit_ms` and then counts it as
/// [`Unavailable`].
pub trait UserLookup: Send + Sync + 'static {
    /// Asks whether the user exists.
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a>;
}

/// Asks so that a lookup which hangs or panics doesn't take its caller along.
pub(crate) async fn ask(
    users: &dyn UserLookup,
    lookup: LookupRequest<'_>,
    limit: Duration,
) -> Result<Existence, Unavailable> {
    let guarded = AssertUnwindSafe(async { users.lookup(lookup).await }).catch_unwind();
    match timeout(limit, guarded).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => Err(Unavailable::new("the lookup panicked")),
        Err(_elapsed) => Err(Unavailable::new(format!("no answer within {} ms", limit.as_millis()))),
    }
}
