//! `/metrics` of both services: over a run with faults, what is counted is what was sent, answered
//! and reported.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use order_service::{AppState, Config, ResilientUsers, app};
use serde_json::json;
use service_kit::{
    meters::Meters,
    testing::{TestDatabase, get, post},
};
use tokio::net::TcpListener;

/// Every series of a page, with its value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The sum of those of a name whose labels have all of these.
fn sum(series: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> u64 {
    let of_name = |it: &str| it == name || it.starts_with(&format!("{name}{{"));
    let fits = |it: &str| of_name(it) && labels.iter().all(|label| it.contains(label));
    series.iter().filter(|(it, _)| fits(it)).map(|(_, value)| *value as u64).sum()
}

/// Refuses, delays or lets through, in turn.
async fn faulty(State(asked): State<Arc<AtomicU64>>, request: Request, next: Next) -> Response {
    match asked.fetch_add(1, Ordering::Relaxed) % 7 {
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        3 => {
            // Longer than an attempt may take.
            tokio::time::sleep(Duration::from_mins(1)).await;
            next.run(request).await
        }
        5 => StatusCode::BAD_GATEWAY.into_response(),
        _ => next.run(request).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_run_with_faults_both_services_count_what_was_asked_and_answered() {
    let (users_database, orders_database) = (TestDatabase::new().await, TestDatabase::new().await);
    let user_meters = Meters::default();
    let config =
        user_service::Config { database_url: users_database.url.clone(), ..user_service::Config::default() };
    let state = user_service::AppState::open(&config).await.unwrap().with_meters(user_meters.clone());
    let users = user_service::app(state);
    let ada = post(&users, "/users", &json!({ "name": "Ada", "email": "ada@example.com" })).await.text("id");
    // Counted once more, round the service and its faults: this is the server's own count.
    let asked = Arc::new(AtomicU64::new(0));
    let server_side = Meters::default();
    let faults = users.clone().layer(from_fn_with_state(asked.clone(), faulty));
    let router = server_side.around(faults);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let meters = Meters::default();
    let config = Config {
        database_url: orders_database.url.clone(),
        user_service_url: url,
        user_timeout_ms: 2000,
        lookup_limit_ms: 3000,
        ..Config::default()
    };
    let lookup = Arc::new(ResilientUsers::metered(&config, &meters).unwrap());
    let state = AppState::open(&config, lookup).await.unwrap().with_meters(meters.clone());
    let orders = app(state);
    let mut answered: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..40 {
        let order = json!({ "user_id": ada, "items": [{ "sku": "tea", "quantity": 1 }] });
        *answered.entry(post(&orders, "/orders", &order).await.status.as_u16()).or_default() += 1;
    }
    for path in ["/orders", "/orders/01980000-0000-7000-8000-000000000000", "/nowhere"] {
        get(&orders, path).await;
    }

    let page = get(&meters.routes(), "/metrics").await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let ours = series(&page.body);
    let attempts = sum(&ours, "resilient_client_attempts_total", &[]);
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked > 45, "there were retries: {asked}");
    assert_eq!(attempts, asked, "what was sent is what user-service was asked:\n{}", page.body);
    assert_eq!(sum(&ours, "http_client_request_duration_seconds_count", &[]), asked);
    assert_eq!(sum(&ours, "http_client_active_requests", &[]), 0);
    let retries = sum(&ours, "resilient_client_attempts_total", &["trigger=\"retry\""]);
    assert_eq!(sum(&ours, "resilient_client_attempts_total", &["trigger=\"first\""]) + retries, attempts);
    assert_eq!(sum(&ours, "resilient_client_call_duration_seconds_count", &[]), 40);
    // By status: what this side received is what that side sent, but for what nobody waited for.
    let theirs = series(&server_side.render());
    for status in ["200", "503", "502"] {
        let received = format!("http_response_status_code=\"{status}\"");
        let sent = sum(&theirs, "http_server_request_duration_seconds_count", &[&received]);
        assert_eq!(sum(&ours, "http_client_request_duration_seconds_count", &[&received]), sent, "{status}");
    }
    let unanswered = sum(&ours, "http_client_request_duration_seconds_count", &["error_type=\"timeout\""]);
    assert!(unanswered > 3, "{unanswered}");
    // The service's own requests, by route.
    let own = "http_server_request_duration_seconds_count";
    for (status, count) in &answered {
        let labels = [
            "http_request_method=\"POST\"".to_owned(),
            "http_route=\"/orders\"".to_owned(),
            format!("http_response_status_code=\"{status}\""),
        ];
        assert_eq!(sum(&ours, own, &labels.each_ref().map(String::as_str)), *count, "{answered:?}");
    }
    assert_eq!(sum(&ours, own, &["http_route=\"/orders/{id}\"", "status_code=\"404\""]), 1);
    assert_eq!(sum(&ours, own, &[]), 43);
    // Levels are read when the page is.
    assert_eq!(sum(&ours, "resilient_client_breaker_state", &["state=\"closed\""]), 1);
    assert_eq!(sum(&ours, "resilient_client_bulkhead_limit", &[]), 256);
    // Each of our names has its help and its unit.
    for name in ["http_client_request_duration_seconds", "resilient_client_retries_total"] {
        assert!(page.body.contains(&format!("# HELP {name} ")), "{name}:\n{}", page.body);
    }
    assert!(page.body.contains("http_client_request_duration_seconds_bucket{"), "OTel's buckets");
    assert!(user_meters.render().contains("http_route=\"/users/{id}\""));
    assert!(!page.body.contains(&ada), "no id is a label");
}
