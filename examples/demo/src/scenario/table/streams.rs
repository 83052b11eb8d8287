//! Streams that are to last, beside short calls.

use super::super::At::{After, Start};
use super::super::Mood::{Down, Hurt};
use super::super::{Act, Columns, Phase, Scenario};
use super::{PLAIN, RECOVERED, WELL, WELL_AGAIN};
use crate::faults::Faults;
use crate::naive::Naive;
use crate::parts::Part;
use crate::rules::Rule;

pub(super) static STREAMS: Scenario = Scenario {
    name: "streams",
    about: "event streams beside short calls go mute, and break off",
    question: "Did the streams live as long as they could?",
    claim: "The streams",
    streams: true,
    columns: Columns::Streams,
    naive: Naive::Loop,
    phases: &[
        Phase { says: "user-service is well; a stream has a sign of life every second", ..WELL },
        Phase {
            name: "mute",
            says: "on the open streams nothing comes any more; new ones would be well",
            mood: Hurt,
            full: 12,
            quick: 7,
            steps: &[(Start, Act::Faults(0, Faults::MUTE))],
            ..WELL
        },
        Phase {
            name: "restart",
            says: "kill -9 to user-service, which is started again 2 s later",
            mood: Down,
            full: 10,
            quick: 7,
            steps: &[(Start, Act::Kill(0)), (After(2000), Act::Start(0))],
            ..WELL
        },
        Phase { quick: 2, ..WELL_AGAIN },
    ],
    rules: &[
        Rule::StreamsWhole { phase: "healthy" },
        Rule::StreamsAlive { phase: "mute" },
        Rule::StreamsAlive { phase: "restart" },
        Rule::StreamsWhole { phase: "recovery" },
        Rule::ReadsAnswered,
        Rule::OrdersAnswered,
        Rule::NoneLost,
        Rule::ResolvedOnce,
        RECOVERED,
    ],
    shows: &[&[Part::Timeouts], &[Part::Fallback]],
    ..PLAIN
};
