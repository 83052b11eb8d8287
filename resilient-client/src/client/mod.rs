//! The client: reqwest's verbs, with the engine behind them.

mod builder;
mod empty_body;
pub(crate) mod exchange;
mod fallback;
#[cfg(feature = "fault")]
mod faulty;
mod following;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod payload;
mod recipe;
mod redirect;
mod request;
mod response;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use reqwest::{IntoUrl, Method, Request};
use tower_service::Service;

use fallback::{Answers, Fallback};
use following::Following;

pub use builder::ClientBuilder;
pub use request::RequestBuilder;
pub use response::Response;

use crate::call::options::CallOptions;
use crate::call::pending;
use crate::call::trail::Follow as _;
use crate::client::exchange::ReqwestExchange;
use crate::client::redirect::ReqwestFacts;
use crate::engine::Core;
use crate::error::Error;
use crate::shared_methods::client_methods;

/// An HTTP client whose calls have deadlines, retries, a retry budget, a circuit breaker and a
/// bulkhead.
///
/// Cheap to clone; clones share connections and live state. Use one for as long as the process
/// lives: a new client knows nothing about which upstreams are broken.
///
/// ```no_run
/// # async fn run() -> Result<(), resilient_client::Error> {
/// let client = resilient_client::Client::builder().build()?;
/// let response = client.get("http://users:3000/users/7").send().await?;
/// println!("{}\n{}", response.status(), response.report());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    /// `None` where none could be made; the core knows why.
    transport: Option<reqwest::Client>,
    facts: Arc<ReqwestFacts>,
    core: Arc<Core>,
    max_body: usize,
    answers: Answers,
}

impl Client {
    /// The standard policy over a reqwest client of its own. Build one and clone it.
    ///
    /// It doesn't panic as `reqwest::Client::new` does where there is no TLS: then each call fails
    /// with [`ErrorKind::Config`](crate::ErrorKind::Config), which [`builder`](Self::builder) would
    /// have told at once.
    pub fn new() -> Self {
        Self::builder().build().unwrap_or_else(|error| builder::unmade(&error))
    }

    /// A builder that starts from [`Policy::standard`](crate::Policy::standard).
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    client_methods!(impl IntoUrl);

    /// Starts a request. A bad URL shows when it is built or sent.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        let inner = match (&self.transport, self.core.defaults().below_base(url.as_str())) {
            (Some(transport), None) => Ok(transport.request(method, url)),
            (Some(transport), Some(below)) => below.map(|url| transport.request(method, url)),
            (None, _) => Err(self.core.no_transport()),
        };
        RequestBuilder::new(self.clone(), inner)
    }

    /// Makes a call with a ready request.
    ///
    /// A timeout set on the request becomes the call's total. If the request was converted from an
    /// `http::Request`, its extensions aren't sent along.
    ///
    /// # Errors
    /// See [`RequestBuilder::send`].
    pub fn execute(&self, request: Request) -> Pending {
        self.execute_with(request, CallOptions::new())
    }

    /// Makes a call with a ready request and settings of its own. A timeout among them goes before
    /// the request's.
    ///
    /// # Errors
    /// See [`RequestBuilder::send`].
    pub fn execute_with(&self, request: Request, options: CallOptions) -> Pending {
        self.clone().call(request, options)
    }

    #[inline]
    pub(crate) fn call(self, request: Request, options: CallOptions) -> Pending {
        self.call_over(request, options, |exchange| exchange)
    }

    /// The same over an exchange with a change.
    #[inline]
    fn call_over(
        self,
        mut request: Request,
        mut options: CallOptions,
        change: impl FnOnce(ReqwestExchange) -> ReqwestExchange,
    ) -> Pending {
        options.total = options.total.or_else(|| request.timeout().copied());
        if let Err(error) = self.core.defaults().complete(request.headers_mut()) {
            return Pending::failed(error);
        }
        let following = Following::of(&self, &mut request, &options);
        let Self { transport, facts, core, max_body, answers } = self;
        let Some(transport) = transport else { return Pending::failed(core.no_transport()) };
        let fallback = answers.about(&request, &options, max_body);
        let (wire, buffer, stays) = ((transport, facts), options.replay_buffer(), following.is_some());
        let exchange = change(ReqwestExchange::new(wire, request, buffer, stays));
        Pending { call: pending::Pending::new(core, exchange, options), fallback, following }
    }

    /// A call that follows another, whose headers it has already.
    #[cold]
    fn follow(&self, request: Request, options: CallOptions) -> pending::Pending<ReqwestExchange> {
        let Some(transport) = self.transport.clone() else {
            return pending::Pending::failed(self.core.no_transport());
        };
        let exchange = ReqwestExchange::new((transport, Arc::clone(&self.facts)), request, None, true);
        pending::Pending::new(Arc::clone(&self.core), exchange, options)
    }

    /// How much is stored for when servers fail; `None` when nothing ever is.
    #[cfg(feature = "cache")]
    pub fn stale_snapshot(&self) -> Option<crate::stale::StaleSnapshot> {
        self.answers.snapshot()
    }

    pub(crate) fn max_body(&self) -> usize {
        self.max_body
    }
}

impl From<reqwest::Client> for Client {
    /// The standard policy over a client of your own.
    ///
    /// That client's own retries, redirects and connect timeout stay in force: a retry that happens
    /// inside it is not seen, budgeted or counted here. Build it with
    /// `retry(reqwest::retry::never())`, or let [`Client::builder`] build it. For another policy
    /// see [`ClientBuilder::build_over`].
    ///
    /// As that client may follow redirects, no error of it proves that a request was never sent:
    /// see [`ClientBuilder::follows_no_redirects`].
    fn from(transport: reqwest::Client) -> Self {
        ClientBuilder::standard_over(transport)
    }
}

impl Default for Client {
    /// [`Client::new`].
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Request> for Client {
    type Response = Response;
    type Error = Error;
    type Future = Pending;

    /// Always: what has no room is refused by the call, so that an upstream without any doesn't
    /// hold up calls to another.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Pending {
        self.execute(request)
    }
}

impl Service<Request> for &Client {
    type Response = Response;
    type Error = Error;
    type Future = Pending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Pending {
        self.execute(request)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("core", &self.core).finish_non_exhaustive()
    }
}

pin_project! {
    /// A call in progress. Dropping it cancels the call and gives back whatever it holds.
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct Pending {
        #[pin]
        call: pending::Pending<ReqwestExchange>,
        fallback: Fallback,
        // Where redirects are followed above the calls.
        following: Option<Box<Following>>,
    }
}

impl Pending {
    pub(crate) fn failed(error: Error) -> Self {
        Self { call: pending::Pending::failed(error), fallback: Fallback::none(), following: None }
    }
}

impl Future for Pending {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.following {
            None => this.call.poll(cx),
            Some(following) => following.poll(this.call, cx, || this.fallback.redirected()),
        };
        match polled {
            Poll::Ready(ended) => Poll::Ready(this.fallback.settle(ended)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
