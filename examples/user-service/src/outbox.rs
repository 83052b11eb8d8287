//! What happened to users, kept until the broker has it.
//!
//! An event is a row of this service's own database, written in the transaction that changes the
//! user: either both are there or neither, whatever dies when. The relay publishes rows and marks
//! those that the broker confirmed.
//!
//! Without a broker to publish to nothing is written. Whoever follows the events sees by their
//! numbers that some are missing, and asks for the users again.

use std::sync::Arc;

use serde::Serialize;
use service_kit::{clock::Clock, database::Database};
use sqlx::AnyConnection;
use tokio::sync::Notify;

use crate::User;

/// What happened to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Created,
    Changed,
}

impl Kind {
    /// As it is stored, and the routing key that it is published with.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "user.created",
            Self::Changed => "user.changed",
        }
    }
}

/// An event as it is published: the whole user, so that the last event says it all.
#[derive(Serialize)]
struct Event<'a> {
    id: i64,
    /// Which database has numbered it.
    database: &'a str,
    /// What no other change is marked with, in whatever database, and what the published change
    /// before this one was.
    mark: &'a str,
    previous: &'a str,
    kind: &'static str,
    user: &'a User,
}

/// Where events are put. A clone is the same outbox.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    is_read: bool,
    clock: Clock,
    /// Told of every new event.
    pub(crate) wake: Arc<Notify>,
}

impl Outbox {
    /// Gives the database an id unless it has one. `is_read`: whether anybody publishes what is put
    /// here.
    pub(crate) async fn open(database: &Database, clock: &Clock, is_read: bool) -> Result<Self, sqlx::Error> {
        sqlx::query(
            "INSERT INTO lineage (id, database_id, mark, previous) VALUES (1, $1, $2, '') \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(clock.new_id())
        .bind(clock.new_id())
        .execute(database.writer())
        .await?;
        Ok(Self { is_read, clock: clock.clone(), wake: Arc::default() })
    }

    /// Adds the event to the transaction; `id` is the number of the change.
    pub(crate) async fn add(
        &self,
        transaction: &mut AnyConnection,
        id: i64,
        kind: Kind,
        user: &User,
    ) -> Result<(), sqlx::Error> {
        if !self.is_read {
            return Ok(());
        }
        let mark = self.clock.new_id();
        let (database, previous): (String, String) = sqlx::query_as(
            "UPDATE lineage SET previous = mark, mark = $1 WHERE id = 1 RETURNING database_id, previous",
        )
        .bind(&mark)
        .fetch_one(&mut *transaction)
        .await?;
        let event =
            Event { id, database: &database, mark: &mark, previous: &previous, kind: kind.as_str(), user };
        let body = serde_json::to_string(&event).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query("INSERT INTO outbox (id, user_id, kind, body) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(&user.id)
            .bind(kind.as_str())
            .bind(body)
            .execute(transaction)
            .await
            .map(drop)
    }

    /// Its transaction is committed.
    pub(crate) fn committed(&self) {
        self.wake.notify_one();
    }
}

#[cfg(feature = "amqp")]
pub(crate) mod published {
    //! The relay's side.

    use service_kit::database::Database;

    /// Published events that are kept, for whoever wants to see what was sent.
    const KEEP: i64 = 1000;

    /// An event that nobody has confirmed yet.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Waiting {
        pub(crate) id: i64,
        pub(crate) user_id: String,
        pub(crate) kind: String,
        pub(crate) body: String,
    }

    /// The oldest events that wait, in the order of commits.
    pub(crate) async fn waiting(database: &Database, limit: i64) -> Result<Vec<Waiting>, sqlx::Error> {
        let rows: Vec<(i64, String, String, String)> = sqlx::query_as(
            "SELECT id, user_id, kind, body FROM outbox WHERE published_at IS NULL ORDER BY id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(database.reader())
        .await?;
        let waiting = |(id, user_id, kind, body)| Waiting { id, user_id, kind, body };
        Ok(rows.into_iter().map(waiting).collect())
    }

    /// The broker has the events from the first id to the last.
    pub(crate) async fn confirmed(
        database: &Database,
        first: i64,
        last: i64,
        now_ms: i64,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = database.begin().await?;
        sqlx::query(
            "UPDATE outbox SET published_at = $1 WHERE id BETWEEN $2 AND $3 AND published_at IS NULL",
        )
        .bind(now_ms)
        .bind(first)
        .bind(last)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM outbox WHERE id <= $1 AND published_at IS NOT NULL")
            .bind(last.saturating_sub(KEEP))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}
