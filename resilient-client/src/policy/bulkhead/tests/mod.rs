use std::sync::atomic::{AtomicUsize, Ordering as Std};
use std::task::{Wake, Waker};
use std::time::Duration;

use Priority::{Critical, Normal, Sheddable};

use super::*;

mod model;
#[cfg(resilient_loom)]
mod under_loom;

const START: Tick = Tick::from_nanos(1_000_000_000);

fn at(ms: u64) -> Tick {
    START.after(Duration::from_millis(ms))
}

fn start() -> Tick {
    START
}

/// For steps that must not look at a clock.
fn nobody_waits() -> Tick {
    panic!("asked for the time although nobody waits")
}

fn rules(max_in_flight: u32) -> Rules {
    BulkheadPolicy::standard().max_in_flight(max_in_flight).compile().unwrap()
}

fn queued(max_in_flight: u32, max_queued: u32) -> Rules {
    BulkheadPolicy::standard().max_in_flight(max_in_flight).max_queued(max_queued).compile().unwrap()
}

/// With every slot taken.
fn filled(rules: Rules) -> Bulkhead {
    let bulkhead = Bulkhead::new(rules);
    while bulkhead.try_acquire(Normal).is_ok() {}
    bulkhead
}

fn wait(bulkhead: &Bulkhead, priority: Priority, until: Tick) -> Arc<Waiter> {
    bulkhead.enqueue(priority, START, until).unwrap()
}

fn poll(bulkhead: &Bulkhead, waiter: &Waiter, now: Tick) -> Poll<Result<(), WaitOver>> {
    bulkhead.poll_wait(waiter, &mut Context::from_waker(Waker::noop()), now)
}

/// Counts how often it was called, and takes the bulkhead's lock each time: a waker called under it
/// would hang.
struct Bell {
    bulkhead: Arc<Bulkhead>,
    rings: AtomicUsize,
}

impl Bell {
    fn of(bulkhead: &Arc<Bulkhead>) -> Arc<Self> {
        Arc::new(Self { bulkhead: Arc::clone(bulkhead), rings: AtomicUsize::new(0) })
    }

    fn poll(self: &Arc<Self>, waiter: &Waiter, now: Tick) -> Poll<Result<(), WaitOver>> {
        let waker = Waker::from(Arc::clone(self));
        self.bulkhead.poll_wait(waiter, &mut Context::from_waker(&waker), now)
    }

    fn rings(&self) -> usize {
        self.rings.load(Std::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        drop(self.bulkhead.queue.lock());
        self.rings.fetch_add(1, Std::SeqCst);
    }
}

#[test]
fn the_standard_bulkhead_refuses_the_257th_and_queues_nobody() {
    let bulkhead = Bulkhead::new(BulkheadPolicy::standard().compile().unwrap());
    assert!((0..256).all(|_| bulkhead.try_acquire(Normal).is_ok()));
    assert_eq!(bulkhead.try_acquire(Normal), Err(Full { limit: 256 }));
    assert_eq!(bulkhead.enqueue(Critical, START, Tick::NEVER).unwrap_err(), Full { limit: 256 });
    bulkhead.release(nobody_waits);
    assert_eq!(bulkhead.in_use(), 255);
    assert_eq!(bulkhead.try_acquire(Normal), Ok(()));
}

#[test]
fn without_a_limit_it_counts_and_never_refuses() {
    let bulkhead = Bulkhead::unlimited();
    for class in [Sheddable, Normal, Critical] {
        assert!((0..10_000).all(|_| bulkhead.try_acquire(class).is_ok()));
    }
    assert_eq!((bulkhead.in_use(), bulkhead.limit()), (30_000, None));
}

#[test]
fn a_lowered_limit_refuses_until_enough_came_back() {
    let bulkhead = filled(rules(5));
    bulkhead.set_rules(Some(rules(2)), nobody_waits);
    for in_use in [4, 3, 2] {
        assert_eq!(bulkhead.try_acquire(Normal), Err(Full { limit: 2 }));
        bulkhead.release(nobody_waits);
        assert_eq!(bulkhead.in_use(), in_use);
    }
    assert!(bulkhead.try_acquire(Normal).is_err());
    bulkhead.release(nobody_waits);
    assert!(bulkhead.try_acquire(Normal).is_ok());
    bulkhead.set_rules(None, nobody_waits);
    assert_eq!((bulkhead.in_use(), bulkhead.limit()), (2, None));
}

#[test]
fn one_release_too_many_adds_no_slot_and_wedges_nothing() {
    let bulkhead = Bulkhead::new(rules(1));
    bulkhead.release(nobody_waits);
    assert_eq!(bulkhead.in_use(), 0);
    assert!(bulkhead.try_acquire(Normal).is_ok());
    assert!(bulkhead.try_acquire(Normal).is_err());
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let standard = BulkheadPolicy::standard;
    for (policy, message) in [
        (standard().max_in_flight(0), "bulkhead.max_in_flight must be between 1 and 1000000, got 0"),
        (
            standard().max_in_flight(1_000_001),
            "bulkhead.max_in_flight must be between 1 and 1000000, got 1000001",
        ),
        (standard().max_queued(1_000_001), "bulkhead.max_queued must be between 0 and 1000000, got 1000001"),
        (standard().queue_wait(Duration::ZERO), "bulkhead.queue_wait must be longer than zero, got 0s"),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
}

#[test]
fn sheddable_calls_leave_a_quarter_to_the_others() {
    for (limit, share) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (256, 192)] {
        let bulkhead = Bulkhead::new(rules(limit));
        while bulkhead.try_acquire(Sheddable).is_ok() {}
        assert_eq!(bulkhead.in_use(), share);
        assert_eq!(bulkhead.try_acquire(Sheddable), Err(Full { limit: share }));
        assert_eq!(
            (share..limit).filter(|_| bulkhead.try_acquire(Normal).is_ok()).count() as u32,
            limit - share
        );
        assert_eq!(bulkhead.try_acquire(Critical), Err(Full { limit }));
    }
}

#[test]
fn a_slot_given_back_goes_to_who_waits_longest_and_the_count_stands_still() {
    let bulkhead = Arc::new(filled(queued(2, 2)));
    let [first, second] = [(); 2].map(|()| (wait(&bulkhead, Normal, Tick::NEVER), Bell::of(&bulkhead)));
    for (waiter, bell) in [&first, &second] {
        assert_eq!(bell.poll(waiter, START), Poll::Pending);
    }
    bulkhead.release(start);
    assert_eq!((first.1.rings(), second.1.rings()), (1, 0));
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (2, 1));
    assert_eq!(first.1.poll(&first.0, START), Poll::Ready(Ok(())));
    assert_eq!(second.1.poll(&second.0, START), Poll::Pending);
    bulkhead.release(start);
    assert_eq!(second.1.poll(&second.0, START), Poll::Ready(Ok(())));
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (2, 0));
    bulkhead.release(nobody_waits);
    bulkhead.release(nobody_waits);
    assert_eq!(bulkhead.in_use(), 0);
}

#[test]
fn higher_classes_are_served_first() {
    let bulkhead = filled(queued(1, 5));
    let [sheddable, normal, critical, later] =
        [Sheddable, Normal, Critical, Critical].map(|class| wait(&bulkhead, class, Tick::NEVER));
    for next in [critical, later, normal, sheddable] {
        assert_eq!(poll(&bulkhead, &next, START), Poll::Pending);
        bulkhead.release(start);
        assert_eq!(poll(&bulkhead, &next, START), Poll::Ready(Ok(())));
    }
}

#[test]
fn nobody_overtakes_who_waits_in_their_class_or_above() {
    let bulkhead = filled(queued(8, 4));
    let waiting = wait(&bulkhead, Sheddable, Tick::NEVER);
    // Down to 6 of 8: sheddable calls may fill 6, so the one that waits goes on waiting.
    bulkhead.release(start);
    bulkhead.release(start);
    assert_eq!((poll(&bulkhead, &waiting, START), bulkhead.in_use()), (Poll::Pending, 6));
    assert_eq!(bulkhead.try_acquire(Normal), Ok(()), "the rest isn't for sheddable calls");
    bulkhead.release(start);
    bulkhead.release(start);
    assert_eq!(poll(&bulkhead, &waiting, START), Poll::Ready(Ok(())));
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (6, 0));

    let bulkhead = filled(queued(1, 4));
    let waiting = wait(&bulkhead, Normal, Tick::NEVER);
    // A slot is free and the waiter not yet served, as between a raised limit and the lock.
    bulkhead.limit.store(2, Ordering::Relaxed);
    assert_eq!(bulkhead.try_acquire(Normal), Err(Full { limit: 2 }));
    assert_eq!(bulkhead.try_acquire(Sheddable), Err(Full { limit: 2 }));
    assert_eq!(bulkhead.try_acquire(Critical), Ok(()));
    assert_eq!(poll(&bulkhead, &waiting, START), Poll::Pending);
}

#[test]
fn a_raised_limit_admits_waiters_at_once() {
    let bulkhead = Arc::new(filled(queued(1, 3)));
    let bell = Bell::of(&bulkhead);
    let waiting = [(); 3].map(|()| wait(&bulkhead, Normal, Tick::NEVER));
    assert!(waiting.iter().all(|waiter| bell.poll(waiter, START).is_pending()));
    bulkhead.set_limit(3, start);
    assert_eq!((bell.rings(), bulkhead.in_use(), bulkhead.queued()), (2, 3, 1));
    bulkhead.set_rules(None, start);
    assert_eq!((bell.rings(), bulkhead.in_use(), bulkhead.queued()), (3, 4, 0));
}

#[test]
fn a_limit_that_was_found_stays_within_what_a_policy_may_say() {
    let bulkhead = Bulkhead::new(rules(1));
    bulkhead.set_limit(0, nobody_waits);
    assert_eq!(bulkhead.limit(), Some(1));
    bulkhead.set_limit(u32::MAX, nobody_waits);
    assert_eq!(bulkhead.limit(), Some(1_000_000));
}

#[test]
fn a_wait_ends_with_the_deadline_or_the_longest_wait_whichever_is_sooner() {
    let bulkhead = filled(queued(1, 2));
    let soon = wait(&bulkhead, Normal, at(10));
    let late = wait(&bulkhead, Normal, Tick::NEVER);
    assert_eq!((soon.until(), late.until()), (at(10), at(1000)));
    assert_eq!(poll(&bulkhead, &soon, at(9)), Poll::Pending);
    assert_eq!(poll(&bulkhead, &soon, at(10)), Poll::Ready(Err(WaitOver::Expired)));
    assert_eq!((poll(&bulkhead, &late, at(999)), bulkhead.queued()), (Poll::Pending, 1));
    assert_eq!(poll(&bulkhead, &late, at(1000)), Poll::Ready(Err(WaitOver::Expired)));
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 0));
    assert_eq!(bulkhead.enqueue(Normal, START, START).unwrap_err(), Full { limit: 1 }, "no time to wait");
}

#[test]
fn a_slot_passes_over_who_waited_too_long_and_tells_them() {
    let bulkhead = Arc::new(filled(queued(1, 2)));
    let (expired, bell) = (wait(&bulkhead, Critical, at(10)), Bell::of(&bulkhead));
    assert_eq!(bell.poll(&expired, START), Poll::Pending);
    let live = wait(&bulkhead, Normal, at(20));
    bulkhead.release(|| at(10));
    assert_eq!(bell.rings(), 1);
    assert_eq!(poll(&bulkhead, &expired, at(10)), Poll::Ready(Err(WaitOver::Expired)));
    assert_eq!(poll(&bulkhead, &live, at(10)), Poll::Ready(Ok(())));
}

#[test]
fn a_slot_handed_over_in_time_is_good_however_late_it_is_noticed() {
    let bulkhead = filled(queued(1, 1));
    let waiter = wait(&bulkhead, Normal, at(10));
    bulkhead.release(|| at(9));
    assert_eq!(poll(&bulkhead, &waiter, at(5000)), Poll::Ready(Ok(())));
    assert_eq!(poll(&bulkhead, &waiter, at(5001)), Poll::Ready(Ok(())), "asked again, it is the same slot");
    bulkhead.leave(&waiter, nobody_waits);
    assert_eq!(bulkhead.in_use(), 1, "and no longer the queue's to give back");
}

#[test]
fn a_full_queue_sheds_the_expired_before_anybody_else() {
    let bulkhead = filled(queued(1, 2));
    let expired = wait(&bulkhead, Critical, at(10));
    let live = wait(&bulkhead, Sheddable, at(500));
    let newcomer = bulkhead.enqueue(Normal, at(10), Tick::NEVER).unwrap();
    assert_eq!(poll(&bulkhead, &expired, at(10)), Poll::Ready(Err(WaitOver::Expired)));
    assert_eq!(poll(&bulkhead, &live, at(10)), Poll::Pending);
    assert_eq!(poll(&bulkhead, &newcomer, at(10)), Poll::Pending);
}

#[test]
fn a_full_queue_gives_the_place_of_the_youngest_of_the_lowest_class_below() {
    let bulkhead = Arc::new(filled(queued(1, 4)));
    let bell = Bell::of(&bulkhead);
    let [old, young, normal, younger] =
        [Sheddable, Sheddable, Normal, Normal].map(|class| wait(&bulkhead, class, Tick::NEVER));
    assert_eq!(bell.poll(&young, START), Poll::Pending);
    for displaced in [young, old, younger, normal] {
        let _ = wait(&bulkhead, Critical, Tick::NEVER);
        assert_eq!(poll(&bulkhead, &displaced, START), Poll::Ready(Err(WaitOver::Displaced)));
        assert_eq!(bulkhead.queued(), 4);
    }
    assert!(bulkhead.enqueue(Critical, START, Tick::NEVER).is_err(), "all are critical now");
    assert_eq!(bell.rings(), 1);
}

#[test]
fn a_full_queue_refuses_who_stands_above_nobody() {
    let bulkhead = filled(queued(1, 1));
    let waiter = wait(&bulkhead, Normal, Tick::NEVER);
    assert_eq!(bulkhead.enqueue(Normal, START, Tick::NEVER).unwrap_err(), Full { limit: 1 });
    assert_eq!(bulkhead.enqueue(Sheddable, START, Tick::NEVER).unwrap_err(), Full { limit: 1 });
    assert_eq!(poll(&bulkhead, &waiter, START), Poll::Pending);
}

#[test]
fn who_leaves_gives_up_the_place_or_the_slot_not_yet_noticed() {
    let bulkhead = filled(queued(1, 3));
    let [first, second, third] = [(); 3].map(|()| wait(&bulkhead, Normal, Tick::NEVER));
    bulkhead.leave(&second, start);
    assert_eq!(bulkhead.queued(), 2);
    bulkhead.release(start);
    // The slot is the first's, who never learns of it.
    bulkhead.leave(&first, start);
    assert_eq!(poll(&bulkhead, &third, START), Poll::Ready(Ok(())));
    for left in [first, second, third] {
        bulkhead.leave(&left, nobody_waits);
    }
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (1, 0));
    bulkhead.release(nobody_waits);
    assert_eq!(bulkhead.in_use(), 0);
}

#[test]
fn a_slot_that_came_back_before_the_place_was_asked_for_is_had_at_once() {
    let bulkhead = filled(queued(1, 1));
    bulkhead.release(nobody_waits);
    let waiter = wait(&bulkhead, Normal, Tick::NEVER);
    assert_eq!(bulkhead.queued(), 0);
    assert_eq!(poll(&bulkhead, &waiter, START), Poll::Ready(Ok(())));
}

#[test]
fn a_shortened_queue_evicts_no_one() {
    let bulkhead = filled(queued(1, 3));
    let waiting = [(); 3].map(|()| wait(&bulkhead, Normal, Tick::NEVER));
    bulkhead.set_rules(Some(queued(1, 1)), start);
    assert!(bulkhead.enqueue(Normal, START, Tick::NEVER).is_err());
    for waiter in waiting {
        bulkhead.release(start);
        assert_eq!(poll(&bulkhead, &waiter, START), Poll::Ready(Ok(())));
    }
}

#[test]
fn the_last_waker_is_the_one_called() {
    let bulkhead = Arc::new(filled(queued(1, 1)));
    let (waiter, former, latter) =
        (wait(&bulkhead, Normal, Tick::NEVER), Bell::of(&bulkhead), Bell::of(&bulkhead));
    assert!(former.poll(&waiter, START).is_pending() && latter.poll(&waiter, START).is_pending());
    bulkhead.release(start);
    assert_eq!((former.rings(), latter.rings()), (0, 1));
}

#[test]
fn threads_never_hold_more_than_the_limit_together() {
    let (bulkhead, held, most) = (Bulkhead::new(rules(3)), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    if bulkhead.try_acquire(Normal).is_ok() {
                        most.fetch_max(held.fetch_add(1, Std::SeqCst) + 1, Std::SeqCst);
                        held.fetch_sub(1, Std::SeqCst);
                        bulkhead.release(nobody_waits);
                    }
                }
            });
        }
    });
    assert!(most.into_inner() <= 3);
    assert_eq!(bulkhead.in_use(), 0);
}

/// Every thread waits, is served, leaves or gives up, all at once and for many turns. A lost slot
/// or a lost wake-up would hang it, a slot given twice would show in `most`.
#[test]
fn threads_that_queue_lose_no_slot_and_no_wake_up() {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let bulkhead = Bulkhead::new(queued(2, 5));
    let (held, most, served) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let use_slot = || {
        most.fetch_max(held.fetch_add(1, Std::SeqCst) + 1, Std::SeqCst);
        std::thread::yield_now();
        held.fetch_sub(1, Std::SeqCst);
        served.fetch_add(1, Std::SeqCst);
        bulkhead.release(start);
    };
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let use_slot = &use_slot;
            let bulkhead = &bulkhead;
            scope.spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                let cx = &mut Context::from_waker(&waker);
                for turn in 0..2_000 {
                    let class = [Sheddable, Normal, Critical][(thread + turn) % 3];
                    if bulkhead.try_acquire(class).is_ok() {
                        use_slot();
                        continue;
                    }
                    let Ok(waiter) = bulkhead.enqueue(class, START, Tick::NEVER) else { continue };
                    if turn % 7 == 0 {
                        bulkhead.leave(&waiter, start);
                        continue;
                    }
                    loop {
                        match bulkhead.poll_wait(&waiter, cx, START) {
                            Poll::Pending => std::thread::park(),
                            Poll::Ready(Ok(())) => break use_slot(),
                            Poll::Ready(Err(over)) => break assert_eq!(over, WaitOver::Displaced),
                        }
                    }
                }
            });
        }
    });
    assert!(most.into_inner() <= 2);
    assert!(served.into_inner() > 2_000);
    assert_eq!((bulkhead.in_use(), bulkhead.queued()), (0, 0));
    assert_eq!(bulkhead.word.load(Ordering::Relaxed), 0, "no mark is left behind");
}
