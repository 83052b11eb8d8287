//! The copy in order-service's own database.

use serde::Deserialize;
use service_kit::{clock::Clock, database::Database};
use sqlx::{Any, AnyConnection, Transaction};

use super::coverage::{Change, Coverage, Kin, Known, LastChange};

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

/// An event as user-service publishes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Event {
    #[serde(flatten)]
    pub(crate) change: Change,
    pub(crate) user: CopiedUser,
}

/// What came of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Those of another database, which changed nothing.
    pub(crate) foreign: usize,
    /// Whether one showed that user-service's database was put back, so that the copy is begun
    /// anew.
    pub(crate) diverged: bool,
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

    pub(crate) async fn known(&self) -> Result<Known, sqlx::Error> {
        let row: Row = sqlx::query_as(
            "SELECT first_event, last_event, synced, epoch, bound, database_id, mark \
             FROM user_copy_state WHERE id = 1",
        )
        .fetch_one(self.database.reader())
        .await?;
        Ok(known(row))
    }

    /// Stores users from the list with this number.
    pub(crate) async fn store(&self, users: &[CopiedUser], list: i64) -> Result<(), sqlx::Error> {
        let (mut transaction, _) = self.lock().await?;
        for user in users {
            upsert(&mut transaction, user).await?;
            // Another process may read a list at the same time. Whom the later one has is there.
            let later = "UPDATE user_copies SET list = $1 WHERE id = $2 AND list < $1";
            stamp(&mut transaction, later, list, user).await?;
        }
        transaction.commit().await
    }

    /// A number for a list that begins now: higher than that of any before it, whichever process
    /// reads it.
    pub(crate) async fn next_list(&self) -> Result<i64, sqlx::Error> {
        let newest: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(list), 0) FROM user_copies")
            .fetch_one(self.database.reader())
            .await?;
        Ok(newest + 1)
    }

    /// Stores what events say, in their order.
    pub(crate) async fn apply(&self, events: &[Event]) -> Result<Applied, sqlx::Error> {
        let (mut transaction, before) = self.lock().await?;
        let (mut after, mut applied) = (before.clone(), Applied::default());
        for Event { change, user } in events {
            match after.judge(change) {
                Kin::Ours => {}
                Kin::Foreign => {
                    applied.foreign += 1;
                    continue;
                }
                Kin::Diverged => {
                    applied.diverged = true;
                    delete_all(&mut transaction).await?;
                    after.distrusted();
                }
            }
            after.applied(change);
            upsert(&mut transaction, user).await?;
            let epoch = after.coverage.epoch;
            stamp(&mut transaction, "UPDATE user_copies SET epoch = $1 WHERE id = $2", epoch, user).await?;
        }
        save(transaction, &before, &after).await?;
        Ok(applied)
    }

    /// Events may have been lost.
    pub(crate) async fn distrust(&self) -> Result<(), sqlx::Error> {
        self.change(Known::distrusted).await
    }

    /// There is no queue.
    pub(crate) async fn unbound(&self) -> Result<(), sqlx::Error> {
        self.change(Known::unbound).await
    }

    /// There is a queue, and it takes events.
    pub(crate) async fn bound(&self) -> Result<(), sqlx::Error> {
        self.change(|known| known.coverage.is_bound = true).await
    }

    /// Nothing that is known is believed any more: it isn't what user-service's database, which is
    /// this one, has had, so that the copy may have users that there aren't. Whom it doesn't know
    /// is asked for.
    pub(crate) async fn forget(&self, database: &str) -> Result<(), sqlx::Error> {
        let (mut transaction, before) = self.lock().await?;
        let mut after = before.clone();
        after.distrusted();
        after.database = Some(database.to_owned());
        delete_all(&mut transaction).await?;
        save(transaction, &before, &after).await
    }

    /// The list with this number is stored to its end; see [`Coverage::listed`]. Who is neither in
    /// it, nor in one that was begun later, nor in an event since is gone.
    pub(crate) async fn listed(&self, list: i64, epoch: i64, last: &LastChange) -> Result<bool, sqlx::Error> {
        let (mut transaction, before) = self.lock().await?;
        let mut after = before.clone();
        let is_enough = after.listed(epoch, last);
        if is_enough {
            let gone =
                sqlx::query("DELETE FROM user_copies WHERE list < $1 AND NOT (version > $2 AND epoch = $3)")
                    .bind(list)
                    .bind(last.last_change)
                    .bind(epoch)
                    .execute(&mut *transaction)
                    .await?
                    .rows_affected();
            if gone > 0 {
                tracing::warn!(users = gone, "forgot users that user-service hasn't got");
            }
        }
        save(transaction, &before, &after).await?;
        Ok(is_enough)
    }

    async fn change(&self, change: impl FnOnce(&mut Known)) -> Result<(), sqlx::Error> {
        let (transaction, before) = self.lock().await?;
        let mut after = before.clone();
        change(&mut after);
        save(transaction, &before, &after).await
    }

    /// What is known, in a transaction: whoever changes that or the users holds its row meanwhile.
    async fn lock(&self) -> Result<(Transaction<'static, Any>, Known), sqlx::Error> {
        let mut transaction = self.database.begin().await?;
        let row: Row = sqlx::query_as(
            "UPDATE user_copy_state SET epoch = epoch WHERE id = 1 \
             RETURNING first_event, last_event, synced, epoch, bound, database_id, mark",
        )
        .fetch_one(&mut *transaction)
        .await?;
        Ok((transaction, known(row)))
    }
}

type Row = (i64, i64, i64, i64, i64, Option<String>, Option<String>);

fn known((first, last, synced, epoch, bound, database, mark): Row) -> Known {
    let coverage = Coverage { first, last, is_synced: synced != 0, epoch, is_bound: bound != 0 };
    Known { coverage, database, mark }
}

async fn save(
    mut transaction: Transaction<'static, Any>,
    before: &Known,
    after: &Known,
) -> Result<(), sqlx::Error> {
    if after != before {
        let Known { coverage, database, mark } = after;
        sqlx::query(
            "UPDATE user_copy_state SET first_event = $1, last_event = $2, synced = $3, epoch = $4, \
             bound = $5, database_id = $6, mark = $7 WHERE id = 1",
        )
        .bind(coverage.first)
        .bind(coverage.last)
        .bind(i64::from(coverage.is_synced))
        .bind(coverage.epoch)
        .bind(i64::from(coverage.is_bound))
        .bind(database.clone())
        .bind(mark.clone())
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

async fn delete_all(transaction: &mut AnyConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM user_copies").execute(transaction).await.map(drop)
}

/// Notes who has told of the user.
async fn stamp(
    transaction: &mut AnyConnection,
    sql: &'static str,
    by: i64,
    user: &CopiedUser,
) -> Result<(), sqlx::Error> {
    sqlx::query(sql).bind(by).bind(&user.id).execute(transaction).await.map(drop)
}

/// The newer state of a user wins, so that events that come twice, or late, or behind a list, do no
/// harm.
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

#[cfg(test)]
mod tests {
    use service_kit::database::{Settings, Synchronous};

    use super::*;

    async fn copy() -> UserCopy {
        let clock = Clock::manual(1);
        let wait = std::time::Duration::ZERO;
        let settings =
            Settings { url: "sqlite::memory:", connections: 1, synchronous: Synchronous::Normal, wait };
        let database = Database::open(settings, crate::store::MIGRATIONS, &clock).await.unwrap();
        let copy = UserCopy::open(&database, &clock).await.unwrap();
        copy.forget("ours").await.unwrap();
        copy.bound().await.unwrap();
        copy
    }

    fn user(id: &str, version: i64) -> CopiedUser {
        CopiedUser { id: id.into(), name: "n".into(), email: "a@b".into(), created_at_ms: 1, version }
    }

    fn event(number: i64, user_id: &str) -> Event {
        let previous = format!("m{}", number - 1);
        let change = Change { number, database: "ours".into(), mark: format!("m{number}"), previous };
        Event { change, user: user(user_id, number) }
    }

    fn last(number: i64) -> LastChange {
        LastChange { last_change: number, database: "ours".into(), mark: format!("m{number}") }
    }

    async fn has(copy: &UserCopy, ids: &[&str]) {
        for id in ["a", "b", "c", "d"] {
            assert_eq!(copy.knows(id).await.unwrap(), ids.contains(&id), "{id} of {ids:?}");
        }
    }

    #[tokio::test]
    async fn who_is_neither_in_a_whole_list_nor_in_an_event_since_is_gone() {
        let copy = copy().await;
        copy.apply(&[event(1, "a"), event(2, "b")]).await.unwrap();
        copy.distrust().await.unwrap();
        let epoch = copy.known().await.unwrap().coverage.epoch;
        copy.store(&[user("a", 1)], 7).await.unwrap();
        copy.apply(&[event(4, "c")]).await.unwrap();
        has(&copy, &["a", "b", "c"]).await;
        assert!(copy.listed(7, epoch, &last(3)).await.unwrap());
        has(&copy, &["a", "c"]).await;
        assert!(copy.known().await.unwrap().coverage.is_synced);
    }

    /// Each took what the other had stored last for gone, and the copy lacked users for ever.
    #[tokio::test]
    async fn two_lists_read_at_once_forget_nobody_whom_either_has() {
        for first_to_end in [7, 8] {
            let copy = copy().await;
            let epoch = copy.known().await.unwrap().coverage.epoch;
            for (list, id) in [(7, "a"), (8, "a"), (7, "b"), (8, "b")] {
                copy.store(&[user(id, 1)], list).await.unwrap();
            }
            // The later one stores its last page before the earlier one does, too.
            copy.store(&[user("c", 2)], 8).await.unwrap();
            copy.store(&[user("c", 2)], 7).await.unwrap();
            for list in [first_to_end, 15 - first_to_end] {
                assert!(copy.listed(list, epoch, &last(3)).await.unwrap());
                has(&copy, &["a", "b", "c"]).await;
            }
        }
    }

    #[tokio::test]
    async fn a_list_that_begins_has_a_higher_number_than_any_before_it() {
        let copy = copy().await;
        let first = copy.next_list().await.unwrap();
        copy.store(&[user("a", 1)], i64::MAX / 2).await.unwrap();
        let second = copy.next_list().await.unwrap();
        assert!(first > 0 && second == i64::MAX / 2 + 1, "{first} {second}");
    }

    #[tokio::test]
    async fn an_event_of_another_history_empties_the_copy_and_is_the_first_in_the_new_one() {
        let copy = copy().await;
        let epoch = copy.known().await.unwrap().coverage.epoch;
        assert!(copy.listed(1, epoch, &last(0)).await.unwrap());
        copy.apply(&[event(1, "a"), event(2, "b")]).await.unwrap();
        let mut third = event(3, "c");
        third.change.previous = "another second".into();
        let applied = copy.apply(&[third]).await.unwrap();
        assert_eq!(applied, Applied { foreign: 0, diverged: true });
        has(&copy, &["c"]).await;
        assert!(!copy.known().await.unwrap().coverage.is_synced);
    }

    #[tokio::test]
    async fn events_of_another_database_change_nothing() {
        let copy = copy().await;
        let before = copy.known().await.unwrap();
        let mut foreign = event(1, "a");
        foreign.change.database = "other".into();
        let applied = copy.apply(&[foreign]).await.unwrap();
        assert_eq!(applied, Applied { foreign: 1, diverged: false });
        has(&copy, &[]).await;
        assert_eq!(copy.known().await.unwrap(), before);
    }

    #[tokio::test]
    async fn a_list_from_before_the_queue_was_lost_is_not_enough() {
        let copy = copy().await;
        let epoch = copy.known().await.unwrap().coverage.epoch;
        copy.unbound().await.unwrap();
        copy.bound().await.unwrap();
        assert!(!copy.listed(1, epoch, &last(9)).await.unwrap());
        assert!(copy.listed(1, epoch + 1, &last(9)).await.unwrap());
    }
}
