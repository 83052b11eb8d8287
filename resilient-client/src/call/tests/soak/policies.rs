//! Policies of every kind, drawn at random.

use super::SECOND;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::budget::BudgetPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::concurrency::ConcurrencyPolicy;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::priority::Priority;
use crate::policy::rate_limit::RateLimitPolicy;
use crate::policy::retry::RetryPolicy;
use crate::policy::throttle::ThrottlePolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::policy::{Policy, PolicySet};
use crate::rng::Rng;
use crate::testkit::script::ms;

fn policy(rng: &mut Rng) -> Policy {
    let mut policy = Policy::standard();
    let one_in = |rng: &mut Rng, n: u64| rng.between(1, n) == 1;
    if one_in(rng, 3) {
        let delay = if one_in(rng, 2) { Delay::Fixed(ms(30)) } else { Delay::standard() };
        policy = policy.hedge(HedgePolicy::standard().delay(delay).max_hedges(2));
    }
    policy = match rng.between(0, 4) {
        0 => policy.bulkhead(None),
        1 | 2 => {
            policy.bulkhead(BulkheadPolicy::standard().max_in_flight(4).max_queued(20).queue_wait(ms(400)))
        }
        _ => policy,
    };
    if one_in(rng, 3) {
        let (burst, wait) = (rng.between(1, 20) as u32, !one_in(rng, 3));
        policy = policy.rate_limit(RateLimitPolicy::new(60, SECOND).burst(burst).wait(wait));
    }
    policy = match rng.between(0, 8) {
        0 => policy.concurrency(ConcurrencyPolicy::gradient()),
        1 => policy.concurrency(ConcurrencyPolicy::vegas().initial(4)),
        2 => policy.concurrency(ConcurrencyPolicy::aimd().min(1)),
        _ => policy,
    };
    if one_in(rng, 4) {
        // By its rule it trusts again after half a dozen windows, and the standard one is two minutes.
        policy = policy.throttle(ThrottlePolicy::standard().window(2 * SECOND));
    }
    policy = match rng.between(0, 5) {
        0 => policy.budget(None),
        1 => policy.budget(BudgetPolicy::standard().initial(5)),
        _ => policy,
    };
    policy = match rng.between(0, 9) {
        0 => policy.breaker(None),
        1 => policy.breaker(BreakerPolicy::standard().observe_only(true)),
        _ => policy,
    };
    policy = match rng.between(0, 5) {
        0 => policy.retry(None),
        1 => policy.retry(RetryPolicy::standard().max_attempts(2)),
        _ => policy,
    };
    let short =
        TimeoutPolicy::standard().total(2 * SECOND).attempt(ms(500)).connect(ms(200)).body_idle(ms(300));
    match rng.between(0, 9) {
        0 => policy.timeout(TimeoutPolicy::none()),
        1..=3 => policy.timeout(short),
        _ => policy,
    }
}

pub(super) fn policies(rng: &mut Rng) -> PolicySet {
    let (base, other, own) = (policy(rng), policy(rng), rng.unit() < 0.5);
    PolicySet::new(base)
        .host("http://plain-1:3000", |base| if own { other.clone() } else { base })
        .host("http://plain-0:3000", |base| base.priority(Priority::Critical))
        .route("http://plain-0:3000", "POST", "/orders/{id}", |host| {
            let breaker = host.breaker.clone().map(|breaker| breaker.consecutive_failures(15));
            host.breaker(breaker).bulkhead(BulkheadPolicy::standard().max_in_flight(3).max_queued(3))
        })
}
