//! Probes.

use super::*;

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
        assert_eq!(breaker.try_acquire(later).unwrap_err().retry_after, Some(ms(1)), "until another follows");
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
        assert!(shut_for(&breaker, now.after(expected.mul_f64(0.9))).is_some());
        now = now.after(expected);
        hang.push(probe(&breaker, now));
        assert_eq!((breaker.state(), breaker.snapshot(now).probes), (State::HalfOpen, 1), "one slot");
        assert!(breaker.try_acquire(now).is_err());
    }
    // What was sent long ago says nothing of now.
    let newest = hang.pop().unwrap();
    let mut hang = hang.into_iter();
    for verdict in [Verdict::Failure, Verdict::Neutral] {
        let wait = shut_for(&breaker, now);
        assert_eq!(breaker.record(hang.next().unwrap(), CallResult::new(verdict, QUICK), now, MIDDLE), None);
        breaker.release(hang.next().unwrap());
        assert_eq!((shut_for(&breaker, now), breaker.snapshot(now).probes), (wait, 1));
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
    assert!(shut_for(&breaker, now).unwrap() <= ms(250));
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

/// It gave its slot to the next call at once: a server that says 429 to every probe, or hangs while
/// its callers leave early, was sent all of the traffic.
#[test]
fn a_probe_that_decides_nothing_gives_its_slot_back_and_holds_the_next_back() {
    let (breaker, mut now) = opened(BreakerPolicy::standard());
    for expected in [250, 500, 1000, 2000, 4000, 5000, 5000].map(ms) {
        assert_eq!(
            breaker.record(probe(&breaker, now), CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE),
            None
        );
        assert_eq!((breaker.state(), breaker.snapshot(now).probes), (State::HalfOpen, 0));
        assert_eq!(shut_for(&breaker, now), Some(expected));
        now = now.after(expected);
    }
    breaker.record(probe(&breaker, now), CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
    breaker.record(probe(&breaker, now), CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
    assert_eq!(shut_for(&breaker, now), Some(ms(250)), "one that decides ends the row");
    assert_eq!(recover(&breaker, now.after(ms(250))).cause, Cause::ProbesSucceeded);
}

#[test]
fn a_probe_that_was_never_sent_holds_nobody_back() {
    let (breaker, now) = opened(BreakerPolicy::standard());
    for _ in 0..10 {
        breaker.release(probe(&breaker, now));
        assert_eq!((breaker.snapshot(now).probes, shut_for(&breaker, now)), (0, None));
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
    assert_eq!(shut_for(&breaker, now), Some(ms(250)));
}

#[test]
fn lost_probes_expire_and_their_late_results_move_nothing() {
    let (breaker, now) = opened(BreakerPolicy::standard().probes(3));
    let mut lost = others(&breaker, now);
    lost.extend(breaker.try_acquire(now.after(ms(500))).ok().map(|call| call.permit));
    let lease_end = now.after(ms(10_000));
    let almost = Tick::from_nanos(lease_end.as_nanos() - 1);
    assert_eq!(lost.len(), 2);
    assert_eq!(breaker.try_acquire(almost).unwrap_err().retry_after, Some(Duration::from_nanos(1)));
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
        let Some(wait) = shut_for(&breaker, now) else { continue };
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
        now = now.after(Duration::from_secs(60));
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
