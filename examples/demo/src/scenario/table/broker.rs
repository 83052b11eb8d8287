//! Users by message: a copy of them that outlives user-service.

use super::super::At::Start;
use super::super::Mood::{Back, Down};
use super::super::{Act, Phase, Scenario};
use super::{PLAIN, RECOVERED, WELL, WELL_AGAIN};
use crate::parts::Part;
use crate::rules::Rule;

pub(super) static BROKER: Scenario = Scenario {
    name: "broker",
    about: "with RabbitMQ: a copy of users verifies orders at once",
    question: "Were orders verified while user-service was dead?",
    claim: "The copy of users",
    broker: true,
    phases: &[
        Phase { says: "user-service is well, and publishes what happens to its users", ..WELL },
        Phase {
            name: "hang",
            says: "SIGSTOP to user-service: it takes connections and never answers",
            mood: Down,
            full: 10,
            quick: 5,
            steps: &[(Start, Act::Stop(0))],
            ..WELL
        },
        Phase {
            name: "kill -9",
            says: "kill -9 to user-service: connections are refused",
            mood: Down,
            full: 10,
            quick: 5,
            steps: &[(Start, Act::Kill(0))],
            ..WELL
        },
        Phase {
            says: "user-service is started again",
            mood: Back,
            steps: &[(Start, Act::Start(0))],
            ..WELL_AGAIN
        },
    ],
    // One order in fifty is of a user that there is not, which the copy can't know.
    rules: &[
        Rule::SettledAtOnce { at_least: 0.94, phase: Some("hang") },
        Rule::SettledAtOnce { at_least: 0.94, phase: Some("kill -9") },
        Rule::OrdersAnswered,
        Rule::ReadsAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
        RECOVERED,
    ],
    shows: &[&[Part::Copy], &[Part::Fallback]],
    ..PLAIN
};
