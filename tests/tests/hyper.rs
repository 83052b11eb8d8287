//! The client over hyper: the same verbs, the same engine, and nothing hidden below it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method};
use http_body::Frame;
use http_body_util::StreamBody;
use resilient_client::hyper::{Body, Client, ClientBuilder, RequestBuilder};
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::policy::PolicySet;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Attempt, CallReport, Decline, Error, ErrorKind, Policy, Prepared};
use resilient_client_tests::h2_server::{self, Act, H2Server, NO_ERROR, REFUSED_STREAM};
use resilient_client_tests::server::{NobodyHome, Request};
use resilient_client_tests::tls::Tls;
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, everything_it_says, within};
use tokio::task::JoinSet;

/// For servers that will never answer.
const SHORT: Duration = Duration::from_millis(300);
/// Far below the attempt's.
const CONNECT: Duration = Duration::from_millis(100);

/// No breaker: faults are all there is in most of these.
fn builder(timeout: TimeoutPolicy, heard: &Heard) -> ClientBuilder {
    Client::builder().policy(Policy::standard().timeout(timeout).breaker(None)).observer(heard.clone())
}

fn client_of(heard: &Heard) -> Client {
    builder(TimeoutPolicy::standard(), heard).build().unwrap()
}

/// A whole call, to the last byte of the body.
async fn call(request: RequestBuilder) -> Result<(String, CallReport), Error> {
    within(SOON, async {
        let response = request.send().await?;
        let report = response.report().clone();
        Ok((response.text().await?, report))
    })
    .await
}

fn outcomes(report: &CallReport) -> Vec<Outcome> {
    report.attempts().iter().filter_map(resilient_client::AttemptReport::outcome).collect()
}

fn failed(error: &Error) -> Vec<Outcome> {
    outcomes(error.report().expect("a call that began has a report"))
}

const fn failure(kind: FailureKind) -> Outcome {
    Outcome::Failure(kind)
}

fn echo(request: &Request) -> Reply {
    let said = request.headers.iter().filter(|(name, _)| name.starts_with("x-") || name == "content-type");
    let said: Vec<_> = said.map(|(name, value)| format!("{name}={value}")).collect();
    let body = String::from_utf8_lossy(&request.body);
    Reply::answer(200, format!("{} {} {} {body}", request.method, request.target, said.join(",")))
}

#[tokio::test]
async fn every_verb_arrives_as_it_was_written() {
    let server = Server::start(echo).await;
    let client = Client::builder().deadline_header(None).build().unwrap();
    let url = server.url("/a%20b?x=1");
    for (request, expected) in [
        (client.get(&url), "GET /a%20b?x=1  "),
        (client.post(url.clone()).body("hello"), "POST /a%20b?x=1  hello"),
        (client.put(url.parse::<http::Uri>().unwrap()).body(vec![104, 105]), "PUT /a%20b?x=1  hi"),
        (client.patch(&url).header("x-a", "1").header("x-a", "2"), "PATCH /a%20b?x=1 x-a=1,x-a=2 "),
        (client.delete(&url).query(&[("y", "a b")]), "DELETE /a%20b?x=1&y=a+b  "),
        (client.get(server.url("")).query(&[("y", "1")]), "GET /?y=1  "),
        (client.request(Method::OPTIONS, server.url("/")), "OPTIONS /  "),
        (client.post(&url).json(&[1, 2]), "POST /a%20b?x=1 content-type=application/json [1,2]"),
        (
            client.post(&url).form(&[("a", "b c")]),
            "POST /a%20b?x=1 content-type=application/x-www-form-urlencoded a=b+c",
        ),
        (
            client
                .get(&url)
                .header("x-a", "1")
                .headers(HeaderMap::from_iter([("x-a".parse().unwrap(), HeaderValue::from_static("3"))])),
            "GET /a%20b?x=1 x-a=3 ",
        ),
    ] {
        assert_eq!(call(request).await.unwrap().0, expected);
    }
    let authorised =
        [client.get(&url).basic_auth("alice", Some("pass")), client.get(&url).bearer_auth("abc")];
    for (request, expected) in authorised.into_iter().zip(["Basic YWxpY2U6cGFzcw==", "Bearer abc"]) {
        call(request).await.unwrap();
        assert_eq!(server.requests().last().unwrap().header("authorization"), Some(expected));
    }
    let head = within(SOON, client.head(&url).send()).await;
    // The server writes a body whatever the method, which spoils the connection and not the answer.
    assert_eq!(head.unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_has_all_that_reqwests_has() {
    let server = Server::start(|_| Reply::answer_with(404, &[("x-a", "1")], r#"{"a":[1,2]}"#)).await;
    let client = Client::builder().build().unwrap();
    let url = server.url("/users/7?token=s3cret");
    let mut response = within(SOON, client.get(&url).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (404, http::Version::HTTP_11));
    assert_eq!((response.headers()["x-a"].as_bytes(), response.content_length()), (&b"1"[..], Some(11)));
    assert_eq!(response.uri(), url.as_str());
    assert_eq!(response.remote_addr(), Some(server.address()));
    assert_eq!(response.report().attempts().len(), 1);
    let error = response.error_for_status_ref().unwrap_err();
    assert_eq!((error.kind(), error.status().unwrap().as_u16()), (ErrorKind::Status, 404));
    let said = format!("{}{response:?}", everything_it_says(&error));
    assert!(said.contains("/users/7?token") && !said.contains("s3cret"), "{said}");
    assert_eq!(response.chunk().await.unwrap().unwrap(), r#"{"a":[1,2]}"#);
    assert_eq!(response.chunk().await.unwrap(), None);

    let json: HashMap<String, Vec<u8>> = client.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(json["a"], [1, 2]);
    assert_eq!(client.get(&url).fetch_bytes().await.unwrap_err().kind(), ErrorKind::Status);
    let small = Client::builder().max_body(5).build().unwrap();
    let error = small.get(&url).send().await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_anything_is_sent() {
    let heard = Heard::new();
    let client = client_of(&heard);
    for url in
        ["/users", "users", "ftp://users/", "http://alice:hunter2@users/", "http://a b/", "", "http:///x"]
    {
        let error = call(client.get(url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{url}");
        assert!(!everything_it_says(&error).contains("hunter2"));
    }
    let bad = client.get("http://users/").header("bad name", "x").header("fine", "x");
    assert_eq!(call(bad).await.unwrap_err().kind(), ErrorKind::Request);
    let bad = client.get("http://users/").bearer_auth("s3cret\n");
    let error = call(bad).await.unwrap_err();
    assert!(error.is_request() && !everything_it_says(&error).contains("s3cret"));
    assert_eq!(heard.attempts(), 0);
}

#[tokio::test]
async fn a_503_is_tried_again_and_a_post_is_not() {
    let server =
        Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "done")).await;
    let heard = Heard::new();
    let client = client_of(&heard);
    let (text, report) = call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(
        (text.as_str(), outcomes(&report)),
        ("done", vec![failure(FailureKind::Status), Outcome::Success])
    );
    assert_eq!(server.requests()[1].header("x-envoy-attempt-count"), Some("2"));
    assert!(server.requests()[0].header("x-envoy-expected-rq-timeout-ms").is_some());

    server.now(|_| Reply::answer(503, "no"));
    let before = server.count();
    let (text, report) = call(client.post(server.url("/")).body("an order")).await.unwrap();
    assert_eq!((text.as_str(), outcomes(&report)), ("no", vec![failure(FailureKind::Status)]));
    assert_eq!((server.count() - before, report.declined()), (1, &[Decline::NotSafe][..]));
    // The last real answer, whole, once there is no other attempt left.
    let (text, report) =
        call(client.post(server.url("/")).body("x").generate_idempotency_key()).await.unwrap();
    assert_eq!((text.as_str(), report.attempts().len()), ("no", 4));
    let keys: Vec<_> = server.requests()[before + 1..]
        .iter()
        .map(|r| r.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys, vec![keys[0].clone(); 4]);
    assert_eq!(server.count(), heard.attempts());
}

#[tokio::test]
async fn a_stream_is_sent_once_and_with_a_replay_buffer_again() {
    let server =
        Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "done")).await;
    let client = Client::builder().build().unwrap();
    let body = || {
        let pieces = ["hel", "lo"].map(|piece| Ok::<_, std::io::Error>(Frame::data(piece.into())));
        Body::wrap(StreamBody::new(stream::iter(pieces)))
    };
    let kept = client.put(server.url("/")).body(body()).replay_buffer(1024);
    let (_, report) = call(kept).await.unwrap();
    assert_eq!(report.attempts().len(), 2);
    assert_eq!(server.requests().iter().map(|r| r.body.clone()).collect::<Vec<_>>(), ["hello", "hello"]);

    server.now(|_| Reply::answer(503, "no"));
    let (_, report) = call(client.put(server.url("/")).body(body())).await.unwrap();
    assert_eq!((report.attempts().len(), report.declined()), (1, &[Decline::BodyIsStream][..]));
}

#[tokio::test]
async fn a_hook_sees_each_attempt_with_its_body_and_signs_it() {
    let server =
        Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "done")).await;
    let client = Client::builder()
        .on_attempt(|attempt: &Attempt<'_>| {
            let signature = format!("{}-{}", attempt.number(), attempt.body().unwrap_or_default().len());
            assert!(attempt.url().ends_with("/orders?x=1"));
            let value = HeaderValue::try_from(signature).unwrap();
            Prepared::now(HeaderMap::from_iter([("x-signature".parse().unwrap(), value)]))
        })
        .build()
        .unwrap();
    call(client.put(server.url("/orders?x=1")).body("an order")).await.unwrap();
    let signed: Vec<_> =
        server.requests().iter().map(|r| r.header("x-signature").unwrap().to_owned()).collect();
    assert_eq!(signed, ["1-8", "2-8"]);
}

/// Nothing was sent in any of these, so a POST is repeated like a GET.
async fn assert_never_sent(name: &str, client: &Client, heard: &Heard, url: &str) {
    for method in [Method::GET, Method::POST] {
        let before = heard.attempts();
        let error = call(client.request(method, url)).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Connect, "{name}: {error:?}");
        assert_eq!(failed(&error), [failure(FailureKind::Connect); 4], "{name}: {error:?}");
        assert_eq!(heard.attempts() - before, 4, "{name}");
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_was_never_sent_on() {
    let heard = Heard::new();
    let client = builder(TimeoutPolicy::standard().connect(CONNECT), &heard).build().unwrap();
    assert_never_sent("refused", &client, &heard, &NobodyHome::new().url()).await;

    let (listener, _queued) = blackhole().await;
    let address = listener.local_addr().unwrap();
    assert_never_sent("blackhole", &client, &heard, &format!("http://{address}/")).await;
}

/// A listener whose queue is full, with what fills it: packets to it vanish.
async fn blackhole() -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let (address, mut queued) = (listener.local_addr().unwrap(), Vec::new());
    let connect = || tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address));
    while let Ok(connected) = within(SOON, connect()).await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue never fills");
    }
    (listener, queued)
}

/// The client's, 1 s, held for every host.
#[tokio::test]
async fn a_hosts_own_connect_timeout_is_that_of_its_connections() {
    let (listener, _queued) = blackhole().await;
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let policies = PolicySet::new(Policy::standard().retry(None))
        .host(url.as_str(), |policy| policy.timeout(TimeoutPolicy::standard().connect(CONNECT)));
    let client = Client::builder().policy(policies.clone()).build().unwrap();
    let error = call(client.get(url.as_str())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let took = error.report().unwrap().elapsed();
    assert!(took >= CONNECT && took < Duration::from_millis(900), "{took:?}");

    // reqwest has one for all hosts.
    let refused = resilient_client::Client::builder().policy(policies).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
}

/// The connector was told the endpoint's address, and knew of no host that has that.
#[tokio::test]
async fn a_hosts_own_connect_timeout_is_that_of_its_endpoints_connections() {
    use resilient_client::endpoints::Endpoints;

    let (listener, _queued) = blackhole().await;
    let policies = PolicySet::new(Policy::standard().retry(None))
        .host("http://users", |policy| policy.timeout(TimeoutPolicy::standard().connect(CONNECT)));
    let endpoints = Endpoints::fixed([format!("http://{}", listener.local_addr().unwrap())]);
    let client = Client::builder().policy(policies).endpoints("http://users", endpoints).build().unwrap();
    let error = call(client.get("http://users/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let took = error.report().unwrap().elapsed();
    assert!(took >= CONNECT && took < Duration::from_millis(900), "{took:?}");
}

#[tokio::test]
async fn a_fault_is_classified_as_over_reqwest() {
    use FailureKind::{Body as BadBody, BodyIdle, Timeout, Transport};
    let heard = Heard::new();
    let timeout = TimeoutPolicy::standard().attempt(SHORT).body_idle(SHORT);
    let client = builder(timeout, &heard).build().unwrap();
    let head = |head: &str| Reply::raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
    for (name, fault, kind, failure_kind, during_call) in [
        ("closed", Reply::nothing().then_close(), ErrorKind::Transport, Transport, true),
        ("reset", Reply::nothing().then_reset(), ErrorKind::Transport, Transport, true),
        ("garbage", Reply::raw("hello?\r\n\r\n").then_hang(), ErrorKind::Transport, Transport, true),
        ("silent", Reply::nothing().then_hang(), ErrorKind::Timeout, Timeout, true),
        ("truncated", head("content-length: 9").then("x").then_close(), ErrorKind::Body, BadBody, false),
        ("stalled", head("content-length: 9").then("x").then_hang(), ErrorKind::BodyIdle, BodyIdle, false),
    ] {
        let server = Server::start(move |_| fault.clone()).await;
        let error = call(client.post(server.url("/")).body("x")).await.expect_err(name);
        assert_eq!((error.kind(), server.count()), (kind, 1), "{name}: {error:?}");
        let heard = heard.of(&server.url(""));
        assert_eq!(heard.outcomes(), [failure(failure_kind)], "{name}");

        let error = call(client.get(server.url("/"))).await.expect_err(name);
        let attempts = if during_call { 4 } else { 1 };
        assert_eq!((error.kind(), server.count() - 1), (kind, attempts), "{name}: {error:?}");
        assert_eq!(heard.attempts() - 1, attempts, "{name}");
    }
}

#[tokio::test]
async fn a_body_that_fails_inside_the_call_is_fetched_again() {
    let server = Server::start(|request| match request.nth {
        1 => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").then_close(),
        2 => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").then_hang(),
        _ => Reply::answer(200, "the whole"),
    })
    .await;
    let client = builder(TimeoutPolicy::standard().attempt(SHORT), &Heard::new()).build().unwrap();
    assert_eq!(within(SOON, client.get(server.url("/")).fetch_text()).await.unwrap(), "the whole");
    assert_eq!(server.count(), 3);
}

/// How often the server read each order.
fn executed(server: &Server) -> HashMap<Bytes, usize> {
    let mut executed = HashMap::new();
    for request in server.requests().into_iter().filter(|request| request.method == "POST") {
        *executed.entry(request.body).or_default() += 1;
    }
    executed
}

/// A server that closes its keep-alive connections without a word, right after an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_between_requests_costs_no_get_and_doubles_no_post() {
    let server = Server::start(|_| Reply::answer(200, "done").then_close()).await;
    let heard = Heard::new();
    let client = Client::builder().observer(heard.clone()).build().unwrap();
    let mut running = JoinSet::new();
    for n in 0..600 {
        let get = call(client.get(server.url("/users")));
        let post = call(client.post(server.url("/orders")).body(format!("order {n}")));
        // Half of them one by one, half in twenties.
        if n < 300 {
            get.await.unwrap();
            let _ = post.await;
        } else {
            running.spawn(async { get.await.map(drop) });
            running.spawn(async { post.await.map_or(Ok(()), |_| Ok(())) });
            while running.len() >= 20 {
                running.join_next().await.unwrap().unwrap().unwrap();
            }
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap().unwrap();
    }
    let executed = executed(&server);
    assert!(executed.values().all(|times| *times == 1), "{executed:?}");
    assert!(executed.len() >= 300, "most of them did arrive: {}", executed.len());
    // What is written into a closed socket is never read; everything else is there, and nothing hidden.
    assert_eq!(server.seen().read(|seen| seen.answered), heard.ended_as(Outcome::Success));
    assert!(server.count() <= heard.attempts());
}

/// A connection that is found closed before the request on it was written. Over reqwest the pool repeats such a request
/// unseen; here that is an attempt, and repeated because it was never sent.
#[tokio::test]
async fn a_request_that_the_pool_hands_back_unwritten_is_an_attempt_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let ((close, closing), (closed, is_closed)) = (mpsc::channel(), mpsc::channel());
    let server = std::thread::spawn(move || {
        let first = answer_one(&listener);
        closing.recv().unwrap();
        drop(first);
        closed.send(()).unwrap();
        answer_one(&listener)
    });
    let heard = Heard::new();
    let client = client_of(&heard);
    call(client.get(&url)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;

    // This task and the connection's must be woken by the same look at the clock and the sockets: this one runs first,
    // and the other then finds the end of its connection and a request that it hasn't written.
    let mut timer = Box::pin(tokio::time::sleep(Duration::from_millis(1)));
    assert!(poll_fn(|cx| Poll::Ready(timer.as_mut().poll(cx))).await.is_pending());
    close.send(()).unwrap();
    is_closed.recv().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    timer.await;
    let (_, report) = call(client.post(&url)).await.unwrap();
    assert_eq!(outcomes(&report), [failure(FailureKind::Unsent), Outcome::Success]);
    assert_eq!(heard.attempts(), 3, "and two requests were read");
    drop(server.join().unwrap());
}

fn answer_one(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").unwrap();
    stream
}

/// Each try is an attempt, so the counts are exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_swallows_every_second_request_sees_exactly_the_attempts() {
    within(3 * SOON, async {
        let server = Server::start(|request| match request.nth_on_connection {
            1 => Reply::answer(200, "done"),
            _ => Reply::nothing().then_close(),
        })
        .await;
        let heard = Heard::new();
        let retry = RetryPolicy::standard().initial(Duration::from_millis(1)).max_attempts(10);
        let policy = Policy::standard().breaker(None).budget(None).retry(retry);
        let client = Client::builder().policy(policy).observer(heard.clone()).build().unwrap();
        for n in 0..200 {
            for _ in 0..2 {
                call(client.get(server.url("/"))).await.unwrap_or_else(|error| panic!("call {n}: {error:?}"));
            }
            // Nearly always swallowed, and not repeated.
            let _ = call(client.post(server.url("/")).body("x")).await;
        }
        assert_eq!(server.count(), heard.attempts());
        assert_eq!(server.requests().iter().filter(|request| request.method == "POST").count(), 200);
        assert!(heard.attempts() > 700, "some were swallowed");
    })
    .await;
}

fn http2(timeout: TimeoutPolicy, heard: &Heard) -> Client {
    builder(timeout, heard).http2_prior_knowledge().build().unwrap()
}

#[tokio::test]
async fn a_stream_that_was_refused_or_left_behind_is_sent_once_more_whatever_the_method() {
    for act in [Act::Reset(REFUSED_STREAM), Act::GoAway { last: 0, code: NO_ERROR }] {
        for method in [Method::GET, Method::POST] {
            let server =
                H2Server::start(move |request| if request.nth == 1 { act } else { Act::Answer("done") })
                    .await;
            let heard = Heard::new();
            let client = http2(TimeoutPolicy::standard(), &heard);
            let (text, report) = call(client.request(method, server.url("/")).body("x")).await.unwrap();
            assert_eq!(text, "done");
            assert_eq!(outcomes(&report), [failure(FailureKind::Refused), Outcome::Success], "{act:?}");
            assert_eq!((server.count(), heard.attempts()), (2, 2));
        }
    }
}

/// A connection that swallows requests. Over HTTP/2 the pool would send everything down it.
#[tokio::test]
async fn an_http2_connection_is_retired_after_two_timeouts() {
    let server = H2Server::start(|request| match request.connection {
        1 => Act::Nothing,
        _ => Act::Answer("done"),
    })
    .await;
    let heard = Heard::new();
    let client = http2(TimeoutPolicy::standard().attempt(SHORT), &heard);
    let (text, report) = call(client.get(server.url("/"))).await.unwrap();
    let timeout = failure(FailureKind::Timeout);
    assert_eq!((text.as_str(), outcomes(&report)), ("done", vec![timeout, timeout, Outcome::Success]));
    assert_eq!(connections(&server), [1, 1, 2]);
    call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(server.seen().read(|seen| seen.connections), 2, "the new one is kept");
}

/// The same where HTTP/2 was chosen by the server.
#[tokio::test]
async fn an_https_server_that_chooses_http2_gets_it_and_its_dead_connection_is_retired() {
    let tls = Tls::new();
    let script = |request: &h2_server::Request| match request.nth {
        2 => Act::Nothing,
        _ => Act::Answer("done"),
    };
    let server = H2Server::start_tls(script, tls.acceptor("h2")).await;
    let timeout = TimeoutPolicy::standard().attempt(SHORT);
    let client = builder(timeout, &Heard::new()).tls_config(tls.trusted()).build().unwrap();
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(response.remote_addr().is_some());
    assert_eq!(response.text().await.unwrap(), "done");
    let (_, report) = call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(report.attempts().len(), 2, "nothing at all had come since it set out");
    assert_eq!(connections(&server), [1, 1, 2]);
}

#[tokio::test]
async fn an_https_server_that_nobody_trusts_was_never_sent_to() {
    let tls = Tls::new();
    let server = H2Server::start_tls(|_| Act::Answer("done"), tls.acceptor("h2")).await;
    let heard = Heard::new();
    let error = call(client_of(&heard).get(server.url("/"))).await.unwrap_err();
    assert_eq!(failed(&error), [failure(FailureKind::Connect)], "its certificate would be the same again");
    assert_eq!((heard.attempts(), server.count()), (1, 0));
}

fn connections(server: &H2Server) -> Vec<usize> {
    server.seen().read(|seen| seen.requests.iter().map(|request| request.connection).collect())
}

/// The control: one timeout now and then is the request's fault, not the connection's, if others are answered meanwhile.
#[tokio::test]
async fn an_http2_connection_that_answers_others_is_kept() {
    let server = H2Server::start(|request| match &request.body[..] {
        b"hang" => Act::Nothing,
        _ => Act::Answer("done"),
    })
    .await;
    let policy = Policy::standard().timeout(TimeoutPolicy::standard().attempt(SHORT)).retry(None);
    let client = Client::builder().policy(policy).http2_prior_knowledge().build().unwrap();
    let (answered, url) = (client.clone(), server.url("/"));
    let others = tokio::spawn(async move {
        loop {
            call(answered.get(&url)).await.unwrap();
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    for _ in 0..4 {
        let error = call(client.put(server.url("/")).body("hang")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    others.abort();
    assert_eq!(server.seen().read(|seen| seen.connections), 1);
}

/// A call that its caller gives up says nothing about the connection.
#[tokio::test]
async fn an_http2_connection_survives_calls_that_were_dropped() {
    let server =
        H2Server::start(|request| if request.nth <= 3 { Act::Nothing } else { Act::Answer("done") }).await;
    let client = http2(TimeoutPolicy::standard(), &Heard::new());
    for n in 1..=3 {
        let dropped = client.get(server.url("/")).send();
        tokio::select! {
            _ = dropped => panic!("nobody answers"),
            () = within(SOON, server.seen().until(|seen| seen.requests.len() == n)) => {}
        }
    }
    call(client.get(server.url("/"))).await.unwrap();
    assert_eq!(server.seen().read(|seen| seen.connections), 1);
}

/// Over HTTP/1.1 the first timeout takes its connection along, and the next attempt has one of its own, which isn't kept.
#[tokio::test]
async fn an_http1_connection_is_retired_by_its_first_timeout() {
    let server = Server::start(|request| match (request.connection, request.nth_on_connection) {
        (1, 2) => Reply::nothing().then_hang(),
        _ => Reply::answer(200, "done"),
    })
    .await;
    let client = builder(TimeoutPolicy::standard().attempt(SHORT), &Heard::new()).build().unwrap();
    for attempts in [1, 2, 1] {
        let (_, report) = call(client.get(server.url("/"))).await.unwrap();
        assert_eq!(report.attempts().len(), attempts);
    }
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 2, 3]);
}

#[tokio::test]
async fn an_upgraded_connection_is_handed_over() {
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;

    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\nHELLO";
    let server = Server::start(move |_| Reply::raw(switch).then_hang()).await;
    let client = Client::builder().build().unwrap();
    let ask = client.get(server.url("/")).header("connection", "upgrade").header("upgrade", "shout");
    let response = within(SOON, ask.send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.report().is_streaming()), (101, true));
    let mut connection = TokioIo::new(within(SOON, response.upgrade()).await.unwrap());
    let mut greeting = [0; 5];
    within(SOON, connection.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"HELLO");

    server.now(|_| Reply::answer(200, "no"));
    let refused = within(SOON, client.get(server.url("/")).send()).await.unwrap().upgrade().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Transport);
}

/// Whoever stops waiting for a piece of the body may come back for it.
#[tokio::test]
async fn a_chunk_that_was_given_up_is_not_lost() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |_| {
        Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").then_wait(&hold).then("world")
    })
    .await;
    let heard = Heard::new();
    let client = client_of(&heard);
    let mut response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(within(SOON, response.chunk()).await.unwrap().unwrap(), "hello");
    tokio::time::timeout(Duration::from_millis(20), response.chunk()).await.unwrap_err();
    gate.open();
    assert_eq!(within(SOON, response.chunk()).await.unwrap().unwrap(), "world");
    assert_eq!(heard.outcomes(), [Outcome::Success], "its end is known without being asked for");
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_drain_waits_for_the_body_and_refuses_newcomers() {
    let server = Server::start(|_| Reply::answer(200, "done")).await;
    let client = Client::builder().build().unwrap();
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(client.drain(Duration::from_millis(20)).await, 1);
    assert_eq!(call(client.get(server.url("/"))).await.unwrap_err().kind(), ErrorKind::Draining);
    assert_eq!(response.text().await.unwrap(), "done");
    assert_eq!(client.drain(SOON).await, 0);
}

#[tokio::test]
async fn every_request_says_whom_it_is_for_and_what_its_author_says_instead() {
    let server = Server::start(|_| Reply::answer(200, "hello")).await;
    let client = Client::builder().build().unwrap();
    let get = || client.get(server.url("/"));
    for request in [get(), get(), get().header("host", "users.internal"), get().header("x-own", "1"), get()] {
        call(request).await.unwrap();
    }
    let address = server.address().to_string();
    let hosts: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.header("host").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(hosts, [&*address, &*address, "users.internal", &*address, &*address]);
}

/// One name, two servers, and a `Host` that says which of them was meant.
#[tokio::test]
async fn attempts_go_to_the_endpoints_of_a_name() {
    let (failing, working) = (
        Server::start(|_| Reply::answer(503, "no")).await,
        Server::start(|_| Reply::answer(200, "yes")).await,
    );
    let endpoints = resilient_client::Endpoints::fixed([failing.url(""), working.url("")]);
    let policy = Policy::standard().breaker(None);
    let client = Client::builder().policy(policy).endpoints("http://users", endpoints).build().unwrap();
    for _ in 0..20 {
        let (text, report) = call(client.get("http://users/a?x=1")).await.unwrap();
        assert_eq!((text.as_str(), report.upstream()), ("yes", "http://users"));
    }
    for server in [&failing, &working] {
        let address = server.address().to_string();
        let named =
            |request: &Request| request.header("host") == Some(&address) && request.target == "/a?x=1";
        assert!(server.count() > 0 && server.requests().iter().all(named), "{:?}", server.requests());
    }
    assert_eq!(working.count(), 20);
}
