//! Did isolation hold? The same checks are put to both order-services, but for the one that is about the circuit breaker;
//! the naive one must fail some of them, or the run has proved nothing.

use serde::Serialize;

use crate::phases::Phase;
use crate::results::{OnceOpen, Results, Twin};

/// Reads may take this many times as long as while all was well...
const READ_FACTOR: f64 = 1.5;
/// ...plus this, in milliseconds: a stray scheduling delay on a busy two-core machine is not a lack of isolation. A read
/// that waited for user-service would take seconds.
const READ_FLOOR_MS: f64 = 20.0;
/// The circuit breaker lets this many probes through when it goes half-open; they wait for a hung service.
const PROBES: usize = 3;
/// The share of other orders that may miss [`OnceOpen::LIMIT`], for the same stray delays.
const STRAY_SHARE: f64 = 0.01;

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
        let mut resilient = checks(&results.resilient);
        resilient.insert(3, at_once_when_open(&results.resilient));
        let naive = checks(&results.naive);
        let control = naive.iter().any(|check| !check.held);
        Self { resilient, naive, control }
    }

    /// Whether the resilient twin kept every check and the naive one did not.
    pub(crate) fn passed(&self) -> bool {
        self.control && self.resilient.iter().all(|check| check.held)
    }
}

fn checks(twin: &Twin) -> Vec<Check> {
    vec![
        reads_answered(twin),
        reads_quick(twin),
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
        name: "every read answered, in every phase",
        held: failed == 0 && twin.phases.iter().all(|phase| phase.reads > 0),
        figures: format!("{} of {reads}", reads - failed),
    }
}

fn reads_quick(twin: &Twin) -> Check {
    let healthy = twin.phases.iter().find(|phase| phase.phase == Phase::Healthy);
    let limit = healthy.map_or(0.0, |healthy| healthy.read_p99_ms * READ_FACTOR + READ_FLOOR_MS);
    let worst = twin.phases.iter().max_by(|a, b| a.read_p99_ms.total_cmp(&b.read_p99_ms));
    Check {
        name: "reads kept their latency",
        held: worst.is_some_and(|worst| worst.read_p99_ms <= limit),
        figures: worst.map_or_else(String::new, |worst| {
            let (p99, phase) = (worst.read_p99_ms, worst.phase.name());
            format!("worst p99 {p99:.1} ms ({phase}); limit {READ_FACTOR} x healthy + {READ_FLOOR_MS} = {limit:.1} ms")
        }),
    }
}

fn orders_answered(twin: &Twin) -> Check {
    let (orders, failed) =
        twin.phases.iter().fold((0, 0), |(all, bad), phase| (all + phase.orders, bad + phase.failed));
    Check {
        name: "every order answered 201, 202 or rightly 422",
        held: failed == 0 && twin.phases.iter().all(|phase| phase.orders > 0),
        figures: format!("{} of {orders}", orders - failed),
    }
}

fn at_once_when_open(twin: &Twin) -> Check {
    const { assert!(OnceOpen::LIMIT.as_millis() == 50) };
    let name = "once the breaker was open, 202 within 50 ms";
    let Some(OnceOpen { orders, fast, half_opens }) = twin.once_open else {
        return Check { name, held: false, figures: "it never opened, or there is none".into() };
    };
    let probes = PROBES * half_opens;
    let strays = (orders as f64 * STRAY_SHARE).ceil() as usize;
    Check {
        name,
        held: orders > 0 && orders - fast <= probes + strays,
        figures: format!("{fast} of {orders}; {probes} may be probes ({half_opens} half-opens), {strays} strays"),
    }
}

fn none_lost(twin: &Twin) -> Check {
    let audit = &twin.audit;
    Check {
        name: "no acknowledged order lost, none stored twice",
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
        name: "every order answered 202 resolved once, rightly",
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
        name: "back to work after user-service's return",
        held: settled_again && twin.resolved_after_ms.is_some(),
        figures: format!(
            "every order settled at once after {:.1} s, none pending after {}",
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
        let phases = Phase::ALL.map(|phase| PhaseFigures {
            phase,
            orders: 1000,
            settled: 900,
            accepted: 100,
            failed: 0,
            post_p50_ms: 2.0,
            post_p99_ms: 8.0,
            reads: 500,
            reads_failed: 0,
            read_p50_ms: 1.0,
            read_p99_ms: 3.0,
            calls: 1000,
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
        let results = Results { seed: 1, quick: true, naive: good(), resilient: twin };
        Verdict::of(&results).resilient.into_iter().filter(|check| !check.held).map(|check| check.name).collect()
    }

    #[test]
    fn a_good_run_passes() {
        assert_eq!(failures(|_| {}), [""; 0]);
    }

    #[test]
    fn every_planted_fault_fails_its_check_and_no_other() {
        let spoilers: [(&str, fn(&mut Twin)); 15] = [
            ("every read answered", |twin| twin.phases[2].reads_failed = 1),
            ("every read answered", |twin| twin.phases[3].reads = 0),
            ("reads kept", |twin| twin.phases[2].read_p99_ms = 24.6),
            ("every order answered 201", |twin| twin.phases[3].failed = 1),
            ("every order answered 201", |twin| twin.phases[4].orders = 0),
            ("once the breaker", |twin| twin.once_open = None),
            ("once the breaker", |twin| twin.once_open.as_mut().expect("open").fast = 983),
            ("no acknowledged", |twin| twin.audit.lost = 1),
            ("no acknowledged", |twin| twin.audit.duplicated = 1),
            ("every order answered 202", |twin| twin.audit.pending = 1),
            ("every order answered 202", |twin| twin.audit.resolved_wrong_number_of_times = 1),
            ("every order answered 202", |twin| twin.audit.misjudged = 1),
            ("every order answered 202", |twin| twin.audit.resolved = 499),
            ("back to work", |twin| twin.resolved_after_ms = None),
            ("back to work", |twin| twin.phases[4].settled = 0),
        ];
        for (expected, spoil) in spoilers {
            let failed = failures(spoil);
            assert!(matches!(failed[..], [only] if only.starts_with(expected)), "{expected}: {failed:?}");
        }
    }

    #[test]
    fn a_run_whose_naive_twin_did_not_suffer_proves_nothing() {
        let results = Results { seed: 1, quick: true, naive: good(), resilient: good() };
        assert!(!Verdict::of(&results).passed());
        let no_breaker = Twin { once_open: None, ..good() };
        let results = Results { naive: no_breaker, ..results };
        assert!(!Verdict::of(&results).passed(), "having no breaker is no suffering");
        let mut naive = good();
        naive.phases[2].failed = 1;
        assert!(Verdict::of(&Results { naive, ..results }).passed());
    }
}
