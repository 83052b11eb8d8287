//! A latency histogram of fixed size.
//!
//! Buckets grow with the value: exact below 64 us, then 32 to each doubling, so a reading is never
//! more than 3.2 % above the truth, from a microsecond to an hour, in one array of 9 kB however
//! long the demo runs.

use std::time::Duration;

/// Buckets to each doubling, as a power of two.
const PRECISION: u32 = 5;
/// The largest value told apart: 2^32 us, a bit more than an hour.
const LARGEST: u64 = (1 << 32) - 1;
const BUCKETS: usize = bucket(LARGEST) + 1;

/// Counts of durations; see the module's words.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Histogram {
    /// Adds one duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(LARGEST).min(LARGEST);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// How many durations were added.
    pub(crate) const fn len(&self) -> u64 {
        self.total
    }

    /// How many durations were longer than `limit`, give or take a bucket's width.
    pub(crate) fn above(&self, limit: Duration) -> u64 {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(LARGEST).min(LARGEST);
        self.counts[bucket(micros) + 1..].iter().sum()
    }

    /// The smallest bound that at least `share` (0 to 1) of the durations do not exceed; `None`
    /// when there are none.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_micros(upper_bound(reached)))
    }
}

/// The bucket of a value: itself below 64, then `PRECISION` bits after the leading one.
const fn bucket(micros: u64) -> usize {
    if micros < 2 << PRECISION {
        return micros as usize;
    }
    let shift = micros.ilog2() - PRECISION;
    ((shift as usize) << PRECISION) + (micros >> shift) as usize
}

/// The largest value that falls into a bucket.
const fn upper_bound(bucket: usize) -> u64 {
    if bucket < 2 << PRECISION {
        return bucket as u64;
    }
    let shift = (bucket >> PRECISION) as u32 - 1;
    let leading = (bucket as u64) - ((shift as u64) << PRECISION);
    ((leading + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_bucket_and_a_thirtieth_of_its_bound() {
        for micros in (0..5000).chain((0..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let bound = upper_bound(bucket(micros));
            assert!(bound >= micros, "{micros} above its bound {bound}");
            assert!((bound - micros) as f64 <= micros as f64 / 30.0, "{micros} too far below {bound}");
        }
    }

    #[test]
    fn buckets_are_in_order_without_gaps() {
        for index in 1..BUCKETS {
            assert_eq!(bucket(upper_bound(index - 1) + 1), index);
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, truth) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let read = histogram.quantile(share).expect("filled").as_micros() as f64;
            assert!((truth..=truth * 1.032).contains(&read), "p{share}: {read} for {truth}");
        }
        assert_eq!(histogram.len(), 1000);
        assert!((100..=120).contains(&histogram.above(Duration::from_micros(890))));
    }

    #[test]
    fn an_empty_one_has_no_quantile_and_an_hour_is_not_too_long() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), None);
        histogram.record(Duration::MAX);
        assert!(histogram.quantile(0.5) >= Some(Duration::from_hours(1)));
    }
}
