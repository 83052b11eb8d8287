//! What an endpoint costs: its recent latency and its recent failures, each forgotten with time.
//!
//! Two words, each updated without a lock; they needn't agree with one another.

use crate::policy::balance::Rules;
use crate::sync::{AtomicU64, Ordering};
use crate::time::Tick;

/// The weight of one outcome in the share of failures: three failures in a row are believed to more
/// than half.
const STEP: f32 = 0.25;
/// Below this share failures make no difference worth an atomic write.
const NONE: f32 = 0.001;
/// A smaller share is as good as none. Were it not, the last trace of a failure would break every
/// tie, for minutes.
const FORGOTTEN: f32 = 0.01;
/// Latencies below this, in nanoseconds, count as it: with all of them decayed to nothing, calls in
/// flight still decide.
const LEAST_LATENCY: f32 = 1_000.0;
/// Who takes so many times as long as another is slower, and not by chance.
const SLOWER: f32 = 2.0;

/// Peak-EWMA latency and the share of failures, shared by every call to one endpoint.
///
/// The latency is Finagle's estimate (`PeakEwma.scala`): a slower answer replaces it, a faster one
/// moves it towards itself by `1 - exp(-t / decay)`, `t` being the time since the last, and without
/// any it decays to nothing. Unlike Finagle's, reading it doesn't write it; there, reads at a high
/// rate decay it to the next peak.
#[derive(Debug)]
pub(super) struct Score {
    /// A [`Stamped`], in nanoseconds. The flag: there was a success, and not two failures in a row
    /// since.
    latency: AtomicU64,
    /// A [`Stamped`], from 0 to 1. The flag: the last one failed.
    failing: AtomicU64,
}

/// What a score comes to at one moment, ready to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    latency: f32,
    /// Without a success, the latency is only a lower bound: what fails fast is not fast.
    proven: bool,
    /// Calls it would have in flight, over the share that would succeed.
    weight: f32,
}

impl Load {
    /// Whether this costs no more than `other`.
    pub(super) fn at_most(self, other: Self) -> bool {
        self.beside(other) * self.weight <= other.beside(self) * other.weight
    }

    fn beside(self, other: Self) -> f32 {
        let latency = if self.proven { self.latency } else { self.latency.max(other.latency) };
        latency.max(LEAST_LATENCY)
    }
}

impl Score {
    pub(super) fn new() -> Self {
        Self { latency: AtomicU64::new(0), failing: AtomicU64::new(0) }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.latency.store(0, Ordering::Relaxed);
        self.failing.store(0, Ordering::Relaxed);
    }

    pub(super) fn load(&self, in_flight: u32, rules: &Rules, now: Tick) -> Load {
        let latency = Stamped(self.latency.load(Ordering::Relaxed));
        let failing = Stamped(self.failing.load(Ordering::Relaxed));
        let share = remembered(failing, rules, now);
        let success = (1.0 - share).max(rules.least_success);
        Load {
            latency: latency.at(rules, now),
            proven: latency.flag(),
            weight: (in_flight as f32 + 1.0) / success,
        }
    }

    /// An answer came after `took` nanoseconds.
    pub(super) fn succeeded(&self, took: u64, rules: &Rules, now: Tick) {
        let took = took as f32;
        update(&self.latency, |old| {
            let keep = old.keep(rules, now);
            let value =
                if took > old.value() * keep { took } else { old.value() * keep + took * (1.0 - keep) };
            Some(Stamped::new(value, true, now))
        });
        update(&self.failing, |old| {
            let share = old.at(rules, now);
            (old.value() > NONE).then(|| Stamped::new(share * (1.0 - STEP), false, now))
        });
    }

    /// A failure came after `took` nanoseconds.
    pub(super) fn failed(&self, took: u64, rules: &Rules, now: Tick) {
        self.out_for(took, rules, now);
        let mut again = false;
        update(&self.failing, |old| {
            again = old.flag();
            let share = old.at(rules, now);
            Some(Stamped::new(share + (1.0 - share) * STEP, true, now))
        });
        if again {
            // What an earlier success took says nothing any more. It decays, and would attract
            // calls.
            update(&self.latency, |old| old.flag().then_some(Stamped(old.0 & !1)));
        }
    }

    /// There was no answer within `took` nanoseconds: the latency is at least that.
    pub(super) fn out_for(&self, took: u64, rules: &Rules, now: Tick) {
        let took = took as f32;
        update(&self.latency, |old| (took > old.at(rules, now)).then(|| Stamped::new(took, old.flag(), now)));
    }

    /// Whether the last two attempts failed, or the only one did: it is in no state to serve, as
    /// far as that can be said.
    pub(super) fn is_failing(&self) -> bool {
        Stamped(self.failing.load(Ordering::Relaxed)).flag()
            && !Stamped(self.latency.load(Ordering::Relaxed)).flag()
    }

    /// Whether failures speak against it.
    pub(super) fn remembers_failures(&self, rules: &Rules, now: Tick) -> bool {
        remembered(Stamped(self.failing.load(Ordering::Relaxed)), rules, now) > 0.0
    }

    /// Whether calls take so much longer here than there that one in twenty of them would be
    /// noticed.
    pub(super) fn is_slower(&self, other: &Self, rules: &Rules, now: Tick) -> bool {
        let latency = |score: &Self| Stamped(score.latency.load(Ordering::Relaxed)).at(rules, now);
        latency(self) > SLOWER * latency(other).max(LEAST_LATENCY)
    }

    /// The latency estimate in nanoseconds, and the share of failures; for people.
    pub(super) fn estimate(&self, rules: &Rules, now: Tick) -> (u64, f32) {
        let latency = Stamped(self.latency.load(Ordering::Relaxed)).at(rules, now);
        (latency as u64, Stamped(self.failing.load(Ordering::Relaxed)).at(rules, now))
    }
}

/// The share of failures that counts.
fn remembered(failing: Stamped, rules: &Rules, now: Tick) -> f32 {
    let share = failing.at(rules, now);
    if share < FORGOTTEN { 0.0 } else { share }
}

fn update(word: &AtomicU64, mut change: impl FnMut(Stamped) -> Option<Stamped>) {
    let _ =
        word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| change(Stamped(old)).map(|new| new.0));
}

/// A number, a flag, and when it was written in milliseconds (mod 2^31, 25 days):
/// `value:32 | millis:31 | flag:1`.
///
/// Several samples within a millisecond then weigh as much as the first of them, which keeps their
/// average the same.
#[derive(Clone, Copy)]
struct Stamped(u64);

impl Stamped {
    const MILLIS: u64 = (1 << 31) - 1;

    fn new(value: f32, flag: bool, now: Tick) -> Self {
        Self(u64::from(value.to_bits()) << 32 | Self::millis(now) << 1 | u64::from(flag))
    }

    fn millis(now: Tick) -> u64 {
        (now.as_nanos() / 1_000_000) & Self::MILLIS
    }

    fn value(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    fn flag(self) -> bool {
        self.0 & 1 != 0
    }

    /// What is left of the value's weight, from 0 to 1.
    fn keep(self, rules: &Rules, now: Tick) -> f32 {
        let elapsed = Self::millis(now).wrapping_sub(self.0 >> 1) & Self::MILLIS;
        // Another thread's clock read may be later than ours. Idle for half the range reads the
        // same, and is no harm.
        if elapsed == 0 || elapsed > Self::MILLIS / 2 {
            1.0
        } else {
            (-(elapsed as f32) / rules.decay_millis).exp()
        }
    }

    fn at(self, rules: &Rules, now: Tick) -> f32 {
        if self.value() > 0.0 { self.value() * self.keep(rules, now) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::balance::BalancePolicy;

    const MS: u64 = 1_000_000;

    fn rules() -> Rules {
        BalancePolicy::standard().compile().unwrap()
    }

    fn at(millis: u64) -> Tick {
        Tick::from_nanos(millis * MS)
    }

    fn millis(score: &Score, now: u64) -> f64 {
        score.estimate(&rules(), at(now)).0 as f64 / MS as f64
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= b.abs() * 1e-3
    }

    #[test]
    fn a_slower_answer_counts_at_once_and_is_forgotten_slowly() {
        let score = Score::new();
        score.succeeded(10 * MS, &rules(), at(0));
        score.succeeded(100 * MS, &rules(), at(100));
        assert!(close(millis(&score, 100), 100.0));
        score.succeeded(10 * MS, &rules(), at(10_100));
        let expected = 100.0 * (-1.0_f64).exp() + 10.0 * (1.0 - (-1.0_f64).exp());
        assert!(close(millis(&score, 10_100), expected));
        assert!(close(millis(&score, 30_100), expected * (-2.0_f64).exp()), "and decays without answers");
    }

    #[test]
    fn a_failure_or_a_cancelled_attempt_never_lowers_the_latency() {
        let score = Score::new();
        score.succeeded(10 * MS, &rules(), at(0));
        score.failed(0, &rules(), at(1));
        score.out_for(MS, &rules(), at(1));
        assert!(close(millis(&score, 1), 10.0));
        score.out_for(500 * MS, &rules(), at(2));
        assert!(close(millis(&score, 2), 500.0));
        score.failed(3000 * MS, &rules(), at(3));
        assert!(close(millis(&score, 3), 3000.0));
    }

    #[test]
    fn all_failures_cost_a_hundredfold_and_one_a_third() {
        let (good, bad) = (Score::new(), Score::new());
        for score in [&good, &bad] {
            score.succeeded(10 * MS, &rules(), at(0));
        }
        let tops =
            |in_flight: u32| !bad.load(0, &rules(), at(0)).at_most(good.load(in_flight, &rules(), at(0)));
        bad.failed(0, &rules(), at(0));
        assert!(tops(0) && !tops(1));
        (0..40).for_each(|_| bad.failed(0, &rules(), at(0)));
        assert!(tops(98) && !tops(100));
        for _ in 0..30 {
            bad.succeeded(10 * MS, &rules(), at(0));
        }
        assert!(bad.load(0, &rules(), at(0)).weight < 1.01);
    }

    #[test]
    fn who_never_answered_counts_as_fast_as_the_other() {
        let (cold, warm) = (Score::new(), Score::new());
        warm.succeeded(10 * MS, &rules(), at(0));
        let costs_no_more = |cold_in_flight, warm_in_flight| {
            let cold = cold.load(cold_in_flight, &rules(), at(0));
            cold.at_most(warm.load(warm_in_flight, &rules(), at(0)))
        };
        assert!(costs_no_more(3, 3) && costs_no_more(2, 3) && !costs_no_more(4, 3));
        cold.failed(0, &rules(), at(0));
        assert!(!costs_no_more(3, 3), "failing at once is no recommendation");
        cold.clear();
        cold.out_for(3000 * MS, &rules(), at(0));
        assert!(!costs_no_more(0, 200), "nor is hanging");
    }

    /// Its latency decayed to nothing while it failed, in a few times the decay, and it took every
    /// call it was drawn for.
    #[test]
    fn who_was_fast_and_fails_does_not_become_faster() {
        let (good, bad) = (Score::new(), Score::new());
        bad.succeeded(10 * MS, &rules(), at(0));
        for now in (0..300_000).step_by(5_000) {
            good.succeeded(10 * MS, &rules(), at(now));
            bad.failed(MS / 10, &rules(), at(now));
            if now > 0 {
                assert!(!bad.load(0, &rules(), at(now)).at_most(good.load(0, &rules(), at(now))), "{now}");
            }
        }
        bad.succeeded(MS, &rules(), at(300_000));
        (0..10).for_each(|_| bad.succeeded(MS, &rules(), at(300_000)));
        let later = at(330_000);
        assert!(bad.load(0, &rules(), later).at_most(good.load(0, &rules(), later)), "well again, and fast");
    }

    #[test]
    fn everything_decayed_leaves_the_calls_in_flight_to_decide() {
        let (a, b) = (Score::new(), Score::new());
        a.succeeded(1000 * MS, &rules(), at(0));
        b.succeeded(MS, &rules(), at(0));
        let later = at(3_600_000);
        assert!(a.load(1, &rules(), later).at_most(b.load(2, &rules(), later)));
    }

    proptest! {
        #[test]
        fn the_latency_stays_among_its_samples_and_nothing_is_ever_not_a_number(
            samples in prop::collection::vec((0_u64..5_000, 0_u64..20_000, 0_u8..3), 1..100),
        ) {
            let (score, mut now, mut most) = (Score::new(), 0, 0.0_f64);
            for (took, gap, kind) in samples {
                now += gap;
                match kind {
                    0 => score.succeeded(took * MS, &rules(), at(now)),
                    1 => score.failed(took * MS, &rules(), at(now)),
                    _ => score.out_for(took * MS, &rules(), at(now)),
                }
                most = most.max(took as f64);
                let (latency, failing) = (millis(&score, now), score.estimate(&rules(), at(now)).1);
                // Whatever the kind, the newest sample is never above the estimate when it is the
                // first or a peak.
                prop_assert!(latency <= most * 1.001);
                prop_assert!((0.0..=1.0).contains(&failing));
                let load = score.load(3, &rules(), at(now));
                prop_assert!(load.weight.is_finite() && load.weight >= 4.0 && load.weight <= 401.0);
                prop_assert!(load.at_most(load));
            }
        }
    }
}
