//! A request's trace goes on: into the server's span, and with each attempt to user-service.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Request, StatusCode},
    response::{IntoResponse as _, Response},
    routing::get,
};
use order_service::{AppState, Config, ResilientUsers, app};
use resilient_client::trace_context::TraceContext;
use serde_json::json;
use service_kit::testing::{TestDatabase, call, post_request};
use tokio::net::TcpListener;
use tracing::field::{Field, Visit};
use tracing_subscriber::{Layer, layer::SubscriberExt as _};

const ADA: &str = "01980000-0000-7000-8000-00000000000a";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

type Heard = Arc<Mutex<Vec<HeaderMap>>>;

/// Fails the first question of each trace, and answers the second.
async fn user(State(heard): State<Heard>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let mut heard = heard.lock().unwrap();
    heard.push(headers);
    if heard.len() % 2 == 1 {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({ "id": id, "name": "Ada", "email": "ada@example.com", "created_at_ms": 1 })).into_response()
}

async fn service() -> (Router, Heard, TestDatabase) {
    let heard = Heard::default();
    let users = Router::new().route("/users/{id}", get(user)).with_state(heard.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, users).await });
    let database = TestDatabase::new().await;
    let config = Config {
        database_url: database.url.clone(),
        user_service_url: url,
        user_timeout_ms: 5000,
        lookup_limit_ms: 5000,
        ..Config::default()
    };
    let users = Arc::new(ResilientUsers::new(&config).unwrap());
    (app(AppState::open(&config, users).await.unwrap()), heard, database)
}

fn order(traceparent: &str) -> Request<Body> {
    let body = json!({ "user_id": ADA, "items": [{ "sku": "tea", "quantity": 1 }] }).to_string();
    let mut request = post_request("/orders", None, body);
    request.headers_mut().insert("traceparent", traceparent.parse().unwrap());
    request.headers_mut().insert("tracestate", "vendor=opaque".parse().unwrap());
    request
}

/// The fields of the spans of requests.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<String>>);

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        attributes.record(&mut Text(&mut self.0.lock().unwrap()));
    }

    fn on_record(
        &self,
        _: &tracing::Id,
        values: &tracing::span::Record<'_>,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        values.record(&mut Text(&mut self.0.lock().unwrap()));
    }
}

/// One subscriber for all tests: with several, tracing may ask another test's about a place in the
/// code.
fn record() -> Spans {
    static SPANS: OnceLock<Spans> = OnceLock::new();
    let global = || {
        let spans = Spans::default();
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans.clone())).unwrap();
        spans
    };
    SPANS.get_or_init(global).clone()
}

#[tokio::test]
async fn a_requests_trace_is_in_its_span_and_in_each_attempt_to_user_service() {
    let spans = record();
    let (app, heard, _database) = service().await;
    let answer = call(&app, order(&format!("00-{TRACE}-b7ad6b7169203331-01"))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let contexts: Vec<_> =
        heard.lock().unwrap().iter().map(|it| TraceContext::of(it).expect("a context")).collect();
    assert_eq!(contexts.len(), 2, "the first attempt failed");
    for context in &contexts {
        assert_eq!(context.trace_id().to_string(), TRACE);
        assert!(context.is_sampled());
        assert_eq!(context.state(), Some("vendor=opaque"));
        assert_ne!(context.span_id().to_string(), "b7ad6b7169203331");
    }
    assert_ne!(contexts[0].span_id().to_string(), contexts[1].span_id().to_string());
    let spans = spans.0.lock().unwrap().clone();
    assert!(spans.contains(&format!("trace_id={TRACE} ")), "{spans}");
    assert!(spans.contains("parent_span_id=b7ad6b7169203331 "), "{spans}");
}

#[tokio::test]
async fn an_invalid_traceparent_begins_a_trace_of_its_own() {
    record();
    let (app, heard, _database) = service().await;
    for invalid in [
        format!("ff-{TRACE}-b7ad6b7169203331-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
        "garbage".to_owned(),
    ] {
        heard.lock().unwrap().clear();
        let answer = call(&app, order(&invalid)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let heard = heard.lock().unwrap();
        let context = TraceContext::of(&heard[0]).expect("a context");
        assert_ne!(context.trace_id().to_string(), TRACE, "{invalid}");
        assert_eq!(context.state(), None, "{invalid}: its state belongs to it");
        assert_eq!(
            context.trace_id().to_string(),
            TraceContext::of(&heard[1]).unwrap().trace_id().to_string()
        );
    }
}

/// Its span had whatever method a caller made up, in its name, too.
#[tokio::test]
async fn a_method_that_nobody_knows_is_other_in_its_requests_span() {
    let spans = record();
    let (app, _, _database) = service().await;
    let purge = Request::builder().method("PURGE").uri("/orders").body(Body::empty()).unwrap();
    assert_eq!(call(&app, purge).await.status, 405);
    let spans = spans.0.lock().unwrap().clone();
    for field in [
        r#"otel.name="HTTP /orders" "#,
        r#"http.request.method="_OTHER" "#,
        r#"http.request.method_original="PURGE" "#,
    ] {
        assert!(spans.contains(field), "{spans}");
    }
}
