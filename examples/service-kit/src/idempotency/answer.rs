//! An answer that outlives its request.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, LOCATION},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::problem::{PROBLEM_JSON, Problem};

/// An answer that can be stored and given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) body: String,
}

impl Answer {
    /// A JSON answer that points at what was created.
    pub fn created(status: StatusCode, location: String, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_string(body).map_err(|error| unwritable(&error))?;
        Ok(Self { status, location: Some(location), body })
    }
}

impl From<&Problem> for Answer {
    fn from(problem: &Problem) -> Self {
        Self { status: problem.status(), location: None, body: problem.to_json() }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = if self.status.is_success() {
            HeaderValue::from_static("application/json")
        } else {
            PROBLEM_JSON
        };
        let mut response = (self.status, [(CONTENT_TYPE, json)], self.body).into_response();
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

pub(super) fn unwritable(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "a value could not be written as JSON");
    Problem::internal()
}
