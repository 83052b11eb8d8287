//! `Idempotency-Key`: a POST that is sent twice happens once, and both senders get the same answer.
//!
//! A key goes through at most four states, all in one row of the service's own database:
//!
//! ```text
//! (no row) ── claim ──> in flight ── record, in the transaction that does the work ──> answered ── 24 h ──> (no row)
//!                         │   ^
//!                         │   └── claim by someone else, once the lease of a crashed process has run out
//!                         └── release after a 5xx or a panic ──> (no row)
//! ```
//!
//! The rules:
//! - The same key with the same request replays the stored answer with `Idempotent-Replayed: true`; with another
//!   request it is 422; while the first is in flight it is 409 with `Retry-After`.
//! - Work that lost its lease can't commit: `record` fails inside its transaction, which rolls back.
//! - The work runs in a task of its own, so a client that hangs up neither stops it half-way nor leaves its key stuck.
//! - Keys are scoped by route; 4xx answers of the work are stored, bad requests that never reach it are not.
//!
//! Two requests are the same when they mean the same: the fingerprint is of the parsed request, not of its bytes.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, LOCATION},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;
use tokio::time::interval;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{
    clock::{Clock, millis},
    database::{Database, Migration},
    extract::new_id,
    problem::{PROBLEM_JSON, Problem, from_panic},
};

/// The table behind the keys.
pub const MIGRATION: Migration = Migration { version: 1, sql: include_str!("idempotency.sql") };

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

const MAX_KEY_LEN: usize = 255;
/// How long an answer can be replayed.
const KEEP: Duration = Duration::from_hours(24);
/// How long a crashed process blocks its keys. Longer than any request takes, so that a live one keeps its key.
const LEASE: Duration = Duration::from_secs(30);
const SWEEP_EVERY: Duration = Duration::from_mins(10);
/// Bounds how long one sweep holds the write lock.
const SWEEP_ROWS: i64 = 1000;

/// The `Idempotency-Key` header, if the client sent one: 400 unless it is a single value of 1 to 255 printable ASCII
/// characters.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// The key in the headers of a request.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let bytes = value.as_bytes();
        let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
        match value.to_str() {
            Ok(key) if values.next().is_none() && printable && (1..=MAX_KEY_LEN).contains(&bytes.len()) => {
                Ok(Self(Some(key.to_owned())))
            }
            _ => Err(Problem::bad_request(format!(
                "Idempotency-Key must be sent once, with 1 to {MAX_KEY_LEN} printable ASCII characters."
            ))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::from_headers(&parts.headers)
    }
}

/// An answer that can be stored and given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

impl Answer {
    /// A JSON answer that points at what was created.
    pub fn created(status: StatusCode, location: String, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_string(body).map_err(|error| unwritable(&error))?;
        Ok(Self { status, location: Some(location), body })
    }
}

impl From<&Problem> for Answer {
    fn from(problem: &Problem) -> Self {
        Self { status: problem.status(), location: None, body: problem.to_json() }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = if self.status.is_success() {
            HeaderValue::from_static("application/json")
        } else {
            PROBLEM_JSON
        };
        let mut response = (self.status, [(CONTENT_TYPE, json)], self.body).into_response();
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// What tells one request from another: equal when both mean the same, whatever their bytes.
#[derive(Clone, Debug)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a parsed request.
    pub fn of(request: &impl Serialize) -> Result<Self, Problem> {
        let canonical = serde_json::to_vec(request).map_err(|error| unwritable(&error))?;
        Ok(Self(format!("{:x}", Sha256::digest(canonical))))
    }
}

fn unwritable(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "a value could not be written as JSON");
    Problem::internal()
}

/// The keys of one service. A clone shares them.
#[derive(Clone, Debug)]
pub struct Keys {
    database: Database,
    clock: Clock,
    tasks: TaskTracker,
}

/// The right to answer for one key, or for none if the client sent none.
#[derive(Clone, Debug)]
pub struct Ticket {
    claim: Option<Claimed>,
}

#[derive(Clone, Debug)]
struct Claimed {
    scope: &'static str,
    key: String,
    /// Tells this claim from any earlier or later one of the same key.
    owner: String,
}

/// fingerprint, status, location, body
type Row = (String, Option<i64>, Option<String>, Option<String>);

enum Claim {
    Ours(Claimed),
    Answered(Answer),
    InFlight,
    OtherRequest,
}

impl Keys {
    /// Work started by [`Keys::once`] runs among `tasks`, so that a drain waits for it.
    pub fn new(database: Database, clock: Clock, tasks: TaskTracker) -> Self {
        Self { database, clock, tasks }
    }

    /// The database that the keys, and so the work's transactions, are in.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Does the work unless the key says it was done, or is being done.
    ///
    /// The work must call [`Ticket::record`] in the transaction that writes. It goes on when the caller of this
    /// function stops waiting.
    pub async fn once<W, F>(
        &self,
        scope: &'static str,
        key: IdempotencyKey,
        request: Fingerprint,
        work: W,
    ) -> Result<Response, Problem>
    where
        W: FnOnce(Ticket) -> F + Send + 'static,
        F: Future<Output = Result<Answer, Problem>> + Send + 'static,
    {
        let keys = self.clone();
        let task = async move {
            match key.0 {
                None => work(Ticket { claim: None }).await.map(IntoResponse::into_response),
                Some(key) => keys.keyed(scope, key, request.0, work).await,
            }
        };
        match self.tasks.spawn(task.in_current_span()).await {
            Ok(response) => response,
            Err(error) if error.is_panic() => Err(from_panic(&*error.into_panic())),
            Err(_cancelled) => Err(Problem::unavailable(Duration::from_secs(1))),
        }
    }

    async fn keyed<W, F>(
        &self,
        scope: &'static str,
        key: String,
        fingerprint: String,
        work: W,
    ) -> Result<Response, Problem>
    where
        W: FnOnce(Ticket) -> F,
        F: Future<Output = Result<Answer, Problem>>,
    {
        let claimed = match self.claim(scope, key, &fingerprint).await? {
            Claim::Ours(claimed) => claimed,
            Claim::Answered(answer) => {
                let replayed = [(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))];
                return Ok((replayed, answer).into_response());
            }
            Claim::InFlight => return Err(in_flight()),
            Claim::OtherRequest => return Err(other_request()),
        };
        let ticket = Ticket { claim: Some(claimed.clone()) };
        let result = AssertUnwindSafe(async { work(ticket.clone()).await }).catch_unwind().await;
        match result.unwrap_or_else(|panic| Err(from_panic(&*panic))) {
            Ok(answer) => Ok(answer.into_response()),
            Err(problem) if problem.status().is_client_error() => {
                let answer = Answer::from(&problem);
                let mut connection = self.database.writer().acquire().await?;
                ticket.record(&mut connection, &answer).await?;
                Ok(answer.into_response())
            }
            Err(problem) => {
                // If this fails too, the lease runs out by itself.
                if let Err(error) = self.release(&claimed).await {
                    tracing::warn!(%error, "an idempotency key stays claimed until its lease ends");
                }
                Err(problem)
            }
        }
    }

    async fn claim(&self, scope: &'static str, key: String, fingerprint: &str) -> Result<Claim, sqlx::Error> {
        let owner = new_id();
        // A row that is released between the two statements leads round again; that can't go on for long.
        for _ in 0..3 {
            let now = self.clock.now_ms();
            let claimed = sqlx::query(
                "INSERT INTO idempotency_keys (scope, idempotency_key, fingerprint, owner, lease_until, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (scope, idempotency_key) DO UPDATE SET \
                     fingerprint = excluded.fingerprint, owner = excluded.owner, status = NULL, location = NULL, \
                     body = NULL, lease_until = excluded.lease_until, expires_at = excluded.expires_at \
                 WHERE idempotency_keys.expires_at <= $7 \
                    OR (idempotency_keys.status IS NULL AND idempotency_keys.lease_until <= $7 \
                        AND idempotency_keys.fingerprint = excluded.fingerprint)",
            )
            .bind(scope)
            .bind(&key)
            .bind(fingerprint)
            .bind(&owner)
            .bind(now.saturating_add(millis(LEASE)))
            .bind(now.saturating_add(millis(KEEP)))
            .bind(now)
            .execute(self.database.writer())
            .await?;
            if claimed.rows_affected() == 1 {
                return Ok(Claim::Ours(Claimed { scope, key, owner }));
            }
            let row: Option<Row> = sqlx::query_as(
                "SELECT fingerprint, status, location, body FROM idempotency_keys \
                 WHERE scope = $1 AND idempotency_key = $2",
            )
            .bind(scope)
            .bind(&key)
            .fetch_optional(self.database.writer())
            .await?;
            match row {
                None => {}
                Some((theirs, ..)) if theirs != fingerprint => return Ok(Claim::OtherRequest),
                Some((_, Some(status), location, body)) => {
                    let status =
                        u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
                    return Ok(Claim::Answered(Answer {
                        status: status.unwrap_or(StatusCode::OK),
                        location,
                        body: body.unwrap_or_default(),
                    }));
                }
                Some(_) => return Ok(Claim::InFlight),
            }
        }
        Ok(Claim::InFlight)
    }

    async fn release(&self, claimed: &Claimed) -> Result<(), sqlx::Error> {
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

    /// Deletes up to 1000 keys that are older than 24 h; returns how many.
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

    /// Sweeps now and then until `stop` is cancelled.
    pub async fn sweep_until(self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.sweep().await {
                Ok(deleted) => tracing::debug!(deleted, "swept idempotency keys"),
                Err(error) => tracing::warn!(%error, "idempotency keys were not swept"),
            }
        }
    }
}

impl Ticket {
    /// Stores the answer as part of the caller's transaction. An error means the claim was lost to someone else: the
    /// transaction must not be committed.
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
        if recorded.rows_affected() == 1 { Ok(()) } else { Err(in_flight()) }
    }
}

fn in_flight() -> Problem {
    Problem::new(StatusCode::CONFLICT)
        .kind("urn:problem:idempotency-key-in-flight", "Request in flight")
        .detail("A request with this Idempotency-Key is being worked on; try again shortly.")
        .retry_after(Duration::from_secs(1))
}

fn other_request() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
        .kind("urn:problem:idempotency-key-reused", "Idempotency-Key reused")
        .detail("This Idempotency-Key was used with another request.")
}
