//! What a round trip takes when nothing queues, and how that is known.

/// A faster window moves the base this far towards itself, no further: the least of many noisy
/// means is too low.
const DOWN: f64 = 0.25;
/// A dip is made for nothing else, and counts for more.
const DOWN_IN_A_DIP: f64 = 0.7;
/// A window moves it this far towards what the lowest limit saw.
const UP_TO_THE_FLOOR: f64 = 0.1;
/// A decline in vain closes this much of the distance: the law's tolerance has room for the rest,
/// and it could be somebody else's queue.
const UP_IN_VAIN: f64 = 0.9;
/// A dip that finds less than this of the base asks for another.
const FOUND_LOWER: f64 = 0.97;

/// The mean round trip at rest, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Baseline {
    nanos: Option<f64>,
    /// Known from one window alone, which tells how long windows must be. The answers in one that
    /// is too short, or begins with the traffic, are the fast ones.
    rough: bool,
    /// What was seen at the lowest limit there is: no smaller experiment is left, so this is rest.
    at_floor: f64,
}

impl Baseline {
    /// Takes in a window's mean, and returns the base.
    ///
    /// `noise` is what of `rtt` may be chance, as a share of it.
    pub(super) fn learn(&mut self, rtt: f64, noise: f64) -> f64 {
        let at_most = rtt * (1.0 + noise);
        self.at_floor = self.at_floor.min(at_most);
        let Some(base) = self.nanos.filter(|_| !self.rough) else {
            self.rough = self.nanos.is_none();
            return self.moved(at_most, at_most, 0.0);
        };
        self.moved(base, at_most, if at_most < base { DOWN } else { 0.0 })
    }

    /// The window is of a dip. Whether it found the base clearly too high.
    pub(super) fn lower(&mut self, rtt: f64, noise: f64) -> bool {
        let base = self.nanos.unwrap_or(rtt);
        let at_most = rtt * (1.0 + noise);
        self.at_floor = self.at_floor.min(at_most);
        if at_most < base {
            self.moved(base, at_most, DOWN_IN_A_DIP);
        }
        at_most < base * FOUND_LOWER
    }

    pub(super) fn raise(&mut self, rtt: f64) {
        self.moved(self.nanos.unwrap_or(rtt), rtt, UP_IN_VAIN);
    }

    /// A window at the lowest limit took this long.
    pub(super) fn at_floor(&mut self, rtt: f64) {
        self.at_floor = rtt;
    }

    /// Rises to what the lowest limit saw and no further, however high the limit is by now: on its
    /// way up from there the headroom could balance a base that is too low, and hold it anywhere.
    pub(super) fn creep(&mut self) {
        if let Some(base) = self.nanos
            && base < self.at_floor
        {
            self.moved(base, self.at_floor, UP_TO_THE_FLOOR);
        }
    }

    /// The next window sets it.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn nanos(&self) -> Option<f64> {
        self.nanos
    }

    fn moved(&mut self, base: f64, towards: f64, weight: f64) -> f64 {
        let base = (base + (towards - base) * weight).max(1.0);
        self.nanos = Some(base);
        base
    }
}

/// An experiment the shrinking limit makes by itself: does the round trip follow?
///
/// With the upstream saturated by us the round trip is `in flight / throughput`, and falls with the
/// attempts in flight. When it doesn't, the upstream got slower or farther, and less concurrency
/// would only cost throughput.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decline {
    /// The limit it began with.
    pub(super) from: f64,
    rtt: f64,
    in_flight: f64,
    misses: u32,
    /// How often it may still rest.
    left: u32,
}

/// The attempts in flight must have fallen to this before the comparison means anything.
const FEW_ENOUGH: f64 = 0.75;
/// The round trip must have fallen by this share of the fall in flight.
const RESPONSE: f64 = 0.5;
/// A queue that still builds up looks like a miss, once.
const MISSES: u32 = 2;
/// Windows a decline may rest before what it began with is too old to compare with.
const RESTS: u32 = 4;

impl Decline {
    pub(super) fn starting(limit: f64, rtt: f64, in_flight: f64) -> Self {
        Self { from: limit, rtt, in_flight, misses: 0, left: RESTS }
    }

    /// A window passes in which the limit holds; `None` when it was one too many.
    pub(super) fn rests(self) -> Option<Self> {
        (self.left > 1).then_some(Self { left: self.left - 1, ..self })
    }

    /// Compares a later window; `true` once it is clear that shrinking doesn't help.
    pub(super) fn is_in_vain(&mut self, rtt: f64, in_flight: f64) -> bool {
        if in_flight > self.in_flight * FEW_ENOUGH {
            return false;
        }
        let fewer = 1.0 - in_flight / self.in_flight;
        let shorter = 1.0 - rtt / self.rtt;
        let misses = if shorter < fewer * RESPONSE { self.misses + 1 } else { 0 };
        // After a response this is where another decline would begin.
        let from = if misses == 0 { in_flight / self.in_flight * self.from } else { self.from };
        *self = Self { from, rtt, in_flight, misses, left: RESTS };
        misses >= MISSES
    }
}
