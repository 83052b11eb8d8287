use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Std};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::Ended::{Answered, Unanswered, Unsent};
use super::*;
use crate::policy::bulkhead::WaitOver;
use crate::policy::priority::Priority::{Critical, Normal, Sheddable};
use crate::time::Tick;

#[cfg(resilient_loom)]
mod under_loom;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const START: u64 = 3_600 * SECOND;
const TIMEOUT: u64 = 500 * MS;

fn at(nanos: u64) -> Tick {
    Tick::from_nanos(START + nanos)
}

fn took(rtt_nanos: u64) -> Sample {
    Sample { rtt_nanos, allowed_nanos: TIMEOUT }
}

/// So many attempts a second for so long, each of which took `rtt`; the time after the last.
fn feed(limit: &OverloadLimit, from: u64, seconds: u64, per_second: u64, rtt: u64) -> u64 {
    for n in 0..seconds * per_second {
        limit.record(took(rtt), at(from + n * SECOND / per_second));
    }
    from + seconds * SECOND
}

/// In force, with 200 attempts a second that take 450 of their 500 ms.
fn in_force() -> (OverloadLimit, u64) {
    let limit = OverloadLimit::new(true);
    let usual = feed(&limit, 0, 5, 300, 30 * MS);
    let now = feed(&limit, usual, 2, 200, 450 * MS);
    (limit, now)
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let standard = OverloadPolicy::standard;
    for (policy, message) in [
        (
            standard().max_waiting(1_000_001),
            "overload.max_waiting must be between 0 and 1000000, got 1000001",
        ),
        (standard().wait(Duration::ZERO), "overload.wait must be longer than zero, got 0s"),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
}

#[test]
fn the_limit_is_what_ends_within_most_of_the_time_attempts_have() {
    let (limit, _) = in_force();
    let found = limit.limit().expect("round trips are long, and unusually so");
    assert!((78..=92).contains(&found), "200 a second, half a second each, 0.85 of that: {found}");
}

#[test]
fn times_of_different_length_count_as_what_they_are() {
    let limit = OverloadLimit::new(true);
    let usual = feed(&limit, 0, 5, 300, 30 * MS);
    // Half of the attempts have 500 ms, half 1500 ms: 100 a second of each would keep 200 in
    // flight.
    for n in 0..1_000_u64 {
        let allowed_nanos = if n % 2 == 0 { TIMEOUT } else { 3 * TIMEOUT };
        limit.record(Sample { rtt_nanos: 450 * MS, allowed_nanos }, at(usual + n * 5 * MS));
    }
    let found = limit.limit().unwrap();
    assert!((156..=184).contains(&found), "{found}");
}

#[test]
fn it_comes_into_force_and_ends_within_some_slots_and_says_so() {
    let limit = OverloadLimit::new(true);
    let usual = feed(&limit, 0, 5, 300, 30 * MS);
    let mut change = None;
    let mut now = usual;
    while change.is_none() && now < usual + SECOND {
        change = limit.record(took(450 * MS), at(now));
        now += 5 * MS;
    }
    assert!(matches!(change, Some(Change { from: None, to: Some(_) })), "{change:?}");
    assert!(now - usual <= 200 * MS, "after {} ms", (now - usual) / MS);
    let begun = now;
    while limit.limit().is_some() && now < begun + SECOND {
        change = limit.record(took(30 * MS), at(now));
        now += 3 * MS;
    }
    assert!(matches!(change, Some(Change { from: Some(_), to: None })), "{change:?}");
    assert!(now - begun <= 200 * MS, "after {} ms", (now - begun) / MS);
}

#[test]
fn what_is_usual_is_no_overload_however_long_it_takes() {
    let limit = OverloadLimit::new(true);
    let now = feed(&limit, 0, 60, 50, 240 * MS);
    assert_eq!(limit.limit(), None);
    feed(&limit, now, 10, 50, 450 * MS);
    assert_eq!(limit.limit(), None, "not twice the usual");
}

#[test]
fn a_slower_upstream_that_finds_places_enough_becomes_usual_within_minutes() {
    let limit = OverloadLimit::new(true);
    let usual = feed(&limit, 0, 5, 300, 10 * MS);
    let now = feed(&limit, usual, 10, 300, 250 * MS);
    assert!(limit.limit().is_some());
    feed(&limit, now, 120, 300, 250 * MS);
    assert_eq!(limit.limit(), None);
}

#[test]
fn who_finds_no_place_keeps_it_from_becoming_usual_for_minutes_but_not_for_ever() {
    let limit = OverloadLimit::new(true);
    let mut now = feed(&limit, 0, 5, 300, 10 * MS);
    let mut ended = None;
    for second in 0..1_200 {
        now = feed(&limit, now, 1, 50, 425 * MS);
        while limit.limit().is_some() && limit.try_acquire(Normal, at(now)).is_ok() {}
        while limit.in_flight() > 0 {
            limit.release(Answered);
        }
        if limit.limit().is_none() && second > 0 {
            ended.get_or_insert(second);
        }
    }
    assert!(ended.is_some_and(|after| after > 240), "{ended:?}");
}

#[test]
fn with_few_attempts_it_knows_little_and_leaves_eight() {
    let limit = OverloadLimit::new(true);
    let usual = feed(&limit, 0, 30, 2, 30 * MS);
    feed(&limit, usual, 30, 2, 450 * MS);
    assert_eq!(limit.limit(), Some(8));
}

#[test]
fn a_small_share_of_a_crowded_upstream_may_be_less_than_eight() {
    let limit = OverloadLimit::new(true);
    let usual = feed(&limit, 0, 10, 15, 30 * MS);
    feed(&limit, usual, 10, 10, 450 * MS);
    assert!((3..=5).contains(&limit.limit().unwrap()), "{:?}", limit.limit());
}

#[test]
fn places_are_given_up_to_the_limit_and_no_further() {
    let (limit, now) = in_force();
    let now = at(now);
    let found = limit.limit().unwrap();
    let mut taken = 0;
    while limit.try_acquire(Sheddable, now).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, found - found / 4, "a quarter is left to those above");
    while limit.try_acquire(Normal, now).is_ok() {
        taken += 1;
    }
    assert_eq!((taken, limit.in_flight()), (found, found));
    assert_eq!(limit.try_acquire(Critical, now), Err(NoPlace::Full { limit: found }));
    assert!(limit.place(Normal, now).is_err());
    assert!(limit.release(Answered), "somebody may wait for it");
    assert!(limit.place(Normal, now).is_ok() && limit.place(Sheddable, now).is_err());
    limit.overrun();
    limit.overrun();
    assert_eq!(limit.in_flight(), found + 1);
}

#[test]
fn switched_off_it_lifts_the_limit_forgets_and_goes_on_counting() {
    let (limit, now) = in_force();
    limit.try_acquire(Normal, at(now)).unwrap();
    let change = limit.switch(false).unwrap();
    assert!(change.from.is_some() && change.to.is_none());
    assert_eq!((limit.limit(), limit.in_flight()), (None, 1));
    feed(&limit, now, 5, 200, 450 * MS);
    assert_eq!(limit.limit(), None, "off");
    assert_eq!(limit.switch(true), None);
    feed(&limit, now, 5, 200, 450 * MS);
    assert_eq!(limit.limit(), None, "what is seen first is usual");
    assert!(!limit.release(Answered));
    assert!(!limit.release(Answered), "one too many");
    assert_eq!(limit.in_flight(), 0);
}

/// Usual round trips of 40 ms, and so many attempts sent at once; the time of that.
fn sent(attempts: u32) -> (OverloadLimit, u64) {
    let limit = OverloadLimit::new(true);
    let now = feed(&limit, 0, 5, 300, 40 * MS);
    assert!((0..attempts).all(|_| limit.try_acquire(Normal, at(now)).is_ok()));
    (limit, now)
}

#[test]
fn who_has_answered_nothing_for_two_round_trips_is_silent_until_it_answers() {
    let (limit, now) = sent(20);
    let place = |after: u64| limit.place(Normal, at(now + after * MS));
    assert_eq!((place(79), place(81)), (Ok(()), Err(NoPlace::Silent)));
    assert_eq!(limit.try_acquire(Critical, at(now + 81 * MS)), Err(NoPlace::Silent));
    assert!(limit.release(Unanswered), "somebody may wait: but this one's time was over");
    limit.overrun();
    assert_eq!(place(90), Err(NoPlace::Silent));
    assert!(limit.release(Answered), "somebody may wait");
    assert_eq!(place(90), Ok(()));
}

#[test]
fn a_silence_is_noted_once_and_its_end_once() {
    let (limit, now) = sent(20);
    assert_eq!(limit.notes_silence(at(now + 79 * MS)), None);
    let noted = |after: u64| limit.notes_silence(at(now + after * MS));
    assert_eq!((noted(90), noted(95)), (Some(Duration::from_millis(90)), None));
    let ended = |after: u64| limit.notes_answer(at(now + after * MS));
    assert_eq!(ended(100), None);
    assert!(limit.release(Answered), "somebody may wait for word of it");
    // Others have been sent meanwhile.
    assert!((0..4).all(|_| limit.try_acquire(Normal, at(now + 104 * MS)).is_ok()));
    assert_eq!((ended(105), ended(106)), (Some(Duration::from_millis(105)), None));
    limit.release(Answered);
    assert!(!limit.release(Answered));
    // Off, it is no more, answered or not.
    let (limit, now) = sent(20);
    assert!(limit.notes_silence(at(now + 90 * MS)).is_some());
    limit.switch(false);
    assert_eq!(limit.notes_answer(at(now + 100 * MS)), Some(Duration::from_millis(100)));
    assert_eq!(limit.snapshot(at(now + 100 * MS)).silent_for, None);
}

#[test]
fn no_less_than_50_ms_are_silence_and_few_attempts_are_none() {
    let limit = OverloadLimit::new(true);
    let now = feed(&limit, 0, 5, 300, MS);
    assert!((0..3).all(|_| limit.try_acquire(Normal, at(now)).is_ok()));
    let fourth = now + SECOND;
    assert!((0..16).all(|_| limit.try_acquire(Normal, at(fourth)).is_ok()));
    assert_eq!(limit.place(Normal, at(fourth + SECOND)), Ok(()), "nineteen");
    limit.try_acquire(Normal, at(fourth)).unwrap();
    assert_eq!(limit.place(Normal, at(fourth + 49 * MS)), Ok(()));
    assert_eq!(limit.place(Normal, at(fourth + 51 * MS)), Err(NoPlace::Silent));
    (0..16).for_each(|_| _ = limit.release(Unanswered));
    assert_eq!(limit.place(Normal, at(fourth + 51 * MS)), Err(NoPlace::Silent), "four in flight");
    limit.release(Unanswered);
    assert_eq!(limit.place(Normal, at(fourth + 51 * MS)), Ok(()), "three");
}

/// It should have answered those as well, but tells that only by what it leaves from now on.
#[test]
fn what_was_in_flight_at_the_last_answer_is_unanswered_from_the_next_attempt_on() {
    let (limit, now) = sent(18);
    assert!(!limit.release(Answered));
    let (idle, place) =
        (now + 10 * SECOND, |after: u64| limit.place(Normal, at(now + 10 * SECOND + after * MS)));
    assert!((0..2).all(|_| limit.try_acquire(Normal, at(idle)).is_ok()));
    assert_eq!(place(1_000), Ok(()), "nineteen, two of them sent since");
    limit.try_acquire(Normal, at(idle + 70 * MS)).unwrap();
    assert_eq!((place(79), place(81)), (Ok(()), Err(NoPlace::Silent)), "twenty");
    assert!(limit.release(Answered));
    assert!((0..2).all(|_| limit.try_acquire(Normal, at(idle + 100 * MS)).is_ok()));
    assert_eq!(place(1_000), Ok(()), "twenty-one, two of them sent since");
}

#[test]
fn one_at_a_time_and_ever_more_rarely_goes_to_find_out_whether_it_is_silent_still() {
    let (limit, now) = sent(20);
    let scouts = |after: u64| limit.scouts(at(now + after * MS));
    assert!(!scouts(240) && scouts(241) && !scouts(242));
    assert!(!limit.is_scout_due(at(now + 964 * MS)) && limit.is_scout_due(at(now + 965 * MS)));
    assert!(scouts(970) && !scouts(3880) && scouts(3881));
    // The next silence has its own.
    limit.release(Answered);
    let later = now + 5 * SECOND;
    assert!((0..20).all(|_| limit.try_acquire(Normal, at(later)).is_ok()));
    assert!(!limit.scouts(at(later + 240 * MS)) && limit.scouts(at(later + 241 * MS)));
}

#[test]
fn what_runs_out_of_time_meanwhile_makes_it_no_less_silent() {
    let (limit, now) = sent(110);
    for n in 0..100 {
        let _ = limit.record(took(TIMEOUT), at(now + TIMEOUT + n * 3 * MS));
        limit.release(Unanswered);
        assert!(limit.is_silent(at(now + TIMEOUT + n * 3 * MS)), "{n}");
    }
}

/// As long as calls were kept back nothing was sent, so nothing ends a round trip later.
#[test]
fn for_one_timeout_after_a_silence_that_kept_calls_back_throughput_is_no_measure() {
    let (limit, now) = sent(30);
    assert_eq!(limit.try_acquire(Normal, at(now + 81 * MS)), Err(NoPlace::Silent));
    let ends = now + 400 * MS;
    for n in 0..20 {
        let _ = limit.record(took(400 * MS), at(ends + n * 50 * MS));
        limit.release(Answered);
        assert_eq!(limit.limit().is_some(), n >= 10, "400 of 500 ms: {n}");
    }
}

proptest! {
    /// Against a count that is obviously right.
    #[test]
    fn counts_like_the_model(steps in proptest::collection::vec((0..12_u32, 0..60_u32), 0..300)) {
        let (limit, mut now) = (OverloadLimit::new(true), 0);
        // Which makes two round trips of 30 ms its patience.
        feed(&limit, 0, 5, 300, 30 * MS);
        let (mut in_flight, mut most) = (0_u32, None::<u32>);
        let (mut unanswered, mut sent, mut since, mut noted) = (0_u32, 0_u32, 0, None::<u64>);
        for (step, number) in steps {
            let is_quiet = unanswered >= 20 && sent >= 3;
            let silent = is_quiet && in_flight >= 4 && now - since > 60 * MS;
            match step {
                0..=4 => {
                    let class = [Sheddable, Normal, Critical][number as usize % 3];
                    let share = most.map(|most| if class == Sheddable { most - most / 4 } else { most });
                    let expected = match share {
                        Some(limit) if in_flight >= limit => Err(NoPlace::Full { limit }),
                        _ if silent => Err(NoPlace::Silent),
                        _ => Ok(()),
                    };
                    prop_assert_eq!(limit.place(class, at(6 * SECOND + now)), expected);
                    prop_assert_eq!(limit.try_acquire(class, at(6 * SECOND + now)), expected);
                    if expected.is_ok() {
                        in_flight += 1;
                        if unanswered == 3 || (unanswered > 3 && sent == 0) {
                            since = now;
                        }
                        (unanswered, sent) = ((unanswered + 1).min(20), (sent + 1).min(3));
                    }
                }
                5 => {
                    limit.overrun();
                    in_flight += 1;
                }
                6 | 7 => {
                    let ended = match number % 10 {
                        0 => Answered,
                        1 => Unsent,
                        _ => Unanswered,
                    };
                    prop_assert_eq!(limit.release(ended), most.is_some() || is_quiet || noted.is_some());
                    if in_flight > 0 {
                        in_flight -= 1;
                        (unanswered, sent) = match ended {
                            Answered => (in_flight.min(20), 0),
                            Unsent => (unanswered.saturating_sub(1), sent.saturating_sub(1)),
                            Unanswered => (unanswered, sent),
                        };
                    }
                }
                8 => now += u64::from(number) * MS,
                10 => {
                    let news = (silent && noted.is_none()).then(|| Duration::from_nanos(now - since));
                    prop_assert_eq!(limit.notes_silence(at(6 * SECOND + now)), news);
                    noted = noted.or(news.map(|_| since));
                    let silent_for = silent.then(|| Duration::from_nanos(now - since));
                    prop_assert_eq!(limit.snapshot(at(6 * SECOND + now)).silent_for, silent_for);
                }
                11 => {
                    let over = noted.filter(|_| !silent);
                    let news = over.map(|began| Duration::from_nanos(now - began));
                    prop_assert_eq!(limit.notes_answer(at(6 * SECOND + now)), news);
                    noted = noted.filter(|_| over.is_none());
                }
                _ => {
                    let new = (number > 0).then_some(number);
                    let expected = (most != new).then_some(Change { from: most, to: new });
                    prop_assert_eq!(limit.publish(new), expected);
                    most = new;
                }
            }
            prop_assert_eq!((limit.in_flight(), limit.limit()), (in_flight, most));
        }
    }

    /// Nothing that is answered within a third of its time is ever held back, whatever came before
    /// and at whatever rate.
    #[test]
    fn short_round_trips_bring_no_limit(
        pauses in proptest::collection::vec((1..2_000_u64, 0..166_u64), 1..400),
    ) {
        let limit = OverloadLimit::new(true);
        let mut now = 0;
        for (pause, rtt) in pauses {
            now += pause * MS;
            limit.record(took(rtt * MS), at(now));
            prop_assert_eq!(limit.limit(), None);
        }
    }

    /// In force it lies between the floor and what is asked for, and no number it knows is absurd.
    #[test]
    fn any_samples_leave_a_limit_that_can_work(
        samples in proptest::collection::vec((0..u64::MAX / 2, any::<u64>(), any::<u64>()), 1..200),
    ) {
        let limit = OverloadLimit::new(true);
        for (now, rtt_nanos, allowed_nanos) in samples {
            limit.record(Sample { rtt_nanos, allowed_nanos }, Tick::from_nanos(now));
            prop_assert!(limit.limit().is_none_or(|limit| limit >= 2));
        }
    }
}

// ---- The line ----

fn line(max_waiting: u32) -> Line {
    let policy = OverloadPolicy::standard().max_waiting(max_waiting).wait(Duration::from_secs(1));
    Line::new(Some(policy.compile().unwrap()))
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Std::SeqCst);
    }
}

fn poll(
    line: &Line,
    waiter: &crate::policy::bulkhead::Waiter,
    bell: &Arc<Bell>,
    now: Tick,
) -> Poll<Result<(), WaitOver>> {
    line.poll(waiter, &Context::from_waker(&Waker::from(Arc::clone(bell))), now)
}

#[test]
fn the_first_may_try_and_each_place_wakes_one_in_order() {
    let line = line(9);
    let bells = [(); 3].map(|()| Arc::<Bell>::default());
    let waiters = [Normal, Normal, Critical].map(|class| line.join(class, at(0), Tick::NEVER).unwrap());
    for class in [Sheddable, Normal, Critical] {
        assert!(line.is_before(class), "nobody overtakes");
    }
    assert!(poll(&line, &waiters[0], &bells[0], at(0)).is_pending(), "a critical one came and is first");
    assert!(poll(&line, &waiters[1], &bells[1], at(0)).is_pending());
    assert_eq!(poll(&line, &waiters[2], &bells[2], at(0)), Poll::Ready(Ok(())));
    let rings = || [0, 1, 2].map(|n: usize| bells[n].0.load(Std::SeqCst));
    line.wake();
    assert_eq!(rings(), [0, 0, 1]);
    line.wake();
    assert_eq!(rings(), [1, 0, 1], "the first has been woken already, and may be slow to come");
    assert_eq!(poll(&line, &waiters[0], &bells[0], at(0)), Poll::Ready(Ok(())), "it was woken");
    line.leave(&waiters[2], true);
    assert_eq!(rings(), [2, 0, 1]);
    assert!(!line.is_before(Critical) && line.is_before(Normal));
    line.leave(&waiters[0], false);
    line.leave(&waiters[1], false);
    assert!(line.is_empty() && !line.is_before(Sheddable));
    line.wake();
    assert_eq!(rings(), [2, 0, 1]);
}

#[test]
fn a_wait_ends_and_the_next_is_woken() {
    let line = line(9);
    let bells = [(); 2].map(|()| Arc::<Bell>::default());
    let first = line.join(Normal, at(0), at(300 * MS)).unwrap();
    let second = line.join(Normal, at(0), Tick::NEVER).unwrap();
    assert_eq!((first.until(), second.until()), (at(300 * MS), at(SECOND)));
    assert_eq!(poll(&line, &first, &bells[0], at(0)), Poll::Ready(Ok(())));
    assert!(poll(&line, &second, &bells[1], at(0)).is_pending());
    assert_eq!(poll(&line, &first, &bells[0], at(300 * MS)), Poll::Ready(Err(WaitOver::Expired)));
    assert_eq!(bells[1].0.load(Std::SeqCst), 1);
    assert_eq!(poll(&line, &second, &bells[1], at(300 * MS)), Poll::Ready(Ok(())));
    assert_eq!(line.len(), 1);
}

#[test]
fn a_full_line_takes_nobody_but_in_place_of_a_lower_class_or_of_who_has_waited_enough() {
    let line = line(2);
    let low = line.join(Sheddable, at(0), Tick::NEVER).unwrap();
    let _normal = line.join(Normal, at(0), Tick::NEVER).unwrap();
    assert!(line.join(Sheddable, at(0), Tick::NEVER).is_none());
    assert!(line.join(Normal, at(0), Tick::NEVER).is_some());
    let bell = Arc::default();
    assert_eq!(poll(&line, &low, &bell, at(0)), Poll::Ready(Err(WaitOver::Displaced)));
    assert!(line.join(Normal, at(0), Tick::NEVER).is_none());
    assert!(line.join(Normal, at(SECOND), Tick::NEVER).is_some(), "both are over");
    assert_eq!(line.len(), 1);
    line.set_rules(None);
    assert!(line.join(Critical, at(0), Tick::NEVER).is_none(), "off");
    assert!(Line::default().join(Critical, at(0), Tick::NEVER).is_none());
}
