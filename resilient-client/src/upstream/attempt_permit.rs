//! An attempt's place in its upstream's machines, given back when it is dropped, whatever happens.

mod late;
mod telling;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use self::telling::News;
use super::endpoints::{Endpoint, EndpointPermit};
use super::{Part, Upstream, Whose};
use crate::outcome::Verdict;
use crate::outcome::call_id::CallId;
use crate::outcome::classify::{Classified, Repeat};
use crate::outcome::report::Trigger;
use crate::outcome::{FailureCause, FailureKind, Outcome};
use crate::policy::breaker::{self, BodyPermit, BodyResult, CallResult};
use crate::policy::grant::Grant;
use crate::policy::overload::UNIT_BITS;
use crate::telemetry::{AttemptSpan, Heard};
use crate::time::{self, Tick, nanos};

/// One attempt's bulkhead slot, and its right to report how it ended.
///
/// It speaks twice. [`head`](Self::head) says what a head means the moment it comes: that decides
/// probes, and all that the machines learn from a success. [`body`](Self::body) may add later that
/// the body failed. An attempt that has no body to come says both at once, with
/// [`settle`](Self::settle). The slot is held until the drop, so that a head can be counted at once
/// while its body still occupies a connection.
///
/// Dropped without a word, an attempt that had been out for longer than `abandoned_after` counts as
/// a failure: that is how a timeout the caller put *around* the call reaches the breaker. A younger
/// one counts as nothing.
#[derive(Debug)]
pub(crate) struct AttemptPermit {
    upstream: Arc<Upstream>,
    held: Held,
    /// Boxed, because most have nothing there, and a permit moves with every response.
    beside: Option<Box<Beside>>,
    /// What an attempt beyond the first was granted: given back when it never sets out, its token
    /// also when it succeeds.
    grant: Option<Grant>,
    call: CallId,
    /// `None` while nobody listens.
    heard: Option<Heard>,
    /// That of its head, once that has come: it stays known whatever becomes of the body.
    status: Option<StatusCode>,
    number: u32,
    /// Attempts in flight when it was let in, itself among them; zero while nobody asks.
    in_flight: u32,
    /// The time it has, in units of 65.5 µs; zero when nothing bounds it.
    allowed: u32,
    /// Whose bulkhead it has its slot in, and whose overload limit its place, unless that is its
    /// endpoint's.
    whose: Whose,
    started: Tick,
    /// When its answer came, as far as the call waited for it; what a slow reader adds isn't the
    /// server's. Never until then.
    answered: Tick,
    stage: Stage,
    said: Said,
    /// The call is over with this attempt.
    ends_call: bool,
}

/// What few attempts have.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Where it goes, if the upstream's name stands for several endpoints.
    pub(super) endpoint: Option<EndpointPermit>,
    /// Its span, which lasts as long as it, if somebody listens to those.
    span: Option<AttemptSpan>,
}

impl Beside {
    pub(super) fn of(endpoint: EndpointPermit) -> Self {
        Self { endpoint: Some(endpoint), span: None }
    }
}

/// Where it goes, if that is an endpoint.
fn at(beside: &mut Option<Box<Beside>>) -> Option<&mut EndpointPermit> {
    beside.as_mut()?.endpoint.as_mut()
}

/// The upstream's own breaker's leave.
#[derive(Debug)]
enum Held {
    Head(breaker::Permit),
    Body(BodyPermit),
    Nothing,
}

/// What the attempt has said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// Its head was good; its body hasn't ended.
    Head,
    Everything,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No event has been sent of it.
    Admitted,
    /// No event has been sent of it, and it is being handed to the transport, which may send it at
    /// once, or panic.
    Leaving,
    /// A hook is at it, or has held it back. Nothing has been sent, no event either, and what
    /// becomes of it says nothing about the server.
    Preparing,
    /// The transport has it, and nobody has polled that yet: nothing has been sent.
    Launched,
    /// On its way.
    Sent,
}

impl AttemptPermit {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        breaker: breaker::Permit,
        beside: Option<Box<Beside>>,
        slot: Part,
        gate: Part,
        now: Tick,
    ) -> Self {
        let in_flight = upstream.adaptive().map_or(0, |_| upstream.bulkhead(slot).in_use());
        Self {
            upstream,
            in_flight,
            allowed: 0,
            whose: Whose::new(slot, gate),
            held: Held::Head(breaker),
            beside,
            grant: None,
            call: CallId::NONE,
            heard: None,
            status: None,
            number: 1,
            started: now,
            answered: Tick::NEVER,
            stage: Stage::Admitted,
            said: Said::Nothing,
            ends_call: false,
        }
    }

    /// The place of attempt `number` of `call`, with what that was granted.
    pub(crate) fn of_attempt(mut self, call: CallId, number: u32, grant: Option<Grant>) -> Self {
        (self.call, self.number, self.grant) = (call, number, grant);
        self
    }

    /// What the attempt was granted, for the one that takes its place.
    pub(crate) fn take_grant(&mut self) -> Option<Grant> {
        self.grant.take()
    }

    /// Where it goes; `None` when the upstream is all there is.
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.beside.as_ref()?.endpoint.as_ref().map(EndpointPermit::endpoint)
    }

    /// Whether where it went has answered others within so many nanoseconds, or up to a second
    /// more.
    pub(crate) fn has_served_within(&self, nanos: u64, now: Tick) -> bool {
        self.upstream.has_served_within(self.endpoint().map(|endpoint| &**endpoint), nanos, now)
    }

    /// The upstream it is a place in.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// 1 for the first.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// It has time until then. What isn't bounded says nothing of how many can be answered in time.
    pub(crate) fn has_until(&mut self, until: Tick, bounded: bool) {
        let units = (until.nanos_since(self.started) >> UNIT_BITS).max(1);
        self.allowed = if bounded { u32::try_from(units).unwrap_or(u32::MAX) } else { 0 };
    }

    /// The attempt is being handed to the transport: from here on the server may know of it.
    pub(crate) fn leaves(&mut self) {
        self.stage = Stage::Leaving;
    }

    /// The transport has nothing to send.
    pub(crate) fn stays(&mut self) {
        self.stage = Stage::Admitted;
    }

    /// A hook is at it, or has held it back.
    pub(crate) fn prepares(&mut self) {
        self.stage = Stage::Preparing;
    }

    /// The transport has the attempt, and is at work on it if it is `eager`.
    #[inline]
    pub(crate) fn launched(&mut self, trigger: Trigger, eager: bool) {
        self.stage = if eager { Stage::Sent } else { Stage::Launched };
        self.tell_started(trigger);
    }

    /// Whether the transport has had it.
    pub(crate) fn was_launched(&self) -> bool {
        matches!(self.stage, Stage::Launched | Stage::Sent)
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

    /// A good head has come, and its body is still to come. Only the first word about a head
    /// counts.
    #[inline]
    pub(crate) fn head(&mut self, end: &Classified, now: Tick) {
        if self.said == Said::Nothing {
            self.said = Said::Head;
            let transition = self.say_head(end, now);
            self.headed(end, now);
            self.announce(transition);
        }
    }

    /// Whether its head was good and its body's end is still of interest. A head that failed has
    /// said what there is to say.
    pub(crate) fn awaits_body(&self) -> bool {
        self.said == Said::Head
    }

    /// What became of the body of an answer whose head was good: [`Verdict::Failure`] with its
    /// kind, or nothing the breaker should know.
    #[inline]
    pub(crate) fn body(&mut self, verdict: Verdict, end: &Classified, now: Tick) {
        self.body_after(Duration::ZERO, verdict, end, now);
    }

    /// The same of a body that was `waited` for, in the end, in vain.
    #[inline]
    pub(crate) fn body_after(&mut self, waited: Duration, verdict: Verdict, end: &Classified, now: Tick) {
        if self.said != Said::Head {
            return;
        }
        self.said = Said::Everything;
        let transition = self.say_body(verdict, end.cause, nanos(waited), now);
        self.finished(end, now);
        self.announce(transition);
    }

    /// What became of an attempt as a whole: it brought no answer, one that isn't the call's, or
    /// one whose body has been read. Only the first word counts.
    pub(crate) fn settle(&mut self, end: &Classified, now: Tick) {
        if self.said != Said::Nothing {
            return;
        }
        self.said = Said::Everything;
        self.has_status(end.status);
        let transition = self.say_head(end, now);
        if end.is_success() {
            // The body was part of the attempt, and has ended as well as the head began.
            let _ = self.say_body(Verdict::Success, FailureCause::Own, 0, now);
        }
        self.finished(end, now);
        self.announce(transition);
    }

    /// Tells every machine what the head, or its absence, means.
    #[inline]
    fn say_head(&mut self, end: &Classified, now: Tick) -> Option<breaker::Transition> {
        let Classified { outcome, verdict, cause, repeat, .. } = *end;
        let upstream = &*self.upstream;
        match self.grant.take() {
            Some(grant) if !matches!(self.stage, Stage::Leaving | Stage::Sent) => upstream.give_back(grant),
            Some(grant) if outcome == Outcome::Success => upstream.budget().refund(grant.token),
            // Nobody has seen those before it, if there were any.
            None if outcome == Outcome::Success => upstream.budget().deposit(),
            _ => {}
        }
        if outcome == Outcome::Success {
            upstream.retry_after_hold().succeeded(now);
        }
        // It was never sent, or was lost by no fault of the server's, or was a redirect that leads
        // nowhere.
        let silent = verdict == Verdict::Neutral && matches!(outcome, Outcome::Failure(_));
        // A connection out of the pool that was no more, or a hook that failed: whoever comes next
        // may ask.
        let never_sent =
            verdict == Verdict::Neutral && (self.stage != Stage::Sent || repeat == Repeat::Unsent);
        if !silent {
            upstream.tell_throttle(end, now);
        }
        let took = self.answered.min(now).nanos_since(self.started);
        if self.stage == Stage::Sent && self.in_flight != 0 {
            upstream.tell_concurrency(self.in_flight, took, end, silent, now);
        }
        if self.stage == Stage::Sent && self.allowed != 0 && !silent {
            self.tell_overload(outcome, took, now);
        }
        let ended = self.ended(outcome);
        if self.endpoint().is_none() && upstream.overload(self.whose.gate()).release(ended) {
            upstream.given_back(self.whose.gate(), ended, now);
        }
        if let Some(endpoint) = at(&mut self.beside) {
            let news = match (self.stage == Stage::Sent && !silent, never_sent) {
                (true, _) => News::Ended,
                (false, true) => News::Unsent,
                (false, false) => News::Silent,
            };
            endpoint.ended(ended);
            telling::tell_endpoint(endpoint, end, news, took, now);
        }
        let Held::Head(permit) = std::mem::replace(&mut self.held, Held::Nothing) else { return None };
        let probes = permit.is_probe() || at(&mut self.beside).is_some_and(|endpoint| endpoint.probed());
        if verdict == Verdict::Success {
            self.held = Held::Body(permit.body());
        }
        let transition = if never_sent {
            upstream.breaker.release(permit);
            None
        } else {
            let unit = || upstream.entropy.rng().unit();
            let result = CallResult::from_nanos(verdict, took).caused_by(cause);
            upstream.breaker.record(permit, result, now, unit)
        };
        if probes {
            upstream.probed();
        }
        transition
    }

    /// Tells those that judge bodies.
    #[inline]
    fn say_body(
        &mut self,
        verdict: Verdict,
        cause: FailureCause,
        waited: u64,
        now: Tick,
    ) -> Option<breaker::Transition> {
        if at(&mut self.beside).is_some_and(|endpoint| endpoint.settle_body(verdict, cause, waited, now)) {
            self.upstream.probed();
        }
        let Held::Body(permit) = std::mem::replace(&mut self.held, Held::Nothing) else { return None };
        let upstream = &*self.upstream;
        let (at, unit) = (self.answered.min(now), || upstream.entropy.rng().unit());
        upstream.breaker.record_body(permit, BodyResult::new(verdict, at).caused_by(cause), now, unit)
    }

    /// When the attempt was admitted.
    pub(crate) fn started(&self) -> Tick {
        self.started
    }
}

impl Drop for AttemptPermit {
    fn drop(&mut self) {
        match self.said {
            Said::Nothing => {
                let now = time::now();
                self.abandon(FailureKind::Timeout, FailureCause::Own, now.since(self.started), u64::MAX, now);
            }
            // Nobody wanted the body.
            Said::Head => self.body(Verdict::Neutral, &Classified::ABANDONED, time::now()),
            Said::Everything => {}
        }
        self.upstream.release(self.whose.slot(), time::now);
        if self.ends_call {
            self.upstream.leave();
        }
    }
}
