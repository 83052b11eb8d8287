//! The outcomes as tables, and what is asked of ours.

use serde_json::{Value, json};

use super::fault::Fault;
use super::load::Outcome;
use super::stack::Stack;
use crate::args::Args;
use crate::table::{append, verdict};

/// What every stack made of every fault.
#[derive(Debug, Default)]
pub struct Storm {
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    stack: Stack,
    fault: Fault,
    /// The medians of the rounds.
    outcome: Outcome,
    spread: Outcome,
    rounds: usize,
}

/// A difference in success that is no difference, in points: retries make the faults fall on other
/// calls in each run, and a quick one has 900 of them.
const EQUAL: f64 = 1.0;

impl Storm {
    /// Adds the rounds of one.
    pub fn push(&mut self, stack: Stack, fault: Fault, rounds: &[Outcome]) {
        let (outcome, spread) = (Outcome::medians(rounds), Outcome::spread(rounds));
        self.cells.push(Cell { stack, fault, outcome, spread, rounds: rounds.len() });
    }

    /// Prints the tables and our goals, and writes them where they were asked for.
    pub fn publish(&self, args: &Args) {
        let rounds = self.cells.iter().map(|cell| cell.rounds).max().unwrap_or(0);
        let (requests, servers) = Fault::ALL.split_at(Fault::OF_REQUESTS);
        for (what, faults) in [("Requests", requests), ("Servers", servers)] {
            let title = format!("{what} under fault: success % / requests per call / p99 ms");
            self.print(&format!("{title}; medians of {rounds}"), faults, |cell| short(&cell.outcome));
            if rounds > 1 {
                self.print("  highest less lowest of the rounds", faults, |cell| short(&cell.spread));
            }
        }
        self.print_others();
        println!("\nGoals");
        let mut rows = Vec::new();
        for cell in &self.cells {
            let goals = self.goals(cell);
            for (goal, met) in &goals {
                let (stack, fault) = (cell.stack.name(), cell.fault.name());
                println!("  {stack:<20} {fault:<22} {goal:<64} {}", verdict(*met));
            }
            let goals: Vec<_> =
                goals.into_iter().map(|(goal, met)| json!({ "goal": goal, "met": met })).collect();
            let mut row = quantities(&cell.outcome);
            row["stack"] = json!(cell.stack.name());
            row["fault"] = json!(cell.fault.name());
            row["goals"] = json!(goals);
            if rounds > 1 {
                row["spread"] = quantities(&cell.spread);
            }
            rows.push(row);
        }
        append(args, &json!({ "kind": "storm", "rounds": rounds, "rows": rows }));
    }

    fn print(&self, title: &str, faults: &[Fault], text: impl Fn(&Cell) -> String) {
        let faults: Vec<_> =
            faults.iter().filter(|fault| self.cells.iter().any(|cell| cell.fault == **fault)).collect();
        if faults.is_empty() {
            return;
        }
        print!("\n{title}\n  {:<24}", "stack");
        for fault in &faults {
            print!("{:>24}", fault.name());
        }
        println!();
        for stack in Stack::ALL {
            if self.cells.iter().any(|cell| cell.stack == stack) {
                print!("  {:<24}", stack.name());
                for fault in &faults {
                    print!("{:>24}", self.cell(stack, **fault).map_or_else(String::new, &text));
                }
                println!();
            }
        }
    }

    /// What only some faults have.
    fn print_others(&self) {
        println!("\nBesides");
        for Cell { stack, fault, outcome, spread, rounds } in &self.cells {
            let line = |what: &str, unit: &str, value: f64, spread: f64| {
                if !value.is_nan() {
                    let spread = match *rounds {
                        1 => String::new(),
                        _ if spread.is_infinite() => " (not in each round)".to_owned(),
                        _ => format!(" (spread {})", amount(spread)),
                    };
                    let (stack, fault) = (stack.name(), fault.name());
                    println!("  {fault:<22} {stack:<24} {what} {:>7} {unit}{spread}", amount(value));
                }
            };
            line("Retry-After obeyed", "% of requests", outcome.obeyed, spread.obeyed);
            line("recovered", "s after the workers", outcome.recovered, spread.recovered);
            line("back", "ms after the server", outcome.back, spread.back);
            if *fault == Fault::LongOverload {
                line("possible", "%", outcome.possible, spread.possible);
            }
        }
    }

    fn cell(&self, stack: Stack, fault: Fault) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.stack == stack && cell.fault == fault)
    }

    /// What is asked of ours, said in words, and whether it is so.
    fn goals(&self, cell: &Cell) -> Vec<(String, bool)> {
        let Cell { stack, fault, ref outcome, .. } = *cell;
        if !stack.is_ours() {
            return Vec::new();
        }
        let hedged = stack == Stack::OursHedge;
        let mut goals = Vec::new();
        let (success, amplification, p99) = match fault {
            Fault::Some503 => (Some(98.8), Some(1.45), Some(100.0)),
            Fault::All503 => (None, Some(0.1), None),
            Fault::Hang => (Some(99.9), Some(1.07), Some(if hedged { 50.0 } else { 530.0 })),
            Fault::StalledBody => (Some(99.9), Some(1.07), Some(if hedged { 60.0 } else { 550.0 })),
            Fault::Close => (Some(99.9), Some(1.12), Some(30.0)),
            Fault::RetryAfterOne => (Some(99.9), Some(1.2), None),
            Fault::SlowReplica => (Some(99.9), Some(1.12), None),
            Fault::Rolling => (Some(99.9), Some(1.03), None),
            Fault::RetryAfter | Fault::Outage => (None, None, None),
            Fault::Overload => (Some(89.0), Some(1.03), None),
            // Who sends nothing while it lasts can't pass 83 %.
            Fault::Stall => (Some(82.0), Some(1.03), None),
            Fault::LongOverload => (None, Some(1.03), None),
        };
        goals.extend(amplification.map(|most| at_most("requests per call", outcome.amplification, most)));
        goals.extend(success.map(|least| at_least("success, %", outcome.success, least)));
        goals.extend(p99.map(|most| at_most("p99, ms", outcome.p99, most)));
        match fault {
            Fault::RetryAfter | Fault::RetryAfterOne if !outcome.obeyed.is_nan() => {
                goals.push(at_least("Retry-After obeyed, %", outcome.obeyed, 100.0));
            }
            Fault::Outage => goals.push(at_most("back, ms", outcome.back, 500.0)),
            Fault::LongOverload => {
                let share = 100.0 * outcome.success / outcome.possible;
                goals.push(at_least("success over what is possible, %", share, 98.0));
            }
            Fault::Overload => goals.extend(self.cell(Stack::Reqwest, fault).map(|bare| {
                let behind = outcome.recovered - bare.outcome.recovered;
                at_most("recovered after bare reqwest, s", behind, 0.5)
            })),
            _ => {}
        }
        goals.extend(self.first_or_equal(cell));
        goals
    }

    /// No peer does better: asked of the standard policy, where obedience or sparing a server that
    /// is down costs nothing.
    fn first_or_equal(&self, cell: &Cell) -> Option<(String, bool)> {
        let spared = matches!(cell.fault, Fault::RetryAfter | Fault::Outage | Fault::Stall);
        if cell.stack != Stack::Ours || spared {
            return None;
        }
        let peers = self.cells.iter().filter(|peer| peer.fault == cell.fault && !peer.stack.is_ours());
        let best = peers.max_by(|one, other| one.outcome.success.total_cmp(&other.outcome.success))?;
        let (ours, name, theirs) = (cell.outcome.success, best.stack.name(), best.outcome.success);
        let goal = format!("success, %: {ours:.2}, at least the {theirs:.2} of {name}, give or take {EQUAL}");
        Some((goal, ours + EQUAL >= theirs))
    }
}

fn at_least(what: &str, value: f64, least: f64) -> (String, bool) {
    (format!("{what}: {}, at least {least}", amount(value)), value >= least)
}

fn at_most(what: &str, value: f64, most: f64) -> (String, bool) {
    (format!("{what}: {}, at most {most}", amount(value)), value <= most)
}

fn short(outcome: &Outcome) -> String {
    let Outcome { success, amplification, p99, .. } = outcome;
    format!("{success:.1} / {amplification:.2} / {p99:.0}")
}

/// Infinite is what didn't happen in the run.
fn amount(value: f64) -> String {
    if value.is_infinite() { "never".to_owned() } else { format!("{value:.2}") }
}

fn quantities(outcome: &Outcome) -> Value {
    let Outcome { success, amplification, p99, obeyed, recovered, back, possible } = *outcome;
    let known = |value: f64| {
        if value.is_nan() {
            Value::Null
        } else if value.is_infinite() {
            json!(amount(value))
        } else {
            json!(value)
        }
    };
    json!({
        "success": known(success), "amplification": known(amplification), "p99": known(p99), "obeyed": known(obeyed),
        "recovered": known(recovered), "back": known(back), "possible": known(possible),
    })
}
