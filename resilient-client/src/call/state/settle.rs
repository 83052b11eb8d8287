//! What follows from an attempt's end.

use std::time::Duration;

use http::StatusCode;

use super::CallState;
use crate::call::attempt::{AttemptResult, SettledAttempt};
#[cfg(feature = "grpc")]
use crate::call::begin::GrpcCall;
use crate::call::drain::DrainingResponse;
use crate::call::exchange::{Exchange, Finished};
use crate::call::ledger::{Next, World};
use crate::error::{Error, ErrorKind};
use crate::event::{CallEnd, Event, EventKinds, HedgeEnd};
use crate::outcome::classify::Classified;
use crate::outcome::report::Decline;
use crate::outcome::{FailureKind, Outcome, Verdict};
use crate::policy::breaker::ForReady;
use crate::policy::plan::Plan;
use crate::policy::retry;
use crate::rng::Rng;
use crate::time::Tick;
use crate::upstream::{AttemptPermit, Tried, Upstream};

impl<X: Exchange> CallState<X> {
    /// The error of an attempt that has used up its time: how long that was, and whether anybody
    /// set it.
    #[cold]
    pub(in crate::call) fn timed_out(&self) -> Error {
        let (attempt, rules) = (self.attempt_timeout(), &self.plan.timeout);
        let standards = attempt == rules.attempt && !rules.attempt_is_set && attempt < rules.total;
        let whose = if standards { " (the standard's: no timeout.attempt is set)" } else { "" };
        let attempt = Duration::from_nanos(attempt);
        Error::new(ErrorKind::Timeout).says(format!("{attempt:?}{whose}"))
    }

    /// Asks for a hedge; the ledger makes it due, or says why not.
    pub(in crate::call) fn hedge(&mut self, exchange: &X, now: Tick) {
        let mut rng = self.upstream.entropy().rng();
        let world = world(&self.upstream, &self.plan, &self.tried, exchange.is_replayable(), now, &mut rng);
        if let Err(why) = self.ledger.hedge(now, &world) {
            self.decline(why);
        }
    }

    /// An attempt ended. With its permit and its result when that is the call's result; else
    /// another attempt follows or is in flight, and this one's result is kept in case nothing
    /// better comes.
    pub(in crate::call) fn attempt_settled(
        &mut self,
        exchange: &X,
        settled_attempt: SettledAttempt<X>,
        now: Tick,
    ) -> Option<SettledAttempt<X>> {
        let SettledAttempt { number, classified, ref permit, .. } = settled_attempt;
        // Its time may have been up when its head was there.
        let headed = permit.as_ref().and_then(AttemptPermit::status);
        self.settled(number, classified.outcome, classified.status.or(headed), now);
        if classified.is_success() {
            self.hedge_ended(number, HedgeEnd::Won);
            return Some(settled_attempt);
        }
        if permit.as_ref().is_none_or(AttemptPermit::was_launched) {
            self.hedge_ended(number, HedgeEnd::Failed);
        } else {
            self.held_back(number);
        }
        self.failed(exchange, settled_attempt, now)
    }

    /// The attempt that ended is the only one there was, and has the answer.
    #[inline]
    pub(in crate::call) fn succeeded(
        &mut self,
        exchange: &mut X,
        number: u32,
        permit: Option<AttemptPermit>,
        result: AttemptResult<X>,
        end: Classified,
        now: Tick,
    ) -> Option<Finished<X>> {
        self.settled(number, end.outcome, end.status, now);
        self.hedge_ended(number, HedgeEnd::Won);
        self.answer(exchange, permit, result, end, now)
    }

    #[cold]
    pub(super) fn failed(
        &mut self,
        exchange: &X,
        mut settled_attempt: SettledAttempt<X>,
        now: Tick,
    ) -> Option<SettledAttempt<X>> {
        self.judge_as_timed_out(&mut settled_attempt, now);
        let permit = settled_attempt.permit.as_mut()?;
        let SettledAttempt { number, classified, .. } = settled_attempt;
        let outcome = classified.outcome;
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
        world.circuit_open &= self.ledger.terms().for_ready != ForReady::Always;
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
                return Some(settled_attempt);
            }
            Next::Retry { number, delay } => {
                let scheduled = Event::RetryScheduled { call: self.call, number, delay, after: outcome };
                self.emit(EventKinds::RETRY_SCHEDULED, |_| scheduled);
            }
            Next::Wait => {}
        }
        self.keep(exchange, settled_attempt, now);
        None
    }

    /// An attempt of which another timer has said what our own would have said in a moment is
    /// judged alike: the server's, or that of a gRPC transport, which goes by what the server is
    /// told.
    fn judge_as_timed_out(&self, settled_attempt: &mut SettledAttempt<X>, now: Tick) {
        let (chance, terms) = (self.chance(now), self.ledger.terms());
        let Some(started) = settled_attempt.permit.as_ref().map(AttemptPermit::started) else { return };
        let until = started.after_nanos(terms.attempt_timeout).min(terms.deadline);
        let timed_out = is_cut_off(&settled_attempt.classified) && is_about(until, started, now);
        #[cfg(feature = "grpc")]
        let timed_out = timed_out || now >= until && self.is_timed_by_transport(settled_attempt, now);
        let SettledAttempt { permit: Some(permit), classified, .. } = settled_attempt else { return };
        if timed_out {
            permit.timed(now);
            if !permit.is_late(now.since(started), chance) {
                classified.verdict = Verdict::Neutral;
            }
        }
    }

    /// Whether a gRPC transport has ended an attempt whose time is up, by a timer of its own: its
    /// error has a type that isn't known here, and is replaced by ours.
    #[cfg(feature = "grpc")]
    fn is_timed_by_transport(&self, settled_attempt: &mut SettledAttempt<X>, now: Tick) -> bool {
        let Classified { outcome, status, .. } = settled_attempt.classified;
        let broken = status.is_none() && outcome == Outcome::Failure(FailureKind::Transport);
        if !broken || self.settings.grpc == GrpcCall::No {
            return false;
        }
        let over = now >= self.ledger.terms().deadline;
        let error = if over { Error::new(ErrorKind::Deadline) } else { self.timed_out() };
        settled_attempt.result = AttemptResult::Fault(error);
        settled_attempt.classified = Classified::TIMEOUT;
        true
    }

    /// Keeps an attempt's result in case nothing better comes.
    fn keep(&mut self, exchange: &X, settled_attempt: SettledAttempt<X>, now: Tick) {
        if !matches!(settled_attempt.result, AttemptResult::Fault(_)) {
            let Classified { status, outcome, .. } = settled_attempt.classified;
            self.kept_end = Some(CallEnd::answered(status, outcome));
        }
        match settled_attempt.result {
            AttemptResult::Head(answer) => {
                self.draining = settled_attempt
                    .permit
                    .map(|permit| Box::new(DrainingResponse::new(exchange, answer, permit, now)));
            }
            AttemptResult::Whole(whole) => self.kept = Some(whole),
            AttemptResult::Fault(error) => self.fault = Some(error),
        }
    }

    /// A hedge that waits to be let in stays here: the server has asked for time.
    pub(super) fn withdraw_hedge(&mut self, now: Tick) {
        if !self.ledger.withdraw_hedge() {
            return;
        }
        let waiting = self.entry.as_ref().map(|entry| entry.number);
        self.leave_entry(false, now);
        self.give_grant_back();
        if let Some(number) = waiting {
            let refused = Event::HedgeEnded { call: self.call, number, end: HedgeEnd::Rejected };
            self.emit(EventKinds::HEDGE_ENDED, |_| refused);
        }
    }

    /// What an attempt came to, for the report.
    pub(in crate::call) fn settled(
        &mut self,
        number: u32,
        outcome: Outcome,
        status: Option<StatusCode>,
        now: Tick,
    ) {
        if let Some(report) = &mut self.report {
            report.settled(number, outcome, status, now);
        }
    }

    /// Another attempt brought the answer, or the call's time is over.
    pub(in crate::call) fn lost(
        &mut self,
        number: u32,
        permit: Option<&AttemptPermit>,
        outcome: Outcome,
        now: Tick,
    ) {
        if permit.is_none_or(AttemptPermit::was_launched) {
            self.settled(number, outcome, permit.and_then(AttemptPermit::status), now);
            self.hedge_ended(number, HedgeEnd::Lost);
        } else {
            self.held_back(number);
        }
    }

    /// A hook held an attempt back to its end: nothing was sent, so it was none.
    pub(in crate::call) fn held_back(&mut self, number: u32) {
        self.hedge_ended(number, HedgeEnd::Rejected);
        if let Some(report) = &mut self.report {
            report.withdraw(number);
        }
    }

    /// What became of attempt `number`, if it is a hedge.
    #[inline]
    pub(super) fn hedge_ended(&self, number: u32, end: HedgeEnd) {
        // The first never is, and most calls have no other.
        if number > 1 && self.report.as_ref().is_some_and(|report| report.is_hedge(number)) {
            let ended = Event::HedgeEnded { call: self.call, number, end };
            self.emit(EventKinds::HEDGE_ENDED, |_| ended);
        }
    }
}

/// The world as it stands, for the ledger.
pub(super) fn world<'a>(
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

/// A 503 speaks for the whole server, a 429 often for one tenant only, so it holds other calls back
/// only if asked to.
pub(super) fn holds_everyone_back(end: &Classified, retry: Option<retry::Rules>) -> Option<Duration> {
    let speaks_for_all = match end.outcome {
        Outcome::Throttled => retry.is_some_and(|retry| retry.hold_back_on_429()),
        _ => true,
    };
    end.retry_after.filter(|_| speaks_for_all && !end.asks_one)
}

/// Whether it is now about when the attempt's time is over: what it was told is rounded down, and
/// has travelled. A server that cuts off long before goes by a bound of its own, or hands on what
/// another told it.
fn is_about(until: Tick, started: Tick, now: Tick) -> bool {
    const ROUNDED: u64 = 2_000_000;
    let allowed = until.nanos_since(started);
    now.nanos_since(started).saturating_add(ROUNDED) >= allowed - allowed / 10
}

/// Whether it is a server's answer that its caller's time was over before it had the work done.
fn is_cut_off(end: &Classified) -> bool {
    end.outcome == Outcome::Failure(FailureKind::Timeout) && end.status.is_some()
}
