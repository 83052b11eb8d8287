//! A trivial HTTP server in a process of its own: the bench binary, started once more.
//!
//! Its work must not show in the client's CPU time, allocations or instructions. It lives as long
//! as its standard input is open, so it goes with whoever started it, even if that is killed.

use std::convert::Infallible;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const ROLE: &str = "RESILIENT_CLIENT_BENCH_SERVER";

/// The server's process. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts it. `main` must call [`serve_if_asked`] before anything else.
    pub fn start() -> Self {
        let mut child = Command::new(env::current_exe().expect("own path"))
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("server process");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut address).expect("server's address");
        Self { child, url: format!("http://{}/users/7", address.trim()) }
    }

    /// What to get.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// In the process that [`Server::start`] made: serves until standard input closes, and returns
/// true.
pub fn serve_if_asked() -> bool {
    if env::var_os(ROLE).is_none() {
        return false;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    std::thread::spawn(move || runtime.block_on(serve()));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    true
}

async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    println!("{}", listener.local_addr().expect("address"));
    std::io::stdout().flush().expect("stdout");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let answer = service_fn(async |_request| {
            let body = Full::new(Bytes::from_static(br#"{"id":7,"name":"Ada"}"#));
            Ok::<_, Infallible>(http::Response::new(body))
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
        );
    }
}
