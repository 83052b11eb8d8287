//! How many bytes of one direction go on next, when, and when the connection ends: pure.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::toxic::{Kind, Toxic};

/// With a bandwidth, bytes go on in pieces that take as long.
const TURN_MILLIS: u64 = 100;

/// What was read at once.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    pub(crate) at: Instant,
}

/// How a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Close,
    Reset,
}

/// What becomes of the piece in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many bytes of it go on, then.
    Pass { bytes: usize, at: Instant },
    /// It is lost.
    Drop,
}

/// One direction of one connection.
#[derive(Debug)]
pub(crate) struct Shape {
    began: Instant,
    /// When bytes last went on.
    passed_at: Instant,
    /// How many have, since each limit came.
    passed: HashMap<u64, u64>,
    rng: fastrand::Rng,
    /// What was drawn for the piece in hand: from -1 to 1, and from 0 to 1 for what goes on next of
    /// it.
    jitter: f64,
    size: f64,
    /// None of it has gone on yet.
    whole: bool,
}

impl Shape {
    pub(crate) fn new(now: Instant, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { began: now, passed_at: now, passed: HashMap::new(), rng, jitter: 0.0, size: 0.5, whole: true }
    }

    /// There is another piece in hand.
    pub(crate) fn take_up(&mut self) {
        self.jitter = 2.0 * self.rng.f64() - 1.0;
        self.size = self.rng.f64();
        self.whole = true;
    }

    /// What becomes of it.
    pub(crate) fn next(&self, toxics: &[Toxic], piece: &Piece) -> Next {
        let (mut most, mut due, mut pace) = (piece.bytes.len() as u64, piece.at, Duration::ZERO);
        let mut rates = Vec::new();
        for toxic in toxics {
            match toxic.kind {
                Kind::Timeout { .. } => return Next::Drop,
                Kind::Latency { latency, jitter } => {
                    let millis = latency as f64 + jitter as f64 * self.jitter;
                    due += Duration::from_secs_f64(millis.max(0.0) / 1_000.0);
                }
                Kind::Bandwidth { rate } if rate > 0 => {
                    most = most.min(rate.saturating_mul(TURN_MILLIS));
                    rates.push(rate);
                }
                Kind::Slicer { average_size, size_variation, delay } if average_size > 0 => {
                    let least = average_size.saturating_sub(size_variation);
                    let range = average_size.saturating_add(size_variation) - least;
                    most = most.min((least + (self.size * range as f64) as u64).max(1));
                    if !self.whole {
                        pace += Duration::from_micros(delay);
                    }
                }
                Kind::LimitData { bytes } => most = most.min(self.left(toxic, bytes).max(1)),
                _ => {}
            }
        }
        for rate in rates {
            // A kilobyte a second is a byte a millisecond.
            pace += Duration::from_secs_f64(most as f64 / (rate as f64 * 1_000.0));
        }
        Next::Pass { bytes: most as usize, at: due.max(self.passed_at.max(piece.at) + pace) }
    }

    /// So many bytes have gone on.
    pub(crate) fn passed(&mut self, toxics: &[Toxic], bytes: usize, now: Instant) {
        for toxic in toxics {
            if let Kind::LimitData { .. } = toxic.kind {
                *self.passed.entry(toxic.id).or_default() += bytes as u64;
            }
        }
        self.passed_at = now;
        self.size = self.rng.f64();
        self.whole = false;
    }

    /// When the connection is cut, if it is.
    pub(crate) fn cut(&self, toxics: &[Toxic]) -> Option<(Instant, Cut)> {
        let cuts = toxics.iter().filter_map(|toxic| {
            let after = |millis| self.began.max(toxic.since) + Duration::from_millis(millis);
            match toxic.kind {
                Kind::Timeout { timeout } if timeout > 0 => Some((after(timeout), Cut::Close)),
                Kind::ResetPeer { timeout } => Some((after(timeout), Cut::Reset)),
                Kind::LimitData { bytes } if self.left(toxic, bytes) == 0 => Some((self.began, Cut::Close)),
                _ => None,
            }
        });
        cuts.min_by_key(|(at, _)| *at)
    }

    /// How long the other side doesn't hear that this one has closed.
    pub(crate) fn closes_after(toxics: &[Toxic]) -> Duration {
        let delays = toxics.iter().map(|toxic| match toxic.kind {
            Kind::SlowClose { delay } => Duration::from_millis(delay),
            _ => Duration::ZERO,
        });
        delays.sum()
    }

    fn left(&self, toxic: &Toxic, bytes: u64) -> u64 {
        bytes.saturating_sub(self.passed.get(&toxic.id).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::toxic::ToxicSpec;

    const MS: Duration = Duration::from_millis(1);

    fn toxic(json: &str) -> Toxic {
        Toxic::new(serde_json::from_str::<ToxicSpec>(json).unwrap(), 1).unwrap()
    }

    /// When each part of so many bytes goes on that all came at the beginning, in milliseconds from
    /// then.
    fn passes(toxics: &[Toxic], bytes: usize) -> Vec<(usize, u64)> {
        let begun = clock::now();
        let mut shape = Shape::new(begun, 1);
        let mut piece = Piece { bytes: vec![0; bytes].into(), at: begun };
        let mut passed = Vec::new();
        shape.take_up();
        while !piece.bytes.is_empty() && shape.cut(toxics).is_none_or(|(at, _)| at > begun) {
            let Next::Pass { bytes, at } = shape.next(toxics, &piece) else { return passed };
            assert!(bytes > 0 && bytes <= piece.bytes.len());
            drop(piece.bytes.split_to(bytes));
            shape.passed(toxics, bytes, at);
            passed.push((bytes, (at - begun).as_millis() as u64));
        }
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn without_toxics_all_goes_on_at_once() {
        assert_eq!(passes(&[], 5_000), [(5_000, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn latency_is_added_once_and_jitter_stays_within_bounds() {
        let fixed = toxic(r#"{"type":"latency","attributes":{"latency":100}}"#);
        assert_eq!(passes(&[fixed], 5_000), [(5_000, 100)]);
        let begun = clock::now();
        let mut shape = Shape::new(begun, 1);
        let jittery = [toxic(r#"{"type":"latency","attributes":{"latency":100,"jitter":30}}"#)];
        let piece = Piece { bytes: vec![0].into(), at: begun };
        let mut all = Vec::new();
        for _ in 0..1_000 {
            shape.take_up();
            let Next::Pass { at, .. } = shape.next(&jittery, &piece) else { panic!("nothing drops it") };
            all.push((at - begun).as_millis());
        }
        all.sort_unstable();
        assert!(all[0] < 75 && all[999] > 125 && all.iter().all(|ms| (70..=130).contains(ms)), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bandwidth_of_one_kilobyte_passes_a_thousand_bytes_a_second() {
        let slow = toxic(r#"{"type":"bandwidth","attributes":{"rate":1}}"#);
        let passed = passes(&[slow], 1_000);
        assert_eq!((passed[0], passed[9], passed.len()), ((100, 100), (100, 1_000), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slicer_cuts_and_waits_between_slices() {
        let json = r#"{"type":"slicer","attributes":{"average_size":100,"size_variation":20,"delay":10000}}"#;
        let passed = passes(&[toxic(json)], 1_000);
        let (last, others) = passed.split_last().unwrap();
        assert!(others.iter().all(|(bytes, _)| (80..=120).contains(bytes)), "{passed:?}");
        assert_eq!(last.1, 10 * others.len() as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_lets_its_bytes_through_and_closes() {
        let limit = [toxic(r#"{"type":"limit_data","attributes":{"bytes":70}}"#)];
        assert_eq!(passes(&limit, 100), [(70, 0)]);
        let mut shape = Shape::new(clock::now(), 1);
        assert_eq!(shape.cut(&limit), None);
        shape.passed(&limit, 70, clock::now());
        assert_eq!(shape.cut(&limit).unwrap().1, Cut::Close);
    }

    #[tokio::test(start_paused = true)]
    async fn times_count_from_the_connection_or_from_the_toxic_whichever_came_later() {
        let begun = clock::now();
        let early = toxic(r#"{"type":"timeout","attributes":{"timeout":50}}"#);
        tokio::time::advance(100 * MS).await;
        let shape = Shape::new(clock::now(), 1);
        tokio::time::advance(100 * MS).await;
        let late = toxic(r#"{"type":"reset_peer","attributes":{"timeout":10}}"#);
        assert_eq!(shape.cut(&[early]), Some((begun + 150 * MS, Cut::Close)));
        assert_eq!(shape.cut(&[late]), Some((begun + 210 * MS, Cut::Reset)));
        let never = toxic(r#"{"type":"timeout"}"#);
        assert_eq!(shape.cut(std::slice::from_ref(&never)), None);
        let piece = Piece { bytes: vec![0].into(), at: begun };
        assert_eq!(shape.next(&[never], &piece), Next::Drop);
    }
}
