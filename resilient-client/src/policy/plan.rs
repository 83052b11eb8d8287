//! A policy, checked and in the machines' units: what calls follow.

use super::breaker::BreakerPolicy;
use super::budget;
use super::budget::BudgetPolicy;
use super::bulkhead;
use super::bulkhead::BulkheadPolicy;
use super::concurrency;
use super::concurrency::ConcurrencyPolicy;
use super::hedge;
use super::hedge::HedgePolicy;
use super::overload;
use super::overload::OverloadPolicy;
use super::priority::Priority;
use super::rate_limit;
use super::rate_limit::RateLimitPolicy;
use super::retry;
use super::retry::RetryPolicy;
use super::throttle;
use super::throttle::ThrottlePolicy;
use super::timeout;
use super::{Policy, balance, breaker};
use crate::invalid::Invalid;
use crate::outcome::classify::Classifier;
use crate::redact::Template;
use crate::time::nanos;

impl Policy {
    pub(crate) fn compile(&self, version: u64) -> Result<Plan, Invalid> {
        let plan = Plan {
            version,
            timeout: self.time_bounds()?,
            retry: self.retry.as_ref().map(RetryPolicy::compile).transpose()?,
            delays: self.retry.as_ref().and_then(|retry| retry.delays.clone()),
            budget: self.budget.as_ref().map(BudgetPolicy::compile).transpose()?,
            breaker: self.breaker.as_ref().map(BreakerPolicy::compile).transpose()?,
            bulkhead: self.bulkhead.as_ref().map(BulkheadPolicy::compile).transpose()?,
            hedge: self.hedge.as_ref().map(HedgePolicy::compile).transpose()?,
            rate_limit: self.rate_limit.as_ref().map(RateLimitPolicy::compile).transpose()?,
            throttle: self.throttle.as_ref().map(ThrottlePolicy::compile).transpose()?,
            concurrency: self.concurrency.as_ref().map(ConcurrencyPolicy::compile).transpose()?,
            overload: self.overload.as_ref().map(OverloadPolicy::compile).transpose()?,
            balance: self.balance.compile()?,
            priority: self.priority,
            modes: Modes::of(self),
            classifier: self.classifier.clone(),
            template: None,
        };
        self.breaker_sees_whole_attempts()?;
        self.hedges_fit_the_total()?;
        Ok(plan)
    }

    pub(super) fn time_bounds(&self) -> Result<timeout::Rules, Invalid> {
        let window = self.breaker.as_ref().and_then(BreakerPolicy::window_time).map_or(u64::MAX, nanos);
        let last_hedge = self.hedge.as_ref().map_or(0, |hedge| nanos(hedge.least_cumulative_delay()));
        Ok(timeout::Rules { window, last_hedge, ..self.timeout.compile()? })
    }

    /// A window must hold at least two attempts one after the other, or the failures that matter
    /// most, the slow ones, have left it before they can add up.
    pub(super) fn breaker_sees_whole_attempts(&self) -> Result<(), Invalid> {
        let (Some(breaker), Some(attempt)) = (&self.breaker, self.timeout.effective_attempt()) else {
            return Ok(());
        };
        let Some(window) = breaker.window_time() else { return Ok(()) };
        if window < attempt.saturating_mul(2) {
            let problem = format!(
                "is {window:?}, shorter than twice timeout.attempt, {attempt:?}: timeouts would leave it"
            );
            return Err(Invalid::new("breaker.window", problem));
        }
        Ok(())
    }

    /// The last hedge must be able to set out before the call is over.
    pub(super) fn hedges_fit_the_total(&self) -> Result<(), Invalid> {
        let (Some(hedge), Some(total)) = (&self.hedge, self.timeout.total) else { return Ok(()) };
        let delay = hedge.least_cumulative_delay();
        if delay > total {
            let problem = format!("adds up to {delay:?} at least, longer than timeout.total, {total:?}");
            return Err(Invalid::new("hedge.delay", problem));
        }
        Ok(())
    }
}

/// How the policies that guard the way in behave: what waits, and what only observes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes(u32);

impl Modes {
    pub(crate) const RATE_WAITS: Self = Self(1);
    pub(crate) const RATE_OBSERVES: Self = Self(2);
    pub(crate) const THROTTLE_OBSERVES: Self = Self(4);
    pub(crate) const BULKHEAD_OBSERVES: Self = Self(8);
    pub(crate) const ADAPTS: Self = Self(16);
    // A route's own policy differs from its host's in these, so that it doesn't share the host's
    // machine.
    pub(crate) const OWN_RATE: Self = Self(32);
    pub(crate) const OWN_THROTTLE: Self = Self(64);
    pub(crate) const OWN_LIMIT: Self = Self(128);
    pub(crate) const OWN_OVERLOAD: Self = Self(256);
    pub(crate) const OVERLOAD: Self = Self(512);
    pub(crate) const OVERLOAD_OBSERVES: Self = Self(1024);

    fn of(policy: &Policy) -> Self {
        let rate = policy.rate_limit.as_ref();
        let all = [
            (Self::RATE_WAITS, rate.is_some_and(|rate| rate.wait)),
            (Self::RATE_OBSERVES, rate.is_some_and(|rate| rate.observe_only)),
            (Self::THROTTLE_OBSERVES, policy.throttle.as_ref().is_some_and(|throttle| throttle.observe_only)),
            (Self::ADAPTS, policy.concurrency.is_some()),
            (Self::OVERLOAD, policy.overload.is_some()),
            (Self::OVERLOAD_OBSERVES, policy.overload.as_ref().is_some_and(|overload| overload.observe_only)),
            (Self::BULKHEAD_OBSERVES, policy.bulkhead.as_ref().is_some_and(|bulkhead| bulkhead.observe_only)),
        ];
        Self(all.iter().filter(|(_, on)| *on).map(|(mode, _)| mode.0).sum())
    }

    /// These, and what a route of a host has of its own.
    pub(crate) fn of_route(self, route: &Policy, host: &Policy) -> Self {
        let own = [
            (Self::OWN_RATE, route.rate_limit != host.rate_limit),
            (Self::OWN_THROTTLE, route.throttle != host.throttle),
            (Self::OWN_LIMIT, route.concurrency != host.concurrency),
            (Self::OWN_OVERLOAD, route.overload != host.overload),
        ];
        Self(own.iter().filter(|(_, differs)| *differs).fold(self.0, |all, (own, _)| all | own.0))
    }

    /// As one word, for an atomic.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) fn has(self, mode: Self) -> bool {
        self.0 & mode.0 != 0
    }
}

/// A checked [`Policy`], in the machines' own units.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Counts reloads, so that a report can say which policy a call followed.
    pub(crate) version: u64,
    pub(crate) timeout: timeout::Rules,
    pub(crate) retry: Option<retry::Rules>,
    /// Waits of the user's own between attempts.
    pub(crate) delays: Option<retry::Delays>,
    pub(crate) budget: Option<budget::Rules>,
    pub(crate) breaker: Option<breaker::Rules>,
    pub(crate) bulkhead: Option<bulkhead::Rules>,
    pub(crate) hedge: Option<hedge::Rules>,
    pub(crate) rate_limit: Option<rate_limit::Rules>,
    pub(crate) throttle: Option<throttle::Rules>,
    pub(crate) concurrency: Option<concurrency::Rules>,
    pub(crate) overload: Option<overload::Rules>,
    pub(crate) balance: balance::Rules,
    pub(crate) priority: Priority,
    pub(crate) modes: Modes,
    pub(crate) classifier: Option<Classifier>,
    /// The template of the route it is for.
    pub(crate) template: Option<Template>,
}

impl Plan {
    /// The standard policy's. It compiles, as a test shows; without that proof a passthrough is the
    /// harmless answer.
    pub(crate) fn standard() -> Self {
        Policy::standard().compile(0).unwrap_or(Self {
            template: None,
            version: 0,
            timeout: timeout::Rules::UNBOUNDED,
            delays: None,
            retry: None,
            budget: None,
            breaker: None,
            bulkhead: None,
            hedge: None,
            rate_limit: None,
            throttle: None,
            concurrency: None,
            overload: None,
            balance: balance::Rules::STANDARD,
            priority: Priority::Normal,
            modes: Modes::default(),
            classifier: None,
        })
    }
}
