//! What stands in front of the order-services in the scenario `chain`: the first of three services.
//! It takes requests from outside, passes them on to its order-service, and answers within
//! [`PROMISE`], with a 504 if need be.
//!
//! ```text
//! load ──> gateway ──> order-service ──> user-service
//!          600 ms      1 s              a worker with a queue
//! ```
//!
//! Each service has a timeout of its own, as they mostly have. What differs is whether the others
//! know: the resilient gateway calls by resilient-client, which says how long it waits.
//!
//! For the demo's books it also writes into the request's id until when it waits ([`Wanted`]).
//! Nobody but user-service's door reads that, and only to count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Policy};
use service_kit::clock::Clock;
use service_kit::request_id::X_REQUEST_ID;

use crate::Problem;
use crate::cli;
use crate::parts::{Part, Without};

/// How long whoever is outside waits at most.
pub(crate) const PROMISE: Duration = Duration::from_millis(600);
/// More than any order of the demo.
const LARGEST: usize = 64 * 1024;
/// What is passed on of a request.
const PASSED_ON: [&str; 2] = ["content-type", "idempotency-key"];

/// Until when whoever is outside waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    until_ms: i64,
}

impl Wanted {
    const MARK: &str = "-wanted-until-";
    /// Told apart from "just now", on a machine that is busy.
    const SLACK_MS: i64 = 50;

    fn id(self, number: u64) -> String {
        format!("{number}{}{}", Self::MARK, self.until_ms)
    }

    /// What the request's id says.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let (_, until) = headers.get(X_REQUEST_ID)?.to_str().ok()?.split_once(Self::MARK)?;
        Some(Self { until_ms: until.parse().ok()? })
    }

    pub(crate) fn is_over(self) -> bool {
        self.is_over_at(Clock::system().now_ms())
    }

    const fn is_over_at(self, now_ms: i64) -> bool {
        now_ms > self.until_ms + Self::SLACK_MS
    }
}

#[derive(Clone)]
struct Gateway {
    next: Next,
    order_service: Arc<str>,
    clock: Clock,
    requests: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Next {
    Plain(reqwest::Client),
    Resilient(Client),
}

/// The gateway in front of the order-service at `order_service`, with the client of its kind.
pub(crate) fn router(kind: cli::Client, order_service: &str, without: &Without) -> Result<Router, Problem> {
    let next = match kind {
        cli::Client::Resilient => Next::Resilient(client(without)?),
        _ => Next::Plain(reqwest::Client::builder().no_proxy().timeout(PROMISE).build()?),
    };
    let (order_service, clock) = (order_service.into(), Clock::system());
    let gateway = Gateway { next, order_service, clock, requests: Arc::default() };
    // Its own, so that the demo knows when it is up.
    let ready = any(async || StatusCode::OK);
    Ok(Router::new().route("/readyz", ready).fallback(pass).with_state(gateway))
}

fn client(without: &Without) -> Result<Client, resilient_client::Error> {
    let timeout = TimeoutPolicy::standard().total(PROMISE).attempt(PROMISE);
    let mut client = Client::builder().policy(without.adjust(Policy::standard().timeout(timeout)));
    if !without.has(Part::Deadlines) {
        client = client.deadline_header(None);
    }
    client.transport(reqwest::ClientBuilder::no_proxy).build()
}

async fn pass(State(gateway): State<Gateway>, request: Request) -> Response {
    let answer = tokio::time::timeout(PROMISE, gateway.ask(request)).await;
    answer.ok().flatten().unwrap_or_else(|| StatusCode::GATEWAY_TIMEOUT.into_response())
}

impl Gateway {
    /// `None` for no answer.
    async fn ask(&self, request: Request) -> Option<Response> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let until_ms = self.clock.now_ms() + PROMISE.as_millis() as i64;
        let (head, body) = request.into_parts();
        let mut headers: HeaderMap = PASSED_ON
            .into_iter()
            .filter_map(|name| Some((HeaderName::from_static(name), head.headers.get(name)?.clone())))
            .collect();
        headers.insert(X_REQUEST_ID, Wanted { until_ms }.id(number).try_into().ok()?);
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.order_service);
        let body = to_bytes(body, LARGEST).await.ok()?;
        let (status, headers, body) = self.next.send(head.method, url, headers, body).await?;
        let mut response = (status, Body::from(body)).into_response();
        if let Some(kind) = headers.get("content-type") {
            response.headers_mut().insert("content-type", kind.clone());
        }
        Some(response)
    }
}

impl Next {
    async fn send(
        &self,
        method: Method,
        url: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Option<(StatusCode, HeaderMap, Bytes)> {
        match self {
            Self::Plain(http) => {
                let response = http.request(method, url).headers(headers).body(body).send().await.ok()?;
                Some((response.status(), response.headers().clone(), response.bytes().await.ok()?))
            }
            Self::Resilient(client) => {
                let call = client.request(method, url).headers(headers).body(body);
                let response = call.send_buffered().await.ok()?;
                Some((response.status(), response.headers().clone(), response.bytes().await.ok()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_id_says_until_when_it_is_wanted() {
        let wanted = Wanted { until_ms: 1_700_000_000_000 };
        let id = wanted.id(7);
        let headers = HeaderMap::from_iter([(X_REQUEST_ID, id.parse().unwrap())]);
        assert_eq!(Wanted::of(&headers), Some(wanted));
        assert!(!wanted.is_over_at(1_700_000_000_050) && wanted.is_over_at(1_700_000_000_051));
        for other in ["reconcile-7", "7-wanted-until-", "7-wanted-until-x"] {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, other.parse().unwrap())]);
            assert_eq!(Wanted::of(&headers), None, "{other}");
        }
    }

    #[test]
    fn a_gateway_of_any_kind_can_be_made() {
        for kind in cli::Client::ALL {
            drop(router(kind, "http://127.0.0.1:1", &Without::default()).unwrap());
        }
        let without = Without { unprotected: false, parts: vec![Part::Deadlines] };
        drop(router(cli::Client::Resilient, "http://127.0.0.1:1", &without).unwrap());
    }
}
