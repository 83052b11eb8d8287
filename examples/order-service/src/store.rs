//! Orders in the database.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use service_kit::{
    clock::millis,
    commit_order,
    database::{Database, Migration},
    idempotency,
    page::Page,
    problem::Problem,
};

/// The whole schema, oldest step first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    idempotency::MIGRATION,
    Migration { version: 2, sql: include_str!("../migrations/orders.sql") },
    commit_order::MIGRATION,
    Migration { version: 4, sql: include_str!("../migrations/orders-in-commit-order.sql") },
    Migration { version: 5, sql: include_str!("../migrations/user-copy.sql") },
    Migration { version: 6, sql: include_str!("../migrations/user-copy-lineage.sql") },
];

/// How long a pending order waits before the reconciler asks about it for the first time: its own
/// request just asked.
pub(crate) const FIRST_CHECK: Duration = Duration::from_millis(200);

/// Where an order stands.
///
/// Only `PendingVerification` ever changes, once: to `Confirmed` or to `Rejected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// user-service said that the user exists.
    Confirmed,
    /// user-service could not be asked yet.
    PendingVerification,
    /// user-service said, after the order was stored, that there is no such user.
    Rejected,
}

impl OrderStatus {
    /// The status as it is stored and answered.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::PendingVerification => "pending_verification",
            Self::Rejected => "rejected",
        }
    }
}

/// No status has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownStatus;

impl std::fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("status must be confirmed, pending_verification or rejected")
    }
}

impl std::error::Error for UnknownStatus {}

impl FromStr for OrderStatus {
    type Err = UnknownStatus;

    fn from_str(name: &str) -> Result<Self, UnknownStatus> {
        [Self::Confirmed, Self::PendingVerification, Self::Rejected]
            .into_iter()
            .find(|status| status.as_str() == name)
            .ok_or(UnknownStatus)
    }
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// What is ordered: 1 to 64 letters, digits, `-`, `_` or `.`.
    #[serde(default)]
    pub sku: String,
    /// How many: 1 to 10,000.
    #[serde(default)]
    pub quantity: i64,
}

/// An order, as stored and as answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// A version 7 UUID.
    pub id: String,
    /// Who ordered.
    pub user_id: String,
    /// What was ordered.
    pub items: Vec<Item>,
    /// Where it stands.
    pub status: OrderStatus,
    /// When it was placed, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// When the reconciler settled it; `None` if it was never pending or still is.
    pub resolved_at_ms: Option<i64>,
    /// How often the reconciler settled it. More than once would be a bug, which is why it is
    /// counted.
    pub resolutions: i64,
}

type Row = (String, String, String, String, i64, Option<i64>, i64);

const SELECT_BY_ID: &str =
    "SELECT id, user_id, items, status, created_at, resolved_at, resolutions FROM orders WHERE id = $1";
const SELECT_POSITION: &str = "SELECT commit_number FROM orders WHERE id = $1";
const SELECT_PAGE: &str = "SELECT id, user_id, items, status, created_at, resolved_at, resolutions FROM orders \
                           WHERE commit_number > $1 ORDER BY commit_number LIMIT $2";
const SELECT_PAGE_BY_STATUS: &str = "SELECT id, user_id, items, status, created_at, resolved_at, resolutions FROM orders \
     WHERE status = $3 AND commit_number > $1 ORDER BY commit_number LIMIT $2";

fn order(
    (id, user_id, items, status, created_at_ms, resolved_at_ms, resolutions): Row,
) -> Result<Order, sqlx::Error> {
    let items = serde_json::from_str(&items).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let status = status.parse().map_err(|error: UnknownStatus| sqlx::Error::Decode(error.into()))?;
    Ok(Order { id, user_id, items, status, created_at_ms, resolved_at_ms, resolutions })
}

/// Comes last in its transaction: from here to the commit no other order is inserted.
pub(crate) async fn insert(transaction: &mut AnyConnection, order: &Order) -> Result<(), sqlx::Error> {
    let items = serde_json::to_string(&order.items).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let number = commit_order::next(transaction, "orders").await?;
    sqlx::query(
        "INSERT INTO orders \
             (id, user_id, items, status, created_at, resolutions, checks, next_check_at, commit_number) \
         VALUES ($1, $2, $3, $4, $5, 0, 0, $6, $7)",
    )
    .bind(&order.id)
    .bind(&order.user_id)
    .bind(items)
    .bind(order.status.as_str())
    .bind(order.created_at_ms)
    .bind(order.created_at_ms.saturating_add(millis(FIRST_CHECK)))
    .bind(number)
    .execute(transaction)
    .await
    .map(drop)
}

pub(crate) async fn find(database: &Database, id: &str) -> Result<Option<Order>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(SELECT_BY_ID).bind(id).fetch_optional(database.reader()).await?;
    row.map(order).transpose()
}

pub(crate) async fn list(
    database: &Database,
    page: &Page,
    status: Option<OrderStatus>,
) -> Result<Vec<Order>, Problem> {
    let after = commit_order::position(database, SELECT_POSITION, page).await?;
    let query = sqlx::query_as(if status.is_some() { SELECT_PAGE_BY_STATUS } else { SELECT_PAGE })
        .bind(after)
        .bind(page.rows());
    let query = match status {
        Some(status) => query.bind(status.as_str()),
        None => query,
    };
    let rows: Vec<Row> = query.fetch_all(database.reader()).await?;
    Ok(rows.into_iter().map(order).collect::<Result<_, _>>()?)
}

/// A pending order, as far as the reconciler cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) checks: i64,
}

/// The longest a pending order waits between two checks.
pub(crate) const MAX_CHECK_DELAY: Duration = Duration::from_secs(2);

/// Pending orders whose next check is due, oldest first. A check that is further away than any ever
/// is was put off by a clock that has been turned back since: it is due as well.
pub(crate) async fn due(database: &Database, now_ms: i64, limit: u32) -> Result<Vec<Pending>, sqlx::Error> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT id, user_id, checks FROM orders \
         WHERE status = 'pending_verification' AND (next_check_at <= $1 OR next_check_at > $2) \
         ORDER BY commit_number LIMIT $3",
    )
    .bind(now_ms)
    .bind(now_ms.saturating_add(millis(MAX_CHECK_DELAY)))
    .bind(i64::from(limit))
    .fetch_all(database.reader())
    .await?;
    Ok(rows.into_iter().map(|(id, user_id, checks)| Pending { id, user_id, checks }).collect())
}

/// When the next pending order is due; `None` when none is pending.
pub(crate) async fn next_due_ms(database: &Database) -> Result<Option<i64>, sqlx::Error> {
    let (next,): (Option<i64>,) =
        sqlx::query_as("SELECT MIN(next_check_at) FROM orders WHERE status = 'pending_verification'")
            .fetch_one(database.reader())
            .await?;
    Ok(next)
}

/// Settles a pending order. Returns whether this call did: whoever comes second changes nothing, in
/// whatever process.
pub(crate) async fn resolve(
    transaction: &mut AnyConnection,
    id: &str,
    status: OrderStatus,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE orders SET status = $1, resolved_at = $2, resolutions = resolutions + 1 \
         WHERE id = $3 AND status = 'pending_verification'",
    )
    .bind(status.as_str())
    .bind(now_ms)
    .bind(id)
    .execute(transaction)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Puts off the next check of an order that user-service could not be asked about.
pub(crate) async fn postpone(
    transaction: &mut AnyConnection,
    id: &str,
    next_check_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE orders SET checks = checks + 1, next_check_at = $1 \
         WHERE id = $2 AND status = 'pending_verification'",
    )
    .bind(next_check_ms)
    .bind(id)
    .execute(transaction)
    .await
    .map(drop)
}
