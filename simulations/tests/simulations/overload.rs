//! Overload, whole calls on a virtual clock: what the standard policy serves beside a bare client,
//! and what it never refuses.
//!
//! `table` prints the figures in the documentation:
//! `cargo test -p resilient-client-simulations overload::table -- --ignored --nocapture`.

mod world;

use std::time::Duration;

use self::world::{Found, PLENTY, Scenario, Workers, bare, lognormal, of, print, run, secs};
use super::script::ms;
use super::*;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::concurrency::ConcurrencyPolicy;
use resilient_client::policy::overload::OverloadPolicy;

const SEEDS: u64 = 3;

/// Those in which a limit helps, and those in which it must not be felt.
fn all_scenarios() -> Vec<Scenario> {
    let half = |until| Workers { all: 10, left: 5, gone: (3.0, until) };
    let plenty = Workers::always(PLENTY);
    vec![
        Scenario::new("storm overload", half(9.7), |_, _| (0.025, Some(200))),
        Scenario { seconds: 70.0, ..Scenario::new("overload, 60 s", half(63.0), |_, _| (0.025, Some(200))) },
        Scenario::new("stall, 2.4 s", Workers { left: 0, gone: (3.0, 5.4), ..half(0.0) }, |_, _| {
            (0.025, Some(200))
        }),
        Scenario {
            attempt: Duration::from_secs(3),
            within: Duration::from_secs(4),
            ..Scenario::new(
                "stall, attempts of 3 s",
                Workers { left: 0, gone: (3.0, 5.4), ..half(0.0) },
                |_, _| (0.025, Some(200)),
            )
        },
        Scenario::new("pauses of 150 ms", plenty, |_, at| (0.010 + (0.150 - at % 1.0).max(0.0), Some(200))),
        Scenario::new("5 x slower", plenty, |_, at| (if at < 5.0 { 0.01 } else { 0.05 }, Some(200))),
        Scenario::new("25 x slower", plenty, |_, at| (if at < 5.0 { 0.01 } else { 0.25 }, Some(200))),
        Scenario::new("40 x slower", plenty, |_, at| (if at < 5.0 { 0.01 } else { 0.40 }, Some(200))),
        Scenario::new("5 % +200 ms", plenty, |rng, _| {
            (if rng.unit() < 0.05 { 0.21 } else { 0.01 }, Some(200))
        }),
        Scenario::new("5 % hang", plenty, |rng, _| (0.01, Some(200).filter(|_| rng.unit() >= 0.05))),
        Scenario::new("30 % hang", plenty, |rng, _| (0.01, Some(200).filter(|_| rng.unit() >= 0.3))),
        Scenario::new("503 x 30 %", plenty, |rng, _| (0.002, Some(if rng.unit() < 0.3 { 503 } else { 200 }))),
        Scenario::new("lognormal near capacity", Workers::always(10), |rng, _| {
            (lognormal(rng, 0.030, 0.8), Some(200))
        }),
        Scenario {
            per_second: 2.0,
            seconds: 20.0,
            bursts: &[(10.0, 200), (15.0, 200)],
            ..Scenario::new("bursts after idle", Workers::always(50), |_, _| (0.02, Some(200)))
        },
        Scenario {
            per_second: 20.0,
            seconds: 20.0,
            bursts: &[(10.0, 200), (15.0, 200)],
            ..Scenario::new("bursts, usual 200 ms", plenty, |_, _| (0.2, Some(200)))
        },
        Scenario::new("outage of 5 s", plenty, |_, at| {
            if (3.0..8.0).contains(&at) { (0.001, Some(503)) } else { (0.01, Some(200)) }
        }),
        Scenario {
            per_second: 800.0,
            seconds: 40.0,
            attempt: Duration::from_secs(1),
            ..Scenario::new("E1, 800/s", Workers { all: 10, left: 5, gone: (20.0, 30.0) }, |_, _| {
                (0.01, Some(200))
            })
        },
    ]
}

fn scenario(name: &str) -> Scenario {
    all_scenarios().into_iter().find(|scenario| scenario.name == name).expect("a name there is")
}

/// Many runs, for who reads the figures.
#[test]
#[ignore = "prints a table: some minutes"]
fn table() {
    for clients in [1, 5, 10, 20] {
        for scenario in all_scenarios() {
            let limited = |overload| of(&scenario, Policy::standard().overload(overload));
            let queue = BulkheadPolicy::standard().max_queued(300);
            let adaptive = |kind| Policy::standard().overload(None).concurrency(kind).bulkhead(queue.clone());
            for (who, policy) in [
                ("bare", bare()),
                ("without", of(&scenario, Policy::standard().overload(None))),
                ("no waiting", limited(OverloadPolicy::standard().max_waiting(0))),
                ("waits 0.5 s", limited(OverloadPolicy::standard().wait(ms(500)))),
                ("standard", limited(OverloadPolicy::standard())),
                ("gradient", of(&scenario, adaptive(ConcurrencyPolicy::gradient()))),
                ("vegas", of(&scenario, adaptive(ConcurrencyPolicy::vegas()))),
                ("aimd", of(&scenario, adaptive(ConcurrencyPolicy::aimd()))),
            ] {
                let found = run(&scenario, &policy, clients, SEEDS);
                print(&format!("{}, {clients} clients", scenario.name), who, &found);
            }
            println!();
        }
    }
}

/// The standard policy but for the attempt timeout; the same without the limit; and a bare client.
fn beside(name: &str, clients: usize) -> [Found; 3] {
    let scenario = scenario(name);
    let standard = of(&scenario, Policy::standard());
    [("standard", standard.clone()), ("without", standard.overload(None)), ("bare", bare())].map(
        |(who, policy)| {
            let found = run(&scenario, &policy, clients, SEEDS);
            print(&format!("{name}, {clients} clients"), who, &found);
            found
        },
    )
}

#[test]
fn a_server_at_half_its_speed_is_used_to_the_full() {
    let [standard, without, bare] = beside("storm overload", 1);
    assert!(standard.good >= 91.0 && standard.good >= bare.good - 0.5, "{standard:?}");
    assert!(standard.opened == 0 && standard.amplification <= 1.03, "{standard:?}");
    assert!(without.good < 80.0, "the control: {without:?}");
}

/// 72 % of what is asked for is all there is.
#[test]
fn a_minute_at_half_its_speed_as_well() {
    let [standard, without, bare] = beside("overload, 60 s", 1);
    assert!(standard.good >= 72.5 && standard.opened == 0 && standard.amplification <= 1.03, "{standard:?}");
    assert!(without.good < 60.0 && bare.good < 20.0, "the controls: {without:?} {bare:?}");
}

/// What was sent before the first timeouts is worked on for nothing once it is over. Nothing sent
/// while it lasts would be 82.9 %.
#[test]
fn a_stall_costs_hardly_more_than_it_lasts() {
    let [standard, without, _] = beside("stall, 2.4 s", 1);
    assert!(standard.good >= 82.3 && without.good < 80.5, "{standard:?} {without:?}");
}

/// It fills the bulkhead less, and calls wait in line for what they would have waited for on the
/// wire.
#[test]
fn a_stall_shorter_than_attempts_turns_away_fewer() {
    let [standard, without, _] = beside("stall, attempts of 3 s", 1);
    assert!(standard.good >= 95.0 && without.good < 91.0, "{standard:?} {without:?}");
    assert!(standard.opened == 0 && standard.p99 <= without.p99 + ms(20), "{standard:?} {without:?}");
}

/// As a collector's, once a second: who waits for the end of it goes at once then.
#[test]
fn short_pauses_make_nobody_later() {
    let [standard, without, _] = beside("pauses of 150 ms", 1);
    assert!(standard.good >= 99.99 && standard.p99 <= without.p99 + ms(5), "{standard:?} {without:?}");
}

#[test]
fn e1_is_served_better_than_by_the_bulkhead_alone() {
    let [standard, without, _] = beside("E1, 800/s", 1);
    assert!(standard.good >= without.good + 0.8 && standard.good_at_end >= 99.9, "{standard:?} {without:?}");
}

#[test]
fn a_stall_or_an_outage_is_no_worse_than_without_it() {
    for name in ["stall, 2.4 s", "outage of 5 s"] {
        let [standard, without, _] = beside(name, 1);
        assert!(standard.good >= without.good - 0.1, "{name}: {standard:?} {without:?}");
    }
}

/// None knows of the others, and each has only its share of the answers to go by.
#[test]
fn many_clients_of_one_server_keep_it_working_together() {
    for (name, clients, least) in [
        ("storm overload", 5, 91.0),
        ("storm overload", 30, 82.0),
        ("overload, 60 s", 10, 72.0),
        ("overload, 60 s", 30, 69.0),
    ] {
        let [standard, without, _] = beside(name, clients);
        assert!(standard.good >= least && standard.opened == 0, "{name}, {clients} clients: {standard:?}");
        assert!(without.good < 70.0, "the control: {without:?}");
    }
}

#[test]
fn nobody_is_refused_where_nothing_queues() {
    for name in [
        "5 x slower",
        "25 x slower",
        "40 x slower",
        "5 % +200 ms",
        "5 % hang",
        "30 % hang",
        "503 x 30 %",
        "lognormal near capacity",
        "bursts after idle",
        "bursts, usual 200 ms",
    ] {
        for clients in [1, 10] {
            let [standard, without, _] = beside(name, clients);
            assert_eq!(standard.refused, (0, 0, 0), "{name}: {standard:?}");
            assert!(standard.good >= without.good - 0.1, "{name}: {standard:?} {without:?}");
        }
    }
}

/// With nothing set: an attempt has 3 s, and a call 10.
#[test]
fn the_standard_policy_untouched_refuses_nobody_where_nothing_queues() {
    let plenty = Workers::always(PLENTY);
    let long = |scenario| Scenario { seconds: 40.0, within: secs(10.0), ..scenario };
    for scenario in [
        Scenario::new("25 x slower", plenty, |_, at| (if at < 10.0 { 0.06 } else { 1.5 }, Some(200))),
        Scenario::new("40 x slower", plenty, |_, at| (if at < 10.0 { 0.06 } else { 2.4 }, Some(200))),
        Scenario::new("5 % +1.2 s", plenty, |rng, _| {
            (if rng.unit() < 0.05 { 1.26 } else { 0.06 }, Some(200))
        }),
        Scenario::new("5 % hang", plenty, |rng, _| (0.06, Some(200).filter(|_| rng.unit() >= 0.05))),
        Scenario::new("30 % hang", plenty, |rng, _| (0.06, Some(200).filter(|_| rng.unit() >= 0.3))),
        Scenario::new("503 x 30 %", plenty, |rng, _| (0.01, Some(if rng.unit() < 0.3 { 503 } else { 200 }))),
        Scenario::new("lognormal near capacity", Workers::always(10), |rng, _| {
            (lognormal(rng, 0.18, 0.8), Some(200))
        }),
        Scenario {
            bursts: &[(20.0, 150), (30.0, 150)],
            ..Scenario::new("bursts, usual 1.2 s", plenty, |_, _| (1.2, Some(200)))
        },
    ] {
        let per_second = if scenario.bursts.is_empty() { 50.0 } else { 10.0 };
        let scenario = Scenario { per_second, ..long(scenario) };
        let standard = run(&scenario, &Policy::standard(), 1, 1);
        print(scenario.name, "standard", &standard);
        assert_eq!(standard.refused, (0, 0, 0), "{}: {standard:?}", scenario.name);
        // Of four attempts all hang for one call in 123, and the budget allows fewer now and then.
        let least = if scenario.name == "30 % hang" { 97.5 } else { 99.0 };
        assert!(standard.good >= least, "{}: {standard:?}", scenario.name);
    }
}

/// And where something does it serves what can be served: 20 of 30 calls a second for a minute.
#[test]
fn the_standard_policy_untouched_keeps_an_overloaded_server_at_work() {
    let half = Workers { all: 10, left: 5, gone: (10.0, 70.0) };
    let scenario = Scenario {
        per_second: 30.0,
        seconds: 90.0,
        within: secs(10.0),
        ..Scenario::new("half of the workers gone", half, |_, _| (0.25, Some(200)))
    };
    let standard = run(&scenario, &Policy::standard(), 1, SEEDS);
    let without = run(&scenario, &Policy::standard().overload(None), 1, SEEDS);
    print(scenario.name, "standard", &standard);
    print(scenario.name, "without", &without);
    assert!(standard.good >= 76.0 && standard.opened == 0, "{standard:?}");
    assert!(without.good < 70.0, "the control: {without:?}");
}
