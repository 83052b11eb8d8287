//! Policies of every kind, drawn at random.

use super::SECOND;
use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::policy::budget::BudgetPolicy;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::concurrency::ConcurrencyPolicy;
use resilient_client::policy::hedge::{Delay, HedgePolicy};
use resilient_client::policy::priority::Priority;
use resilient_client::policy::rate_limit::RateLimitPolicy;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::throttle::ThrottlePolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::policy::{Policy, PolicySet};
use resilient_client::rng::Rng;
use resilient_client::testkit::script::ms;

/// With the breaker it has.
fn policy(rng: &mut Rng) -> (Policy, Option<BreakerPolicy>) {
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
        // By its rule it trusts again after half a dozen windows, and the standard one is two
        // minutes.
        policy = policy.throttle(ThrottlePolicy::standard().window(2 * SECOND));
    }
    policy = match rng.between(0, 5) {
        0 => policy.budget(None),
        1 => policy.budget(BudgetPolicy::standard().initial(5)),
        _ => policy,
    };
    let breaker = match rng.between(0, 9) {
        0 => None,
        1 => Some(BreakerPolicy::standard().observe_only(true)),
        _ => Some(BreakerPolicy::standard()),
    };
    policy = policy.breaker(breaker.clone());
    policy = match rng.between(0, 5) {
        0 => policy.retry(None),
        1 => policy.retry(RetryPolicy::standard().max_attempts(2)),
        _ => policy,
    };
    let short =
        TimeoutPolicy::standard().total(2 * SECOND).attempt(ms(500)).connect(ms(200)).body_idle(ms(300));
    policy = match rng.between(0, 9) {
        0 => policy.timeout(TimeoutPolicy::none()),
        1..=3 => policy.timeout(short),
        _ => policy,
    };
    (policy, breaker)
}

pub(super) fn policies(rng: &mut Rng) -> PolicySet {
    let ((base, breaker), (other, _), own) = (policy(rng), policy(rng), rng.unit() < 0.5);
    PolicySet::new(base)
        .host("http://plain-1:3000", |base| if own { other.clone() } else { base })
        .host("http://plain-0:3000", |base| base.priority(Priority::Critical))
        .route("http://plain-0:3000", "POST", "/orders/{id}", |host| {
            let breaker = breaker.map(|breaker| breaker.consecutive_failures(15));
            host.breaker(breaker).bulkhead(BulkheadPolicy::standard().max_in_flight(3).max_queued(3))
        })
}
