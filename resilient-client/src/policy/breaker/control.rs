//! What people do to a breaker: new rules, and an operator's commands. `Breaker`'s part of it says
//! under the lock what state to go to; [`transitions`](super::transitions) goes there.

use std::fmt;

use super::compiled::Rules;
use super::custom_trip::TripFactory;
use super::locked_state::LockedState;
use super::machine::Breaker;
use super::state::{Cause, State, Transition};

/// Something an operator tells a breaker. New rules don't undo it; [`Enable`](Self::Enable) and
/// [`Reset`](Self::Reset) do.
///
/// The last word counts: who forces a breaker that was told to observe ends that. Each but
/// [`Observe`](Self::Observe) begins a generation, so the results of calls under way no longer
/// count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Control {
    /// Reject every call. Where the policy only observes, say so of every call.
    ForceOpen,
    /// Admit every call, and count it.
    ForceClosed,
    /// Admit every call, and count nothing.
    Disable,
    /// Reject nothing, and go on counting and judging as if it did, as
    /// [`observe_only`](super::BreakerPolicy::observe_only) does. The state stays what it is, so
    /// this begins no generation and is no transition.
    Observe,
    /// Lift any of these: a breaker that was forced or disabled is closed, has counted nothing, and
    /// follows its rules again.
    Enable,
    /// The same, whatever state it is in: as if it had just been made.
    Reset,
}

impl Control {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::ForceOpen, Self::ForceClosed, Self::Disable, Self::Observe, Self::Enable, Self::Reset];

    /// A short fixed name for paths, labels and logs: the variant's name in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForceOpen => "force_open",
            Self::ForceClosed => "force_closed",
            Self::Disable => "disable",
            Self::Observe => "observe",
            Self::Enable => "enable",
            Self::Reset => "reset",
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl LockedState {
    /// The operator's word that is in force.
    pub(super) fn held(&self, state: State) -> Option<Control> {
        match state {
            _ if self.observed => Some(Control::Observe),
            State::ForcedOpen => Some(Control::ForceOpen),
            State::ForcedClosed => Some(Control::ForceClosed),
            State::Disabled if self.forced => Some(Control::Disable),
            State::Disabled | State::Closed | State::Open | State::HalfOpen => None,
        }
    }
}

impl Breaker {
    /// Does as an operator says. `None` when that is no change of state.
    pub fn control(&self, control: Control) -> Option<Transition> {
        let mut locked = self.locked.lock();
        let word = self.word();
        let state = match control {
            Control::ForceOpen => State::ForcedOpen,
            Control::ForceClosed => State::ForcedClosed,
            Control::Disable => State::Disabled,
            Control::Observe => {
                locked.observed = true;
                self.publish(&locked);
                return None;
            }
            Control::Enable => {
                self.end_observation(&mut locked);
                return locked.forced.then(|| self.close(&mut locked, word, Cause::Released));
            }
            Control::Reset => {
                self.end_observation(&mut locked);
                return Some(self.close(&mut locked, word, Cause::Reset));
            }
        };
        // Before the state: forced open it is to reject.
        self.end_observation(&mut locked);
        let was_forced = std::mem::replace(&mut locked.forced, true);
        if was_forced && word.state() == state {
            return None;
        }
        Some(self.enter(word, state, Cause::Forced))
    }

    fn end_observation(&self, locked: &mut LockedState) {
        locked.observed = false;
        self.publish(locked);
    }

    /// Whether an operator's word is in force.
    pub(crate) fn is_held(&self) -> bool {
        let locked = self.locked.lock();
        locked.forced || locked.observed
    }

    /// Changes the rules, the rule of one's own among them, and keeps the state; `None` disables
    /// the breaker. No call sees the one without the other.
    ///
    /// A half-open breaker of which as many probes have succeeded as these ask for closes. The
    /// window is emptied when it becomes one of another kind or length. An opening under way keeps
    /// its length. A breaker that had no rules starts closed. One that somebody [forced](Control)
    /// stays as it is, and follows the new rules when that is lifted. A rule of one's own that is
    /// there already goes on with what it knows.
    ///
    /// Calls to this must not overlap one another; they may overlap anything else.
    pub fn set_rules(&self, rules: Option<Rules>) -> Option<Transition> {
        let (rules, factory) = rules.map_or((None, None), |rules| (Some(rules.numbers), rules.trip));
        let differs = factory.as_ref() != self.locked.lock().trip.as_ref().map(|trip| trip.made_by());
        // Outside the lock: it is the user's code.
        let trip = differs.then(|| factory.as_ref().and_then(TripFactory::make));
        // Dropped after the lock, for the same reason.
        let _replaced;
        let mut locked = self.locked.lock();
        let word = self.word();
        let before = std::mem::replace(&mut locked.rules, rules);
        _replaced = trip.map(|trip| std::mem::replace(&mut locked.trip, trip));
        self.publish(&locked);
        let Some(rules) = rules else {
            locked.counts.clear(&self.window);
            let loses_rules = before.is_some() && !locked.forced;
            return loses_rules.then(|| self.enter(word, State::Disabled, Cause::RulesChanged));
        };
        locked.counts.follow(&rules);
        if before.is_none_or(|before| before.span != rules.span) {
            self.window.resize(rules.span.bucket_nanos());
            locked.counts.clear(&self.window);
        }
        if before.is_none() && !locked.forced {
            return Some(self.close(&mut locked, word, Cause::RulesChanged));
        }
        if word.state() == State::HalfOpen {
            if locked.succeeded >= rules.probes {
                return Some(self.close(&mut locked, word, Cause::ProbesSucceeded));
            }
            if !self.pause.is_one() {
                self.offer_slots(&locked, &rules);
            }
        }
        None
    }
}
