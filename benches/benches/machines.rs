//! Each pure machine alone, one thread and two on one instance, and the peers' breakers beside
//! ours.

use std::mem::size_of_val;
use std::time::Duration;

use criterion::Criterion;
use resilient_client::policy::budget::{Budget, BudgetPolicy};
use resilient_client::policy::bulkhead::{Bulkhead, BulkheadPolicy};
use resilient_client_benches::args::Args;
use resilient_client_benches::side_by_side::{Timings, side_by_side};
use resilient_client_benches::subject::Subject;
use resilient_client_benches::table::{Goal, Table};
use resilient_client_benches::{lookups, machines, noop};

fn main() {
    let args = Args::from_env();
    if args.with_criterion() {
        with_criterion();
    }
    if args.wants("machines side by side") {
        compare(&args);
        sizes();
    }
}

fn with_criterion() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for mut group in groups() {
        let mut bench = criterion.benchmark_group(group.name);
        for subject in &mut group.subjects {
            bench.bench_function(subject.name(), |b| b.iter_custom(|n| subject.run(n)));
        }
        bench.finish();
    }
    criterion.final_summary();
}

struct Group {
    name: &'static str,
    subjects: Vec<Subject>,
}

fn groups() -> Vec<Group> {
    vec![
        Group {
            name: "breaker closed",
            subjects: vec![
                machines::closed("ours", 1),
                machines::closed_with_clock("ours, two clock reads", 1),
                machines::failsafe_closed("failsafe", 1),
                machines::recloser_closed("recloser", 1),
                machines::tower_resilience_closed("tower-resilience", 1),
            ],
        },
        Group {
            name: "breaker closed, 2 threads",
            subjects: vec![
                machines::closed("ours", 2),
                machines::closed("ours, 1 thread", 1),
                machines::closed_with_clock("ours, two clock reads", 2),
                machines::failsafe_closed("failsafe", 2),
                machines::recloser_closed("recloser", 2),
                machines::tower_resilience_closed("tower-resilience", 2),
            ],
        },
        Group {
            name: "breaker rejected",
            subjects: vec![
                machines::rejected("ours", 1),
                machines::failsafe_rejected("failsafe", 1),
                machines::recloser_rejected("recloser", 1),
            ],
        },
        Group {
            name: "breaker rejected, 2 threads",
            subjects: vec![
                machines::rejected("ours", 2),
                machines::failsafe_rejected("failsafe", 2),
                machines::recloser_rejected("recloser", 2),
            ],
        },
        Group {
            name: "breaker half-open",
            subjects: vec![
                machines::half_open("ours, probe", 1),
                machines::half_open_rejected("ours, rejected", 1),
                machines::half_open("ours, probe, 2 threads", 2),
                machines::half_open_rejected("ours, rejected, 2 threads", 2),
            ],
        },
        lookups_of("lookup", 1),
        lookups_of("lookup, 2 threads", 2),
        Group {
            name: "upstreams, whole call",
            subjects: vec![
                noop::ours_hosts("1 host", 1, 1),
                noop::ours_hosts("16 hosts", 16, 1),
                noop::ours_hosts("1000 hosts", 1000, 1),
                noop::ours_hosts("100,000 hosts", 100_000, 1),
                noop::ours_hosts("1 host, 2 threads", 1, 2),
                noop::ours_hosts("16 hosts, 2 threads", 16, 2),
                noop::ours_hosts("1000 hosts, 2 threads", 1000, 2),
            ],
        },
        Group {
            name: "budget and bulkhead",
            subjects: vec![
                machines::deposit("deposit", 1),
                machines::deposit("deposit, 2 threads", 2),
                machines::withdraw_refund("withdraw and refund", 1),
                machines::withdraw_refund("withdraw and refund, 2 threads", 2),
                machines::bulkhead("slot taken and given back", 1),
                machines::bulkhead("slot taken and given back, 2 threads", 2),
            ],
        },
    ]
}

fn lookups_of(name: &'static str, threads: usize) -> Group {
    let subjects = vec![
        lookups::ours("ours, 16 hosts", 16, threads),
        lookups::ours("ours, 1000 hosts", 1000, threads),
        lookups::ours("ours, 100,000 hosts", 100_000, threads),
        lookups::ours_by_uri("ours from a URI, 16 hosts", 16, threads),
        lookups::ours_by_uri("ours from a URI, 1000 hosts", 1000, threads),
        lookups::governor("governor, 16 hosts", 16, threads),
        lookups::governor("governor, 1000 hosts", 1000, threads),
        lookups::governor("governor, 100,000 hosts", 100_000, threads),
    ];
    Group { name, subjects }
}

/// The same subjects in turns, against the goals.
fn compare(args: &Args) {
    let mut table = Table::new("Machines, ns");
    for mut group in groups() {
        let timings = side_by_side(&mut group.subjects, args.effort);
        timings.print(group.name);
        let name = group.name;
        match name {
            "breaker closed" => {
                let peers = ["ours, two clock reads", "failsafe", "recloser", "tower-resilience"];
                versus(&mut table, name, &timings, &peers, Goal::AtMost(12.0));
            }
            "breaker closed, 2 threads" => {
                let peers =
                    ["ours, 1 thread", "ours, two clock reads", "failsafe", "recloser", "tower-resilience"];
                versus(&mut table, name, &timings, &peers, Goal::AtMost(50.0));
            }
            "breaker rejected" => {
                versus(&mut table, name, &timings, &["failsafe", "recloser"], Goal::AtMost(10.0));
            }
            "breaker rejected, 2 threads" => {
                versus(&mut table, name, &timings, &["failsafe", "recloser"], Goal::None);
            }
            "lookup" | "lookup, 2 threads" => lookups_versus(&mut table, name, &timings),
            "upstreams, whole call" => {
                for hosts in ["16 hosts", "1000 hosts", "100,000 hosts"] {
                    let above = timings.difference(hosts, "1 host");
                    table.alone(&format!("call to one of {hosts}, above one of 1"), above, Goal::None);
                }
            }
            // Ours alone: no peer's half-open breaker stays so, and none has the others by
            // themselves.
            _ => {
                for subject in &group.subjects {
                    let what = format!("{name}: {}", subject.name());
                    table.alone(&what, timings.median(subject.name()), Goal::None);
                }
            }
        }
    }
    table.publish(args);
}

fn lookups_versus(table: &mut Table, name: &str, timings: &Timings) {
    let most = Goal::AtMost(45.0);
    for (hosts, goal) in [("16 hosts", most), ("1000 hosts", most), ("100,000 hosts", Goal::None)] {
        let (ours, governor) = (&format!("ours, {hosts}"), &format!("governor, {hosts}"));
        let theirs = ("governor, keyed", timings.median(governor));
        let ratio = timings.ratio(ours, governor);
        table.versus(&format!("{name}, {hosts}"), timings.median(ours), theirs, ratio, goal);
    }
    for hosts in ["16 hosts", "1000 hosts"] {
        let from_uri = timings.median(&format!("ours from a URI, {hosts}"));
        table.alone(&format!("{name}, {hosts}, reading the URI too"), from_uri, Goal::None);
    }
}

fn versus(table: &mut Table, what: &str, timings: &Timings, peers: &[&str], goal: Goal) {
    for peer in peers {
        let ratio = timings.ratio("ours", peer);
        table.versus(what, timings.median("ours"), (peer, timings.median(peer)), ratio, goal);
    }
}

/// The machines' own sizes. What a peer keeps on the heap besides is counted by the `allocations`
/// bench.
fn sizes() {
    let budget = Budget::new(BudgetPolicy::standard().compile().expect("rules"));
    let bulkhead = Bulkhead::new(BulkheadPolicy::standard().compile().expect("rules"));
    println!("\nsize_of, bytes (ours have nothing on the heap)");
    for (what, bytes) in [
        ("breaker", size_of_val(&machines::breaker())),
        ("budget", size_of_val(&budget)),
        ("bulkhead", size_of_val(&bulkhead)),
        ("failsafe's breaker, a pointer", size_of_val(&machines::failsafe())),
        ("recloser's breaker, without its ring", size_of_val(&machines::recloser())),
    ] {
        println!("  {what:<40} {bytes:>5}");
    }
}
