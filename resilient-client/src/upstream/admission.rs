//! An attempt's way in: through every machine that may refuse it, or make it wait.
//!
//! The order is fixed: a wait the server asked for, the client throttle, the rate limit, the bulkhead, an endpoint where
//! there are several, and the circuit breaker last, so that nothing that may still be refused uses up a probe. What an attempt took on the way, it gives
//! back when something further on refuses it, or when it is dropped while it waits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::endpoints::EndpointId;
use super::{Part, Permit, Rejection, Upstream};
use crate::endpoints::NoEndpoint;
use crate::event::Event;
use crate::policy::Modes;
use crate::policy::breaker::Rejected;
use crate::policy::bulkhead::{Full, WaitOver, Waiter};
use crate::policy::priority::Priority;
use crate::policy::rate_limit::{Limited, Reservation, Turn};
use crate::time::{self, Tick, nanos};

/// What an attempt says of itself when it asks to be let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) priority: Priority,
    /// It has no use for a place after this.
    pub(crate) deadline: Tick,
    /// The endpoints that other attempts of its call went to.
    pub(crate) tried: &'a [EndpointId],
}

/// The endpoints of a call's attempts.
pub(crate) type Tried = Vec<EndpointId>;

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

/// The answer.
#[derive(Debug)]
pub(crate) enum Admission {
    Admitted(Permit),
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
    since: Tick,
    /// Its place in the rate, which a refusal further on gives back.
    rate: Option<Reservation>,
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

    fn wait(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        rate: Option<Reservation>,
        since: Tick,
        stage: Stage,
    ) -> Admission {
        let (upstream, tried) = (Arc::clone(self), ask.tried.into());
        let Ask { priority, deadline, .. } = *ask;
        Admission::Waits(Box::new(Waiting { upstream, priority, deadline, tried, since, rate, stage }))
    }

    fn admit_to_rate(self: &Arc<Self>, ask: &Ask<'_>, since: Tick, now: Tick) -> Admission {
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
            Ok(place) => return self.admit_to_bulkhead(ask, Some(place), since, now),
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
    #[cfg(test)]
    pub(crate) fn place(self: &Arc<Self>, now: Tick) -> Option<Permit> {
        let ask = Ask { priority: Priority::Normal, deadline: Tick::NEVER, tried: &[] };
        match self.admit(ask, now) {
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
        ask: &Ask<'_>,
        rate: Option<Reservation>,
        since: Tick,
        now: Tick,
    ) -> Admission {
        let slot = self.slot();
        let bulkhead = self.bulkhead(slot);
        let Err(Full { limit }) = bulkhead.try_acquire(ask.priority) else {
            return self.admit_to_endpoint(ask, rate, slot, now);
        };
        if self.judge(Rejection::BulkheadFull { limit }, Modes::BULKHEAD_OBSERVES).is_ok() {
            bulkhead.overrun();
            return self.admit_to_endpoint(ask, rate, slot, now);
        }
        match bulkhead.enqueue(ask.priority, now, ask.deadline) {
            Ok(waiter) => self.wait(ask, rate, since, Stage::Slot(waiter, slot)),
            Err(Full { limit }) => self.refuse(rate, Rejection::BulkheadFull { limit }),
        }
    }

    /// With a slot taken.
    fn admit_to_endpoint(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        rate: Option<Reservation>,
        slot: Part,
        now: Tick,
    ) -> Admission {
        let endpoint = match &self.balancer {
            None => None,
            Some(balancer) => match balancer.admit(ask.tried, now, &mut self.entropy.rng()) {
                Ok(endpoint) => Some(Box::new(endpoint)),
                Err(cause) => {
                    self.release(slot, || now);
                    self.give_rate_back(rate);
                    let rejection = Rejection::NoEndpoint;
                    return Admission::Refused(Refusal { rejection, cause: Some(cause) });
                }
            },
        };
        match self.breaker.try_acquire(now) {
            Ok(admitted) => {
                if let Some(transition) = admitted.transition {
                    self.emit(|| Event::BreakerTransition(transition));
                }
                Admission::Admitted(Permit::new(Arc::clone(self), admitted.permit, endpoint, slot, now))
            }
            Err(Rejected { retry_after }) => {
                self.release(slot, || now);
                self.refuse(rate, Rejection::CircuitOpen { retry_after })
            }
        }
    }

    fn refuse(&self, rate: Option<Reservation>, why: Rejection) -> Admission {
        self.give_rate_back(rate);
        Admission::Refused(why.into())
    }

    fn give_rate_back(&self, rate: Option<Reservation>) {
        if let Some(place) = rate {
            self.rate_limit(self.rate()).give_back(place, time::now);
        }
    }
}

impl Waiting {
    /// When to poll at the latest.
    pub(crate) fn until(&self) -> Tick {
        match &self.stage {
            Stage::Names(_) => Tick::NEVER,
            Stage::Rate(turn, _) => turn.until(),
            Stage::Slot(waiter, _) => waiter.until(),
            Stage::Over => Tick::ZERO,
        }
    }

    /// Since when it waits.
    pub(crate) fn since(&self) -> Tick {
        self.since
    }

    /// Ready with a place or a refusal.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Tick) -> Poll<Result<Permit, Refusal>> {
        loop {
            let upstream = &self.upstream;
            let ask = Ask { priority: self.priority, deadline: self.deadline, tried: &self.tried };
            let admission = match &mut self.stage {
                Stage::Names(names) => {
                    let resolved = ready!(names.as_mut().poll(cx));
                    self.stage = Stage::Over;
                    match resolved {
                        Ok(()) => upstream.admit_to_rate(&ask, self.since, now),
                        Err(cause) => {
                            let rejection = Rejection::NoEndpoint;
                            Admission::Refused(Refusal { rejection, cause: Some(cause) })
                        }
                    }
                }
                Stage::Rate(turn, whose) => {
                    let place = ready!(upstream.rate_limit(*whose).poll_turn(turn, cx, now));
                    self.stage = Stage::Over;
                    upstream.admit_to_bulkhead(&ask, Some(place), self.since, now)
                }
                Stage::Slot(waiter, slot) => {
                    let slot = *slot;
                    let waited = ready!(upstream.bulkhead(slot).poll_wait(waiter, cx, now));
                    self.stage = Stage::Over;
                    match waited {
                        Ok(()) => upstream.admit_to_endpoint(&ask, self.rate.take(), slot, now),
                        Err(over) => {
                            let (waited, displaced) = (now.since(self.since), over == WaitOver::Displaced);
                            upstream.refuse(self.rate.take(), Rejection::QueueWait { waited, displaced })
                        }
                    }
                }
                Stage::Over => return Poll::Pending,
            };
            match admission {
                Admission::Admitted(permit) => return Poll::Ready(Ok(permit)),
                Admission::Refused(why) => return Poll::Ready(Err(why)),
                Admission::Waits(mut next) => {
                    // What that one holds moves here, and leaves nothing for it to give back.
                    self.rate = next.rate.take();
                    self.stage = std::mem::replace(&mut next.stage, Stage::Over);
                }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match &self.stage {
            Stage::Slot(waiter, slot) => self.upstream.bulkhead(*slot).leave(waiter, time::now),
            Stage::Rate(turn, whose) => self.upstream.rate_limit(*whose).leave(turn, time::now),
            Stage::Names(_) | Stage::Over => {}
        }
        self.upstream.give_rate_back(self.rate.take());
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Names(_) => "Waiting(for addresses)",
            Stage::Rate(..) => "Waiting(for its turn)",
            Stage::Slot(..) => "Waiting(for a place)",
            Stage::Over => "Waiting(for nothing)",
        })
    }
}
