//! One id per request, so that the logs of every service it passed through can be joined.
//!
//! Making an id, keeping the caller's and sending it back are tower-http's. It takes any id that is
//! there, though, and ids end up in logs and in onward headers: a caller's that isn't harmless text
//! is dropped here first.

use axum::http::{HeaderName, HeaderValue, Request};
pub use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};

/// The header that carries the id, in and out.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are replaced: they end up in every log line.
const MAX_LEN: usize = 128;

/// The id as text; empty if it isn't text, which [`drop_unfit`] rules out.
pub fn text(id: &RequestId) -> &str {
    id.header_value().to_str().unwrap_or_default()
}

/// Middleware: removes an id that no log should hold, so that the next layer makes a fresh one.
pub async fn drop_unfit<B>(mut request: Request<B>) -> Request<B> {
    if request.headers().get(X_REQUEST_ID).is_some_and(|given| !is_harmless(given)) {
        request.headers_mut().remove(X_REQUEST_ID);
    }
    request
}

/// No spaces, quotes or control characters.
fn is_harmless(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=MAX_LEN).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
}
