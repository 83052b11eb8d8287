//! Finding one upstream's state among those of many hosts, which is a step of every call.
//!
//! Ours counts the call in and out of what it found, as a call does. The peer is governor's keyed
//! limiter, which finds a key's state in a map that takes locks, reads the clock and decides; its
//! quota is never reached.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::{Quota, RateLimiter};
use resilient_client::Policy;
use resilient_client::bench_internals::Lookup;

use crate::subject::Subject;

/// So many URIs, each on a host of its own.
pub fn uris(hosts: usize) -> Vec<http::Uri> {
    (0..hosts).map(|i| format!("http://users-{i}:3000/users/7").parse().expect("uri")).collect()
}

/// Ours, given the authority.
pub fn ours(name: &'static str, hosts: usize, threads: usize) -> Subject {
    let lookup = lookup(&uris(hosts));
    Subject::shared(name, threads, move |_| lookup.by_authority(next_of(hosts)))
}

/// Ours, given the URI: scheme, host and port are read from it first.
pub fn ours_by_uri(name: &'static str, hosts: usize, threads: usize) -> Subject {
    let uris = uris(hosts);
    let lookup = lookup(&uris);
    Subject::shared(name, threads, move |_| lookup.by_uri(&uris[next_of(hosts)]))
}

/// governor's, given the authority as text.
pub fn governor(name: &'static str, hosts: usize, threads: usize) -> Subject {
    let keys: Vec<String> = (0..hosts).map(|i| format!("http://users-{i}:3000")).collect();
    let limiter = RateLimiter::dashmap(Quota::per_second(NonZeroU32::MAX));
    for key in &keys {
        limiter.check_key(key).expect("within the quota");
    }
    Subject::shared(name, threads, move |_| {
        limiter.check_key(&keys[next_of(hosts)]).expect("within the quota");
    })
}

fn lookup(uris: &[http::Uri]) -> Lookup {
    let lookup = Lookup::new(&Policy::standard(), uris).expect("the standard policy");
    assert_eq!(lookup.upstreams(), uris.len());
    lookup
}

/// The next of this thread's own walk through all hosts: threads that ran in step would always want
/// the same one.
fn next_of(hosts: usize) -> usize {
    // A prime, so that neighbours in memory aren't neighbours in time.
    const STEP: usize = 7919;
    static WALKS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static AT: Cell<usize> = Cell::new(WALKS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9));
    }
    AT.with(|at| {
        at.set(at.get().wrapping_add(STEP));
        at.get() % hosts
    })
}
