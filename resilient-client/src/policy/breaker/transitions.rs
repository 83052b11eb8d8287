//! What happens under the breaker's lock: failures, slow calls, probes, and every change of state.
//! Nothing but this file writes the state; [`machine`](super::machine) says what the other files of
//! the breaker do.

use super::causes::SeenFailure;
use super::machine::Breaker;
use super::pause::{After, Length};
use super::permit::{Admitted, BodyPermit, BodyResult, CallResult, Permit, Rejected};
use super::rules::{Counted, Numbers};
use super::state::{Cause, LONGEST_STREAK, State, Transition, Word};
use crate::outcome::Verdict;
use crate::policy::breaker::locked_state::LockedState;
use crate::sync::Ordering;
use crate::time::Tick;

impl Breaker {
    #[cold]
    pub(super) fn acquire_probe(&self, now: Tick) -> Result<Admitted, Rejected> {
        let mut locked = self.locked.lock();
        let word = self.word();
        if word.admits() {
            // Someone else got here first and the news was good.
            return Ok(Admitted::plainly(word, None));
        }
        if let Some(retry_after) = self.shut_for(word, now) {
            return self.refuse(word, retry_after);
        }
        // Open and half-open there are always rules.
        let Some(rules) = locked.rules else { return Ok(Admitted::plainly(word, None)) };
        let transition = if word.state() == State::Open {
            Some(self.half_open(&mut locked, word, Cause::OpenTimeElapsed))
        } else if locked.makes_room(&rules, now) {
            None
        } else {
            Some(self.half_open(&mut locked, word, Cause::ProbesExpired))
        };
        locked.taken += 1;
        locked.newest = locked.newest.saturating_add(1);
        locked.lease_end = locked.lease_end.max(now.after_nanos(rules.probe_timeout_nanos));
        self.pause.count_from(now);
        if locked.succeeded == 0 && locked.trip.is_none() {
            self.pause.begin(now, rules.alone(locked.vain()), After::Departure);
        } else {
            self.offer_slots(&locked, &rules);
        }
        Ok(Admitted::as_probe(self.word(), locked.newest, transition))
    }

    /// A failure, a slow call, any outcome of a probe; and whatever else can't be counted without
    /// the lock.
    #[cold]
    pub(super) fn settle(
        &self,
        permit: &Permit,
        result: CallResult,
        now: Tick,
        unit: &mut dyn FnMut() -> f64,
    ) -> Option<Transition> {
        let CallResult { verdict, cause, took_nanos: took } = result;
        let mut locked = self.locked.lock();
        let word = self.word();
        // The state may have changed while this thread waited for the lock.
        if word.era() != permit.era() {
            return None;
        }
        let rules = locked.rules?;
        let seen = SeenFailure { cause, took, now, streak: word.streak() };
        let known = verdict == Verdict::Failure && locked.knows(seen, &self.window);
        let verdict = if known { Verdict::Neutral } else { verdict };
        let slow = rules.is_slow(took);
        let followed = permit.number() < locked.followed;
        match (word.state(), verdict) {
            (State::Closed | State::ForcedClosed, Verdict::Success | Verdict::Failure) => {
                let failed = verdict == Verdict::Failure;
                locked.counts.count(&self.window, failed, slow, now);
                let streak = self.count_streak(word, failed);
                if word.state() == State::ForcedClosed {
                    return None;
                }
                if (failed || slow) && self.bodies.in_a_row() == 0 {
                    locked.reopens = 0;
                }
                let window = locked.counts.totals(&self.window, now);
                let counted = Counted { failed, slow, streak, cold: window.successes == 0, window };
                let (cause, length) = locked.opening(&rules, counted, now, unit)?;
                self.pause.count_from(now);
                Some(self.open(word, cause, now, length))
            }
            // What it says of the time when it was sent, another is to say of a later one. Only a
            // success says how the server is now.
            (State::HalfOpen, _) if followed && (slow || verdict != Verdict::Success) => None,
            (State::HalfOpen, Verdict::Failure) => {
                let length = locked.reopening(&rules, now, unit);
                Some(self.open(word, Cause::ProbeFailed, now, length))
            }
            (State::HalfOpen, Verdict::Success) if slow => {
                let length = locked.reopening(&rules, now, unit);
                Some(self.open(word, Cause::ProbeSlow, now, length))
            }
            (State::HalfOpen, Verdict::Success) => {
                locked.taken += u32::from(followed);
                self.probe_succeeded(&mut locked, &rules, word, now)
            }
            (State::HalfOpen, Verdict::Neutral) => {
                locked.taken -= 1;
                self.pause.begin(now, rules.pause(locked.vain(), unit()), After::Undecided);
                locked.undecided = locked.undecided.saturating_add(1);
                None
            }
            (State::Closed | State::ForcedClosed, Verdict::Neutral)
            | (State::Open | State::ForcedOpen | State::Disabled, _) => None,
        }
    }

    /// Closes if it was the last success it takes, and lets the next probe in otherwise.
    fn probe_succeeded(
        &self,
        locked: &mut LockedState,
        rules: &Numbers,
        word: Word,
        now: Tick,
    ) -> Option<Transition> {
        locked.undecided = 0;
        locked.succeeded += 1;
        let closed = locked.succeeded >= rules.probes;
        let transition = closed.then(|| self.close(locked, word, Cause::ProbesSucceeded));
        if !closed {
            self.offer_slots(locked, rules);
        }
        if let Some(trip) = &mut locked.trip {
            trip.success(now);
        }
        transition
    }

    /// A probe was none.
    #[cold]
    pub(super) fn free_slot(&self, probe: &Permit) {
        let mut locked = self.locked.lock();
        if self.word().era() != probe.era() || probe.number() < locked.followed {
            return;
        }
        locked.taken -= 1;
        if let Some(rules) = locked.rules
            && !self.pause.is_undecided()
        {
            self.offer_slots(&locked, &rules);
        }
    }

    /// The body of a call whose head was counted as a success has failed.
    #[cold]
    pub(super) fn settle_body(
        &self,
        permit: &BodyPermit,
        result: BodyResult,
        now: Tick,
        unit: &mut dyn FnMut() -> f64,
    ) -> Option<Transition> {
        let BodyResult { cause, head_at: at, .. } = result;
        let mut locked = self.locked.lock();
        let word = self.word();
        if word.era() != permit.era {
            return None;
        }
        let rules = locked.rules?;
        let seen = SeenFailure { cause, took: 0, now, streak: word.streak().max(self.bodies.in_a_row()) };
        if locked.knows(seen, &self.window) {
            // It counts for nothing, and its head said nothing of how it would end.
            if word.counts() {
                locked.counts.take_back(&self.window, at);
            }
            return None;
        }
        match word.state() {
            State::Closed | State::ForcedClosed => {
                locked.counts.revise(&self.window, at, now);
                let streak = self.bodies.failed();
                if streak == 1 {
                    // Bodies had ended well since it closed: the recovery was one.
                    locked.reopens = 0;
                }
                if word.state() == State::ForcedClosed {
                    return None;
                }
                let cold = rules.window_nanos().is_some_and(|window| self.bodies.is_cold(window, now));
                let window = locked.counts.totals(&self.window, now);
                let counted = Counted { failed: true, slow: false, streak, cold, window };
                let (cause, length) = locked.opening(&rules, counted, now, unit)?;
                self.pause.count_from(now);
                Some(self.open(word, cause, now, length))
            }
            State::HalfOpen => {
                self.bodies.failed();
                let length = locked.reopening(&rules, now, unit);
                Some(self.open(word, Cause::ProbeFailed, now, length))
            }
            State::Open | State::ForcedOpen | State::Disabled => None,
        }
    }

    /// Failures in a row, the call just counted being the last. Forced closed there may be any
    /// number: the field is kept from overflowing.
    fn count_streak(&self, word: Word, failed: bool) -> u32 {
        if !failed {
            if word.streak() != 0 {
                self.end_streak(word);
            }
            return 0;
        }
        if word.streak() >= LONGEST_STREAK {
            return word.streak();
        }
        Word(self.word.fetch_add(1, Ordering::AcqRel)).streak() + 1
    }

    fn open(&self, word: Word, cause: Cause, now: Tick, length: Length) -> Transition {
        self.pause.begin(now, length, After::Opening);
        self.enter(word, State::Open, cause)
    }

    /// Lets a probe in if there is a slot for it.
    pub(super) fn offer_slots(&self, locked: &LockedState, rules: &Numbers) {
        if locked.is_full(rules) {
            self.pause.lease(locked.lease_end, locked.succeeded > 0);
        } else {
            self.pause.end();
        }
    }

    fn half_open(&self, locked: &mut LockedState, word: Word, cause: Cause) -> Transition {
        (locked.taken, locked.succeeded) = (0, 0);
        (locked.newest, locked.followed, locked.lease_end) = (0, 0, Tick::ZERO);
        self.enter(word, State::HalfOpen, cause)
    }

    /// To closed or, without rules, disabled, with nothing remembered: except, when only the heads
    /// of probes have said that all is well, that bodies kept failing. The next that does then
    /// opens it again, for longer.
    pub(super) fn close(&self, locked: &mut LockedState, word: Word, cause: Cause) -> Transition {
        locked.forced = false;
        locked.undecided = 0;
        if cause != Cause::ProbesSucceeded {
            self.bodies.forget();
        }
        locked.reopens = if self.bodies.in_a_row() == 0 { 0 } else { locked.reopens.saturating_add(1) };
        locked.counts.clear(&self.window);
        if let Some(trip) = &mut locked.trip {
            trip.recovered();
        }
        self.pause.end();
        let to = if locked.rules.is_some() { State::Closed } else { State::Disabled };
        self.enter(word, to, cause)
    }

    /// Begins a generation. Last of a transition's writes: who sees the new word sees what was
    /// written before it.
    pub(super) fn enter(&self, word: Word, to: State, cause: Cause) -> Transition {
        let next = word.next(to);
        // A plain store would do (a streak's end that loses to it fails), but loom can't order one
        // after a concurrent compare-and-swap, and transitions are rare.
        self.word.swap(next.0, Ordering::AcqRel);
        Transition { from: word.state(), to, cause, generation: next.era().generation() }
    }
}
