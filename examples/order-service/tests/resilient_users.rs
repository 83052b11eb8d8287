//! `ResilientUsers` against real sockets: what counts as an answer, and how fast there is none.

mod fake;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::any,
};
use fake::{ADA, order};
use order_service::{AppState, Config, Existence, Lookup, ResilientUsers, Unavailable, UserDirectory as _};
use serde_json::json;
use service_kit::testing::{TestDatabase, get, post};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::oneshot,
    time::timeout,
};

const SLOW: Duration = Duration::from_secs(10);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn client(address: SocketAddr) -> ResilientUsers {
    let config = Config { user_service_url: format!("http://{address}"), ..Config::default() };
    ResilientUsers::new(&config).unwrap()
}

async fn ask(users: &ResilientUsers) -> Result<Existence, Unavailable> {
    let lookup = Lookup { user_id: ADA, request_id: "story-7" };
    timeout(SLOW, users.lookup(lookup)).await.expect("the client bounds its own time")
}

/// A user-service that gives one status to everything and counts.
async fn always(status: u16) -> (ResilientUsers, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let answer = async move |State(calls): State<Arc<AtomicUsize>>, request: Request| -> Response {
        calls.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.uri().path(), format!("/users/{ADA}"));
        assert_eq!(request.headers()["x-request-id"], "story-7");
        // Where a redirect would lead, everything looks fine.
        (StatusCode::from_u16(status).unwrap(), [(LOCATION, "/elsewhere")], "{}").into_response()
    };
    let router =
        Router::new().route("/elsewhere", any(StatusCode::OK)).fallback(answer).with_state(calls.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (client(address), calls)
}

#[tokio::test]
async fn only_200_and_404_are_answers() {
    assert_eq!(ask(&always(200).await.0).await, Ok(Existence::Exists));
    assert_eq!(ask(&always(404).await.0).await, Ok(Existence::Unknown));
    for status in [201, 204, 301, 302, 307, 400, 401, 403, 410, 422, 429, 500, 501, 503, 504] {
        assert!(ask(&always(status).await.0).await.is_err(), "{status}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_no_answer() {
    let (listener, address) = listen().await;
    drop(listener);
    let error = ask(&client(address)).await.unwrap_err();
    assert!(!error.to_string().is_empty());
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_costs_no_more_than_the_configured_time() {
    let (listener, address) = listen().await;
    let held = Arc::new(Mutex::new(Vec::new()));
    let hold = held.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            hold.lock().unwrap().push(stream);
        }
    });
    let config =
        Config { user_service_url: format!("http://{address}"), user_timeout_ms: 150, ..Config::default() };
    let users = ResilientUsers::new(&config).unwrap();
    let asked = ask(&users);
    assert!(timeout(Duration::from_secs(2), asked).await.expect("150 ms and some slack").is_err());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await;
        }
    });
    assert!(ask(&client(address)).await.is_err());
}

/// One replica hangs, one is gone, one is well: every question is answered, by the one that is well.
#[tokio::test]
async fn one_good_replica_is_enough() {
    let (hung, hangs) = listen().await;
    let (closed, gone) = listen().await;
    drop(closed);
    let (listener, well) = listen().await;
    let router = Router::new().fallback(any(StatusCode::OK));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let urls = [hangs, gone, well].map(|address| format!("http://{address}")).join(",");
    let users = ResilientUsers::new(&Config { user_service_url: urls, ..Config::default() }).unwrap();
    for _ in 0..30 {
        assert_eq!(ask(&users).await, Ok(Existence::Exists));
    }
    // Held to here, so that it accepts connections and answers none.
    drop(hung);
}

#[tokio::test]
async fn once_the_breaker_is_open_nothing_is_sent() {
    let (users, calls) = always(500).await;
    // The standard breaker opens after 5 failures in a row with no success in the window.
    for _ in 0..10 {
        ask(&users).await.unwrap_err();
    }
    let before = calls.load(Ordering::SeqCst);
    for _ in 0..20 {
        ask(&users).await.unwrap_err();
    }
    // Half-open probes may fall into this stretch on a slow machine; 20 full calls may not.
    assert!(calls.load(Ordering::SeqCst) - before <= 3);
}

/// Both real services: user-service goes away, orders are taken, it comes back, each order is settled once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_taken_during_an_outage_are_settled_after_it() {
    let (users_database, orders_database) = (TestDatabase::new().await, TestDatabase::new().await);
    let user_config = user_service::Config { database_url: users_database.url.clone(), ..Default::default() };
    let state = user_service::AppState::open(&user_config).await.unwrap();
    let ada =
        post(&user_service::app(state), "/users", &json!({ "name": "Ada", "email": "a@b" })).await.text("id");

    let (listener, address) = listen().await;
    let config = Config {
        database_url: orders_database.url.clone(),
        user_service_url: format!("http://{address}"),
        ..Config::default()
    };
    let users = Arc::new(ResilientUsers::new(&config).unwrap());
    let orders = AppState::open(&config, users).await.unwrap();
    let app = order_service::app(orders.clone());
    let (_stop_orders, stopped) = oneshot::channel::<()>();
    let (orders_listener, _) = listen().await;
    tokio::spawn(order_service::serve(orders, app.clone(), orders_listener, async { drop(stopped.await) }));

    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let server = tokio::spawn(user_service::run(user_config.clone(), listener, shutdown));
    assert_eq!(post(&app, "/orders", &order(&ada)).await.status, 201);
    post(&app, "/orders", &order(ADA)).await.assert_problem(422);

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    for user in [&*ada, ADA, &*ada] {
        assert_eq!(post(&app, "/orders", &order(user)).await.status, 202);
    }
    assert_eq!(get(&app, "/orders").await.json()["orders"].as_array().unwrap().len(), 4);

    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(user_service::run(user_config, listener, std::future::pending()));
    let settled = async {
        loop {
            let pending = get(&app, "/orders?status=pending_verification").await.json();
            if pending["orders"].as_array().unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), settled).await.expect("settled once user-service is back");
    let all = get(&app, "/orders").await.json();
    let statuses: Vec<_> = all["orders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|order| (order["status"].as_str().unwrap(), order["resolutions"].as_i64().unwrap()))
        .collect();
    assert_eq!(statuses, [("confirmed", 0), ("confirmed", 1), ("rejected", 1), ("confirmed", 1)]);
}
