//! A small switchable layer round user-service: makes calls slow, refuses them, answers in user-service's stead or lets
//! them queue for a worker, and counts every call.
//!
//! Which calls are hit is drawn from the seed and the call's number at its door, so the n-th call of either order-service
//! meets the same fate and a run can be repeated.
//!
//! Each call is one byte down standard output, a pipe that the demo reads: the count is exact and outlives `kill -9`.
//!
//! The demo sets the faults in one place, `Fleet::set_faults`.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::put;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until};

use crate::cli::Client;
use crate::clock::now;

/// Where the demo puts its [`Faults`].
pub(crate) const CONTROL_PATH: &str = "/__fault";

/// What is wrong with user-service right now; by default nothing.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Faults {
    /// The share of calls that are slow, 0 to 1.
    pub(crate) slow_share: f64,
    /// How long a slow call waits before it is served, in milliseconds.
    pub(crate) delay_ms: u64,
    /// The share of calls that are answered with a 503, at once; 0 to 1.
    pub(crate) refuse_share: f64,
    /// A page of HTML with this status, 200 or 404 say, in place of every answer; 0 for none.
    pub(crate) page_status: u16,
    /// How long the one worker at each door needs for a call, in milliseconds; 0 for no worker. Calls wait for it in
    /// order, and it finishes those whose caller has gone, too.
    pub(crate) work_ms: u64,
}

impl Faults {
    pub(crate) const NONE: Self =
        Self { slow_share: 0.0, delay_ms: 0, refuse_share: 0.0, page_status: 0, work_ms: 0 };

    /// A share of the calls takes so much longer.
    pub(crate) const fn slow(share: f64, delay_ms: u64) -> Self {
        Self { slow_share: share, delay_ms, ..Self::NONE }
    }

    /// A share of the calls is answered with a 503.
    pub(crate) const fn refuse(share: f64) -> Self {
        Self { refuse_share: share, ..Self::NONE }
    }

    /// Every call is answered with a page of HTML.
    pub(crate) const fn page(status: u16) -> Self {
        Self { page_status: status, ..Self::NONE }
    }

    /// One worker, who needs so long for a call.
    pub(crate) const fn worker(work_ms: u64) -> Self {
        Self { work_ms, ..Self::NONE }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// The faults in force, shared by every door.
#[derive(Clone, Default)]
pub(crate) struct Switch(Arc<Mutex<Faults>>);

impl Switch {
    fn get(&self) -> Faults {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, faults: Faults) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// `app` with a route to set the faults, which it doesn't suffer itself.
    pub(crate) fn control(&self, app: Router) -> Router {
        let set = |State(switch): State<Self>, Json(faults): Json<Faults>| async move { switch.set(faults) };
        app.merge(Router::new().route(CONTROL_PATH, put(set)).with_state(self.clone()))
    }

    /// `app` as one order-service meets it: counted, and hit by what is switched on.
    pub(crate) fn door(&self, app: Router, caller: Client, seed: u64) -> Router {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(work(self.clone(), waiting));
        let door = Door { caller, seed, switch: self.clone(), calls: Arc::default(), queue };
        app.layer(from_fn_with_state(door, pass))
    }
}

#[derive(Clone)]
struct Door {
    caller: Client,
    seed: u64,
    switch: Switch,
    calls: Arc<AtomicU64>,
    queue: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    let number = door.calls.fetch_add(1, Ordering::Relaxed);
    announce(door.caller);
    let faults = door.switch.get();
    if is_hit(door.seed ^ 0x0503, number, faults.refuse_share) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if faults.page_status > 0 {
        let status = StatusCode::from_u16(faults.page_status).unwrap_or(StatusCode::BAD_GATEWAY);
        return (status, Html("<html><h1>This is the load balancer speaking</h1></html>")).into_response();
    }
    if is_hit(door.seed, number, faults.slow_share) {
        sleep(Duration::from_millis(faults.delay_ms)).await;
    }
    if faults.work_ms > 0 {
        let (done, served) = oneshot::channel();
        if door.queue.send(done).is_ok() {
            let _ = served.await;
        }
    }
    next.run(request).await
}

/// The worker of one door: calls in their order, each for as long as the switch says when its turn comes.
async fn work(switch: Switch, mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let mut free = now();
    while let Some(done) = waiting.recv().await {
        // From the end of the last one, so that the timer's grain doesn't slow the worker down.
        free = free.max(now()) + Duration::from_millis(switch.get().work_ms);
        sleep_until(free.into()).await;
        // The caller may have gone; the work was done all the same.
        let _ = done.send(());
    }
}

/// Whether the `number`-th call is among the `share`.
fn is_hit(seed: u64, number: u64, share: f64) -> bool {
    fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).f64() < share
}

/// The byte that stands for one call.
const fn mark(caller: Client) -> u8 {
    match caller {
        Client::Naive => b'n',
        Client::Resilient => b'r',
        Client::Alone => b'a',
    }
}

/// The other way round; `None` for a byte that is no call.
pub(crate) fn caller_of(byte: u8) -> Option<Client> {
    Client::ALL.into_iter().find(|caller| mark(*caller) == byte)
}

fn announce(caller: Client) {
    let mut out = std::io::stdout().lock();
    // The reader is gone only when the demo is, and then this process ends too.
    let _ = out.write_all(&[mark(caller)]).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_repeats_with_the_seed() {
        let slow = |seed| (0..10_000).map(|number| is_hit(seed, number, 0.3)).collect::<Vec<_>>();
        let count = slow(7).iter().filter(|slow| **slow).count();
        assert!((2800..3200).contains(&count), "{count} of 10,000 slow");
        assert_eq!(slow(7), slow(7));
        assert_ne!(slow(7), slow(8));
    }

    #[test]
    fn no_share_means_no_call() {
        assert!(!(0..1000).any(|number| is_hit(1, number, 0.0)));
        assert!((0..1000).all(|number| is_hit(1, number, 1.0)));
    }

    #[test]
    fn a_mark_names_its_caller() {
        for caller in Client::ALL {
            assert_eq!(caller_of(mark(caller)), Some(caller));
        }
        assert_eq!(caller_of(b'\n'), None);
    }

    #[test]
    fn a_fault_may_leave_out_what_is_well() {
        let faults: Faults = serde_json::from_str(r#"{"refuse_share": 1}"#).unwrap();
        assert_eq!(faults, Faults::refuse(1.0));
        assert_eq!(serde_json::from_str::<Faults>("{}").unwrap(), Faults::NONE);
        assert!(serde_json::from_str::<Faults>(r#"{"refuse": 1}"#).is_err());
    }
}
