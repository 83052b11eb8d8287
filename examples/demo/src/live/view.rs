//! The block as text. Pure: it is told how things stand and how wide it may be.

use std::fmt::Write as _;
use std::time::Duration;

use crate::breaker_log::Breaker;
use crate::colour::{Colour, Colours};
use crate::follow::STREAMS;

/// Of a label.
const LABEL: usize = 14;
/// Of a figure before its sparkline.
const FIGURE: usize = 8;
/// Of the bar.
const STEPS: usize = 20;
/// What a whole bucket of retries holds.
const FULL_BUDGET: f64 = 100.0;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// How things stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) elapsed: Duration,
    /// The longest it can take; zero for no end.
    pub(crate) limit: Duration,
    /// What is done now.
    pub(crate) says: &'static str,
    pub(crate) phase: &'static str,
    /// Which naive client.
    pub(crate) naive: &'static str,
    /// The naive twin, and the resilient one.
    pub(crate) twins: [TwinStanding; 2],
    /// `None` with several user-services, which have one each.
    pub(crate) breaker: Option<Breaker>,
    /// Tokens for retries; `None` for no budget, or as long as nothing is known.
    pub(crate) budget: Option<u8>,
    /// Whether there are streams to speak of.
    pub(crate) streams: bool,
}

impl Standing {
    /// Seconds that no terminal has room for, of a run without an end.
    pub(crate) fn forget(&mut self) {
        const ENOUGH: usize = 256;
        for twin in &mut self.twins {
            let old = twin.seconds.len().saturating_sub(ENOUGH);
            twin.seconds.drain(..old);
        }
    }
}

/// How one twin stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct TwinStanding {
    pub(crate) seconds: Vec<Spark>,
    /// In all.
    pub(crate) failed: u64,
    pub(crate) later: u64,
    pub(crate) in_vain: u64,
    pub(crate) in_flight: usize,
    pub(crate) streams: u64,
}

/// A second of one twin.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spark {
    pub(crate) settled: u64,
    pub(crate) later: u64,
    pub(crate) failed: u64,
    pub(crate) p99_ms: Option<f64>,
}

impl Spark {
    /// The share that was answered rightly; `None` when there was no order.
    fn answered(self) -> Option<f64> {
        let all = self.settled + self.later + self.failed;
        (all > 0).then(|| (self.settled + self.later) as f64 / all as f64)
    }

    const fn colour(self) -> Colour {
        match self {
            Self { failed: 1.., .. } => Colour::Red,
            Self { later: 1.., .. } => Colour::Yellow,
            _ => Colour::Green,
        }
    }
}

/// The block, in lines of at most `width` columns.
pub(crate) fn draw(standing: &Standing, width: usize, colours: Colours, unicode: bool) -> Vec<String> {
    let column = width.saturating_sub(LABEL) / 2;
    let page = Page { standing, width, column, colours, glyphs: if unicode { BLOCKS } else { PLAIN } };
    let mut lines = vec![page.progress()];
    let naive = format!("naive: {}", standing.naive);
    lines.push(page.row("", [cell(&naive, None), cell("resilient", None)], Some(Colour::Bold)));
    lines.push(page.both("answered", |twin| page.answered(twin)));
    lines.push(page.both("order p99", |twin| page.latency(twin)));
    let alarming = |count: u64, colour| cell(&count.to_string(), (count > 0).then_some(colour));
    lines.push(page.both("turned away", |twin| alarming(twin.failed, Colour::Red)));
    lines.push(page.both("for later", |twin| alarming(twin.later, Colour::Yellow)));
    lines.push(page.both("in flight", |twin| cell(&twin.in_flight.to_string(), None)));
    if standing.twins.iter().any(|twin| twin.in_vain > 0) {
        lines.push(page.both("work in vain", |twin| alarming(twin.in_vain, Colour::Red)));
    }
    if standing.streams {
        lines.push(page.both("streams alive", |twin| {
            let all = twin.streams >= STREAMS as u64;
            cell(&format!("{} of {STREAMS}", twin.streams), (!all).then_some(Colour::Red))
        }));
    }
    lines.push(page.row("breaker", [cell("none", Some(Colour::Dim)), page.breaker()], None));
    lines.push(page.row("retry budget", [cell("none", Some(Colour::Dim)), page.budget()], None));
    lines
}

/// A text, and how it is coloured: from where to where each colour goes.
struct Cell {
    text: String,
    colours: Vec<(usize, Colour)>,
}

fn cell(text: &str, colour: Option<Colour>) -> Cell {
    let width = text.chars().count();
    Cell { text: text.to_owned(), colours: colour.into_iter().map(|colour| (width, colour)).collect() }
}

struct Page<'a> {
    standing: &'a Standing,
    width: usize,
    /// Of a twin.
    column: usize,
    colours: Colours,
    /// From low to high.
    glyphs: [char; 8],
}

impl Page<'_> {
    fn progress(&self) -> String {
        let Standing { elapsed, limit, says, phase, .. } = self.standing;
        let mut text = String::new();
        if !limit.is_zero() {
            let share = elapsed.as_secs_f64() / limit.as_secs_f64();
            let done = ((share * STEPS as f64) as usize).min(STEPS);
            let _ = write!(text, "[{}{}] ", "#".repeat(done), ".".repeat(STEPS - done));
        }
        let _ = write!(text, "{} s", elapsed.as_secs());
        if !limit.is_zero() {
            let _ = write!(text, " of at most {} s", limit.as_secs());
        }
        let _ = write!(text, "  {phase}");
        if !says.is_empty() {
            let _ = write!(text, ": {says}");
        }
        self.colours.apply(Colour::Bold, &fitted(&text, self.width))
    }

    /// The same of both twins.
    fn both(&self, label: &str, of: impl Fn(&TwinStanding) -> Cell) -> String {
        self.row(label, [of(&self.standing.twins[0]), of(&self.standing.twins[1])], None)
    }

    fn row(&self, label: &str, cells: [Cell; 2], colour: Option<Colour>) -> String {
        let mut line = format!("{label:<LABEL$}");
        for Cell { text, colours } in cells {
            // One column stays free between the two.
            let text: Vec<char> = fitted(&text, self.column - 1).chars().collect();
            let (mut from, mut out) = (0, String::new());
            for (until, colour) in colours {
                let until = until.min(text.len());
                out += &self.colours.apply(colour, &text[from..until].iter().collect::<String>());
                from = until;
            }
            out.extend(&text[from..]);
            line += &out;
            line.extend(std::iter::repeat_n(' ', self.column - text.len()));
        }
        let line = line.trim_end();
        colour.map_or_else(|| line.to_owned(), |colour| self.colours.apply(colour, line))
    }

    /// The seconds that there is room for.
    fn latest<'b>(&self, twin: &'b TwinStanding) -> &'b [Spark] {
        let room = self.column.saturating_sub(FIGURE + 2);
        &twin.seconds[twin.seconds.len().saturating_sub(room)..]
    }

    fn answered(&self, twin: &TwinStanding) -> Cell {
        let share = twin.seconds.last().and_then(|second| second.answered());
        let figure = share.map_or("-".to_owned(), |share| format!("{:.0} %", (share * 100.0).floor()));
        let mut cell = cell(&format!("{figure:<FIGURE$}"), None);
        cell.colours.push((FIGURE, Colour::Bold));
        for second in self.latest(twin) {
            cell.text.push(second.answered().map_or(' ', |share| self.glyph(share)));
            cell.colours.push((cell.text.chars().count(), second.colour()));
        }
        cell
    }

    fn latency(&self, twin: &TwinStanding) -> Cell {
        let figure = match twin.seconds.last().and_then(|second| second.p99_ms) {
            None => "-".to_owned(),
            Some(ms @ ..999.5) => format!("{ms:.0} ms"),
            Some(ms) => format!("{:.1} s", ms / 1e3),
        };
        let mut text = format!("{figure:<FIGURE$}");
        // By order of magnitude: 1 ms is low, 5 s is high.
        let height = |ms: f64| (ms.max(1.0).ln() / 5000_f64.ln()).clamp(0.0, 1.0);
        text.extend(
            self.latest(twin).iter().map(|second| second.p99_ms.map_or(' ', |ms| self.glyph(height(ms)))),
        );
        cell(&text, None)
    }

    fn breaker(&self) -> Cell {
        match self.standing.breaker {
            None => cell("one for each user-service", Some(Colour::Dim)),
            Some(breaker) => {
                let colour = match breaker {
                    Breaker::Closed => Colour::Green,
                    Breaker::Open => Colour::Red,
                    Breaker::HalfOpen => Colour::Yellow,
                };
                cell(breaker.name(), Some(colour))
            }
        }
    }

    fn budget(&self) -> Cell {
        let Some(tokens) = self.standing.budget else { return cell("none", Some(Colour::Dim)) };
        let share = f64::from(tokens) / FULL_BUDGET;
        let full = ((share * 10.0).round() as usize).min(10);
        let text = format!("{}{} {tokens} tokens", "#".repeat(full), ".".repeat(10 - full));
        cell(&text, (tokens == 0).then_some(Colour::Red))
    }

    fn glyph(&self, share: f64) -> char {
        let last = self.glyphs.len() - 1;
        self.glyphs[((share.clamp(0.0, 1.0) * last as f64) as usize).min(last)]
    }
}

/// The text, cut to `width` columns; every character here takes one.
fn fitted(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
