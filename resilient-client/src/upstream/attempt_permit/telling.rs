//! What is told of an attempt: events, and its span.

use super::{AttemptPermit, Stage};
use crate::event::{Event, EventKinds, KnownMethod};
use crate::outcome::classify::Classified;
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

    pub(super) fn finished(&self, end: &Classified, now: Tick) {
        if !matches!(self.stage, Stage::Admitted | Stage::Leaving) {
            if let Some(span) = self.span() {
                span.ended(end.outcome, end.status);
            }
            self.emit(EventKinds::ATTEMPT_FINISHED, |method| Event::AttemptFinished {
                call: self.call,
                method,
                number: self.number,
                duration: now.since(self.started),
                outcome: end.outcome,
                status: end.status,
                unprocessed: end.repeat.is_proof(),
            });
        }
    }

    #[inline]
    pub(super) fn emit(&self, kind: EventKinds, event: impl FnOnce(KnownMethod) -> Event) {
        if let Some(heard) = self.heard {
            self.upstream.emit_of_call(heard, kind, || event(heard.method));
        }
    }

    pub(super) fn announce(&self, transition: Option<breaker::Transition>) {
        if let Some(transition) = transition {
            self.upstream.emit(|| Event::BreakerTransition(transition));
        }
    }
}
