//! What a call knows, apart from its futures: it lets attempts in, sends them off, and says what follows each.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;

use super::body::Guard;
use super::core::Core;
use super::flight::{self, Brought, Flight, View};
use super::hook::{self, Attempt, Hook};
use super::ledger::{Ledger, Next, Terms, World};
use super::reading::Aside;
use super::report::{CallReport, Decline, Trigger};
use super::{Finished, Landed};
use crate::error::{Error, ErrorKind};
use crate::event::{CallEnd, CallId, Event, HedgeEnd};
use crate::outcome::Outcome;
use crate::outcome::classify::Classified;
use crate::policy::Plan;
use crate::policy::priority::Priority;
use crate::policy::retry;
use crate::rng::Rng;
use crate::time::{self, Tick};
use crate::transport::{Departure, Exchange, KeptBody, Outbound, Target};
use crate::upstream::endpoints::Trial;
use crate::upstream::{Admission, Ask, Entered, Permit, Refusal, Rejection, Tried, Upstream, Waiting};

/// How a call treats what its attempts bring, as far as it isn't in its plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    /// The longest body to read inside an attempt; `None` to hand bodies over unread.
    pub(super) buffer: Option<usize>,
    /// What the call is worth.
    pub(super) priority: Priority,
    /// Whether the body may take longer than the call's total.
    pub(super) streaming: bool,
    /// Whether the server is told how long its answer is waited for.
    pub(super) tells: bool,
    /// How long, in microseconds, an attempt that the deadline cuts short must have been out to be held against the server.
    pub(super) chance: u32,
    /// The call has less time than an attempt may take, because whoever waits for its caller has no more.
    pub(super) hurried: bool,
}

/// With less than this, in nanoseconds, nobody's deadline says anything about a server.
const LEAST_CHANCE: u64 = 100_000_000;
/// A deadline that cuts an attempt short within so many times what attempts usually take was too short.
const USUAL_TIMES: u64 = 3;

/// How long an attempt must have been out, in microseconds, to be held against the server when the call's deadline cuts it
/// short, and whether the call is hurried: `left` is the time it has, `attempt` what it gives an attempt, in nanoseconds.
///
/// Half of an attempt's time is a chance. A caller's deadline that leaves less than an attempt's time must not hide a
/// server that hangs, so then half of what is left is one; but hardly any time is none.
pub(super) fn chance(left: u64, attempt: u64) -> (u32, bool) {
    let hurried = left < attempt;
    let chance = if hurried { (left / 2).max(LEAST_CHANCE).min(attempt / 2) } else { attempt / 2 };
    (u32::try_from(chance / 1000).unwrap_or(u32::MAX), hurried)
}

/// An attempt that waits to be let in.
struct Entry {
    number: u32,
    trigger: Trigger,
    waiting: Box<Waiting>,
}

/// See the [module docs](self). Dropped, it gives back what was granted to attempts that never set out.
pub(super) struct Desk<X: Exchange> {
    pub(super) ledger: Ledger,
    core: Arc<Core>,
    plan: Arc<Plan>,
    ways: Ways,
    /// `None` once the call has its result.
    report: Option<CallReport>,
    call: CallId,
    /// Whether somebody listened when the call began. Asked once, so that whoever hears of it hears all of it.
    heard: bool,
    // Boxed, all of them: few calls have any, and every call is moved with the room for it.
    entry: Option<Box<Entry>>,
    /// Where its attempts went.
    tried: Tried,
    /// The last real response, being set aside or set aside.
    aside: Option<Box<Aside<X>>>,
    kept: Option<Box<(X::Head, KeptBody)>>,
    /// Its status.
    kept_status: Option<StatusCode>,
    /// How the last attempt without a response failed, or was refused.
    fault: Option<Error>,
    rejection: Option<Box<Rejection>>,
    /// Left last, when nothing of the call is in it any more.
    upstream: Entered,
}

impl<X: Exchange> Desk<X> {
    #[inline]
    pub(super) fn new(
        core: Arc<Core>,
        plan: Arc<Plan>,
        upstream: Entered,
        terms: Terms,
        ways: Ways,
        now: Tick,
    ) -> Self {
        let (call, policy_version) = (CallId::next(), plan.version);
        let heard = upstream.heard();
        upstream.emit(|| Event::CallStarted { call, at: now, policy_version });
        Self {
            heard,
            ledger: Ledger::new(terms, now),
            report: Some(CallReport::new(call, Arc::clone(upstream.name()), policy_version, now)),
            call,
            core,
            plan,
            ways,
            entry: None,
            tried: Tried::new(),
            aside: None,
            kept: None,
            kept_status: None,
            fault: None,
            rejection: None,
            upstream,
        }
    }

    /// Tells of something that happened to this call, if anybody listens.
    #[inline]
    fn emit(&self, event: impl FnOnce() -> Event) {
        if self.heard {
            self.upstream.emit(event);
        }
    }

    /// How the flights of this call look at what they bring.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        let body_idle = self.plan.timeout.body_idle;
        // The attempt's own timer is there already: another is needed only if it could fire first.
        let body_idle = if body_idle < self.ledger.terms().attempt_timeout { body_idle } else { u64::MAX };
        let classifier = self.plan.classifier.as_ref();
        View { classifier, buffer: self.ways.buffer, body_idle }
    }

    /// Reads on in an answer that is being set aside: ready when that is done.
    pub(super) fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(aside) = &mut self.aside else { return Poll::Pending };
        let cut = ready!(aside.poll(cx));
        self.kept = self.aside.take().map(|aside| Box::new(aside.finish(cut)));
        Poll::Ready(())
    }

    /// Until when an answer may take to be set aside, if one is.
    pub(super) fn patience(&self) -> Option<Tick> {
        self.aside.as_ref().map(|aside| aside.until())
    }

    /// Sets an answer aside as it is.
    pub(super) fn lose_patience(&mut self) {
        self.kept = self.aside.take().map(|aside| Box::new(aside.finish(true)));
    }

    /// Whether nothing but an attempt in flight, or time, can bring this call on.
    pub(super) fn is_quiet(&self) -> bool {
        self.entry.is_none() && self.aside.is_none()
    }

    /// The attempt that is due asks the upstream to be let in.
    #[inline]
    pub(super) fn set_out(
        &mut self,
        exchange: &mut X,
        number: u32,
        trigger: Trigger,
        cx: &mut Context<'_>,
        now: Tick,
    ) -> Option<Flight<X>> {
        let ask = Ask {
            priority: self.ways.priority,
            deadline: self.ledger.terms().deadline,
            tried: &self.tried,
            repeatable: self.ledger.has_room_for_another(now),
            waits: trigger != Trigger::Hedge,
            // Beside an attempt in flight there is no need to.
            waits_for_ready: self.ledger.terms().waits_for_ready && trigger != Trigger::Hedge,
            place: None,
        };
        match self.upstream.admit(ask, now) {
            Admission::Admitted(permit) => return self.launch(exchange, number, trigger, permit, cx, now),
            Admission::Refused(why) => self.refused(number, trigger, why),
            Admission::Waits(waiting) => {
                self.ledger.waits();
                self.emit(|| Event::AttemptQueued { call: self.call, number });
                self.entry = Some(Box::new(Entry { number, trigger, waiting }));
            }
        }
        None
    }

    /// Ready when the attempt that waits to be let in has been, or has been refused.
    pub(super) fn poll_entry(
        &mut self,
        exchange: &mut X,
        cx: &mut Context<'_>,
        now: Tick,
    ) -> Poll<Option<Flight<X>>> {
        let Some(entry) = &mut self.entry else { return Poll::Pending };
        let mut admitted = entry.waiting.poll(cx, now);
        if admitted.is_pending() && now >= self.names_until() {
            admitted = self.out_of_names(now);
        }
        let admitted = ready!(admitted);
        let Some(entry) = &mut self.entry else { return Poll::Pending };
        let (number, trigger) = (entry.number, entry.trigger);
        self.leave_entry(admitted.is_ok(), now);
        Poll::Ready(match admitted {
            Ok(permit) => self.launch(exchange, number, trigger, permit, cx, now),
            Err(why) => {
                self.refused(number, trigger, why);
                None
            }
        })
    }

    /// The attempt that waits to be let in waits no more, if one does.
    #[inline]
    fn leave_entry(&mut self, admitted: bool, now: Tick) {
        if self.entry.is_some() {
            self.left_entry(admitted, now);
        }
    }

    #[cold]
    fn left_entry(&mut self, admitted: bool, now: Tick) {
        let Some(entry) = self.entry.take() else { return };
        let since = entry.waiting.since();
        if let Some(report) = &mut self.report {
            report.waited(since, now);
        }
        let (call, number, waited) = (self.call, entry.number, now.since(since));
        self.emit(|| Event::AttemptDequeued { call, number, waited, admitted });
    }

    /// When to poll the entry at the latest.
    pub(super) fn entry_until(&self) -> Tick {
        self.entry.as_ref().map_or(Tick::NEVER, |entry| entry.waiting.until()).min(self.names_until())
    }

    /// Until when the addresses of a name are waited for: as long as for an attempt, which they would be a
    /// part of were they looked up by the transport. The question goes on for later calls.
    fn names_until(&self) -> Tick {
        match &self.entry {
            Some(entry) if entry.waiting.is_for_names() => {
                entry.waiting.since().after_nanos(self.ledger.terms().attempt_timeout)
            }
            _ => Tick::NEVER,
        }
    }

    /// The addresses of a name have been waited for long enough.
    #[cold]
    fn out_of_names(&self, now: Tick) -> Poll<Result<Permit, Refusal>> {
        let cause = self.entry.as_ref().and_then(|entry| entry.waiting.unresolved(now));
        Poll::Ready(Err(Refusal { rejection: Rejection::NoEndpoint, cause }))
    }

    /// The upstream doesn't let the attempt in.
    fn refused(&mut self, number: u32, trigger: Trigger, refusal: Refusal) {
        let Refusal { rejection, cause } = refusal;
        if let (Some(cause), None) = (cause, &self.fault) {
            self.fault = Some(Error::rejected(rejection).because(cause));
        }
        let call = self.call;
        self.emit(|| Event::Rejected { call, number, rejection });
        if trigger == Trigger::Hedge {
            self.emit(|| Event::HedgeEnded { call, number, end: HedgeEnd::Rejected });
        }
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
    fn launch(
        &mut self,
        exchange: &mut X,
        number: u32,
        trigger: Trigger,
        permit: Permit,
        cx: &mut Context<'_>,
        now: Tick,
    ) -> Option<Flight<X>> {
        let mut permit = permit.of_attempt(
            if self.heard { self.call } else { CallId::NONE },
            number,
            self.ledger.take_grant(),
        );
        let endpoint = permit.endpoint().map(|endpoint| {
            self.tried.push(Trial::of(endpoint.id()));
            Arc::clone(endpoint)
        });
        let header = if self.ways.tells { self.core.deadline_header() } else { None };
        let until = self.ledger.would_end(now);
        permit.has_until(until, self.ledger.terms().attempt_timeout != u64::MAX);
        let outbound = Outbound {
            number,
            last: self.ledger.is_last(),
            until,
            deadline_header: header.cloned(),
            usual: until == now.after_nanos(self.plan.timeout.attempt) && !until.is_never(),
            target: endpoint
                .clone()
                .map(|endpoint| Box::new(Target { endpoint, host: self.upstream.host().cloned() })),
            headers: None,
        };
        let (hook, fault) = (self.core.hook(), &mut self.fault);
        let Some(flight) = depart(exchange, hook, outbound, permit, fault, cx, now) else {
            // The body may have been outgrown since the ledger decided: an attempt that has failed may still be read.
            if number > 1 && !exchange.is_replayable() {
                self.decline(Decline::BodyNotKept);
            }
            if trigger == Trigger::Hedge {
                self.emit(|| Event::HedgeEnded { call: self.call, number, end: HedgeEnd::Rejected });
            }
            self.ledger.rejected();
            return None;
        };
        self.ledger.launched(now);
        let origin = || endpoint.as_ref().map(|endpoint| endpoint.origin().clone());
        if let Some(report) = &mut self.report {
            report.launched(number, trigger, origin(), now);
        }
        self.emit(|| Event::AttemptStarted { call: self.call, number, at: now, trigger, endpoint: origin() });
        Some(flight)
    }

    /// Asks for a hedge; the ledger makes it due, or says why not.
    pub(super) fn hedge(&mut self, exchange: &X, now: Tick) {
        let mut rng = self.upstream.entropy().rng();
        let world = world(&self.upstream, &self.plan, &self.tried, exchange.is_replayable(), now, &mut rng);
        if let Err(why) = self.ledger.hedge(now, &world) {
            self.decline(why);
        }
    }

    /// An attempt ended. With its permit and what it brought when that is the call's result; else another attempt
    /// follows or is in flight, and what this one brought is kept in case nothing better comes.
    pub(super) fn landed(&mut self, exchange: &X, landed: Landed<X>, now: Tick) -> Option<Landed<X>> {
        let Landed { number, classified, .. } = landed;
        self.settled(number, classified.outcome, classified.status, now);
        if classified.is_success() {
            self.hedge_ended(number, HedgeEnd::Won);
            return Some(landed);
        }
        self.hedge_ended(number, HedgeEnd::Failed);
        self.failed(exchange, landed, now)
    }

    /// The attempt that ended is the only one there was, and has the answer.
    #[inline]
    pub(super) fn succeeded(
        &mut self,
        exchange: &mut X,
        landed: Landed<X>,
        now: Tick,
    ) -> Option<Finished<X>> {
        self.settled(landed.number, landed.classified.outcome, landed.classified.status, now);
        self.hedge_ended(landed.number, HedgeEnd::Won);
        self.answer(exchange, landed, now)
    }

    #[cold]
    fn failed(&mut self, exchange: &X, mut landed: Landed<X>, now: Tick) -> Option<Landed<X>> {
        let Landed { number, classified, .. } = landed;
        let outcome = classified.outcome;
        let permit = landed.permit.as_mut()?;
        // What an attempt in its place takes over, if there is one.
        let grant = if permit.is_sent() { permit.take_grant() } else { None };
        permit.settle(&classified, now);
        if classified.repeat.is_proof()
            && let Some(report) = &mut self.report
        {
            report.unprocessed();
        }
        if let Some(asked) = holds_everyone_back(&classified, self.ledger.terms().retry) {
            self.upstream.hold_back(permit.endpoint(), asked, now);
        }
        if let Some(asked) = self.ledger.asked(&classified) {
            if let Some(endpoint) = permit.endpoint()
                && let Some(trial) = self.tried.iter_mut().rfind(|trial| trial.id == endpoint.id())
            {
                trial.rests_until = trial.rests_until.max(now.after(asked));
            }
            if !self.upstream.has_another(&self.tried, now) {
                self.withdraw_hedge(now);
            }
        }
        let mut rng = self.upstream.entropy().rng();
        let mut world =
            world(&self.upstream, &self.plan, &self.tried, exchange.is_replayable(), now, &mut rng);
        // Such a call's retry waits for the breaker, too.
        world.circuit_open &= !self.ledger.terms().waits_for_ready;
        let next = self.ledger.failed(number, &classified, now, world);
        match (grant, &next) {
            (Some(grant), Next::Retry { .. }) if !self.ledger.has_grant() => self.ledger.inherit(grant),
            // Nobody saw what it was granted for.
            (Some(grant), _) if classified.repeat.is_free() && classified.repeat.is_proof() => {
                self.upstream.give_back(grant);
            }
            _ => {}
        }
        match next {
            Next::GiveUp(why) => {
                if why == Decline::BudgetExhausted {
                    // What called us shouldn't try again either; see `advice`.
                    crate::advice::forbid_retry();
                }
                self.decline(why);
                return Some(landed);
            }
            Next::Retry { number, delay } => {
                self.emit(|| Event::RetryScheduled { call: self.call, number, delay, after: outcome });
            }
            Next::Wait => {}
        }
        if !matches!(landed.brought, Brought::Fault(_)) {
            self.kept_status = classified.status;
        }
        match landed.brought {
            Brought::Head(answer) => {
                self.aside = landed.permit.map(|permit| Box::new(Aside::new(exchange, answer, permit, now)));
            }
            Brought::Whole(whole) => self.kept = Some(whole),
            Brought::Fault(error) => self.fault = Some(error),
        }
        None
    }

    /// A hedge that waits to be let in stays here: the server has asked for time.
    fn withdraw_hedge(&mut self, now: Tick) {
        if !self.ledger.withdraw_hedge() {
            return;
        }
        let waiting = self.entry.as_ref().map(|entry| entry.number);
        self.leave_entry(false, now);
        self.give_grant_back();
        if let Some(number) = waiting {
            self.emit(|| Event::HedgeEnded { call: self.call, number, end: HedgeEnd::Rejected });
        }
    }

    /// What an attempt came to, for the report.
    pub(super) fn settled(&mut self, number: u32, outcome: Outcome, status: Option<StatusCode>, now: Tick) {
        if let Some(report) = &mut self.report {
            report.settled(number, outcome, status, now);
        }
    }

    /// Another attempt brought the answer, or the call's time is over.
    pub(super) fn lost(&mut self, number: u32, outcome: Outcome, now: Tick) {
        self.settled(number, outcome, None, now);
        self.hedge_ended(number, HedgeEnd::Lost);
    }

    /// What became of attempt `number`, if it is a hedge.
    #[inline]
    fn hedge_ended(&self, number: u32, end: HedgeEnd) {
        // The first never is, and most calls have no other.
        if number > 1 && self.report.as_ref().is_some_and(|report| report.is_hedge(number)) {
            self.emit(|| Event::HedgeEnded { call: self.call, number, end });
        }
    }

    /// The call has its result.
    #[inline]
    fn finished(&self, report: &CallReport, end: impl FnOnce() -> CallEnd) {
        self.emit(|| Event::CallFinished {
            call: self.call,
            duration: report.elapsed(),
            end: end(),
            cut: report.is_cut(),
            streaming: report.is_streaming(),
        });
    }

    /// How long, in nanoseconds, an attempt that the deadline cuts short must have been out to be held against the server.
    pub(super) fn chance(&self, now: Tick) -> u64 {
        let usual = if self.ways.hurried { self.upstream.usual_or_shortest(now) } else { None };
        (u64::from(self.ways.chance) * 1000).max(usual.map_or(0, |usual| usual.saturating_mul(USUAL_TIMES)))
    }

    /// Whether the upstream has answered others as recently as an attempt's time ago.
    pub(super) fn is_alive(&self, now: Tick) -> bool {
        self.upstream.has_served_within(self.ledger.terms().attempt_timeout, now)
    }

    /// The deadline has cut an attempt short.
    pub(super) fn cut_short(&mut self) {
        self.fault = Some(Error::new(ErrorKind::Deadline));
    }

    /// The call's result, from the attempt that ends it.
    #[allow(clippy::inline_always, reason = "what it returns is large, and is taken apart at once")]
    #[inline(always)]
    pub(super) fn answer(&mut self, exchange: &mut X, landed: Landed<X>, now: Tick) -> Option<Finished<X>> {
        let Landed { permit, brought, classified: end, .. } = landed;
        self.leave_entry(false, now);
        let (mut permit, mut report) = (permit?, self.report.take()?);
        let response = || CallEnd::Response(end.status.unwrap_or_default());
        if end.is_success() {
            // The verdict is left to the body, unless that has been read.
            permit.timed(now);
            self.ledger.succeeded();
        }
        match brought {
            Brought::Head(answer) => {
                permit.head(&end, now);
                self.forget_the_rest();
                report.finish(now, false);
                let unending = self.ways.streaming || X::is_unending(&answer);
                let deadline = if unending { Tick::NEVER } else { self.ledger.terms().deadline };
                report.streams = unending;
                self.finished(&report, response);
                self.upstream.leave_with(&mut permit);
                let timeout = &self.plan.timeout;
                let idle = if unending { timeout.stream_idle } else { timeout.body_idle };
                let guard = Guard::new(permit, report, end.status, deadline, idle);
                let guard = guard.on_shared(X::is_shared(&answer));
                Some(Ok(exchange.seal(answer, guard)))
            }
            Brought::Whole(whole) => {
                report.finish(now, false);
                permit.settle(&end, now);
                drop(permit);
                self.forget_the_rest();
                self.finished(&report, response);
                self.upstream.leave();
                let (head, body) = *whole;
                Some(Ok(exchange.reassemble(head, body, report)))
            }
            Brought::Fault(error) => {
                self.fault = Some(error);
                // Settled already, unless a classifier of the user's calls an error a success.
                permit.settle(&end, now);
                drop(permit);
                self.report = Some(report);
                self.without_answer(exchange, now)
            }
        }
    }

    /// The answer is there: what was kept in case none came, and what was granted to an attempt that won't set out, are given
    /// back now and not when the caller drops the call.
    #[inline]
    fn forget_the_rest(&mut self) {
        // Most calls have had one attempt, and so neither.
        if self.ledger.has_followed() {
            (self.aside, self.kept) = (None, None);
            self.give_grant_back();
        }
    }

    /// The result of a call whose last attempt brought no response: the last real response there was, else the error.
    #[cold]
    pub(super) fn without_answer(&mut self, exchange: &mut X, now: Tick) -> Option<Finished<X>> {
        let unresolved = self.entry.as_ref().and_then(|entry| entry.waiting.unresolved(now));
        self.leave_entry(false, now);
        let mut report = self.report.take()?;
        if let Some(aside) = self.aside.take() {
            self.kept = Some(Box::new(aside.finish_now()));
        }
        self.give_grant_back();
        self.upstream.leave();
        if let Some((head, body)) = self.kept.take().map(|kept| *kept) {
            report.finish(now, body.cut);
            self.finished(&report, || CallEnd::Response(self.kept_status.unwrap_or_default()));
            return Some(Ok(exchange.reassemble(head, body, report)));
        }
        report.finish(now, false);
        let error = match (self.fault.take(), self.rejection.take()) {
            (Some(fault), _) => fault,
            (None, Some(rejection)) => Error::rejected(*rejection),
            (None, None) => match unresolved {
                Some(cause) => Error::new(ErrorKind::Deadline).says(cause.to_string()).because(cause),
                None => Error::new(ErrorKind::Deadline),
            },
        };
        self.finished(&report, || CallEnd::Error(error.kind()));
        Some(Err(error.with_report(report)))
    }

    fn decline(&mut self, why: Decline) {
        self.emit(|| Event::RetryDeclined { call: self.call, why: why.clone() });
        if let Some(report) = &mut self.report {
            report.decline(why);
        }
    }

    fn give_grant_back(&mut self) {
        if let Some(grant) = self.ledger.take_grant() {
            self.upstream.give_back(grant);
        }
    }
}

impl<X: Exchange> Drop for Desk<X> {
    fn drop(&mut self) {
        self.give_grant_back();
        if let Some(report) = &self.report
            && self.heard
        {
            let (call, now) = (self.call, time::now());
            let duration = now.since(report.began());
            for number in report.hedges_in_flight() {
                self.emit(|| Event::HedgeEnded { call, number, end: HedgeEnd::Lost });
            }
            self.leave_entry(false, now);
            let end = CallEnd::Dropped;
            let event = Event::CallFinished { call, duration, end, cut: false, streaming: false };
            self.emit(|| event);
        }
    }
}

/// Sends an attempt off, by way of the hook if there is one; `None` with the fault when the hook refuses.
#[inline]
fn depart<X: Exchange>(
    exchange: &mut X,
    hook: Option<&Hook>,
    outbound: Outbound,
    permit: Permit,
    fault: &mut Option<Error>,
    cx: &mut Context<'_>,
    now: Tick,
) -> Option<Flight<X>> {
    let number = outbound.number;
    let Some(hook) = hook else { return hand_over(exchange, outbound, permit, cx, now) };
    let attempt = Attempt { number, ..exchange.request()? };
    let prepared = match hook.prepare(&attempt) {
        hook::State::Now(Ok(headers)) => hook::State::Now(hook::fitting(headers, Some(attempt.headers))),
        prepared => prepared,
    };
    match prepared {
        hook::State::Now(Ok(headers)) => {
            let now = time::now();
            if now >= outbound.until {
                // The hook has used up the attempt's time: there is nothing to send any more.
                return Some(Flight::overdue(permit, number));
            }
            let outbound = Outbound { headers: Some(Box::new(headers)), ..outbound };
            hand_over(exchange, outbound, permit, cx, now)
        }
        hook::State::Now(Err(error)) => {
            *fault = Some(flight::unprepared(error));
            None
        }
        hook::State::Later(later) => Some(Flight::preparing(later, outbound, permit)),
    }
}

/// Hands an attempt to the transport; `None` when there is nothing left to send.
#[inline]
fn hand_over<X: Exchange>(
    exchange: &mut X,
    outbound: Outbound,
    mut permit: Permit,
    cx: &mut Context<'_>,
    now: Tick,
) -> Option<Flight<X>> {
    let number = outbound.number;
    permit.leaves();
    let Some(future) = exchange.launch(outbound, Departure { upstream: permit.upstream(), cx, now }) else {
        permit.stays();
        return None;
    };
    Some(Flight::launched(future, permit, number))
}

/// The world as it stands, for the ledger.
fn world<'a>(
    upstream: &'a Upstream,
    plan: &'a Plan,
    tried: &Tried,
    replayable: bool,
    now: Tick,
    rng: &'a mut Rng,
) -> World<'a> {
    World {
        budget: upstream.budget(),
        cap: upstream.hedges(),
        circuit_open: upstream.is_circuit_open(now),
        elsewhere: upstream.has_another(tried, now),
        again_from: upstream.again_from(tried, now),
        replayable,
        usual: upstream.usual(now),
        delays: plan.delays.as_ref(),
        rng,
    }
}

/// A 503 speaks for the whole server, a 429 often for one tenant only, so it holds other calls back only if asked to.
fn holds_everyone_back(end: &Classified, retry: Option<retry::Rules>) -> Option<Duration> {
    let speaks_for_all = match end.outcome {
        Outcome::Throttled => retry.is_some_and(|retry| retry.hold_back_on_429()),
        _ => true,
    };
    // Of the others, which are about one request or one failure, only the call that was told obeys.
    let speaks_for_all = speaks_for_all
        && !matches!(end.status.map(|status| status.as_u16()), Some(408 | 425 | 500 | 502 | 504));
    end.retry_after.filter(|_| speaks_for_all)
}
