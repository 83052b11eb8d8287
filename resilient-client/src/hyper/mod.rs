//! The same client over hyper, without reqwest in between: about half the instructions a request.
//!
//! Verbs, policies, reports and errors are those of [`crate::Client`], because the engine is the
//! same. What is between the engine and the socket is hyper-util's pooled client and nothing else:
//! HTTP/1.1 and, with the feature `http2`, HTTP/2; `https` with the feature `hyper-rustls`.
//!
//! - **Exact counts.** The pool's own hidden repetition is off. What it would have repeated is an
//!   attempt that was never sent, and the ledger repeats it, whatever the method, at no cost to the
//!   budget, and shows it in the report.
//! - **A connection that lost its voice is retired.** Over HTTP/1.1 an attempt that times out takes
//!   its connection along. An HTTP/2 connection serves on, and one whose path is dead would swallow
//!   every request to its host until the ping notices. After an attempt timeout during which
//!   nothing came on it, or two in a row, no further request is sent on it. Attempts in flight on
//!   it may still finish.
//! - **Connecting** means name lookup, TCP and TLS together; the policy's connect timeout bounds
//!   them all. IPv6 and IPv4 are raced (RFC 8305). Idle connections are closed after 15 s; HTTP/2
//!   ones are pinged every 5 s.
//!
//! What reqwest does and this doesn't: cookies, proxies, decompression. A 3xx is the
//! answer, unless [redirects](ClientBuilder::redirects) are set. URLs are absolute `http` or
//! `https` [URIs](http::Uri), percent-encoded already, without credentials. For a connector of your
//! own, such as a Unix socket's, put a [`ResilienceLayer`](crate::ResilienceLayer) round
//! `hyper_util::client::legacy::Client`: it drives the same engine.
//!
//! ```no_run
//! # async fn run() -> Result<(), resilient_client::Error> {
//! use resilient_client::hyper::Client;
//!
//! let client = Client::builder().build()?;
//! let response = client.get("http://users:3000/users/7").send().await?;
//! println!("{}\n{}", response.status(), response.report());
//! println!("{}", response.text().await?);
//! # Ok(())
//! # }
//! ```

mod body;
mod builder;
mod connector;
mod exchange;
#[cfg(feature = "fault")]
mod faulty;
mod following;
mod frames;
mod into_uri;
mod link;
mod pool;
mod request;
mod response;
mod service;
mod ticket;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Uri};
use pin_project_lite::pin_project;

pub use body::Body;
pub use builder::ClientBuilder;
pub use into_uri::IntoUri;
pub use request::RequestBuilder;
pub use response::Response;
pub use service::Answered;

use crate::call::options::CallOptions;
use crate::call::pending;
use crate::call::trail::Follow as _;
use crate::engine::Core;
use crate::error::{Error, ErrorKind};
use crate::hyper::exchange::HyperExchange;
use crate::hyper::following::Following;
use crate::hyper::pool::Wire;
use crate::shared_methods::client_methods;

fn read(url: impl IntoUri) -> Result<Uri, Error> {
    url.read().map_err(|error| Error::new(ErrorKind::Request).because(error))
}

/// An HTTP client over hyper whose calls have deadlines, retries, a retry budget, a circuit breaker
/// and a bulkhead. See the [module docs](self).
///
/// Cheap to clone; clones share connections and live state. Use one for as long as the process
/// lives: a new client knows nothing about which upstreams are broken.
#[derive(Clone)]
pub struct Client {
    /// `None` where none could be made; the core knows why.
    wire: Option<Arc<Wire>>,
    core: Arc<Core>,
    max_body: usize,
}

impl Client {
    /// The standard policy. Build one and clone it. Where there is no TLS each call fails with
    /// [`ErrorKind::Config`], which [`builder`](Self::builder) would have told at once.
    pub fn new() -> Self {
        Self::builder().build().unwrap_or_else(|error| builder::unmade(&error))
    }

    /// A builder that starts from [`Policy::standard`](crate::Policy::standard).
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    client_methods!(impl IntoUri);

    /// Starts a request. A bad URL shows when it is sent.
    pub fn request(&self, method: Method, url: impl IntoUri) -> RequestBuilder {
        let url = match url.text().and_then(|text| self.core.defaults().below_base(text)) {
            Some(below) => below.and_then(|url| read(&url)),
            None => read(url).and_then(|url| self.below_base(url)),
        };
        RequestBuilder::new(self.clone(), method, url)
    }

    /// The URL itself if it names a host, else below the base.
    #[inline]
    fn below_base(&self, url: Uri) -> Result<Uri, Error> {
        if url.authority().is_some() {
            return Ok(url);
        }
        let text = url.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        match self.core.defaults().below_base(text) {
            Some(below) => below.and_then(|url| read(&url)),
            None => Ok(url),
        }
    }

    /// Makes a call with a ready request. [`CallOptions`] in its extensions hold for it.
    ///
    /// # Errors
    /// See [`RequestBuilder::send`].
    pub fn execute(&self, mut request: Request<Body>) -> Pending {
        let options = request.extensions_mut().remove().unwrap_or_default();
        self.execute_with(request, options)
    }

    /// Makes a call with a ready request and settings of its own, in place of those in its
    /// extensions; of these only a timeout holds, if there is none among its own.
    ///
    /// # Errors
    /// See [`RequestBuilder::send`].
    pub fn execute_with(&self, mut request: Request<Body>, mut options: CallOptions) -> Pending {
        let built = request.extensions_mut().remove::<CallOptions>();
        options.total = options.total.or_else(|| built?.total);
        self.clone().call(request, options)
    }

    #[allow(
        clippy::inline_always,
        reason = "a request and a call are large, and are put in their place at once"
    )]
    #[inline(always)]
    fn call(self, mut request: Request<Body>, options: CallOptions) -> Pending {
        let ready = check(request.uri()).and_then(|()| self.core.defaults().complete(request.headers_mut()));
        let following = Following::of(&self, &request, &options);
        let Self { wire, core, max_body } = self;
        let Some(wire) = wire else { return Pending::failed(core.no_transport()) };
        let call = match ready {
            Ok(()) => {
                let exchange = HyperExchange::new(wire, request, max_body, following.is_some());
                pending::Pending::new(core, exchange, options)
            }
            Err(error) => pending::Pending::failed(error),
        };
        Pending { call, following }
    }

    /// A call that follows another, whose headers it has already.
    #[cold]
    fn follow(&self, request: Request<Body>, options: CallOptions) -> pending::Pending<HyperExchange> {
        let Some(wire) = self.wire.clone() else { return pending::Pending::failed(self.core.no_transport()) };
        let exchange = HyperExchange::new(wire, request, self.max_body, true);
        pending::Pending::new(Arc::clone(&self.core), exchange, options)
    }

    /// What became of its connections since it was built.
    pub fn connections(&self) -> crate::Connections {
        self.core.connections().unwrap_or_default()
    }

    fn max_body(&self) -> usize {
        self.max_body
    }
}

/// Refuses what the pool would refuse only when the call has been counted already.
#[inline]
fn check(uri: &Uri) -> Result<(), Error> {
    #[cold]
    fn says(what: &str) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Request).says(what))
    }
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    // Not `host()`, which looks through the text twice.
    if authority.is_empty() || authority.starts_with(':') {
        return says("the URL names no host");
    }
    if authority.as_bytes().contains(&b'@') {
        return says("credentials in the URL; use basic_auth");
    }
    match uri.scheme_str() {
        Some("http") => Ok(()),
        Some("https") if cfg!(feature = "hyper-rustls") => Ok(()),
        Some("https") => says("https needs the feature `hyper-rustls`"),
        _ => says("the URL is neither http nor https"),
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
        f.debug_struct("Client").field("core", &self.core).finish_non_exhaustive()
    }
}

pin_project! {
    /// A call in progress. Dropping it cancels the call and gives back whatever it holds.
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct Pending {
        #[pin]
        call: pending::Pending<HyperExchange>,
        // Where redirects are followed.
        following: Option<Box<Following>>,
    }
}

impl Pending {
    fn failed(error: Error) -> Self {
        Self { call: pending::Pending::failed(error), following: None }
    }
}

impl Future for Pending {
    type Output = Result<Response, Error>;

    // Not inlined: the whole engine, and hyper with it, would be compiled once more in every crate
    // that awaits a call.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.following {
            // As it comes: what a call ends with is large.
            None => this.call.poll(cx),
            Some(following) => following.poll(this.call, cx, || ()),
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
