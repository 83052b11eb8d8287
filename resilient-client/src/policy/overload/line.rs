//! Who waits for a place.
//!
//! A place given back isn't handed to anybody: it wakes the first who hasn't been woken yet, and
//! that one tries all of the way in anew. So one line serves the places of several endpoints, and
//! of the bulkhead before them. No newcomer overtakes who waits in its own class or a higher one.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::policy::Rules;
use crate::policy::bulkhead::queue::{Queue, State, Wakers};
use crate::policy::bulkhead::{WaitOver, Waiter};
use crate::policy::priority::Priority;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, fence};
use crate::time::Tick;

impl Default for Line {
    /// One in which nobody may wait.
    fn default() -> Self {
        Self::new(None)
    }
}

/// A line of attempts for whatever place comes free.
#[derive(Debug)]
pub(crate) struct Line {
    /// A bit for each class somebody waits in. Changed under the lock.
    marks: AtomicU32,
    max_waiting: AtomicU32,
    wait_nanos: AtomicU64,
    /// A lock, because a place in line is several words. Taken only while somebody waits, and no
    /// waker is called under it.
    queue: Mutex<Queue>,
}

impl Line {
    pub(crate) fn new(rules: Option<Rules>) -> Self {
        let line = Self {
            marks: AtomicU32::new(0),
            max_waiting: AtomicU32::new(0),
            wait_nanos: AtomicU64::new(0),
            queue: Mutex::new(Queue::new()),
        };
        line.set_rules(rules);
        line
    }

    /// Changes the rules for whoever comes from now on.
    pub(crate) fn set_rules(&self, rules: Option<Rules>) {
        self.max_waiting.store(rules.map_or(0, |rules| rules.max_waiting), Ordering::Relaxed);
        self.wait_nanos.store(rules.map_or(0, |rules| rules.wait_nanos), Ordering::Relaxed);
    }

    /// Whether somebody waits whom a newcomer of this class must not overtake.
    pub(crate) fn is_before(&self, priority: Priority) -> bool {
        self.marks.load(Ordering::Relaxed) >> priority as u32 != 0
    }

    /// A place at the end of its class, until `until` or the longest wait. `None` when there is no
    /// line, no time to wait, or nobody in a full line whose place may be taken. Who got one must
    /// be polled at once, and then until ready, or [leave](Self::leave).
    pub(crate) fn join(&self, priority: Priority, now: Tick, until: Tick) -> Option<Arc<Waiter>> {
        let max_waiting = self.max_waiting.load(Ordering::Relaxed) as usize;
        let until = until.min(now.after_nanos(self.wait_nanos.load(Ordering::Relaxed)));
        if max_waiting == 0 || until <= now {
            return None;
        }
        let mut wakers = Wakers::new();
        let waiter = {
            let mut queue = self.queue.lock();
            while let Some(expired) = queue.expired(now) {
                wakers.extend(queue.remove(&expired, State::Over(WaitOver::Expired)));
            }
            let displaced = (queue.len() >= max_waiting).then(|| queue.youngest_below(priority));
            let waiter = match displaced {
                Some(None) => None,
                Some(Some(youngest)) => {
                    wakers.extend(queue.remove(&youngest, State::Over(WaitOver::Displaced)));
                    Some(queue.push_to_wake(priority, until))
                }
                None => Some(queue.push_to_wake(priority, until)),
            };
            self.mark(&queue);
            waiter
        };
        // Either who gives a place back from here on sees the mark, or the first poll sees the
        // place.
        fence(Ordering::SeqCst);
        for waker in wakers {
            waker.wake();
        }
        waiter
    }

    /// Ready with `Ok` when it may try to get in: each time somebody woke it for a place, and
    /// whenever it is first.
    pub(crate) fn poll(&self, waiter: &Waiter, cx: &Context<'_>, now: Tick) -> Poll<Result<(), WaitOver>> {
        match waiter.wait(cx) {
            Err(over) => return Poll::Ready(Err(over)),
            Ok(_) if now >= waiter.until() => {
                self.leave(waiter, true);
                return Poll::Ready(Err(WaitOver::Expired));
            }
            Ok(true) => return Poll::Ready(Ok(())),
            Ok(false) => {}
        }
        let first = self.queue.lock().first();
        if first.is_some_and(|first| first.is(waiter)) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// The waiter waits no more, with a place or without. Whoever is next is woken in its place, if
    /// there may be `more`.
    pub(crate) fn leave(&self, waiter: &Waiter, more: bool) {
        let waker = {
            let mut queue = self.queue.lock();
            let waker = queue.remove(waiter, State::Over(WaitOver::Expired));
            self.mark(&queue);
            waker
        };
        drop(waker);
        if more {
            self.wake();
        }
    }

    /// A place may be free: wakes the first who hasn't been woken yet.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        let waker = self.queue.lock().rouse();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether anybody may wait.
    pub(crate) fn is_open(&self) -> bool {
        self.max_waiting.load(Ordering::Relaxed) != 0
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.load(Ordering::SeqCst) == 0
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.queue.lock().len() }
    }

    fn mark(&self, queue: &Queue) {
        let marks = queue.classes().map(|class| 1 << class as u32).sum();
        self.marks.store(marks, Ordering::SeqCst);
    }
}
