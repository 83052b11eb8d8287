//! What threads saw since the last look, in two atomic words.

use super::Sample;
use crate::sync::{AtomicU64, Ordering};

/// Times attempts had are counted in units of so many nanoseconds, as a power of two: 65.5 µs.
pub(crate) const UNIT_BITS: u32 = 16;
/// The longest time that counts, in units: an hour. 2^18 of them fit above the count.
const LONGEST: u64 = 3_600_000_000_000 >> UNIT_BITS;
/// The first word's low bits are a count, the others a sum.
const COUNT_BITS: u32 = 18;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// The words are taken one by one, so a sample that arrives meanwhile may count in one slot and
/// weigh in the next: one of many, and never lost.
#[derive(Debug)]
pub(super) struct Slot {
    /// Attempts that ended, and the sum of the times they had.
    allowed: AtomicU64,
    /// The sum of their round trips, in nanoseconds.
    round_trips: AtomicU64,
}

/// What came together in a slot, times in nanoseconds. Floats, because all that is done with them
/// is arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) attempts: f64,
    /// The sum of the times they had.
    pub(super) allowed: f64,
    pub(super) round_trips: f64,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self { allowed: AtomicU64::new(0), round_trips: AtomicU64::new(0) }
    }

    pub(super) fn add(&self, sample: Sample) {
        let units = (sample.allowed_nanos >> UNIT_BITS).clamp(1, LONGEST);
        self.allowed.fetch_add((units << COUNT_BITS) | 1, Ordering::Relaxed);
        // Who waited for a stream, say, may have been out for longer than its time.
        let rtt = sample.rtt_nanos.min(units << UNIT_BITS);
        self.round_trips.fetch_add(rtt, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> Seen {
        let word = self.allowed.swap(0, Ordering::Relaxed);
        Seen {
            attempts: (word & COUNT) as f64,
            allowed: ((word >> COUNT_BITS) << UNIT_BITS) as f64,
            round_trips: self.round_trips.swap(0, Ordering::Relaxed) as f64,
        }
    }
}
