//! Who waits for a slot, in which order, and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::policy::priority::Priority;
use crate::sync::Mutex;
use crate::time::Tick;

/// Wakers to be called once the lock is free.
pub(in crate::policy) type Wakers = SmallVec<[Waker; 4]>;

const CLASSES: [Priority; Priority::COUNT] = [Priority::Sheddable, Priority::Normal, Priority::Critical];

/// Why a wait ended without a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitOver {
    /// No slot came in time.
    Expired,
    /// The queue was full and a call of a higher class took the place.
    Displaced,
}

impl fmt::Display for WaitOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "no slot came free in time",
            Self::Displaced => "a call of a higher class took the place in the queue",
        })
    }
}

impl std::error::Error for WaitOver {}

/// What became of a wait: from waiting to granted or over, and from granted to taken or, declined,
/// over.
#[derive(Debug)]
pub(in crate::policy) enum State {
    /// With whom to wake, once it has been polled.
    Waiting(Option<Waker>),
    /// A slot is counted for it, and it hasn't been polled since.
    Granted,
    /// It has taken its slot, which is the caller's now.
    Taken,
    Over(WaitOver),
}

/// A place in the queue. Made by [`Bulkhead::enqueue`](super::Bulkhead::enqueue).
#[derive(Debug)]
pub struct Waiter {
    priority: Priority,
    until: Tick,
    /// Orders those of one class.
    number: u64,
    /// A lock, because a waker is two words. Taken inside the queue's when both are.
    state: Mutex<State>,
}

impl Waiter {
    /// One that found a slot and needn't wait.
    pub(super) fn admitted(priority: Priority, until: Tick) -> Arc<Self> {
        Arc::new(Self { priority, until, number: 0, state: Mutex::new(State::Granted) })
    }

    /// The class it waits in.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// When the wait ends without a slot.
    pub fn until(&self) -> Tick {
        self.until
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(*self.state.lock(), State::Waiting(_))
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), WaitOver>> {
        // Cloned before the lock and dropped after it: a waker's code is somebody else's.
        let mut waker = Some(cx.waker().clone());
        let mut state = self.state.lock();
        let answer = match &mut *state {
            State::Waiting(to_wake) => {
                std::mem::swap(to_wake, &mut waker);
                Poll::Pending
            }
            State::Granted | State::Taken => {
                *state = State::Taken;
                Poll::Ready(Ok(()))
            }
            State::Over(why) => Poll::Ready(Err(*why)),
        };
        drop(state);
        drop(waker);
        answer
    }

    /// Waits on; whether it has been woken since it last did.
    pub(in crate::policy) fn wait(&self, cx: &Context<'_>) -> Result<bool, WaitOver> {
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        let before = match &mut *state {
            State::Waiting(to_wake) => to_wake.replace(waker),
            State::Granted | State::Taken => None,
            State::Over(why) => return Err(*why),
        };
        drop(state);
        Ok(before.is_none())
    }

    /// With whom to wake it, once.
    fn rouse(&self) -> Option<Waker> {
        match &mut *self.state.lock() {
            State::Waiting(waker) => waker.take(),
            State::Granted | State::Taken | State::Over(_) => None,
        }
    }

    /// Whether both are one.
    pub(in crate::policy) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    /// Gives up a slot it hasn't taken yet; whether there was one, which is then the caller's to
    /// release.
    pub(super) fn decline(&self) -> bool {
        let mut state = self.state.lock();
        let granted = matches!(*state, State::Granted);
        if granted {
            *state = State::Over(WaitOver::Expired);
        }
        granted
    }

    fn end(&self, state: State) -> Option<Waker> {
        match std::mem::replace(&mut *self.state.lock(), state) {
            State::Waiting(waker) => waker,
            State::Granted | State::Taken | State::Over(_) => None,
        }
    }
}

/// The waiting, each step logarithmic in how many they are: under overload the queue is full, and
/// every call steps here.
#[derive(Debug)]
pub(in crate::policy) struct Queue {
    /// By number, the first being the oldest.
    classes: [BTreeMap<u64, Arc<Waiter>>; Priority::COUNT],
    /// The same waiters by the end of their wait.
    ends: BTreeSet<(Tick, u64, Priority)>,
    next: u64,
}

impl Queue {
    pub(in crate::policy) const fn new() -> Self {
        Self { classes: [const { BTreeMap::new() }; Priority::COUNT], ends: BTreeSet::new(), next: 0 }
    }

    pub(in crate::policy) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The classes somebody waits in.
    pub(in crate::policy) fn classes(&self) -> impl Iterator<Item = Priority> {
        CLASSES.into_iter().filter(|class| !self.class(*class).is_empty())
    }

    pub(super) fn push(&mut self, priority: Priority, until: Tick) -> Arc<Waiter> {
        self.push_as(priority, until, None)
    }

    /// The same for one that [waits to be woken](Waiter::wait).
    pub(in crate::policy) fn push_to_wake(&mut self, priority: Priority, until: Tick) -> Arc<Waiter> {
        self.push_as(priority, until, Some(Waker::noop().clone()))
    }

    fn push_as(&mut self, priority: Priority, until: Tick, waker: Option<Waker>) -> Arc<Waiter> {
        let number = self.next;
        self.next += 1;
        let waiter = Arc::new(Waiter { priority, until, number, state: Mutex::new(State::Waiting(waker)) });
        self.classes[priority as usize].insert(number, Arc::clone(&waiter));
        self.ends.insert((until, number, priority));
        waiter
    }

    /// Whose turn it is.
    pub(in crate::policy) fn first(&self) -> Option<Arc<Waiter>> {
        self.classes.iter().rev().find_map(|class| class.values().next()).map(Arc::clone)
    }

    /// With whom to wake the first who hasn't been woken since it last [waited](Waiter::wait).
    pub(in crate::policy) fn rouse(&self) -> Option<Waker> {
        self.classes.iter().rev().flat_map(BTreeMap::values).find_map(|waiter| waiter.rouse())
    }

    /// Somebody whose wait is over.
    pub(in crate::policy) fn expired(&self, now: Tick) -> Option<Arc<Waiter>> {
        let (until, number, priority) = self.ends.first()?;
        if now < *until {
            return None;
        }
        self.class(*priority).get(number).map(Arc::clone)
    }

    /// Who gives way to `priority`: the youngest of the lowest class below it.
    pub(in crate::policy) fn youngest_below(&self, priority: Priority) -> Option<Arc<Waiter>> {
        let lowest = self.classes().next().filter(|lowest| *lowest < priority)?;
        self.class(lowest).values().next_back().map(Arc::clone)
    }

    /// Takes somebody out, if still there, and says whom to wake.
    pub(in crate::policy) fn remove(&mut self, waiter: &Waiter, state: State) -> Option<Waker> {
        let Waiter { priority, until, number, .. } = *waiter;
        if !self.ends.remove(&(until, number, priority)) {
            return None;
        }
        self.classes[priority as usize].remove(&number);
        waiter.end(state)
    }

    fn class(&self, priority: Priority) -> &BTreeMap<u64, Arc<Waiter>> {
        &self.classes[priority as usize]
    }
}
