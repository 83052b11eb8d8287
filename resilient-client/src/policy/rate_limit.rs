//! Rate limit: keep to a rate that was agreed on, instead of finding out at the other end.
//!
//! An upstream with a quota answers 429 to what exceeds it, and may lock out who keeps trying. A
//! limit on this side says no, or later, before anything was sent.
//!
//! - [`RateLimitPolicy::new`]`(count, per)` spaces calls `per / count` apart on average; a
//!   [`burst`](RateLimitPolicy::burst) of them may go at once after a quiet spell.
//! - In any stretch of time `t` at most `burst + t / (per / count)` calls are let go: exactly,
//!   under any concurrency, wherever the stretch begins. So a stretch of `per` may hold
//!   `burst + count`; with a burst of 1 it holds `count + 1`.
//! - A refusal says when a call would be let go. With [`wait`](RateLimitPolicy::wait) the call
//!   waits for its turn, if that comes before its deadline, in the order in which it asked. Who
//!   leaves the line moves those behind up.
//!
//! The rule is the generic cell rate algorithm (ITU-T I.371, the "virtual scheduling" form), as in
//! the governor crate: the whole state is one number, the theoretical arrival time at which the
//! next call would come if calls came evenly. There is no counter to reset, hence no window whose
//! edge lets twice the rate through. Nobody in line has a time of its own: the first goes when the
//! number lets it, so that a place nobody uses costs the others nothing.
//!
//! One caveat: the limit is this client's own. Ten processes with the same policy make ten times
//! the rate.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::rate_limit::{RateLimit, RateLimitPolicy};
//! use resilient_client::time::Tick;
//!
//! let limit = RateLimit::new(RateLimitPolicy::new(10, Duration::from_secs(1)).burst(2).compile()?);
//! let now = Tick::ZERO;
//! assert!(limit.try_acquire(now).is_ok() && limit.try_acquire(now).is_ok());
//! let limited = limit.try_acquire(now).unwrap_err();
//! assert_eq!(limited.retry_after, Duration::from_millis(100));
//!
//! // Or wait in line, 150 ms at most.
//! let turn = limit.enqueue(now, 150_000_000).unwrap();
//! # let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
//! assert!(limit.poll_turn(&turn, cx, now).is_pending());
//! assert_eq!(turn.until(), now.after(Duration::from_millis(100)));
//! assert!(limit.poll_turn(&turn, cx, turn.until()).is_ready());
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod line;
mod policy;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use self::line::Turn;
use self::line::{Line, Wakers};
pub use self::policy::RateLimitPolicy;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::{Tick, nanos};

const MOST: u32 = 1_000_000;
/// Shorter intervals would lose more than a thousandth of the rate to rounding.
const SHORTEST_INTERVAL: u64 = 1_000;
/// The interval of a limit that lets everything go.
const UNLIMITED: u64 = 0;

/// Checked settings, in nanoseconds. Made by [`RateLimitPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    interval_nanos: u64,
    /// How far the theoretical arrival time may lie ahead of a call that is let go.
    tolerance_nanos: u64,
    wait: bool,
}

impl Rules {
    /// Whether a call that exceeds the rate waits.
    pub fn waits(self) -> bool {
        self.wait
    }
}

/// The rate is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limited {
    /// How long until a call would be let go, if nobody else came first. Longer than zero.
    pub retry_after: Duration,
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rate is used up for another {:.1?}", self.retry_after)
    }
}

impl std::error::Error for Limited {}

/// A call that was let go. Made by [`RateLimit::take`] and [`RateLimit::poll_turn`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Reservation {
    at: Tick,
    /// The theoretical arrival time before and after it.
    before: u64,
    after: u64,
    /// The rules it was made by.
    version: u32,
}

impl Reservation {
    /// When the call was let go: now, or the time of its turn if it heard of that late.
    pub fn at(&self) -> Tick {
        self.at
    }
}

/// A rate limit, shared by every call to one upstream.
///
/// Every decision is one atomic step on one word: what each call adds to it can't be missed by
/// another. While nobody waits there is no lock.
#[derive(Debug)]
pub struct RateLimit {
    /// The theoretical arrival time. A call let go leaves it one interval or more past where it was
    /// and past the call's own time, and met it no further ahead than the tolerance. So the n-th
    /// call of a stretch from `a` to `b` met it at `a + (n - 1) * interval` or later, yet at
    /// `b + tolerance` or earlier: `n <= burst + (b - a) / interval`, whatever the clock readings
    /// and in whatever order they come.
    arrival: AtomicU64,
    /// [`UNLIMITED`] when there is no limit.
    interval_nanos: AtomicU64,
    tolerance_nanos: AtomicU64,
    version: AtomicU32,
    /// How many are in line, so that no newcomer overtakes them. Changes under the lock only.
    waiting: AtomicU32,
    /// A lock, because a place in line is several words. Taken only when somebody waits, and no
    /// waker is called under it.
    line: Mutex<Line>,
}

/// What is in force at one moment.
#[derive(Clone, Copy)]
struct Force {
    interval: u64,
    tolerance: u64,
    version: u32,
}

impl Force {
    /// When a call may go that finds the theoretical arrival time so.
    fn due(self, arrival: u64) -> u64 {
        arrival.saturating_sub(self.tolerance)
    }

    /// The theoretical arrival time after a call at `at`.
    fn step(self, arrival: u64, at: u64) -> u64 {
        arrival.max(at).saturating_add(self.interval)
    }
}

impl RateLimit {
    /// A limit with its whole burst to give.
    pub fn new(rules: Rules) -> Self {
        Self {
            arrival: AtomicU64::new(0),
            interval_nanos: AtomicU64::new(rules.interval_nanos),
            tolerance_nanos: AtomicU64::new(rules.tolerance_nanos),
            version: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            line: Mutex::new(Line::default()),
        }
    }

    /// A limit that lets everything go.
    pub fn unlimited() -> Self {
        Self::new(Rules { interval_nanos: UNLIMITED, tolerance_nanos: 0, wait: false })
    }

    /// Changes the rules; `None` lifts the limit. Calls let go count on: what was owed in calls is
    /// owed in calls at the new rate. Who waits goes at the new rate too. A limit that comes after
    /// none starts with its whole burst.
    ///
    /// Calls to this must not overlap one another. They may overlap anything else; a call meanwhile
    /// may be judged by the old rules, the new, or one's interval and the other's burst.
    pub fn set_rules(&self, rules: Option<Rules>, now: Tick) {
        let former = self.interval_nanos.load(Ordering::Relaxed);
        let (interval, tolerance) =
            rules.map_or((UNLIMITED, 0), |rules| (rules.interval_nanos, rules.tolerance_nanos));
        self.tolerance_nanos.store(tolerance, Ordering::Relaxed);
        if interval != former {
            // First, so that nothing let go by the old numbers is given back in the new.
            self.version.fetch_add(1, Ordering::AcqRel);
            let _ = self.arrival.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |arrival| {
                let owed = u128::from(arrival.saturating_sub(now.as_nanos()));
                let owed = (owed * u128::from(interval)).checked_div(u128::from(former)).unwrap_or(0);
                Some(now.after_nanos(u64::try_from(owed).unwrap_or(u64::MAX)).as_nanos())
            });
            self.interval_nanos.store(interval, Ordering::Release);
        }
        self.move_up(|| now);
    }

    fn force(&self) -> Force {
        Force {
            interval: self.interval_nanos.load(Ordering::Acquire),
            tolerance: self.tolerance_nanos.load(Ordering::Relaxed),
            version: self.version.load(Ordering::Acquire),
        }
    }

    /// Lets a call go now.
    ///
    /// # Errors
    /// [`Limited`] when the rate is used up, or somebody waits for it. A refused call costs
    /// nothing.
    pub fn try_acquire(&self, now: Tick) -> Result<(), Limited> {
        self.take(now).map(drop)
    }

    /// Lets a call go now, and says how to take that back.
    ///
    /// # Errors
    /// [`Limited`] when the rate is used up, or somebody waits for it. A refused call costs
    /// nothing.
    pub fn take(&self, now: Tick) -> Result<Reservation, Limited> {
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting > 0 {
            return Err(self.limited(self.force(), u64::from(waiting), now));
        }
        let force = self.force();
        self.let_go(force, now, now).map_err(|()| self.limited(force, 0, now))
    }

    /// Lets a call go at `at`, if it is `now` by then and the rate allows.
    fn let_go(&self, force: Force, at: Tick, now: Tick) -> Result<Reservation, ()> {
        let version = force.version;
        if force.interval == UNLIMITED {
            return Ok(Reservation { at: now, before: 0, after: 0, version });
        }
        let at = |arrival: u64| force.due(arrival).max(at.as_nanos());
        let step = |arrival: u64| (at(arrival) <= now.as_nanos()).then(|| force.step(arrival, at(arrival)));
        match self.arrival.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step) {
            Ok(before) => {
                let at = at(before);
                let after = force.step(before, at);
                Ok(Reservation { at: Tick::from_nanos(at), before, after, version })
            }
            Err(_) => Err(()),
        }
    }

    /// The refusal of somebody who would stand behind `waiting` others.
    fn limited(&self, force: Force, waiting: u64, now: Tick) -> Limited {
        let ahead = force.interval.saturating_mul(waiting);
        let due = force.due(self.arrival.load(Ordering::Relaxed).saturating_add(ahead));
        // At least something: a slot may have come meanwhile, and be somebody else's.
        Limited { retry_after: Duration::from_nanos(due.saturating_sub(now.as_nanos()).max(1)) }
    }

    /// A place in line, if its turn comes at most `longest_wait_nanos` from now. To be polled until
    /// it is ready, or removed with [`leave`](Self::leave).
    ///
    /// # Errors
    /// [`Limited`] when its turn comes later than that. A refused call costs nothing.
    pub fn enqueue(&self, now: Tick, longest_wait_nanos: u64) -> Result<Arc<Turn>, Limited> {
        self.locked(now, |line, _| {
            let (force, waiting) = (self.force(), line.len() as u64);
            let limited = self.limited(force, waiting, now);
            if nanos(limited.retry_after) > longest_wait_nanos {
                return Err(limited);
            }
            self.waiting.fetch_add(1, Ordering::AcqRel);
            Ok(line.push(now))
        })
    }

    /// Ready, once, when its turn has come. Who is polled when [`Turn::until`] comes, and whenever
    /// it is woken, misses none.
    pub fn poll_turn(&self, turn: &Turn, cx: &mut Context<'_>, now: Tick) -> Poll<Reservation> {
        self.locked(now, |line, _| {
            if line.first().is_some_and(|first| first.number == turn.number) {
                let due = self.force().due(self.arrival.load(Ordering::Relaxed));
                turn.is_due(Tick::from_nanos(due));
            }
            turn.poll(cx)
        })
    }

    /// Waits no more: those behind move up. Does nothing once [`poll_turn`](Self::poll_turn) was
    /// ready.
    pub fn leave(&self, turn: &Turn, now: impl FnOnce() -> Tick) {
        let now = now();
        let granted = self.locked(now, |line, wakers| {
            if line.remove(turn) {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                wakers.extend(line.rouse_first());
            }
            turn.end()
        });
        if let Some(place) = granted {
            self.give_back(place, || now);
        }
    }

    /// Takes back that a call was let go: something else refused it, or nobody waited for it any
    /// more. Whether that did any good.
    ///
    /// Only the newest can be taken back. One that went after another went because of the time that
    /// had passed since: were the other taken back, the next would follow it too soon. So an older
    /// one stays spent: the upstream gets a call less than it might, never one more.
    #[allow(clippy::needless_pass_by_value, reason = "a place is given back once")]
    pub fn give_back(&self, place: Reservation, now: impl FnOnce() -> Tick) -> bool {
        let Reservation { before, after, version, .. } = place;
        // The word grows with every call let go, so it is `after` only while this one is the
        // newest.
        let returned = version == self.version.load(Ordering::Acquire)
            && before != after
            && self.arrival.compare_exchange(after, before, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if returned {
            self.move_up(now);
        }
        returned
    }

    /// The first in line looks at its time anew.
    fn move_up(&self, now: impl FnOnce() -> Tick) {
        // A read-modify-write, where a load could miss who is just joining: of this step and that
        // one the later sees what came before the other, so either we find the waiter or the waiter
        // finds what has changed.
        if self.waiting.fetch_add(0, Ordering::AcqRel) > 0 {
            self.locked(now(), |line, wakers| wakers.extend(line.rouse_first()));
        }
    }

    /// Lets go whoever's turn has come, then does `act`; and wakes all of those after the lock, and
    /// who is first then.
    fn locked<T>(&self, now: Tick, act: impl FnOnce(&mut Line, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::new();
        let result = {
            let mut line = self.line.lock();
            let mut moved = false;
            while let Some(first) = line.first() {
                // It has been there since then: what it hears late it doesn't lose.
                let Ok(place) = self.let_go(self.force(), first.since(), now) else { break };
                wakers.extend(line.grant_first(place));
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                moved = true;
            }
            if moved {
                wakers.extend(line.rouse_first());
            }
            act(&mut line, &mut wakers)
        };
        for waker in wakers {
            waker.wake();
        }
        result
    }

    /// How many wait in line.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether a fresh limit would let more calls go than this one.
    pub(crate) fn owes(&self, now: Tick) -> bool {
        !self.is_unlimited() && self.arrival.load(Ordering::Relaxed) > now.as_nanos()
    }

    /// Whether everything is let go.
    pub fn is_unlimited(&self) -> bool {
        self.interval_nanos.load(Ordering::Relaxed) == UNLIMITED
    }
}

#[cfg(test)]
mod tests;
