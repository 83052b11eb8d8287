//! The machine: what a call may do, and what its outcome changes.
//!
//! ```text
//! Closed ---- a rule is broken ------> Open        Open ------ open time elapsed --> HalfOpen
//! HalfOpen -- all probes succeeded --> Closed      HalfOpen -- a probe failed -----> Open
//! HalfOpen -- probes expired --------> HalfOpen (and from within it: a probe that succeeded lets the others go, one that
//!                                                decided nothing or doesn't answer holds the next back for a while)
//! any ------- rules taken away ------> Disabled    Disabled -- rules given --------> Closed
//! any ------- forced ----------------> ForcedOpen, ForcedClosed or Disabled
//! forced ---- released --------------> Closed      any ------- reset --------------> Closed
//! ```
//!
//! A closed breaker is read and counted without a lock. Failures, slow calls, probes and
//! transitions are rare, and take one: under it only this thread changes the state, while others
//! may still count successes and end the streak of failures.
//!
//! [`Breaker`] is one machine in three files, each the owner of one side of that lock:
//!
//! | file | what it does | lock |
//! |---|---|---|
//! | this one | what every call asks and reports | none |
//! | `transitions.rs` | failures, slow calls, probes; the only file that changes the state | held throughout |
//! | `control.rs` | new rules and an operator's commands, carried out by `transitions.rs` | held throughout |

use std::time::Duration;

use super::bodies::Bodies;
use super::compiled::Rules;
use super::locked_state::LockedState;
use super::pause::Pause;
use super::permit::{Admitted, BodyPermit, BodyResult, CallResult, Permit, Rejected, Snapshot};
use super::rules::{Numbers, Span};
use super::state::{State, Transition, Word};
use super::window::Window;
use crate::outcome::Verdict;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// A circuit breaker, shared by every call to one upstream.
#[derive(Debug)]
pub struct Breaker {
    /// A [`Word`]. Written under the lock, but for ending a streak.
    pub(super) word: AtomicU64,
    /// Until when nobody gets in while open or half-open. Lets a rejection do without the lock.
    pub(super) pause: Pause,
    /// The shortest open time, which is what a rejection tells of a wait nobody knows: for probes
    /// that are out, or forced open. In microseconds, at most 71 minutes.
    pub(super) hint: AtomicU32,
    /// A success that took this many nanoseconds or more is counted under the lock: slow ones or,
    /// at zero, all of them.
    pub(super) lock_from: AtomicU64,
    /// 1 if nothing is to be rejected.
    pub(super) observe_only: AtomicU32,
    pub(super) window: Window,
    pub(super) bodies: Bodies,
    /// What only failures, slow calls, probes and transitions touch: several numbers that must
    /// change together.
    pub(super) locked: Mutex<LockedState>,
}

/// What is known to whoever might send a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probing {
    /// Nothing: the last one failed or hasn't answered, or there was none.
    First,
    /// The last one decided nothing.
    Undecided,
    /// One has succeeded, and others are wanted.
    Recovering,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: Rules) -> Self {
        let Rules { numbers, trip, .. } = rules;
        let breaker = Self::with(Some(numbers), State::Closed);
        if let Some(trip) = trip.and_then(|factory| factory.make()) {
            let mut locked = breaker.locked.lock();
            locked.trip = Some(trip);
            breaker.publish(&locked);
        }
        breaker
    }

    /// A breaker that admits everything and counts nothing, until [`set_rules`](Self::set_rules)
    /// gives it rules.
    pub fn disabled() -> Self {
        Self::with(None, State::Disabled)
    }

    fn with(rules: Option<Numbers>, state: State) -> Self {
        let span = rules.map_or(Span::Calls(1), |rules| rules.span);
        let breaker = Self {
            word: AtomicU64::new(Word::first(state).0),
            pause: Pause::default(),
            hint: AtomicU32::new(0),
            lock_from: AtomicU64::new(u64::MAX),
            observe_only: AtomicU32::new(0),
            window: Window::new(span.bucket_nanos()),
            bodies: Bodies::default(),
            locked: Mutex::new(LockedState::new(rules)),
        };
        breaker.publish(&breaker.locked.lock());
        breaker
    }

    /// Asks whether a call may be made. The first to ask after the open time turns the breaker
    /// half-open and is its first probe.
    ///
    /// # Errors
    /// [`Rejected`] while open, and while half-open with every probe slot taken; never with
    /// [`observe_only`](super::BreakerPolicy::observe_only).
    pub fn try_acquire(&self, now: Tick) -> Result<Admitted, Rejected> {
        let word = self.word();
        if word.admits() {
            return Ok(Admitted::plainly(word, None));
        }
        match self.shut_for(word, now) {
            Some(rejected) => self.refuse(word, rejected),
            None => self.acquire_probe(now),
        }
    }

    /// Whether [`try_acquire`](Self::try_acquire) would reject now, and for how long. Changes
    /// nothing and promises nothing.
    pub fn rejects_now(&self, now: Tick) -> Option<Rejected> {
        if self.only_observes() { None } else { self.would_reject(now) }
    }

    /// The same of one that only observes: whether it would, did it what it says.
    pub(crate) fn would_reject(&self, now: Tick) -> Option<Rejected> {
        let word = self.word();
        if word.admits() { None } else { self.shut_for(word, now) }
    }

    /// Reports how a call ended. A result from another generation is ignored.
    ///
    /// `unit`, uniform in [0, 1), spreads the open time. It is asked for only when the breaker
    /// opens.
    #[allow(clippy::needless_pass_by_value, reason = "a permit is spent by recording it")]
    pub fn record(
        &self,
        permit: Permit,
        result: CallResult,
        now: Tick,
        unit: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        let word = self.word();
        if word.era() != permit.era() {
            return None;
        }
        if word.counts() {
            match result.verdict {
                Verdict::Neutral => return None,
                Verdict::Success => {
                    if self.count_freely(word, result.took_nanos, now) {
                        return None;
                    }
                }
                Verdict::Failure => {}
            }
        } else if word.state() != State::HalfOpen {
            return None;
        }
        self.settle(&permit, result, now, &mut at_most_once(unit))
    }

    /// Gives back the leave of a call that was never sent. Nobody was asked, so nothing is left
    /// undecided: a probe's slot is free again at once.
    #[allow(clippy::needless_pass_by_value, reason = "a permit is spent by giving it back")]
    pub fn release(&self, permit: Permit) {
        if permit.is_probe() && self.word().era() == permit.era() {
            self.free_slot(&permit);
        }
    }

    /// Reports how the body of a call ended whose head was recorded as a success. One that failed
    /// takes that success back, and opens a breaker that is half-open. A result from another
    /// generation is ignored.
    #[allow(clippy::needless_pass_by_value, reason = "a permit is spent by recording it")]
    pub fn record_body(
        &self,
        permit: BodyPermit,
        result: BodyResult,
        now: Tick,
        unit: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        let word = self.word();
        if word.era() != permit.era || !(word.counts() || word.state() == State::HalfOpen) {
            return None;
        }
        match result.verdict {
            Verdict::Success => {
                self.bodies.ended_well(now);
                None
            }
            Verdict::Failure => self.settle_body(&permit, result, now, &mut at_most_once(unit)),
            Verdict::Neutral => None,
        }
    }

    /// Counts a success without the lock; false, and nothing counted, if that takes one.
    fn count_freely(&self, word: Word, took: u64, now: Tick) -> bool {
        if took >= self.lock_from.load(Ordering::Relaxed) || self.window.success(now).is_err() {
            return false;
        }
        if word.streak() != 0 {
            self.end_streak(word);
        }
        true
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.word().state()
    }

    /// The state and counts at `now`, for people and gauges.
    pub fn snapshot(&self, now: Tick) -> Snapshot {
        let locked = self.locked.lock();
        let word = self.word();
        let window = locked.counts.totals(&self.window, now);
        let state = word.state();
        let open_for = if state == State::Open { self.shut_for(word, now) } else { None };
        Snapshot {
            state,
            forced: locked.forced,
            held: locked.held(state),
            observe_only: self.only_observes(),
            generation: word.era().generation(),
            failures: window.failures,
            successes: window.successes,
            slow: window.slow,
            streak: word.streak(),
            open_for: open_for.and_then(|open| open.retry_after).unwrap_or_default(),
            reopens: locked.reopens.into(),
            probes: if state == State::HalfOpen { locked.taken - locked.succeeded } else { 0 },
        }
    }

    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Whether it lets every call through.
    pub(crate) fn takes_any(&self) -> bool {
        match self.state() {
            State::Closed | State::Disabled | State::ForcedClosed => true,
            State::Open | State::HalfOpen | State::ForcedOpen => self.only_observes(),
        }
    }

    pub(crate) fn only_observes(&self) -> bool {
        self.observe_only.load(Ordering::Relaxed) != 0
    }

    /// Turns a call away or, observing only, lets it go uncounted.
    pub(super) fn refuse(&self, word: Word, rejected: Rejected) -> Result<Admitted, Rejected> {
        self.turn_away();
        if self.only_observes() { Ok(Admitted::all_the_same(word, rejected)) } else { Err(rejected) }
    }

    /// How long a breaker that is open, by force or not, or half-open surely admits no one; `None`
    /// if someone might get in. When the state changes between the loads the wait may be the other
    /// state's: it is advice, and no admission rests on it.
    pub(super) fn shut_for(&self, word: Word, now: Tick) -> Option<Rejected> {
        if word.state() == State::ForcedOpen {
            return Some(Rejected { retry_after: None });
        }
        let hint = u64::from(self.hint.load(Ordering::Relaxed)) * 1000;
        let left = self.pause.left(now, hint)?;
        Some(Rejected { retry_after: Some(Duration::from_nanos(left)) })
    }

    /// What is known to whoever might send a probe now. Like [`rejects_now`](Self::rejects_now)
    /// this is advice.
    pub(crate) fn probing(&self) -> Probing {
        if self.word().state() != State::HalfOpen {
            Probing::First
        } else if self.pause.is_over() {
            Probing::Recovering
        } else if self.pause.is_undecided() {
            Probing::Undecided
        } else {
            Probing::First
        }
    }

    /// Whether a probe has succeeded, and the others are out: when to look again unless they are
    /// decided before, zero once they have expired and a call may go in their place. Like
    /// [`rejects_now`](Self::rejects_now) this is advice.
    pub(crate) fn recovers(&self, now: Tick) -> Option<Duration> {
        let recovers = self.word().state() == State::HalfOpen && self.pause.is_proven();
        let left = || self.rejects_now(now).and_then(|rejected| rejected.retry_after);
        recovers.then(|| left().unwrap_or_default())
    }

    /// A call went without asking, because [`rejects_now`](Self::rejects_now) said so.
    pub(crate) fn turn_away(&self) {
        self.pause.turn_away();
    }

    /// Ends the streak of `seen`'s generation, unless a transition has done so.
    pub(super) fn end_streak(&self, seen: Word) {
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let word = Word(word);
            (word.era() == seen.era() && word.streak() != 0).then(|| word.without_streak().0)
        });
    }

    /// What calls read of the rules without the lock.
    pub(super) fn publish(&self, locked: &LockedState) {
        let rules = locked.rules.as_ref();
        let lock_from = match rules {
            Some(Numbers { span: Span::Time { .. }, slow_nanos, .. }) if locked.trip.is_none() => {
                slow_nanos.saturating_add(1)
            }
            Some(_) | None => 0,
        };
        self.lock_from.store(lock_from, Ordering::Relaxed);
        let hint = rules.map_or(Numbers::HINT_WITHOUT, |rules| rules.open_nanos).div_ceil(1000);
        self.hint.store(u32::try_from(hint).unwrap_or(u32::MAX), Ordering::Relaxed);
        let observes = locked.observed || rules.is_some_and(|rules| rules.observe_only);
        self.observe_only.store(observes.into(), Ordering::Relaxed);
    }
}

/// Chance is asked for once, by whatever opens a breaker; asked again it would say the middle.
fn at_most_once(unit: impl FnOnce() -> f64) -> impl FnMut() -> f64 {
    let mut unit = Some(unit);
    move || unit.take().map_or(0.5, |unit| unit())
}
