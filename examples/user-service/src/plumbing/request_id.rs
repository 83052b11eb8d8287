//! One id per request, so that the logs of every service it passed through can be joined.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

/// The header that carries the id, in and out.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are replaced: they end up in every log line.
const MAX_LEN: usize = 128;

/// The id of the request; a request extension on every route.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in, see `is_sane`.
        self.0.to_str().unwrap_or_default()
    }

    fn new() -> Self {
        let id = Uuid::now_v7().to_string();
        Self(HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none")))
    }
}

/// Middleware: takes the caller's id if it is sane, makes one otherwise, and sends it back.
pub async fn assign(mut request: Request, next: Next) -> Response {
    let id = match request.headers().get(X_REQUEST_ID) {
        Some(given) if is_sane(given) => RequestId(given.clone()),
        _ => RequestId::new(),
    };
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_REQUEST_ID, id.0);
    response
}

/// An id is untrusted text that goes into logs and onward headers: no spaces, quotes or control characters.
fn is_sane(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=MAX_LEN).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
}
