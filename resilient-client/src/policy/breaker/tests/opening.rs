//! What opens it, to the number.

use super::*;

#[test]
fn opens_on_the_fifth_failure_in_a_row_when_nothing_succeeded() {
    let breaker = breaker(BreakerPolicy::standard());
    assert_eq!(failures_to_open(&breaker, START), (5, Cause::ColdFailures(5)));
}

#[test]
fn opens_on_the_twentieth_failure_in_a_row_when_something_succeeded() {
    let breaker = breaker(BreakerPolicy::standard().min_calls(1000));
    call(&breaker, Verdict::Success, START);
    assert_eq!(failures_to_open(&breaker, START), (20, Cause::ConsecutiveFailures(20)));
}

#[test]
fn one_success_ends_a_streak() {
    let breaker = breaker(BreakerPolicy::standard().min_calls(1000));
    call(&breaker, Verdict::Success, START);
    for _ in 0..19 {
        assert_eq!(call(&breaker, Verdict::Failure, START), None);
    }
    assert_eq!(breaker.snapshot(START).streak, 19);
    call(&breaker, Verdict::Success, START);
    assert_eq!(breaker.snapshot(START).streak, 0);
    assert_eq!(failures_to_open(&breaker, START).0, 20);
}

#[test]
fn opens_when_half_of_fifty_calls_failed_and_not_before() {
    let breaker = breaker(BreakerPolicy::standard());
    for _ in 0..24 {
        assert_eq!(call(&breaker, Verdict::Success, START), None);
        assert_eq!(call(&breaker, Verdict::Failure, START), None);
    }
    assert_eq!(call(&breaker, Verdict::Success, START), None);
    let opened = call(&breaker, Verdict::Failure, START).expect("25 of 50");
    assert_eq!(opened.cause, Cause::FailureRate { failures: 25, calls: 50 });
}

#[test]
fn a_rate_that_has_no_exact_binary_form_is_met_exactly() {
    for percent in 1..=100_u32 {
        let policy = BreakerPolicy::standard()
            .failure_rate(f64::from(percent) / 100.0)
            .min_calls(100)
            .consecutive_failures(1000)
            .cold_consecutive_failures(1000);
        let breaker = breaker(policy);
        for _ in 0..100 - percent {
            call(&breaker, Verdict::Success, START);
        }
        assert_eq!(failures_to_open(&breaker, START).0, percent, "{percent} %");
    }
}

#[test]
fn neutral_outcomes_count_for_nothing() {
    let breaker = breaker(BreakerPolicy::standard());
    for _ in 0..4 {
        call(&breaker, Verdict::Failure, START);
        call(&breaker, Verdict::Neutral, START);
    }
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.failures, snapshot.successes, snapshot.streak), (4, 0, 4));
    assert_eq!(failures_to_open(&breaker, START).0, 1);
}

#[test]
fn the_window_forgets_exactly_when_it_has_slid_past() {
    let bucket = START.after_nanos(1); // in the bucket that begins at START
    let policy = || BreakerPolicy::standard().min_calls(2).consecutive_failures(1000);
    for (later, expected) in [(ms(9_999), Some(2)), (ms(10_000), None)] {
        let breaker = breaker(policy().failure_rate(1.0).cold_consecutive_failures(1000));
        call(&breaker, Verdict::Failure, bucket);
        let opened = call(&breaker, Verdict::Failure, START.after(later));
        let calls = opened.map(|opened| match opened.cause {
            Cause::FailureRate { calls, .. } => calls,
            cause => panic!("{cause}"),
        });
        assert_eq!(calls, expected, "{later:?} later");
    }
}

#[test]
fn a_success_that_left_the_window_no_longer_warms_it() {
    let breaker = breaker(BreakerPolicy::standard());
    call(&breaker, Verdict::Success, START);
    assert_eq!(failures_to_open(&breaker, START.after(ms(10_000))), (5, Cause::ColdFailures(5)));
}

#[test]
fn a_bucket_holding_a_million_outcomes_still_trips_at_the_rate() {
    let breaker = breaker(BreakerPolicy::standard().consecutive_failures(1_000_000));
    for _ in 0..1_000_000 {
        call(&breaker, Verdict::Success, START);
    }
    let failures = (1..=1_000_000).find(|_| call(&breaker, Verdict::Failure, START).is_some());
    assert!(failures.is_some_and(|failures| failures >= 250_000), "{failures:?}");
}

/// How many of `seeds` open within `seconds` at 30 % random failure, after a first `warm` calls
/// that succeed.
fn opened_by_chance(policy: &BreakerPolicy, seeds: u64, per_second: u32, seconds: u32, warm: u32) -> usize {
    let rules = policy.compile().unwrap();
    let opens = |seed: &u64| {
        let (breaker, mut rng) = (Breaker::new(rules.clone()), Rng::seeded(*seed));
        (0..per_second * seconds).any(|n| {
            let now = START.after(Duration::from_secs(1) * n / per_second);
            let verdict = if n >= warm && rng.unit() < 0.3 { Verdict::Failure } else { Verdict::Success };
            call(&breaker, verdict, now).is_some()
        })
    };
    (0..seeds).filter(opens).count()
}

#[test]
fn failing_thirty_percent_at_random_never_opens_a_warm_breaker() {
    assert_eq!(opened_by_chance(&BreakerPolicy::standard(), 100, 300, 10, 50), 0);
}

/// The first calls are few, and chance weighs more: 5 failures in a row from the start are 0.24 %
/// likely, and 25 of the first 50 0.24 %.
#[test]
fn failing_thirty_percent_from_the_very_first_call_opens_one_breaker_in_a_hundred_at_most() {
    assert!(opened_by_chance(&BreakerPolicy::standard(), 1000, 300, 6, 0) <= 10);
}

/// The control: what the defaults are there to prevent.
#[test]
fn twenty_calls_and_five_in_a_row_would_open_at_thirty_percent() {
    let hasty = BreakerPolicy::standard().min_calls(20).consecutive_failures(5);
    assert!(opened_by_chance(&hasty, 100, 300, 6, 50) >= 90);
}
