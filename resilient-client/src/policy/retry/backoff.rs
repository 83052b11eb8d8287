//! The waits of one call, one after another.

use std::fmt;
use std::time::Duration;

use super::{Jitter, Rules};
use crate::rng::Rng;
use crate::time::nanos;

/// The waits of one call. Every call has its own, so that no two are in step.
#[derive(Debug)]
pub struct Backoff(Source);

#[derive(Debug)]
enum Source {
    Drawn(Drawn),
    Given(Given),
}

impl Backoff {
    /// The waits of a call that has failed once, drawn as the rules say.
    pub fn new(rules: &Rules) -> Self {
        let Rules { initial_nanos: initial, cap_nanos: cap, jitter, .. } = *rules;
        Self(Source::Drawn(Drawn { step: initial, initial, cap, jitter }))
    }

    /// The waits that `delays` yields, as they are. When it ends there is to be no other attempt.
    pub fn given(delays: impl Iterator<Item = Duration> + Send + 'static) -> Self {
        Self(Source::Given(Given(Box::new(delays))))
    }

    /// The next wait, in nanoseconds; `None` to stop, which only [given](Self::given) waits ever
    /// do. With `wait(n) = min(cap, initial * 2^n)` for the n-th, from 0:
    ///
    /// | jitter | uniform in |
    /// |---|---|
    /// | full | `0 ..= wait(n)` |
    /// | decorrelated | `initial ..= min(cap, 3 * last)`, `last` being `initial` at first |
    /// | none | exactly `wait(n)` |
    ///
    /// Decorrelated differs from its source in one point: there the *draw* is capped, which puts
    /// ever more calls at exactly the cap, in step; here the range is.
    pub fn next(&mut self, rng: &mut Rng) -> Option<u64> {
        match &mut self.0 {
            Source::Drawn(drawn) => Some(drawn.next(rng)),
            Source::Given(given) => given.next(),
        }
    }

    /// The next wait, in nanoseconds, when the server has said how long to wait at least (RFC 9110,
    /// section 10.2.3, `Retry-After`): uniform in `floor ..= 2.25 * floor`, or exactly `floor`
    /// without jitter. The cap doesn't apply. Given waits are spread in the same way, but never
    /// shortened.
    ///
    /// A zero floor asks for nothing, so the ordinary wait applies. Either way the waits after it
    /// go on growing.
    pub fn with_floor(&mut self, floor: Duration, rng: &mut Rng) -> Option<u64> {
        let floor = nanos(floor);
        if floor == 0 {
            return self.next(rng);
        }
        match &mut self.0 {
            Source::Drawn(drawn) => Some(drawn.with_floor(floor, rng)),
            Source::Given(given) => given.next().map(|wait| wait.max(spread(floor, rng))),
        }
    }
}

/// Uniform between the floor and 1.25 times as much again.
fn spread(floor: u64, rng: &mut Rng) -> u64 {
    floor.saturating_add(rng.between(0, floor.saturating_add(floor / 4)))
}

/// Waits drawn as the rules say.
#[derive(Clone, Debug)]
struct Drawn {
    /// What the next wait is drawn from. The exponential wait itself or, decorrelated, the last
    /// wait.
    step: u64,
    initial: u64,
    cap: u64,
    jitter: Jitter,
}

impl Drawn {
    fn next(&mut self, rng: &mut Rng) -> u64 {
        match self.jitter {
            Jitter::Full => rng.between(0, self.exponential()),
            Jitter::None => self.exponential(),
            Jitter::Decorrelated => {
                self.step = rng.between(self.initial, self.step.saturating_mul(3).min(self.cap));
                self.step
            }
        }
    }

    fn with_floor(&mut self, floor: u64, rng: &mut Rng) -> u64 {
        let wait = match self.jitter {
            Jitter::Full | Jitter::Decorrelated => spread(floor, rng),
            Jitter::None => floor,
        };
        self.step = match self.jitter {
            Jitter::Full | Jitter::None => self.doubled(),
            Jitter::Decorrelated => wait.clamp(self.initial, self.cap),
        };
        wait
    }

    /// The exponential wait, doubled for next time.
    fn exponential(&mut self) -> u64 {
        let doubled = self.doubled();
        std::mem::replace(&mut self.step, doubled)
    }

    fn doubled(&self) -> u64 {
        self.step.saturating_mul(2).min(self.cap)
    }
}

/// Waits of the user's own.
struct Given(Box<dyn Iterator<Item = Duration> + Send>);

impl Given {
    fn next(&mut self) -> Option<u64> {
        self.0.next().map(nanos)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RetryPolicy;
    use super::*;
    use crate::rng::Rng;

    const MS: u64 = 1_000_000;

    fn backoff(initial: u64, cap: u64, jitter: Jitter) -> Drawn {
        let policy = RetryPolicy::standard()
            .initial(Duration::from_nanos(initial))
            .cap(Duration::from_nanos(cap))
            .jitter(jitter);
        match Backoff::new(&policy.compile().unwrap()).0 {
            Source::Drawn(drawn) => drawn,
            Source::Given(given) => panic!("{given:?}"),
        }
    }

    #[test]
    fn without_jitter_it_doubles_to_the_cap() {
        let (mut backoff, mut rng) = (backoff(20 * MS, 2000 * MS, Jitter::None), Rng::seeded(1));
        let waits: Vec<_> = (0..9).map(|_| backoff.next(&mut rng) / MS).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 2000, 2000]);
    }

    #[test]
    fn full_jitter_reaches_all_of_its_range() {
        let mut rng = Rng::seeded(1);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let wait = backoff(20 * MS, 2000 * MS, Jitter::Full).next(&mut rng);
            tenths[(wait * 10 / (20 * MS + 1)) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
    }

    #[test]
    fn decorrelated_waits_do_not_gather_at_the_cap() {
        let mut rng = Rng::seeded(1);
        let at_cap = |rng: &mut Rng| {
            let mut backoff = backoff(20 * MS, 200 * MS, Jitter::Decorrelated);
            (0..10).map(|_| backoff.next(rng)).last() == Some(200 * MS)
        };
        assert_eq!((0..10_000).filter(|_| at_cap(&mut rng)).count(), 0);
    }

    #[test]
    fn a_zero_floor_is_an_ordinary_wait_and_not_none_at_all() {
        let rules = RetryPolicy::standard().compile().unwrap();
        let (mut ordinary, mut floored) = (Backoff::new(&rules), Backoff::new(&rules));
        let (mut rng, mut same) = (Rng::seeded(7), Rng::seeded(7));
        for _ in 0..20 {
            let wait = floored.with_floor(Duration::ZERO, &mut rng);
            assert_eq!(wait, ordinary.next(&mut same));
        }
    }

    #[test]
    fn waits_go_on_growing_after_a_floor() {
        let (mut backoff, mut rng) = (backoff(20 * MS, 2000 * MS, Jitter::None), Rng::seeded(1));
        assert_eq!(backoff.with_floor(5 * MS, &mut rng), 5 * MS);
        assert_eq!(backoff.next(&mut rng), 40 * MS);
    }

    #[test]
    fn given_waits_are_kept_to_and_stop_when_they_end() {
        let mut rng = Rng::seeded(1);
        let mut backoff = Backoff::given([70, 0].map(Duration::from_millis).into_iter());
        assert_eq!(backoff.next(&mut rng), Some(70 * MS));
        assert_eq!(backoff.next(&mut rng), Some(0));
        assert_eq!(backoff.next(&mut rng), None);
        assert_eq!(backoff.with_floor(Duration::from_millis(1), &mut rng), None);
    }

    #[test]
    fn a_floor_holds_given_waits_too_and_shortens_none() {
        let mut rng = Rng::seeded(1);
        let mut backoff = Backoff::given([1, 5000].map(Duration::from_millis).into_iter());
        let second = Duration::from_secs(1);
        let spread = backoff.with_floor(second, &mut rng);
        assert!(spread.is_some_and(|wait| (1000 * MS..=2250 * MS).contains(&wait)), "{spread:?}");
        assert_eq!(backoff.with_floor(second, &mut rng), Some(5000 * MS));
    }

    /// How many of 1000 clients, all given the same wait in the same instant, come back in the
    /// worst 100 ms.
    fn herd_peak(jitter: Jitter, seed: u64) -> u32 {
        let mut buckets = [0_u32; 24];
        let mut seeds = Rng::seeded(seed);
        for _ in 0..1000 {
            let mut rng = Rng::seeded(seeds.bits());
            let wait = backoff(20 * MS, 2000 * MS, jitter).with_floor(1000 * MS, &mut rng);
            buckets[(wait / (100 * MS)) as usize] += 1;
        }
        buckets.into_iter().max().unwrap_or(0)
    }

    /// PROOF E7.
    #[test]
    fn a_thousand_clients_told_one_second_do_not_come_back_as_a_herd() {
        for jitter in [Jitter::Full, Jitter::Decorrelated] {
            let worst = (0..100).map(|seed| herd_peak(jitter, seed)).max();
            assert!(worst <= Some(120), "{worst:?} of 1000 in one tenth of a second");
        }
        assert_eq!(herd_peak(Jitter::None, 0), 1000, "the control: everyone at once");
    }

    proptest! {
        #[test]
        fn full_jitter_stays_below_the_exponential_wait(
            initial in 1..=u64::from(u32::MAX), more in 0..=u64::from(u32::MAX) * 1000, seed: u64, waits in 1_u32..200,
        ) {
            let cap = initial + more;
            let (mut backoff, mut rng) = (backoff(initial, cap, Jitter::Full), Rng::seeded(seed));
            for n in 0..waits {
                let most = (u128::from(initial) << n.min(60)).min(u128::from(cap));
                prop_assert!(u128::from(backoff.next(&mut rng)) <= most);
            }
        }

        #[test]
        fn decorrelated_stays_between_initial_and_thrice_the_last(
            initial in 1..=u64::from(u32::MAX), more in 0..=u64::from(u32::MAX) * 1000, seed: u64, waits in 1_u32..200,
        ) {
            let cap = initial + more;
            let (mut backoff, mut rng) = (backoff(initial, cap, Jitter::Decorrelated), Rng::seeded(seed));
            let mut last = initial;
            for _ in 0..waits {
                let wait = backoff.next(&mut rng);
                prop_assert!((initial..=(3 * last).min(cap)).contains(&wait));
                last = wait;
            }
        }

        #[test]
        fn a_floor_is_never_undercut_and_overshot_by_a_quarter_more_than_itself_at_most(
            floor in prop_oneof![1..=10_000 * MS, any::<u64>()],
            jitter in prop_oneof![Just(Jitter::Full), Just(Jitter::Decorrelated), Just(Jitter::None)],
            seed: u64, before in 0..20,
        ) {
            let (mut backoff, mut rng) = (backoff(20 * MS, 2000 * MS, jitter), Rng::seeded(seed));
            for _ in 0..before {
                backoff.next(&mut rng);
            }
            prop_assume!(floor > 0);
            let wait = backoff.with_floor(floor, &mut rng);
            prop_assert!(wait >= floor);
            prop_assert!(u128::from(wait) * 4 <= u128::from(floor) * 9);
            prop_assert!(backoff.next(&mut rng) <= 2000 * MS, "our own waits keep to the cap");
        }

        #[test]
        fn nothing_overflows_at_the_longest_waits(seed: u64, floor: u64, floors in prop::collection::vec(any::<bool>(), 0..300)) {
            let longest = nanos(crate::invalid::LONGEST);
            for jitter in [Jitter::Full, Jitter::Decorrelated, Jitter::None] {
                let (mut backoff, mut rng) = (backoff(longest - 1, longest, jitter), Rng::seeded(seed));
                for floored in &floors {
                    if *floored {
                        backoff.with_floor(floor, &mut rng);
                    } else {
                        prop_assert!(backoff.next(&mut rng) <= longest);
                    }
                }
            }
        }
    }
}
