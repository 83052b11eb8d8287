//! An attempt's place in its upstream's machines, given back when it is dropped, whatever happens.

use std::sync::Arc;

use http::StatusCode;

use super::Upstream;
use crate::event::Event;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::{self, Verdict};
use crate::sync::Ordering;
use crate::time::{self, Tick};

/// One attempt's bulkhead slot and breaker permit.
///
/// The verdict is given at most once, with [`settle`](Self::settle); the slot is held until the drop, so a failed head
/// can be counted at once while its body still occupies a connection. Dropped without a verdict, an attempt that had
/// been out for longer than `abandoned_after` counts as a failure: that is how a timeout the caller put *around* the
/// call reaches the breaker. A younger one counts as nothing.
#[derive(Debug)]
pub(crate) struct Permit {
    upstream: Arc<Upstream>,
    /// `None` once settled.
    breaker: Option<breaker::Permit>,
    /// Paid for by the budget.
    extra: bool,
    number: u32,
    started: Tick,
    /// When its answer came, as far as the call waited for it; what a slow reader adds isn't the server's.
    answered: Option<Tick>,
    /// Nothing has been sent: a hook is still at it, and what becomes of it says nothing about the server.
    pub(crate) unsent: bool,
}

impl Permit {
    pub(super) fn new(upstream: Arc<Upstream>, breaker: breaker::Permit, extra: bool, now: Tick) -> Self {
        Self {
            upstream,
            breaker: Some(breaker),
            extra,
            number: 1,
            started: now,
            answered: None,
            unsent: false,
        }
    }

    pub(crate) fn numbered(mut self, number: u32) -> Self {
        self.number = number;
        self
    }

    /// Gives the verdict. Only the first one counts.
    pub(crate) fn settle(
        &mut self,
        outcome: Outcome,
        verdict: Verdict,
        status: Option<StatusCode>,
        now: Tick,
    ) {
        let Some(permit) = self.breaker.take() else { return };
        let upstream = &*self.upstream;
        if outcome == Outcome::Success {
            if self.extra {
                upstream.budget.refund();
            } else {
                upstream.budget.deposit();
            }
        }
        let took = self.answered.unwrap_or(now).as_nanos().saturating_sub(self.started.as_nanos());
        let transition =
            upstream.breaker.record(permit, verdict, took, now, || upstream.entropy.rng().unit());
        let (number, duration) = (self.number, now.since(self.started));
        upstream.emit(|| Event::AttemptFinished { number, duration, outcome, status });
        if let Some(transition) = transition {
            upstream.emit(|| Event::BreakerTransition(transition));
        }
    }

    /// The attempt's time goes into what is known of the upstream's: it brought its answer, or was cancelled at its age.
    pub(crate) fn timed(&mut self, now: Tick) {
        if self.unsent {
            return;
        }
        self.answered = Some(now);
        self.upstream.took(now.as_nanos().saturating_sub(self.started.as_nanos()), now);
    }

    /// When the attempt was admitted.
    pub(crate) fn started(&self) -> Tick {
        self.started
    }

    /// The attempt ended because nobody waits for it any more. How long somebody had waited, since `since`, decides what
    /// that says about the server: longer than `abandoned_after`, or `enough` nanoseconds, is a failure of `kind`.
    pub(crate) fn abandon(&mut self, kind: FailureKind, since: Tick, enough: u64, now: Tick) -> Outcome {
        let waited = now.as_nanos().saturating_sub(since.as_nanos());
        let late = waited > self.upstream.abandoned_after.load(Ordering::Relaxed) || waited >= enough;
        let (outcome, verdict) = if late && !self.unsent {
            (Outcome::Failure(kind), Verdict::Failure)
        } else {
            (Outcome::Abandoned, Verdict::Neutral)
        };
        self.settle(outcome, verdict, None, now);
        outcome
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.breaker.is_some() {
            self.abandon(FailureKind::Timeout, self.started, u64::MAX, time::now());
        }
        self.upstream.bulkhead.release();
    }
}
