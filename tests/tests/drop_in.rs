//! What a reqwest user and a tower user get by swapping one thing.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use resilient_client::outcome::{FailureKind, Outcome};
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{CallOptions, Client, ErrorKind, Policy, Resilience, ResilienceLayer};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, clock, within};
use tower::{Layer as _, Service as _};

#[derive(Debug, PartialEq, serde::Deserialize)]
struct User {
    id: String,
    name: String,
    email: String,
}

/// The real user-service on a loopback port, on a database of its own.
struct UserService {
    base: String,
    _database: tempfile::TempDir,
    server: tokio::task::JoinHandle<Result<(), user_service::Error>>,
}

impl UserService {
    async fn start() -> Self {
        let database = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite://{}?mode=rwc", database.path().join("users.db").display());
        let config = user_service::Config { database_url, ..user_service::Config::default() };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(user_service::run(config, listener, std::future::pending()));
        Self { base, _database: database, server }
    }
}

impl Drop for UserService {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The quick start, word for word, for any client with reqwest's methods.
macro_rules! quick_start {
    ($client:expr, $base:expr) => {
        async {
            let (client, base) = ($client, $base);
            let ada = serde_json::json!({ "name": "Ada", "email": "ada@example.com" });
            let created: User =
                client.post(format!("{base}/users")).json(&ada).send().await?.error_for_status()?.json().await?;
            let url = format!("{base}/users/{}", created.id);
            let found = client.get(url).send().await?.error_for_status()?.json::<User>().await?;
            Ok((created, found))
        }
    };
}

#[tokio::test]
async fn the_quick_start_works_against_the_real_user_service() -> Result<(), resilient_client::Error> {
    let service = UserService::start().await;
    let client = Client::builder().build()?;
    let ended: Result<_, resilient_client::Error> = within(SOON, quick_start!(&client, &service.base)).await;
    let (created, found) = ended?;
    assert_eq!(created, found);
    assert_eq!(found.name, "Ada");

    // And with reqwest's own client, the same words.
    let theirs = reqwest::Client::new();
    let ended: Result<_, reqwest::Error> = within(SOON, quick_start!(&theirs, &service.base)).await;
    assert_eq!(ended.unwrap().1.email, "ada@example.com");

    // And over one.
    let over = Client::from(theirs);
    let ended: Result<_, resilient_client::Error> = within(SOON, quick_start!(&over, &service.base)).await;
    assert_eq!(ended?.1.name, "Ada");
    Ok(())
}

#[tokio::test]
async fn a_user_who_is_not_there_is_an_answer_and_an_error_only_when_asked() {
    let service = UserService::start().await;
    let client = Client::builder().build().unwrap();
    let url = format!("{}/users/0190a5a0-0000-7000-8000-000000000000", service.base);
    let response = within(SOON, client.get(url).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.report().attempts().len()), (404, 1));
    assert!(response.error_for_status_ref().unwrap_err().is_status());
    let problem: serde_json::Value = within(SOON, response.json()).await.unwrap();
    assert_eq!(problem["status"], 404);
}

/// The same key finds the same user, so the repetition that a key allows does no harm.
#[tokio::test]
async fn a_keyed_post_repeated_by_hand_creates_one_user() {
    let service = UserService::start().await;
    let client = Client::builder().build().unwrap();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let bob = serde_json::json!({ "name": "Bob", "email": "bob@example.com" });
        let call = client.post(format!("{}/users", service.base)).idempotency_key("bob-1").json(&bob);
        ids.push(within(SOON, call.fetch_json::<User>()).await.unwrap().id);
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_ready_request_of_reqwests_is_executed_with_its_own_timeout() {
    let server = Server::start(|request| match request.target.as_str() {
        "/hang" => Reply::nothing().then_hang(),
        _ => Reply::answer(200, "well"),
    })
    .await;
    for client in [Client::builder().build().unwrap(), Client::from(reqwest::Client::new())] {
        let mut request = reqwest::Request::new(Method::PUT, server.url("/x").parse().unwrap());
        *request.body_mut() = Some("an order".into());
        request.headers_mut().insert("x-mine", "1".parse().unwrap());
        let response = within(SOON, client.execute(request)).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "well");
        let seen = server.requests().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.header("x-mine"), &seen.body[..]),
            ("PUT", Some("1"), &b"an order"[..])
        );

        let before = server.count();
        let mut request = reqwest::Request::new(Method::GET, server.url("/hang").parse().unwrap());
        *request.timeout_mut() = Some(Duration::from_millis(500));
        let begun = clock::now();
        let error = within(SOON, client.execute(request)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline, "{error:?}");
        assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
        assert_eq!(server.count() - before, 1, "all its time went into one attempt");
    }
}

/// Generated clients build a request and execute it later: its timeout must survive that.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_built_and_then_executed_keeps_what_was_asked_for() {
    let server = Server::start(|request| match request.target.as_str() {
        "/hang" => Reply::nothing().then_hang(),
        _ => Reply::answer(503, "not now"),
    })
    .await;
    let client = Client::builder().build().unwrap();
    let time = Duration::from_millis(300);
    let request = client.get(server.url("/hang")).timeout(time).build().unwrap();
    assert_eq!(request.timeout(), Some(&time));
    assert_eq!(within(SOON, client.execute(request)).await.unwrap_err().kind(), ErrorKind::Deadline);

    let before = server.count();
    let call = client.post(server.url("/")).idempotent(true);
    let (request, options) = call.build_with_options().unwrap();
    assert_eq!(within(SOON, client.execute_with(request, options)).await.unwrap().status(), 503);
    assert!(server.count() - before > 1, "a POST that may be repeated is");

    let client = resilient_client::hyper::Client::builder().build().unwrap();
    let request = client.get(server.url("/hang")).timeout(time).build().unwrap();
    assert_eq!(within(SOON, client.execute(request)).await.unwrap_err().kind(), ErrorKind::Deadline);
    let request = client.get(server.url("/hang")).timeout(time).build().unwrap();
    let call = client.execute_with(request, CallOptions::new());
    assert_eq!(within(SOON, call).await.unwrap_err().kind(), ErrorKind::Deadline);

    // A body that is kept for another attempt is kept, too.
    let stream = || resilient_client::hyper::Body::wrap(Full::new(Bytes::from("an order")));
    let before = server.count();
    let put = client.put(server.url("/")).body(stream()).replay_buffer(1024).build().unwrap();
    assert_eq!(within(SOON, client.execute(put)).await.unwrap().status(), 503);
    assert!(server.count() - before > 1, "it is sent again");
}

/// What a client brought along stays its own: its headers, and its idea of redirects.
#[tokio::test]
async fn a_reqwest_client_brought_along_keeps_its_settings_and_gains_retries() {
    let server = Server::start(|request| match (request.target.as_str(), request.nth) {
        ("/moved", _) => Reply::answer_with(302, &[("location", "/")], ""),
        (_, 1) => Reply::answer(503, "not now"),
        _ => Reply::answer(200, "well"),
    })
    .await;
    let theirs = reqwest::Client::builder()
        .user_agent("theirs/1")
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let client = Client::from(theirs);
    let response = within(SOON, client.get(server.url("/")).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.report().attempts().len()), (200, 2));
    assert!(server.requests().iter().all(|request| request.header("user-agent") == Some("theirs/1")));
    assert_eq!(within(SOON, client.get(server.url("/moved")).send()).await.unwrap().status(), 302);
}

#[tokio::test]
async fn two_clones_share_what_they_know_and_two_clients_do_not() {
    let server = Server::start(|_| Reply::answer(500, "")).await;
    let (one, other) = (Client::builder().build().unwrap(), Client::builder().build().unwrap());
    while within(SOON, one.get(server.url("/")).send()).await.is_ok() {}
    let error = within(SOON, one.clone().get(server.url("/")).send()).await.unwrap_err();
    assert!(error.is_circuit_open());
    assert!(within(SOON, other.get(server.url("/")).send()).await.is_ok());
}

type Hyper = HyperClient<HttpConnector, Full<Bytes>>;

/// hyper-util's client behind our layer. Its own repetitions are off, so that the counts are exact.
fn layered(policy: &Policy, heard: &Heard) -> Resilience<Hyper> {
    let hyper = HyperClient::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    ResilienceLayer::builder().policy(policy.clone()).observer(heard.clone()).build().unwrap().layer(hyper)
}

fn request(method: Method, url: &str) -> http::Request<Full<Bytes>> {
    http::Request::builder().method(method).uri(url).body(Full::from("an order")).unwrap()
}

#[tokio::test]
async fn hypers_client_behind_the_layer_repeats_a_503_where_that_is_safe() {
    let server = Server::start(|request| match request.nth % 2 {
        1 => Reply::answer(503, "not now"),
        _ => Reply::answer(200, "well"),
    })
    .await;
    let heard = Heard::new();
    let mut service = layered(&Policy::standard(), &heard);

    let response = within(SOON, service.call(request(Method::PUT, &server.url("/")))).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().report().attempts().len()), (200, 2));
    let body = within(SOON, response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!((&body[..], server.count()), (&b"well"[..], 2));

    let response = within(SOON, service.call(request(Method::POST, &server.url("/")))).await.unwrap();
    assert_eq!((response.status().as_u16(), server.count()), (503, 3), "no key, no repetition");

    server.now(|request| Reply::answer(if request.nth == 4 { 503 } else { 200 }, ""));
    let mut marked = request(Method::POST, &server.url("/"));
    marked.extensions_mut().insert(CallOptions::new().idempotent(true));
    let response = within(SOON, service.call(marked)).await.unwrap();
    assert_eq!((response.status().as_u16(), server.count()), (200, 5));
    assert_eq!(server.requests()[3].body, server.requests()[4].body);
    assert_eq!(heard.attempts(), server.count());
}

#[tokio::test]
async fn hypers_client_behind_the_layer_finds_nobody_home() {
    let heard = Heard::new();
    let mut service = layered(&Policy::standard().breaker(None), &heard);
    let nobody = NobodyHome::new();
    let error = within(SOON, service.call(request(Method::GET, &nobody.url()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    assert_eq!(heard.outcomes(), [Outcome::Failure(FailureKind::Connect); 4]);
}

#[tokio::test]
async fn a_body_behind_the_layer_is_guarded_to_its_end() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |request| {
        let half = Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe");
        match request.target.as_str() {
            "/stall" => half.then_hang(),
            "/slow" => half.then_wait(&hold).then("llo"),
            _ => Reply::answer(200, "quick"),
        }
    })
    .await;
    let heard = Heard::new();
    let policy = Policy::standard()
        .timeout(TimeoutPolicy::standard().body_idle(Duration::from_millis(500)))
        .bulkhead(BulkheadPolicy::standard().max_in_flight(1));
    let mut service = layered(&policy, &heard);

    let response = within(SOON, service.call(request(Method::GET, &server.url("/stall")))).await.unwrap();
    let error = within(SOON, response.into_body().collect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BodyIdle, "{error:?}");
    assert_eq!(heard.outcomes(), [Outcome::Failure(FailureKind::BodyIdle)]);

    let slow = within(SOON, service.call(request(Method::GET, &server.url("/slow")))).await.unwrap();
    let refused = within(SOON, service.call(request(Method::GET, &server.url("/")))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BulkheadFull, "the body still holds its place");
    gate.open();
    assert_eq!(within(SOON, slow.into_body().collect()).await.unwrap().to_bytes(), "hello");
    assert!(within(SOON, service.call(request(Method::GET, &server.url("/")))).await.is_ok());
}
