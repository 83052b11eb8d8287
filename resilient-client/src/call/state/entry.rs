//! How an attempt of a call is let in by its upstream, and sent.

use std::sync::Arc;

use std::task::Context;

use std::task::Poll;

use std::task::ready;

use super::{CallState, Entry};
use crate::call::attempt;
use crate::call::attempt::RunningAttempt;
#[cfg(feature = "grpc")]
use crate::call::begin::GrpcCall;
use crate::call::exchange::{Departure, Exchange, Outbound, Target};
use crate::call::step::Room;
use crate::error::Error;
use crate::event::{Event, EventKinds, HedgeEnd};
use crate::hook;
use crate::hook::{Attempt, Hook};
use crate::outcome::call_id::CallId;
use crate::outcome::rejection::Rejection;
use crate::outcome::report::{Decline, Trigger};
use crate::policy::breaker::ForReady;
use crate::telemetry::Departing;
use crate::time;
use crate::time::Tick;
use crate::upstream::endpoints::Trial;
use crate::upstream::{Admission, Ask, AttemptPermit, Patience, Refusal};

impl<X: Exchange> CallState<X> {
    /// The attempt that is due asks the upstream to be let in.
    #[inline]
    pub(in crate::call) fn set_out(
        &mut self,
        exchange: &mut X,
        number: u32,
        trigger: Trigger,
        room: Room<'_, X>,
        cx: &mut Context<'_>,
        now: Tick,
    ) {
        let ask = Ask {
            priority: self.settings.priority,
            deadline: self.ledger.terms().deadline,
            tried: &self.tried,
            repeatable: self.ledger.has_room_for_another(now),
            patience: if trigger == Trigger::Hedge { Patience::None } else { Patience::Waits },
            // Beside an attempt in flight there is no need to.
            for_ready: match trigger {
                Trigger::Hedge => ForReady::Never,
                _ => self.ledger.terms().for_ready,
            },
            place: None,
        };
        match self.upstream.admit(ask, now) {
            Admission::Admitted(permit) => self.launch(exchange, number, trigger, permit, room, cx, now),
            Admission::Refused(why) => self.refused(number, trigger, why),
            Admission::Waits(waiting) => {
                self.ledger.waits();
                let call = self.call;
                self.emit(EventKinds::ATTEMPT_QUEUED, |_| Event::AttemptQueued {
                    call,
                    number,
                    waits_for: waiting.waits_for(now),
                });
                self.entry = Some(Box::new(Entry { number, trigger, waiting }));
            }
        }
    }

    /// Ready when the attempt that waits to be let in has been, or has been refused.
    pub(in crate::call) fn poll_entry(
        &mut self,
        exchange: &mut X,
        room: Room<'_, X>,
        cx: &mut Context<'_>,
        now: Tick,
    ) -> Poll<()> {
        let Some(entry) = &mut self.entry else { return Poll::Pending };
        let mut admitted = entry.waiting.poll(cx, now);
        if admitted.is_pending() && now >= self.names_until() {
            admitted = self.out_of_names(now);
        }
        let admitted = ready!(admitted);
        let Some(entry) = &mut self.entry else { return Poll::Pending };
        let (number, trigger) = (entry.number, entry.trigger);
        self.leave_entry(admitted.is_ok(), now);
        match admitted {
            Ok(permit) => self.launch(exchange, number, trigger, permit, room, cx, now),
            Err(why) => self.refused(number, trigger, why),
        }
        Poll::Ready(())
    }

    /// The attempt that waits to be let in waits no more, if one does.
    #[inline]
    pub(super) fn leave_entry(&mut self, admitted: bool, now: Tick) {
        if self.entry.is_some() {
            self.left_entry(admitted, now);
        }
    }

    #[cold]
    pub(super) fn left_entry(&mut self, admitted: bool, now: Tick) {
        let Some(entry) = self.entry.take() else { return };
        let since = entry.waiting.since();
        if let Some(report) = &mut self.report {
            report.waited(since, now);
        }
        let (call, number, waited) = (self.call, entry.number, now.since(since));
        let dequeued = Event::AttemptDequeued { call, number, waited, admitted };
        self.emit(EventKinds::ATTEMPT_DEQUEUED, |_| dequeued);
    }

    /// When to poll the entry at the latest.
    pub(in crate::call) fn entry_until(&self) -> Tick {
        self.entry.as_ref().map_or(Tick::NEVER, |entry| entry.waiting.until()).min(self.names_until())
    }

    /// Until when the addresses of a name are waited for: as long as for an attempt, which they
    /// would be a part of were they looked up by the transport. The question goes on for later
    /// calls.
    pub(super) fn names_until(&self) -> Tick {
        match &self.entry {
            Some(entry) if entry.waiting.is_for_names() => {
                entry.waiting.since().after_nanos(self.ledger.terms().attempt_timeout)
            }
            _ => Tick::NEVER,
        }
    }

    /// The addresses of a name have been waited for long enough.
    #[cold]
    pub(super) fn out_of_names(&self, now: Tick) -> Poll<Result<AttemptPermit, Refusal>> {
        let cause = self.entry.as_ref().and_then(|entry| entry.waiting.unresolved(now));
        Poll::Ready(Err(Refusal { rejection: Rejection::NoEndpoint, cause }))
    }

    /// The upstream doesn't let the attempt in.
    pub(super) fn refused(&mut self, number: u32, trigger: Trigger, refusal: Refusal) {
        let Refusal { rejection, cause } = refusal;
        if let (Some(cause), None) = (cause, &self.fault) {
            self.fault = Some(Error::rejected(rejection).because(cause));
        }
        let call = self.call;
        self.emit(EventKinds::REJECTED, |_| Event::Rejected { call, number, rejection });
        self.hedge_refused(number, trigger);
        self.rejection = Some(Box::new(rejection));
        if number > 1 {
            self.decline(Decline::Rejected(rejection));
        }
        // What it was granted goes back: it was never sent.
        self.give_grant_back();
        self.ledger.rejected();
    }

    /// Sends an attempt that has been let in.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "each is a thing of its own")]
    pub(super) fn launch(
        &mut self,
        exchange: &mut X,
        number: u32,
        trigger: Trigger,
        permit: AttemptPermit,
        room: Room<'_, X>,
        cx: &mut Context<'_>,
        now: Tick,
    ) {
        let mut permit = permit.of_attempt(self.call, number, self.ledger.take_grant());
        permit.heard_as(self.heard);
        if let Some(span) = &self.span {
            let endpoint = permit.endpoint().map(|endpoint| endpoint.origin());
            let departing = Departing { number, trigger, endpoint, beside: room.span() };
            let span = span.attempt(&departing, || exchange.request().map(|request| request.url));
            permit.traced_by(span);
        }
        let endpoint = permit.endpoint().map(|endpoint| {
            self.tried.push(Trial::of(endpoint.id()));
            Arc::clone(endpoint)
        });
        // The name may be one of ours, and what is behind it a stranger's.
        let told = endpoint.as_ref().is_none_or(|endpoint| {
            endpoint.is_told(|| self.core.tells(self.upstream.host(), endpoint.origin()))
        });
        let header = if self.settings.tells && told { self.core.deadline_header() } else { None };
        let until = self.ledger.would_end(now);
        permit.has_until(until, self.ledger.terms().attempt_timeout != u64::MAX);
        let outbound = Outbound {
            number,
            trigger,
            last: self.ledger.is_last(),
            until,
            deadline_header: header.cloned(),
            counts: told && self.upstream.is_told(),
            usual: until == now.after_nanos(self.plan.timeout.attempt) && !until.is_never(),
            target: endpoint
                .clone()
                .map(|endpoint| Box::new(Target { endpoint, host: self.upstream.host().cloned() })),
            headers: None,
            #[cfg(feature = "grpc")]
            grpc: self.served_until(until),
        };
        let (hook, fault) = (self.core.hook().filter(|_| self.settings.hooked), &mut self.fault);
        let Some(attempt) = depart(exchange, self.call, hook, outbound, permit, fault, cx, now) else {
            // The body may have been outgrown since the ledger decided: an attempt that has failed
            // may still be read.
            if number > 1 && !exchange.is_replayable() {
                self.decline(Decline::BodyNotKept);
            }
            self.hedge_refused(number, trigger);
            self.ledger.rejected();
            return;
        };
        room.take_in(attempt);
        self.ledger.launched(now);
        if let Some(report) = &mut self.report {
            let origin = endpoint.as_ref().map(|endpoint| endpoint.origin().clone());
            report.launched(number, trigger, origin, now);
        }
    }

    /// Until when the server of a gRPC call is told to be at work on an attempt that is waited for
    /// until then; `None` for what isn't gRPC's.
    ///
    /// That is the call's time, and not the attempt's: `grpc-timeout` bounds a stream to its last
    /// message, and the attempt timeout ends with its head. What we stop to wait for is cancelled,
    /// of which servers hear. A stream that may take longer than the policy's total has as long as
    /// its caller says.
    #[cfg(feature = "grpc")]
    fn served_until(&self, until: Tick) -> Option<Tick> {
        match self.settings.grpc {
            GrpcCall::No => None,
            GrpcCall::Untold => Some(Tick::NEVER),
            // The body is part of the attempt.
            GrpcCall::Told if self.settings.buffer.is_some() => Some(until),
            GrpcCall::Told if self.settings.streaming => Some(self.streams_until()),
            GrpcCall::Told => Some(self.ledger.terms().deadline),
        }
    }

    /// A hedge was due, and isn't sent.
    fn hedge_refused(&self, number: u32, trigger: Trigger) {
        if trigger == Trigger::Hedge {
            let refused = Event::HedgeEnded { call: self.call, number, end: HedgeEnd::Rejected };
            self.emit(EventKinds::HEDGE_ENDED, |_| refused);
        }
    }
}

/// Sends an attempt off, by way of the hook if there is one; `None` with the fault when the hook
/// refuses.
#[inline]
#[allow(clippy::too_many_arguments, reason = "each is a thing of its own")]
pub(super) fn depart<X: Exchange>(
    exchange: &mut X,
    call: CallId,
    hook: Option<&Hook>,
    outbound: Outbound,
    permit: AttemptPermit,
    fault: &mut Option<Error>,
    cx: &mut Context<'_>,
    now: Tick,
) -> Option<RunningAttempt<X>> {
    let number = outbound.number;
    let Some(hook) = hook else { return hand_over(exchange, outbound, permit, cx, now) };
    let attempt = Attempt { call, number, ..exchange.request()? };
    // Whatever tracer there is, the hook may ask it for the attempt's headers.
    let prepared = permit.span().map_or_else(
        || hook.prepare(&attempt),
        |span| {
            let _entered = span.enter();
            hook.prepare(&attempt)
        },
    );
    let prepared = match prepared {
        hook::State::Now(Ok(headers)) => hook::State::Now(hook::fitting(headers, Some(attempt.headers))),
        prepared => prepared,
    };
    match prepared {
        hook::State::Now(Ok(headers)) => {
            let now = time::now();
            if now >= outbound.until {
                // The hook has used up the attempt's time: there is nothing to send any more.
                return Some(RunningAttempt::overdue(permit, number));
            }
            let outbound = Outbound { headers: Some(Box::new(headers)), ..outbound };
            hand_over_prepared(exchange, outbound, permit, cx, now)
        }
        hook::State::Now(Err(error)) => {
            *fault = Some(attempt::unprepared(error));
            None
        }
        hook::State::Later(later) => Some(RunningAttempt::preparing(later, outbound, permit)),
    }
}

/// [`hand_over`], once for all that a hook has prepared.
#[inline(never)]
fn hand_over_prepared<X: Exchange>(
    exchange: &mut X,
    outbound: Outbound,
    permit: AttemptPermit,
    cx: &mut Context<'_>,
    now: Tick,
) -> Option<RunningAttempt<X>> {
    hand_over(exchange, outbound, permit, cx, now)
}

/// Hands an attempt to the transport; `None` when there is nothing left to send.
#[allow(clippy::inline_always, reason = "an attempt is large, and is made where it stays")]
#[inline(always)]
fn hand_over<X: Exchange>(
    exchange: &mut X,
    outbound: Outbound,
    mut permit: AttemptPermit,
    cx: &mut Context<'_>,
    now: Tick,
) -> Option<RunningAttempt<X>> {
    let (number, trigger) = (outbound.number, outbound.trigger);
    permit.leaves();
    let departure = Departure { upstream: permit.upstream(), cx, now };
    let future = match permit.span() {
        None => exchange.launch(outbound, departure),
        Some(span) => {
            let _entered = span.enter();
            exchange.launch(outbound, departure)
        }
    };
    let Some(future) = future else {
        permit.stays();
        return None;
    };
    Some(RunningAttempt::launched(future, permit, number, trigger))
}
