//! What happens under the breaker's lock: failures, slow calls, probes, and every change of state.

use super::causes::{Causes, Told};
use super::machine::Breaker;
use super::pause::{After, Length};
use super::permit::{Admitted, Permit, Rejected, Verdict};
use super::rules::{Counted, Numbers};
use super::state::{Cause, Era, LONGEST_STREAK, State, Transition, Word};
use super::tally::Tally;
use super::trip::Tripper;
use super::window::Window;
use crate::outcome::Cause as FailureCause;
use crate::sync::Ordering;
use crate::time::Tick;

/// See [`Breaker::locked`](super::Breaker).
#[derive(Debug)]
pub(super) struct Locked {
    /// Without any, the state is disabled unless it is forced.
    pub(super) rules: Option<Numbers>,
    /// Decides when to open, in place of most rules.
    pub(super) trip: Option<Box<Tripper>>,
    pub(super) tally: Tally,
    /// Made with the first failure whose cause may be shared.
    causes: Option<Box<Causes>>,
    /// Somebody put the breaker in its state, and only that can end it.
    pub(super) forced: bool,
    /// Somebody said that nothing is to be rejected, whatever the rules say.
    pub(super) observed: bool,
    /// Failed recoveries since the breaker was last closed.
    pub(super) reopens: u16,
    /// Probes in a row that decided nothing, or left the next one to find out.
    undecided: u16,
    /// The number of the newest probe of this generation.
    newest: u16,
    /// Probes of lower numbers had gone alone and not answered for so long that another followed, whose their slot is.
    followed: u16,
    /// Probe slots taken in this generation, by probes under way or successful.
    pub(super) taken: u32,
    pub(super) succeeded: u32,
    /// When the probes under way stop holding their slots.
    pub(super) lease_end: Tick,
}

/// A call's result, on its way to be counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) era: Era,
    pub(super) verdict: Verdict,
    pub(super) cause: FailureCause,
    pub(super) took: u64,
    pub(super) now: Tick,
}

impl Locked {
    pub(super) fn new(rules: Option<Numbers>) -> Self {
        Self {
            rules,
            trip: None,
            tally: rules.as_ref().map(Tally::new).unwrap_or_default(),
            causes: None,
            forced: false,
            observed: false,
            reopens: 0,
            undecided: 0,
            newest: 0,
            followed: 0,
            taken: 0,
            succeeded: 0,
            lease_end: Tick::ZERO,
        }
    }

    /// Whether another probe would be one too many: one goes alone until one has succeeded.
    fn is_full(&self, rules: &Numbers) -> bool {
        self.taken >= if self.succeeded == 0 { 1 } else { rules.probes }
    }

    /// Probes in a row that came to nothing good.
    fn vain(&self) -> u32 {
        u32::from(self.reopens) + u32::from(self.undecided)
    }

    /// Gives the slot of the probe that is out to another.
    fn follow(&mut self) {
        self.taken -= 1;
        self.undecided = self.undecided.saturating_add(1);
        self.followed = self.newest.saturating_add(1);
    }

    /// Whether a closed breaker opens now that a call has been counted: why, and for how long.
    fn opening(
        &mut self,
        rules: &Numbers,
        call: Counted,
        now: Tick,
        unit: &mut dyn FnMut() -> f64,
    ) -> Option<(Cause, Length)> {
        match &mut self.trip {
            Some(trip) if call.failed => trip.failure(now).map(|time| (Cause::Tripped, Length::fixed(time))),
            Some(trip) => {
                trip.success(now);
                None
            }
            None => rules.broken_by(call).map(|cause| {
                let length = rules.pause(self.reopens.into(), unit());
                // It had closed because of heads whose bodies failed then: what that costs is no probe, but all calls until a body
                // fails again.
                let forward = if self.reopens == 0 { length.forward } else { 0 };
                (cause, Length { forward, ..length })
            }),
        }
    }

    /// Whether a failure tells of what has been counted.
    fn knows(&mut self, told: Told, window: &Window) -> bool {
        if told.cause == FailureCause::Own {
            return false;
        }
        let successes = || self.tally.totals(window, told.now).successes;
        self.causes.get_or_insert_default().is_known(told, successes)
    }

    /// For how long to open after a failed or slow probe.
    fn reopening(&mut self, rules: &Numbers, now: Tick, unit: &mut dyn FnMut() -> f64) -> Length {
        self.undecided = 0;
        self.reopens = self.reopens.saturating_add(1);
        let asked = self.trip.as_mut().and_then(|trip| trip.probe_failed(now));
        asked.map_or_else(|| rules.pause(self.reopens.into(), unit()), Length::fixed)
    }
}

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
        } else if !locked.is_full(&rules) {
            None
        } else if locked.succeeded == 0 && now < locked.lease_end {
            locked.follow();
            None
        } else {
            Some(self.half_open(&mut locked, word, Cause::ProbesExpired))
        };
        locked.taken += 1;
        locked.newest = locked.newest.saturating_add(1);
        locked.lease_end = locked.lease_end.max(now.after_nanos(rules.probe_timeout_nanos));
        self.pause.count_from(now);
        if locked.succeeded == 0 {
            self.pause.begin(now, rules.alone(locked.vain()), After::Departure);
        } else {
            self.offer_slots(&locked, &rules);
        }
        Ok(Admitted::as_probe(self.word(), locked.newest, transition))
    }

    /// A failure, a slow call, any outcome of a probe, which has a `number`; and whatever else can't be counted without the lock.
    #[cold]
    pub(super) fn settle(
        &self,
        call: Settled,
        number: u16,
        unit: &mut dyn FnMut() -> f64,
    ) -> Option<Transition> {
        let Settled { era, verdict, cause, took, now } = call;
        let mut locked = self.locked.lock();
        let word = self.word();
        // The state may have changed while this thread waited for the lock.
        if word.era() != era {
            return None;
        }
        let rules = locked.rules?;
        let told = Told { cause, took, now, streak: word.streak() };
        let known = verdict == Verdict::Failure && locked.knows(told, &self.window);
        let verdict = if known { Verdict::Neutral } else { verdict };
        let slow = rules.is_slow(took);
        let followed = number < locked.followed;
        match (word.state(), verdict) {
            (State::Closed | State::ForcedClosed, Verdict::Success | Verdict::Failure) => {
                let failed = verdict == Verdict::Failure;
                locked.tally.count(&self.window, failed, slow, now);
                let streak = self.count_streak(word, failed);
                if word.state() == State::ForcedClosed {
                    return None;
                }
                if (failed || slow) && self.bodies.in_a_row() == 0 {
                    locked.reopens = 0;
                }
                let window = locked.tally.totals(&self.window, now);
                let counted = Counted { failed, slow, streak, cold: window.successes == 0, window };
                let (cause, length) = locked.opening(&rules, counted, now, unit)?;
                self.pause.count_from(now);
                Some(self.open(word, cause, now, length))
            }
            // What it says of the time when it was sent, another is to say of a later one. Only a success says how the server is now.
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
                locked.undecided = 0;
                locked.taken += u32::from(followed);
                locked.succeeded += 1;
                let closed = locked.succeeded >= rules.probes;
                let transition = closed.then(|| self.close(&mut locked, word, Cause::ProbesSucceeded));
                if !closed {
                    self.offer_slots(&locked, &rules);
                }
                if let Some(trip) = &mut locked.trip {
                    trip.success(now);
                }
                transition
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

    /// The body of a call that was counted as a success `at` some time has failed.
    #[cold]
    pub(super) fn settle_body(
        &self,
        body: Settled,
        at: Tick,
        unit: &mut dyn FnMut() -> f64,
    ) -> Option<Transition> {
        let Settled { era, cause, now, .. } = body;
        let mut locked = self.locked.lock();
        let word = self.word();
        if word.era() != era {
            return None;
        }
        let rules = locked.rules?;
        let told = Told { cause, took: 0, now, streak: word.streak().max(self.bodies.in_a_row()) };
        if locked.knows(told, &self.window) {
            return None;
        }
        match word.state() {
            State::Closed | State::ForcedClosed => {
                locked.tally.revise(&self.window, at, now);
                let streak = self.bodies.failed();
                if streak == 1 {
                    // Bodies had ended well since it closed: the recovery was one.
                    locked.reopens = 0;
                }
                if word.state() == State::ForcedClosed {
                    return None;
                }
                let cold = rules.window_nanos().is_some_and(|window| self.bodies.is_cold(window, now));
                let window = locked.tally.totals(&self.window, now);
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

    /// Failures in a row, the call just counted being the last. Forced closed there may be any number: the field is kept
    /// from overflowing.
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
    pub(super) fn offer_slots(&self, locked: &Locked, rules: &Numbers) {
        if locked.is_full(rules) { self.pause.lease(locked.lease_end) } else { self.pause.end() }
    }

    fn half_open(&self, locked: &mut Locked, word: Word, cause: Cause) -> Transition {
        (locked.taken, locked.succeeded) = (0, 0);
        (locked.newest, locked.followed, locked.lease_end) = (0, 0, Tick::ZERO);
        self.enter(word, State::HalfOpen, cause)
    }

    /// To closed or, without rules, disabled, with nothing remembered: except, when only the heads of probes have said that all
    /// is well, that bodies kept failing. The next that does then opens it again, for longer.
    pub(super) fn close(&self, locked: &mut Locked, word: Word, cause: Cause) -> Transition {
        locked.forced = false;
        locked.undecided = 0;
        if cause != Cause::ProbesSucceeded {
            self.bodies.forget();
        }
        locked.reopens = if self.bodies.in_a_row() == 0 { 0 } else { locked.reopens.saturating_add(1) };
        locked.tally.clear(&self.window);
        if let Some(trip) = &mut locked.trip {
            trip.revived();
        }
        self.pause.end();
        let to = if locked.rules.is_some() { State::Closed } else { State::Disabled };
        self.enter(word, to, cause)
    }

    /// Begins a generation. Last of a transition's writes: who sees the new word sees what was written before it.
    pub(super) fn enter(&self, word: Word, to: State, cause: Cause) -> Transition {
        let next = word.next(to);
        // A plain store would do (a streak's end that loses to it fails), but loom can't order one after a concurrent
        // compare-and-swap, and transitions are rare.
        self.word.swap(next.0, Ordering::AcqRel);
        Transition { from: word.state(), to, cause, generation: next.era().generation() }
    }
}
