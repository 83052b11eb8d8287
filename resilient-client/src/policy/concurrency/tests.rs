use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Tick;

const MS: u64 = 1_000_000;
const START: u64 = 3_600_000 * MS;

fn machine(policy: &ConcurrencyPolicy) -> Concurrency {
    Concurrency::new(policy.compile().unwrap())
}

fn kinds() -> [ConcurrencyPolicy; 3] {
    [ConcurrencyPolicy::gradient(), ConcurrencyPolicy::vegas(), ConcurrencyPolicy::aimd()]
}

fn completed(rtt_nanos: u64, in_flight: u32) -> Sample {
    Sample { rtt_nanos, in_flight, outcome: Outcome::Completed }
}

fn dropped(rtt_nanos: u64, in_flight: u32) -> Sample {
    Sample { rtt_nanos, in_flight, outcome: Outcome::Dropped }
}

/// Records one sample a millisecond, and returns the time after the last.
fn feed(machine: &Concurrency, from: u64, count: u64, mut sample: impl FnMut(u64) -> Sample) -> u64 {
    for i in 0..count {
        machine.record(sample(i), Tick::from_nanos(from + i * MS));
    }
    from + count * MS
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let gradient = ConcurrencyPolicy::gradient;
    let (vegas, aimd) = (ConcurrencyPolicy::vegas(), ConcurrencyPolicy::aimd());
    for (policy, message) in [
        (gradient().min(0), "concurrency.min must be between 1 and 1000000, got 0"),
        (gradient().max(1_000_001), "concurrency.max must be between 1 and 1000000, got 1000001"),
        (gradient().min(9).max(8), "concurrency.min must be at most concurrency.max (8), got 9"),
        (
            gradient().max(8),
            "concurrency.initial must lie between concurrency.min (4) and concurrency.max (8), got 20",
        ),
        (
            gradient().initial(3),
            "concurrency.initial must lie between concurrency.min (4) and concurrency.max (1000), got 3",
        ),
        (gradient().window(Duration::ZERO), "concurrency.window must be between 1ms and 60s, got 0ns"),
        (
            gradient().window(Duration::MAX),
            "concurrency.window must be between 1ms and 60s, got 18446744073709551615.999999999s",
        ),
        (gradient().min_samples(0), "concurrency.min_samples must be between 1 and 100000, got 0"),
        (gradient().remeasure(Duration::ZERO), "concurrency.remeasure must be longer than zero, got 0s"),
        (gradient().tolerance(1.0), "concurrency.tolerance must be between 1.05 and 10, got 1"),
        (gradient().tolerance(f64::NAN), "concurrency.tolerance must be between 1.05 and 10, got NaN"),
        (
            vegas.clone().queue(0.3, 0.2),
            "concurrency.queue must be two shares with 0 < low < high < 1, got 0.3 and 0.2",
        ),
        (
            vegas.clone().queue(f64::NAN, 0.2),
            "concurrency.queue must be two shares with 0 < low < high < 1, got NaN and 0.2",
        ),
        (aimd.clone().backoff(1.0), "concurrency.backoff must be between 0.5 and 0.99, got 1"),
        (aimd.clone().slow_after(Duration::ZERO), "concurrency.slow_after must be longer than zero, got 0s"),
        (vegas.clone().tolerance(1.5), "concurrency.tolerance is no setting of the Vegas kind"),
        (gradient().queue(0.1, 0.2), "concurrency.queue is no setting of the Gradient kind"),
        (gradient().backoff(0.9), "concurrency.backoff is no setting of the Gradient kind"),
        (vegas.slow_after(Duration::MAX), "concurrency.slow_after is no setting of the Vegas kind"),
        (aimd.remeasure(Duration::from_secs(1)), "concurrency.remeasure is no setting of the Aimd kind"),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
}

#[test]
fn grows_while_the_limit_is_reached_and_the_round_trip_stays() {
    for policy in kinds() {
        let machine = machine(&policy);
        assert_eq!(machine.limit(), 20);
        feed(&machine, START, 3_000, |_| completed(10 * MS, machine.limit()));
        assert!(machine.limit() > 40, "{:?}: {}", policy.kind, machine.limit());
    }
}

#[test]
fn a_limit_nobody_reaches_does_not_grow() {
    for policy in kinds() {
        let machine = machine(&policy);
        feed(&machine, START, 10_000, |_| completed(10 * MS, 15));
        assert_eq!(machine.limit(), 20, "{:?}", policy.kind);
    }
}

#[test]
fn a_queue_shrinks_it_and_stops_where_it_is_gone() {
    for policy in [ConcurrencyPolicy::gradient(), ConcurrencyPolicy::vegas()] {
        let machine = machine(&policy.initial(200));
        let after = feed(&machine, START, 400, |_| completed(10 * MS, 20));
        // 50 workers of 10 ms: above that, the round trip is the share of the queue.
        let at = |limit: u32| completed(u64::from(limit.max(50)) * 10 * MS / 50, limit);
        feed(&machine, after, 5_000, |_| at(machine.limit()));
        assert!((50..=80).contains(&machine.limit()), "{}", machine.limit());
    }
}

#[test]
fn too_few_samples_say_nothing() {
    for policy in kinds() {
        let machine = machine(&policy);
        for i in 0..1_000 {
            // One a second: no window gets its fifty.
            let sample = if i % 2 == 0 { dropped(MS, 20) } else { completed(MS, 20) };
            assert_eq!(machine.record(sample, Tick::from_nanos(START + i * 1_000 * MS)), None);
        }
        assert_eq!(machine.limit(), 20);
    }
}

#[test]
fn one_stray_drop_is_one_small_step_and_a_window_of_them_a_large_one() {
    for policy in kinds() {
        let machine = machine(&policy.initial(100));
        let after = feed(&machine, START, 1_000, |i| {
            if i % 100 == 50 { dropped(MS, 50) } else { completed(10 * MS, 50) }
        });
        assert!((90..=100).contains(&machine.limit()), "{:?}", machine.snapshot());
        let before = machine.limit();
        feed(&machine, after, 3_000, |_| dropped(10 * MS, 50));
        assert!(machine.limit() <= before / 2, "{:?}", machine.snapshot());
    }
}

#[test]
fn ignored_attempts_move_nothing() {
    let machine = machine(&ConcurrencyPolicy::gradient());
    feed(&machine, START, 5_000, |_| Sample { outcome: Outcome::Ignored, ..completed(MS, 900) });
    let snapshot = machine.snapshot();
    assert_eq!((snapshot.limit, snapshot.completed, snapshot.dropped), (20, 0, 0));
    assert_eq!(snapshot.base_round_trip, None);
}

#[test]
fn a_lone_answer_after_minutes_moves_no_mean() {
    let machine = machine(&ConcurrencyPolicy::gradient().initial(100));
    let after = feed(&machine, START, 1_000, |_| completed(10 * MS, 100));
    let before = machine.limit();
    feed(&machine, after, 400, |i| completed(if i == 150 { 300_000 * MS } else { 10 * MS }, 100));
    assert!(machine.limit() >= before, "{:?}", machine.snapshot());
}

#[test]
fn new_rules_keep_what_was_learnt_and_bind_at_once() {
    let machine = machine(&ConcurrencyPolicy::gradient());
    let after = feed(&machine, START, 3_000, |_| completed(10 * MS, machine.limit()));
    let learnt = machine.snapshot();
    assert!(learnt.limit > 40);
    let narrow = ConcurrencyPolicy::vegas().initial(10).max(30).compile().unwrap();
    assert_eq!(machine.set_rules(narrow), 30);
    assert_eq!(machine.snapshot().base_round_trip, learnt.base_round_trip);
    let after = feed(&machine, after, 1_000, |_| completed(10 * MS, 30));
    assert_eq!(machine.limit(), 30);
    machine.set_rules(ConcurrencyPolicy::gradient().compile().unwrap());
    feed(&machine, after, 1_000, |_| completed(10 * MS, machine.limit()));
    assert!(machine.limit() > 30);
}

/// A minimum of one attempt and answers of a minute: the windows must wait for them.
#[test]
fn slow_answers_one_at_a_time_still_lift_the_limit() {
    for policy in kinds() {
        let machine = machine(&policy.initial(1).min(1));
        for i in 0..2_000 {
            let at = Tick::from_nanos(START + i * 60_000 * MS / u64::from(machine.limit()));
            machine.record(completed(60_000 * MS, machine.limit()), at);
        }
        assert!(machine.limit() > 1, "{:?}", machine.snapshot());
    }
}

#[test]
fn a_clock_that_leapt_ahead_and_came_back_wedges_nothing() {
    let machine = machine(&ConcurrencyPolicy::gradient());
    let after = feed(&machine, START, 500, |_| completed(10 * MS, 20));
    for at in [Tick::NEVER, Tick::ZERO, Tick::NEVER] {
        machine.record(completed(10 * MS, 20), at);
    }
    feed(&machine, after, 3_000, |_| completed(10 * MS, machine.limit()));
    assert!(machine.limit() > 40, "{:?}", machine.snapshot());
}

fn samples() -> impl Strategy<Value = Vec<(Sample, u64)>> {
    let number = || prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..200 * MS, any::<u64>()];
    let in_flight = prop_oneof![Just(0), Just(u32::MAX), 0..2_000_u32];
    let outcome = prop_oneof![
        6 => Just(Outcome::Completed),
        2 => Just(Outcome::Dropped),
        1 => Just(Outcome::Ignored),
    ];
    let sample = (number(), in_flight, outcome).prop_map(|(rtt_nanos, in_flight, outcome)| Sample {
        rtt_nanos,
        in_flight,
        outcome,
    });
    // Steps of time; now and then it is somewhere else altogether.
    let step = prop_oneof![20 => 0..50 * MS, 1 => any::<u64>()];
    prop::collection::vec((sample, step), 0..600)
}

proptest! {
    #[test]
    fn whatever_is_recorded_the_limit_stays_within_its_bounds_and_can_still_grow(
        samples in samples(), kind in 0_usize..3, min in 1_u32..10, more in 0_u32..50, needed in 1_u32..5,
    ) {
        let policy = kinds()[kind].clone().min(min).initial(min).max(min + more).min_samples(needed);
        let (machine, twin) = (machine(&policy), machine(&policy));
        let mut now = START;
        let (mut completed_in_all, mut dropped_in_all) = (0, 0);
        let mut limit = machine.limit();
        for (sample, step) in samples {
            now = now.wrapping_add(step);
            let changed = machine.record(sample, Tick::from_nanos(now));
            prop_assert_eq!(changed, twin.record(sample, Tick::from_nanos(now)), "the same in, the same out");
            limit = changed.unwrap_or(limit);
            prop_assert_eq!(limit, machine.limit());
            prop_assert!((min..=min + more).contains(&limit), "{}", limit);
            completed_in_all += u64::from(sample.outcome == Outcome::Completed);
            dropped_in_all += u64::from(sample.outcome == Outcome::Dropped);
        }
        let snapshot = machine.snapshot();
        prop_assert_eq!((snapshot.completed, snapshot.dropped), (completed_in_all, dropped_in_all));
        // Minutes of good days later it is up again, or rests where a base too low holds it: not at
        // its minimum, and at no less than half of where it was, or than the three that the
        // headroom of one attempt allows whatever the base (a base of 26 ns, learnt from round
        // trips of zero, took a limit of 7 down to 3).
        let before = machine.limit();
        let mut now = 4 * START;
        for _ in 0..40_000 {
            now += 20 * MS;
            machine.record(completed(20 * MS, machine.limit()), Tick::from_nanos(now));
        }
        let after = machine.limit();
        prop_assert!(after == min + more || (after > min && (after * 2 >= before || after >= 3)), "{} -> {:?}", before, machine);
    }
}

/// The headroom of one attempt balances a base too low by three quarters at a limit of 3.6.
#[test]
fn a_base_far_too_low_does_not_hold_the_limit_above_its_minimum() {
    for policy in [ConcurrencyPolicy::gradient(), ConcurrencyPolicy::vegas()] {
        for (min, percent) in
            [1, 2, 3, 4, 8].into_iter().flat_map(|min| [130, 150, 175, 200, 300].map(|p| (min, p)))
        {
            let machine = machine(&policy.clone().min(min).initial(min).max(100));
            let after = feed(&machine, START, 1_000, |_| completed(10 * MS, 0));
            // The last window of the fast days ends before the slow ones.
            let after = feed(&machine, after + 1_000 * MS, 1, |_| completed(10 * MS, 0));
            feed(&machine, after, 60_000, |_| completed(percent * MS / 10, machine.limit()));
            assert_eq!(machine.limit(), 100, "min {min}, {percent} %: {:?}", machine.snapshot());
        }
    }
}

#[test]
fn an_hour_of_silence_neither_wedges_nor_opens_it() {
    for policy in kinds() {
        let machine = machine(&policy);
        // Twenty workers of 10 ms: what is beyond them waits, and what waits too long is dropped.
        let at = |limit: u32| {
            if limit > 60 {
                dropped(30 * MS, limit)
            } else {
                completed(u64::from(limit.max(20)) * MS / 2, limit)
            }
        };
        let after = feed(&machine, START, 60_000, |_| at(machine.limit()));
        let before = machine.snapshot();
        let later = after + 3_600_000 * MS;
        let mut limits = Vec::new();
        feed(&machine, later, 10_000, |_| {
            limits.push(machine.limit());
            at(machine.limit())
        });
        let (least, most) = (limits.iter().min().unwrap(), limits.iter().max().unwrap());
        assert!(*most <= 62 && *least >= before.limit / 2, "{before:?} then {least} to {most}");
        // Twice the workers.
        feed(&machine, later + 10_000 * MS, 60_000, |_| completed(10 * MS, machine.limit()));
        assert!(machine.limit() > before.limit.max(60), "{before:?} then {:?}", machine.snapshot());
    }
}

#[test]
fn threads_lose_no_sample() {
    const EACH: u64 = 20_000;
    let machine = machine(&ConcurrencyPolicy::gradient());
    let clock = std::sync::atomic::AtomicU64::new(START);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for i in 0..EACH {
                    // A hundred samples a millisecond: thousands of windows close under way.
                    let now = clock.fetch_add(MS / 100, std::sync::atomic::Ordering::Relaxed);
                    let sample = if i % 10 == 0 { dropped(MS, 20) } else { completed(10 * MS, 20) };
                    machine.record(sample, Tick::from_nanos(now));
                }
            });
        }
    });
    let snapshot = machine.snapshot();
    assert_eq!((snapshot.completed, snapshot.dropped), (8 * EACH * 9 / 10, 8 * EACH / 10));
}

#[cfg(resilient_loom)]
mod under_loom;
