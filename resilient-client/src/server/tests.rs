use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use axum::{Router, middleware};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use proptest::prelude::*;
use tokio::time::sleep;
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;
use tower_service::Service;

use super::*;
use crate::advice::{self, RETRY, SHED, forbids_retry, is_shed};
use crate::deadline::{self, Deadline, header};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn request(time_left: &str) -> Request<Body> {
    Request::get("/").header(header::EXPECTED_TIMEOUT, time_left).body(Body::empty()).unwrap()
}

fn layer(policy: &DeadlinePolicy) -> DeadlineLayer {
    DeadlineLayer::new(policy).unwrap()
}

/// What the handler finds to be left, behind this layer.
async fn left(layer: &DeadlineLayer, request: Request<Body>) -> Option<Duration> {
    let found = Mutex::new(None);
    let service = layer.layer(service_fn(|_: Request<Body>| {
        let found = &found;
        async move {
            *found.lock().unwrap() = deadline::current().map(Deadline::remaining);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    found.into_inner().unwrap()
}

async fn answer<F>(layer: DeadlineLayer, request: Request<Body>, handler: F) -> Response<Body>
where
    F: Future<Output = ()>,
{
    let handler = Mutex::new(Some(handler));
    let service = layer.layer(service_fn(|_: Request<Body>| {
        let handler = handler.lock().unwrap().take().unwrap();
        async {
            handler.await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    service.oneshot(request).await.unwrap()
}

/// Cut off after it was begun.
fn is_cut_504<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::GATEWAY_TIMEOUT && advice::is_cut(response.headers())
}

fn is_shed_504<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::GATEWAY_TIMEOUT && is_shed(response.headers())
}

// ---- what the handler sees ----

#[tokio::test(start_paused = true)]
async fn the_handler_sees_the_callers_deadline() {
    assert_eq!(left(&DeadlineLayer::standard(), request("250")).await, Some(250 * MS));
    let mut both = request("250");
    both.headers_mut().insert(header::GRPC_TIMEOUT, HeaderValue::from_static("100m"));
    assert_eq!(left(&DeadlineLayer::standard(), both).await, Some(100 * MS));
    assert_eq!(deadline::current(), None);
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_a_handler_leave_it_time_to_answer() {
    let standard = DeadlinePolicy::standard;
    for (said, policy, expected) in [
        ("1000", standard(), 900),
        ("100", standard(), 90),
        ("5000", standard(), 4_900),
        ("1000", standard().reserve(300 * MS), 700),
        ("1000", standard().reserve(800 * MS), 500),
        ("1000", standard().reserve(Duration::ZERO), 1_000),
    ] {
        let found = Mutex::new(None);
        // Nested, they keep back no more than one does.
        let service = layer(&policy).layer(layer(&policy).layer(service_fn(|_: Request<Body>| {
            let found = &found;
            async move {
                let left = |deadline: Option<Deadline>| deadline.map(Deadline::remaining);
                *found.lock().unwrap() = left(deadline::for_calls());
                assert!(left(deadline::current()) >= left(deadline::for_calls()));
                // Who sets one of his own means it.
                let own = deadline::scope(Deadline::within(50 * MS), async { left(deadline::for_calls()) });
                assert_eq!(own.await, Some(50 * MS));
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        })));
        service.oneshot(request(said)).await.unwrap();
        assert_eq!(found.into_inner().unwrap(), Some(expected * MS), "{said} {policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_can_not_ask_for_more_than_the_most() {
    for said in ["60001", "99999999999999999999999"] {
        assert_eq!(left(&DeadlineLayer::standard(), request(said)).await, Some(60 * SECOND), "{said}");
    }
    let layer = layer(&DeadlinePolicy::standard().max(SECOND));
    assert_eq!(left(&layer, request("5000")).await, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_say_has_the_time_set_for_it() {
    let set = layer(&DeadlinePolicy::standard().absent(5 * SECOND));
    for said in ["soon", "-1", ""] {
        assert_eq!(left(&DeadlineLayer::standard(), request(said)).await, None, "{said}");
        assert_eq!(left(&set, request(said)).await, Some(5 * SECOND), "{said}");
    }
    assert_eq!(left(&set, request("7000")).await, Some(7 * SECOND), "it says");
}

#[tokio::test(start_paused = true)]
async fn another_header_can_hold_the_time() {
    let layer = layer(&DeadlinePolicy::standard().header(http::HeaderName::from_static("x-time-left")));
    assert_eq!(left(&layer, request("250")).await, None);
    let other = Request::get("/").header("x-time-left", "90").body(Body::empty()).unwrap();
    assert_eq!(left(&layer, other).await, Some(90 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_already_holds_is_not_raised() {
    let long = DeadlineLayer::standard();
    let inner = deadline::scope(Deadline::within(SECOND), left(&long, request("5000")));
    assert_eq!(inner.await, Some(SECOND));
}

// ---- what is turned away, and when ----

#[tokio::test(start_paused = true)]
async fn a_request_without_time_never_reaches_the_handler() {
    let reached = AtomicBool::new(false);
    let needs_20 = layer(&DeadlinePolicy::standard().need(20 * MS));
    for (layer, said) in [(DeadlineLayer::standard(), "0"), (needs_20.clone(), "0"), (needs_20.clone(), "19")]
    {
        let service = layer.layer(service_fn(|_: Request<Body>| {
            reached.store(true, Ordering::Relaxed);
            ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        }));
        assert!(is_shed_504(&service.oneshot(request(said)).await.unwrap()), "{said}");
        assert!(!reached.load(Ordering::Relaxed));
    }
    for (layer, said) in [(needs_20, "20"), (DeadlineLayer::standard(), "1")] {
        assert!(left(&layer, request(said)).await.is_some(), "{said}");
    }
}

/// Between the call and the first poll there may be a queue.
#[tokio::test(start_paused = true)]
async fn a_request_whose_time_runs_out_before_it_is_first_polled_is_turned_away() {
    let polled = AtomicBool::new(false);
    let mut service = DeadlineLayer::standard().layer(service_fn(|_: Request<Body>| async {
        polled.store(true, Ordering::Relaxed);
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    let queued = service.call(request("100"));
    sleep(100 * MS).await;
    assert!(is_shed_504(&queued.await.unwrap()));
    assert!(!polled.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn the_handler_is_dropped_at_the_deadline() {
    struct Dropped<'a>(&'a AtomicBool);
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = AtomicBool::new(false);
    let start = crate::time::now();
    let response = answer(DeadlineLayer::standard(), request("100"), async {
        let _guard = Dropped(&dropped);
        pending::<()>().await;
    });
    assert!(is_cut_504(&response.await));
    assert!(dropped.load(Ordering::Relaxed));
    let took = crate::time::now().since(start);
    assert!((100 * MS..=102 * MS).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_wakes_at_the_deadline_does_no_more_work() {
    let worked = AtomicUsize::new(0);
    let response = answer(DeadlineLayer::standard(), request("100"), async {
        for _ in 0..10 {
            worked.fetch_add(1, Ordering::Relaxed);
            sleep(25 * MS).await;
        }
    });
    assert!(is_cut_504(&response.await));
    // At 0, 25, 50 and 75 ms; not at 100.
    assert_eq!(worked.into_inner(), 4);
}

#[tokio::test(start_paused = true)]
async fn unless_it_is_not_enforced() {
    let layer = layer(&DeadlinePolicy::standard().enforce(false));
    let response = answer(layer.clone(), request("100"), async {
        sleep(SECOND).await;
        assert!(deadline::current().unwrap().is_past());
    });
    assert_eq!(response.await.status(), StatusCode::OK);
    assert!(is_shed_504(&answer(layer, request("0"), async {}).await), "too late is too late");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_and_an_error_pass_untouched() {
    let response = answer(DeadlineLayer::standard(), request("100"), sleep(99 * MS)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().is_empty());
    let service = DeadlineLayer::standard()
        .layer(service_fn(|_: Request<Body>| ready(Err::<Response<Body>, _>("broken"))));
    assert_eq!(service.oneshot(request("100")).await.unwrap_err(), "broken");
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_there_is_no_timer() {
    let response = answer(DeadlineLayer::standard(), request("soon"), sleep(3600 * SECOND)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// A body like tonic's: boxed, and with a default.
#[tokio::test(start_paused = true)]
async fn a_grpc_request_is_told_so_in_its_own_terms() {
    type Boxed = UnsyncBoxBody<bytes::Bytes, std::io::Error>;
    let service = DeadlineLayer::standard()
        .layer(service_fn(|_: Request<Boxed>| pending::<Result<Response<Boxed>, Infallible>>()));
    let request = Request::post("/users.Users/Get")
        .header("content-type", "application/grpc+proto")
        .header(header::GRPC_TIMEOUT, "50m")
        .body(Boxed::default());
    let response = service.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert!(advice::is_cut(response.headers()));
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let standard = DeadlinePolicy::standard;
    for (policy, message) in [
        (standard().max(Duration::ZERO), "deadline.max must be longer than zero, got 0s"),
        (standard().need(60 * SECOND), "deadline.need must be shorter than deadline.max (60s), got 60s"),
        (standard().absent(Duration::ZERO), "deadline.absent must be longer than zero, got 0s"),
        (
            standard().absent(61 * SECOND),
            "deadline.absent must be between deadline.need (0ns) and deadline.max (60s), got 61s",
        ),
        (
            standard().need(SECOND).absent(999 * MS),
            "deadline.absent must be between deadline.need (1s) and deadline.max (60s), got 999ms",
        ),
    ] {
        assert_eq!(DeadlineLayer::new(&policy).unwrap_err().to_string(), message);
    }
    assert!(DeadlineLayer::new(&standard().max(Duration::MAX)).is_err());
    assert!(DeadlineLayer::new(&standard()).is_ok());
}

proptest! {
    #[test]
    fn whatever_the_caller_says_no_limit_is_raised(
        said in prop_oneof!["[0-9]{1,30}", "[-+0-9., a-z]{0,20}"],
        grpc in "[0-9]{0,9}[HMSmunx]?",
        max in 1_u64..100_000,
        outer in prop::option::of(1_u64..100_000),
    ) {
        let policy = DeadlinePolicy::standard().max(Duration::from_millis(max));
        let mut request = request(&said);
        request.headers_mut().insert(header::GRPC_TIMEOUT, HeaderValue::from_str(&grpc).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let outer = outer.map(|ms| Deadline::within(Duration::from_millis(ms)));
            let service = layer(&policy).layer(service_fn(|_: Request<Body>| async {
                let found = deadline::current();
                if let Some(found) = found {
                    assert!(outer.is_none_or(|outer| found <= outer));
                    assert!(outer == Some(found) || found <= Deadline::within(Duration::from_millis(max)));
                }
                assert!(outer.is_none() || found.is_some());
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }));
            let response = match outer {
                Some(outer) => deadline::scope(outer, service.oneshot(request)).await,
                None => service.oneshot(request).await,
            };
            let response = response.unwrap();
            assert!(response.status() == StatusCode::OK || is_shed_504(&response));
        });
    }
}

// ---- retry advice ----

async fn advised<F>(status: StatusCode, handler: impl Fn() -> F) -> bool
where
    F: Future<Output = ()>,
{
    let service = RetryAdviceLayer::new().layer(service_fn(|_: Request<Body>| {
        let handler = handler();
        async move {
            handler.await;
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::empty()).unwrap())
        }
    }));
    let response = service.oneshot(request("100")).await.unwrap();
    assert_eq!(response.headers().contains_key(RETRY), forbids_retry(response.headers()));
    forbids_retry(response.headers())
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_marked_when_its_repetition_is_pointless() {
    let forbids = || async {
        sleep(MS).await;
        advice::forbid_retry();
        sleep(MS).await;
    };
    let at_once = || {
        advice::forbid_retry();
        ready(())
    };
    assert!(advised(StatusCode::BAD_GATEWAY, forbids).await);
    assert!(advised(StatusCode::INTERNAL_SERVER_ERROR, at_once).await, "in the call itself");
    for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::TOO_MANY_REQUESTS] {
        assert!(!advised(status, forbids).await, "{status}: the handler coped");
    }
    assert!(!advised(StatusCode::BAD_GATEWAY, || async {}).await, "nothing was said");
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_grpcs_is_marked_in_its_own_words_too() {
    let answered = |code: &'static str| async move {
        let service = RetryAdviceLayer::new().layer(service_fn(move |_: Request<Body>| {
            advice::forbid_retry();
            let head =
                Response::builder().header("content-type", "application/grpc").header("grpc-status", code);
            ready(Ok::<_, Infallible>(head.body(Body::empty()).unwrap()))
        }));
        let response = service.oneshot(request("100")).await.unwrap();
        let pushback = response.headers().get("grpc-retry-pushback-ms").cloned();
        (forbids_retry(response.headers()), pushback.map(|value| value.to_str().unwrap().to_owned()))
    };
    for code in ["14", "13", "4"] {
        assert_eq!(answered(code).await, (true, Some("-1".to_owned())), "{code}");
    }
    for code in ["0", "5"] {
        assert_eq!(answered(code).await, (false, None), "{code}: the handler coped");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_take_turns_on_a_thread_do_not_advise_for_each_other() {
    let forbids = || async {
        sleep(MS).await;
        advice::forbid_retry();
        sleep(2 * MS).await;
    };
    let silent = || sleep(2 * MS);
    let (loud, silent) =
        tokio::join!(advised(StatusCode::BAD_GATEWAY, forbids), advised(StatusCode::BAD_GATEWAY, silent));
    assert!(loud && !silent);
}

// ---- in axum ----

#[tokio::test(start_paused = true)]
async fn works_round_an_axum_router_and_its_routes() {
    let report = layer(&DeadlinePolicy::standard().need(50 * MS));
    let failing = get(|| async {
        advice::forbid_retry();
        StatusCode::BAD_GATEWAY
    });
    let left = get(|| async { format!("{:?}", deadline::current().map(Deadline::remaining)) });
    let app: Router = Router::new()
        .route("/report", get(|| async { "done" }).layer(report))
        .route("/slow", get(|| sleep(SECOND)))
        .route("/failing", failing)
        .route("/left", left)
        .layer(middleware::from_fn(|request, next: middleware::Next| next.run(request)))
        .layer(RetryAdviceLayer::new())
        .layer(DeadlineLayer::standard());
    let get = |path: &str, said: &str| {
        let request = Request::get(path).header(header::EXPECTED_TIMEOUT, said).body(Body::empty()).unwrap();
        let app = app.clone();
        async move { app.oneshot(request).await.unwrap() }
    };
    assert_eq!(get("/report", "50").await.status(), StatusCode::OK);
    assert!(is_shed_504(&get("/report", "49").await));
    assert!(is_cut_504(&get("/slow", "999").await));
    assert_eq!(get("/slow", "1001").await.status(), StatusCode::OK);
    assert!(forbids_retry(get("/failing", "50").await.headers()));
    assert!(!get("/failing", "0").await.headers().contains_key(RETRY), "it never ran");
    let body = http_body_util::BodyExt::collect(get("/left", "250").await.into_body()).await.unwrap();
    assert_eq!(body.to_bytes(), "Some(250ms)");
}

// ---- E11: A -> B -> C ----

/// When C began a piece of work, counted from A's start.
type Work = Arc<Mutex<Vec<Duration>>>;

/// C takes 3 s, in pieces of 100 ms. B calls it, and calls it again when it fails. A allows 1 s for
/// all of it.
async fn chain(hold: impl Fn() -> Option<DeadlineLayer>) -> Vec<Duration> {
    let (work, start) = (Work::default(), Deadline::within(Duration::ZERO).tick());
    let since_start = move || crate::time::now().since(start);
    let c = {
        let work = Arc::clone(&work);
        service_fn(move |_: Request<Body>| {
            let work = Arc::clone(&work);
            async move {
                for _ in 0..30 {
                    work.lock().unwrap().push(since_start());
                    sleep(100 * MS).await;
                }
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        })
    };
    let c = tower::util::option_layer(hold()).layer(c);
    let b = service_fn(move |_: Request<Body>| {
        let c = c.clone();
        async move {
            loop {
                // A pause, so that what is sent isn't what came in.
                sleep(50 * MS).await;
                let mut request = Request::get("/").body(Body::empty()).unwrap();
                if let Some(value) =
                    deadline::current().and_then(|deadline| header::value(deadline.remaining()))
                {
                    request.headers_mut().insert(header::EXPECTED_TIMEOUT, value);
                }
                // The connection outlives B's interest in it: only the header tells C.
                let response = tokio::spawn(c.clone().oneshot(request)).await.unwrap();
                if let Ok(response) = response
                    && response.status() == StatusCode::OK
                {
                    return Ok::<_, Infallible>(response);
                }
            }
        }
    });
    let b = tower::util::option_layer(hold()).layer(b);
    // A's own timeout; whoever it called goes on unless a deadline holds it.
    let call = tokio::spawn(b.oneshot(request("1000")));
    let _ = tokio::time::timeout(SECOND, call).await;
    sleep(10 * SECOND).await;
    let work = work.lock().unwrap();
    work.clone()
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_a_chain_no_work_starts_after_the_deadline() {
    let work = chain(|| Some(DeadlineLayer::standard())).await;
    assert_eq!((work.first(), work.len()), (Some(&(50 * MS)), 10));
    assert!(work.iter().all(|began| *began < SECOND), "{work:?}");
}

#[tokio::test(start_paused = true)]
async fn control_without_the_layer_the_end_of_the_chain_works_on() {
    let work = chain(|| None).await;
    assert!(work.iter().filter(|began| **began >= SECOND).count() >= 20, "{work:?}");
}

#[test]
fn the_markers_are_what_the_documentation_says() {
    assert_eq!((SHED.as_str(), RETRY.as_str()), ("x-resilient-client-shed", "x-resilient-client-retry"));
}

/// The place stayed reserved in a service that nobody called again.
#[tokio::test]
async fn a_request_turned_away_gives_back_what_poll_ready_reserved() {
    use tower::limit::ConcurrencyLimit;

    let handler = tower::service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::from("served")))
    });
    let layer = DeadlineLayer::standard();
    let mut one = layer.layer(ConcurrencyLimit::new(handler, 1));
    let mut other = one.clone();
    let request = |ms: &str| Request::get("/").header("x-envoy-expected-rq-timeout-ms", ms).body(()).unwrap();
    let shed = one.ready().await.unwrap().call(request("0")).await.unwrap();
    assert_eq!(shed.status(), StatusCode::GATEWAY_TIMEOUT);
    let ready = tokio::time::timeout(SECOND, other.ready()).await.expect("the place is free");
    assert_eq!(ready.unwrap().call(request("1000")).await.unwrap().into_body(), "served");
    assert_eq!(one.ready().await.unwrap().call(request("1000")).await.unwrap().into_body(), "served");
}
