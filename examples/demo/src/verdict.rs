//! Did isolation hold? The same checks are put to both order-services, but for the one that is about the circuit breaker;
//! the naive one must fail some of them, or the run has proved nothing.

use serde::Serialize;

use crate::fault_phases::Phase;
use crate::results::{OnceOpen, Results, Twin};

/// Reads may take this many times as long as while all was well, or as the lone order-service's reads take meanwhile if
/// that is more, because then it is this machine that is slow...
const READ_FACTOR: f64 = 1.5;
/// ...plus this, in milliseconds, for stray scheduling delays. A read that waited for user-service would take hundreds.
const READ_FLOOR_MS: f64 = 20.0;
/// The circuit breaker lets this many probes through when it goes half-open; they wait for a hung service.
const PROBES: usize = 3;
/// The share of other orders that may miss [`OnceOpen::LIMIT`] for such stray delays...
const STRAY_SHARE: f64 = 0.01;
/// ...and this many times the share of the lone order-service's orders that took as long meanwhile: a stall of the disk
/// hits whoever commits just then. On a quiet machine that is none.
const STRAY_FACTOR: f64 = 3.0;

/// One thing that must hold, and the figures that say whether it did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) held: bool,
    pub(crate) figures: String,
}

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
        let mut resilient = checks(&results.resilient, &results.alone);
        resilient.insert(3, at_once_when_open(&results.resilient, &results.alone));
        let naive = checks(&results.naive, &results.alone);
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
        reads_answered(twin),
        reads_quick(twin, alone),
        orders_answered(twin),
        none_lost(twin),
        all_resolved(twin),
        recovered(twin),
    ]
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

fn reads_quick(twin: &Twin, alone: &Twin) -> Check {
    let healthy = twin.phase(Phase::Healthy).map_or(0.0, |phase| phase.read_p99_ms);
    let limit = |phase: Phase| {
        let meanwhile = alone.phase(phase).map_or(0.0, |phase| phase.read_p99_ms);
        healthy.max(meanwhile) * READ_FACTOR + READ_FLOOR_MS
    };
    let later = twin.phases.iter().filter(|phase| phase.phase != Phase::Healthy);
    let judged = later.map(|phase| (phase.phase, phase.read_p99_ms, limit(phase.phase)));
    let worst = judged.max_by(|a, b| (a.1 - a.2).total_cmp(&(b.1 - b.2)));
    Check {
        name: "reads: as quick as before",
        held: worst.is_some_and(|(_, p99, limit)| p99 <= limit),
        figures: worst.map_or_else(String::new, |(phase, p99, limit)| {
            format!("closest: p99 {p99:.1} ms in {}, limit {limit:.1} ms", phase.name())
        }),
    }
}

fn orders_answered(twin: &Twin) -> Check {
    let (orders, failed) =
        twin.phases.iter().fold((0, 0), |(all, bad), phase| (all + phase.orders, bad + phase.failed));
    Check {
        name: "orders: all answered rightly",
        held: failed == 0 && twin.phases.iter().all(|phase| phase.orders > 0),
        figures: format!("{} of {orders}", orders - failed),
    }
}

fn at_once_when_open(twin: &Twin, alone: &Twin) -> Check {
    const { assert!(OnceOpen::LIMIT.as_millis() == 50) };
    let name = "orders: 202 at once, breaker open";
    let Some(OnceOpen { orders, fast, half_opens }) = twin.once_open else {
        return Check { name, held: false, figures: "it never opened, or there is none".into() };
    };
    let probes = PROBES * half_opens;
    let strays =
        (orders as f64 * (STRAY_SHARE + STRAY_FACTOR * alone.slow_share_in_outage())).ceil() as usize;
    Check {
        name,
        held: orders > 0 && orders - fast <= probes + strays,
        figures: format!("{fast} of {orders}; allowed: {probes} probes, {strays} strays"),
    }
}

fn none_lost(twin: &Twin) -> Check {
    let audit = &twin.audit;
    Check {
        name: "orders: none lost, none twice",
        held: audit.acknowledged > 0 && audit.lost == 0 && audit.duplicated == 0,
        figures: format!(
            "{} acknowledged, {} lost, {} stored twice",
            audit.acknowledged, audit.lost, audit.duplicated
        ),
    }
}

fn all_resolved(twin: &Twin) -> Check {
    let audit = &twin.audit;
    let (wrong_times, misjudged) = (audit.resolved_wrong_number_of_times, audit.misjudged);
    let promised: u64 = twin.phases.iter().map(|phase| phase.accepted).sum();
    Check {
        name: "orders: each 202 resolved once",
        held: audit.pending == 0 && wrong_times == 0 && misjudged == 0 && audit.resolved as u64 >= promised,
        figures: format!(
            "{promised} promised, {} resolved, {} pending, {wrong_times} not once, {misjudged} wrongly",
            audit.resolved, audit.pending
        ),
    }
}

fn recovered(twin: &Twin) -> Check {
    let settled_again = twin.phases.iter().any(|phase| phase.phase == Phase::Recovery && phase.settled > 0);
    Check {
        name: "recovered",
        held: settled_again && twin.resolved_after_ms.is_some(),
        figures: format!(
            "all settled at once after {:.1} s, none pending after {}",
            twin.full_service_after_ms / 1e3,
            twin.resolved_after_ms.map_or("(never)".into(), |after| format!("{:.1} s", after / 1e3)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Audit;
    use crate::results::PhaseFigures;

    fn good() -> Twin {
        let phases = Phase::OUTAGE.map(|phase| PhaseFigures {
            phase,
            orders: 1000,
            settled: 900,
            accepted: 100,
            failed: 0,
            post_p50_ms: 2.0,
            post_p99_ms: 8.0,
            post_slow: 0,
            reads: 500,
            reads_failed: 0,
            read_p50_ms: 1.0,
            read_p99_ms: 3.0,
            calls: 1000,
            most_waiting: 5,
        });
        Twin {
            phases: phases.into(),
            once_open: Some(OnceOpen { orders: 1000, fast: 984, half_opens: 2 }),
            full_service_after_ms: 900.0,
            resolved_after_ms: Some(2000.0),
            audit: Audit { placed: 5000, acknowledged: 5000, resolved: 500, ..Audit::default() },
        }
    }

    fn failures(spoil: impl FnOnce(&mut Twin)) -> Vec<&'static str> {
        let mut twin = good();
        spoil(&mut twin);
        let results = Results { seed: 1, quick: true, naive: good(), resilient: twin, alone: good() };
        Verdict::of(&results)
            .resilient
            .into_iter()
            .filter(|check| !check.held)
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn a_good_run_passes() {
        assert_eq!(failures(|_| {}), [""; 0]);
    }

    #[test]
    fn every_planted_fault_fails_its_check_and_no_other() {
        type Spoiler = (&'static str, fn(&mut Twin));
        let spoilers: [Spoiler; 15] = [
            ("reads: all", |twin| twin.phases[2].reads_failed = 1),
            ("reads: all", |twin| twin.phases[3].reads = 0),
            ("reads: as quick", |twin| twin.phases[2].read_p99_ms = 24.6),
            ("orders: all", |twin| twin.phases[3].failed = 1),
            ("orders: all", |twin| twin.phases[4].orders = 0),
            ("orders: 202 at", |twin| twin.once_open = None),
            ("orders: 202 at", |twin| twin.once_open.as_mut().expect("open").fast = 983),
            ("orders: none", |twin| twin.audit.lost = 1),
            ("orders: none", |twin| twin.audit.duplicated = 1),
            ("orders: each", |twin| twin.audit.pending = 1),
            ("orders: each", |twin| twin.audit.resolved_wrong_number_of_times = 1),
            ("orders: each", |twin| twin.audit.misjudged = 1),
            ("orders: each", |twin| twin.audit.resolved = 499),
            ("recovered", |twin| twin.resolved_after_ms = None),
            ("recovered", |twin| twin.phases[4].settled = 0),
        ];
        for (expected, spoil) in spoilers {
            let failed = failures(spoil);
            assert!(matches!(failed[..], [only] if only.starts_with(expected)), "{expected}: {failed:?}");
        }
    }

    #[test]
    fn what_slows_the_lone_order_service_too_is_this_machine() {
        let (mut twin, mut alone) = (good(), good());
        twin.once_open = Some(OnceOpen { orders: 1000, fast: 950, half_opens: 0 });
        twin.phases[2].read_p99_ms = 130.0;
        assert!(!at_once_when_open(&twin, &alone).held && !reads_quick(&twin, &alone).held);
        alone.phases[2].post_slow = 30;
        alone.phases[2].read_p99_ms = 80.0;
        assert!(at_once_when_open(&twin, &alone).held && reads_quick(&twin, &alone).held);
    }

    #[test]
    fn a_run_whose_naive_twin_did_not_suffer_proves_nothing() {
        let results = Results { seed: 1, quick: true, naive: good(), resilient: good(), alone: good() };
        assert!(!Verdict::of(&results).passed());
        let no_breaker = Twin { once_open: None, ..good() };
        let results = Results { naive: no_breaker, ..results };
        assert!(!Verdict::of(&results).passed(), "having no breaker is no suffering");
        let mut naive = good();
        naive.phases[2].failed = 1;
        assert!(Verdict::of(&Results { naive, ..results }).passed());
    }
}
