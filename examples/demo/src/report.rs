//! What the demo prints: an introduction, a line a second, and the verdict.

use std::fmt::Write;
use std::time::Duration;

use crate::breaker_log::Breaker;
use crate::cli::Client;
use crate::colour::{Colour, Colours};
use crate::fault_phases::{Phase, Plan, SLOW};
use crate::load::PATIENCE;
use crate::results::{PhaseFigures, Results, Twin, millis};
use crate::tally::Tally;
use crate::verdict::{Check, Verdict};

/// What a plain terminal shows without wrapping.
const COLUMNS_OF_A_TERMINAL: usize = 80;

/// What the demo is about to do.
pub(crate) fn introduction(plan: &Plan, orders: u32, reads: u32, seed: u64) -> String {
    format!(
        "\
Two order-services ask one user-service about every customer; each is a process
with a database of its own.
  naive      reqwest with its default settings: no timeout; if the question
             fails, so does the order (500)
  resilient  resilient-client with its standard policy; if the question fails,
             the order is kept (202)
  alone      knows its customers and asks nobody: the control, which shows what
             this machine does by itself
All get the same {orders} orders and {reads} reads a second, from clients that
wait {patience} s.
  ok    orders answered 201 (422: no such user)  p99    99 of 100 were quicker
  202   orders stored, to be verified later      read   the same of reads
  fail  orders answered 500, or not at all       calls  to user-service
                                                 wait   requests unanswered yet
Seed {seed}; at most {limit} s.
",
        patience = PATIENCE.as_secs(),
        limit = plan.limit().as_secs(),
    )
}

/// The columns of one order-service in the table of seconds: their heads and widths. Only the resilient one has a
/// circuit breaker, which decides about its calls, and answers 202; only at the naive one requests pile up.
const COLUMNS: [(&str, usize); 8] =
    [("ok", 4), ("202", 4), ("fail", 5), ("p99", 6), ("read", 6), ("calls", 6), ("wait", 5), ("breaker", 8)];

fn columns(client: Client) -> impl Iterator<Item = (&'static str, usize)> {
    let has = move |head: &str| match client {
        Client::Resilient => head != "wait",
        _ => !matches!(head, "202" | "calls" | "breaker"),
    };
    COLUMNS.into_iter().filter(move |(head, _)| has(head))
}

/// The head of the table of seconds.
pub(crate) fn header(colours: Colours) -> String {
    let mut lines = [format!("{:12}|", ""), format!("{:>3} {:8}|", "s", "phase")];
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
pub(crate) struct Second {
    pub(crate) tally: Tally,
    pub(crate) calls: u64,
    pub(crate) waiting: usize,
}

/// A line of the table of seconds.
pub(crate) fn second(
    colours: Colours,
    at: u64,
    phase: Phase,
    naive: &Second,
    resilient: &Second,
    breaker: Breaker,
) -> String {
    let mut line =
        format!("{at:>3} {}|", colours.apply(phase_colour(phase), &format!("{:<8}", phase.name())));
    for (client, second) in Client::TWINS.into_iter().zip([naive, resilient]) {
        for (head, width) in columns(client) {
            let (text, colour) = cell(head, second, breaker);
            let text = format!("{text:>width$}");
            line.push_str(&colour.map_or_else(|| text.clone(), |colour| colours.apply(colour, &text)));
        }
        line.push('|');
    }
    line
}

fn cell(head: &str, second: &Second, breaker: Breaker) -> (String, Option<Colour>) {
    let tally = &second.tally;
    let alarm = |count: u64, colour: Colour| (count > 0).then_some(colour);
    match head {
        "ok" => (tally.settled.to_string(), None),
        "202" => (tally.accepted.to_string(), alarm(tally.accepted, Colour::Yellow)),
        "fail" => (tally.failed.to_string(), alarm(tally.failed, Colour::Red)),
        "p99" => (span(tally.post.quantile(0.99)), None),
        "read" if tally.reads_failed > 0 => ("FAIL".into(), Some(Colour::Red)),
        "read" => (span(tally.read.quantile(0.99)), None),
        "calls" => (second.calls.to_string(), None),
        "wait" => (second.waiting.to_string(), None),
        // In the width there is.
        _ if breaker == Breaker::HalfOpen => ("half".into(), breaker_colour(breaker)),
        _ => (breaker.name().into(), breaker_colour(breaker)),
    }
}

/// A line that says what is done to user-service now.
pub(crate) fn event(colours: Colours, what: &str) -> String {
    colours.apply(Colour::Bold, &format!("--- {what}"))
}

/// What [`event`] says at the start of a phase.
pub(crate) fn opening(phase: Phase) -> String {
    match phase {
        Phase::Healthy => "user-service is well".into(),
        Phase::Slow => {
            format!(
                "{:.0} % of user-service's answers take {} ms longer",
                SLOW.slow_share * 100.0,
                SLOW.delay_ms
            )
        }
        Phase::Hang => "SIGSTOP to user-service: it takes connections and never answers".into(),
        Phase::Killed => "kill -9 to user-service: connections are refused".into(),
        Phase::Recovery => "user-service is started again".into(),
        // Phases of the other scenario, which has openings of its own.
        Phase::OneRefuses | Phase::OneSlow | Phase::OneHangs | Phase::OneKilled => phase.name().into(),
    }
}

/// The tables at the end, and whether isolation held.
pub(crate) fn summary(colours: Colours, results: &Results, verdict: &Verdict) -> String {
    let mut out = String::new();
    let bold = |text: &str| colours.apply(Colour::Bold, text);
    let heads = cells(Phase::OUTAGE.map(|phase| phase.name().to_owned()));
    let _ = writeln!(out, "{}", bold(&format!("{:<34}{heads}", "")));
    for (label, figure) in PHASE_ROWS {
        let twins = [(label, Client::Naive, &results.naive), ("", Client::Resilient, &results.resilient)];
        let control = label.ends_with("p99").then_some(("", Client::Alone, &results.alone));
        for (label, client, twin) in twins.into_iter().chain(control) {
            let figures = cells(twin.phases.iter().map(figure));
            let _ = writeln!(out, "{label:<23} {:<10}{figures}", client.name());
        }
    }
    let note = "calls: a stopped or dead user-service counts none;\n       in recovery the orders answered 202 are verified too";
    let _ = writeln!(out, "{}", colours.apply(Colour::Dim, note));
    let _ = writeln!(out, "\n{}", bold(&format!("{:<47}{:>13}{:>13}", "", "naive", "resilient")));
    for (label, figure) in TWIN_ROWS {
        let _ = writeln!(out, "{label:<47}{:>13}{:>13}", figure(&results.naive), figure(&results.resilient));
    }
    let _ = writeln!(out, "\n{}", bold("Did isolation hold?"));
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

type PhaseRow = (&'static str, fn(&PhaseFigures) -> String);

const PHASE_ROWS: [PhaseRow; 8] = [
    ("orders rightly answered", |phase| percent(phase.success())),
    ("order p50", |phase| duration(phase.post_p50_ms)),
    ("order p99", |phase| duration(phase.post_p99_ms)),
    ("reads answered", |phase| percent(1.0 - phase.reads_failed as f64 / phase.reads.max(1) as f64)),
    ("read p50", |phase| duration(phase.read_p50_ms)),
    ("read p99", |phase| duration(phase.read_p99_ms)),
    ("user-service calls each", |phase| format!("{:.2}", phase.calls_per_order())),
    ("most waiting", |phase| phase.most_waiting.to_string()),
];

type TwinRow = (&'static str, fn(&Twin) -> String);

const TWIN_ROWS: [TwinRow; 10] = [
    ("orders placed", |twin| twin.audit.placed.to_string()),
    ("acknowledged (201 or 202)", |twin| twin.audit.acknowledged.to_string()),
    ("turned away: failed and not stored", |twin| twin.audit.turned_away.to_string()),
    ("failed for the client, yet stored", |twin| twin.audit.unacknowledged_but_stored.to_string()),
    ("acknowledged, then lost", |twin| twin.audit.lost.to_string()),
    ("stored twice", |twin| twin.audit.duplicated.to_string()),
    ("answered 202 and resolved since", |twin| twin.audit.resolved.to_string()),
    ("pending at the end", |twin| twin.audit.pending.to_string()),
    ("restart to the last order not settled at once", |twin| duration(twin.full_service_after_ms)),
    ("restart to nothing pending", |twin| twin.resolved_after_ms.map_or("never".into(), duration)),
];

/// Texts in columns of the same width.
fn cells(texts: impl IntoIterator<Item = String>) -> String {
    texts.into_iter().fold(String::new(), |line, text| line + &format!("{text:>9}"))
}

pub(crate) fn check_line(colours: Colours, check: &Check) -> String {
    let (colour, word) = if check.held { (Colour::Green, "held  ") } else { (Colour::Red, "FAILED") };
    let (word, Check { name, figures, .. }) = (colours.apply(colour, word), check);
    // The list's indent, the word, the name and their spaces.
    let fits = 2 + 6 + 1 + 34 + 1 + figures.len() <= COLUMNS_OF_A_TERMINAL;
    if fits { format!("{word} {name:<34} {figures}") } else { format!("{word} {name}\n{:9}{figures}", "") }
}

/// What one check of the control came to, under its line.
pub(crate) fn failed_line(check: &Check) -> String {
    format!("{:9}{}:\n{:11}{}", "", check.name, "", check.figures)
}

pub(crate) const fn phase_colour(phase: Phase) -> Colour {
    match phase {
        Phase::Healthy | Phase::Recovery => Colour::Green,
        Phase::Slow | Phase::OneSlow | Phase::OneRefuses => Colour::Yellow,
        Phase::Hang | Phase::Killed | Phase::OneHangs | Phase::OneKilled => Colour::Red,
    }
}

const fn breaker_colour(breaker: Breaker) -> Option<Colour> {
    match breaker {
        Breaker::Closed => None,
        Breaker::Open => Some(Colour::Red),
        Breaker::HalfOpen => Some(Colour::Yellow),
    }
}

/// Exact where it matters: nothing but all is 100 %.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

pub(crate) fn duration(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

/// A duration in five columns; `-` for none.
pub(crate) fn span(time: Option<Duration>) -> String {
    let Some(ms) = time.map(millis) else { return "-".into() };
    match ms {
        ..9.95 => format!("{ms:.1}ms"),
        ..999.5 => format!("{ms:.0}ms"),
        _ => format!("{:.1}s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Audit;
    use crate::results::OnceOpen;

    const WIDTH: usize = 80;

    /// A second as wide as any: hundreds of everything, and slow.
    fn busy() -> Second {
        let mut tally = Tally { settled: 499, accepted: 499, failed: 2499, reads: 500, ..Tally::default() };
        tally.post.record(Duration::from_millis(9999));
        tally.read.record(Duration::from_millis(9999));
        Second { tally, calls: 49_999, waiting: 1000 }
    }

    #[test]
    fn a_second_stands_under_its_head_in_a_plain_terminal() {
        let line = second(Colours::plain(), 100, Phase::Slow, &busy(), &busy(), Breaker::HalfOpen);
        let header = header(Colours::plain());
        for head in header.lines() {
            assert_eq!(head.len(), line.len(), "\n{header}\n{line}");
        }
        assert!(line.len() <= WIDTH, "{} columns", line.len());
        let bars = |text: &str| text.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(bars(header.lines().next().expect("a head")), bars(&line));
        assert!(!line.contains('\x1b'));
    }

    #[test]
    fn a_second_without_requests_has_no_latency() {
        let nothing = || Second { tally: Tally::default(), calls: 0, waiting: 0 };
        let line = second(Colours::plain(), 1, Phase::Hang, &nothing(), &nothing(), Breaker::Closed);
        assert_eq!(line.matches(" - ").count(), 4, "{line}");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let phases = Phase::OUTAGE.map(|phase| PhaseFigures {
            phase,
            orders: 99_999,
            settled: 88_888,
            accepted: 9_999,
            failed: 1,
            post_p50_ms: 9999.0,
            post_p99_ms: 9999.0,
            post_slow: 99_999,
            reads: 99_999,
            reads_failed: 1,
            read_p50_ms: 9999.0,
            read_p99_ms: 9999.0,
            calls: 999_999,
            most_waiting: 1000,
        });
        let twin = Twin {
            phases: phases.into(),
            once_open: Some(OnceOpen { orders: 99_999, fast: 9, half_opens: 99 }),
            full_service_after_ms: 99_999.0,
            resolved_after_ms: Some(99_999.0),
            audit: Audit { placed: 99_999, acknowledged: 99_999, resolved: 99_999, ..Audit::default() },
        };
        let (naive, resilient, alone) = (twin.clone(), twin.clone(), twin);
        let results = Results { seed: u64::MAX, quick: false, naive, resilient, alone };
        let shown = summary(Colours::plain(), &results, &Verdict::of(&results));
        let introduced = introduction(Plan::of(false), 500, 500, u64::MAX);
        for line in shown.lines().chain(introduced.lines()) {
            assert!(line.len() <= WIDTH, "{} columns: {line}", line.len());
        }
    }

    #[test]
    fn only_all_is_a_hundred_percent() {
        assert_eq!(percent(1.0), "100.0 %");
        assert_eq!(percent(0.999_99), "99.9 %");
        assert_eq!(percent(0.0), "0.0 %");
    }
}
