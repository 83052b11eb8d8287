//! Users in the database.

use serde::Serialize;
use sqlx::AnyConnection;

use service_kit::{
    commit_order,
    database::{Database, Migration},
    idempotency,
    page::Page,
    problem::Problem,
};

/// The whole schema, oldest step first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    idempotency::MIGRATION,
    Migration { version: 2, sql: include_str!("../migrations/users.sql") },
    commit_order::MIGRATION,
    Migration { version: 4, sql: include_str!("../migrations/users-in-commit-order.sql") },
    Migration { version: 5, sql: include_str!("../migrations/outbox.sql") },
    Migration { version: 6, sql: include_str!("../migrations/lineage.sql") },
    Migration { version: 7, sql: include_str!("../migrations/users-by-change.sql") },
];

/// A user, as stored and as answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// A version 7 UUID.
    pub id: String,
    /// 1 to 200 characters.
    pub name: String,
    /// Looks like an address; nobody sent it a letter.
    pub email: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
}

/// A user in a list, with what a copy of the list needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) user: User,
    /// The number of the user's last change; of two states of a user, the one with the higher
    /// number is newer.
    pub(crate) version: i64,
}

type Row = (String, String, String, i64);

type ListedRow = (String, String, String, i64, i64);

impl From<ListedRow> for Listed {
    fn from((id, name, email, created_at, version): ListedRow) -> Self {
        Self { user: User::from((id, name, email, created_at)), version }
    }
}

impl From<Row> for User {
    fn from((id, name, email, created_at_ms): Row) -> Self {
        Self { id, name, email, created_at_ms }
    }
}

/// Comes last in its transaction: from here to the commit no other user is inserted or changed.
/// Returns the number of the change.
pub(crate) async fn insert(transaction: &mut AnyConnection, user: &User) -> Result<i64, sqlx::Error> {
    let number = commit_order::next(transaction, "users").await?;
    sqlx::query(
        "INSERT INTO users (id, name, email, created_at, commit_number, version) \
         VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(&user.id)
    .bind(&user.name)
    .bind(&user.email)
    .bind(user.created_at_ms)
    .bind(number)
    .execute(transaction)
    .await?;
    Ok(number)
}

/// Gives a user another name and email; `None` if there is no such user. Returns the number of the
/// change, and the user. As [`insert`], it comes last in its transaction.
pub(crate) async fn change(
    transaction: &mut AnyConnection,
    id: &str,
    name: &str,
    email: &str,
) -> Result<Option<(i64, User)>, sqlx::Error> {
    let number = commit_order::next(transaction, "users").await?;
    let row: Option<Row> = sqlx::query_as(
        "UPDATE users SET name = $1, email = $2, version = $3 WHERE id = $4 \
         RETURNING id, name, email, created_at",
    )
    .bind(name)
    .bind(email)
    .bind(number)
    .bind(id)
    .fetch_optional(transaction)
    .await?;
    Ok(row.map(|row| (number, User::from(row))))
}

pub(crate) async fn find(database: &Database, id: &str) -> Result<Option<User>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as("SELECT id, name, email, created_at FROM users WHERE id = $1")
        .bind(id)
        .fetch_optional(database.reader())
        .await?;
    Ok(row.map(User::from))
}

/// The last change of any user: its number; which database that is; and the mark of the last one
/// that was published.
pub(crate) async fn last_change(database: &Database) -> Result<(i64, String, String), sqlx::Error> {
    sqlx::query_as(
        "SELECT last_number, database_id, mark FROM commit_numbers, lineage \
         WHERE table_name = 'users' AND lineage.id = 1",
    )
    .fetch_one(database.reader())
    .await
}

/// At most so many users that were changed later than the change of this number, in the order of
/// their last changes.
pub(crate) async fn changed_since(
    database: &Database,
    number: i64,
    at_most: i64,
) -> Result<Vec<Listed>, sqlx::Error> {
    let rows: Vec<ListedRow> = sqlx::query_as(
        "SELECT id, name, email, created_at, COALESCE(version, commit_number) AS changed FROM users \
         WHERE COALESCE(version, commit_number) > $1 ORDER BY changed LIMIT $2",
    )
    .bind(number)
    .bind(at_most)
    .fetch_all(database.reader())
    .await?;
    Ok(rows.into_iter().map(Listed::from).collect())
}

pub(crate) async fn list(database: &Database, page: &Page) -> Result<Vec<Listed>, Problem> {
    let select_position = "SELECT commit_number FROM users WHERE id = $1";
    let after = commit_order::position(database, select_position, page).await?;
    let rows: Vec<ListedRow> = sqlx::query_as(
        // An older version of this service, on the same database, makes users without one.
        "SELECT id, name, email, created_at, COALESCE(version, commit_number) FROM users \
         WHERE commit_number > $1 ORDER BY commit_number LIMIT $2",
    )
    .bind(after)
    .bind(page.rows())
    .fetch_all(database.reader())
    .await?;
    Ok(rows.into_iter().map(Listed::from).collect())
}
