//! What the limit should be, from what one slot after the other saw.

use super::slot::Seen;
use crate::time::Tick;

/// The limit is this share of the attempts that end within the time attempts have. In an upstream
/// that is only slow, throughput grows with what is let in, so a limit grows by itself unless round
/// trips take more than this share of the time.
const SHARE: f64 = 0.85;
/// In force only while round trips take this share of the time attempts have ...
const CONGESTED: f64 = 1.0 / 3.0;
/// ... and this many times what is usual.
const UNUSUAL: f64 = 2.0;
/// The least limit is so many attempts ...
const FLOOR: f64 = 8.0;
/// ... and falls, where more than this divided by that end in a second, to the lowest: who has a
/// small share of an upstream among many clients must be able to go as low, and who knows of few
/// attempts knows little.
const SURE: f64 = 20e-9;
const LOWEST: f64 = 2.0;
/// The weight of a sample in the recent mean.
const SAMPLE: f64 = 0.1;
/// What is older than this is no recent round trip, in nanoseconds.
const RECENT: f64 = 1e9;
/// Throughput is a mean over this time, in nanoseconds; it knows about as much as a sliding window
/// twice as long ...
const FAST: f64 = 0.25e9;
/// ... and, where fewer attempts than these end in that window, in part one over this.
const MANY: f64 = 20.0;
const SLOW: f64 = 2e9;
/// The usual round trip is a mean over this time, in nanoseconds ...
const USUAL: f64 = 60e9;
/// ... or, while attempts find no place, over this: what lasts for many minutes is usual, whatever
/// makes it.
const HELD_USUAL: f64 = 600e9;
/// A pause counts as this long at most for the usual round trip, so that no single call after it
/// becomes what is usual.
const PAUSE: f64 = 1e9;
/// The first round trips are all usual alike.
const FIRST: f64 = 50.0;
/// An attempt that found no place speaks for an overload for so long, in nanoseconds.
const HELD: u64 = 1_000_000_000;

/// Silence is no chance after so many round trips, recent or usual ...
const PATIENCE: f64 = 2.0;
/// ... and not before this, in nanoseconds.
const SHORTEST: f64 = 50e6;

/// The plain state behind [`OverloadLimit`](super::OverloadLimit).
#[derive(Clone, Debug, Default)]
pub(super) struct Law {
    /// When the last slot ended.
    last: Option<Tick>,
    /// What ended lately, and over a longer time.
    fast: Throughput,
    slow: Throughput,
    /// Recent round trips, in nanoseconds.
    pub(super) rtt: f64,
    /// The time the same attempts had.
    allowed: f64,
    /// The usual round trip, in nanoseconds.
    pub(super) usual: f64,
    /// Samples in it.
    known: f64,
    /// Until when the usual round trip all but stands still, since an attempt has found no place.
    held_until: u64,
    /// Until when throughput is no measure: what silence kept back couldn't end either, one round
    /// trip later.
    blind_until: u64,
}

/// Exponential means of what ended, which know how much they have seen.
#[derive(Clone, Copy, Debug, Default)]
struct Throughput {
    /// Attempts a nanosecond.
    attempts: f64,
    /// Time they had, a nanosecond: by Little's law how many may be in flight if each takes all of
    /// it.
    in_time: f64,
    weight: f64,
}

impl Throughput {
    fn take(&mut self, seen: &Seen, passed: f64, time: f64) {
        let share = share(passed, time);
        self.attempts += share * (seen.attempts / passed - self.attempts);
        self.in_time += share * (seen.allowed / passed - self.in_time);
        self.weight += share * (1.0 - self.weight);
    }

    fn attempts(&self) -> f64 {
        if self.weight > 0.0 { self.attempts / self.weight } else { 0.0 }
    }

    fn in_time(&self) -> f64 {
        if self.weight > 0.0 { self.in_time / self.weight } else { 0.0 }
    }
}

impl Law {
    /// Takes in a slot that ends `now`, in which an attempt found no place if `reached`. The limit
    /// from now on; `None` while none is in force. `kept_back`: for a while silence kept everybody
    /// back until now.
    pub(super) fn step(&mut self, seen: &Seen, reached: bool, kept_back: bool, now: Tick) -> Option<u32> {
        let Seen { attempts, allowed, round_trips } = *seen;
        if attempts <= 0.0 {
            return None;
        }
        let (rtt, allowed) = (round_trips / attempts, allowed / attempts);
        let Some(last) = self.last.replace(now) else {
            (self.rtt, self.allowed, self.usual, self.known) = (rtt, allowed, rtt, attempts);
            return None;
        };
        let passed = (now.nanos_since(last) as f64).max(1.0);
        self.fast.take(seen, passed, FAST);
        self.slow.take(seen, passed, SLOW);
        let weight = if passed > RECENT { 1.0 } else { 1.0 - (1.0 - SAMPLE).powf(attempts) };
        self.rtt += weight * (rtt - self.rtt);
        self.allowed += weight * (allowed - self.allowed);
        if reached {
            self.held_until = now.after_nanos(HELD).as_nanos();
        }
        if kept_back {
            self.blind_until = now.after_nanos(self.allowed as u64).as_nanos();
        }
        let in_force = self.rtt >= self.allowed * CONGESTED
            && self.rtt >= self.usual * UNUSUAL
            && now.as_nanos() >= self.blind_until;
        let held = in_force && now.as_nanos() < self.held_until;
        self.learn_usual(rtt, attempts, held, passed);
        in_force.then(|| self.limit())
    }

    /// How long nothing may come back, in nanoseconds, before that is no chance.
    pub(super) fn patience(&self) -> u64 {
        (self.rtt.max(self.usual) * PATIENCE).max(SHORTEST) as u64
    }

    fn learn_usual(&mut self, rtt: f64, attempts: f64, held: bool, passed: f64) {
        let passed = passed.min(PAUSE);
        let weight = if held {
            share(passed, HELD_USUAL)
        } else {
            self.known = (self.known + attempts).min(2.0 * FIRST);
            let first = if self.known < FIRST { attempts / self.known } else { 0.0 };
            share(passed, USUAL).max(first)
        };
        self.usual += weight * (rtt - self.usual);
    }

    fn limit(&self) -> u32 {
        let sure = (self.fast.attempts() * 2.0 * FAST / MANY).min(1.0);
        let in_time = self.fast.in_time() * sure + self.slow.in_time() * (1.0 - sure);
        let floor = (SURE / self.slow.attempts()).clamp(LOWEST, FLOOR);
        (in_time * SHARE).max(floor) as u32
    }
}

/// What `passed` weighs in an exponential mean over `time`.
fn share(passed: f64, time: f64) -> f64 {
    1.0 - (-passed / time).exp()
}
