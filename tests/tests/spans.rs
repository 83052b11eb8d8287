//! Spans: one round the call, one an attempt, named as OpenTelemetry's conventions for HTTP clients
//! have it, and nothing in them that may be secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use resilient_client::policy::PolicySet;
use resilient_client::policy::hedge::{Delay, HedgePolicy};
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Attempt, Client, Metrics, Policy, Prepared};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Gate, Reply, SOON, Server, clock, within};
use service_kit::meters::Meters;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// A span, as whoever records it has it in the end.
#[derive(Clone, Debug, Default)]
struct Recorded {
    id: u64,
    name: &'static str,
    fields: BTreeMap<String, String>,
    parent: Option<u64>,
    follows: Vec<u64>,
    /// When it was left last.
    left: Option<Instant>,
    closed: bool,
}

impl Recorded {
    fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }
}

impl Visit for Recorded {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

static SPANS: Mutex<BTreeMap<u64, Recorded>> = Mutex::new(BTreeMap::new());

struct Recorder;

impl<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id().into_u64()));
        let mut recorded =
            Recorded { id: id.into_u64(), name: attributes.metadata().name(), parent, ..Recorded::default() };
        attributes.record(&mut recorded);
        // Numbers are used again.
        let mut spans = SPANS.lock().unwrap();
        if let Some(old) = spans.insert(id.into_u64(), recorded) {
            let n = u64::MAX - spans.len() as u64;
            spans.insert(n, old);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(span) = SPANS.lock().unwrap().get_mut(&id.into_u64()) {
            values.record(span);
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        assert!(context.span(follows).is_some(), "a link to a span that is there");
        if let Some(span) = SPANS.lock().unwrap().get_mut(&id.into_u64()) {
            span.follows.push(follows.into_u64());
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        if let Some(span) = SPANS.lock().unwrap().get_mut(&id.into_u64()) {
            span.left = Some(clock::now());
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        if let Some(span) = SPANS.lock().unwrap().get_mut(&id.into_u64()) {
            span.closed = true;
        }
    }
}

/// One subscriber for all tests of this process: with several, tracing may ask another test's about
/// a place in the code.
fn record() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Recorder)).unwrap();
    });
}

/// The calls to a server's port, each with its attempts in order.
fn calls_to(port: u16) -> Vec<(Recorded, Vec<Recorded>)> {
    let spans: Vec<Recorded> = SPANS.lock().unwrap().values().cloned().collect();
    let port = port.to_string();
    let calls = spans.iter().filter(|span| span.name == "resilient_client.call");
    let calls = calls.filter(|span| span.get("server.port") == Some(&port));
    calls
        .map(|call| {
            let mut attempts: Vec<_> =
                spans.iter().filter(|it| it.parent == Some(call.id)).cloned().collect();
            attempts.sort_by_key(|it| it.get("http.request.resend_count").map_or(0, |n| n.parse().unwrap()));
            (call.clone(), attempts)
        })
        .collect()
}

fn port(server: &Server) -> u16 {
    server.url("").rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap()
}

/// What the conventions call a client's span, and ours beside them.
const OF_ATTEMPTS: [&str; 15] = [
    "otel.name",
    "otel.kind",
    "otel.status_code",
    "http.request.method",
    "server.address",
    "server.port",
    "url.full",
    "url.template",
    "http.request.resend_count",
    "http.response.status_code",
    "error.type",
    "resilient_client.trigger",
    "resilient_client.endpoint",
    "resilient_client.call.attempts",
    "message",
];

#[tokio::test]
async fn a_call_has_a_span_and_each_attempt_one_below_it() {
    record();
    let server = Server::start(|request| match request.nth {
        1 => Reply::answer(503, ""),
        _ => Reply::answer(200, "ada"),
    })
    .await;
    let client = Client::builder().build().unwrap();
    let outer = tracing::info_span!("handler");
    let url = server.url("/users/7?token=s3cret&page=2#fr4gment").replace("http://", "http://alice:hunter2@");
    let call = client.get(url).send_buffered();
    let response = tracing::Instrument::instrument(call, outer.clone()).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    let port = port(&server);
    let [(call, attempts)] = &calls_to(port)[..] else { panic!("one call") };
    assert_eq!(call.parent, outer.id().map(|id| id.into_u64()), "below the span it was made in");
    assert_eq!(call.get("otel.kind"), Some("internal"));
    assert_eq!(call.get("http.response.status_code"), Some("200"));
    assert_eq!(call.get("resilient_client.call.attempts"), Some("2"));
    assert_eq!(call.get("error.type"), None);
    let [first, second] = &attempts[..] else { panic!("two attempts: {attempts:?}") };
    for attempt in [first, second] {
        assert_eq!(attempt.get("otel.kind"), Some("client"));
        assert_eq!(attempt.get("otel.name"), Some("GET"), "without a template the name is the method");
        assert_eq!(attempt.get("http.request.method"), Some("GET"));
        assert_eq!(attempt.get("server.address"), Some("127.0.0.1"));
        let shown = format!("http://127.0.0.1:{port}/users/7?token&page");
        assert_eq!(attempt.get("url.full"), Some(shown.as_str()));
        assert!(attempt.fields.keys().all(|it| OF_ATTEMPTS.contains(&it.as_str())), "{attempt:?}");
        assert!(attempt.closed, "{attempt:?}");
    }
    assert_eq!(first.get("http.response.status_code"), Some("503"));
    assert_eq!(first.get("error.type"), Some("503"));
    assert_eq!(first.get("otel.status_code"), Some("ERROR"));
    assert_eq!(first.get("http.request.resend_count"), None);
    assert_eq!(second.get("http.response.status_code"), Some("200"));
    assert_eq!(second.get("error.type"), None);
    assert_eq!(second.get("otel.status_code"), None);
    assert_eq!(second.get("http.request.resend_count"), Some("1"));
    assert_eq!(second.get("resilient_client.trigger"), Some("retry"));
    assert!(call.closed);
}

#[tokio::test]
async fn an_attempts_span_lasts_as_long_as_its_body() {
    record();
    let server = Server::start(|_| Reply::answer(200, "ada")).await;
    let client = Client::builder().build().unwrap();
    let response = client.get(server.url("/")).send().await.unwrap();
    let open = calls_to(port(&server));
    assert!(!open[0].1[0].closed && open[0].1[0].get("http.response.status_code").is_none());
    assert_eq!(response.text().await.unwrap(), "ada");
    let ended = calls_to(port(&server));
    assert!(ended[0].1[0].closed);
    assert_eq!(ended[0].1[0].get("http.response.status_code"), Some("200"));
}

/// tracing-opentelemetry ends a span where it was left last. Nobody is in an attempt's span while
/// its transport or its body waits, and in a call's while its caller does.
#[tokio::test]
async fn a_span_is_left_last_as_it_ends() {
    record();
    let gate = Gate::new();
    let body = gate.clone();
    let server = Server::start(move |request| match request.nth {
        1 => Reply::raw("HTTP/1.1 200 Told\r\ncontent-length: 3\r\n\r\n").then_wait(&body).then("ada"),
        _ => Reply::nothing().then_hang(),
    })
    .await;
    let timeout = TimeoutPolicy::standard().attempt(Duration::from_millis(100));
    let policy = Policy::standard().timeout(timeout).retry(RetryPolicy::standard().max_attempts(1));
    let client = Client::builder().policy(policy).build().unwrap();
    // A stream's body, an attempt that is given up, and a call that nobody waits for.
    let response = client.get(server.url("/")).send().await.unwrap();
    let head_came = clock::now();
    gate.open();
    assert_eq!(response.text().await.unwrap(), "ada");
    let asked = clock::now();
    client.get(server.url("/")).send().await.unwrap_err();
    let mut dropped = Box::pin(client.get(server.url("/")).send());
    let until_sent = async {
        tokio::select! {
            _ = &mut dropped => panic!("it hangs"),
            () = server.until_count(3) => {}
        }
    };
    within(SOON, until_sent).await;
    let sent = clock::now();
    drop(dropped);
    let mut calls = calls_to(port(&server));
    calls.sort_by_key(|(call, _)| call.left);
    let [streamed, given_up, forsaken] = &calls[..] else { panic!("three calls: {calls:?}") };
    assert!(streamed.1[0].left > Some(head_came), "{streamed:?}");
    let took = given_up.1[0].left.unwrap().duration_since(asked);
    assert!(took >= Duration::from_millis(100), "{took:?}: {given_up:?}");
    assert!(forsaken.1[0].left > Some(sent) && forsaken.0.left > Some(sent), "{forsaken:?}");
}

#[tokio::test]
async fn a_route_is_named_by_its_template_and_its_path_is_not_told() {
    record();
    let server = Server::start(|_| Reply::answer(404, "")).await;
    let origin = server.url("");
    let policies = PolicySet::new(Policy::standard()).route(
        origin.trim_end_matches('/'),
        "GET",
        "/reset/{token}",
        |policy| policy,
    );
    let client = Client::builder().policy(policies).build().unwrap();
    drop(client.get(server.url("/reset/s3cret?x=s3cret")).send_buffered().await.unwrap());
    let named = client.get(server.url("/invite/s3cret")).url_template("/invite/{code}");
    drop(named.send_buffered().await.unwrap());
    let port = port(&server);
    let calls = calls_to(port);
    let attempts: Vec<_> = calls.iter().flat_map(|(_, attempts)| attempts).collect();
    let of = |template: &str| {
        let named = attempts.iter().find(|it| it.get("url.template") == Some(template));
        *named.unwrap_or_else(|| panic!("{template}: {calls:?}"))
    };
    let reset = of("/reset/{token}");
    assert_eq!(reset.get("otel.name"), Some("GET /reset/{token}"));
    assert_eq!(reset.get("url.full"), Some(&*format!("http://127.0.0.1:{port}/reset/{{token}}?x")));
    assert_eq!(reset.get("error.type"), Some("404"), "the conventions call a 4xx a client's error");
    assert_eq!(of("/invite/{code}").get("otel.name"), Some("GET /invite/{code}"));
    assert!(!format!("{calls:?}").contains("s3cret"), "{calls:?}");
}

#[tokio::test]
async fn a_hedge_follows_from_its_first_attempt() {
    record();
    let server = Server::start(|request| match request.nth {
        1 => Reply::nothing().then_hang(),
        _ => Reply::answer(200, ""),
    })
    .await;
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(Duration::from_millis(50)));
    let client = Client::builder().policy(Policy::standard().hedge(hedge)).build().unwrap();
    drop(client.get(server.url("/")).send_buffered().await.unwrap());
    let [(_, attempts)] = &calls_to(port(&server))[..] else { panic!("one call") };
    let [first, hedge] = &attempts[..] else { panic!("two attempts: {attempts:?}") };
    assert_eq!(hedge.follows, [first.id]);
    assert_eq!(hedge.get("resilient_client.trigger"), Some("hedge"));
    assert_eq!(first.get("error.type"), Some("abandoned"), "the loser is cancelled");
    assert_eq!(first.get("otel.status_code"), None, "and nobody's error");
    assert!(first.follows.is_empty());
}

#[tokio::test]
async fn a_method_that_the_conventions_do_not_know_is_other_and_told_as_it_is_sent() {
    record();
    let server = Server::start(|_| Reply::answer(200, "")).await;
    let client = Client::builder().build().unwrap();
    let method = resilient_client::Method::from_bytes(b"PURGE").unwrap();
    drop(client.request(method, server.url("/")).send_buffered().await.unwrap());
    let [(call, attempts)] = &calls_to(port(&server))[..] else { panic!("one call") };
    for span in [call, &attempts[0]] {
        assert_eq!(span.get("http.request.method"), Some("_OTHER"));
        assert_eq!(span.get("http.request.method_original"), Some("PURGE"));
    }
    assert_eq!(attempts[0].get("otel.name"), Some("HTTP"));
}

/// It was a client's span like one of a request, and said nothing.
#[tokio::test]
async fn the_span_of_what_its_hook_held_back_is_no_request() {
    record();
    for later in [false, true] {
        let server = Server::start(|_| Reply::answer(200, "")).await;
        let hook = move |_: &Attempt<'_>| {
            let error = std::io::Error::other("no token");
            if later { Prepared::later(async { Err(error) }) } else { Prepared::failed(error) }
        };
        let client = Client::builder().on_attempt(hook).build().unwrap();
        client.get(server.url("/")).send_buffered().await.unwrap_err();
        let [(call, attempts)] = &calls_to(port(&server))[..] else { panic!("one call") };
        assert_eq!(call.get("resilient_client.call.attempts"), Some("0"));
        let [held] = &attempts[..] else { panic!("its hook needs one: {attempts:?}") };
        assert_eq!((held.get("otel.kind"), held.get("error.type")), (Some("internal"), Some("not_sent")));
        assert!(held.closed);
    }
}

#[tokio::test]
async fn an_attempt_without_an_answer_says_what_kept_it() {
    record();
    let nobody = NobodyHome::new();
    let retry = RetryPolicy::standard().max_attempts(2);
    let client = Client::builder().policy(Policy::standard().retry(retry.clone())).build().unwrap();
    client.get(nobody.url()).send().await.unwrap_err();
    let of_nobody: u16 = nobody.url().rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let [(call, attempts)] = &calls_to(of_nobody)[..] else { panic!("one call") };
    assert_eq!(call.get("error.type"), Some("connect"));
    assert_eq!(call.get("otel.status_code"), Some("ERROR"));
    let kinds: BTreeSet<_> = attempts.iter().map(|it| it.get("error.type")).collect();
    assert_eq!(kinds, BTreeSet::from([Some("connect")]));

    let server = Server::start(|_| Reply::nothing().then_hang()).await;
    let timeout = TimeoutPolicy::standard().attempt(Duration::from_millis(100));
    let policy = Policy::standard().timeout(timeout).retry(retry);
    let client = Client::builder().policy(policy).build().unwrap();
    client.get(server.url("/")).send().await.unwrap_err();
    let [(call, attempts)] = &calls_to(port(&server))[..] else { panic!("one call") };
    assert_eq!(call.get("error.type"), Some("timeout"));
    assert!(attempts.iter().all(|it| it.get("error.type") == Some("timeout")), "{attempts:?}");
}

/// What a tracer's hook relies on, and every span of the transport's own.
#[tokio::test]
async fn the_attempts_span_is_current_while_the_hook_is_asked() {
    static CURRENT: Mutex<Vec<Option<u64>>> = Mutex::new(Vec::new());
    record();
    let server = Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "")).await;
    let hook = |_: &Attempt<'_>| {
        CURRENT.lock().unwrap().push(Span::current().id().map(|id| id.into_u64()));
        Prepared::later(async {
            CURRENT.lock().unwrap().push(Span::current().id().map(|id| id.into_u64()));
            Ok::<_, std::io::Error>(http::HeaderMap::new())
        })
    };
    let client = Client::builder().on_attempt(hook).build().unwrap();
    drop(client.get(server.url("/")).send_buffered().await.unwrap());
    let [(_, attempts)] = &calls_to(port(&server))[..] else { panic!("one call") };
    let ids: Vec<_> = attempts.iter().flat_map(|it| [Some(it.id), Some(it.id)]).collect();
    assert_eq!(*CURRENT.lock().unwrap(), ids);
}

/// The time was up, or nobody waited any more, when the head was there and its body wasn't: the
/// status was forgotten.
#[tokio::test]
async fn a_head_that_came_is_told_beside_what_its_body_came_to() {
    record();
    let timeout = TimeoutPolicy::standard()
        .total(Duration::from_millis(400))
        .attempt(Duration::from_millis(300))
        .body_idle(Duration::from_millis(300));
    let policy = || Policy::standard().timeout(timeout.clone()).retry(None);
    for over_hyper in [false, true] {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfour";
        let server = Server::start(move |_| Reply::raw(head).then_hang()).await;
        let url = server.url("/");
        let meters = Meters::default();
        let metrics = Metrics::with_recorder(meters.recorder());
        if over_hyper {
            let client = resilient_client::hyper::Client::builder().policy(policy()).observer(metrics);
            let client = client.build().unwrap();
            client.get(&*url).send_buffered().await.unwrap_err();
            client.get(&*url).send().await.unwrap().bytes().await.unwrap_err();
        } else {
            let client = Client::builder().policy(policy()).observer(metrics).build().unwrap();
            client.get(&*url).send_buffered().await.unwrap_err();
            client.get(&*url).send().await.unwrap().bytes().await.unwrap_err();
        }
        let calls = calls_to(port(&server));
        assert_eq!(calls.len(), 2);
        for attempt in calls.iter().flat_map(|(_, attempts)| attempts) {
            assert_eq!(attempt.get("http.response.status_code"), Some("200"), "{attempt:?}");
            assert!(attempt.get("error.type").is_some(), "{attempt:?}");
        }
        let page = meters.render();
        let counted =
            page.lines().filter(|line| line.starts_with("http_client_request_duration_seconds_count"));
        let counted: Vec<_> = counted.collect();
        assert!(!counted.is_empty(), "{page}");
        for line in counted {
            assert!(
                line.contains("http_response_status_code=\"200\"") && line.contains("error_type="),
                "{line}"
            );
        }
    }
}
