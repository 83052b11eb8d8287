//! What the machines of an upstream learn from its attempts.

use std::sync::Arc;

use std::time::Duration;

use http::Method;

use super::Upstream;
use super::endpoints::Endpoint;
use super::host::Part;
use crate::event::{Counts, Event, EventKinds};
use crate::outcome::classify::Classified;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::concurrency;
use crate::policy::concurrency::Sample;
use crate::policy::overload;
use crate::policy::plan::Modes;
use crate::telemetry::{Heard, OnlyOne};
use crate::time::Tick;

impl Upstream {
    #[inline]
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        self.events.emit(&self.name, event);
    }

    /// The same of what happened to one of its calls.
    #[inline]
    pub(crate) fn emit_of_call(&self, heard: Heard, kind: EventKinds, event: impl FnOnce() -> Event) {
        self.events.emit_of_call(heard, kind, &self.name, event);
    }

    /// The one to be told in values, where that is all there is to do.
    #[inline]
    pub(crate) fn only_counted(&self, heard: Heard, kind: EventKinds) -> Option<OnlyOne<'_>> {
        self.events.only_counted(heard, kind)
    }

    /// Tells of what every call tells, which whoever only counts is told in values.
    pub(crate) fn count_of_call(
        &self,
        heard: Heard,
        kind: EventKinds,
        event: impl FnOnce() -> Event,
        count: impl Fn(&dyn Counts),
    ) {
        self.events.count_of_call(heard, kind, &self.name, event, count);
    }

    /// Whether somebody wants to hear of one of these kinds.
    #[inline]
    pub(crate) fn wants(&self, kinds: EventKinds) -> bool {
        self.events.wants(kinds)
    }

    /// Whether anybody listens to what happens to a call that begins.
    #[inline]
    pub(crate) fn heard(&self, method: &Method) -> Option<Heard> {
        self.events.heard(method)
    }

    /// Whether the upstream took an attempt on, however that ended.
    pub(super) fn tell_throttle(&self, end: &Classified, now: Tick) {
        use FailureKind::{Body, BodyIdle, Status};
        let throttle = self.throttle();
        if !throttle.is_on() {
            return;
        }
        match end.outcome {
            Outcome::Ignored | Outcome::Abandoned => {}
            Outcome::Success | Outcome::Failure(Body | BodyIdle) => throttle.accepted(now),
            Outcome::Failure(Status) if !end.refuses_load => throttle.accepted(now),
            Outcome::Throttled | Outcome::Failure(_) => throttle.refused(now),
        }
    }

    /// An attempt that found `in_flight` others and itself in flight took `nanos` to come to
    /// something; `silent` when that says nothing of it.
    pub(super) fn tell_concurrency(
        &self,
        in_flight: u32,
        nanos: u64,
        end: &Classified,
        silent: bool,
        now: Tick,
    ) {
        use FailureKind::{Body, BodyIdle, Redirect, Status};
        let Some(concurrency) = self.adaptive() else { return };
        let outcome = match end.outcome {
            _ if silent => concurrency::Outcome::Ignored,
            Outcome::Ignored | Outcome::Abandoned | Outcome::Failure(Redirect) => {
                concurrency::Outcome::Ignored
            }
            Outcome::Success | Outcome::Failure(Body | BodyIdle) => concurrency::Outcome::Completed,
            Outcome::Failure(Status) if !end.refuses_load => concurrency::Outcome::Completed,
            Outcome::Throttled | Outcome::Failure(_) => concurrency::Outcome::Dropped,
        };
        if let Some(limit) = concurrency.record(Sample { rtt_nanos: nanos, in_flight, outcome }, now) {
            self.whole_unless(Modes::OWN_LIMIT).install_limit(|| now);
            self.emit(|| Event::LimitChanged { limit });
        }
    }

    /// An attempt that had `allowed` nanoseconds took `nanos` to come to something.
    pub(super) fn tell_overload(
        &self,
        endpoint: Option<&Endpoint>,
        gate: Part,
        sample: overload::Sample,
        now: Tick,
    ) {
        match endpoint {
            Some(endpoint) => endpoint.tell_overload(sample, now),
            None => {
                if let Some(change) = self.overload(gate).record(sample, now) {
                    self.overload_changed(gate, change);
                }
            }
        }
    }

    #[cold]
    pub(super) fn overload_changed(&self, gate: Part, change: overload::Change) {
        if change.from.is_some() != change.to.is_some() {
            self.behind_gate(gate).emit(|| Event::OverloadLimit { limit: change.to });
        }
        self.line(gate).wake();
    }

    /// An attempt took `nanos` to its answer, or had been out that long when it was cancelled.
    pub(crate) fn took(&self, nanos: u64, now: Tick) {
        self.latency.record(nanos, now);
    }

    /// An attempt that nobody waits for any more had been out that long. It would have taken longer
    /// still: that is news when it is more than usual. Less says nothing, since it was the caller
    /// who was in a hurry.
    pub(crate) fn takes_longer_than(&self, nanos: u64, now: Tick) {
        if self.usual(now).is_some_and(|usual| nanos > usual) {
            self.latency.record(nanos, now);
        }
    }

    /// The server asked to be left alone: everybody is held back, unless the rest of its answers
    /// speak against that. Of several endpoints only the one that said so is meant.
    pub(crate) fn hold_back(&self, endpoint: Option<&Arc<Endpoint>>, asked: Duration, now: Tick) {
        let held = match endpoint {
            Some(endpoint) => endpoint.asked_for_time(asked, now),
            None => self.retry_after_hold().asked(asked, now).inspect(|&duration| {
                self.emit(|| Event::HeldBack { duration });
            }),
        };
        if held.is_some() {
            self.hold_begins().notify_waiters();
        }
    }

    /// An attempt that was a probe has ended, or a breaker has changed its state: wakes the calls
    /// that wait for one.
    #[cold]
    pub(super) fn probed(&self) {
        self.ready.rouse();
    }
}
