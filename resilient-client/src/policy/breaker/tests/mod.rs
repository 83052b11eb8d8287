use std::collections::VecDeque;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use std::time::Duration;

use proptest::prelude::*;

use super::rules::Numbers;
use super::*;
use crate::outcome::Cause as FailureCause;
use crate::rng::Rng;
use crate::time::Tick;

mod herd;
mod model;
mod modes;
#[cfg(resilient_loom)]
mod under_loom;

const START: Tick = Tick::from_nanos(3600 * 1_000_000_000);
/// A call that took no time to speak of.
const QUICK: Duration = Duration::from_millis(1);
const MIDDLE: fn() -> f64 = || 0.5;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[allow(clippy::needless_pass_by_value, reason = "policies are built where they are used")]
fn breaker(policy: BreakerPolicy) -> Breaker {
    Breaker::new(policy.compile().unwrap())
}

fn call(breaker: &Breaker, verdict: Verdict, now: Tick) -> Option<Transition> {
    let admitted = breaker.try_acquire(now).expect("admitted");
    breaker.record(admitted.permit, CallResult::new(verdict, QUICK), now, MIDDLE)
}

/// Fails calls one by one, and says how many it took to open and why.
fn failures_to_open(breaker: &Breaker, now: Tick) -> (u32, Cause) {
    for n in 1..=1000 {
        if let Some(transition) = call(breaker, Verdict::Failure, now) {
            assert_eq!((transition.from, transition.to), (State::Closed, State::Open));
            return (n, transition.cause);
        }
    }
    panic!("a thousand failures did not open it");
}

/// An open breaker with probes `k`, and the time its open time ends.
fn opened(policy: BreakerPolicy) -> (Breaker, Tick) {
    let breaker = breaker(policy);
    failures_to_open(&breaker, START);
    let wait = breaker.rejects_now(START).expect("open");
    (breaker, START.after(wait))
}

fn probe(breaker: &Breaker, now: Tick) -> Permit {
    let permit = breaker.try_acquire(now).expect("a free probe slot").permit;
    assert!(permit.is_probe());
    permit
}

/// One probe after the other succeeds, until that closes it.
fn recover(breaker: &Breaker, now: Tick) -> Transition {
    let succeeds =
        || breaker.record(probe(breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    std::iter::repeat_with(succeeds).flatten().next().expect("it closes")
}

/// The first probe has succeeded: the others.
fn others(breaker: &Breaker, now: Tick) -> Vec<Permit> {
    assert_eq!(
        breaker.record(probe(breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE),
        None
    );
    std::iter::from_fn(|| breaker.try_acquire(now).ok()).map(|admitted| admitted.permit).collect()
}

// ---- the rules, to the number ----

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

// ---- a backend that fails 30 % of calls at random is to be retried, not cut off ----

/// How many of `seeds` open within `seconds` at 30 % random failure, after a first `warm` calls that succeed.
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

/// The first calls are few, and chance weighs more: 5 failures in a row from the start are 0.24 % likely, and 25 of the
/// first 50 0.24 %.
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

// ---- open ----

#[test]
fn an_open_breaker_rejects_until_the_open_time_is_over_and_says_how_long() {
    let (breaker, until) = opened(BreakerPolicy::standard());
    assert_eq!(START.until(until), ms(250), "the middle of the jitter");
    for (now, left) in [(START, ms(250)), (START.after(ms(249)), ms(1))] {
        assert_eq!(breaker.try_acquire(now).unwrap_err(), Rejected { retry_after: left });
        assert_eq!(breaker.rejects_now(now), Some(left));
    }
    assert_eq!(breaker.rejects_now(until), None);
    assert_eq!(breaker.snapshot(until).state, State::Open, "peeking moves nothing");
    let first = breaker.try_acquire(until).unwrap();
    let expected =
        Transition { from: State::Open, to: State::HalfOpen, cause: Cause::OpenTimeElapsed, generation: 2 };
    assert_eq!(first.transition, Some(expected));
}

#[test]
fn the_open_time_doubles_to_its_cap_and_starts_over_after_closing() {
    let (breaker, mut now) = opened(BreakerPolicy::standard().probes(1));
    for expected in [500, 1000, 2000, 4000, 5000, 5000].map(ms) {
        let permit = probe(&breaker, now);
        let reopened = breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE).unwrap();
        assert_eq!((reopened.to, reopened.cause), (State::Open, Cause::ProbeFailed));
        let wait = breaker.rejects_now(now).unwrap();
        assert_eq!(wait, expected);
        now = now.after(wait);
    }
    let permit = probe(&breaker, now);
    let closed = breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE).unwrap();
    assert_eq!((closed.to, closed.cause), (State::Closed, Cause::ProbesSucceeded));
    failures_to_open(&breaker, now);
    assert_eq!(breaker.rejects_now(now), Some(ms(250)));
}

/// After how many milliseconds the next probe goes, with so many calls a second in between.
fn next_probe(breaker: &Breaker, from: Tick, per_second: u64) -> u64 {
    let at = |n: u64| from.after_nanos(n * 1_000_000_000 / per_second);
    let first = (1..=10 * per_second).find(|n| breaker.try_acquire(at(*n)).is_ok()).unwrap();
    from.until(at(first)).as_millis() as u64
}

#[test]
fn how_long_it_stays_open_follows_the_traffic_turned_away() {
    for (per_second, expected) in [
        (1, [1000, 1000, 1000, 2000, 4000, 5000]),
        (10, [300, 500, 900, 1400, 2100, 2300]),
        (50, [260, 320, 460, 600, 700, 720]),
        (300, [250; 6]),
        (3000, [250; 6]),
    ] {
        let (breaker, _) = opened(BreakerPolicy::standard());
        let mut now = START;
        let lasts = [(); 6].map(|()| {
            let lasts = next_probe(&breaker, now, per_second);
            now = now.after(ms(lasts));
            let permit = Permit { word: breaker.word() };
            breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE);
            lasts
        });
        for (lasts, expected) in lasts.iter().zip(expected) {
            assert!(lasts.abs_diff(expected) <= 20, "at {per_second}/s: {lasts}, not {expected}");
        }
    }
}

/// A probe that hangs has its own caller wait, and all others find it open: what they pay for counts.
#[test]
fn calls_turned_away_while_a_probe_is_out_bring_the_next_one_forward() {
    let policy = || BreakerPolicy::standard().open_for(ms(250));
    let (breaker, now) = opened(policy());
    let probes = [1_u64, 100].map(|turned_away| {
        breaker.control(Control::Reset);
        failures_to_open(&breaker, now);
        let mut later = now;
        for _ in 0..4 {
            later = later.after(ms(5000));
            breaker.record(probe(&breaker, later), CallResult::new(Verdict::Failure, QUICK), later, MIDDLE);
        }
        later = later.after(ms(5000));
        let hangs = probe(&breaker, later);
        assert!((0..turned_away).all(|_| breaker.try_acquire(later).is_err()));
        let failed = later.after(ms(3000));
        breaker.record(hangs, CallResult::new(Verdict::Failure, QUICK), failed, MIDDLE);
        breaker.rejects_now(failed).unwrap()
    });
    assert!(probes[0] > ms(4500), "{probes:?}");
    assert_eq!(probes[1], ms(250));
}

/// Or it would close and open again all the time: what lets it close doesn't show what fails.
#[test]
fn traffic_shortens_no_opening_after_a_recovery_that_was_none() {
    let breaker = breaker(BreakerPolicy::standard().cold_consecutive_failures(1));
    let (mut now, mut lasts) = (START, Vec::new());
    for _ in 0..4 {
        let body = head(&breaker, now);
        body_fails(&breaker, body, now, now).expect("the first opens it");
        let wait = next_probe(&breaker, now, 1000);
        lasts.push(wait);
        now = now.after(ms(wait));
        let permit = Permit { word: breaker.word() };
        breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
        recover(&breaker, now);
    }
    assert_eq!(lasts, [250, 500, 1000, 2000]);
}

proptest! {
    #[test]
    fn the_open_time_stays_within_ten_percent_of_a_doubling_below_the_cap(
        open in 1_u64..1 << 58, more in 0_u64..1 << 57, reopens: u32, unit in 0.0..1.0, share in 0.0..=1.0_f64,
    ) {
        let standard = BreakerPolicy::standard().compile().unwrap().numbers;
        let rules = Numbers { open_nanos: open, open_cap_nanos: open + more, probe_share: share as f32, ..standard };
        let exact = (u128::from(open) << reopens.min(60)).min(u128::from(open + more));
        let length = rules.pause(reopens, unit);
        for (time, exact) in [(length.longest, exact), (length.shortest, u128::from(open))] {
            let time = u128::from(time);
            prop_assert!(time * 10 >= exact * 9 && time * 10 <= exact * 11 + 10, "{} of {}", time, exact);
        }
        prop_assert!(length.shortest <= length.longest);
        prop_assert!((length.forward as f64 - exact as f64 * share).abs() <= 1.0 + exact as f64 * 1e-6);
    }
}

#[test]
fn only_a_failure_draws_randomness() {
    let breaker = breaker(BreakerPolicy::standard());
    for verdict in [Verdict::Success, Verdict::Neutral] {
        let permit = breaker.try_acquire(START).unwrap().permit;
        breaker.record(permit, CallResult::new(verdict, QUICK), START, || unreachable!());
    }
}

// ---- half-open ----

#[test]
fn closes_when_every_probe_succeeded_with_nothing_remembered() {
    let (breaker, now) = opened(BreakerPolicy::standard());
    let others = others(&breaker, now);
    assert_eq!(others.len(), 2);
    let transitions = others
        .into_iter()
        .map(|permit| breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE));
    let transitions: Vec<_> = transitions.collect();
    assert_eq!(transitions[0], None);
    let closed = transitions[1].unwrap();
    assert_eq!(
        (closed.from, closed.to, closed.cause),
        (State::HalfOpen, State::Closed, Cause::ProbesSucceeded)
    );
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.failures, snapshot.successes, snapshot.streak, snapshot.reopens), (0, 0, 0, 0));
    assert_eq!(failures_to_open(&breaker, now).0, 5);
}

#[test]
fn the_first_probe_goes_alone_and_the_others_the_moment_it_has_succeeded() {
    let (breaker, now) = opened(BreakerPolicy::standard().probes(10));
    let first = probe(&breaker, now);
    let later = now.after(ms(249));
    for _ in 0..1000 {
        assert_eq!(breaker.try_acquire(later).unwrap_err().retry_after, ms(1), "until another follows");
    }
    assert_eq!(breaker.record(first, CallResult::new(Verdict::Success, QUICK), later, MIDDLE), None);
    let others: Vec<_> = (0..100).filter_map(|_| breaker.try_acquire(later).ok()).collect();
    assert_eq!(others.len(), 9);
    assert_eq!(breaker.snapshot(later).probes, 9);
}

/// After a hang nobody knew that the server was well again before the probe's time was up.
#[test]
fn a_probe_that_does_not_answer_is_followed_when_one_that_failed_would_be() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    let mut hang = vec![probe(&breaker, now)];
    for expected in [250, 500, 1000, 2000, 4000].map(ms) {
        assert!(breaker.rejects_now(now.after(expected.mul_f64(0.9))).is_some());
        now = now.after(expected);
        hang.push(probe(&breaker, now));
        assert_eq!((breaker.state(), breaker.snapshot(now).probes), (State::HalfOpen, 1), "one slot");
        assert!(breaker.try_acquire(now).is_err());
    }
    // What was sent long ago says nothing of now.
    let newest = hang.pop().unwrap();
    let mut hang = hang.into_iter();
    for verdict in [Verdict::Failure, Verdict::Neutral] {
        let wait = breaker.rejects_now(now);
        assert_eq!(breaker.record(hang.next().unwrap(), CallResult::new(verdict, QUICK), now, MIDDLE), None);
        breaker.release(hang.next().unwrap());
        assert_eq!((breaker.rejects_now(now), breaker.snapshot(now).probes), (wait, 1));
    }
    // Unless it is an answer.
    breaker.record(hang.next().unwrap(), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    let last = probe(&breaker, now);
    assert!(breaker.try_acquire(now).is_err(), "the newest has the third slot");
    breaker.record(last, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    let closed = breaker.record(newest, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    assert_eq!(closed.unwrap().cause, Cause::ProbesSucceeded);
}

/// A generation lasts as long as a hang; two that bore one number gave one slot back twice.
#[test]
fn probes_that_run_out_of_numbers_begin_a_generation() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    let mut last = Vec::new();
    for n in 0..65_540 {
        let probe = probe(&breaker, now);
        if n >= 65_530 {
            last.push(probe);
        }
        now = now.after(ms(5_100));
    }
    assert!(breaker.snapshot(now).generation > 2, "another generation");
    for probe in last {
        breaker.record(probe, CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
    }
    assert_eq!(breaker.snapshot(now).probes, 0);
    assert_eq!(recover(&breaker, now.after(ms(10_000))).to, State::Closed);
}

#[test]
fn one_is_told_no_more_than_the_shortest_open_time_while_a_probe_is_out() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    for _ in 0..5 {
        breaker.record(probe(&breaker, now), CallResult::new(Verdict::Failure, QUICK), now, MIDDLE);
        now = now.after(ms(6_000));
    }
    let _probe = probe(&breaker, now);
    assert!(breaker.rejects_now(now).unwrap() <= ms(250));
    assert!(breaker.try_acquire(now.after(ms(300))).is_err(), "though the next goes later");
}

#[test]
fn the_newest_probe_that_fails_reopens_it_whatever_hangs_beside_it() {
    let (breaker, now) = opened(BreakerPolicy::standard());
    let _hangs = probe(&breaker, now);
    let now = now.after(ms(250));
    let failed = breaker.record(probe(&breaker, now), CallResult::new(Verdict::Failure, QUICK), now, MIDDLE);
    assert_eq!(failed.unwrap().cause, Cause::ProbeFailed);
}

#[test]
fn the_first_failed_probe_reopens_and_the_others_move_nothing() {
    let (breaker, now) = opened(BreakerPolicy::standard().probes(4));
    let Ok([first, second, third]) = <[Permit; 3]>::try_from(others(&breaker, now)) else { panic!() };
    assert_eq!(
        breaker.record(first, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE).unwrap().cause,
        Cause::ProbeFailed
    );
    let before = breaker.snapshot(now);
    assert_eq!(breaker.record(second, CallResult::new(Verdict::Success, QUICK), now, MIDDLE), None);
    assert_eq!(breaker.record(third, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE), None);
    assert_eq!(breaker.snapshot(now), before);
}

/// It gave its slot to the next call at once: a server that says 429 to every probe, or hangs while its callers leave early, was
/// sent all of the traffic.
#[test]
fn a_probe_that_decides_nothing_gives_its_slot_back_and_holds_the_next_back() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    for expected in [250, 500, 1000, 2000, 4000, 5000, 5000].map(ms) {
        assert_eq!(
            breaker.record(probe(&breaker, now), CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE),
            None
        );
        assert_eq!((breaker.state(), breaker.snapshot(now).probes), (State::HalfOpen, 0));
        assert_eq!(breaker.rejects_now(now), Some(expected));
        now = now.after(expected);
    }
    breaker.record(probe(&breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    breaker.record(probe(&breaker, now), CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
    assert_eq!(breaker.rejects_now(now), Some(ms(250)), "one that decides ends the row");
    assert_eq!(recover(&breaker, now.after(ms(250))).cause, Cause::ProbesSucceeded);
}

#[test]
fn a_probe_that_was_never_sent_holds_nobody_back() {
    let (breaker, now) = opened(BreakerPolicy::standard());
    for _ in 0..10 {
        breaker.release(probe(&breaker, now));
        assert_eq!((breaker.snapshot(now).probes, breaker.rejects_now(now)), (0, None));
    }
    assert_eq!(recover(&breaker, now).cause, Cause::ProbesSucceeded);
    let late = breaker.try_acquire(now).unwrap().permit;
    breaker.control(Control::ForceOpen);
    breaker.release(late);
    assert_eq!(breaker.state(), State::ForcedOpen);
}

#[test]
fn traffic_brings_the_next_probe_forward_after_one_that_decided_nothing_too() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    for _ in 0..10 {
        breaker.record(probe(&breaker, now), CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
        now = now.after(ms(5000));
    }
    breaker.record(probe(&breaker, now), CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
    assert!(next_probe(&breaker, now, 300) <= 254);
}

/// What one probe that was cancelled costs is a moment, when another shows that all is well.
#[test]
fn a_probe_that_succeeds_ends_the_wait_that_another_began() {
    let (breaker, now) = opened(BreakerPolicy::standard().probes(4));
    let Ok([first, second, _third]) = <[Permit; 3]>::try_from(others(&breaker, now)) else { panic!() };
    breaker.record(first, CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
    assert!(breaker.try_acquire(now).is_err());
    breaker.record(second, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    assert!(probe(&breaker, now).is_probe());
}

#[test]
fn new_rules_end_no_wait_between_probes() {
    let (breaker, now) = opened(BreakerPolicy::standard());
    breaker.record(probe(&breaker, now), CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
    breaker.set_rules(Some(BreakerPolicy::standard().probes(5).compile().unwrap()));
    assert_eq!(breaker.rejects_now(now), Some(ms(250)));
}

#[test]
fn lost_probes_expire_and_their_late_results_move_nothing() {
    let (breaker, now) = opened(BreakerPolicy::standard().probes(3));
    let mut lost = others(&breaker, now);
    lost.extend(breaker.try_acquire(now.after(ms(500))).ok().map(|call| call.permit));
    let lease_end = now.after(ms(10_000));
    let almost = Tick::from_nanos(lease_end.as_nanos() - 1);
    assert_eq!(lost.len(), 2);
    assert_eq!(breaker.try_acquire(almost).unwrap_err().retry_after, Duration::from_nanos(1));
    let fresh = breaker.try_acquire(lease_end).unwrap();
    let transition = fresh.transition.unwrap();
    assert_eq!((transition.from, transition.to), (State::HalfOpen, State::HalfOpen));
    assert_eq!(transition.cause, Cause::ProbesExpired);

    for permit in lost {
        assert_eq!(breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), lease_end, MIDDLE), None);
    }
    assert_eq!(breaker.snapshot(lease_end).probes, 1);
    assert!(breaker.try_acquire(lease_end).is_err(), "the lost probes' results freed no slot");
    breaker.record(fresh.permit, CallResult::new(Verdict::Success, QUICK), lease_end, MIDDLE);
    assert_eq!(recover(&breaker, lease_end).cause, Cause::ProbesSucceeded);
}

#[test]
fn dropping_every_probe_for_ever_never_wedges_it() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    for _ in 0..1000 {
        while let Ok(admitted) = breaker.try_acquire(now) {
            drop(admitted.permit);
        }
        // The one turned away just now may have brought the end.
        let Some(wait) = breaker.rejects_now(now) else { continue };
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(5), "{wait:?}");
        now = now.after(wait);
    }
    now = now.after(ms(10_000));
    assert_eq!(recover(&breaker, now).to, State::Closed);
}

#[test]
fn probes_may_come_far_apart() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    for _ in 0..3 {
        assert_eq!(breaker.snapshot(now).reopens, 0);
        let permit = breaker.try_acquire(now).unwrap().permit;
        breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
        now = now.after(Duration::from_mins(1));
    }
    assert_eq!(breaker.snapshot(now).state, State::Closed);
}

/// The peer's bug: a result from before the trip re-opened a healthy circuit.
#[test]
fn results_from_before_the_trip_move_nothing_afterwards() {
    let breaker = breaker(BreakerPolicy::standard().probes(1));
    let early: Vec<_> = (0..100).map(|_| breaker.try_acquire(START).unwrap().permit).collect();
    failures_to_open(&breaker, START);
    let mut early = early.into_iter();
    let mut record_some = |now| {
        let before = breaker.snapshot(now);
        for verdict in [Verdict::Success, Verdict::Failure, Verdict::Neutral] {
            for permit in early.by_ref().take(10) {
                assert_eq!(breaker.record(permit, CallResult::new(verdict, QUICK), now, MIDDLE), None);
            }
        }
        assert_eq!(breaker.snapshot(now), before);
    };
    record_some(START);
    let now = START.after(ms(1000));
    let permit = probe(&breaker, now);
    record_some(now);
    breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    record_some(now);
}

// ---- threads ----

/// PROOF E10: real threads, all at the moment of reopening, and all at the moment the first probe succeeds.
#[test]
fn a_thousand_threads_get_exactly_k_probes() {
    const THREADS: usize = 1000;
    for k in [1, 3] {
        let (breaker, now) = opened(BreakerPolicy::standard().probes(k));
        let crowd = || {
            let barrier = Barrier::new(THREADS);
            let ask = || {
                barrier.wait();
                breaker.try_acquire(now).ok()
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let mut first = crowd();
        assert_eq!(first.len(), 1);
        let first = first.remove(0);
        assert!(first.transition.is_some());
        breaker.record(first.permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
        if k > 1 {
            let others = crowd();
            assert_eq!(others.len(), k as usize - 1);
            assert!(others.iter().all(|call| call.transition.is_none()));
        }
    }
}

#[test]
fn threads_never_hold_more_than_k_probes_while_slots_come_and_go() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    // Before one has succeeded others may follow one that is out.
    for (succeeded, allowed) in [(1, 2), (2, 1)] {
        let policy =
            BreakerPolicy::standard().open_for(ms(2)).probes(3).probe_timeout(Duration::from_hours(1));
        let (breaker, now) = opened(policy);
        for _ in 0..succeeded {
            breaker.record(probe(&breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
        }
        let (held, most, clock) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let now = now.after(ms(clock.fetch_add(1, SeqCst)));
                        let Ok(call) = breaker.try_acquire(now) else { continue };
                        most.fetch_max(held.fetch_add(1, SeqCst) + 1, SeqCst);
                        held.fetch_sub(1, SeqCst);
                        breaker.record(call.permit, CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!(most > 0 && most <= allowed, "{most} beside {succeeded}");
        assert_eq!(breaker.snapshot(now).probes, 0);
    }
}

#[test]
fn no_outcome_is_lost_between_threads() {
    let policy = BreakerPolicy::standard().failure_rate(1.0).consecutive_failures(1_000_000);
    let breaker = breaker(policy.cold_consecutive_failures(1_000_000));
    call(&breaker, Verdict::Success, START);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..20_000 {
                    let verdict = if n % 10 == 0 { Verdict::Failure } else { Verdict::Success };
                    call(&breaker, verdict, START);
                }
            });
        }
    });
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.failures, snapshot.successes), (16_000, 144_001));
}

// ---- rules that change ----

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
    assert_eq!(breaker.rejects_now(now), Some(ms(300)));
    breaker.set_rules(Some(policy(700)));
    assert_eq!(breaker.rejects_now(now), Some(ms(700)));
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
    assert_eq!(breaker.rejects_now(START), Some(ms(250)), "the opening under way keeps its length");
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

// ---- settings ----

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

// ---- heads and bodies ----

/// A call whose head succeeds, and its body later.
fn head(breaker: &Breaker, now: Tick) -> BodyPermit {
    let permit = breaker.try_acquire(now).expect("admitted").permit;
    let body = permit.body();
    assert_eq!(breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE), None);
    body
}

fn body_fails(breaker: &Breaker, body: BodyPermit, at: Tick, now: Tick) -> Option<Transition> {
    breaker.record_body(body, BodyResult::new(Verdict::Failure, at), now, MIDDLE)
}

#[test]
fn a_server_that_answers_and_then_stalls_opens_it_although_heads_keep_coming() {
    let breaker = breaker(BreakerPolicy::standard());
    let mut bodies = std::collections::VecDeque::new();
    for second in 0..60_u64 {
        let now = START.after(Duration::from_secs(second));
        if second >= 5 {
            let (body, at) = bodies.pop_front().unwrap();
            if let Some(opened) = body_fails(&breaker, body, at, now) {
                assert_eq!((opened.cause, second), (Cause::ColdFailures(5), 9));
                return;
            }
        }
        bodies.push_back((head(&breaker, now), now));
    }
    panic!("a minute of stalled bodies did not open it");
}

#[test]
fn a_body_that_fails_takes_the_success_of_its_head_back() {
    let breaker = breaker(BreakerPolicy::standard());
    let body = head(&breaker, START);
    body_fails(&breaker, body, START, START.after(ms(3500)));
    let snapshot = breaker.snapshot(START.after(ms(3500)));
    assert_eq!((snapshot.failures, snapshot.successes), (1, 0));
}

/// Heads whose bodies were put down to an event went on counting as successes: three stalled bodies of four opened nothing.
#[test]
fn bodies_that_one_cause_explains_do_not_speak_for_the_server() {
    for cause in [FailureCause::Own, FailureCause::Lost] {
        let breaker = breaker(BreakerPolicy::standard());
        let mut bodies = VecDeque::new();
        let mut calls = 0_u64;
        while breaker.state() == State::Closed && calls < 18_000 {
            let now = START.after_nanos(calls * 3_333_333);
            let body = head(&breaker, now);
            if calls % 4 == 1 {
                breaker.record_body(body, BodyResult::new(Verdict::Success, now), now, MIDDLE);
            } else {
                bodies.push_back((calls + 150, now, body));
            }
            while bodies.front().is_some_and(|(due, ..)| *due <= calls) {
                let (_, at, body) = bodies.pop_front().unwrap();
                breaker.record_body(
                    body,
                    BodyResult::new(Verdict::Failure, at).caused_by(cause),
                    now,
                    MIDDLE,
                );
            }
            calls += 1;
        }
        assert!(calls < 18_000, "75 % of bodies stall: {cause:?}");
    }
}

#[test]
fn half_of_all_bodies_failing_opens_it_as_half_of_all_heads_would() {
    let breaker = breaker(BreakerPolicy::standard());
    for n in 0..100 {
        let body = head(&breaker, START);
        let opened = if n % 2 == 0 {
            breaker.record_body(body, BodyResult::new(Verdict::Success, START), START, MIDDLE);
            None
        } else {
            body_fails(&breaker, body, START, START)
        };
        if let Some(opened) = opened {
            assert_eq!((opened.cause, n), (Cause::FailureRate { failures: 25, calls: 50 }, 49));
            return;
        }
    }
    panic!("it did not open");
}

#[test]
fn scattered_failures_among_streams_that_are_well_do_not_open_it() {
    let breaker = breaker(BreakerPolicy::standard());
    let streams: Vec<_> = (0..98).map(|_| head(&breaker, START)).collect();
    for n in 0..5 {
        assert_eq!(call(&breaker, Verdict::Failure, START.after(ms(n * 100))), None);
    }
    drop(streams);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn probes_are_decided_by_their_heads_however_long_their_bodies_take() {
    let (breaker, now) = opened(BreakerPolicy::standard());
    let bodies = [(); 3].map(|()| {
        let probe = probe(&breaker, now);
        let body = probe.body();
        (body, breaker.record(probe, CallResult::new(Verdict::Success, QUICK), now, MIDDLE))
    });
    assert_eq!(bodies[2].1.unwrap().to, State::Closed);
    let [(first, _), ..] = bodies;
    let later = now.after(ms(20_000));
    assert_eq!(body_fails(&breaker, first, now, later), None, "of another generation");
}

#[test]
fn bodies_that_failed_before_it_opened_are_remembered_until_one_ends_well() {
    let breaker = breaker(BreakerPolicy::standard());
    let mut now = START;
    let mut lasts = Vec::new();
    for _ in 0..6 {
        let opened = loop {
            let body = head(&breaker, now);
            let at = now;
            now = now.after(ms(5000));
            if let Some(opened) = body_fails(&breaker, body, at, now) {
                break opened;
            }
        };
        assert!(matches!(opened.cause, Cause::ColdFailures(_)));
        let lasts_for = breaker.rejects_now(now).unwrap();
        lasts.push(lasts_for.as_millis() as u64);
        now = now.after(lasts_for);
        assert_eq!(recover(&breaker, now).to, State::Closed);
    }
    assert_eq!(lasts, [250, 500, 1000, 2000, 4000, 5000], "each time by a single body, and for longer");
    let body = head(&breaker, now);
    breaker.record_body(body, BodyResult::new(Verdict::Success, now), now, MIDDLE);
    let body = head(&breaker, now);
    assert_eq!(body_fails(&breaker, body, now, now), None);
}

// ---- causes ----

#[test]
fn what_one_restart_ended_is_one_failure() {
    let breaker = breaker(BreakerPolicy::standard());
    call(&breaker, Verdict::Success, START);
    for _ in 0..48 {
        let permit = breaker.try_acquire(START).unwrap().permit;
        let lost = breaker.record(
            permit,
            CallResult::new(Verdict::Failure, QUICK).caused_by(FailureCause::Lost),
            START,
            MIDDLE,
        );
        assert_eq!(lost, None);
    }
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.failures, snapshot.streak), (1, 1));
}

#[test]
fn a_server_that_refuses_every_connection_opens_it_within_its_first_second() {
    let breaker = breaker(BreakerPolicy::standard());
    call(&breaker, Verdict::Success, START);
    let opened_after = (0..1000).map(|n| n * 3).find(|n| {
        let now = START.after(ms(*n));
        let permit = breaker.try_acquire(now).unwrap().permit;
        breaker
            .record(
                permit,
                CallResult::new(Verdict::Failure, QUICK).caused_by(FailureCause::Lost),
                now,
                MIDDLE,
            )
            .is_some()
    });
    assert!(opened_after.is_some_and(|after| after <= 200), "{opened_after:?}");
}

#[cfg(not(resilient_loom))]
#[test]
fn fits_in_about_four_hundred_bytes() {
    let size = size_of::<Breaker>() + size_of::<super::window::SlowCalls>();
    assert!(size <= 416, "{size} bytes with the slow-call rule, whose counts are boxed");
    assert!(size_of::<Breaker>() <= 336, "{} bytes without", size_of::<Breaker>());
    assert_eq!(size_of::<Permit>(), 8);
}
