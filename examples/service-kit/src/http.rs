//! The layers round every route, outermost last: body limit, timeout, deadline, panic, problem,
//! span, request id, trace.
//!
//! All are axum's or tower-http's, and the trace resilient-client's, except three:
//! [`problem::ensure`], because their error answers are plain text,
//! [`request_id::drop_unfit`], because they trust the caller's id, and resilient-client's [`DeadlineLayer`]: a caller says how
//! long it waits, what comes too late isn't begun, and what is late isn't gone on with.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware::{from_fn, map_request},
    response::IntoResponse as _,
};
use resilient_client::server::{DeadlineLayer, RequestSpan, TraceContextLayer};
use tower_http::{
    catch_panic::CatchPanicLayer,
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, Span};

use crate::{
    limits::Limits,
    problem,
    request_id::{self, MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
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
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
        // Outermost, so that the span and every answer carry the id.
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(map_request(request_id::drop_unfit))
        // The span has the caller's trace, and calls made for the request go on with it.
        .layer(TraceContextLayer::new().begin())
}

/// The path only: a query may hold what no log should.
fn span(request: &Request) -> Span {
    let request_id = request.extensions().get::<RequestId>().map_or("", request_id::text);
    let trace = request.extensions().get::<RequestSpan>();
    tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        request_id,
        trace_id = trace.map(|trace| display(trace.context.trace_id())),
        span_id = trace.map(|trace| display(trace.context.span_id())),
        parent_span_id = trace.and_then(|trace| Some(display(trace.parent.as_ref()?.span_id()))),
    )
}
