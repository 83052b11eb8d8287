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

/// The binary, told by environment and flags; `f` gets its lines of stdout as they come.
#[cfg(unix)]
struct Binary {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    log: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

#[cfg(unix)]
impl Binary {
    /// With a database of its own unless `database_url` names another.
    fn start(database_url: Option<&str>) -> Self {
        Self::start_with(database_url, &[])
    }

    fn start_with(database_url: Option<&str>, environment: &[(&str, &str)]) -> Self {
        use std::{
            io::{BufRead as _, BufReader},
            process::{Command, Stdio},
        };
        let dir = tempfile::tempdir().unwrap();
        let own = format!("sqlite://{}?mode=rwc", dir.path().join("orders.db").display());
        let log = dir.path().join("log");
        let mut child = Command::new("sh")
            // Bounds what a file may grow to, if asked for; a write beyond fails rather than kills.
            .args(["-c", "trap '' XFSZ; [ -z \"$BLOCKS\" ] || ulimit -f $BLOCKS; exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_order-service"))
            .args(["--port", "0", "--user-service-url", "http://127.0.0.1:1", "--lame-duck-ms", "0"])
            .env("DATABASE_URL", database_url.unwrap_or(&own))
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, log, _dir: dir }
    }

    /// The address in the next line, which announces `what`; `None` if stdout has ended.
    fn announced(&mut self, what: &str) -> Option<String> {
        let line = self.lines.next()?.unwrap();
        let address = line.strip_prefix(&format!("order-service {what} on http://"));
        Some(address.unwrap_or_else(|| panic!("{line}")).to_owned())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn told_to_stop(&mut self) -> std::process::ExitStatus {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

#[cfg(unix)]
impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[cfg(unix)]
fn exchange(address: &str, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    answer
}

#[cfg(unix)]
fn probe(address: &str, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
}

#[cfg(unix)]
#[test]
fn the_binary_says_where_it_listens_and_stops_on_sigterm() {
    let mut binary = Binary::start(None);
    let probes = binary.announced("answers probes").unwrap();
    let address = binary.announced("listens").unwrap();
    assert!(probe(&probes, "/readyz").starts_with("HTTP/1.1 200"));
    let answer = exchange(&address, &post_order(true));
    assert!(answer.starts_with("HTTP/1.1 202"), "nothing listens on port 1: {answer}");
    // A file is no terminal.
    let log = binary.log();
    assert!(log.contains("listening") && !log.contains('\x1b'), "{log:?}");
    assert!(binary.told_to_stop().success());
}

#[test]
fn help_fits_80_columns() {
    let help =
        std::process::Command::new(env!("CARGO_BIN_EXE_order-service")).arg("--help").output().unwrap();
    for line in String::from_utf8(help.stdout).unwrap().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn help_and_a_refusal_repeat_no_secret_of_the_environment() {
    let own = &[("USER_SERVICE_URL", "http://u:s3cret@h"), ("ADMIN_TOKEN", "s3cret-admin")];
    service_kit::testing::assert_repeats_no_secret(env!("CARGO_BIN_EXE_order-service"), own);
}

#[cfg(unix)]
#[test]
fn a_binary_without_its_database_is_alive_not_ready_says_why_and_stops_at_once() {
    // A server that takes connections and says nothing: the hardest to hear anything beside.
    let database = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = database.local_addr().unwrap();
    let mut binary = Binary::start(Some(&format!("postgres://u:secret@{address}/orders")));
    let probes = binary.announced("answers probes").unwrap();
    assert!(probe(&probes, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(probe(&probes, "/readyz").starts_with("HTTP/1.1 503"));
    let said = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(20));
        binary.log()
    })
    .take(500)
    .find(|log| log.contains("no answer"))
    .expect("the cause");
    assert!(said.contains(&address.to_string()) && !said.contains("secret"), "{said}");

    let told = std::thread::spawn(move || (binary.told_to_stop(), binary.announced("listens")));
    let stopped = std::iter::repeat_with(|| std::thread::sleep(Duration::from_millis(10)));
    assert!(stopped.take(100).any(|()| told.is_finished()), "within a second");
    let (status, listened) = told.join().unwrap();
    assert_eq!((status.success(), listened), (true, None));
}

/// A limit on the size of files stands for the end of the disk.
#[cfg(unix)]
#[test]
fn a_full_disk_is_503_and_not_ready_while_reads_go_on() {
    // 1 or 2 MB, by what the shell takes for a block.
    let mut binary = Binary::start_with(None, &[("BLOCKS", "2000"), ("RUST_LOG", "error")]);
    let probes = binary.announced("answers probes").unwrap();
    let address = binary.announced("listens").unwrap();
    assert!(probe(&probes, "/readyz").starts_with("HTTP/1.1 200"));
    let refused = std::iter::repeat_with(|| exchange(&address, &post_order(true)))
        .take(2000)
        .find(|answer| !answer.starts_with("HTTP/1.1 202"))
        .expect("the disk is full some time");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 5"), "{refused}");
    assert!(refused.contains("urn:problem:storage"), "{refused}");
    let ready = probe(&probes, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("store"), "{ready}");
    assert!(probe(&address, "/orders").starts_with("HTTP/1.1 200"));
    assert!(binary.told_to_stop().success());
}
