//! The machine that calls share.

use super::law::Law;
use super::slot::Slot;
use super::{Full, Sample, Snapshot};
use crate::policy::priority::Priority;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// The limit while none is in force: the counter's own.
const UNLIMITED: u32 = u32::MAX;
/// Samples are looked at together after so many nanoseconds.
const SLOT: u64 = 25_000_000;
/// The end of the slot of a limit that is off.
const OFF: u64 = u64::MAX;

// The word is `limit | in flight`, so that who gives a place back sees whether anybody may wait for
// it.
//
// 63..32   31..0
// limit    in flight

const fn limit(word: u64) -> u32 {
    (word >> 32) as u32
}

const fn in_flight(word: u64) -> u32 {
    word as u32
}

/// How many slots of `limit` a class may fill.
const fn share(limit: u32, priority: Priority) -> u32 {
    match priority {
        Priority::Sheddable => limit - limit / 4,
        Priority::Normal | Priority::Critical => limit,
    }
}

/// Attempts in flight to one upstream, and how many of them it can answer in time.
///
/// Taking and giving back a place is one atomic step each, and a sample is two. The one that finds
/// its slot over looks at them, under a lock nobody waits for.
#[derive(Debug)]
pub struct OverloadLimit {
    word: AtomicU64,
    /// When the slot under way ends, as a `Tick`; [`OFF`] while nothing is looked at.
    ends: AtomicU64,
    slot: Slot,
    /// An attempt has found no place in this slot.
    reached: AtomicBool,
    /// One look at a time.
    law: Mutex<Law>,
}

/// The limit came into force, moved or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: Option<u32>,
    /// Now.
    pub to: Option<u32>,
}

impl OverloadLimit {
    /// One that knows nothing, and counts what is in flight whether it is on or off.
    pub fn new(on: bool) -> Self {
        Self {
            word: AtomicU64::new(u64::from(UNLIMITED) << 32),
            ends: AtomicU64::new(if on { 0 } else { OFF }),
            slot: Slot::new(),
            reached: AtomicBool::new(false),
            law: Mutex::new(Law::default()),
        }
    }

    /// Switches it on or off. Off it forgets what it knew, and lifts the limit.
    pub fn switch(&self, on: bool) -> Option<Change> {
        let was_on = self.ends.load(Ordering::Relaxed) != OFF;
        if on == was_on {
            return None;
        }
        let mut law = self.law.lock();
        self.ends.store(if on { 0 } else { OFF }, Ordering::Relaxed);
        let _ = self.slot.take();
        *law = Law::default();
        self.publish(None)
    }

    /// Takes a place, to be given back once with [`release`](Self::release).
    ///
    /// # Errors
    /// [`Full`] when the limit is in force and as many are in flight as this class may have.
    pub fn try_acquire(&self, priority: Priority) -> Result<(), Full> {
        let take = |word: u64| (in_flight(word) < share(limit(word), priority)).then(|| word + 1);
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => Ok(()),
            Err(word) => {
                self.reached.store(true, Ordering::Relaxed);
                Err(Full { limit: share(limit(word), priority) })
            }
        }
    }

    /// Takes a place whether there is one or not, for a limit that only observes. To be given back
    /// like any other.
    pub fn overrun(&self) {
        let take = |word: u64| (in_flight(word) < u32::MAX).then(|| word + 1);
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
    }

    /// Gives a place back. Whether the limit is in force, so that somebody may wait for it. One
    /// release too many is ignored.
    pub fn release(&self) -> bool {
        let give = |word: u64| (in_flight(word) > 0).then(|| word - 1);
        let word = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, give);
        limit(word.unwrap_or_else(|word| word)) != UNLIMITED
    }

    /// Whether there is a place, without taking it.
    pub fn has_place(&self, priority: Priority) -> bool {
        let word = self.word.load(Ordering::Acquire);
        in_flight(word) < share(limit(word), priority)
    }

    /// Takes in how one attempt went; what that changed.
    #[inline]
    pub fn record(&self, sample: Sample, now: Tick) -> Option<Change> {
        let ends = self.ends.load(Ordering::Relaxed);
        if ends == OFF {
            return None;
        }
        self.slot.add(sample);
        if now.as_nanos() < ends {
            return None;
        }
        self.close(now)
    }

    #[inline(never)]
    fn close(&self, now: Tick) -> Option<Change> {
        // Whoever holds the lock closes the same slot.
        let mut law = self.law.try_lock()?;
        if now.as_nanos() < self.ends.load(Ordering::Relaxed) {
            return None;
        }
        self.ends.store(now.after_nanos(SLOT).as_nanos().min(OFF - 1), Ordering::Relaxed);
        let reached = self.reached.swap(false, Ordering::Relaxed);
        let to = law.step(&self.slot.take(), reached, now);
        self.publish(to)
    }

    pub(super) fn publish(&self, to: Option<u32>) -> Option<Change> {
        let new = to.unwrap_or(UNLIMITED);
        let set = |word: u64| Some((u64::from(new) << 32) | u64::from(in_flight(word)));
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        let from = Some(limit(before.unwrap_or_else(|word| word))).filter(|limit| *limit != UNLIMITED);
        (from != to).then_some(Change { from, to })
    }

    /// Attempts that may be in flight; `None` while no limit is in force.
    pub fn limit(&self) -> Option<u32> {
        Some(limit(self.word.load(Ordering::Relaxed))).filter(|limit| *limit != UNLIMITED)
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        in_flight(self.word.load(Ordering::Relaxed))
    }

    /// What is known now. Takes the lock: for people, not for every call.
    pub fn snapshot(&self) -> Snapshot {
        let law = self.law.lock();
        let nanos = |nanos: f64| (nanos > 0.0).then_some(nanos as u64);
        Snapshot {
            limit: self.limit(),
            in_flight: self.in_flight(),
            rtt_nanos: nanos(law.rtt),
            usual_rtt_nanos: nanos(law.usual),
        }
    }
}
