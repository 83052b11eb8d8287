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

type Row = (String, String, String, i64);

impl From<Row> for User {
    fn from((id, name, email, created_at_ms): Row) -> Self {
        Self { id, name, email, created_at_ms }
    }
}

/// Comes last in its transaction: from here to the commit no other user is inserted.
pub(crate) async fn insert(transaction: &mut AnyConnection, user: &User) -> Result<(), sqlx::Error> {
    let number = commit_order::next(transaction, "users").await?;
    sqlx::query("INSERT INTO users (id, name, email, created_at, commit_number) VALUES ($1, $2, $3, $4, $5)")
        .bind(&user.id)
        .bind(&user.name)
        .bind(&user.email)
        .bind(user.created_at_ms)
        .bind(number)
        .execute(transaction)
        .await
        .map(drop)
}

pub(crate) async fn find(database: &Database, id: &str) -> Result<Option<User>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as("SELECT id, name, email, created_at FROM users WHERE id = $1")
        .bind(id)
        .fetch_optional(database.reader())
        .await?;
    Ok(row.map(User::from))
}

pub(crate) async fn list(database: &Database, page: &Page) -> Result<Vec<User>, Problem> {
    let select_position = "SELECT commit_number FROM users WHERE id = $1";
    let after = commit_order::position(database, select_position, page).await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, email, created_at FROM users \
         WHERE commit_number > $1 ORDER BY commit_number LIMIT $2",
    )
    .bind(after)
    .bind(page.rows())
    .fetch_all(database.reader())
    .await?;
    Ok(rows.into_iter().map(User::from).collect())
}
