use proptest::prelude::*;

use super::*;
use crate::invalid::LONGEST;

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

fn cx() -> Context<'static> {
    Context::from_waker(std::task::Waker::noop())
}

fn go(limit: &RateLimit, turn: &Turn, now: Tick) -> Option<Tick> {
    match limit.poll_turn(turn, &mut cx(), now) {
        Poll::Ready(place) => Some(place.at()),
        Poll::Pending => None,
    }
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
fn who_waits_stands_in_line_as_far_as_the_wait_allows() {
    let limit = ten_a_second(2);
    assert_eq!(burst_left(&limit, at(0)), 2);
    let wait = nanos(ms(250));
    let line: Vec<_> = (0..2).map(|_| limit.enqueue(at(0), wait).unwrap()).collect();
    assert_eq!(limit.enqueue(at(0), wait).unwrap_err(), Limited { retry_after: ms(300) });
    assert_eq!(limit.try_acquire(at(0)), Err(Limited { retry_after: ms(300) }));
    let third = limit.enqueue(at(50), wait).unwrap();
    assert_eq!(go(&limit, &third, at(150)), None, "the second is before it");
    assert_eq!((go(&limit, &line[0], at(150)), go(&limit, &line[1], at(150))), (Some(at(100)), None));
    assert_eq!(limit.waiting(), 2);
    assert_eq!(limit.try_acquire(at(200)), Err(Limited { retry_after: ms(200) }), "no newcomer overtakes");
    // Who hears of its turn late hasn't lost it, and nor have those behind.
    assert_eq!(go(&limit, &third, at(900)), Some(at(300)));
    assert_eq!(go(&limit, &line[1], at(900)), Some(at(200)));
    assert_eq!((limit.waiting(), go(&limit, &third, at(901))), (0, None));
}

#[test]
fn who_leaves_the_line_moves_those_behind_up() {
    let limit = ten_a_second(1);
    assert_eq!(limit.try_acquire(at(0)), Ok(()));
    let line: Vec<_> = (0..5).map(|_| limit.enqueue(at(0), u64::MAX).unwrap()).collect();
    for index in [0, 2, 3] {
        limit.leave(&line[index], || at(50));
    }
    assert_eq!(go(&limit, &line[1], at(50)), None);
    assert_eq!(line[1].until(), at(100));
    assert_eq!(
        (go(&limit, &line[1], at(100)), go(&limit, &line[4], at(200))),
        (Some(at(100)), Some(at(200)))
    );
    assert_eq!(limit.try_acquire(at(300)), Ok(()));
}

#[test]
fn who_leaves_after_its_turn_gives_it_to_the_next() {
    let limit = ten_a_second(1);
    assert_eq!(limit.try_acquire(at(0)), Ok(()));
    let [first, second] = [(); 2].map(|()| limit.enqueue(at(0), u64::MAX).unwrap());
    // Polling the second lets the first go, who doesn't hear of it any more.
    assert_eq!(go(&limit, &second, at(110)), None);
    limit.leave(&first, || at(110));
    assert_eq!(go(&limit, &second, at(110)), Some(at(100)));
}

#[test]
fn the_newest_place_given_back_is_had_again() {
    let limit = ten_a_second(4);
    let places = [(); 4].map(|()| limit.take(at(0)).unwrap());
    for place in places.into_iter().rev() {
        assert!(limit.give_back(place, || at(0)));
    }
    assert_eq!(burst_left(&limit, at(0)), 4, "as if nobody had asked");
}

/// It would send two at the same time.
#[test]
fn an_older_place_given_back_stays_spent() {
    let limit = ten_a_second(1);
    let older = limit.take(at(0)).unwrap();
    let _newer = limit.take(at(100)).unwrap();
    assert!(!limit.give_back(older, || at(100)));
    assert_eq!(limit.try_acquire(at(100)), Err(Limited { retry_after: ms(100) }));
}

#[test]
fn a_place_given_back_wakes_who_waits_for_it() {
    let limit = ten_a_second(1);
    let place = limit.take(at(0)).unwrap();
    let turn = limit.enqueue(at(0), u64::MAX).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    assert!(limit.poll_turn(&turn, &mut Context::from_waker(&waker), at(0)).is_pending());
    assert!(limit.give_back(place, || at(10)));
    assert!(woken.take());
    assert_eq!(go(&limit, &turn, at(10)), Some(at(0)));
}

#[test]
fn a_reload_lets_who_waits_go_at_the_new_rate() {
    let limit = RateLimit::new(rules(1, SECOND, 1));
    assert_eq!(limit.try_acquire(at(0)), Ok(()));
    let [first, second, third] = [(); 3].map(|()| limit.enqueue(at(0), u64::MAX).unwrap());
    limit.set_rules(Some(rules(10, SECOND, 1)), at(0));
    assert_eq!(go(&limit, &first, at(100)), Some(at(100)));
    limit.set_rules(None, at(100));
    assert_eq!((go(&limit, &second, at(100)), go(&limit, &third, at(100))), (Some(at(100)), Some(at(100))));
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
    let place = limit.take(at(0)).unwrap();
    assert!(limit.is_unlimited() && !limit.give_back(place, || at(0)));
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
    let place = limit.take(at(0)).unwrap();
    limit.set_rules(Some(rules(20, SECOND, 1)), at(0));
    assert!(!limit.give_back(place, || at(0)));
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
            new(1, Duration::from_secs(3600)).burst(100_000),
            "rate_limit.burst of 100000 calls every 3600s would take more than ten years to save up",
        ),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
    assert!(
        !new(1, SECOND).compile().unwrap().waits() && new(1, SECOND).wait(true).compile().unwrap().waits()
    );
}

/// A bucket of whole nanoseconds that fills with time, and a line before it; each call takes an
/// interval of them.
#[derive(Clone, Debug)]
struct Bucket {
    level: i128,
    last: u64,
    interval: i128,
    capacity: i128,
    /// Who waits, and since when.
    line: Vec<(usize, u64)>,
}

impl Bucket {
    fn fill(&mut self, now: u64) {
        self.level = self.capacity.min(self.level + i128::from(now - self.last));
        self.last = now;
    }

    /// How long until somebody behind `ahead` others might go.
    fn wait(&self, now: u64, ahead: usize) -> u64 {
        let mut then = self.clone();
        then.fill(now);
        (then.interval * (ahead as i128 + 1) - then.level).max(0) as u64
    }

    fn take(&mut self, now: u64) -> Result<(), u64> {
        match self.wait(now, self.line.len()) {
            0 if self.line.is_empty() => {
                self.fill(now);
                self.level -= self.interval;
                Ok(())
            }
            wait => Err(wait.max(1)),
        }
    }

    /// Who goes until `now`, and when.
    fn let_go(&mut self, now: u64) -> Vec<(usize, u64)> {
        let mut gone = Vec::new();
        while let Some((who, since)) = self.line.first().copied() {
            let at = (self.last + (self.interval - self.level).max(0) as u64).max(since);
            if at > now {
                break;
            }
            self.fill(at);
            self.level -= self.interval;
            gone.push((who, at));
            self.line.remove(0);
        }
        gone
    }
}

/// Whether a waker was called since it was last asked.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, std::sync::atomic::Ordering::SeqCst)
    }
}

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

proptest! {
    /// Whoever waits is polled when its time says so or its waker was called, and at no other time:
    /// nobody is forgotten.
    #[test]
    fn does_as_a_bucket_of_tokens_with_a_line_before_it_would(
        calls in 1_u32..20,
        per in 20_000_u64..1_000_000,
        burst in 1_u32..10,
        steps in prop::collection::vec(
            (0_u64..100_000, prop_oneof![Just(0), 0_u64..500_000], 0_u8..6, any::<prop::sample::Index>()),
            0..200,
        ),
    ) {
        let rules = rules(calls, Duration::from_nanos(per), burst);
        let (interval, limit) = (rules.interval_nanos, RateLimit::new(rules));
        let capacity = i128::from(interval) * i128::from(burst);
        let interval = i128::from(interval);
        let mut bucket = Bucket { level: capacity, last: 0, interval, capacity, line: Vec::new() };
        let (mut now, mut turns, mut times) = (START, std::collections::BTreeMap::new(), Vec::new());
        for (who, (pass, longest_wait, what, which)) in steps.into_iter().enumerate() {
            now += pass;
            let mut expected = bucket.let_go(now);
            let tick = Tick::from_nanos(now);
            let mut gone = Vec::new();
            // As often as somebody is woken by another's turn.
            loop {
                let due = |(_, (turn, woken)): &(&usize, &(Arc<Turn>, Arc<Woken>))| woken.take() || turn.until() <= tick;
                let Some((who, (turn, woken))) = turns.iter().find(due) else { break };
                let waker = Arc::clone(woken).into();
                if let Poll::Ready(place) = limit.poll_turn(turn, &mut Context::from_waker(&waker), tick) {
                    gone.push((*who, place.at().as_nanos()));
                    let who = *who;
                    turns.remove(&who);
                }
            }
            gone.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&gone, &expected);
            times.extend(gone.iter().map(|(_, at)| *at));
            match what {
                0 if !turns.is_empty() => {
                    let who = *which.get(&turns.keys().copied().collect::<Vec<_>>());
                    let (turn, _) = turns.remove(&who).unwrap();
                    limit.leave(&turn, || tick);
                    bucket.line.retain(|(waiting, _)| *waiting != who);
                }
                1 | 2 => match limit.take(tick) {
                    Ok(place) if what == 1 => prop_assert!(limit.give_back(place, || tick)),
                    Ok(_) => {
                        prop_assert_eq!(bucket.take(now), Ok(()));
                        times.push(now);
                    }
                    Err(Limited { retry_after }) => {
                        prop_assert_eq!(bucket.take(now), Err(nanos(retry_after)));
                    }
                },
                _ => match limit.enqueue(tick, longest_wait) {
                    Ok(turn) => {
                        prop_assert!(bucket.wait(now, bucket.line.len()) <= longest_wait);
                        bucket.line.push((who, now));
                        let woken = Arc::new(Woken::default());
                        woken.0.store(true, std::sync::atomic::Ordering::SeqCst);
                        turns.insert(who, (turn, woken));
                    }
                    Err(Limited { retry_after }) => {
                        prop_assert_eq!(bucket.wait(now, bucket.line.len()).max(1), nanos(retry_after));
                    }
                },
            }
            prop_assert_eq!(limit.waiting() as usize, turns.len());
        }
        prop_assert_eq!(most_over_promise(times, u64::from(burst), interval as u64), None);
    }

    /// Clocks that jump about, and cancellations anywhere.
    #[test]
    fn no_stretch_of_time_holds_more_than_promised(
        burst in 1_u32..6,
        steps in prop::collection::vec((0_u64..3_000, 0_u64..2_000, any::<prop::sample::Index>(), 0_u8..4), 0..120),
    ) {
        let limit = ten_a_second(burst);
        let (mut line, mut gone) = (Vec::<Arc<Turn>>::new(), Vec::new());
        for (ms, wait, which, what) in steps {
            match what {
                0 if !gone.is_empty() => {
                    limit.give_back(gone.swap_remove(which.index(gone.len())), || at(ms));
                }
                1 if !line.is_empty() => limit.leave(&line.swap_remove(which.index(line.len())), || at(ms)),
                2 => gone.extend(limit.take(at(ms))),
                _ => line.extend(limit.enqueue(at(ms), wait * 1_000_000)),
            }
            line.retain(|turn| match limit.poll_turn(turn, &mut cx(), at(ms)) {
                Poll::Ready(place) => {
                    gone.push(place);
                    false
                }
                Poll::Pending => true,
            });
        }
        let times = gone.iter().map(|place| place.at().as_nanos()).collect();
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
                    let place = if thread % 3 == 0 {
                        limit.take(now).ok()
                    } else {
                        limit.enqueue(now, (thread % 3) * 20_000).ok().and_then(|waits| {
                            let until = Tick::from_nanos(clock.load(Ordering::Relaxed));
                            match limit.poll_turn(&waits, &mut cx(), until) {
                                Poll::Ready(place) => Some(place),
                                Poll::Pending => {
                                    limit.leave(&waits, || until);
                                    None
                                }
                            }
                        })
                    };
                    let Some(place) = place else { continue };
                    if turn % 5 == 0 {
                        // Whether or not it can be had again.
                        limit.give_back(place, || now);
                    } else {
                        mine.push(place.at().as_nanos());
                    }
                }
                times.lock().unwrap().extend(mine);
            });
        }
    });
    assert_eq!(limit.waiting(), 0);
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
            let others = [(); 2].map(|()| beside(&limit, |limit| limit.try_acquire(at(0)).is_ok()));
            let mut let_go = usize::from(limit.try_acquire(at(0)).is_ok());
            let_go += others.map(|other| usize::from(other.join().unwrap())).into_iter().sum::<usize>();
            assert_eq!(let_go, 1);
        });
    }

    #[test]
    fn loom_a_place_given_back_is_never_had_twice() {
        loom::model(|| {
            let limit = Arc::new(ten_a_second(1));
            let place = limit.take(at(0)).unwrap();
            let other = beside(&limit, |limit| limit.try_acquire(at(0)).is_ok());
            let returned = limit.give_back(place, || at(0));
            let ours = limit.try_acquire(at(0)).is_ok();
            assert_eq!(usize::from(ours) + usize::from(other.join().unwrap()), usize::from(returned));
        });
    }

    #[test]
    fn loom_who_waits_hears_of_a_place_given_back_or_finds_it() {
        loom::model(|| {
            let limit = Arc::new(ten_a_second(1));
            let place = limit.take(at(0)).unwrap();
            let other = beside(&limit, |limit| {
                let turn = limit.enqueue(at(0), u64::MAX).unwrap();
                let woken = std::sync::Arc::new(Woken::default());
                let waker = std::sync::Arc::clone(&woken).into();
                let polled = limit.poll_turn(&turn, &mut Context::from_waker(&waker), at(0)).is_ready();
                (turn, woken, polled)
            });
            assert!(limit.give_back(place, || at(0)));
            let (turn, woken, polled) = other.join().unwrap();
            assert!(polled || woken.take());
            assert!(polled || limit.poll_turn(&turn, &mut cx(), at(0)).is_ready());
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
