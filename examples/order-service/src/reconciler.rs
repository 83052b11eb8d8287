//! Settles the orders that were stored while user-service could not be asked.
//!
//! Rounds of work, each bounded: take the oldest pending orders that are due, ask about a few of
//! them at a time, write down every answer with an UPDATE that only one process can win. All that
//! must survive a crash is in the table, so a restart, or a second instance on the same database,
//! needs no handing over.
//!
//! The rules:
//! - An order whose lookup failed is due again later, twice as late each time. So orders that can't
//!   be settled (their lookup always fails) never keep younger ones waiting.
//! - A lookup that fails ends the round: the orders not asked about yet are still due.
//! - A round without a single answer means that user-service is down: the next one asks about one
//!   order only, after a pause that doubles up to 1 s. One answer, and full rounds resume at once.
//! - A new pending order wakes an idle reconciler, not one that is backing off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field::Empty};

use crate::{
    Clock, Existence, LookupRequest, OrderStatus, UserLookup,
    store::{self, FIRST_CHECK, MAX_CHECK_DELAY, Pending},
    user_lookup::ask,
};
use service_kit::{clock::millis, database::Database};

/// Most orders in one round.
const BATCH: u32 = 32;
/// Most lookups at a time, so that a user-service that just came back isn't flattened.
const CONCURRENCY: usize = 8;
/// The first and the longest pause while user-service is down.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How often an idle reconciler looks for orders that another process left pending.
const IDLE: Duration = Duration::from_secs(5);

/// Settles pending orders, in rounds.
#[derive(Clone)]
pub struct Reconciler {
    pub(crate) database: Database,
    pub(crate) users: Arc<dyn UserLookup>,
    pub(crate) clock: Clock,
    pub(crate) lookup_limit: Duration,
    pub(crate) wake: Arc<Notify>,
}

/// What came of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Orders that this round settled.
    pub resolved: usize,
    /// Orders that someone else settled between our reading and our writing.
    pub lost: usize,
    /// Orders that user-service gave no answer about.
    pub unanswered: usize,
    /// How long until an order is due, if any is pending.
    pub next_due: Option<Duration>,
}

/// What is to be written down about one order.
enum Verdict {
    Settled(OrderStatus),
    Unanswered,
    /// Not asked about in this round.
    Skipped,
}

impl Reconciler {
    /// Works until `stop` is cancelled.
    pub async fn run_until(self, stop: CancellationToken) {
        let mut pace = Pace::default();
        loop {
            let Some(result) = stop.run_until_cancelled(self.round(pace.batch())).await else { return };
            let pause = match result {
                Ok(round) => pace.after(&round, fastrand::f64()),
                Err(error) => {
                    tracing::warn!(%error, "pending orders could not be worked on");
                    self.database.note(&error);
                    pace.after_failure(fastrand::f64())
                }
            };
            // Not while backing off, nor for an order that won't be due before the pause is over
            // anyway.
            let wakeable = !pace.backing_off() && pause > FIRST_CHECK;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified(), if wakeable => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Works on at most `limit` orders, oldest first, and then stops.
    pub async fn round(&self, limit: u32) -> Result<Round, sqlx::Error> {
        let due = store::due(&self.database, self.clock.now_ms(), limit).await?;
        let unanswered = AtomicBool::new(false);
        let verdicts: Vec<(Pending, Verdict)> = stream::iter(due)
            .map(|pending| self.ask(pending, &unanswered))
            .buffered(CONCURRENCY)
            .collect()
            .await;
        let mut round = Round::default();
        if !verdicts.is_empty() {
            self.write_down(&verdicts, &mut round).await?;
        }
        let next = store::next_due_ms(&self.database).await?;
        let now = self.clock.now_ms();
        round.next_due =
            next.map(|due| Duration::from_millis(u64::try_from(due.saturating_sub(now)).unwrap_or(0)));
        if round.next_due.is_some_and(|due| due > MAX_CHECK_DELAY) {
            // The clock was turned back; see `store::due`.
            round.next_due = Some(Duration::ZERO);
        }
        Ok(round)
    }

    async fn ask(&self, pending: Pending, unanswered: &AtomicBool) -> (Pending, Verdict) {
        if unanswered.load(Ordering::Relaxed) {
            return (pending, Verdict::Skipped);
        }
        let request_id = format!("reconcile-{}", pending.id);
        let lookup = LookupRequest { user_id: &pending.user_id, request_id: &request_id };
        // A trace of its own: the order's request was answered long ago.
        let span = tracing::info_span!("reconcile", order.id = pending.id, request_id, order.status = Empty);
        let answer = ask(&*self.users, lookup, self.lookup_limit).instrument(span.clone()).await;
        let settled = |status: OrderStatus| {
            span.record("order.status", status.as_str());
            Verdict::Settled(status)
        };
        let verdict = match answer {
            Ok(Existence::Exists) => settled(OrderStatus::Confirmed),
            Ok(Existence::Unknown) => settled(OrderStatus::Rejected),
            Err(unavailable) => {
                tracing::debug!(order = pending.id, %unavailable, "still pending");
                unanswered.store(true, Ordering::Relaxed);
                Verdict::Unanswered
            }
        };
        (pending, verdict)
    }

    /// One transaction for the round: one wait for the disk. Always in the order of commits, so
    /// that two processes can't each hold a row that the other wants.
    async fn write_down(
        &self,
        verdicts: &[(Pending, Verdict)],
        round: &mut Round,
    ) -> Result<(), sqlx::Error> {
        let now = self.clock.now_ms();
        let mut transaction = self.database.begin().await?;
        for (Pending { id, checks, .. }, verdict) in verdicts {
            match verdict {
                Verdict::Settled(status) => {
                    if store::resolve(&mut transaction, id, *status, now).await? {
                        round.resolved += 1;
                    } else {
                        round.lost += 1;
                    }
                }
                Verdict::Unanswered => {
                    let delay = doubling(FIRST_CHECK, MAX_CHECK_DELAY, checks + 1, fastrand::f64());
                    store::postpone(&mut transaction, id, now.saturating_add(millis(delay))).await?;
                    round.unanswered += 1;
                }
                Verdict::Skipped => {}
            }
        }
        transaction.commit().await?;
        if round.resolved > 0 {
            tracing::info!(orders = round.resolved, "settled pending orders");
        }
        Ok(())
    }
}

/// How hard to work, judged by how the last rounds went. Pure: it is told everything.
///
/// full rounds ── no answer ──> backing off, one order at a time ── an answer ──> full rounds
#[derive(Clone, Debug, Default)]
struct Pace {
    /// Rounds in a row without an answer.
    vain: i64,
}

impl Pace {
    fn backing_off(&self) -> bool {
        self.vain > 0
    }

    fn batch(&self) -> u32 {
        if self.backing_off() { 1 } else { BATCH }
    }

    /// How long to pause after this round; `random` is in `[0, 1)`.
    fn after(&mut self, round: &Round, random: f64) -> Duration {
        let answered = round.resolved + round.lost > 0;
        if round.unanswered > 0 && !answered {
            return self.after_failure(random);
        }
        if answered {
            self.vain = 0;
        }
        if round.next_due.is_none() {
            self.vain = 0;
        }
        round.next_due.map_or(IDLE, |due| due.min(IDLE))
    }

    fn after_failure(&mut self, random: f64) -> Duration {
        self.vain += 1;
        doubling(MIN_PAUSE, MAX_PAUSE, self.vain - 1, random)
    }
}

/// `first` doubled `times` times, at most `cap`, less up to a half so that many don't wait in step.
fn doubling(first: Duration, cap: Duration, times: i64, random: f64) -> Duration {
    let factor = 2_u32.saturating_pow(u32::try_from(times).unwrap_or(u32::MAX));
    first.saturating_mul(factor).min(cap).mul_f64(1.0 - random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAIN: Round = Round { resolved: 0, lost: 0, unanswered: 3, next_due: Some(Duration::ZERO) };

    fn busy(resolved: usize, unanswered: usize) -> Round {
        Round { resolved, lost: 0, unanswered, next_due: Some(Duration::ZERO) }
    }

    #[test]
    fn pauses_double_up_to_a_second_while_nothing_answers() {
        let mut pace = Pace::default();
        let pauses: Vec<u128> = (0..6).map(|_| pace.after(&VAIN, 0.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pace.batch(), 1);
    }

    #[test]
    fn one_answer_brings_full_rounds_back_without_a_pause() {
        let mut pace = Pace::default();
        pace.after(&VAIN, 0.0);
        assert_eq!(pace.after(&busy(1, 0), 0.0), Duration::ZERO);
        assert_eq!((pace.batch(), pace.backing_off()), (BATCH, false));
    }

    #[test]
    fn a_failure_among_answers_is_that_orders_own_trouble() {
        let mut pace = Pace::default();
        assert_eq!(pace.after(&busy(5, 1), 0.0), Duration::ZERO);
        assert!(!pace.backing_off());
    }

    #[test]
    fn backing_off_lasts_while_every_order_is_postponed() {
        let mut pace = Pace::default();
        pace.after(&VAIN, 0.0);
        let nothing_due = Round { next_due: Some(Duration::from_millis(70)), ..Round::default() };
        assert_eq!(pace.after(&nothing_due, 0.0), Duration::from_millis(70));
        assert!(pace.backing_off());
    }

    #[test]
    fn with_nothing_pending_it_idles() {
        assert_eq!(Pace::default().after(&Round::default(), 0.0), IDLE);
    }

    #[test]
    fn delays_never_overflow_and_jitter_only_shortens() {
        assert_eq!(doubling(FIRST_CHECK, MAX_CHECK_DELAY, i64::MAX, 0.0), MAX_CHECK_DELAY);
        assert_eq!(doubling(FIRST_CHECK, MAX_CHECK_DELAY, 60, 0.0), MAX_CHECK_DELAY);
        let jittered = doubling(MIN_PAUSE, MAX_PAUSE, 0, 0.999);
        assert!(jittered >= MIN_PAUSE / 2 && jittered <= MIN_PAUSE);
    }
}
