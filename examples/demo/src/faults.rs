//! A small switchable layer round user-service: makes a share of the calls slow, or refuses all, and counts every call.
//!
//! Which calls are slow is drawn from the seed and the call's number at its door, so the n-th call of either
//! order-service meets the same fate and a run can be repeated.
//!
//! Each call is one byte down standard output, a pipe that the demo reads: the count is exact and outlives `kill -9`.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::cli::Client;

/// Where the demo puts its [`Faults`].
pub(crate) const CONTROL_PATH: &str = "/__fault";

/// What is wrong with user-service right now; by default nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Faults {
    /// The share of calls that are slow, 0 to 1.
    pub(crate) slow_share: f64,
    /// How long a slow call waits before it is served, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Answers every call with a 503, at once.
    pub(crate) refuse: bool,
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

    /// `app` as one order-service meets it: counted, and sometimes slow or refusing.
    pub(crate) fn door(&self, app: Router, caller: Client, seed: u64) -> Router {
        let door = Door { caller, seed, switch: self.clone(), calls: Arc::default() };
        app.layer(from_fn_with_state(door, pass))
    }
}

#[derive(Clone)]
struct Door {
    caller: Client,
    seed: u64,
    switch: Switch,
    calls: Arc<AtomicU64>,
}

async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    let number = door.calls.fetch_add(1, Ordering::Relaxed);
    announce(door.caller);
    let faults = door.switch.get();
    if faults.refuse {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if is_slow(door.seed, number, faults.slow_share) {
        tokio::time::sleep(Duration::from_millis(faults.delay_ms)).await;
    }
    next.run(request).await
}

/// Whether the `number`-th call is among the slow `share`.
fn is_slow(seed: u64, number: u64, share: f64) -> bool {
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
    fn the_slow_share_is_kept_and_repeats_with_the_seed() {
        let slow = |seed| (0..10_000).map(|number| is_slow(seed, number, 0.3)).collect::<Vec<_>>();
        let count = slow(7).iter().filter(|slow| **slow).count();
        assert!((2800..3200).contains(&count), "{count} of 10,000 slow");
        assert_eq!(slow(7), slow(7));
        assert_ne!(slow(7), slow(8));
    }

    #[test]
    fn no_share_means_no_slow_call() {
        assert!(!(0..1000).any(|number| is_slow(1, number, 0.0)));
        assert!((0..1000).all(|number| is_slow(1, number, 1.0)));
    }

    #[test]
    fn a_mark_names_its_caller() {
        for caller in Client::ALL {
            assert_eq!(caller_of(mark(caller)), Some(caller));
        }
        assert_eq!(caller_of(b'\n'), None);
    }
}
