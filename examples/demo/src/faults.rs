//! A small switchable layer round user-service: makes calls slow, refuses them, answers in
//! user-service's stead or lets them queue for a worker, and counts every call.
//!
//! Which calls are hit is drawn from the seed and the call's number at its door, so the n-th call
//! of either order-service meets the same fate and a run can be repeated.
//!
//! Each call is one byte down standard output, a pipe that the demo reads: the count is exact and
//! outlives `kill -9`. So is each piece of work.
//!
//! The demo sets the faults in one place, `Fleet::set_faults`.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::put;
use axum::{Json, Router};
use futures_util::StreamExt as _;
use resilient_client::deadline::{Deadline, header};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until};

use crate::cli::Client;
use crate::clock::now;
use crate::counted::ServerLog;
use crate::gateway::Wanted;

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
    /// How long the one worker at each door needs for a call, in milliseconds; 0 for no worker.
    /// Calls wait for it in order. It doesn't see who has gone meanwhile, as a pool of database
    /// connections doesn't; but it doesn't begin what can't be done in the time that the caller
    /// says it waits.
    pub(crate) work_ms: u64,
    /// On streams that are open when this is set nothing comes any more, and they don't end: as
    /// when something in between forgets a connection. Streams opened since are well.
    pub(crate) mute: bool,
}

impl Faults {
    pub(crate) const NONE: Self =
        Self { slow_share: 0.0, delay_ms: 0, refuse_share: 0.0, page_status: 0, work_ms: 0, mute: false };

    /// Whatever streams at that moment goes mute.
    pub(crate) const MUTE: Self = Self { mute: true, ..Self::NONE };

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
pub(crate) struct Switch {
    faults: Arc<Mutex<Faults>>,
    /// How often streams were made mute.
    muted: Arc<AtomicU64>,
}

impl Switch {
    fn get(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, faults: Faults) {
        self.muted.fetch_add(u64::from(faults.mute), Ordering::Relaxed);
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// The body, mute from the next time on that streams are made so.
    fn mutable(&self, body: Body) -> Body {
        let (muted, opened) = (Arc::clone(&self.muted), self.muted.load(Ordering::Relaxed));
        let pieces = body.into_data_stream().then(move |piece| {
            let mute = muted.load(Ordering::Relaxed) != opened;
            async move { if mute { std::future::pending().await } else { piece } }
        });
        Body::from_stream(pieces)
    }

    /// `app` with a route to set the faults, which it doesn't suffer itself. It is the demo's
    /// alone: whoever else could set them would decide what the run shows.
    pub(crate) fn control(&self, app: Router, token: &str) -> Router {
        let bearer = format!("Bearer {token}");
        let set = |State(switch): State<Self>, headers: HeaderMap, Json(faults): Json<Faults>| async move {
            if headers.get(AUTHORIZATION).is_none_or(|borne| borne.as_bytes() != bearer.as_bytes()) {
                return StatusCode::UNAUTHORIZED;
            }
            switch.set(faults);
            StatusCode::OK
        };
        app.merge(Router::new().route(CONTROL_PATH, put(set)).with_state(self.clone()))
    }

    /// `app` as one order-service meets it: counted, and hit by what is switched on.
    pub(crate) fn door(&self, app: Router, caller: Client, seed: u64, log: Option<ServerLog>) -> Router {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(work(self.clone(), waiting));
        let door = Door { caller, seed, switch: self.clone(), calls: Arc::default(), queue, log };
        app.layer(from_fn_with_state(door, enter))
    }
}

#[derive(Clone)]
struct Door {
    caller: Client,
    seed: u64,
    switch: Switch,
    calls: Arc<AtomicU64>,
    queue: mpsc::UnboundedSender<Job>,
    log: Option<ServerLog>,
}

/// A call that waits for the worker.
struct Job {
    caller: Client,
    done: oneshot::Sender<()>,
    /// Until when its caller waits, if it says so.
    told: Option<Deadline>,
    /// Until when whoever is in front of everybody waits; the worker isn't told.
    wanted: Option<Wanted>,
}

impl Job {
    /// Whether nobody waits for it any more.
    fn is_in_vain(&self) -> bool {
        self.done.is_closed() || self.wanted.is_some_and(Wanted::is_over)
    }

    /// Whether the work would take longer than the caller waits.
    fn is_hopeless(&self, takes: Duration) -> bool {
        self.told.is_some_and(|told| told.remaining() < takes)
    }
}

/// Counted before anything else, and once more with what it is answered.
async fn enter(State(door): State<Door>, request: Request, next: Next) -> Response {
    let came = door.log.as_ref().map(|log| log.came(request.headers()));
    let number = door.calls.fetch_add(1, Ordering::Relaxed);
    announce(door.caller, Mark::Call);
    let response = pass(&door, number, request, next).await;
    if let Some(came) = came {
        came.answered(response.status());
    }
    response
}

async fn pass(door: &Door, number: u64, request: Request, next: Next) -> Response {
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
        let headers = request.headers();
        let (done, served) = oneshot::channel();
        let told = header::parse(headers).map(Deadline::within);
        let job = Job { caller: door.caller, done, told, wanted: Wanted::of(headers) };
        if door.queue.send(job).is_ok() && served.await.is_err() {
            return StatusCode::GATEWAY_TIMEOUT.into_response();
        }
    }
    let response = next.run(request).await;
    let kind = response.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind == "text/event-stream") {
        return response.map(|body| door.switch.mutable(body));
    }
    response
}

/// The worker of one door: calls in their order, each for as long as the switch says when its turn
/// comes.
async fn work(switch: Switch, mut waiting: mpsc::UnboundedReceiver<Job>) {
    let mut free = now();
    while let Some(job) = waiting.recv().await {
        let takes = Duration::from_millis(switch.get().work_ms);
        if job.is_hopeless(takes) {
            continue;
        }
        announce(job.caller, if job.is_in_vain() { Mark::InVain } else { Mark::Worked });
        // From the end of the last one, so that the timer's grain doesn't slow the worker down.
        free = free.max(now()) + takes;
        sleep_until(free.into()).await;
        // The caller may have gone; the work was done all the same.
        let _ = job.done.send(());
    }
}

/// Whether the `number`-th call is among the `share`.
fn is_hit(seed: u64, number: u64, share: f64) -> bool {
    fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).f64() < share
}

/// What user-service says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It has come.
    Call,
    /// The worker begins it.
    Worked,
    /// The same, but nobody waits for it any more.
    InVain,
}

impl Mark {
    pub(crate) const ALL: [Self; 3] = [Self::Call, Self::Worked, Self::InVain];
}

/// The byte that stands for it.
const fn byte(caller: Client, mark: Mark) -> u8 {
    b'a' + caller as u8 * Mark::ALL.len() as u8 + mark as u8
}

/// The other way round; `None` for a byte that is nothing of the kind.
pub(crate) fn heard(byte: u8) -> Option<(Client, Mark)> {
    let number = usize::from(byte.checked_sub(b'a')?);
    let caller = Client::ALL.get(number / Mark::ALL.len())?;
    Some((*caller, Mark::ALL[number % Mark::ALL.len()]))
}

fn announce(caller: Client, mark: Mark) {
    let mut out = std::io::stdout().lock();
    // The reader is gone only when the demo is, and then this process ends too.
    let _ = out.write_all(&[byte(caller, mark)]).and_then(|()| out.flush());
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
    fn a_byte_names_its_caller_and_what_it_says_of_the_call() {
        for caller in Client::ALL {
            for mark in Mark::ALL {
                assert_eq!(heard(byte(caller, mark)), Some((caller, mark)));
            }
        }
        assert_eq!(heard(b'\n'), None);
        assert_eq!(heard(b'z'), None);
    }

    fn job(told: Option<u64>) -> (Job, oneshot::Receiver<()>) {
        let (done, served) = oneshot::channel();
        let told = told.map(|ms| Deadline::within(Duration::from_millis(ms)));
        (Job { caller: Client::Naive, done, told, wanted: None }, served)
    }

    #[test]
    fn the_worker_begins_nothing_that_its_caller_wont_wait_for_and_only_if_it_was_told() {
        let takes = Duration::from_millis(40);
        for (told, hopeless) in [(None, false), (Some(60_000), false), (Some(39), true), (Some(0), true)] {
            assert_eq!(job(told).0.is_hopeless(takes), hopeless, "{told:?}");
        }
        let (gone, served) = job(None);
        drop(served);
        assert!(gone.is_in_vain() && !gone.is_hopeless(takes), "it doesn't see who has gone");
    }

    /// Every process of the host could, and through it a page in a browser.
    #[tokio::test]
    async fn faults_are_set_by_whoever_bears_the_runs_token_alone() {
        let switch = Switch::default();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}{CONTROL_PATH}", listener.local_addr().unwrap());
        let control = switch.control(Router::new(), "a token");
        tokio::spawn(async move { axum::serve(listener, control).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let put = || client.put(&url).json(&Faults::refuse(1.0));
        for (request, status) in [(put(), 401), (put().bearer_auth("another"), 401)] {
            assert_eq!(request.send().await.unwrap().status(), status);
            assert_eq!(switch.get(), Faults::NONE);
        }
        assert_eq!(put().bearer_auth("a token").send().await.unwrap().status(), 200);
        assert_eq!(switch.get(), Faults::refuse(1.0));
    }

    #[test]
    fn a_fault_may_leave_out_what_is_well() {
        let faults: Faults = serde_json::from_str(r#"{"refuse_share": 1}"#).unwrap();
        assert_eq!(faults, Faults::refuse(1.0));
        assert_eq!(serde_json::from_str::<Faults>("{}").unwrap(), Faults::NONE);
        assert!(serde_json::from_str::<Faults>(r#"{"refuse": 1}"#).is_err());
    }
}
