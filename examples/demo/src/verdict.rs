//! Did it hold? The scenario's rules are put to both order-services; the naive one must break some
//! of them, or the run has proved nothing. A machine that is too busy to judge by is told from a
//! rule that failed.

use serde::Serialize;

use crate::results::{Machine, Results, Twin};
use crate::scenario::{Control, Scenario};

/// One thing that must hold, and the figures that say whether it did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) figures: String,
    /// However busy the machine was, it must hold.
    #[serde(skip)]
    pub(crate) always: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Held,
    Failed,
    /// This machine was too slow meanwhile to say.
    Unclear,
}

impl Check {
    pub(crate) fn of(name: &'static str, held: bool, figures: String) -> Self {
        Self { name, outcome: if held { Outcome::Held } else { Outcome::Failed }, figures, always: false }
    }

    /// The same, but no machine is an excuse.
    pub(crate) fn always(self) -> Self {
        Self { always: true, ..self }
    }

    /// The same, but for a machine that was too slow to say.
    pub(crate) fn unclear_if(mut self, too_slow: bool) -> Self {
        if too_slow {
            self.outcome = Outcome::Unclear;
        }
        self
    }

    pub(crate) fn held(&self) -> bool {
        self.outcome == Outcome::Held
    }

    pub(crate) fn failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }
}

/// What is said at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Judgement {
    Held,
    DidNotHold,
    /// The machine was too busy; why.
    Inconclusive(String),
}

/// All checks of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) resilient: Vec<Check>,
    pub(crate) naive: Vec<Check>,
    /// What shows that the rules can fail: that the naive twin broke them.
    pub(crate) control: Check,
    pub(crate) judgement: Judgement,
}

impl Verdict {
    pub(crate) fn of(scenario: &Scenario, results: &Results) -> Self {
        let checks = |twin: &Twin, all: bool| -> Vec<Check> {
            let rules = scenario.rules.iter().filter(|rule| all || rule.is_for_all());
            rules.map(|rule| rule.check(scenario, twin, &results.alone)).collect()
        };
        let (mut resilient, naive) = (checks(&results.resilient, true), checks(&results.naive, false));
        // Its program is that of the others, and nothing that breaks concerns it.
        let wrong: u64 = results.alone.phases.iter().map(|phase| phase.wrong).sum();
        resilient
            .push(Check::of("alone: no order met an error", wrong == 0, format!("{wrong} did")).always());
        let counted = &results.counted;
        resilient.push(
            Check::of("calls: counted three ways, equal", counted.is_equal(), counted.figures()).always(),
        );
        let control = control(scenario, results, &naive);
        let judgement = judge(resilient.iter().chain([&control]), &results.machine);
        Self { resilient, naive, control, judgement }
    }
}

fn control(scenario: &Scenario, results: &Results, naive: &[Check]) -> Check {
    match scenario.control {
        Control::Fails => {
            let broken = naive.iter().filter(|check| check.failed()).count();
            let figures = format!("{broken} of {}", naive.len());
            Check::of("control: the naive twin fails", broken > 0, figures)
        }
        Control::Collapses { phase, below } => {
            let figures = scenario.phase(phase).and_then(|index| results.naive.phases.get(index));
            let share = figures.and_then(|phase| phase.settled_at_end).unwrap_or(1.0);
            let figures = format!("{:.1} % settled at the end; under {:.1} %", share * 100.0, below * 100.0);
            Check::of("control: the naive twin collapses", share < below, figures)
        }
    }
}

fn judge<'a>(mut checks: impl Iterator<Item = &'a Check> + Clone, machine: &Machine) -> Judgement {
    if checks.clone().any(|check| check.always && check.failed()) {
        return Judgement::DidNotHold;
    }
    match machine.too_busy() {
        Some(why) if checks.clone().any(|check| !check.held()) => Judgement::Inconclusive(why),
        _ if checks.clone().any(Check::failed) => Judgement::DidNotHold,
        _ => match checks.find(|check| check.outcome == Outcome::Unclear) {
            Some(unclear) => Judgement::Inconclusive(format!("{}: {}", unclear.name, unclear.figures)),
            None => Judgement::Held,
        },
    }
}

#[cfg(test)]
#[path = "verdict/tests.rs"]
pub(crate) mod tests;
