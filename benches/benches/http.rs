//! A closed loop over loopback against a server in another process: bare reqwest and ours over it, in turns; then the same
//! with hyper-util.

use std::time::Duration;

use resilient_client::Policy;
use resilient_client_benches::args::{Args, Effort};
use resilient_client_benches::loopback::{Server, serve_if_asked};
use resilient_client_benches::side_by_side::{median, quantile};
use resilient_client_benches::table::{Goal, Table};
use resilient_client_benches::wire::{Client, Loop, Slice};

fn main() {
    if serve_if_asked() {
        return;
    }
    let args = Args::from_env();
    if args.wants("http") {
        let server = Server::start();
        let standard = Policy::standard;
        let ours = ("ours over reqwest", Client::ours(standard()));
        compare(&server, args.effort, [("bare reqwest", Client::bare()), ours]);
        let ours = ("ours over hyper", Client::ours_on_hyper(standard()));
        compare(&server, args.effort, [("bare hyper-util", Client::bare_hyper()), ours]);
    }
}

fn compare(server: &Server, effort: Effort, [bare, ours]: [(&'static str, Client); 2]) {
    let mut table = Table::new("Over loopback, one GET and its body; medians of the rounds");
    for callers in [1, 64] {
        let loops = [&bare, &ours].map(|(name, client)| Loop::new(name, client.clone(), callers));
        let rounds = in_turns(&loops, server.url(), effort);
        print(&loops, &rounds, callers);
        for (what, of) in QUANTITIES {
            let column = |i: usize| rounds.iter().map(|round| of(&round[i])).collect::<Vec<_>>();
            let ratio = rounds.iter().map(|round| of(&round[1]) / of(&round[0])).collect();
            let what = format!("{}: {what}, {callers} at once", ours.0);
            table.versus(&what, median(column(1)), (bare.0, median(column(0))), median(ratio), Goal::None);
        }
    }
    table.print();
}

type Quantity = (&'static str, fn(&Slice) -> f64);
const QUANTITIES: [Quantity; 4] = [
    ("calls/s", |slice| slice.rate),
    ("p50, us", |slice| slice.p50),
    ("p99, us", |slice| slice.p99),
    ("CPU a call, us", |slice| slice.cpu),
];

/// Each round runs both, the other one first each time; the first round only warms up.
fn in_turns(loops: &[Loop; 2], url: &str, effort: Effort) -> Vec<[Slice; 2]> {
    let length = Duration::from_millis(effort.pick(500, 250, 10));
    let rounds = effort.pick(21, 7, 1);
    let round = |number: usize| {
        let run = |i: usize| loops[i].run(url, length);
        if number.is_multiple_of(2) {
            [run(0), run(1)]
        } else {
            let ours = run(1);
            [run(0), ours]
        }
    };
    round(0);
    (1..=rounds).map(round).collect()
}

fn print(loops: &[Loop; 2], rounds: &[[Slice; 2]], callers: usize) {
    println!("\n{callers} at once: median [quartiles] of {} rounds", rounds.len());
    for (i, name) in loops.iter().map(|subject| subject.name).enumerate() {
        print!("  {name:<20}");
        for (what, of) in QUANTITIES {
            let values: Vec<f64> = rounds.iter().map(|round| of(&round[i])).collect();
            let at = |share| quantile(values.clone(), share);
            print!("  {what} {:.1} [{:.1} {:.1}]", at(0.5), at(0.25), at(0.75));
        }
        println!();
    }
}
