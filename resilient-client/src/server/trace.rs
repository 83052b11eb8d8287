//! The trace that a request belongs to, for what is done for it.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::trace_context::{self, Scope, TraceContext};

/// Reads a request's [trace context](crate::trace_context): what is done for it has a span of that
/// trace as its [current](crate::trace_context::current) one, and the request has it as an
/// extension.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceContextLayer {
    begins: bool,
}

impl TraceContextLayer {
    /// A request without a valid `traceparent` belongs to no trace.
    pub const fn new() -> Self {
        Self { begins: false }
    }

    /// Begins a trace for a request without a valid `traceparent`, so that what was done for it can
    /// be found together.
    #[must_use]
    pub const fn begin(mut self) -> Self {
        self.begins = true;
        self
    }
}

impl<S> Layer<S> for TraceContextLayer {
    type Service = TraceContextService<S>;

    fn layer(&self, service: S) -> Self::Service {
        TraceContextService { service, begins: self.begins }
    }
}

/// See [`TraceContextLayer`].
#[derive(Clone, Debug)]
pub struct TraceContextService<S> {
    service: S,
    begins: bool,
}

impl<S, B> Service<Request<B>> for TraceContextService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Scope<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let parent = TraceContext::of(request.headers());
        let context = match &parent {
            Some(parent) => Some(parent.child()),
            None => self.begins.then(TraceContext::new),
        };
        if let Some(context) = &context {
            request.extensions_mut().insert(RequestSpan { parent, context: context.clone() });
        }
        trace_context::within(context, || self.service.call(request))
    }
}

/// What a request's handler finds in its extensions: the span that handles it, and the one it came
/// from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestSpan {
    /// The caller's; `None` where the trace begins here.
    pub parent: Option<TraceContext>,
    /// This server's.
    pub context: TraceContext,
}
