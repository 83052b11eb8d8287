//! What the demo prints with replicas: an introduction, a line a second, and the verdict.

use std::fmt::Write;

use super::results::{PhaseFigures, Results};
use super::verdict::Verdict;
use super::{Plan, SLOW, bad_one};
use crate::cli::Client;
use crate::colour::{Colour, Colours};
use crate::fault_phases::Phase;
use crate::load::PATIENCE;
use crate::report::{check_line, duration, failed_line, percent, phase_colour, span};
use crate::tally::Tally;
use crate::verdict::Check;

/// What the demo is about to do.
pub(crate) fn introduction(plan: &Plan, replicas: usize, orders: u32, reads: u32, seed: u64) -> String {
    format!(
        "\
Two order-services ask {replicas} replicas of user-service about every customer;
each is a process.
  naive      reqwest with its default settings, each replica in turn; if the
             question fails, so does the order
  resilient  resilient-client: the endpoints behind one name, its standard
             policy and hedging; if the question fails, the order is kept (202)
  alone      knows its customers and asks nobody: the control, which shows what
             this machine does by itself
All get the same {orders} orders and {reads} reads a second, from clients that
wait {patience} s.
  ok    orders answered 201 (422: no such user)  p99    99 of 100 were quicker
  202   orders stored, to be verified later      wait   requests unanswered yet
  fail  orders answered 500, or not at all       calls  to each replica
Seed {seed}; at most {limit} s.
",
        patience = PATIENCE.as_secs(),
        limit = plan.limit().as_secs(),
    )
}

/// The columns of one order-service in the table of seconds: their heads and widths. Only the resilient one answers
/// 202; only at the naive one requests pile up.
const COLUMNS: [(&str, usize); 6] =
    [("ok", 4), ("202", 4), ("fail", 5), ("p99", 6), ("wait", 5), ("calls", 12)];

fn columns(client: Client) -> impl Iterator<Item = (&'static str, usize)> {
    COLUMNS
        .into_iter()
        .filter(move |(head, _)| *head != if client == Client::Resilient { "wait" } else { "202" })
}

/// The head of the table of seconds.
pub(super) fn header(colours: Colours) -> String {
    let mut lines = [format!("{:13}|", ""), format!("{:>3} {:9}|", "s", "phase")];
    for client in Client::TWINS {
        let width: usize = columns(client).map(|(_, width)| width).sum();
        let _ = write!(lines[0], "{:^width$}|", client.name());
        for (head, width) in columns(client) {
            let _ = write!(lines[1], "{head:>width$}");
        }
        lines[1].push('|');
    }
    lines.map(|line| colours.apply(Colour::Bold, &line)).join("\n")
}

/// One order-service in one second.
pub(super) struct Second {
    pub(super) tally: Tally,
    /// By replica.
    pub(super) calls: Vec<u64>,
    pub(super) waiting: usize,
}

/// A line of the table of seconds.
pub(super) fn second(colours: Colours, at: u64, phase: Phase, twins: &[Second; 2]) -> String {
    let mut line =
        format!("{at:>3} {}|", colours.apply(phase_colour(phase), &format!("{:<9}", phase.name())));
    for (client, second) in Client::TWINS.into_iter().zip(twins) {
        for (head, width) in columns(client) {
            let (text, colour) = cell(head, second);
            let text = format!("{text:>width$}");
            line.push_str(&colour.map_or_else(|| text.clone(), |colour| colours.apply(colour, &text)));
        }
        line.push('|');
    }
    line
}

fn cell(head: &str, second: &Second) -> (String, Option<Colour>) {
    let tally = &second.tally;
    let alarm = |count: u64, colour: Colour| (count > 0).then_some(colour);
    match head {
        "ok" => (tally.settled.to_string(), None),
        "202" => (tally.accepted.to_string(), alarm(tally.accepted, Colour::Yellow)),
        "fail" => (tally.failed.to_string(), alarm(tally.failed, Colour::Red)),
        "p99" => (span(tally.post.quantile(0.99)), None),
        "wait" => (second.waiting.to_string(), None),
        _ => (slashed(second.calls.iter().map(u64::to_string)), None),
    }
}

fn slashed(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("/")
}

/// What is said at the start of a phase.
pub(super) fn opening(phase: Phase) -> String {
    let Some(number) = bad_one(phase).map(|bad| bad + 1) else { return "every replica is well".into() };
    match phase {
        Phase::OneRefuses => format!("replica {number} answers 503 to everything, at once"),
        Phase::OneSlow => format!("replica {number} takes {} ms longer for every answer", SLOW.delay_ms),
        Phase::OneHangs => {
            format!("SIGSTOP to replica {number}: it takes connections, never answers (then SIGCONT)")
        }
        Phase::OneKilled => format!("kill -9 to replica {number}: connections are refused"),
        _ => format!("replica {number} is started again"),
    }
}

/// The tables at the end, and whether one bad replica cost anything.
pub(crate) fn summary(colours: Colours, results: &Results, verdict: &Verdict) -> String {
    let mut out = String::new();
    let bold = |text: &str| colours.apply(Colour::Bold, text);
    let heads = cells(Phase::REPLICAS.map(|phase| phase.name().to_owned()));
    let _ = writeln!(out, "{}", bold(&format!("{:<12}{heads}", "")));
    for (label, figure) in ROWS {
        let twins = [(Client::Naive, &results.naive), (Client::Resilient, &results.resilient)];
        let is_telling = label.contains("p99") || label.contains("settled");
        let control = is_telling.then_some((Client::Alone, &results.alone));
        let _ = writeln!(out, "{label}");
        for (client, twin) in twins.into_iter().chain(control) {
            let figures = cells(twin.phases.iter().map(figure));
            let _ = writeln!(out, "  {:<10}{figures}", client.name());
        }
    }
    let note = "shares: as the replicas counted; one that is stopped or dead counts none";
    let _ = writeln!(out, "{}", colours.apply(Colour::Dim, note));
    let _ = writeln!(out, "\n{}", bold("Did one bad replica cost nothing?"));
    for check in &verdict.resilient {
        let _ = writeln!(out, "  {}", check_line(colours, check));
    }
    let failed: Vec<_> = verdict.naive.iter().filter(|check| !check.held).collect();
    let control = Check {
        name: "control: the naive twin fails",
        held: verdict.control,
        figures: format!("{} of {}", failed.len(), verdict.naive.len()),
    };
    let _ = writeln!(out, "  {}", check_line(colours, &control));
    for check in failed {
        let _ = writeln!(out, "{}", colours.apply(Colour::Dim, &failed_line(check)));
    }
    let (colour, word) =
        if verdict.passed() { (Colour::Green, "held") } else { (Colour::Red, "did NOT hold") };
    let _ =
        writeln!(out, "\n{}", colours.apply(colour, &format!("Isolation {word} (seed {}).", results.seed)));
    out
}

type Row = (&'static str, fn(&PhaseFigures) -> String);

const ROWS: [Row; 7] = [
    ("orders settled at once", |phase| percent(phase.success())),
    ("orders failed", |phase| phase.failed.to_string()),
    ("order p50", |phase| duration(phase.p50_ms)),
    ("order p99", |phase| duration(phase.p99_ms)),
    ("p99 after first second", |phase| duration(phase.later_p99_ms)),
    ("replicas' shares, %", |phase| {
        slashed((0..phase.calls.len()).map(|replica| format!("{:.0}", phase.share(replica) * 100.0)))
    }),
    ("most waiting", |phase| phase.most_waiting.to_string()),
];

/// Texts in columns of the same width.
fn cells(texts: impl IntoIterator<Item = String>) -> String {
    texts.into_iter().fold(String::new(), |line, text| line + &format!("{text:>11}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::verdict::tests::good;
    use super::*;

    const WIDTH: usize = 80;

    /// A second as wide as any.
    fn busy() -> Second {
        let mut tally = Tally { settled: 499, accepted: 499, failed: 2499, ..Tally::default() };
        tally.post.record(Duration::from_millis(9999));
        Second { tally, calls: vec![199; 3], waiting: 1000 }
    }

    #[test]
    fn a_second_stands_under_its_head_in_a_plain_terminal() {
        let line = second(Colours::plain(), 100, Phase::OneRefuses, &[busy(), busy()]);
        let header = header(Colours::plain());
        for head in header.lines() {
            assert_eq!(head.len(), line.len(), "\n{header}\n{line}");
        }
        assert!(line.len() <= WIDTH, "{} columns", line.len());
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let results =
            Results { seed: u64::MAX, quick: false, naive: good(), resilient: good(), alone: good() };
        let shown = summary(Colours::plain(), &results, &Verdict::of(&results));
        let introduced = introduction(Plan::of(false), 9, 500, 500, u64::MAX);
        let openings = Phase::REPLICAS.map(|phase| format!("--- {}", opening(phase)));
        let openings = openings.iter().map(String::as_str);
        for line in shown.lines().chain(introduced.lines()).chain(openings) {
            assert!(line.len() <= WIDTH, "{} columns: {line}", line.len());
        }
    }
}
