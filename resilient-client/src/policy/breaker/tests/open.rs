//! How long it stays open, and what it says meanwhile.

use super::*;

#[test]
fn an_open_breaker_rejects_until_the_open_time_is_over_and_says_how_long() {
    let (breaker, until) = opened(BreakerPolicy::standard());
    assert_eq!(START.until(until), ms(250), "the middle of the jitter");
    for (now, left) in [(START, ms(250)), (START.after(ms(249)), ms(1))] {
        assert_eq!(breaker.try_acquire(now).unwrap_err(), Rejected { retry_after: Some(left) });
        assert_eq!(shut_for(&breaker, now), Some(left));
    }
    assert_eq!(shut_for(&breaker, until), None);
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
        let wait = shut_for(&breaker, now).unwrap();
        assert_eq!(wait, expected);
        now = now.after(wait);
    }
    let permit = probe(&breaker, now);
    let closed = breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE).unwrap();
    assert_eq!((closed.to, closed.cause), (State::Closed, Cause::ProbesSucceeded));
    failures_to_open(&breaker, now);
    assert_eq!(shut_for(&breaker, now), Some(ms(250)));
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

/// A probe that hangs has its own caller wait, and all others find it open: what they pay for
/// counts.
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
        shut_for(&breaker, failed).unwrap()
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
