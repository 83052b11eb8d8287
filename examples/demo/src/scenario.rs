//! What a scenario is: plain data. `scenario/table.rs` has all of them; `stage.rs` plays any of
//! them.

mod table;

use std::time::Duration;

pub(crate) use self::table::{ISOLATION, REPLICAS, SCENARIOS};

use crate::faults::Faults;
use crate::naive::Naive;
use crate::parts::Part;
use crate::rules::Rule;

/// One story about two order-services and the user-services that they ask.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// On the command line.
    pub(crate) name: &'static str,
    /// One line for `--list`.
    pub(crate) about: &'static str,
    /// What is asked at the end...
    pub(crate) question: &'static str,
    /// ...and what held, or did not.
    pub(crate) claim: &'static str,
    /// How many user-services there are.
    pub(crate) user_services: usize,
    /// Whether a service stands in front of each order-service.
    pub(crate) gateway: bool,
    /// Whether the order-services follow user-service's events, too.
    pub(crate) streams: bool,
    /// Whether user-service publishes what happens to users, and the resilient order-service keeps
    /// a copy of them.
    pub(crate) broker: bool,
    /// What they suffer from the first moment on, and whenever they are started.
    pub(crate) always: Faults,
    /// Sent to each order-service in a second, unless the command line says otherwise.
    pub(crate) orders: u32,
    pub(crate) reads: u32,
    pub(crate) columns: Columns,
    /// The naive client, unless the command line says otherwise.
    pub(crate) naive: Naive,
    /// What the resilient order-service does without, so that the rest is seen.
    pub(crate) off: &'static [Part],
    pub(crate) phases: &'static [Phase],
    /// What must hold for the resilient order-service.
    pub(crate) rules: &'static [Rule],
    /// What must not hold for the naive one.
    pub(crate) control: Control,
    /// Without all of any one of these, some rule must fail.
    pub(crate) shows: &'static [&'static [Part]],
}

/// What a line a second has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Reads and the circuit breaker.
    Reads,
    /// The calls of both, by user-service.
    Calls,
    /// The event streams of both.
    Streams,
}

/// What shows that the rules can fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    /// The naive twin breaks a rule.
    Fails,
    /// The naive twin settles less than this share of its orders at the end of a phase.
    Collapses { phase: &'static str, below: f64 },
}

/// A part of a scenario, during which the same is wrong.
#[derive(Debug)]
pub(crate) struct Phase {
    /// At most 8 characters.
    pub(crate) name: &'static str,
    /// What is done, in at most 75 characters.
    pub(crate) says: &'static str,
    pub(crate) mood: Mood,
    /// How long it takes, in seconds...
    pub(crate) full: u64,
    /// ...and with `--quick`.
    pub(crate) quick: u64,
    /// It goes on for up to so many more...
    pub(crate) more: More,
    pub(crate) steps: &'static [(At, Act)],
}

/// How bad things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Some calls fail or are slow.
    Hurt,
    /// None is answered.
    Down,
    /// All is well again.
    Back,
}

/// What a phase waits for when its time is over, for so many seconds at most (with `--quick`,
/// half).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    Nothing,
    /// Until no order is pending.
    UntilResolved {
        at_most: u64,
    },
    /// Until the resilient order-service has called this user-service.
    UntilCalled {
        user_service: usize,
        at_most: u64,
    },
}

/// When something is done in a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Start,
    /// So many milliseconds after its start.
    After(u64),
    /// So many seconds before its end.
    BeforeEnd(u64),
    /// Again and again: so many milliseconds after its start and then every so many, until two
    /// seconds before its end.
    Every(u64, u64),
    End,
}

/// What is done to a user-service, counted from zero.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Faults(usize, Faults),
    /// `SIGSTOP`: the kernel takes connections, nothing ever answers.
    Stop(usize),
    /// `SIGCONT`.
    Continue(usize),
    /// `kill -9`: connections are refused.
    Kill(usize),
    /// `SIGTERM`: it finishes what it does.
    Terminate(usize),
    /// Starts it again, and waits for its first answer.
    Start(usize),
}

impl Scenario {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.into_iter().find(|scenario| scenario.name == name)
    }

    /// The number of a phase of this scenario; the table's test finds names that are none.
    pub(crate) fn phase(&self, name: &str) -> Option<usize> {
        self.phases.iter().position(|phase| phase.name == name)
    }

    /// The longest it can take.
    pub(crate) fn limit(&self, quick: bool) -> Duration {
        self.phases.iter().map(|phase| phase.length(quick) + phase.more.limit(quick)).sum()
    }
}

impl Phase {
    pub(crate) const fn length(&self, quick: bool) -> Duration {
        Duration::from_secs(if quick { self.quick } else { self.full })
    }

    /// What is done and when, in order, since the start of the phase.
    pub(crate) fn schedule(&self, quick: bool) -> Vec<(Duration, Act)> {
        let (length, ms) = (self.length(quick), Duration::from_millis);
        let mut schedule = Vec::new();
        for (at, act) in self.steps {
            let (first, period) = match *at {
                At::Start => (Duration::ZERO, None),
                At::After(after) => (ms(after), None),
                At::BeforeEnd(before) => (length.saturating_sub(Duration::from_secs(before)), None),
                At::Every(first, period) => (ms(first), Some(ms(period))),
                At::End => (length, None),
            };
            schedule.push((first, *act));
            let last = length.saturating_sub(Duration::from_secs(2));
            let again = period.into_iter().flat_map(|period| (1..).map(move |n| first + period * n));
            schedule.extend(again.take_while(|at| *at < last).map(|at| (at, *act)));
        }
        // Stable: what is to be done at one time is done as it stands there.
        schedule.sort_by_key(|(at, _)| *at);
        schedule
    }
}

impl Mood {
    /// Whether something is wrong.
    pub(crate) const fn is_bad(self) -> bool {
        matches!(self, Self::Hurt | Self::Down)
    }
}

impl More {
    pub(crate) const fn limit(self, quick: bool) -> Duration {
        let seconds = match self {
            Self::Nothing => 0,
            Self::UntilResolved { at_most } | Self::UntilCalled { at_most, .. } => at_most,
        };
        Duration::from_secs(if quick { seconds / 2 } else { seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(steps: &'static [(At, Act)]) -> Phase {
        let (mood, more) = (Mood::Down, More::Nothing);
        Phase { name: "a", says: "b", mood, full: 10, quick: 6, more, steps }
    }

    #[test]
    fn a_schedule_is_in_order_and_fits_the_phase() {
        const STEPS: &[(At, Act)] = &[
            (At::End, Act::Continue(0)),
            (At::Start, Act::Stop(0)),
            (At::BeforeEnd(2), Act::Kill(0)),
            (At::After(500), Act::Start(0)),
        ];
        let at =
            |quick| phase(STEPS).schedule(quick).iter().map(|(at, _)| at.as_millis()).collect::<Vec<_>>();
        assert_eq!(at(false), [0, 500, 8000, 10_000]);
        assert_eq!(at(true), [0, 500, 4000, 6000]);
    }

    #[test]
    fn what_is_done_every_so_often_ends_before_the_phase_does() {
        const STEPS: &[(At, Act)] = &[
            (At::Every(0, 2000), Act::Faults(0, Faults::refuse(1.0))),
            (At::Every(1000, 2000), Act::Faults(0, Faults::NONE)),
        ];
        let schedule = phase(STEPS).schedule(true);
        let at: Vec<_> = schedule.iter().map(|(at, _)| at.as_millis()).collect();
        assert_eq!(at, [0, 1000, 2000, 3000]);
        assert!(matches!(schedule[3].1, Act::Faults(0, Faults::NONE)), "it ends well");
    }
}
