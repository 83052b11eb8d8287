//! The keys' table: every transition of a key is one statement, so no two processes can both make
//! it.

use std::{convert::Infallible, time::Duration};

use axum::http::StatusCode;
use sqlx::AnyConnection;
use tokio::time::sleep;

use super::{Keys, Ticket, answer::Answer, in_flight};
use crate::{clock::millis, problem::Problem};

/// How long an answer can be replayed.
const KEEP: Duration = Duration::from_hours(24);
/// How long a crashed process blocks its keys.
const LEASE: Duration = Duration::from_secs(5);
/// How often a live one says that it is still at work.
const RENEW: Duration = Duration::from_secs(1);
/// A lease that ends later than this was given by a clock that has been turned back since.
const BELIEVED: Duration = Duration::from_secs(10);
/// Bounds how long one sweep holds the write lock.
const SWEEP_ROWS: i64 = 1000;

/// A key in flight, by whom.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    scope: &'static str,
    key: String,
    /// Tells this claim from any earlier or later one of the same key.
    owner: String,
}

/// What came of claiming a key.
pub(super) enum Claim {
    Ours(Claimed),
    Answered(Answer),
    /// Being worked on, as far as anyone knows; after so long it is worth asking again.
    InFlight(Duration),
    OtherRequest,
}

/// fingerprint, status, location, body, end of the lease
type Row = (String, Option<i64>, Option<String>, Option<String>, i64);

impl Keys {
    /// Takes the key for this request if nobody has it.
    pub(super) async fn claim(
        &self,
        scope: &'static str,
        key: String,
        fingerprint: &str,
    ) -> Result<Claim, sqlx::Error> {
        let owner = self.clock.new_id();
        // A row that is released between the two statements leads round again; that can't go on for
        // long.
        for _ in 0..3 {
            let now = self.clock.now_ms();
            let claimed = sqlx::query(
                "INSERT INTO idempotency_keys (scope, idempotency_key, fingerprint, owner, lease_until, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (scope, idempotency_key) DO UPDATE SET \
                     fingerprint = excluded.fingerprint, owner = excluded.owner, status = NULL, location = NULL, \
                     body = NULL, lease_until = excluded.lease_until, expires_at = excluded.expires_at \
                 WHERE idempotency_keys.expires_at <= $7 \
                    OR (idempotency_keys.status IS NULL AND idempotency_keys.fingerprint = excluded.fingerprint \
                        AND (idempotency_keys.lease_until <= $7 OR idempotency_keys.lease_until > $8))",
            )
            .bind(scope)
            .bind(&key)
            .bind(fingerprint)
            .bind(&owner)
            .bind(now.saturating_add(millis(LEASE)))
            .bind(now.saturating_add(millis(KEEP)))
            .bind(now)
            .bind(now.saturating_add(millis(BELIEVED)))
            .execute(self.database.writer())
            .await?;
            if claimed.rows_affected() == 1 {
                return Ok(Claim::Ours(Claimed { scope, key, owner }));
            }
            let row: Option<Row> = sqlx::query_as(
                "SELECT fingerprint, status, location, body, lease_until FROM idempotency_keys \
                 WHERE scope = $1 AND idempotency_key = $2",
            )
            .bind(scope)
            .bind(&key)
            .fetch_optional(self.database.writer())
            .await?;
            match row {
                None => {}
                Some((theirs, ..)) if theirs != fingerprint => return Ok(Claim::OtherRequest),
                Some((_, Some(status), location, body, _)) => {
                    let status =
                        u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
                    return Ok(Claim::Answered(Answer {
                        status: status.unwrap_or(StatusCode::OK),
                        location,
                        body: body.unwrap_or_default(),
                    }));
                }
                Some((.., lease_until)) => {
                    let left = u64::try_from(lease_until.saturating_sub(now)).unwrap_or(0);
                    return Ok(Claim::InFlight(worth_asking_after(Duration::from_millis(left))));
                }
            }
        }
        Ok(Claim::InFlight(RENEW))
    }

    /// Renews the lease for as long as the future is polled, so that the key stays with the work
    /// however long it takes.
    pub(super) async fn keep(&self, claimed: &Claimed) -> Infallible {
        loop {
            sleep(RENEW).await;
            let renewed = sqlx::query(
                "UPDATE idempotency_keys SET lease_until = $1 \
                 WHERE scope = $2 AND idempotency_key = $3 AND owner = $4 AND status IS NULL",
            )
            .bind(self.clock.now_ms().saturating_add(millis(LEASE)))
            .bind(claimed.scope)
            .bind(&claimed.key)
            .bind(&claimed.owner)
            .execute(self.database.writer())
            .await;
            // The next renewal comes in time. If none does, the work can't commit, which is what
            // makes it safe.
            if let Err(error) = renewed {
                tracing::debug!(%error, "a lease was not renewed");
            }
        }
    }

    /// Gives the key back, as if it had never been claimed.
    pub(super) async fn release(&self, claimed: &Claimed) -> Result<(), sqlx::Error> {
        sqlx::query(
            "DELETE FROM idempotency_keys \
             WHERE scope = $1 AND idempotency_key = $2 AND owner = $3 AND status IS NULL",
        )
        .bind(claimed.scope)
        .bind(&claimed.key)
        .bind(&claimed.owner)
        .execute(self.database.writer())
        .await
        .map(drop)
    }

    /// Deletes keys that are older than 24 h, at most 1000 of them; returns how many.
    pub async fn sweep(&self) -> Result<u64, sqlx::Error> {
        let deleted = sqlx::query(
            "DELETE FROM idempotency_keys WHERE (scope, idempotency_key) IN \
             (SELECT scope, idempotency_key FROM idempotency_keys WHERE expires_at <= $1 LIMIT $2)",
        )
        .bind(self.clock.now_ms())
        .bind(SWEEP_ROWS)
        .execute(self.database.writer())
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// When to ask again about a key whose lease has so long left. One that is renewed is mostly
/// answered soon; one that isn't was a crashed process's, and free when its lease is over.
fn worth_asking_after(left: Duration) -> Duration {
    let is_renewed = left + RENEW + RENEW / 2 > LEASE;
    if is_renewed { RENEW } else { left }
}

impl Ticket {
    /// Stores the answer as part of the caller's transaction. An error means the claim was lost to
    /// someone else: the transaction must not be committed.
    pub async fn record(&self, transaction: &mut AnyConnection, answer: &Answer) -> Result<(), Problem> {
        let Some(claimed) = &self.claim else { return Ok(()) };
        let recorded = sqlx::query(
            "UPDATE idempotency_keys SET status = $1, location = $2, body = $3 \
             WHERE scope = $4 AND idempotency_key = $5 AND owner = $6 AND status IS NULL",
        )
        .bind(i64::from(answer.status.as_u16()))
        .bind(&answer.location)
        .bind(&answer.body)
        .bind(claimed.scope)
        .bind(&claimed.key)
        .bind(&claimed.owner)
        .execute(transaction)
        .await?;
        if recorded.rows_affected() == 1 { Ok(()) } else { Err(in_flight(RENEW)) }
    }
}
