//! Whether a server's wish for a wait holds for everybody.
//!
//! A 503 with `Retry-After` is heeded by the call that was given it, always. Whether other calls
//! must stay away too is another question: behind one name often stand several servers, of which
//! one may have a bad minute, and one that sheds some of its load says 503 to some calls and serves
//! the others. Taken from a single answer, the wish of one server in three would keep every call
//! from the other two.
//!
//! - Everybody is held back once [`IN_A_ROW`] answers have asked for a wait with no success in
//!   between, or at the first one when nothing has succeeded for [`MEMORY`]: then nothing speaks
//!   against it.
//! - For as long as the last of them asked, at most [`LONGEST`].
//!
//! One caveat: with half of all answers asking at random everybody is still held back now and then,
//! once in two thousand answers; the breaker opens then anyway.

use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::Tick;

/// Answers in a row. At a share of 30 % of them, so many come together by chance once in 240,000
/// answers; when all are, it takes half as many as the breaker's rule for failures in a row.
pub(in crate::upstream) const IN_A_ROW: u32 = 10;
/// As long as the breaker's window.
pub(in crate::upstream) const MEMORY: Duration = Duration::from_secs(10);
/// The longest that one answer may hold back other calls.
pub(in crate::upstream) const LONGEST: Duration = Duration::from_secs(5);
/// When a success came is kept as coarsely as this: a store a call would bounce the cache line.
const COARSE: Duration = Duration::from_secs(1);

/// See the [module docs](self). Shared by every call to one upstream.
#[derive(Debug)]
pub(in crate::upstream) struct RetryAfterHold {
    /// A `Tick`; zero for never.
    until: AtomicU64,
    /// Answers that asked for a wait since the last success.
    asked: AtomicU32,
    /// When an attempt last succeeded, as a `Tick`, coarsely; zero for never.
    succeeded: AtomicU64,
}

impl RetryAfterHold {
    pub(in crate::upstream) fn new() -> Self {
        Self { until: AtomicU64::new(0), asked: AtomicU32::new(0), succeeded: AtomicU64::new(0) }
    }

    /// Until when everybody is held back.
    pub(in crate::upstream) fn until(&self) -> Tick {
        Tick::from_nanos(self.until.load(Ordering::Relaxed))
    }

    /// An attempt succeeded.
    pub(in crate::upstream) fn succeeded(&self, now: Tick) {
        if self.asked.load(Ordering::Relaxed) != 0 {
            self.asked.store(0, Ordering::Relaxed);
        }
        let last = Tick::from_nanos(self.succeeded.load(Ordering::Relaxed));
        if last == Tick::ZERO || now.since(last) >= COARSE {
            self.succeeded.store(now.as_nanos(), Ordering::Relaxed);
        }
    }

    /// Whether an attempt has succeeded within so many nanoseconds, or up to a second more: as far
    /// as that is kept.
    pub(in crate::upstream) fn has_succeeded_within(&self, nanos: u64, now: Tick) -> bool {
        let last = Tick::from_nanos(self.succeeded.load(Ordering::Relaxed));
        last != Tick::ZERO && now.nanos_since(last) <= nanos.saturating_add(crate::time::nanos(COARSE))
    }

    /// An answer asked for so long a wait. For how long everybody is held back because of it;
    /// `None` when nobody is.
    pub(in crate::upstream) fn asked(&self, hold: Duration, now: Tick) -> Option<Duration> {
        let hold = hold.min(LONGEST);
        if hold.is_zero() {
            return None;
        }
        let before = self.asked.fetch_add(1, Ordering::Relaxed);
        let last = Tick::from_nanos(self.succeeded.load(Ordering::Relaxed));
        let works = last != Tick::ZERO && now.since(last) < MEMORY;
        if works && before.saturating_add(1) < IN_A_ROW {
            return None;
        }
        self.until.fetch_max(now.after(hold).as_nanos(), Ordering::Relaxed);
        Some(hold)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Tick = Tick::from_nanos(3_600_000_000_000);

    #[test]
    fn the_first_wish_is_everybodys_while_nothing_has_succeeded() {
        let hold = RetryAfterHold::new();
        assert_eq!(hold.asked(SECOND, NOW), Some(SECOND));
        assert_eq!(hold.until(), NOW.after(SECOND));
    }

    #[test]
    fn beside_successes_it_takes_ten_in_a_row() {
        let hold = RetryAfterHold::new();
        for _ in 0..3 {
            hold.succeeded(NOW);
            assert!((1..IN_A_ROW).all(|_| hold.asked(SECOND, NOW).is_none()));
        }
        assert_eq!((hold.until(), hold.asked(SECOND, NOW)), (Tick::ZERO, Some(SECOND)));
    }

    #[test]
    fn a_success_is_forgotten_after_ten_seconds() {
        let hold = RetryAfterHold::new();
        hold.succeeded(NOW);
        assert_eq!(hold.asked(SECOND, NOW.after(9 * SECOND)), None);
        assert_eq!(hold.asked(SECOND, NOW.after(MEMORY)), Some(SECOND));
    }

    #[test]
    fn nobody_is_held_back_for_longer_than_five_seconds_or_for_none() {
        let hold = RetryAfterHold::new();
        assert_eq!(hold.asked(Duration::ZERO, NOW), None);
        assert_eq!(hold.asked(Duration::from_secs(3600), NOW), Some(LONGEST));
        hold.asked(SECOND, NOW);
        assert_eq!(hold.until(), NOW.after(LONGEST), "a shorter wish doesn't end a longer one");
    }

    /// How many of 100,000 answers, a share of which ask for a wait at random, hold everybody back.
    fn holds(share: f64, seed: u64) -> usize {
        let (hold, mut rng) = (RetryAfterHold::new(), Rng::seeded(seed));
        hold.succeeded(NOW);
        let mut asked = || {
            if rng.unit() < share {
                return hold.asked(SECOND, NOW).is_some();
            }
            hold.succeeded(NOW);
            false
        };
        (0..100_000).filter(|_| asked()).count()
    }

    #[test]
    fn a_server_that_sheds_some_of_its_load_is_not_silenced() {
        let most = (0..20).map(|seed| holds(0.3, seed)).max();
        assert!(most <= Some(5), "{most:?}");
        assert!(holds(0.9, 0) > 10_000, "the control: one that sheds nearly all of it is");
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Succeeds,
        Asks(u64),
        Passes(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            2 => Just(Act::Succeeds),
            6 => (0..8_000_u64).prop_map(Act::Asks),
            3 => (0..4_000_u64).prop_map(Act::Passes),
        ];
        prop::collection::vec(act, 0..200)
    }

    proptest! {
        /// Against the rules in the plainest words: a list of what happened, looked through each
        /// time.
        #[test]
        fn it_does_what_the_rules_say(acts in acts()) {
            let (hold, mut now) = (RetryAfterHold::new(), NOW);
            let (mut in_a_row, mut last, mut until) = (0, None::<Tick>, Tick::ZERO);
            for act in acts {
                match act {
                    Act::Passes(ms) => now = now.after(Duration::from_millis(ms)),
                    Act::Succeeds => {
                        hold.succeeded(now);
                        // Coarse: one that follows another within a second isn't noted.
                        last = last.filter(|last| now.since(*last) < SECOND).or(Some(now));
                        in_a_row = 0;
                    }
                    Act::Asks(ms) => {
                        let wish = Duration::from_millis(ms).min(LONGEST);
                        let works = last.is_some_and(|last| now.since(last) < MEMORY);
                        in_a_row += u32::from(ms > 0);
                        let held = ms > 0 && (!works || in_a_row >= IN_A_ROW);
                        prop_assert_eq!(hold.asked(wish, now), held.then_some(wish));
                        if held {
                            until = until.max(now.after(wish));
                        }
                    }
                }
                prop_assert_eq!(hold.until(), until);
            }
        }
    }
}
