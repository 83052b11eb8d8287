//! `Idempotency-Key`, over HTTP where a client can see it and through `Keys` where the work must
//! misbehave.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use futures_util::future::join_all;
use serde_json::json;
use service_kit::testing::{PROBLEM_JSON, TestDatabase, call, connect, get, post_keyed, post_request};
use service_kit::{
    idempotency::{Answer, Fingerprint, IdempotencyKey, Keys, Ticket},
    problem::Problem,
};
use tokio::sync::oneshot;
use user_service::{AppState, Clock, Config, app};

const START_MS: i64 = 1_700_000_000_000;

struct Service {
    app: Router,
    state: AppState,
    clock: Clock,
    database: TestDatabase,
}

async fn service() -> Service {
    let database = TestDatabase::new().await;
    let clock = Clock::manual(START_MS);
    let state = open(&database, &clock).await;
    Service { app: app(state.clone()), state, clock, database }
}

/// Another process on the same database, as far as the keys can tell.
async fn open(database: &TestDatabase, clock: &Clock) -> AppState {
    let config = Config { database_url: database.url.clone(), ..Config::default() };
    AppState::open_at(&config, clock.clone()).await.unwrap()
}

fn ada() -> serde_json::Value {
    json!({ "name": "Ada", "email": "ada@example.com" })
}

fn key(value: &str) -> IdempotencyKey {
    let mut headers = HeaderMap::new();
    headers.insert("idempotency-key", HeaderValue::from_str(value).unwrap());
    IdempotencyKey::from_headers(&headers).unwrap()
}

fn same() -> Fingerprint {
    Fingerprint::of(&"the request").unwrap()
}

/// Work that does nothing but answer.
async fn done(state: AppState, ticket: Ticket) -> Result<Answer, Problem> {
    let answer = Answer::created(StatusCode::CREATED, "/things/1".into(), &json!({ "done": true }))?;
    ticket_record(&state, &ticket, &answer).await?;
    Ok(answer)
}

async fn ticket_record(state: &AppState, ticket: &Ticket, answer: &Answer) -> Result<(), Problem> {
    let mut transaction = state.keys().database().begin().await?;
    ticket.record(&mut transaction, answer).await?;
    transaction.commit().await?;
    Ok(())
}

async fn run_done(state: &AppState, scope: &'static str) -> Result<Response, Problem> {
    let work_state = state.clone();
    state.keys().once(scope, key("k"), same(), move |ticket| done(work_state, ticket)).await
}

fn keys(state: &AppState) -> Keys {
    state.keys().clone()
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_and_happens_once() {
    let service = service().await;
    let first = post_keyed(&service.app, "/users", "k", &ada()).await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, ""));
    service.clock.advance(Duration::from_mins(1));
    let second = post_keyed(&service.app, "/users", "k", &ada()).await;
    assert_eq!((second.status.as_u16(), second.header("idempotent-replayed")), (201, "true"));
    assert_eq!(second.body, first.body);
    for header in ["location", "content-type"] {
        assert_eq!(second.header(header), first.header(header));
    }
    assert_eq!(service.database.count("users").await, 1);
}

#[tokio::test]
async fn a_request_that_means_the_same_in_other_bytes_is_the_same() {
    let service = service().await;
    post_keyed(&service.app, "/users", "k", &ada()).await;
    let spaced = "{ \"email\" : \"ada@example.com\",\n \"name\" : \"Ada\" }";
    let answer = call(&service.app, post_request("/users", Some("k"), spaced)).await;
    assert_eq!((answer.status.as_u16(), answer.header("idempotent-replayed")), (201, "true"));
}

#[tokio::test]
async fn the_same_key_with_another_request_is_422() {
    let service = service().await;
    post_keyed(&service.app, "/users", "k", &ada()).await;
    let other = post_keyed(&service.app, "/users", "k", &json!({ "name": "Bob", "email": "b@c" })).await;
    assert_eq!(other.assert_problem(422)["type"], "urn:problem:idempotency-key-reused");
    assert_eq!(service.database.count("users").await, 1);
}

#[tokio::test]
async fn a_request_that_never_reached_the_work_does_not_use_up_its_key() {
    let service = service().await;
    post_keyed(&service.app, "/users", "k", &json!({ "name": "", "email": "" })).await.assert_problem(422);
    assert_eq!(post_keyed(&service.app, "/users", "k", &ada()).await.status, 201);
}

#[tokio::test]
async fn a_bad_key_is_400() {
    let service = service().await;
    let longest = "k".repeat(255);
    assert_eq!(post_keyed(&service.app, "/users", &longest, &ada()).await.status, 201);
    let too_long = "k".repeat(256);
    for bad in [&b""[..], too_long.as_bytes(), b"tab\tinside", "schl\u{fc}ssel".as_bytes(), b"\xff"] {
        let mut request = post_request("/users", None, ada().to_string());
        request.headers_mut().insert("idempotency-key", HeaderValue::from_bytes(bad).unwrap());
        call(&service.app, request).await.assert_problem(400);
    }
    let mut twice = post_request("/users", Some("a"), ada().to_string());
    twice.headers_mut().append("idempotency-key", HeaderValue::from_static("b"));
    call(&service.app, twice).await.assert_problem(400);
    assert_eq!(service.database.count("users").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_create_one_user() {
    let service = service().await;
    // Two processes on one database take half of them each.
    let apps = [service.app.clone(), app(open(&service.database, &service.clock).await)];
    let answers = join_all((0..50).map(|n| {
        let app = apps[n % 2].clone();
        tokio::spawn(async move { post_keyed(&app, "/users", "k", &ada()).await })
    }));
    let answers: Vec<_> = answers.await.into_iter().map(Result::unwrap).collect();
    let created = answers.iter().filter(|a| a.status == 201 && a.header("idempotent-replayed").is_empty());
    assert_eq!(created.count(), 1);
    for other in answers.iter().filter(|answer| answer.status != 201) {
        other.assert_problem(409);
        assert_eq!(other.header("retry-after"), "1");
    }
    assert_eq!(service.database.count("users").await, 1);
    let replayed = post_keyed(&service.app, "/users", "k", &ada()).await;
    assert_eq!((replayed.status.as_u16(), replayed.header("idempotent-replayed")), (201, "true"));
}

#[tokio::test]
async fn keys_are_scoped_by_route() {
    let service = service().await;
    for scope in ["POST /a", "POST /b"] {
        let response = run_done(&service.state, scope).await.unwrap();
        assert!(!response.headers().contains_key("idempotent-replayed"), "{scope}");
    }
    let again = run_done(&service.state, "POST /a").await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
}

#[tokio::test]
async fn a_5xx_and_a_panic_release_the_key() {
    let service = service().await;
    let keys = keys(&service.state);
    let failed = keys.once("s", key("k"), same(), async |_| Err(Problem::internal())).await;
    assert_eq!(failed.unwrap_err().status(), 500);
    let panicked = keys.once("s", key("k"), same(), async |_| panic!("boom")).await;
    assert_eq!(panicked.unwrap_err().status(), 500);
    let response = run_done(&service.state, "s").await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(!response.headers().contains_key("idempotent-replayed"));
}

#[tokio::test]
async fn a_4xx_of_the_work_is_an_answer_like_any_other() {
    let service = service().await;
    let keys = keys(&service.state);
    for replayed in [false, true] {
        let work = async move |_| {
            assert!(!replayed, "the work must not run again");
            Err(Problem::invalid().field("user_id", "unknown"))
        };
        let response = keys.once("s", key("k"), same(), work).await.unwrap();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        assert_eq!(response.headers().contains_key("idempotent-replayed"), replayed);
    }
}

#[tokio::test]
async fn while_the_first_is_in_flight_the_second_is_409() {
    let service = service().await;
    let (started, has_started) = oneshot::channel();
    let (finish, may_finish) = oneshot::channel::<()>();
    let (state, keys) = (service.state.clone(), keys(&service.state));
    let first = tokio::spawn(async move {
        let work = async move |ticket| {
            started.send(()).unwrap();
            may_finish.await.unwrap();
            done(state, ticket).await
        };
        keys.once("s", key("k"), same(), work).await
    });
    has_started.await.unwrap();
    let second = run_done(&service.state, "s").await.unwrap_err();
    assert_eq!(second.status(), 409);
    finish.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn a_client_that_hangs_up_neither_stops_the_work_nor_blocks_its_key() {
    let service = service().await;
    let (started, has_started) = oneshot::channel();
    let (finish, may_finish) = oneshot::channel::<()>();
    let (state, keys) = (service.state.clone(), keys(&service.state));
    let first = tokio::spawn(async move {
        let work = async move |ticket| {
            started.send(()).unwrap();
            may_finish.await.unwrap();
            done(state, ticket).await
        };
        keys.once("s", key("k"), same(), work).await
    });
    has_started.await.unwrap();
    // What axum does when the connection closes: it drops the handler.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    finish.send(()).unwrap();
    let tasks = service.state.background().tasks();
    tasks.close();
    tasks.wait().await;
    tasks.reopen();
    let retry = run_done(&service.state, "s").await.unwrap();
    assert_eq!(retry.headers()["idempotent-replayed"], "true");
}

/// Work that has begun and goes on until it is told otherwise.
struct Begun {
    work: tokio::task::JoinHandle<Result<Response, Problem>>,
    finish: oneshot::Sender<()>,
}

async fn begin(service: &Service) -> Begun {
    let (started, has_started) = oneshot::channel();
    let (finish, may_finish) = oneshot::channel::<()>();
    let (state, keys) = (service.state.clone(), keys(&service.state));
    let work = tokio::spawn(async move {
        let work = async move |ticket| {
            started.send(()).unwrap();
            may_finish.await.unwrap();
            done(state, ticket).await
        };
        keys.once("s", key("k"), same(), work).await
    });
    has_started.await.unwrap();
    Begun { work, finish }
}

/// What another process is answered about the key: the status, and after how many seconds it should
/// come again.
async fn refused(other: &AppState) -> (u16, String) {
    let response = run_done(other, "s").await.into_response();
    let after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), after.unwrap_or_default())
}

#[tokio::test]
async fn a_crashed_process_blocks_its_key_for_seconds_and_says_how_many() {
    let service = service().await;
    // It claims the key and freezes. (A crash looks the same from outside, but can't wake up
    // again.)
    let Begun { work: frozen, finish } = begin(&service).await;

    // Frozen with its process, its clock doesn't move, and it renews nothing.
    let clock = Clock::manual(START_MS);
    let other = open(&service.database, &clock).await;
    assert_eq!(refused(&other).await, (409, "1".into()), "as far as anyone knows it is being worked on");
    for remaining in [3, 2, 1] {
        clock.advance(Duration::from_secs(if remaining == 3 { 2 } else { 1 }));
        assert_eq!(refused(&other).await, (409, remaining.to_string()));
    }
    clock.advance(Duration::from_secs(1));
    let reused =
        other.keys().once("s", key("k"), Fingerprint::of(&"other").unwrap(), async |_| unreachable!()).await;
    assert_eq!(reused.unwrap_err().status(), 422);
    assert_eq!(run_done(&other, "s").await.unwrap().status(), 201);

    // It wakes up: its claim is gone, so its transaction must not commit.
    finish.send(()).unwrap();
    assert_eq!(frozen.await.unwrap().unwrap_err().status(), 409);
}

#[tokio::test]
async fn work_that_goes_on_keeps_its_key() {
    let service = service().await;
    let Begun { work, finish } = begin(&service).await;
    let other = open(&service.database, &service.clock).await;
    service.clock.advance(Duration::from_secs(4));
    // The lease is renewed once a second of real time.
    let renewed = async {
        while refused(&other).await != (409, "1".into()) || lease(&service).await < START_MS + 9_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(9), renewed).await.expect("renewed");
    service.clock.advance(Duration::from_secs(4));
    assert_eq!(run_done(&other, "s").await.unwrap_err().status(), 409);
    finish.send(()).unwrap();
    assert_eq!(work.await.unwrap().unwrap().status(), 201);
}

async fn lease(service: &Service) -> i64 {
    let mut connection = connect(&service.database.url).await;
    sqlx::query_scalar("SELECT lease_until FROM idempotency_keys").fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_clock_turned_back_does_not_block_the_key_of_a_crashed_process() {
    let service = service().await;
    let _crashed = begin(&service).await;
    let clock = Clock::manual(START_MS);
    clock.turn_back(Duration::from_hours(1));
    let other = open(&service.database, &clock).await;
    assert_eq!(run_done(&other, "s").await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day_and_swept() {
    let service = service().await;
    post_keyed(&service.app, "/users", "k", &ada()).await;
    service.clock.advance(Duration::from_secs(24 * 60 * 60 - 1));
    assert_eq!(post_keyed(&service.app, "/users", "k", &ada()).await.header("idempotent-replayed"), "true");
    assert_eq!(service.state.keys().sweep().await.unwrap(), 0);

    service.clock.advance(Duration::from_secs(1));
    let later = post_keyed(&service.app, "/users", "k", &json!({ "name": "Bob", "email": "b@c" })).await;
    assert_eq!((later.status.as_u16(), later.header("idempotent-replayed")), (201, ""));

    service.clock.advance(Duration::from_hours(24));
    assert_eq!(service.state.keys().sweep().await.unwrap(), 1);
    assert_eq!(service.database.count("idempotency_keys").await, 0);
}

#[tokio::test]
async fn without_a_key_every_post_is_its_own() {
    let service = service().await;
    for _ in 0..2 {
        assert_eq!(
            call(&service.app, post_request("/users", None, Body::from(ada().to_string()))).await.status,
            201
        );
    }
    assert_eq!(get(&service.app, "/users").await.json()["users"].as_array().unwrap().len(), 2);
    assert_eq!(service.database.count("idempotency_keys").await, 0);
}
