//! What is told of an attempt: events, and its span.

use std::sync::Arc;

use http::StatusCode;

use super::{AttemptPermit, Stage};
use crate::event::{Event, EventKinds};
use crate::outcome::classify::Classified;
use crate::outcome::report::Trigger;
use crate::outcome::{FailureKind, Outcome, Verdict};
use crate::policy::breaker;
use crate::policy::overload::{self, Ended, UNIT_BITS};
use crate::telemetry::{AttemptSpan, Heard};
use crate::time::Tick;
use crate::upstream::endpoints::EndpointPermit;

impl AttemptPermit {
    /// Whether somebody listens to its call.
    pub(crate) fn heard_as(&mut self, heard: Option<Heard>) {
        self.heard = heard;
    }

    /// Its span, if somebody listens to those.
    pub(crate) fn traced_by(&mut self, span: Option<AttemptSpan>) {
        if span.is_some() {
            self.beside.get_or_insert_default().span = span;
        }
    }

    /// See [`traced_by`](Self::traced_by).
    #[inline]
    pub(crate) fn span(&self) -> Option<&AttemptSpan> {
        self.beside.as_ref()?.span.as_ref()
    }

    /// The transport has the attempt. It began when it was let in: the time of a hook is its own.
    #[inline]
    pub(super) fn tell_started(&self, trigger: Trigger) {
        if let Some(heard) = self.heard {
            self.started_of(heard, trigger);
        }
    }

    #[inline(never)]
    fn started_of(&self, heard: Heard, trigger: Trigger) {
        match self.upstream.only_counted(heard, EventKinds::ATTEMPT_STARTED) {
            Some(one) => one.tell(|counts| counts.attempt_started(heard.method, trigger)),
            None => self.started_for_all(heard, trigger),
        }
    }

    #[cold]
    fn started_for_all(&self, heard: Heard, trigger: Trigger) {
        let method = heard.method;
        let started = || Event::AttemptStarted {
            call: self.call,
            method,
            number: self.number,
            at: self.started,
            trigger,
            endpoint: self.endpoint().map(|endpoint| endpoint.origin().clone()),
        };
        self.upstream.count_of_call(heard, EventKinds::ATTEMPT_STARTED, started, |counts| {
            counts.attempt_started(method, trigger);
        });
    }

    /// The head has come, with this status.
    #[inline]
    pub(crate) fn has_status(&mut self, status: Option<StatusCode>) {
        self.status = status.or(self.status);
    }

    /// The status of its head, if that has come.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        self.status
    }

    #[inline]
    pub(super) fn headed(&mut self, end: &Classified, now: Tick) {
        self.has_status(end.status);
        if let Some(heard) = self.heard
            && self.upstream.wants(EventKinds::ATTEMPT_HEAD)
        {
            self.tell_head(heard, now);
        }
    }

    #[cold]
    fn tell_head(&self, heard: Heard, now: Tick) {
        self.upstream.emit_of_call(heard, EventKinds::ATTEMPT_HEAD, || Event::AttemptHead {
            call: self.call,
            method: heard.method,
            number: self.number,
            duration: now.since(self.started),
            status: self.status,
        });
    }

    #[inline]
    pub(super) fn finished(&self, end: &Classified, now: Tick) {
        if let Some(heard) = self.heard {
            self.tell_finished(heard, end, now);
        }
    }

    #[inline(never)]
    fn tell_finished(&self, heard: Heard, end: &Classified, now: Tick) {
        if let Some(span) = self.span() {
            self.span_ends(span, end);
        }
        if !self.was_launched() {
            return;
        }
        match self.upstream.only_counted(heard, EventKinds::ATTEMPT_FINISHED) {
            Some(one) => one.tell(|counts| {
                let took = now.nanos_since(self.started);
                counts.attempt_finished(heard.method, took, end.outcome, self.status);
            }),
            None => self.finished_for_all(heard, end, now),
        }
    }

    #[cold]
    fn finished_for_all(&self, heard: Heard, end: &Classified, now: Tick) {
        let (method, outcome, status) = (heard.method, end.outcome, self.status);
        let finished = || Event::AttemptFinished {
            call: self.call,
            method,
            number: self.number,
            duration: now.since(self.started),
            outcome,
            status,
            unprocessed: end.repeat.is_proof(),
        };
        self.upstream.count_of_call(heard, EventKinds::ATTEMPT_FINISHED, finished, |counts| {
            counts.attempt_finished(method, now.nanos_since(self.started), outcome, status);
        });
    }

    #[cold]
    fn span_ends(&self, span: &AttemptSpan, end: &Classified) {
        match self.stage {
            Stage::Launched | Stage::Sent => span.ended(end.outcome, self.status),
            Stage::Admitted | Stage::Preparing => span.not_sent(),
            Stage::Leaving => {}
        }
    }

    #[inline]
    pub(super) fn announce(&self, transition: Option<breaker::Transition>) {
        if let Some(transition) = transition {
            self.tell_transition(transition);
        }
    }

    #[cold]
    fn tell_transition(&self, transition: breaker::Transition) {
        self.upstream.emit(|| Event::BreakerTransition(transition));
        self.upstream.probed();
    }

    /// Until its head, or its end where the body is part of it, an attempt is in flight to an
    /// upstream that may be overloaded.
    #[inline]
    pub(super) fn tell_overload(&self, outcome: Outcome, took: u64, now: Tick) {
        // Who leaves early says nothing.
        if outcome == Outcome::Abandoned {
            return;
        }
        let allowed_nanos = u64::from(self.allowed) << UNIT_BITS;
        let sample = overload::Sample { rtt_nanos: took, allowed_nanos };
        self.upstream.tell_overload(self.endpoint().map(Arc::as_ref), self.whose.gate(), sample, now);
    }

    /// What its end tells of whether the upstream is silent.
    #[inline]
    pub(super) fn ended(&self, outcome: Outcome) -> Ended {
        match outcome {
            _ if self.stage != Stage::Sent => Ended::Unsent,
            // A head that says that there was no time for more is an answer.
            Outcome::Failure(FailureKind::Timeout) | Outcome::Abandoned if self.status.is_none() => {
                Ended::Unanswered
            }
            _ => Ended::Answered,
        }
    }
}

/// Tells its endpoint how it ended.
pub(super) fn tell_endpoint(
    endpoint: &mut EndpointPermit,
    end: &Classified,
    news: News,
    took: u64,
    now: Tick,
) {
    let Classified { outcome, verdict, status, cause, .. } = *end;
    // A 429 says nothing to the endpoint's breaker. It is quick, though, and so must not attract
    // calls.
    let verdict = if outcome == Outcome::Throttled { Verdict::Neutral } else { verdict };
    match news {
        News::Ended => {
            if status.is_some() && matches!(outcome, Outcome::Throttled | Outcome::Ignored) {
                endpoint.put_off(took, now);
            }
            endpoint.settle_caused(verdict, cause, took, now);
        }
        News::Unsent => endpoint.unsent(),
        News::Silent => endpoint.settle(Verdict::Neutral, 0, now),
    }
}

/// What an attempt's end tells its endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// How it answered, or didn't.
    Ended,
    /// Nothing: it was lost by no fault of the endpoint's.
    Silent,
    /// It was never asked.
    Unsent,
}
