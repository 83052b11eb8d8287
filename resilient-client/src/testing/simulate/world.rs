//! A run: the policy's own engine, a server of the scenario, and the calls.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::task::JoinSet;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::scenario::{Scenario, Servers};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::policy::Policy;
use crate::rng::Rng;
use crate::server::DeadlineLayer;
use crate::sync::Mutex;
use crate::time;
use crate::{ErrorKind, ResilienceLayer};

const NAME: &str = "http://upstream";
/// Whether a call began while something was wrong.
pub(super) const TROUBLED: HeaderName = HeaderName::from_static("x-simulated-trouble");

pub(super) type Hop = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Empty<Bytes>>, Infallible>;

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// From the beginning.
    pub(super) began: Duration,
    pub(super) took: Duration,
    pub(super) end: Result<StatusCode, ErrorKind>,
}

/// All of them, and what the servers saw.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) calls: Vec<Call>,
    /// Requests for calls that began while something was wrong; all, where something always is.
    pub(super) requests: usize,
}

struct Board {
    servers: Servers,
    requests: usize,
}

fn saying(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// The last service in a row.
fn server(board: Arc<Mutex<Board>>) -> Hop {
    BoxCloneSyncService::new(service_fn(move |request: Request<Empty<Bytes>>| {
        let fate = {
            let mut board = board.lock();
            board.requests += usize::from(request.headers().contains_key(TROUBLED));
            let host = request.uri().host().unwrap_or_default();
            let replica = host.strip_prefix("replica-").and_then(|number| number.parse().ok());
            board.servers.answer(replica.unwrap_or_default(), time::now())
        };
        async move {
            tokio::time::sleep_until(time::instant(fate.at)).await;
            Ok::<_, Infallible>(saying(fate.status))
        }
    }))
}

fn layer(policy: &Policy, scenario: &Scenario, hop: u64) -> Result<ResilienceLayer, Error> {
    let builder =
        ResilienceLayer::builder().policy(policy.clone()).seed(scenario.seed.wrapping_add(hop << 32));
    match scenario.replicas() {
        1 => builder.build(),
        several => {
            let replicas = (0..several).map(|number| format!("http://replica-{number}"));
            builder.endpoints(NAME, Endpoints::fixed(replicas)).build()
        }
    }
}

/// A service that answers as the one behind it did, which it asks through a client of its own and
/// within the time that its caller has left.
pub(super) fn service(client: ResilienceLayer, behind: Hop) -> Hop {
    let service = service_fn(move |request: Request<Empty<Bytes>>| {
        let client = client.layer(behind.clone());
        let own = asking(request.headers().contains_key(TROUBLED));
        async move {
            let answer = client.oneshot(own).await;
            Ok::<_, Infallible>(saying(answer.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())))
        }
    });
    BoxCloneSyncService::new(DeadlineLayer::standard().layer(service))
}

/// Poisson arrivals, the same whatever the policy.
pub(super) async fn run(policy: &Policy, scenario: &Scenario) -> Result<Run, Error> {
    time::simulated_from_now();
    let begun = time::now();
    let servers = Servers::new(scenario, begun);
    let board = Arc::new(Mutex::new(Board { servers, requests: 0 }));
    let mut behind = server(Arc::clone(&board));
    for hop in 1..scenario.hops() as u64 {
        behind = service(layer(policy, scenario, hop)?, behind);
    }
    let client = layer(policy, scenario, 0)?.layer(behind);
    let mut rng = Rng::seeded(scenario.seed);
    let (mut running, mut at) = (JoinSet::new(), 0.0);
    loop {
        at -= (1.0 - rng.unit()).ln() / scenario.per_second;
        let began = Duration::from_secs_f64(at);
        if began >= scenario.lasts {
            break;
        }
        tokio::time::sleep_until(time::instant(begun.after(began))).await;
        // What is wrong is so by the clock that all go by.
        let called = time::now();
        let (client, request) = (client.clone(), request(scenario, called.since(begun)));
        running.spawn(async move {
            let end = client.oneshot(request).await;
            let end = end.map(|answer| answer.status()).map_err(|error| error.kind());
            Call { began: called.since(begun), took: time::now().since(called), end }
        });
    }
    let mut calls = Vec::with_capacity(running.len());
    while let Some(ended) = running.join_next().await {
        // Nobody aborts one.
        calls.push(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
    }
    // In one order, whatever that was in which they ended.
    calls.sort_by_key(|call: &Call| (call.began, call.took));
    let requests = board.lock().requests;
    Ok(Run { calls, requests })
}

fn request(scenario: &Scenario, began: Duration) -> Request<Empty<Bytes>> {
    asking(scenario.trouble().is_none_or(|(from, to)| (from..to).contains(&began)))
}

/// A request with nothing but what the simulation counts by.
fn asking(troubled: bool) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static("http://upstream/");
    if troubled {
        request.headers_mut().insert(TROUBLED, HeaderValue::from_static("1"));
    }
    request
}

/// Runs it on a thread of its own, whose clock leaps.
pub(super) fn on_a_virtual_clock(policy: &Policy, scenario: &Scenario) -> Result<Run, Error> {
    std::thread::scope(|scope| {
        let simulated = scope.spawn(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build();
            let runtime = runtime.map_err(|error| Error::new(ErrorKind::Config).because(error))?;
            runtime.block_on(run(policy, scenario))
        });
        simulated.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
