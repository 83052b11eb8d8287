use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const START: u64 = 1_000_000_000;

fn rules(calls: u32, per: Duration, burst: u32) -> Rules {
    RateLimitPolicy::new(calls, per).burst(burst).compile().unwrap()
}

/// One call every 100 ms.
fn ten_a_second(burst: u32) -> RateLimit {
    RateLimit::new(rules(10, SECOND, burst))
}

fn at(ms: u64) -> Tick {
    Tick::from_nanos(START + ms * 1_000_000)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn burst_left(limit: &RateLimit, now: Tick) -> usize {
    std::iter::repeat_with(|| limit.try_acquire(now)).take_while(Result::is_ok).count()
}

/// The promise: no stretch of time holds more than the burst and one call for each interval in it.
fn most_over_promise(mut times: Vec<u64>, burst: u64, interval: u64) -> Option<(u64, u64)> {
    times.sort_unstable();
    for (n, from) in times.iter().enumerate() {
        for (let_go, to) in (1..).zip(&times[n..]) {
            if let_go > burst + (to - from) / interval {
                return Some((*from, *to));
            }
        }
    }
    None
}

#[test]
fn a_burst_may_be_the_whole_count_and_then_the_rate_is_kept() {
    let limit = RateLimit::new(RateLimitPolicy::new(10, SECOND).compile().unwrap());
    assert_eq!(burst_left(&limit, at(0)), 10);
    assert_eq!(limit.try_acquire(at(0)), Err(Limited { retry_after: ms(100) }));
    assert_eq!(limit.try_acquire(at(99)), Err(Limited { retry_after: ms(1) }));
    assert_eq!(limit.try_acquire(at(100)), Ok(()));
    assert_eq!(limit.try_acquire(at(100)), Err(Limited { retry_after: ms(100) }));
    assert_eq!(burst_left(&limit, at(60_000)), 10, "saved up again, and no more than that");
}

#[test]
fn a_burst_of_one_spaces_calls_evenly() {
    let limit = ten_a_second(1);
    let let_go: Vec<u64> = (0..1000).filter(|ms| limit.try_acquire(at(*ms)).is_ok()).collect();
    assert_eq!(let_go, (0..10).map(|n| n * 100).collect::<Vec<_>>());
}

#[test]
fn reservations_line_up_as_far_as_the_wait_allows() {
    let limit = ten_a_second(2);
    let wait = nanos(ms(250));
    let line: Vec<_> = (0..4).map(|_| limit.reserve(at(0), wait).unwrap().go_at()).collect();
    assert_eq!(line, [at(0), at(0), at(100), at(200)]);
    assert_eq!(limit.reserve(at(0), wait), Err(Limited { retry_after: ms(300) }));
    assert_eq!(limit.reserve(at(50), wait).unwrap().go_at(), at(300));
}

#[test]
fn the_newest_place_given_back_is_had_again() {
    let limit = ten_a_second(1);
    let places = [(); 4].map(|()| limit.reserve(at(0), u64::MAX).unwrap());
    assert_eq!(places[3].go_at(), at(300));
    for place in places.into_iter().rev() {
        assert!(limit.give_back(place));
    }
    assert_eq!(limit.try_acquire(at(0)), Ok(()), "as if nobody had asked");
}

/// Moving the end of the line up for it would send two at 200 ms.
#[test]
fn an_older_place_given_back_stays_spent() {
    let limit = ten_a_second(1);
    let [_now, cancelled, _kept] = [(); 3].map(|()| limit.reserve(at(0), u64::MAX).unwrap());
    assert!(!limit.give_back(cancelled));
    assert_eq!(limit.reserve(at(0), u64::MAX).unwrap().go_at(), at(300));
}

#[test]
fn a_refusal_costs_nothing() {
    let limit = ten_a_second(1);
    assert_eq!(limit.try_acquire(at(0)), Ok(()));
    for _ in 0..1000 {
        assert_eq!(limit.try_acquire(at(50)), Err(Limited { retry_after: ms(50) }));
    }
    assert_eq!(limit.try_acquire(at(100)), Ok(()));
}

#[test]
fn a_clock_reading_that_comes_late_lets_nothing_extra_go() {
    let limit = ten_a_second(1);
    assert_eq!(limit.try_acquire(at(100)), Ok(()));
    assert_eq!(limit.try_acquire(at(20)), Err(Limited { retry_after: ms(180) }));
}

#[test]
fn without_a_limit_everything_goes() {
    let limit = RateLimit::unlimited();
    assert!((0..10_000).all(|_| limit.try_acquire(at(0)).is_ok()));
    let place = limit.reserve(at(0), 0).unwrap();
    assert!(limit.is_unlimited() && !limit.give_back(place));
}

#[test]
fn new_rules_keep_what_is_owed_in_calls() {
    let limit = RateLimit::new(rules(1, ms(1000), 100));
    assert_eq!(burst_left(&limit, at(0)), 100);
    assert_eq!(limit.try_acquire(at(0)), Err(Limited { retry_after: ms(1000) }));
    // A hundred calls are owed: a hundred seconds of the old rate, one of the new.
    limit.set_rules(Some(rules(100, ms(1000), 100)), at(0));
    assert_eq!(limit.try_acquire(at(0)), Err(Limited { retry_after: ms(10) }));
    assert_eq!(burst_left(&limit, at(500)), 50);
    limit.set_rules(Some(rules(100, ms(1000), 200)), at(500));
    assert_eq!(burst_left(&limit, at(500)), 100, "the same rate, a larger burst");
    limit.set_rules(Some(rules(100, ms(1000), 1)), at(500));
    assert_eq!(limit.try_acquire(at(500)), Err(Limited { retry_after: ms(2000) }));
    limit.set_rules(None, at(500));
    assert!((0..1000).all(|_| limit.try_acquire(at(500)).is_ok()));
    limit.set_rules(Some(rules(100, ms(1000), 7)), at(500));
    assert_eq!(burst_left(&limit, at(500)), 7);
}

#[test]
fn a_place_from_before_a_reload_is_not_given_back_after_it() {
    let limit = ten_a_second(1);
    let place = limit.reserve(at(0), 0).unwrap();
    limit.set_rules(Some(rules(20, SECOND, 1)), at(0));
    assert!(!limit.give_back(place));
}

#[test]
fn rounding_never_lets_a_call_go() {
    // A third of a second is not a whole number of nanoseconds.
    let limit = RateLimit::new(rules(3, SECOND, 1));
    assert_eq!(limit.try_acquire(Tick::from_nanos(START)), Ok(()));
    assert!(limit.try_acquire(Tick::from_nanos(START + 333_333_333)).is_err());
    assert!(limit.try_acquire(Tick::from_nanos(START + 333_333_334)).is_ok());
}

#[test]
fn the_largest_numbers_neither_overflow_nor_let_go() {
    let limit = RateLimit::new(rules(1, LONGEST, 1));
    let never = Tick::from_nanos(u64::MAX - 1);
    assert_eq!(limit.try_acquire(never), Ok(()));
    assert!(limit.try_acquire(Tick::ZERO).is_err());
    assert!(RateLimitPolicy::new(7, LONGEST).compile().is_ok());
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let new = RateLimitPolicy::new;
    for (policy, message) in [
        (new(0, SECOND), "rate_limit.count must be between 1 and 1000000, got 0"),
        (new(1_000_001, SECOND), "rate_limit.count must be between 1 and 1000000, got 1000001"),
        (new(1, Duration::ZERO), "rate_limit.per must be longer than zero, got 0s"),
        (
            new(1, Duration::MAX),
            "rate_limit.per must be at most ten years (315360000s), got 18446744073709551615.999999999s",
        ),
        (
            new(1000, Duration::from_micros(999)),
            "rate_limit.per must leave at least 1us to each of 1000 calls, got 999µs",
        ),
        (new(1, SECOND).burst(0), "rate_limit.burst must be between 1 and 1000000, got 0"),
        (
            new(1, Duration::from_hours(1)).burst(100_000),
            "rate_limit.burst of 100000 calls every 3600s would take more than ten years to save up",
        ),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
    assert!(
        !new(1, SECOND).compile().unwrap().waits() && new(1, SECOND).wait(true).compile().unwrap().waits()
    );
}

/// A bucket of whole nanoseconds that fills with time; each call takes an interval of them, on credit if it may wait.
#[derive(Clone, Debug)]
struct Bucket {
    level: i128,
    last: u64,
    interval: i128,
    capacity: i128,
}

impl Bucket {
    fn reserve(&mut self, now: u64, longest_wait: u64) -> Result<u64, u64> {
        self.level = self.capacity.min(self.level + i128::from(now - self.last));
        self.last = now;
        let wait = (self.interval - self.level).max(0) as u64;
        if wait > longest_wait {
            return Err(wait);
        }
        self.level -= self.interval;
        Ok(now + wait)
    }
}

proptest! {
    #[test]
    fn does_as_a_bucket_of_tokens_would(
        calls in 1_u32..20,
        per in 20_000_u64..1_000_000,
        burst in 1_u32..10,
        steps in prop::collection::vec((0_u64..100_000, prop_oneof![Just(0), 0_u64..500_000], 0_u8..4), 0..200),
    ) {
        let rules = rules(calls, Duration::from_nanos(per), burst);
        let (interval, limit) = (rules.interval_nanos, RateLimit::new(rules));
        let capacity = i128::from(interval) * i128::from(burst);
        let mut bucket = Bucket { level: capacity, last: 0, interval: i128::from(interval), capacity };
        let (mut now, mut line) = (START, Vec::new());
        for (pass, longest_wait, cancel) in steps {
            now += pass;
            if cancel == 0 && let Some((place, before)) = line.pop() {
                prop_assert!(limit.give_back(place));
                bucket = before;
            }
            let before = bucket.clone();
            match limit.reserve(Tick::from_nanos(now), longest_wait) {
                Ok(place) => {
                    prop_assert_eq!(bucket.reserve(now, longest_wait), Ok(place.go_at().as_nanos()));
                    line.push((place, before));
                }
                Err(Limited { retry_after }) => {
                    prop_assert_eq!(bucket.reserve(now, longest_wait), Err(nanos(retry_after)));
                }
            }
        }
    }

    /// Clocks that jump about, waits and cancellations anywhere in the line.
    #[test]
    fn no_stretch_of_time_holds_more_than_promised(
        burst in 1_u32..6,
        steps in prop::collection::vec((0_u64..3_000, 0_u64..2_000, any::<prop::sample::Index>(), 0_u8..3), 0..120),
    ) {
        let limit = ten_a_second(burst);
        let mut line = Vec::new();
        for (ms, wait, which, cancel) in steps {
            line.extend(limit.reserve(at(ms), wait * 1_000_000));
            if cancel == 0 && !line.is_empty() {
                limit.give_back(line.swap_remove(which.index(line.len())));
            }
        }
        let times = line.iter().map(|place| place.go_at().as_nanos()).collect();
        prop_assert_eq!(most_over_promise(times, u64::from(burst), 100_000_000), None);
    }
}

#[test]
fn threads_together_keep_the_promise_and_use_the_rate() {
    use std::sync::atomic::{AtomicU64, Ordering};

    const TURNS: u64 = 100_000;
    let (limit, clock) = (RateLimit::new(rules(1000, Duration::from_millis(10), 5)), AtomicU64::new(START));
    let times = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (limit, clock, times) = (&limit, &clock, &times);
            scope.spawn(move || {
                let mut mine = Vec::new();
                for turn in 0..TURNS {
                    let now = Tick::from_nanos(clock.fetch_add(20, Ordering::Relaxed));
                    let Ok(place) = limit.reserve(now, (thread % 3) * 20_000) else { continue };
                    if turn % 5 == 0 {
                        // Whether or not it can be had again.
                        limit.give_back(place);
                    } else {
                        mine.push(place.go_at().as_nanos());
                    }
                }
                times.lock().unwrap().extend(mine);
            });
        }
    });
    let times = times.into_inner().unwrap();
    let span = 8 * TURNS * 20;
    assert!(times.len() as u64 > span / 10_000 / 2, "{} in {span} ns", times.len());
    assert_eq!(most_over_promise(times, 5, 10_000), None);
}

#[cfg(resilient_loom)]
mod under_loom {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn beside<T: 'static>(
        limit: &Arc<RateLimit>,
        act: impl FnOnce(&RateLimit) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let limit = Arc::clone(limit);
        thread::spawn(move || act(&limit))
    }

    #[test]
    fn loom_one_call_goes_at_a_time() {
        loom::model(|| {
            let limit = Arc::new(ten_a_second(1));
            let other = beside(&limit, |limit| limit.reserve(at(0), u64::MAX).unwrap().go_at());
            let third = beside(&limit, |limit| limit.try_acquire(at(0)).is_ok());
            let ours = limit.reserve(at(0), u64::MAX).unwrap().go_at();
            let theirs = other.join().unwrap();
            let mut times = vec![ours, theirs];
            times.extend(third.join().unwrap().then(|| at(0)));
            times.sort_unstable();
            assert_eq!(times, [at(0), at(100), at(200)][..times.len()]);
        });
    }

    #[test]
    fn loom_a_place_given_back_is_never_had_twice() {
        loom::model(|| {
            let limit = Arc::new(ten_a_second(1));
            let place = limit.reserve(at(0), 0).unwrap();
            let other = beside(&limit, |limit| limit.reserve(at(0), u64::MAX).unwrap().go_at());
            let returned = limit.give_back(place);
            let ours = limit.reserve(at(0), u64::MAX).unwrap().go_at();
            let mut times = [ours, other.join().unwrap()];
            times.sort_unstable();
            let expected = if returned { [at(0), at(100)] } else { [at(100), at(200)] };
            assert_eq!(times, expected);
        });
    }

    #[test]
    fn loom_a_reload_forgets_no_call_it_overlaps() {
        loom::model(|| {
            let limit = Arc::new(ten_a_second(2));
            let other = beside(&limit, |limit| limit.try_acquire(at(0)).is_ok());
            limit.set_rules(Some(rules(20, SECOND, 2)), at(0));
            assert!(other.join().unwrap());
            // None when the call counted itself by the old rules in the new ones' time.
            assert!(burst_left(&limit, at(0)) <= 1);
        });
    }
}
