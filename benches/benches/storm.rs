//! Outcomes under fault, each stack against the same seeded servers in other processes.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use resilient_client_benches::args::{Args, Effort};
use resilient_client_benches::storm::fault::Fault;
use resilient_client_benches::storm::load::{Outcome, run};
use resilient_client_benches::storm::server::{raise_file_limit, serve_if_asked};
use resilient_client_benches::storm::stack::Stack;
use resilient_client_benches::storm::table::Storm;

fn main() {
    if serve_if_asked() {
        return;
    }
    let args = Args::from_env();
    let cells = cells(&args);
    if cells.is_empty() || args.effort == Effort::Smoke {
        return;
    }
    raise_file_limit();
    let rounds = args.rounds.unwrap_or(args.effort.pick(3, 1, 0));
    let rounds: Vec<Vec<Outcome>> = (0..rounds).map(|round| storm(&cells, round, args.effort)).collect();
    let mut table = Storm::default();
    for (place, (stack, fault)) in cells.iter().enumerate() {
        let outcomes: Vec<_> = rounds.iter().map(|round| round[place]).collect();
        table.push(*stack, *fault, &outcomes);
    }
    table.publish(&args);
}

/// Fault by fault, so that what is compared runs at about the same time; those whose fault or stack
/// has the filter in its name.
fn cells(args: &Args) -> Vec<(Stack, Fault)> {
    let stacks: &[Stack] = args.effort.pick(&Stack::ALL, &Stack::QUICK, &[]);
    let all = Fault::ALL.iter().flat_map(|fault| stacks.iter().map(|stack| (*stack, *fault)));
    all.filter(|(stack, fault)| args.wants(&format!("storm: {}: {}", fault.name(), stack.name()))).collect()
}

/// Every cell once, in an order that differs from round to round. So many at a time send; who only
/// waits for what is still out makes room for the next.
fn storm(cells: &[(Stack, Fault)], round: usize, effort: Effort) -> Vec<Outcome> {
    let length = |cell: &usize| cells[*cell].1.length(effort);
    let queued = |cell: &usize| cells[*cell].1.gone(effort).is_some();
    let long = |cell: &usize| length(cell) > Duration::from_secs(20);
    let (queueing, short): (Vec<usize>, Vec<usize>) = (0..cells.len()).partition(queued);
    let (long, queueing): (Vec<usize>, Vec<usize>) = queueing.into_iter().partition(long);
    // Where calls wait for workers a few milliseconds more or less don't matter, so more of those
    // fit beside each other.
    let (of_short, of_queueing) = effort.pick((6, 13), (6, 9), (1, 1));
    let mut outcomes: Vec<(usize, Outcome)> = Vec::new();
    for (mut order, at_once) in [(short, of_short), (queueing, of_queueing), (long, of_queueing)] {
        let turn = (round * at_once / 2).checked_rem(order.len()).unwrap_or(0);
        order.rotate_left(turn);
        outcomes.extend(by_turns(cells, &order, at_once, round as u64, effort));
    }
    outcomes.sort_unstable_by_key(|(cell, _)| *cell);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn by_turns(
    cells: &[(Stack, Fault)],
    order: &[usize],
    at_once: usize,
    round: u64,
    effort: Effort,
) -> Vec<(usize, Outcome)> {
    let (given_back, free) = mpsc::channel();
    let slot = || Slot(given_back.clone());
    let mut slots: Vec<Slot> = (0..at_once).map(|_| slot()).collect();
    thread::scope(|scope| {
        let start = |&cell: &usize| {
            let slot = slots.pop().unwrap_or_else(|| {
                free.recv().expect("the sender is here");
                slot()
            });
            let (stack, fault) = cells[cell];
            scope.spawn(move || (cell, run(stack, fault, 1 + round, effort, || drop(slot))))
        };
        let running: Vec<_> = order.iter().map(start).collect();
        running.into_iter().map(|cell| cell.join().expect("cell")).collect()
    })
}

/// Leave to send; the next one has it when this is dropped.
struct Slot(mpsc::Sender<()>);

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
