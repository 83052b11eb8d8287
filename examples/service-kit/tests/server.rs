//! The server's bounds and its end, over real sockets.

use std::{future::ready, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use futures_util::stream::{StreamExt as _, once, pending};
use service_kit::{
    error::Error,
    health::Health,
    limits::Limits,
    server::{Background, Serving, serve},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(5);

struct Running {
    address: SocketAddr,
    health: Health,
    /// One permit for each request to `/gated` that may be answered, and one for each that has
    /// begun.
    gate: Arc<Semaphore>,
    begun: Arc<Semaphore>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), Error>>,
}

async fn start(adjust: impl FnOnce(&mut Limits)) -> Running {
    let mut limits = Limits::default();
    adjust(&mut limits);
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gated = {
        let (gate, begun) = (gate.clone(), begun.clone());
        async move || {
            begun.add_permits(1);
            gate.acquire().await.unwrap().forget();
            "gated"
        }
    };
    let stream = || Body::from_stream(once(ready(Ok::<_, Error>("an event"))).chain(pending()));
    let gated_stream = {
        let gated = gated.clone();
        async move || {
            gated().await;
            stream()
        }
    };
    let health = Health::default();
    let router = Router::new()
        .route("/", get(async || "fine"))
        .route("/gated", get(gated))
        .route("/stream", get(async move || stream()))
        .route("/gated-stream", get(gated_stream))
        .route("/huge", get(async || Bytes::from(vec![b'x'; 64 << 20])))
        .merge(health.routes());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = Serving { background: Background::default(), health: health.clone(), limits };
    let server = tokio::spawn(serve(router, listener, async { drop(stopped.await) }, serving));
    Running { address, health, gate, begun, stop, server }
}

async fn send(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, path).await;
    stream
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// One answer, head and body.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let whole = async {
        loop {
            let said = String::from_utf8_lossy(&text).to_ascii_lowercase();
            if let Some((head, body)) = said.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
                if body.len() >= length.parse().unwrap() {
                    return said;
                }
            }
            let mut some = [0; 4096];
            let read = stream.read(&mut some).await.unwrap();
            assert_ne!(read, 0, "the connection ended within an answer: {said}");
            text.extend_from_slice(&some[..read]);
        }
    };
    timeout(SOON, whole).await.expect("an answer")
}

async fn get_fine(address: SocketAddr) {
    assert!(answer(&mut send(address, "/").await).await.ends_with("fine"));
}

/// Whether the other side ends the connection, and how long that takes at most.
async fn assert_ends(stream: &mut TcpStream) {
    // However it ends; what was sent before is not of interest.
    let rest = async { while matches!(stream.read(&mut vec![0; 65536]).await, Ok(1..)) {} };
    timeout(SOON, rest).await.expect("the connection ends");
}

#[tokio::test]
async fn connections_without_a_request_silence_nobody() {
    let running = start(|limits| limits.max_connections_per_peer = 8).await;
    let mut silent = Vec::new();
    for half_a_request in ["", "GET / HT", "GET / HTTP/1.1\r\nx: y\r\n"] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            // Earlier ones may have been closed to make room.
            let _ = stream.write_all(half_a_request.as_bytes()).await;
            silent.push(stream);
        }
        get_fine(running.address).await;
    }
    assert_ends(&mut silent[0]).await;
}

#[tokio::test]
async fn connections_that_do_not_read_their_answers_end() {
    let running = start(|limits| {
        limits.max_connections_per_peer = 4;
        limits.write_timeout_ms = 100;
    })
    .await;
    let mut deaf = Vec::new();
    for _ in 0..4 {
        deaf.push(send(running.address, "/huge").await);
    }
    get_fine(running.address).await;
    for stream in &mut deaf {
        let rest = async {
            let mut got = 0;
            sleep(Duration::from_millis(200)).await;
            while let Ok(some @ 1..) = stream.read(&mut vec![0; 1 << 20]).await {
                got += some;
            }
            got
        };
        let got = timeout(SOON, rest).await.expect("the connection ends");
        assert!(got < 64 << 20, "{got} bytes");
    }
}

/// As many streams as there may be connections, and nobody else was answered as long as they
/// lasted.
#[tokio::test]
async fn streams_silence_nobody() {
    for (all, of_one) in [(4, 4), (4, 8), (8, 4)] {
        let running =
            start(|limits| (limits.max_connections, limits.max_connections_per_peer) = (all, of_one)).await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut stream = send(running.address, "/stream").await;
            let mut said = String::new();
            while !said.contains("an event") {
                let mut some = [0; 4096];
                let read = timeout(SOON, stream.read(&mut some)).await.expect("an answer").unwrap();
                said.push_str(&String::from_utf8_lossy(&some[..read]));
            }
            streams.push(stream);
        }
        get_fine(running.address).await;
        let mut rest = String::new();
        timeout(SOON, streams[0].read_to_string(&mut rest)).await.expect("it ends").unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "as a whole answer does: {rest:?}");
        let others = timeout(Duration::from_millis(50), streams[3].read_u8()).await;
        assert!(others.is_err(), "one is enough: {others:?}");
    }
}

#[tokio::test]
async fn a_newcomer_who_waits_is_answered_when_an_answer_turns_out_to_be_a_stream() {
    let running = start(|limits| limits.max_connections = 1).await;
    let _first = send(running.address, "/gated-stream").await;
    running.begun.acquire().await.unwrap().forget();
    let mut second = send(running.address, "/").await;
    running.gate.add_permits(1);
    assert!(answer(&mut second).await.ends_with("fine"));
}

#[tokio::test]
async fn an_idle_connection_and_half_a_head_have_times_of_their_own() {
    let running = start(|limits| (limits.idle_timeout_ms, limits.head_timeout_ms) = (60_000, 50)).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(b"GET / HT").await.unwrap();
    assert_ends(&mut half).await;
    ask(&mut idle, "/").await;
    assert!(answer(&mut idle).await.ends_with("fine"));

    let running = start(|limits| limits.idle_timeout_ms = 50).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    assert_ends(&mut idle).await;
}

#[tokio::test]
async fn one_peer_cannot_be_answered_on_more_connections_than_its_share() {
    let running = start(|limits| limits.max_connections_per_peer = 2).await;
    let mut answered = [send(running.address, "/gated").await, send(running.address, "/gated").await];
    running.begun.acquire_many(2).await.unwrap().forget();
    let mut refused = TcpStream::connect(running.address).await.unwrap();
    assert_ends(&mut refused).await;
    running.gate.add_permits(2);
    for stream in &mut answered {
        assert!(answer(stream).await.ends_with("gated"));
    }
    get_fine(running.address).await;
}

#[tokio::test]
async fn at_the_cap_of_all_newcomers_wait_for_an_answer_to_end() {
    let running = start(|limits| limits.max_connections = 1).await;
    let mut first = send(running.address, "/gated").await;
    running.begun.acquire().await.unwrap().forget();
    let mut second = send(running.address, "/").await;
    running.gate.add_permits(1);
    assert!(answer(&mut first).await.ends_with("gated"));
    assert!(answer(&mut second).await.ends_with("fine"));
}

#[tokio::test]
async fn health_is_answered_at_a_listener_of_its_own_while_the_service_is_full() {
    let running = start(|limits| (limits.max_connections, limits.max_connections_per_peer) = (1, 1)).await;
    let _busy = send(running.address, "/gated").await;
    running.begun.acquire().await.unwrap().forget();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let probed = listener.local_addr().unwrap();
    tokio::spawn(running.health.clone().serve(listener));
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(probed).await.unwrap());
    }
    assert!(answer(&mut send(probed, "/healthz").await).await.contains("alive"));
    // No database has been opened in this test.
    let starting = answer(&mut send(probed, "/readyz").await).await;
    assert!(starting.starts_with("http/1.1 503") && starting.contains("starting"), "{starting}");
}

#[tokio::test]
async fn a_request_that_was_sent_but_not_read_when_the_end_came_is_answered() {
    // No lame-duck time at all: the end comes at once.
    for _ in 0..20 {
        let running = start(|limits| limits.lame_duck_ms = 0).await;
        let mut kept_alive = send(running.address, "/").await;
        assert!(!answer(&mut kept_alive).await.contains("connection: close"));
        let mut fresh = TcpStream::connect(running.address).await.unwrap();
        get_fine(running.address).await;
        // On one thread the server can't have read them before it is told to stop.
        for stream in [&mut kept_alive, &mut fresh] {
            let sent = stream.try_write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            assert_eq!(sent, 27);
        }
        running.stop.send(()).unwrap();
        for mut stream in [kept_alive, fresh] {
            let said = answer(&mut stream).await;
            assert!(said.contains("connection: close") && said.ends_with("fine"), "{said}");
            assert_ends(&mut stream).await;
        }
        timeout(SOON, running.server).await.expect("drained").unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_lame_duck_is_not_ready_but_serves_and_ends_each_connection_with_its_answer() {
    let running = start(|limits| limits.lame_duck_ms = 60_000).await;
    let mut kept_alive = send(running.address, "/").await;
    answer(&mut kept_alive).await;
    running.stop.send(()).unwrap();
    let not_ready = loop {
        let said = answer(&mut send(running.address, "/readyz").await).await;
        if said.contains("shutting down") {
            break said;
        }
        tokio::task::yield_now().await;
    };
    assert!(not_ready.starts_with("http/1.1 503"), "{not_ready}");
    // One that was there before, and a newcomer.
    ask(&mut kept_alive, "/").await;
    for mut stream in [kept_alive, send(running.address, "/").await] {
        let said = answer(&mut stream).await;
        assert!(said.contains("connection: close") && said.ends_with("fine"), "{said}");
        assert_ends(&mut stream).await;
    }
    assert!(answer(&mut send(running.address, "/healthz").await).await.contains("alive"));
    running.server.abort();
}

#[tokio::test]
async fn half_a_request_at_the_end_may_be_finished() {
    let running = start(|limits| limits.lame_duck_ms = 0).await;
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    get_fine(running.address).await;
    running.stop.send(()).unwrap();
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    half.write_all(b"host: x\r\n\r\n").await.unwrap();
    let said = answer(&mut half).await;
    assert!(said.contains("connection: close") && said.ends_with("fine"), "{said}");
    timeout(SOON, running.server).await.expect("drained").unwrap().unwrap();
}
