//! A closed loop over loopback against a server in another process: ours over reqwest, reqwest
//! alone and the peers over it, in turns; then ours over hyper and hyper-util alone.

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
        let over_reqwest = [
            ("ours over reqwest", Client::ours(standard())),
            ("bare reqwest", Client::bare()),
            ("reqwest-retry", Client::middleware()),
            ("tower over reqwest", Client::tower()),
            ("tower-resilience over reqwest", Client::tower_resilience()),
        ];
        compare(&server, &args, &over_reqwest);
        let over_hyper = [
            ("ours over hyper", Client::ours_on_hyper(standard())),
            ("bare hyper-util", Client::bare_hyper()),
        ];
        compare(&server, &args, &over_hyper);
    }
}

/// The first is ours.
fn compare(server: &Server, args: &Args, clients: &[(&'static str, Client)]) {
    let mut table = Table::new("Over loopback, one GET and its body; medians of the rounds");
    for callers in [1, 64] {
        let loops: Vec<Loop> =
            clients.iter().map(|(name, client)| Loop::new(name, client.clone(), callers)).collect();
        let rounds = in_turns(&loops, server.url(), args.effort);
        print(&loops, &rounds, callers);
        for (what, of) in QUANTITIES {
            let column = |i: usize| rounds.iter().map(|round| of(&round[i])).collect::<Vec<_>>();
            for peer in 1..loops.len() {
                let ratio = rounds.iter().map(|round| of(&round[0]) / of(&round[peer])).collect();
                let what = format!("{}: {what}, {callers} at once", loops[0].name);
                let theirs = (loops[peer].name, median(column(peer)));
                table.versus(&what, median(column(0)), theirs, median(ratio), Goal::None);
            }
        }
    }
    table.publish(args);
}

type Quantity = (&'static str, fn(&Slice) -> f64);
const QUANTITIES: [Quantity; 4] = [
    ("calls/s", |slice| slice.rate),
    ("p50, us", |slice| slice.p50),
    ("p99, us", |slice| slice.p99),
    ("CPU a call, us", |slice| slice.cpu),
];

/// Each round runs all, another one first each time; the first round only warms up.
fn in_turns(loops: &[Loop], url: &str, effort: Effort) -> Vec<Vec<Slice>> {
    // Fewer and shorter slices than for two: what is added stands beside the pairs that matter.
    let length = Duration::from_millis(effort.pick(400, 120, 10));
    let rounds = effort.pick(21, 7, 1);
    let round = |number: usize| {
        let mut order: Vec<usize> = (0..loops.len()).collect();
        order.rotate_left(number % loops.len());
        let mut slices: Vec<(usize, Slice)> =
            order.into_iter().map(|i| (i, loops[i].run(url, length))).collect();
        slices.sort_unstable_by_key(|(i, _)| *i);
        slices.into_iter().map(|(_, slice)| slice).collect()
    };
    let _: Vec<Slice> = round(0);
    (1..=rounds).map(round).collect()
}

fn print(loops: &[Loop], rounds: &[Vec<Slice>], callers: usize) {
    println!("\n{callers} at once: median [quartiles] of {} rounds", rounds.len());
    for (i, name) in loops.iter().map(|subject| subject.name).enumerate() {
        print!("  {name:<30}");
        for (what, of) in QUANTITIES {
            let values: Vec<f64> = rounds.iter().map(|round| of(&round[i])).collect();
            let at = |share| quantile(values.clone(), share);
            print!("  {what} {:.1} [{:.1} {:.1}]", at(0.5), at(0.25), at(0.75));
        }
        println!();
    }
}
