//! The whole service over real sockets: `run`, the drain, and the binary's way out.

mod fake;

use std::{sync::Arc, time::Duration};

use fake::{ADA, FakeUsers, Says, config, order};
use order_service::{Config, run};
use service_kit::testing::TestDatabase;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

struct Running {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), order_service::Error>>,
    users: Arc<FakeUsers>,
    _database: TestDatabase,
}

async fn start(says: Says, adjust: impl FnOnce(&mut Config)) -> Running {
    let database = TestDatabase::new().await;
    let mut config = Config { lookup_limit_ms: 9_000, ..config(&database) };
    config.limits.lame_duck_ms = 0;
    adjust(&mut config);
    let users = FakeUsers::new(says);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move { drop(stopped.await) };
    let server = tokio::spawn(run(config, users.clone(), listener, shutdown));
    Running { address, stop, server, users, _database: database }
}

fn post_order(close: bool) -> String {
    let body = order(ADA).to_string();
    let connection = if close { "close" } else { "keep-alive" };
    format!(
        "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: {connection}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn send(address: std::net::SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_drain_lets_open_requests_finish_and_takes_no_new_ones() {
    let running = start(Says::Gated, |_| {}).await;
    let open = send(running.address, &post_order(false)).await;
    // An idle keep-alive connection must not hold the drain up.
    let _idle = TcpStream::connect(running.address).await.unwrap();
    running.users.begun.acquire().await.unwrap().forget();
    running.stop.send(()).unwrap();
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    running.users.gate.add_permits(1);
    let answer = timeout(Duration::from_secs(5), read_all(open)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    timeout(Duration::from_secs(5), running.server).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let running = start(Says::Exists, |_| {}).await;
    let twice = [post_order(false), post_order(true)].concat();
    let answers =
        timeout(Duration::from_secs(5), read_all(send(running.address, &twice).await)).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 201").count(), 2, "{answers}");
}

#[tokio::test]
async fn what_is_not_http_is_turned_away_without_harm() {
    let running = start(Says::Exists, |_| {}).await;
    let huge = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(1_000_000));
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", &huge] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        // Either side may hang up first.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("closed");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{garbage:.20}");
    }
    let fine = read_all(send(running.address, &post_order(true)).await).await;
    assert!(fine.starts_with("HTTP/1.1 201"), "{fine}");
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let running = start(Says::Hang, |config| config.limits.drain_timeout_ms = 50).await;
    let _open = send(running.address, &post_order(false)).await;
    while running.users.calls() == 0 {
        tokio::task::yield_now().await;
    }
    running.stop.send(()).unwrap();
    timeout(Duration::from_secs(5), running.server).await.expect("bounded").unwrap().unwrap();
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    let database = TestDatabase::new().await;
    for (adjust, names) in [
        ((|c| c.user_timeout_ms = 0) as fn(&mut Config), &["user-timeout-ms"][..]),
        (
            |c| (c.user_timeout_ms, c.lookup_limit_ms) = (200, 100),
            &["user-timeout-ms 200", "lookup-limit-ms 100"],
        ),
        (|c| c.lookup_limit_ms = 10_000, &["lookup-limit-ms 10000", "request-timeout-ms 10000"]),
        (|c| c.limits.database_connections = 0, &["database-connections"]),
        (|c| c.database_url = "oracle:x".into(), &["database-url"]),
    ] {
        let mut config = config(&database);
        adjust(&mut config);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let users = FakeUsers::new(Says::Exists);
        let error = run(config, users, listener, std::future::pending()).await.unwrap_err();
        assert!(error.is_config(), "{error:?}");
        for name in names {
            assert!(error.to_string().contains(name), "{error} should name {name}");
        }
    }
}

#[cfg(unix)]
#[test]
fn the_binary_says_where_it_listens_and_stops_on_sigterm() {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_order-service"))
        .args(["--port", "0", "--user-service-url", "http://127.0.0.1:1"])
        .env("DATABASE_URL", format!("sqlite://{}?mode=rwc", dir.path().join("orders.db").display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut announced = |what: &str| {
        let line = lines.next().unwrap();
        line.strip_prefix(&format!("order-service {what} on http://"))
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned()
    };
    let (probes, address) = (announced("answers probes"), announced("listens"));
    let mut stream = std::net::TcpStream::connect(&probes).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(&mut stream, post_order(true).as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "nothing listens on port 1: {answer}");

    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}
