//! A body that ends before its announced length is a failure, however gracefully it ends.
//!
//! hyper takes an HTTP/2 stream reset with `NO_ERROR`, or ended by a graceful `GOAWAY`, for one
//! that has ended well. Only the length tells that something is missing.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::stale::StaleIfError;
use resilient_client::{Client, ErrorKind, Policy};
use resilient_client_tests::h2_server::{Act, End, H2Server, NO_ERROR};
use resilient_client_tests::{Reply, SOON, Server, clock, everything_it_says, within};

const ENDS: [End; 2] = [End::Reset(NO_ERROR), End::GoAway];
const BROKEN: Outcome = Outcome::Failure(FailureKind::Body);

fn reqwest_client() -> Client {
    let prior = reqwest::ClientBuilder::http2_prior_knowledge;
    Client::builder().policy(Policy::standard()).transport(prior).build().unwrap()
}

fn hyper_client() -> resilient_client::hyper::Client {
    resilient_client::hyper::Client::builder().http2_prior_knowledge().build().unwrap()
}

async fn short(end: End) -> H2Server {
    H2Server::start(move |_| Act::Short("four", end)).await
}

async fn short_at_first(end: End) -> H2Server {
    H2Server::start(move |request| match request.nth {
        1 => Act::Short("four", end),
        _ => Act::Answer("done"),
    })
    .await
}

/// What both clients have in common, and no type says.
macro_rules! over_both {
    (|$client:ident| $story:expr) => {{
        {
            let $client = reqwest_client();
            $story;
        }
        {
            let $client = hyper_client();
            $story;
        }
    }};
}

#[tokio::test]
async fn a_body_that_ends_before_its_length_is_no_success_whoever_reads_it() {
    for end in ENDS {
        over_both!(|client| {
            let server = short(end).await;
            let get = || within(SOON, client.get(server.url("/")).send());
            let error = get().await.unwrap().text().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Body, "{error:?}");
            assert_eq!(error.report().unwrap().attempts()[0].outcome(), Some(BROKEN));
            // The end of a connection may have words of its own.
            let reset = end == ENDS[0];
            assert!(!reset || everything_it_says(&error).contains("6 bytes before"), "{error:?}");
            assert!(get().await.unwrap().bytes().await.is_err());

            let mut response = get().await.unwrap();
            assert_eq!(response.chunk().await.unwrap().unwrap(), "four");
            assert_eq!(response.chunk().await.unwrap_err().kind(), ErrorKind::Body);
            assert!(!reset || response.chunk().await.unwrap().is_none(), "said once");
        });
    }
}

#[tokio::test]
async fn a_short_body_handed_to_other_libraries_is_an_error_there_too() {
    for end in ENDS {
        let server = short(end).await;
        let response = within(SOON, reqwest_client().get(server.url("/")).send()).await.unwrap();
        assert!(reqwest::Response::from(response).text().await.is_err());
        let response = within(SOON, hyper_client().get(server.url("/")).send()).await.unwrap();
        let body = http::Response::from(response).into_body();
        assert_eq!(body.collect().await.unwrap_err().kind(), ErrorKind::Body);
    }
}

/// Those of one moment may have one cause, such as a connection's end, and count once. Soon after,
/// each counts.
#[tokio::test]
async fn bodies_that_are_all_short_open_the_breaker_in_no_time() {
    for end in ENDS {
        over_both!(|client| {
            let (server, begun) = (short(end).await, clock::now());
            let error = within(SOON, async {
                loop {
                    match client.get(server.url("/")).send().await {
                        Ok(response) => drop(response.bytes().await.unwrap_err()),
                        Err(error) => break error,
                    }
                }
            });
            assert_eq!(error.await.kind(), ErrorKind::CircuitOpen, "{end:?}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{end:?}: {:?}", begun.elapsed());
        });
    }
}

#[tokio::test]
async fn a_short_body_read_within_the_call_is_tried_again_if_that_is_safe() {
    for end in ENDS {
        over_both!(|client| {
            let server = short_at_first(end).await;
            let text = within(SOON, client.get(server.url("/")).fetch_text()).await.unwrap();
            assert_eq!((text.as_str(), server.count()), ("done", 2));
            let server = short_at_first(end).await;
            let error = within(SOON, client.post(server.url("/")).body("x").fetch_text()).await.unwrap_err();
            assert_eq!((error.kind(), server.count()), (ErrorKind::Body, 1));
        });
    }
}

#[tokio::test]
async fn a_length_without_a_body_is_no_missing_body() {
    over_both!(|client| {
        let server = H2Server::start(|_| Act::Head).await;
        for _ in 0..3 {
            let response = within(SOON, client.request(Method::HEAD, server.url("/")).send()).await.unwrap();
            assert_eq!(response.text().await.unwrap(), "");
            let head = client.request(Method::HEAD, server.url("/"));
            assert_eq!(within(SOON, head.fetch_text()).await.unwrap(), "");
        }
        let server = Server::start(|request| match &*request.target {
            "/204" => Reply::raw("HTTP/1.1 204 Told\r\n\r\n"),
            "/304" => Reply::raw("HTTP/1.1 304 Told\r\ncontent-length: 10\r\n\r\n"),
            _ => Reply::raw("HTTP/1.1 200 Told\r\ncontent-length: 10\r\n\r\n"),
        })
        .await;
        let client = Client::builder().build().unwrap();
        for (method, path) in [(Method::GET, "/204"), (Method::GET, "/304"), (Method::HEAD, "/200")] {
            let response =
                within(SOON, client.request(method.clone(), server.url(path)).send()).await.unwrap();
            assert_eq!(response.text().await.unwrap(), "", "{path}");
            let response = client.request(method, server.url(path)).send_buffered();
            assert_eq!(within(SOON, response).await.unwrap().text().await.unwrap(), "", "{path}");
        }
    });
}

#[tokio::test]
async fn a_short_body_is_never_kept_for_later() {
    let server = short(End::Reset(NO_ERROR)).await;
    let client = Client::builder()
        .transport(reqwest::ClientBuilder::http2_prior_knowledge)
        .stale_if_error(StaleIfError::new().default_window(SOON))
        .build()
        .unwrap();
    within(SOON, client.get(server.url("/")).send()).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(client.stale_snapshot().unwrap().entries, 0);
}

/// Where reqwest decodes bodies, what comes out has no length, and the decoder must notice.
#[tokio::test]
async fn a_short_body_that_was_encoded_is_an_error_too() {
    for bytes in [1, 4, 9] {
        let server = H2Server::start(move |_| Act::ShortGzip(bytes)).await;
        let response = within(SOON, reqwest_client().get(server.url("/")).send()).await.unwrap();
        assert_eq!(response.bytes().await.unwrap_err().kind(), ErrorKind::Body, "{bytes} bytes");
        let error = within(SOON, reqwest_client().get(server.url("/")).fetch_bytes()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body, "{bytes} bytes");
    }
}
