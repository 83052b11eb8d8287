//! The whole state at one moment.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Desk;
use super::answer::{self, Operator, Query};
use super::history::calls::Call;
use super::history::{Seen, Story};
use super::rows::{CallRow, Row, two_minutes};
use super::watched::Watched;
use crate::access::Refusal;
use crate::event::CallEnd;
use crate::policy::breaker::Transition;
use crate::time::{self, Tick};
use crate::{Connections, UpstreamSnapshot};

/// The version of the snapshot's form. It grows when something is taken away or means something
/// else.
pub(super) const VERSION: u32 = 1;
/// The most calls under way that are shown of a client: its oldest.
const MOST_CALLS: usize = 100;

/// What of it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    client: Option<String>,
    upstream: Option<String>,
}

/// All of it is read before any of it is written: it borrows nothing, so that it can hold no lock
/// of the calls' path meanwhile.
#[derive(Serialize)]
pub(super) struct Snapshot {
    version: u32,
    /// Milliseconds since 1970.
    at: u64,
    /// When the process began.
    process: u64,
    /// The newest event's number.
    event: u64,
    clients: Vec<Client>,
}

#[derive(Serialize)]
struct Client {
    name: Arc<str>,
    policy_version: u64,
    draining: bool,
    /// `null` where the transport doesn't tell.
    connections: Option<Connections>,
    upstreams: Vec<Upstream>,
    calls: Calls,
}

#[derive(Serialize)]
struct Upstream {
    #[serde(flatten)]
    row: Row,
    seconds: Vec<[u32; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    story: Option<Value>,
}

#[derive(Serialize)]
struct Calls {
    /// How many are followed.
    under_way: usize,
    /// The oldest of them.
    oldest: Vec<CallRow>,
    /// The oldest of those whose body has been open for longer than the call may take.
    old_bodies: Vec<CallRow>,
}

pub(super) async fn get(
    _: Operator,
    State(desk): State<Arc<Desk>>,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    read(&desk, &asked).map(answer::json)
}

/// Reads what is asked for.
pub(super) fn read(desk: &Desk, asked: &Asked) -> Result<Snapshot, Refusal> {
    let now = time::now();
    let asked_for: Vec<&Watched> = match &asked.client {
        Some(name) => vec![desk.client(name)?],
        None => desk.clients.iter().collect(),
    };
    let shown = |client: &&Watched| show(client, asked.upstream.as_deref(), now);
    let clients: Vec<_> = asked_for.iter().map(shown).collect();
    if asked.upstream.is_some() && clients.iter().all(|client| client.upstreams.is_empty()) {
        let known = asked_for.iter().flat_map(|client| client.core.snapshot());
        return Err(answer::unknown("upstream", known.map(|upstream| upstream.name.to_string())));
    }
    let event = desk.recent.lock().newest();
    let (at, process) = (time::unix_millis(), desk.process);
    Ok(Snapshot { version: VERSION, at, process, event, clients })
}

fn show(client: &Watched, upstream: Option<&str>, now: Tick) -> Client {
    let Watched { name, core, history } = client;
    let (_, policy_version, _) = core.in_force();
    let wanted = |snapshot: &UpstreamSnapshot| upstream.is_none_or(|upstream| *upstream == *snapshot.name);
    let upstreams = core.snapshot().into_iter().filter(wanted).map(|snapshot| {
        let seen = history.of(&snapshot.name);
        let seen = seen.as_deref();
        let story = upstream.is_some().then(|| {
            let endpoints = snapshot.endpoints.iter().map(|endpoint| endpoint.origin.as_str());
            let of_endpoints = endpoints.filter_map(|origin| Some((origin, history.of(origin)?)));
            story(seen, &of_endpoints.collect::<Vec<_>>())
        });
        let row = Row::new(name, &snapshot, seen, now);
        Upstream { row, seconds: two_minutes(seen, now), story }
    });
    let of_upstream = |call: &Call| upstream.is_none_or(|upstream| upstream == call.upstream());
    let rows = |calls: Vec<Call>| calls.iter().map(|call| CallRow::new(call, now)).collect::<Vec<_>>();
    let (oldest, under_way) = history.calls.oldest(MOST_CALLS, of_upstream);
    // Looked for among all: streams and others that may take their time would be in front of them.
    let holds = |call: &Call| of_upstream(call) && call.holds_old_body(now);
    let (old_bodies, _) = history.calls.oldest(MOST_CALLS, holds);
    let calls = Calls { under_way, oldest: rows(oldest), old_bodies: rows(old_bodies) };
    let (draining, connections) = (core.is_draining(), core.connections());
    let (name, upstreams) = (Arc::clone(name), upstreams.collect());
    Client { name, policy_version, draining, connections, upstreams, calls }
}

/// What happened to an upstream and to its endpoints, and its last calls that didn't go as they
/// should.
fn story(seen: Option<&Seen>, endpoints: &[(&str, Arc<Seen>)]) -> Value {
    let Story { transitions, explained } = seen.map(Seen::story).unwrap_or_default();
    let told = |at: u64, endpoint: Option<&str>, transition: &Transition| {
        let Transition { from, to, cause, .. } = transition;
        let (from, to) = (from.as_str(), to.as_str());
        json!({ "at": at, "endpoint": endpoint, "from": from, "to": to, "cause": cause.to_string() })
    };
    let mut all: Vec<_> =
        transitions.iter().map(|(at, transition)| (*at, told(*at, None, transition))).collect();
    for (origin, seen) in endpoints {
        let of_endpoint = seen.story().transitions;
        all.extend(of_endpoint.iter().map(|(at, transition)| (*at, told(*at, Some(origin), transition))));
    }
    all.sort_by_key(|(at, _)| *at);
    let explained = explained.into_iter().map(|(at, call)| {
        let end = match call.end {
            CallEnd::Response(status) => status.as_u16().to_string(),
            CallEnd::FailedResponse(status, outcome) => format!("{} {outcome}", status.as_u16()),
            CallEnd::Error(kind) => format!("{kind:?}"),
            CallEnd::Dropped => "dropped".to_owned(),
        };
        json!({ "at": at, "call": call.call.as_u64(), "end": end, "report": call.text })
    });
    json!({
        "transitions": all.into_iter().map(|(_, told)| told).collect::<Vec<_>>(),
        "calls": explained.collect::<Vec<_>>(),
    })
}

pub(super) async fn schema(_: Operator) -> Response {
    let schema = include_str!("snapshot.schema.json");
    (
        [(http::header::CONTENT_TYPE, "application/schema+json"), (http::header::CACHE_CONTROL, "no-store")],
        schema,
    )
        .into_response()
}
