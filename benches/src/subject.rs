//! Something that can be done any number of times and says how long that took.
//!
//! One type for criterion, for the interleaved tables, for the allocation count and for callgrind:
//! what is compared is the same code each time.

use std::fmt;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock;

/// A thing to measure.
pub struct Subject {
    name: &'static str,
    run: Box<dyn FnMut(u64) -> Duration>,
}

impl Subject {
    /// `run` does it `n` times and returns the time that took, preparation excluded.
    pub fn timed(name: &'static str, run: impl FnMut(u64) -> Duration + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// `once` is done by `threads` threads at the same time on whatever it shares, `n` times by
    /// each; it is given a number that only grows.
    ///
    /// One thread's time is its CPU time. That of several is the slowest one's real time, from the
    /// moment all of them run: waiting for each other is what it is about.
    pub fn shared<T>(name: &'static str, threads: usize, once: impl Fn(u64) -> T + Sync + 'static) -> Self {
        let next = AtomicU64::new(0);
        Self::timed(name, move |n| {
            let first = next.fetch_add(n, Ordering::Relaxed);
            if threads == 1 {
                return cpu_time(n, |i| once(first + i));
            }
            // A barrier of std would wake the threads tens of microseconds apart.
            let waiting = AtomicUsize::new(threads);
            std::thread::scope(|scope| {
                let together = || {
                    waiting.fetch_sub(1, Ordering::AcqRel);
                    while waiting.load(Ordering::Acquire) != 0 {
                        spin_loop();
                    }
                    let start = clock::now();
                    repeat(n, |i| once(first + i));
                    start.elapsed()
                };
                let started: Vec<_> = (0..threads).map(|_| scope.spawn(together)).collect();
                started
                    .into_iter()
                    .map(|thread| thread.join().expect("bench thread"))
                    .max()
                    .unwrap_or_default()
            })
        })
    }

    /// What it is called in every table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Does it `n` times.
    pub fn run(&mut self, n: u64) -> Duration {
        (self.run)(n)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The CPU time that `n` runs of `once` take; each is told its number. Whatever else the machine
/// does, or waits for, isn't in it.
pub fn cpu_time<T>(n: u64, once: impl FnMut(u64) -> T) -> Duration {
    let start = clock::thread_cpu();
    repeat(n, once);
    clock::thread_cpu().saturating_sub(start)
}

fn repeat<T>(n: u64, mut once: impl FnMut(u64) -> T) {
    for i in 0..n {
        black_box(once(i));
    }
}
