//! What the demo prints: an introduction, a line a second, and the verdict.

use std::fmt::Write;
use std::time::Duration;

use crate::breaker_log::Breaker;
use crate::load::PATIENCE;
use crate::paint::{Colour, Paint};
use crate::phases::{Phase, Plan, SLOW};
use crate::results::{PhaseFigures, Results, Twin, millis};
use crate::tally::Tally;
use crate::verdict::{Check, Verdict};

/// What the demo is about to do.
pub(crate) fn introduction(plan: &Plan, orders: u32, reads: u32, seed: u64) -> String {
    format!(
        "\
Two order-services ask one user-service about every customer; each is a process with a database of its own.
  naive      reqwest with its default settings: no timeout; if the question fails, so does the order (500)
  resilient  resilient-client with its standard policy; if the question fails, the order is kept (202)
Each gets the same {orders} orders and {reads} reads a second; a client waits {patience} s. Seed {seed}, at most {limit} s.
  ok    orders answered 201 (or 422: no such user)       calls  calls that reached user-service
  202   orders stored, to be verified later              wait   requests without an answer yet
",
        patience = PATIENCE.as_secs(),
        limit = plan.limit().as_secs(),
    )
}

const HEADER: [&str; 2] = [
    "              |            naive              |                  resilient                   |",
    "  s phase     |  ok fail   p99  read calls wait |  ok  202 fail   p99  read calls wait breaker   |",
];

/// The head of the table of seconds.
pub(crate) fn header(paint: Paint) -> String {
    HEADER.map(|line| paint.apply(Colour::Bold, line)).join("\n")
}

/// One order-service in one second.
pub(crate) struct Second {
    pub(crate) tally: Tally,
    pub(crate) calls: u64,
    pub(crate) waiting: usize,
}

/// A line of the table of seconds.
pub(crate) fn second(
    paint: Paint,
    at: u64,
    phase: Phase,
    naive: &Second,
    resilient: &Second,
    breaker: Breaker,
) -> String {
    let mut line = format!("{at:>3} {} |", paint.apply(phase_colour(phase), &format!("{:<9}", phase.name())));
    let mut cell = |width: usize, text: String, colour: Option<Colour>| {
        let text = format!(" {text:>width$}");
        line.push_str(&colour.map_or_else(|| text.clone(), |colour| paint.apply(colour, &text)));
    };
    for (twin, resilient) in [(naive, false), (resilient, true)] {
        let tally = &twin.tally;
        cell(3, tally.settled.to_string(), None);
        if resilient {
            cell(4, tally.accepted.to_string(), (tally.accepted > 0).then_some(Colour::Yellow));
        }
        cell(4, tally.failed.to_string(), (tally.failed > 0).then_some(Colour::Red));
        cell(5, span(tally.post.quantile(0.99)), None);
        let reads_failed = tally.reads_failed > 0;
        let read = if reads_failed { "FAIL".into() } else { span(tally.read.quantile(0.99)) };
        cell(5, read, reads_failed.then_some(Colour::Red));
        cell(5, twin.calls.to_string(), None);
        cell(4, twin.waiting.to_string(), None);
        if resilient {
            cell(9, breaker.name().into(), breaker_colour(breaker));
        }
        cell(0, "|".into(), None);
    }
    line
}

/// A line that says what is done to user-service now.
pub(crate) fn event(paint: Paint, what: &str) -> String {
    paint.apply(Colour::Bold, &format!("--- {what}"))
}

/// What [`event`] says at the start of a phase.
pub(crate) fn opening(phase: Phase) -> String {
    match phase {
        Phase::Healthy => "user-service is well".into(),
        Phase::Slow => {
            format!("{:.0} % of user-service's answers take {} s longer", SLOW.slow_share * 100.0, SLOW.delay_ms / 1000)
        }
        Phase::Hang => "SIGSTOP to user-service: it takes connections and never answers".into(),
        Phase::Killed => "kill -9 to user-service: connections are refused".into(),
        Phase::Recovery => "user-service is started again".into(),
    }
}

/// The tables at the end, and whether isolation held.
pub(crate) fn summary(paint: Paint, results: &Results, verdict: &Verdict) -> String {
    let mut out = String::new();
    let bold = |text: &str| paint.apply(Colour::Bold, text);
    let heads = cells(Phase::ALL.map(|phase| phase.name().to_owned()));
    let _ = writeln!(out, "{}", bold(&format!("{:<34}{heads}", "")));
    for (label, figure) in PHASE_ROWS {
        for (name, twin) in [("naive", &results.naive), ("resilient", &results.resilient)] {
            let figures = cells(twin.phases.iter().map(figure));
            let label = if name == "naive" { label } else { "" };
            let _ = writeln!(out, "{label:<23} {name:<10}{figures}");
        }
    }
    let _ = writeln!(out, "\n{}", bold(&format!("{:<47}{:>13}{:>13}", "", "naive", "resilient")));
    for (label, figure) in TWIN_ROWS {
        let _ = writeln!(out, "{label:<47}{:>13}{:>13}", figure(&results.naive), figure(&results.resilient));
    }
    let _ = writeln!(out, "\n{}", bold("Did isolation hold?"));
    for check in &verdict.resilient {
        let _ = writeln!(out, "  {}", check_line(paint, check));
    }
    let failed: Vec<_> = verdict.naive.iter().filter(|check| !check.held).collect();
    let control = Check {
        name: "control: the naive twin fails such checks",
        held: verdict.control,
        figures: format!("{} of {}", failed.len(), verdict.naive.len()),
    };
    let _ = writeln!(out, "  {}", check_line(paint, &control));
    for check in failed {
        let _ = writeln!(out, "{}", paint.apply(Colour::Dim, &format!("          {}: {}", check.name, check.figures)));
    }
    let (colour, word) = if verdict.passed() { (Colour::Green, "held") } else { (Colour::Red, "did NOT hold") };
    let _ = writeln!(out, "\n{}", paint.apply(colour, &format!("Isolation {word} (seed {}).", results.seed)));
    out
}

type PhaseRow = (&'static str, fn(&PhaseFigures) -> String);

const PHASE_ROWS: [PhaseRow; 7] = [
    ("orders rightly answered", |phase| percent(phase.success())),
    ("order p50", |phase| duration(phase.post_p50_ms)),
    ("order p99", |phase| duration(phase.post_p99_ms)),
    ("reads answered", |phase| percent(1.0 - phase.reads_failed as f64 / phase.reads.max(1) as f64)),
    ("read p50", |phase| duration(phase.read_p50_ms)),
    ("read p99", |phase| duration(phase.read_p99_ms)),
    ("user-service calls/order", |phase| format!("{:.2}", phase.calls_per_order())),
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
    texts.into_iter().fold(String::new(), |line, text| line + &format!("{text:>13}"))
}

fn check_line(paint: Paint, check: &Check) -> String {
    let (colour, word) = if check.held { (Colour::Green, "held  ") } else { (Colour::Red, "FAILED") };
    format!("{} {:<46} {}", paint.apply(colour, word), check.name, check.figures)
}

const fn phase_colour(phase: Phase) -> Colour {
    match phase {
        Phase::Healthy | Phase::Recovery => Colour::Green,
        Phase::Slow => Colour::Yellow,
        Phase::Hang | Phase::Killed => Colour::Red,
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
fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

fn duration(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

/// A duration in five columns; `-` for none.
fn span(time: Option<Duration>) -> String {
    let Some(ms) = time.map(millis) else { return "-".into() };
    match ms {
        ..9.95 => format!("{ms:.1}ms"),
        ..999.5 => format!("{ms:.0}ms"),
        _ => format!("{:.1}s", ms / 1000.0),
    }
}
