//! What is printed at the end: tables, what held, and one sentence.

use std::fmt::Write;

use super::{duration, percent, slashed};
use crate::cli::Client;
use crate::colour::{Colour, Colours};
use crate::results::{Other, PhaseFigures, Results, Twin, Work};
use crate::scenario::Scenario;
use crate::verdict::{Check, Judgement, Outcome, Verdict};

/// What a plain terminal shows without wrapping.
const COLUMNS_OF_A_TERMINAL: usize = 80;

/// The tables at the end, and whether it held.
pub(crate) fn summary(colours: Colours, scenario: &Scenario, results: &Results, verdict: &Verdict) -> String {
    let mut out = String::new();
    let bold = |text: &str| colours.apply(Colour::Bold, text);
    let heads = cells(scenario.phases.iter().map(|phase| phase.name.to_owned()));
    let _ = writeln!(out, "{}", bold(&format!("{:<12}{heads}", "")));
    let (several, works) = (scenario.user_services > 1, results.naive.work() != Work::default());
    for Row { label, has_control, only, figure } in ROWS {
        match only {
            Only::OfSeveral if !several => continue,
            Only::OfWorkers if !works => continue,
            Only::OfStreams if !scenario.streams => continue,
            _ => {}
        }
        let twins = [(Client::Naive, &results.naive), (Client::Resilient, &results.resilient)];
        let control = has_control.then_some((Client::Alone, &results.alone));
        let _ = writeln!(out, "{label}");
        for (client, twin) in twins.into_iter().chain(control) {
            let _ = writeln!(out, "  {:<10}{}", client.name(), cells(twin.phases.iter().map(figure)));
        }
    }
    let note = "calls: a stopped or dead user-service counts none;\n       \
                once all is well again the orders answered 202 are verified too";
    let _ = writeln!(out, "{}", colours.apply(Colour::Dim, note));
    let twins = Twins::of(results);
    let _ = writeln!(out, "\n{}", bold(&twins.head()));
    for (label, figure) in TWIN_ROWS {
        let _ = writeln!(out, "{}", twins.row(label, figure));
    }
    let _ = writeln!(out, "\n{}", bold(scenario.question));
    for check in verdict.resilient.iter().chain([&verdict.control]) {
        let _ = writeln!(out, "  {}", check_line(colours, check));
    }
    for check in verdict.naive.iter().filter(|check| check.failed()) {
        let text = format!("{:9}{}:{}", "", check.name, below(&check.figures, 11));
        let _ = writeln!(out, "{}", colours.apply(Colour::Dim, &text));
    }
    let _ = writeln!(out, "\n{}", judged(colours, scenario, results, verdict));
    out
}

fn judged(colours: Colours, scenario: &Scenario, results: &Results, verdict: &Verdict) -> String {
    let seed = results.seed;
    let (colour, text) = match &verdict.judgement {
        Judgement::Held => (Colour::Green, format!("{} held (seed {seed}).", scenario.claim)),
        Judgement::DidNotHold => (Colour::Red, format!("{} did NOT hold (seed {seed}).", scenario.claim)),
        Judgement::Inconclusive(why) => {
            let text = format!("Inconclusive (seed {seed}): this machine was too busy to judge by.\n  {why}");
            (Colour::Yellow, text)
        }
    };
    format!("{}\n{}", sentence(results), colours.apply(colour, &text))
}

/// What happened, in one sentence.
pub(crate) fn sentence(results: &Results) -> String {
    let Results { naive, resilient, .. } = results;
    let kind = results.naive_client.name();
    let lost = |twin: &Twin| twin.audit.turned_away + twin.audit.lost;
    let mut text = format!(
        "{} orders turned away by the naive twin ({kind}), {} by ours;\n",
        thousands(lost(naive)),
        thousands(lost(resilient))
    );
    if !results.others.is_empty() {
        let other = |other: &Other| format!("{} ({})", thousands(lost(&other.twin)), other.client.name());
        let others: Vec<_> = results.others.iter().map(other).collect();
        let _ = writeln!(text, "by the other naive ones {};", others.join(", "));
    }
    let [vain, none] = [naive, resilient].map(|twin| twin.work().in_vain as usize);
    if vain + none > 0 {
        let _ = writeln!(
            text,
            "{} calls worked on for callers who had gone, {} of ours;",
            thousands(vain),
            thousands(none)
        );
    }
    if let [Some(theirs), Some(ours)] = [naive, resilient].map(Twin::streams_dead) {
        let _ = writeln!(
            text,
            "the naive twin's streams were dead {} of the time, ours {};",
            percent(theirs),
            percent(ours)
        );
    }
    let wrongly = |twin: &Twin| twin.audit.misjudged;
    if wrongly(naive) + wrongly(resilient) > 0 {
        let (theirs, ours) = (thousands(wrongly(naive)), thousands(wrongly(resilient)));
        let _ = write!(text, "{theirs} judged wrongly, {ours} by ours; ");
    }
    let [theirs, ours] = [naive, resilient].map(|twin| percent(twin.reads_answered()));
    if theirs == ours {
        let _ = write!(text, "reads {ours} both.");
    } else {
        let _ = write!(text, "reads {theirs} and {ours}.");
    }
    text
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

struct Row {
    label: &'static str,
    /// Whether the lone order-service is shown beside the twins.
    has_control: bool,
    only: Only,
    figure: fn(&PhaseFigures) -> String,
}

/// Where a row says something.
#[derive(Clone, Copy)]
enum Only {
    Always,
    OfSeveral,
    OfWorkers,
    OfStreams,
}

const fn row(label: &'static str, has_control: bool, figure: fn(&PhaseFigures) -> String) -> Row {
    Row { label, has_control, only: Only::Always, figure }
}

const ROWS: [Row; 13] = [
    row("orders rightly answered", false, |phase| percent(phase.served_share())),
    row("orders settled at once", true, |phase| percent(phase.settled_share())),
    row("order p50", false, |phase| duration(phase.post_p50_ms)),
    row("order p99", true, |phase| duration(phase.post_p99_ms)),
    row("order p99 after the first second", true, |phase| duration(phase.later_p99_ms)),
    row("reads answered", false, |phase| {
        percent(1.0 - phase.reads_failed as f64 / phase.reads.max(1) as f64)
    }),
    row("read p99", true, |phase| duration(phase.read_p99_ms)),
    row("calls for each order", false, |phase| format!("{:.2}", phase.calls_per_order())),
    Row {
        label: "user-services' shares of them, %",
        has_control: false,
        only: Only::OfSeveral,
        figure: |phase| {
            slashed((0..phase.calls.len()).map(|which| format!("{:.0}", phase.share(which) * 100.0)))
        },
    },
    Row {
        label: "work begun for callers who had gone",
        has_control: false,
        only: Only::OfWorkers,
        figure: |phase| percent(phase.work.share_in_vain()),
    },
    Row {
        label: "streams that ended",
        has_control: false,
        only: Only::OfStreams,
        figure: |phase| phase.streams.ended.to_string(),
    },
    Row {
        label: "streams alive at the end",
        has_control: false,
        only: Only::OfStreams,
        figure: |phase| phase.streams.alive.to_string(),
    },
    row("most waiting", false, |phase| phase.most_waiting.to_string()),
];

/// The twins in columns of one table, ours the last.
struct Twins<'a>(Vec<(&'static str, &'a Twin)>);

impl<'a> Twins<'a> {
    fn of(results: &'a Results) -> Self {
        Self(results.twins())
    }

    fn head(&self) -> String {
        self.line("", self.0.iter().map(|(name, _)| (*name).to_owned()))
    }

    fn row(&self, label: &str, figure: fn(&Twin) -> String) -> String {
        self.line(label, self.0.iter().map(|(_, twin)| figure(twin)))
    }

    fn line(&self, label: &str, cells: impl Iterator<Item = String>) -> String {
        // As wide as the names of four leave room for.
        let line = format!("{label:<34}");
        self.0.iter().zip(cells).fold(line, |line, ((name, _), cell)| {
            let width = (name.len() + 1).max(9);
            line + &format!("{cell:>width$}")
        })
    }
}

type TwinRow = (&'static str, fn(&Twin) -> String);

pub(super) const TWIN_ROWS: [TwinRow; 14] = [
    ("settled at once", |twin| percent(twin.settled_share())),
    ("p99 of all orders", |twin| duration(twin.post_p99_ms)),
    ("calls for each order", |twin| format!("{:.2}", twin.calls_per_order())),
    ("orders placed", |twin| twin.audit.placed.to_string()),
    ("acknowledged (201 or 202)", |twin| twin.audit.acknowledged.to_string()),
    ("turned away: failed and not stored", |twin| twin.audit.turned_away.to_string()),
    ("failed for the client, yet stored", |twin| twin.audit.unacknowledged_but_stored.to_string()),
    ("acknowledged, then lost", |twin| twin.audit.lost.to_string()),
    ("stored twice", |twin| twin.audit.duplicated.to_string()),
    ("confirmed or refused wrongly", |twin| twin.audit.misjudged.to_string()),
    ("answered 202 and resolved since", |twin| twin.audit.resolved.to_string()),
    ("pending at the end", |twin| twin.audit.pending.to_string()),
    ("well again to all settled at once", |twin| twin.full_service_after_ms.map_or("never".into(), duration)),
    ("well again to nothing pending", |twin| twin.resolved_after_ms.map_or("never".into(), duration)),
];

/// Texts in columns of the same width.
fn cells(texts: impl IntoIterator<Item = String>) -> String {
    texts.into_iter().fold(String::new(), |line, text| line + &format!("{text:>11}"))
}

fn check_line(colours: Colours, check: &Check) -> String {
    let (colour, word) = match check.outcome {
        Outcome::Held => (Colour::Green, "held  "),
        Outcome::Failed => (Colour::Red, "FAILED"),
        Outcome::Unclear => (Colour::Yellow, "?     "),
    };
    let (word, Check { name, figures, .. }) = (colours.apply(colour, word), check);
    // The list's indent, the word, the name and their spaces.
    let fits = 2 + 6 + 1 + name.len().max(34) + 1 + figures.len() <= COLUMNS_OF_A_TERMINAL;
    if fits { format!("{word} {name:<34} {figures}") } else { format!("{word} {name}{}", below(figures, 9)) }
}

/// On lines of their own, so far to the right.
fn below(figures: &str, indent: usize) -> String {
    let (mut out, mut column) = (String::new(), COLUMNS_OF_A_TERMINAL);
    for word in figures.split_whitespace() {
        if column + 1 + word.chars().count() > COLUMNS_OF_A_TERMINAL {
            let _ = write!(out, "\n{:indent$}{word}", "");
            column = indent + word.chars().count();
        } else {
            let _ = write!(out, " {word}");
            column += 1 + word.chars().count();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_twins_stand_in_one_table_and_the_others_in_the_sentence() {
        use crate::naive::Naive;
        use crate::scenario::ISOLATION;
        let mut results = crate::verdict::tests::results(&ISOLATION);
        for (client, turned_away) in [(Naive::Loop, 1400), (Naive::ReqwestRetry, 243)] {
            let mut twin = results.naive.clone();
            twin.audit.turned_away = turned_away;
            results.others.push(Other { client, twin });
        }
        let said = summary(Colours::plain(), &ISOLATION, &results, &Verdict::of(&ISOLATION, &results));
        let head = said.lines().find(|line| line.contains(" loop "));
        let names: Vec<_> = head.expect("a head").split_whitespace().collect();
        assert_eq!(names, ["no-timeout", "loop", "reqwest-retry", "resilient"]);
        let row = said.lines().find(|line| line.starts_with("turned away")).expect("a row");
        let cells: Vec<_> = row.split_whitespace().rev().take(4).collect();
        assert_eq!(cells, ["0", "243", "1400", "0"], "{row}");
        assert!(said.contains("by the other naive ones 1,400 (loop), 243 (reqwest-retry);"), "{said}");
    }

    /// What the calls came to was a line of 109 columns.
    #[test]
    fn figures_that_are_long_go_on_in_another_line() {
        let figures = "1443 calls, 1137 attempts, 1099 of them in user-service's log; \
                       never taken up: 4 connect, 34 timeout, 1 transport";
        let lines = check_line(Colours::plain(), &Check::of("calls", true, figures.to_owned()));
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
        let said: Vec<_> = lines[1..].iter().flat_map(|line| line.split_whitespace()).collect();
        assert_eq!(said.join(" "), figures);
    }

    #[test]
    fn thousands_are_told_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1730, "1,730"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn only_all_is_a_hundred_percent() {
        assert_eq!(percent(1.0), "100.0 %");
        assert_eq!(percent(0.999_99), "99.9 %");
        assert_eq!(percent(0.0), "0.0 %");
    }
}
