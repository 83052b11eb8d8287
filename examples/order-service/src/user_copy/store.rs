//! The copy in order-service's own database.

use serde::Deserialize;
use service_kit::{clock::Clock, database::Database};
use sqlx::AnyConnection;

use super::coverage::Coverage;

/// A user as user-service lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct CopiedUser {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) created_at_ms: i64,
    /// The number of its last change. In an event that is the event's own.
    #[serde(default)]
    pub(crate) version: i64,
}

/// The users that this service knows by itself. A clone is the same copy.
#[derive(Clone, Debug)]
pub(crate) struct UserCopy {
    database: Database,
}

impl UserCopy {
    /// The copy in this database; makes its state when there is none yet.
    pub(crate) async fn open(database: &Database, clock: &Clock) -> Result<Self, sqlx::Error> {
        sqlx::query(
            "INSERT INTO user_copy_state (id, copy_id, first_event, last_event, synced, epoch) \
             VALUES (1, $1, 0, 0, 0, 0) ON CONFLICT (id) DO NOTHING",
        )
        .bind(clock.new_id())
        .execute(database.writer())
        .await?;
        Ok(Self { database: database.clone() })
    }

    /// Whether the copy has this user. If not, that says nothing: it may lag.
    pub(crate) async fn knows(&self, id: &str) -> Result<bool, sqlx::Error> {
        let found: Option<i64> = sqlx::query_scalar("SELECT version FROM user_copies WHERE id = $1")
            .bind(id)
            .fetch_optional(self.database.reader())
            .await?;
        Ok(found.is_some())
    }

    /// What names this copy and no other.
    pub(crate) async fn id(&self) -> Result<String, sqlx::Error> {
        sqlx::query_scalar("SELECT copy_id FROM user_copy_state WHERE id = 1")
            .fetch_one(self.database.reader())
            .await
    }

    pub(crate) async fn coverage(&self) -> Result<Coverage, sqlx::Error> {
        let row: Row =
            sqlx::query_as("SELECT first_event, last_event, synced, epoch FROM user_copy_state WHERE id = 1")
                .fetch_one(self.database.reader())
                .await?;
        Ok(coverage(row))
    }

    /// Stores users from a list.
    pub(crate) async fn store(&self, users: &[CopiedUser]) -> Result<(), sqlx::Error> {
        self.change(users, |_| ()).await
    }

    /// Stores what events say, in their order.
    pub(crate) async fn apply(&self, events: &[CopiedUser]) -> Result<(), sqlx::Error> {
        self.change(events, |coverage| {
            for event in events {
                coverage.applied(event.version);
            }
        })
        .await
    }

    /// Events may have been lost.
    pub(crate) async fn distrust(&self) -> Result<(), sqlx::Error> {
        self.change(&[], Coverage::distrusted).await
    }

    /// Nothing that is known is believed any more: the numbers aren't user-service's, so that the copy may have users that there
    /// aren't. Whom it doesn't know is asked for.
    pub(crate) async fn forget(&self) -> Result<(), sqlx::Error> {
        self.distrust().await?;
        sqlx::query("DELETE FROM user_copies").execute(self.database.writer()).await.map(drop)
    }

    /// The list is stored to its end; see [`Coverage::listed`].
    pub(crate) async fn listed(&self, epoch: i64, last_change: i64) -> Result<bool, sqlx::Error> {
        self.change(&[], |coverage| coverage.listed(epoch, last_change)).await
    }

    /// Users and what the copy covers, in one transaction. Whoever changes either holds the state's row meanwhile.
    async fn change<T>(
        &self,
        users: &[CopiedUser],
        cover: impl FnOnce(&mut Coverage) -> T,
    ) -> Result<T, sqlx::Error> {
        let mut transaction = self.database.begin().await?;
        let row: Row = sqlx::query_as(
            "UPDATE user_copy_state SET epoch = epoch WHERE id = 1 \
             RETURNING first_event, last_event, synced, epoch",
        )
        .fetch_one(&mut *transaction)
        .await?;
        let before = coverage(row);
        let mut after = before;
        let answer = cover(&mut after);
        for user in users {
            upsert(&mut transaction, user).await?;
        }
        if after != before {
            sqlx::query(
                "UPDATE user_copy_state SET first_event = $1, last_event = $2, synced = $3, epoch = $4 \
                 WHERE id = 1",
            )
            .bind(after.first)
            .bind(after.last)
            .bind(i64::from(after.is_synced))
            .bind(after.epoch)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(answer)
    }
}

type Row = (i64, i64, i64, i64);

fn coverage((first, last, synced, epoch): Row) -> Coverage {
    Coverage { first, last, is_synced: synced != 0, epoch }
}

/// The newer state of a user wins, so that events that come twice, or late, or behind a list, do no harm.
async fn upsert(transaction: &mut AnyConnection, user: &CopiedUser) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO user_copies (id, name, email, created_at, version) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, \
         created_at = excluded.created_at, version = excluded.version \
         WHERE user_copies.version < excluded.version",
    )
    .bind(&user.id)
    .bind(&user.name)
    .bind(&user.email)
    .bind(user.created_at_ms)
    .bind(user.version)
    .execute(transaction)
    .await
    .map(drop)
}
