//! Rules that change, and settings that can't work.

use super::*;

#[test]
fn a_disabled_breaker_admits_everything_and_counts_nothing() {
    let breaker = Breaker::disabled();
    for _ in 0..100 {
        assert_eq!(call(&breaker, Verdict::Failure, START), None);
    }
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.state, snapshot.failures, snapshot.streak), (State::Disabled, 0, 0));
}

#[test]
fn disabling_opens_the_way_and_enabling_starts_closed_and_empty() {
    let (breaker, _) = opened(BreakerPolicy::standard());
    let disabled = breaker.set_rules(None).unwrap();
    assert_eq!((disabled.from, disabled.to), (State::Open, State::Disabled));
    let from_before = breaker.try_acquire(START).unwrap().permit;
    assert_eq!(breaker.set_rules(None), None);
    let rules = BreakerPolicy::standard().compile().unwrap();
    let enabled = breaker.set_rules(Some(rules)).unwrap();
    assert_eq!(
        (enabled.from, enabled.to, enabled.cause),
        (State::Disabled, State::Closed, Cause::RulesChanged)
    );
    breaker.record(from_before, CallResult::new(Verdict::Failure, QUICK), START, MIDDLE);
    assert_eq!(breaker.snapshot(START).failures, 0);
    assert_eq!(failures_to_open(&breaker, START).0, 5);
}

#[test]
fn a_rejected_probe_is_told_to_wait_the_open_time_of_the_rules_in_force() {
    let breaker = Breaker::disabled();
    let policy = |open| BreakerPolicy::standard().probes(2).open_for(ms(open)).compile().unwrap();
    breaker.set_rules(Some(policy(300)));
    failures_to_open(&breaker, START);
    let now = START.after(ms(300));
    breaker.record(probe(&breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    let _probe = probe(&breaker, now);
    assert_eq!(shut_for(&breaker, now), Some(ms(300)));
    breaker.set_rules(Some(policy(700)));
    assert_eq!(shut_for(&breaker, now), Some(ms(700)));
}

#[test]
fn new_rules_keep_the_state_and_the_counts() {
    let policy = BreakerPolicy::standard;
    let breaker = breaker(policy());
    for _ in 0..3 {
        call(&breaker, Verdict::Failure, START);
    }
    let permit = breaker.try_acquire(START).unwrap().permit;
    assert_eq!(breaker.set_rules(Some(policy().cold_consecutive_failures(4).compile().unwrap())), None);
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.failures, snapshot.streak), (3, 3));
    let opened = breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), START, MIDDLE).unwrap();
    assert_eq!(opened.cause, Cause::ColdFailures(4));
    let longer = policy().open_for(ms(3000)).compile().unwrap();
    assert_eq!(breaker.set_rules(Some(longer)), None);
    assert_eq!(shut_for(&breaker, START), Some(ms(250)), "the opening under way keeps its length");
}

#[test]
fn a_new_window_length_empties_the_window_only() {
    let breaker = breaker(BreakerPolicy::standard());
    for _ in 0..4 {
        call(&breaker, Verdict::Failure, START);
    }
    breaker.set_rules(Some(BreakerPolicy::standard().window(ms(20_000)).compile().unwrap()));
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.state, snapshot.failures, snapshot.streak), (State::Closed, 0, 4));
    call(&breaker, Verdict::Success, START);
    assert_eq!(breaker.snapshot(START.after(ms(17_999))).successes, 1);
}

#[test]
fn more_probes_may_go_at_once_when_the_rules_say_so_and_fewer_close_it() {
    let (breaker, now) = opened(BreakerPolicy::standard().probes(2));
    let mut others = others(&breaker, now);
    assert_eq!(others.len(), 1);
    breaker.set_rules(Some(BreakerPolicy::standard().probes(3).compile().unwrap()));
    let _third = probe(&breaker, now);
    breaker.record(others.remove(0), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    let fewer = breaker.set_rules(Some(BreakerPolicy::standard().probes(2).compile().unwrap()));
    assert_eq!(fewer.unwrap().cause, Cause::ProbesSucceeded);
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let standard = BreakerPolicy::standard;
    let too_long = Duration::from_secs(u64::MAX);
    for (policy, message) in [
        (standard().failure_rate(0.0), "breaker.failure_rate must be above 0 and at most 1, got 0"),
        (standard().failure_rate(1.01), "breaker.failure_rate must be above 0 and at most 1, got 1.01"),
        (standard().failure_rate(f64::NAN), "breaker.failure_rate must be above 0 and at most 1, got NaN"),
        (standard().window(ms(0)), "breaker.window must be longer than zero, got 0s"),
        (standard().window(ms(99)), "breaker.window must be at least 100ms, got 99ms"),
        (standard().min_calls(0), "breaker.min_calls must be between 1 and 100000, got 0"),
        (standard().min_calls(100_001), "breaker.min_calls must be between 1 and 100000, got 100001"),
        (
            standard().consecutive_failures(0),
            "breaker.consecutive_failures must be between 1 and 1000000, got 0",
        ),
        (
            standard().cold_consecutive_failures(1_000_001),
            "breaker.cold_consecutive_failures must be between 1 and 1000000, got 1000001",
        ),
        (standard().open_for(ms(0)), "breaker.open_for must be longer than zero, got 0s"),
        (
            standard().open_cap(ms(249)),
            "breaker.open_cap must be at least breaker.open_for (250ms), got 249ms",
        ),
        (standard().probe_share(1.01), "breaker.probe_share must be between 0 and 1, got 1.01"),
        (standard().probe_share(-0.01), "breaker.probe_share must be between 0 and 1, got -0.01"),
        (standard().probe_share(f64::NAN), "breaker.probe_share must be between 0 and 1, got NaN"),
        (standard().ready_wait(ms(0)), "breaker.ready_wait must be longer than zero, got 0s"),
        (standard().max_waiting(1_000_001), "breaker.max_waiting must be between 0 and 1000000, got 1000001"),
        (standard().probes(0), "breaker.probes must be between 1 and 10000, got 0"),
        (standard().probe_timeout(ms(0)), "breaker.probe_timeout must be longer than zero, got 0s"),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
    for policy in [standard().window(too_long), standard().abandoned_after(too_long)] {
        assert!(policy.compile().unwrap_err().to_string().contains("at most ten years"));
    }
    assert!(standard().abandoned_after(Duration::ZERO).compile().is_ok());
}

#[cfg(not(resilient_loom))]
#[test]
fn fits_in_about_four_hundred_bytes() {
    let size = size_of::<Breaker>() + size_of::<super::window::SlowCalls>();
    assert!(size <= 416, "{size} bytes with the slow-call rule, whose counts are boxed");
    assert!(size_of::<Breaker>() <= 336, "{} bytes without", size_of::<Breaker>());
    assert_eq!(size_of::<Permit>(), 8);
}
