//! Faults below a client: what it sends meets them on the way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::Body;
use super::faults::Faults;
use super::rule::Asked;
use super::wire::{Answer, Faulted, Injector};
use crate::error::BoxError;

/// Injects faults into what a tower service sends: below a
/// [`ResilienceLayer`](crate::ResilienceLayer), say, which takes them for the real thing. A
/// [`Client`](crate::Client) has [`faults`](crate::ClientBuilder::faults) of its own.
///
/// The error of a connection that breaks is hyper's, and what a body that breaks brings, too: both
/// have come over a connection in memory. It needs tokio's runtime.
///
/// ```
/// use resilient_client::fault::{ClientLayer, Faults, Rule, Settings};
/// use resilient_client::{Policy, ResilienceLayer};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// # use http_body_util::Full;
/// # use bytes::Bytes;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let faults = Faults::new(Settings::new().rule(Rule::abort(http::StatusCode::NOT_FOUND)))?;
/// let service = ServiceBuilder::new()
///     .layer(ResilienceLayer::new(Policy::standard())?)
///     .layer(ClientLayer::new(faults))
///     .service(service_fn(async |_: http::Request<String>| {
///         Ok::<_, std::io::Error>(http::Response::new(Full::new(Bytes::from("hello"))))
///     }));
/// let request = http::Request::get("http://users:3000/users/7").body(String::new())?;
/// assert_eq!(service.oneshot(request).await?.status(), 404);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientLayer {
    injector: Injector,
}

impl ClientLayer {
    /// The layer.
    pub fn new(faults: Faults) -> Self {
        Self { injector: Injector::new(faults) }
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = FaultyClient<S>;

    fn layer(&self, service: S) -> FaultyClient<S> {
        FaultyClient { service, injector: self.injector.clone() }
    }
}

/// A service below a [`ClientLayer`].
#[derive(Clone, Debug)]
pub struct FaultyClient<S> {
    service: S,
    injector: Injector,
}

impl<S, B, R> Service<Request<B>> for FaultyClient<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>> + Clone,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body<R>>;
    type Error = BoxError;
    type Future = ClientFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let drawn = self.injector.draw(|| Asked::of(&request));
        let sent = if drawn.is_none() {
            Sending::Sent { future: self.service.call(request) }
        } else {
            // It may never be sent. The service that is ready stays with it.
            let clone = self.service.clone();
            Sending::Held { held: Some((std::mem::replace(&mut self.service, clone), request)) }
        };
        ClientFuture { future: drawn.onto(sent, || ()) }
    }
}

pin_project! {
    /// A response to come, through a [`ClientLayer`].
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct ClientFuture<S, B, R>
    where
        S: Service<Request<B>>,
        R: HttpBody<Data = Bytes>,
        R::Error: Into<BoxError>,
        R: Send,
        R: 'static,
    {
        #[pin]
        future: Faulted<Sending<S, B>, Response<Body<R>>>,
    }
}

impl<S, B, R> Future for ClientFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx)
    }
}

impl<S, B, R> fmt::Debug for ClientFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A request that is sent when it is first polled, unless it has been before.
    #[project = SendingProj]
    enum Sending<S, B>
    where
        S: Service<Request<B>>,
    {
        Held { held: Option<(S, Request<B>)> },
        Sent { #[pin] future: S::Future },
    }
}

impl<S, B, R> Future for Sending<S, B>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
{
    type Output = Result<Response<Body<R>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let SendingProj::Held { held } = self.as_mut().project() {
            let Some((mut service, request)) = held.take() else { return Poll::Pending };
            let future = service.call(request);
            self.set(Sending::Sent { future });
        }
        match self.project() {
            SendingProj::Sent { future } => {
                future.poll(cx).map(|end| end.map(|response| response.map(Body::own)).map_err(Into::into))
            }
            SendingProj::Held { .. } => Poll::Pending,
        }
    }
}

impl<R> Answer for Response<Body<R>>
where
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type About = ();
    type Body = Body<R>;

    fn take_apart(self) -> ((), Parts, Body<R>) {
        let (parts, body) = self.into_parts();
        ((), parts, body)
    }

    fn put_together((): (), parts: Parts, body: Incoming) -> Self {
        Self::from_parts(parts, Body::carried(body))
    }
}
