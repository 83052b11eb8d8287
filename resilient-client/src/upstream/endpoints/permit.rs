//! An attempt's place at one endpoint, given back when it is dropped, whatever happens.

use std::sync::Arc;

use super::endpoint::Endpoint;
use crate::policy::balance::Rules;
use crate::policy::breaker::{self, State, Verdict};
use crate::sync::Ordering;
use crate::time::{self, Tick};

/// One attempt in flight at one endpoint, and its breaker's leave.
///
/// [`settle`](Self::settle) counts once; the attempt is in flight until the drop. Dropped without it, an attempt older than
/// the breaker's `abandoned_after` counts as a failure and a younger one as nothing; either way its age is learnt, so that an
/// endpoint that hangs repels calls even when their callers all give up early.
#[derive(Debug)]
pub(crate) struct EndpointPermit {
    endpoint: Arc<Endpoint>,
    /// `None` when the breaker wasn't asked, or said no and was overruled.
    breaker: Option<breaker::Permit>,
    rules: Rules,
    started: Tick,
    overruled: bool,
    settled: bool,
}

impl EndpointPermit {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        breaker: Option<breaker::Permit>,
        overruled: bool,
        rules: Rules,
        now: Tick,
    ) -> Self {
        endpoint.begin();
        if breaker.as_ref().is_some_and(breaker::Permit::is_probe) {
            endpoint.probe_began(now);
        }
        Self { endpoint, breaker, rules, started: now, overruled, settled: false }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether too many endpoints are out and this one's breaker was overruled. Its result then moves no breaker.
    pub(crate) fn is_overruled(&self) -> bool {
        self.overruled
    }

    /// Whether the attempt is one of the few that test a broken endpoint.
    pub(crate) fn is_probe(&self) -> bool {
        self.breaker.as_ref().is_some_and(breaker::Permit::is_probe)
    }

    /// The attempt came to something after `took` nanoseconds. Only the first time counts.
    ///
    /// [`Verdict::Neutral`] for one that was cancelled (a hedge's loser): its age is a lower bound. With an age of zero it
    /// says nothing at all: an attempt that was never sent.
    pub(crate) fn settle(&mut self, verdict: Verdict, took: u64, now: Tick) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let endpoint = &*self.endpoint;
        match verdict {
            Verdict::Success => endpoint.score.succeeded(took, &self.rules, now),
            Verdict::Failure => endpoint.score.failed(took, &self.rules, now),
            Verdict::Neutral => endpoint.score.out_for(took, &self.rules, now),
        }
        let Some(permit) = self.breaker.take() else { return };
        if permit.is_probe() {
            endpoint.probe_ended();
        }
        let unit = || endpoint.entropy.rng().unit();
        if let Some(transition) = endpoint.breaker.record(permit, verdict, took, now, unit) {
            if transition.to == State::Closed {
                endpoint.recovered(now);
            }
            endpoint.emit(transition);
        }
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
