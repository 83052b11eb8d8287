//! Both services in this process, over real sockets and databases, to be killed and started again.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::{sync::Arc, time::Duration};

use axum::Router;
use order_service::ResilientUsers;
use serde_json::json;
use service_kit::testing::{Answer, TestDatabase, connect, post};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// A user as both tables have it: id, name, email, created at, version.
pub type UserRow = (String, String, String, i64, i64);

/// One process of user-service. Dropped, it is gone at once.
pub struct Users {
    pub app: Router,
    pub port: u16,
    server: JoinHandle<()>,
}

impl Users {
    pub async fn start(database: &TestDatabase, amqp_url: Option<&str>) -> Self {
        Self::start_at(0, database, amqp_url).await
    }

    pub async fn start_at(port: u16, database: &TestDatabase, amqp_url: Option<&str>) -> Self {
        let config = user_service::Config {
            database_url: database.url.clone(),
            amqp_url: amqp_url.map(str::to_owned),
            ..user_service::Config::default()
        };
        let state = user_service::AppState::open(&config).await.unwrap();
        let app = user_service::app(state.clone());
        let (listener, port) = listen(port).await;
        let router = app.clone();
        let server = tokio::spawn(async move {
            user_service::serve(state, router, listener, std::future::pending()).await.unwrap();
        });
        Self { app, port, server }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub async fn create(&self, name: &str) -> String {
        let answer = post(&self.app, "/users", &json!({ "name": name, "email": "a@example.com" })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.text("id")
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One process of order-service. Dropped, it is gone at once.
pub struct Orders {
    pub app: Router,
    server: JoinHandle<()>,
}

impl Orders {
    pub async fn start(database: &TestDatabase, users: &str, amqp_url: Option<&str>) -> Self {
        let config = order_service::Config {
            database_url: database.url.clone(),
            user_service_url: users.to_owned(),
            amqp_url: amqp_url.map(str::to_owned),
            ..order_service::Config::default()
        };
        let users = Arc::new(ResilientUsers::new(&config).unwrap());
        let state = order_service::AppState::open(&config, users).await.unwrap();
        let app = order_service::app(state.clone());
        let (listener, _) = listen(0).await;
        let router = app.clone();
        let server = tokio::spawn(async move {
            order_service::serve(state, router, listener, std::future::pending()).await.unwrap();
        });
        Self { app, server }
    }

    pub async fn order(&self, user_id: &str) -> Answer {
        let order = json!({ "user_id": user_id, "items": [{ "sku": "tea", "quantity": 1 }] });
        post(&self.app, "/orders", &order).await
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn listen(port: u16) -> (TcpListener, u16) {
    // A port that was just left may be taken for a moment still.
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            let port = listener.local_addr().unwrap().port();
            return (listener, port);
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("port {port} stays taken");
}

/// Asks until the answer is yes; fails, saying what was waited for, when it isn't within the time.
pub async fn eventually<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    mut check: impl FnMut() -> F,
) {
    let asking = async {
        while !check().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(within, asking).await.is_ok(), "not within {within:?}: {what}");
}

pub const SOON: Duration = Duration::from_secs(20);

pub async fn rows(database: &TestDatabase, table: &str) -> Vec<UserRow> {
    let sql = format!("SELECT id, name, email, created_at, version FROM {table} ORDER BY id");
    let mut connection = connect(&database.url).await;
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
}

pub async fn is_copied(users: &TestDatabase, orders: &TestDatabase) -> bool {
    rows(users, "users").await == rows(orders, "user_copies").await
}

/// Waits until the copy is user-service's table.
pub async fn copied(users: &TestDatabase, orders: &TestDatabase) {
    eventually("the copy equals the table", SOON, || is_copied(users, orders)).await;
}
