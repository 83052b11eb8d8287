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

#[test]
fn loom_a_slot_given_back_is_given_out_once() {
    loom::model(|| {
        let (breaker, now) = opened(tiny(1));
        let held = probe(&breaker, now);
        let breaker = Arc::new(breaker);
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.try_acquire(now).ok())
        };
        breaker.record(held, Verdict::Neutral, QUICK, now, MIDDLE);
        let ours = breaker.try_acquire(now).ok();
        let theirs = other.join().unwrap();
        assert_eq!(usize::from(ours.is_some()) + usize::from(theirs.is_some()), 1);
    });
}

#[test]
fn loom_concurrent_failures_open_it_once() {
    loom::model(|| {
        let breaker = Arc::new(breaker(tiny(1)));
        let permits = [(); 2].map(|()| breaker.try_acquire(START).unwrap().permit);
        let threads = permits.map(|permit| {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.record(permit, Verdict::Failure, QUICK, START, MIDDLE))
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
        let (breaker, now) = opened(tiny(2));
        let probes = [probe(&breaker, now), probe(&breaker, now)];
        let breaker = Arc::new(breaker);
        let [first, second] = probes;
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.record(first, Verdict::Failure, QUICK, now, MIDDLE))
        };
        let ours = breaker.record(second, Verdict::Success, QUICK, now, MIDDLE);
        let theirs = other.join().unwrap();
        assert_eq!((ours, theirs.map(|change| change.to)), (None, Some(State::Open)));
    });
}

#[test]
fn loom_a_result_that_waited_for_the_lock_moves_no_later_generation() {
    loom::model(|| {
        let (breaker, now) = opened(tiny(2));
        let [first, second] = [probe(&breaker, now), probe(&breaker, now)];
        let breaker = Arc::new(breaker);
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.record(first, Verdict::Failure, QUICK, now, MIDDLE))
        };
        let ours = breaker.record(second, Verdict::Failure, QUICK, now, MIDDLE);
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
            thread::spawn(move || breaker.record(good, Verdict::Success, QUICK, START, MIDDLE))
        };
        let opened = breaker.record(bad, Verdict::Failure, QUICK, START, MIDDLE);
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
            thread::spawn(move || breaker.record(permit, Verdict::Failure, QUICK, START, MIDDLE))
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
        assert_eq!(other.join().unwrap(), ms(1000));
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
            thread::spawn(move || breaker.record(permit, Verdict::Success, 1_000_001, START, MIDDLE))
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
