//! The scenarios with several user-services, which share one database.

use super::super::At::{After, End, Start};
use super::super::Mood::Hurt;
use super::super::{Act, At, Columns, More, Phase, Scenario};
use super::{PLAIN, WELL, WELL_AGAIN};
use crate::faults::Faults;
use crate::parts::Part;
use crate::rules::Rule;

pub(crate) static REPLICAS: Scenario = Scenario {
    name: "replicas",
    about: "of three user-services one refuses, is slow, hangs, dies",
    question: "Did one bad replica cost nothing?",
    user_services: 3,
    columns: Columns::Calls,
    // In each phase another one is the bad one, so that each is met while it is trusted.
    phases: &[
        Phase { says: "every replica is well", quick: 3, ..WELL },
        Phase {
            name: "1 refuse",
            says: "replica 1 answers 503 to everything, at once",
            mood: Hurt,
            full: 9,
            quick: 4,
            steps: &[(Start, Act::Faults(0, Faults::refuse(1.0))), (End, Act::Faults(0, Faults::NONE))],
            ..WELL
        },
        Phase {
            name: "2 slow",
            says: "replica 2 takes 1500 ms longer for every answer",
            mood: Hurt,
            full: 9,
            quick: 4,
            steps: &[(Start, Act::Faults(1, Faults::slow(1.0, 1500))), (End, Act::Faults(1, Faults::NONE))],
            ..WELL
        },
        Phase {
            name: "3 hangs",
            says: "SIGSTOP to replica 3: it takes connections, never answers (then SIGCONT)",
            mood: Hurt,
            full: 9,
            quick: 5,
            steps: &[(Start, Act::Stop(2)), (End, Act::Continue(2))],
            ..WELL
        },
        Phase {
            name: "2 killed",
            says: "kill -9 to replica 2: connections are refused",
            mood: Hurt,
            full: 9,
            quick: 4,
            steps: &[(Start, Act::Kill(1))],
            ..WELL
        },
        Phase {
            says: "replica 2 is started again",
            quick: 2,
            // A client that has learnt that it is dead doesn't ask at once, and sends little at
            // first.
            more: More::UntilCalled { user_service: 1, at_most: 10 },
            steps: &[(Start, Act::Start(1))],
            ..WELL_AGAIN
        },
    ],
    rules: &[
        Rule::SettledAtOnce { at_least: 0.999, phase: None },
        Rule::OrdersQuick { phase: None },
        Rule::AttractsNothing { phase: "1 refuse", user_service: 0 },
        Rule::CalledAgain { dead: "2 killed", back: "recovery", user_service: 1 },
        Rule::OrdersAnswered,
        Rule::ReadsAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
    ],
    shows: &[&[Part::Retries]],
    ..PLAIN
};

pub(super) static SLOW_REPLICA: Scenario = Scenario {
    name: "slow-replica",
    about: "one replica is slow; then a few answers of every replica are",
    question: "Did nobody wait for the slow ones?",
    user_services: 3,
    columns: Columns::Calls,
    phases: &[
        Phase { says: "every replica is well", ..WELL },
        Phase {
            name: "1 slow",
            says: "replica 1 takes 250 ms longer for every answer",
            mood: Hurt,
            full: 12,
            quick: 6,
            steps: &[(Start, Act::Faults(0, Faults::slow(1.0, 250))), (End, Act::Faults(0, Faults::NONE))],
            ..WELL
        },
        Phase {
            name: "few slow",
            says: "4 in 100 answers of every replica take 250 ms longer",
            mood: Hurt,
            full: 16,
            quick: 7,
            steps: &[
                (Start, Act::Faults(0, Faults::slow(0.04, 250))),
                (Start, Act::Faults(1, Faults::slow(0.04, 250))),
                (Start, Act::Faults(2, Faults::slow(0.04, 250))),
                (End, Act::Faults(0, Faults::NONE)),
                (End, Act::Faults(1, Faults::NONE)),
                (End, Act::Faults(2, Faults::NONE)),
            ],
            ..WELL
        },
        Phase { says: "every replica is well again", ..WELL_AGAIN },
    ],
    rules: &[
        Rule::OrdersQuick { phase: Some("1 slow") },
        Rule::OrdersQuick { phase: Some("few slow") },
        Rule::SettledAtOnce { at_least: 0.999, phase: None },
        Rule::OrdersAnswered,
        Rule::ReadsAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
    ],
    shows: &[&[Part::Hedging]],
    ..PLAIN
};

pub(super) static ROLLING_RESTART: Scenario = Scenario {
    name: "rolling-restart",
    about: "three user-services are restarted, one after the other",
    question: "Did nobody notice the restarts?",
    user_services: 3,
    // So that every replica is in the middle of some calls when it is killed.
    always: Faults::slow(1.0, 150),
    columns: Columns::Calls,
    phases: &[
        Phase { says: "every replica is well, and takes 150 ms for an answer", quick: 3, ..WELL },
        restart(
            "restart1",
            "replica 1 is killed, and started a second later",
            &[(Start, Act::Kill(0)), (After(1000), Act::Start(0))],
        ),
        restart(
            "restart2",
            "replica 2 is killed, and started a second later",
            &[(Start, Act::Kill(1)), (After(1000), Act::Start(1))],
        ),
        restart(
            "restart3",
            "replica 3 is told to stop (SIGTERM), and started a second later",
            &[(Start, Act::Terminate(2)), (After(1000), Act::Start(2))],
        ),
        Phase { says: "every replica is well again", ..WELL_AGAIN },
    ],
    rules: &[
        Rule::SettledAtOnce { at_least: 0.999, phase: None },
        Rule::OrdersAnswered,
        Rule::ReadsAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
    ],
    // Either takes a call that a kill has ended elsewhere.
    shows: &[&[Part::Retries, Part::Hedging]],
    ..PLAIN
};

const fn restart(name: &'static str, says: &'static str, steps: &'static [(At, Act)]) -> Phase {
    Phase { name, says, mood: Hurt, full: 8, quick: 4, more: More::Nothing, steps }
}
