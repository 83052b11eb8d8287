//! Who waits for the rate, in the order in which they asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use super::Reservation;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// Wakers to be called once the lock is free.
pub(super) type Wakers = SmallVec<[Waker; 4]>;

#[derive(Debug)]
enum State {
    /// With whom to wake, once it has been polled.
    Waiting(Option<Waker>),
    /// It may go, and hasn't been polled since.
    Granted(Reservation),
    /// It has seen that it may go, or waits no more.
    Over,
}

/// A place in line. Made by [`RateLimit::enqueue`](super::RateLimit::enqueue).
#[derive(Debug)]
pub struct Turn {
    pub(super) number: u64,
    since: Tick,
    /// When to poll at the latest, as a `Tick`.
    until: AtomicU64,
    /// A lock, because a waker is two words. Taken inside the line's when both are.
    state: Mutex<State>,
}

impl Turn {
    /// When it is to be polled at the latest: the time of its turn once it is the next, never
    /// before.
    pub fn until(&self) -> Tick {
        Tick::from_nanos(self.until.load(Ordering::Relaxed))
    }

    /// Since when it waits.
    pub(super) fn since(&self) -> Tick {
        self.since
    }

    pub(super) fn is_due(&self, at: Tick) {
        self.until.store(at.as_nanos(), Ordering::Relaxed);
    }

    /// Ready once; whom to wake otherwise is noted.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Reservation> {
        // Cloned before the lock and dropped after it: a waker's code is somebody else's.
        let mut waker = Some(cx.waker().clone());
        let mut state = self.state.lock();
        let answer = match std::mem::replace(&mut *state, State::Over) {
            State::Granted(place) => Poll::Ready(place),
            State::Waiting(before) => {
                *state = State::Waiting(waker.take());
                waker = before;
                Poll::Pending
            }
            State::Over => Poll::Pending,
        };
        drop(state);
        drop(waker);
        answer
    }

    fn grant(&self, place: Reservation) -> Option<Waker> {
        match std::mem::replace(&mut *self.state.lock(), State::Granted(place)) {
            State::Waiting(waker) => waker,
            State::Granted(_) | State::Over => None,
        }
    }

    /// Whom to wake because something has changed. It is to be noted anew.
    fn rouse(&self) -> Option<Waker> {
        match &mut *self.state.lock() {
            State::Waiting(waker) => waker.take(),
            State::Granted(_) | State::Over => None,
        }
    }

    /// It waits no more: what it was granted and hasn't seen.
    pub(super) fn end(&self) -> Option<Reservation> {
        let state = std::mem::replace(&mut *self.state.lock(), State::Over);
        match state {
            State::Granted(place) => Some(place),
            State::Waiting(_) | State::Over => None,
        }
    }
}

/// The waiting, the first being the next to go.
#[derive(Debug, Default)]
pub(super) struct Line {
    turns: BTreeMap<u64, Arc<Turn>>,
    next: u64,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn push(&mut self, now: Tick) -> Arc<Turn> {
        let number = self.next;
        self.next += 1;
        let until = AtomicU64::new(Tick::NEVER.as_nanos());
        let turn = Arc::new(Turn { number, since: now, until, state: Mutex::new(State::Waiting(None)) });
        self.turns.insert(number, Arc::clone(&turn));
        turn
    }

    pub(super) fn first(&self) -> Option<&Arc<Turn>> {
        self.turns.values().next()
    }

    /// Lets the first go, and says whom to wake.
    pub(super) fn grant_first(&mut self, place: Reservation) -> Option<Waker> {
        self.turns.pop_first().and_then(|(_, turn)| turn.grant(place))
    }

    /// Takes somebody out; whether it was there.
    pub(super) fn remove(&mut self, turn: &Turn) -> bool {
        self.turns.remove(&turn.number).is_some()
    }

    /// Whom to wake so that the first in line looks at its time.
    pub(super) fn rouse_first(&self) -> Option<Waker> {
        self.first().and_then(|turn| turn.rouse())
    }
}
