//! An attempt's place at one endpoint, given back when it is dropped, whatever happens.

use std::sync::Arc;

use super::endpoint::Endpoint;
use crate::outcome::{FailureCause, Verdict};
use crate::policy::balance::Rules;
use crate::policy::breaker::{self, BodyPermit, BodyResult, CallResult};
use crate::policy::overload::Ended;
use crate::sync::Ordering;
use crate::time::{self, Tick};

/// One attempt in flight at one endpoint, and its breaker's leave.
///
/// [`settle`](Self::settle) counts once; the attempt is in flight until the drop. Dropped without
/// it, an attempt older than the breaker's `abandoned_after` counts as a failure and a younger one
/// as nothing; either way its age is learnt, so that an endpoint that hangs repels calls even when
/// their callers all give up early.
#[derive(Debug)]
pub(crate) struct EndpointPermit {
    endpoint: Arc<Endpoint>,
    /// `None` when the breaker wasn't asked.
    breaker: Option<breaker::Permit>,
    /// Leave to say what became of the body, once its head has been answered well.
    body: Option<(BodyPermit, Tick)>,
    /// Whether it was let in as a probe.
    probe: bool,
    rules: Rules,
    started: Tick,
    ended: Ended,
    settled: bool,
}

impl EndpointPermit {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        breaker: Option<breaker::Permit>,
        rules: Rules,
        now: Tick,
    ) -> Self {
        endpoint.begin();
        let probe = breaker.as_ref().is_some_and(breaker::Permit::is_probe);
        Self {
            endpoint,
            breaker,
            probe,
            body: None,
            rules,
            started: now,
            ended: Ended::Unanswered,
            settled: false,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether its result moves no breaker: somebody forced the name's closed.
    #[cfg(test)]
    pub(crate) fn is_overruled(&self) -> bool {
        self.breaker.is_none()
    }

    /// Whether the attempt is one of the few that test a broken endpoint.
    #[cfg(test)]
    pub(crate) fn is_probe(&self) -> bool {
        self.breaker.is_some() && self.probe
    }

    /// Whether it is, or was before it was settled.
    pub(crate) fn probed(&self) -> bool {
        self.probe
    }

    /// What that tells of whether the endpoint is silent.
    pub(crate) fn ended(&mut self, ended: Ended) {
        self.ended = ended;
    }

    /// It was answered, and not with what was asked for: 429, or 504 for want of time. That says
    /// nothing to a breaker, but it takes other calls to get a success there, and it is quick,
    /// which must attract none.
    pub(crate) fn put_off(&self, took: u64, now: Tick) {
        self.endpoint.score.failed(took, &self.rules, now);
    }

    /// A hedge sent after this attempt answered before it. That says nothing to a breaker, since a
    /// healthy endpoint is overtaken now and then, but who is overtaken again and again should get
    /// fewer calls.
    pub(crate) fn overtaken(&self, took: u64, now: Tick) {
        self.endpoint.score.failed(took, &self.rules, now);
    }

    /// The attempt came to something after `took` nanoseconds. Only the first time counts.
    ///
    /// [`Verdict::Neutral`] for one that was cancelled (a hedge's loser): its age is a lower bound.
    /// With an age of zero it says nothing at all: an attempt that was lost by no fault of the
    /// endpoint's.
    pub(crate) fn settle(&mut self, verdict: Verdict, took: u64, now: Tick) {
        self.settle_caused(verdict, FailureCause::Own, took, now);
    }

    /// The same, with the cause of a failure.
    pub(crate) fn settle_caused(&mut self, verdict: Verdict, cause: FailureCause, took: u64, now: Tick) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let endpoint = &*self.endpoint;
        endpoint.leave(self.ended, || now);
        match verdict {
            Verdict::Success => {
                endpoint.succeeded(now);
                endpoint.score.succeeded(took, &self.rules, now);
            }
            Verdict::Failure => endpoint.score.failed(took, &self.rules, now),
            Verdict::Neutral => endpoint.score.out_for(took, &self.rules, now),
        }
        let Some(permit) = self.breaker.take() else { return };
        if verdict == Verdict::Success {
            self.body = Some((permit.body(), now));
        }
        let unit = || endpoint.entropy.rng().unit();
        let result = CallResult::from_nanos(verdict, took).caused_by(cause);
        let transition = endpoint.breaker.record(permit, result, now, unit);
        if let Some(transition) = transition {
            endpoint.changed(transition, now);
        }
    }

    /// The attempt was never sent: nobody was asked.
    pub(crate) fn unsent(&mut self) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        self.endpoint.leave(Ended::Unsent, time::now);
        if let Some(permit) = self.breaker.take() {
            self.endpoint.breaker.release(permit);
        }
    }

    /// What became of the body of an answer whose head was a success. Only the first time counts.
    /// One that failed was waited for in vain for `waited` nanoseconds: how long it had been coming
    /// before that says nothing of how soon the endpoint answers.
    pub(crate) fn settle_body(
        &mut self,
        verdict: Verdict,
        cause: FailureCause,
        waited: u64,
        now: Tick,
    ) -> bool {
        let Some((body, at)) = self.body.take() else { return false };
        let endpoint = &*self.endpoint;
        if verdict == Verdict::Failure {
            endpoint.score.failed(waited, &self.rules, now);
        }
        let unit = || endpoint.entropy.rng().unit();
        let result = BodyResult::new(verdict, at).caused_by(cause);
        let transition = endpoint.breaker.record_body(body, result, now, unit);
        if let Some(transition) = transition {
            endpoint.changed(transition, now);
        }
        transition.is_some()
    }
}

impl Drop for EndpointPermit {
    fn drop(&mut self) {
        if !self.settled {
            let now = time::now();
            let age = now.as_nanos().saturating_sub(self.started.as_nanos());
            let late = age > self.endpoint.abandoned_after.load(Ordering::Relaxed);
            self.settle(if late { Verdict::Failure } else { Verdict::Neutral }, age, now);
        }
        self.endpoint.end();
    }
}
