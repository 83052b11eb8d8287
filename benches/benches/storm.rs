//! Outcomes under fault, each stack against the same seeded server in another process.

use std::thread;
use std::time::Duration;

use resilient_client_benches::args::{Args, Effort};
use resilient_client_benches::side_by_side::median;
use resilient_client_benches::storm::Fault;
use resilient_client_benches::storm::load::{Outcome, run};
use resilient_client_benches::storm::server::serve_if_asked;
use resilient_client_benches::storm::stack::Stack;
use resilient_client_benches::table::Storm;

fn main() {
    if serve_if_asked() {
        return;
    }
    let args = Args::from_env();
    if !args.wants("storm") || args.effort == Effort::Smoke {
        return;
    }
    let stacks: &[Stack] = args.effort.pick(&Stack::ALL, &Stack::QUICK, &[]);
    let cells = cells(stacks);
    let rounds: Vec<Vec<Outcome>> =
        (0..args.effort.pick(3, 1, 0)).map(|round| storm(&cells, round, args.effort)).collect();
    let mut table = Storm::default();
    for (place, (stack, fault)) in cells.iter().enumerate() {
        let of = |quantity: fn(&Outcome) -> f64| {
            median(
                rounds
                    .iter()
                    .map(|round| quantity(&round[place]))
                    .filter(|value| value.is_finite())
                    .collect(),
            )
        };
        let outcome = Outcome {
            success: of(|outcome| outcome.success),
            amplification: of(|outcome| outcome.amplification),
            p99: of(|outcome| outcome.p99),
            obeyed: of(|outcome| outcome.obeyed),
            recovered: of(|outcome| outcome.recovered),
        };
        table.push(*stack, *fault, outcome);
    }
    table.publish(&args);
}

/// Fault by fault, so that what is compared runs at about the same time.
fn cells(stacks: &[Stack]) -> Vec<(Stack, Fault)> {
    Fault::ALL.iter().flat_map(|fault| stacks.iter().map(|stack| (*stack, *fault))).collect()
}

/// Every cell once, a few at a time, in an order that differs from round to round.
fn storm(cells: &[(Stack, Fault)], round: usize, effort: Effort) -> Vec<Outcome> {
    let mut outcomes: Vec<(usize, Outcome)> = Vec::new();
    let (queued, short): (Vec<usize>, Vec<usize>) =
        (0..cells.len()).partition(|cell| cells[*cell].1.gone().is_some());
    // Where calls wait for workers a few milliseconds more or less don't matter, so more of those fit beside each other.
    let (of_short, of_queued) = effort.pick((5, 10), (6, 8), (1, 1));
    for (mut order, length, at_once) in [(short, effort.pick(6, 3, 1), of_short), (queued, 14, of_queued)] {
        let turn = round * at_once / 2 % order.len();
        order.rotate_left(turn);
        for wave in order.chunks(at_once) {
            outcomes.extend(together(cells, wave, round as u64, Duration::from_secs(length)));
        }
    }
    outcomes.sort_unstable_by_key(|(cell, _)| *cell);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn together(cells: &[(Stack, Fault)], wave: &[usize], round: u64, length: Duration) -> Vec<(usize, Outcome)> {
    thread::scope(|scope| {
        let start = |&cell: &usize| {
            let (stack, fault) = cells[cell];
            scope.spawn(move || (cell, run(stack, fault, 1 + round, length)))
        };
        let running: Vec<_> = wave.iter().map(start).collect();
        running.into_iter().map(|cell| cell.join().expect("cell")).collect()
    })
}
