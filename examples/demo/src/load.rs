//! The clients: an open-loop load of orders and reads, the same one for every order-service.
//!
//! A client waits [`PATIENCE`], and no more than [`MOST_WAITING`] orders, and as many reads, wait
//! for one order-service: above that a request is given up at once. Both bounds are there for the
//! naive twin, which has none of its own.
//!
//! Latency counts from the sending, which waits for no earlier answer.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::Problem;
use crate::arrivals::{NewOrder, Orders, Poisson};
use crate::audit::{Status, Stored};
use crate::clock::now;
use crate::histogram::Histogram;
use crate::page::Recent;
use crate::scenario::Scenario;
use crate::tally::{Answer, Books, Sent};

/// How long a client waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How many orders, and how many reads, may wait for one order-service.
pub(crate) const MOST_WAITING: usize = 1000;
/// How soon an impatient client sends its order again.
const IMPATIENT_AFTER: Duration = Duration::from_millis(50);
/// How many orders each order-service gets before the load starts, for the reads to read.
const READABLE: usize = 50;
/// A user-service never hands out this id.
pub(crate) const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// One order-service under load.
pub(crate) struct Target {
    http: reqwest::Client,
    /// Where the load goes...
    base: String,
    /// ...and the order-service itself, which is asked what it holds.
    order_service: String,
    users: Arc<[String]>,
    /// Orders that were stored before the load started.
    readable: Vec<String>,
    /// Apart, so that orders piling up don't keep the clients from reading.
    orders: Semaphore,
    reads: Semaphore,
    /// A lock, because every request writes its outcome here; held for a few counter updates.
    books: Mutex<Books>,
    /// For whoever watches.
    recent: Recent,
}

impl Target {
    /// Gets an order-service ready for the load: warm, and with something to read.
    pub(crate) async fn prepare(
        base: String,
        order_service: String,
        users: Arc<[String]>,
        books: Books,
    ) -> Result<Self, Problem> {
        let http =
            reqwest::Client::builder().retry(reqwest::retry::never()).timeout(PATIENCE).no_proxy().build()?;
        let [orders, reads] = [(); 2].map(|()| Semaphore::new(MOST_WAITING));
        let books = Mutex::new(books);
        let (readable, recent) = Default::default();
        let mut target = Self { http, base, order_service, users, readable, orders, reads, books, recent };
        while target.readable.len() < READABLE {
            // Numbered from the top down, out of the way of the load's.
            let number = u64::MAX - target.readable.len() as u64;
            let order = NewOrder { number, user: Some(0), twice: false };
            let response = target.send(&target.order_service, &order).await?;
            let answer = Answer::from_status(response.status().as_u16());
            if !answer.acknowledges() {
                return Err(format!(
                    "{} answered {} to a first order",
                    target.order_service,
                    response.status()
                )
                .into());
            }
            let stored: Value = response.json().await?;
            let id = stored["id"].as_str().ok_or("an order without an id")?;
            target.readable.push(id.to_owned());
            let sent = Sent { answer, ..Sent::new(&order, None, Duration::ZERO) };
            target.books().close(sent);
        }
        Ok(target)
    }

    /// The books; the lock is never held across an await.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of a customer.
    pub(crate) fn a_user(&self) -> &str {
        self.users.first().map_or(NOBODY, String::as_str)
    }

    /// The last orders.
    pub(crate) const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// How many requests are waiting for an answer now.
    pub(crate) fn waiting(&self) -> usize {
        2 * MOST_WAITING - self.orders.available_permits() - self.reads.available_permits()
    }

    async fn place(&self, order: NewOrder, phase: usize, at: Duration) {
        let mut sent = Sent::new(&order, Some(phase), at);
        if let Ok(_permit) = self.orders.try_acquire() {
            let begun = now();
            let first = async {
                let (answer, id) = self.answer(&order).await;
                (sent.answer, sent.latency) = (answer, begun.elapsed());
                if !sent.is_overtaken() {
                    self.answered(&sent, id);
                }
            };
            let again = async {
                if !order.twice {
                    return None;
                }
                sleep(IMPATIENT_AFTER).await;
                Some(self.answer(&order).await)
            };
            let ((), again) = tokio::join!(first, again);
            let (again, id) = again.unzip();
            sent.again = again;
            if sent.is_overtaken() {
                sent.take_the_others_answer(begun.elapsed());
                self.answered(&sent, id.flatten());
            }
        } else {
            self.answered(&sent, None);
        }
        self.books().close(sent);
    }

    fn answered(&self, sent: &Sent, id: Option<String>) {
        self.books().answered(sent);
        self.recent.answered(sent, id);
    }

    /// The answer, and the id of an order that is kept.
    async fn answer(&self, order: &NewOrder) -> (Answer, Option<String>) {
        match self.send(&self.base, order).await {
            Ok(response) => {
                let answer = Answer::from_status(response.status().as_u16());
                // Read to the end, as a client would, and so that the connection can be used again.
                match response.bytes().await {
                    Ok(body) if answer == Answer::Accepted => (answer, id(&body)),
                    Ok(_) => (answer, None),
                    Err(_) => (Answer::Broken, None),
                }
            }
            Err(error) if error.is_timeout() => (Answer::TimedOut, None),
            Err(_) => (Answer::Broken, None),
        }
    }

    async fn send(&self, base: &str, order: &NewOrder) -> reqwest::Result<reqwest::Response> {
        let user = order.user.map_or(NOBODY, |index| &self.users[index]);
        let reference = order.reference();
        let body = json!({ "user_id": user, "items": [{ "sku": reference, "quantity": 1 }] });
        let url = format!("{base}/orders");
        self.http.post(url).header("idempotency-key", reference).json(&body).send().await
    }

    /// Reads one order, or every fifth time a page of them.
    async fn read(&self, choice: usize, phase: usize) {
        let Ok(_permit) = self.reads.try_acquire() else {
            self.books().read(phase, Duration::ZERO, false);
            return;
        };
        let url = match choice % 5 {
            0 => format!("{}/orders?limit=20", self.base),
            _ => format!("{}/orders/{}", self.base, self.readable[choice % self.readable.len()]),
        };
        let begun = now();
        let ok = match self.http.get(url).send().await {
            Ok(response) if response.status() == StatusCode::OK => response.bytes().await.is_ok(),
            _ => false,
        };
        self.books().read(phase, begun.elapsed(), ok);
    }
}

impl Target {
    /// Whether any order waits to be verified.
    pub(crate) async fn has_pending(&self) -> Result<bool, Problem> {
        Ok(!self.page("limit=1&status=pending_verification").await?.orders.is_empty())
    }

    /// Everything the order-service holds.
    pub(crate) async fn stored_orders(&self) -> Result<Vec<Stored>, Problem> {
        let mut all = Vec::new();
        let mut page = self.page("limit=100").await?;
        loop {
            all.append(&mut page.orders);
            let Some(after) = page.next else { return Ok(all) };
            page = self.page(&format!("limit=100&after={after}")).await?;
        }
    }

    /// Which of these orders, the oldest first, wait to be verified.
    pub(crate) async fn pending_of(&self, ids: &[String]) -> Result<HashSet<String>, Problem> {
        let mut pending = HashSet::new();
        let mut after = ids.first().cloned();
        while let Some(from) = after {
            let query = format!("/orders?limit=100&status=pending_verification&after={from}");
            let page: Page<Named> = self.get(&query).await?;
            pending.extend(page.orders.into_iter().map(|order| order.id));
            after = page.next;
        }
        // The list is in the order of commits: one sent a little later may stand before the first.
        let missing: Vec<_> = ids.iter().filter(|id| !pending.contains(*id)).collect();
        for id in missing {
            let order: Named = self.get(&format!("/orders/{id}")).await?;
            if order.status == Status::PendingVerification {
                pending.insert(order.id);
            }
        }
        Ok(pending)
    }

    async fn page(&self, query: &str) -> Result<Page, Problem> {
        self.get(&format!("/orders?{query}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let url = format!("{}{path}", self.order_service);
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }
}

#[derive(Deserialize)]
struct Page<O = Stored> {
    orders: Vec<O>,
    next: Option<String>,
}

/// What names an order at its order-service.
#[derive(Deserialize)]
struct Named {
    id: String,
    status: Status,
}

fn id(body: &[u8]) -> Option<String> {
    serde_json::from_slice(body).ok().map(|Named { id, .. }| id)
}

/// Creates the customers. Returns their ids.
pub(crate) async fn create_users(user_service: &str, how_many: usize) -> Result<Arc<[String]>, Problem> {
    let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let mut users = Vec::new();
    for number in 0..how_many {
        let body = json!({ "name": format!("Customer {number}"), "email": format!("customer-{number}@example.com") });
        let response =
            http.post(format!("{user_service}/users")).json(&body).send().await?.error_for_status()?;
        let user: Value = response.json().await?;
        users.push(user["id"].as_str().ok_or("a user without an id")?.to_owned());
    }
    Ok(users.into())
}

/// Sends orders and reads to every target at the given rates, until `stop`; then lets those under
/// way come to their end. Returns how late they were sent, by phase.
pub(crate) async fn run(
    targets: &[Arc<Target>],
    phase: &CurrentPhase,
    rates: Rates,
    start: Instant,
    stop: impl Future<Output = ()>,
) -> Result<Vec<Histogram>, Problem> {
    let mut late = vec![Histogram::default(); phase.of];
    let mut under_way = JoinSet::new();
    let users = targets.iter().map(|target| target.users.len()).min().unwrap_or_default();
    let mut order_times =
        Poisson::new(rates.seed ^ 0x0de5, rates.orders).zip(Orders::new(rates.seed, users)).peekable();
    let mut read_times = Poisson::new(rates.seed ^ 0x5ead, rates.reads).zip(0..).peekable();
    tokio::pin!(stop);
    loop {
        let order_due = order_times.peek().map_or(Duration::MAX, |(due, _)| *due);
        let read_due = read_times.peek().map_or(Duration::MAX, |(due, _)| *due);
        let due = order_due.min(read_due);
        tokio::select! {
            () = &mut stop => break,
            () = sleep_until((start + due).into()) => {}
        }
        let (lateness, phase) = ((start + due).elapsed(), phase.get());
        if let Some(late) = late.get_mut(phase) {
            late.record(lateness);
        }
        if due == order_due {
            let Some((_, order)) = order_times.next() else { break };
            for target in targets {
                let (target, order) = (Arc::clone(target), order.clone());
                // Here, where they come in their order.
                target.recent.placed(order.number);
                under_way.spawn(async move { target.place(order, phase, due).await });
            }
        } else {
            let Some((_, choice)) = read_times.next() else { break };
            for target in targets {
                let target = Arc::clone(target);
                under_way.spawn(async move { target.read(choice, phase).await });
            }
        }
        while let Some(ended) = under_way.try_join_next() {
            ended?;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended?;
    }
    Ok(late)
}

/// The number of the phase that the scenario is in.
pub(crate) struct CurrentPhase {
    number: AtomicUsize,
    /// How many there are.
    of: usize,
}

impl CurrentPhase {
    pub(crate) const fn first_of(scenario: &Scenario) -> Self {
        Self { number: AtomicUsize::new(0), of: scenario.phases.len() }
    }

    pub(crate) fn set(&self, phase: usize) {
        self.number.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }
}

/// How much load, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) orders: u32,
    pub(crate) reads: u32,
    pub(crate) seed: u64,
}
