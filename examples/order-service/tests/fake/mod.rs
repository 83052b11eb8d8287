//! A user-service that does as it is told, and a service on top of it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use order_service::{
    AppState, Clock, Config, Existence, LookupFuture, LookupRequest, OrderStatus, Unavailable, UserLookup,
    app,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use service_kit::testing::{Answer, TestDatabase, get, post};

pub const START_MS: i64 = 1_700_000_000_000;
pub const ADA: &str = "01980000-0000-7000-8000-00000000000a";
pub const BOB: &str = "01980000-0000-7000-8000-00000000000b";

/// How a lookup comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Exists,
    Unknown,
    Down,
    /// Never.
    Hang,
    Panic,
    /// `Exists`, once the test lets it.
    Gated,
}

/// A lookup that answers what the test says, and remembers what it was asked.
pub struct FakeUsers {
    says: Mutex<Says>,
    about: Mutex<HashMap<String, Says>>,
    pub asked: Mutex<Vec<(String, String)>>,
    pub gate: Semaphore,
    /// Told when a gated lookup has begun.
    pub begun: Semaphore,
    in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
}

impl FakeUsers {
    pub fn new(says: Says) -> Arc<Self> {
        Arc::new(Self {
            says: Mutex::new(says),
            about: Mutex::default(),
            asked: Mutex::default(),
            gate: Semaphore::new(0),
            begun: Semaphore::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        })
    }

    pub fn now_says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub fn says_about(&self, user_id: &str, says: Says) {
        self.about.lock().unwrap().insert(user_id.to_owned(), says);
    }

    pub fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl UserLookup for FakeUsers {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        self.asked.lock().unwrap().push((lookup.user_id.to_owned(), lookup.request_id.to_owned()));
        let about = self.about.lock().unwrap().get(lookup.user_id).copied();
        let says = about.unwrap_or(*self.says.lock().unwrap());
        Box::pin(async move {
            let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let answer = match says {
                Says::Exists => Ok(Existence::Exists),
                Says::Unknown => Ok(Existence::Unknown),
                Says::Down => Err(Unavailable::new("down")),
                Says::Hang => std::future::pending().await,
                Says::Panic => panic!("a client that panics"),
                Says::Gated => {
                    self.begun.add_permits(1);
                    self.gate.acquire().await.unwrap().forget();
                    Ok(Existence::Exists)
                }
            };
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            answer
        })
    }
}

/// order-service on a database of its own, by a clock of its own.
pub struct Service {
    pub app: Router,
    pub state: AppState,
    pub users: Arc<FakeUsers>,
    pub clock: Clock,
    pub database: TestDatabase,
}

impl Service {
    pub async fn new(says: Says) -> Self {
        let database = TestDatabase::new().await;
        let (users, clock) = (FakeUsers::new(says), Clock::manual(START_MS));
        let state = AppState::open_at(&config(&database), users.clone(), clock.clone()).await.unwrap();
        Self { app: app(state.clone()), state, users, clock, database }
    }

    /// What another process, or this one after a restart, has.
    pub async fn another(&self) -> AppState {
        AppState::open_at(&config(&self.database), self.users.clone(), self.clock.clone()).await.unwrap()
    }

    pub async fn place(&self, user_id: &str) -> Answer {
        post(&self.app, "/orders", &order(user_id)).await
    }

    /// Places an order that becomes pending; returns its id.
    pub async fn place_pending(&self, user_id: &str) -> String {
        let answer = self.place(user_id).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.text("id")
    }

    pub async fn status(&self, id: &str) -> String {
        get(&self.app, &format!("/orders/{id}")).await.text("status")
    }

    pub async fn with_status(&self, status: OrderStatus) -> Vec<Value> {
        let page = get(&self.app, &format!("/orders?limit=100&status={}", status.as_str())).await.json();
        page["orders"].as_array().unwrap().clone()
    }
}

pub fn config(database: &TestDatabase) -> Config {
    Config {
        database_url: database.url.clone(),
        user_timeout_ms: 50,
        lookup_limit_ms: 50,
        ..Config::default()
    }
}

pub fn order(user_id: &str) -> Value {
    json!({ "user_id": user_id, "items": [{ "sku": "sku-1", "quantity": 2 }] })
}

/// Long enough for any postponed check to be due.
pub const LATER: Duration = Duration::from_secs(6);
