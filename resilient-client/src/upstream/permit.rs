//! An attempt's place in its upstream's machines, given back when it is dropped, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::Upstream;
use super::endpoints::{Endpoint, EndpointPermit};
use crate::engine::ledger::Grant;
use crate::event::Event;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::{self, Verdict};
use crate::sync::Ordering;
use crate::time::{self, Tick, nanos};

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
    /// Where it goes, if the upstream's name stands for several endpoints. Boxed, because most don't, and a permit moves
    /// with every response.
    endpoint: Option<Box<EndpointPermit>>,
    /// What an attempt beyond the first was granted: given back when it never sets out, its token also when it succeeds.
    grant: Option<Grant>,
    number: u32,
    /// Attempts in flight when it was let in, itself among them; zero while nobody asks.
    in_flight: u32,
    started: Tick,
    /// When its answer came, as far as the call waited for it; what a slow reader adds isn't the server's. Never until then.
    answered: Tick,
    stage: Stage,
    /// The call is over with this attempt.
    ends_call: bool,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has been told of it.
    Admitted,
    /// Nobody has been told of it, and it is being handed to the transport, which may send it at once, or panic.
    Leaving,
    /// A hook is at it, or nobody has polled it yet. Nothing has been sent, and what becomes of it says nothing about the
    /// server.
    Preparing,
    /// On its way.
    Sent,
}

impl Permit {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        breaker: breaker::Permit,
        endpoint: Option<Box<EndpointPermit>>,
        now: Tick,
    ) -> Self {
        let in_flight = upstream.adaptive().map_or(0, |_| upstream.in_use());
        Self {
            upstream,
            in_flight,
            breaker: Some(breaker),
            endpoint,
            grant: None,
            number: 1,
            started: now,
            answered: Tick::NEVER,
            stage: Stage::Admitted,
            ends_call: false,
        }
    }

    /// The place of attempt `number`, with what that was granted.
    pub(crate) fn of_attempt(mut self, number: u32, grant: Option<Grant>) -> Self {
        (self.number, self.grant) = (number, grant);
        self
    }

    /// Where it goes; `None` when the upstream is all there is.
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref().map(|endpoint| endpoint.endpoint())
    }

    /// The upstream it is a place in.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// 1 for the first.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The attempt is being handed to the transport: from here on the server may know of it.
    pub(crate) fn leaves(&mut self) {
        self.stage = Stage::Leaving;
    }

    /// The transport has nothing to send.
    pub(crate) fn stays(&mut self) {
        self.stage = Stage::Admitted;
    }

    /// The attempt has been announced and not sent.
    pub(crate) fn prepares(&mut self) {
        self.stage = Stage::Preparing;
    }

    /// The attempt is on its way.
    pub(crate) fn sent(&mut self) {
        self.stage = Stage::Sent;
    }

    /// Whether the server can know of the attempt.
    pub(crate) fn is_sent(&self) -> bool {
        self.stage == Stage::Sent
    }

    /// From here the call lasts as long as this attempt's body.
    pub(crate) fn end_call(&mut self) {
        self.ends_call = true;
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
        match self.grant.take() {
            Some(grant) if !matches!(self.stage, Stage::Leaving | Stage::Sent) => upstream.give_back(grant),
            Some(grant) if outcome == Outcome::Success => upstream.budget.refund(grant.token),
            None if outcome == Outcome::Success && self.number == 1 => upstream.budget.deposit(),
            _ => {}
        }
        if outcome == Outcome::Success {
            upstream.quiet.succeeded(now);
        }
        upstream.tell_throttle(outcome, status, now);
        let took = self.answered.min(now).nanos_since(self.started);
        if self.stage == Stage::Sent {
            upstream.tell_concurrency(self.in_flight, took, outcome, status, now);
        }
        if let Some(endpoint) = &mut self.endpoint {
            // A 429 is quick and says nothing about how quick the endpoint is, except that it isn't slower.
            let verdict = if outcome == Outcome::Throttled { Verdict::Neutral } else { verdict };
            if self.stage == Stage::Sent {
                if status.is_some() && matches!(outcome, Outcome::Throttled | Outcome::Ignored) {
                    endpoint.put_off(took, now);
                }
                endpoint.settle(verdict, took, now);
            } else {
                endpoint.settle(Verdict::Neutral, 0, now);
            }
        }
        let transition =
            upstream.breaker.record(permit, verdict, took, now, || upstream.entropy.rng().unit());
        if !matches!(self.stage, Stage::Admitted | Stage::Leaving) {
            let (number, duration) = (self.number, now.since(self.started));
            upstream.emit(|| Event::AttemptFinished { number, duration, outcome, status });
        }
        if let Some(transition) = transition {
            upstream.emit(|| Event::BreakerTransition(transition));
        }
    }

    /// The attempt's time goes into what is known of the upstream's: it brought its answer, or was cancelled at its age.
    pub(crate) fn timed(&mut self, now: Tick) {
        if self.stage != Stage::Sent {
            return;
        }
        self.answered = now;
        self.upstream.took(now.nanos_since(self.started), now);
    }

    /// Another attempt of its call has brought the answer: this one is cancelled, and lost if it had set out `first`.
    pub(crate) fn lose(&mut self, first: bool, now: Tick) {
        self.timed(now);
        if let Some(endpoint) = &self.endpoint
            && first
            && self.is_sent()
        {
            endpoint.overtaken(nanos(now.since(self.started)), now);
        }
        self.settle(Outcome::Abandoned, Verdict::Neutral, None, now);
    }

    /// When the attempt was admitted.
    pub(crate) fn started(&self) -> Tick {
        self.started
    }

    /// The attempt ended because nobody waits for it any more. How long somebody had waited decides what that says about
    /// the server: longer than `abandoned_after`, or `enough` nanoseconds, is a failure of `kind`.
    pub(crate) fn abandon(&mut self, kind: FailureKind, waited: Duration, enough: u64, now: Tick) -> Outcome {
        let waited = nanos(waited);
        let late = waited > self.upstream.abandoned_after.load(Ordering::Relaxed) || waited >= enough;
        let (outcome, verdict) = if late && self.is_sent() {
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
            let now = time::now();
            self.abandon(FailureKind::Timeout, now.since(self.started), u64::MAX, now);
        }
        self.upstream.bulkhead.release(time::now);
        if self.ends_call {
            self.upstream.leave();
        }
    }
}
