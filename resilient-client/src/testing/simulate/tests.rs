//! What the simulator says of policies whose fate is known.

use std::time::Duration;

use super::*;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::retry::RetryPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::Tick;

fn found(policy: &Policy, scenario: &Scenario) -> Finding {
    let finding = simulate(policy, scenario).unwrap();
    println!("{scenario}: {finding}");
    finding
}

#[test]
fn the_standard_policy_comes_through_all_of_it() {
    let standard = Policy::standard();
    let outage = found(&standard, &Scenario::outage());
    assert!(outage.amplification < 0.2 && outage.refused > 0.2, "{outage}");
    assert!(outage.recovered_after() < Duration::from_millis(700), "{outage}");
    let storm = found(&standard, &Scenario::retry_storm());
    assert!(storm.amplification < 0.3, "{storm}");
    let errors = found(&standard, &Scenario::errors(0.3));
    assert!(errors.succeeded > 0.985 && errors.amplification < 1.5, "{errors}");
    let slow = found(&standard, &Scenario::slow_replica());
    assert!(slow.succeeded > 0.999 && slow.p99 < Duration::from_millis(1_100), "{slow}");
    let overload = found(
        &standard.timeout(TimeoutPolicy::standard().attempt(Duration::from_millis(500))),
        &Scenario::overload(),
    );
    assert!(overload.succeeded > 0.9, "{overload}");
}

/// Four attempts at each of three hops are 64.
#[test]
fn retries_without_a_budget_multiply_at_every_hop() {
    let naive = Policy::none().retry(RetryPolicy::standard());
    let storm = found(&naive, &Scenario::retry_storm());
    assert!(storm.amplification > 50.0, "{storm}");
    let outage = found(&naive, &Scenario::outage());
    assert!((3.5..=4.0).contains(&outage.amplification), "{outage}");
    let bare = found(&Policy::none(), &Scenario::outage());
    assert!((bare.amplification - 1.0).abs() < f64::EPSILON && bare.refused < f64::EPSILON, "{bare}");
}

#[test]
fn the_setting_that_is_to_blame_is_named() {
    let warned = |policy: &Policy| {
        let found = what_if(policy, 1).unwrap();
        println!("{found}");
        found.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let six = Policy::none().retry(RetryPolicy::standard().max_attempts(6));
    let warnings = warned(&six);
    let expected = "retry.max_attempts = 6 without budget amplifies 6.0x";
    assert!(
        warnings.iter().any(|said| said.starts_with(expected) && said.ends_with("in outage")),
        "{warnings:#?}"
    );
    let touchy = Policy::standard().breaker(BreakerPolicy::standard().failure_rate(0.1));
    let warnings = warned(&touchy);
    let expected = "breaker.failure_rate = 0.1 lets ";
    assert!(
        warnings.iter().any(|said| said.starts_with(expected) && said.ends_with("in 30 % errors")),
        "{warnings:#?}"
    );
}

/// A table that is bad is never absolved.
#[test]
fn a_policy_that_is_broken_is_told_so_and_by_what() {
    use crate::policy::budget::BudgetPolicy;
    use crate::policy::rate_limit::RateLimitPolicy;

    let second = Duration::from_secs(1);
    let hasty = TimeoutPolicy::standard().attempt(Duration::from_millis(5));
    let rich = BudgetPolicy::standard().capacity(1_000_000).initial(1_000_000).deposit_per_success(1.0);
    for (policy, settings) in [
        (Policy::standard().timeout(hasty), &["timeout.attempt"][..]),
        (Policy::standard().rate_limit(RateLimitPolicy::new(100, second)), &["rate_limit"]),
        (
            Policy::standard().retry(RetryPolicy::standard().max_attempts(10)).budget(rich).breaker(None),
            &["retry.max_attempts", "budget"],
        ),
    ] {
        let found = what_if(&policy, 1).unwrap();
        println!("{found}");
        for setting in settings {
            assert!(found.warnings.iter().any(|warning| warning.setting == *setting), "{setting}: {found}");
        }
        assert!(!found.to_string().contains("No setting is to blame"), "{found}");
    }
}

/// Two that each are enough to break it, so that neither alone mends it.
#[test]
fn what_no_single_setting_mends_is_said_to_be_bad_all_the_same() {
    use crate::policy::rate_limit::RateLimitPolicy;
    use crate::policy::throttle::ThrottlePolicy;

    let hasty = TimeoutPolicy::standard().attempt(Duration::from_millis(5));
    let limit = RateLimitPolicy::new(1, Duration::from_secs(1));
    let policy = Policy::standard().timeout(hasty).rate_limit(limit).throttle(ThrottlePolicy::standard());
    let found = what_if(&policy, 1).unwrap();
    println!("{found}");
    assert!(found.unmended.contains(&Scenario::errors(0.3)), "{found}");
    let said = "30 % errors is bad; no single setting we know mends it";
    assert!(found.to_string().contains(said), "{found}");
    let well = what_if(&Policy::standard(), 1).unwrap();
    println!("{well}");
    assert!(well.unmended.is_empty(), "{well}");
}

/// An infinite rate never ended.
#[test]
fn a_rate_or_share_that_cannot_be_is_taken_for_the_nearest_that_can() {
    let rate = |calls| Scenario::outage().per_second(calls);
    for (asked, taken) in
        [(f64::NAN, 1.0), (f64::NEG_INFINITY, 1.0), (0.5, 1.0), (f64::INFINITY, 10_000.0), (7.5, 7.5)]
    {
        assert_eq!(rate(asked), rate(taken), "{asked}");
    }
    for (asked, taken) in [(f64::NAN, 0.0), (-1.0, 0.0), (2.0, 1.0), (0.3, 0.3)] {
        assert_eq!(Scenario::errors(asked), Scenario::errors(taken), "{asked}");
    }
}

#[test]
fn a_seed_says_all() {
    let [one, again, other] = [7, 7, 8].map(|seed| {
        let scenarios = Scenario::all().map(|scenario| scenario.seed(seed));
        scenarios.map(|scenario| simulate(&Policy::standard(), &scenario).unwrap())
    });
    assert_eq!(one, again);
    assert_ne!(one, other);
}

/// Who has a runtime already may ask, too.
#[tokio::test]
async fn it_may_be_asked_in_async_code() {
    let finding = simulate(&Policy::none(), &Scenario::errors(1.0)).unwrap();
    assert_eq!((finding.succeeded, finding.recovery), (0.0, None));
    let impossible = Policy::standard().retry(RetryPolicy::standard().max_attempts(99));
    assert!(simulate(&impossible, &Scenario::outage()).unwrap_err().is_config());
}

/// What its caller sent goes no further, but for the time that is left, less the server's reserve.
#[tokio::test(start_paused = true)]
async fn a_hop_makes_a_request_of_its_own_within_its_callers_time() {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::{HeaderMap, Request, Response};
    use http_body_util::Empty;
    use tower::util::BoxCloneSyncService;
    use tower::{ServiceExt as _, service_fn};

    use super::world::{TROUBLED, service};
    use crate::ResilienceLayer;
    use crate::deadline::header::EXPECTED_TIMEOUT;
    use crate::sync::Mutex;

    let seen = Arc::new(Mutex::new(Vec::<HeaderMap>::new()));
    let seeing = Arc::clone(&seen);
    let silent = BoxCloneSyncService::new(service_fn(move |request: Request<Empty<Bytes>>| {
        seeing.lock().push(request.headers().clone());
        std::future::pending::<Result<Response<Empty<Bytes>>, std::convert::Infallible>>()
    }));
    let client = ResilienceLayer::builder().policy(Policy::none()).build().unwrap();
    let hop = service(client, silent);
    for troubled in [false, true] {
        let mut request = Request::get("http://upstream/").body(Empty::new()).unwrap();
        request.headers_mut().insert("x-of-the-caller", "1".parse().unwrap());
        request.headers_mut().insert(EXPECTED_TIMEOUT, "100".parse().unwrap());
        if troubled {
            request.headers_mut().insert(TROUBLED, "1".parse().unwrap());
        }
        let began = crate::time::now();
        let status = hop.clone().oneshot(request).await.unwrap().status();
        let took = crate::time::now().since(began);
        assert!(status.is_server_error() && took <= Duration::from_millis(101), "{status} after {took:?}");
        let sent = seen.lock().pop().unwrap();
        assert!(!sent.contains_key("x-of-the-caller"), "{sent:?}");
        assert_eq!(sent.contains_key(TROUBLED), troubled);
        assert_eq!(sent[EXPECTED_TIMEOUT], "90");
    }
}

#[test]
fn a_queue_is_served_by_those_who_are_there() {
    let (ms, at) = (Duration::from_millis(1), |n| Tick::ZERO.after(Duration::from_millis(n)));
    let mut queue = Queue::new(2, 1, (at(10), at(30)), Tick::ZERO);
    assert_eq!([0, 0, 0].map(|now| queue.ends(at(now), 5 * ms)), [at(5), at(5), at(10)]);
    // The other one is away now.
    assert_eq!([10, 10].map(|now| queue.ends(at(now), 15 * ms)), [at(25), at(40)]);
    assert_eq!(queue.ends(at(26), 10 * ms), at(40));
}
