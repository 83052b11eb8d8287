//! Something to do before every attempt: refresh a token, sign again, inject trace headers.
//!
//! A retry isn't the same request again. Its token may have expired while it waited, its signature
//! may cover the time, its span is another. So a hook is asked before each attempt and answers with
//! headers, at once or later; later counts against the attempt's time.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::error::BoxError;
use crate::header_limit::{MOST_HEADERS, put_over, too_many_headers};
use crate::outcome::call_id::CallId;

/// An attempt about to be made, as a hook sees it.
#[derive(Clone)]
pub struct Attempt<'a> {
    pub(crate) call: CallId,
    pub(crate) number: u32,
    pub(crate) method: &'a Method,
    pub(crate) url: Cow<'a, str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Option<&'a [u8]>,
}

impl fmt::Debug for Attempt<'_> {
    /// Without URL, headers and body, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("call", &self.call)
            .field("number", &self.number)
            .field("method", self.method)
            .finish_non_exhaustive()
    }
}

impl Attempt<'_> {
    /// Its call's number, which the call's [events](crate::event::Event) and its
    /// [report](crate::CallReport::call) bear: sent in a header, it tells which request of a
    /// server's log was which attempt.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// 1 for the first.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        self.method
    }

    /// The request's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The request's headers, without what a hook said for an earlier attempt.
    pub fn headers(&self) -> &HeaderMap {
        self.headers
    }

    /// The request's body, where it is made of bytes and the transport knows them.
    pub fn body(&self) -> Option<&[u8]> {
        self.body
    }
}

/// Headers for one attempt, put over the request's own. A failure ends the call: what can't be
/// signed isn't sent.
#[must_use]
pub struct Prepared(pub(crate) State);

pub(crate) enum State {
    Now(Result<HeaderMap, BoxError>),
    Later(Later),
}

pub(crate) type Later = Pin<Box<dyn Future<Output = Result<HeaderMap, BoxError>> + Send>>;

impl Prepared {
    /// These headers, at once.
    pub fn now(headers: HeaderMap) -> Self {
        Self(State::Now(Ok(headers)))
    }

    /// The headers that `future` brings. It can't borrow from the attempt: take what it needs out
    /// of it first.
    pub fn later<E: Into<BoxError>>(
        future: impl Future<Output = Result<HeaderMap, E>> + Send + 'static,
    ) -> Self {
        Self(State::Later(Box::pin(async { future.await.map_err(Into::into) })))
    }

    /// No headers, because preparing failed.
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self(State::Now(Err(error.into())))
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Now(Ok(_)) => "Prepared(now)",
            State::Now(Err(_)) => "Prepared(failed)",
            State::Later(_) => "Prepared(later)",
        })
    }
}

/// Asked before every attempt. Closures are hooks:
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use resilient_client::{Attempt, Client, Prepared};
///
/// # async fn fresh_token() -> Result<HeaderValue, std::io::Error> { Ok(HeaderValue::from_static("Bearer x")) }
/// let client = Client::builder()
///     .on_attempt(|_attempt: &Attempt<'_>| {
///         Prepared::later(async {
///             let token = fresh_token().await?;
///             Ok::<_, std::io::Error>(HeaderMap::from_iter([(http::header::AUTHORIZATION, token)]))
///         })
///     })
///     .build()?;
/// # Ok::<(), resilient_client::Error>(())
/// ```
///
/// A panic in a hook is the call's: it unwinds, and whatever the call held comes back.
pub trait AttemptHook: Send + Sync + 'static {
    /// The headers of this attempt.
    fn prepare(&self, attempt: &Attempt<'_>) -> Prepared;
}

impl<F: Fn(&Attempt<'_>) -> Prepared + Send + Sync + 'static> AttemptHook for F {
    fn prepare(&self, attempt: &Attempt<'_>) -> Prepared {
        self(attempt)
    }
}

/// A shared [`AttemptHook`].
#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn AttemptHook>);

impl Hook {
    pub(crate) fn new(hook: impl AttemptHook) -> Self {
        Self(Arc::new(hook))
    }

    /// Both, this one first.
    pub(crate) fn and(self, next: Self) -> Self {
        Self::new(Both(self, next))
    }

    pub(crate) fn prepare(&self, attempt: &Attempt<'_>) -> State {
        self.0.prepare(attempt).0
    }
}

/// Two hooks, asked one after the other. The second's headers stand over the first's.
struct Both(Hook, Hook);

impl AttemptHook for Both {
    fn prepare(&self, attempt: &Attempt<'_>) -> Prepared {
        let (first, second) = match (self.0.prepare(attempt), self.1.prepare(attempt)) {
            (State::Now(first), State::Now(second)) => {
                return Prepared(State::Now(first.and_then(|first| both(first, second?))));
            }
            (first, second) => (first.later(), second.later()),
        };
        Prepared(State::Later(Box::pin(async { both(first.await?, second.await?) })))
    }
}

fn both(mut first: HeaderMap, second: HeaderMap) -> Result<HeaderMap, BoxError> {
    put_over(&mut first, second)?;
    Ok(first)
}

impl State {
    fn later(self) -> Later {
        match self {
            Self::Now(headers) => Box::pin(std::future::ready(headers)),
            Self::Later(later) => later,
        }
    }
}

/// A hook's headers, if there is room for them beside the request's.
pub(crate) fn fitting(headers: HeaderMap, request: Option<&HeaderMap>) -> Result<HeaderMap, BoxError> {
    let names = headers.keys_len() + request.map_or(0, HeaderMap::keys_len);
    if names > MOST_HEADERS { Err(too_many_headers(names).into()) } else { Ok(headers) }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
