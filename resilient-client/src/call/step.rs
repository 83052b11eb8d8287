//! A call's next step: what the ledger decides, as far as it can be done at once.

use std::pin::Pin;
use std::task::Context;

use super::attempt::RunningAttempt;
use super::exchange::Exchange;
use super::ledger::Decision;
use super::state::CallState;
use crate::telemetry::AttemptSpan;
use crate::time::Tick;

/// What is to be done next.
pub(super) enum Step {
    /// Something has changed.
    LookAgain,
    /// Nothing, before then.
    Wait(Tick),
    /// End the attempt of this number: its time is up.
    Expire(u32),
    /// End the call: nothing can follow.
    Finish,
}

/// Asks the ledger, and does what it says if that is to send an attempt. Nothing is sent while an
/// answer is being set aside.
#[allow(clippy::inline_always, reason = "an attempt that it sends is large, and is put in its place at once")]
#[inline(always)]
pub(super) fn next_step<X: Exchange>(
    state: &mut CallState<X>,
    exchange: &mut X,
    room: Room<'_, X>,
    cx: &mut Context<'_>,
    now: Tick,
) -> Step {
    let until = match (state.ledger.decide(now), state.drain_until()) {
        (Decision::Finish, _) => return Step::Finish,
        (Decision::Expire { number }, _) => return Step::Expire(number),
        (_, Some(drain_until)) if drain_until <= now => {
            state.stop_draining();
            return Step::LookAgain;
        }
        (Decision::Launch { .. } | Decision::Hedge, Some(drain_until)) => drain_until,
        (Decision::Launch { number, trigger }, None) => {
            state.set_out(exchange, number, trigger, room, cx, now);
            return Step::LookAgain;
        }
        (Decision::Hedge, None) => {
            state.hedge(exchange, now);
            return Step::LookAgain;
        }
        (Decision::WaitUntil(until), Some(drain_until)) => drain_until.min(until),
        (Decision::WaitUntil(until), None) => {
            if state.poll_entry(exchange, room, cx, now).is_ready() {
                return Step::LookAgain;
            }
            state.entry_until().min(until)
        }
    };
    Step::Wait(until.min(state.ledger.terms().deadline))
}

/// Where attempts in flight are: one in place, and others beside it.
pub(super) struct Room<'a, X: Exchange> {
    pub(super) in_place: Pin<&'a mut Option<RunningAttempt<X>>>,
    pub(super) hedges: &'a mut Vec<Pin<Box<RunningAttempt<X>>>>,
}

impl<X: Exchange> Room<'_, X> {
    /// The span of an attempt that is in flight.
    pub(super) fn span(&self) -> Option<&AttemptSpan> {
        let in_place = self.in_place.as_ref().get_ref().as_ref();
        in_place.or_else(|| self.hedges.first().map(|hedge| hedge.as_ref().get_ref()))?.span()
    }

    /// Takes an attempt in that has been sent off.
    #[allow(clippy::inline_always, reason = "an attempt is large")]
    #[inline(always)]
    pub(super) fn take_in(mut self, attempt: RunningAttempt<X>) {
        if self.in_place.is_none() {
            self.in_place.set(Some(attempt));
        } else {
            self.hedges.push(Box::pin(attempt));
        }
    }
}
