//! An upstream as JSON: what the page, the snapshot and the stream show of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::history::Seen;
use super::history::calls::Call;
use super::history::seconds::{KEPT, Second, Seconds};
use crate::policy::breaker;
use crate::policy::hedge::Quantile;
use crate::time::Tick;
use crate::{EndpointSnapshot, UpstreamSnapshot};

/// One upstream of one client. Times are in milliseconds, rates a second over the last ten whole
/// seconds.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) client: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) breaker: Breaker,
    /// What callers see, and what the upstream sees.
    effective: Rate,
    actual: Actual,
    latency: Latency,
    calls: u64,
    in_flight: u32,
    limit: Option<u32>,
    queued: usize,
    waiting_for_ready: usize,
    overload: Option<Overload>,
    /// Tokens left, and the most there can be; `null` without a budget.
    budget: Option<f64>,
    budget_capacity: Option<f64>,
    held_back: f64,
    /// Attempts refused here since the start, by what refused them.
    refused: BTreeMap<&'static str, u64>,
    endpoints: Vec<Endpoint>,
    /// The last whole second: calls that succeeded, failed, and were refused here.
    last: [u32; 3],
}

#[derive(Debug, Serialize)]
pub(super) struct Breaker {
    state: &'static str,
    forced: bool,
    observe_only: bool,
    failures: u32,
    successes: u32,
    streak: u32,
    probes: u32,
    reopens: u32,
    /// What is left of the open time.
    open_for: f64,
}

#[derive(Debug, Serialize)]
struct Rate {
    per_second: f64,
    /// The share that succeeded, 0 to 1; `null` without any.
    success: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Actual {
    #[serde(flatten)]
    rate: Rate,
    retries: f64,
    hedges: f64,
}

/// Of calls, to their response's head, over the last 5 to 10 s; `null` where there are too few.
#[derive(Debug, Serialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Overload {
    limit: Option<u32>,
    round_trip: Option<f64>,
    usual: Option<f64>,
    silent_for: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    origin: String,
    breaker: Breaker,
    in_flight: u32,
    latency: f64,
    /// 0 to 1.
    failing: f32,
    overload_limit: Option<u32>,
    silent_for: Option<f64>,
}

impl Breaker {
    pub(super) fn new(snapshot: &breaker::Snapshot) -> Self {
        let breaker::Snapshot { state, forced, observe_only, failures, successes, streak, .. } = *snapshot;
        Self {
            state: state.as_str(),
            forced,
            observe_only,
            failures,
            successes,
            streak,
            probes: snapshot.probes,
            reopens: snapshot.reopens,
            open_for: millis(snapshot.open_for),
        }
    }
}

impl Rate {
    fn new(good: u32, all: u32, seconds: u32) -> Self {
        let success = (all > 0).then(|| f64::from(good) / f64::from(all));
        Self { per_second: f64::from(all) / f64::from(seconds), success }
    }
}

impl Endpoint {
    fn new(snapshot: &EndpointSnapshot) -> Self {
        Self {
            origin: snapshot.origin.to_string(),
            breaker: Breaker::new(&snapshot.breaker),
            in_flight: snapshot.in_flight,
            latency: millis(snapshot.latency),
            failing: snapshot.failing,
            overload_limit: snapshot.overload.limit,
            silent_for: snapshot.overload.silent_for.map(millis),
        }
    }
}

impl Row {
    pub(super) fn new(
        client: &Arc<str>,
        snapshot: &UpstreamSnapshot,
        seen: Option<&Seen>,
        now: Tick,
    ) -> Self {
        let read = |seen: &Seen| seen.seconds(|seconds| (seconds.lately(now), last(seconds, now)));
        let ((lately, over), last) = seen.map_or(((Second::default(), 1), Second::default()), read);
        let quantile = |share| {
            let nanos = seen?.latency.quantile(Quantile::new(share)?, now)?;
            Some(in_millis(nanos))
        };
        let finite = |tokens: f64| tokens.is_finite().then_some(tokens);
        let worked = lately.attempts.saturating_sub(lately.failed_attempts);
        Self {
            client: Arc::clone(client),
            name: Arc::clone(&snapshot.name),
            breaker: Breaker::new(&snapshot.breaker),
            effective: Rate::new(lately.succeeded, lately.calls(), over),
            actual: Actual {
                rate: Rate::new(worked, lately.attempts, over),
                retries: f64::from(lately.retries) / f64::from(over),
                hedges: f64::from(lately.hedges) / f64::from(over),
            },
            latency: Latency { p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99) },
            calls: snapshot.calls,
            in_flight: snapshot.in_flight,
            limit: snapshot.limit,
            queued: snapshot.queued,
            waiting_for_ready: snapshot.waiting_for_ready,
            overload: snapshot.overload.as_ref().map(|overload| Overload {
                limit: overload.limit,
                round_trip: overload.round_trip.map(millis),
                usual: overload.usual_round_trip.map(millis),
                silent_for: overload.silent_for.map(millis),
            }),
            budget: finite(snapshot.budget),
            budget_capacity: finite(snapshot.budget_capacity),
            held_back: millis(snapshot.held_back_for),
            refused: seen.map(Seen::refused).unwrap_or_default(),
            endpoints: snapshot.endpoints.iter().map(Endpoint::new).collect(),
            last: [last.succeeded, last.failed, last.refused],
        }
    }
}

fn in_millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn last(seconds: &Seconds, now: Tick) -> Second {
    seconds.last(1, now).next().unwrap_or_default()
}

/// The last two minutes, a second a triple as in [`Row::last`], the oldest first.
pub(super) fn two_minutes(seen: Option<&Seen>, now: Tick) -> Vec<[u32; 3]> {
    let read = |seen: &Seen| seen.seconds(|seconds| seconds.last(KEPT - 1, now).collect::<Vec<_>>());
    let seconds = seen.map(read).unwrap_or_default();
    seconds.into_iter().map(|second| [second.succeeded, second.failed, second.refused]).collect()
}

/// A call under way.
#[derive(Debug, Serialize)]
pub(super) struct CallRow {
    call: u64,
    upstream: String,
    doing: &'static str,
    /// What an attempt waits for that is queued.
    waits_for: Option<&'static str>,
    /// Since it began, and since it does what it does.
    age: f64,
    doing_for: f64,
    attempts: usize,
}

impl CallRow {
    pub(super) fn new(call: &Call, now: Tick) -> Self {
        Self {
            call: call.id().as_u64(),
            upstream: call.upstream().to_owned(),
            doing: call.doing().as_str(),
            waits_for: call.doing().waits_for(),
            age: millis(call.age(now)),
            doing_for: millis(call.doing_for(now)),
            attempts: call.attempts(),
        }
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    // To a microsecond: more is noise, and digits.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
