//! Did one bad replica cost nothing? The same checks are put to both order-services; the naive one must fail some of
//! them, or the run has proved nothing.

use serde::Serialize;

use super::bad_one;
use super::results::{PhaseFigures, Results, Twin};
use crate::fault_phases::Phase;
use crate::verdict::Check;

/// The share of orders that may not be settled at once, in every phase...
const UNSETTLED: f64 = 0.001;
/// ...plus this many times the share that the lone order-service, which asks nobody, failed to settle meanwhile.
const STRAY_FACTOR: f64 = 3.0;
/// Orders may take this many times as long as while all was well, or as the lone order-service's orders take meanwhile
/// if that is more, because then it is this machine that is slow...
const SLOWER: f64 = 1.5;
/// ...plus this, in milliseconds, for stray scheduling delays: with so few orders, p99 is the second or third worst of
/// them. One that waited for a bad replica would take 300.
const STRAY_MS: f64 = 20.0;
/// A replica that refuses at once may get this many times its fair share of the calls.
const ATTRACTION: f64 = 1.2;

/// All checks of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) resilient: Vec<Check>,
    pub(crate) naive: Vec<Check>,
    /// Whether the naive twin failed some check: the control that shows that the checks can fail.
    pub(crate) control: bool,
}

impl Verdict {
    pub(crate) fn of(results: &Results) -> Self {
        let [resilient, naive] =
            [&results.resilient, &results.naive].map(|twin| checks(twin, &results.alone));
        let control = naive.iter().any(|check| !check.held);
        Self { resilient, naive, control }
    }

    /// Whether the resilient twin kept every check and the naive one did not.
    pub(crate) fn passed(&self) -> bool {
        self.control && self.resilient.iter().all(|check| check.held)
    }
}

fn checks(twin: &Twin, alone: &Twin) -> Vec<Check> {
    vec![
        settled(twin, alone),
        quick(twin, alone),
        attracts_nothing(twin),
        comes_back(twin),
        reads_answered(twin),
        books_balance(twin),
    ]
}

fn settled(twin: &Twin, alone: &Twin) -> Check {
    let limit = |phase| {
        let meanwhile = alone.phase(phase).map_or(0.0, |phase| 1.0 - phase.success());
        UNSETTLED + STRAY_FACTOR * meanwhile
    };
    let short = |phase: &PhaseFigures| 1.0 - phase.success() - limit(phase.phase);
    let worst = twin.phases.iter().max_by(|a, b| short(a).total_cmp(&short(b)));
    Check {
        name: "orders: 99.9 % settled at once",
        // A hair's breadth, because shares are rounded.
        held: worst.is_some_and(|phase| phase.orders > 0 && short(phase) <= 1e-9),
        figures: worst.map_or_else(String::new, |phase| {
            format!("worst: {} of {}, {}", phase.settled, phase.orders, phase.phase.name())
        }),
    }
}

/// Only phases in which a replica is bad; once its first second is over.
fn quick(twin: &Twin, alone: &Twin) -> Check {
    let healthy = twin.phase(Phase::Healthy).map_or(0.0, |phase| phase.p99_ms);
    let limit = |phase: Phase| {
        let meanwhile = alone.phase(phase).map_or(0.0, |phase| phase.later_p99_ms);
        healthy.max(meanwhile) * SLOWER + STRAY_MS
    };
    let bad = twin.phases.iter().filter(|figures| bad_one(figures.phase).is_some());
    let judged = bad.map(|figures| (figures.phase, figures.later_p99_ms, limit(figures.phase)));
    let worst = judged.max_by(|a, b| (a.1 - a.2).total_cmp(&(b.1 - b.2)));
    Check {
        name: "orders: as quick after a second",
        held: worst.is_some_and(|(_, p99, limit)| p99 <= limit),
        figures: worst.map_or_else(String::new, |(phase, p99, limit)| {
            format!("closest: p99 {p99:.1} ms, {}, limit {limit:.1} ms", phase.name())
        }),
    }
}

fn attracts_nothing(twin: &Twin) -> Check {
    let name = "one refusing: attracts no calls";
    let refusing = bad_one(Phase::OneRefuses).zip(twin.phase(Phase::OneRefuses));
    let Some((replica, figures)) = refusing else {
        return Check { name, held: false, figures: String::new() };
    };
    let (share, fair) = (figures.share(replica), 1.0 / figures.calls.len().max(1) as f64);
    Check {
        name,
        held: figures.calls.iter().any(|calls| *calls > 0) && share <= ATTRACTION * fair,
        figures: format!("{:.1} % of the calls, fair {:.1} %", share * 100.0, fair * 100.0),
    }
}

fn comes_back(twin: &Twin) -> Check {
    let calls = |phase| {
        let figures: &PhaseFigures = twin.phase(phase)?;
        figures.calls.get(bad_one(phase)?).copied()
    };
    let (dead, back) = (calls(Phase::OneKilled), calls(Phase::Recovery));
    Check {
        name: "one killed: called again once back",
        held: dead == Some(0) && back.is_some_and(|calls| calls > 0),
        figures: format!("{} calls dead, {} since", dead.unwrap_or_default(), back.unwrap_or_default()),
    }
}

fn reads_answered(twin: &Twin) -> Check {
    let (reads, failed) =
        twin.phases.iter().fold((0, 0), |(all, bad), phase| (all + phase.reads, bad + phase.reads_failed));
    Check {
        name: "reads: all answered",
        held: failed == 0 && twin.phases.iter().all(|phase| phase.reads > 0),
        figures: format!("{} of {reads}", reads - failed),
    }
}

fn books_balance(twin: &Twin) -> Check {
    let audit = &twin.audit;
    let faults = audit.lost + audit.duplicated + audit.pending;
    let (wrong_times, misjudged) = (audit.resolved_wrong_number_of_times, audit.misjudged);
    Check {
        name: "orders: none lost, none twice",
        held: audit.acknowledged > 0 && faults + wrong_times + misjudged == 0,
        figures: format!(
            "{} acknowledged, {} lost, {} stored twice, {} pending",
            audit.acknowledged, audit.lost, audit.duplicated, audit.pending
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::audit::Audit;

    pub(crate) fn good() -> Twin {
        let phases = Phase::REPLICAS.map(|phase| PhaseFigures {
            phase,
            orders: 1000,
            settled: 1000,
            accepted: 0,
            failed: 0,
            p50_ms: 3.0,
            p99_ms: 8.0,
            later_p99_ms: 8.0,
            reads: 500,
            reads_failed: 0,
            calls: if phase == Phase::OneKilled { vec![300, 0, 300] } else { vec![300; 3] },
            most_waiting: 5,
        });
        let audit = Audit { placed: 6000, acknowledged: 5900, resolved: 0, ..Audit::default() };
        Twin { phases: phases.into(), audit }
    }

    fn run(naive: Twin, resilient: Twin) -> Verdict {
        Verdict::of(&Results { seed: 1, quick: true, naive, resilient, alone: good() })
    }

    #[test]
    fn every_planted_fault_fails_its_check_and_no_other() {
        type Spoiler = (&'static str, fn(&mut Twin));
        let spoilers: [Spoiler; 12] = [
            ("orders: 99.9 %", |twin| twin.phases[3].settled = 998),
            ("orders: 99.9 %", |twin| (twin.phases[0].orders, twin.phases[0].settled) = (0, 0)),
            ("orders: as quick", |twin| twin.phases[3].later_p99_ms = 32.1),
            ("one refusing", |twin| twin.phases[1].calls = vec![401, 300, 299]),
            ("one refusing", |twin| twin.phases[1].calls = vec![0; 3]),
            ("one killed", |twin| twin.phases[5].calls = vec![300, 0, 300]),
            ("one killed", |twin| twin.phases[4].calls = vec![300, 1, 300]),
            ("reads", |twin| twin.phases[2].reads_failed = 1),
            ("reads", |twin| twin.phases[2].reads = 0),
            ("orders: none", |twin| twin.audit.lost = 1),
            ("orders: none", |twin| twin.audit.pending = 1),
            ("orders: none", |twin| twin.audit.misjudged = 1),
        ];
        assert!(run(good(), good()).resilient.iter().all(|check| check.held));
        for (expected, spoil) in spoilers {
            let mut twin = good();
            spoil(&mut twin);
            let verdict = run(good(), twin);
            let failed: Vec<_> =
                verdict.resilient.iter().filter(|check| !check.held).map(|check| check.name).collect();
            assert!(matches!(failed[..], [only] if only.starts_with(expected)), "{expected}: {failed:?}");
        }
    }

    #[test]
    fn one_order_in_a_thousand_may_be_left_open() {
        let (mut twin, mut alone) = (good(), good());
        twin.phases[3].settled = 999;
        assert!(settled(&twin, &alone).held);
        twin.phases[3].settled = 969;
        assert!(!settled(&twin, &alone).held);
        alone.phases[3].settled = 990;
        assert!(settled(&twin, &alone).held, "this machine");
    }

    #[test]
    fn what_slows_the_lone_order_service_too_is_this_machine() {
        let (mut twin, mut alone) = (good(), good());
        twin.phases[3].later_p99_ms = 130.0;
        assert!(!quick(&twin, &alone).held);
        alone.phases[3].later_p99_ms = 80.0;
        assert!(quick(&twin, &alone).held);
    }

    #[test]
    fn a_run_whose_naive_twin_did_not_suffer_proves_nothing() {
        assert!(!run(good(), good()).passed());
        let mut naive = good();
        naive.phases[3].settled = 666;
        assert!(run(naive, good()).passed());
    }
}
