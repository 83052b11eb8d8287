//! Many threads on one set.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn threads_lose_no_place_while_the_list_changes_and_breakers_open() {
    let set = set([1, 2, 3]);
    let all: Vec<_> = (1..=6).map(|port| origins(1..=port)).collect();
    let done = AtomicBool::new(false);
    let mut gone: Vec<Arc<Endpoint>> = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|seed| {
                let set = &set;
                scope.spawn(move || {
                    let mut rng = Rng::seeded(seed);
                    for n in 0..5_000_u64 {
                        let now = after(n);
                        // All may be out for a moment.
                        let Ok(mut permit) = set.admit(&Seek::first(), now, &mut rng) else { continue };
                        let port = permit.endpoint().origin().port();
                        let verdict = if port % 2 == 0 { Verdict::Failure } else { Verdict::Success };
                        permit.settle(verdict, n % 50 * MS, now);
                    }
                })
            })
            .collect();
        let updates = scope.spawn(|| {
            let mut seen = Vec::new();
            for n in 0.. {
                set.update(&all[n % all.len()], after(n as u64));
                seen.extend(set.list.load().endpoints.iter().cloned());
                seen.sort_by_key(|endpoint| endpoint.id().0);
                seen.dedup_by_key(|endpoint| endpoint.id().0);
                // Each list once, however soon the others are done.
                if n >= all.len() && done.load(Ordering::Relaxed) {
                    break;
                }
            }
            seen
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        gone = updates.join().unwrap();
    });
    assert!(gone.len() >= 6);
    assert!(gone.iter().all(|endpoint| endpoint.in_flight() == 0));
}

#[test]
fn threads_share_no_more_probes_than_there_are() {
    let set = set([1, 2, 3]);
    trip(&set, 2, START);
    let now = after(2_000);
    let admit = &|seed| {
        let mut rng = Rng::seeded(seed);
        (0..500).map(|_| set.admit(&again(&[]), now, &mut rng).unwrap()).collect::<Vec<_>>()
    };
    let mut held: Vec<EndpointPermit> = std::thread::scope(|scope| {
        let workers = [1, 2, 3, 4].map(|seed| scope.spawn(move || admit(seed)));
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let to_second: Vec<_> = held.iter().filter(|held| held.endpoint().origin().port() == 2).collect();
    assert!((1..=3).contains(&to_second.len()), "{}", to_second.len());
    assert!(to_second.iter().all(|permit| permit.is_probe()));
    for permit in &mut held {
        permit.settle(Verdict::Neutral, 0, now);
    }
}
