//! Clients that create users and place orders all the time, and note what they are told.
//!
//! Each sends a request until it is answered, to any of the processes, always under the same
//! idempotency key; some give up after the first failure, and some ask again after the answer.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    Problem,
    journal::{Answer, Created, Journal, Sent, sku},
};

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pauses before another try, and before another request.
const RETRY_MS: u64 = 300;
const REST_MS: u64 = 60;

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) http: reqwest::Client,
    pub(crate) user_services: Vec<String>,
    pub(crate) order_services: Vec<String>,
    /// Whether requests have idempotency keys.
    pub(crate) with_keys: bool,
    /// Users who were acknowledged.
    pub(crate) users: Arc<Mutex<Vec<String>>>,
    /// Requests so far, and those of them that were answered.
    pub(crate) numbers: Arc<AtomicU64>,
    pub(crate) answered: Arc<AtomicU64>,
}

/// A final answer.
struct Told {
    status: u16,
    body: Value,
}

impl Load {
    pub(crate) fn new(
        user_services: Vec<String>,
        order_services: Vec<String>,
        with_keys: bool,
    ) -> Result<Self, Problem> {
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        Ok(Self {
            http,
            user_services,
            order_services,
            with_keys,
            users: Arc::default(),
            numbers: Arc::default(),
            answered: Arc::default(),
        })
    }

    /// One client, until it is told to stop: then it finishes what it has begun.
    pub(crate) async fn client(self, mut rng: fastrand::Rng, stop: CancellationToken) -> Journal {
        let mut journal = Journal::default();
        while !stop.is_cancelled() {
            let user = self.any_user(&mut rng);
            match user {
                Some(user) if rng.u8(0..10) < 8 => self.order(user, &mut rng, &mut journal).await,
                _ => self.create_user(&mut rng, &mut journal).await,
            }
            sleep(Duration::from_millis(rng.u64(0..REST_MS))).await;
        }
        journal
    }

    fn any_user(&self, rng: &mut fastrand::Rng) -> Option<String> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        (!users.is_empty()).then(|| users[rng.usize(0..users.len())].clone())
    }

    async fn create_user(&self, rng: &mut fastrand::Rng, journal: &mut Journal) {
        let name = format!("user {}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "name": name, "email": "a@example.com" });
        let told = self.send(&self.user_services, "/users", &name, &body, rng, journal).await;
        let id = told.and_then(|told| told.body["id"].as_str().map(str::to_owned));
        if let Some(id) = &id {
            self.users.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
        }
        journal.users.push(Created { name, id });
    }

    async fn order(&self, customer: String, rng: &mut fastrand::Rng, journal: &mut Journal) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let known_user = rng.u8(0..10) > 0;
        let user = if known_user { customer } else { stranger(rng) };
        let body = json!({ "user_id": user, "items": [{ "sku": sku(number), "quantity": 1 }] });
        let told = self.send(&self.order_services, "/orders", &sku(number), &body, rng, journal).await;
        let answer = told.map_or(Answer::Unknown, |Told { status, body }| {
            let id = body["id"].as_str().unwrap_or_default().to_owned();
            match status {
                201 => Answer::Confirmed(id),
                202 => Answer::Pending(id),
                _ => Answer::Refused,
            }
        });
        journal.orders.push(Sent { number, known_user, answer });
    }

    /// Sends until it is answered; `None` if this client gave up.
    async fn send(
        &self,
        services: &[String],
        path: &str,
        key: &str,
        body: &Value,
        rng: &mut fastrand::Rng,
        journal: &mut Journal,
    ) -> Option<Told> {
        let gives_up = rng.u8(0..20) == 0;
        loop {
            let told = self.one_try(&services[rng.usize(0..services.len())], path, key, body).await;
            let Some(told) = told else {
                journal.failed_tries += 1;
                if gives_up {
                    return None;
                }
                sleep(Duration::from_millis(rng.u64(0..RETRY_MS))).await;
                continue;
            };
            self.answered.fetch_add(1, Ordering::Relaxed);
            if rng.u8(0..10) == 0 {
                let again = self.ask(&services[rng.usize(0..services.len())], path, key, body).await;
                // The first may still be under way at another service, and any may be killed. Every
                // other answer must be the same.
                let comes_later = |again: &Told| matches!(again.status, 409 | 429) || again.status >= 500;
                if let Some(again) = again.filter(|again| !comes_later(again)) {
                    journal.asked_again += 1;
                    let is_same = again.status == told.status && again.body["id"] == told.body["id"];
                    journal.answered_otherwise += usize::from(!is_same);
                }
            }
            return Some(told);
        }
    }

    /// An answer that is final; anything else means to try again.
    async fn one_try(&self, service: &str, path: &str, key: &str, body: &Value) -> Option<Told> {
        let told = self.ask(service, path, key, body).await?;
        let is_final = matches!(told.status, 201 | 202) && told.body["id"].is_string()
            || told.status == 422 && told.body["type"] == "urn:problem:unknown-user";
        is_final.then_some(told)
    }

    /// Any answer.
    async fn ask(&self, service: &str, path: &str, key: &str, body: &Value) -> Option<Told> {
        let mut request = self.http.post(format!("{service}{path}")).json(body);
        if self.with_keys {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let body: Value = response.json().await.ok()?;
        Some(Told { status, body })
    }
}

/// The id of nobody.
fn stranger(rng: &mut fastrand::Rng) -> String {
    let (time, version, node) = (rng.u64(..1 << 48), rng.u16(..0x1000), rng.u64(..1 << 60));
    let (first, second) = (time >> 16, time & 0xffff);
    let (variant, node) = (node >> 48, node & 0xffff_ffff_ffff);
    format!("{first:08x}-{second:04x}-7{version:03x}-8{variant:03x}-{node:012x}")
}
