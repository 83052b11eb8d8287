//! Marks failures whose repetition is pointless.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::advice::{RETRY, RETRY_NEVER, listen};
use crate::outcome::classify::grpc;

/// Marks a 5xx with `x-resilient-client-retry: never` when a call made while handling the request
/// had no retry budget left, or the handler said so itself
/// ([`advice::forbid_retry`](crate::advice::forbid_retry)).
///
/// A response of another status goes unmarked: the handler coped. One of gRPC's whose head says
/// that the server has failed bears `grpc-retry-pushback-ms: -1` as well, which others' clients
/// know.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryAdviceLayer {}

impl RetryAdviceLayer {
    /// The layer. There is nothing to set.
    pub const fn new() -> Self {
        Self {}
    }
}

impl<S> Layer<S> for RetryAdviceLayer {
    type Service = RetryAdvice<S>;

    fn layer(&self, service: S) -> RetryAdvice<S> {
        RetryAdvice { service }
    }
}

/// A service behind a [`RetryAdviceLayer`].
#[derive(Clone, Debug)]
pub struct RetryAdvice<S> {
    service: S,
}

impl<S, A, B> Service<Request<A>> for RetryAdvice<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = AdviceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (future, forbidden) = listen(|| self.service.call(request));
        AdviceFuture { future, forbidden }
    }
}

pin_project! {
    /// A response to come, behind a [`RetryAdviceLayer`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct AdviceFuture<F> {
        #[pin]
        future: F,
        forbidden: bool,
    }
}

impl<F, B, E> Future for AdviceFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let (polled, forbidden) = listen(|| this.future.poll(cx));
        *this.forbidden |= forbidden;
        let mut result = std::task::ready!(polled);
        if let Ok(response) = &mut result
            && *this.forbidden
        {
            let status = response.status();
            let in_grpc = grpc::is_failure(status, response.headers());
            // Without room for it nothing is said.
            if in_grpc || status.is_server_error() {
                let _ = response.headers_mut().try_insert(RETRY, RETRY_NEVER);
            }
            if in_grpc {
                let _ = response.headers_mut().try_insert(grpc::PUSHBACK, grpc::PUSHBACK_NEVER);
            }
        }
        Poll::Ready(result)
    }
}
