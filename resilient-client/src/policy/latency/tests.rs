use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// An hour: where the process's clock starts.
const START: u64 = 3600 * SECOND;

fn at(nanos: u64) -> Tick {
    Tick::from_nanos(START + nanos)
}

fn q(share: f64) -> Quantile {
    Quantile::new(share).unwrap()
}

fn filled(samples: impl IntoIterator<Item = u64>, now: Tick) -> Digest {
    let digest = Digest::new();
    samples.into_iter().for_each(|sample| digest.record(sample, now));
    digest
}

fn close(got: u64, exact: u64) -> bool {
    got.abs_diff(exact) as f64 <= exact as f64 / 17.0
}

#[cfg(not(resilient_loom))]
#[test]
fn fits_in_a_kilobyte_and_a_half() {
    assert_eq!(size_of::<Digest>(), 1448);
}

#[test]
fn the_quantiles_people_choose_are_kept_apart() {
    let slots = [0.5, 0.9, 0.95, 0.99].map(|share| q(share).slot());
    assert!((0..4).all(|slot| slots.contains(&slot)), "{slots:?}");
}

#[test]
fn a_quantile_is_a_share_above_zero_and_below_one() {
    for (share, expected) in
        [(0.5, Some(5_000)), (0.0001, Some(1)), (0.9999, Some(9_999)), (0.90004, Some(9_000))]
    {
        assert_eq!(Quantile::new(share).map(|quantile| quantile.0), expected, "{share}");
    }
    for share in [0.0, 1.0, 0.99996, -0.5, 2.0, f64::NAN, f64::INFINITY] {
        assert_eq!(Quantile::new(share), None, "{share}");
    }
}

#[test]
fn says_nothing_below_the_least_number_of_samples() {
    for (share, least) in [(0.5, 20), (0.9, 20), (0.95, 40), (0.99, 200), (0.999, 2_000)] {
        let digest = filled((1..least).map(|n| n * MS), at(0));
        assert_eq!(digest.quantile(q(share), at(0)), None, "{share} of {}", least - 1);
        digest.record(MS, at(0));
        assert!(digest.quantile(q(share), at(KEEP)).is_some(), "{share} of {least}");
    }
}

#[test]
fn every_duration_in_range_is_within_a_seventeenth_of_its_bucket() {
    let ends = (0..BUCKETS).flat_map(|bucket| {
        let low = ((bucket % STEPS + STEPS) as u64) << (bucket / STEPS + (SHORTEST - STEP_BITS) as usize);
        [low, low + 1, low + low / 16, low + (low >> 3) - 1]
    });
    for nanos in ends.filter(|nanos| *nanos < 1 << LONGEST) {
        assert!(close(middle(bucket(nanos)), nanos), "{nanos}: {}", middle(bucket(nanos)));
    }
    assert_eq!((bucket(1 << SHORTEST), bucket((1 << LONGEST) - 1)), (0, BUCKETS - 1));
}

#[test]
fn the_extremes_count_as_the_ends() {
    assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    let digest = filled((0..40).map(|n| if n % 2 == 0 { 0 } else { u64::MAX }), at(0));
    assert!(close(digest.median(at(0)).unwrap(), 1 << SHORTEST));
    assert!(close(digest.quantile(q(0.95), at(0)).unwrap(), 1 << LONGEST));
}

#[test]
fn a_sample_counts_for_five_seconds_at_least_and_ten_at_most() {
    for recorded in [0, 1, SECOND, EPOCH - 1] {
        let digest = filled([MS; 20], at(recorded));
        // Something else goes on, so that epochs pass.
        digest.record(MS, at(recorded + EPOCH));
        assert!(digest.median(at(recorded + EPOCH)).is_some(), "recorded at {recorded}");
        assert_eq!(digest.median(at(recorded + 2 * EPOCH)), None, "recorded at {recorded}");
    }
}

#[test]
fn samples_expire_when_nothing_more_is_recorded() {
    let digest = filled([MS; 20], at(0));
    assert!(digest.median(at(2 * EPOCH - 1)).is_some());
    assert_eq!(digest.median(at(2 * EPOCH)), None);
    // The base of the clock is no exception.
    assert_eq!(filled([MS; 20], Tick::ZERO).median(Tick::from_nanos(2 * EPOCH)), None);
}

#[test]
fn what_expired_does_not_come_back_when_recording_resumes_after_a_silence() {
    for silence in [2 * EPOCH, 3 * EPOCH, 4 * EPOCH, 1_000 * EPOCH] {
        let digest = filled([MS; 100], at(EPOCH - 1));
        digest.record(MS, at(EPOCH));
        digest.record(MS, at(EPOCH + silence));
        assert_eq!(digest.median(at(EPOCH + silence)), None, "after {silence}");
        digest.record(MS, at(2 * EPOCH + silence));
        assert_eq!(digest.median(at(2 * EPOCH + silence)), None, "an epoch later");
    }
}

/// A slow spell must not make every later attempt look hopeless: the wedge that an average without
/// expiry has.
#[test]
fn a_slow_spell_is_forgotten() {
    let digest = filled([30 * SECOND; 1_000], at(0));
    assert!(close(digest.median(at(0)).unwrap(), 30 * SECOND));
    (0..20).for_each(|_| digest.record(10 * MS, at(2 * EPOCH)));
    assert!(close(digest.median(at(2 * EPOCH)).unwrap(), 10 * MS));
}

#[test]
fn an_answer_is_kept_for_the_rest_of_a_tenth_of_a_second() {
    let digest = filled([10 * MS; 20], at(0));
    let first = digest.median(at(0)).unwrap();
    (0..100).for_each(|_| digest.record(SECOND, at(1)));
    assert_eq!(digest.median(at(KEEP - 1)), Some(first));
    assert!(close(digest.median(at(KEEP)).unwrap(), SECOND));
}

#[test]
fn quantiles_that_share_a_slot_do_not_answer_for_each_other() {
    let (one, other) = (Quantile(5_000), Quantile(5_002));
    assert_eq!(one.slot(), other.slot());
    let digest = filled((1..=10_000).map(|n| n * MS), at(0));
    let answers = [one, other, one].map(|quantile| digest.quantile(quantile, at(0)));
    assert_eq!(answers[0], answers[2]);
    let kept = Kept(digest.kept[one.slot()].load(Ordering::Relaxed));
    assert!(kept.answers(one, at(0)) && !kept.answers(other, at(0)) && !kept.answers(one, at(KEEP)));
}

#[test]
fn a_sample_from_just_before_the_epoch_counts_in_its_own() {
    let digest = filled([MS; 20], at(EPOCH));
    // A thread read the clock, then others moved on.
    (0..20).for_each(|_| digest.record(MS, at(EPOCH - 1)));
    assert!(
        digest.epochs.live(at(EPOCH)).iter().sum::<u64>() == 20,
        "the epoch before wasn't there to record it"
    );

    let digest = filled([MS; 20], at(0));
    digest.record(MS, at(EPOCH));
    digest.record(MS, at(EPOCH - 1));
    assert_eq!(digest.epochs.live(at(EPOCH)).iter().sum::<u64>(), 22);
    assert_eq!(digest.epochs.live(at(2 * EPOCH)).iter().sum::<u64>(), 1);
    digest.record(MS, at(2 * EPOCH));
    digest.record(MS, at(0));
    assert_eq!(digest.epochs.live(at(2 * EPOCH)).iter().sum::<u64>(), 2, "two epochs late is dropped");
}

/// The obvious digest: every sample in a list.
#[derive(Default)]
struct Model {
    samples: Vec<(u64, u64)>,
    kept: Vec<((u64, u64), Option<u64>)>,
}

impl Model {
    /// The sample of the quantile's rank, by sorting.
    fn exact(&self, quantile: Quantile, now: u64) -> Option<u64> {
        let live = |recorded: &u64| recorded / EPOCH + 1 >= now / EPOCH;
        let mut live: Vec<u64> =
            self.samples.iter().filter(|(recorded, _)| live(recorded)).map(|(_, nanos)| *nanos).collect();
        live.sort_unstable();
        let share = f64::from(quantile.0) / 10_000.0;
        let enough = live.len() >= 20 && live.len() as f64 * (1.0 - share) >= 2.0 - 1e-9;
        enough.then(|| live[((live.len() as f64 * share - 1e-9).ceil() as usize).max(1) - 1])
    }

    /// The same, no fresher than the answer that is kept.
    fn answer(&mut self, quantile: Quantile, now: u64) -> Option<u64> {
        let question = (u64::from(quantile.0), now / KEEP);
        if let Some((_, answer)) = self.kept.iter().find(|(asked, _)| *asked == question) {
            return *answer;
        }
        let answer = self.exact(quantile, now);
        self.kept.push((question, answer));
        answer
    }
}

#[derive(Clone, Debug)]
enum Step {
    Record(Vec<u64>),
    Wait(u64),
    Ask(f64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sample = prop_oneof![
        4 => (15.1_f64..36.9).prop_map(|power| power.exp2() as u64),
        1 => 8 * MS..12 * MS,
    ];
    let wait = prop_oneof![
        3 => 0..KEEP,
        3 => KEEP..SECOND,
        2 => SECOND..EPOCH,
        1 => EPOCH..4 * EPOCH,
        1 => Just(EPOCH),
    ];
    // Four quantiles with a slot each: the model keeps every answer.
    let share = prop_oneof![Just(0.5), Just(0.9), Just(0.95), Just(0.99)];
    let step = prop_oneof![
        3 => prop::collection::vec(sample, 0..80).prop_map(Step::Record),
        3 => wait.prop_map(Step::Wait),
        3 => share.prop_map(Step::Ask),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn agrees_with_the_sorted_list_of_live_samples(steps in steps()) {
        let (digest, mut model) = (Digest::new(), Model::default());
        let mut now = START;
        for step in steps {
            match step {
                Step::Wait(nanos) => now += nanos,
                Step::Record(samples) => for sample in samples {
                    digest.record(sample, Tick::from_nanos(now));
                    model.samples.push((now, sample));
                },
                Step::Ask(share) => {
                    let ours = digest.quantile(q(share), Tick::from_nanos(now));
                    let exact = model.answer(q(share), now);
                    prop_assert_eq!(ours.is_some(), exact.is_some());
                    if let (Some(ours), Some(exact)) = (ours, exact) {
                        prop_assert!(close(ours, exact), "{} where {} is exact", ours, exact);
                    }
                }
            }
        }
    }

    #[test]
    fn any_duration_at_any_time_is_taken(nanos: u64, now: u64, share in 0.0001..0.9999) {
        let digest = filled([nanos; 20], Tick::from_nanos(now));
        digest.quantile(q(share), Tick::from_nanos(now));
        prop_assert!(digest.median(Tick::from_nanos(now)).is_some());
    }
}

#[cfg(not(resilient_loom))]
#[test]
fn nothing_is_counted_twice_while_threads_record_across_epochs() {
    const EACH: u64 = 100_000;
    const THREADS: u64 = 4;
    let digest = Digest::new();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for n in 0..EACH {
                    // Ten epochs in all; every thread passes the boundaries at its own pace.
                    digest.record(10 * MS + n % 7 * MS, at(n * 10 * EPOCH / EACH));
                    if n % 64 == 0 {
                        let median = digest.median(at(n * 10 * EPOCH / EACH));
                        assert!(median.is_none_or(
                            |median| close(median, 10 * MS) || (10 * MS..17 * MS).contains(&median)
                        ));
                    }
                }
            });
        }
    });
    let counted: u64 = digest.epochs.live(at(10 * EPOCH - 1)).iter().sum();
    assert!(counted <= THREADS * EACH / 10 * 2 + THREADS, "{counted}");
    assert!(counted > 0);
}

#[cfg(resilient_loom)]
mod under_loom {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    type Few = Epochs<2>;

    fn full(now: Tick) -> Few {
        let epochs = Few::new();
        (0..4).for_each(|n| epochs.add(n % 2, now));
        epochs
    }

    fn beside<T: 'static>(epochs: &Arc<Few>, act: impl FnOnce(&Few) -> T + 'static) -> thread::JoinHandle<T> {
        let epochs = Arc::clone(epochs);
        thread::spawn(move || act(&epochs))
    }

    /// Two threads meet a new epoch: one sweeps, and neither's sample is wiped out after it was
    /// counted as new, nor does an expired one stay.
    #[test]
    fn loom_a_new_epoch_begins_once_and_empty() {
        loom::model(|| {
            let epochs = Arc::new(full(at(0)));
            let later = at(2 * EPOCH);
            let other = beside(&epochs, move |epochs| epochs.add(0, later));
            epochs.add(1, later);
            other.join().unwrap();
            let live = epochs.live(later);
            // The sample of whoever swept is there; the other's may have come during the sweep.
            assert!(live.iter().all(|count| *count <= 1) && live.iter().sum::<u64>() >= 1, "{live:?}");
        });
    }

    /// A reader beside a sweep sees the row whole or not at all.
    #[test]
    fn loom_a_reader_never_sees_a_row_half_swept() {
        loom::model(|| {
            let epochs = Arc::new(full(at(0)));
            // The epoch after is empty and live, so the sweep begins with the next sample.
            epochs.add(0, at(EPOCH));
            let other = beside(&epochs, |epochs| epochs.add(0, at(2 * EPOCH)));
            let live = epochs.live(at(EPOCH));
            // Before: two of each, and one. During: the one. After: one more.
            assert!([[3, 2], [1, 0], [2, 0]].contains(&live), "{live:?}");
            other.join().unwrap();
        });
    }

    #[test]
    fn loom_a_late_sample_goes_to_its_own_epoch() {
        loom::model(|| {
            let epochs = Arc::new(full(at(0)));
            let other = beside(&epochs, |epochs| epochs.add(0, at(EPOCH - 1)));
            epochs.add(1, at(EPOCH));
            other.join().unwrap();
            assert_eq!(epochs.live(at(EPOCH)), [3, 3]);
            assert_eq!(epochs.live(at(2 * EPOCH)), [0, 1]);
        });
    }
}
