//! What the limit should be, from what one slot after the other saw.

use super::slot::Seen;
use crate::time::Tick;

/// The limit is this share of what would be answered within the attempts' time. In an upstream that is only slow, throughput
/// grows with what is let in, so a limit grows by itself unless round trips take more than this share of the time.
const SHARE: f64 = 0.9;
/// In force only while round trips take this share of the time attempts have ...
const CONGESTED: f64 = 1.0 / 3.0;
/// ... and this many times what is usual.
const UNUSUAL: f64 = 2.0;
/// Fewer attempts say too little for a limit. It lies above what a small upstream needs.
const FLOOR: f64 = 8.0;
/// The weight of a sample in the recent mean.
const SAMPLE: f64 = 0.1;
/// What is older than this is no recent round trip, in nanoseconds.
const RECENT: f64 = 1e9;
/// Completions are averaged over this time, in nanoseconds; it knows about as much as a sliding window twice as long ...
const FAST: f64 = 0.25e9;
/// ... and, where those are few, over this.
const SLOW: f64 = 2e9;
/// So many completions in the fast average are enough for it to stand alone.
const MANY: f64 = 50.0;
/// The usual round trip is a mean over this time, in nanoseconds.
const USUAL: f64 = 60e9;
/// A pause counts as this long at most for the usual round trip, so that no single call after it becomes what is usual.
const PAUSE: f64 = 1e9;
/// The first round trips are all usual alike.
const FIRST: f64 = 50.0;
/// An attempt that found no place speaks for an overload for so long, in nanoseconds.
const HELD: u64 = 1_000_000_000;

/// The plain state behind [`OverloadLimit`](super::OverloadLimit).
#[derive(Clone, Debug, Default)]
pub(super) struct Law {
    /// When the last slot ended.
    last: Option<Tick>,
    /// How many attempts the upstream answers in the time they have, by what it has answered lately.
    fast: Mean,
    slow: Mean,
    /// Completions a nanosecond.
    completions: Mean,
    /// Recent round trips, in nanoseconds.
    pub(super) rtt: f64,
    /// The time the same attempts had.
    allowed: f64,
    /// The usual round trip, in nanoseconds.
    pub(super) usual: f64,
    /// Samples in it.
    known: f64,
    /// Until when the usual round trip stands still, since an attempt has found no place.
    held_until: u64,
}

/// An exponential mean that knows how much it has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn take(&mut self, value: f64, share: f64) {
        self.sum += share * (value - self.sum);
        self.weight += share * (1.0 - self.weight);
    }

    fn get(self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

impl Law {
    /// Takes in a slot that ends `now`, in which an attempt found no place if `reached`. The limit from now on; `None` while
    /// none is in force.
    pub(super) fn step(&mut self, seen: &Seen, reached: bool, now: Tick) -> Option<u32> {
        let samples = seen.completed + seen.timed_out;
        if samples <= 0.0 {
            return None;
        }
        let (rtt, allowed) = (seen.round_trips / samples, (seen.answered + seen.wasted) / samples);
        let Some(last) = self.last.replace(now) else {
            (self.rtt, self.allowed, self.usual, self.known) = (rtt, allowed, rtt, samples);
            return None;
        };
        let passed = (now.nanos_since(last) as f64).max(1.0);
        for (mean, time) in [(&mut self.fast, FAST), (&mut self.slow, SLOW)] {
            mean.take(seen.answered / passed, share(passed, time));
        }
        self.completions.take(seen.completed / passed, share(passed, FAST));
        let weight = if passed > RECENT { 1.0 } else { 1.0 - (1.0 - SAMPLE).powf(samples) };
        self.rtt += weight * (rtt - self.rtt);
        self.allowed += weight * (allowed - self.allowed);
        if reached {
            self.held_until = now.after_nanos(HELD).as_nanos();
        }
        let in_force = self.is_congested();
        if !in_force || now.as_nanos() >= self.held_until {
            self.known = (self.known + samples).min(1e9);
            let first = if self.known < FIRST { samples / self.known } else { 0.0 };
            self.usual += share(passed.min(PAUSE), USUAL).max(first) * (rtt - self.usual);
        }
        in_force.then(|| (self.answered_in_time() * SHARE).max(FLOOR) as u32)
    }

    fn is_congested(&self) -> bool {
        self.rtt >= self.allowed * CONGESTED && self.rtt >= self.usual * UNUSUAL
    }

    fn answered_in_time(&self) -> f64 {
        let (fast, slow) = (self.fast.get(), self.slow.get());
        let sure = (self.completions.get() * 2.0 * FAST / MANY).min(1.0);
        fast * sure + fast.max(slow) * (1.0 - sure)
    }
}

/// What `passed` weighs in an exponential mean over `time`.
fn share(passed: f64, time: f64) -> f64 {
    1.0 - (-passed / time).exp()
}
