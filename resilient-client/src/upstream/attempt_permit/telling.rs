//! What is told of an attempt: events, and its span.

use http::StatusCode;

use super::{AttemptPermit, Stage};
use crate::event::{Event, EventKinds};
use crate::outcome::classify::Classified;
use crate::outcome::report::Trigger;
use crate::policy::breaker;
use crate::telemetry::{AttemptSpan, Heard};
use crate::time::Tick;

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

    #[cold]
    fn started_of(&self, heard: Heard, trigger: Trigger) {
        self.upstream.emit_of_call(heard, EventKinds::ATTEMPT_STARTED, || Event::AttemptStarted {
            call: self.call,
            method: heard.method,
            number: self.number,
            at: self.started,
            trigger,
            endpoint: self.endpoint().map(|endpoint| endpoint.origin().clone()),
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
        if self.heard.is_some() {
            self.tell_finished(end, now);
        }
    }

    #[cold]
    fn tell_finished(&self, end: &Classified, now: Tick) {
        match (self.stage, self.span()) {
            (Stage::Launched | Stage::Sent, Some(span)) => span.ended(end.outcome, self.status),
            (Stage::Admitted | Stage::Preparing, Some(span)) => span.not_sent(),
            _ => {}
        }
        if !self.was_launched() {
            return;
        }
        let Some(heard) = self.heard else { return };
        self.upstream.emit_of_call(heard, EventKinds::ATTEMPT_FINISHED, || Event::AttemptFinished {
            call: self.call,
            method: heard.method,
            number: self.number,
            duration: now.since(self.started),
            outcome: end.outcome,
            status: self.status,
            unprocessed: end.repeat.is_proof(),
        });
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
    }
}
