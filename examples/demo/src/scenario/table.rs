//! All scenarios. A new one is an entry here.

mod broker;
mod chain;
mod one;
mod several;
mod streams;

use super::Mood::{Back, Well};
use super::{Columns, Control, More, Phase, Scenario};
use crate::faults::Faults;
use crate::naive::Naive;
use crate::rules::Rule;

pub(crate) use self::one::ISOLATION;
pub(crate) use self::several::REPLICAS;

/// In the order of `--list`.
pub(crate) static SCENARIOS: [&Scenario; 12] = [
    &ISOLATION,
    &REPLICAS,
    &one::HANG,
    &one::FLAPPING,
    &one::RETRY_STORM,
    &one::OVERLOAD_RECOVERY,
    &several::SLOW_REPLICA,
    &several::ROLLING_RESTART,
    &one::WRONG_PAGE,
    &chain::CHAIN,
    &streams::STREAMS,
    &broker::BROKER,
];

/// What most scenarios begin with.
const WELL: Phase = Phase {
    name: "healthy",
    says: "user-service is well",
    mood: Well,
    full: 8,
    quick: 4,
    more: More::Nothing,
    steps: &[],
};

/// A second or two for the breaker to ask again, and then all of it.
const RECOVERED: Rule = Rule::Recovered { settled: 5, resolved: 10 };

/// What most scenarios end with, when nothing but the faults was wrong.
const WELL_AGAIN: Phase = Phase {
    name: "recovery",
    says: "user-service is well again",
    mood: Back,
    full: 8,
    quick: 3,
    more: More::UntilResolved { at_most: 20 },
    steps: &[],
};

/// What any scenario starts from; not one itself.
const PLAIN: Scenario = Scenario {
    name: "",
    about: "",
    question: "Did isolation hold?",
    claim: "Isolation",
    user_services: 1,
    gateway: false,
    streams: false,
    broker: false,
    always: Faults::NONE,
    orders: 50,
    reads: 100,
    columns: Columns::Reads,
    naive: Naive::NoTimeout,
    off: &[],
    phases: &[],
    rules: &[],
    control: Control::Fails,
    shows: &[],
};

#[cfg(test)]
mod tests;
