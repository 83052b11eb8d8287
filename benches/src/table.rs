//! The tables to read: what, ours, peer, ratio, goal. On demand also as JSON, a line each, for the `comparison` binary.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::args::Args;
use crate::storm::Fault;
use crate::storm::load::Outcome;
use crate::storm::stack::Stack;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Nothing yet: the number is there to be seen.
    None,
    /// Ours, at most.
    AtMost(f64),
    /// Ours over the peer's, at most.
    Ratio(f64),
}

/// Comparisons of one kind.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<[String; 5]>,
    json: Vec<Value>,
}

impl Table {
    /// An empty table; `title` names the unit.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), json: Vec::new() }
    }

    /// Adds a comparison with a peer; `ratio` is that of timings taken in turns.
    pub fn versus(&mut self, what: &str, ours: f64, peer: (&str, f64), ratio: f64, goal: Goal) {
        let (name, peer) = peer;
        self.push(what, ours, &format!("{} ({name})", number(peer)), ratio, goal);
        if let Some(row) = self.json.last_mut() {
            row["peer"] = json!(name);
            row["theirs"] = json!(peer);
            row["ratio"] = if ratio.is_finite() { json!(ratio) } else { json!(ours / peer) };
        }
    }

    /// Adds a comparison of counts with a peer's.
    pub fn counts(&mut self, what: &str, ours: f64, peer: (&str, f64), goal: Goal) {
        self.versus(what, ours, peer, ours / peer.1, goal);
    }

    /// Adds a number that stands by itself.
    pub fn alone(&mut self, what: &str, ours: f64, goal: Goal) {
        self.push(what, ours, "-", f64::NAN, goal);
    }

    fn push(&mut self, what: &str, ours: f64, peer: &str, ratio: f64, goal: Goal) {
        let (goal, met) = match goal {
            Goal::None => ("-".to_owned(), None),
            Goal::AtMost(most) => (format!("<= {}", number(most)), Some(ours <= most)),
            Goal::Ratio(most) => (format!("ratio <= {most:.3}"), Some(ratio <= most)),
        };
        self.json.push(json!({ "what": what, "ours": ours, "goal": goal, "met": met }));
        let goal = match met {
            None => goal,
            Some(met) => format!("{goal} {}", verdict(met)),
        };
        let ratio = if ratio.is_finite() { format!("{ratio:.3}") } else { "-".to_owned() };
        self.rows.push([what.to_owned(), number(ours), peer.to_owned(), ratio, goal]);
    }

    /// Prints it, and writes it where it was asked for.
    pub fn publish(&self, args: &Args) {
        self.print();
        append(args, &json!({ "kind": "table", "title": self.title, "rows": self.json }));
    }

    fn print(&self) {
        let head = ["what", "ours", "peer", "ratio", "goal"].map(str::to_owned);
        let width = |column: usize| {
            self.rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        println!("\n{}", self.title);
        for row in [&head].into_iter().chain(&self.rows) {
            let [what, ours, peer, ratio, goal] = row;
            println!(
                "  {what:<w0$}  {ours:>w1$}  {peer:<w2$}  {ratio:>w3$}  {goal}",
                w0 = width(0),
                w1 = width(1),
                w2 = width(2),
                w3 = width(3),
            );
        }
    }
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn append(args: &Args, line: &Value) {
    let Some(path) = &args.json else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    writeln!(file.expect("the JSON file"), "{line}").expect("the JSON file");
}

/// The outcomes of every stack under every fault.
#[derive(Debug, Default)]
pub struct Storm {
    cells: Vec<(Stack, Fault, Outcome)>,
}

/// What isn't sent can't succeed, and what is sent is answered by nobody: nothing is asked of the share.
const NOTHING: f64 = f64::NEG_INFINITY;

impl Storm {
    /// Adds one.
    pub fn push(&mut self, stack: Stack, fault: Fault, outcome: Outcome) {
        self.cells.push((stack, fault, outcome));
    }

    /// Prints the table and our goals, and writes them where they were asked for.
    pub fn publish(&self, args: &Args) {
        println!("\nUnder fault: success % / requests per call / p99 ms; medians of the rounds");
        print!("  {:<24}", "stack");
        for fault in &Fault::ALL {
            print!("{:>24}", fault.name());
        }
        println!();
        for stack in Stack::ALL {
            let cells: Vec<_> = self.cells.iter().filter(|(of, ..)| *of == stack).collect();
            if !cells.is_empty() {
                print!("  {:<24}", stack.name());
                for (_, _, outcome) in &cells {
                    print!("{:>24}", short(outcome));
                }
                println!();
            }
        }
        println!(
            "\nRetry-After obeyed, % of retries (Retry-After cell); recovery once all workers are back, s (overload and stall cells)"
        );
        for (stack, fault, outcome) in &self.cells {
            match fault {
                Fault::RetryAfter if outcome.obeyed.is_finite() => {
                    println!("  {:<24} obeyed {:>6.1} %", stack.name(), outcome.obeyed);
                }
                Fault::Overload | Fault::Stall => {
                    let (stack, fault) = (stack.name(), fault.name());
                    println!("  {stack:<24} recovered {:>+6.1} s  {fault}", outcome.recovered);
                }
                _ => {}
            }
        }
        println!("\nGoals");
        let mut rows = Vec::new();
        for (stack, fault, outcome) in &self.cells {
            let goals = self.goals(*stack, *fault, outcome);
            for (goal, met) in &goals {
                println!("  {:<16} {:<22} {goal:<44} {}", stack.name(), fault.name(), verdict(*met));
            }
            let goals: Vec<_> =
                goals.into_iter().map(|(goal, met)| json!({ "goal": goal, "met": met })).collect();
            let finite = |value: f64| if value.is_finite() { json!(value) } else { Value::Null };
            rows.push(json!({
                "stack": stack.name(), "fault": fault.name(), "success": outcome.success,
                "amplification": outcome.amplification, "p99": outcome.p99, "obeyed": finite(outcome.obeyed),
                "recovered": finite(outcome.recovered), "goals": goals,
            }));
        }
        append(args, &json!({ "kind": "storm", "rows": rows }));
    }

    /// What is asked of ours, said in words, and whether it is so.
    fn goals(&self, stack: Stack, fault: Fault, outcome: &Outcome) -> Vec<(String, bool)> {
        if !stack.is_ours() {
            return Vec::new();
        }
        let hedged = stack == Stack::OursHedge;
        let (success, amplification, p99) = match fault {
            Fault::Some503 => (98.8, 1.45, 100.0),
            Fault::All503 => (NOTHING, 0.1, f64::INFINITY),
            Fault::Hang => (99.9, 1.07, if hedged { 50.0 } else { 530.0 }),
            Fault::StalledBody => (99.9, 1.07, if hedged { 60.0 } else { 550.0 }),
            Fault::Close => (99.9, 1.12, 30.0),
            Fault::RetryAfter => return vec![at_least("Retry-After obeyed, %", outcome.obeyed, 100.0)],
            Fault::Overload => (86.0, 1.03, f64::INFINITY),
            Fault::Stall => (NOTHING, 1.03, f64::INFINITY),
        };
        let mut goals = vec![at_most("requests per call", outcome.amplification, amplification)];
        if success.is_finite() {
            goals.push(at_least("success, %", outcome.success, success));
        }
        if p99.is_finite() {
            goals.push(at_most("p99, ms", outcome.p99, p99));
        }
        let bare = self.cells.iter().find(|(of, under, _)| *of == Stack::Reqwest && *under == fault);
        if let (Fault::Overload, Some((.., bare))) = (fault, bare) {
            let behind = outcome.recovered - bare.recovered;
            goals.push(at_most("recovered after bare reqwest, s", behind, 1.0));
        }
        goals
    }
}

fn at_least(what: &str, value: f64, least: f64) -> (String, bool) {
    (format!("{what}: {value:.2}, at least {least}"), value >= least)
}

fn at_most(what: &str, value: f64, most: f64) -> (String, bool) {
    (format!("{what}: {value:.2}, at most {most}"), value <= most)
}

fn short(outcome: &Outcome) -> String {
    let Outcome { success, amplification, p99, .. } = outcome;
    format!("{success:.1} / {amplification:.2} / {p99:.0}")
}
