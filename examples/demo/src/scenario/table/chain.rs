//! Three services, one behind the other, and deadlines that travel.

use super::super::At::Start;
use super::super::Mood::Hurt;
use super::super::{Act, Columns, Phase, Scenario};
use super::{PLAIN, WELL, WELL_AGAIN};
use crate::faults::Faults;
use crate::naive::Naive;
use crate::parts::Part;
use crate::rules::Rule;

pub(super) static CHAIN: Scenario = Scenario {
    name: "chain",
    about: "three services in a row: does the last know who still waits?",
    question: "Did nobody work for callers who had gone?",
    claim: "Deadlines that travel",
    gateway: true,
    columns: Columns::Calls,
    // It has timeouts as well, one in every service. They don't know of each other.
    naive: Naive::Loop,
    // 100 calls a second, twice what the orders need; for each order-service apart.
    always: Faults::worker(10),
    phases: &[
        Phase { says: "load > gateway (waits 600 ms) > order-service > user-service's worker", ..WELL },
        Phase {
            name: "slow 40%",
            says: "40 % of user-service's answers take 2 s longer",
            mood: Hurt,
            full: 10,
            quick: 6,
            steps: &[(Start, Act::Faults(0, Faults { work_ms: 10, ..Faults::slow(0.4, 2000) }))],
            ..WELL
        },
        Phase {
            name: "queue",
            says: "the worker needs 40 ms for a call: half of what would be enough",
            mood: Hurt,
            full: 12,
            quick: 6,
            steps: &[(Start, Act::Faults(0, Faults::worker(40)))],
            ..WELL
        },
        Phase {
            says: "the worker needs 10 ms again",
            steps: &[(Start, Act::Faults(0, Faults::worker(10)))],
            ..WELL_AGAIN
        },
    ],
    rules: &[
        Rule::AnsweredInTime { at_least: 0.98, phase: "slow 40%" },
        Rule::AnsweredInTime { at_least: 0.98, phase: "queue" },
        Rule::WorkWanted { phase: "queue", in_vain: 0.05 },
        Rule::SettledAtEnd { at_least: 0.95, phase: "recovery" },
        Rule::ReadsAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
        // The worker answers 50 a second besides the new ones.
        Rule::Recovered { settled: 8, resolved: 16 },
    ],
    shows: &[&[Part::Deadlines], &[Part::Fallback]],
    ..PLAIN
};
