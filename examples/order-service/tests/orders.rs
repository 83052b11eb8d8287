//! What a client of order-service sees, while user-service is well and while it isn't.

mod fake;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http::Request};
use fake::{ADA, BOB, Says, Service, order};
use futures_util::future::join_all;
use order_service::{AppState, Existence, LookupFuture, LookupRequest, OrderStatus, UserLookup, app};
use resilient_client::deadline::{self, Deadline};
use serde_json::json;
use service_kit::testing::{TestDatabase, call, connect, get, post, post_keyed, post_request, postgres};

#[tokio::test]
async fn an_order_of_a_known_user_is_confirmed() {
    let service = Service::new(Says::Exists).await;
    let placed = service.place(ADA).await;
    assert_eq!(placed.status, 201);
    let body = placed.json();
    assert_eq!((body["status"].as_str(), body["user_id"].as_str()), (Some("confirmed"), Some(ADA)));
    assert_eq!(body["items"], json!([{ "sku": "sku-1", "quantity": 2 }]));
    assert_eq!((&body["resolved_at_ms"], &body["resolutions"]), (&json!(null), &json!(0)));

    let found = get(&service.app, placed.header("location")).await;
    assert_eq!((found.status.as_u16(), found.json()), (200, body));
}

#[tokio::test]
async fn an_order_of_an_unknown_user_is_422_and_not_stored() {
    let service = Service::new(Says::Unknown).await;
    let answer = service.place(ADA).await;
    answer.assert_blames(422, &["user_id"]);
    assert_eq!(answer.json()["type"], "urn:problem:unknown-user");
    assert_eq!(service.database.count("orders").await, 0);
}

#[tokio::test]
async fn an_order_is_kept_as_pending_however_user_service_fails() {
    for says in [Says::Down, Says::Hang, Says::Panic] {
        let service = Service::new(says).await;
        let placed = service.place(ADA).await;
        assert_eq!(placed.status, 202, "{says:?}");
        assert_eq!(placed.text("status"), "pending_verification");
        let found = get(&service.app, placed.header("location")).await;
        assert_eq!((found.status.as_u16(), found.json()), (200, placed.json()));
    }
}

#[tokio::test]
async fn reads_never_ask_user_service() {
    let service = Service::new(Says::Down).await;
    let id = service.place_pending(ADA).await;
    service.users.now_says(Says::Hang);
    for path in ["/orders", "/orders?status=confirmed", &format!("/orders/{id}"), "/healthz", "/readyz"] {
        assert_eq!(get(&service.app, path).await.status, 200, "{path}");
    }
    assert_eq!(service.users.calls(), 1);
}

#[tokio::test]
async fn the_request_id_travels_on_to_user_service() {
    let service = Service::new(Says::Exists).await;
    let mut request = post_request("/orders", None, order(ADA).to_string());
    request.headers_mut().insert("x-request-id", "story-7".parse().unwrap());
    assert_eq!(call(&service.app, request).await.header("x-request-id"), "story-7");
    assert_eq!(*service.users.asked.lock().unwrap(), [(ADA.to_owned(), "story-7".to_owned())]);
}

/// Notes how long its client may take.
#[derive(Default)]
struct Timed(Mutex<Vec<Option<Duration>>>);

impl UserLookup for Timed {
    fn lookup<'a>(&'a self, _lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        self.0.lock().unwrap().push(deadline::current().map(Deadline::remaining));
        Box::pin(async { Ok(Existence::Exists) })
    }
}

#[tokio::test]
async fn the_callers_deadline_travels_on_to_user_service_less_the_time_to_store_the_order() {
    let (users, database) = (Arc::new(Timed::default()), TestDatabase::new().await);
    let state = AppState::open(&fake::config(&database), users.clone()).await.unwrap();
    let app = app(state);
    for says in [None, Some("60000")] {
        let mut request = post_request("/orders", None, order(ADA).to_string());
        if let Some(says) = says {
            request.headers_mut().insert("x-envoy-expected-rq-timeout-ms", says.parse().unwrap());
        }
        assert_eq!(call(&app, request).await.status, 201);
    }
    let given = users.0.lock().unwrap().clone();
    assert_eq!(given[0], None, "who says nothing leaves it to order-service");
    let left = given[1].expect("a deadline");
    assert!(left <= Duration::from_millis(59_900) && left > Duration::from_secs(30), "{left:?}");
}

#[tokio::test]
async fn a_broken_rule_is_422_names_every_field_and_asks_nobody() {
    let service = Service::new(Says::Exists).await;
    let item = json!({ "sku": "a", "quantity": 1 });
    let many = vec![item.clone(); 101];
    for (body, fields) in [
        (json!({}), &["user_id", "items"][..]),
        (json!({ "user_id": "1", "items": [item] }), &["user_id"]),
        (json!({ "user_id": "../admin", "items": [item] }), &["user_id"]),
        (json!({ "user_id": ADA, "items": [] }), &["items"]),
        (json!({ "user_id": ADA, "items": many }), &["items"]),
        (json!({ "user_id": ADA, "items": [item, {}] }), &["items[1].sku", "items[1].quantity"]),
        (
            json!({ "user_id": ADA, "items": [{ "sku": "a b", "quantity": 0 }] }),
            &["items[0].sku", "items[0].quantity"],
        ),
        (json!({ "user_id": ADA, "items": [{ "sku": "a", "quantity": 10_001 }] }), &["items[0].quantity"]),
        (json!({ "user_id": ADA, "items": [{ "sku": "a", "quantity": 1.5 }] }), &["items[0].quantity"]),
        (json!({ "user_id": ADA, "items": [{ "sku": "a", "quantity": "1" }] }), &["items[0].quantity"]),
        (json!({ "user_id": ADA, "items": [{ "sku": "a", "quantity": 1e300 }] }), &["items[0].quantity"]),
        (json!({ "user_id": ADA, "items": [item], "status": "confirmed" }), &["status"]),
        (json!({ "user_id": 7, "items": [item] }), &["user_id"]),
    ] {
        post(&service.app, "/orders", &body).await.assert_blames(422, fields);
    }
    assert_eq!((service.users.calls(), service.database.count("orders").await), (0, 0));
}

#[tokio::test]
async fn bad_requests_are_problems() {
    let service = Service::new(Says::Exists).await;
    for (path, status) in [
        ("/", 404),
        ("/orders/", 404),
        ("/orders/1", 400),
        ("/orders/01980000-0000-7000-8000-000000000000", 404),
        ("/orders?limit=0", 400),
        ("/orders?after=1", 400),
        ("/orders?after=01980000-0000-7000-8000-000000000000", 400),
        ("/orders?status=", 400),
        ("/orders?status=Confirmed", 400),
        ("/orders?state=confirmed", 400),
    ] {
        get(&service.app, path).await.assert_problem(status);
    }
    call(&service.app, Request::put("/orders").body(Body::empty()).unwrap()).await.assert_problem(405);
    call(&service.app, Request::post("/orders").body("{}".into()).unwrap()).await.assert_problem(415);
    call(&service.app, post_request("/orders", None, "{")).await.assert_problem(400);
    call(&service.app, post_request("/orders", None, vec![b' '; 65 * 1024])).await.assert_problem(413);
}

#[tokio::test]
async fn pages_can_be_narrowed_to_a_status() {
    let service = Service::new(Says::Exists).await;
    service.users.says_about(BOB, Says::Down);
    let (mut confirmed, mut pending) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        confirmed.push(service.place(ADA).await.text("id"));
        pending.push(service.place_pending(BOB).await);
    }
    let ids = async |query: &str| {
        let page = get(&service.app, &format!("/orders?{query}")).await.json();
        let orders = page["orders"].as_array().unwrap().iter();
        (orders.map(|o| o["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), page["next"].clone())
    };
    assert_eq!(ids("status=confirmed").await, (confirmed, json!(null)));
    assert_eq!(ids("status=rejected").await, (vec![], json!(null)));
    let (first, next) = ids("status=pending_verification&limit=2").await;
    assert_eq!((&first[..], next.as_str()), (&pending[..2], Some(pending[1].as_str())));
    let (last, next) = ids(&format!("status=pending_verification&limit=2&after={}", pending[1])).await;
    assert_eq!((&last[..], next), (&pending[2..], json!(null)));
    assert_eq!(ids("").await.0.len(), 6);
}

/// An id is made before its order is committed, so two may come in the other order. Postgres only:
/// `SQLite` has one writer.
#[tokio::test]
async fn following_the_list_misses_no_order_that_is_committed_late() {
    let test = "following_the_list_misses_no_order_that_is_committed_late";
    let Some(_) = postgres(test) else { return };
    let service = Service::new(Says::Exists).await;
    // The first waits with its id in hand for a lock that somebody else has on its key.
    service.users.says_about(BOB, Says::Gated);
    let config = order_service::Config { lookup_limit_ms: 9_000, ..fake::config(&service.database) };
    let state = order_service::AppState::open(&config, service.users.clone()).await.unwrap();
    let app = order_service::app(state);
    let first = {
        let app = app.clone();
        tokio::spawn(async move { post_keyed(&app, "/orders", "k", &order(BOB)).await })
    };
    service.users.begun.acquire().await.unwrap().forget();
    let mut somebody = connect(&service.database.url).await;
    for statement in ["BEGIN", "UPDATE idempotency_keys SET scope = scope"] {
        sqlx::Executor::execute(&mut somebody, statement).await.unwrap();
    }
    service.users.gate.add_permits(1);
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity \
         WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE idempotency_keys%'";
    let mut watcher = connect(&service.database.url).await;
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watcher).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    let second = post(&app, "/orders", &order(ADA)).await.text("id");
    let seen = get(&app, "/orders").await.json();
    assert_eq!(seen["orders"].as_array().unwrap().len(), 1);

    sqlx::Executor::execute(&mut somebody, "ROLLBACK").await.unwrap();
    let first = first.await.unwrap().text("id");
    assert!(first < second, "its id is older");
    let rest = get(&app, &format!("/orders?after={second}")).await.json();
    assert_eq!(rest["orders"][0]["id"], json!(first), "{rest}");
}

#[tokio::test]
async fn the_same_key_replays_every_kind_of_answer() {
    for (says, status) in [(Says::Exists, 201), (Says::Unknown, 422), (Says::Down, 202)] {
        let service = Service::new(says).await;
        let first = post_keyed(&service.app, "/orders", "k", &order(ADA)).await;
        // The answer stays what it was, whatever user-service says by now.
        service.users.now_says(Says::Exists);
        let second = post_keyed(&service.app, "/orders", "k", &order(ADA)).await;
        assert_eq!((first.status.as_u16(), second.status.as_u16()), (status, status));
        assert_eq!((first.header("idempotent-replayed"), second.header("idempotent-replayed")), ("", "true"));
        assert_eq!(first.body, second.body);
        for header in ["location", "content-type"] {
            assert_eq!(first.header(header), second.header(header), "{header}");
        }
        assert_eq!(service.users.calls(), 1);
        assert_eq!(service.database.count("orders").await, i64::from(status != 422));
        post_keyed(&service.app, "/orders", "k", &order(BOB)).await.assert_problem(422);
    }
}

#[tokio::test]
async fn the_key_is_in_flight_while_user_service_is_asked() {
    let service = Service::new(Says::Gated).await;
    let config = order_service::Config { lookup_limit_ms: 9_000, ..fake::config(&service.database) };
    let state = order_service::AppState::open(&config, service.users.clone()).await.unwrap();
    let patient = order_service::app(state);
    let body = order(ADA);
    let first = post_keyed(&patient, "/orders", "k", &body);
    let second = async {
        service.users.begun.acquire().await.unwrap().forget();
        let answer = post_keyed(&patient, "/orders", "k", &order(ADA)).await;
        service.users.gate.add_permits(1);
        answer
    };
    let (first, second) = tokio::join!(first, second);
    second.assert_problem(409);
    assert_eq!((first.status.as_u16(), second.header("retry-after")), (201, "1"));
    assert_eq!((service.users.calls(), service.database.count("orders").await), (1, 1));
}

#[tokio::test]
async fn a_client_that_hangs_up_during_the_lookup_finds_its_order_stored() {
    let service = Service::new(Says::Gated).await;
    let config = order_service::Config { lookup_limit_ms: 9_000, ..fake::config(&service.database) };
    let state = order_service::AppState::open(&config, service.users.clone()).await.unwrap();
    let patient = order_service::app(state.clone());
    let request = {
        let app = patient.clone();
        tokio::spawn(async move { post_keyed(&app, "/orders", "k", &order(ADA)).await })
    };
    service.users.begun.acquire().await.unwrap().forget();
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    service.users.gate.add_permits(1);
    let tasks = state.background().tasks();
    tasks.close();
    tasks.wait().await;

    let retry = post_keyed(&patient, "/orders", "k", &order(ADA)).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, "true"));
    assert_eq!((service.users.calls(), service.database.count("orders").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_with_one_key_place_one_order_and_ask_once() {
    let service = Service::new(Says::Down).await;
    let answers = join_all((0..50).map(|_| {
        let app = service.app.clone();
        tokio::spawn(async move { post_keyed(&app, "/orders", "k", &order(ADA)).await })
    }));
    let mut fresh = 0;
    for answer in answers.await {
        let answer = answer.unwrap();
        match (answer.status.as_u16(), answer.header("idempotent-replayed")) {
            (202, "") => fresh += 1,
            (202, "true") => {}
            _ => drop(answer.assert_problem(409)),
        }
    }
    assert_eq!((fresh, service.users.calls(), service.database.count("orders").await), (1, 1, 1));
}

#[tokio::test]
async fn a_failure_to_store_releases_the_key_and_loses_nothing_silently() {
    let service = Service::new(Says::Exists).await;
    service.database.execute("ALTER TABLE orders RENAME TO elsewhere").await;
    post_keyed(&service.app, "/orders", "k", &order(ADA)).await.assert_problem(500);
    get(&service.app, "/orders").await.assert_problem(500);
    service.database.execute("ALTER TABLE elsewhere RENAME TO orders").await;
    let retry = post_keyed(&service.app, "/orders", "k", &order(ADA)).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, ""));
    assert_eq!(service.with_status(OrderStatus::Confirmed).await.len(), 1);
}
