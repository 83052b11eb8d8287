//! The naive twin: order-service with the client most services start with.
//!
//! The same service, database and routes; only the question "does this user exist?" is asked in the way of the tutorial
//! that begins with an HTTP client, its default settings and an error handler that answers 500:
//!
//! - reqwest as it comes (but for proxies, which have no business on loopback): no timeout, no limit on calls in flight,
//!   no circuit breaker, and no retry of anything that user-service may have seen;
//! - the order waits until user-service has answered;
//! - with several user-services it asks them in turn (round robin);
//! - 200 lets the order through, 404 refuses it, and anything else, or no connection, is a 500: the order is gone.
//!
//! order-service itself would keep the order whatever client its [`UserLookup`] uses, so the question is asked in
//! front of it, and the directory behind repeats the answer without asking again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use order_service::{Existence, LookupFuture, LookupRequest, Unavailable, UserLookup};
use serde::Deserialize;

/// A plain reqwest client and the answers it got.
#[derive(Clone)]
pub(crate) struct NaiveUsers {
    http: reqwest::Client,
    bases: Arc<[String]>,
    turn: Arc<AtomicUsize>,
    /// Users don't come and go during the demo, so the latest answer about one is the answer.
    answers: Arc<Mutex<HashMap<String, Existence>>>,
}

#[derive(Deserialize)]
struct Ordered {
    user_id: String,
}

/// More than any order of the demo.
const LARGEST_ORDER: usize = 64 * 1024;

impl NaiveUsers {
    /// `bases`: one URL, or several with commas between.
    pub(crate) fn new(bases: &str) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let bases = bases.split(',').map(str::to_owned).collect();
        Ok(Self { http, bases, turn: Arc::default(), answers: Arc::default() })
    }

    /// `app`, with user-service asked before an order gets there.
    pub(crate) fn in_front_of(self, app: Router) -> Router {
        app.layer(from_fn_with_state(self, ask_first))
    }

    async fn ask(&self, user_id: &str) -> Result<Existence, StatusCode> {
        let base = &self.bases[self.turn.fetch_add(1, Ordering::Relaxed) % self.bases.len()];
        let response = self.http.get(format!("{base}/users/{user_id}")).send().await;
        let response = response.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let existence = match response.status() {
            StatusCode::OK => Existence::Exists,
            StatusCode::NOT_FOUND => Existence::Unknown,
            _ => return Err(StatusCode::INTERNAL_SERVER_ERROR),
        };
        // The tutorial parses the user; it must arrive whole in either case.
        response.bytes().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(user_id.to_owned(), existence);
        Ok(existence)
    }
}

async fn ask_first(State(users): State<NaiveUsers>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_ORDER).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    if let Ok(Ordered { user_id }) = serde_json::from_slice(&body)
        && let Err(failure) = users.ask(&user_id).await
    {
        return failure.into_response();
    }
    next.run(Request::from_parts(head, Body::from(body))).await
}

impl UserLookup for NaiveUsers {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(lookup.user_id).copied();
        Box::pin(async move { known.ok_or_else(|| Unavailable::new("not asked yet")) })
    }
}
