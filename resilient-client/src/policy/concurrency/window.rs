//! What threads saw since the last decision, in a few atomic words.

use super::{Outcome, Sample};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// More samples than this change nothing; it also keeps every sum below 2^64.
const MOST_SAMPLES: u64 = 1 << 20;
/// `count_and_load`: the count in the low bits, the sum of attempts in flight above it.
const COUNT_BITS: u32 = 21;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Counted as this many in flight at most: far above any limit, and 2^20 of them fit.
const MOST_IN_FLIGHT: u32 = 1 << 22;
const SMALL_BITS: u32 = 11;
const SMALL: u64 = (1 << SMALL_BITS) - 1;
/// No round trip counts as longer: an hour, of which 2^20 fit in a sum.
pub(super) const LONGEST: u64 = 3_600_000_000_000;

/// The words are taken one by one, so a sample that arrives meanwhile may count in one window and
/// weigh in the next: one of at least dozens, and never lost.
#[derive(Debug)]
pub(super) struct Window {
    count_and_load: AtomicU64,
    round_trips: AtomicU64,
    /// The sum of squares of round trips, each first shifted right by `shift`: for the noise of the
    /// mean.
    squares: AtomicU64,
    dropped: AtomicU64,
    /// The sum of the ages of dropped attempts.
    wasted: AtomicU64,
    most_in_flight: AtomicU32,
    /// A round trip counts as this long at most, so that one lone answer can't move a mean.
    cap: AtomicU64,
    shift: AtomicU32,
}

/// What one window held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) completed: u64,
    pub(super) dropped: u64,
    /// The sum of round trips, in nanoseconds.
    pub(super) round_trips: u64,
    /// The sum of their squares, each shifted right first.
    pub(super) squares: u64,
    pub(super) shift: u32,
    /// The sum of attempts in flight when each completed one was admitted.
    pub(super) load: u64,
    pub(super) most_in_flight: u32,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            count_and_load: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            squares: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            wasted: AtomicU64::new(0),
            most_in_flight: AtomicU32::new(0),
            cap: AtomicU64::new(LONGEST),
            shift: AtomicU32::new(shift(LONGEST)),
        }
    }

    pub(super) fn set_cap(&self, nanos: u64) {
        let cap = nanos.clamp(1, LONGEST);
        self.cap.store(cap, Ordering::Relaxed);
        self.shift.store(shift(cap), Ordering::Relaxed);
    }

    pub(super) fn add(&self, sample: Sample) {
        match sample.outcome {
            Outcome::Ignored => return,
            Outcome::Dropped => {
                if self.dropped.fetch_add(1, Ordering::Relaxed) < MOST_SAMPLES {
                    self.wasted.fetch_add(sample.rtt_nanos.min(LONGEST), Ordering::Relaxed);
                }
            }
            Outcome::Completed => {
                // Threads may overshoot by as many as they are, for which the counters have room.
                if self.count_and_load.load(Ordering::Relaxed) & COUNT < MOST_SAMPLES {
                    let load = u64::from(sample.in_flight.min(MOST_IN_FLIGHT));
                    let round_trip = sample.rtt_nanos.clamp(1, self.cap.load(Ordering::Relaxed));
                    let small = (round_trip >> self.shift.load(Ordering::Relaxed)).min(SMALL);
                    self.round_trips.fetch_add(round_trip, Ordering::Relaxed);
                    self.squares.fetch_add(small * small, Ordering::Relaxed);
                    self.count_and_load.fetch_add((load << COUNT_BITS) | 1, Ordering::Relaxed);
                }
            }
        }
        if sample.in_flight > self.most_in_flight.load(Ordering::Relaxed) {
            self.most_in_flight.fetch_max(sample.in_flight, Ordering::Relaxed);
        }
    }

    pub(super) fn take(&self) -> Seen {
        self.wasted.store(0, Ordering::Relaxed);
        let both = self.count_and_load.swap(0, Ordering::Relaxed);
        Seen {
            completed: both & COUNT,
            dropped: self.dropped.swap(0, Ordering::Relaxed),
            round_trips: self.round_trips.swap(0, Ordering::Relaxed),
            squares: self.squares.swap(0, Ordering::Relaxed),
            shift: self.shift.load(Ordering::Relaxed),
            load: both >> COUNT_BITS,
            most_in_flight: self.most_in_flight.swap(0, Ordering::Relaxed),
        }
    }

    /// The mean age of all attempts, in nanoseconds.
    pub(super) fn age(&self) -> u64 {
        let (completed, dropped) = self.counts();
        let sum =
            self.round_trips.load(Ordering::Relaxed).saturating_add(self.wasted.load(Ordering::Relaxed));
        sum / (completed + dropped.min(MOST_SAMPLES)).max(1)
    }

    /// How many samples it holds, completed and dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        let completed = self.count_and_load.load(Ordering::Relaxed) & COUNT;
        (completed, self.dropped.load(Ordering::Relaxed))
    }
}

/// Brings `cap` into the range whose squares can be summed.
fn shift(cap: u64) -> u32 {
    (u64::BITS - cap.leading_zeros()).saturating_sub(SMALL_BITS)
}

impl Seen {
    /// The standard error of the mean round trip, as a share of it: how much of a difference
    /// between two windows is chance. At most 1.
    pub(super) fn noise(&self) -> f64 {
        let count = (self.completed as f64).max(1.0);
        let mean = self.round_trips as f64 / count / (1_u64 << self.shift.min(63)) as f64;
        // Shifting cut off half a unit on average.
        let square = self.squares as f64 / count + mean;
        let spread = (square / (mean * mean).max(1.0) - 1.0).max(0.0);
        (spread / count).sqrt().min(1.0)
    }

    /// The mean round trip in nanoseconds; `None` when nothing completed.
    pub(super) fn rtt(&self) -> Option<f64> {
        (self.completed > 0).then(|| (self.round_trips as f64 / self.completed as f64).max(1.0))
    }

    /// The mean of attempts in flight.
    pub(super) fn in_flight(&self) -> f64 {
        self.load as f64 / (self.completed as f64).max(1.0)
    }

    /// The share that was dropped.
    pub(super) fn dropped_share(&self) -> f64 {
        self.dropped as f64 / (self.completed as f64 + self.dropped as f64).max(1.0)
    }
}
