//! Where every machine's randomness comes from, seedable so that a run can be repeated. (Only the
//! UUIDs of generated idempotency keys come from elsewhere.)
//!
//! Jitter and balancing need speed and spread, not secrecy: nothing here is fit for keys or tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A small fast generator handed to machines that need randomness.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// The generator whose every draw follows from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A generator seeded from the thread's own, which differs between threads and runs.
    pub fn from_thread() -> Self {
        Self(fastrand::Rng::new())
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// Uniform in `low..=high`; `low` when the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if low >= high { low } else { self.0.u64(low..=high) }
    }

    /// 64 random bits, for seeding another generator.
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }
}

/// Where generators come from: each thread's own, or one seed for the whole client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entropy(Option<Arc<AtomicU64>>);

impl Entropy {
    /// Every generator handed out follows from `seed` and the order in which they are asked for.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seed))))
    }

    pub(crate) fn rng(&self) -> Rng {
        // The golden-ratio step of splitmix64 keeps neighbouring seeds far apart.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        match &self.0 {
            None => Rng::from_thread(),
            Some(next) => Rng::seeded(next.fetch_add(STEP, Ordering::Relaxed)),
        }
    }
}
