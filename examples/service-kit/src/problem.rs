//! Every error this service answers, as `application/problem+json` (RFC 9457).
//!
//! Crates of this name (`problem_details`, say) bring the struct and its JSON, some sixty lines
//! here. What the services need besides is theirs anyway: `Retry-After`, the fields at fault, one
//! rule for database errors, a body that can be stored and replayed, and the framework's own errors
//! rewritten.
//!
//! A problem says what the client can act on and nothing of what is inside: the cause goes to the
//! log, where the request id finds it.

use std::{any::Any, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The media type of a problem.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

const STORAGE: &str = "urn:problem:storage";

/// An error answer.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<Box<str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// What is wrong with one field of the request.
#[derive(Clone, Debug, Serialize)]
struct FieldError {
    field: String,
    detail: String,
}

impl Problem {
    /// A problem that its status says all about.
    pub fn new(status: StatusCode) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: String::new(),
            instance: None,
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// 400: the request itself is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST).detail(detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND).detail(detail)
    }

    /// 422 for a well-formed request that breaks a rule; each broken rule is added with
    /// [`Problem::field`].
    pub fn invalid() -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY).kind("urn:problem:invalid-request", "Invalid request")
    }

    /// 500, with the cause left to the log.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 503 that says when to come back.
    pub fn unavailable(retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE).retry_after(retry_after)
    }

    /// Names the problem more closely than its status does: a type URI and a title that never
    /// varies.
    #[must_use]
    pub fn kind(mut self, uri: &'static str, title: &'static str) -> Self {
        (self.kind, self.title) = (uri, title);
        self
    }

    /// What went wrong this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// What the problem is about: a path, by which a client can check that it is about what it
    /// asked for.
    #[must_use]
    pub fn instance(mut self, path: impl Into<Box<str>>) -> Self {
        self.instance = Some(path.into());
        self
    }

    /// Adds what is wrong with one field, by its path in the request: `items[0].quantity`.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), detail: detail.into() });
        self
    }

    /// Sends `Retry-After`, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Whether the database could not store anything.
    pub fn is_storage(&self) -> bool {
        self.kind == STORAGE
    }

    /// Whether any field was found wrong.
    pub fn has_fields(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body as JSON.
    pub fn to_json(&self) -> String {
        // Strings and numbers always serialise; an empty object is still a valid problem.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), [(CONTENT_TYPE, PROBLEM_JSON)], self.to_json()).into_response();
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds as u64));
        }
        response
    }
}

/// A database that is merely busy is worth another try; anything else is ours to explain in the
/// log.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if crate::database::is_busy(&error) {
            tracing::warn!(%error, "the database is busy");
            Self::unavailable(Duration::from_secs(1)).detail("The service is busy; try again shortly.")
        } else if crate::database::is_unwritable(&error) {
            tracing::error!(%error, "the database stores nothing");
            Self::unavailable(Duration::from_secs(5))
                .kind(STORAGE, "Nothing can be stored")
                .detail("The service can't store anything at present; reading works.")
        } else {
            tracing::error!(%error, "the database failed");
            Self::internal()
        }
    }
}

/// Middleware: rewrites any error answer that isn't a problem yet.
///
/// The framework's own errors (unknown route, wrong method, timeout, ...) are plain text or empty.
/// Headers that belong to the error, such as `Allow`, are kept.
pub async fn ensure(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(CONTENT_TYPE) == Some(&PROBLEM_JSON) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    if status == StatusCode::SERVICE_UNAVAILABLE && !parts.headers.contains_key(RETRY_AFTER) {
        parts.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Response::from_parts(parts, Body::from(Bytes::from(Problem::new(status).to_json())))
}

/// A handler panicked: the client gets a 500, the log gets the message.
pub fn from_panic(panic: &(dyn Any + Send)) -> Problem {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    Problem::internal()
}
