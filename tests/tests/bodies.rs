//! Bodies, both ways: what is read whole is capped, what streams out is sent once, and a response
//! keeps its place, its guard and all it knows when it becomes reqwest's.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Version;
use http_body::Frame;
use http_body_util::StreamBody;
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Decline, Error, ErrorKind, Policy};
use resilient_client_tests::h2_server::{Act, H2Server};
use resilient_client_tests::server::{NobodyHome, Request};
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, everything_it_says, within};

const CAP: usize = 1000;
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// One place only, so that whoever holds it shows.
fn client(heard: &Heard, body_idle: Duration) -> Client {
    let policy = Policy::standard()
        .timeout(TimeoutPolicy::standard().body_idle(body_idle))
        .bulkhead(BulkheadPolicy::standard().max_in_flight(1));
    Client::builder().policy(policy).max_body(CAP).observer(heard.clone()).build().unwrap()
}

fn patient() -> Client {
    client(&Heard::new(), Duration::from_secs(5))
}

/// `body` in chunks of 100 bytes.
fn in_chunks(body: &[u8]) -> Reply {
    let mut reply = Reply::raw(CHUNKED);
    for chunk in body.chunks(100) {
        reply = reply.then(format!("{:x}\r\n", chunk.len())).then(chunk).then("\r\n");
    }
    reply.then("0\r\n\r\n")
}

#[derive(Clone, Copy, Debug)]
enum Reader {
    Bytes,
    Text,
    Json,
    FetchBytes,
    FetchText,
    FetchJson,
}

const READERS: [Reader; 6] =
    [Reader::Bytes, Reader::Text, Reader::Json, Reader::FetchBytes, Reader::FetchText, Reader::FetchJson];

/// How many bytes the reader got. The bodies here are JSON strings.
async fn read(client: &Client, reader: Reader, url: &str) -> Result<usize, Error> {
    let request = client.get(url);
    within(SOON, async {
        Ok(match reader {
            Reader::Bytes => request.send().await?.bytes().await?.len(),
            Reader::Text => request.send().await?.text().await?.len(),
            Reader::Json => request.send().await?.json::<String>().await?.len() + 2,
            Reader::FetchBytes => request.fetch_bytes().await?.len(),
            Reader::FetchText => request.fetch_text().await?.len(),
            Reader::FetchJson => request.fetch_json::<String>().await?.len() + 2,
        })
    })
    .await
}

fn json_string(length: usize) -> Vec<u8> {
    format!("\"{}\"", "x".repeat(length - 2)).into_bytes()
}

#[tokio::test]
async fn a_body_at_the_cap_is_read_and_one_byte_more_is_refused() {
    let server = Server::start(|request| {
        let length = if request.target.ends_with("fits") { CAP } else { CAP + 1 };
        let body = json_string(length);
        if request.target.starts_with("/chunked") { in_chunks(&body) } else { Reply::answer(200, body) }
    })
    .await;
    let client = patient();
    for framing in ["/length", "/chunked"] {
        for reader in READERS {
            let (fits, over) =
                (server.url(&format!("{framing}/fits")), server.url(&format!("{framing}/over")));
            assert_eq!(read(&client, reader, &fits).await.unwrap(), CAP, "{framing} {reader:?}");
            let before = server.count();
            let error = read(&client, reader, &over).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BodyTooLarge, "{framing} {reader:?}: {error:?}");
            assert!(error.is_body());
            assert_eq!(server.count() - before, 1, "asking again would bring the same");
        }
    }
}

/// Without a cap these would fill the memory, or the time until the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_end_is_cut_at_the_cap_and_its_connection_closed() {
    let server = Server::start(|request| {
        let filler = "x".repeat(4096);
        if request.target == "/chunked" {
            Reply::raw(CHUNKED).then_repeat(format!("1000\r\n{filler}\r\n"))
        } else {
            Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9000000000000000000\r\n\r\n").then_repeat(filler)
        }
    })
    .await;
    let client = patient();
    for path in ["/chunked", "/length"] {
        for reader in READERS {
            let error = read(&client, reader, &server.url(path)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BodyTooLarge, "{path} {reader:?}: {error:?}");
        }
    }
    within(SOON, server.seen().until(|seen| seen.closed == seen.connections)).await;
}

#[tokio::test]
async fn piece_by_piece_a_body_has_no_cap() {
    let server = Server::start(|_| Reply::answer(200, "x".repeat(100 * CAP))).await;
    let mut response = within(SOON, patient().get(server.url("/")).send()).await.unwrap();
    let mut length = 0;
    while let Some(chunk) = within(SOON, response.chunk()).await.unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, 100 * CAP);
}

/// Gone through an iterator: nobody can send it a second time.
fn stream_of(pieces: &'static [&'static str]) -> reqwest::Body {
    let frames = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(*piece))));
    reqwest::Body::wrap(StreamBody::new(stream::iter(frames)))
}

#[tokio::test]
async fn a_stream_is_sent_once_and_the_report_says_why() {
    let server = Server::start(|_| Reply::answer(503, "not now")).await;
    let client = patient();
    // Neither a key nor an idempotent method helps: the bytes are gone.
    for method in [http::Method::POST, http::Method::PUT] {
        let before = server.count();
        let request = client.request(method, server.url("/")).idempotency_key("k").body(stream_of(&[
            "one ",
            "order, ",
            "in pieces",
        ]));
        let response = within(SOON, request.send()).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.report().declined(), [Decline::BodyIsStream]);
        assert!(response.report().to_string().contains("not retried: body is a stream"));
        assert_eq!(response.text().await.unwrap(), "not now");
        let requests = server.requests();
        assert_eq!(requests.len() - before, 1);
        assert_eq!(requests.last().unwrap().body, "one order, in pieces");
    }
}

#[tokio::test]
async fn a_stream_to_nobody_is_an_error_that_says_it_was_not_retried() {
    let request = patient().put(NobodyHome::new().url()).body(stream_of(&["x"]));
    let error = within(SOON, request.send()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(error.report().unwrap().declined(), [Decline::BodyIsStream]);
}

#[tokio::test]
async fn a_stream_that_fails_half_way_is_an_error_and_never_a_short_success() {
    let server = Server::start(|_| Reply::answer(201, "created")).await;
    let h2 = H2Server::start(|_| Act::Answer("created")).await;
    let over_h2 = |transport: reqwest::ClientBuilder| transport.http2_prior_knowledge();
    for (url, h2) in [(server.url("/"), false), (h2.url("/"), true)] {
        let heard = Heard::new();
        let mut client = Client::builder().observer(heard.clone());
        if h2 {
            client = client.transport(over_h2);
        }
        let pieces =
            [Ok(Frame::data(Bytes::from("half of "))), Err(std::io::Error::other("the disk is gone"))];
        let body = reqwest::Body::wrap(StreamBody::new(stream::iter(pieces)));
        let sent = client.build().unwrap().post(url).body(body).send();
        let error = within(SOON, sent).await.unwrap_err();
        // It is the caller's own failure: the breaker was told it was the server's.
        assert_eq!(
            (error.kind(), heard.outcomes()),
            (ErrorKind::Request, vec![Outcome::Ignored]),
            "{error:?}"
        );
        if !h2 {
            assert!(everything_it_says(&error).contains("the disk is gone"), "{error:?}");
        }
    }
    assert_eq!(server.count(), 0, "a cut-off request is never taken for a whole one");
}

#[tokio::test]
async fn a_body_of_bytes_arrives_whole_at_every_attempt() {
    let server = Server::start(|request| match request.nth {
        1..4 => Reply::answer(503, ""),
        _ => Reply::answer(201, "created"),
    })
    .await;
    let order = "an order ".repeat(10_000);
    let request = patient().post(server.url("/")).idempotency_key("k").body(order.clone());
    assert_eq!(within(SOON, request.send()).await.unwrap().status(), 201);
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    let whole = |request: &Request| request.body == order && request.header("idempotency-key") == Some("k");
    assert!(requests.iter().all(whole));
}

#[derive(Clone, Debug, PartialEq)]
struct Mark(u32);

#[tokio::test]
async fn turned_into_reqwests_response_nothing_is_lost() {
    let server = Server::start(|request| match request.target.as_str() {
        "/first" => Reply::answer_with(302, &[("location", "/second?page=2")], ""),
        _ => Reply::answer_with(200, &[("x-tag", "kept")], "body"),
    })
    .await;
    let mut response = within(SOON, patient().get(server.url("/first")).send()).await.unwrap();
    response.extensions_mut().insert(Mark(7));
    let (url, address) = (response.url().clone(), response.remote_addr());
    assert_eq!(url.as_str(), server.url("/second?page=2"));
    assert_eq!(address, Some(server.address()));

    let theirs = reqwest::Response::from(response);
    assert_eq!((theirs.url(), theirs.remote_addr()), (&url, address));
    assert_eq!((theirs.status().as_u16(), theirs.version()), (200, Version::HTTP_11));
    assert_eq!(theirs.headers()["x-tag"], "kept");
    assert_eq!(theirs.content_length(), Some(4));
    assert_eq!(theirs.extensions().get::<Mark>(), Some(&Mark(7)));
    assert_eq!(within(SOON, theirs.text()).await.unwrap(), "body");
}

/// A response that was set aside for a retry and then returned after all is no worse off.
#[tokio::test]
async fn a_response_returned_after_its_retries_failed_keeps_as_much() {
    let server = Server::start(|request| match request.nth {
        1 => Reply::answer(503, "not now"),
        _ => Reply::nothing().then_close(),
    })
    .await;
    let response = within(SOON, patient().get(server.url("/x?y=z")).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.report().attempts().len()), (503, 4));
    let theirs = reqwest::Response::from(response);
    assert_eq!(theirs.url().as_str(), server.url("/x?y=z"));
    assert_eq!((theirs.remote_addr(), theirs.version()), (Some(server.address()), Version::HTTP_11));
    assert_eq!(within(SOON, theirs.text()).await.unwrap(), "not now");
}

#[tokio::test]
async fn turned_into_reqwests_response_the_version_is_what_it_was() {
    let server = H2Server::start(|_| Act::Answer("two")).await;
    let client = Client::builder().transport(reqwest::ClientBuilder::http2_prior_knowledge).build().unwrap();
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let theirs = reqwest::Response::from(response);
    assert_eq!(theirs.version(), Version::HTTP_2);
    assert_eq!(within(SOON, theirs.text()).await.unwrap(), "two");
}

#[tokio::test]
async fn a_response_holds_its_place_until_its_body_is_read_whoever_reads_it() {
    for converted in [false, true] {
        let gate = Gate::new();
        let hold = gate.clone();
        let server = Server::start(move |request| match request.target.as_str() {
            "/slow" => {
                Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").then_wait(&hold).then("llo")
            }
            _ => Reply::answer(200, "quick"),
        })
        .await;
        let client = patient();
        let quick = || client.get(server.url("/quick")).send();
        let mut slow = Some(within(SOON, client.get(server.url("/slow")).send()).await.unwrap());
        let theirs = converted.then(|| reqwest::Response::from(slow.take().unwrap()));

        let refused = within(SOON, quick()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BulkheadFull, "converted: {converted}");
        gate.open();
        let text = match (slow, theirs) {
            (Some(ours), _) => within(SOON, ours.text()).await.unwrap(),
            (None, theirs) => within(SOON, theirs.unwrap().text()).await.unwrap(),
        };
        assert_eq!(text, "hello");
        assert_eq!(within(SOON, quick()).await.unwrap().text().await.unwrap(), "quick");
    }
}

#[tokio::test]
async fn a_response_dropped_unread_gives_its_place_back() {
    let server =
        Server::start(|_| Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").then_hang()).await;
    let client = patient();
    for converted in [false, true] {
        let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
        if converted {
            drop(reqwest::Response::from(response));
        } else {
            drop(response);
        }
    }
    assert!(within(SOON, client.get(server.url("/")).send()).await.is_ok());
}

#[tokio::test]
async fn a_stall_inside_reqwests_response_is_our_error_underneath_theirs() {
    let server = Server::start(|request| match request.target.as_str() {
        "/stall" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").then_hang(),
        _ => Reply::answer(200, "quick"),
    })
    .await;
    let heard = Heard::new();
    let client = client(&heard, Duration::from_millis(150));
    let response = within(SOON, client.get(server.url("/stall")).send()).await.unwrap();
    let error = within(SOON, reqwest::Response::from(response).bytes()).await.unwrap_err();
    let mut link = error.source();
    let ours = loop {
        let this = link.unwrap_or_else(|| panic!("none of ours in {error:?}"));
        if let Some(ours) = this.downcast_ref::<Error>() {
            break ours;
        }
        link = this.source();
    };
    assert_eq!(ours.kind(), ErrorKind::BodyIdle);
    assert_eq!(ours.report().unwrap().attempts().len(), 1);
    assert_eq!(heard.outcomes(), [Outcome::Failure(FailureKind::BodyIdle)]);
    assert!(within(SOON, client.get(server.url("/quick")).send()).await.is_ok(), "its place is free");
}
