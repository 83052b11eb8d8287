//! One call, from its request to its response.
//!
//! The loop in [`Call::poll`] is the only place that waits. It reads from top to bottom: has the attempt in flight
//! ended, is an answer being set aside, and if neither has anything new, what does the ledger say. There is one timer,
//! made only when something really has to be waited for.

pub(crate) mod body;
pub(crate) mod core;
mod drain;
pub(crate) mod ledger;
pub(crate) mod options;
pub(crate) mod report;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use self::body::Guard;
use self::drain::Drain;
use self::ledger::{Decision, Ledger, Next, Terms, World};
use self::report::{CallReport, Decline, Trigger};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::outcome::classify::Classified;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::retry;
use crate::time::{self, Tick};
use crate::transport::{Exchange, KeptBody};
use crate::upstream::{Permit, Rejection, Upstream};

pin_project! {
    /// One call in progress. Dropping it at any point gives back whatever it holds.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Call<X: Exchange> {
        exchange: X,
        upstream: Arc<Upstream>,
        ledger: Ledger,
        terms: Terms,
        body_idle: u64,
        report: Option<CallReport>,
        // The attempt in flight: its future, and its place in the upstream.
        #[pin]
        attempt: Option<X::Future>,
        permit: Option<Permit>,
        // The last real response, being set aside or set aside.
        drain: Option<Drain<X::Head, X::Body>>,
        kept: Option<(X::Head, KeptBody)>,
        // How the last attempt without a response failed.
        fault: Option<Error>,
        rejection: Option<Rejection>,
        #[pin]
        timer: Option<Sleep>,
    }

    impl<X: Exchange> PinnedDrop for Call<X> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if this.ledger.take_reserved() {
                this.upstream.budget().refund();
            }
        }
    }
}

/// What every call starts from.
pub(crate) struct Start<X> {
    pub(crate) exchange: X,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) terms: Terms,
    /// The longest pause in the response's body, in nanoseconds.
    pub(crate) body_idle: u64,
    pub(crate) now: Tick,
}

type Outcomes<X> = Result<<X as Exchange>::Response, Error>;

impl<X: Exchange> Call<X> {
    pub(crate) fn new(start: Start<X>) -> Self {
        let Start { exchange, upstream, terms, body_idle, now } = start;
        let report = CallReport::new(Arc::clone(upstream.name()), now);
        Self {
            exchange,
            ledger: Ledger::new(terms, now),
            terms,
            body_idle,
            report: Some(report),
            attempt: None,
            permit: None,
            drain: None,
            kept: None,
            fault: None,
            rejection: None,
            timer: None,
            upstream,
        }
    }

    /// Sends the attempt the ledger decided on, if the upstream admits it.
    fn launch(self: Pin<&mut Self>, number: u32, trigger: Trigger, now: Tick) {
        let mut this = self.project();
        let permit = match this.upstream.admit(this.ledger.is_extra(), now) {
            Ok(permit) => permit.numbered(number),
            Err(rejection) => {
                this.upstream.emit(|| Event::Rejected { rejection });
                *this.rejection = Some(rejection);
                if number > 1 {
                    decline(this.upstream, this.report, Decline::Rejected(rejection));
                }
                // The token of an attempt that was never sent goes back.
                if this.ledger.take_reserved() {
                    this.upstream.budget().refund();
                }
                this.ledger.rejected();
                return;
            }
        };
        let last = this.ledger.is_last();
        let Some(attempt) = this.exchange.launch(number, last) else {
            this.ledger.rejected();
            return;
        };
        this.attempt.set(Some(attempt));
        *this.permit = Some(permit);
        this.ledger.launched(now);
        if let Some(report) = this.report {
            report.launched(number, trigger, now);
        }
        this.upstream.emit(|| Event::AttemptStarted { number, trigger });
    }

    /// The attempt in flight ended. Ready with the call's result, unless another attempt follows.
    fn settle(
        mut self: Pin<&mut Self>,
        end: Result<X::Answer, Error>,
        classified: &Classified,
        now: Tick,
    ) -> Option<Outcomes<X>> {
        let this = self.as_mut().project();
        let mut permit = this.permit.take()?;
        let (outcome, status) = (classified.outcome, classified.status);
        if let Some(report) = this.report {
            report.settled(this.ledger.attempts(), outcome, status, now);
        }
        if outcome == Outcome::Success {
            // A head that is fine leaves the verdict to its body.
            this.ledger.succeeded();
        } else {
            permit.settle(outcome, classified.verdict, status, now);
            if let Some(asked) = holds_everyone_back(classified, this.terms.retry) {
                this.upstream.hold_back(asked, now);
            }
            let world = World {
                budget: this.upstream.budget(),
                circuit_open: this.upstream.is_circuit_open(now),
                rng: &mut this.upstream.entropy().rng(),
            };
            match this.ledger.failed(classified, now, world) {
                Next::Retry { number, delay } => {
                    this.upstream.emit(|| Event::RetryScheduled { number, delay, after: outcome });
                    match end {
                        Ok(answer) => {
                            let (head, body) = X::dismantle(answer);
                            *this.drain = Some(Drain::new(head, body, permit, now));
                        }
                        Err(error) => *this.fault = Some(error),
                    }
                    return None;
                }
                Next::GiveUp(why) => decline(this.upstream, this.report, why),
            }
        }
        match end {
            Ok(answer) => {
                let mut report = this.report.take()?;
                report.finish(now, false);
                let guard = Guard::new(permit, report, status, this.terms.deadline, *this.body_idle);
                Some(Ok(X::seal(answer, guard)))
            }
            Err(error) => {
                *this.fault = Some(error);
                drop(permit);
                self.without_answer(now)
            }
        }
    }

    /// The result of a call whose last attempt brought no response: the last real response there was, else the error.
    fn without_answer(self: Pin<&mut Self>, now: Tick) -> Option<Outcomes<X>> {
        let this = self.project();
        let mut report = this.report.take()?;
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
    fn over(mut self: Pin<&mut Self>, now: Tick) -> Option<Outcomes<X>> {
        let mut this = self.as_mut().project();
        if let Some(mut permit) = this.permit.take() {
            // An attempt that the deadline cuts short has had its chance once half an attempt's time has gone by; with
            // less, it was the caller who was late.
            let enough = this.terms.attempt_timeout / 2;
            let outcome = permit.abandon(FailureKind::Timeout, permit.started(), enough, now);
            if let Some(report) = this.report {
                report.settled(this.ledger.attempts(), outcome, None, now);
            }
            this.attempt.set(None);
            *this.fault = Some(Error::new(ErrorKind::Deadline));
        }
        if let Some(drain) = this.drain.take().as_mut() {
            *this.kept = drain.finish(true);
        }
        self.without_answer(now)
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

fn decline(upstream: &Upstream, report: &mut Option<CallReport>, why: Decline) {
    upstream.emit(|| Event::RetryDeclined { why: why.clone() });
    if let Some(report) = report {
        report.decline(why);
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
    type Output = Outcomes<X>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            // 1. Has the attempt in flight ended?
            let mut this = self.as_mut().project();
            if let Some(attempt) = this.attempt.as_mut().as_pin_mut()
                && let Poll::Ready(end) = attempt.poll(cx)
            {
                this.attempt.set(None);
                let now = time::now();
                let classified = this.exchange.classify(&end);
                let end = end.map_err(|fault| Error::attempt(classified.outcome).because(fault));
                if let Some(result) = self.as_mut().settle(end, &classified, now) {
                    return Poll::Ready(result);
                }
                continue;
            }

            // 2. Is an answer being set aside? Nothing is sent before that is done.
            if let Some(drain) = this.drain
                && let Poll::Ready(kept) = drain.poll(cx)
            {
                *this.drain = None;
                *this.kept = kept;
                continue;
            }

            // 3. What now?
            let now = time::now();
            let until = match (this.ledger.decide(now), this.drain.as_mut()) {
                (Decision::Finish, _) => {
                    return match self.as_mut().over(now) {
                        Some(result) => Poll::Ready(result),
                        None => Poll::Pending,
                    };
                }
                (_, Some(drain)) if drain.until() <= now => {
                    *this.kept = drain.finish(true);
                    *this.drain = None;
                    continue;
                }
                (_, Some(drain)) => drain.until().min(this.terms.deadline),
                (Decision::Launch { number, trigger }, None) => {
                    self.as_mut().launch(number, trigger, now);
                    continue;
                }
                (Decision::Expire, None) => {
                    this.attempt.set(None);
                    let end = Err(Error::new(ErrorKind::Timeout));
                    if let Some(result) = self.as_mut().settle(end, &Classified::TIMEOUT, now) {
                        return Poll::Ready(result);
                    }
                    continue;
                }
                (Decision::WaitUntil(until), None) => until,
            };
            if self.as_mut().poll_timer(cx, until).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests;
