//! Which request this is: the key the client gave it, and what it asks for.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::answer::unwritable;
use crate::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_KEY_LEN: usize = 255;

/// The `Idempotency-Key` header, if the client sent one: 400 unless it is a single value of 1 to
/// 255 printable ASCII characters.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(pub(super) Option<String>);

impl IdempotencyKey {
    /// The key in the headers of a request.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let bytes = value.as_bytes();
        let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
        match value.to_str() {
            Ok(key) if values.next().is_none() && printable && (1..=MAX_KEY_LEN).contains(&bytes.len()) => {
                Ok(Self(Some(key.to_owned())))
            }
            _ => Err(Problem::bad_request(format!(
                "Idempotency-Key must be sent once, with 1 to {MAX_KEY_LEN} printable ASCII characters."
            ))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::from_headers(&parts.headers)
    }
}

/// What tells one request from another: equal when both mean the same, whatever their bytes.
#[derive(Clone, Debug)]
pub struct Fingerprint(pub(super) String);

impl Fingerprint {
    /// The fingerprint of a parsed request.
    pub fn of(request: &impl Serialize) -> Result<Self, Problem> {
        let canonical = serde_json::to_vec(request).map_err(|error| unwritable(&error))?;
        Ok(Self(format!("{:x}", Sha256::digest(canonical))))
    }
}
