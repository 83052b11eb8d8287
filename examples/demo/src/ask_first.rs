//! An order-service whose orders fail when the question about their customer does.
//!
//! order-service itself would keep the order whatever client its [`UserLookup`] uses. So the
//! question is asked in front of it, with a 500 when there is no answer, and the lookup behind
//! repeats the answer without asking again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use order_service::{Existence, LookupFuture, LookupRequest, Unavailable, UserLookup};
use serde::Deserialize;
use service_kit::request_id::X_REQUEST_ID;

/// More than any order of the demo.
const LARGEST_ORDER: usize = 64 * 1024;

/// Who is asked, and the answers so far.
#[derive(Clone)]
pub(crate) struct AskFirst {
    users: Arc<dyn UserLookup>,
    /// Users don't come and go during the demo, so the latest answer about one is the answer.
    answers: Arc<Mutex<HashMap<String, Existence>>>,
}

#[derive(Deserialize)]
struct Ordered {
    user_id: String,
}

impl AskFirst {
    pub(crate) fn new(users: impl UserLookup) -> Self {
        Self { users: Arc::new(users), answers: Arc::default() }
    }

    /// `app`, with the question asked before an order gets there.
    pub(crate) fn in_front_of(self, app: Router) -> Router {
        app.layer(from_fn_with_state(self, pass))
    }

    async fn ask(&self, user_id: &str, request_id: &str) -> Result<(), Unavailable> {
        let lookup = LookupRequest { user_id, request_id };
        let existence = self.users.lookup(lookup).await?;
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(user_id.to_owned(), existence);
        Ok(())
    }
}

async fn pass(State(asked): State<AskFirst>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_ORDER).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request_id = head.headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("asked-first");
    if let Ok(Ordered { user_id }) = serde_json::from_slice(&body)
        && asked.ask(&user_id, request_id).await.is_err()
    {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    next.run(Request::from_parts(head, Body::from(body))).await
}

impl UserLookup for AskFirst {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(lookup.user_id).copied();
        Box::pin(async move { known.ok_or_else(|| Unavailable::new("not asked yet")) })
    }
}
