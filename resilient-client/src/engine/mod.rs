//! One call, from its request to its response.
//!
//! The loop in [`Call::poll`] is the only place that waits. It reads from top to bottom: has an attempt in flight
//! ended, is an answer being set aside, and if neither has anything new, what does the ledger say. There is one timer,
//! made only when something really has to be waited for.

pub(crate) mod body;
pub(crate) mod core;
mod desk;
mod flight;
pub(crate) mod hook;
pub(crate) mod ledger;
pub(crate) mod length;
pub(crate) mod options;
mod patience;
pub(crate) mod pending;
mod reading;
pub(crate) mod report;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use self::core::Core;
use self::desk::Desk;
use self::flight::{Brought, Flight, Landed, View};
use self::ledger::Decision;
use self::options::CallOptions;
use crate::error::{Error, ErrorKind};
use crate::outcome::classify::{Classified, Repeat};
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::Verdict;
use crate::time::{self, Tick};
use crate::transport::{Exchange, Expired};
use crate::upstream::Permit;

pin_project! {
    /// One call. It begins when it is first polled: its time runs from there, and until then it holds nothing. Dropping it
    /// at any point gives back whatever it holds.
    //
    // Moved to its place by whoever awaits it, and never again: what begins is written into it, not it into something.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Call<X: Exchange> {
        // What it takes to begin; `None` once it has.
        before: Option<(Arc<Core>, CallOptions)>,
        exchange: X,
        // The attempts in flight: one in place, which is all that most calls have, and hedges beside it.
        #[pin]
        flight: Option<Flight<X>>,
        hedges: Vec<Pin<Box<Flight<X>>>>,
        #[pin]
        timer: Option<Sleep>,
        // `None` before the call begins and after its end. Dropped last: the call leaves its upstream when nothing of it is
        // there any more.
        desk: Option<Desk<X>>,
    }

    impl<X: Exchange> PinnedDrop for Call<X> {
        fn drop(this: Pin<&mut Self>) {
            if this.flight.is_some() || !this.hedges.is_empty() {
                this.left();
            }
        }
    }
}

/// What a call comes to.
type Finished<X> = Result<<X as Exchange>::Response, Error>;

impl<X: Exchange> Call<X> {
    pub(crate) fn new(core: Arc<Core>, exchange: X, options: CallOptions) -> Self {
        Self {
            before: Some((core, options)),
            exchange,
            flight: None,
            hedges: Vec::new(),
            timer: None,
            desk: None,
        }
    }

    /// Ready with the first attempt in flight that has ended.
    #[allow(clippy::inline_always, reason = "what it returns is large, and is taken apart at once")]
    #[inline(always)]
    fn poll_flights(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed<X>> {
        let mut this = self.project();
        let Some(desk) = this.desk else { return Poll::Pending };
        if let Some(mut flight) = this.flight.as_mut().as_pin_mut()
            && let Poll::Ready((brought, classified)) = flight.as_mut().poll(cx, this.exchange, desk.view())
        {
            let (number, permit) = (flight.number(), flight.take_permit());
            this.flight.set(None);
            return Poll::Ready(Landed { number, permit, brought, classified });
        }
        if this.hedges.is_empty() {
            return Poll::Pending;
        }
        poll_hedges(this.hedges, cx, this.exchange, desk.view())
    }

    /// Takes an attempt in that has been sent off.
    fn take_in(self: Pin<&mut Self>, flight: Option<Flight<X>>) {
        let mut this = self.project();
        let Some(flight) = flight else { return };
        if this.flight.is_none() {
            this.flight.set(Some(flight));
        } else {
            this.hedges.push(Box::pin(flight));
        }
    }

    /// The attempt has used up its time: cancelled, and settled as a timeout.
    #[cold]
    fn expire(mut self: Pin<&mut Self>, number: u32, now: Tick) -> Option<Finished<X>> {
        let expired = self.as_mut().tell_expired(number, now, |_| true);
        let mut permit = self.as_mut().cancel(number);
        if !expired.unsent
            && let Some(permit) = permit.as_mut()
        {
            permit.timed(now);
        }
        let brought = Brought::Fault(Error::new(ErrorKind::Timeout));
        let classified = if expired.unsent {
            Classified::neutral(FailureKind::Timeout, Repeat::Doubtful)
        } else {
            // A hook that took all the time says nothing about the server.
            let sent = permit.as_ref().is_none_or(Permit::is_sent);
            let verdict = if sent { Verdict::Failure } else { Verdict::Neutral };
            Classified { verdict, cause: expired.cause, ..Classified::TIMEOUT }
        };
        self.landed(Landed { number, permit, brought, classified }, now)
    }

    /// Tells the transport that an attempt's time is up, and whether that `counts`.
    fn tell_expired(
        self: Pin<&mut Self>,
        number: u32,
        now: Tick,
        counts: impl FnOnce(&Permit) -> bool,
    ) -> Expired {
        let this = self.project();
        let beside = this.hedges.iter_mut().map(Pin::as_mut);
        let mut flights = this.flight.as_pin_mut().into_iter().chain(beside);
        match flights.find(|flight| flight.number() == number) {
            Some(flight) => {
                let alive = this.desk.as_ref().is_some_and(|desk| desk.is_alive(now));
                flight.expired(this.exchange, now, counts, alive)
            }
            None => Expired::default(),
        }
    }

    /// An attempt that had to wait for one of the streams the server allows has its time from when it got it.
    #[cold]
    fn is_given_time(mut self: Pin<&mut Self>, number: u32, now: Tick) -> bool {
        let alive = self.as_mut().project().desk.as_ref().is_some_and(|desk| desk.is_alive(now));
        let since = self.as_mut().in_flight(number).and_then(|flight| flight.begun(now, alive));
        match (since, self.project().desk) {
            (Some(since), Some(desk)) => desk.ledger.begins_anew(number, since) > now,
            _ => false,
        }
    }

    fn in_flight(self: Pin<&mut Self>, number: u32) -> Option<Pin<&mut Flight<X>>> {
        let this = self.project();
        let beside = this.hedges.iter_mut().map(Pin::as_mut);
        this.flight.as_pin_mut().into_iter().chain(beside).find(|flight| flight.number() == number)
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
    #[cold]
    fn landed(mut self: Pin<&mut Self>, landed: Landed<X>, now: Tick) -> Option<Finished<X>> {
        let this = self.as_mut().project();
        let landed = this.desk.as_mut()?.landed(this.exchange, landed, now)?;
        if self.flight.is_some() || !self.hedges.is_empty() {
            self.as_mut().cancel_losers(landed.number, now);
        }
        let this = self.project();
        this.desk.as_mut()?.answer(this.exchange, landed, now)
    }

    /// Takes the attempts that lost off the wire; a loser says nothing about the server.
    #[cold]
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
            if let Some(desk) = this.desk {
                desk.lost(number, Outcome::Abandoned, now);
            }
        }
    }

    /// The deadline has passed, or nothing can follow.
    #[cold]
    fn over(mut self: Pin<&mut Self>, now: Tick) -> Option<Finished<X>> {
        while let Some(number) = self.first_in_flight() {
            // With less than a chance to answer, it was the caller who was late. With one, what is held against the server is held
            // against the connection: the attempt timeout may be no shorter than the whole call.
            let Some(enough) = self.as_mut().project().desk.as_ref().map(|desk| desk.chance(now)) else {
                break;
            };
            let late = |permit: &Permit| permit.is_late(now.since(permit.started()), enough);
            let expired = self.as_mut().tell_expired(number, now, late);
            let Some(mut permit) = self.as_mut().cancel(number) else { break };
            let Some(desk) = self.as_mut().project().desk else { break };
            let outcome = if expired.unsent {
                permit.settle(&Classified::ABANDONED, now);
                Classified::ABANDONED.outcome
            } else {
                let waited = now.since(permit.started());
                permit.abandon(FailureKind::Timeout, expired.cause, waited, enough, now)
            };
            desk.lost(number, outcome, now);
            desk.cut_short();
        }
        let this = self.project();
        this.desk.as_mut()?.without_answer(this.exchange, now)
    }

    /// Nobody waits any more. What is held against the server is held against the connection, here too.
    #[cold]
    fn left(mut self: Pin<&mut Self>) {
        let now = time::now();
        while let Some(number) = self.first_in_flight() {
            let waited = |permit: &Permit| now.since(permit.started());
            let late = |permit: &Permit| permit.is_late(waited(permit), u64::MAX);
            let expired = self.as_mut().tell_expired(number, now, late);
            let Some(mut permit) = self.as_mut().cancel(number) else { break };
            if expired.unsent {
                permit.settle(&Classified::ABANDONED, now);
            } else {
                permit.abandon(FailureKind::Timeout, expired.cause, waited(&permit), u64::MAX, now);
            }
        }
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

/// Ready with the first attempt, of those sent beside the one in place, that has ended.
#[cold]
fn poll_hedges<X: Exchange>(
    hedges: &mut Vec<Pin<Box<Flight<X>>>>,
    cx: &mut Context<'_>,
    exchange: &mut X,
    view: View<'_>,
) -> Poll<Landed<X>> {
    for (index, hedge) in hedges.iter_mut().enumerate() {
        if let Poll::Ready((brought, classified)) = hedge.as_mut().poll(cx, exchange, view) {
            let mut hedge = hedges.swap_remove(index);
            let (number, permit) = (hedge.number(), hedge.as_mut().take_permit());
            return Poll::Ready(Landed { number, permit, brought, classified });
        }
    }
    Poll::Pending
}

impl<X: Exchange> Future for Call<X> {
    type Output = Finished<X>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What the clock says, if it has been read just now: once for all that follows without waiting.
        let mut looked = None;
        // Whether the timer is set for all that is known.
        let mut timed = true;
        let this = self.as_mut().project();
        if let Some((core, options)) = this.before.take() {
            let now = time::now();
            *this.desk = Some(core.begin(this.exchange, &options, now)?);
            (looked, timed) = (Some(now), false);
        }
        loop {
            // 1. Has an attempt in flight ended?
            if let Poll::Ready(landed) = self.as_mut().poll_flights(cx) {
                let now = time::now();
                if landed.classified.is_success() && self.hedges.is_empty() && self.flight.is_none() {
                    let this = self.as_mut().project();
                    let Some(desk) = this.desk else { return Poll::Pending };
                    return desk.succeeded(this.exchange, landed, now).map_or(Poll::Pending, Poll::Ready);
                }
                if let Some(finished) = self.as_mut().landed(landed, now) {
                    return Poll::Ready(finished);
                }
                (looked, timed) = (Some(now), false);
                continue;
            }
            let mut this = self.as_mut().project();
            let Some(desk) = this.desk else { return Poll::Pending };

            // 2. Is an answer being set aside?
            if desk.poll_aside(cx).is_ready() {
                (looked, timed) = (None, false);
                continue;
            }

            // 3. Nothing new, and the timer knows when there is.
            if timed
                && desk.is_quiet()
                && let Some(timer) = this.timer.as_mut().as_pin_mut()
                && !timer.is_elapsed()
                && timer.poll(cx).is_pending()
            {
                return Poll::Pending;
            }

            // 4. What now? Nothing is sent while an answer is being set aside.
            timed = false;
            let now = *looked.get_or_insert_with(time::now);
            let until = match (desk.ledger.decide(now), desk.patience()) {
                (Decision::Finish, _) => {
                    return self.as_mut().over(now).map_or(Poll::Pending, Poll::Ready);
                }
                (Decision::Expire { number }, _) => {
                    if self.as_mut().is_given_time(number, now) {
                        continue;
                    }
                    if let Some(finished) = self.as_mut().expire(number, now) {
                        return Poll::Ready(finished);
                    }
                    continue;
                }
                (_, Some(patience)) if patience <= now => {
                    desk.lose_patience();
                    continue;
                }
                (Decision::Launch { .. } | Decision::Hedge, Some(patience)) => patience,
                (Decision::Launch { number, trigger }, None) => {
                    let flight = desk.set_out(this.exchange, number, trigger, cx, now);
                    self.as_mut().take_in(flight);
                    continue;
                }
                (Decision::Hedge, None) => {
                    desk.hedge(this.exchange, now);
                    continue;
                }
                (Decision::WaitUntil(until), Some(patience)) => patience.min(until),
                (Decision::WaitUntil(until), None) => {
                    if let Poll::Ready(flight) = desk.poll_entry(this.exchange, cx, now) {
                        self.as_mut().take_in(flight);
                        continue;
                    }
                    desk.entry_until().min(until)
                }
            }
            .min(desk.ledger.terms().deadline);
            if self.as_mut().poll_timer(cx, until).is_pending() {
                return Poll::Pending;
            }
            looked = None;
        }
    }
}

#[cfg(test)]
mod tests;
