//! The example against a collector: what arrives there is what OpenTelemetry's conventions for HTTP
//! have, and what is on the wire are the attempts' ids.

#[allow(dead_code, reason = "another test's")]
mod processes;
mod stub;

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus},
};
use otlp::story::hex;
use processes::Service;
use stub::Collector;
use tokio::{net::TcpListener, process::Command, time::timeout};

const SOON: Duration = Duration::from_secs(20);

/// Runs the example to its end; what it printed.
async fn example(collector: &Collector, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otlp"));
    for (setting, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(setting);
    }
    let command = command
        .args(args)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("NO_PROXY", "127.0.0.1")
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = timeout(SOON, command.output()).await.expect("in time").unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

type Heard = Arc<Mutex<Vec<HeaderMap>>>;

/// A server that does `first` about its first request, and answers the others. What it has heard.
async fn upstream<F>(first: impl Fn() -> F + Clone + Send + Sync + 'static) -> (SocketAddr, Heard)
where
    F: Future<Output = Response> + Send + 'static,
{
    let heard = Heard::default();
    let asked = async move |State(heard): State<Heard>, headers: HeaderMap| {
        heard.lock().unwrap().push(headers);
        let is_first = heard.lock().unwrap().len() == 1;
        if is_first { first().await } else { "Ada".into_response() }
    };
    let routes = Router::new().fallback(asked).with_state(heard.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, heard)
}

fn kind(span: &Span) -> SpanKind {
    SpanKind::try_from(span.kind).unwrap()
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == SpanStatus::Error as i32)
}

/// All attributes, in their order by name, each as its type has it.
fn attributes(span: &Span) -> Vec<(&str, Value)> {
    let mut all: Vec<_> = span
        .attributes
        .iter()
        .map(|it| (it.key.as_str(), it.value.clone().and_then(|value| value.value).expect("a value")))
        .collect();
    all.sort_by_key(|(key, _)| *key);
    all
}

fn text(text: impl Into<String>) -> Value {
    Value::StringValue(text.into())
}

fn get<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|it| it.key == key)?.value.as_ref()?.value.as_ref()
}

/// The call, and its attempts in their order.
fn of_the_call(spans: &[Span]) -> (&Span, Vec<&Span>) {
    let mut calls = spans.iter().filter(|span| span.name == "resilient_client.call");
    let (Some(call), None) = (calls.next(), calls.next()) else { panic!("one call: {spans:#?}") };
    let mut attempts: Vec<_> = spans.iter().filter(|it| it.parent_span_id == call.span_id).collect();
    attempts.sort_by_key(|it| it.start_time_unix_nano);
    (call, attempts)
}

#[tokio::test]
async fn a_call_and_its_attempts_arrive_as_the_conventions_have_them() {
    let collector = Collector::start().await;
    let (address, heard) = upstream(async || StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    let said = example(&collector, &["send", &format!("http://{address}/users/7?token=s3cret")]).await;
    assert!(said.starts_with("200 OK\n"), "{said}");
    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "{spans:#?}");
    let (call, attempts) = of_the_call(&spans);
    assert_eq!(kind(call), SpanKind::Internal);
    assert!(call.parent_span_id.is_empty(), "the trace begins with it");
    let port = i64::from(address.port());
    let of_all = [
        ("http.request.method", text("GET")),
        ("http.response.status_code", Value::IntValue(200)),
        ("resilient_client.call.attempts", Value::IntValue(2)),
        ("server.address", text("127.0.0.1")),
        ("server.port", Value::IntValue(port)),
    ];
    assert_eq!(attributes(call), of_all);
    let [first, second] = attempts[..] else { panic!("two attempts: {attempts:#?}") };
    for attempt in [first, second] {
        assert_eq!((attempt.name.as_str(), kind(attempt)), ("GET", SpanKind::Client));
        assert_eq!(attempt.trace_id, call.trace_id);
        assert!(attempt.links.is_empty());
    }
    let full = format!("http://{address}/users/7?token");
    let of_first = [
        ("error.type", text("503")),
        ("http.request.method", text("GET")),
        ("http.response.status_code", Value::IntValue(503)),
        ("resilient_client.trigger", text("first")),
        ("server.address", text("127.0.0.1")),
        ("server.port", Value::IntValue(port)),
        ("url.full", text(&full)),
    ];
    assert_eq!(attributes(first), of_first);
    let of_second = [
        ("http.request.method", text("GET")),
        ("http.request.resend_count", Value::IntValue(1)),
        ("http.response.status_code", Value::IntValue(200)),
        ("resilient_client.trigger", text("retry")),
        ("server.address", text("127.0.0.1")),
        ("server.port", Value::IntValue(port)),
        ("url.full", text(&full)),
    ];
    assert_eq!(attributes(second), of_second);
    assert!(is_error(first) && !is_error(second) && !is_error(call));
    // Why there was another.
    assert!(call.events.iter().any(|event| event.name == "retry scheduled"), "{call:#?}");
    // On the wire: the attempt's own ids.
    let sent: Vec<_> =
        heard.lock().unwrap().iter().map(|it| it["traceparent"].to_str().unwrap().to_owned()).collect();
    let of_spans = attempts.iter().map(|it| format!("00-{}-{}-01", hex(&it.trace_id), hex(&it.span_id)));
    assert_eq!(sent, of_spans.collect::<Vec<_>>());
    assert_eq!(collector.services(), ["otlp-example"]);
}

#[tokio::test]
async fn an_attempt_lasts_as_long_as_its_body() {
    const PAUSE: Duration = Duration::from_millis(300);
    let collector = Collector::start().await;
    let slow = async || {
        let last = futures_util::stream::once(async {
            tokio::time::sleep(PAUSE).await;
            Ok::<_, std::convert::Infallible>("Ada")
        });
        Response::new(Body::from_stream(last))
    };
    let (address, _) = upstream(slow).await;
    example(&collector, &["send", &format!("http://{address}/users/7")]).await;
    let spans = collector.spans();
    let (_, attempts) = of_the_call(&spans);
    let took = Duration::from_nanos(attempts[0].end_time_unix_nano - attempts[0].start_time_unix_nano);
    assert!(took >= PAUSE, "{took:?}");
}

#[tokio::test]
async fn what_a_server_does_is_below_the_attempt_that_made_it() {
    let collector = Collector::start().await;
    let said = example(&collector, &["send"]).await;
    assert!(said.starts_with("200 OK\n"), "{said}");
    let spans = collector.spans();
    let (call, attempts) = of_the_call(&spans);
    assert_eq!(attempts.len(), 2, "{spans:#?}");
    for (attempt, status) in attempts.iter().zip([503, 200]) {
        let mut below = spans.iter().filter(|span| span.parent_span_id == attempt.span_id);
        let (Some(server), None) = (below.next(), below.next()) else { panic!("one: {spans:#?}") };
        assert_eq!((server.name.as_str(), kind(server)), ("GET /users/{id}", SpanKind::Server));
        assert_eq!(server.trace_id, call.trace_id);
        assert_eq!(get(server, "http.response.status_code"), Some(&Value::IntValue(status)));
        assert_eq!(get(server, "http.route"), Some(&text("/users/{id}")));
        assert_eq!(is_error(server), status == 503);
    }
}

#[tokio::test]
async fn a_hedge_is_linked_to_the_attempt_it_was_begun_beside() {
    let collector = Collector::start().await;
    let (address, _) = upstream(std::future::pending).await;
    example(&collector, &["send", &format!("http://{address}/users/7"), "--hedge", "50ms"]).await;
    let spans = collector.spans();
    let (call, attempts) = of_the_call(&spans);
    let [first, hedge] = attempts[..] else { panic!("two attempts: {spans:#?}") };
    let [link] = &hedge.links[..] else { panic!("one link: {hedge:#?}") };
    assert_eq!((&link.trace_id, &link.span_id), (&call.trace_id, &first.span_id));
    assert_eq!(get(hedge, "resilient_client.trigger"), Some(&text("hedge")));
    assert_eq!(get(first, "error.type"), Some(&text("abandoned")));
    assert!(!is_error(first) && first.links.is_empty(), "the loser is nobody's error");
    let took = Duration::from_nanos(first.end_time_unix_nano - first.start_time_unix_nano);
    assert!(took >= Duration::from_millis(50), "it was in flight until it was given up: {took:?}");
}

#[tokio::test]
async fn a_service_sends_its_spans_where_it_is_told_to_and_nowhere_unless_it_is() {
    let (collector, folder) = (Collector::start().await, tempfile::tempdir().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let told = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()), ("NO_PROXY", "127.0.0.1")];
    for (environment, expected) in [(&told[1..], 0), (&told[..], 1)] {
        let users = Service::start("user-service", folder.path(), &[], environment).await;
        let answer = client.get(format!("{}/users", users.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        // What waits to be sent is as it ends.
        users.stop().await;
        let spans = collector.spans();
        let requests: Vec<_> = spans.iter().filter(|span| span.name == "GET /users").collect();
        assert_eq!(requests.len(), expected, "{spans:#?}");
        assert!(requests.iter().all(|span| kind(span) == SpanKind::Server));
    }
    assert_eq!(collector.services(), ["user-service"]);
}
