//! `GET /users/events`: new and changed users as they are committed, as server-sent events.
//!
//! An event's id is the number of the change, so that a reader who reconnects with `Last-Event-ID`
//! misses none; one without begins with the next change. Each event is the user as it is now: of
//! several changes of a user in between only the last is told. While nothing changes, a comment now
//! and then shows that the stream is alive; who hears neither for longer has lost it.
//!
//! It ends when the service is told to stop, and when its database fails: the reader reconnects.

use std::{collections::VecDeque, convert::Infallible, future::ready, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::sleep;

use crate::{
    routes::AppState,
    store::{self, Listed},
};
use service_kit::problem::Problem;

/// How often a stream looks for changes; one number of the database tells whether there is any.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most changes read at a time.
const BATCH: i64 = 100;

pub(crate) async fn follow(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let seen = match last_event_id(&headers)? {
        Some(number) => number,
        None => store::last_change(&state.database).await?.0,
    };
    let heartbeat = KeepAlive::new().interval(state.heartbeat);
    // Without data it is no event, and says where a reader is who comes back before the first one.
    let here = stream::once(ready(Ok(Event::default().id(seen.to_string()))));
    Ok(Sse::new(here.chain(changes(state, seen))).keep_alive(heartbeat))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let number = id.to_str().ok().and_then(|id| id.parse().ok()).filter(|number| *number >= 0);
    number
        .map(Some)
        .ok_or_else(|| Problem::bad_request("Last-Event-ID must be the id of an event of this stream."))
}

/// What happens to users behind the change number `seen`.
fn changes(state: AppState, seen: i64) -> impl Stream<Item = Result<Event, Infallible>> {
    let stopping = Box::pin(state.background.stopping());
    stream::unfold(
        (state, stopping, seen, VecDeque::new()),
        async |(state, mut stopping, mut seen, mut read)| {
            loop {
                if let Some(changed) = read.pop_front() {
                    let changed: Listed = changed;
                    seen = changed.version;
                    return Some((Ok(event(&changed)?), (state, stopping, seen, read)));
                }
                let more = tokio::select! {
                    biased;
                    () = &mut stopping => return None,
                    more = later(&state, seen) => more,
                };
                match more {
                    Ok(users) => read.extend(users),
                    Err(error) => {
                        tracing::warn!(%error, "a stream of events ends");
                        return None;
                    }
                }
                if read.is_empty() {
                    tokio::select! {
                        () = &mut stopping => return None,
                        () = sleep(LOOK_EVERY) => {}
                    }
                }
            }
        },
    )
}

async fn later(state: &AppState, seen: i64) -> Result<Vec<Listed>, sqlx::Error> {
    if store::last_change(&state.database).await?.0 <= seen {
        return Ok(Vec::new());
    }
    store::changed_since(&state.database, seen, BATCH).await
}

/// `None` for a user that is no JSON, which there is not.
fn event(changed: &Listed) -> Option<Event> {
    Event::default().id(changed.version.to_string()).event("user").json_data(changed).ok()
}
