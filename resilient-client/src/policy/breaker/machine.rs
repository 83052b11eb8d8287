//! The machine: what a call may do, and what its outcome changes.
//!
//! ```text
//! Closed ---- a rule is broken ------> Open        Open ------ open time elapsed --> HalfOpen
//! HalfOpen -- all probes succeeded --> Closed      HalfOpen -- a probe failed -----> Open
//! HalfOpen -- probes expired --------> HalfOpen
//! any ------- rules taken away ------> Disabled    Disabled -- rules given --------> Closed
//! ```
//!
//! A closed breaker is read and counted without a lock. Failures, probes and transitions are rare, and take one: under it
//! only this thread changes the state, while others may still count successes and end the streak of failures.

use std::time::Duration;

use super::Rules;
use super::state::{Cause, Era, State, Transition, Word};
use super::window::Window;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// A circuit breaker, shared by every call to one upstream.
#[derive(Debug)]
pub struct Breaker {
    /// A [`Word`]. Written under the lock, but for ending a streak.
    word: AtomicU64,
    /// While open or half-open no call gets in before this [`Tick`]: the end of the open time or, with every probe slot
    /// taken, of the probes' lease. Zero while a slot is free. Lets a rejection do with two loads.
    shut_until: AtomicU64,
    /// The open time, the most a rejection while half-open tells a caller to wait.
    longest_hint: AtomicU64,
    window: Window,
    /// What only failures, probes and transitions touch: several numbers that must change together.
    slow: Mutex<Slow>,
}

#[derive(Debug)]
struct Slow {
    /// `None` exactly while the state is disabled.
    rules: Option<Rules>,
    /// Failed recoveries since the breaker was last closed.
    reopens: u32,
    /// Probe slots taken in this generation, by probes under way or successful.
    taken: u32,
    succeeded: u32,
    /// When the probes under way stop holding their slots.
    lease_end: Tick,
}

/// Leave to make one call. Give it back with [`Breaker::record`]; one that comes to nothing is [`Verdict::Neutral`].
///
/// A permit can't be copied, so it is recorded at most once. One that never comes back holds a probe slot until it
/// expires, and holds nothing while the breaker is closed.
#[derive(Debug)]
#[must_use = "record the call's outcome, or a probe slot stays taken until it expires"]
pub struct Permit {
    era: Era,
}

impl Permit {
    /// Whether this call is one of the few let through to test the upstream.
    pub fn is_probe(&self) -> bool {
        self.era.state() == State::HalfOpen
    }

    /// The generation it was issued in. Its result counts only in that one.
    pub fn generation(&self) -> u64 {
        self.era.generation()
    }
}

/// What [`Breaker::try_acquire`] answers when the call may go ahead.
#[derive(Debug)]
pub struct Admitted {
    /// Leave to make the call.
    pub permit: Permit,
    /// The change this call brought about by arriving, if any.
    pub transition: Option<Transition>,
}

/// What [`Breaker::try_acquire`] answers when the call may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// When to try again: the rest of the open time or, half-open with every probe out, at most one open time. Never zero.
    pub retry_after: Duration,
}

/// What a call said about the upstream's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The upstream did its job.
    Success,
    /// The upstream failed.
    Failure,
    /// The call says nothing, being abandoned or rejected locally. A probe's slot goes to the next call.
    Neutral,
}

/// A breaker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state. Open lasts until a call comes, even when the open time is over.
    pub state: State,
    /// How many transitions led here.
    pub generation: u64,
    /// Failures in the window. While open, those of the time before.
    pub failures: u32,
    /// Successes in the window.
    pub successes: u32,
    /// Failures in a row.
    pub streak: u32,
    /// What is left of the open time; zero unless open.
    pub open_for: Duration,
    /// Failed recoveries since the breaker was last closed.
    pub reopens: u32,
    /// Probes under way; zero unless half-open.
    pub probes: u32,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: Rules) -> Self {
        Self::with(Some(rules), State::Closed)
    }

    /// A breaker that admits everything and counts nothing, until [`set_rules`](Self::set_rules) gives it rules.
    pub fn disabled() -> Self {
        Self::with(None, State::Disabled)
    }

    fn with(rules: Option<Rules>, state: State) -> Self {
        Self {
            word: AtomicU64::new(Word::first(state).0),
            shut_until: AtomicU64::new(0),
            longest_hint: AtomicU64::new(rules.map_or(0, |rules| rules.open_nanos)),
            window: Window::new(rules.map_or(1, |rules| rules.bucket_nanos)),
            slow: Mutex::new(Slow { rules, reopens: 0, taken: 0, succeeded: 0, lease_end: Tick::ZERO }),
        }
    }

    /// Asks leave to make a call. The first to ask after the open time turns the breaker half-open and is its first probe.
    ///
    /// # Errors
    /// [`Rejected`] while open, and while half-open with every probe slot taken.
    pub fn try_acquire(&self, now: Tick) -> Result<Admitted, Rejected> {
        let word = self.word();
        match word.state() {
            State::Closed | State::Disabled => Ok(admitted(word, None)),
            State::Open | State::HalfOpen => match self.shut_for(word, now) {
                Some(retry_after) => Err(Rejected { retry_after }),
                None => self.acquire_probe(now),
            },
        }
    }

    /// Whether [`try_acquire`](Self::try_acquire) would reject now, and for how long. Changes nothing and promises nothing.
    pub fn rejects_now(&self, now: Tick) -> Option<Duration> {
        let word = self.word();
        match word.state() {
            State::Closed | State::Disabled => None,
            State::Open | State::HalfOpen => self.shut_for(word, now),
        }
    }

    /// Reports what became of a call. A result from another generation is ignored.
    ///
    /// `unit`, uniform in [0, 1), spreads the open time. It is asked for on a failure only.
    #[allow(clippy::needless_pass_by_value, reason = "a permit is spent by recording it")]
    pub fn record(
        &self,
        permit: Permit,
        verdict: Verdict,
        now: Tick,
        unit: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        let word = self.word();
        if word.era() != permit.era {
            return None;
        }
        match (word.state(), verdict) {
            (State::Closed, Verdict::Success) => {
                self.window.success(now);
                if word.streak() != 0 {
                    self.end_streak(word);
                }
                None
            }
            (State::Closed | State::HalfOpen, Verdict::Failure) => self.settle(&permit, verdict, now, unit()),
            (State::HalfOpen, Verdict::Success | Verdict::Neutral) => self.settle(&permit, verdict, now, 0.0),
            (State::Closed, Verdict::Neutral) | (State::Open | State::Disabled, _) => None,
        }
    }

    /// Changes the rules and keeps the state; `None` disables the breaker.
    ///
    /// The window is emptied when its length changes. An opening under way keeps its length. A breaker that was disabled
    /// starts closed.
    pub fn set_rules(&self, rules: Option<Rules>) -> Option<Transition> {
        let mut slow = self.slow.lock();
        let word = self.word();
        let before = std::mem::replace(&mut slow.rules, rules);
        let Some(rules) = rules else {
            return before.map(|_| self.enter(word, State::Disabled, Cause::RulesChanged));
        };
        self.longest_hint.store(rules.open_nanos, Ordering::Relaxed);
        if before.is_none_or(|before| before.bucket_nanos != rules.bucket_nanos) {
            self.window.resize(rules.bucket_nanos);
        }
        if before.is_none() {
            return Some(self.close(&mut slow, word, Cause::RulesChanged));
        }
        if word.state() == State::HalfOpen {
            self.shut_until.store(slow.shut_until(&rules), Ordering::Release);
        }
        None
    }

    /// The state and counts at `now`, for people and gauges.
    pub fn snapshot(&self, now: Tick) -> Snapshot {
        let slow = self.slow.lock();
        let word = self.word();
        let window = self.window.totals(now);
        let shut_until = Tick::from_nanos(self.shut_until.load(Ordering::Acquire));
        let state = word.state();
        Snapshot {
            state,
            generation: word.era().generation(),
            failures: window.failures,
            successes: window.successes,
            streak: word.streak(),
            open_for: if state == State::Open { now.until(shut_until) } else { Duration::ZERO },
            reopens: slow.reopens,
            probes: if state == State::HalfOpen { slow.taken - slow.succeeded } else { 0 },
        }
    }

    fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// How long an open or half-open breaker surely admits no one; `None` if someone might get in. When the state changes
    /// between the loads the wait may be the other state's: it is advice, and no admission rests on it.
    fn shut_for(&self, word: Word, now: Tick) -> Option<Duration> {
        let shut_until = self.shut_until.load(Ordering::Acquire);
        let mut left = shut_until.checked_sub(now.as_nanos()).filter(|left| *left > 0)?;
        if word.state() == State::HalfOpen {
            left = left.min(self.longest_hint.load(Ordering::Relaxed));
        }
        Some(Duration::from_nanos(left))
    }

    #[cold]
    fn acquire_probe(&self, now: Tick) -> Result<Admitted, Rejected> {
        let mut slow = self.slow.lock();
        let word = self.word();
        let Some(rules) = slow.rules else { return Ok(admitted(word, None)) };
        let transition = match word.state() {
            // Someone else got here first and the news was good.
            State::Closed | State::Disabled => return Ok(admitted(word, None)),
            State::Open | State::HalfOpen => match self.shut_for(word, now) {
                Some(retry_after) => return Err(Rejected { retry_after }),
                None if word.state() == State::Open => {
                    Some(self.half_open(&mut slow, word, Cause::OpenTimeElapsed))
                }
                None if slow.taken >= rules.probes => {
                    Some(self.half_open(&mut slow, word, Cause::ProbesExpired))
                }
                None => None,
            },
        };
        slow.taken += 1;
        slow.lease_end = slow.lease_end.max(now.after_nanos(rules.probe_timeout_nanos));
        self.shut_until.store(slow.shut_until(&rules), Ordering::Release);
        Ok(admitted(self.word(), transition))
    }

    /// A failure, or any outcome of a probe.
    #[cold]
    fn settle(&self, permit: &Permit, verdict: Verdict, now: Tick, unit: f64) -> Option<Transition> {
        let mut slow = self.slow.lock();
        let word = self.word();
        // The state may have changed while this thread waited for the lock.
        if word.era() != permit.era {
            return None;
        }
        let rules = slow.rules?;
        match (word.state(), verdict) {
            (State::Closed, Verdict::Failure) => {
                self.window.failure(now);
                let streak = Word(self.word.fetch_add(1, Ordering::AcqRel)).streak() + 1;
                let cause = rules.broken_by(streak, self.window.totals(now))?;
                Some(self.open(&slow, &rules, word, cause, now, unit))
            }
            (State::HalfOpen, Verdict::Failure) => {
                slow.reopens = slow.reopens.saturating_add(1);
                Some(self.open(&slow, &rules, word, Cause::ProbeFailed, now, unit))
            }
            (State::HalfOpen, Verdict::Success) => {
                slow.succeeded += 1;
                (slow.succeeded >= rules.probes).then(|| self.close(&mut slow, word, Cause::ProbesSucceeded))
            }
            (State::HalfOpen, Verdict::Neutral) => {
                slow.taken -= 1;
                self.shut_until.store(slow.shut_until(&rules), Ordering::Release);
                None
            }
            (State::Closed | State::Open | State::Disabled, _) => None,
        }
    }

    /// Ends the streak of `seen`'s generation, unless a transition has done so.
    fn end_streak(&self, seen: Word) {
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let word = Word(word);
            (word.era() == seen.era() && word.streak() != 0).then(|| word.without_streak().0)
        });
    }

    fn open(&self, slow: &Slow, rules: &Rules, word: Word, cause: Cause, now: Tick, unit: f64) -> Transition {
        let until = now.after_nanos(rules.open_time_nanos(slow.reopens, unit));
        self.shut_until.store(until.as_nanos(), Ordering::Release);
        self.enter(word, State::Open, cause)
    }

    fn half_open(&self, slow: &mut Slow, word: Word, cause: Cause) -> Transition {
        (slow.taken, slow.succeeded, slow.lease_end) = (0, 0, Tick::ZERO);
        self.enter(word, State::HalfOpen, cause)
    }

    fn close(&self, slow: &mut Slow, word: Word, cause: Cause) -> Transition {
        slow.reopens = 0;
        self.window.clear();
        self.shut_until.store(0, Ordering::Release);
        self.enter(word, State::Closed, cause)
    }

    /// Begins a generation. Last of a transition's writes: who sees the new word sees what was written before it.
    fn enter(&self, word: Word, to: State, cause: Cause) -> Transition {
        let next = word.next(to);
        // A plain store would do (a streak's end that loses to it fails), but loom can't order one after a concurrent
        // compare-and-swap, and transitions are rare.
        self.word.swap(next.0, Ordering::AcqRel);
        Transition { from: word.state(), to, cause, generation: next.era().generation() }
    }
}

impl Slow {
    /// The value of [`Breaker::shut_until`] while half-open.
    fn shut_until(&self, rules: &Rules) -> u64 {
        if self.taken < rules.probes { 0 } else { self.lease_end.as_nanos() }
    }
}

fn admitted(word: Word, transition: Option<Transition>) -> Admitted {
    Admitted { permit: Permit { era: word.era() }, transition }
}
