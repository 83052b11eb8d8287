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
//! - The same key with the same request replays the stored answer with `Idempotent-Replayed: true`;
//!   with another request it is 422; while the first is in flight it is 409 with `Retry-After`.
//! - A process at work renews its leases, so that those of a crashed one may be short;
//!   `Retry-After` says how long.
//! - Work that lost its lease can't commit: `record` fails inside its transaction, which rolls
//!   back.
//! - The work runs in a task of its own, so a client that hangs up neither stops it half-way nor
//!   leaves its key stuck.
//! - Keys are scoped by route; 4xx answers of the work are stored, bad requests that never reach it
//!   are not.
//!
//! Ready-made middleware stores an answer after its handler has returned: a crash in between does
//! the work twice. Here the key is part of the transaction that does the work, so it can't be a
//! layer.
//!
//! Two requests are the same when they mean the same: the fingerprint is of the parsed request, not
//! of its bytes.

mod answer;
mod claims;
mod request;

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use resilient_client::trace_context;
use tokio::time::interval;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use self::claims::{Claim, Claimed};
use crate::{
    clock::Clock,
    database::{Database, Migration},
    problem::{Problem, from_panic},
};

pub use self::{
    answer::Answer,
    request::{Fingerprint, IdempotencyKey},
};

/// The table behind the keys.
pub const MIGRATION: Migration = Migration { version: 1, sql: include_str!("table.sql") };

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const SWEEP_EVERY: Duration = Duration::from_mins(10);

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
    /// The work must call [`Ticket::record`] in the transaction that writes. It goes on when the
    /// caller of this function stops waiting.
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
        let result = match self.tasks.spawn(trace_context::carried(task.in_current_span())).await {
            Ok(response) => response,
            Err(error) if error.is_panic() => Err(from_panic(&*error.into_panic())),
            Err(_cancelled) => Err(Problem::unavailable(Duration::from_secs(1))),
        };
        if result.as_ref().is_err_and(Problem::is_storage) {
            self.database.note_unwritable();
        }
        result
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
            Claim::InFlight(after) => return Err(in_flight(after)),
            Claim::OtherRequest => return Err(other_request()),
        };
        let ticket = Ticket { claim: Some(claimed.clone()) };
        let work = AssertUnwindSafe(async { work(ticket.clone()).await }).catch_unwind();
        let result = tokio::select! {
            result = work => result,
            never = self.keep(&claimed) => match never {},
        };
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

    /// Sweeps now and then until `stop` is cancelled.
    pub async fn sweep_until(self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            loop {
                // A pause after each bounded step lets requests write in between.
                match stop.run_until_cancelled(self.sweep()).await {
                    Some(Ok(1..)) => tokio::task::yield_now().await,
                    Some(Ok(0)) | None => break,
                    Some(Err(error)) => {
                        tracing::warn!(%error, "idempotency keys were not swept");
                        break;
                    }
                }
            }
        }
    }
}

fn in_flight(after: Duration) -> Problem {
    Problem::new(StatusCode::CONFLICT)
        .kind("urn:problem:idempotency-key-in-flight", "Request in flight")
        .detail("A request with this Idempotency-Key is being worked on; try again shortly.")
        .retry_after(after)
}

fn other_request() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
        .kind("urn:problem:idempotency-key-reused", "Idempotency-Key reused")
        .detail("This Idempotency-Key was used with another request.")
}
