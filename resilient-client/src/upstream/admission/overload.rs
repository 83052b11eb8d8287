//! The overload limit's say in admission.

use std::sync::Arc;
use std::time::Duration;

use super::{Admission, Ask, InRate, Patience, Stage, Stuck};
use crate::event::Event;
use crate::outcome::rejection::Rejection;
use crate::policy::breaker::Rejected;
use crate::policy::overload::{Ended, NoPlace};
use crate::policy::plan::Modes;
use crate::policy::priority::Priority;
use crate::time::{Tick, nanos};
use crate::upstream::endpoints::{Balancer, Heeds, Seek};
use crate::upstream::{Part, Upstream};

impl Upstream {
    /// With the breaker open, or each endpoint's, a place would be of no use: the call is turned
    /// away by that.
    pub(super) fn is_of_no_use(&self, ask: &Ask<'_>, now: Tick) -> Option<Stuck> {
        if let Some(Rejected { retry_after }) = self.breaker.rejects_now(now) {
            self.breaker.turn_away();
            return Some(Rejection::CircuitOpen { retry_after }.into());
        }
        let balancer = self.balancer.as_ref().filter(|_| self.is_circuit_open(now))?;
        // One may have come since, or a breaker let somebody in: nobody was asked for that.
        self.choose_endpoint(balancer, ask, now).map(|mut place| place.unsent()).err()
    }

    /// A place, if there is one. A hedge is against one answer that is late: where all are it would
    /// be one more that waits, long before that is a silence.
    #[inline]
    pub(super) fn take_place(&self, ask: &Ask<'_>, gate: Part, now: Tick) -> Result<(), NoPlace> {
        let overload = self.overload(gate);
        if ask.patience == Patience::None && overload.has_gone_quiet(now) {
            return Err(NoPlace::Silent);
        }
        overload.try_acquire(ask.priority, now)
    }

    /// There is no place. With the breaker open none would be of use.
    #[cold]
    pub(super) fn judge_overload(
        &self,
        ask: &Ask<'_>,
        gate: Part,
        why: NoPlace,
        now: Tick,
    ) -> Result<(), Stuck> {
        if let Some(refused) = self.is_of_no_use(ask, now) {
            return Err(refused);
        }
        let limit = match why {
            NoPlace::Full { limit } => limit,
            NoPlace::Silent => return self.judge_silence(ask, gate, now),
        };
        let rejection = Rejection::Overloaded { limit, waited: Duration::ZERO };
        match self.judge(rejection, Modes::OVERLOAD_OBSERVES) {
            Ok(()) => {
                self.overload(gate).overrun();
                Ok(())
            }
            Err(_) => Err(Stuck::Overloaded(limit)),
        }
    }

    /// There is a place, and those in flight should have been answered by now.
    fn judge_silence(&self, ask: &Ask<'_>, gate: Part, now: Tick) -> Result<(), Stuck> {
        self.found_silent(gate, now);
        // Probes are few, and what they are for is to find out.
        let stays_back =
            ask.patience != Patience::Over && self.breaker.takes_any() && !self.overload(gate).scouts(now);
        if stays_back && self.heeds_silence(ask) {
            return Err(Stuck::Silent);
        }
        if stays_back {
            self.would_wait(ask, gate);
        }
        self.overload(gate).overrun();
        Ok(())
    }

    /// The policy only observes: an attempt would have waited for an answer, or, as a hedge, been
    /// refused.
    fn would_wait(&self, ask: &Ask<'_>, gate: Part) {
        if ask.patience == Patience::None || self.line(gate).is_open() {
            self.emit(|| Event::WouldReject { rejection: Rejection::Silent });
        }
    }

    /// With several endpoints the same.
    #[cold]
    pub(super) fn observe_silence(&self, balancer: &Balancer, ask: &Ask<'_>, seek: &Seek<'_>, now: Tick) {
        let heeding = Seek { heeds: Heeds::Silence, ..*seek };
        if ask.patience != Patience::Over && balancer.set().keeps_back(&heeding, now) {
            self.would_wait(ask, self.gate());
        }
    }

    /// An attempt found it silent.
    #[cold]
    fn found_silent(&self, gate: Part, now: Tick) {
        if let Some(duration) = self.overload(gate).notes_silence(now) {
            self.behind_gate(gate).emit(|| Event::Silence { silent: true, duration });
        }
    }

    /// Attempts wait, of a silence perhaps that was hidden by a limit.
    #[cold]
    fn tell_silence(&self, gate: Part, now: Tick) {
        match &self.balancer {
            None => self.found_silent(gate, now),
            Some(balancer) => balancer.set().tell_silence(now),
        }
    }

    /// A place was given back that somebody may wait for; or it was silent, and has answered.
    #[cold]
    pub(in crate::upstream) fn given_back(&self, gate: Part, ended: Ended, now: Tick) {
        if ended == Ended::Answered
            && let Some(duration) = self.overload(gate).notes_answer(now)
        {
            self.behind_gate(gate).emit(|| Event::Silence { silent: false, duration });
        }
        self.line(gate).wake();
    }

    /// Whether an attempt stays back while the upstream is silent.
    pub(super) fn heeds_silence(&self, ask: &Ask<'_>) -> bool {
        ask.patience != Patience::Over && !self.modes().has(Modes::OVERLOAD_OBSERVES)
    }

    /// Waits in line where it may and can. Nobody is refused for a silence but a hedge.
    #[cold]
    pub(super) fn stand_in_line(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        rate: Option<InRate>,
        limit: u32,
        since: Tick,
        now: Tick,
    ) -> Admission {
        let gate = self.gate();
        let is_silence = self.is_silence(gate, now);
        if is_silence {
            self.tell_silence(gate, now);
        }
        // What only may be late isn't given up for it: half of the time is kept for the attempt.
        let half = now.after_nanos(nanos(now.until(ask.deadline)) / 2);
        let until = if is_silence { half } else { ask.deadline };
        let may_wait = ask.patience == Patience::Waits;
        let waiter = if may_wait { self.line(gate).join(ask.priority, now, until) } else { None };
        match waiter {
            Some(waiter) => {
                if is_silence && self.is_scout_due(gate, now) {
                    self.line(gate).wake();
                }
                self.wait(ask, rate, since, Stage::Line(waiter, gate))
            }
            None if may_wait && is_silence => {
                let ask = Ask { patience: Patience::Over, ..*ask };
                match self.try_enter(&ask, now) {
                    Ok(permit) => Admission::Admitted(permit),
                    Err(stuck) => self.stuck(&ask, rate, stuck, since, now),
                }
            }
            None if is_silence => self.refuse(rate, Rejection::Silent),
            None => self.refuse(rate, Rejection::Overloaded { limit, waited: now.since(since) }),
        }
    }

    /// Whether what keeps attempts waiting is a silence: of an upstream without a limit in force
    /// or, with several endpoints, of one of them. Nobody is refused for that.
    pub(super) fn is_silence(&self, gate: Part, now: Tick) -> bool {
        !self.is_overloaded()
            || match &self.balancer {
                None => self.overload(gate).is_silent(now),
                Some(balancer) => balancer.set().is_silent(now),
            }
    }

    /// Whether the next in line may find out if somebody is silent still.
    pub(super) fn is_scout_due(&self, gate: Part, now: Tick) -> bool {
        match &self.balancer {
            None => self.overload(gate).is_scout_due(now),
            Some(balancer) => balancer.set().is_scout_due(now),
        }
    }

    /// What keeps it from an endpoint.
    pub(super) fn heeds(&self, ask: &Ask<'_>) -> Heeds {
        if !self.modes().has(Modes::OVERLOAD) {
            Heeds::Nothing
        } else if self.heeds_silence(ask) {
            Heeds::Silence
        } else {
            Heeds::Limit
        }
    }

    /// Whether the limit is in force: of the upstream or, with several endpoints, of any of them.
    pub(super) fn is_overloaded(&self) -> bool {
        match &self.balancer {
            None => self.overload(self.gate()).limit().is_some(),
            Some(balancer) => balancer.set().is_overloaded(),
        }
    }

    /// Whether the next in line would find a place.
    pub(super) fn has_room(&self, gate: Part, priority: Priority, now: Tick) -> bool {
        match &self.balancer {
            None => self.overload(gate).place(priority, now).is_ok(),
            Some(balancer) => balancer.set().has_place(priority, now),
        }
    }
}
