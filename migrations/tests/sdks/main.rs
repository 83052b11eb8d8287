//! What three SDKs do that were moved, in small: each written once, compiled with reqwest's types
//! and with these.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use resilient_client::{Attempt, Prepared};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Reply, SOON, Server, within};

/// Each SDK with one crate's types.
macro_rules! sdks {
    ($module:ident, $krate:ident) => {
        mod $module {
            pub(crate) mod analytics {
                use $krate::{Client, Error, Response};
                include!("analytics.rs");
            }
            pub(crate) mod payments {
                use $krate::{Client, Error, Response};
                include!("payments.rs");
            }
            pub(crate) mod search {
                use $krate::{Client, Error};
                include!("search.rs");
            }
        }
    };
}

sdks!(before, reqwest);
sdks!(after, resilient_client);

fn client() -> resilient_client::Client {
    resilient_client::Client::builder().build().unwrap()
}

/// The first request is turned away, the others are served.
async fn flaky() -> Server {
    Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, "{}")).await
}

fn keys(server: &Server) -> Vec<String> {
    let key = |request: &resilient_client_tests::server::Request| {
        request.header("idempotency-key").unwrap_or_default().to_owned()
    };
    server.requests().iter().map(key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analytics_sdk_loses_nothing_and_sends_a_batch_again_by_itself() {
    let server = flaky().await;
    let sdk = before::analytics::Analytics::new(reqwest::Client::new(), server.url(""));
    sdk.track("opened", 7);
    assert!(within(SOON, sdk.flush()).await.unwrap_err().is_status());
    sdk.track("closed", 7);
    assert_eq!((sdk.queued(), within(SOON, sdk.flush()).await.unwrap()), (2, 2));
    assert_eq!(keys(&server), ["batch-1", "batch-2"]);

    let server = flaky().await;
    let sdk = after::analytics::Analytics::new(client(), server.url(""));
    sdk.track("opened", 7);
    assert_eq!(within(SOON, sdk.flush()).await.unwrap(), 1);
    assert_eq!(
        (sdk.queued(), keys(&server)),
        (0, vec!["batch-1".to_owned(); 2]),
        "known when it comes again"
    );

    let nobody = NobodyHome::new();
    let sdk = before::analytics::Analytics::new(reqwest::Client::new(), nobody.url());
    sdk.track("opened", 7);
    let theirs = within(SOON, sdk.flush()).await.unwrap_err();
    let moved = after::analytics::Analytics::new(client(), nobody.url());
    moved.track("opened", 7);
    let ours = within(SOON, moved.flush()).await.unwrap_err();
    assert!(theirs.is_connect() && ours.is_connect() && theirs.is_request() && ours.is_request());
    assert_eq!((sdk.queued(), moved.queued()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payments_sdk_keeps_its_middleware_and_charges_once() {
    let server = Server::start(|_| Reply::answer(200, "{}")).await;
    let log = Arc::new(before::payments::Log::default());
    let middleware: Vec<Arc<dyn before::payments::Middleware>> =
        vec![Arc::clone(&log) as _, Arc::new(before::payments::Sign(7))];
    let sdk = before::payments::Payments::new(reqwest::Client::new(), server.url(""), middleware);
    assert_eq!(within(SOON, sdk.charge(500, None)).await.unwrap(), 200);

    let moved_log = Arc::new(after::payments::Log::default());
    let middleware: Vec<Arc<dyn after::payments::Middleware>> =
        vec![Arc::clone(&moved_log) as _, Arc::new(after::payments::Sign(7))];
    let moved = after::payments::Payments::new(client(), server.url(""), middleware);
    assert_eq!(within(SOON, moved.charge(500, None)).await.unwrap(), 200);
    let signed = |n: usize| server.requests()[n].header("x-signature").map(str::to_owned);
    assert!(signed(0).is_some() && signed(0) == signed(1));
    assert_eq!(*log.0.lock().unwrap(), ["POST /charges 200"]);
    assert_eq!(*log.0.lock().unwrap(), *moved_log.0.lock().unwrap());

    // Without a key a charge is never made twice; with one it is sent again, signed.
    for (key, times, status) in [(None, 1, 503), (Some("charge-7"), 2, 200)] {
        server.now({
            let already = server.count();
            move |request| Reply::answer(if request.nth == already + 1 { 503 } else { 200 }, "{}")
        });
        let already = server.count();
        assert_eq!(within(SOON, moved.charge(700, key)).await.unwrap(), status);
        assert_eq!(server.count() - already, times, "{key:?}");
        assert!(signed(server.count() - 1).is_some());
    }
}

/// Where a signature must be new each time, the middleware becomes a hook.
#[tokio::test(flavor = "multi_thread")]
async fn a_payments_sdk_that_signs_each_attempt_anew_has_a_hook_for_it() {
    let server = flaky().await;
    let sign = |attempt: &Attempt<'_>| {
        let length = attempt.body().unwrap_or_default().len();
        let signature = HeaderValue::try_from(format!("{} {length}", attempt.number()));
        let mut headers = HeaderMap::new();
        headers.insert("x-signature", signature.expect("digits"));
        Prepared::now(headers)
    };
    let client = resilient_client::Client::builder().on_attempt(sign).build().unwrap();
    let sdk = after::payments::Payments::new(client, server.url(""), Vec::new());
    assert_eq!(within(SOON, sdk.charge(500, Some("charge-7"))).await.unwrap(), 200);
    let signatures: BTreeSet<_> = server
        .requests()
        .iter()
        .filter_map(|request| request.header("x-signature").map(str::to_owned))
        .collect();
    assert_eq!(signatures.into_iter().collect::<Vec<_>>(), ["1 13", "2 13"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_sdk_with_generated_calls_keeps_their_timeouts_and_problems() {
    let server = Server::start(|request| match &*request.target {
        "/indexes/books/search?q=a+b&limit=5" if request.header("x-api-key") == Some("key") => {
            Reply::answer(200, r#"{"hits":["a","b"]}"#)
        }
        "/indexes/hangs/search?q=a+b&limit=5" => Reply::nothing().then_hang(),
        "/indexes/odd/search?q=a+b&limit=5" => Reply::answer(200, "no JSON"),
        "/indexes/flaky/search?q=a+b&limit=5" if request.header("x-envoy-attempt-count").is_none() => {
            Reply::answer(503, r#"{"title":"not now"}"#)
        }
        "/indexes/flaky/search?q=a+b&limit=5" => Reply::answer(200, r#"{"hits":["c"]}"#),
        _ => Reply::answer(404, r#"{"title":"no such index"}"#),
    })
    .await;

    macro_rules! all {
        ($sdk:ident, $client:expr) => {{
            let configuration = $sdk::search::Configuration {
                base_path: server.url(""),
                client: $client,
                api_key: Some("key".to_owned()),
                timeout: Duration::from_millis(300),
            };
            let mut told = Vec::new();
            for index in ["books", "none", "odd", "hangs", "flaky"] {
                let found = $sdk::search::search_documents(&configuration, index, "a b", Some(5));
                told.push(match within(SOON, found).await {
                    Ok(results) => results.hits.concat(),
                    Err($sdk::search::Failed::Transport(error)) => format!("timeout: {}", error.is_timeout()),
                    Err($sdk::search::Failed::Serde) => "no JSON".to_owned(),
                    Err($sdk::search::Failed::Response(status, problem)) => {
                        format!("{status} {}", problem.map_or_else(String::new, |problem| problem.title))
                    }
                });
            }
            told
        }};
    }
    let theirs = all!(before, reqwest::Client::new());
    let ours = all!(after, client());
    assert_eq!(theirs, ["ab", "404 no such index", "no JSON", "timeout: true", "503 not now"]);
    assert_eq!(ours, ["ab", "404 no such index", "no JSON", "timeout: true", "c"]);
}
