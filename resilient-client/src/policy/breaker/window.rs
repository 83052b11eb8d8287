//! What the last window held: ten buckets, one word each.
//!
//! Each word is `tag | failures | successes`. The tag says which stretch of time the counts belong
//! to, so nothing has to sweep the ring when time passes: a writer that meets an older tag replaces
//! the whole word, a reader skips it.
//!
//! ```text
//! 63     62..40   39..20     19..0
//! live   turn     failures   successes
//! ```
//!
//! - An epoch is the number of whole buckets since the clock's base. It lives in slot `epoch % 10`
//!   and its turn is `epoch / 10`, of which the tag keeps 23 bits. The `live` bit is set in every
//!   tag, so the empty word matches none.
//! - The turn repeats after 2^23 windows: 2.6 years of a 10 s window, 9.7 days of the shortest. A
//!   bucket is mistaken for a fresh one only if no call touched it for exactly that long; it then
//!   lends its old counts to one window.
//! - Near a field's end both counts are halved, which keeps their ratio. That happens at half the
//!   field, and leaves room for half a million racing increments: a field can't spill into its
//!   neighbour. It happens under the breaker's lock, so that the bucket's slow calls are halved
//!   with them.
//! - A writer whose clock reading is one turn old finds a newer tag and drops its outcome: it has
//!   left the window.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::Tick;

/// How many buckets a window is cut into.
pub(in crate::policy) const BUCKETS: u32 = 10;

const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const TAG_SHIFT: u32 = 2 * COUNT_BITS;
const LIVE: u64 = 1 << (63 - TAG_SHIFT);
const TURN: u64 = LIVE - 1;

const SUCCESS: u64 = 1;
const FAILURE: u64 = 1 << COUNT_BITS;
/// Set in a word with a count at or past half its field.
const HALF_FULL: u64 = (SUCCESS | FAILURE) << (COUNT_BITS - 1);
const TAG: u64 = !0 << TAG_SHIFT;
/// What must equal the tag for a plain increment to be right.
const TAG_AND_HALF_FULL: u64 = TAG | HALF_FULL;

/// Outcomes in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct Totals {
    pub(in crate::policy) failures: u32,
    pub(in crate::policy) successes: u32,
    /// Among both.
    pub(in crate::policy) slow: u32,
}

/// The bucket must be [rounded](Window::round) before it counts more.
#[derive(Debug)]
pub(in crate::policy) struct HalfFull;

/// How many calls were slow, for each bucket: `tag | count`. Kept under the breaker's lock.
#[derive(Debug)]
pub(in crate::policy) struct SlowCalls([u64; BUCKETS as usize]);

impl SlowCalls {
    pub(super) const fn new() -> Self {
        Self([0; BUCKETS as usize])
    }

    fn halve(&mut self, slot: usize, tag: u64) {
        let word = &mut self.0[slot];
        if *word & TAG == tag {
            *word = tag | ((*word & !TAG) / 2);
        }
    }
}

impl Totals {
    pub(in crate::policy) const fn calls(self) -> u32 {
        self.failures + self.successes
    }
}

/// The ring. Increments are lock-free; `resize` and `clear` belong to one thread at a time, and so
/// does `round` where slow calls are halved too.
#[derive(Debug)]
pub(in crate::policy) struct Window {
    /// [`Reciprocal`] of the bucket length. Read as two words, so a call racing with `resize` may
    /// combine old and new; it then writes under some other epoch's tag, in a window that is being
    /// emptied anyway.
    multiplier: AtomicU64,
    shift: AtomicU32,
    buckets: [AtomicU64; BUCKETS as usize],
}

impl Window {
    /// An empty window of buckets `bucket_nanos` long (at least 2).
    pub(in crate::policy) fn new(bucket_nanos: u64) -> Self {
        let Reciprocal { multiplier, shift } = Reciprocal::of(bucket_nanos);
        Self {
            multiplier: AtomicU64::new(multiplier),
            shift: AtomicU32::new(shift),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Forgets everything and goes on with buckets of another length.
    pub(in crate::policy) fn resize(&self, bucket_nanos: u64) {
        let Reciprocal { multiplier, shift } = Reciprocal::of(bucket_nanos);
        self.multiplier.store(multiplier, Ordering::Relaxed);
        self.shift.store(shift, Ordering::Relaxed);
        self.clear();
    }

    /// Forgets everything. An increment already under way may leave its count on an empty word,
    /// where no tag vouches for it.
    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    pub(in crate::policy) fn success(&self, now: Tick) -> Result<(), HalfFull> {
        self.add(now, SUCCESS)
    }

    pub(in crate::policy) fn failure(&self, now: Tick) -> Result<(), HalfFull> {
        self.add(now, FAILURE)
    }

    fn add(&self, now: Tick, one: u64) -> Result<(), HalfFull> {
        let epoch = self.epoch(now);
        let (bucket, tag) = (&self.buckets[slot(epoch)], tag(epoch));
        if bucket.load(Ordering::Relaxed) & TAG_AND_HALF_FULL == tag {
            bucket.fetch_add(one, Ordering::Relaxed);
            Ok(())
        } else {
            Self::add_slowly(bucket, tag, one)
        }
    }

    /// Takes back a success that was counted `at` some time, if that is still in the window.
    pub(super) fn take_back_success(&self, at: Tick) {
        let epoch = self.epoch(at);
        let (bucket, tag) = (&self.buckets[slot(epoch)], tag(epoch));
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
            (ahead(seen, tag) == Some(0) && seen & COUNT != 0).then(|| seen - SUCCESS)
        });
    }

    /// Starts a bucket.
    #[cold]
    fn add_slowly(bucket: &AtomicU64, tag: u64, one: u64) -> Result<(), HalfFull> {
        let added =
            bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| match ahead(seen, tag) {
                Some(0) => (seen & HALF_FULL == 0).then(|| seen + one),
                // The bucket already belongs to the next turn: this outcome has left the window.
                Some(1) => None,
                Some(_) | None => Some(tag | one),
            });
        match added {
            Err(seen) if ahead(seen, tag) == Some(0) => Err(HalfFull),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes room in the bucket `now` falls in, if it is short of it.
    pub(in crate::policy) fn round(&self, now: Tick, slow: Option<&mut SlowCalls>) {
        let epoch = self.epoch(now);
        let (slot, tag) = (slot(epoch), tag(epoch));
        let full = |seen: &u64| ahead(*seen, tag) == Some(0) && seen & HALF_FULL != 0;
        let rounded = self.buckets[slot].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
            full(&seen).then(|| tag | halved(seen))
        });
        if rounded.is_ok()
            && let Some(slow) = slow
        {
            slow.halve(slot, tag);
        }
    }

    /// Counts a slow call in its bucket.
    pub(super) fn slow_call(&self, now: Tick, SlowCalls(words): &mut SlowCalls) {
        let epoch = self.epoch(now);
        let (word, tag) = (&mut words[slot(epoch)], tag(epoch));
        match ahead(*word, tag) {
            Some(0) => *word += 1,
            Some(1) => {}
            Some(_) | None => *word = tag | 1,
        }
    }

    /// Counts in the bucket `now` falls in and the nine before it.
    pub(in crate::policy) fn totals(&self, now: Tick, slow: Option<&SlowCalls>) -> Totals {
        let newest = self.epoch(now);
        let mut totals = Totals::default();
        for epoch in newest.saturating_sub(u64::from(BUCKETS) - 1)..=newest {
            let seen = self.buckets[slot(epoch)].load(Ordering::Relaxed);
            if seen & TAG != tag(epoch) {
                continue;
            }
            totals.successes += (seen & COUNT) as u32;
            totals.failures += ((seen >> COUNT_BITS) & COUNT) as u32;
            if let Some(SlowCalls(words)) = slow
                && words[slot(epoch)] & TAG == tag(epoch)
            {
                totals.slow += (words[slot(epoch)] & !TAG) as u32;
            }
        }
        totals
    }

    fn epoch(&self, now: Tick) -> u64 {
        let multiplier = self.multiplier.load(Ordering::Relaxed);
        let shift = self.shift.load(Ordering::Relaxed);
        Reciprocal { multiplier, shift }.divide(now.as_nanos())
    }
}

const fn slot(epoch: u64) -> usize {
    (epoch % BUCKETS as u64) as usize
}

const fn tag(epoch: u64) -> u64 {
    (((epoch / BUCKETS as u64) & TURN) | LIVE) << TAG_SHIFT
}

/// How many turns the bucket `seen` is ahead of `tag`, round the cycle; `None` for an empty one.
const fn ahead(seen: u64, tag: u64) -> Option<u64> {
    let (seen, tag) = (seen >> TAG_SHIFT, tag >> TAG_SHIFT);
    if seen & LIVE == 0 { None } else { Some(seen.wrapping_sub(tag) & TURN) }
}

const fn halved(word: u64) -> u64 {
    let (failures, successes) = ((word >> COUNT_BITS) & COUNT, word & COUNT);
    ((failures / 2) << COUNT_BITS) | (successes / 2)
}

/// Division by a number known beforehand, as a multiplication: a 64-bit division costs as much as
/// the rest of a record.
///
/// With `l = ceil(log2 d)` and `m = floor(2^(63+l) / d) + 1`, `n * m >> (63 + l)` is `n / d` for
/// every `n < 2^63`: `m` exceeds the true reciprocal by at most `2^l / 2^(63+l)` parts, which times
/// `n` stays below one part in `d`. (Granlund and Montgomery, "Division by Invariant Integers using
/// Multiplication", 1994.)
#[derive(Clone, Copy, Debug)]
struct Reciprocal {
    multiplier: u64,
    /// `l - 1`, applied to the product's upper half.
    shift: u32,
}

impl Reciprocal {
    /// Dividends beyond this (292 years of nanoseconds) count as this.
    const LARGEST: u64 = u64::MAX >> 1;

    /// `divisor` from 2 to 2^62; 0 and 1 count as 2.
    const fn of(divisor: u64) -> Self {
        let divisor = if divisor < 2 { 2 } else { divisor };
        let log = 64 - (divisor - 1).leading_zeros();
        let multiplier = ((1 << (63 + log)) / divisor as u128) as u64 + 1;
        Self { multiplier, shift: log - 1 }
    }

    fn divide(self, dividend: u64) -> u64 {
        let product = u128::from(dividend.min(Self::LARGEST)) * u128::from(self.multiplier);
        (product >> 64) as u64 >> self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn at(epoch: u64) -> Tick {
        Tick::from_nanos(epoch * 10 * MS)
    }

    fn add(window: &Window, one: u64, epoch: u64) {
        if window.add(at(epoch), one).is_err() {
            window.round(at(epoch), None);
            window.add(at(epoch), one).unwrap();
        }
    }

    fn totals(window: &Window, epoch: u64) -> (u32, u32) {
        let Totals { failures, successes, .. } = window.totals(at(epoch), None);
        (failures, successes)
    }

    proptest! {
        #[test]
        fn the_reciprocal_divides_exactly(
            dividend in 0..=Reciprocal::LARGEST,
            divisor in prop_oneof![2_u64..=1 << 62, 2_u64..1000, (1_u32..=62).prop_map(|bit| 1 << bit)],
            near in -2_i64..=2,
        ) {
            let reciprocal = Reciprocal::of(divisor);
            prop_assert_eq!(reciprocal.divide(dividend), dividend / divisor);
            // Errors hide beside the multiples.
            let beside = (dividend / divisor * divisor).saturating_add_signed(near).min(Reciprocal::LARGEST);
            prop_assert_eq!(reciprocal.divide(beside), beside / divisor);
        }
    }

    #[test]
    fn the_reciprocal_divides_exactly_at_the_ends() {
        assert_eq!([0, 1, 2].map(|divisor| Reciprocal::of(divisor).divide(7)), [3; 3]);
        for log in 1..=62 {
            for divisor in [(1_u64 << log) - 1, 1 << log, (1 << log) + 1] {
                let divisor = divisor.clamp(2, 1 << 62);
                for dividend in
                    [0, 1, divisor - 1, divisor, divisor + 1, Reciprocal::LARGEST - 1, Reciprocal::LARGEST]
                {
                    assert_eq!(
                        Reciprocal::of(divisor).divide(dividend),
                        dividend / divisor,
                        "{dividend} / {divisor}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_bucket_is_forgotten_when_the_tenth_after_it_begins() {
        let window = Window::new(10 * MS);
        add(&window, FAILURE, 1000);
        add(&window, SUCCESS, 1000);
        assert_eq!(totals(&window, 1009), (1, 1));
        assert_eq!(totals(&window, 1010), (0, 0));
    }

    #[test]
    fn the_first_epochs_have_fewer_than_ten_before_them() {
        let window = Window::new(10 * MS);
        add(&window, SUCCESS, 0);
        assert_eq!(totals(&window, 0), (0, 1));
        assert_eq!(totals(&window, 9), (0, 1));
        assert_eq!(totals(&window, 10), (0, 0));
    }

    #[test]
    fn a_full_bucket_keeps_its_ratio_and_its_neighbours() {
        let window = Window::new(10 * MS);
        add(&window, FAILURE, 31);
        for _ in 0..300_000 {
            for _ in 0..3 {
                add(&window, SUCCESS, 30);
            }
            add(&window, FAILURE, 30);
        }
        let (failures, successes) = totals(&window, 30);
        assert!((250_000..1 << 19).contains(&successes), "{successes}");
        assert!((successes / 3).abs_diff(failures) <= 2, "{failures} of {successes}");
        assert_eq!(totals(&window, 31), (failures + 1, successes), "the bucket beside it");
    }

    #[test]
    fn rounding_halves_the_slow_calls_of_that_bucket_and_no_other() {
        let (window, mut slow) = (Window::new(10 * MS), SlowCalls::new());
        for epoch in [30, 31] {
            for _ in 0..1000 {
                window.slow_call(at(epoch), &mut slow);
            }
        }
        let full = tag(30) | (COUNT / 2 + 1);
        window.buckets[slot(30)].store(full, Ordering::Relaxed);
        add(&window, FAILURE, 31);
        window.round(at(31), Some(&mut slow));
        assert_eq!(window.totals(at(31), Some(&slow)).slow, 2000, "there was room");
        window.round(at(30), Some(&mut slow));
        let expected = Totals { failures: 1, successes: 1 << 18, slow: 1500 };
        assert_eq!(window.totals(at(31), Some(&slow)), expected);
        assert_eq!(window.totals(at(39), Some(&slow)).slow, 1500);
        assert_eq!(window.totals(at(40), Some(&slow)).slow, 1000);
        add(&window, FAILURE, 40);
        window.slow_call(at(40), &mut slow);
        window.slow_call(at(30), &mut slow);
        assert_eq!(window.totals(at(40), Some(&slow)).slow, 1001, "one from a turn ago isn't counted");
    }

    #[test]
    fn an_outcome_from_a_turn_ago_leaves_the_newer_bucket_alone() {
        let window = Window::new(10 * MS);
        add(&window, FAILURE, 510);
        add(&window, SUCCESS, 500);
        assert_eq!(totals(&window, 510), (1, 0));
    }

    /// Between its look at the bucket and its change somebody else has started that.
    #[test]
    fn an_outcome_that_comes_second_to_a_new_bucket_is_counted_in_it() {
        let window = Window::new(10 * MS);
        let bucket = &window.buckets[slot(30)];
        for one in [FAILURE, SUCCESS, SUCCESS] {
            Window::add_slowly(bucket, tag(30), one).unwrap();
        }
        assert_eq!(totals(&window, 30), (1, 2));
    }

    #[test]
    fn a_success_is_taken_back_from_its_own_bucket_while_there_is_one() {
        let window = Window::new(10 * MS);
        for (one, epoch) in [(FAILURE, 30), (SUCCESS, 30), (SUCCESS, 31)] {
            add(&window, one, epoch);
        }
        window.take_back_success(at(30));
        assert_eq!(totals(&window, 31), (1, 1));
        window.take_back_success(at(30));
        assert_eq!(totals(&window, 31), (1, 1), "none is left there");
        add(&window, SUCCESS, 41);
        window.take_back_success(at(31));
        assert_eq!(totals(&window, 41), (0, 1), "the bucket is a later one's");
        window.take_back_success(at(45));
        assert_eq!(totals(&window, 45), (0, 1), "nothing is in that bucket yet");
    }

    #[test]
    fn a_resized_window_is_empty_and_its_buckets_have_the_new_length() {
        let window = Window::new(10 * MS);
        add(&window, FAILURE, 1000);
        window.resize(10 * MS);
        assert_eq!(totals(&window, 1000), (0, 0));
        window.resize(20 * MS);
        assert_eq!(totals(&window, 1000), (0, 0));
        add(&window, SUCCESS, 1000);
        assert_eq!(totals(&window, 1019), (0, 1));
        assert_eq!(totals(&window, 1020), (0, 0));
    }

    #[test]
    fn a_count_on_an_emptied_bucket_vouches_for_nothing() {
        let window = Window::new(10 * MS);
        window.buckets[slot(700)].fetch_add(SUCCESS, Ordering::Relaxed);
        assert_eq!(totals(&window, 700), (0, 0));
        add(&window, FAILURE, 700);
        assert_eq!(totals(&window, 700), (1, 0));
    }

    #[test]
    fn an_empty_word_is_no_epochs_bucket() {
        let window = Window::new(10 * MS);
        for epoch in [0, 9, 10, (TURN + 1) * 10, (TURN + 1) * 10 - 1] {
            assert_eq!(totals(&window, epoch), (0, 0));
            assert_ne!(tag(epoch), 0);
        }
    }

    #[test]
    fn idling_for_nearly_a_whole_cycle_of_turns_forgets() {
        let window = Window::new(10 * MS);
        add(&window, FAILURE, 5);
        let later = 5 + (TURN - 1) * 10;
        assert_eq!(totals(&window, later), (0, 0));
        add(&window, SUCCESS, later);
        assert_eq!(totals(&window, later), (0, 1));
    }
}
