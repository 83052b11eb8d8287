//! One call, from its request to its response.
//!
//! The loop in [`Call::poll`] is the only place that waits. It reads from top to bottom: has an
//! attempt in flight ended, is an answer being set aside, and if neither has anything new, what
//! does the ledger say. There is one timer, made only when something really has to be waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::begin::begin;
use crate::call::attempt::{AttemptResult, RunningAttempt, SettledAttempt, View};
use crate::call::exchange::{Exchange, Expired, Finished, Reached};
use crate::call::options::{CallOptions, Hop};
use crate::call::state::CallState;
use crate::call::step::{Room, Step, next_step};
use crate::engine::Core;
use crate::error::{Error, ErrorKind};
use crate::outcome::Verdict;
use crate::outcome::classify::{Classified, Repeat};
use crate::outcome::{FailureKind, Outcome};
use crate::time::{self, Tick};
use crate::upstream::AttemptPermit;

pin_project! {
    /// One call. It begins when it is first polled: its time runs from there, and until then it
    /// holds nothing. Dropping it at any point gives back whatever it holds.
    //
    // Moved to its place by whoever awaits it, and never again: what begins is written into it, not
    // it into something.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Call<X: Exchange> {
        // What it takes to begin; `None` once it has.
        before: Option<(Arc<Core>, CallOptions)>,
        exchange: X,
        // The attempts in flight: one in place, which is all that most calls have, and hedges
        // beside it.
        #[pin]
        attempt: Option<RunningAttempt<X>>,
        hedges: Vec<Pin<Box<RunningAttempt<X>>>>,
        #[pin]
        timer: Option<Sleep>,
        // `None` before the call begins and after its end. Dropped last: the call leaves its
        // upstream when nothing of it is there any more.
        state: Option<CallState<X>>,
    }

    impl<X: Exchange> PinnedDrop for Call<X> {
        fn drop(this: Pin<&mut Self>) {
            if this.attempt.is_some() || !this.hedges.is_empty() {
                this.left();
            }
        }
    }
}

impl<X: Exchange> Call<X> {
    pub(crate) fn new(core: Arc<Core>, exchange: X, options: CallOptions) -> Self {
        Self {
            before: Some((core, options)),
            exchange,
            attempt: None,
            hedges: Vec::new(),
            timer: None,
            state: None,
        }
    }

    /// What a call is bound by that this one is redirected to; `None` before it has begun.
    #[cold]
    pub(crate) fn hop(&self) -> Option<Hop> {
        self.state.as_ref().map(CallState::hop)
    }

    /// Ready when an attempt in flight has ended: with the call's result, or with nothing when
    /// another attempt follows or is in flight. `looked` is the time then.
    ///
    /// The attempt that has the answer is settled here, and not by the caller: on the way there it
    /// would be copied three times.
    #[allow(clippy::inline_always, reason = "an answer is large")]
    #[inline(always)]
    fn poll_attempts(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        looked: &mut Option<Tick>,
    ) -> Poll<Option<Finished<X>>> {
        let mut this = self.as_mut().project();
        let Some(state) = this.state else { return Poll::Pending };
        if let Some(mut attempt) = this.attempt.as_mut().as_pin_mut()
            && let Poll::Ready((result, classified)) = attempt.as_mut().poll(cx, this.exchange, state.view())
        {
            let (number, permit) = (attempt.number(), attempt.take_permit());
            this.attempt.set(None);
            let now = *looked.insert(time::now());
            return Poll::Ready(if classified.is_success() && this.hedges.is_empty() {
                state.succeeded(this.exchange, number, permit, result, classified, now)
            } else {
                self.attempt_settled(SettledAttempt { number, permit, result, classified }, now)
            });
        }
        if this.hedges.is_empty() {
            return Poll::Pending;
        }
        let settled_attempt = ready!(poll_hedges(this.hedges, cx, this.exchange, state.view()));
        let now = *looked.insert(time::now());
        Poll::Ready(self.attempt_settled(settled_attempt, now))
    }

    /// The attempt has used up its time: cancelled, and settled as a timeout.
    #[cold]
    fn expire(mut self: Pin<&mut Self>, number: u32, now: Tick) -> Option<Finished<X>> {
        let expired = self.as_mut().tell_expired(number, now, |_| true);
        let mut permit = self.as_mut().cancel(number);
        if expired.reached == Reached::Server
            && let Some(permit) = permit.as_mut()
        {
            permit.timed(now);
        }
        let launched = permit.as_ref().is_none_or(AttemptPermit::was_launched);
        let told = self.state.as_ref().filter(|_| launched).map(CallState::timed_out);
        let error = told.unwrap_or_else(|| {
            let timeout = Error::new(ErrorKind::Timeout);
            if launched { timeout } else { timeout.says("the attempt's hook took all its time") }
        });
        let result = AttemptResult::Fault(error);
        let classified = match expired.reached {
            Reached::Line => Classified::neutral(FailureKind::Timeout, Repeat::Doubtful),
            Reached::Excluded => Classified::neutral(FailureKind::Timeout, Repeat::Unsent),
            Reached::Server => {
                // A hook that took all the time says nothing about the server.
                let sent = permit.as_ref().is_none_or(AttemptPermit::is_sent);
                let verdict = if sent { Verdict::Failure } else { Verdict::Neutral };
                Classified { verdict, cause: expired.cause, ..Classified::TIMEOUT }
            }
        };
        self.attempt_settled(SettledAttempt { number, permit, result, classified }, now)
    }

    /// Tells the transport that an attempt's time is up, and whether that `counts`.
    fn tell_expired(
        self: Pin<&mut Self>,
        number: u32,
        now: Tick,
        counts: impl FnOnce(&AttemptPermit) -> bool,
    ) -> Expired {
        let this = self.project();
        match numbered(number, this.attempt, this.hedges) {
            Some(attempt) => {
                let usual = this.state.as_ref().map_or(0, CallState::attempt_timeout);
                attempt.expired(this.exchange, now, counts, usual)
            }
            None => Expired::default(),
        }
    }

    /// An attempt that had to wait for one of the streams the server allows has its time from when
    /// it got it.
    #[cold]
    fn is_given_time(mut self: Pin<&mut Self>, number: u32, now: Tick) -> bool {
        let this = self.as_mut().project();
        let Some(state) = this.state else { return false };
        let attempt = numbered(number, this.attempt, this.hedges);
        let since = attempt.and_then(|attempt| attempt.begun(this.exchange, now, state.attempt_timeout()));
        since.is_some_and(|since| state.ledger.begins_anew(number, since) > now)
    }

    /// Drops an attempt's future, which takes it off the wire.
    fn cancel(self: Pin<&mut Self>, number: u32) -> Option<AttemptPermit> {
        let mut this = self.project();
        if let Some(attempt) = this.attempt.as_mut().as_pin_mut()
            && attempt.number() == number
        {
            let permit = attempt.take_permit();
            this.attempt.set(None);
            return permit;
        }
        let index = this.hedges.iter().position(|hedge| hedge.number() == number)?;
        this.hedges.swap_remove(index).as_mut().take_permit()
    }

    /// An attempt ended. Ready with the call's result, unless another attempt follows or is in
    /// flight.
    #[cold]
    fn attempt_settled(
        mut self: Pin<&mut Self>,
        settled_attempt: SettledAttempt<X>,
        now: Tick,
    ) -> Option<Finished<X>> {
        let this = self.as_mut().project();
        let settled_attempt = this.state.as_mut()?.attempt_settled(this.exchange, settled_attempt, now)?;
        if self.attempt.is_some() || !self.hedges.is_empty() {
            self.as_mut().cancel_losers(settled_attempt.number, now);
        }
        let this = self.project();
        let SettledAttempt { permit, result, classified, .. } = settled_attempt;
        this.state.as_mut()?.answer(this.exchange, permit, result, classified, now)
    }

    /// Takes the attempts that lost off the wire; a loser says nothing about the server.
    #[cold]
    fn cancel_losers(self: Pin<&mut Self>, winner: u32, now: Tick) {
        let mut this = self.project();
        let in_place =
            this.attempt.as_mut().as_pin_mut().map(|attempt| (attempt.number(), attempt.take_permit()));
        this.attempt.set(None);
        let beside = this.hedges.drain(..).map(|mut hedge| (hedge.number(), hedge.as_mut().take_permit()));
        for (number, permit) in in_place.into_iter().chain(beside) {
            let permit = permit.map(|mut permit| {
                permit.lose(number < winner, now);
                permit
            });
            if let Some(state) = this.state {
                state.lost(number, permit.as_ref(), Outcome::Abandoned, now);
            }
        }
    }

    /// The deadline has passed, or nothing can follow.
    #[cold]
    fn over(mut self: Pin<&mut Self>, now: Tick) -> Option<Finished<X>> {
        while let Some(number) = self.first_in_flight() {
            // With less than a chance to answer, it was the caller who was late. With one, what is
            // held against the server is held against the connection: the attempt timeout may be no
            // shorter than the whole call.
            let Some(enough) = self.as_mut().project().state.as_ref().map(|state| state.chance(now)) else {
                break;
            };
            let late = |permit: &AttemptPermit| permit.is_late(now.since(permit.started()), enough);
            let expired = self.as_mut().tell_expired(number, now, late);
            let Some(mut permit) = self.as_mut().cancel(number) else { break };
            let Some(state) = self.as_mut().project().state else { break };
            let outcome = if expired.reached == Reached::Server {
                let waited = now.since(permit.started());
                permit.abandon(FailureKind::Timeout, expired.cause, waited, enough, now)
            } else {
                permit.settle(&Classified::ABANDONED, now);
                Classified::ABANDONED.outcome
            };
            state.lost(number, Some(&permit), outcome, now);
            state.cut_short();
        }
        let this = self.project();
        this.state.as_mut()?.without_answer(this.exchange, now)
    }

    /// Nobody waits any more. What is held against the server is held against the connection, here
    /// too.
    #[cold]
    fn left(mut self: Pin<&mut Self>) {
        let now = time::now();
        while let Some(number) = self.first_in_flight() {
            let waited = |permit: &AttemptPermit| now.since(permit.started());
            let late = |permit: &AttemptPermit| permit.is_late(waited(permit), u64::MAX);
            let expired = self.as_mut().tell_expired(number, now, late);
            let Some(mut permit) = self.as_mut().cancel(number) else { break };
            if expired.reached == Reached::Server {
                permit.abandon(FailureKind::Timeout, expired.cause, waited(&permit), u64::MAX, now);
            } else {
                permit.settle(&Classified::ABANDONED, now);
            }
            if !permit.was_launched()
                && let Some(state) = self.as_mut().project().state
            {
                state.held_back(number);
            }
        }
    }

    fn first_in_flight(&self) -> Option<u32> {
        self.attempt
            .as_ref()
            .map(RunningAttempt::number)
            .or_else(|| self.hedges.first().map(|hedge| hedge.number()))
    }

    /// Ready when `until` has come. The timer is never pushed later: one that fires early is set
    /// anew.
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

/// The attempt in flight that bears a number.
fn numbered<'a, X: Exchange>(
    number: u32,
    in_place: Pin<&'a mut Option<RunningAttempt<X>>>,
    hedges: &'a mut [Pin<Box<RunningAttempt<X>>>],
) -> Option<Pin<&'a mut RunningAttempt<X>>> {
    let beside = hedges.iter_mut().map(Pin::as_mut);
    in_place.as_pin_mut().into_iter().chain(beside).find(|attempt| attempt.number() == number)
}

/// Ready with the first attempt, of those sent beside the one in place, that has ended.
#[cold]
fn poll_hedges<X: Exchange>(
    hedges: &mut Vec<Pin<Box<RunningAttempt<X>>>>,
    cx: &mut Context<'_>,
    exchange: &mut X,
    view: View<'_>,
) -> Poll<SettledAttempt<X>> {
    for (index, hedge) in hedges.iter_mut().enumerate() {
        if let Poll::Ready((result, classified)) = hedge.as_mut().poll(cx, exchange, view) {
            let mut hedge = hedges.swap_remove(index);
            let (number, permit) = (hedge.number(), hedge.as_mut().take_permit());
            return Poll::Ready(SettledAttempt { number, permit, result, classified });
        }
    }
    Poll::Pending
}

impl<X: Exchange> Future for Call<X> {
    type Output = Finished<X>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What the clock says, if it has been read just now: once for all that follows without
        // waiting. And whether the timer is set for all that is known.
        let (mut looked, mut timed) = (None, true);
        let this = self.as_mut().project();
        if let Some((core, options)) = this.before.take() {
            let now = time::now();
            begin(core, this.exchange, &options, now, this.state)?;
            (looked, timed) = (Some(now), false);
        }
        let _entered = self.state.as_ref().and_then(CallState::entered);
        loop {
            // 1. Has an attempt in flight ended?
            if let Poll::Ready(finished) = self.as_mut().poll_attempts(cx, &mut looked) {
                if let Some(finished) = finished {
                    return Poll::Ready(finished);
                }
                timed = false;
                continue;
            }
            let mut this = self.as_mut().project();
            let Some(state) = this.state else { return Poll::Pending };

            // 2. Is an answer being set aside?
            if state.poll_draining(cx).is_ready() {
                (looked, timed) = (None, false);
                continue;
            }

            // 3. Nothing new, and the timer knows when there is.
            if timed
                && state.is_idle()
                && let Some(timer) = this.timer.as_mut().as_pin_mut()
                && !timer.is_elapsed()
                && timer.poll(cx).is_pending()
            {
                return Poll::Pending;
            }

            // 4. What now?
            timed = false;
            let now = *looked.get_or_insert_with(time::now);
            let room = Room { in_place: this.attempt, hedges: this.hedges };
            let until = match next_step(state, this.exchange, room, cx, now) {
                Step::LookAgain => continue,
                Step::Wait(until) => until,
                Step::Expire(number) => {
                    if self.as_mut().is_given_time(number, now) {
                        continue;
                    }
                    match self.as_mut().expire(number, now) {
                        Some(finished) => return Poll::Ready(finished),
                        None => continue,
                    }
                }
                Step::Finish => return self.as_mut().over(now).map_or(Poll::Pending, Poll::Ready),
            };
            if self.as_mut().poll_timer(cx, until).is_pending() {
                return Poll::Pending;
            }
            looked = None;
        }
    }
}
