//! An attempt's way in: through every machine that may refuse it, or make it wait.
//!
//! The order is fixed: a wait the server asked for, the client throttle, the rate limit, the bulkhead, and the circuit breaker
//! last (the endpoints' own, where the name stands for several), so that nothing that may still be refused uses up a probe. What
//! an attempt took on the way, it gives back when something further on refuses it, or when it is dropped while it waits.
//!
//! What held at the door may not hold any more when a wait is over, so it is asked again after each.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::endpoints::{Balancer, EndpointId, EndpointPermit, Seek, Shut};
use super::{Part, Permit, Rejection, Upstream};
use crate::endpoints::NoEndpoint;
use crate::event::Event;
use crate::policy::Modes;
use crate::policy::breaker::{Place, ReadyWaiter, Rejected, State};
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
    /// Those aren't asked again before this: one of them answered with `Retry-After`.
    pub(crate) again_from: Tick,
    /// Another attempt could follow, whatever comes of this one.
    pub(crate) repeatable: bool,
    /// It would rather wait for an open breaker than be refused.
    pub(crate) waits_for_ready: bool,
    /// Where it stood among those.
    pub(crate) place: Option<Place>,
}

impl Ask<'_> {
    /// A first attempt that waits for nothing.
    #[cfg(test)]
    pub(crate) fn plainly() -> Self {
        let (priority, deadline) = (Priority::Normal, Tick::NEVER);
        let (again_from, place) = (Tick::ZERO, None);
        Ask { priority, deadline, tried: &[], again_from, repeatable: false, waits_for_ready: false, place }
    }
}

/// A place in the rate, and whose rate that is: the one it goes back to.
#[derive(Debug)]
struct InRate {
    place: Reservation,
    whose: Part,
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
    again_from: Tick,
    repeatable: bool,
    waits_for_ready: bool,
    place: Option<Place>,
    since: Tick,
    /// Ready when the server has asked everybody to stay away: who waits is told at once.
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
        let Ask { priority, deadline, again_from, repeatable, waits_for_ready, place, .. } = *ask;
        Admission::Waits(Box::new(Waiting {
            upstream: Arc::clone(self),
            priority,
            deadline,
            tried: ask.tried.into(),
            again_from,
            repeatable,
            waits_for_ready,
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

    /// How long a server's `Retry-After` still holds everybody back. With several endpoints it does only when there is nobody else
    /// to ask.
    fn held_for(&self, now: Tick) -> Option<Duration> {
        match &self.balancer {
            None => Some(now.until(self.held_until())).filter(|held| !held.is_zero()),
            Some(balancer) => match balancer.set().shut(now) {
                Some(Shut::Held(held)) => Some(held),
                Some(Shut::Open(_) | Shut::Empty) | None => None,
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
    #[cfg(test)]
    pub(crate) fn place(self: &Arc<Self>, now: Tick) -> Option<Permit> {
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
        rate: Option<InRate>,
        since: Tick,
        now: Tick,
    ) -> Admission {
        let slot = self.slot();
        let bulkhead = self.bulkhead(slot);
        let Err(Full { limit }) = bulkhead.try_acquire(ask.priority) else {
            return self.admit_to_endpoint(ask, rate, slot, since, now);
        };
        if self.judge(Rejection::BulkheadFull { limit }, Modes::BULKHEAD_OBSERVES).is_ok() {
            bulkhead.overrun();
            return self.admit_to_endpoint(ask, rate, slot, since, now);
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
        rate: Option<InRate>,
        slot: Part,
        since: Tick,
        now: Tick,
    ) -> Admission {
        // With endpoints this breaker has no rules, and says what somebody forced.
        let admitted = match self.breaker.try_acquire(now) {
            Ok(admitted) => admitted,
            Err(Rejected { retry_after }) => {
                self.release(slot, || now);
                self.give_rate_back(rate);
                return self.wait_for_ready(ask, Rejection::CircuitOpen { retry_after }.into(), since, now);
            }
        };
        let endpoint = match &self.balancer {
            None => None,
            Some(balancer) => match self.choose_endpoint(balancer, ask, now) {
                Ok(endpoint) => Some(Box::new(endpoint)),
                Err(refusal) => {
                    self.release(slot, || now);
                    self.give_rate_back(rate);
                    return self.wait_for_ready(ask, refusal, since, now);
                }
            },
        };
        if let Some(transition) = admitted.transition {
            self.emit(|| Event::BreakerTransition(transition));
        }
        Admission::Admitted(Permit::new(Arc::clone(self), admitted.permit, endpoint, slot, now))
    }

    /// A place among those that wait for an open breaker, where that is what refuses it and it wants to. It holds nothing meanwhile,
    /// and is asked everything again when it goes.
    #[cold]
    fn wait_for_ready(self: &Arc<Self>, ask: &Ask<'_>, why: Refusal, since: Tick, now: Tick) -> Admission {
        if ask.waits_for_ready
            && matches!(why.rejection, Rejection::CircuitOpen { .. })
            && let Ok(waiter) = self.ready.enqueue(ask.place, now, ask.deadline)
        {
            return self.wait(ask, None, since, Stage::Ready(waiter));
        }
        Admission::Refused(why)
    }

    fn choose_endpoint(
        &self,
        balancer: &Balancer,
        ask: &Ask<'_>,
        now: Tick,
    ) -> Result<EndpointPermit, Refusal> {
        let seek = Seek {
            tried: ask.tried,
            again_from: ask.again_from,
            repeatable: ask.repeatable && self.budget.available() >= 1.0,
            overrules: self.breaker.state() == State::ForcedClosed,
        };
        balancer.admit(&seek, now, &mut self.entropy.rng()).map_err(|shut| match shut {
            Shut::Empty => Refusal { rejection: Rejection::NoEndpoint, cause: Some(balancer.nobody()) },
            Shut::Open(retry_after) => Rejection::CircuitOpen { retry_after }.into(),
            Shut::Held(retry_after) => Rejection::HeldBack { retry_after }.into(),
        })
    }

    /// Ready when the first of those that wait for the breaker may go: with nothing, or with how long it would still have to wait when
    /// its time is over. One that `has_gone` just now, and was refused again, looks a moment later.
    fn poll_ready(
        &self,
        waiter: &ReadyWaiter,
        has_gone: bool,
        cx: &Context<'_>,
        now: Tick,
    ) -> Poll<Option<Duration>> {
        const MOMENT: Duration = Duration::from_millis(1);
        const NEW_ENDPOINTS: Duration = Duration::from_millis(100);
        // Before it looks, so that no news are missed.
        waiter.note(cx);
        let left = || self.shut_for(now).map(|left| left.max(Duration::from_nanos(1)));
        if now >= waiter.ends() {
            return Poll::Ready(left());
        }
        if !self.ready.is_first(waiter) {
            return Poll::Pending;
        }
        if let Some(balancer) = &self.balancer {
            balancer.catch_up(now);
        }
        let left = match left() {
            Some(left) => left,
            None if has_gone => MOMENT,
            None => return Poll::Ready(None),
        };
        if !has_gone && self.balancer.as_ref().is_some_and(|balancer| !balancer.is_fresh(now)) {
            return Poll::Ready(None);
        }
        // Nobody tells of endpoints that are new: the list is brought up to date by who asks.
        let most = self.balancer.as_ref().map_or(left, |_| NEW_ENDPOINTS);
        waiter.look_at(now.after(left.min(most)));
        Poll::Pending
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

impl Waiting {
    /// When to poll at the latest.
    pub(crate) fn until(&self) -> Tick {
        match &self.stage {
            Stage::Names(_) => Tick::NEVER,
            Stage::Rate(turn, _) => turn.until(),
            Stage::Slot(waiter, _) => waiter.until(),
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

    /// Whether it waits for the addresses of a name.
    pub(crate) fn is_for_names(&self) -> bool {
        matches!(self.stage, Stage::Names(_))
    }

    /// Since when it waits.
    pub(crate) fn since(&self) -> Tick {
        self.since
    }

    /// Ready with a place or a refusal. Past the deadline it is never ready: nobody has a use for a place then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Tick) -> Poll<Result<Permit, Refusal>> {
        if now >= self.deadline {
            return Poll::Pending;
        }
        let mut has_gone = false;
        loop {
            if let Some(retry_after) = self.is_held(cx, now) {
                self.leave(|| now);
                return Poll::Ready(Err(Rejection::HeldBack { retry_after }.into()));
            }
            let upstream = &self.upstream;
            let Self { priority, deadline, again_from, repeatable, waits_for_ready, place, .. } = *self;
            let tried = &self.tried;
            let ask = Ask { priority, deadline, tried, again_from, repeatable, waits_for_ready, place };
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
                    let whose = *whose;
                    let place = ready!(upstream.rate_limit(whose).poll_turn(turn, cx, now));
                    self.stage = Stage::Over;
                    upstream.admit_to_bulkhead(&ask, Some(InRate { place, whose }), self.since, now)
                }
                Stage::Slot(waiter, slot) => {
                    let slot = *slot;
                    let waited = ready!(upstream.bulkhead(slot).poll_wait(waiter, cx, now));
                    self.stage = Stage::Over;
                    match waited {
                        Ok(()) => upstream.admit_to_endpoint(&ask, self.rate.take(), slot, self.since, now),
                        Err(over) => {
                            let (waited, displaced) = (now.since(self.since), over == WaitOver::Displaced);
                            upstream.refuse(self.rate.take(), Rejection::QueueWait { waited, displaced })
                        }
                    }
                }
                Stage::Ready(waiter) => {
                    let waiter = Arc::clone(waiter);
                    let left = ready!(upstream.poll_ready(&waiter, has_gone, cx, now));
                    has_gone = true;
                    self.stage = Stage::Over;
                    upstream.ready.leave(&waiter);
                    self.place = Some(waiter.place());
                    match left {
                        None => upstream.admit(Ask { place: self.place, ..ask }, now),
                        Some(retry_after) => {
                            Admission::Refused(Rejection::CircuitOpen { retry_after }.into())
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
            Stage::Rate(turn, whose) => self.upstream.rate_limit(*whose).leave(turn, now),
            Stage::Ready(waiter) => self.upstream.ready.leave(waiter),
            Stage::Names(_) | Stage::Over => {}
        }
        self.stage = Stage::Over;
        self.upstream.give_rate_back(self.rate.take());
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
            Stage::Ready(_) => "Waiting(for the breaker)",
            Stage::Over => "Waiting(for nothing)",
        })
    }
}

#[cfg(test)]
mod tests;
