//! Rows numbered in the order in which they were committed, so that whoever follows a list misses
//! none.
//!
//! Ids and timestamps are made before the commit, and a database's own sequences are, too: on
//! Postgres two rows can be committed in the other order, and clocks are turned back. A reader who
//! has seen the later row and goes on after it never sees the earlier one. Here a row's number
//! comes from a counter that is part of the row's own transaction: the counter's row stays locked
//! until the commit, so the next number is given when this row can be read.
//!
//! What it costs: inserts into one table wait for one another, from the counter's update to the
//! commit. So [`next`] and the insert come last in their transaction. `SQLite` has one writer
//! anyway.

use sqlx::AnyConnection;

use crate::{
    database::{Database, Migration},
    page::Page,
    problem::Problem,
};

/// The counters.
pub const MIGRATION: Migration = Migration {
    version: 3,
    sql: "CREATE TABLE commit_numbers (table_name TEXT PRIMARY KEY, last_number BIGINT NOT NULL)",
};

/// The number of the row that this transaction is about to insert into `table`.
pub async fn next(transaction: &mut AnyConnection, table: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE commit_numbers SET last_number = last_number + 1 WHERE table_name = $1 RETURNING last_number",
    )
    .bind(table)
    .fetch_one(transaction)
    .await
}

/// The number that a page starts after; `select` finds a row's by its id. 400 if the cursor is the
/// id of no row.
pub async fn position(database: &Database, select: &'static str, page: &Page) -> Result<i64, Problem> {
    let Some(after) = &page.after else { return Ok(0) };
    let number = sqlx::query_scalar(select).bind(after).fetch_optional(database.reader()).await?;
    number.ok_or_else(|| Problem::bad_request("after must be the id of a row of this list."))
}
