//! The API and the toxics over real sockets, as a client of Toxiproxy meets them.

mod api;
mod clients;
mod toxics;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fault_proxy::{Proxies, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// More than anything here takes.
const SOON: Duration = Duration::from_secs(20);

#[allow(clippy::disallowed_methods, reason = "stories over real sockets run on the real clock")]
fn now() -> Instant {
    Instant::now()
}

/// The API, served until the test is over.
struct Api {
    url: String,
    client: reqwest::Client,
}

impl Api {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, Proxies::new()));
        Self { url, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    /// The status and the JSON, if there is any.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let response = tokio::time::timeout(SOON, request.send()).await.unwrap().unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A proxy before an upstream that sends back what it gets; where it listens.
    async fn proxy(&self, name: &str) -> SocketAddr {
        self.proxy_at(name, "127.0.0.1:0").await
    }

    /// The same at an address that no other test has, so that nobody takes its port when it is
    /// free.
    async fn proxy_at(&self, name: &str, listen: &str) -> SocketAddr {
        let upstream = echo().await;
        let body = json!({ "name": name, "upstream": upstream.to_string(), "listen": listen });
        let (status, proxy) = self.ask("POST", "/proxies", Some(body)).await;
        assert_eq!(status, 201, "{proxy}");
        proxy["listen"].as_str().unwrap().parse().unwrap()
    }

    async fn add(&self, proxy: &str, toxic: Value) -> Value {
        let (status, toxic) = self.ask("POST", &format!("/proxies/{proxy}/toxics"), Some(toxic)).await;
        assert_eq!(status, 200, "{toxic}");
        toxic
    }
}

/// Sends back what it gets, until that ends.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

/// Sends this and reads as much back; how long that took.
async fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Duration> {
    let begun = now();
    let mut back = vec![0; bytes.len()];
    let trip = async {
        let (mut from, mut to) = stream.split();
        tokio::try_join!(to.write_all(bytes), from.read_exact(&mut back))
    };
    tokio::time::timeout(SOON, trip).await.expect("it comes to an end")?;
    assert_eq!(back, bytes);
    Ok(begun.elapsed())
}
