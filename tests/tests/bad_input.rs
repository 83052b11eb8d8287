//! Whatever is wrong with a request, a policy or an answer, the caller gets one clear typed error.
//! Nothing panics, nothing storms, and no secret leaves with the message.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, Url};
use resilient_client::event::Event;
use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::policy::budget::BudgetPolicy;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::retry::{Jitter, RetryPolicy};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Decline, Error, ErrorKind, Policy, RequestBuilder};
use resilient_client_tests::server::{NobodyHome, Request};
use resilient_client_tests::{Heard, Reply, SOON, Server, clock, everything_it_says, within};
use tokio::task::JoinSet;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

const SECRETS: [&str; 6] = ["alice", "hunter2", "s3cret", "b34rer", "fr4gment", "p4ssphrase"];

#[track_caller]
fn assert_keeps_secrets(what: &str) {
    for secret in SECRETS {
        assert!(!what.contains(secret), "{secret} in: {what}");
    }
}

fn standard() -> Client {
    Client::builder().build().unwrap()
}

#[tokio::test]
async fn a_url_that_cannot_be_called_is_a_request_error_that_repeats_no_secret() {
    let client = standard();
    for url in [
        "",
        " ",
        "/users/7",
        "users",
        "//users/7",
        "users:3000/7",
        "http://",
        "http://?token=s3cret",
        "http://:80/",
        "http://[::1/",
        "http://us ers/",
        "http://users:99999/?token=s3cret",
        "http://users:-1/",
        "http://alice:hunter2@",
        "http://alice:hunter2@:3000/?token=s3cret#fr4gment",
        "http://alice:hunter2@users:port/?token=s3cret",
        "ftp://alice:hunter2@users/?token=s3cret#fr4gment",
        "ws://alice:hunter2@users/?token=s3cret",
        "file:///etc/passwd?token=s3cret",
        "mailto:alice@hunter2.s3cret",
        "data:text/plain,s3cret",
        "javascript:s3cret",
        "http://users\0/",
    ] {
        for method in [Method::GET, Method::POST] {
            let error = within(SOON, client.request(method, url).send()).await.expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Request, "{url:?}: {error:?}");
            assert!(!error.is_rejected() && !error.is_timeout() && error.status().is_none());
            assert_keeps_secrets(&everything_it_says(&error));
        }
    }
}

#[tokio::test]
async fn a_ready_request_with_a_url_that_cannot_be_called_is_a_request_error_too() {
    let client = standard();
    for url in [
        "ftp://alice:hunter2@users/?token=s3cret",
        "file:///x?token=s3cret",
        "data:,s3cret",
        "mailto:alice@x",
    ] {
        let request = reqwest::Request::new(Method::GET, Url::parse(url).unwrap());
        let error = within(SOON, client.execute(request)).await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Request, "{url}: {error:?}");
        assert_keeps_secrets(&everything_it_says(&error));
    }
}

#[tokio::test]
async fn a_bad_part_of_a_request_is_a_request_error_and_nothing_is_sent() {
    let server = Server::start(|_| Reply::answer(200, "")).await;
    let client = standard();
    let post = || client.post(server.url("/"));
    let no_json_key: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
    let mistakes: Vec<(&str, RequestBuilder)> = vec![
        ("line break in a value", post().header("x-a", "1\r\nx-b: 2")),
        ("NUL in a value", post().header("x-a", "a\0b")),
        ("space in a name", post().header("x a", "1")),
        ("empty name", post().header("", "1")),
        ("non-ASCII name", post().header("näme", "1")),
        ("line break in a token", post().bearer_auth("b34rer\r\nx-b: 2")),
        ("line break in a key", post().idempotency_key("p4ssphrase\nx")),
        ("a map JSON can't hold", post().json(&no_json_key)),
        ("a query that is no map", post().query(&"s3cret")),
        ("a form that is no map", post().form(&7)),
    ];
    for (name, request) in mistakes {
        let error = within(SOON, request.send()).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Request, "{name}: {error:?}");
        assert!(error.report().is_none(), "{name}: no call began");
        assert_keeps_secrets(&everything_it_says(&error));
    }
    assert_eq!(server.seen().read(|seen| seen.connections), 0);
}

#[test]
fn a_policy_that_cannot_work_is_a_config_error_that_names_the_setting_and_the_numbers() {
    let seconds = Duration::from_secs;
    let timeout = TimeoutPolicy::standard;
    let policies = [
        (
            Policy::standard().timeout(timeout().total(seconds(1)).attempt(seconds(3))),
            "timeout.attempt",
            "3s",
            "1s",
        ),
        (Policy::standard().timeout(timeout().attempt(Duration::ZERO)), "timeout.attempt", "0", "zero"),
        (Policy::standard().timeout(timeout().total(Duration::MAX)), "timeout.total", "ten years", ""),
        (
            Policy::standard().timeout(timeout().body_idle(Duration::MAX)),
            "timeout.body_idle",
            "ten years",
            "",
        ),
        (Policy::standard().retry(RetryPolicy::standard().max_attempts(0)), "retry.max_attempts", "0", "16"),
        (Policy::standard().retry(RetryPolicy::standard().initial(seconds(9))), "retry.initial", "9s", "2s"),
        (
            Policy::standard().budget(BudgetPolicy::standard().deposit_per_success(f64::NAN)),
            "budget.deposit_per_success",
            "NaN",
            "1",
        ),
        (Policy::standard().budget(BudgetPolicy::standard().initial(500)), "budget.initial", "500", "100"),
        (
            Policy::standard().breaker(BreakerPolicy::standard().failure_rate(-0.5)),
            "breaker.failure_rate",
            "-0.5",
            "1",
        ),
        (
            Policy::standard().breaker(BreakerPolicy::standard().failure_rate(f64::INFINITY)),
            "breaker.failure_rate",
            "inf",
            "1",
        ),
        (
            Policy::standard().breaker(BreakerPolicy::standard().window(seconds(5))),
            "breaker.window",
            "5s",
            "3s",
        ),
        (
            Policy::standard().bulkhead(BulkheadPolicy::standard().max_in_flight(0)),
            "bulkhead.max_in_flight",
            "0",
            "1000000",
        ),
    ];
    for (policy, setting, one, other) in policies {
        let error = Client::builder().policy(policy).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{setting}");
        let said = everything_it_says(&error);
        for expected in [setting, one, other] {
            assert!(said.contains(expected), "no {expected:?} in {said}");
        }
    }
    let error = Client::builder().max_upstreams(0).build().unwrap_err();
    assert!(error.is_config() && everything_it_says(&error).contains("max_upstreams"), "{error:?}");
    let error = Client::builder().transport(|transport| transport.user_agent("a\nb")).build().unwrap_err();
    assert!(error.is_config(), "reqwest's own refusal: {error:?}");
}

#[tokio::test]
async fn an_override_that_cannot_work_is_a_config_error_and_nothing_is_sent() {
    let server = Server::start(|_| Reply::answer(200, "")).await;
    let client = standard();
    let get = || client.get(server.url("/"));
    let seconds = Duration::from_secs;
    for (request, one, other) in [
        (get().timeout(Duration::ZERO), "request.timeout", "zero"),
        (get().timeout(Duration::MAX), "request.timeout", "ten years"),
        (get().attempt_timeout(Duration::ZERO), "request.attempt_timeout", "zero"),
        (get().attempt_timeout(seconds(20)), "20s", "10s"),
        (get().timeout(seconds(1)).attempt_timeout(seconds(2)), "2s", "1s"),
    ] {
        let error = within(SOON, request.send()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        let said = everything_it_says(&error);
        assert!(said.contains(one) && said.contains(other), "{said}");
    }
    let mut ready = reqwest::Request::new(Method::GET, server.url("/").parse().unwrap());
    *ready.timeout_mut() = Some(Duration::ZERO);
    assert!(within(SOON, client.execute(ready)).await.unwrap_err().is_config());
    assert_eq!(server.seen().read(|seen| seen.connections), 0);
}

/// What a `Retry-After` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// Nothing was asked: the ordinary backoff.
    Nothing,
    /// Longer than there is time: the call ends with that response.
    TooLong,
}

fn hostile() -> Vec<(Vec<&'static [u8]>, Means)> {
    vec![
        (vec![b"-1"], Means::Nothing),
        (vec![b"-99999999999999999999"], Means::Nothing),
        (vec![b"+5"], Means::Nothing),
        (vec![b"0"], Means::Nothing),
        (vec![b"000"], Means::Nothing),
        (vec![b"NaN"], Means::Nothing),
        (vec![b"inf"], Means::Nothing),
        (vec![b"1e9"], Means::Nothing),
        (vec![b"0x7fffffff"], Means::Nothing),
        (vec![b"soon"], Means::Nothing),
        (vec![b""], Means::Nothing),
        (vec![b","], Means::Nothing),
        (vec![b"\xff\xfe3600"], Means::Nothing),
        ("\u{663}\u{666}\u{660}\u{660}".as_bytes().into_list(), Means::Nothing),
        (vec![b"Sun, 06 Nov 1994 08:49:37 GMT"], Means::Nothing),
        (vec![b"Thu, 01 Jan 1970 00:00:00 GMT"], Means::Nothing),
        (vec![b"Mon, 01 Jan 0001 00:00:00 GMT"], Means::Nothing),
        (vec![b"Sun, 99 Nov 2094 99:99:99 GMT"], Means::Nothing),
        (vec![b"-1", b"NaN", b"\xff"], Means::Nothing),
        (vec![b"3600"], Means::TooLong),
        (vec![b"3600.5"], Means::TooLong),
        (vec![b"18446744073709551615"], Means::TooLong),
        (vec![b"99999999999999999999999999999999999999"], Means::TooLong),
        (vec![b"Fri, 31 Dec 9999 23:59:59 GMT"], Means::TooLong),
        (vec![b"0", b"3600"], Means::TooLong),
        (vec![b"3600", b"-1"], Means::TooLong),
        (vec![b"0, 3600"], Means::TooLong),
        (vec![b"\xff", b"3600"], Means::TooLong),
    ]
}

trait IntoList {
    fn into_list(self) -> Vec<&'static [u8]>;
}

impl IntoList for &'static [u8] {
    fn into_list(self) -> Vec<&'static [u8]> {
        vec![self]
    }
}

fn quiet(status: u16, values: &[&[u8]]) -> Reply {
    let headers: Vec<(&str, &[u8])> = values.iter().map(|value| ("retry-after", *value)).collect();
    Reply::answer_with_bytes(status, &headers, "not now")
}

/// Without jitter, so that the shortest wait allowed is known: 20 ms, doubling.
fn measured() -> Client {
    let retry = RetryPolicy::standard().jitter(Jitter::None);
    Client::builder().policy(Policy::standard().retry(retry).breaker(None)).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_retry_after_over_the_wire_makes_a_call_repeat_at_once_or_hang() {
    // One client for all, because each server is an upstream of its own to it.
    let (mut calls, client) = (JoinSet::new(), measured());
    for (values, means) in hostile() {
        for status in [429, 503] {
            let (values, client) = (values.clone(), client.clone());
            calls.spawn(async move {
                let told = values.clone();
                let server = Server::start(move |_| quiet(status, &told)).await;
                let begun = clock::now();
                let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
                let name = format!("{status} {:?}: {}", values, response.report());
                assert_eq!(response.status(), status, "{name}");
                assert_eq!(response.report().attempts().len(), server.count(), "{name}");
                match means {
                    Means::TooLong => {
                        assert_eq!(server.count(), 1, "{name}");
                        let why = response.report().declined();
                        assert!(matches!(why, [Decline::RetryAfterTooLong { .. }]), "{name}");
                        assert!(begun.elapsed() < Duration::from_secs(5), "{name}");
                    }
                    Means::Nothing => {
                        assert_eq!(server.count(), 4, "{name}");
                        assert_waits(&server.requests(), &[20, 40, 80], &name);
                    }
                }
                // Nor does it shut everyone else out for longer than five seconds.
                let next = within(SOON, client.get(server.url("/")).send()).await;
                match (means, status) {
                    (Means::TooLong, 503) => {
                        let error = next.unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Throttled, "{name}");
                        assert!(error.retry_after().unwrap() <= Duration::from_secs(5), "{name}");
                    }
                    _ => assert_eq!(next.unwrap().status(), status, "{name}"),
                }
            });
        }
    }
    calls.join_all().await;
}

/// At least these many milliseconds between one request and the next.
fn assert_waits(requests: &[Request], waits: &[u64], name: &str) {
    for (pair, wait) in requests.windows(2).zip(waits) {
        let gap = pair[1].at - pair[0].at;
        // From one arrival to the next, the answer's way lies in between: it can only add.
        assert!(gap >= Duration::from_millis(*wait), "{name}: {gap:?} after a wait of {wait} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_asked_for_over_the_wire_is_a_second_waited() {
    let date = || {
        // Two seconds ahead, so that at least one is left of it: dates have no fractions.
        let at = clock::wall() + Duration::from_secs(2);
        httpdate::fmt_http_date(at).into_bytes()
    };
    let (mut calls, client) = (JoinSet::new(), measured());
    for (status, by_date) in [(429, false), (429, true), (503, false), (503, true)] {
        let client = client.clone();
        calls.spawn(async move {
            let server = Server::start(move |request| match request.nth {
                1 if by_date => quiet(status, &[&date()]),
                1 => quiet(status, &[b" 1 "]),
                _ => Reply::answer(200, "well"),
            })
            .await;
            let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
            assert_eq!((response.status().as_u16(), server.count()), (200, 2), "{status} {by_date}");
            assert_waits(&server.requests(), &[900], &format!("{status} {by_date}"));
        });
    }
    calls.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_told_nonsense_sends_no_more_than_its_calls_and_tokens() {
    let server = Server::start(|_| quiet(503, &[b"-1", b"NaN"])).await;
    let client = Client::builder().policy(Policy::standard().breaker(None)).build().unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let call = client.get(server.url("/")).send();
        calls.spawn(async move { call.await.unwrap().status() });
    }
    let statuses = within(SOON, calls.join_all()).await;
    assert!(statuses.iter().all(|status| *status == 503));
    assert_eq!(server.count(), 100 + 10);
}

#[derive(Debug, serde::Deserialize)]
struct User {
    #[allow(dead_code, reason = "only decoded")]
    name: String,
}

#[tokio::test]
async fn an_answer_that_is_not_the_json_expected_is_a_decode_error() {
    let deep = "[".repeat(100_000);
    let answers: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("cut short", br#"{"name": "ad"#.to_vec()),
        ("another type", br#"{"name": 7}"#.to_vec()),
        ("a field missing", b"{}".to_vec()),
        ("more after the end", br#"{"name": "ada"} and so on"#.to_vec()),
        ("not UTF-8", b"{\"name\": \"\xff\xfe\"}".to_vec()),
        ("a hundred thousand levels deep", deep.into_bytes()),
    ];
    let client = standard();
    for (name, body) in answers {
        let server = Server::start(move |_| Reply::answer(200, &body)).await;
        let url = server.url("/users/7?token=s3cret");
        let after = within(SOON, async { client.get(&url).send().await?.json::<User>().await }).await;
        let within_call = within(SOON, client.get(&url).fetch_json::<User>()).await;
        for error in [after.unwrap_err(), within_call.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Decode, "{name}: {error:?}");
            assert!(error.is_decode() && std::error::Error::source(&error).is_some(), "{name}");
            assert_keeps_secrets(&everything_it_says(&error));
        }
        assert_eq!(server.count(), 2, "asking again would bring the same");
    }
}

#[tokio::test]
async fn text_in_any_encoding_is_read_without_a_panic() {
    let client = standard();
    for content_type in
        ["text/plain; charset=utf-8", "text/plain; charset=nonsense", "\u{e4}/;;=", "text/plain; charset="]
    {
        let server = Server::start(move |_| {
            Reply::answer_with(200, &[("content-type", content_type)], b"na\xefve \xff\xfe")
        })
        .await;
        let text =
            within(SOON, async { client.get(server.url("/")).send().await?.text().await }).await.unwrap();
        assert!(text.contains("na"), "{content_type}: {text}");
    }
}

/// What the library writes to logs in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Every kind of end a call can have, with secrets wherever a request can hold one.
#[tokio::test]
async fn no_error_event_or_log_line_tells_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry()
        .with(lines)
        .with(Targets::new().with_target("resilient_client", Level::TRACE));
    // For all threads. As long as there is one subscriber, tracing asks the one of the thread that
    // comes by a place in the code first: that may be another test's, which has none, and the place
    // would be silent ever after. What other tests log must tell no secret either.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let heard = Heard::new();
    // A new one each time: what one call did to the breaker is no other call's concern.
    let client = |kind: ErrorKind| {
        // Short for what never comes, so that how fast a machine is decides nothing about the rest.
        let short = Duration::from_millis(300);
        let timeout = match kind {
            ErrorKind::Timeout => TimeoutPolicy::standard().attempt(short),
            ErrorKind::BodyIdle => TimeoutPolicy::standard().body_idle(short),
            _ => TimeoutPolicy::standard(),
        };
        let policy = Policy::standard().timeout(timeout).retry(RetryPolicy::standard().max_attempts(2));
        Client::builder().policy(policy).max_body(10).observer(heard.clone()).build().unwrap()
    };
    let server = Server::start(|request| {
        let path = request.target.split('?').next().unwrap_or_default();
        match path {
            "/status" => Reply::answer(404, ""),
            "/down" => Reply::answer(500, ""),
            "/closed" => Reply::nothing().then_close(),
            "/hang" => Reply::nothing().then_hang(),
            "/truncated" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe").then_close(),
            "/stalled" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe").then_hang(),
            "/long" => Reply::answer(200, "x".repeat(100)),
            "/round" => Reply::answer_with(302, &[("location", "/round?token=s3cret#fr4gment")], ""),
            "/nowhere" => Reply::answer_with(302, &[("location", "ftp://alice:hunter2@x/?token=s3cret")], ""),
            "/quiet" => Reply::answer_with(503, &[("retry-after", "3600")], ""),
            _ => Reply::answer(200, "x"),
        }
    })
    .await;
    let with_secrets = |base: &str, path: &str| {
        base.replace("http://", "http://alice:hunter2@")
            + path
            + "?token=s3cret&passphrase=p4ssphrase#fr4gment"
    };
    let base = server.url("");
    let nobody = NobodyHome::new();
    let calls = [
        (ErrorKind::Status, with_secrets(&base, "/status")),
        (ErrorKind::Status, with_secrets(&base, "/down")),
        (ErrorKind::Transport, with_secrets(&base, "/closed")),
        (ErrorKind::Timeout, with_secrets(&base, "/hang")),
        (ErrorKind::Body, with_secrets(&base, "/truncated")),
        (ErrorKind::BodyIdle, with_secrets(&base, "/stalled")),
        (ErrorKind::BodyTooLarge, with_secrets(&base, "/long")),
        (ErrorKind::Decode, with_secrets(&base, "/")),
        (ErrorKind::Redirect, with_secrets(&base, "/round")),
        (ErrorKind::Connect, with_secrets(nobody.url().trim_end_matches('/'), "/")),
    ];
    for (kind, url) in calls {
        let request = client(kind).get(&url).header("x-passphrase", "p4ssphrase");
        let ended: Result<User, Error> =
            within(SOON, async { request.send().await?.error_for_status()?.json().await }).await;
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_keeps_secrets(&everything_it_says(&error));
        if let Some(report) = error.report() {
            assert_keeps_secrets(&format!("{report} {report:?} {report:#?}"));
        }
        if let Some(url) = error.url() {
            assert_keeps_secrets(url.as_str());
        }
    }
    // A redirect to a scheme there is no way to follow: whatever it is, it tells nothing.
    let ended = within(SOON, client(ErrorKind::Redirect).get(with_secrets(&base, "/nowhere")).send()).await;
    if let Err(error) = ended {
        assert_keeps_secrets(&everything_it_says(&error));
    }
    // Rejections need a client that remembers.
    for (path, kind) in [("/down", ErrorKind::CircuitOpen), ("/quiet", ErrorKind::Throttled)] {
        let (client, url) = (client(kind), with_secrets(&base, path));
        let error = loop {
            match within(SOON, client.get(&url).bearer_auth("b34rer").send()).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_keeps_secrets(&everything_it_says(&error));
    }

    assert!(
        server.requests().iter().any(|request| request.header("authorization").is_some()),
        "it is sent, though"
    );
    assert!(heard.count(|event| matches!(event, Event::Rejected { .. })) >= 2);
    assert_keeps_secrets(&heard.printed());
    client(ErrorKind::Timeout).reload(Policy::none()).unwrap();
    let log = log.text();
    for line in [
        "attempt finished",
        "circuit breaker opened",
        "policies reloaded version=1 changes=\"client: timeout, ",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_keeps_secrets(&log);
}
