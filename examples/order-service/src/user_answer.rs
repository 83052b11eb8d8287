//! What an answer about a user means, and whether it is user-service's own.
//!
//! Between two services stand proxies, load balancers and configurations, and each can answer 200
//! or 404 in user-service's stead: with a page of HTML, for an upstream it doesn't know, or because
//! the URL points elsewhere. Such an answer must not settle an order. user-service's own are told
//! apart by what only it would say:
//!
//! | | status | media type | body |
//! |---|---|---|---|
//! | exists | 200 | `application/json` | an object whose `id` is the one asked about |
//! | unknown | 404 | `application/problem+json` | `type` `urn:problem:user-not-found`, `instance` `/users/<id>` of the same |

use std::fmt;

use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;

use crate::Existence;

/// The problem type of user-service's 404.
const USER_NOT_FOUND: &str = "urn:problem:user-not-found";

/// Why an answer settles nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unsettled {
    /// user-service, or what stands before it, is in trouble and says so.
    Trouble(StatusCode),
    /// Somebody else's answer, or one about another user.
    NotItsOwn(String),
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(status) => write!(f, "it answered {status}"),
            Self::NotItsOwn(why) => write!(f, "the answer is not user-service's own: {why}"),
        }
    }
}

/// Whether the head is one that user-service's own answer to the question may have.
pub(crate) fn is_fitting(status: StatusCode, headers: &HeaderMap) -> bool {
    match status {
        StatusCode::OK => media_type(headers).eq_ignore_ascii_case("application/json"),
        StatusCode::NOT_FOUND => media_type(headers).eq_ignore_ascii_case("application/problem+json"),
        _ => false,
    }
}

/// What the answer says about the user `id`, an id in its canonical form.
pub(crate) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    id: &str,
) -> Result<Existence, Unsettled> {
    if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
        return Err(Unsettled::Trouble(status));
    }
    let not_its_own = |why: String| Err(Unsettled::NotItsOwn(why));
    if !is_fitting(status, headers) {
        return not_its_own(format!("{status} with the media type {:?}", media_type(headers)));
    }
    if status == StatusCode::OK {
        return match serde_json::from_slice(body) {
            Ok(User { id: theirs }) if theirs == id => Ok(Existence::Exists),
            Ok(_) => not_its_own("200 about another user".into()),
            Err(error) => not_its_own(format!("200 without a user: {error}")),
        };
    }
    match serde_json::from_slice(body) {
        Ok(Problem { kind, .. }) if kind != USER_NOT_FOUND => not_its_own(format!("404 of type {kind:.100}")),
        Ok(Problem { instance, .. }) if instance.strip_prefix("/users/") == Some(id) => {
            Ok(Existence::Unknown)
        }
        Ok(_) => not_its_own("404 about another user".into()),
        Err(error) => not_its_own(format!("404 without a problem: {error}")),
    }
}

/// Without its parameters; empty where there is none.
fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

#[derive(Deserialize)]
struct User {
    id: String,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    instance: String,
}
