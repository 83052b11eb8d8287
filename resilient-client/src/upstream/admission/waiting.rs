//! An attempt that waits to be let in, and what it does when it is its turn.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Admission, Ask, InRate, Patience, Refusal, Stage, Stuck, Waiting};
use crate::endpoints::NoEndpoint;
use crate::event::WaitsFor;
use crate::outcome::rejection::Rejection;
use crate::policy::breaker::Rejected;
use crate::policy::bulkhead::{WaitOver, Waiter};
use crate::time::{self, Tick};
use crate::upstream::{AttemptPermit, Part, Upstream};

impl Waiting {
    /// When to poll at the latest.
    pub(crate) fn until(&self) -> Tick {
        match &self.stage {
            Stage::Names(_) => Tick::NEVER,
            Stage::Rate(turn, _) => turn.until(),
            Stage::Slot(waiter, _) | Stage::Line(waiter, _) => waiter.until(),
            Stage::Ready(waiter) => waiter.until(),
            Stage::Over => Tick::ZERO,
        }
    }

    /// Why there is nowhere to go yet, while it waits for the addresses of a name.
    #[cold]
    pub(crate) fn unresolved(&self, now: Tick) -> Option<NoEndpoint> {
        let Stage::Names(_) = self.stage else { return None };
        let host = self.upstream.host().map_or("its name", |authority| authority.host());
        Some(NoEndpoint::unanswered(host, now.since(self.since)))
    }

    /// What it waits for now.
    #[cold]
    pub(crate) fn waits_for(&self, now: Tick) -> WaitsFor {
        match &self.stage {
            Stage::Names(_) => WaitsFor::Addresses,
            Stage::Rate(..) => WaitsFor::Rate,
            Stage::Slot(..) | Stage::Over => WaitsFor::Place,
            Stage::Line(_, gate) if self.upstream.is_silence(*gate, now) => WaitsFor::Answer,
            Stage::Line(..) => WaitsFor::Overload,
            Stage::Ready(_) => WaitsFor::Breaker,
        }
    }

    /// Whether it waits for the addresses of a name.
    pub(crate) fn is_for_names(&self) -> bool {
        matches!(self.stage, Stage::Names(_))
    }

    /// Since when it waits.
    pub(crate) fn since(&self) -> Tick {
        self.since
    }

    /// Ready with a place or a refusal. Past the deadline it is never ready: nobody has a use for a
    /// place then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Tick) -> Poll<Result<AttemptPermit, Refusal>> {
        if now >= self.deadline {
            return Poll::Pending;
        }
        let mut has_gone = false;
        loop {
            if let Some(retry_after) = self.is_held(cx, now) {
                self.leave(|| now);
                return Poll::Ready(Err(Rejection::HeldBack { retry_after }.into()));
            }
            match ready!(self.poll_stage(&mut has_gone, cx, now)) {
                Admission::Admitted(permit) => return Poll::Ready(Ok(permit)),
                Admission::Refused(why) => return Poll::Ready(Err(why)),
                Admission::Waits(mut next) => {
                    // What that one holds moves here, and leaves nothing for it to give back.
                    self.rate = next.rate.take();
                    self.patience = next.patience;
                    self.stage = std::mem::replace(&mut next.stage, Stage::Over);
                }
            }
        }
    }

    /// Ready when what it waits for is over, with where that leads. `has_gone`: it has been let go
    /// by a breaker in this poll.
    fn poll_stage(&mut self, has_gone: &mut bool, cx: &mut Context<'_>, now: Tick) -> Poll<Admission> {
        let (upstream, since) = (&self.upstream, self.since);
        let Self { priority, deadline, repeatable, patience, for_ready, place, .. } = *self;
        let tried = &self.tried;
        let ask = Ask { priority, deadline, tried, repeatable, patience, for_ready, place };
        let admission = match &mut self.stage {
            Stage::Names(names) => match ready!(names.as_mut().poll(cx)) {
                Ok(()) => upstream.admit_to_rate(&ask, since, now),
                Err(cause) => {
                    let rejection = Rejection::NoEndpoint;
                    Admission::Refused(Refusal { rejection, cause: Some(cause) })
                }
            },
            Stage::Rate(turn, whose) => {
                let whose = *whose;
                let place = ready!(upstream.rate_limit(whose).poll_turn(turn, cx, now));
                upstream.admit_to_bulkhead(&ask, Some(InRate { place, whose }), since, now)
            }
            Stage::Slot(waiter, slot) => {
                let waited = ready!(upstream.bulkhead(*slot).poll_wait(waiter, cx, now));
                upstream.admit_from_queue(&ask, *slot, waited, self.rate.take(), since, now)
            }
            Stage::Line(waiter, gate) => {
                let turn = ready!(upstream.poll_line(waiter, *gate, &ask, since, cx, now));
                upstream.admit_from_line(&ask, turn, self.rate.take(), since, now)
            }
            Stage::Ready(waiter) => {
                let refused = ready!(upstream.poll_ready(waiter, *has_gone, cx, now));
                *has_gone = true;
                upstream.ready.leave(waiter);
                let place = Some(waiter.place());
                match refused {
                    None => upstream.admit(Ask { place, ..ask }, now),
                    Some(Rejected { retry_after }) => {
                        Admission::Refused(Rejection::CircuitOpen { retry_after }.into())
                    }
                }
            }
            Stage::Over => return Poll::Pending,
        };
        if let Stage::Ready(waiter) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.place = Some(waiter.place());
        }
        Poll::Ready(admission)
    }

    /// For how long a server holds everybody back, asked at every door and whenever that begins.
    fn is_held(&mut self, cx: &mut Context<'_>, now: Tick) -> Option<Duration> {
        while self.held.as_mut().poll(cx).is_ready() {
            self.held = self.upstream.next_hold();
        }
        // Whether there is anybody to ask isn't known before there are addresses.
        if matches!(self.stage, Stage::Names(_) | Stage::Over) { None } else { self.upstream.held_for(now) }
    }

    /// Leaves whatever line it stands in.
    fn leave(&mut self, now: impl FnOnce() -> Tick) {
        match &self.stage {
            Stage::Slot(waiter, slot) => self.upstream.bulkhead(*slot).leave(waiter, now),
            Stage::Line(waiter, gate) => self.upstream.line(*gate).leave(waiter, true),
            Stage::Rate(turn, whose) => self.upstream.rate_limit(*whose).leave(turn, now),
            Stage::Ready(waiter) => self.upstream.ready.leave(waiter),
            Stage::Names(_) | Stage::Over => {}
        }
        self.stage = Stage::Over;
        self.upstream.give_rate_back(self.rate.take());
    }
}

impl Upstream {
    /// Who waited for a slot of the bulkhead has one, or has waited in vain.
    fn admit_from_queue(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        slot: Part,
        waited: Result<(), WaitOver>,
        rate: Option<InRate>,
        since: Tick,
        now: Tick,
    ) -> Admission {
        if let Err(over) = waited {
            let (waited, displaced) = (now.since(since), over == WaitOver::Displaced);
            return self.refuse(rate, Rejection::QueueWait { waited, displaced });
        }
        match self.get_in(ask, slot, now) {
            Ok(permit) => Admission::Admitted(permit),
            Err(stuck) => self.stuck(ask, rate, stuck, since, now),
        }
    }

    /// Who waited in line has a place, or is refused.
    fn admit_from_line(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        turn: Result<AttemptPermit, Stuck>,
        rate: Option<InRate>,
        since: Tick,
        now: Tick,
    ) -> Admission {
        match turn {
            Ok(permit) => Admission::Admitted(permit),
            // Who has waited for the end of a silence may have to wait for the bulkhead.
            Err(stuck) => self.stuck(&Ask { patience: Patience::Over, ..*ask }, rate, stuck, since, now),
        }
    }

    /// Ready when who waits in line has left it: with a place, or refused.
    fn poll_line(
        self: &Arc<Self>,
        waiter: &Waiter,
        gate: Part,
        ask: &Ask<'_>,
        since: Tick,
        cx: &Context<'_>,
        now: Tick,
    ) -> Poll<Result<AttemptPermit, Stuck>> {
        let (line, waited) = (self.line(gate), now.since(since));
        if let Err(over) = ready!(line.poll(waiter, cx, now)) {
            line.leave(waiter, true);
            let refused = |over| match over {
                WaitOver::Displaced => Rejection::QueueWait { waited, displaced: true }.into(),
                WaitOver::Expired => Rejection::Overloaded { limit: 0, waited }.into(),
            };
            if !self.is_silence(gate, now) {
                return Poll::Ready(Err(refused(over)));
            }
            let ask = Ask { patience: Patience::Over, ..*ask };
            let turn = self.try_enter(&ask, now);
            return Poll::Ready(turn.map_err(|stuck| match stuck {
                Stuck::Overloaded(_) => refused(over),
                stuck => stuck,
            }));
        }
        match self.try_enter(ask, now) {
            Ok(permit) => {
                line.leave(waiter, self.has_room(gate, ask.priority, now));
                Poll::Ready(Ok(permit))
            }
            Err(refused @ Stuck::Refused(_)) => {
                line.leave(waiter, true);
                Poll::Ready(Err(refused))
            }
            Err(Stuck::Overloaded(_) | Stuck::NoSlot(_) | Stuck::Silent) => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leave(time::now);
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Names(_) => "Waiting(for addresses)",
            Stage::Rate(..) => "Waiting(for its turn)",
            Stage::Slot(..) => "Waiting(for a place)",
            Stage::Line(..) => "Waiting(in line)",
            Stage::Ready(_) => "Waiting(for the breaker)",
            Stage::Over => "Waiting(for nothing)",
        })
    }
}
