//! What an admin service answers, and how it reads what it is sent.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::invalid::Invalid;

/// The most bytes of a request's body.
const MOST_BYTES: usize = 64 * 1024;
/// How long it may take to come.
const MOST_TIME: Duration = Duration::from_secs(5);

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    detail: String,
    field: Option<(String, String)>,
    allow: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None, allow: None }
    }

    /// The methods that there are, separated by commas.
    #[cfg(feature = "fault")]
    pub(crate) fn method(allow: &'static str) -> Self {
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("There is {allow}."));
        Self { allow: Some(allow), ..refusal }
    }

    /// What is read can't work.
    pub(crate) fn of(detail: &str, invalid: &Invalid) -> Self {
        let refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        let (field, why) = invalid.field();
        refusal.field(&field, why)
    }

    pub(crate) fn field(self, field: &str, why: &str) -> Self {
        Self { field: Some((field.to_owned(), why.to_owned())), ..self }
    }

    /// As problem details (RFC 9457).
    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        let mut problem = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let (Some((field, detail)), Some(problem)) = (self.field, problem.as_object_mut()) {
            problem.insert("errors".to_owned(), json!([{ "field": field, "detail": detail }]));
        }
        let mut response = json_response(self.status, "application/problem+json", &problem);
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

pub(crate) fn json_response(status: StatusCode, media: &'static str, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The JSON of a request, as text. Of another type it is refused: that is what a page of another
/// origin can send without asking.
pub(crate) async fn read_json<B>(head: &Parts, body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data: Send, Error: Into<crate::error::BoxError>>,
{
    let media = head.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let why = "The body must be application/json.";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    match timeout(MOST_TIME, Limited::new(body, MOST_BYTES).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let why = format!("More than {MOST_BYTES} bytes.");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why))
        }
        Ok(Err(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "The body broke off.")),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "The body took too long.")),
    }
}
