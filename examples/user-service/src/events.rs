//! `GET /users/events`: new and changed users as they are committed, as server-sent events.
//!
//! An event's id is the database's and the number of the change, so that a reader who reconnects
//! with `Last-Event-ID` misses none; one without begins with the next change. Numbers of another
//! database say nothing here: who comes with one, or with a number that this database hasn't given
//! yet, is told every user. Each event is the user as it is now: of several changes of a user in
//! between only the last is told. While nothing changes, a comment now and then shows that the
//! stream is alive; who hears neither for longer has lost it.
//!
//! It ends when the service is told to stop, when its database fails, and when another connection
//! needs its place: the reader reconnects.

use std::{collections::VecDeque, convert::Infallible, future::ready, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt as _, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    changes::{BATCH, Batch},
    routes::AppState,
    store::{self, Listed},
};
use service_kit::{database::Database, problem::Problem};

pub(crate) async fn follow(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let told = last_event_id(&headers)?;
    // Before the number is asked for, so that no change is between the two.
    let changes = state.changes.follow();
    let (last, database, _) = store::last_change(&state.database).await?;
    let seen = match told {
        None => last,
        Some(Id { database: Some(of), number }) if *of == *database && number <= last => number,
        // Of another history: what it has seen isn't ours.
        Some(_) => 0,
    };
    let heartbeat = KeepAlive::new().interval(state.heartbeat);
    // Without data it is no event, and says where a reader is who comes back before the first one.
    let here = stream::once(ready(Ok(Event::default().id(id(&database, seen)))));
    let stopping = Box::pin(state.background.stopping());
    let (read, read_to) = (VecDeque::new(), seen);
    let reader = Reader { database: state.database, changes, known: last, seen, read, read_to };
    let events = stream::unfold((reader, stopping), move |(mut reader, mut stopping)| {
        let database = database.clone();
        async move {
            let changed = tokio::select! {
                biased;
                () = &mut stopping => None,
                changed = reader.next() => changed,
            };
            Some((Ok::<_, Infallible>(event(&database, &changed?)?), (reader, stopping)))
        }
    });
    Ok(Sse::new(here.chain(events)).keep_alive(heartbeat))
}

/// What a reader has seen last.
struct Id<'a> {
    /// `None` in ids from before they named it.
    database: Option<&'a str>,
    number: i64,
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Id<'_>>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let text = id.to_str().unwrap_or_default();
    let (database, number) = match text.rsplit_once(':') {
        Some((database, number)) => (Some(database), number),
        None => (None, text),
    };
    let number = number.parse().ok().filter(|number| *number >= 0);
    let id = number.map(|number| Id { database, number });
    id.map(Some)
        .ok_or_else(|| Problem::bad_request("Last-Event-ID must be the id of an event of this stream."))
}

fn id(database: &str, number: i64) -> String {
    format!("{database}:{number}")
}

/// Goes through the changes behind one, first those that were there when it came.
struct Reader {
    database: Database,
    changes: Receiver<Arc<Batch>>,
    /// Up to here there may be changes that nobody will tell it of.
    known: i64,
    seen: i64,
    read: VecDeque<Listed>,
    /// Once all of these are told, it has seen what was up to here.
    read_to: i64,
}

impl Reader {
    /// The next change; `None` at the end.
    async fn next(&mut self) -> Option<Listed> {
        loop {
            if let Some(changed) = self.read.pop_front() {
                self.seen = self.seen.max(changed.version);
                return Some(changed);
            }
            self.seen = self.seen.max(self.read_to);
            if self.seen < self.known {
                self.catch_up().await?;
                continue;
            }
            match self.changes.recv().await {
                Ok(batch) if batch.after <= self.seen => {
                    let news = batch.users.iter().filter(|user| user.version > self.seen);
                    self.read.extend(news.cloned());
                    self.read_to = batch.to;
                }
                // It has missed some, having been too slow.
                Ok(batch) => self.known = self.known.max(batch.to),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Reads for itself what it will not be told.
    async fn catch_up(&mut self) -> Option<()> {
        match store::changed_since(&self.database, self.seen, BATCH).await {
            Ok(users) => {
                if users.is_empty() {
                    self.seen = self.known;
                }
                self.read.extend(users);
                Some(())
            }
            Err(error) => {
                tracing::warn!(%error, "a stream of events ends");
                None
            }
        }
    }
}

/// `None` for a user that is no JSON, which there is not.
fn event(database: &str, changed: &Listed) -> Option<Event> {
    Event::default().id(id(database, changed.version)).event("user").json_data(changed).ok()
}
