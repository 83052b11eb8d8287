//! What happens, as it happens: server-sent events.
//!
//! | event | when | data |
//! |---|---|---|
//! | `hello` | at first | the snapshot's version, when the process began, and the newest event's number |
//! | `gap` | at first, if events after `Last-Event-ID` aren't kept any more | nothing: ask for the snapshot |
//! | `entry`, with its number as `id` | something happened to an upstream | an entry of `/events` |
//! | `tick` | every second | the upstreams that changed, as in the snapshot, and those that are gone |
//!
//! A stream ends by itself after five minutes, when every client drains, and when its reader takes
//! nothing for 10 s; whoever goes on reading comes back with the number it has. So neither a
//! server's graceful end nor its memory waits for a reader.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_core::Stream;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Desk;
use super::answer::{self, Operator, Query};
use super::history::recent::{Entry, Since};
use super::rows::Row;
use super::snapshot_route;
use crate::access::Refusal;
use crate::time;

const EVERY: Duration = Duration::from_secs(1);
/// How long a reader may take nothing.
const SLOWEST_READER: Duration = Duration::from_secs(10);
/// How long a stream lasts.
const LONGEST: Duration = Duration::from_secs(300);
/// Events on their way to a reader. Beyond it the stream waits, and at last ends: a tick may have
/// every upstream in it.
const AHEAD: usize = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    since: Option<u64>,
}

pub(super) async fn events(
    _: Operator,
    State(desk): State<Arc<Desk>>,
    Query(asked): Query<Asked>,
) -> Response {
    let (since, newest) = {
        let recent = desk.recent.lock();
        (recent.since(asked.since), recent.newest())
    };
    let (gap, entries) = match since {
        Since::All(entries) => (false, entries),
        Since::Gap(entries) => (true, entries),
    };
    answer::json(json!({ "newest": newest, "gap": gap, "events": entries }))
}

pub(super) async fn stream(
    _: Operator,
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Ok(place) = Arc::clone(&desk.streams).try_acquire_owned() else {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "As many streams are open as may be."));
    };
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (to, from) = channel(AHEAD);
    tokio::spawn(async move {
        // Its end is the stream's, whatever it is: told all, too late, or nobody reads any more.
        tokio::select! {
            _ = timeout(LONGEST, tell(&desk, seen, &to)) => {}
            () = to.closed() => {}
        }
    });
    Ok(Sse::new(Told { from, _place: place }).into_response())
}

/// Nobody reads any more.
struct Gone;

async fn tell(desk: &Desk, seen: Option<u64>, to: &Sender<Event>) -> Result<(), Gone> {
    let newest = desk.recent.lock().newest();
    let hello = json!({ "version": snapshot_route::VERSION, "process": desk.process, "event": newest });
    send(to, event("hello").data(hello.to_string())).await?;
    let mut seen = seen.unwrap_or(newest);
    let mut sent = HashMap::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        seen = tell_entries(desk, seen, to).await?;
        // One without news, too: a reader knows by it that the connection lives.
        send(to, event("tick").data(changes(desk, &mut sent).to_string())).await?;
        if desk.clients.iter().all(|client| client.core.is_draining()) {
            break;
        }
    }
    Ok(())
}

/// Sends what came after the event numbered `seen`. The number of the newest.
async fn tell_entries(desk: &Desk, seen: u64, to: &Sender<Event>) -> Result<u64, Gone> {
    let (since, newest) = {
        let recent = desk.recent.lock();
        (recent.since(Some(seen)), recent.newest())
    };
    let entries = match since {
        Since::All(entries) => entries,
        Since::Gap(entries) => {
            send(to, event("gap").data("{}")).await?;
            entries
        }
    };
    for entry in entries {
        send(to, told(&entry)).await?;
    }
    Ok(newest)
}

fn told(entry: &Entry) -> Event {
    event("entry").id(entry.id.to_string()).data(json!(entry).to_string())
}

/// The upstreams that are others than when they were sent last, by what is remembered of each.
fn changes(desk: &Desk, sent: &mut HashMap<(usize, Arc<str>), u64>) -> Value {
    let (now, at) = (time::now(), time::unix_millis());
    let (mut rows, mut here) = (Vec::new(), HashMap::with_capacity(sent.len()));
    for (index, client) in desk.clients.iter().enumerate() {
        for snapshot in client.core.snapshot() {
            let seen = client.history.of(&snapshot.name);
            let row = json!(Row::new(&client.name, &snapshot, seen.as_deref(), now));
            let key = (index, Arc::clone(&snapshot.name));
            let hash = hash_of(&row);
            if sent.get(&key) != Some(&hash) {
                rows.push(row);
            }
            here.insert(key, hash);
        }
    }
    let gone = sent.keys().filter(|key| !here.contains_key(*key));
    let gone: Vec<_> = gone.map(|(index, name)| json!([desk.clients[*index].name, name])).collect();
    *sent = here;
    json!({ "at": at, "rows": rows, "gone": gone })
}

fn hash_of(row: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    hasher.finish()
}

fn event(name: &str) -> Event {
    Event::default().event(name)
}

async fn send(to: &Sender<Event>, event: Event) -> Result<(), Gone> {
    match timeout(SLOWEST_READER, to.send(event)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

/// The stream's events, and its place among those that may be open: kept as long as the connection
/// holds on to it.
struct Told {
    from: Receiver<Event>,
    _place: OwnedSemaphorePermit,
}

impl Stream for Told {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.from.poll_recv(cx).map(|event| event.map(Ok))
    }
}
