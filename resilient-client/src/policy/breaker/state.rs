//! The states, the word that holds one, and what a change of state says.

use std::fmt;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass and their outcomes are counted.
    Closed = 0,
    /// Calls are rejected until the open time has passed.
    Open = 3,
    /// A few calls, the probes, pass; their outcomes decide.
    HalfOpen = 4,
    /// Calls pass and nothing is counted: there are no rules, or somebody switched it off.
    Disabled = 2,
    /// Somebody opened it: calls are rejected until that is lifted.
    ForcedOpen = 5,
    /// Somebody closed it: calls pass and are counted, and nothing opens it until that is lifted.
    ForcedClosed = 1,
}

impl State {
    /// A short fixed name for labels and logs: the variant's name in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a breaker changed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Closed to open: too large a share of the window's calls had failed.
    #[non_exhaustive]
    FailureRate {
        /// Failures in the window, this one included.
        failures: u32,
        /// Calls in the window.
        calls: u32,
    },
    /// Closed to open: this many calls had failed in a row.
    ConsecutiveFailures(u32),
    /// Closed to open: this many calls had failed in a row and the window held no success.
    ColdFailures(u32),
    /// Closed to open: too large a share of the window's calls was slow.
    #[non_exhaustive]
    SlowRate {
        /// Slow calls in the window, this one included.
        slow: u32,
        /// Calls in the window.
        calls: u32,
    },
    /// Closed to open: the user's own [`Trip`](super::Trip) said so.
    Tripped,
    /// Open to half-open: a call came after the open time.
    OpenTimeElapsed,
    /// Half-open to closed: every probe succeeded.
    ProbesSucceeded,
    /// Half-open to open: a probe failed.
    ProbeFailed,
    /// Half-open to open: a probe succeeded, but took too long.
    ProbeSlow,
    /// Half-open to half-open, with fresh probe slots: the probes out had not answered in time.
    ProbesExpired,
    /// To or from disabled: the rules changed.
    RulesChanged,
    /// To forced open, forced closed or disabled: somebody said so.
    Forced,
    /// From such a state to closed, or to disabled without rules: somebody lifted it.
    Released,
    /// To closed, or to disabled without rules, with nothing remembered: somebody said so.
    Reset,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailureRate { failures, calls } => write!(f, "{failures} of the last {calls} calls failed"),
            Self::ConsecutiveFailures(n) => write!(f, "{n} calls failed in a row"),
            Self::ColdFailures(n) => write!(f, "{n} calls failed in a row and none had succeeded lately"),
            Self::SlowRate { slow, calls } => write!(f, "{slow} of the last {calls} calls were slow"),
            Self::Tripped => f.write_str("the user's own rule tripped it"),
            Self::OpenTimeElapsed => f.write_str("open time elapsed"),
            Self::ProbesSucceeded => f.write_str("every probe succeeded"),
            Self::ProbeFailed => f.write_str("a probe failed"),
            Self::ProbeSlow => f.write_str("a probe was slow"),
            Self::ProbesExpired => f.write_str("the probes did not answer in time"),
            Self::RulesChanged => f.write_str("the rules changed"),
            Self::Forced => f.write_str("forced by hand"),
            Self::Released => f.write_str("no longer forced"),
            Self::Reset => f.write_str("reset by hand"),
        }
    }
}

/// A change of state. Exactly one caller gets to see each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state left.
    pub from: State,
    /// The state entered.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// The generation that begins with it.
    pub generation: u64,
}

/// The breaker's state in one word, so that a call learns all it needs from one load:
///
/// ```text
/// 63..61   60..21       20..0
/// state    generation   failures in a row
/// ```
///
/// Every transition begins a generation, so equal upper bits (an [`Era`]) mean nothing has happened
/// in between. The generation wraps after 2^40 transitions, 34 years of one a millisecond. Six
/// numbers of states are in use, one is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

/// A [`Word`] without its streak: one state and one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era(u64);

const STREAK_BITS: u32 = 21;
const STREAK: u64 = (1 << STREAK_BITS) - 1;
const GENERATION: u64 = (1 << 40) - 1;
const STATE_SHIFT: u32 = 40;
/// The states by their numbers. Those that admit every call come first, and of these the ones that
/// count: to ask is one comparison.
const BY_NUMBER: [State; 6] =
    [State::Closed, State::ForcedClosed, State::Disabled, State::Open, State::HalfOpen, State::ForcedOpen];
const DISABLED: u64 = State::Disabled as u64;
const NO_STATE: u64 = 7;

/// The longest streak a rule may ask for; the field holds twice that, so counting one by one can't
/// overflow it.
pub(super) const LONGEST_STREAK: u32 = 1_000_000;

impl Word {
    pub(super) const fn first(state: State) -> Self {
        Self(Era::new(state, 0).0 << STREAK_BITS)
    }

    /// The next generation, in `state`, with no failures in a row.
    pub(super) const fn next(self, state: State) -> Self {
        Self(Era::new(state, self.era().generation() + 1).0 << STREAK_BITS)
    }

    pub(super) const fn era(self) -> Era {
        Era(self.0 >> STREAK_BITS)
    }

    pub(super) const fn state(self) -> State {
        self.era().state()
    }

    /// Closed, forced closed or disabled: every call passes.
    pub(super) const fn admits(self) -> bool {
        self.era().number() <= DISABLED
    }

    /// Closed, forced or not: outcomes are counted.
    pub(super) const fn counts(self) -> bool {
        self.era().number() < DISABLED
    }

    pub(super) const fn streak(self) -> u32 {
        (self.0 & STREAK) as u32
    }

    pub(super) const fn without_streak(self) -> Self {
        Self(self.0 & !STREAK)
    }

    pub(super) const fn with_streak(self, streak: u32) -> Self {
        Self(self.without_streak().0 | streak as u64 & STREAK)
    }

    /// This generation, but in no state a breaker can be in: what bears it never counts.
    pub(super) const fn uncounted(self) -> Self {
        Self(self.era().uncounted().0 << STREAK_BITS)
    }
}

impl Era {
    const fn new(state: State, generation: u64) -> Self {
        Self(((state as u64) << STATE_SHIFT) | (generation & GENERATION))
    }

    const fn uncounted(self) -> Self {
        Self((NO_STATE << STATE_SHIFT) | self.generation())
    }

    pub(super) const fn state(self) -> State {
        let number = self.number() as usize;
        if number < BY_NUMBER.len() { BY_NUMBER[number] } else { State::Disabled }
    }

    const fn number(self) -> u64 {
        self.0 >> STATE_SHIFT
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 & GENERATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [State; 6] = BY_NUMBER;

    #[test]
    fn each_state_stands_at_its_number() {
        assert!(ALL.iter().enumerate().all(|(number, state)| *state as usize == number));
    }

    #[test]
    fn a_word_gives_back_what_was_put_in() {
        for state in ALL {
            let word = Word(Word::first(State::Closed).next(state).0 + 7);
            assert_eq!((word.state(), word.era().generation(), word.streak()), (state, 1, 7));
            assert_eq!(word.without_streak().era(), word.era());
            assert_eq!(word.without_streak().streak(), 0);
            let counts = matches!(state, State::Closed | State::ForcedClosed);
            assert_eq!((word.counts(), word.admits()), (counts, counts || state == State::Disabled));
        }
    }

    #[test]
    fn what_does_not_count_is_in_no_era() {
        for era in ALL.map(|state| Era::new(state, 5)) {
            assert!(ALL.iter().all(|state| Era::new(*state, 5) != era.uncounted()));
            assert_eq!((era.uncounted().generation(), era.uncounted().state()), (5, State::Disabled));
        }
    }

    #[test]
    fn the_generation_wraps_without_touching_the_state() {
        let last = Word(Era::new(State::HalfOpen, GENERATION).0 << STREAK_BITS);
        let word = last.next(State::Open);
        assert_eq!((word.state(), word.era().generation(), word.streak()), (State::Open, 0, 0));
    }

    #[test]
    fn the_longest_streak_stays_clear_of_the_generation() {
        assert!(u64::from(LONGEST_STREAK) * 2 < STREAK);
    }
}
