//! How bodies end, apart from their heads.
//!
//! A server that answers 200 and then stalls looks well to whoever counts heads: each new head ends
//! the streak that the bodies before it began. So bodies that fail are counted in a row by
//! themselves, and only a body that ends well ends that row.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::Tick;

use super::state::LONGEST_STREAK;

/// When a body ended well is kept as coarsely as this, in nanoseconds: a store a call would bounce
/// the cache line.
const COARSE: u64 = 1_000_000_000;

/// See the [module docs](self). Written to by failures under the breaker's lock, and by bodies that
/// end well without.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// When one last ended well, as a `Tick`, coarsely; zero for never.
    well: AtomicU64,
    failed_in_a_row: AtomicU32,
}

impl Bodies {
    pub(super) fn ended_well(&self, now: Tick) {
        let well = self.well.load(Ordering::Relaxed);
        if well == 0 || now.as_nanos().saturating_sub(well) >= COARSE {
            self.well.store(now.as_nanos(), Ordering::Relaxed);
        }
        if self.failed_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failed_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// One failed: how many have in a row.
    pub(super) fn failed(&self) -> u32 {
        let before = self.failed_in_a_row.load(Ordering::Relaxed);
        let row = before.saturating_add(1).min(LONGEST_STREAK);
        self.failed_in_a_row.store(row, Ordering::Relaxed);
        row
    }

    pub(super) fn in_a_row(&self) -> u32 {
        self.failed_in_a_row.load(Ordering::Relaxed)
    }

    /// Whether none has ended well within the last `window` nanoseconds.
    pub(super) fn is_cold(&self, window: u64, now: Tick) -> bool {
        let well = self.well.load(Ordering::Relaxed);
        well == 0 || now.as_nanos().saturating_sub(well) >= window
    }

    pub(super) fn forget(&self) {
        self.well.store(0, Ordering::Relaxed);
        self.failed_in_a_row.store(0, Ordering::Relaxed);
    }
}
