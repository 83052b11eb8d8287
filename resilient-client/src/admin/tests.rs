//! The router as its users see it: who is let in, what is shown, what can be done.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::policy::PolicySet;
use crate::policy::retry::RetryPolicy;
use crate::{ErrorKind, Policy, ResilienceLayer};

mod held;
mod schema;
mod unlocked;

const TOKEN: &str = "open sesame";

fn layer() -> ResilienceLayer {
    ResilienceLayer::builder().build().unwrap()
}

fn router(layer: &ResilienceLayer) -> Router {
    let admin = Admin::new(Access::token(TOKEN)).client("users", layer);
    Router::new().nest_service("/admin", admin.router().unwrap())
}

fn request(method: Method, path: &str, body: &Value) -> Request<Body> {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/admin{path}"))
        .header("host", "localhost:3100")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    request.extensions_mut().insert(ConnectInfo::<SocketAddr>("127.0.0.1:7".parse().unwrap()));
    request
}

async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn get(router: &Router, path: &str) -> Value {
    let response = send(router, request(Method::GET, path, &Value::Null)).await;
    let status = response.status();
    let body = text(response).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

async fn post(router: &Router, path: &str, body: Value) -> (u16, Value) {
    let response = send(router, request(Method::POST, path, &body)).await;
    (response.status().as_u16(), serde_json::from_str(&text(response).await).unwrap())
}

/// A call through the layer, answered with this status.
async fn call(layer: &ResilienceLayer, url: &str, status: u16) -> Result<u16, ErrorKind> {
    let answer = service_fn(move |_: Request<String>| async move {
        let response = Response::builder().status(status).body(String::new()).unwrap();
        Ok::<_, std::convert::Infallible>(response)
    });
    let request = Request::post(url).body(String::new()).unwrap();
    match layer.layer(answer).oneshot(request).await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => Err(error.kind()),
    }
}

const USERS: &str = "http://users:3000";

#[tokio::test]
async fn nothing_is_shown_or_done_without_the_token() {
    let router = router(&layer());
    for (method, path) in [
        (Method::GET, "/snapshot"),
        (Method::GET, "/snapshot/schema"),
        (Method::GET, "/events"),
        (Method::GET, "/stream"),
        (Method::GET, "/circuitbreakers"),
        (Method::POST, "/circuitbreakers"),
        (Method::GET, "/policy"),
        (Method::POST, "/policy/check"),
    ] {
        let mut bare = request(method, path, &Value::Null);
        bare.headers_mut().remove("authorization");
        let response = send(&router, bare).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
}

/// It was axum's own refusal, in plain text, and the services made it one that doesn't say why.
#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused_in_words() {
    let router = router(&layer());
    for (path, why) in [
        ("/events?since=-1", "since"),
        ("/events?since=99999999999999999999", "since"),
        ("/events?limit=1", "unknown field `limit`"),
        ("/snapshot?client=a&client=b", "duplicate field `client`"),
    ] {
        let response = send(&router, request(Method::GET, path, &Value::Null)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: Value = serde_json::from_str(&text(response).await).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{detail}");
    }
    let mut bare = request(Method::GET, "/events?since=-1", &Value::Null);
    bare.headers_mut().remove("authorization");
    assert_eq!(send(&router, bare).await.status(), StatusCode::UNAUTHORIZED, "who may is asked first");
}

/// Calls that wait for a silent upstream's answer: the snapshot says that they do and for what, and
/// the events when that began and ended.
#[tokio::test(start_paused = true)]
async fn a_silence_is_shown_while_it_lasts_and_told_afterwards() {
    let layer = layer();
    let router = router(&layer);
    let ends = Arc::new(std::sync::Mutex::new(time::now()));
    let stalls = Arc::clone(&ends);
    let call = move || {
        let (layer, stalls) = (layer.clone(), Arc::clone(&stalls));
        let answer = service_fn(move |_: Request<String>| {
            let until = time::now().until(*stalls.lock().unwrap()) + Duration::from_millis(20);
            async move {
                tokio::time::sleep(until).await;
                Ok::<_, std::convert::Infallible>(Response::new(String::new()))
            }
        });
        let request = Request::get(USERS).body(String::new()).unwrap();
        async move { layer.layer(answer).oneshot(request).await.is_ok() }
    };
    for _ in 0..200 {
        assert!(call().await);
    }
    *ends.lock().unwrap() = time::now().after(Duration::from_millis(500));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..60 {
        calls.spawn(call());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let snapshot = get(&router, "/snapshot").await;
    let schema = get(&router, "/snapshot/schema").await;
    assert_eq!(schema::problems(&schema, &snapshot), [""; 0]);
    let client = &snapshot["clients"][0];
    assert!(client["upstreams"][0]["overload"]["silent_for"].as_f64().unwrap() > 100.0, "{client}");
    let oldest = client["calls"]["oldest"].as_array().unwrap();
    assert!(oldest.iter().any(|call| call["waits_for"] == "answer" && call["doing"] == "queued"), "{client}");
    assert!(calls.join_all().await.into_iter().all(|good| good));
    let client = &get(&router, "/snapshot").await["clients"][0];
    assert!(client["upstreams"][0]["overload"]["silent_for"].is_null(), "{client}");
    let events = get(&router, "/events").await;
    let told: Vec<_> = events["events"].as_array().unwrap().iter().map(|entry| &entry["text"]).collect();
    assert!(told[0].as_str().unwrap().starts_with("silent: nothing answered for "), "{told:?}");
    assert!(told[1].as_str().unwrap().starts_with("answers again after a silence of 5"), "{told:?}");
}

#[tokio::test]
async fn the_page_is_shown_without_the_token_and_to_this_host_only() {
    let router = router(&layer());
    let page = |path: &str, change: &dyn Fn(&mut Request<Body>)| {
        let mut request = request(Method::GET, path, &Value::Null);
        request.headers_mut().remove("authorization");
        change(&mut request);
        send(&router, request)
    };
    for path in ["", "/page.js", "/page.css"] {
        assert_eq!(page(path, &|_| {}).await.status(), StatusCode::OK, "{path}");
        let refused: [fn(&mut Request<Body>); 6] = [
            |request| _ = request.headers_mut().insert("x-forwarded-for", "203.0.113.7".parse().unwrap()),
            |request| _ = request.headers_mut().insert("via", "1.1 gateway".parse().unwrap()),
            |request| _ = request.headers_mut().insert("host", "evil.example".parse().unwrap()),
            |request| _ = request.headers_mut().insert("origin", "http://evil.example".parse().unwrap()),
            |request| _ = request.extensions_mut().remove::<ConnectInfo<SocketAddr>>(),
            |request| {
                let far = ConnectInfo::<SocketAddr>("10.0.0.7:1".parse().unwrap());
                request.extensions_mut().insert(far);
            },
        ];
        for change in refused {
            assert_eq!(page(path, &change).await.status(), StatusCode::FORBIDDEN, "{path}");
        }
    }
}

/// Behind a reverse proxy on this host, every peer is this host.
#[tokio::test]
async fn what_a_proxy_on_this_host_has_passed_on_is_refused_unless_it_may_be() {
    let layer = layer();
    let admin = |access| Admin::new(access).client("users", &layer).router().unwrap();
    let nested = |access| Router::new().nest("/admin", admin(access));
    let (strict, open) = (nested(Access::token(TOKEN)), nested(Access::token(TOKEN).through_proxies()));
    for path in ["", "/snapshot", "/stream", "/circuitbreakers"] {
        for name in ["forwarded", "via", "x-forwarded-for", "x-real-ip"] {
            let passed_on = || {
                let mut request = request(Method::GET, path, &Value::Null);
                request.headers_mut().insert(name, "203.0.113.7".parse().unwrap());
                request
            };
            assert_eq!(send(&strict, passed_on()).await.status(), StatusCode::FORBIDDEN, "{path} {name}");
            assert_eq!(send(&open, passed_on()).await.status(), StatusCode::OK, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn the_page_runs_its_own_script_and_no_other() {
    let router = router(&layer());
    let response = send(&router, request(Method::GET, "", &Value::Null)).await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = text(response).await;
    assert!(page.contains(r#"<script type="module" src="/admin/page.js">"#), "{page}");
    let handlers = page.split_whitespace().filter(|word| word.starts_with("on") && word.contains('='));
    assert_eq!(
        (page.matches("<script").count(), page.matches("style=").count(), handlers.count()),
        (1, 0, 0)
    );
    for file in ["/page.js", "/page.css", ""] {
        let file = text(send(&router, request(Method::GET, file, &Value::Null)).await).await;
        assert!(!file.contains("://") && !file.contains("@import"), "a request to elsewhere");
    }
}

#[tokio::test]
async fn what_is_shown_is_what_happened() {
    let layer = layer();
    let router = router(&layer);
    for _ in 0..4 {
        assert_eq!(call(&layer, "http://users:3000/users", 200).await, Ok(200));
    }
    assert_eq!(call(&layer, "http://users:3000/users", 503).await, Ok(503));
    let shown = get(&router, "/snapshot").await;
    let upstream = &shown["clients"][0]["upstreams"][0];
    assert_eq!((&upstream["name"], &upstream["client"]), (&json!(USERS), &json!("users")));
    assert_eq!(upstream["breaker"]["successes"], 4);
    assert_eq!(upstream["breaker"]["failures"], 1);
    assert_eq!(upstream["budget_capacity"], 100.0);
    let one = get(&router, "/snapshot?client=users&upstream=http%3A%2F%2Fusers%3A3000").await;
    let calls = &one["clients"][0]["upstreams"][0]["story"]["calls"];
    let report = calls[0]["report"].as_str().unwrap();
    assert!(report.contains("#1 first") && report.contains("status (503)"), "{report}");
    assert!(report.contains("not idempotent"), "{report}");
    let unknown = send(&router, request(Method::GET, "/snapshot?upstream=nobody", &Value::Null)).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_snapshot_is_as_its_schema_says() {
    let layer = layer();
    let router = router(&layer);
    for status in [200, 503, 503, 503, 503, 503] {
        let _ = call(&layer, "http://users:3000/users", status).await;
    }
    let schema = get(&router, "/snapshot/schema").await;
    for path in ["/snapshot", "/snapshot?upstream=http%3A%2F%2Fusers%3A3000"] {
        let shown = get(&router, path).await;
        assert_eq!(schema::problems(&schema, &shown), Vec::<String>::new());
    }
    let mut broken = get(&router, "/snapshot").await;
    broken["clients"][0]["upstreams"][0]["breaker"]["state"] = json!("ajar");
    assert_eq!(schema::problems(&schema, &broken).len(), 1);
}

#[tokio::test]
async fn an_operator_forces_a_breaker_and_enables_it_again() {
    let layer = layer();
    let router = router(&layer);
    let command = |update: &str| json!({ "client": "users", "upstream": USERS, "update_state": update });
    assert_eq!(call(&layer, USERS, 200).await, Ok(200));
    let (status, answer) = post(&router, "/circuitbreakers", command("force_open")).await;
    assert_eq!((status, &answer["breaker"]["state"]), (200, &json!("forced_open")), "{answer}");
    assert_eq!(call(&layer, "http://users:3000/users", 200).await, Err(ErrorKind::CircuitOpen));
    let breakers = get(&router, "/circuitbreakers").await;
    assert_eq!(breakers["circuitbreakers"][0]["breaker"]["forced"], true);
    let (status, answer) = post(&router, "/circuitbreakers", command("enable")).await;
    assert_eq!((status, &answer["breaker"]["state"]), (200, &json!("closed")));
    assert_eq!(call(&layer, "http://users:3000/users", 200).await, Ok(200));
    let events = get(&router, "/events").await;
    let told: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert!(told.contains(&"an operator forced the breaker open"), "{told:?}");
    assert!(told.iter().any(|text| text.starts_with("closed to forced_open")), "{told:?}");
}

/// A mistyped origin was made an upstream, forced open, and shown from then on; the service went on
/// calling.
#[tokio::test]
async fn a_name_that_nothing_has_is_refused_with_those_there_are_and_nothing_is_made() {
    let set = PolicySet::from(Policy::standard()).host("http://orders:3000", |base| base);
    let layer = ResilienceLayer::builder().policy(set).build().unwrap();
    let router = router(&layer);
    assert_eq!(call(&layer, USERS, 200).await, Ok(200));
    let command =
        |upstream: &str| json!({ "client": "users", "upstream": upstream, "update_state": "force_open" });
    for mistyped in ["http://usres:3000", "https://users:3000", "http://users", "users"] {
        let (status, problem) = post(&router, "/circuitbreakers", command(mistyped)).await;
        let why = "There is no such upstream. Known: http://orders:3000, http://users:3000.";
        assert_eq!((status, &problem["detail"]), (404, &json!(why)), "{mistyped}");
    }
    let client = json!({ "client": "usres", "upstream": USERS, "update_state": "force_open" });
    let endpoint =
        json!({ "client": "users", "upstream": USERS, "endpoint": "http://e:1", "update_state": "reset" });
    for (path, body, why) in [
        ("/circuitbreakers", client, "There is no such client. Known: users."),
        (
            "/policy/check",
            json!({ "client": "usres", "policy": {} }),
            "There is no such client. Known: users.",
        ),
        ("/circuitbreakers", endpoint, "There is no such endpoint. There is none."),
    ] {
        let (status, problem) = post(&router, path, body).await;
        assert_eq!((status, &problem["detail"]), (404, &json!(why)), "{path}");
    }
    for (query, why) in [
        ("client=usres", "There is no such client. Known: users."),
        ("upstream=usres", "There is no such upstream. Known: http://users:3000."),
    ] {
        let answer = send(&router, request(Method::GET, &format!("/snapshot?{query}"), &Value::Null)).await;
        let problem: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!((&problem["status"], &problem["detail"]), (&json!(404), &json!(why)));
    }
    assert_eq!(layer.snapshot().len(), 1);
    // What the configuration names may be held before its first call.
    let (status, answer) = post(&router, "/circuitbreakers", command("http://orders:3000")).await;
    assert_eq!((status, &answer["breaker"]["state"]), (200, &json!("forced_open")), "{answer}");
}

#[tokio::test]
async fn a_refusal_lists_no_more_names_than_can_be_read() {
    let layer = layer();
    let router = router(&layer);
    for number in 0..25 {
        assert_eq!(call(&layer, &format!("http://users-{number:02}"), 200).await, Ok(200));
    }
    let command = json!({ "client": "users", "upstream": USERS, "update_state": "reset" });
    let (_, problem) = post(&router, "/circuitbreakers", command).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.ends_with("http://users-19, and 5 more."), "{detail}");
}

#[tokio::test]
async fn the_page_is_at_its_path_with_a_slash_after_it_too() {
    let router = router(&layer());
    let page = text(send(&router, request(Method::GET, "", &Value::Null)).await).await;
    let with_slash = send(&router, request(Method::GET, "/", &Value::Null)).await;
    assert_eq!(with_slash.status(), StatusCode::OK);
    assert_eq!(text(with_slash).await, page);
}

#[tokio::test]
async fn a_command_that_makes_no_sense_changes_nothing() {
    let layer = layer();
    let router = router(&layer);
    assert_eq!(call(&layer, USERS, 200).await, Ok(200));
    for (body, expected) in [
        (json!({ "client": "users", "upstream": USERS, "update_state": "explode" }), 422),
        (json!({ "client": "users", "upstream": USERS }), 422),
        (json!({ "client": "users", "upstream": USERS, "update_state": "reset", "more": 1 }), 422),
        (json!({ "client": "nobody", "upstream": USERS, "update_state": "reset" }), 404),
        (json!({ "client": "users", "upstream": "no origin", "update_state": "reset" }), 404),
        (
            json!({ "client": "users", "upstream": USERS, "endpoint": "http://10.0.0.1:1", "update_state": "reset" }),
            404,
        ),
    ] {
        let (status, answer) = post(&router, "/circuitbreakers", body.clone()).await;
        assert_eq!((status, &answer["status"]), (expected, &json!(expected)), "{body}: {answer}");
    }
    let mut form = request(Method::POST, "/circuitbreakers", &json!({}));
    form.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(send(&router, form).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let put = request(Method::PUT, "/circuitbreakers", &json!({}));
    assert_eq!(send(&router, put).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn policies_are_shown_as_a_file_and_checked_without_being_changed() {
    let set = PolicySet::new(Policy::standard().retry(RetryPolicy::standard().max_attempts(2)))
        .host(USERS, |base| base.hedge(crate::policy::hedge::HedgePolicy::standard()));
    let layer = ResilienceLayer::builder().policy(set.clone()).build().unwrap();
    let router = router(&layer);
    let shown = get(&router, "/policy").await;
    let policy = &shown["policies"][0];
    assert_eq!((&policy["version"], &policy["source"]), (&json!(0), &json!("given to the builder")));
    assert_eq!(policy["policy"]["retry"]["max_attempts"], 2);
    assert_eq!(policy["policy"]["timeout"]["total"], "10s");
    assert_eq!(policy["policy"]["hedge"], "off");
    assert!(
        policy["differs_from_standard"].as_array().unwrap().contains(&json!("client: retry")),
        "{policy}"
    );
    let read: PolicySet = serde_json::from_value(policy["policy"].clone()).unwrap();
    assert_eq!(read, set, "what is shown can be read again");

    let check =
        |policy: Value| post(&router, "/policy/check", json!({ "client": "users", "policy": policy }));
    let (status, answer) = check(json!({ "bulkhead": "off", "host": [{ "origin": USERS }] })).await;
    assert_eq!(status, 200, "{answer}");
    let changes = answer["changes"].as_array().unwrap();
    assert!(
        changes.contains(&json!("client: bulkhead")) && changes.contains(&json!("client: retry")),
        "{answer}"
    );
    let (status, answer) = check(json!({ "retry": { "max_attempts": 0 } })).await;
    assert_eq!(
        (status, answer["errors"][0]["field"].as_str()),
        (422, Some("retry.max_attempts")),
        "{answer}"
    );
    let (status, answer) = check(json!({ "retries": 3 })).await;
    assert!(status == 422 && answer["detail"].as_str().unwrap().contains("retry"), "{answer}");
    assert_eq!(get(&router, "/policy").await["policies"][0]["version"], 0);
}

/// What came of a stream so far: each event's name and data.
async fn hear(body: &mut Body, until: impl Fn(&str, &Value) -> bool) -> Vec<(String, Value)> {
    let (mut text, mut heard) = (String::new(), Vec::new());
    loop {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
            let (name, data) = (field("event:").to_owned(), serde_json::from_str(field("data:")).unwrap());
            let done = until(&name, &data);
            heard.push((name, data));
            text = rest.to_owned();
            if done {
                return heard;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_tells_of_what_changes_and_only_of_that() {
    let layer = layer();
    let router = router(&layer);
    call(&layer, "http://users:3000/users", 200).await.unwrap();
    call(&layer, "http://orders:3000/", 200).await.unwrap();
    let mut body = send(&router, request(Method::GET, "/stream", &Value::Null)).await.into_body();
    let first = hear(&mut body, |name, _| name == "tick").await;
    assert_eq!(first[0].0, "hello");
    assert_eq!(first[1].1["rows"].as_array().unwrap().len(), 2, "{first:?}");
    // The calls made at first leave the rates after ten seconds.
    for _ in 0..15 {
        hear(&mut body, |name, _| name == "tick").await;
    }
    for _ in 0..5 {
        let _ = call(&layer, "http://users:3000/users", 503).await;
    }
    let opened = |_: &str, data: &Value| {
        let rows = data["rows"].as_array();
        rows.is_some_and(|rows| rows.iter().any(|row| row["breaker"]["state"] == "open"))
    };
    let heard = hear(&mut body, opened).await;
    let entry = heard.iter().find(|(name, _)| name == "entry").expect("that it opened is told");
    assert_eq!((&entry.1["kind"], &entry.1["upstream"]), (&json!("breaker"), &json!(USERS)));
    let (_, last) = heard.last().unwrap();
    assert!(last["rows"].as_array().unwrap().iter().all(|row| row["name"] != "http://orders:3000"), "{last}");
    layer.reload(Policy::standard().retry(None)).unwrap();
    let heard = hear(&mut body, |name, data| name == "entry" && data["kind"] == "policies").await;
    let (_, entry) = heard.last().unwrap();
    assert_eq!((&entry["client"], &entry["upstream"]), (&json!("users"), &json!("")));
    assert_eq!(entry["text"], "version 1 is in force: client: retry");
    let snapshot = get(&router, "/snapshot").await;
    assert!(!snapshot.to_string().contains("\"name\":\"\""), "a reload is no upstream's: {snapshot}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_back_misses_nothing() {
    let layer = layer();
    let router = router(&layer);
    let control = layer.breaker(USERS).unwrap();
    control.force_open().unwrap();
    let newest = get(&router, "/events").await["newest"].as_u64().unwrap();
    control.force_closed().unwrap();
    let mut again = request(Method::GET, "/stream", &Value::Null);
    again.headers_mut().insert("last-event-id", newest.into());
    let mut body = send(&router, again).await.into_body();
    let heard = hear(&mut body, |name, _| name == "tick").await;
    let entries: Vec<_> = heard.iter().filter(|(name, _)| name == "entry").collect();
    assert_eq!(entries.len(), 1, "{heard:?}");
    assert!(entries[0].1["text"].as_str().unwrap().contains("forced_closed"), "{entries:?}");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_streams_than_may_be_and_each_connection_has_its_place_to_its_end() {
    let router = router(&layer());
    let open = || send(&router, request(Method::GET, "/stream", &Value::Null));
    let mut streams = Vec::new();
    for _ in 0..MOST_STREAMS {
        streams.push(open().await);
    }
    assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE, "they are still there");
    drop(streams.pop());
    assert_eq!(open().await.status(), StatusCode::OK, "at once, though nothing is to be told");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_for_ten_seconds_is_told_nothing_more() {
    let router = router(&layer());
    let mut body = send(&router, request(Method::GET, "/stream", &Value::Null)).await.into_body();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let mut left = 0;
    while let Some(frame) = body.frame().await {
        left += frame.unwrap().data_ref().unwrap().len();
    }
    assert!((1..2_000).contains(&left), "what was on its way, and no more: {left} bytes");
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_clients_drain() {
    let layer = layer();
    let router = router(&layer);
    let body = send(&router, request(Method::GET, "/stream", &Value::Null)).await.into_body();
    layer.drain(Duration::from_secs(1)).await;
    let whole = tokio::time::timeout(Duration::from_secs(3), body.collect()).await;
    assert!(whole.is_ok(), "a graceful end waits for no reader");
}

#[tokio::test]
async fn an_open_body_is_shown_as_one() {
    let layer = layer();
    let router = router(&layer);
    let answer = service_fn(|_: Request<String>| async {
        let body = http_body_util::StreamBody::new(Never);
        Ok::<_, std::convert::Infallible>(Response::new(body))
    });
    let request = Request::get("http://users:3000/users").body(String::new()).unwrap();
    let response = layer.layer(answer).oneshot(request).await.unwrap();
    let calls = &get(&router, "/snapshot").await["clients"][0]["calls"];
    assert_eq!((&calls["under_way"], &calls["oldest"][0]["doing"]), (&json!(1), &json!("body")), "{calls}");
    drop(response);
    assert_eq!(get(&router, "/snapshot").await["clients"][0]["calls"]["under_way"], 0);
}

/// A body that never comes.
struct Never;

impl futures_core::Stream for Never {
    type Item = Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Pending
    }
}

#[test]
fn a_router_that_can_not_work_is_refused_when_it_is_made() {
    let refused = |admin: Admin| admin.router::<()>().unwrap_err().to_string();
    assert!(refused(Admin::new(Access::token("short"))).contains("token"));
    let two = Admin::new(Access::token(TOKEN)).client("users", &layer()).client("users", &layer());
    assert!(refused(two).contains("another client's"), "two of a name");
    assert!(refused(Admin::new(Access::token(TOKEN)).client("", &layer())).contains("name"));
}
