use loom::sync::Arc;
use loom::thread;

use super::*;

fn beside<T: 'static>(
    bulkhead: &Arc<Bulkhead>,
    act: impl FnOnce(&Bulkhead) -> T + 'static,
) -> thread::JoinHandle<T> {
    let bulkhead = Arc::clone(bulkhead);
    thread::spawn(move || act(&bulkhead))
}

#[test]
fn loom_one_slot_is_given_once() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(rules(1)));
        let others = [(); 2].map(|()| beside(&bulkhead, |bulkhead| bulkhead.try_acquire(Normal).is_ok()));
        let mut taken = u32::from(bulkhead.try_acquire(Normal).is_ok());
        taken += others.map(|other| u32::from(other.join().unwrap())).into_iter().sum::<u32>();
        assert_eq!((taken, bulkhead.in_use()), (1, 1));
    });
}

#[test]
fn loom_slots_come_back_while_the_limit_falls() {
    loom::model(|| {
        let bulkhead = Arc::new(Bulkhead::new(rules(2)));
        let held = bulkhead.try_acquire(Normal).is_ok();
        let other = beside(&bulkhead, |bulkhead| {
            if bulkhead.try_acquire(Normal).is_ok() {
                bulkhead.release(start);
            }
        });
        bulkhead.set_rules(Some(rules(1)), start);
        other.join().unwrap();
        assert_eq!(bulkhead.in_use(), u32::from(held));
        assert!(bulkhead.try_acquire(Normal).is_err());
    });
}

#[test]
fn loom_a_slot_granted_to_who_is_leaving_is_not_lost() {
    loom::model(|| {
        let bulkhead = Arc::new(filled(queued(1, 1)));
        let waiter = wait(&bulkhead, Normal, Tick::NEVER);
        let releasing = beside(&bulkhead, |bulkhead| bulkhead.release(start));
        bulkhead.leave(&waiter, start);
        releasing.join().unwrap();
        assert_eq!(bulkhead.word.load(Ordering::Relaxed), 0, "neither slot nor mark is left");
        assert!(bulkhead.try_acquire(Normal).is_ok());
    });
}

#[test]
fn loom_a_slot_declined_goes_to_the_next() {
    loom::model(|| {
        let bulkhead = Arc::new(filled(queued(1, 2)));
        let leaver = wait(&bulkhead, Normal, Tick::NEVER);
        let next = wait(&bulkhead, Normal, Tick::NEVER);
        let releasing = beside(&bulkhead, |bulkhead| bulkhead.release(start));
        bulkhead.leave(&leaver, start);
        releasing.join().unwrap();
        assert_eq!(poll(&bulkhead, &next, START), Poll::Ready(Ok(())));
        assert_eq!(bulkhead.word.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn loom_no_slot_is_missed_by_who_comes_to_wait_for_it() {
    loom::model(|| {
        let bulkhead = Arc::new(filled(queued(1, 1)));
        let releasing = beside(&bulkhead, |bulkhead| bulkhead.release(start));
        let waiter = bulkhead.enqueue(Normal, START, Tick::NEVER).unwrap();
        let seen = poll(&bulkhead, &waiter, START);
        releasing.join().unwrap();
        assert_eq!(poll(&bulkhead, &waiter, START), Poll::Ready(Ok(())), "first {seen:?}");
        assert_eq!(bulkhead.word.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn loom_who_went_to_sleep_is_woken() {
    struct Flag(AtomicUsize);
    impl Wake for Flag {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Std::SeqCst);
        }
    }
    loom::model(|| {
        let bulkhead = Arc::new(filled(queued(1, 1)));
        let releasing = beside(&bulkhead, |bulkhead| bulkhead.release(start));
        let waiter = bulkhead.enqueue(Normal, START, Tick::NEVER).unwrap();
        let flag = std::sync::Arc::new(Flag(AtomicUsize::new(0)));
        let waker = Waker::from(std::sync::Arc::clone(&flag));
        let slept = bulkhead.poll_wait(&waiter, &mut Context::from_waker(&waker), START).is_pending();
        releasing.join().unwrap();
        assert_eq!(flag.0.load(Std::SeqCst), usize::from(slept));
    });
}

#[test]
fn loom_a_raised_limit_is_not_missed_by_who_comes_to_wait() {
    loom::model(|| {
        let bulkhead = Arc::new(filled(queued(1, 1)));
        let raising = beside(&bulkhead, |bulkhead| bulkhead.set_limit(2, start));
        let waiter = bulkhead.enqueue(Normal, START, Tick::NEVER).unwrap();
        raising.join().unwrap();
        assert_eq!(poll(&bulkhead, &waiter, START), Poll::Ready(Ok(())));
        assert_eq!(bulkhead.word.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn loom_a_newcomer_and_a_waiter_never_share_a_slot() {
    loom::model(|| {
        let bulkhead = Arc::new(filled(queued(1, 1)));
        let waiter = wait(&bulkhead, Normal, Tick::NEVER);
        let taking = beside(&bulkhead, |bulkhead| bulkhead.try_acquire(Critical).is_ok());
        bulkhead.release(start);
        let taken = taking.join().unwrap();
        let waited = poll(&bulkhead, &waiter, START).is_ready();
        assert_eq!((usize::from(taken) + usize::from(waited), bulkhead.in_use()), (1, 1));
    });
}
