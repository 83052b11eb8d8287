//! The whole stack round a service that does nothing, beside the bare service and tower's own
//! layers.

use std::time::Duration;

use criterion::Criterion;
use resilient_client::Policy;
use resilient_client_benches::args::Args;
use resilient_client_benches::noop;
use resilient_client_benches::side_by_side::side_by_side;
use resilient_client_benches::subject::Subject;
use resilient_client_benches::table::{Goal, Table};

const BARE: &str = "bare service";
const OURS: &str = "ours, standard policy";
const UNREPEATABLE: &str = "ours, standard policy, body sent once";
const UNTOLD: &str = "ours, standard policy, no deadline header";
const NONE: &str = "ours, no policy";
const TOWER: &str = "tower: retry, limit, timeout";
const TOWER_BUDGET: &str = "tower: and its budget and a total timeout";
const SEATBELT: &str = "seatbelt: retry, breaker, timeout";
const TOWER_RESILIENCE: &str = "tower-resilience";

fn main() {
    let args = Args::from_env();
    if args.with_criterion() {
        with_criterion();
    }
    if args.wants("call side by side") {
        compare(&args);
    }
}

fn with_criterion() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("call");
    for mut subject in subjects() {
        group.bench_function(subject.name(), |b| b.iter_custom(|n| subject.run(n)));
    }
    group.finish();
    criterion.final_summary();
}

fn subjects() -> Vec<Subject> {
    vec![
        noop::bare(BARE),
        noop::ours(OURS, &Policy::standard()),
        noop::ours_unrepeatable(UNREPEATABLE, &Policy::standard()),
        noop::ours_untold(UNTOLD, &Policy::standard()),
        noop::ours(NONE, &Policy::none()),
        noop::tower(TOWER),
        noop::tower_with_budget(TOWER_BUDGET),
        noop::seatbelt(SEATBELT),
        noop::tower_resilience(TOWER_RESILIENCE),
    ]
}

fn compare(args: &Args) {
    let timings = side_by_side(&mut subjects(), args.effort);
    timings.print("call round a service that does nothing");
    let mut table = Table::new("Call round a service that does nothing, ns");
    for peer in [TOWER, TOWER_BUDGET, SEATBELT, TOWER_RESILIENCE] {
        let ratio = timings.ratio(OURS, peer);
        table.versus("whole call", timings.median(OURS), (peer, timings.median(peer)), ratio, Goal::None);
    }
    for (ours, goal) in [
        (OURS, Goal::AtMost(300.0)),
        (UNREPEATABLE, Goal::AtMost(200.0)),
        (UNTOLD, Goal::None),
        (NONE, Goal::None),
    ] {
        table.alone(&format!("{ours}: above the bare service"), timings.difference(ours, BARE), goal);
    }
    table.publish(args);
}
