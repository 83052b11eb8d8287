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
    http::{
        StatusCode,
        header::{CONTENT_TYPE, LOCATION},
    },
    response::{IntoResponse, Response},
    routing::any,
};
use fake::{ADA, BOB, order};
use order_service::{
    AppState, Config, Existence, LookupRequest, ResilientUsers, Unavailable, UserLookup as _,
};
use serde_json::json;
use service_kit::testing::{TestDatabase, get, post};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::oneshot,
    time::timeout,
};
use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _};

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
    let lookup = LookupRequest { user_id: ADA, request_id: "story-7" };
    timeout(SLOW, users.lookup(lookup)).await.expect("the client bounds its own time")
}

/// What something at user-service's address answers to any question about a user.
#[derive(Clone, Debug)]
struct Page {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Page {
    fn new(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, body: body.into() }
    }

    /// user-service's own way of saying that it knows the user.
    fn user(id: &str) -> Self {
        let user = json!({ "id": id, "name": "Ada", "email": "a@b", "created_at_ms": 1 });
        Self::new(200, "application/json", user.to_string())
    }

    /// user-service's own way of saying that it doesn't.
    fn no_user(id: &str) -> Self {
        let problem = json!({
            "type": "urn:problem:user-not-found", "title": "User not found", "status": 404,
            "instance": format!("/users/{id}"),
        });
        Self::new(404, "application/problem+json", problem.to_string())
    }
}

/// Something at user-service's address that gives one answer to everything and counts.
async fn serve(page: Page) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let answer = async move |State(calls): State<Arc<AtomicUsize>>, request: Request| -> Response {
        calls.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.headers()["x-request-id"], "story-7");
        let Page { status, content_type, body } = page.clone();
        // Where a redirect would lead, everything looks fine.
        let headers = [(LOCATION, "/elsewhere"), (CONTENT_TYPE, content_type)];
        (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
    };
    let elsewhere = any(async || ([(CONTENT_TYPE, "application/json")], Page::user(ADA).body));
    let router = Router::new().route("/elsewhere", elsewhere).fallback(answer).with_state(calls.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, calls)
}

async fn answers(page: Page) -> Result<Existence, Unavailable> {
    ask(&client(serve(page).await.0)).await
}

#[tokio::test]
async fn user_services_own_200_and_404_are_answers() {
    assert_eq!(answers(Page::user(ADA)).await, Ok(Existence::Exists));
    assert_eq!(answers(Page::no_user(ADA)).await, Ok(Existence::Unknown));
    let with_charset = Page { content_type: "Application/JSON; charset=utf-8", ..Page::user(ADA) };
    assert_eq!(answers(with_charset).await, Ok(Existence::Exists));
    for status in [201, 204, 301, 302, 307, 400, 401, 403, 410, 422, 429, 500, 501, 503, 504] {
        assert!(answers(Page { status, ..Page::user(ADA) }).await.is_err(), "{status}");
        assert!(answers(Page { status, ..Page::no_user(ADA) }).await.is_err(), "{status}");
    }
}

#[tokio::test]
async fn a_proxys_404_settles_nothing() {
    let html = "<html><body><h1>404 Not Found</h1></body></html>";
    let about_another = Page::no_user(BOB);
    let about_none =
        json!({ "type": "urn:problem:user-not-found", "title": "User not found", "status": 404 });
    let no_route = json!({ "type": "about:blank", "title": "Not Found", "status": 404 });
    for page in [
        Page::new(404, "text/html", html),
        Page::new(404, "text/plain", "default backend - 404"),
        Page::new(404, "application/json", Page::no_user(ADA).body),
        Page::new(404, "application/problem+json", html),
        Page::new(404, "application/problem+json", no_route.to_string()),
        Page::new(404, "application/problem+json", about_none.to_string()),
        Page::new(404, "application/problem+json", ""),
        about_another,
    ] {
        assert!(answers(page.clone()).await.is_err(), "{page:?}");
    }
}

#[tokio::test]
async fn a_maintenance_page_with_200_settles_nothing() {
    for page in [
        Page::new(200, "text/html", "<html><body>Back soon</body></html>"),
        Page::new(200, "text/html", Page::user(ADA).body),
        Page::new(200, "application/json", ""),
        Page::new(200, "application/json", "{}"),
        Page::new(200, "application/json", r#"{"status":"maintenance"}"#),
        Page::new(200, "application/json", format!("[{}]", Page::user(ADA).body)),
        Page::new(200, "application/json", format!("{} <html>", Page::user(ADA).body)),
        Page::user(BOB),
    ] {
        assert!(answers(page.clone()).await.is_err(), "{page:?}");
    }
}

/// A replica whose proxy shows a page of its own, quickly, is one that fails: the others are asked.
#[tokio::test]
async fn a_replica_that_shows_a_page_is_passed_over() {
    let (page, _) = serve(Page::new(200, "text/html", "<html>")).await;
    let (well, _) = serve(Page::user(ADA)).await;
    let urls = [page, well].map(|address| format!("http://{address}")).join(",");
    let users = ResilientUsers::new(&Config { user_service_url: urls, ..Config::default() }).unwrap();
    for _ in 0..30 {
        assert_eq!(ask(&users).await, Ok(Existence::Exists));
    }
}

/// An order-service that asks whatever is at `address`, over real sockets.
async fn order_service_asking(address: SocketAddr) -> (Router, AppState, TestDatabase) {
    let database = TestDatabase::new().await;
    let config = Config {
        database_url: database.url.clone(),
        user_service_url: format!("http://{address}"),
        ..Config::default()
    };
    let state = AppState::open(&config, Arc::new(ResilientUsers::new(&config).unwrap())).await.unwrap();
    (order_service::app(state.clone()), state, database)
}

#[tokio::test]
async fn an_order_service_that_asks_itself_rejects_nobody() {
    let (listener, address) = listen().await;
    let (app, _, _database) = order_service_asking(address).await;
    tokio::spawn(axum::serve(listener, app.clone()).into_future());
    let answer = post(&app, "/orders", &order(ADA)).await;
    assert_eq!((answer.status.as_u16(), answer.text("status").as_str()), (202, "pending_verification"));
}

#[tokio::test]
async fn the_reconciler_settles_nothing_by_a_page_either() {
    for page in [Page::new(404, "text/html", "<html>"), Page::new(200, "text/html", "<html>")] {
        let (listener, address) = listen().await;
        drop(listener);
        let (app, state, _database) = order_service_asking(address).await;
        assert_eq!(post(&app, "/orders", &order(ADA)).await.status, 202);
        let listener = TcpListener::bind(address).await.unwrap();
        let Page { status, content_type, body } = page;
        let status = StatusCode::from_u16(status).unwrap();
        let router = Router::new().fallback(async move || (status, [(CONTENT_TYPE, content_type)], body));
        tokio::spawn(axum::serve(listener, router).into_future());
        // The order is due 200 ms after it was placed.
        let round = async {
            loop {
                let round = state.reconciler().round(32).await.unwrap();
                if round.unanswered + round.resolved > 0 {
                    return round;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert_eq!(timeout(SLOW, round).await.unwrap().resolved, 0, "{status}");
    }
}

#[tokio::test]
async fn what_cannot_be_believed_is_logged_once() {
    let (log, lines) = log();
    let _log = tracing::subscriber::set_default(log);
    let users = client(serve(Page::user(BOB)).await.0);
    for _ in 0..3 {
        let unavailable = ask(&users).await.unwrap_err().to_string();
        assert!(unavailable.contains("another user"), "{unavailable}");
    }
    let lines = lines.lock().unwrap().clone();
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(text.matches("WARN").count(), 1, "{text}");
    assert!(text.contains("not user-service's own"), "{text}");
}

/// A subscriber that keeps what order-service warns of.
fn log() -> (impl tracing::Subscriber + Send + Sync, Arc<Mutex<Vec<u8>>>) {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    let warnings = Targets::new().with_target("order_service", Level::WARN);
    let log = tracing_subscriber::registry().with(layer).with(warnings);
    (log, lines.0)
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

/// One replica hangs, one is gone, one is well: every question is answered, by the one that is
/// well.
#[tokio::test]
async fn one_good_replica_is_enough() {
    let (hung, hangs) = listen().await;
    let (closed, gone) = listen().await;
    drop(closed);
    let (well, _) = serve(Page::user(ADA)).await;

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
    let (address, calls) = serve(Page { status: 500, ..Page::user(ADA) }).await;
    let users = client(address);
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

/// Both real services: user-service goes away, orders are taken, it comes back, each order is
/// settled once.
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
