//! The machine that calls share.

use std::time::Duration;

use super::Sample;
use super::control::Control;
use super::policy::{Law, Rules};
use super::window::{LONGEST, Window};
use super::{Outcome, Snapshot};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// A window lasts this many round trips at least.
const ROUND_TRIPS: f64 = 4.0;
/// ... but no more than ten seconds for their sake, lest one absurd answer make minutes of every
/// window.
const LONGEST_WINDOW: f64 = 10e9;
/// A window that hasn't enough samples after this many times its length is thrown away.
const PATIENCE: u64 = 5;
/// A round trip counts as this many times the base at most.
const CAP: f64 = 8.0;
/// Threads may bring their samples this late without the clock having been set back.
const LATE: u64 = 1_000_000_000;

/// An adaptive limit, shared by every call to one upstream. It says what the limit should be; a
/// [`Bulkhead`](crate::policy::bulkhead::Bulkhead) keeps it.
///
/// A sample is a few atomic additions. The one that finds the window over decides, under a lock
/// nobody waits for.
#[derive(Debug)]
pub struct Concurrency {
    window: Window,
    /// When the window opened, in nanoseconds.
    opened: AtomicU64,
    /// How long it lasts at least, in nanoseconds.
    lasts: AtomicU64,
    limit: AtomicU32,
    /// An answer slower than this counts as dropped.
    slow_after: AtomicU64,
    /// One decision at a time.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rules: Rules,
    control: Control,
    /// Attempts admitted under the old, higher limit still come back: what is seen now is thrown
    /// away.
    settling: bool,
    completed: u64,
    dropped: u64,
}

impl Concurrency {
    /// A machine that knows nothing yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            window: Window::new(),
            opened: AtomicU64::new(0),
            lasts: AtomicU64::new(0),
            limit: AtomicU32::new(rules.initial),
            slow_after: AtomicU64::new(slow_after(&rules)),
            inner: Mutex::new(Inner {
                rules,
                control: Control::new(&rules),
                // The first sample finds a window that opened long ago, and opens one.
                settling: true,
                completed: 0,
                dropped: 0,
            }),
        }
    }

    /// Takes in how one attempt went; the new limit when this changed it.
    pub fn record(&self, sample: Sample, now: Tick) -> Option<u32> {
        let slow = sample.outcome == Outcome::Completed
            && sample.rtt_nanos > self.slow_after.load(Ordering::Relaxed);
        let outcome = if slow { Outcome::Dropped } else { sample.outcome };
        self.window.add(Sample { outcome, ..sample });
        let opened = self.opened.load(Ordering::Relaxed);
        // Wraps to far more than any window when the clock went back.
        if now.as_nanos().wrapping_sub(opened) < self.lasts.load(Ordering::Relaxed) {
            return None;
        }
        // Whoever holds the lock closes the same window.
        let mut inner = self.inner.try_lock()?;
        self.close(&mut inner, now)
    }

    /// Attempts that may be in flight.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the rules and keeps what was learnt. Returns the limit, which lies within the new
    /// bounds.
    pub fn set_rules(&self, rules: Rules) -> u32 {
        let mut inner = self.inner.lock();
        inner.rules = rules;
        inner.control.set_rules(&rules);
        self.slow_after.store(slow_after(&rules), Ordering::Relaxed);
        // The window under way is of the old rules.
        inner.settling = true;
        self.publish(&inner.control);
        self.limit()
    }

    /// What is known now. Takes the lock: for people, not for every call.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner.lock();
        let (completed, dropped) = self.window.counts();
        let base = inner.control.baseline.nanos();
        Snapshot {
            limit: self.limit(),
            base_round_trip: base.map(|base| Duration::from_nanos(base as u64)),
            round_trip: base.map(|_| Duration::from_nanos(inner.control.rtt as u64)),
            completed: inner.completed.saturating_add(completed),
            dropped: inner.dropped.saturating_add(dropped),
        }
    }

    /// Ends the window if it is over.
    fn close(&self, inner: &mut Inner, now: Tick) -> Option<u32> {
        let opened = self.opened.load(Ordering::Relaxed);
        let age = now.as_nanos().saturating_sub(opened);
        let lasts = self.lasts.load(Ordering::Relaxed);
        let clock_went_back = now.as_nanos().saturating_add(LATE) < opened;
        // Another thread may have closed it while this one was on its way.
        if age < lasts && !clock_went_back {
            return None;
        }
        // Slow attempts come in slowly: a limit of 4 and time-outs of 10 s make no fifty samples in
        // a second.
        let patience = lasts.max(self.window.age().saturating_mul(ROUND_TRIPS as u64));
        let too_late = clock_went_back || age / PATIENCE >= patience;
        let (completed, dropped) = self.window.counts();
        let enough = completed + dropped >= inner.control.needed(&inner.rules);
        if !(inner.settling || enough || too_late) {
            return None;
        }
        let seen = self.window.take();
        inner.completed = inner.completed.saturating_add(seen.completed);
        inner.dropped = inner.dropped.saturating_add(seen.dropped);
        let settled = std::mem::take(&mut inner.settling);
        let before = inner.control.limit;
        if enough && !settled {
            inner.control.decide(&inner.rules, &seen, now);
        }
        self.opened.store(now.as_nanos(), Ordering::Relaxed);
        self.lasts.store(inner.lasts(), Ordering::Relaxed);
        self.window.set_cap(inner.cap());
        inner.settling = inner.control.limit < before * 0.98;
        if inner.settling {
            self.lasts.store(inner.control.rtt.clamp(1.0, LONGEST_WINDOW) as u64, Ordering::Relaxed);
        }
        self.publish(&inner.control)
    }

    fn publish(&self, control: &Control) -> Option<u32> {
        let limit = control.limit as u32;
        (self.limit.swap(limit, Ordering::Relaxed) != limit).then_some(limit)
    }
}

impl Inner {
    /// How long the next window lasts.
    fn lasts(&self) -> u64 {
        // With a queue the base is the shorter, and with a base that is no longer true the last
        // round trip.
        let base = self.control.baseline.nanos().map_or(0.0, |base| base.min(self.control.rtt));
        self.rules.window.max((base * ROUND_TRIPS).min(LONGEST_WINDOW) as u64)
    }

    fn cap(&self) -> u64 {
        self.control.baseline.nanos().map_or(LONGEST, |base| (base * CAP) as u64)
    }
}

fn slow_after(rules: &Rules) -> u64 {
    match rules.law {
        Law::Aimd { slow_after, .. } => slow_after,
        Law::Gradient { .. } | Law::Vegas { .. } => u64::MAX,
    }
}
