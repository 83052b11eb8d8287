//! What goes over the wire, as hyper writes it.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends one request with this body over a connection of its own; the bytes the server saw.
async fn sent(body: ReplayBody<Source>) -> String {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::put("/users").header("host", "users").body(body).unwrap();
    let server = async move {
        let mut seen = Vec::new();
        // A body in chunks ends with an empty one; ours with a known length end with an exclamation
        // mark.
        while !seen.ends_with(b"0\r\n\r\n") && !seen.ends_with(b"!") {
            assert_ne!(theirs.read_buf(&mut seen).await.unwrap(), 0, "a request cut short");
        }
        theirs.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
        String::from_utf8(seen).unwrap()
    };
    let (seen, response) = tokio::join!(server, sender.send_request(request));
    assert_eq!(response.unwrap().status(), 204);
    connection.await.unwrap().unwrap();
    seen
}

#[tokio::test]
async fn a_retry_is_written_byte_for_byte_like_the_first_attempt() {
    for (steps, hint, framing) in [
        (vec![data("hello"), data(", world!")], SizeHint::with_exact(13), "content-length: 13\r\n"),
        (vec![data("hello"), data(", world")], SizeHint::default(), "transfer-encoding: chunked\r\n"),
        (vec![], SizeHint::default(), "transfer-encoding: chunked\r\n"),
    ] {
        let mut source = Source::new(steps);
        source.hint = hint;
        let (template, _) = template(source, 1024, memory(1024));
        let first = sent(template.again().body).await;
        assert!(first.contains(framing), "{first}");
        assert_eq!(sent(template.again().body).await, first);
        assert_eq!(sent(template.body).await, first);
    }
}

/// The error of a request whose body fails, as it comes out of the transport.
#[cfg(feature = "reqwest")]
async fn error_of(body: impl Into<reqwest::Body>) -> reqwest::Error {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        let _ = socket.read_to_end(&mut seen).await;
        seen
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let error = client.put(url).body(body).send().await.unwrap_err();
    let seen = String::from_utf8(server.await.unwrap()).unwrap();
    assert!(!seen.ends_with("0\r\n\r\n"), "a body that failed must never look whole: {seen}");
    error
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn the_error_is_found_in_what_reqwest_makes_of_it() {
    let find = |error: &reqwest::Error| {
        let mut link = std::error::Error::source(error);
        while let Some(this) = link {
            if let Some(found) = this.downcast_ref::<ReplayError>() {
                return Some(found.clone());
            }
            link = this.source();
        }
        None
    };
    let (failing, _) = template(Source::new([data("a"), Step::Fail]), 1024, memory(1024));
    let error = error_of(reqwest::Body::wrap(failing.again().body)).await;
    assert!(!find(&error).expect("ours").is_cut_off());
    let (panicking, _) = template(Source::new([data("a"), Step::Panic]), 1024, memory(1024));
    let error = error_of(reqwest::Body::wrap(panicking.again().body)).await;
    assert_eq!(find(&error).expect("ours").to_string(), "the request's body panicked");
    let (long, _) = template(Source::new([block(1000)]), 10, memory(1024));
    let (mut ahead, behind) = (long.again(), long.again());
    ahead.poll();
    let error = error_of(reqwest::Body::wrap(behind.body)).await;
    assert!(find(&error).expect("ours").is_cut_off());
}
