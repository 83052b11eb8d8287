//! A call's number.

use std::cell::Cell;

use std::fmt;

use std::sync::atomic::AtomicU64;

use std::sync::atomic::Ordering;

/// A call's number, unique in this process. An attempt is known by its call's and its own, which
/// counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// No call's.
    pub(crate) const NONE: Self = Self(0);

    /// A number that no other call has. Threads take them in blocks, so calls don't meet at one
    /// counter.
    #[inline]
    pub(crate) fn next() -> Self {
        const BLOCK: u64 = 1 << 16;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static OWN: Cell<u64> = const { Cell::new(0) };
        }
        let own = OWN.get();
        // What is left of a block is counted by its low bits: a block begins at a multiple of its
        // length, plus one.
        let id = if own.is_multiple_of(BLOCK) { NEXT.fetch_add(BLOCK, Ordering::Relaxed) } else { own };
        OWN.set(id + 1);
        Self(id)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
