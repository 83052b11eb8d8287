//! The synchronisation the shared machines use, so that loom can stand in for std in their tests
//! (`--cfg resilient_loom`).
//!
//! In tests only: loom is a dependency for development, which nobody who depends on this crate
//! locks. A cfg of our own: plain `--cfg loom` would also switch tokio to loom and take its network
//! away.

#[cfg(all(test, resilient_loom))]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(all(test, resilient_loom)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(all(test, resilient_loom))]
use loom::sync as imp;
#[cfg(not(all(test, resilient_loom)))]
use std::sync as imp;

/// A mutex for short critical sections of plain data.
///
/// A panic while it is held can only come from a bug in a machine; the data is plain numbers, so
/// the lock goes on working rather than poisoning every later call to that upstream.
#[derive(Debug)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> imp::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lock if nobody holds it, for work that whoever holds it will do as well.
    pub(crate) fn try_lock(&self) -> Option<imp::MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// What can be shared between threads because only its one owner ever reaches it: a user's closures
/// in a builder, of which no more is asked than that they can be sent. It is a mutex that nobody
/// locks, as std has no stable type for this (its `Exclusive` isn't).
#[cfg(any(feature = "reqwest", feature = "hyper"))]
#[derive(Debug, Default)]
pub(crate) struct OneOwner<T>(std::sync::Mutex<T>);

#[cfg(any(feature = "reqwest", feature = "hyper"))]
impl<T> OneOwner<T> {
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    #[cfg(feature = "hyper")]
    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
