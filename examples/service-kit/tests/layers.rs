//! The layers round any service, on a virtual clock.

use std::time::Duration;

use axum::{
    Router,
    body::Bytes,
    http::Request,
    routing::{get, post},
};
use service_kit::testing::{call, get as ask};
use service_kit::{http, limits::Limits};

fn service() -> Router {
    let routes = Router::new()
        .route("/panic", get(async || -> () { panic!("secret sqlite detail") }))
        .route("/hang", get(std::future::pending::<()>))
        .route("/read", post(async |body: Bytes| body));
    http::wrap(routes, &Limits::default())
}

#[tokio::test]
async fn a_panic_is_a_500_that_keeps_its_message_to_itself() {
    let answer = ask(&service(), "/panic").await;
    answer.assert_problem(500);
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_cut_off_with_503() {
    let answer = ask(&service(), "/hang").await;
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_when_its_callers_time_is_over_and_not_begun_after_that() {
    for (left, path, mark) in [("250", "/hang", "cut"), ("0", "/panic", "deadline")] {
        let request = Request::get(path).header("x-envoy-expected-rq-timeout-ms", left);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(1), call(&service(), request)).await.unwrap();
        answer.assert_problem(504);
        assert_eq!(answer.header("x-resilient-client-shed"), mark);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_cut_off_too() {
    let trickle = futures_util::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
    });
    let body = axum::body::Body::from_stream(trickle);
    call(&service(), Request::post("/read").body(body).unwrap()).await.assert_problem(503);
}
