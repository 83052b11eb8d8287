//! The layers round every route, outermost last: body limit, timeout, deadline, panic, problem,
//! span, request id, trace.
//!
//! All are axum's or tower-http's, and the trace resilient-client's, except three:
//! [`problem::ensure`], because their error answers are plain text,
//! [`request_id::drop_unfit`], because they trust the caller's id, and resilient-client's [`DeadlineLayer`]: a caller says how
//! long it waits, what comes too late isn't begun, and what is late isn't gone on with.

use std::time::Duration;

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::StatusCode,
    middleware::{from_fn, map_request},
    response::{IntoResponse as _, Response},
};
use resilient_client::server::{DeadlineLayer, RequestSpan, TraceContextLayer};
use tower_http::{
    catch_panic::CatchPanicLayer,
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, OnResponse as _, TraceLayer},
};
use tracing::{
    Level, Span,
    field::{Empty, display},
};

use crate::{
    limits::Limits,
    meters::known,
    problem,
    request_id::{self, MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    traces::tracer,
};

/// Puts the layers that every request passes round the routes.
pub fn wrap(routes: Router, limits: &Limits) -> Router {
    routes
        .layer(DefaultBodyLimit::max(limits.max_body_bytes))
        // Covers reading the body too, so a client that sends a byte a minute can't hold a handler.
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.request_timeout()))
        .layer(DeadlineLayer::standard())
        .layer(CatchPanicLayer::custom(|panic: Box<dyn std::any::Any + Send>| {
            problem::from_panic(&*panic).into_response()
        }))
        // Outside the layers above, whose errors aren't problems yet.
        .layer(from_fn(problem::ensure))
        .layer(TraceLayer::new_for_http().make_span_with(span).on_response(answered))
        // Outermost, so that the span and every answer carry the id.
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(map_request(request_id::drop_unfit))
        // The span has the caller's trace, and calls made for the request go on with it.
        .layer(TraceContextLayer::new().begin())
}

/// Named as OpenTelemetry's conventions for HTTP servers name it. The path only: a query may hold
/// what no log should.
fn span(request: &Request) -> Span {
    let request_id = request.extensions().get::<RequestId>().map_or("", request_id::text);
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let (sent, method) = (request.method().as_str(), known(request.method()));
    let is_known = sent == method;
    let verb = if is_known { method } else { "HTTP" };
    let span = tracing::info_span!(
        "request",
        otel.name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}")),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.request.method_original = (!is_known).then_some(sent),
        http.route = route,
        url.path = request.uri().path(),
        url.scheme = "http",
        http.response.status_code = Empty,
        "error.type" = Empty,
        request_id,
        trace_id = Empty,
        span_id = Empty,
        parent_span_id = Empty,
    );
    if let Some(RequestSpan { parent, context, .. }) = request.extensions().get() {
        // A tracer has ids of its own, of the same trace if the request came with one.
        let own = tracer::begin(&span, parent.as_ref());
        let context = own.as_ref().unwrap_or(context);
        span.record("trace_id", display(context.trace_id()));
        span.record("span_id", display(context.span_id()));
        if let Some(parent) = parent {
            span.record("parent_span_id", display(parent.span_id()));
        }
    }
    span
}

/// The conventions call 5xx a server's errors, and 4xx its callers'.
fn answered(response: &Response, took: Duration, span: &Span) {
    let status = response.status();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
    DefaultOnResponse::new().level(Level::INFO).on_response(response, took, span);
}
