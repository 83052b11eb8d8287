use loom::sync::Arc;
use loom::thread;

use super::*;

fn tiny(probes: u32) -> BreakerPolicy {
    BreakerPolicy::standard().cold_consecutive_failures(1).probes(probes)
}

#[test]
fn loom_half_open_admits_exactly_k_with_one_transition() {
    loom::model(|| {
        let (breaker, now) = opened(tiny(1));
        let breaker = Arc::new(breaker);
        let others: Vec<_> = (0..2)
            .map(|_| {
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || breaker.try_acquire(now).ok())
            })
            .collect();
        let mut admitted = vec![breaker.try_acquire(now).ok()];
        admitted.extend(others.into_iter().map(|other| other.join().unwrap()));
        assert_eq!(admitted.iter().flatten().count(), 1);
        assert_eq!(admitted.iter().flatten().filter(|call| call.transition.is_some()).count(), 1);
    });
}

/// A breaker of three probes with two of them out, the first having succeeded.
fn two_probes() -> (Arc<Breaker>, Tick, [Permit; 2]) {
    let (breaker, now) = opened(tiny(3));
    let others = others(&breaker, now);
    (Arc::new(breaker), now, others.try_into().unwrap())
}

#[test]
fn loom_a_slot_given_back_is_given_out_once_and_not_at_once() {
    loom::model(|| {
        let (breaker, now) = opened(tiny(1));
        let (held, later) = (probe(&breaker, now), now.after(ms(250)));
        let breaker = Arc::new(breaker);
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || (breaker.try_acquire(now).is_ok(), breaker.try_acquire(later).is_ok()))
        };
        breaker.record(held, CallResult::new(Verdict::Neutral, QUICK), now, MIDDLE);
        let ours = breaker.try_acquire(later).is_ok();
        let (at_once, theirs) = other.join().unwrap();
        assert!(!at_once);
        assert_eq!(usize::from(ours) + usize::from(theirs), 1);
    });
}

#[test]
fn loom_the_others_follow_the_first_that_succeeds_and_no_more_of_them_than_there_are_slots() {
    loom::model(|| {
        let (breaker, now) = opened(tiny(2));
        let first = probe(&breaker, now);
        let breaker = Arc::new(breaker);
        let others: [_; 2] = std::array::from_fn(|_| {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.try_acquire(now).is_ok())
        });
        assert_eq!(breaker.record(first, CallResult::new(Verdict::Success, QUICK), now, MIDDLE), None);
        let admitted = others.map(|other| usize::from(other.join().unwrap())).iter().sum::<usize>();
        assert_eq!(admitted + usize::from(breaker.try_acquire(now).is_ok()), 1);
    });
}

/// The counts of calls turned away are advice to those who ask, and the end of a pause all the
/// same.
#[test]
fn loom_calls_turned_away_together_all_count() {
    loom::model(|| {
        let policy = tiny(1).open_for(ms(100)).open_cap(ms(200)).probe_share(0.25);
        let (breaker, now) = opened(policy);
        breaker.record(probe(&breaker, now), CallResult::new(Verdict::Failure, QUICK), now, MIDDLE);
        let breaker = Arc::new(breaker);
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.try_acquire(now).is_ok())
        };
        assert!(breaker.try_acquire(now).is_err() && !other.join().unwrap());
        assert!(shut_for(&breaker, now.after(ms(99))).is_some());
        assert_eq!(shut_for(&breaker, now.after(ms(100))), None);
    });
}

#[test]
fn loom_concurrent_failures_open_it_once() {
    loom::model(|| {
        let breaker = Arc::new(breaker(tiny(1)));
        let permits = [(); 2].map(|()| breaker.try_acquire(START).unwrap().permit);
        let threads = permits.map(|permit| {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), START, MIDDLE)
            })
        });
        let opened = threads.map(|thread| thread.join().unwrap()).into_iter().flatten().count();
        assert_eq!(opened, 1);
        let snapshot = breaker.snapshot(START);
        assert_eq!((snapshot.state, snapshot.generation), (State::Open, 1));
    });
}

#[test]
fn loom_probes_failing_and_succeeding_together_move_it_once() {
    loom::model(|| {
        let (breaker, now, [first, second]) = two_probes();
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                breaker.record(first, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE)
            })
        };
        let ours = breaker.record(second, CallResult::new(Verdict::Success, QUICK), now, MIDDLE);
        let theirs = other.join().unwrap();
        assert_eq!((ours, theirs.map(|change| change.to)), (None, Some(State::Open)));
    });
}

#[test]
fn loom_a_result_that_waited_for_the_lock_moves_no_later_generation() {
    loom::model(|| {
        let (breaker, now, [first, second]) = two_probes();
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                breaker.record(first, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE)
            })
        };
        let ours = breaker.record(second, CallResult::new(Verdict::Failure, QUICK), now, MIDDLE);
        let half_open = breaker.try_acquire(now.after(ms(10_000))).ok().and_then(|call| call.transition);
        assert_eq!(half_open.map(|change| change.to), Some(State::HalfOpen));
        assert!(ours.is_some() != other.join().unwrap().is_some(), "one of them reopened it, once");
    });
}

/// A success ends a streak with a compare-and-swap: a plain store here would undo a transition.
#[test]
fn loom_a_success_never_undoes_a_transition() {
    loom::model(|| {
        let breaker = Arc::new(breaker(BreakerPolicy::standard().consecutive_failures(2)));
        call(&breaker, Verdict::Failure, START);
        let permits = [(); 2].map(|()| breaker.try_acquire(START).unwrap().permit);
        let [good, bad] = permits;
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                breaker.record(good, CallResult::new(Verdict::Success, QUICK), START, MIDDLE)
            })
        };
        let opened = breaker.record(bad, CallResult::new(Verdict::Failure, QUICK), START, MIDDLE);
        assert_eq!(other.join().unwrap(), None);
        let snapshot = breaker.snapshot(START);
        match opened {
            Some(_) => assert_eq!((snapshot.state, snapshot.generation), (State::Open, 1)),
            None => assert!(snapshot.state == State::Closed && snapshot.streak <= 1),
        }
    });
}

#[test]
fn loom_no_result_moves_a_forced_breaker() {
    loom::model(|| {
        let breaker = Arc::new(breaker(tiny(1)));
        let permit = breaker.try_acquire(START).unwrap().permit;
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                breaker.record(permit, CallResult::new(Verdict::Failure, QUICK), START, MIDDLE)
            })
        };
        let forced = breaker.control(Control::ForceOpen).unwrap();
        let opened = other.join().unwrap();
        let from = if opened.is_some() { State::Open } else { State::Closed };
        assert_eq!((forced.from, breaker.state()), (from, State::ForcedOpen));
    });
}

/// Forced open it must not hand out the open time that a racing call reads from another state.
#[test]
fn loom_a_rejection_while_being_forced_open_tells_a_sensible_wait() {
    loom::model(|| {
        let (breaker, _) = opened(tiny(1));
        let breaker = Arc::new(breaker);
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.try_acquire(START).unwrap_err().retry_after)
        };
        breaker.control(Control::ForceOpen);
        assert!(other.join().unwrap().is_none_or(|wait| wait == ms(250)));
    });
}

#[test]
fn loom_slow_calls_open_it_once() {
    loom::model(|| {
        let policy = BreakerPolicy::standard().slow_call(ms(1), 0.4).min_calls(1);
        let breaker = Arc::new(breaker(policy));
        let permits = [(); 2].map(|()| breaker.try_acquire(START).unwrap().permit);
        let threads = permits.map(|permit| {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                breaker.record(permit, CallResult::from_nanos(Verdict::Success, 1_000_001), START, MIDDLE)
            })
        });
        let opened = threads.map(|thread| thread.join().unwrap()).into_iter().flatten().count();
        assert_eq!((opened, breaker.state()), (1, State::Open));
    });
}

#[test]
fn loom_observing_only_half_open_has_exactly_k_probes() {
    loom::model(|| {
        let (breaker, now) = opened(tiny(1));
        breaker.set_rules(Some(tiny(1).observe_only(true).compile().unwrap()));
        let breaker = Arc::new(breaker);
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.try_acquire(now).unwrap())
        };
        let calls = [breaker.try_acquire(now).unwrap(), other.join().unwrap()];
        assert_eq!(calls.iter().filter(|call| call.permit.is_probe()).count(), 1);
        assert_eq!(calls.iter().filter(|call| call.would_reject.is_some()).count(), 1);
        assert_eq!(calls.iter().filter(|call| call.transition.is_some()).count(), 1);
    });
}
