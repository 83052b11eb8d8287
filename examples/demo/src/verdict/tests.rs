use super::*;
use crate::audit::Audit;
use crate::counted::Counted;
use crate::follow::STREAMS;
use crate::naive::Naive;
use crate::parts::Without;
use crate::results::{OnceOpen, PhaseFigures, SecondFigures, Streams, Work};
use crate::scenario::{ISOLATION, Mood, REPLICAS, SCENARIOS};

/// A run in which all went well, for every order-service.
pub(crate) fn results(scenario: &Scenario) -> Results {
    Results {
        scenario: scenario.name,
        seed: 1,
        quick: true,
        naive_client: Naive::NoTimeout,
        without: Without::default(),
        machine: Machine::default(),
        naive: good(scenario),
        others: Vec::new(),
        resilient: good(scenario),
        alone: good(scenario),
        counted: Counted::default(),
    }
}

fn good(scenario: &Scenario) -> Twin {
    let phase = |index: usize| {
        let phase = &scenario.phases[index];
        let dead = phase.name == "2 killed";
        PhaseFigures {
            name: phase.name,
            orders: 1000,
            settled: if phase.mood == Mood::Down { 900 } else { 1000 },
            accepted: if phase.mood == Mood::Down { 100 } else { 0 },
            failed: 0,
            wrong: 0,
            post_p50_ms: 2.0,
            post_p99_ms: 8.0,
            later_p99_ms: 8.0,
            sent_late_p99_ms: 1.0,
            post_slow: 0,
            settled_at_end: Some(1.0),
            reads: 500,
            reads_failed: 0,
            read_p50_ms: 1.0,
            read_p99_ms: 3.0,
            calls: match (scenario.user_services, dead) {
                (1, _) => vec![500],
                (_, true) => vec![300, 0, 300],
                _ => vec![300; 3],
            },
            work: Work { begun: 500, in_vain: 0 },
            streams: if scenario.streams {
                Streams { ended: 0, alive: STREAMS as u64, whole_ms: 2000 }
            } else {
                Streams::default()
            },
            most_waiting: 5,
        }
    };
    let second = |at| SecondFigures {
        at,
        phase: 0,
        settled: 50,
        accepted: 0,
        failed: 0,
        post_p99_ms: Some(8.0),
        read_p99_ms: None,
        reads_failed: 0,
        calls: 50,
        in_vain: 0,
        streams: None,
        waiting: 0,
    };
    Twin {
        phases: (0..scenario.phases.len()).map(phase).collect(),
        post_p99_ms: 8.0,
        once_open: Some(OnceOpen { orders: 1000, opened_after_ms: 900.0, fast: 984, half_opens: 2 }),
        full_service_after_ms: Some(900.0),
        resolved_after_ms: Some(2000.0),
        audit: Audit { placed: 5000, acknowledged: 5000, resolved: 500, ..Audit::default() },
        seconds: (1..=3).map(second).collect(),
    }
}

/// What fails for a resilient twin that was spoilt.
fn failures(scenario: &Scenario, spoil: impl FnOnce(&mut Twin)) -> Vec<&'static str> {
    let mut results = results(scenario);
    spoil(&mut results.resilient);
    let verdict = Verdict::of(scenario, &results);
    verdict.resilient.into_iter().filter(|check| !check.held()).map(|check| check.name).collect()
}

type Spoiler = (&'static str, fn(&mut Twin));

fn each_fails_its_check_and_no_other(scenario: &Scenario, spoilers: &[Spoiler]) {
    for (expected, spoil) in spoilers {
        let failed = failures(scenario, spoil);
        assert!(matches!(failed[..], [only] if only.starts_with(expected)), "{expected}: {failed:?}");
    }
}

#[test]
fn a_good_run_of_any_scenario_passes() {
    for scenario in SCENARIOS {
        assert_eq!(failures(scenario, |_| {}), [""; 0], "{}", scenario.name);
    }
}

#[test]
fn every_planted_fault_fails_its_check_and_no_other() {
    each_fails_its_check_and_no_other(
        &ISOLATION,
        &[
            ("reads: all", |twin| twin.phases[2].reads_failed = 1),
            ("reads: all", |twin| twin.phases[3].reads = 0),
            ("reads: as quick", |twin| twin.phases[2].read_p99_ms = 24.6),
            ("orders: all", |twin| twin.phases[3].failed = 1),
            ("orders: all", |twin| twin.phases[4].orders = 0),
            ("orders: 202 at", |twin| twin.once_open = None),
            ("orders: 202 at", |twin| twin.once_open.as_mut().expect("open").fast = 983),
            ("orders: 202 at", |twin| twin.once_open.as_mut().expect("open").opened_after_ms = 3001.0),
            // A breaker that does nothing but probe.
            ("orders: 202 at", |twin| {
                let open = twin.once_open.as_mut().expect("open");
                (open.fast, open.half_opens) = (889, 1000);
            }),
            ("orders: none", |twin| twin.audit.lost = 1),
            ("orders: none", |twin| twin.audit.duplicated = 1),
            ("orders: each", |twin| twin.audit.pending = 1),
            ("orders: each", |twin| twin.audit.resolved_wrong_number_of_times = 1),
            ("orders: each", |twin| twin.audit.misjudged = 1),
            ("orders: each", |twin| twin.audit.resolved = 199),
            ("recovered", |twin| twin.resolved_after_ms = None),
            ("recovered", |twin| twin.resolved_after_ms = Some(10_001.0)),
            ("recovered", |twin| twin.full_service_after_ms = None),
            ("recovered", |twin| twin.full_service_after_ms = Some(6000.0)),
            ("recovered", |twin| twin.phases[4].settled = 0),
        ],
    );
    each_fails_its_check_and_no_other(
        &REPLICAS,
        &[
            ("orders: settled", |twin| twin.phases[3].settled = 998),
            ("orders: as quick", |twin| twin.phases[3].later_p99_ms = 32.1),
            ("one refusing", |twin| twin.phases[1].calls = vec![401, 300, 299]),
            ("one refusing", |twin| twin.phases[1].calls = vec![0; 3]),
            ("one killed", |twin| twin.phases[5].calls = vec![300, 0, 300]),
            ("one killed", |twin| twin.phases[4].calls = vec![300, 1, 300]),
        ],
    );
    let named = |name| Scenario::named(name).expect(name);
    each_fails_its_check_and_no_other(
        named("retry-storm"),
        &[("calls: few", |twin| {
            twin.phases[2].calls = vec![1211];
        })],
    );
    each_fails_its_check_and_no_other(
        named("overload-recovery"),
        &[("orders: settled", |twin| {
            twin.phases[2].settled_at_end = Some(0.94);
        })],
    );
    each_fails_its_check_and_no_other(
        named("chain"),
        &[
            ("orders: answered", |twin| twin.phases[1].settled = 979),
            ("work: none", |twin| twin.phases[2].work.in_vain = 26),
            ("work: none", |twin| twin.phases[2].work = Work::default()),
        ],
    );
    each_fails_its_check_and_no_other(
        named("streams"),
        &[
            ("streams: none", |twin| twin.phases[0].streams.ended = 1),
            ("streams: none", |twin| twin.phases[0].streams.alive = 3),
            ("streams: all", |twin| twin.phases[1].streams.alive = 3),
            ("streams: all", |twin| twin.phases[1].streams.whole_ms = 1999),
            ("streams: all", |twin| twin.phases[2].streams.alive = 0),
        ],
    );
}

#[test]
fn one_order_in_a_thousand_may_be_left_open_and_what_the_machine_leaves_open() {
    assert_eq!(failures(&REPLICAS, |twin| twin.phases[3].settled = 999), [""; 0]);
    let mut results = results(&REPLICAS);
    results.resilient.phases[3].settled = 969;
    assert!(!Verdict::of(&REPLICAS, &results).resilient[0].held());
    results.alone.phases[3].settled = 990;
    assert!(Verdict::of(&REPLICAS, &results).resilient[0].held());
}

#[test]
fn what_slows_the_lone_order_service_too_is_this_machine() {
    let mut results = results(&ISOLATION);
    results.resilient.once_open =
        Some(OnceOpen { orders: 1000, opened_after_ms: 900.0, fast: 950, half_opens: 0 });
    results.resilient.phases[2].read_p99_ms = 130.0;
    let missed = |results: &Results| {
        Verdict::of(&ISOLATION, results).resilient.iter().filter(|check| !check.held()).count()
    };
    assert_eq!(missed(&results), 2);
    results.alone.phases[2].post_slow = 30;
    results.alone.phases[2].read_p99_ms = 80.0;
    assert_eq!(missed(&results), 0);
}

#[test]
fn what_is_sent_late_may_be_answered_late() {
    let mut results = results(&ISOLATION);
    results.resilient.phases[3].read_p99_ms = 60.0;
    let missed = |results: &Results| {
        Verdict::of(&ISOLATION, results).resilient.iter().filter(|check| !check.held()).count()
    };
    assert_eq!(missed(&results), 1);
    results.resilient.phases[3].sent_late_p99_ms = 30.0;
    assert_eq!(missed(&results), 0);
    results.resilient.phases[3].sent_late_p99_ms = 101.0;
    assert_eq!(missed(&results), 1, "nothing to judge by");
}

#[test]
fn a_run_whose_naive_twin_did_not_suffer_proves_nothing() {
    let mut results = results(&ISOLATION);
    assert_eq!(Verdict::of(&ISOLATION, &results).judgement, Judgement::DidNotHold);
    results.naive.once_open = None;
    assert_eq!(
        Verdict::of(&ISOLATION, &results).judgement,
        Judgement::DidNotHold,
        "no breaker is no suffering"
    );
    results.naive.phases[2].failed = 1;
    assert_eq!(Verdict::of(&ISOLATION, &results).judgement, Judgement::Held);
}

#[test]
fn a_naive_twin_that_is_to_collapse_must() {
    let scenario = Scenario::named("overload-recovery").expect("there is one");
    let mut results = results(scenario);
    results.naive.phases[2].settled_at_end = Some(0.06);
    assert_eq!(Verdict::of(scenario, &results).judgement, Judgement::DidNotHold);
    results.naive.phases[2].settled_at_end = Some(0.04);
    assert_eq!(Verdict::of(scenario, &results).judgement, Judgement::Held);
}

#[test]
fn a_machine_that_is_too_busy_is_told_from_a_rule_that_failed() {
    let mut results = results(&ISOLATION);
    results.naive.phases[2].failed = 1;
    results.resilient.phases[2].failed = 1;
    assert_eq!(Verdict::of(&ISOLATION, &results).judgement, Judgement::DidNotHold);
    let busy = [
        Machine { late_p99_ms: 101.0, ..Machine::default() },
        Machine { alone_p99_ms: 5100.0, ..Machine::default() },
        Machine { alone_failed: 1, ..Machine::default() },
    ];
    for machine in busy {
        results.machine = machine;
        let judgement = Verdict::of(&ISOLATION, &results).judgement;
        assert!(matches!(judgement, Judgement::Inconclusive(_)), "{machine:?}: {judgement:?}");
    }
}

#[test]
fn a_busy_machine_is_no_excuse_for_a_lost_order_nor_for_an_error_of_the_lone_service() {
    let busy = Machine { late_p99_ms: 101.0, ..Machine::default() };
    let spoil: [fn(&mut Results); 4] = [
        |results| results.resilient.audit.lost = 1,
        |results| results.resilient.audit.misjudged = 1,
        |results| results.alone.phases[0].wrong = 1,
        |results| results.counted.differences.push("1-1 came 2 times".into()),
    ];
    for spoil in spoil {
        let mut results = results(&ISOLATION);
        results.naive.phases[2].failed = 1;
        results.machine = busy;
        assert_eq!(Verdict::of(&ISOLATION, &results).judgement, Judgement::Held);
        spoil(&mut results);
        assert_eq!(Verdict::of(&ISOLATION, &results).judgement, Judgement::DidNotHold);
    }
}

#[test]
fn a_limit_that_is_near_to_what_a_fault_costs_judges_nothing() {
    let mut results = results(&ISOLATION);
    results.naive.phases[2].failed = 1;
    results.alone.phases[2].read_p99_ms = 101.0;
    for read_p99_ms in [5.0, 300.0] {
        results.resilient.phases[2].read_p99_ms = read_p99_ms;
        let judgement = Verdict::of(&ISOLATION, &results).judgement;
        assert!(matches!(judgement, Judgement::Inconclusive(_)), "{read_p99_ms}: {judgement:?}");
    }
}
