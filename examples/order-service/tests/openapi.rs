//! The `OpenAPI` document says what is answered, and nothing else.

mod fake;

use axum::http::Request;
use fake::{ADA, BOB, Says, Service, order};
use service_kit::{
    contract::{Contract, problem_types_in},
    testing::post_request,
};

#[tokio::test]
async fn every_answer_is_in_the_document_and_every_answer_in_the_document_is_given() {
    let service = Service::new(Says::Exists).await;
    let app = &service.app;
    let mut contract = Contract::of(app).await;
    let nobody = "/orders/01980000-0000-7000-8000-000000000000";
    for path in ["/healthz", "/readyz", "/orders?limit=0", "/orders?status=lost", "/orders/1", nobody] {
        contract.get(app, path).await;
    }
    let of = |user: &str| order(user).to_string();
    let made = contract.call(app, post_request("/orders", Some("k"), of(ADA))).await;
    contract.call(app, post_request("/orders", Some("k"), of(ADA))).await;
    contract.call(app, post_request("/orders", Some("k"), of(BOB))).await;
    contract.get(app, &format!("/orders/{}", made.text("id"))).await;
    service.users.now_says(Says::Unknown);
    contract.call(app, post_request("/orders", Some("unknown"), of(BOB))).await;
    contract.call(app, post_request("/orders", Some("unknown"), of(BOB))).await;
    service.users.now_says(Says::Down);
    contract.call(app, post_request("/orders", None, of(ADA))).await;
    for path in ["/orders", "/orders?limit=1", "/orders?status=pending_verification"] {
        contract.get(app, path).await;
    }
    for request in [
        post_request("/orders", None, "{"),
        post_request("/orders", None, "{}"),
        post_request("/orders", None, vec![b' '; 65 * 1024]),
        Request::post("/orders").body("{}".into()).unwrap(),
    ] {
        contract.call(app, request).await;
    }
    service.users.now_says(Says::Gated);
    let first = {
        let (app, request) = (app.clone(), post_request("/orders", Some("held"), of(ADA)));
        tokio::spawn(async move { service_kit::testing::call(&app, request).await })
    };
    service.users.begun.acquire().await.unwrap().forget();
    let second = contract.call(app, post_request("/orders", Some("held"), of(ADA))).await;
    assert_eq!(second.status, 409);
    service.users.gate.add_permits(1);
    let first = first.await.unwrap();
    contract.check("POST", "/orders", &first);
    // Those that need a full disk, a slow handler or a fault of the service's are shown in
    // tests/server.rs and in service-kit's tests/layers.rs.
    contract.assert_complete(&["500", "503", "504"]);
}

#[tokio::test]
async fn its_routes_are_those_of_the_document() {
    let service = Service::new(Says::Exists).await;
    let contract = Contract::of(&service.app).await;
    contract.assert_methods(&service.app).await;
    contract.assert_routes(&[
        include_str!("../src/routes.rs"),
        include_str!("../../service-kit/src/health.rs"),
        include_str!("../../service-kit/src/openapi.rs"),
    ]);
}

#[tokio::test]
async fn every_problem_type_that_the_code_has_is_in_the_document() {
    let service = Service::new(Says::Exists).await;
    let contract = Contract::of(&service.app).await;
    let sources = [
        include_str!("../src/routes.rs"),
        include_str!("../../service-kit/src/problem.rs"),
        include_str!("../../service-kit/src/idempotency/mod.rs"),
    ];
    assert_eq!(contract.problem_types(), problem_types_in(&sources));
}
