//! Faults on purpose: the same fault, injected by the server, below a tower service or at the wire
//! of a client, is the same to the engine. Over real sockets, with `Policy::standard()` untouched.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use resilient_client::fault::{ClientLayer, Delay, Faults, Kind, Limits, Rule, ServerLayer, Settings};
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::{CallOptions, CallReport, Client, Error, ErrorKind, Policy, ResilienceLayer};
use resilient_client_tests::{SOON, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::{Layer as _, Service as _, ServiceExt as _};

const LENGTH: usize = 3000;
const ATTEMPT: Duration = Duration::from_secs(1);

fn faults(rules: impl IntoIterator<Item = Rule>) -> Faults {
    Faults::new(rules.into_iter().fold(Settings::new().seed(7), Settings::rule)).unwrap()
}

fn app() -> Router {
    Router::new().route("/users/{id}", get(async || "u".repeat(LENGTH)))
}

/// Serves on a connection that can be broken; returns a URL.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/users/7", listener.local_addr().unwrap());
    let bounds = service_kit::limits::Limits::default().bounds();
    tokio::spawn(service_kit::server::serve_forever(app, listener, bounds));
    url
}

/// What a caller and the engine have seen of a call.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    /// The status, or how the call failed.
    head: Result<u16, ErrorKind>,
    /// The body's length, or how it failed.
    body: Result<usize, ErrorKind>,
    attempts: Vec<Option<Outcome>>,
}

impl Seen {
    fn attempts(report: &CallReport) -> Vec<Option<Outcome>> {
        report.attempts().iter().map(resilient_client::AttemptReport::outcome).collect()
    }

    fn failed(error: &Error) -> Self {
        let attempts = error.report().map(Self::attempts).unwrap_or_default();
        Self { head: Err(error.kind()), body: Err(error.kind()), attempts }
    }

    fn answered(status: StatusCode, body: Result<Bytes, Error>, report: &CallReport) -> Self {
        let head = Ok(status.as_u16());
        match body {
            Ok(body) => Self { head, body: Ok(body.len()), attempts: Self::attempts(report) },
            Err(error) => Self { head, ..Self::failed(&error) },
        }
    }
}

/// A call over either client, whose types have nothing in common but their names.
macro_rules! call {
    ($client:expr, $url:expr) => {{
        let client = $client;
        match client.get($url).attempt_timeout(ATTEMPT).send().await {
            Ok(response) => {
                let (status, report) = (response.status(), response.report().clone());
                Seen::answered(status, response.bytes().await, &report)
            }
            Err(error) => Seen::failed(&error),
        }
    }};
}

async fn over_reqwest(url: String, faults: Option<Faults>) -> Seen {
    let builder = Client::builder().policy(Policy::standard());
    let builder = if let Some(faults) = faults { builder.faults(faults) } else { builder };
    call!(builder.build().unwrap(), &url)
}

async fn over_hyper(url: String, faults: Option<Faults>) -> Seen {
    let builder = resilient_client::hyper::Client::builder().policy(Policy::standard());
    let builder = if let Some(faults) = faults { builder.faults(faults) } else { builder };
    call!(builder.build().unwrap(), url.as_str())
}

async fn over_a_service(url: String, faults: Option<Faults>) -> Seen {
    let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let below = ClientLayer::new(faults.unwrap_or_else(|| self::faults([]))).layer(pool);
    let layer = ResilienceLayer::builder().follows_no_redirects().build().unwrap();
    let mut request = Request::get(&url).body(Full::new(Bytes::new())).unwrap();
    request.extensions_mut().insert(CallOptions::new().attempt_timeout(ATTEMPT));
    match layer.layer(below).oneshot(request).await {
        Ok(response) => {
            let (status, report) = (response.status(), response.body().report().clone());
            let body = response.into_body().collect().await;
            Seen::answered(status, body.map(http_body_util::Collected::to_bytes), &report)
        }
        Err(error) => Seen::failed(&error),
    }
}

/// The fault from wherever it can come: what was seen, and where.
async fn everywhere(rule: &Rule) -> Vec<(String, Seen)> {
    let healthy = serve(app()).await;
    let faulty = serve(app().layer(ServerLayer::new(faults([rule.clone()])))).await;
    let mut calls = tokio::task::JoinSet::new();
    for server in [true, false] {
        let (url, injected) = if server { (&faulty, None) } else { (&healthy, Some(rule.clone())) };
        let wire = || injected.clone().map(|rule| faults([rule]));
        let place = if server { "by the server" } else { "on this side" };
        let (one, other, third) = (
            over_reqwest(url.clone(), wire()),
            over_hyper(url.clone(), wire()),
            over_a_service(url.clone(), wire()),
        );
        calls.spawn(async move { (format!("reqwest, {place}"), one.await) });
        calls.spawn(async move { (format!("hyper, {place}"), other.await) });
        calls.spawn(async move { (format!("service, {place}"), third.await) });
    }
    within(SOON, calls.join_all()).await
}

async fn is_the_same_everywhere(rule: Rule, expected: impl Fn(&Seen) -> bool) {
    let seen = everywhere(&rule).await;
    let first = seen[0].1.clone();
    assert!(seen.iter().all(|(_, seen)| *seen == first) && expected(&first), "{rule:?}: {seen:#?}");
}

fn all_failed(seen: &Seen, kind: FailureKind) -> bool {
    seen.attempts.len() > 1 && seen.attempts.iter().all(|end| *end == Some(Outcome::Failure(kind)))
}

fn whole(seen: &Seen) -> bool {
    *seen == Seen { head: Ok(200), body: Ok(LENGTH), attempts: vec![Some(Outcome::Success)] }
}

fn body_failed(seen: &Seen) -> bool {
    seen.head == Ok(200)
        && seen.body == Err(ErrorKind::Body)
        && seen.attempts == [Some(Outcome::Failure(FailureKind::Body))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_and_a_trickle_are_slow_answers_wherever_they_are_injected() {
    let delay = Delay::Uniform { min: Duration::from_millis(1), max: Duration::from_millis(50) };
    is_the_same_everywhere(Rule::new(Kind::Delay(delay)), whole).await;
    let trickle = Kind::Trickle { bytes: 1000, every: Duration::from_millis(20) };
    is_the_same_everywhere(Rule::new(trickle), whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_and_a_wrong_page_are_answers_wherever_they_are_injected() {
    let headers: HeaderMap = [(http::header::RETRY_AFTER, "0".parse().unwrap())].into_iter().collect();
    let abort =
        Kind::Abort { status: StatusCode::SERVICE_UNAVAILABLE, headers, body: Bytes::from_static(b"later") };
    is_the_same_everywhere(Rule::new(abort), |seen| {
        seen.head == Ok(503) && seen.body == Ok(5) && all_failed(seen, FailureKind::Status)
    })
    .await;
    for status in [StatusCode::NOT_FOUND, StatusCode::OK] {
        is_the_same_everywhere(Rule::new(Kind::WrongPage { status }), |seen| {
            seen.head == Ok(status.as_u16()) && seen.attempts == [Some(Outcome::Success)]
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_uses_up_attempts_wherever_it_is_injected() {
    is_the_same_everywhere(Rule::new(Kind::Hang), |seen| all_failed(seen, FailureKind::Timeout)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_before_the_head_fails_attempts_wherever_it_is_broken() {
    for kind in [Kind::ResetBeforeHead, Kind::Garbage] {
        is_the_same_everywhere(Rule::new(kind), |seen| {
            seen.head == Err(ErrorKind::Transport) && all_failed(seen, FailureKind::Transport)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_after_its_head_is_a_broken_body_wherever_it_is_broken() {
    is_the_same_everywhere(Rule::new(Kind::ResetAfterHead), body_failed).await;
    is_the_same_everywhere(Rule::new(Kind::Truncate { bytes: 10 }), body_failed).await;
}

/// An accept loop that knows nothing of faults, over either version.
async fn serve_plainly(app: Router, http2: bool) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/users/7", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(app.clone()));
            tokio::spawn(async move {
                if http2 {
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(http.serve_connection(io, service).await);
                } else {
                    drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
                }
            });
        }
    });
    url
}

/// What the documentation says happens instead of a reset: the connection is closed, or the stream
/// reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_hand_on_the_connection_breaking_it_is_what_a_service_can_do() {
    for http2 in [false, true] {
        for (kind, expected) in [
            (Kind::ResetBeforeHead, FailureKind::Transport),
            (Kind::Garbage, FailureKind::Transport),
            (Kind::ResetAfterHead, FailureKind::Body),
            (Kind::Truncate { bytes: 10 }, FailureKind::Body),
        ] {
            let told = format!("{kind:?} http2: {http2}");
            let faulty = app().layer(ServerLayer::new(faults([Rule::new(kind)])));
            let url = serve_plainly(faulty, http2).await;
            let builder = resilient_client::hyper::Client::builder();
            let builder = if http2 { builder.http2_prior_knowledge() } else { builder };
            let seen = within(SOON, async { call!(builder.build().unwrap(), url.as_str()) }).await;
            // Over HTTP/2 nothing tells when a head has left: on a busy machine it may go with its
            // stream.
            let late = http2.then_some(Outcome::Failure(FailureKind::Transport));
            let end = seen.attempts[0];
            assert!(
                end == Some(Outcome::Failure(expected)) || end.is_some() && end == late,
                "{told} {seen:?}"
            );
        }
    }
}

/// The breaker opens for what is injected at the wire, nothing of which reaches the server, and
/// closes when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_opens_for_injected_faults_and_closes_after_them() {
    let url = serve(app()).await;
    let injected = faults([Rule::new(Kind::ResetBeforeHead).path("/users/{id}").host("127.0.0.1")]);
    let client = Client::builder().policy(Policy::standard()).faults(injected.clone()).build().unwrap();
    let mut refused = false;
    for _ in 0..60 {
        let error = within(SOON, client.get(&url).send()).await.unwrap_err();
        refused |= error.is_circuit_open();
    }
    assert!(refused, "{:?}", client.snapshot());
    injected.clear();
    let again = client.get(&url).wait_for_ready(true).send();
    assert_eq!(within(SOON, again).await.unwrap().bytes().await.unwrap().len(), LENGTH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_cap_are_served_and_who_leaves_gives_the_place_back() {
    let settings = Settings::new().rule(Rule::new(Kind::Hang)).limits(Limits::standard().max_active(2));
    let injected = Faults::new(settings).unwrap();
    let url = serve(app().layer(ServerLayer::new(injected.clone()))).await;
    let client = reqwest::Client::new();
    let hang = || tokio::spawn(client.get(&url).send());
    let (one, other) = (hang(), hang());
    let active = async |expected: u32| {
        within(SOON, async {
            while injected.snapshot().active != expected {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    active(2).await;
    assert_eq!(within(SOON, client.get(&url).send()).await.unwrap().status(), 200);
    assert_eq!(injected.snapshot().rules[0].1.capped, 1);
    one.abort();
    other.abort();
    active(0).await;

    // The same on this side, for a body that nobody reads to its end.
    let (url, trickle) = (serve(app()).await, Kind::Trickle { bytes: 1, every: Duration::from_secs(1) });
    let injected = faults([Rule::new(trickle)]);
    let client = Client::builder().faults(injected.clone()).build().unwrap();
    let mut response = client.get(&url).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 1);
    assert_eq!(injected.snapshot().active, 1);
    drop(response);
    within(SOON, async {
        while injected.snapshot().active != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_asks_for_its_own_fault_where_that_is_heard() {
    let heard = Faults::new(Settings::new().envoy_headers(true)).unwrap();
    let url = serve(app().layer(ServerLayer::new(heard))).await;
    let client = reqwest::Client::new();
    let ask = async |name: &str, value: &str| client.get(&url).header(name, value).send().await.unwrap();
    assert_eq!(ask("x-envoy-fault-abort-request", "418").await.status(), 418);
    assert_eq!(ask("x-envoy-fault-abort-request", "9999").await.status(), 200);
    let slow = ask("x-envoy-fault-throughput-response", "1000").await;
    assert_eq!(slow.bytes().await.unwrap().len(), LENGTH);
}

/// Resets and head-only answers must not confuse a request without a body to spoil.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_has_no_body_to_spoil_on_either_side() {
    let rule = || Rule::new(Kind::Truncate { bytes: 1 });
    let (healthy, faulty) =
        (serve(app()).await, serve(app().layer(ServerLayer::new(faults([rule()])))).await);
    for (url, client) in
        [(&faulty, Client::builder()), (&healthy, Client::builder().faults(faults([rule()])))]
    {
        let response = within(SOON, client.build().unwrap().head(url).send()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.report().attempts().len()), (200, 1));
        assert_eq!(response.headers()["content-length"], LENGTH.to_string().as_str());
    }
}

/// What is on the wire, to whoever reads it byte by byte: a reset is one, and not an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_reset_cut_off_or_garbled_for_real() {
    for (kind, begins, reset) in [
        (Kind::ResetBeforeHead, "", true),
        (Kind::ResetAfterHead, "HTTP/1.1 200 OK\r\n", true),
        (Kind::Truncate { bytes: 10 }, "HTTP/1.1 200 OK\r\n", false),
        (Kind::Garbage, "\u{15}\u{3}", false),
    ] {
        let url = serve(app().layer(ServerLayer::new(faults([Rule::new(kind.clone())])))).await;
        let address = url.trim_start_matches("http://").trim_end_matches("/users/7");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /users/7 HTTP/1.1\r\nhost: users\r\n\r\n").await.unwrap();
        let mut came = Vec::new();
        let end = within(SOON, stream.read_to_end(&mut came)).await.map_err(|error| error.kind());
        let text = String::from_utf8_lossy(&came);
        assert!(text.starts_with(begins), "{kind:?}: {text}");
        let expected = if reset { Err(std::io::ErrorKind::ConnectionReset) } else { Ok(came.len()) };
        assert_eq!(end, expected, "{kind:?}: {text}");
        if let Kind::Truncate { .. } = kind {
            assert!(text.ends_with("\r\n\r\nuuuuuuuuuu") && text.contains("content-length: 3000"), "{text}");
        }
        if let Kind::ResetAfterHead = kind {
            assert!(text.ends_with("\r\n\r\n"), "{text}");
        }
    }
}

/// A made-up answer to a request that allows no body, or of a status that has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_body_is_made_on_either_side() {
    for status in [StatusCode::OK, StatusCode::NO_CONTENT] {
        let body = Bytes::from_static(b"nobody reads this");
        let kind = Kind::Abort { status, headers: HeaderMap::new(), body };
        let rule = || faults([Rule::new(kind.clone())]);
        let (healthy, faulty) = (serve(app()).await, serve(app().layer(ServerLayer::new(rule()))).await);
        for (url, client) in [(&faulty, Client::builder()), (&healthy, Client::builder().faults(rule()))] {
            let client = client.build().unwrap();
            let response = within(SOON, client.head(url).send()).await.unwrap();
            assert_eq!((response.status(), response.bytes().await.unwrap().len()), (status, 0));
            if status == StatusCode::NO_CONTENT {
                let response = within(SOON, client.get(url).send()).await.unwrap();
                assert_eq!((response.status(), response.bytes().await.unwrap().len()), (status, 0));
            }
        }
    }
}

/// What isn't behind the layer, and what no rule is for, costs a look and is left alone.
#[tokio::test]
async fn a_service_without_rules_is_passed_through_as_it_is() {
    let plain = tower::service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("as it is")))
    });
    let mut service = ServerLayer::new(faults([])).layer(plain);
    let response = service.ready().await.unwrap().call(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "as it is");
}
