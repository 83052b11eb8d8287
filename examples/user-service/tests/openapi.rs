//! The `OpenAPI` document says what is answered, and nothing else.

use axum::{
    Router,
    body::Body,
    http::{Method, Request},
};
use service_kit::{
    contract::Contract,
    testing::{TestDatabase, post_request},
};
use user_service::{AppState, Config, app};

const ADA: &str = r#"{"name": "Ada", "email": "ada@example.com"}"#;
const NOBODY: &str = "/users/01980000-0000-7000-8000-000000000000";

fn put(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(Method::PUT).uri(path);
    request.header("content-type", "application/json").body(body.into()).unwrap()
}

async fn service() -> (Router, TestDatabase) {
    let database = TestDatabase::new().await;
    let config = Config { database_url: database.url.clone(), ..Config::default() };
    (app(AppState::open(&config).await.unwrap()), database)
}

#[tokio::test]
async fn every_answer_is_in_the_document_and_every_answer_in_the_document_is_given() {
    let (app, _database) = service().await;
    let mut contract = Contract::of(&app).await;
    for path in ["/healthz", "/readyz", "/users?limit=0", "/users/1", NOBODY] {
        contract.get(&app, path).await;
    }
    let bad_id = Request::get("/users/events").header("last-event-id", "x").body(Body::empty()).unwrap();
    assert_eq!(contract.call(&app, bad_id).await.status, 400);
    let made = contract.call(&app, post_request("/users", Some("k"), ADA)).await;
    contract.call(&app, post_request("/users", Some("k"), ADA)).await;
    let other = r#"{"name": "Bob", "email": "bob@example.com"}"#;
    contract.call(&app, post_request("/users", Some("k"), other)).await;
    contract.call(&app, post_request("/users", None, ADA)).await;
    for path in ["/users", "/users?limit=1"] {
        contract.get(&app, path).await;
    }
    let ada = format!("/users/{}", made.text("id"));
    contract.get(&app, &ada).await;
    contract.call(&app, put(&ada, ADA)).await;
    contract.call(&app, put(NOBODY, ADA)).await;
    contract.call(&app, put("/users/1", ADA)).await;
    for (post, put) in [
        (post_request("/users", None, "{"), put(&ada, "{")),
        (post_request("/users", None, "{}"), put(&ada, "{}")),
        (post_request("/users", None, vec![b' '; 65 * 1024]), put(&ada, vec![b' '; 65 * 1024])),
        (Request::post("/users").body("{}".into()).unwrap(), Request::put(&ada).body("{}".into()).unwrap()),
    ] {
        contract.call(&app, post).await;
        contract.call(&app, put).await;
    }
    // The stream of events has no end, which tests/events.rs shows. Those that need a full disk, a
    // slow handler, or a fault of the service's, are shown elsewhere: order-service's
    // tests/server.rs, service-kit's tests/layers.rs and tests/idempotency.rs.
    contract.assert_complete(&["500", "503", "504", "POST /users 409", "GET /users/events 200"]);
}

#[tokio::test]
async fn its_routes_are_those_of_the_document() {
    let (app, _database) = service().await;
    let contract = Contract::of(&app).await;
    contract.assert_methods(&app).await;
    contract.assert_routes(&[
        include_str!("../src/routes.rs"),
        include_str!("../../service-kit/src/health.rs"),
        include_str!("../../service-kit/src/openapi.rs"),
    ]);
}

#[tokio::test]
async fn every_problem_type_that_the_code_has_is_in_the_document() {
    let (app, _database) = service().await;
    let contract = Contract::of(&app).await;
    let sources = [
        include_str!("../src/routes.rs"),
        include_str!("../../service-kit/src/problem.rs"),
        include_str!("../../service-kit/src/idempotency/mod.rs"),
    ];
    assert_eq!(contract.problem_types(), service_kit::contract::problem_types_in(&sources));
}
