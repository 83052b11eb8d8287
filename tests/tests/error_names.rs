//! An error's `is_*` methods, beside reqwest's on the same failures: the same name has the same
//! meaning, and where it hasn't, the row says so and docs/swap.md with it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use resilient_client::{Client, Policy, Redirects};
use resilient_client_tests::server::{Accept, NobodyHome};
use resilient_client_tests::{Reply, SOON, Server, within};

const TIME: Duration = Duration::from_millis(300);

/// What an error says it is.
macro_rules! names {
    ($error:expr) => {{
        let error = $error;
        let all = [
            ("request", error.is_request()),
            ("connect", error.is_connect()),
            ("timeout", error.is_timeout()),
            ("decode", error.is_decode()),
            ("status", error.is_status()),
            ("builder", error.is_builder()),
            ("redirect", error.is_redirect()),
            ("upgrade", error.is_upgrade()),
            ("body", error.is_body()),
        ];
        all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    }};
}

/// A body that gives something, and then fails.
fn broken() -> impl http_body::Body<Data = Bytes, Error = io::Error> + Send + Sync + Unpin + 'static {
    let pieces = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(io::Error::other("the disk is gone"))];
    StreamBody::new(futures_util::stream::iter(pieces))
}

/// A call with any client that has reqwest's methods, to its end; what its error says it is.
macro_rules! ends {
    ($client:expr, $body:expr, $what:expr, $url:expr) => {
        async {
            let (client, what, url) = ($client, $what, $url);
            let request = if what == "own body" { client.post(url) } else { client.get(url) };
            let request = request.timeout(TIME);
            let request = if what == "bad header" { request.header("a b", "c") } else { request };
            let request = if what == "own body" { request.body($body(broken())) } else { request };
            let response = match within(SOON, request.send()).await {
                Ok(response) => response,
                Err(error) => return names!(error),
            };
            match what {
                "status" => names!(response.error_for_status().unwrap_err()),
                "no upgrade" => names!(within(SOON, response.upgrade()).await.unwrap_err()),
                "json" => names!(within(SOON, response.json::<Vec<u8>>()).await.unwrap_err()),
                _ => names!(within(SOON, response.bytes()).await.unwrap_err()),
            }
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_has_the_same_meaning() {
    let server = Server::start(|request| match &*request.target {
        "/reset" => Reply::nothing().then_reset(),
        "/close" => Reply::nothing().then_close(),
        "/garbage" => Reply::raw("what?\r\n\r\n").then_close(),
        "/hang" => Reply::nothing().then_hang(),
        "/cut" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal").then_close(),
        "/stall" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal").then_hang(),
        "/status" => Reply::answer(404, "nobody"),
        "/round" => Reply::answer_with(302, &[("location", "/round")], ""),
        _ => Reply::answer(200, "no JSON"),
    })
    .await;
    let closes = Server::start(|_| Reply::nothing()).await;
    closes.on_accept(Accept::Close);
    let nobody = NobodyHome::new();
    let at = |path: &str| server.url(path);
    // What happens, where, what reqwest says of it, and what this says besides.
    let rows = [
        ("refused", nobody.url(), "request connect", ""),
        ("dns", "http://nobody.invalid/".to_owned(), "request connect", ""),
        ("tls", closes.url("/").replace("http:", "https:"), "request connect", ""),
        ("reset", at("/reset"), "request", ""),
        ("close", at("/close"), "request", ""),
        ("garbage", at("/garbage"), "request", ""),
        ("hang", at("/hang"), "request timeout", ""),
        // By reqwest's own documentation it is the body's, too.
        ("cut", at("/cut"), "decode", " body"),
        ("stall", at("/stall"), "timeout decode", " body"),
        ("status", at("/status"), "status", ""),
        ("json", at("/"), "decode", ""),
        ("no upgrade", at("/"), "upgrade", ""),
        ("own body", at("/hang"), "request", ""),
        ("round", at("/round"), "redirect", ""),
        ("bad url", "http://:80/".to_owned(), "builder", ""),
        ("bad scheme", "ftp://a/".to_owned(), "builder", ""),
        ("bad header", at("/"), "builder", ""),
    ];
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let once = || Policy::standard().retry(None);
    let ours = Client::builder().policy(once()).build().unwrap();
    let lean = resilient_client::hyper::Client::builder().policy(once());
    let lean = lean.redirects(Redirects::same_origin()).build().unwrap();
    for (what, url, theirs, besides) in rows {
        assert_eq!(ends!(&bare, reqwest::Body::wrap, what, &url).await, theirs, "{what}, reqwest");
        let expected = format!("{theirs}{besides}");
        assert_eq!(ends!(&ours, reqwest::Body::wrap, what, &url).await, expected, "{what}");
        assert_eq!(
            ends!(&lean, resilient_client::hyper::Body::wrap, what, &*url).await,
            expected,
            "{what}, hyper"
        );
    }
}
