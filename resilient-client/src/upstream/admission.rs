//! An attempt's way in: through every machine that may refuse it, or make it wait.
//!
//! The order is fixed, and described at [`policy`](crate::policy#the-order-in-which-they-act). What
//! an attempt took on the way, it gives back when something further on refuses it, or when it is
//! dropped while it waits.
//!
//! What held at the door may not hold any more when a wait is over, so it is asked again after
//! each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::attempt_permit::Beside;
use super::endpoints::{Shut, Trial};
use super::{AttemptPermit, Part, Upstream};
use crate::endpoints::NoEndpoint;
use crate::event::Event;
use crate::outcome::rejection::Rejection;
use crate::policy::breaker::{ForReady, Place, ReadyWaiter, Rejected};
use crate::policy::bulkhead::{Full, Waiter};
use crate::policy::overload::Ended;
use crate::policy::plan::Modes;
use crate::policy::priority::Priority;
use crate::policy::rate_limit::{Limited, Reservation, Turn};
use crate::time::{self, Tick, nanos};

/// Whether an attempt may wait for a place while the upstream is overloaded or silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It may.
    Waits,
    /// A hedge may not: it would be one more in a queue.
    None,
    /// It has, or can't, and goes to a silent upstream all the same.
    Over,
}

/// What an attempt says of itself when it asks to be let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) priority: Priority,
    /// It has no use for a place after this.
    pub(crate) deadline: Tick,
    /// The endpoints that other attempts of its call went to.
    pub(crate) tried: &'a [Trial],
    /// Another attempt could follow, whatever comes of this one.
    pub(crate) repeatable: bool,
    pub(crate) patience: Patience,
    /// What it waits for rather than be refused by the breaker.
    pub(crate) for_ready: ForReady,
    /// Where it stood among those.
    pub(crate) place: Option<Place>,
}

impl Ask<'_> {
    /// A first attempt that waits for nothing.
    #[cfg(any(test, feature = "__testkit"))]
    pub(crate) fn plainly() -> Self {
        let (priority, deadline) = (Priority::Normal, Tick::NEVER);
        let place = None;
        let patience = Patience::Waits;
        Ask { priority, deadline, tried: &[], repeatable: false, patience, for_ready: ForReady::Never, place }
    }
}

/// A place in the rate, and whose rate that is: the one it goes back to.
#[derive(Debug)]
struct InRate {
    place: Reservation,
    whose: Part,
}

/// The endpoints of a call's attempts.
pub(crate) type Tried = Vec<Trial>;

/// A refusal, and what is behind it where that is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) rejection: Rejection,
    pub(crate) cause: Option<NoEndpoint>,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, cause: None }
    }
}

/// Why an attempt doesn't get in now.
#[derive(Debug)]
enum Stuck {
    Refused(Refusal),
    /// Every slot of the bulkhead is taken, so many of this class.
    NoSlot(u32),
    /// As many attempts are in flight as can be answered in time, so many of this class.
    Overloaded(u32),
    /// Those in flight should have been answered by now.
    Silent,
}

impl From<Rejection> for Stuck {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection.into())
    }
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Admission {
    Admitted(AttemptPermit),
    Refused(Refusal),
    /// Neither yet. Boxed, because few have to.
    Waits(Box<Waiting>),
}

/// An attempt on its way in. Dropped, it leaves whatever line it stands in.
pub(crate) struct Waiting {
    upstream: Arc<Upstream>,
    priority: Priority,
    deadline: Tick,
    tried: Tried,
    repeatable: bool,
    patience: Patience,
    for_ready: ForReady,
    place: Option<Place>,
    since: Tick,
    /// Ready when the server has asked everybody to stay away: waiting attempts are refused at
    /// once.
    held: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Its place in the rate, which a refusal further on gives back.
    rate: Option<InRate>,
    stage: Stage,
}

/// What it waits for.
enum Stage {
    /// The addresses behind the upstream's name.
    Names(Pin<Box<dyn Future<Output = Result<(), NoEndpoint>> + Send>>),
    /// Its turn in the rate.
    Rate(Arc<Turn>, Part),
    /// A place in the bulkhead.
    Slot(Arc<Waiter>, Part),
    /// Any place that an overloaded upstream, or one of its endpoints, has.
    Line(Arc<Waiter>, Part),
    /// A breaker that lets it go.
    Ready(Arc<ReadyWaiter>),
    /// Nothing any more.
    Over,
}

impl Upstream {
    /// A place for one attempt in every machine, or the first refusal.
    pub(crate) fn admit(self: &Arc<Self>, ask: Ask<'_>, now: Tick) -> Admission {
        self.touch(now);
        if let Some(balancer) = &self.balancer
            && !balancer.is_fresh(now)
        {
            let balancer = Arc::clone(balancer);
            let names = Stage::Names(Box::pin(async move { balancer.ready(now).await }));
            return self.wait(&ask, None, now, names);
        }
        self.admit_to_rate(&ask, now, now)
    }

    fn wait(self: &Arc<Self>, ask: &Ask<'_>, rate: Option<InRate>, since: Tick, stage: Stage) -> Admission {
        let Ask { priority, deadline, repeatable, patience, for_ready, place, .. } = *ask;
        Admission::Waits(Box::new(Waiting {
            upstream: Arc::clone(self),
            priority,
            deadline,
            tried: ask.tried.into(),
            repeatable,
            patience,
            for_ready,
            place,
            since,
            held: self.next_hold(),
            rate,
            stage,
        }))
    }

    /// Ready when a server's `Retry-After` begins to hold everybody back.
    fn next_hold(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let upstream = Arc::clone(self);
        Box::pin(async move { upstream.hold_begins().notified().await })
    }

    /// How long a server's `Retry-After` still holds everybody back. With several endpoints it does
    /// only when there is nobody else to ask.
    fn held_for(&self, now: Tick) -> Option<Duration> {
        match &self.balancer {
            None => Some(now.until(self.held_until())).filter(|held| !held.is_zero()),
            Some(balancer) => match balancer.set().shut(now) {
                Some(Shut::Held(held)) => Some(held),
                Some(Shut::Open(_) | Shut::Empty | Shut::Full(_) | Shut::Silent) | None => None,
            },
        }
    }

    fn admit_to_rate(self: &Arc<Self>, ask: &Ask<'_>, since: Tick, now: Tick) -> Admission {
        // With several endpoints whoever asked for time is passed over when one is chosen.
        let held_until = self.held_until();
        if now < held_until {
            return Admission::Refused(Rejection::HeldBack { retry_after: now.until(held_until) }.into());
        }
        if self.throttle().is_on()
            && let Err(why) = self.ask_throttle(now)
        {
            return Admission::Refused(why.into());
        }
        if self.rate_limit(self.rate()).is_unlimited() {
            return self.admit_to_bulkhead(ask, None, since, now);
        }
        let (whose, waits) = (self.rate(), self.modes().has(Modes::RATE_WAITS));
        let limit = self.rate_limit(whose);
        let limited = match limit.take(now) {
            Ok(place) => return self.admit_to_bulkhead(ask, Some(InRate { place, whose }), since, now),
            Err(limited) if !waits || self.modes().has(Modes::RATE_OBSERVES) => limited,
            Err(_) => match limit.enqueue(now, nanos(now.until(ask.deadline))) {
                Ok(turn) => return self.wait(ask, None, since, Stage::Rate(turn, whose)),
                Err(limited) => limited,
            },
        };
        let Limited { retry_after } = limited;
        match self.judge(Rejection::RateLimited { retry_after }, Modes::RATE_OBSERVES) {
            Ok(()) => self.admit_to_bulkhead(ask, None, since, now),
            Err(why) => Admission::Refused(why.into()),
        }
    }

    /// A place at once, or none.
    #[cfg(any(test, feature = "__testkit"))]
    pub(crate) fn place(self: &Arc<Self>, now: Tick) -> Option<AttemptPermit> {
        match self.admit(Ask::plainly(), now) {
            Admission::Admitted(permit) => Some(permit),
            Admission::Refused(_) | Admission::Waits(_) => None,
        }
    }

    fn ask_throttle(&self, now: Tick) -> Result<(), Rejection> {
        let draw = self.entropy.rng().unit();
        let refused = |probability: f64| Rejection::Throttled { percent: (probability * 100.0) as u8 };
        if self.modes().has(Modes::THROTTLE_OBSERVES) {
            let probability = self.throttle().probability(now);
            return if draw < probability {
                self.judge(refused(probability), Modes::THROTTLE_OBSERVES)
            } else {
                Ok(())
            };
        }
        self.throttle().admit(now, draw).map_err(|throttled| refused(throttled.probability))
    }

    /// A refusal; but of a policy that only observes, an event and nothing else.
    fn judge(&self, rejection: Rejection, observes: Modes) -> Result<(), Rejection> {
        if !self.modes().has(observes) {
            return Err(rejection);
        }
        self.emit(|| Event::WouldReject { rejection });
        Ok(())
    }

    /// With its turn in the rate.
    fn admit_to_bulkhead(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        rate: Option<InRate>,
        since: Tick,
        now: Tick,
    ) -> Admission {
        // Nobody overtakes an attempt that waits, unless the breaker is open and refuses it.
        if self.line(self.gate()).is_before(ask.priority) && !self.is_circuit_open(now) {
            return self.stand_in_line(ask, rate, 0, since, now);
        }
        match self.try_enter(ask, now) {
            Ok(permit) => Admission::Admitted(permit),
            Err(stuck) => self.stuck(ask, rate, stuck, since, now),
        }
    }

    /// Waits where it can.
    #[cold]
    fn stuck(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        rate: Option<InRate>,
        stuck: Stuck,
        since: Tick,
        now: Tick,
    ) -> Admission {
        match stuck {
            Stuck::Refused(refusal) => {
                self.give_rate_back(rate);
                self.wait_for_ready(ask, refusal, since, now)
            }
            Stuck::Overloaded(limit) => self.stand_in_line(ask, rate, limit, since, now),
            Stuck::Silent => self.stand_in_line(ask, rate, 0, since, now),
            Stuck::NoSlot(limit) => {
                // Probes that don't answer may have taken them.
                if let Some(refused) = self.is_of_no_use(ask, now) {
                    return self.stuck(ask, rate, refused, since, now);
                }
                let slot = self.slot();
                match self.bulkhead(slot).enqueue(ask.priority, now, ask.deadline) {
                    Ok(waiter) => self.wait(ask, rate, since, Stage::Slot(waiter, slot)),
                    // What fills it is an overload, and over soon: the way out is the same.
                    Err(_) if self.is_overloaded() => self.stand_in_line(ask, rate, limit, since, now),
                    Err(_) => self.refuse(rate, Rejection::BulkheadFull { limit }),
                }
            }
        }
    }

    /// A slot of the bulkhead.
    fn take_slot(&self, priority: Priority) -> Result<Part, Stuck> {
        let slot = self.slot();
        let bulkhead = self.bulkhead(slot);
        let Err(Full { limit }) = bulkhead.try_acquire(priority) else { return Ok(slot) };
        if self.judge(Rejection::BulkheadFull { limit }, Modes::BULKHEAD_OBSERVES).is_ok() {
            bulkhead.overrun();
            return Ok(slot);
        }
        Err(Stuck::NoSlot(limit))
    }

    /// A slot, and the rest of the way.
    #[allow(clippy::inline_always, reason = "what it returns is large, and is moved on at once")]
    #[inline(always)]
    fn try_enter(self: &Arc<Self>, ask: &Ask<'_>, now: Tick) -> Result<AttemptPermit, Stuck> {
        let slot = self.take_slot(ask.priority)?;
        self.get_in(ask, slot, now)
    }

    /// The rest of the way, with a slot, which goes back if that leads nowhere. Nobody is woken for
    /// it then: it was the turn of whoever asks.
    #[allow(clippy::inline_always, reason = "what it returns is large, and is moved on at once")]
    #[inline(always)]
    fn get_in(self: &Arc<Self>, ask: &Ask<'_>, slot: Part, now: Tick) -> Result<AttemptPermit, Stuck> {
        let gate = self.gate();
        if self.balancer.is_none()
            && let Err(why) = self.take_place(ask, gate, now)
            && let Err(stuck) = self.judge_overload(ask, gate, why, now)
        {
            self.bulkhead(slot).release(|| now);
            return Err(stuck);
        }
        let go_back = |stuck: Stuck| {
            if self.balancer.is_none() {
                self.overload(gate).release(Ended::Unsent);
            }
            self.bulkhead(slot).release(|| now);
            Err(stuck)
        };
        // With endpoints this breaker has no rules, and says what somebody forced.
        let admitted = match self.breaker.try_acquire(now) {
            Ok(admitted) => admitted,
            Err(Rejected { retry_after }) => return go_back(Rejection::CircuitOpen { retry_after }.into()),
        };
        let endpoint = match &self.balancer {
            None => None,
            Some(balancer) => match self.choose_endpoint(balancer, ask, now) {
                Ok(endpoint) => Some(Box::new(Beside::of(endpoint))),
                Err(stuck) => return go_back(stuck),
            },
        };
        if let Some(transition) = admitted.transition {
            self.emit(|| Event::BreakerTransition(transition));
            self.ready.rouse();
        }
        if let Some(Rejected { retry_after }) = admitted.would_reject {
            self.emit(|| Event::WouldReject { rejection: Rejection::CircuitOpen { retry_after } });
        }
        Ok(AttemptPermit::new(Arc::clone(self), admitted.permit, endpoint, slot, gate, now))
    }

    fn refuse(&self, rate: Option<InRate>, why: Rejection) -> Admission {
        self.give_rate_back(rate);
        Admission::Refused(why.into())
    }

    fn give_rate_back(&self, rate: Option<InRate>) {
        if let Some(InRate { place, whose }) = rate {
            self.rate_limit(whose).give_back(place, time::now);
        }
    }
}

mod overload;
mod ready;
mod waiting;

#[cfg(test)]
mod tests;
