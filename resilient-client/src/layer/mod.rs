//! The same engine round any tower service of HTTP.
//!
//! For callers who bring their own transport: hyper-util's client, a service mesh's, a test double.
//! Everything a [`Client`](crate::Client) does to a call happens here too, in the same order,
//! because it is the same code.
//!
//! With the feature `grpc` a gRPC client gets statuses in place of errors: see `grpc`.
//!
//! Three things differ. The connect timeout and hidden retries belong to the service inside, so
//! counts are exact only if it has no retries of its own. No error proves that a request was never
//! sent, as the service may follow redirects, unless
//! [it is said not to](LayerBuilder::follows_no_redirects). And `poll_ready` is always ready: an
//! attempt waits for the service *inside* its own timeout, so that a service that is never ready
//! can't hang the caller.

mod exchange;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "grpc")]
use crate::call::kept_body::KeptBody;
use crate::call::options::CallOptions;
use crate::call::pending::Pending;
use crate::call::response_body::ResponseBody;
use crate::engine::{Core, Reloaded, Setup};
use crate::error::{BoxError, Error};
use crate::layer::exchange::ServiceExchange;
#[cfg(feature = "grpc")]
use crate::outcome::report::CallReport;
use crate::policy::PolicySet;
use crate::replay::Replay;
use crate::shared_methods::{control_methods, setup_methods};
use crate::upstream::UpstreamSnapshot;

/// Puts a [`Policy`](crate::Policy) round a `Service<http::Request<B>>`: the same engine as a
/// [`Client`](crate::Client)'s, for callers who bring their own transport.
///
/// Its `poll_ready` is always ready: an attempt waits for the service *inside* its own timeout.
///
/// All services made by clones of one layer share live state.
///
/// ```
/// use resilient_client::{Policy, ResilienceLayer};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// # use http_body_util::Full;
/// # use bytes::Bytes;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), resilient_client::Error> {
/// let service = ServiceBuilder::new().layer(ResilienceLayer::new(Policy::standard())?).service(service_fn(
///     async |_request: http::Request<String>| {
///         Ok::<_, std::io::Error>(http::Response::new(Full::new(Bytes::from("hello"))))
///     },
/// ));
/// let request = http::Request::get("http://users:3000/users/7").body(String::new()).unwrap();
/// let response = service.oneshot(request).await?;
/// assert_eq!(response.body().report().attempts().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResilienceLayer {
    core: Arc<Core>,
    /// Whether an error is that of the one request there was.
    direct: bool,
}

impl ResilienceLayer {
    /// Checks the policy.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it can't work.
    pub fn new(policies: impl Into<PolicySet>) -> Result<Self, Error> {
        Self::builder().policy(policies).build()
    }

    /// A builder that starts from [`Policy::standard`](crate::Policy::standard).
    pub fn builder() -> LayerBuilder {
        LayerBuilder { setup: Setup::default(), direct: false }
    }

    /// Puts other policies in force. See [`Client::reload`](crate::Client::reload).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a policy can't work; nothing has
    /// changed then.
    pub fn reload(&self, policies: impl Into<PolicySet>) -> Result<Reloaded, Error> {
        self.core.reload(policies.into()).map_err(Error::config)
    }

    /// Begins no further call and waits for those in progress. See
    /// [`Client::drain`](crate::Client::drain).
    pub async fn drain(&self, limit: Duration) -> u64 {
        self.core.drain(limit).await
    }

    /// Every upstream's live state, by name. See [`Client::snapshot`](crate::Client::snapshot).
    pub fn snapshot(&self) -> Vec<UpstreamSnapshot> {
        self.core.snapshot()
    }

    control_methods!();

    pub(crate) fn of(core: Arc<Core>) -> Self {
        Self { core, direct: false }
    }

    /// For tests that look inside.
    #[cfg(all(any(test, feature = "__testkit"), not(feature = "admin")))]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

/// Builds a [`ResilienceLayer`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct LayerBuilder {
    setup: Setup,
    direct: bool,
}

impl LayerBuilder {
    setup_methods!();

    /// The services inside send each request once, and follow no redirects: hyper-util's client
    /// does neither. Default: nothing is known of them.
    ///
    /// It matters for requests that must not be repeated. A server that answers a POST with a
    /// redirect has processed it, and if the hop then can't connect, the error looks like one of a
    /// request that was never sent. So without this promise no error proves that, and a POST that
    /// found no connection isn't tried again.
    pub fn follows_no_redirects(mut self) -> Self {
        self.direct = true;
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the policy can't work.
    pub fn build(self) -> Result<ResilienceLayer, Error> {
        let core = Core::new(self.setup).map_err(Error::config)?;
        Ok(ResilienceLayer { direct: self.direct, ..ResilienceLayer::of(Arc::new(core)) })
    }
}

impl fmt::Debug for LayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerBuilder").field("policies", &self.setup.policies).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ResilienceLayer {
    type Service = Resilience<S>;

    fn layer(&self, service: S) -> Self::Service {
        Resilience { service, core: Arc::clone(&self.core), direct: self.direct }
    }
}

/// A service behind a [`ResilienceLayer`].
#[derive(Clone, Debug)]
pub struct Resilience<S> {
    service: S,
    core: Arc<Core>,
    direct: bool,
}

impl<S> Resilience<S> {
    /// Every upstream's live state, by name. See [`Client::snapshot`](crate::Client::snapshot).
    pub fn snapshot(&self) -> Vec<UpstreamSnapshot> {
        self.core.snapshot()
    }

    control_methods!();
}

impl<S, B, R> Service<http::Request<B>> for Resilience<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error: Into<BoxError>> + Clone,
    B: Replay,
    R: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Response = http::Response<ResponseBody<R>>;
    type Error = Error;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let options = request.extensions().get::<CallOptions>().cloned().unwrap_or_default();
        #[cfg(feature = "grpc")]
        let grpc = crate::media::calls_grpc(request.method(), request.headers());
        #[cfg(not(feature = "grpc"))]
        let grpc = false;
        let exchange = ServiceExchange::new(self.service.clone(), request, self.direct);
        ResponseFuture { call: Pending::new(Arc::clone(&self.core), exchange, options), grpc }
    }
}

pin_project! {
    /// A call in progress. Dropping it cancels the call and gives back whatever it holds.
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<http::Request<B>, Response = http::Response<R>>,
        S: Clone,
        S::Error: Into<BoxError>,
        B: Replay,
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        #[pin]
        call: Pending<ServiceExchange<S, B>>,
        // Its caller knows statuses, and no errors of ours. Without the feature nobody does.
        grpc: bool,
    }
}

#[cfg(feature = "grpc")]
impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error: Into<BoxError>> + Clone,
    B: Replay,
    R: Body<Data = Bytes, Error: Into<BoxError>>,
{
    /// The same for a gRPC client, to whom an error is a status.
    fn poll_in_statuses(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<<Self as Future>::Output> {
        self.project().call.poll(cx).map(|result| {
            result.or_else(|error| {
                let report = error.report().cloned().unwrap_or_else(|| CallReport::of_none(""));
                Ok(crate::grpc::answer(error, ResponseBody::kept(KeptBody::default(), report)))
            })
        })
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error: Into<BoxError>> + Clone,
    B: Replay,
    R: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Output = Result<http::Response<ResponseBody<R>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Asked first: results are large, and go on as they are.
        #[cfg(feature = "grpc")]
        if self.grpc {
            return self.poll_in_statuses(cx);
        }
        self.project().call.poll(cx)
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error: Into<BoxError>> + Clone,
    B: Replay,
    R: Body<Data = Bytes, Error: Into<BoxError>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
