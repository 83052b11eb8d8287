//! How long an upstream takes, lately: a histogram that forgets.
//!
//! Two decisions need it: when to hedge (after a multiple of a high quantile), and whether the time
//! left is worth another attempt (the median). Both want the last few seconds, cheaply, in memory
//! that doesn't grow with the rate.
//!
//! [`Digest`] has the rules and an example.

use std::{array, fmt};

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::Tick;

/// How long an epoch lasts, in nanoseconds.
const EPOCH: u64 = 5_000_000_000;
/// How long an answer is kept. It divides [`EPOCH`], so no answer outlives the samples it came
/// from.
const KEEP: u64 = 100_000_000;

/// Each power of two has this many buckets: 2^3.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 3;
/// The power of two of the shortest duration told apart, 33 us, and of the longest, 137 s (less one
/// nanosecond).
const SHORTEST: u32 = 15;
const LONGEST: u32 = 37;
const BUCKETS: usize = (LONGEST - SHORTEST) as usize * STEPS;

/// A share of samples, in ten-thousandths: above 0, below 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantile(u16);

impl Quantile {
    /// Half of the samples lie below.
    pub const MEDIAN: Self = Self(5_000);
    const WHOLE: u16 = 10_000;

    /// The quantile `share`, rounded to four places; `None` unless that lies in `0.0001..=0.9999`.
    pub fn new(share: f64) -> Option<Self> {
        let parts = (share * f64::from(Self::WHOLE)).round();
        (parts >= 1.0 && parts < f64::from(Self::WHOLE)).then_some(Self(parts as u16))
    }

    /// The samples that must exist before this says anything: see the rules of [`Digest`].
    const fn least_samples(self) -> u64 {
        const LEAST: u64 = 20;
        const BEYOND: u64 = 2;
        let needed = (BEYOND * Self::WHOLE as u64).div_ceil((Self::WHOLE - self.0) as u64);
        if needed > LEAST { needed } else { LEAST }
    }

    /// How many of `samples` are at or below the quantile: the nearest rank, from one.
    const fn rank(self, samples: u64) -> u64 {
        (samples * self.0 as u64).div_ceil(Self::WHOLE as u64)
    }

    /// Where its answer is kept. The factor gives each of 0.5, 0.9, 0.95 and 0.99 a place of its
    /// own.
    const fn slot(self) -> usize {
        (self.0.wrapping_mul(45) >> 14) as usize
    }
}

/// Latency quantiles of one upstream, over the last 5 to 10 s, shared by every call to it.
///
/// - A quantile is within 5.9 % of a sample of exactly that rank, from 33 us to 137 s. A shorter or
///   longer sample counts as one at that end. (The buckets are log-linear, as in Gil Tene's
///   `HdrHistogram`: each power of two in eight equal parts.)
/// - A sample counts for 5 s at least and 10 s at most: there are two epochs of 5 s, and the older
///   makes room for a new one. So an upstream that was slow is forgotten even when nothing is sent
///   to it.
/// - No answer from too few samples: at least 20, and enough that two lie beyond the quantile (0.9:
///   20, 0.95: 40, 0.99: 200). Fewer say more about chance than about the upstream.
/// - An answer is kept for the rest of a tenth of a second, and its samples may be as much older
///   than the newest. Keeping it makes asking once per call cheap: one load.
/// - 1448 bytes. Recording is a load and an atomic add, without a lock.
///
/// One caveat: who begins an epoch empties its buckets first, 176 stores once in 5 s. Samples that
/// other threads record during that moment are lost. A thread suspended for a whole epoch in the
/// middle of recording lands its sample late.
///
/// ```
/// use resilient_client::policy::hedge::{Digest, Quantile};
/// use resilient_client::time::Tick;
///
/// let digest = Digest::new();
/// for ms in 1..=100 {
///     digest.record(ms * 1_000_000, Tick::ZERO);
/// }
/// let p90 = digest.quantile(Quantile::new(0.9).unwrap(), Tick::ZERO).unwrap();
/// assert!(p90.abs_diff(90_000_000) < 90_000_000 * 6 / 100);
/// # let after_ten_seconds = Tick::from_nanos(10_000_000_000);
/// assert_eq!(digest.median(after_ten_seconds), None);
/// ```
pub struct Digest {
    epochs: Epochs<BUCKETS>,
    /// [`Kept`] answers, each in its quantile's slot.
    kept: [AtomicU64; 4],
}

impl Digest {
    /// A digest without samples.
    pub fn new() -> Self {
        Self { epochs: Epochs::new(), kept: array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Counts an attempt that took `nanos`, or was cancelled at that age.
    pub fn record(&self, nanos: u64, now: Tick) {
        self.epochs.add(bucket(nanos), now);
    }

    /// Half of the samples took at most this long, in nanoseconds; `None` when there are too few.
    pub fn median(&self, now: Tick) -> Option<u64> {
        self.quantile(Quantile::MEDIAN, now)
    }

    /// A share `quantile` of the samples took at most this long, in nanoseconds; `None` when there
    /// are too few. Up to a tenth of a second old.
    pub fn quantile(&self, quantile: Quantile, now: Tick) -> Option<u64> {
        let slot = &self.kept[quantile.slot()];
        let kept = Kept(slot.load(Ordering::Relaxed));
        let bucket = if kept.answers(quantile, now) {
            kept.bucket()
        } else {
            let bucket = self.find(quantile, now);
            slot.store(Kept::new(quantile, now, bucket).0, Ordering::Relaxed);
            bucket
        };
        bucket.map(middle)
    }

    /// The shortest sample, in nanoseconds, however few there are; `None` when there is none.
    #[cold]
    pub(crate) fn shortest(&self, now: Tick) -> Option<u64> {
        self.epochs.live(now).iter().position(|count| *count > 0).map(middle)
    }

    /// The bucket of the sample whose rank is the quantile's.
    #[cold]
    fn find(&self, quantile: Quantile, now: Tick) -> Option<usize> {
        let counts = self.epochs.live(now);
        let samples = counts.iter().sum();
        if samples < quantile.least_samples() {
            return None;
        }
        let rank = quantile.rank(samples);
        let mut below = 0;
        counts.iter().position(|count| {
            below += count;
            below >= rank
        })
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest").finish_non_exhaustive()
    }
}

/// The bucket a duration falls in.
const fn bucket(nanos: u64) -> usize {
    let nanos = if nanos < 1 << SHORTEST {
        1 << SHORTEST
    } else if nanos >= 1 << LONGEST {
        (1 << LONGEST) - 1
    } else {
        nanos
    };
    let power = nanos.ilog2();
    // The leading bit and the three after it: 8 to 15.
    let step = (nanos >> (power - STEP_BITS)) as usize;
    (power - SHORTEST) as usize * STEPS + step - STEPS
}

/// What stands for a bucket's samples: the harmonic mean of its ends, which is equally far, in
/// proportion, from both. At worst 1 in 17, in the first bucket of a power of two.
const fn middle(bucket: usize) -> u64 {
    let power = bucket / STEPS + (SHORTEST - STEP_BITS) as usize;
    let low = (bucket % STEPS + STEPS) as u64;
    ((2 * low * (low + 1)) << power) / (2 * low + 1)
}

/// An answer and what it answers, in one word:
///
/// ```text
/// 63..24                22..8      7..0
/// tenths of a second    quantile   bucket + 1, or 0 for none
/// ```
///
/// The empty word answers nothing, because no quantile is zero. The tenths wrap after 3,000 years.
#[derive(Clone, Copy)]
struct Kept(u64);

impl Kept {
    const fn new(quantile: Quantile, now: Tick, bucket: Option<usize>) -> Self {
        let bucket = match bucket {
            Some(bucket) => bucket as u64 + 1,
            None => 0,
        };
        Self(Self::question(quantile, now) | bucket)
    }

    const fn question(quantile: Quantile, now: Tick) -> u64 {
        ((now.as_nanos() / KEEP) << 24) | ((quantile.0 as u64) << 8)
    }

    const fn answers(self, quantile: Quantile, now: Tick) -> bool {
        self.0 & !0xFF == Self::question(quantile, now)
    }

    const fn bucket(self) -> Option<usize> {
        ((self.0 & 0xFF) as usize).checked_sub(1)
    }
}

/// Two rows of counters: the samples of the epoch under way, and those of the one before.
///
/// An epoch is the number of whole [`EPOCH`]s since the clock's base; its samples are in row
/// `epoch % 2`. The first sample of a new epoch finds the row taken by what has expired, and
/// empties it:
///
/// ```text
/// Ready(n) --- a sample of epoch m > n ---> Sweeping(m) --- row m % 2 is empty ---> Ready(m)
/// ```
///
/// The other row holds live samples only if `m` is `n + 1`, which the state says too.
#[derive(Debug)]
struct Epochs<const N: usize> {
    /// A [`State`].
    state: AtomicU64,
    rows: [[AtomicU32; N]; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State(u64);

impl State {
    const SWEEPING: u64 = 1;
    const FOLLOWS: u64 = 2;

    const fn sweeping(epoch: u64, follows: bool) -> Self {
        Self(epoch << 2 | if follows { Self::FOLLOWS } else { 0 } | Self::SWEEPING)
    }

    const fn ready(self) -> Self {
        Self(self.0 & !Self::SWEEPING)
    }

    const fn epoch(self) -> u64 {
        self.0 >> 2
    }

    /// Whether the row of `epoch` holds that epoch's samples.
    const fn holds(self, epoch: u64) -> bool {
        if epoch == self.epoch() {
            self.0 & Self::SWEEPING == 0
        } else {
            epoch + 1 == self.epoch() && self.0 & Self::FOLLOWS != 0
        }
    }
}

impl<const N: usize> Epochs<N> {
    fn new() -> Self {
        let row = || array::from_fn(|_| AtomicU32::new(0));
        Self { state: AtomicU64::new(0), rows: [row(), row()] }
    }

    const fn at(now: Tick) -> u64 {
        now.as_nanos() / EPOCH
    }

    fn row(&self, epoch: u64) -> &[AtomicU32; N] {
        &self.rows[(epoch % 2) as usize]
    }

    fn add(&self, bucket: usize, now: Tick) {
        let epoch = Self::at(now);
        // Acquire pairs with the release in `begin`: the add lands on the emptied row.
        let mut state = State(self.state.load(Ordering::Acquire));
        if state.epoch() < epoch {
            state = self.begin(epoch, state);
        }
        if state.holds(epoch) {
            self.row(epoch)[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes room for `epoch`, unless another thread does.
    #[cold]
    fn begin(&self, epoch: u64, seen: State) -> State {
        if seen != seen.ready() {
            return seen;
        }
        let sweeping = State::sweeping(epoch, seen.epoch() + 1 == epoch);
        let begun = self.state.compare_exchange(seen.0, sweeping.0, Ordering::Acquire, Ordering::Acquire);
        if let Err(other) = begun {
            return State(other);
        }
        for count in self.row(epoch) {
            // Release, for `live`: who reads this zero also sees that a sweep has begun.
            count.store(0, Ordering::Release);
        }
        self.state.store(sweeping.ready().0, Ordering::Release);
        sweeping.ready()
    }

    /// The live samples of each bucket.
    fn live(&self, now: Tick) -> [u64; N] {
        loop {
            let state = State(self.state.load(Ordering::Acquire));
            // A reading of the clock from before the state's epoch is as good as one from its
            // beginning.
            let epoch = Self::at(now).max(state.epoch());
            let mut counts = [0; N];
            for epoch in epoch.saturating_sub(1)..=epoch {
                if state.holds(epoch) {
                    for (sum, count) in counts.iter_mut().zip(self.row(epoch)) {
                        *sum += u64::from(count.load(Ordering::Acquire));
                    }
                }
            }
            // Half-swept rows would make a quantile of whatever is left. The state changes twice in
            // an epoch.
            if State(self.state.load(Ordering::Relaxed)) == state {
                return counts;
            }
        }
    }
}

#[cfg(test)]
mod tests;
