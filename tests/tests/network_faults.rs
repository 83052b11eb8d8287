//! Every way the other end of a socket can go wrong: what the caller is told, that it takes a
//! bounded time, that the call's place is given back, and that nothing was sent which the report
//! doesn't show.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use reqwest::dns::{Name, Resolve, Resolving};
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{CallReport, Client, ClientBuilder, Decline, Error, ErrorKind, Policy};
use resilient_client_tests::server::{Accept, NobodyHome};
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, within};
use tokio::task::JoinSet;

/// For servers that will never answer. All others get the standard times: how fast a machine is
/// decides nothing.
const SHORT: Duration = Duration::from_millis(500);
/// For connects that hang, far below the attempt's: were they equal, which of them fires first
/// would be a race.
const CONNECT: Duration = Duration::from_millis(100);
/// Four attempts and the waits between them, on a slow machine.
const BOUND: Duration = Duration::from_secs(9);

/// One place only, so that a call which kept it would show at once. No breaker: faults are all
/// there is here.
fn builder(timeout: TimeoutPolicy, heard: &Heard) -> ClientBuilder {
    let policy = Policy::standard()
        .timeout(timeout)
        .bulkhead(BulkheadPolicy::standard().max_in_flight(1))
        .breaker(None);
    Client::builder().policy(policy).observer(heard.clone())
}

fn client_of(heard: &Heard) -> Client {
    builder(TimeoutPolicy::standard(), heard).build().unwrap()
}

/// A whole call, to the last byte of the body, within the bound.
async fn call(client: &Client, method: Method, url: &str) -> Result<(String, CallReport), Error> {
    let mut request = client.request(method.clone(), url);
    if method == Method::POST {
        request = request.body("an order");
    }
    within(BOUND, async {
        let response = request.send().await?;
        let report = response.report().clone();
        Ok((response.text().await?, report))
    })
    .await
}

fn outcomes(error: &Error) -> Vec<Outcome> {
    let attempts = error.report().expect("a call that began has a report").attempts();
    attempts.iter().map(|attempt| attempt.outcome().expect("every attempt has ended")).collect()
}

/// What a fault must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// No usable head: repeated where that is safe.
    Head(ErrorKind, FailureKind),
    /// The head was fine, and the body fails: repeated only when it was read as part of the call.
    Body(ErrorKind, FailureKind),
}

const BROKEN: Expected = Expected::Head(ErrorKind::Transport, FailureKind::Transport);
const SILENT: Expected = Expected::Head(ErrorKind::Timeout, FailureKind::Timeout);
const BAD_BODY: Expected = Expected::Body(ErrorKind::Body, FailureKind::Body);
const STALLED_BODY: Expected = Expected::Body(ErrorKind::BodyIdle, FailureKind::BodyIdle);

/// One client for each kind of fault, because making one takes a while. Each server is an upstream
/// of its own to them.
struct Clients {
    heard: Heard,
    standard: Client,
    short_attempt: Client,
    short_body_idle: Client,
}

impl Clients {
    fn new() -> Self {
        let heard = Heard::new();
        let timeout = TimeoutPolicy::standard;
        Self {
            standard: builder(timeout(), &heard).build().unwrap(),
            short_attempt: builder(timeout().attempt(SHORT), &heard).build().unwrap(),
            short_body_idle: builder(timeout().body_idle(SHORT), &heard).build().unwrap(),
            heard,
        }
    }

    fn to_expect(&self, expected: Expected) -> &Client {
        match expected {
            Expected::Head(_, FailureKind::Timeout) => &self.short_attempt,
            Expected::Body(_, FailureKind::BodyIdle) => &self.short_body_idle,
            Expected::Head(..) | Expected::Body(..) => &self.standard,
        }
    }
}

/// What the server does about each request it has read.
fn faults() -> Vec<(&'static str, Reply, Expected)> {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    let raw = |bytes: &str| Reply::raw(bytes);
    let head = |headers: &str| Reply::raw(format!("{OK}{headers}\r\n\r\n"));
    let chunked = || head("transfer-encoding: chunked");
    vec![
        ("closed before the head", Reply::nothing().then_close(), BROKEN),
        ("reset before the head", Reply::nothing().then_reset(), BROKEN),
        ("closed inside the head", raw("HTTP/1.1 200 OK\r\ncontent-le").then_close(), BROKEN),
        ("reset inside the head", raw("HTTP/1.1 200 OK\r\ncontent-le").then_reset(), BROKEN),
        ("head never comes", Reply::nothing().then_hang(), SILENT),
        ("head stalls half-way", raw("HTTP/1.1 200 OK\r\ncontent-le").then_hang(), SILENT),
        ("garbage for a head", Reply::raw([0, 159, 146, 150, 255, 13, 10, 13, 10]).then_hang(), BROKEN),
        ("TLS for a head", Reply::raw([21, 3, 1, 0, 2, 2, 70]).then_hang(), BROKEN),
        ("not HTTP at all", raw("hello, who are you?\r\n\r\n").then_hang(), BROKEN),
        ("a version there isn't", raw("HTTP/9.9 200 OK\r\n\r\n").then_hang(), BROKEN),
        ("a status there isn't", raw("HTTP/1.1 99999 What\r\n\r\n").then_hang(), BROKEN),
        ("endless headers", raw(OK).then_repeat("x-more: and more\r\n".repeat(100)), BROKEN),
        ("one endless header", raw("HTTP/1.1 200 OK\r\nx-long: ").then_repeat("a".repeat(4096)), BROKEN),
        ("an endless status line", raw("HTTP/1.1 200 ").then_repeat("a".repeat(4096)), BROKEN),
        ("a 1xx and no more", raw("HTTP/1.1 100 Continue\r\n\r\n").then_hang(), SILENT),
        ("negative content-length", head("content-length: -1").then_hang(), BROKEN),
        ("content-length that is no number", head("content-length: many").then_hang(), BROKEN),
        (
            "two content-lengths",
            head("content-length: 5\r\ncontent-length: 6").then("hello!").then_hang(),
            BROKEN,
        ),
        ("content-length beyond 64 bits", head("content-length: 99999999999999999999").then_hang(), BROKEN),
        (
            "huge content-length",
            head("content-length: 1000000000000000000").then("hello").then_close(),
            BAD_BODY,
        ),
        ("truncated body", head("content-length: 10").then("hello").then_close(), BAD_BODY),
        ("no body although announced", head("content-length: 10").then_close(), BAD_BODY),
        ("reset inside the body", head("content-length: 10").then("hello").then_reset(), BAD_BODY),
        ("body never comes", head("content-length: 10").then_hang(), STALLED_BODY),
        ("body stalls", head("content-length: 10").then("hello").then_hang(), STALLED_BODY),
        ("chunks stall", chunked().then("5\r\nhello\r\n").then_hang(), STALLED_BODY),
        ("chunks end without the last one", chunked().then("5\r\nhello\r\n").then_close(), BAD_BODY),
        ("a chunk ends early", chunked().then("5\r\nhel").then_close(), BAD_BODY),
        ("a chunk longer than it said", chunked().then("3\r\nhello\r\n0\r\n\r\n").then_hang(), BAD_BODY),
        ("chunk size that is no number", chunked().then("zz\r\nhello\r\n").then_hang(), BAD_BODY),
        ("chunk size beyond 64 bits", chunked().then("fffffffffffffffff\r\nhello\r\n").then_hang(), BAD_BODY),
        ("endless chunk extension", chunked().then("5;").then_repeat("a".repeat(4096)), BAD_BODY),
        (
            "endless trailers",
            chunked().then("0\r\n").then_repeat("x-more: and more\r\n".repeat(100)),
            BAD_BODY,
        ),
    ]
}

/// How the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// By the caller, once the call is over.
    After,
    /// As part of each attempt.
    Within,
}

async fn assert_fault(
    clients: Arc<Clients>,
    name: String,
    fault: Reply,
    expected: Expected,
    method: Method,
    read: Read,
) {
    let server = Server::start(move |request| match request.target.as_str() {
        "/well" => Reply::answer(200, "well"),
        _ => fault.clone(),
    })
    .await;
    let expected = match (expected, read) {
        // Inside an attempt there is one timer, the attempt's own.
        (STALLED_BODY, Read::Within) => SILENT,
        _ => expected,
    };
    let (client, heard) = (clients.to_expect(expected), clients.heard.of(&server.url("")));

    let ended = match read {
        Read::After => call(client, method.clone(), &server.url("/")).await.map(drop),
        Read::Within => {
            let request = client.request(method.clone(), server.url("/"));
            within(BOUND, request.send_buffered()).await.map(drop)
        }
    };
    let error = ended.expect_err(&format!("{name} passed for a success"));
    let (kind, failure, during_call) = match expected {
        Expected::Head(kind, failure) => (kind, failure, true),
        Expected::Body(kind, failure) => (kind, failure, read == Read::Within),
    };
    assert_eq!(error.kind(), kind, "{name}: {error:?}");
    // The server has read each of these requests, so only a GET may be sent again.
    let (attempts, why) = match (during_call, &method) {
        (true, &Method::GET) => (4, Some(Decline::AttemptsExhausted(4))),
        (true, _) => (1, Some(Decline::NotSafe)),
        (false, _) => (1, None),
    };
    assert_eq!(heard.outcomes(), vec![Outcome::Failure(failure); attempts], "{name}: {error:?}");
    assert_eq!(server.count(), attempts, "{name}: hidden requests");
    assert_eq!(error.report().unwrap().declined(), why.as_slice(), "{name}");
    if during_call {
        assert_eq!(outcomes(&error), heard.outcomes(), "{name}: {error:?}");
    }

    let well = call(client, Method::GET, &server.url("/well")).await;
    let (text, _) = well.unwrap_or_else(|error| panic!("{name}: its place wasn't given back: {error:?}"));
    assert_eq!(text, "well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_classified_bounded_and_sent_no_more_often_than_reported() {
    let (mut running, clients) = (JoinSet::new(), Arc::new(Clients::new()));
    for (name, fault, expected) in faults() {
        for (method, read) in [
            (Method::GET, Read::After),
            (Method::POST, Read::After),
            (Method::GET, Read::Within),
            (Method::POST, Read::Within),
        ] {
            let name = format!("{name}, {method}, body read {read:?}");
            running.spawn(assert_fault(Arc::clone(&clients), name, fault.clone(), expected, method, read));
            if running.len() >= 16 {
                running.join_next().await.unwrap().unwrap();
            }
        }
    }
    running.join_all().await;
}

/// Apart from the others: the client parses as fast as it can, which costs whoever shares its
/// thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_1xx_ends_at_the_attempt_timeout() {
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(50);
    let server = Server::start(move |request| match request.target.as_str() {
        "/well" => Reply::answer(200, "well"),
        _ => Reply::nothing().then_repeat(&flood),
    })
    .await;
    let heard = Heard::new();
    let client = builder(TimeoutPolicy::standard().attempt(SHORT), &heard).build().unwrap();
    let error = call(&client, Method::POST, &server.url("/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert_eq!((outcomes(&error), server.count()), (vec![Outcome::Failure(FailureKind::Timeout)], 1));
    assert_eq!(call(&client, Method::GET, &server.url("/well")).await.unwrap().0, "well");
}

/// Reset only once the client is inside the body for sure.
#[tokio::test]
async fn a_reset_while_the_body_is_being_read_is_a_body_failure() {
    let (heard, gate) = (Heard::new(), Gate::new());
    let hold = gate.clone();
    let server = Server::start(move |_| {
        Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").then_wait(&hold).then_reset()
    })
    .await;
    let client = client_of(&heard);
    let mut response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(within(SOON, response.chunk()).await.unwrap().unwrap(), "hello");
    gate.open();
    let error = within(SOON, response.chunk()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body, "{error:?}");
    assert_eq!(heard.outcomes(), [Outcome::Failure(FailureKind::Body)]);
}

/// Nothing was sent in any of these, so a POST is repeated like a GET.
async fn assert_never_sent(name: &str, client: &Client, heard: &Heard, url: &str) {
    for method in [Method::GET, Method::POST] {
        let before = heard.attempts();
        let error = call(client, method, url).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Connect, "{name}: {error:?}");
        assert_eq!(outcomes(&error), [Outcome::Failure(FailureKind::Connect); 4], "{name}: {error:?}");
        assert_eq!(heard.attempts() - before, 4, "{name}");
    }
}

#[tokio::test]
async fn a_refused_connection_was_never_sent() {
    let heard = Heard::new();
    let client = client_of(&heard);
    assert_never_sent("refused", &client, &heard, &NobodyHome::new().url()).await;
}

/// Packets to it vanish: its queue of connections is full and nobody accepts.
#[tokio::test]
async fn a_connect_that_hangs_was_never_sent() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let connect = || tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address));
    while let Ok(connected) = within(SOON, connect()).await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue never fills");
    }
    let heard = Heard::new();
    let client = builder(TimeoutPolicy::standard().connect(CONNECT), &heard).build().unwrap();
    assert_never_sent("blackhole", &client, &heard, &format!("http://{address}/")).await;
}

struct NoSuchName;

impl Resolve for NoSuchName {
    fn resolve(&self, _name: Name) -> Resolving {
        Box::pin(async { Err("no such name".into()) })
    }
}

struct Silence;

impl Resolve for Silence {
    fn resolve(&self, _name: Name) -> Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_was_never_sent() {
    let heard = Heard::new();
    let timeout = TimeoutPolicy::standard().connect(CONNECT);
    let client = builder(timeout.clone(), &heard)
        .transport(|transport| transport.dns_resolver(NoSuchName))
        .build()
        .unwrap();
    assert_never_sent("no such name", &client, &heard, "http://users.invalid/").await;
    let client = builder(timeout.clone(), &heard)
        .transport(|transport| transport.dns_resolver(Silence))
        .build()
        .unwrap();
    assert_never_sent("a resolver that hangs", &client, &heard, "http://users.invalid/").await;
}

#[tokio::test]
async fn a_tls_handshake_that_fails_was_never_sent() {
    let server = Server::start(|_| Reply::nothing().then_close()).await;
    server.on_accept(Accept::Close);
    let heard = Heard::new();
    let client = client_of(&heard);
    let url = server.url("/").replace("http:", "https:");
    assert_never_sent("no TLS there", &client, &heard, &url).await;
    assert_eq!(server.seen().read(|seen| seen.connections), heard.attempts());
}

/// Whether a request was written before the close was noticed is a race, so two outcomes are right;
/// a POST may be repeated after one of them only.
#[tokio::test]
async fn a_connection_closed_or_reset_on_accept_repeats_a_post_only_when_it_was_never_written() {
    for accept in [Accept::Close, Accept::Reset] {
        for method in [Method::GET, Method::POST] {
            let server = Server::start(|_| Reply::answer(200, "well")).await;
            server.on_accept(accept);
            let heard = Heard::new();
            let client = client_of(&heard);
            for _ in 0..10 {
                let Err(error) = call(&client, method.clone(), &server.url("/")).await else {
                    panic!("{accept:?}: nobody answered")
                };
                let unsent = |outcome: &Outcome| {
                    matches!(outcome, Outcome::Failure(FailureKind::Connect | FailureKind::Unsent))
                };
                let ended = outcomes(&error);
                assert!(error.is_connect() || error.kind() == ErrorKind::Transport, "{accept:?}: {error:?}");
                let broken = |outcome: &Outcome| *outcome == Outcome::Failure(FailureKind::Transport);
                assert!(ended.iter().all(|outcome| unsent(outcome) || broken(outcome)), "{ended:?}");
                if method == Method::POST {
                    assert!(ended[..ended.len() - 1].iter().all(unsent), "{accept:?}: {ended:?}");
                }
            }
            let connections = server.seen().read(|seen| seen.connections);
            assert_eq!((connections, server.count()), (heard.attempts(), 0), "{accept:?}");
            server.on_accept(Accept::Serve);
            assert_eq!(call(&client, method, &server.url("/")).await.unwrap().0, "well");
        }
    }
}

/// reqwest follows redirects inside one attempt: the server sees the hops, the report one attempt.
#[tokio::test]
async fn a_redirect_loop_ends_and_is_nobodys_failure() {
    let server = Server::start(|request| match request.target.as_str() {
        "/well" => Reply::answer(200, "well"),
        _ => Reply::answer_with(307, &[("location", "/round?and=round")], ""),
    })
    .await;
    for method in [Method::GET, Method::POST] {
        let heard = Heard::new();
        let client = client_of(&heard);
        let before = server.count();
        let error = call(&client, method, &server.url("/round")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Redirect, "{error:?}");
        assert_eq!(outcomes(&error), [Outcome::Failure(FailureKind::Redirect)]);
        assert_eq!((heard.attempts(), server.count() - before), (1, 11), "ten redirects, and no repetition");
        assert_eq!(call(&client, Method::GET, &server.url("/well")).await.unwrap().0, "well");
    }
}

/// Two answers to one request, in one packet. One that arrives a moment later can't be told from
/// the next request's own, by any client of HTTP/1.1: after a race it is, now and then, taken for
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_came_along_with_another_is_given_to_nobody() {
    const PLANTED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nplanted";
    let server = Server::start(|request| {
        let own = format!("answer {}", request.target);
        let length = own.len();
        Reply::raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{own}{PLANTED}"))
    })
    .await;
    let heard = Heard::new();
    let client = client_of(&heard);
    for n in 0..200 {
        let path = format!("/{n}");
        // A connection that speaks out of turn is thrown away, and a call may be caught on it.
        match call(&client, Method::POST, &server.url(&path)).await {
            Ok((text, _)) => assert_eq!(text, format!("answer {path}")),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Transport, "{error:?}"),
        }
    }
    assert!(heard.ended_as(Outcome::Success) > 0);
}
