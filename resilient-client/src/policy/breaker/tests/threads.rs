//! Many threads at once.

use super::*;

/// PROOF E10: real threads, all at the moment of reopening, and all at the moment the first probe
/// succeeds.
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
            BreakerPolicy::standard().open_for(ms(2)).probes(3).probe_timeout(Duration::from_secs(3600));
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
