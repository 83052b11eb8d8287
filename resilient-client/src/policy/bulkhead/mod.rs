//! Bulkhead: bound how many calls one upstream may hold, so that a slow one can't take every task and connection.
//!
//! An upstream that hangs holds each call until its timeout. Unbounded, those calls pile up until nothing is left for
//! the upstreams that work. A bulkhead gives each its own compartment. (The name is Michael Nygard's, *Release It!*, 2007.)
//!
//! - At most [`max_in_flight`](BulkheadPolicy::max_in_flight) slots are taken at any time, exactly, under any concurrency.
//! - A slot is held from the attempt's launch to the end of its response body, and not while a call backs off.
//! - A lowered limit evicts no one: new attempts are refused until enough slots have come back.
//!
//! One caveat: a response body that is neither read nor dropped holds its slot.
//!
//! ```
//! use resilient_client::policy::bulkhead::{Bulkhead, BulkheadPolicy};
//!
//! let bulkhead = Bulkhead::new(BulkheadPolicy::standard().max_in_flight(1).compile()?);
//! assert!(bulkhead.try_acquire().is_ok());
//! assert_eq!(bulkhead.try_acquire().unwrap_err().limit, 1);
//! bulkhead.release();
//! assert!(bulkhead.try_acquire().is_ok());
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

use std::fmt;

use super::Invalid;
use super::invalid::count;
use crate::sync::{AtomicU32, Ordering};

const MOST_IN_FLIGHT: u32 = 1_000_000;
/// The limit of a bulkhead without one: the counter's own.
const UNLIMITED: u32 = u32::MAX;

/// How many attempts one upstream may hold. Plain data: [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct BulkheadPolicy {
    pub(crate) max_in_flight: u32,
}

impl BulkheadPolicy {
    /// At most 256 in flight.
    pub const fn standard() -> Self {
        Self { max_in_flight: 256 }
    }

    /// The most attempts in flight, bodies being read included: 1 to 1,000,000. Default 256.
    pub const fn max_in_flight(mut self, attempts: u32) -> Self {
        self.max_in_flight = attempts;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when `max_in_flight` lies outside its range.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let max_in_flight = count("bulkhead.max_in_flight", self.max_in_flight, 1, MOST_IN_FLIGHT)?;
        Ok(Rules { max_in_flight })
    }
}

impl Default for BulkheadPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Checked settings. Made by [`BulkheadPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    max_in_flight: u32,
}

/// No slot was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// How many slots there are.
    pub limit: u32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} slots are taken", self.limit)
    }
}

impl std::error::Error for Full {}

/// A count of slots, shared by every call to one upstream.
#[derive(Debug)]
pub struct Bulkhead {
    in_use: AtomicU32,
    limit: AtomicU32,
}

impl Bulkhead {
    /// A bulkhead with every slot free.
    pub fn new(rules: Rules) -> Self {
        Self::with_limit(rules.max_in_flight)
    }

    /// A bulkhead that counts and never refuses.
    pub fn unlimited() -> Self {
        Self::with_limit(UNLIMITED)
    }

    fn with_limit(limit: u32) -> Self {
        Self { in_use: AtomicU32::new(0), limit: AtomicU32::new(limit) }
    }

    /// Changes the limit and keeps the slots in use; `None` lifts it.
    pub fn set_rules(&self, rules: Option<Rules>) {
        self.limit.store(rules.map_or(UNLIMITED, |rules| rules.max_in_flight), Ordering::Relaxed);
    }

    /// Takes a slot, to be given back once with [`release`](Self::release).
    ///
    /// # Errors
    /// [`Full`] when as many slots as the limit are in use.
    pub fn try_acquire(&self) -> Result<(), Full> {
        let take = |in_use: u32| (in_use < self.limit.load(Ordering::Relaxed)).then(|| in_use + 1);
        match self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(Full { limit: self.limit.load(Ordering::Relaxed) }),
        }
    }

    /// Gives a slot back. One release too many is ignored: a counter wrapped below zero would refuse every call.
    pub fn release(&self) {
        let _ =
            self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_use| in_use.checked_sub(1));
    }

    /// Slots taken now. More than the limit only just after it was lowered.
    pub fn in_use(&self) -> u32 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The most slots taken at once; `None` when unlimited.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != UNLIMITED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(max_in_flight: u32) -> Rules {
        BulkheadPolicy::standard().max_in_flight(max_in_flight).compile().unwrap()
    }

    #[test]
    fn the_standard_bulkhead_refuses_the_257th() {
        let bulkhead = Bulkhead::new(BulkheadPolicy::standard().compile().unwrap());
        assert!((0..256).all(|_| bulkhead.try_acquire().is_ok()));
        assert_eq!(bulkhead.try_acquire(), Err(Full { limit: 256 }));
        bulkhead.release();
        assert_eq!(bulkhead.in_use(), 255);
        assert_eq!(bulkhead.try_acquire(), Ok(()));
    }

    #[test]
    fn without_a_limit_it_counts_and_never_refuses() {
        let bulkhead = Bulkhead::unlimited();
        assert!((0..10_000).all(|_| bulkhead.try_acquire().is_ok()));
        assert_eq!((bulkhead.in_use(), bulkhead.limit()), (10_000, None));
    }

    #[test]
    fn a_lowered_limit_refuses_until_enough_came_back() {
        let bulkhead = Bulkhead::new(rules(5));
        assert!((0..5).all(|_| bulkhead.try_acquire().is_ok()));
        bulkhead.set_rules(Some(rules(2)));
        for in_use in [4, 3, 2] {
            assert_eq!(bulkhead.try_acquire(), Err(Full { limit: 2 }));
            bulkhead.release();
            assert_eq!(bulkhead.in_use(), in_use);
        }
        assert!(bulkhead.try_acquire().is_err());
        bulkhead.release();
        assert!(bulkhead.try_acquire().is_ok());
        bulkhead.set_rules(None);
        assert_eq!((bulkhead.in_use(), bulkhead.limit()), (2, None));
    }

    #[test]
    fn one_release_too_many_adds_no_slot_and_wedges_nothing() {
        let bulkhead = Bulkhead::new(rules(1));
        bulkhead.release();
        assert_eq!(bulkhead.in_use(), 0);
        assert!(bulkhead.try_acquire().is_ok());
        assert!(bulkhead.try_acquire().is_err());
    }

    #[test]
    fn refuses_what_cannot_work_and_names_the_numbers() {
        for (limit, message) in [
            (0, "bulkhead.max_in_flight must be between 1 and 1000000, got 0"),
            (1_000_001, "bulkhead.max_in_flight must be between 1 and 1000000, got 1000001"),
        ] {
            let refused = BulkheadPolicy::standard().max_in_flight(limit).compile().unwrap_err();
            assert_eq!(refused.to_string(), message);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Acquire,
        Release,
        Limit(u32),
    }

    proptest! {
        #[test]
        fn counts_as_a_plain_integer_does(steps in prop::collection::vec(
            prop_oneof![4 => Just(Step::Acquire), 3 => Just(Step::Release), 1 => (1_u32..9).prop_map(Step::Limit)],
            0..300,
        )) {
            let bulkhead = Bulkhead::new(rules(4));
            let (mut in_use, mut limit) = (0_u32, 4);
            for step in steps {
                match step {
                    Step::Acquire if in_use < limit => {
                        prop_assert_eq!(bulkhead.try_acquire(), Ok(()));
                        in_use += 1;
                    }
                    Step::Acquire => prop_assert_eq!(bulkhead.try_acquire(), Err(Full { limit })),
                    Step::Release => {
                        bulkhead.release();
                        in_use = in_use.saturating_sub(1);
                    }
                    Step::Limit(new) => {
                        bulkhead.set_rules(Some(rules(new)));
                        limit = new;
                    }
                }
                prop_assert_eq!((bulkhead.in_use(), bulkhead.limit()), (in_use, Some(limit)));
            }
        }
    }

    #[test]
    fn threads_never_hold_more_than_the_limit_together() {
        use std::sync::atomic::{AtomicU32, Ordering};

        let (bulkhead, held, most) = (Bulkhead::new(rules(3)), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if bulkhead.try_acquire().is_ok() {
                            most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            held.fetch_sub(1, Ordering::SeqCst);
                            bulkhead.release();
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(bulkhead.in_use(), 0);
    }

    #[cfg(resilient_loom)]
    mod under_loom {
        use loom::sync::Arc;
        use loom::thread;

        use super::*;

        #[test]
        fn loom_one_slot_is_given_once() {
            loom::model(|| {
                let bulkhead = Arc::new(Bulkhead::new(rules(1)));
                let others = [(); 2].map(|()| {
                    let bulkhead = Arc::clone(&bulkhead);
                    thread::spawn(move || bulkhead.try_acquire().is_ok())
                });
                let mut taken = u32::from(bulkhead.try_acquire().is_ok());
                taken += others.map(|other| u32::from(other.join().unwrap())).into_iter().sum::<u32>();
                assert_eq!((taken, bulkhead.in_use()), (1, 1));
            });
        }

        #[test]
        fn loom_slots_come_back_while_the_limit_falls() {
            loom::model(|| {
                let bulkhead = Arc::new(Bulkhead::new(rules(2)));
                let held = bulkhead.try_acquire().is_ok();
                let other = {
                    let bulkhead = Arc::clone(&bulkhead);
                    thread::spawn(move || {
                        if bulkhead.try_acquire().is_ok() {
                            bulkhead.release();
                        }
                    })
                };
                bulkhead.set_rules(Some(rules(1)));
                other.join().unwrap();
                assert_eq!(bulkhead.in_use(), u32::from(held));
                assert!(bulkhead.try_acquire().is_err());
            });
        }
    }
}
