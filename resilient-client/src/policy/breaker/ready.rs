//! Calls that would rather wait for an open breaker than fail: in which order, how many, and for
//! how long.
//!
//! (Wait for ready is gRPC's name for it.) Whoever is first in line looks at the breaker, when it
//! has been woken because something has changed and when the breaker should let a probe through;
//! the others are asleep. Who goes wakes the next, so that a breaker that closes lets them all go
//! one after the other, and one that lets a probe through lets one go.
//!
//! Who waits for the last probes only didn't ask to. They stand apart, so that they keep nobody
//! from a place who did, and all of them look when something has changed: they go, or are refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::compiled::Rules;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// How much of a recovery an attempt waits for, rather than fail at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForReady {
    /// Nothing.
    Never,
    /// The last probes, once one has succeeded.
    LastProbes,
    /// All of it.
    Always,
}

/// Who waits, for each upstream.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    max_waiting: AtomicU32,
    longest_nanos: AtomicU64,
    /// How many wait, so that whoever has news needn't take the lock when nobody does. Changes
    /// under the lock only.
    waiting: AtomicU32,
    /// A lock, because a line is several words. No waker is called under it.
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// By number, the first being the next to go.
    waiters: BTreeMap<u64, Arc<ReadyWaiter>>,
    /// Those that wait for the last probes only.
    unasked: BTreeMap<u64, Arc<ReadyWaiter>>,
    next: u64,
}

/// A place in line. It must be seen to its end with [`ReadyQueue::leave`].
#[derive(Debug)]
pub(crate) struct ReadyWaiter {
    place: Place,
    wants: ForReady,
    /// When to look at the breaker again, as a `Tick`.
    look_at: AtomicU64,
    /// A lock, because a waker is two words. Taken inside the line's when both are.
    waker: Mutex<Option<Waker>>,
}

/// Where somebody stood in line, for when it has to stand there again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    number: u64,
    until: Tick,
}

/// There is no place in line, or no time to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoPlace;

impl ReadyWaiter {
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// How much of the recovery it waits for.
    pub(crate) fn wants(&self) -> ForReady {
        self.wants
    }

    /// When the wait is over.
    pub(crate) fn ends(&self) -> Tick {
        self.place.until
    }

    /// When to poll at the latest.
    pub(crate) fn until(&self) -> Tick {
        self.place.until.min(Tick::from_nanos(self.look_at.load(Ordering::Relaxed)))
    }

    /// There is no use in looking at the breaker before this.
    pub(crate) fn look_at(&self, tick: Tick) {
        self.look_at.store(tick.as_nanos(), Ordering::Relaxed);
    }

    /// Is to be woken when it becomes the first in line, and when there is news then.
    pub(crate) fn note(&self, cx: &Context<'_>) {
        // Cloned before the lock and dropped after it: a waker's code is somebody else's.
        let mut waker = Some(cx.waker().clone());
        std::mem::swap(&mut *self.waker.lock(), &mut waker);
        drop(waker);
    }
}

impl ReadyQueue {
    pub(crate) fn new(rules: Option<&Rules>) -> Self {
        let queue = Self {
            max_waiting: AtomicU32::new(0),
            longest_nanos: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            line: Mutex::new(Line::default()),
        };
        queue.set_rules(rules);
        queue
    }

    /// Changes how many may wait, and how long. Who waits stays.
    pub(crate) fn set_rules(&self, rules: Option<&Rules>) {
        self.max_waiting.store(rules.map_or(0, |rules| rules.max_waiting), Ordering::Relaxed);
        self.longest_nanos.store(rules.map_or(0, |rules| rules.ready_wait_nanos), Ordering::Relaxed);
    }

    /// Gets in line: at the end of it, or where it stood `before`.
    pub(crate) fn enqueue(
        &self,
        wants: ForReady,
        before: Option<Place>,
        now: Tick,
        deadline: Tick,
    ) -> Result<Arc<ReadyWaiter>, NoPlace> {
        let mut line = self.line.lock();
        let place = match before {
            Some(place) => place,
            None if line.of(wants).len() >= self.max_waiting.load(Ordering::Relaxed) as usize => {
                return Err(NoPlace);
            }
            None => {
                let number = line.next;
                line.next += 1;
                let longest = self.longest_nanos.load(Ordering::Relaxed);
                Place { number, until: deadline.min(now.after_nanos(longest)) }
            }
        };
        if place.until <= now {
            return Err(NoPlace);
        }
        let look_at = AtomicU64::new(Tick::NEVER.as_nanos());
        let waiter = Arc::new(ReadyWaiter { place, wants, look_at, waker: Mutex::new(None) });
        line.of(wants).insert(place.number, Arc::clone(&waiter));
        self.count(&line);
        Ok(waiter)
    }

    /// Whether it is the one to look at the breaker, among those that want all of a recovery.
    pub(crate) fn is_first(&self, waiter: &ReadyWaiter) -> bool {
        self.line.lock().waiters.first_key_value().is_some_and(|(number, _)| *number == waiter.place.number)
    }

    /// It waits no more: whoever is first now is to look at the breaker. Does nothing the second
    /// time.
    pub(crate) fn leave(&self, waiter: &ReadyWaiter) {
        let waker = {
            let mut line = self.line.lock();
            let was_first =
                line.waiters.first_key_value().is_some_and(|(first, _)| *first == waiter.place.number);
            line.of(waiter.wants).remove(&waiter.place.number);
            self.count(&line);
            if was_first { line.wakes_first() } else { None }
        };
        // After the lock: a waker's code is somebody else's.
        waker.into_iter().for_each(Waker::wake);
    }

    /// The breaker may let somebody in. After that has happened.
    pub(crate) fn rouse(&self) {
        // A read-modify-write, where a load could miss somebody: of this step and that of getting
        // in line the later sees what came before the other, so either we find the waiter or the
        // waiter finds the breaker's new state.
        if self.waiting.fetch_add(0, Ordering::AcqRel) != 0 {
            let wakers: Vec<Waker> = {
                let line = self.line.lock();
                let unasked = line.unasked.values().filter_map(|waiter| waiter.waker.lock().take());
                line.wakes_first().into_iter().chain(unasked).collect()
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed) as usize
    }

    fn count(&self, line: &Line) {
        let waiting = line.waiters.len() + line.unasked.len();
        self.waiting.swap(u32::try_from(waiting).unwrap_or(u32::MAX), Ordering::AcqRel);
    }
}

impl Line {
    fn of(&mut self, wants: ForReady) -> &mut BTreeMap<u64, Arc<ReadyWaiter>> {
        if wants == ForReady::Always { &mut self.waiters } else { &mut self.unasked }
    }

    /// Whom to wake, for the first to look at the breaker.
    fn wakes_first(&self) -> Option<Waker> {
        self.waiters.first_key_value().and_then(|(_, waiter)| waiter.waker.lock().take())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;
    use crate::policy::breaker::BreakerPolicy;

    const NOW: Tick = Tick::from_nanos(1_000_000_000_000);

    fn queue(max_waiting: u32) -> ReadyQueue {
        let policy = BreakerPolicy::standard().max_waiting(max_waiting).ready_wait(Duration::from_secs(2));
        ReadyQueue::new(Some(&policy.compile().unwrap()))
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn noted(waiter: &ReadyWaiter) -> Arc<Woken> {
        let woken = Arc::new(Woken::default());
        waiter.note(&Context::from_waker(&Waker::from(Arc::clone(&woken))));
        woken
    }

    fn times(woken: &Woken) -> usize {
        woken.0.load(SeqCst)
    }

    #[cfg(not(resilient_loom))]
    #[test]
    fn as_many_wait_as_may_and_none_without_time() {
        let queue = queue(2);
        let held = [(); 2].map(|()| queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).unwrap());
        assert!(queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).is_err());
        assert_eq!((queue.len(), held[0].ends()), (2, NOW.after(Duration::from_secs(2))));
        queue.leave(&held[0]);
        queue.leave(&held[0]);
        assert_eq!(queue.len(), 1);
        let hurried =
            queue.enqueue(ForReady::Always, None, NOW, NOW.after(Duration::from_millis(5))).unwrap();
        assert_eq!(hurried.until(), NOW.after(Duration::from_millis(5)));
        queue.leave(&hurried);
        assert!(queue.enqueue(ForReady::Always, None, NOW, NOW).is_err());
        queue.set_rules(None);
        assert!(
            queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).is_err(),
            "there is no breaker to wait for"
        );
    }

    #[cfg(not(resilient_loom))]
    #[test]
    fn news_wake_the_first_and_who_goes_wakes_the_next() {
        let queue = queue(10);
        let waiters = [(); 3].map(|()| queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).unwrap());
        let woken = waiters.each_ref().map(|waiter| noted(waiter));
        queue.rouse();
        assert_eq!(woken.each_ref().map(|woken| times(woken)), [1, 0, 0]);
        assert!(queue.is_first(&waiters[0]) && !queue.is_first(&waiters[1]));
        queue.leave(&waiters[1]);
        assert_eq!(times(&woken[2]), 0, "it isn't the first");
        queue.leave(&waiters[0]);
        assert_eq!(woken.each_ref().map(|woken| times(woken)), [1, 0, 1]);
    }

    #[cfg(not(resilient_loom))]
    #[test]
    fn who_has_to_wait_again_stands_where_it_stood_and_for_no_longer() {
        let queue = queue(2);
        let [first, second] =
            [(); 2].map(|()| queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).unwrap());
        queue.leave(&first);
        let newcomer = queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).unwrap();
        let later = NOW.after(Duration::from_secs(1));
        let again = queue.enqueue(ForReady::Always, Some(first.place()), later, Tick::NEVER).unwrap();
        assert_eq!((queue.len(), again.ends()), (3, first.ends()));
        assert!(queue.is_first(&again) && !queue.is_first(&second) && !queue.is_first(&newcomer));
        assert!(
            queue
                .enqueue(
                    ForReady::Always,
                    Some(second.place()),
                    NOW.after(Duration::from_secs(2)),
                    Tick::NEVER
                )
                .is_err()
        );
    }

    /// Somebody gets in line and looks, while the breaker closes and tells.
    #[cfg(resilient_loom)]
    #[test]
    fn loom_who_gets_in_line_sees_the_breaker_close_or_is_woken() {
        loom::model(|| {
            let queue = loom::sync::Arc::new(queue(2));
            let closed = loom::sync::Arc::new(AtomicU32::new(0));
            let teller = {
                let (queue, closed) = (queue.clone(), closed.clone());
                loom::thread::spawn(move || {
                    closed.store(1, Ordering::Release);
                    queue.rouse();
                })
            };
            let waiter =
                queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).unwrap_or_else(|_| unreachable!());
            let woken = noted(&waiter);
            let seen = queue.is_first(&waiter) && closed.load(Ordering::Acquire) == 1;
            teller.join().unwrap();
            assert!(seen || times(&woken) == 1);
        });
    }

    /// The second of two looks whether it is first, while the first leaves.
    #[cfg(resilient_loom)]
    #[test]
    fn loom_the_next_finds_itself_first_or_is_woken() {
        loom::model(|| {
            let queue = loom::sync::Arc::new(queue(2));
            let first =
                queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).unwrap_or_else(|_| unreachable!());
            let second =
                queue.enqueue(ForReady::Always, None, NOW, Tick::NEVER).unwrap_or_else(|_| unreachable!());
            let leaver = {
                let queue = queue.clone();
                loom::thread::spawn(move || queue.leave(&first))
            };
            let woken = noted(&second);
            let is_first = queue.is_first(&second);
            leaver.join().unwrap();
            assert!(is_first || times(&woken) == 1);
            assert_eq!(queue.len(), 1);
        });
    }
}
