//! The scenarios with one user-service.

use super::super::At::{BeforeEnd, End, Every, Start};
use super::super::Mood::{Down, Hurt};
use super::super::{Act, Columns, Control, Phase, Scenario};
use super::{PLAIN, RECOVERED, WELL, WELL_AGAIN};
use crate::faults::Faults;
use crate::naive::Naive;
use crate::parts::Part;
use crate::rules::Rule;

/// What a failure of user-service must leave as it was.
const KEPT_OUT: [Rule; 7] = [
    Rule::ReadsAnswered,
    Rule::ReadsQuick,
    Rule::OrdersAnswered,
    Rule::AtOnceWhenOpen,
    Rule::NoneLost,
    Rule::ResolvedOnce,
    RECOVERED,
];

pub(crate) static ISOLATION: Scenario = Scenario {
    name: "isolation",
    about: "user-service slows down, hangs, dies and comes back",
    phases: &[
        WELL,
        Phase {
            name: "slow 30%",
            says: "30 % of user-service's answers take 1500 ms longer",
            mood: Hurt,
            full: 10,
            quick: 5,
            // The last seconds are quick again: otherwise the calls still waiting would be caught
            // by the hang, and count as lost to slowness.
            steps: &[
                (Start, Act::Faults(0, Faults::slow(0.3, 1500))),
                (BeforeEnd(2), Act::Faults(0, Faults::NONE)),
            ],
            ..WELL
        },
        Phase {
            name: "hang",
            says: "SIGSTOP to user-service: it takes connections and never answers",
            mood: Down,
            full: 12,
            quick: 5,
            steps: &[(Start, Act::Stop(0))],
            ..WELL
        },
        Phase {
            name: "kill -9",
            says: "kill -9 to user-service: connections are refused",
            mood: Down,
            full: 10,
            quick: 3,
            steps: &[(Start, Act::Kill(0))],
            ..WELL
        },
        Phase {
            says: "user-service is started again",
            quick: 2,
            steps: &[(Start, Act::Start(0))],
            ..WELL_AGAIN
        },
    ],
    rules: &KEPT_OUT,
    shows: &[&[Part::Breaker], &[Part::Timeouts], &[Part::Fallback]],
    ..PLAIN
};

pub(super) static HANG: Scenario = Scenario {
    name: "hang",
    about: "user-service takes connections and never answers",
    question: "Was the hang kept out?",
    phases: &[
        WELL,
        Phase {
            name: "hang",
            says: "SIGSTOP to user-service: it takes connections and never answers",
            mood: Down,
            full: 20,
            quick: 7,
            steps: &[(Start, Act::Stop(0)), (End, Act::Continue(0))],
            ..WELL
        },
        WELL_AGAIN,
    ],
    rules: &KEPT_OUT,
    shows: &[&[Part::Breaker], &[Part::Timeouts], &[Part::Fallback]],
    ..PLAIN
};

pub(super) static FLAPPING: Scenario = Scenario {
    name: "flapping",
    about: "one answer in five fails; then all do every other second",
    question: "Did the flapping cost no order?",
    phases: &[
        WELL,
        Phase {
            name: "1 in 5",
            says: "user-service answers one call in five with 503",
            mood: Hurt,
            full: 12,
            quick: 6,
            steps: &[(Start, Act::Faults(0, Faults::refuse(0.2))), (End, Act::Faults(0, Faults::NONE))],
            ..WELL
        },
        Phase {
            name: "up, down",
            says: "user-service answers 503 to everything, every other second",
            mood: Hurt,
            full: 14,
            quick: 6,
            steps: &[
                (Every(0, 2000), Act::Faults(0, Faults::refuse(1.0))),
                (Every(1000, 2000), Act::Faults(0, Faults::NONE)),
                (End, Act::Faults(0, Faults::NONE)),
            ],
            ..WELL
        },
        WELL_AGAIN,
    ],
    rules: &[
        Rule::SettledAtOnce { at_least: 0.98, phase: Some("1 in 5") },
        // The last two seconds are well, and of the others every second one.
        Rule::SettledAtOnce { at_least: 0.4, phase: Some("up, down") },
        Rule::SettledAtEnd { at_least: 0.99, phase: "recovery" },
        Rule::ReadsAnswered,
        Rule::OrdersAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
        RECOVERED,
    ],
    shows: &[&[Part::Retries], &[Part::Fallback]],
    ..PLAIN
};

pub(super) static RETRY_STORM: Scenario = Scenario {
    name: "retry-storm",
    about: "some calls fail, then all: retries must help, yet stay few",
    question: "Did the retries stay few?",
    claim: "The retry budget",
    columns: Columns::Calls,
    naive: Naive::Loop,
    // It would stop the calls first.
    off: &[Part::Breaker],
    phases: &[
        WELL,
        // Who never retries has no storm either; here that costs orders.
        Phase {
            name: "1 in 5",
            says: "user-service answers one call in five with 503",
            mood: Hurt,
            full: 8,
            quick: 5,
            steps: &[(Start, Act::Faults(0, Faults::refuse(0.2)))],
            ..WELL
        },
        Phase {
            name: "all fail",
            says: "user-service answers 503 to everything",
            mood: Down,
            full: 20,
            quick: 8,
            steps: &[(Start, Act::Faults(0, Faults::refuse(1.0))), (End, Act::Faults(0, Faults::NONE))],
            ..WELL
        },
        WELL_AGAIN,
    ],
    rules: &[
        Rule::SettledAtOnce { at_least: 0.98, phase: Some("1 in 5") },
        // 100 is what the budget holds at most; the rest is for the orders verified again
        // meanwhile.
        Rule::FewCalls { phase: "all fail", each: 1.1, spare: 110 },
        Rule::ReadsAnswered,
        Rule::OrdersAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
        RECOVERED,
    ],
    shows: &[&[Part::Budget], &[Part::Retries], &[Part::Fallback]],
    ..PLAIN
};

pub(super) static OVERLOAD_RECOVERY: Scenario = Scenario {
    name: "overload-recovery",
    about: "user-service gets slow under load, and must recover",
    question: "Did it get out of the overload?",
    claim: "Recovery",
    columns: Columns::Calls,
    naive: Naive::Loop,
    // 100 calls a second, twice what the orders need; for each order-service apart, or the one
    // would drown the other.
    always: Faults::worker(10),
    phases: &[
        Phase { says: "user-service has a worker for each twin, who needs 10 ms for a call", ..WELL },
        Phase {
            name: "overload",
            says: "the worker needs 40 ms for a call: half of what would be enough",
            mood: Hurt,
            full: 12,
            quick: 6,
            steps: &[(Start, Act::Faults(0, Faults::worker(40)))],
            ..WELL
        },
        Phase {
            says: "the worker needs 10 ms again",
            full: 20,
            quick: 9,
            steps: &[(Start, Act::Faults(0, Faults::worker(10)))],
            ..WELL_AGAIN
        },
    ],
    rules: &[
        Rule::SettledAtEnd { at_least: 0.95, phase: "recovery" },
        // order-service gives the question a second; the rest is its own work on a busy machine.
        Rule::OrdersWithin { phase: "overload", ms: 2000.0 },
        Rule::ReadsAnswered,
        Rule::OrdersAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
        // The worker answers 50 a second besides the new ones.
        Rule::Recovered { settled: 8, resolved: 16 },
    ],
    control: Control::Collapses { phase: "recovery", below: 0.05 },
    // Any one of the first four gets out of it.
    shows: &[
        &[Part::Breaker, Part::Budget, Part::Limits, Part::Deadlines],
        &[Part::Timeouts],
        &[Part::Fallback],
    ],
    ..PLAIN
};

pub(super) static WRONG_PAGE: Scenario = Scenario {
    name: "wrong-page",
    about: "a proxy answers in user-service's stead, with 404 and 200",
    question: "Was nobody misjudged?",
    claim: "Judgement",
    phases: &[
        WELL,
        Phase {
            name: "404 page",
            says: "every answer is a proxy's page of HTML, with status 404",
            mood: Down,
            full: 10,
            quick: 4,
            steps: &[(Start, Act::Faults(0, Faults::page(404))), (End, Act::Faults(0, Faults::NONE))],
            ..WELL
        },
        Phase {
            name: "200 page",
            says: "every answer is a maintenance page of HTML, with status 200",
            mood: Down,
            full: 10,
            quick: 4,
            steps: &[(Start, Act::Faults(0, Faults::page(200))), (End, Act::Faults(0, Faults::NONE))],
            ..WELL
        },
        WELL_AGAIN,
    ],
    rules: &[
        Rule::OrdersAnswered,
        Rule::ResolvedOnce,
        Rule::FewCalls { phase: "404 page", each: 0.5, spare: 60 },
        Rule::ReadsAnswered,
        Rule::NoneLost,
        RECOVERED,
    ],
    shows: &[&[Part::AnswerCheck], &[Part::Breaker], &[Part::Fallback]],
    ..PLAIN
};
