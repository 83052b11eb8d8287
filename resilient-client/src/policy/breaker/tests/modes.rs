//! What is off by default: windows of calls, slow calls, a rule of one's own, an operator's hand,
//! observing only.

use super::*;

fn record(breaker: &Breaker, verdict: Verdict, took: u64) -> Option<Transition> {
    let permit = breaker.try_acquire(START).expect("admitted").permit;
    breaker.record(permit, CallResult::from_nanos(verdict, took), START, MIDDLE)
}

/// Only a rate can open it.
fn by_rate() -> BreakerPolicy {
    BreakerPolicy::standard().consecutive_failures(1_000_000).cold_consecutive_failures(1_000_000)
}

// ---- a window of calls ----

/// The peer's count window never slides: there 100,000 successes need 100,000 failures.
#[test]
fn old_outcomes_leave_a_window_of_calls() {
    let breaker = breaker(by_rate().window_calls(100).min_calls(100));
    for _ in 0..100_000 {
        call(&breaker, Verdict::Success, START);
    }
    assert_eq!(failures_to_open(&breaker, START), (50, Cause::FailureRate { failures: 50, calls: 100 }));
}

#[test]
fn a_window_of_calls_does_not_mind_how_long_ago_they_were() {
    let breaker = breaker(by_rate().window_calls(2).min_calls(2).failure_rate(1.0));
    call(&breaker, Verdict::Failure, START);
    let opened = call(&breaker, Verdict::Failure, START.after(Duration::from_secs(3_600_000))).unwrap();
    assert_eq!(opened.cause, Cause::FailureRate { failures: 2, calls: 2 });
}

#[test]
fn closing_empties_a_window_of_calls() {
    let (breaker, now) = opened(by_rate().window_calls(10).min_calls(10).probes(1));
    let permit = probe(&breaker, now);
    breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    assert_eq!(breaker.snapshot(now).failures, 0);
    assert_eq!(failures_to_open(&breaker, now).0, 10);
}

#[test]
fn no_outcome_is_lost_between_threads_in_a_window_of_calls() {
    let breaker = breaker(by_rate().window_calls(100_000).failure_rate(1.0));
    call(&breaker, Verdict::Success, START);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..10_000 {
                    let verdict = if n % 10 == 0 { Verdict::Failure } else { Verdict::Success };
                    call(&breaker, verdict, START);
                }
            });
        }
    });
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.failures, snapshot.successes), (4_000, 36_001));
}

#[test]
fn changing_the_kind_of_window_empties_it_and_keeps_the_state() {
    let breaker = breaker(by_rate());
    let calls = by_rate().window_calls(100).compile().unwrap();
    for rules in [calls.clone(), by_rate().compile().unwrap(), calls] {
        call(&breaker, Verdict::Failure, START);
        assert_eq!(breaker.snapshot(START).failures, 1);
        assert_eq!(breaker.set_rules(Some(rules)), None);
        assert_eq!(breaker.snapshot(START).failures, 0);
    }
}

// ---- slow calls ----

const SLOW: u64 = 200_000_000;

fn slow_above_half() -> BreakerPolicy {
    by_rate().slow_call(Duration::from_nanos(SLOW), 0.5).min_calls(10)
}

#[test]
fn a_call_is_slow_only_beyond_the_limit_and_too_many_are_only_more_than_the_share() {
    for policy in [slow_above_half(), slow_above_half().window_calls(10)] {
        let breaker = breaker(policy);
        for _ in 0..5 {
            assert_eq!(record(&breaker, Verdict::Success, SLOW), None);
            assert_eq!(record(&breaker, Verdict::Success, SLOW + 1), None, "5 of 10 are no more than half");
        }
        // In the ring it pushes out a quick one; in the time window it is the eleventh.
        let opened = record(&breaker, Verdict::Success, SLOW + 1).unwrap();
        let calls = breaker.snapshot(START).successes;
        assert_eq!(opened.cause, Cause::SlowRate { slow: 6, calls });
    }
}

#[test]
fn slow_failures_are_slow_calls_too() {
    let breaker = breaker(slow_above_half().failure_rate(1.0));
    for _ in 0..4 {
        record(&breaker, Verdict::Success, 0);
    }
    for _ in 0..5 {
        assert_eq!(record(&breaker, Verdict::Failure, SLOW + 1), None);
    }
    let opened = record(&breaker, Verdict::Failure, SLOW + 1).unwrap();
    assert_eq!(opened.cause, Cause::SlowRate { slow: 6, calls: 10 });
}

#[test]
fn slow_calls_leave_the_window_and_a_slow_success_ends_a_streak() {
    let breaker = breaker(slow_above_half());
    record(&breaker, Verdict::Failure, 0);
    record(&breaker, Verdict::Success, SLOW + 1);
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.slow, snapshot.streak), (1, 0));
    assert_eq!(breaker.snapshot(START.after(ms(9_999))).slow, 1);
    assert_eq!(breaker.snapshot(START.after(ms(10_000))).slow, 0);
}

#[test]
fn a_probe_that_succeeds_slowly_opens_it_again_for_longer() {
    let (breaker, now) = opened(slow_above_half().cold_consecutive_failures(1).probes(1));
    let permit = probe(&breaker, now);
    let reopened =
        breaker.record(permit, CallResult::from_nanos(Verdict::Success, SLOW + 1), now, MIDDLE).unwrap();
    assert_eq!((reopened.to, reopened.cause), (State::Open, Cause::ProbeSlow));
    assert_eq!(shut_for(&breaker, now), Some(ms(500)));
}

#[test]
fn slow_calls_are_rounded_with_their_bucket() {
    let breaker = breaker(slow_above_half().min_calls(1000));
    for n in 0..1_000_000_u32 {
        let took = if n % 10 < 4 { SLOW + 1 } else { 0 };
        assert_eq!(record(&breaker, Verdict::Success, took), None, "40 % are slow at the {n}th call");
    }
    let snapshot = breaker.snapshot(START);
    let share = f64::from(snapshot.slow) / f64::from(snapshot.successes);
    assert!((0.39..0.41).contains(&share), "{share}");
}

// ---- a rule of the user's own ----

/// Opens at every `at`th failure, for as many seconds.
#[derive(Debug)]
struct Every {
    at: u64,
    seen: u64,
}

impl Trip for Every {
    fn success(&mut self, _: Tick) {
        self.seen = 0;
    }

    fn failure(&mut self, _: Tick) -> Option<Duration> {
        self.seen += 1;
        assert_ne!(self.seen, 7, "a bug in the user's code");
        self.seen.is_multiple_of(self.at).then(|| Duration::from_secs(self.at))
    }

    fn recovered(&mut self) {
        self.seen = 0;
    }
}

fn every(at: u64) -> BreakerPolicy {
    BreakerPolicy::standard().probes(1).trip(move || Every { at, seen: 0 })
}

fn tripping(policy: &BreakerPolicy) -> Breaker {
    Breaker::new(policy.compile().unwrap())
}

#[test]
fn a_rule_of_ones_own_decides_alone_and_for_how_long() {
    let breaker = tripping(&every(100).cold_consecutive_failures(1));
    assert_eq!(failures_to_open(&breaker, START), (100, Cause::Tripped));
    assert_eq!(shut_for(&breaker, START), Some(Duration::from_secs(100)));
}

#[test]
fn a_rule_of_ones_own_hears_every_success_and_of_the_revival() {
    let breaker = tripping(&every(3));
    for _ in 0..2 {
        call(&breaker, Verdict::Failure, START);
    }
    call(&breaker, Verdict::Success, START);
    assert_eq!(failures_to_open(&breaker, START).0, 3);
    let now = START.after(ms(3000));
    // Its fourth failure: it says nothing, so the breaker opens for as long as before.
    let permit = probe(&breaker, now);
    breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE);
    assert_eq!(shut_for(&breaker, now), Some(ms(3000)));
    let now = now.after(ms(3000));
    let permit = probe(&breaker, now);
    breaker.record(permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    assert_eq!(failures_to_open(&breaker, now).0, 3);
}

#[test]
fn a_panic_in_a_rule_of_ones_own_opens_nothing_and_breaks_nothing() {
    let breaker = tripping(&every(8));
    assert_eq!(failures_to_open(&breaker, START), (8, Cause::Tripped));
    let refused =
        BreakerPolicy::standard().trip(|| -> Every { panic!("a bug in the user's code") }).compile();
    assert_eq!(refused.unwrap_err().to_string(), "breaker.trip panicked when asked for a policy");
}

#[test]
fn a_silent_probe_is_followed_no_sooner_than_its_own_rule_would_have_a_failed_one_followed() {
    let breaker = tripping(&every(1));
    call(&breaker, Verdict::Failure, START);
    let wait = shut_for(&breaker, START).unwrap();
    let now = START.after(wait);
    let _silent = probe(&breaker, now);
    assert!((1..100).all(|n| breaker.try_acquire(now.after(ms(n * 90))).is_err()));
}

#[test]
fn the_same_rule_of_ones_own_survives_a_reload() {
    let policy = every(3);
    let breaker = tripping(&policy);
    for _ in 0..2 {
        call(&breaker, Verdict::Failure, START);
    }
    breaker.set_rules(Some(policy.clone().compile().unwrap()));
    assert_eq!(failures_to_open(&breaker, START).0, 1);
    breaker.control(Control::Reset);
    breaker.set_rules(Some(BreakerPolicy::standard().probes(1).compile().unwrap()));
    assert_eq!(failures_to_open(&breaker, START), (5, Cause::ColdFailures(5)));
    assert_eq!(policy, policy.clone());
    assert_ne!(policy, every(3));
}

/// It was ignored: the factory went to the breaker by another way, which only the client knew.
#[test]
fn a_breaker_made_from_compiled_rules_has_the_rule_of_ones_own() {
    let breaker = Breaker::new(every(6).compile().unwrap());
    assert_eq!(failures_to_open(&breaker, START), (6, Cause::Tripped));
}

/// Two locks, one after the other: a failure in between opened the breaker by the standard rules.
#[test]
fn no_call_sees_rules_without_the_rule_of_ones_own_that_came_with_them() {
    let own =
        || BreakerPolicy::standard().cold_consecutive_failures(1).trip(|| Every { at: u64::MAX, seen: 0 });
    // In force until the other thread comes to it, which may take any number of failures.
    let plain =
        BreakerPolicy::standard().consecutive_failures(1_000_000).cold_consecutive_failures(1_000_000);
    let plain = plain.compile().unwrap();
    let breaker = Breaker::new(plain.clone());
    let rules = [own().compile().unwrap(), own().compile().unwrap()];
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            let mut rng = Rng::seeded(1);
            for _ in 0..20_000 {
                let admitted = breaker.try_acquire(START).expect("closed");
                let opened = breaker.record(
                    admitted.permit,
                    CallResult::from_nanos(Verdict::Failure, 1),
                    START,
                    || rng.unit(),
                );
                assert!(opened.is_none(), "{opened:?}");
                if breaker.snapshot(START).failures > 40 {
                    breaker.control(Control::Reset);
                }
            }
        });
        while !failing.is_finished() {
            for rules in &rules {
                breaker.set_rules(Some(rules.clone()));
            }
        }
        failing.join().unwrap();
    });
    drop(plain);
}

// ---- an operator's hand ----

fn forced(breaker: &Breaker, control: Control) -> Transition {
    breaker.control(control).expect("a change")
}

#[test]
fn forced_open_it_rejects_for_ever_and_says_so() {
    for breaker in [breaker(BreakerPolicy::standard().open_for(ms(300))), Breaker::disabled()] {
        let change = forced(&breaker, Control::ForceOpen);
        assert_eq!((change.to, change.cause), (State::ForcedOpen, Cause::Forced));
        assert_eq!(breaker.control(Control::ForceOpen), None, "it is already");
        for now in [START, START.after(Duration::from_secs(360_000))] {
            let nobody_knows = Rejected { retry_after: None };
            assert_eq!(breaker.try_acquire(now).unwrap_err(), nobody_knows);
            assert_eq!(breaker.rejects_now(now), Some(nobody_knows));
        }
        assert!(breaker.snapshot(START).forced);
    }
}

#[test]
fn forced_closed_it_counts_and_nothing_opens_it() {
    let breaker = breaker(BreakerPolicy::standard());
    forced(&breaker, Control::ForceClosed);
    for _ in 0..1000 {
        assert_eq!(call(&breaker, Verdict::Failure, START), None);
    }
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.state, snapshot.failures, snapshot.streak), (State::ForcedClosed, 1000, 1000));
    let released = forced(&breaker, Control::Enable);
    assert_eq!((released.to, released.cause), (State::Closed, Cause::Released));
    assert_eq!(failures_to_open(&breaker, START).0, 5, "what it counted is forgotten");
}

#[test]
fn a_streak_without_end_stays_in_its_field() {
    let breaker = breaker(BreakerPolicy::standard());
    forced(&breaker, Control::ForceClosed);
    let failures = 2_200_000;
    for _ in 0..failures {
        call(&breaker, Verdict::Failure, START);
    }
    let snapshot = breaker.snapshot(START);
    assert_eq!((snapshot.state, snapshot.generation, snapshot.streak), (State::ForcedClosed, 1, 1_000_000));
}

#[test]
fn switched_off_it_counts_nothing_whatever_rules_come() {
    let breaker = breaker(BreakerPolicy::standard());
    forced(&breaker, Control::Disable);
    for rules in [None, Some(BreakerPolicy::standard().compile().unwrap())] {
        assert_eq!(breaker.set_rules(rules), None);
        for _ in 0..10 {
            assert_eq!(call(&breaker, Verdict::Failure, START), None);
        }
        let snapshot = breaker.snapshot(START);
        assert_eq!((snapshot.state, snapshot.forced, snapshot.failures), (State::Disabled, true, 0));
    }
    assert_eq!(forced(&breaker, Control::Enable).to, State::Closed);
}

#[test]
fn a_forced_state_outlives_new_rules_and_ends_with_them_in_force() {
    let breaker = breaker(BreakerPolicy::standard());
    forced(&breaker, Control::ForceOpen);
    let stricter = BreakerPolicy::standard().cold_consecutive_failures(2).open_for(ms(700));
    assert_eq!(breaker.set_rules(Some(stricter.compile().unwrap())), None);
    assert_eq!(breaker.rejects_now(START), Some(Rejected { retry_after: None }));
    forced(&breaker, Control::Enable);
    assert_eq!(failures_to_open(&breaker, START).0, 2);
    forced(&breaker, Control::ForceClosed);
    assert_eq!(breaker.set_rules(None), None);
    assert_eq!(forced(&breaker, Control::Enable).to, State::Disabled, "there are no rules to follow");
}

#[test]
fn a_reset_closes_and_forgets_whatever_the_state() {
    let (breaker, now) = opened(BreakerPolicy::standard().probes(1));
    let permit = probe(&breaker, now);
    breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE);
    let reset = forced(&breaker, Control::Reset);
    assert_eq!((reset.from, reset.to, reset.cause), (State::Open, State::Closed, Cause::Reset));
    assert_eq!(breaker.snapshot(now).reopens, 0);
    call(&breaker, Verdict::Failure, now);
    assert_eq!(forced(&breaker, Control::Reset).from, State::Closed);
    assert_eq!(breaker.snapshot(now).failures, 0);
    assert_eq!(breaker.control(Control::Enable), None, "nothing is forced");
}

#[test]
fn results_from_before_a_forced_state_move_nothing_in_it_or_after_it() {
    let breaker = breaker(BreakerPolicy::standard());
    let mut early: Vec<_> = (0..40).map(|_| breaker.try_acquire(START).unwrap().permit).collect();
    for control in [Control::ForceClosed, Control::ForceOpen, Control::Disable, Control::Enable] {
        forced(&breaker, control);
        let before = breaker.snapshot(START);
        for permit in early.drain(..10) {
            assert_eq!(breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), START, MIDDLE), None);
        }
        assert_eq!(breaker.snapshot(START), before);
    }
}

#[test]
fn told_to_observe_it_rejects_nothing_and_judges_on_until_it_is_enabled_or_reset() {
    for ends in [Control::Enable, Control::Reset] {
        let breaker = breaker(BreakerPolicy::standard());
        let generation = breaker.snapshot(START).generation;
        assert_eq!(breaker.control(Control::Observe), None);
        assert_eq!(breaker.snapshot(START).generation, generation);
        assert_eq!(failures_to_open(&breaker, START).0, 5);
        let admitted = breaker.try_acquire(START).unwrap();
        assert!(admitted.would_reject.is_some());
        // New rules don't undo it.
        breaker.set_rules(Some(BreakerPolicy::standard().compile().unwrap()));
        assert!(breaker.is_held() && breaker.snapshot(START).observe_only);
        assert!(breaker.try_acquire(START).is_ok());
        assert_eq!(breaker.control(ends).is_some(), ends == Control::Reset);
        assert!(!breaker.is_held() && !breaker.snapshot(START).observe_only);
        assert_eq!(breaker.try_acquire(START).is_err(), ends == Control::Enable, "what it found holds");
    }
}

/// Forced open it said so and let every call through, as somebody had let it observe before.
#[test]
fn who_forces_a_breaker_that_was_told_to_observe_ends_that() {
    let breaker = breaker(BreakerPolicy::standard());
    breaker.control(Control::Observe);
    assert!(breaker.control(Control::ForceOpen).is_some());
    let forced = breaker.snapshot(START);
    assert_eq!((forced.state, forced.forced, forced.observe_only), (State::ForcedOpen, true, false));
    assert!(!breaker.takes_any() && breaker.rejects_now(START).is_some());
    assert_eq!(breaker.try_acquire(START).unwrap_err().retry_after, None);
    // Told to observe then, it lets calls go, says of each that it wouldn't, and can be forced
    // anew.
    assert_eq!(breaker.control(Control::Observe), None);
    assert!(breaker.try_acquire(START).unwrap().would_reject.is_some());
    assert_eq!(breaker.control(Control::ForceOpen), None);
    assert!(breaker.try_acquire(START).is_err());
    breaker.control(Control::Observe);
    for word in [Control::Disable, Control::ForceClosed, Control::Enable, Control::Reset] {
        breaker.control(word);
        assert!(!breaker.snapshot(START).observe_only, "{word}");
    }
    assert!(!breaker.is_held());
}

#[test]
fn controls_have_names_of_their_own() {
    let names: std::collections::HashSet<_> = Control::ALL.map(Control::as_str).into();
    assert_eq!(names.len(), Control::ALL.len());
}

// ---- observing only: see also the model ----

#[test]
fn observing_only_the_first_calls_are_the_probes_and_the_others_do_not_count() {
    let (breaker, now) = {
        let breaker = breaker(BreakerPolicy::standard().observe_only(true));
        failures_to_open(&breaker, START);
        (breaker, START.after(ms(1000)))
    };
    let early = breaker.try_acquire(START).unwrap();
    assert_eq!(early.would_reject, Some(Rejected { retry_after: Some(ms(250)) }));
    let calls = || {
        let calls: Vec<_> = (0..6).map(|_| breaker.try_acquire(now).unwrap()).collect();
        let probes: Vec<_> = calls.iter().map(|call| call.permit.is_probe()).collect();
        (calls, probes)
    };
    let (mut first, probes) = calls();
    assert_eq!(probes, [true, false, false, false, false, false]);
    breaker.record(first.remove(0).permit, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    let (mut calls, probes) = calls();
    assert_eq!(probes, [true, true, false, false, false, false]);
    calls.extend(first);
    for call in calls.into_iter().rev() {
        assert_eq!(call.would_reject.is_none(), call.permit.is_probe());
        let verdict = if call.permit.is_probe() { Verdict::Success } else { Verdict::Failure };
        breaker.record(call.permit, CallResult::new(verdict, QUICK), now, MIDDLE);
    }
    assert_eq!(breaker.record(early.permit, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE), None);
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.state, snapshot.failures, snapshot.observe_only), (State::Closed, 0, true));
}

#[test]
fn observing_only_ends_at_once_when_the_rules_say_so() {
    let breaker = breaker(BreakerPolicy::standard().observe_only(true));
    failures_to_open(&breaker, START);
    assert_eq!(shut_for(&breaker, START), None);
    breaker.set_rules(Some(BreakerPolicy::standard().compile().unwrap()));
    assert_eq!(shut_for(&breaker, START), Some(ms(250)));
    assert!(breaker.try_acquire(START).is_err());
}

#[test]
fn refuses_combinations_that_cannot_work() {
    let standard = BreakerPolicy::standard;
    for (policy, message) in [
        (standard().window_calls(0), "breaker.window_calls must be between 1 and 100000, got 0"),
        (standard().window_calls(49), "breaker.window_calls must be at least breaker.min_calls (50), got 49"),
        (standard().slow_call(ms(0), 0.5), "breaker.slow_call must be longer than zero, got 0s"),
        (standard().slow_call(ms(1), 0.0), "breaker.slow_call share must be above 0 and below 1, got 0"),
        (standard().slow_call(ms(1), 1.0), "breaker.slow_call share must be above 0 and below 1, got 1"),
        (
            standard().slow_call(ms(1), f64::NAN),
            "breaker.slow_call share must be above 0 and below 1, got NaN",
        ),
        (
            every(1).slow_call(ms(1), 0.5),
            "breaker.slow_call has no effect beside breaker.trip, which decides alone",
        ),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
    assert!(standard().window(ms(1)).window_calls(50).compile().is_ok(), "the time window isn't in use");
    assert!(standard().window_calls(1).window(ms(10_000)).compile().is_ok(), "the last one counts");
}
