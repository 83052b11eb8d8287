//! Cookies across attempts and redirects.

use std::sync::Arc;

use resilient_client::cookie::{CookieStore as _, Jar};
use resilient_client::{Client, header};
use resilient_client_tests::server::Request;
use resilient_client_tests::{Reply, SOON, Server, within};

/// All `cookie` headers of a request, in one line.
fn sent(request: &Request) -> Vec<&str> {
    let named = request.headers.iter().filter(|(name, _)| name == "cookie");
    named.map(|(_, value)| value.as_str()).collect()
}

/// Each answer sets another value, and fails until the third.
async fn counting() -> Server {
    Server::start(|request| {
        let set = format!("n={}; Path=/", request.nth);
        let headers = [("set-cookie", set.as_str())];
        Reply::answer_with(if request.nth < 3 { 503 } else { 200 }, &headers, "")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_sends_what_the_answer_before_it_set_once() {
    let server = counting().await;
    let client = Client::builder().cookie_store(true).build().unwrap();
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(response.cookies().map(|cookie| cookie.value().to_owned()).collect::<Vec<_>>(), ["3"]);
    within(SOON, client.get(server.url("/")).send()).await.unwrap();
    let seen = server.requests();
    let cookies: Vec<_> = seen.iter().map(sent).collect();
    assert_eq!(cookies, [vec![], vec!["n=1"], vec!["n=2"], vec!["n=3"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requests_own_cookie_goes_in_place_of_the_jars() {
    let server = counting().await;
    let client = Client::builder().cookie_store(true).build().unwrap();
    within(SOON, client.get(server.url("/")).header(header::COOKIE, "n=own").send()).await.unwrap();
    assert!(server.requests().iter().all(|request| sent(request) == ["n=own"]));
}

#[tokio::test]
async fn a_redirect_that_is_followed_sends_what_it_set() {
    let server = Server::start(|request| match request.target.as_str() {
        "/login" => Reply::answer_with(302, &[("location", "/home"), ("set-cookie", "session=7")], ""),
        _ => Reply::answer(200, ""),
    })
    .await;
    let client = Client::builder().cookie_store(true).build().unwrap();
    within(SOON, client.get(server.url("/login")).send()).await.unwrap();
    let seen = server.requests();
    assert_eq!(seen.iter().map(sent).collect::<Vec<_>>(), [vec![], vec!["session=7"]]);
}

/// An attempt that follows a dead connection goes over another client underneath, with the same
/// jar.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_leaves_the_pool_has_the_same_jar() {
    let server = Server::start(|request| match request.nth {
        1 => Reply::answer_with(200, &[("set-cookie", "n=1")], ""),
        2 => Reply::nothing().then_reset(),
        _ => Reply::answer_with(200, &[("set-cookie", "n=2")], ""),
    })
    .await;
    let client = Client::builder().cookie_store(true).build().unwrap();
    for _ in 0..3 {
        within(SOON, client.get(server.url("/")).send()).await.unwrap().bytes().await.unwrap();
    }
    let seen = server.requests();
    assert_eq!(seen.iter().map(sent).collect::<Vec<_>>(), [vec![], vec!["n=1"], vec!["n=1"], vec!["n=2"]]);
    assert_ne!(seen[1].connection, seen[2].connection);
}

#[tokio::test]
async fn a_jar_of_ones_own_is_filled_and_asked() {
    let server = Server::start(|_| Reply::answer_with(200, &[("set-cookie", "b=2")], "")).await;
    let (jar, url) = (Arc::new(Jar::default()), server.url("/").parse().unwrap());
    jar.add_cookie_str("a=1", &url);
    let client = Client::builder().cookie_provider(Arc::clone(&jar)).build().unwrap();
    within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!(sent(&server.requests()[0]), ["a=1"]);
    let kept = jar.cookies(&url).unwrap();
    assert!(kept.to_str().unwrap().contains("b=2"), "{kept:?}");
    let without = Client::builder().cookie_provider(jar).cookie_store(false).build().unwrap();
    within(SOON, without.get(server.url("/")).send()).await.unwrap();
    assert_eq!(sent(&server.requests()[1]), [""; 0]);
}

/// reqwest's jar would go by the endpoint's address, which two names may have in common.
#[test]
fn a_jar_and_endpoints_are_refused_together() {
    use resilient_client::endpoints::Endpoints;

    let builder = || Client::builder().endpoints("http://users", Endpoints::fixed(["http://127.0.0.1:1"]));
    let jar = Arc::new(Jar::default());
    for builder in [builder().cookie_store(true), builder().cookie_provider(jar)] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains("cookie_store"), "{error}");
        assert!(error.to_string().contains("http://users"), "{error}");
    }
    builder().cookie_store(true).cookie_store(false).build().unwrap();
}
