//! How long nobody is let in: for as long as a probe would cost too much.
//!
//! A probe sent to a server that is still down is a call lost, so what probes may cost is a share
//! of the calls turned away meanwhile. Beside a busy breaker that share buys one soon, and a server
//! that is back is found at once; beside an idle one time has to do.
//!
//! - A pause lasts its longest time when no call comes. Each call turned away brings its end
//!   forward by the probes' share of that time: at 2.5 % the fortieth ends it. Calls count from
//!   when the last probe set out, however long that took to fail.
//! - It never ends before its shortest time.
//! - A probe that goes alone begins one, too: should it hang, the next follows when the next would
//!   follow one that failed.
//! - A *lease* isn't a pause: every probe slot is taken, and when one becomes free depends on how
//!   the probes do.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::Tick;

/// As `earliest`: what is in force is a lease. No pause begins and ends at the first tick there is.
const LEASE: u64 = 0;

/// Nanoseconds in a millisecond.
const MILLI: u64 = 1_000_000;

#[allow(clippy::cast_possible_truncation, reason = "only differences count")]
const fn millis(tick: Tick) -> u32 {
    (tick.as_nanos() / MILLI) as u32
}

/// How long a pause lasts, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    /// At least so long.
    pub(super) shortest: u64,
    /// When nobody asks.
    pub(super) longest: u64,
    /// By how much each call turned away shortens it.
    pub(super) forward: u64,
}

impl Length {
    /// The same whoever asks.
    pub(super) const fn fixed(nanos: u64) -> Self {
        Self { shortest: nanos, longest: nanos, forward: 0 }
    }
}

/// What a pause began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The breaker opened.
    Opening,
    /// A probe decided nothing.
    Undecided,
    /// A probe set out alone.
    Departure,
    /// A probe succeeded: begins only leases.
    Success,
}

/// See the [module docs](self). Changed under the breaker's lock, but for counting the calls turned
/// away. Who reads it while it changes may combine old and new: no admission rests on that.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// When it ends if no call comes, as a `Tick`; zero while nobody is kept out.
    latest: AtomicU64,
    /// When it ends at the soonest, or [`LEASE`].
    earliest: AtomicU64,
    /// What began it: an [`After`].
    after: AtomicU32,
    /// By how much a call brings the end forward, in nanoseconds.
    forward: AtomicU64,
    /// Since when calls turned away are counted, in milliseconds modulo 49 days: for an estimate.
    since: AtomicU32,
    turned_away: AtomicU32,
}

impl Pause {
    /// Nobody is let in for a while.
    pub(super) fn begin(&self, now: Tick, length: Length, after: After) {
        self.after.store(after as u32, Ordering::Relaxed);
        self.earliest.store(now.after_nanos(length.shortest.max(1)).as_nanos(), Ordering::Relaxed);
        self.forward.store(length.forward, Ordering::Relaxed);
        self.latest.store(now.after_nanos(length.longest).as_nanos(), Ordering::Release);
    }

    /// Nobody is let in before the probes that are out have been decided or their lease is over.
    /// `proven`: one of them has succeeded.
    pub(super) fn lease(&self, until: Tick, proven: bool) {
        let after = if proven { After::Success } else { After::Departure };
        self.after.store(after as u32, Ordering::Relaxed);
        self.earliest.store(LEASE, Ordering::Relaxed);
        self.forward.store(0, Ordering::Relaxed);
        self.latest.store(until.as_nanos(), Ordering::Release);
    }

    /// Somebody may get in.
    pub(super) fn end(&self) {
        self.earliest.store(LEASE, Ordering::Relaxed);
        self.latest.store(0, Ordering::Release);
    }

    /// Whether this is neither a lease nor open to anybody.
    pub(super) fn is_one(&self) -> bool {
        self.earliest.load(Ordering::Relaxed) != LEASE
    }

    /// Whether it is one after a probe that decided nothing.
    pub(super) fn is_undecided(&self) -> bool {
        self.is_one() && self.after.load(Ordering::Relaxed) == After::Undecided as u32
    }

    /// Whether a probe has succeeded, and those that are out are all it takes.
    pub(super) fn is_proven(&self) -> bool {
        !self.is_one() && !self.is_over() && self.after.load(Ordering::Relaxed) == After::Success as u32
    }

    /// Whether anybody gets in because [somebody said so](Self::end), and not for the time that has
    /// passed.
    pub(super) fn is_over(&self) -> bool {
        self.latest.load(Ordering::Acquire) == 0
    }

    /// Calls turned away are counted from now on.
    pub(super) fn count_from(&self, now: Tick) {
        self.since.store(millis(now), Ordering::Relaxed);
        self.turned_away.store(0, Ordering::Relaxed);
    }

    /// A call has been turned away.
    pub(super) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// For how many more nanoseconds nobody gets in, should calls go on to come as they have: never
    /// too little but for that, and at most `hint` while probes are out, of which nobody knows how
    /// long they take. `None` when somebody might get in.
    pub(super) fn left(&self, now: Tick, hint: u64) -> Option<u64> {
        let (tick, now, latest) = (now, now.as_nanos(), self.latest.load(Ordering::Acquire));
        if now >= latest {
            return None;
        }
        let earliest = self.earliest.load(Ordering::Relaxed);
        if earliest == LEASE {
            return Some((latest - now).min(hint));
        }
        let forward = self.forward.load(Ordering::Relaxed);
        let turned_away = self.turned_away.load(Ordering::Relaxed);
        let forward = forward.saturating_mul(u64::from(turned_away));
        let end = latest.saturating_sub(forward);
        if now >= end.max(earliest) {
            return None;
        }
        let at_most = end.saturating_sub(now);
        let passed = u64::from(millis(tick).wrapping_sub(self.since.load(Ordering::Relaxed))) * MILLI;
        let left = if forward == 0 || passed == 0 {
            at_most
        } else {
            (at_most as f64 / (1.0 + forward as f64 / passed as f64)) as u64
        };
        let left = left.max(earliest.saturating_sub(now)).max(1);
        let departed = self.after.load(Ordering::Relaxed) == After::Departure as u32;
        Some(if departed { left.min(hint.max(1)) } else { left })
    }
}

#[cfg(all(test, not(resilient_loom)))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Tick = Tick::from_nanos(1_000_000_000_000);
    const MS: u64 = 1_000_000;
    const LENGTH: Length = Length { shortest: 250 * MS, longest: 5_000 * MS, forward: 100 * MS };

    fn after(millis: u64) -> Tick {
        NOW.after(Duration::from_millis(millis))
    }

    fn begun(length: Length) -> Pause {
        let pause = Pause::default();
        pause.begin(NOW, length, After::Opening);
        pause.count_from(NOW);
        pause
    }

    /// After how many milliseconds somebody gets in, when calls come so many milliseconds apart,
    /// and which wait each was given.
    fn lasts(length: Length, every: u64) -> (u64, Vec<u64>) {
        let (pause, mut told) = (begun(length), Vec::new());
        for n in 0.. {
            match pause.left(after(n * every), u64::MAX) {
                Some(left) => told.push(left / MS),
                None => return (n * every, told),
            }
            pause.turn_away();
        }
        unreachable!()
    }

    #[test]
    fn the_busier_the_sooner_but_for_the_shortest_time() {
        let lasting = [1_000, 500, 100, 20, 3, 1].map(|every| lasts(LENGTH, every).0);
        // One a second, two, ten, 50, 333 and 1000.
        assert_eq!(lasting, [5_000, 4_500, 2_500, 840, 252, 250]);
    }

    #[test]
    fn a_fixed_one_minds_no_traffic() {
        let fixed = Length::fixed(1_000 * MS);
        assert_eq!([1_000, 20, 1].map(|every| lasts(fixed, every).0), [1_000, 1_000, 1_000]);
    }

    #[test]
    fn who_is_turned_away_is_told_what_it_takes_at_this_pace() {
        let (lasted, told) = lasts(LENGTH, 20);
        assert_eq!(told[0], 5_000, "nothing is known of the pace yet");
        for (n, left) in told.iter().enumerate().skip(1) {
            let right = lasted - n as u64 * 20;
            assert!(left.abs_diff(right) <= 25, "{left} instead of {right}");
        }
    }

    #[test]
    fn under_a_lease_one_is_told_no_more_than_the_hint() {
        let pause = begun(LENGTH);
        pause.lease(after(10_000), false);
        assert_eq!((pause.left(NOW, 250 * MS), pause.is_one()), (Some(250 * MS), false));
        assert_eq!(pause.left(after(9_900), 250 * MS), Some(100 * MS));
        (0..1000).for_each(|_| pause.turn_away());
        assert_eq!(pause.left(after(9_900), 250 * MS), Some(100 * MS), "no traffic shortens it");
        assert_eq!(pause.left(after(10_000), 250 * MS), None);
    }

    proptest! {
        #[test]
        fn it_ends_within_its_bounds_and_says_nothing_beyond_them(
            shortest in 1_u64..10_000, more in 0_u64..100_000, forward in 0_u64..200_000,
            waits in prop::collection::vec(0_u64..2_000, 1..200),
        ) {
            let length = Length { shortest, longest: shortest + more, forward };
            let (pause, mut now) = (begun(length), NOW);
            for wait in waits {
                let passed = now.nanos_since(NOW);
                match pause.left(now, u64::MAX) {
                    Some(left) => {
                        prop_assert!(passed < length.longest);
                        prop_assert!(left > 0 && passed + left <= length.longest);
                        prop_assert!(passed + left >= shortest);
                    }
                    None => prop_assert!(passed >= shortest),
                }
                pause.turn_away();
                now = now.after_nanos(wait);
            }
        }
    }
}
