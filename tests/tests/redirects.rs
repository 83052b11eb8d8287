//! Redirects: to the same origin only, and never a reason to execute a POST twice.

use std::time::Duration;

use resilient_client::{Client, Decline, ErrorKind, Policy};
use resilient_client_tests::{Reply, Server, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_redirect_to_another_origin_is_handed_over_and_not_followed() {
    let other = Server::start(|_| Reply::answer(200, "other")).await;
    let to = other.url("/");
    let server = Server::start(move |_| Reply::answer_with(302, &[("location", &to)], "")).await;
    let client = Client::builder().build().unwrap();
    let call = client.get(server.url("/")).header("x-api-key", "s3cret").send();
    assert_eq!(within(SOON, call).await.unwrap().status(), 302);
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn a_redirect_to_the_same_origin_is_followed() {
    let server = Server::start(|request| match &*request.target {
        "/old" => Reply::answer_with(302, &[("location", "/new")], ""),
        _ => Reply::answer(200, "here"),
    })
    .await;
    let client = Client::builder().build().unwrap();
    let response = within(SOON, client.get(server.url("/old")).send()).await.unwrap();
    assert_eq!(within(SOON, response.text()).await.unwrap(), "here");
}

/// What broke: a hop that couldn't connect looked like a request that was never sent, and the POST
/// went out again.
#[tokio::test]
async fn a_post_whose_redirect_cannot_connect_was_executed_and_is_not_repeated() {
    within(SOON, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/pay", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = connection.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"POST /pay"));
            // From here nobody can connect.
            drop(listener);
            let head =
                "HTTP/1.1 303 See Other\r\nlocation: /paid\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            connection.write_all(head.as_bytes()).await.unwrap();
        });
        let error = Client::builder().build().unwrap().post(url).body("7 euros").send().await.unwrap_err();
        server.await.unwrap();
        let report = error.report().unwrap();
        assert_eq!((error.kind(), report.attempts().len()), (ErrorKind::Transport, 1), "{error:?}");
        assert_eq!(report.declined(), [Decline::NotSafe]);
    })
    .await;
}

#[tokio::test]
async fn a_timeout_of_the_client_underneath_is_a_timeout() {
    let server = Server::start(|_| Reply::nothing().then_hang()).await;
    let theirs = reqwest::Client::builder().timeout(Duration::from_millis(100)).build().unwrap();
    let client = Client::builder().policy(Policy::standard().retry(None)).build_over(theirs).unwrap();
    let error = within(SOON, client.get(server.url("/")).send()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains("a timer of the transport's own"), "{error}");
}

#[tokio::test]
async fn debug_of_a_request_and_a_response_tells_no_secret() {
    let server = Server::start(|_| Reply::answer(200, "hello")).await;
    let request = Client::builder().build().unwrap().get(server.url("/?token=s3cret"));
    assert!(!format!("{request:?}").contains("s3cret"));
    let response = within(SOON, request.send()).await.unwrap();
    assert!(!format!("{response:?}").contains("s3cret"));
}
