//! An attempt's way in: through every machine that may refuse it, or make it wait.
//!
//! The order is fixed: a wait the server asked for, the client throttle, the rate limit, the bulkhead, and the circuit
//! breaker last, so that nothing that may still be refused uses up a probe. What an attempt took on the way, it gives
//! back when something further on refuses it, or when it is dropped while it waits.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Permit, Rejection, Upstream};
use crate::event::Event;
use crate::policy::Modes;
use crate::policy::breaker::Rejected;
use crate::policy::bulkhead::{Full, WaitOver, Waiter};
use crate::policy::priority::Priority;
use crate::policy::rate_limit::{Limited, Reservation};
use crate::time::{self, Tick, nanos};

/// What an attempt says of itself when it asks to be let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) priority: Priority,
    /// It has no use for a place after this.
    pub(crate) deadline: Tick,
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Admission {
    Admitted(Permit),
    Refused(Rejection),
    /// Neither yet.
    Waits(Waiting),
}

/// An attempt on its way in. Dropped, it leaves whatever line it stands in.
#[derive(Debug)]
pub(crate) struct Waiting {
    upstream: Arc<Upstream>,
    ask: Ask,
    since: Tick,
    /// Its place in the rate, which a refusal further on gives back.
    rate: Option<Reservation>,
    /// Its place in the bulkhead's queue, once it has come so far.
    slot: Option<Arc<Waiter>>,
}

impl Upstream {
    /// A place for one attempt in every machine, or the first refusal.
    pub(crate) fn admit(self: &Arc<Self>, ask: Ask, now: Tick) -> Admission {
        self.touch(now);
        let held_until = self.held_until();
        if now < held_until {
            return Admission::Refused(Rejection::HeldBack { retry_after: now.until(held_until) });
        }
        if self.throttle.is_on()
            && let Err(why) = self.ask_throttle(now)
        {
            return Admission::Refused(why);
        }
        if self.rate_limit.is_unlimited() {
            return self.admit_to_bulkhead(ask, None, now, now);
        }
        let waits = self.modes().has(Modes::RATE_WAITS) && !self.modes().has(Modes::RATE_OBSERVES);
        let longest_wait = if waits { nanos(now.until(ask.deadline)) } else { 0 };
        match self.rate_limit.reserve(now, longest_wait) {
            Err(Limited { retry_after }) => {
                match self.judge(Rejection::RateLimited { retry_after }, Modes::RATE_OBSERVES) {
                    Ok(()) => self.admit_to_bulkhead(ask, None, now, now),
                    Err(why) => Admission::Refused(why),
                }
            }
            Ok(place) if place.go_at() <= now => self.admit_to_bulkhead(ask, Some(place), now, now),
            Ok(place) => {
                let upstream = Arc::clone(self);
                Admission::Waits(Waiting { upstream, ask, since: now, rate: Some(place), slot: None })
            }
        }
    }

    /// A place at once, or none.
    #[cfg(test)]
    pub(crate) fn place(self: &Arc<Self>, now: Tick) -> Option<Permit> {
        match self.admit(Ask { priority: Priority::Normal, deadline: Tick::NEVER }, now) {
            Admission::Admitted(permit) => Some(permit),
            Admission::Refused(_) | Admission::Waits(_) => None,
        }
    }

    fn ask_throttle(&self, now: Tick) -> Result<(), Rejection> {
        let draw = self.entropy.rng().unit();
        let refused = |probability: f64| Rejection::Throttled { percent: (probability * 100.0) as u8 };
        if self.modes().has(Modes::THROTTLE_OBSERVES) {
            let probability = self.throttle.probability(now);
            return if draw < probability {
                self.judge(refused(probability), Modes::THROTTLE_OBSERVES)
            } else {
                Ok(())
            };
        }
        self.throttle.admit(now, draw).map_err(|throttled| refused(throttled.probability))
    }

    /// A refusal, unless who refuses only observes: then it is told and nothing else.
    fn judge(&self, rejection: Rejection, observes: Modes) -> Result<(), Rejection> {
        if !self.modes().has(observes) {
            return Err(rejection);
        }
        self.emit(|| Event::WouldReject { rejection });
        Ok(())
    }

    fn admit_to_bulkhead(
        self: &Arc<Self>,
        ask: Ask,
        rate: Option<Reservation>,
        since: Tick,
        now: Tick,
    ) -> Admission {
        let Err(Full { limit }) = self.bulkhead.try_acquire(ask.priority) else {
            return self.admit_to_breaker(rate, now);
        };
        if self.judge(Rejection::BulkheadFull { limit }, Modes::BULKHEAD_OBSERVES).is_ok() {
            self.bulkhead.overrun();
            return self.admit_to_breaker(rate, now);
        }
        match self.bulkhead.enqueue(ask.priority, now, ask.deadline) {
            Ok(waiter) => {
                let (upstream, slot) = (Arc::clone(self), Some(waiter));
                Admission::Waits(Waiting { upstream, ask, since, rate, slot })
            }
            Err(Full { limit }) => self.refuse(rate, Rejection::BulkheadFull { limit }),
        }
    }

    /// With a slot taken.
    fn admit_to_breaker(self: &Arc<Self>, rate: Option<Reservation>, now: Tick) -> Admission {
        match self.breaker.try_acquire(now) {
            Ok(admitted) => {
                if let Some(transition) = admitted.transition {
                    self.emit(|| Event::BreakerTransition(transition));
                }
                Admission::Admitted(Permit::new(Arc::clone(self), admitted.permit, now))
            }
            Err(Rejected { retry_after }) => {
                self.bulkhead.release(|| now);
                self.refuse(rate, Rejection::CircuitOpen { retry_after })
            }
        }
    }

    fn refuse(&self, rate: Option<Reservation>, why: Rejection) -> Admission {
        if let Some(place) = rate {
            self.rate_limit.give_back(place);
        }
        Admission::Refused(why)
    }
}

impl Waiting {
    /// When to poll at the latest.
    pub(crate) fn until(&self) -> Tick {
        match (&self.slot, &self.rate) {
            (Some(slot), _) => slot.until(),
            (None, Some(place)) => place.go_at(),
            (None, None) => Tick::ZERO,
        }
    }

    /// Since when it waits.
    pub(crate) fn since(&self) -> Tick {
        self.since
    }

    /// Ready with a place or a refusal.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Tick) -> Poll<Result<Permit, Rejection>> {
        let upstream = Arc::clone(&self.upstream);
        let admission = if let Some(slot) = &self.slot {
            let waited = ready!(upstream.bulkhead.poll_wait(slot, cx, now));
            self.slot = None;
            match waited {
                Ok(()) => upstream.admit_to_breaker(self.rate.take(), now),
                Err(over) => {
                    let waited = now.since(self.since);
                    let displaced = over == WaitOver::Displaced;
                    upstream.refuse(self.rate.take(), Rejection::QueueWait { waited, displaced })
                }
            }
        } else if now < self.until() {
            return Poll::Pending;
        } else {
            upstream.admit_to_bulkhead(self.ask, self.rate.take(), self.since, now)
        };
        match admission {
            Admission::Admitted(permit) => Poll::Ready(Ok(permit)),
            Admission::Refused(why) => Poll::Ready(Err(why)),
            Admission::Waits(mut next) => {
                // What this one held has moved on.
                (self.rate, self.slot) = (next.rate.take(), next.slot.take());
                self.poll(cx, now)
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            self.upstream.bulkhead.leave(slot, time::now);
        }
        if let Some(place) = self.rate.take() {
            self.upstream.rate_limit.give_back(place);
        }
    }
}
