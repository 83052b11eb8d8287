//! The tables to read: what, ours, peer, ratio, goal. On demand also as JSON, a line each, for the
//! `comparison` binary.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::args::Args;

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

pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

pub(crate) fn append(args: &Args, line: &Value) {
    let Some(path) = &args.json else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    writeln!(file.expect("the JSON file"), "{line}").expect("the JSON file");
}
