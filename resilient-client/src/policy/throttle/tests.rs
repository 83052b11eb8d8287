use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1000 * SECOND;

fn standard() -> Throttle {
    Throttle::new(ThrottlePolicy::standard().compile().unwrap())
}

fn at(seconds: u64) -> Tick {
    Tick::from_nanos(START + seconds * SECOND)
}

/// One client and one upstream, `demand` calls a second, evenly.
struct World {
    throttle: Throttle,
    rng: Rng,
    demand: u64,
    second: u64,
}

/// What came of some seconds' calls.
#[derive(Debug, Default)]
struct Tally {
    calls: f64,
    sent: f64,
    accepted: f64,
}

impl World {
    fn new(demand: u64) -> Self {
        Self::with(&ThrottlePolicy::standard(), demand)
    }

    fn with(policy: &ThrottlePolicy, demand: u64) -> Self {
        let throttle = Throttle::new(policy.compile().unwrap());
        Self { throttle, rng: Rng::seeded(11), demand, second: 0 }
    }

    /// How many seconds, after an outage of ten minutes, until a whole second's calls are sent.
    fn recovery(mut self, capacity_before: u64) -> usize {
        self.run(600, capacity_before);
        assert!(self.throttle.probability(at(self.second)) > 0.5);
        let whole = self.demand as f64;
        let seconds = (0..5000).find(|_| self.run(1, u64::MAX).sent >= whole).unwrap();
        let tally = self.run(600, u64::MAX);
        assert!(tally.sent / tally.calls > 0.99, "{tally:?}");
        seconds
    }

    /// The upstream accepts `capacity` calls each second and refuses the others.
    fn run(&mut self, seconds: u64, capacity: u64) -> Tally {
        let mut tally = Tally::default();
        for second in self.second..self.second + seconds {
            let mut accepted = 0;
            for call in 0..self.demand {
                let now = Tick::from_nanos(at(second).as_nanos() + call * SECOND / self.demand);
                tally.calls += 1.0;
                if self.throttle.admit(now, self.rng.unit()).is_err() {
                    continue;
                }
                tally.sent += 1.0;
                if accepted < capacity {
                    accepted += 1;
                    self.throttle.accepted(now);
                } else {
                    self.throttle.refused(now);
                }
            }
            tally.accepted += accepted as f64;
        }
        self.second += seconds;
        tally
    }
}

#[test]
fn a_healthy_upstream_is_never_throttled() {
    let mut world = World::new(100);
    let tally = world.run(600, u64::MAX);
    assert_eq!((tally.sent, world.throttle.probability(at(600))), (tally.calls, 0.0));
}

#[test]
fn calls_in_flight_at_the_start_do_not_throttle_one_another() {
    let throttle = standard();
    assert!((0..1000).all(|_| throttle.admit(at(0), 0.0).is_ok()));
    for _ in 0..1000 {
        throttle.accepted(at(1));
    }
    assert!(throttle.admit(at(1), 0.0).is_ok());
}

#[test]
fn nothing_is_refused_while_half_is_accepted() {
    let throttle = standard();
    for _ in 0..50 {
        throttle.accepted(at(0));
        throttle.refused(at(0));
    }
    assert_eq!(throttle.probability(at(0)), 0.0);
    throttle.refused(at(0));
    assert_eq!(throttle.probability(at(0)), 1.0 / 102.0);
}

#[test]
fn requests_refused_here_count_as_requests() {
    let throttle = standard();
    throttle.refused(at(0));
    assert_eq!(throttle.admit(at(0), 0.0), Err(Throttled { probability: 1.0 / 2.0 }));
    assert_eq!(throttle.admit(at(0), 0.0), Err(Throttled { probability: 2.0 / 3.0 }));
    assert_eq!(throttle.admit(at(0), 0.75), Ok(()), "not below three quarters");
    assert_eq!(throttle.probability(at(0)), 3.0 / 4.0, "sent, and its fate not known");
}

/// A window of 100 calls a second holds 12,000 or a tenth less, so a call in about 12,000 is sent:
/// 10 in 20 minutes.
#[test]
fn an_upstream_that_refuses_everything_is_left_almost_alone() {
    let mut world = World::new(100);
    world.run(120, 0);
    let tally = world.run(1200, 0);
    let expected = tally.calls / 11_400.0;
    assert!(tally.sent > 0.0 && (tally.sent - expected).abs() <= 3.0 * expected.sqrt(), "{tally:?}");
}

#[test]
fn an_overloaded_upstream_gets_k_times_what_it_accepts() {
    for (demand, capacity) in [(100, 10), (100, 30), (1000, 50)] {
        let mut world = World::new(demand);
        world.run(600, capacity);
        let tally = world.run(600, capacity);
        let expected = 2.0 * capacity as f64 / demand as f64;
        let fraction = tally.sent / tally.calls;
        assert!((fraction / expected - 1.0).abs() < 0.05, "{fraction} for {expected}");
        assert!(tally.accepted / tally.calls > 0.95 * capacity as f64 / demand as f64, "{tally:?}");
    }
}

#[test]
fn it_recovers_when_the_upstream_does() {
    let seconds = World::new(100).recovery(20);
    assert!((60..120).contains(&seconds), "from overload: {seconds} s");
    let seconds = World::new(100).recovery(0);
    assert!((600..900).contains(&seconds), "from an outage: {seconds} s");
    let quick = ThrottlePolicy::standard().window(Duration::from_secs(10));
    let seconds = World::with(&quick, 100).recovery(0);
    assert!((15..60).contains(&seconds), "from an outage, with a short window: {seconds} s");
}

#[test]
fn off_it_refuses_nothing_and_counts_nothing() {
    let throttle = Throttle::off();
    for _ in 0..1000 {
        throttle.refused(at(0));
    }
    assert_eq!(throttle.admit(at(0), 0.0), Ok(()));
    throttle.set_rules(Some(ThrottlePolicy::standard().compile().unwrap()));
    assert_eq!(throttle.probability(at(0)), 0.0);
    throttle.refused(at(0));
    assert_eq!(throttle.probability(at(0)), 0.5);
    throttle.set_rules(None);
    assert_eq!(throttle.probability(at(0)), 0.0);
}

#[test]
fn new_rules_keep_what_is_known_unless_the_window_changes() {
    let throttle = standard();
    for _ in 0..9 {
        throttle.refused(at(0));
    }
    throttle.accepted(at(0));
    let rules = |policy: ThrottlePolicy| Some(policy.compile().unwrap());
    throttle.set_rules(rules(ThrottlePolicy::standard().multiplier(4.0)));
    assert_eq!(throttle.probability(at(0)), 6.0 / 11.0);
    throttle.set_rules(rules(ThrottlePolicy::standard().window(Duration::from_secs(60))));
    assert_eq!(throttle.probability(at(0)), 0.0);
}

#[test]
fn a_bucket_too_full_to_count_keeps_its_ratio() {
    let throttle = standard();
    for _ in 0..700_000 {
        throttle.refused(at(0));
        if throttle.totals(at(0)).failures.is_multiple_of(4) {
            throttle.accepted(at(0));
        }
    }
    let probability = throttle.probability(at(0));
    // Four refused for one accepted: (5 - 2) / 5.
    assert!((probability - 0.6).abs() < 0.01, "{probability}");
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let standard = ThrottlePolicy::standard;
    for (policy, message) in [
        (standard().multiplier(0.99), "throttle.multiplier must be between 1 and 100, got 0.99"),
        (standard().multiplier(101.0), "throttle.multiplier must be between 1 and 100, got 101"),
        (standard().multiplier(f64::NAN), "throttle.multiplier must be between 1 and 100, got NaN"),
        (standard().window(Duration::ZERO), "throttle.window must be between 1s and 3600s, got 0ns"),
        (
            standard().window(Duration::from_secs(3601)),
            "throttle.window must be between 1s and 3600s, got 3601s",
        ),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
}

#[test]
fn it_takes_a_hundred_bytes_or_so() {
    assert!(size_of::<Throttle>() <= 112, "{}", size_of::<Throttle>());
}

proptest! {
    #[test]
    fn the_probability_is_the_books_formula(
        multiplier in 1.0..10.0,
        steps in prop::collection::vec((0_u64..20, 0_u8..3, 0.0..1.0), 0..300),
    ) {
        let throttle = Throttle::new(ThrottlePolicy::standard().multiplier(multiplier).compile().unwrap());
        let (mut second, mut log) = (0, Vec::new());
        for (pass, what, draw) in steps {
            second += pass;
            // A tenth of the window is 12 s, counted from the clock's base.
            let bucket = |second: u64| (START / SECOND + second) / 12;
            let seen = log.iter().filter(|(then, _)| bucket(*then) + 10 > bucket(second));
            let (requests, accepts) =
                seen.fold((0.0, 0.0), |(requests, accepts), (_, accepted)| (requests + 1.0, accepts + f64::from(u8::from(*accepted))));
            let expected = f64::max(0.0, (requests - multiplier * accepts) / (requests + 1.0));
            prop_assert_eq!(throttle.probability(at(second)), expected);
            match what {
                0 => throttle.accepted(at(second)),
                1 => throttle.refused(at(second)),
                _ => {
                    prop_assert_eq!(throttle.admit(at(second), draw).is_err(), draw < expected);
                    if draw >= expected {
                        continue;
                    }
                }
            }
            log.push((second, what == 0));
        }
    }
}

#[cfg(resilient_loom)]
mod under_loom {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_every_fate_counts() {
        loom::model(|| {
            let throttle = Arc::new(standard());
            let other = {
                let throttle = Arc::clone(&throttle);
                thread::spawn(move || throttle.accepted(at(0)))
            };
            throttle.refused(at(0));
            other.join().unwrap();
            let Totals { failures, successes, .. } = throttle.totals(at(0));
            assert_eq!((failures, successes), (1, 1));
        });
    }
}
