//! One call, from its request to its response.
//!
//! The loop in [`Call::poll`] is the only place that waits. It reads from top to bottom: has an attempt in flight
//! ended, is an answer being set aside, and if neither has anything new, what does the ledger say. There is one timer,
//! made only when something really has to be waited for.

pub(crate) mod body;
pub(crate) mod core;
mod flight;
pub(crate) mod hook;
pub(crate) mod ledger;
pub(crate) mod options;
mod patience;
pub(crate) mod pending;
mod reading;
pub(crate) mod report;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderName;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use self::body::Guard;
use self::flight::{Brought, Flight, View};
use self::hook::{Attempt, Hook};
use self::ledger::{Decision, Ledger, Next, Terms, World};
use self::reading::Aside;
use self::report::{CallReport, Decline, Trigger};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::outcome::classify::{Classified, Classifier};
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::Verdict;
use crate::policy::priority::Priority;
use crate::policy::retry::{self, Delays};
use crate::rng::Rng;
use crate::time::{self, Tick};
use crate::transport::{Exchange, KeptBody, Outbound, Target};
use crate::upstream::{Admission, Ask, Entered, Permit, Refusal, Rejection, Tried, Upstream, Waiting};

pin_project! {
    /// One call in progress. Dropping it at any point gives back whatever it holds.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Call<X: Exchange> {
        exchange: X,
        ledger: Ledger,
        ways: Ways,
        report: Option<CallReport>,
        // The attempts in flight: one in place, which is all that most calls have, and hedges beside it.
        #[pin]
        flight: Option<Flight<X>>,
        hedges: Vec<Pin<Box<Flight<X>>>>,
        // The attempt that waits to be let in, with its number and why it is sent.
        entry: Option<(u32, Trigger, Waiting)>,
        // Where its attempts went.
        tried: Tried,
        // The last real response, being set aside or set aside.
        aside: Option<Aside<X>>,
        kept: Option<(X::Head, KeptBody)>,
        // How the last attempt without a response failed, or was refused.
        fault: Option<Error>,
        rejection: Option<Rejection>,
        #[pin]
        timer: Option<Sleep>,
        // Left last, when nothing of the call is in it any more.
        upstream: Entered,
    }

    impl<X: Exchange> PinnedDrop for Call<X> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(grant) = this.ledger.take_grant() {
                this.upstream.give_back(grant);
            }
        }
    }
}

/// How a call treats what its attempts bring.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) classifier: Option<Classifier>,
    /// Waits of the user's own between attempts.
    pub(crate) delays: Option<Delays>,
    /// The longest body to read inside an attempt; `None` to hand bodies over unread.
    pub(crate) buffer: Option<usize>,
    /// The longest pause in a body handed over unread, in nanoseconds.
    pub(crate) body_idle: u64,
    /// What the call is worth.
    pub(crate) priority: Priority,
    /// Asked before every attempt.
    pub(crate) hook: Option<Hook>,
    /// Whether the body may take longer than the call's total.
    pub(crate) streaming: bool,
    /// The header that tells the server how long its answer is waited for, if it is told.
    pub(crate) deadline_header: Option<HeaderName>,
}

/// What every call starts from.
pub(crate) struct Start<X> {
    pub(crate) exchange: X,
    pub(crate) upstream: Entered,
    pub(crate) terms: Terms,
    pub(crate) ways: Ways,
    pub(crate) version: u64,
    pub(crate) now: Tick,
}

/// What a call comes to.
type Finished<X> = Result<<X as Exchange>::Response, Error>;

/// An attempt that has ended: its number, its place in the upstream, what it brought, and what that means.
type Landed<X> = (u32, Option<Permit>, Brought<X>, Classified);

impl<X: Exchange> Call<X> {
    pub(crate) fn new(start: Start<X>) -> Self {
        let Start { exchange, upstream, terms, mut ways, version, now } = start;
        let report = CallReport::new(Arc::clone(upstream.name()), version, now);
        Self {
            exchange,
            ledger: Ledger::new(terms, now).with_delays(ways.delays.take()),
            ways,
            report: Some(report),
            flight: None,
            hedges: Vec::new(),
            entry: None,
            tried: Tried::new(),
            aside: None,
            kept: None,
            fault: None,
            rejection: None,
            timer: None,
            upstream,
        }
    }

    /// Ready with the first attempt in flight that has ended.
    fn poll_flights(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed<X>> {
        let mut this = self.project();
        let Ways { classifier, buffer, body_idle, .. } = &*this.ways;
        // The attempt's own timer is there already: another is needed only if it could fire first.
        let body_idle = if *body_idle < this.ledger.terms().attempt_timeout { *body_idle } else { u64::MAX };
        let view = View { classifier: classifier.as_ref(), buffer: *buffer, body_idle };
        if let Some(mut flight) = this.flight.as_mut().as_pin_mut()
            && let Poll::Ready((brought, classified)) = flight.as_mut().poll(cx, this.exchange, view)
        {
            let (number, permit) = (flight.number(), flight.take_permit());
            this.flight.set(None);
            return Poll::Ready((number, permit, brought, classified));
        }
        for (index, hedge) in this.hedges.iter_mut().enumerate() {
            if let Poll::Ready((brought, classified)) = hedge.as_mut().poll(cx, this.exchange, view) {
                let mut hedge = this.hedges.swap_remove(index);
                return Poll::Ready((hedge.number(), hedge.as_mut().take_permit(), brought, classified));
            }
        }
        Poll::Pending
    }

    /// The attempt that is due asks the upstream to be let in.
    fn set_out(self: Pin<&mut Self>, number: u32, trigger: Trigger, now: Tick) {
        let (priority, deadline) = (self.ways.priority, self.ledger.terms().deadline);
        let ask = Ask { priority, deadline, tried: self.tried.clone() };
        match self.upstream.admit(ask, now) {
            Admission::Admitted(permit) => self.launch(number, trigger, permit, now),
            Admission::Refused(why) => self.refused(number, why),
            Admission::Waits(waiting) => {
                let this = self.project();
                this.ledger.waits();
                *this.entry = Some((number, trigger, waiting));
            }
        }
    }

    /// Ready when the attempt that waits to be let in has been, or has been refused.
    fn poll_entry(mut self: Pin<&mut Self>, cx: &mut Context<'_>, now: Tick) -> Poll<()> {
        let this = self.as_mut().project();
        let Some((number, trigger, waiting)) = this.entry else { return Poll::Pending };
        let admitted = ready!(waiting.poll(cx, now));
        let (number, trigger) = (*number, *trigger);
        if let Some(report) = this.report {
            report.waited(waiting.since(), now);
        }
        *this.entry = None;
        match admitted {
            Ok(permit) => self.launch(number, trigger, permit, now),
            Err(why) => self.refused(number, why),
        }
        Poll::Ready(())
    }

    /// The upstream doesn't let the attempt in.
    fn refused(self: Pin<&mut Self>, number: u32, refusal: Refusal) {
        let this = self.project();
        let Refusal { rejection, cause } = refusal;
        if let (Some(cause), None) = (cause, &this.fault) {
            *this.fault = Some(Error::rejected(rejection).because(cause));
        }
        this.upstream.emit(|| Event::Rejected { rejection });
        *this.rejection = Some(rejection);
        if number > 1 {
            decline(this.upstream, this.report, Decline::Rejected(rejection));
        }
        // What it was granted goes back: it was never sent.
        if let Some(grant) = this.ledger.take_grant() {
            this.upstream.give_back(grant);
        }
        this.ledger.rejected();
    }

    /// Sends an attempt that has been let in.
    fn launch(self: Pin<&mut Self>, number: u32, trigger: Trigger, permit: Permit, now: Tick) {
        let mut this = self.project();
        let permit = permit.of_attempt(number, this.ledger.take_grant());
        let outbound = Outbound {
            number,
            last: this.ledger.is_last(),
            until: this.ledger.would_end(now),
            deadline_header: this.ways.deadline_header.clone(),
            target: permit.endpoint().map(|endpoint| Target {
                endpoint: Arc::clone(endpoint),
                host: this.upstream.host().cloned(),
            }),
            headers: None,
        };
        let endpoint = permit.endpoint().map(|endpoint| {
            this.tried.push(endpoint.id());
            endpoint.origin().clone()
        });
        let Some(flight) = depart(this.exchange, this.ways.hook.as_ref(), outbound, permit, this.fault, now)
        else {
            // The body may have been outgrown since the ledger decided: an attempt that has failed may still be read.
            if number > 1 && !this.exchange.is_replayable() {
                decline(this.upstream, this.report, Decline::BodyNotKept);
            }
            this.ledger.rejected();
            return;
        };
        if this.flight.is_none() {
            this.flight.set(Some(flight));
        } else {
            this.hedges.push(Box::pin(flight));
        }
        this.ledger.launched(now);
        if let Some(report) = this.report {
            report.launched(number, trigger, endpoint.clone(), now);
        }
        this.upstream.emit(|| Event::AttemptStarted { number, trigger, endpoint });
    }

    /// Asks for a hedge; the ledger makes it due, or says why not.
    fn hedge(self: Pin<&mut Self>, now: Tick) {
        let this = self.project();
        let mut rng = this.upstream.entropy().rng();
        let world = world(this.upstream, this.exchange.is_replayable(), now, &mut rng);
        if let Err(why) = this.ledger.hedge(now, &world) {
            decline(this.upstream, this.report, why);
        }
    }

    /// The attempt has used up its time: cancelled, and settled as a timeout.
    fn expire(mut self: Pin<&mut Self>, number: u32, now: Tick) -> Option<Finished<X>> {
        let mut permit = self.as_mut().cancel(number);
        if let Some(permit) = permit.as_mut() {
            permit.timed(now);
        }
        // A hook that took all the time says nothing about the server.
        let sent = permit.as_ref().is_none_or(Permit::is_sent);
        let verdict = if sent { Verdict::Failure } else { Verdict::Neutral };
        let brought = Brought::Fault(Error::new(ErrorKind::Timeout));
        self.landed((number, permit, brought, Classified { verdict, ..Classified::TIMEOUT }), now)
    }

    /// Drops an attempt's future, which takes it off the wire.
    fn cancel(self: Pin<&mut Self>, number: u32) -> Option<Permit> {
        let mut this = self.project();
        if let Some(flight) = this.flight.as_mut().as_pin_mut()
            && flight.number() == number
        {
            let permit = flight.take_permit();
            this.flight.set(None);
            return permit;
        }
        let index = this.hedges.iter().position(|hedge| hedge.number() == number)?;
        this.hedges.swap_remove(index).as_mut().take_permit()
    }

    /// An attempt ended. Ready with the call's result, unless another attempt follows or is in flight.
    fn landed(mut self: Pin<&mut Self>, landed: Landed<X>, now: Tick) -> Option<Finished<X>> {
        let (number, permit, brought, classified) = landed;
        let mut permit = permit?;
        let this = self.as_mut().project();
        let (outcome, status) = (classified.outcome, classified.status);
        if let Some(report) = this.report {
            report.settled(number, outcome, status, now);
        }
        if classified.is_success() {
            // The verdict is left to the body, unless that has been read.
            permit.timed(now);
            this.ledger.succeeded();
            return self.answered(brought, permit, &classified, now);
        }
        permit.settle(outcome, classified.verdict, status, now);
        if let Some(asked) = holds_everyone_back(&classified, this.ledger.terms().retry) {
            this.upstream.hold_back(asked, now);
        }
        let mut rng = this.upstream.entropy().rng();
        let world = world(this.upstream, this.exchange.is_replayable(), now, &mut rng);
        match this.ledger.failed(number, &classified, now, world) {
            Next::Retry { number, delay } => {
                this.upstream.emit(|| Event::RetryScheduled { number, delay, after: outcome });
                self.set_aside(brought, permit, now);
                None
            }
            Next::Wait => {
                self.set_aside(brought, permit, now);
                None
            }
            Next::GiveUp(why) => {
                if why == Decline::BudgetExhausted {
                    // What called us shouldn't try again either; see `advice`.
                    crate::advice::forbid_retry();
                }
                decline(this.upstream, this.report, why);
                self.answered(brought, permit, &classified, now)
            }
        }
    }

    /// Keeps what an attempt brought, in case nothing better comes.
    fn set_aside(self: Pin<&mut Self>, brought: Brought<X>, permit: Permit, now: Tick) {
        let this = self.project();
        match brought {
            Brought::Head(answer) => *this.aside = Some(Aside::new(answer, permit, now)),
            Brought::Whole(head, body) => *this.kept = Some((head, body)),
            Brought::Fault(error) => *this.fault = Some(error),
        }
    }

    /// The call's result, from the attempt that ends it. Whatever else is in flight is cancelled without a verdict.
    fn answered(
        mut self: Pin<&mut Self>,
        brought: Brought<X>,
        mut permit: Permit,
        end: &Classified,
        now: Tick,
    ) -> Option<Finished<X>> {
        self.as_mut().cancel_losers(permit.number(), now);
        let this = self.as_mut().project();
        *this.entry = None;
        match brought {
            Brought::Head(answer) => {
                let mut report = this.report.take()?;
                report.finish(now, false);
                let unending = this.ways.streaming || X::is_unending(&answer);
                let deadline = if unending { Tick::NEVER } else { this.ledger.terms().deadline };
                report.streams = unending;
                this.upstream.leave_with(&mut permit);
                let guard = Guard::new(permit, report, end, deadline, this.ways.body_idle);
                Some(Ok(X::seal(answer, guard)))
            }
            Brought::Whole(head, body) => {
                let mut report = this.report.take()?;
                report.finish(now, false);
                permit.settle(end.outcome, end.verdict, end.status, now);
                drop(permit);
                this.upstream.leave();
                Some(Ok(X::reassemble(head, body, report)))
            }
            Brought::Fault(error) => {
                *this.fault = Some(error);
                // Settled already, unless a classifier of the user's calls an error a success.
                permit.settle(end.outcome, end.verdict, end.status, now);
                drop(permit);
                self.without_answer(now)
            }
        }
    }

    /// Takes the attempts that lost off the wire; a loser says nothing about the server.
    fn cancel_losers(self: Pin<&mut Self>, winner: u32, now: Tick) {
        let mut this = self.project();
        let in_place =
            this.flight.as_mut().as_pin_mut().map(|flight| (flight.number(), flight.take_permit()));
        this.flight.set(None);
        let beside = this.hedges.drain(..).map(|mut hedge| (hedge.number(), hedge.as_mut().take_permit()));
        for (number, permit) in in_place.into_iter().chain(beside) {
            if let Some(mut permit) = permit {
                permit.lose(number < winner, now);
            }
            if let Some(report) = this.report {
                report.settled(number, Outcome::Abandoned, None, now);
            }
        }
    }

    /// The result of a call whose last attempt brought no response: the last real response there was, else the error.
    fn without_answer(self: Pin<&mut Self>, now: Tick) -> Option<Finished<X>> {
        let this = self.project();
        *this.entry = None;
        let mut report = this.report.take()?;
        if let Some(aside) = this.aside.take() {
            *this.kept = Some(aside.finish_now());
        }
        this.upstream.leave();
        if let Some((head, body)) = this.kept.take() {
            report.finish(now, body.cut);
            return Some(Ok(X::reassemble(head, body, report)));
        }
        report.finish(now, false);
        let error = match (this.fault.take(), this.rejection.take()) {
            (Some(fault), _) => fault,
            (None, Some(rejection)) => Error::rejected(rejection),
            (None, None) => Error::new(ErrorKind::Deadline),
        };
        Some(Err(error.with_report(report)))
    }

    /// The deadline has passed, or nothing can follow.
    fn over(mut self: Pin<&mut Self>, now: Tick) -> Option<Finished<X>> {
        while let Some(number) = self.first_in_flight() {
            let Some(mut permit) = self.as_mut().cancel(number) else { break };
            let this = self.as_mut().project();
            // An attempt that the deadline cuts short has had its chance once half an attempt's time has gone by; with
            // less, it was the caller who was late.
            let enough = this.ledger.terms().attempt_timeout / 2;
            let outcome = permit.abandon(FailureKind::Timeout, now.since(permit.started()), enough, now);
            if let Some(report) = this.report {
                report.settled(number, outcome, None, now);
            }
            *this.fault = Some(Error::new(ErrorKind::Deadline));
        }
        self.without_answer(now)
    }

    fn first_in_flight(&self) -> Option<u32> {
        self.flight.as_ref().map(Flight::number).or_else(|| self.hedges.first().map(|hedge| hedge.number()))
    }

    /// Ready when `until` has come. The timer is never pushed later: one that fires early is set anew.
    fn poll_timer(self: Pin<&mut Self>, cx: &mut Context<'_>, until: Tick) -> Poll<()> {
        if until.is_never() {
            return Poll::Pending;
        }
        let mut timer = self.project().timer;
        let instant = time::instant(until);
        match timer.as_mut().as_pin_mut() {
            None => timer.set(Some(tokio::time::sleep_until(instant))),
            Some(set) if set.deadline() > instant || set.is_elapsed() => set.reset(instant),
            Some(_) => {}
        }
        timer.as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx))
    }
}

/// Sends an attempt off, by way of the hook if there is one; `None` with the fault when the hook refuses.
fn depart<X: Exchange>(
    exchange: &mut X,
    hook: Option<&Hook>,
    outbound: Outbound,
    permit: Permit,
    fault: &mut Option<Error>,
    mut now: Tick,
) -> Option<Flight<X>> {
    let number = outbound.number;
    let prepared = match hook {
        None => None,
        Some(hook) => Some(hook.prepare(&Attempt { number, ..exchange.request()? })),
    };
    let headers = match prepared {
        None => None,
        Some(hook::State::Now(Ok(headers))) => Some(headers),
        Some(hook::State::Now(Err(error))) => {
            *fault = Some(flight::unprepared(error));
            return None;
        }
        Some(hook::State::Later(later)) => return Some(Flight::preparing(later, outbound, permit)),
    };
    if headers.is_some() {
        now = time::now();
        if now >= outbound.until {
            // The hook has used up the attempt's time: there is nothing to send any more.
            return Some(Flight::overdue(permit, number));
        }
    }
    exchange.launch(Outbound { headers, ..outbound }, now).map(|future| Flight::sent(future, permit, number))
}

fn decline(upstream: &Upstream, report: &mut Option<CallReport>, why: Decline) {
    upstream.emit(|| Event::RetryDeclined { why: why.clone() });
    if let Some(report) = report {
        report.decline(why);
    }
}

/// The world as it stands, for the ledger.
fn world<'a>(upstream: &'a Upstream, replayable: bool, now: Tick, rng: &'a mut Rng) -> World<'a> {
    World {
        budget: upstream.budget(),
        cap: upstream.hedges(),
        circuit_open: upstream.is_circuit_open(now),
        replayable,
        usual: upstream.usual(now),
        rng,
    }
}

/// A 503 speaks for the whole server, a 429 often for one tenant only, so it holds other calls back only if asked to.
fn holds_everyone_back(end: &Classified, retry: Option<retry::Rules>) -> Option<Duration> {
    let speaks_for_all = match end.outcome {
        Outcome::Throttled => retry.is_some_and(|retry| retry.hold_back_on_429()),
        _ => true,
    };
    end.retry_after.filter(|_| speaks_for_all)
}

impl<X: Exchange> Future for Call<X> {
    type Output = Finished<X>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            // 1. Has an attempt in flight ended?
            if let Poll::Ready(landed) = self.as_mut().poll_flights(cx) {
                if let Some(finished) = self.as_mut().landed(landed, time::now()) {
                    return Poll::Ready(finished);
                }
                continue;
            }

            // 2. Is an answer being set aside?
            let this = self.as_mut().project();
            if let Some(aside) = this.aside
                && let Poll::Ready(cut) = aside.poll(cx)
            {
                *this.kept = this.aside.take().map(|aside| aside.finish(cut));
                continue;
            }

            // 3. What now? Nothing is sent while an answer is being set aside.
            let now = time::now();
            let patience = this.aside.as_ref().map(Aside::until);
            let until = match (this.ledger.decide(now), patience) {
                (Decision::Finish, _) => {
                    return self.as_mut().over(now).map_or(Poll::Pending, Poll::Ready);
                }
                (Decision::Expire { number }, _) => {
                    if let Some(finished) = self.as_mut().expire(number, now) {
                        return Poll::Ready(finished);
                    }
                    continue;
                }
                (_, Some(patience)) if patience <= now => {
                    *this.kept = this.aside.take().map(|aside| aside.finish(true));
                    continue;
                }
                (Decision::Launch { .. } | Decision::Hedge, Some(patience)) => patience,
                (Decision::Launch { number, trigger }, None) => {
                    self.as_mut().set_out(number, trigger, now);
                    continue;
                }
                (Decision::Hedge, None) => {
                    self.as_mut().hedge(now);
                    continue;
                }
                (Decision::WaitUntil(until), Some(patience)) => patience.min(until),
                (Decision::WaitUntil(until), None) => {
                    if self.as_mut().poll_entry(cx, now).is_ready() {
                        continue;
                    }
                    self.entry.as_ref().map_or(until, |(.., waiting)| waiting.until().min(until))
                }
            }
            .min(self.ledger.terms().deadline);
            if self.as_mut().poll_timer(cx, until).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests;
