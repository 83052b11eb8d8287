//! The client: reqwest's verbs, with the engine behind them.

mod builder;
mod request;
mod response;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use reqwest::{IntoUrl, Method, Request};

pub use builder::ClientBuilder;
pub use request::RequestBuilder;
pub use response::Response;

use crate::engine::Call;
use crate::engine::core::{Core, Reloaded};
use crate::engine::options::CallOptions;
use crate::error::Error;
use crate::policy::PolicySet;
use crate::transport::reqwest::ReqwestExchange;
use crate::upstream::UpstreamSnapshot;
use crate::upstream::registry::Authority;

/// An HTTP client whose calls have deadlines, retries, a retry budget, a circuit breaker and a bulkhead.
///
/// Cheap to clone; clones share connections and live state. Use one for as long as the process lives: a new client
/// knows nothing about which upstreams are broken.
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
    transport: reqwest::Client,
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) core: Core,
    pub(crate) max_body: usize,
}

impl Client {
    /// A builder that starts from [`Policy::standard`](crate::Policy::standard).
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Starts a `GET` request.
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Starts a `POST` request. It is repeated only when the server provably did not process it, unless it carries an
    /// `Idempotency-Key` or is marked [`idempotent`](RequestBuilder::idempotent).
    pub fn post(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Starts a `PUT` request.
    pub fn put(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Starts a `PATCH` request. Repeated under the same conditions as a `POST`.
    pub fn patch(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Starts a `DELETE` request.
    pub fn delete(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Starts a `HEAD` request.
    pub fn head(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Starts a request. A bad URL shows when it is built or sent.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder::new(self.clone(), self.transport.request(method, url))
    }

    /// Makes a call with a ready request.
    ///
    /// A timeout set on the request becomes the call's total. If the request was converted from an `http::Request`, its
    /// extensions aren't sent along.
    ///
    /// # Errors
    /// See [`RequestBuilder::send`].
    pub fn execute(&self, request: Request) -> Pending {
        self.execute_with(request, CallOptions::new())
    }

    pub(crate) fn execute_with(&self, request: Request, mut options: CallOptions) -> Pending {
        options.total = options.total.or_else(|| request.timeout().copied());
        let safe = options.is_safe(request.method(), request.headers());
        let url = request.url();
        match self.shared.core.begin(&Authority::of_url(url), request.method(), url.path(), &options) {
            Ok(begun) => {
                let call = begun
                    .call(ReqwestExchange::new(self.transport.clone(), request, options.replay_buffer), safe);
                Pending { state: State::Calling { call, max_body: self.shared.max_body } }
            }
            Err(error) => Pending::failed(error),
        }
    }

    /// Puts other policies in force for the calls that begin from now on, all of them or, when one can't work, none.
    ///
    /// Live state is kept: an open breaker stays open, a budget keeps its balance, slots stay taken. Calls in progress
    /// finish under the policies they began with. A connect timeout belongs to the connection pool and isn't changed; the
    /// answer says so.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a policy can't work; nothing has changed then.
    pub fn reload(&self, policies: impl Into<PolicySet>) -> Result<Reloaded, Error> {
        self.shared.core.reload(policies.into()).map_err(Error::config)
    }

    /// Begins no further call, on this client and its clones, and waits until those in progress have finished, bodies
    /// read or dropped, or until `limit` has passed. Returns how many had not.
    ///
    /// Calls made while or after draining are refused with [`ErrorKind::Draining`](crate::ErrorKind::Draining).
    pub async fn drain(&self, limit: Duration) -> u64 {
        self.shared.core.drain(limit).await
    }

    pub(crate) fn max_body(&self) -> usize {
        self.shared.max_body
    }

    /// Every upstream's live state, by name: breaker, places taken, tokens left.
    ///
    /// ```
    /// # fn log(client: &resilient_client::Client) {
    /// for upstream in client.snapshot() {
    ///     println!("{}: {:?}, {} in flight", upstream.name, upstream.breaker.state, upstream.in_flight);
    /// }
    /// # }
    /// ```
    pub fn snapshot(&self) -> Vec<UpstreamSnapshot> {
        self.shared.core.snapshot()
    }

    /// How many upstreams this client keeps state for.
    pub fn upstreams(&self) -> usize {
        self.shared.core.upstreams()
    }
}

impl From<reqwest::Client> for Client {
    /// The standard policy over a client of your own.
    ///
    /// That client's own retries, redirects and connect timeout stay in force: a retry that happens inside it is not
    /// seen, budgeted or counted here. Build it with `retry(reqwest::retry::never())`, or let
    /// [`Client::builder`] build it. For another policy see [`ClientBuilder::build_over`].
    fn from(transport: reqwest::Client) -> Self {
        ClientBuilder::standard_over(transport)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("core", &self.shared.core).finish_non_exhaustive()
    }
}

pin_project! {
    /// A call in progress. Dropping it cancels the call and gives back whatever it holds.
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct Pending {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        Failed { error: Option<Error> },
        Calling { #[pin] call: Call<ReqwestExchange>, max_body: usize },
    }
}

impl Pending {
    pub(crate) fn failed(error: Error) -> Self {
        Self { state: State::Failed { error: Some(error) } }
    }
}

impl Future for Pending {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Failed { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            StateProj::Calling { call, max_body } => {
                call.poll(cx).map_ok(|response| response.with_max_body(*max_body))
            }
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
