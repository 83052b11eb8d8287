//! How much all replay buffers of the process may hold together.

use std::fmt;
// Not `crate::sync`: loom's atomics can't stand in a static, and one counter has no interleaving to
// explore.
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory all replay buffers of this process share, so that many calls with streamed bodies
/// can't add up without bound.
///
/// Every byte kept is counted when it is kept and given back when it is freed, exactly. A buffer
/// that is refused a byte is treated as if it were full: its attempt streams on, and its call can't
/// be repeated any more. No call waits for memory, and none fails for want of it.
///
/// ```
/// use resilient_client::ReplayMemory;
///
/// let memory = ReplayMemory::process();
/// memory.set_limit(16 * 1024 * 1024);
/// println!("replay buffers hold {} of {} bytes", memory.used(), memory.limit());
/// ```
pub struct ReplayMemory {
    used: AtomicUsize,
    limit: AtomicUsize,
}

static PROCESS: ReplayMemory = ReplayMemory::new(ReplayMemory::DEFAULT_LIMIT);

impl ReplayMemory {
    /// 64 MiB: a thousand calls with full buffers of the default size.
    pub const DEFAULT_LIMIT: usize = 64 * 1024 * 1024;

    pub(super) const fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    /// This process's.
    pub fn process() -> &'static Self {
        &PROCESS
    }

    /// Changes the limit, in bytes, for every buffer at once. A lowered one takes nothing away:
    /// buffers grow again when enough has come back. Zero switches replay buffers off.
    pub fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// The most that buffers may hold together, in bytes. Default 64 MiB.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// What buffers hold now, in bytes. More than the limit only just after it was lowered.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let grown = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit());
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        // Only `Reserved` gives back, and only what it took, so this can't wrap.
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for ReplayMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayMemory").field("used", &self.used()).field("limit", &self.limit()).finish()
    }
}

/// One buffer's share, given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: &'static ReplayMemory,
    bytes: usize,
}

impl Reserved {
    pub(super) fn none(memory: &'static ReplayMemory) -> Self {
        Self { memory, bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `more` bytes; false, and nothing taken, when the process has no room for all of them.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let granted = self.memory.take(more);
        if granted {
            self.bytes += more;
        }
        granted
    }

    /// Gives up to `less` bytes back.
    pub(super) fn shrink(&mut self, less: usize) {
        let less = less.min(self.bytes);
        self.bytes -= less;
        self.memory.give_back(less);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

#[cfg(all(test, not(resilient_loom)))]
mod tests {
    use super::*;

    fn memory(limit: usize) -> &'static ReplayMemory {
        Box::leak(Box::new(ReplayMemory::new(limit)))
    }

    #[test]
    fn the_limit_is_exact_and_what_was_taken_comes_back() {
        let memory = memory(10);
        let (mut one, mut two) = (Reserved::none(memory), Reserved::none(memory));
        assert!(one.grow(6) && !two.grow(5) && two.grow(4) && !one.grow(1));
        assert_eq!((memory.used(), one.bytes(), two.bytes()), (10, 6, 4));
        one.shrink(2);
        assert!(two.grow(2));
        drop(one);
        assert_eq!(memory.used(), 6);
        drop(two);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_lowered_limit_refuses_until_enough_came_back() {
        let memory = memory(10);
        let (mut one, mut two) = (Reserved::none(memory), Reserved::none(memory));
        assert!(one.grow(8));
        memory.set_limit(4);
        assert!(!two.grow(1));
        one.shrink(5);
        assert!(two.grow(1) && !two.grow(1));
    }

    #[test]
    fn an_absurd_size_is_refused_and_does_not_overflow() {
        let memory = memory(usize::MAX);
        let mut one = Reserved::none(memory);
        assert!(one.grow(1) && !one.grow(usize::MAX));
        assert_eq!(memory.used(), 1);
    }

    #[test]
    fn threads_never_take_more_than_the_limit_together() {
        let memory = memory(1_000);
        std::thread::scope(|scope| {
            for size in [1, 7, 13, 64] {
                scope.spawn(move || {
                    for _ in 0..5_000 {
                        let mut reserved = Reserved::none(memory);
                        while reserved.grow(size) && reserved.bytes() < 600 {
                            assert!(memory.used() <= 1_000);
                        }
                    }
                });
            }
        });
        assert_eq!(memory.used(), 0);
    }
}
