//! What every route answers in the same way: who isn't let in, and what there isn't.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use http::request::Parts;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Desk;
use crate::access::{Refusal, read_json};

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.response().map(Body::new)
    }
}

/// Proof that whoever asks may.
pub(super) struct Operator;

impl FromRequestParts<Arc<Desk>> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Refusal> {
        desk.access.admit(head).map(|()| Self)
    }
}

/// Proof that whoever asks may see what is no secret.
pub(super) struct Visitor;

impl FromRequestParts<Arc<Desk>> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Refusal> {
        desk.access.admit_page(head).map(|()| Self)
    }
}

/// What a request's query asks for.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Desk>> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, _: &Arc<Desk>) -> Result<Self, Refusal> {
        let read = axum::extract::Query::try_from_uri(&head.uri);
        read.map(|axum::extract::Query(asked)| Self(asked))
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// JSON that is true now and not later.
pub(super) fn json(value: impl Serialize) -> Response {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store")), no_sniffing()], Json(value)).into_response()
}

/// A browser takes it for what it says it is.
pub(super) fn no_sniffing() -> (HeaderName, HeaderValue) {
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
}

/// Reads a request's JSON, once whoever sent it may.
pub(super) async fn read<T: DeserializeOwned>(desk: &Desk, request: Request) -> Result<T, Refusal> {
    let (head, body) = request.into_parts();
    desk.access.admit(&head)?;
    let bytes = read_json(&head, body).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

/// How many names a refusal lists.
const MOST_KNOWN: usize = 20;

/// 404 for a name that nothing here has, with those that there are.
pub(super) fn unknown(what: &str, known: impl IntoIterator<Item = String>) -> Refusal {
    let mut known: Vec<_> = known.into_iter().collect();
    let more = known.len().saturating_sub(MOST_KNOWN);
    known.truncate(MOST_KNOWN);
    let known = match (known.is_empty(), more) {
        (true, _) => "There is none".to_owned(),
        (false, 0) => format!("Known: {}", known.join(", ")),
        (false, more) => format!("Known: {}, and {more} more", known.join(", ")),
    };
    Refusal::new(StatusCode::NOT_FOUND, format!("There is no such {what}. {known}."))
}

pub(super) async fn no_such_page(_: Visitor) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "There is nothing here.")
}

pub(super) async fn no_such_method(_: Visitor) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "There is no such method here.")
}
