//! order-service while user-service is hung, gone, slow or talking nonsense: reads don't notice,
//! orders are taken at once, and each one that was left open is settled exactly once when
//! user-service is back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use order_service::ResilientUsers;
use reqwest::{Client, StatusCode};
use resilient_client_tests::front::{Front, Mode};
use resilient_client_tests::{clock, within};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long order-service waits for one answer of user-service. While the breaker is open it waits
/// for none.
const ATTEMPT: Duration = Duration::from_millis(300);
/// A user who isn't there.
const NOBODY: &str = "0190a5a0-0000-7000-8000-000000000000";
const BOUND: Duration = Duration::from_secs(30);

/// Both services as they are, each on a database and a port of its own, with a front between them
/// that can break.
struct World {
    http: Client,
    front: Front,
    orders: String,
    ada: String,
    _databases: TempDir,
    running: Vec<JoinHandle<()>>,
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl World {
    async fn new() -> Self {
        let databases = tempfile::tempdir().unwrap();
        let database = |name| format!("sqlite://{}?mode=rwc", databases.path().join(name).display());
        let http = Client::builder().no_proxy().build().unwrap();

        let (listener, users) = listen().await;
        let config = user_service::Config { database_url: database("users.db"), ..Default::default() };
        let user_service = tokio::spawn(async move {
            user_service::run(config, listener, std::future::pending()).await.unwrap();
        });
        let front = Front::of(users).await;

        let (listener, orders) = listen().await;
        let config = order_service::Config {
            database_url: database("orders.db"),
            user_service_url: front.url(),
            ..Default::default()
        };
        let directory = Arc::new(ResilientUsers::new(&config).unwrap());
        let order_service = tokio::spawn(async move {
            order_service::run(config, directory, listener, std::future::pending()).await.unwrap();
        });

        let ada = json!({ "name": "Ada", "email": "ada@example.com" });
        let created = http.post(format!("http://{users}/users")).json(&ada).send().await.unwrap();
        let ada: Value = created.error_for_status().unwrap().json().await.unwrap();
        Self {
            http,
            front,
            orders: format!("http://{orders}/orders"),
            ada: ada["id"].as_str().unwrap().to_owned(),
            _databases: databases,
            running: vec![user_service, order_service],
        }
    }

    /// The answer's status and body, and how long it took.
    async fn place(&self, user: &str) -> (StatusCode, Value, Duration) {
        let order = json!({ "user_id": user, "items": [{ "sku": "sku-1", "quantity": 1 }] });
        let begun = clock::now();
        let response = self.http.post(&self.orders).json(&order).send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap(), begun.elapsed())
    }

    async fn read(&self, path: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.orders)).send().await.unwrap();
        response.error_for_status().unwrap().json().await.unwrap()
    }

    async fn pending(&self) -> usize {
        self.read("?status=pending_verification&limit=100").await["orders"].as_array().unwrap().len()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// An id, and what must become of it.
type Left = (String, &'static str);

async fn isolation_holds(mode: Mode) {
    let world = World::new().await;
    // Healthy: the user is looked up while the order is placed.
    let (status, confirmed, _) = world.place(&world.ada).await;
    assert_eq!((status, &confirmed["status"]), (StatusCode::CREATED, &json!("confirmed")));
    let (status, ..) = world.place(NOBODY).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let confirmed = confirmed["id"].as_str().unwrap();

    // Broken. Orders are taken from the first one on, slowly perhaps, and at once when the breaker
    // has opened.
    world.front.set(mode).await;
    let mut left: Vec<Left> = Vec::new();
    let mut place = async |user: &str, fate: &'static str| {
        let (status, order, took) = world.place(user).await;
        assert_eq!((status, &order["status"]), (StatusCode::ACCEPTED, &json!("pending_verification")));
        left.push((order["id"].as_str().unwrap().to_owned(), fate));
        took
    };
    // It opens after five failures in a row at most; each order brings at least one.
    for _ in 0..5 {
        place(&world.ada, "confirmed").await;
    }
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    let broken_since: Instant = clock::now();
    for n in 0..30 {
        writes.push(match n % 5 {
            0 => place(NOBODY, "rejected").await,
            _ => place(&world.ada, "confirmed").await,
        });
        let begun = clock::now();
        assert_eq!(world.read(&format!("/{confirmed}")).await["status"], "confirmed");
        assert!(!world.read("?limit=100").await["orders"].as_array().unwrap().is_empty());
        reads.push(begun.elapsed());
    }
    let (writes, reads) = (median(writes), median(reads));
    let broken_for = broken_since.elapsed();
    println!("{mode:?}: for {broken_for:.1?}; median write {writes:.1?}, median two reads {reads:.1?}");
    // A probe now and then waits for its answer, so the median: half an attempt is far more than it
    // needs, and less than any order could be taken in that asks user-service.
    assert!(writes < ATTEMPT / 2, "orders are taken at once: {writes:?}");
    assert!(reads < ATTEMPT / 2, "reads ask nobody: {reads:?}");
    assert_eq!(world.pending().await, left.len());

    // Well again: each is settled, once, as user-service says.
    world.front.set(Mode::Forward).await;
    let mut look = tokio::time::interval(Duration::from_millis(50));
    while world.pending().await > 0 {
        look.tick().await;
    }
    for (id, fate) in &left {
        let order = world.read(&format!("/{id}")).await;
        assert_eq!((&order["status"], &order["resolutions"]), (&json!(fate), &json!(1)), "{order}");
    }
    let all = world.read("?limit=100").await["orders"].as_array().unwrap().len();
    assert_eq!(all, 1 + left.len(), "none lost, none twice");
    assert_eq!(world.read(&format!("/{confirmed}")).await["resolutions"], 0);
    // And orders are confirmed on the spot again.
    while world.place(&world.ada).await.0 != StatusCode::CREATED {
        look.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_holds_while_user_service_hangs() {
    within(BOUND, isolation_holds(Mode::Hang)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_holds_while_user_service_is_gone() {
    within(BOUND, isolation_holds(Mode::Refuse)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_holds_while_user_service_is_slower_than_anyone_waits() {
    within(BOUND, isolation_holds(Mode::Slow(Duration::from_secs(2)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_holds_while_something_else_answers_for_user_service() {
    within(BOUND, isolation_holds(Mode::Garbage)).await;
}
