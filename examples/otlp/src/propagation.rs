//! W3C trace context between services, with the tracer's ids.

use http::HeaderMap;
use opentelemetry::{Context, propagation::TextMapPropagator as _};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use resilient_client::{Attempt, AttemptHook, Prepared};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A hook for `ClientBuilder::on_attempt`: each attempt bears the ids of its own span, which is
/// current while the hook is asked. So what the server does is below the attempt that made it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracerHeaders;

impl TracerHeaders {
    /// The headers of what is being done now; none without a tracer.
    pub fn headers() -> HeaderMap {
        Self::of(&Span::current())
    }

    /// The same for what is done in another span. It has its place among the others from then on.
    pub fn of(span: &Span) -> HeaderMap {
        let mut headers = HeaderMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut HeaderInjector(&mut headers));
        headers
    }
}

impl AttemptHook for TracerHeaders {
    fn prepare(&self, _: &Attempt<'_>) -> Prepared {
        Prepared::now(Self::headers())
    }
}

/// Makes a server's span the child of what its request came from. Call it before the span is
/// entered: a span that has begun keeps its parent. Without a tracer nothing is done.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    let from = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let _ = span.set_parent(from);
}
