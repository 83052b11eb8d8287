//! Extractors that answer bad input with a [`Problem`] naming what is wrong: axum's answer in plain
//! text.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE, request::Parts},
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::problem::Problem;

/// A JSON body: 415 for another content type, 413 over the limit, 400 for malformed JSON and 422,
/// with the field's path, for JSON of another shape.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                .detail("Send the body as JSON, with Content-Type: application/json."));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))?;
        parse(&body).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
            .detail("The body is larger than this service accepts."),
        _ => Problem::bad_request("The body could not be read to its end."),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let cause = error.into_inner();
        if !cause.is_data() {
            Problem::bad_request(format!("The body is not valid JSON: {cause}."))
        } else if field == "." {
            Problem::invalid().detail(format!("The body has another shape: {cause}."))
        } else {
            Problem::invalid().field(field, cause.to_string())
        }
    })?;
    json.end().map_err(|cause| Problem::bad_request(format!("The body is not valid JSON: {cause}.")))?;
    // Serde would take a list of values for a struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid().detail("The body must be a JSON object."));
    }
    Ok(value)
}

/// A query string: 400 when it doesn't fit.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

/// The `{id}` of a route, in canonical form: 400 when it isn't an id at all.
#[derive(Clone, Debug)]
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let malformed =
            || Problem::bad_request("An id is a UUID, such as 01980000-0000-7000-8000-000000000000.");
        let Path(raw) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| malformed())?;
        canonical_id(&raw).map(Self).ok_or_else(malformed)
    }
}

/// The id as this service writes it: a hyphenated UUID in lower case. `None` when it isn't one.
pub fn canonical_id(raw: &str) -> Option<String> {
    // The parser also takes braces, `urn:uuid:` and no hyphens; one spelling per id keeps links
    // comparable.
    let id = Uuid::try_parse(raw).ok()?.to_string();
    id.eq_ignore_ascii_case(raw).then_some(id)
}
