//! Calls that would rather wait for an open breaker than be refused; and who is shut out by one.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Admission, Ask, Refusal, Stage, Stuck};
use crate::outcome::rejection::Rejection;
use crate::policy::breaker::{ForReady, ReadyWaiter, Rejected, State};
use crate::policy::plan::Modes;
use crate::time::Tick;
use crate::upstream::Upstream;
use crate::upstream::endpoints::{Balancer, EndpointPermit, Heeds, Seek, Shut};

/// The longest that anybody waits for the last probes who didn't ask to.
const LAST_PROBES: Duration = Duration::from_millis(250);

impl Upstream {
    /// A place among those that wait for an open breaker, where that is what refuses it and it
    /// wants to, or where one that answers is about to close. It holds nothing meanwhile, and is
    /// asked everything again when it goes.
    #[cold]
    pub(super) fn wait_for_ready(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        why: Refusal,
        since: Tick,
        now: Tick,
    ) -> Admission {
        if !matches!(why.rejection, Rejection::CircuitOpen { .. }) {
            return Admission::Refused(why);
        }
        let until = match ask.for_ready {
            ForReady::Always => ask.deadline,
            ForReady::LastProbes if self.recovers(now).is_some() => {
                // Half of the time is kept for the attempt.
                now.after(LAST_PROBES.min(now.until(ask.deadline) / 2))
            }
            // It has closed since it refused this one.
            ForReady::LastProbes if self.shut_for(now).is_none() => {
                return self.admit(Ask { for_ready: ForReady::Never, ..*ask }, now);
            }
            ForReady::LastProbes | ForReady::Never => return Admission::Refused(why),
        };
        match self.ready.enqueue(ask.for_ready, ask.place, now, until) {
            Ok(waiter) => self.wait(ask, None, since, Stage::Ready(waiter)),
            Err(_) => Admission::Refused(why),
        }
    }

    /// Whether somebody answers again: a probe has succeeded, and the others are out. When to look
    /// again, zero once those have expired: nobody tells of that.
    fn recovers(&self, now: Tick) -> Option<Duration> {
        let of_endpoints = self.balancer.as_deref().and_then(|balancer| balancer.set().recovers(now));
        self.breaker.recovers(now).into_iter().chain(of_endpoints).min()
    }

    pub(super) fn choose_endpoint(
        &self,
        balancer: &Balancer,
        ask: &Ask<'_>,
        now: Tick,
    ) -> Result<EndpointPermit, Stuck> {
        let seek = Seek {
            tried: ask.tried,
            repeatable: ask.repeatable && self.budget.available() >= 1.0,
            overrules: self.breaker.state() == State::ForcedClosed,
            priority: ask.priority,
            heeds: self.heeds(ask),
        };
        // It is over, or the policy only observes.
        if seek.heeds == Heeds::Limit {
            self.observe_silence(balancer, ask, &seek, now);
        }
        let admitted = balancer.admit(&seek, now, &mut self.entropy.rng());
        admitted.or_else(|shut| self.shut_out(balancer, &seek, shut, now))
    }

    #[cold]
    pub(super) fn shut_out(
        &self,
        balancer: &Balancer,
        seek: &Seek<'_>,
        shut: Shut,
        now: Tick,
    ) -> Result<EndpointPermit, Stuck> {
        Err(match shut {
            Shut::Empty => {
                let cause = Some(balancer.nobody());
                Stuck::Refused(Refusal { rejection: Rejection::NoEndpoint, cause })
            }
            Shut::Open(retry_after) => Rejection::CircuitOpen { retry_after }.into(),
            Shut::Held(retry_after) => Rejection::HeldBack { retry_after }.into(),
            Shut::Full(limit) => {
                let rejection = Rejection::Overloaded { limit, waited: Duration::ZERO };
                if seek.heeds != Heeds::Nothing && self.judge(rejection, Modes::OVERLOAD_OBSERVES).is_ok() {
                    let seek = Seek { heeds: Heeds::Nothing, ..*seek };
                    let admitted = balancer.admit(&seek, now, &mut self.entropy.rng());
                    return admitted.or_else(|shut| self.shut_out(balancer, &seek, shut, now));
                }
                Stuck::Overloaded(limit)
            }
            Shut::Silent => Stuck::Silent,
        })
    }

    /// Ready when the first of those that wait for the breaker may go: with nothing, or with how
    /// long it would still have to wait when its time is over. One that `has_gone` just now, and
    /// was refused again, looks a moment later.
    pub(super) fn poll_ready(
        &self,
        waiter: &ReadyWaiter,
        has_gone: bool,
        cx: &Context<'_>,
        now: Tick,
    ) -> Poll<Option<Rejected>> {
        const MOMENT: Duration = Duration::from_millis(1);
        // Whoever lifts what was forced wakes those that wait.
        const FORCED: Duration = Duration::from_secs(1);
        const NEW_ENDPOINTS: Duration = Duration::from_millis(100);
        // Before it looks, so that no news are missed.
        waiter.note(cx);
        if now >= waiter.ends() {
            return Poll::Ready(self.shut_for(now));
        }
        if waiter.wants() == ForReady::LastProbes {
            // Once they are decided it goes, or is refused; once they have expired it goes, too.
            return match self.recovers(now) {
                Some(left) if has_gone || !left.is_zero() => {
                    waiter.look_at(now.after(left.max(MOMENT)));
                    Poll::Pending
                }
                Some(_) | None => Poll::Ready(None),
            };
        }
        if !self.ready.is_first(waiter) {
            return Poll::Pending;
        }
        if let Some(balancer) = &self.balancer {
            balancer.catch_up(now);
        }
        let left = match self.shut_for(now) {
            Some(Rejected { retry_after }) => retry_after.unwrap_or(FORCED),
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
}
