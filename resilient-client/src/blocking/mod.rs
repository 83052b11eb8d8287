//! The client for code that isn't async: the same builder, calls, reports and errors.
//!
//! It is [`crate::Client`], driven from the thread that calls: that thread waits until the call is
//! done, while a thread of the client's own serves sockets and timers. Whatever holds for the async
//! client holds here, and clones share breakers, budgets and connections.
//!
//! ```no_run
//! # fn run() -> Result<(), resilient_client::Error> {
//! let client = resilient_client::blocking::Client::new();
//! let response = client.get("http://users:3000/users/7").send()?;
//! println!("{}\n{}", response.status(), response.report());
//! # Ok(())
//! # }
//! ```
//!
//! - **Not in async code.** A thread that waits drives no tasks. A call that is made in a task of
//!   tokio's, or below its `block_on`, is refused with
//!   [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock), where reqwest panics. In
//!   `spawn_blocking` and `block_in_place` it is welcome. Other runtimes can't be noticed, nor can
//!   a task that is `unconstrained`: there a call waits, and holds that thread.
//! - **Made and dropped anywhere.** Neither a client nor a response needs a runtime to be made or
//!   dropped, and neither waits for the thread; it ends when the last of them is gone.
//! - **Cancelled.** A response that is dropped before its body has been read gives back its place
//!   and ends its exchange. A call ends with its [`timeout`](RequestBuilder::timeout) at the
//!   latest, 10 s unless set otherwise, as nobody else can stop a thread that waits.

mod builder;
mod request;
mod response;
mod runtime;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{IntoUrl, Method, Request};

pub use builder::ClientBuilder;
pub use request::RequestBuilder;
pub use response::Response;

use crate::call::options::CallOptions;
use crate::error::Error;
use runtime::Runtime;

/// Methods that are handed on to the async client's type of the same name, from a struct with a
/// `map`.
macro_rules! handed_on {
    ($of:literal: $($(#[$meta:meta])* fn $name:ident($($argument:ident: $ty:ty),*);)*) => {$(
        #[doc = concat!("As [`", $of, "::", stringify!($name), "`](crate::", $of, "::", stringify!($name), ").")]
        $(#[$meta])*
        pub fn $name(self, $($argument: $ty),*) -> Self {
            self.map(|inner| inner.$name($($argument),*))
        }
    )*};
}

pub(crate) use handed_on;

/// An HTTP client for code that isn't async, whose calls have deadlines, retries, a retry budget, a
/// circuit breaker and a bulkhead. See the [module docs](self).
///
/// Cheap to clone; clones share connections, live state and one thread.
#[derive(Clone)]
pub struct Client {
    inner: crate::Client,
    runtime: Arc<Runtime>,
}

/// The verbs.
macro_rules! verbs {
    ($($(#[$meta:meta])* fn $name:ident($method:ident);)*) => {$(
        #[doc = concat!("Starts a `", stringify!($method), "` request, as [`Client::", stringify!($name),
            "`](crate::Client::", stringify!($name), ").")]
        pub fn $name(&self, url: impl IntoUrl) -> RequestBuilder {
            self.request(Method::$method, url)
        }
    )*};
}

impl Client {
    /// The standard policy. Build one and clone it. Where there is no TLS, or no thread to be had,
    /// each call fails with [`ErrorKind::Config`](crate::ErrorKind::Config), which
    /// [`builder`](Self::builder) would have told at once.
    pub fn new() -> Self {
        let runtime = Runtime::start().unwrap_or_else(|_| Runtime::none());
        let inner = runtime.inside(crate::Client::new);
        Self { inner, runtime: Arc::new(runtime) }
    }

    /// A builder that starts from [`Policy::standard`](crate::Policy::standard).
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// The same policies, breakers, budgets and connections as an async client has, from threads
    /// that may wait: for a program with both. A connection belongs to the runtime on which it was
    /// made, so the async one should live as long as this. Nor should this be dropped while the
    /// async client is in use: with its thread end the connections that were made there, which
    /// calls of the async client may be using; they fail as on any connection that breaks.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when there is no thread to be had.
    pub fn over(client: crate::Client) -> Result<Self, Error> {
        Ok(Self { inner: client, runtime: Arc::new(Runtime::start()?) })
    }

    verbs! {
        fn get(GET);
        fn post(POST);
        fn put(PUT);
        fn patch(PATCH);
        fn delete(DELETE);
        fn head(HEAD);
    }

    /// Starts a request. A bad URL shows when it is built or sent.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder::new(self.inner.request(method, url), Arc::clone(&self.runtime))
    }

    /// Makes a call with a ready request, as [`Client::execute`](crate::Client::execute).
    ///
    /// # Errors
    /// See [`RequestBuilder::send`].
    pub fn execute(&self, request: Request) -> Result<Response, Error> {
        self.execute_with(request, CallOptions::new())
    }

    /// Makes a call with a ready request and settings of its own, as
    /// [`Client::execute_with`](crate::Client::execute_with).
    ///
    /// # Errors
    /// See [`RequestBuilder::send`].
    pub fn execute_with(&self, request: Request, options: CallOptions) -> Result<Response, Error> {
        let call = self.runtime.inside(|| self.inner.execute_with(request, options));
        Ok(Response::new(self.runtime.wait(call)??, Arc::clone(&self.runtime)))
    }

    /// Begins no further call, and waits until those in progress have finished or `limit` has
    /// passed, as [`Client::drain`](crate::Client::drain). Returns how many had not.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) in async code; nothing has changed
    /// then.
    pub fn drain(&self, limit: Duration) -> Result<u64, Error> {
        self.runtime.wait(self.inner.drain(limit))
    }

    /// As [`Client::reload`](crate::Client::reload).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a policy can't work; nothing has
    /// changed then.
    pub fn reload(&self, policies: impl Into<crate::policy::PolicySet>) -> Result<crate::Reloaded, Error> {
        self.inner.reload(policies)
    }

    /// As [`Client::snapshot`](crate::Client::snapshot).
    pub fn snapshot(&self) -> Vec<crate::UpstreamSnapshot> {
        self.inner.snapshot()
    }

    /// As [`Client::stale_snapshot`](crate::Client::stale_snapshot).
    #[cfg(feature = "cache")]
    pub fn stale_snapshot(&self) -> Option<crate::stale::StaleSnapshot> {
        self.inner.stale_snapshot()
    }

    /// As [`Client::breaker`](crate::Client::breaker).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `upstream` is no origin and isn't
    /// known.
    pub fn breaker(&self, upstream: &str) -> Result<crate::BreakerControl, Error> {
        self.inner.breaker(upstream)
    }

    /// As [`Client::observe`](crate::Client::observe).
    pub fn observe(&self, observer: impl crate::event::Observer) {
        self.inner.observe(observer);
    }

    /// As [`Client::upstreams`](crate::Client::upstreams).
    pub fn upstreams(&self) -> usize {
        self.inner.upstreams()
    }

    /// The async client that this one drives, for what takes one, such as the admin page.
    pub fn as_async(&self) -> &crate::Client {
        &self.inner
    }
}

impl Default for Client {
    /// [`Client::new`].
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
