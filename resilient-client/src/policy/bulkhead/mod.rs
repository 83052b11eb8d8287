//! Bulkhead: bound how many calls one upstream may hold, so that a slow one can't take every task
//! and connection.
//!
//! An upstream that hangs holds each call until its timeout. Unbounded, those calls pile up until
//! nothing is left for the upstreams that work. A bulkhead gives each its own compartment. (The
//! name is Michael Nygard's, *Release It!*, 2007.)
//!
//! - At most [`max_in_flight`](BulkheadPolicy::max_in_flight) slots are taken at any time, exactly,
//!   under any concurrency.
//! - A slot is held from the attempt's launch to the end of its response body, and not while a call
//!   backs off.
//! - A lowered limit evicts no one: new attempts are refused until enough slots have come back. A
//!   raised one admits whoever waits at once.
//! - [`Priority::Sheddable`] calls may fill three quarters of the limit, rounded up; the others all
//!   of it. So the last quarter is left to calls that matter, and who never mentions a class has
//!   the whole limit.
//! - With [`max_queued`](BulkheadPolicy::max_queued) calls may wait for a slot: first in, first out
//!   within a class, higher classes first. No newcomer overtakes who waits in its own class or a
//!   higher one.
//! - Who has waited to its end is shed before anybody else. When the queue is full all the same, a
//!   newcomer takes the place of the youngest waiter of the lowest class below its own, or is
//!   refused.
//!
//! Taking or giving back a slot is one atomic step while nobody waits: no lock, no clock, no
//! allocation.
//!
//! One caveat: a response body that is neither read nor dropped holds its slot.
//!
//! ```
//! use resilient_client::policy::bulkhead::{Bulkhead, BulkheadPolicy};
//! use resilient_client::policy::priority::Priority;
//! use resilient_client::time::Tick;
//!
//! let bulkhead = Bulkhead::new(BulkheadPolicy::standard().max_in_flight(1).max_queued(1).compile()?);
//! assert!(bulkhead.try_acquire(Priority::Normal).is_ok());
//! assert_eq!(bulkhead.try_acquire(Priority::Normal).unwrap_err().limit, 1);
//!
//! // Wait for the slot, and get it.
//! let waiter = bulkhead.enqueue(Priority::Normal, Tick::ZERO, Tick::NEVER).unwrap();
//! bulkhead.release(|| Tick::ZERO);
//! # let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
//! assert!(bulkhead.poll_wait(&waiter, cx, Tick::ZERO).is_ready());
//! assert_eq!(bulkhead.in_use(), 1);
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod policy;
pub(super) mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use policy::MOST_IN_FLIGHT;
pub use policy::{BulkheadPolicy, Rules};
use queue::{Queue, State, Wakers};
pub use queue::{WaitOver, Waiter};

use super::priority::Priority;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// The limit of a bulkhead without one: the counter's own.
const UNLIMITED: u32 = u32::MAX;

/// No slot was free, and no place in the queue if one was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Full {
    /// How many slots calls of this class may fill.
    pub limit: u32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} slots are taken", self.limit)
    }
}

impl std::error::Error for Full {}

// The word is `marks | in use`. A class's mark is set exactly while somebody of that class waits,
// so that one load tells a newcomer whether it would overtake anybody, and a slot given back
// whether to look into the queue.
//
// 63..35   34..32   31..0
// unused   marks    in use

const MARK_SHIFT: u32 = 32;
const MARKS: u64 = ((1 << Priority::COUNT) - 1) << MARK_SHIFT;

const fn mark(priority: Priority) -> u64 {
    1 << (MARK_SHIFT + priority as u32)
}

/// The marks of `priority` and every class above.
const fn marks_from(priority: Priority) -> u64 {
    (MARKS << priority as u32) & MARKS
}

const fn in_use(word: u64) -> u32 {
    word as u32
}

/// A count of slots and those who wait for one, shared by every call to one upstream.
///
/// `now` is asked for only when somebody waits, so that no call pays for a clock it doesn't need.
#[derive(Debug)]
pub struct Bulkhead {
    /// Marks change under the lock only; the count changes at any time.
    word: AtomicU64,
    /// In force: the rules' own or the one that was found.
    limit: AtomicU32,
    /// The rules' own.
    given: AtomicU32,
    max_queued: AtomicU32,
    queue_wait_nanos: AtomicU64,
    /// A lock, because a place in the queue is several words. Taken only when somebody waits, and
    /// no waker is called under it.
    queue: Mutex<Queue>,
}

impl Bulkhead {
    /// A bulkhead with every slot free.
    pub fn new(rules: Rules) -> Self {
        Self {
            word: AtomicU64::new(0),
            limit: AtomicU32::new(rules.max_in_flight),
            given: AtomicU32::new(rules.max_in_flight),
            max_queued: AtomicU32::new(rules.max_queued),
            queue_wait_nanos: AtomicU64::new(rules.queue_wait_nanos),
            queue: Mutex::new(Queue::new()),
        }
    }

    /// A bulkhead that counts and never refuses.
    pub fn unlimited() -> Self {
        Self::new(Rules { max_in_flight: UNLIMITED, max_queued: 0, queue_wait_nanos: 0 })
    }

    /// Changes the rules and keeps the slots in use and who waits; `None` lifts the limit.
    ///
    /// The limit becomes the rules' own, whatever [`set_limit`](Self::set_limit) said before.
    pub fn set_rules(&self, rules: Option<Rules>, now: impl FnOnce() -> Tick) {
        self.set_rules_but_limit(rules);
        self.reset_limit(now);
    }

    /// The same, leaving the limit in force as it is: for one that is found, which would otherwise
    /// give way to the rules' for a moment in which all who wait are let in.
    pub(crate) fn set_rules_but_limit(&self, rules: Option<Rules>) {
        if let Some(rules) = rules {
            self.max_queued.store(rules.max_queued, Ordering::Relaxed);
            self.queue_wait_nanos.store(rules.queue_wait_nanos, Ordering::Relaxed);
        }
        self.given.store(rules.map_or(UNLIMITED, |rules| rules.max_in_flight), Ordering::Release);
    }

    /// The limit is the rules' own again.
    pub(crate) fn reset_limit(&self, now: impl FnOnce() -> Tick) {
        self.change_limit(self.given.load(Ordering::Acquire), now);
    }

    /// Changes the limit alone: 1 to 1,000,000, and the nearer of them for anything else. For a
    /// limit that is found rather than given.
    pub fn set_limit(&self, limit: u32, now: impl FnOnce() -> Tick) {
        self.change_limit(limit.clamp(1, MOST_IN_FLIGHT), now);
    }

    fn change_limit(&self, limit: u32, now: impl FnOnce() -> Tick) {
        // Whoever changes it after another sees what that one had seen.
        if self.limit.swap(limit, Ordering::AcqRel) == limit {
            return;
        }
        // A read-modify-write, where a load could miss a mark being set: of this step and that one
        // the later sees what came before the other, so either we find the waiter or the waiter
        // finds the new limit.
        if self.word.fetch_add(0, Ordering::AcqRel) & MARKS != 0 {
            self.locked(now(), |_, _| ());
        }
    }

    /// Takes a slot, to be given back once with [`release`](Self::release).
    ///
    /// # Errors
    /// [`Full`] when as many slots are in use as this class may fill, or somebody waits in this
    /// class or a higher one.
    pub fn try_acquire(&self, priority: Priority) -> Result<(), Full> {
        let take = |word: u64| {
            let free = word & marks_from(priority) == 0 && in_use(word) < self.share(priority);
            free.then(|| word + 1)
        };
        // Sequentially consistent with the line behind an overload limit: see `release`.
        match self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.full(priority)),
        }
    }

    /// Takes a slot whether there is one or not, for a bulkhead that only observes. To be given
    /// back like any other.
    pub fn overrun(&self) {
        let take = |word: u64| (in_use(word) < u32::MAX).then(|| word + 1);
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// Gives a slot back: to whoever is first in the queue, if anybody is. One release too many is
    /// ignored: a counter wrapped below zero would refuse every call.
    pub fn release(&self, now: impl FnOnce() -> Tick) {
        let give = |word: u64| (word & MARKS == 0).then(|| word.checked_sub(1)).flatten();
        // Who looks afterwards whether anybody waits elsewhere for this slot, as the upstream does,
        // finds whoever missed it.
        match self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, give) {
            Err(word) if word & MARKS != 0 => self.hand_over(now()),
            Ok(_) | Err(_) => {}
        }
    }

    #[cold]
    fn hand_over(&self, now: Tick) {
        self.locked(now, |queue, wakers| {
            let taken = self.in_use();
            match queue.first() {
                // The count stands still, and counts the waiter now.
                Some(first) if (1..=self.share(first.priority())).contains(&taken) => {
                    wakers.extend(queue.remove(&first, State::Granted));
                }
                _ => {
                    let give = |word: u64| (in_use(word) > 0).then(|| word - 1);
                    let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
                }
            }
        });
    }

    /// Asks for a place in the queue, after [`try_acquire`](Self::try_acquire) refused. The wait
    /// ends at `until`, or after [`queue_wait`](BulkheadPolicy::queue_wait) if that is sooner:
    /// [`Waiter::until`] says when. The caller's own timer is to call
    /// [`poll_wait`](Self::poll_wait) then.
    ///
    /// A waiter must be seen to its end: polled until ready, or removed with
    /// [`leave`](Self::leave).
    ///
    /// # Errors
    /// [`Full`] when there is no queue, no time to wait, or nobody in the full queue whose place
    /// may be taken.
    pub fn enqueue(&self, priority: Priority, now: Tick, until: Tick) -> Result<Arc<Waiter>, Full> {
        let max_queued = self.max_queued.load(Ordering::Relaxed);
        let until = until.min(now.after_nanos(self.queue_wait_nanos.load(Ordering::Relaxed)));
        if max_queued == 0 || until <= now {
            return Err(self.full(priority));
        }
        self.locked(now, |queue, wakers| {
            // A slot may have come back meanwhile; then nobody is displaced for nothing.
            if self.try_acquire(priority).is_ok() {
                return Ok(Waiter::admitted(priority, until));
            }
            if queue.len() >= max_queued as usize {
                let youngest = queue.youngest_below(priority).ok_or_else(|| self.full(priority))?;
                wakers.extend(queue.remove(&youngest, State::Over(WaitOver::Displaced)));
            }
            let waiter = queue.push(priority, until);
            // From here on a slot given back comes to the queue. One that came back before is found
            // when this ends.
            self.word.fetch_or(mark(priority), Ordering::AcqRel);
            Ok(waiter)
        })
    }

    /// Whether the wait is over: `Ok` is a slot, to be given back once with
    /// [`release`](Self::release), however often this is asked.
    pub fn poll_wait(&self, waiter: &Waiter, cx: &mut Context<'_>, now: Tick) -> Poll<Result<(), WaitOver>> {
        if now >= waiter.until() && waiter.is_waiting() {
            self.locked(now, |_, _| ());
        }
        waiter.poll(cx)
    }

    /// The waiter waits no more: its place goes, or the slot it was given but hasn't taken. Does
    /// nothing once [`poll_wait`](Self::poll_wait) was ready.
    pub fn leave(&self, waiter: &Waiter, now: impl FnOnce() -> Tick) {
        if !waiter.is_waiting() {
            if waiter.decline() {
                self.release(now);
            }
            return;
        }
        let now = now();
        // Returned, so that the waker is dropped after the lock.
        drop(self.locked(now, |queue, _| queue.remove(waiter, State::Over(WaitOver::Expired))));
        // A slot may have been handed over just before.
        if waiter.decline() {
            self.release(|| now);
        }
    }

    /// Sheds the expired, does `act`, admits whomever there is room for then; and wakes all of
    /// those after the lock.
    fn locked<T>(&self, now: Tick, act: impl FnOnce(&mut Queue, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::new();
        let result = {
            let mut queue = self.queue.lock();
            while let Some(expired) = queue.expired(now) {
                wakers.extend(queue.remove(&expired, State::Over(WaitOver::Expired)));
            }
            let result = act(&mut queue, &mut wakers);
            while let Some(first) = queue.first() {
                let share = self.share(first.priority());
                let take = |word: u64| (in_use(word) < share).then(|| word + 1);
                if self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                    break;
                }
                wakers.extend(queue.remove(&first, State::Granted));
            }
            self.unmark(&queue);
            result
        };
        for waker in wakers {
            waker.wake();
        }
        result
    }

    /// Takes away the marks of the classes nobody waits in any more.
    fn unmark(&self, queue: &Queue) {
        let waiting = queue.classes().map(mark).sum::<u64>();
        let stale = self.word.load(Ordering::Relaxed) & MARKS & !waiting;
        if stale != 0 {
            self.word.fetch_and(!stale, Ordering::Relaxed);
        }
    }

    /// How many slots a class may fill.
    fn share(&self, priority: Priority) -> u32 {
        let limit = self.limit.load(Ordering::Relaxed);
        match priority {
            Priority::Sheddable => limit - limit / 4,
            Priority::Normal | Priority::Critical => limit,
        }
    }

    fn full(&self, priority: Priority) -> Full {
        Full { limit: self.share(priority) }
    }

    /// Slots taken now. More than the limit only just after it was lowered.
    pub fn in_use(&self) -> u32 {
        in_use(self.word.load(Ordering::Relaxed))
    }

    /// The most slots taken at once; `None` when unlimited.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != UNLIMITED)
    }

    /// How many wait for a slot; some of them may have come to the end of their wait just now.
    pub fn queued(&self) -> usize {
        if self.word.load(Ordering::Relaxed) & MARKS == 0 { 0 } else { self.queue.lock().len() }
    }
}
