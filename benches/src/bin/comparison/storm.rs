//! The storm's part of the page.

use std::fmt::Write as _;

use resilient_client_benches::storm::fault::Fault;
use resilient_client_benches::storm::stack::Stack;
use serde_json::Value;

use super::{Group, plot, verdict};

pub(super) fn storm(page: &mut String, line: &Value) {
    let rounds = line["rounds"].as_u64().unwrap_or(1);
    let storm = Storm::of(line["rows"].as_array().map_or(&[], Vec::as_slice));
    let medians = if rounds > 1 { format!("; medians of {rounds} rounds") } else { String::new() };
    let _ = write!(page, "\n## Under fault: success % / requests per call / p99 ms{medians}\n");
    let (run, all) = (storm.stacks.len(), Stack::ALL.len());
    if run < all {
        let _ = write!(page, "\n{run} of the {all} stacks, as with `--quick`.\n");
    }
    let (requests, servers) = Fault::ALL.split_at(Fault::OF_REQUESTS);
    for (what, faults, besides) in
        [("Requests fail", requests, OF_REQUESTS), ("Servers fail", servers, OF_SERVERS)]
    {
        let _ = write!(page, "\n{what}:\n");
        storm.table(page, faults, besides, |row| row);
        if rounds > 1 {
            page.push_str("\nHighest less lowest of the rounds:\n");
            storm.table(page, faults, besides, |row| &row["spread"]);
        }
    }
    storm.goals(page);
    for (name, key) in [("success, %", "success"), ("requests per call", "amplification")] {
        plot(page, &format!("storm-{key}"), &format!("Under fault: {name}"), &storm.groups(key));
    }
}

/// A column for what only one fault has.
struct Besides {
    heading: &'static str,
    fault: Fault,
    key: &'static str,
    unit: &'static str,
}

const OF_REQUESTS: &[Besides] = &[
    Besides { heading: "Retry-After obeyed", fault: Fault::RetryAfter, key: "obeyed", unit: "%" },
    Besides { heading: "obeyed, 1 of 2", fault: Fault::RetryAfterOne, key: "obeyed", unit: "%" },
];
const OF_SERVERS: &[Besides] = &[
    Besides { heading: "back after the outage", fault: Fault::Outage, key: "back", unit: "ms" },
    Besides { heading: "recovered after the overload", fault: Fault::Overload, key: "recovered", unit: "s" },
    Besides { heading: "possible in the long one", fault: Fault::LongOverload, key: "possible", unit: "%" },
];

struct Storm<'a> {
    rows: &'a [Value],
    /// In the order of the run.
    stacks: Vec<&'a str>,
}

impl<'a> Storm<'a> {
    fn of(rows: &'a [Value]) -> Self {
        let mut stacks: Vec<&str> = Vec::new();
        for row in rows {
            let stack = row["stack"].as_str().unwrap_or_default();
            if !stacks.contains(&stack) {
                stacks.push(stack);
            }
        }
        Self { rows, stacks }
    }

    fn row(&self, stack: &str, fault: Fault) -> Option<&Value> {
        self.rows.iter().find(|row| row["stack"] == stack && row["fault"] == fault.name())
    }

    fn table(&self, page: &mut String, faults: &[Fault], besides: &[Besides], of: fn(&Value) -> &Value) {
        page.push_str("\n| stack |");
        for heading in
            faults.iter().map(|fault| fault.name()).chain(besides.iter().map(|besides| besides.heading))
        {
            let _ = write!(page, " {heading} |");
        }
        page.push_str("\n|---|");
        page.push_str(&"--:|".repeat(faults.len() + besides.len()));
        for stack in &self.stacks {
            let _ = write!(page, "\n| {stack} |");
            for fault in faults {
                let text = self.row(stack, *fault).map_or_else(|| "-".to_owned(), |row| outcome(of(row)));
                let _ = write!(page, " {text} |");
            }
            for Besides { fault, key, unit, .. } in besides {
                let text = self.row(stack, *fault).and_then(|row| quantity(&of(row)[*key], unit));
                let _ = write!(page, " {} |", text.as_deref().unwrap_or("-"));
            }
        }
        page.push('\n');
    }

    fn goals(&self, page: &mut String) {
        page.push_str("\n| stack | fault | goal | |\n|---|---|---|---|\n");
        for row in self.rows {
            for goal in row["goals"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let _ = writeln!(
                    page,
                    "| {} | {} | {} | {} |",
                    text(&row["stack"]),
                    text(&row["fault"]),
                    text(&goal["goal"]),
                    verdict(&goal["met"])
                );
            }
        }
    }

    fn groups(&self, key: &str) -> Vec<Group> {
        let group = |fault: &Fault| {
            let bar = |stack: &&str| Some(((*stack).to_owned(), self.row(stack, *fault)?[key].as_f64()?));
            Group { title: fault.name().to_owned(), bars: self.stacks.iter().filter_map(bar).collect() }
        };
        Fault::ALL.iter().map(group).filter(|group| !group.bars.is_empty()).collect()
    }
}

fn outcome(row: &Value) -> String {
    let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    format!("{:.1} / {:.2} / {:.0}", number("success"), number("amplification"), number("p99"))
}

/// A word stands for what has no number: never.
fn quantity(value: &Value, unit: &str) -> Option<String> {
    let digits = usize::from(unit == "s");
    value
        .as_f64()
        .map(|number| format!("{number:.digits$} {unit}"))
        .or_else(|| value.as_str().map(str::to_owned))
}
