//! Faults in front of a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{Body, Spoilt};
use super::connection::Connection;
use super::faults::Faults;
use super::machine::{Act, Answer, Fault, Place, Spoil};
use super::rule::Asked;
use super::timer;
use crate::error::BoxError;

/// Injects faults in front of a service of HTTP: axum's, hyper's or any other.
///
/// Resets and garbage are the connection's, not the answer's: they need the [`Connection`] that an
/// accept loop puts into the extensions of its requests. Without it, and always over HTTP/2, whose
/// connections others share, they are what a service can do itself: the connection (HTTP/1.1) is
/// closed, or the stream (HTTP/2) reset with `RST_STREAM`, before or after the head.
///
/// ```
/// use axum::{Router, routing::get};
/// use resilient_client::fault::{Faults, Kind, Rule, ServerLayer, Settings};
///
/// let faults = Faults::new(Settings::new().rule(Rule::new(Kind::Hang).path("/users/{id}")))?;
/// let app: Router = Router::new()
///     .route("/users/{id}", get(|| async { "a user" }))
///     .layer(ServerLayer::new(faults.clone()))
///     // What is added after the layer suffers none.
///     .route("/healthz", get(|| async { "alive" }));
/// # Ok::<(), resilient_client::policy::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerLayer {
    faults: Faults,
}

impl ServerLayer {
    /// The layer.
    pub fn new(faults: Faults) -> Self {
        Self { faults }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = FaultyServer<S>;

    fn layer(&self, service: S) -> FaultyServer<S> {
        FaultyServer { service, faults: self.faults.clone() }
    }
}

/// A service behind a [`ServerLayer`].
#[derive(Clone, Debug)]
pub struct FaultyServer<S> {
    service: S,
    faults: Faults,
}

impl<S, A, B> Service<Request<A>> for FaultyServer<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ServerFuture<S, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let Some(fault) = self.faults.draw(|| Asked::of(&request)) else {
            return ServerFuture { state: State::Plain { future: self.service.call(request) } };
        };
        let clone = self.service.clone();
        // The one that is ready.
        let service = std::mem::replace(&mut self.service, clone);
        ServerFuture { state: State::Faulty { future: Box::pin(Faulty::new(service, request, fault)) } }
    }
}

pin_project! {
    /// A response to come, behind a [`ServerLayer`].
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct ServerFuture<S, A>
    where
        S: Service<Request<A>>,
    {
        #[pin]
        state: State<S, A>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, A>
    where
        S: Service<Request<A>>,
    {
        Plain { #[pin] future: S::Future },
        Faulty { future: Pin<Box<Faulty<S, A>>> },
    }
}

impl<S, A, B> Future for ServerFuture<S, A>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Output = Result<Response<Body<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Plain { future } => {
                future.poll(cx).map(|served| served.map(|response| response.map(Body::own)))
            }
            StateProj::Faulty { future } => future.as_mut().poll(cx),
        }
    }
}

impl<S: Service<Request<A>>, A> fmt::Debug for ServerFuture<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A request that suffers a fault. Dropped, it gives its place back.
    struct Faulty<S, A>
    where
        S: Service<Request<A>>,
    {
        delay: Option<Pin<Box<Sleep>>>,
        waiting: Option<(S, Request<A>)>,
        #[pin]
        serving: Option<S::Future>,
        act: Act,
        place: Option<Place>,
        shared: bool,
        // Where it can be broken without breaking others.
        connection: Option<Connection>,
    }
}

impl<S: Service<Request<A>>, A> Faulty<S, A> {
    fn new(service: S, request: Request<A>, Fault { delay, act, place }: Fault) -> Self {
        let delay = timer(delay);
        let shared = request.version() >= Version::HTTP_2;
        let connection = request.extensions().get::<Connection>().filter(|_| !shared).cloned();
        let waiting = Some((service, request));
        Self { delay, waiting, serving: None, act, place: Some(place), shared, connection }
    }
}

impl<S, A, B> Future for Faulty<S, A>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    type Output = Result<Response<Body<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // 1. It waits.
        if let Some(delay) = this.delay {
            ready!(delay.as_mut().poll(cx));
            *this.delay = None;
        }
        // 2. It isn't served, or it is.
        let connection = this.connection.as_ref();
        if let Some((mut service, request)) = this.waiting.take() {
            match this.act {
                Act::Serve => {
                    // The delay was all.
                    *this.place = None;
                    this.serving.set(Some(service.call(request)));
                }
                Act::Spoil(_) => this.serving.set(Some(service.call(request))),
                unserved => {
                    let Some(place) = this.place.take() else { return Poll::Pending };
                    return Poll::Ready(Ok(instead(unserved, connection, place)));
                }
            }
        }
        // 3. Its answer is spoilt.
        let Some(serving) = this.serving.as_mut().as_pin_mut() else { return Poll::Pending };
        let response = ready!(serving.poll(cx))?;
        Poll::Ready(Ok(match (this.act, this.place.take()) {
            (Act::Spoil(spoil), Some(place)) => {
                if let (Spoil::Reset, Some(connection)) = (&spoil, connection) {
                    connection.reset_after_flush();
                }
                response.map(|body| {
                    let spoilt = Spoilt::new(body, *spoil, place);
                    Body::spoilt(if *this.shared { spoilt.over_http2() } else { spoilt })
                })
            }
            _ => response.map(Body::own),
        }))
    }
}

/// What comes of a request that isn't served.
fn instead<B>(act: &Act, connection: Option<&Connection>, place: Place) -> Response<Body<B>> {
    if let Act::Answer(answer) = act {
        let Answer { status, headers, body } = &**answer;
        let mut response = Response::new(Body::made(body.clone(), place));
        *response.status_mut() = *status;
        response.headers_mut().clone_from(headers);
        return response;
    }
    match (act, connection) {
        (Act::Garbage, Some(connection)) => connection.garble(),
        (_, Some(connection)) => connection.reset(),
        (_, None) => {}
    }
    // Nobody sees it: the connection breaks at its next flush, or this body breaks it before the
    // head has left.
    let mut response = Response::new(Body::broken(connection.is_some(), place));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
