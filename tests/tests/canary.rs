//! Secrets stay where they are needed: on the wire. Wherever a request can hold one, none of it
//! comes out again in an error, an event, a line of the log, a span, a metric or a snapshot; and a
//! server's headers can't forge a line.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilient_client::policy::PolicySet;
use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, ClientBuilder, Metrics, Policy, hyper};
use resilient_client_tests::{Heard, Reply, Server, everything_it_says};
use service_kit::meters::Meters;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;

/// Each names where it is put. None is a word that anything else has.
const QUERY: &str = "canary1query";
const PATH: &str = "canary2path";
const USER: &str = "canary3user";
const PASSWORD: &str = "canary4password";
const AUTHORIZATION: &str = "canary5authorization";
const COOKIE: &str = "canary6cookie";
const HEADER: &str = "canary7header";
const PROXY_USER: &str = "canary8proxyuser";
const PROXY_PASSWORD: &str = "canary9proxypassword";
const FRAGMENT: &str = "canary10fragment";
const BODY: &str = "canary11body";

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
    /// Every line and every span of the library's, from all threads: once a process.
    fn of_process() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_span_events(FmtSpan::FULL)
            .with_writer(move || writer.clone());
        let targets = Targets::new().with_target("resilient_client", Level::TRACE);
        let subscriber = tracing_subscriber::registry().with(lines).with(targets);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn policies(origin: &str) -> PolicySet {
    let short = Duration::from_millis(200);
    let timeout = TimeoutPolicy::standard().attempt(short).body_idle(short);
    let retry = RetryPolicy::standard().max_attempts(2);
    let base = Policy::standard().timeout(timeout).retry(retry);
    let own_state = |policy: Policy| policy.breaker(BreakerPolicy::standard().consecutive_failures(7));
    PolicySet::new(base).route(origin, "*", "/{kind}/{token}", own_state)
}

/// What a server does, by the first segment of the path.
fn script(target: &str) -> Reply {
    // With a proxy the whole URL is the target.
    let path = target
        .split_once("127.0.0.1:")
        .map_or(target, |(_, rest)| rest.split_once('/').map_or("", |it| it.1));
    let kind = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    match kind {
        "missing" => Reply::answer(404, ""),
        "down" => Reply::answer(500, ""),
        "closed" => Reply::nothing().then_close(),
        "hang" => Reply::nothing().then_hang(),
        "truncated" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe").then_close(),
        "garbage" => Reply::raw("what is this\r\n\r\n").then_close(),
        "nowhere" => Reply::answer_with(
            302,
            &[("location", &*format!("ftp://{USER}:{PASSWORD}@x/{PATH}?t={QUERY}"))],
            "",
        ),
        "round" => Reply::answer_with(302, &[("location", &*format!("/round/{PATH}?t={QUERY}"))], ""),
        "later" => Reply::answer_with(503, &[("retry-after", "3600")], ""),
        _ => Reply::answer(200, "x".repeat(100)),
    }
}

const KINDS: [&str; 10] =
    ["fine", "missing", "down", "closed", "hang", "truncated", "garbage", "nowhere", "round", "later"];

#[tokio::test]
async fn no_error_event_line_span_metric_or_snapshot_tells_a_secret_or_lets_a_server_forge_a_line() {
    let log = Log::of_process();
    let (heard, meters) = (Heard::new(), Meters::default());
    let metrics = Metrics::with_recorder(meters.recorder());
    let server = Server::start(|request| script(&request.target)).await;
    let origin = server.url("").trim_end_matches('/').to_owned();
    let observed = |builder: ClientBuilder| {
        builder.policy(policies(&origin)).max_body(50).observer(heard.clone()).observer(metrics.clone())
    };
    let proxy = origin.replace("http://", &format!("http://{PROXY_USER}:{PROXY_PASSWORD}@"));
    let through_proxy =
        move |transport: reqwest::ClientBuilder| transport.proxy(reqwest::Proxy::all(&proxy).unwrap());
    let broken_proxy = |transport: reqwest::ClientBuilder| {
        let url = format!("http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:1");
        transport.proxy(reqwest::Proxy::all(url).unwrap())
    };
    let clients = [
        observed(Client::builder()).build().unwrap(),
        observed(Client::builder()).transport(through_proxy).build().unwrap(),
        observed(Client::builder()).transport(broken_proxy).build().unwrap(),
    ];
    let mut said = String::new();
    let url = |kind: &str| {
        let origin = origin.replace("http://", &format!("http://{USER}:{PASSWORD}@"));
        format!("{origin}/{kind}/{PATH}?token={QUERY}#{FRAGMENT}")
    };
    for client in &clients {
        writeln!(said, "{client:?}").unwrap();
        for kind in KINDS {
            let call = client
                .post(url(kind))
                .idempotent(true)
                .header("authorization", format!("Bearer {AUTHORIZATION}"))
                .header("cookie", format!("session={COOKIE}"))
                .header("x-api-key", HEADER)
                .body(BODY);
            let answer = call.send_buffered().await;
            match answer.and_then(resilient_client::Response::error_for_status) {
                Ok(response) => writeln!(said, "{:?} {}", response.report(), response.report()).unwrap(),
                Err(error) => {
                    writeln!(said, "{} {error:?}", everything_it_says(&error)).unwrap();
                    writeln!(said, "{:?} {:?}", error.report(), error.report().map(ToString::to_string))
                        .unwrap();
                }
            }
        }
        writeln!(said, "{:?}", client.snapshot()).unwrap();
    }
    let over_hyper = hyper::Client::builder().policy(policies(&origin)).observer(heard.clone());
    let over_hyper = over_hyper.observer(metrics.clone()).build().unwrap();
    for kind in KINDS {
        let url = url(kind).replace(&format!("{USER}:{PASSWORD}@"), "");
        let call = over_hyper.get(url).header("authorization", format!("Bearer {AUTHORIZATION}"));
        match call
            .header("x-api-key", HEADER)
            .send_buffered()
            .await
            .and_then(hyper::Response::error_for_status)
        {
            Ok(response) => writeln!(said, "{:?} {}", response.report(), response.report()).unwrap(),
            Err(error) => writeln!(said, "{} {error:?}", everything_it_says(&error)).unwrap(),
        }
    }
    writeln!(said, "{:?}", over_hyper.snapshot()).unwrap();
    let mut snapshots = over_hyper.snapshot();
    for client in clients {
        snapshots.extend(client.snapshot());
    }
    metrics.record_snapshot(&snapshots);

    let (lines, counted) = (log.text(), meters.render());
    assert!(
        lines.contains("resilient_client.call") && lines.contains("url.full"),
        "there were spans: {lines}"
    );
    assert!(counted.contains("url_template=\"/{kind}/{token}\""), "there were metrics: {counted}");
    assert!(said.contains("/%7Bkind%7D/%7Btoken%7D") || said.contains("{token}"), "a route is named: {said}");
    let all =
        [("errors and snapshots", said), ("events", heard.printed()), ("log", lines), ("metrics", counted)];
    for (place, text) in &all {
        for secret in [
            QUERY,
            PATH,
            USER,
            PASSWORD,
            AUTHORIZATION,
            COOKIE,
            HEADER,
            PROXY_USER,
            PROXY_PASSWORD,
            FRAGMENT,
            BODY,
        ] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} in {place}");
        }
        // Nor as the proxy would be told it.
        assert!(!text.to_lowercase().contains("proxy-authorization"), "{place}");
    }

    forge(&log).await;
}

/// A server that sends escape codes, and what looks like lines of our log, wherever it can.
async fn forge(log: &Log) {
    const FORGED: &str = "FORGED circuit breaker closed";
    let before = log.text().len();
    let server = Server::start(|request| {
        let evil = format!("\u{1b}[2J{FORGED}");
        match request.nth {
            1 => Reply::raw(format!(
                "HTTP/1.1 500 {FORGED}\r\nretry-after: {FORGED}\r\ncontent-length: 0\r\n\r\n"
            )),
            2 => Reply::raw(format!("HTTP/1.1 503 x\r\nx: a\r{FORGED}\r\n\r\n")).then_close(),
            3 => Reply::raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {evil}\r\ncontent-length: {evil}\r\n\r\n"
            ))
            .then_close(),
            4 => Reply::raw(format!("HTTP/1.1 302 x\r\nlocation: /%0a{FORGED}\r\ncontent-length: 0\r\n\r\n")),
            5 => Reply::raw(format!("{evil}\r\n\r\n")).then_close(),
            _ => Reply::answer(200, FORGED),
        }
    })
    .await;
    let policy = Policy::standard().retry(RetryPolicy::standard().max_attempts(4));
    let client = Client::builder().policy(policy).build().unwrap();
    for _ in 0..4 {
        // A key and a template come from the caller's code, and yet may be what a user typed.
        let call = client.get(server.url("/")).key(format!("k\n\u{1b}[2J{FORGED}"));
        let _ = call.url_template(format!("/a\n\u{1b}[2J{FORGED}")).send_buffered().await;
    }
    let text = log.text().split_off(before);
    assert!(server.count() > 5 && text.lines().count() > 20, "{text}");
    for line in text.lines() {
        assert!(line.starts_with("20") && line.contains("Z "), "a line that isn't ours: {line:?}");
        assert!(!line.contains(['\u{1b}', '\r']), "{line:?}");
    }
}
