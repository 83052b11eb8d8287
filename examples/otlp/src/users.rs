//! A server whose requests' spans are below the attempts that made them.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use otlp::propagation::continue_trace;
use tokio::net::TcpListener;
use tracing::{Instrument as _, field::Empty};

/// Serves on a free port; the answer is a user's URL.
pub(crate) async fn serve() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/users/7", listener.local_addr()?);
    let routes = Router::new().route("/users/{id}", get(user)).layer(from_fn(traced));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

/// Out of order at first.
async fn user() -> Result<&'static str, StatusCode> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if ASKED.swap(true, Ordering::Relaxed) { Ok("Ada") } else { Err(StatusCode::SERVICE_UNAVAILABLE) }
}

/// A request's span, as the conventions for HTTP servers have it.
async fn traced(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = request.method().as_str(),
        http.route = route,
        url.path = request.uri().path(),
        url.scheme = "http",
        http.response.status_code = Empty,
        "error.type" = Empty,
    );
    continue_trace(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    // Signed, as OpenTelemetry's numbers are: tracing-opentelemetry makes text of others.
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
    response
}
