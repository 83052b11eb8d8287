//! Responses without an end in sight: server-sent events and upgrades outlive the call's total.

use std::time::{Duration, Instant};

use bytes::Bytes;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Error, ErrorKind, Policy};
use resilient_client_tests::server::Request;
use resilient_client_tests::{Gate, Reply, Server, clock, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(20);

fn impatient() -> Client {
    let ms = Duration::from_millis;
    let timeout = TimeoutPolicy::standard().total(ms(300)).attempt(ms(300)).stream_idle(ms(900));
    Client::builder().policy(Policy::standard().timeout(timeout)).build().unwrap()
}

fn events(kind: &'static str, gate: &Gate) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let gate = gate.clone();
    move |_| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\ndata: 1\n\n");
        Reply::raw(head).then_wait(&gate).then("data: 2\n\n").then_close()
    }
}

#[tokio::test]
async fn a_stream_of_events_outlives_the_total_and_any_other_body_does_not() {
    within(LIMIT, async {
        for (kind, outlives) in [("text/event-stream; charset=utf-8", true), ("text/plain", false)] {
            let gate = Gate::new();
            let server = Server::start(events(kind, &gate)).await;
            let mut response = impatient().get(server.url("/")).send().await.unwrap();
            assert_eq!(response.report().is_streaming(), outlives);
            assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 1\n\n");
            if outlives {
                // Past the total of 300 ms, within the idle timeout of 900 ms.
                tokio::time::sleep(Duration::from_millis(400)).await;
                gate.open();
                assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 2\n\n");
            } else {
                assert_eq!(response.chunk().await.unwrap_err().kind(), ErrorKind::Deadline);
            }
        }
    })
    .await;
}

/// Reads slowly, as long as there are pieces.
async fn ends_with_the_total(begun: Instant, mut piece: impl AsyncFnMut() -> Result<Option<Bytes>, Error>) {
    let error = loop {
        match piece().await {
            Ok(piece) => assert!(piece.is_some(), "it has no end"),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(error.kind(), ErrorKind::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// A slow reader was still reading at 3 s: whether there was time left was asked only when there
/// was nothing to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_always_ready_ends_with_the_total_over_both_transports() {
    within(LIMIT, async {
        let body = format!("1000\r\n{}\r\n", "a".repeat(0x1000));
        let server = Server::start(move |_| {
            Reply::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").then_repeat(&body)
        })
        .await;
        let total =
            TimeoutPolicy::standard().total(Duration::from_millis(300)).attempt(Duration::from_millis(300));
        let policy = Policy::standard().timeout(total);
        let reqwest = Client::builder().policy(policy.clone()).build().unwrap();
        let hyper = resilient_client::hyper::Client::builder().policy(policy).build().unwrap();

        let begun = clock::now();
        let mut response = reqwest.get(server.url("/")).send().await.unwrap();
        ends_with_the_total(begun, async || response.chunk().await).await;

        let begun = clock::now();
        let mut response = hyper.get(server.url("/")).send().await.unwrap();
        ends_with_the_total(begun, async || response.chunk().await).await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_events_that_falls_silent_is_given_up_after_the_idle_timeout() {
    within(LIMIT, async {
        let server = Server::start(events("text/event-stream", &Gate::new())).await;
        let mut response = impatient().get(server.url("/")).send().await.unwrap();
        response.chunk().await.unwrap();
        assert_eq!(response.chunk().await.unwrap_err().kind(), ErrorKind::BodyIdle);
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_is_handed_over() {
    within(LIMIT, async {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\nHELLO";
        let server = Server::start(move |_| Reply::raw(switch).then_hang()).await;
        let client = impatient();
        let ask = client.get(server.url("/")).header("connection", "upgrade").header("upgrade", "shout");
        let response = ask.send().await.unwrap();
        assert_eq!(response.status(), 101);
        assert!(response.report().is_streaming());
        let mut connection = response.upgrade().await.unwrap();
        let mut greeting = [0; 5];
        connection.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"HELLO");
        connection.write_all(b"hello?").await.unwrap();

        let plain = Server::start(|_| Reply::answer(200, "no")).await;
        let refused = client.get(plain.url("/")).send().await.unwrap().upgrade().await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Transport);
    })
    .await;
}
