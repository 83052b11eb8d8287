//! What happened in each of the last two minutes' seconds.

use crate::time::Tick;

/// How many seconds are kept.
pub(crate) const KEPT: usize = 120;
/// How many whole seconds a rate is read from.
const RATE_OVER: usize = 10;
const NANOS: u64 = 1_000_000_000;

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// Calls that ended with a success, a failure, or refused here.
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
    pub(crate) refused: u32,
    /// Attempts that were sent, why beyond the first, and how many failed.
    pub(crate) attempts: u32,
    pub(crate) retries: u32,
    pub(crate) hedges: u32,
    pub(crate) failed_attempts: u32,
}

impl Second {
    /// Calls that ended, but for those that nobody waited for.
    pub(crate) fn calls(&self) -> u32 {
        self.succeeded.saturating_add(self.failed).saturating_add(self.refused)
    }

    fn plus(self, other: Self) -> Self {
        let Self { succeeded, failed, refused, attempts, retries, hedges, failed_attempts } = other;
        Self {
            succeeded: self.succeeded.saturating_add(succeeded),
            failed: self.failed.saturating_add(failed),
            refused: self.refused.saturating_add(refused),
            attempts: self.attempts.saturating_add(attempts),
            retries: self.retries.saturating_add(retries),
            hedges: self.hedges.saturating_add(hedges),
            failed_attempts: self.failed_attempts.saturating_add(failed_attempts),
        }
    }
}

/// The last two minutes by the second. Pure: time is told.
#[derive(Debug)]
pub(crate) struct Seconds {
    ring: [Second; KEPT],
    /// The newest second that the ring has a place for.
    newest: u64,
}

impl Seconds {
    pub(crate) fn new(now: Tick) -> Self {
        Self { ring: [Second::default(); KEPT], newest: second(now) }
    }

    /// The counts of `now`'s second, to change. An earlier one than the newest has come late from
    /// another thread: it is counted where it belongs while that is kept, and else with the oldest.
    pub(crate) fn at(&mut self, now: Tick) -> &mut Second {
        let this = second(now);
        for skipped in (self.newest + 1..=this).rev().take(KEPT) {
            self.ring[place(skipped)] = Second::default();
        }
        self.newest = self.newest.max(this);
        let oldest = (self.newest + 1).saturating_sub(KEPT as u64);
        &mut self.ring[place(this.max(oldest))]
    }

    /// The last `count` whole seconds before `now`'s, the oldest first.
    pub(crate) fn last(&self, count: usize, now: Tick) -> impl Iterator<Item = Second> {
        let this = second(now);
        let first = this.saturating_sub(count.min(KEPT) as u64);
        (first..this).map(|second| {
            let kept = second <= self.newest && second + KEPT as u64 > self.newest;
            if kept { self.ring[place(second)] } else { Second::default() }
        })
    }

    /// What is counted a second, of late: the sum and over how many seconds.
    pub(crate) fn lately(&self, now: Tick) -> (Second, u32) {
        (self.last(RATE_OVER, now).fold(Second::default(), Second::plus), RATE_OVER as u32)
    }
}

fn second(now: Tick) -> u64 {
    now.as_nanos() / NANOS
}

fn place(second: u64) -> usize {
    (second % KEPT as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn tick(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * NANOS)
    }

    #[test]
    fn the_second_under_way_is_in_no_rate() {
        let mut seconds = Seconds::new(tick(5));
        seconds.at(tick(5)).succeeded += 3;
        assert_eq!(seconds.lately(tick(5)).0.succeeded, 0);
        assert_eq!(seconds.lately(tick(6)).0.succeeded, 3);
        assert_eq!(seconds.lately(tick(15)).0.succeeded, 3);
        assert_eq!(seconds.lately(tick(16)).0.succeeded, 0);
    }

    proptest! {
        /// A ring beside a map of every second there ever was.
        #[test]
        fn each_of_the_last_seconds_is_what_was_counted_in_it(
            steps in prop::collection::vec((0_u64..200, 1_u32..5), 1..60),
        ) {
            let mut seconds = Seconds::new(tick(0));
            let mut model = BTreeMap::<u64, u32>::new();
            let mut now = 0;
            for (step, count) in steps {
                now += step;
                seconds.at(tick(now)).attempts += count;
                *model.entry(now).or_default() += count;
                let shown: Vec<_> = seconds.last(KEPT - 1, tick(now + 1)).map(|second| second.attempts).collect();
                let meant: Vec<_> = (now + 1 - shown.len() as u64..=now).map(|second| model.get(&second).copied().unwrap_or(0)).collect();
                prop_assert_eq!(shown, meant);
            }
        }
    }
}
