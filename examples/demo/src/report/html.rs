//! The page that `--report` writes: one file, without scripts, fonts or anything from elsewhere.
//! Both twins' seconds as SVG, one above the other on the same axes, then what held.

use std::fmt::{self, Display, Write};

use super::sentence;
use super::summary::TWIN_ROWS;
use crate::cli::Client;
use crate::results::{Results, SecondFigures, Twin};
use crate::scenario::{Mood, Scenario};
use crate::verdict::{Check, Judgement, Outcome, Verdict};

/// Of a chart, in pixels at its natural size.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 120.0;
const LEFT: f64 = 92.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 18.0;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:#555}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2em .8em .2em 0;border-bottom:1px solid #ddd}\
.ok{fill:#3a9d5d}.later{fill:#e0a526}.bad{fill:#c8372d}.line{fill:none;stroke:#2b5fb3;stroke-width:1.5}\
.axis{stroke:#999}.well{fill:#fff}.hurt{fill:#fdf3dc}.down{fill:#fbe3e0}\
b.held{color:#28764a}b.failed{color:#b02a20}b.unclear{color:#9a6b00}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}svg text{fill:#aaa}td,th{border-color:#333}\
.line{stroke:#7aa7ee}.well{fill:#1c1c1c}.hurt{fill:#2e2818}.down{fill:#321d1b}\
b.held{color:#6cc492}b.failed{color:#f08379}b.unclear{color:#e0b95c}}";

/// The page.
pub(crate) fn page(scenario: &Scenario, results: &Results, verdict: &Verdict) -> String {
    let mut out = String::new();
    let (class, said) = match &verdict.judgement {
        Judgement::Held => ("held", format!("{} held.", scenario.claim)),
        Judgement::DidNotHold => ("failed", format!("{} did NOT hold.", scenario.claim)),
        Judgement::Inconclusive(why) => ("unclear", format!("Inconclusive: {why}.")),
    };
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
         <h1>{title}</h1><p>{about}.<p>{sentence} <b class=\"{class}\">{said}</b>\n",
        title = Escaped(&format!("cargo demo {}", scenario.name)),
        about = Escaped(scenario.about),
        sentence = Escaped(&sentence(results).replace('\n', " ")),
        said = Escaped(&said),
    );
    if let Some(missing) = results.without.told() {
        let _ = writeln!(out, "<p>The resilient one is without {}.", Escaped(&missing));
    }
    for (what, of) in CHARTS {
        let twins = results.twins();
        let top = twins.iter().map(|(_, twin)| most(twin, of)).fold(0.0, f64::max);
        if top <= 0.0 && of.is_of_some() {
            continue;
        }
        let _ = writeln!(out, "<h2>{}</h2>", Escaped(what));
        for (name, twin) in twins {
            let words = if name == Client::Resilient.name() { [name, ""] } else { ["naive", name] };
            out.push_str(&chart(scenario, words, twin, of, top));
        }
    }
    twin_table(&mut out, results);
    let _ = writeln!(out, "<h2>{}</h2><table>", Escaped(scenario.question));
    for check in verdict.resilient.iter().chain([&verdict.control]) {
        row(&mut out, check, "ours");
    }
    for check in verdict.naive.iter().filter(|check| check.failed()) {
        row(&mut out, check, "naive");
    }
    let _ = writeln!(
        out,
        "</table><p>Seed {}{}. Bars: orders answered at once (green), accepted for later (yellow), failed (red).</html>",
        results.seed,
        if results.quick { ", quick" } else { "" },
    );
    out
}

/// All twins beside one another.
fn twin_table(out: &mut String, results: &Results) {
    let twins = results.twins();
    out.push_str("<h2>Each twin, over all phases</h2><table><tr><td>");
    for (name, _) in &twins {
        let _ = write!(out, "<th>{}", Escaped(name));
    }
    for (label, figure) in TWIN_ROWS {
        let _ = write!(out, "\n<tr><th scope=\"row\">{}", Escaped(label));
        for (_, twin) in &twins {
            let _ = write!(out, "<td>{}", Escaped(&figure(twin)));
        }
    }
    out.push_str("</table>\n");
}

fn row(out: &mut String, check: &Check, whose: &str) {
    let (class, word) = match check.outcome {
        Outcome::Held => ("held", "held"),
        Outcome::Failed => ("failed", "failed"),
        Outcome::Unclear => ("unclear", "can't say"),
    };
    let _ = writeln!(
        out,
        "<tr><td>{}<td><b class=\"{class}\">{word}</b><td>{}<td>{}",
        Escaped(whose),
        Escaped(check.name),
        Escaped(&check.figures)
    );
}

/// What a chart shows of a second.
#[derive(Clone, Copy)]
enum Shown {
    Orders,
    Latency,
    Calls,
    Waiting,
    InVain,
    Streams,
}

const CHARTS: [(&str, Shown); 6] = [
    ("Orders a second", Shown::Orders),
    ("Order p99, seconds", Shown::Latency),
    ("Calls to user-service a second", Shown::Calls),
    ("Requests waiting", Shown::Waiting),
    ("Calls a second worked on for callers who had gone", Shown::InVain),
    ("Streams alive", Shown::Streams),
];

impl Shown {
    fn height(self, second: &SecondFigures) -> f64 {
        match self {
            Self::Orders => (second.settled + second.accepted + second.failed) as f64,
            Self::Latency => second.post_p99_ms.unwrap_or_default() / 1e3,
            Self::Calls => second.calls as f64,
            Self::Waiting => second.waiting as f64,
            Self::InVain => second.in_vain as f64,
            Self::Streams => second.streams.unwrap_or_default() as f64,
        }
    }

    /// Whether some scenarios only have anything to show of it.
    const fn is_of_some(self) -> bool {
        matches!(self, Self::InVain | Self::Streams)
    }
}

fn most(twin: &Twin, shown: Shown) -> f64 {
    twin.seconds.iter().map(|second| shown.height(second)).fold(0.0, f64::max)
}

fn chart(scenario: &Scenario, [client, kind]: [&str; 2], twin: &Twin, shown: Shown, top: f64) -> String {
    let mut out = String::new();
    let (count, plot) = (twin.seconds.len().max(1) as f64, HEIGHT - TOP - BOTTOM);
    let (wide, top) = ((WIDTH - LEFT) / count, if top > 0.0 { top } else { 1.0 });
    let high = |value: f64| value / top * plot;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{client} {kind}\">",
        client = Escaped(client),
        kind = Escaped(kind)
    );
    phases(&mut out, scenario, twin, wide);
    let base = TOP + plot;
    if let Shown::Orders = shown {
        bars(&mut out, twin, wide, base, high);
    } else {
        out.push_str("<polyline class=\"line\" points=\"");
        for (index, second) in twin.seconds.iter().enumerate() {
            let (x, y) = (LEFT + (index as f64 + 0.5) * wide, base - high(shown.height(second)));
            let _ = write!(out, "{x:.1},{y:.1} ");
        }
        out.push_str("\"/>");
    }
    let _ = writeln!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{base}\" x2=\"{WIDTH}\" y2=\"{base}\"/>\
         <text x=\"0\" y=\"{middle}\">{client}</text><text x=\"0\" y=\"{below}\">{kind}</text>\
         <text x=\"0\" y=\"{TOP}\">{top}</text></svg>",
        middle = TOP + plot / 2.0,
        below = TOP + plot / 2.0 + 13.0,
        client = Escaped(client),
        kind = Escaped(kind),
        top = if top < 10.0 { format!("{top:.1}") } else { format!("{top:.0}") },
    );
    out
}

/// A bar for each second: the orders by their answers.
fn bars(out: &mut String, twin: &Twin, wide: f64, base: f64, high: impl Fn(f64) -> f64) {
    for (index, second) in twin.seconds.iter().enumerate() {
        let x = LEFT + index as f64 * wide;
        let mut y = base;
        for (class, count) in [("ok", second.settled), ("later", second.accepted), ("bad", second.failed)] {
            let height = high(count as f64);
            y -= height;
            if count > 0 {
                rectangle(out, class, [x + 0.5, y, (wide - 1.0).max(0.5), height]);
            }
        }
    }
}

/// The phases behind a chart, and their names above it.
fn phases(out: &mut String, scenario: &Scenario, twin: &Twin, wide: f64) {
    for (number, phase) in scenario.phases.iter().enumerate() {
        let seconds: Vec<_> =
            (0..twin.seconds.len()).filter(|index| twin.seconds[*index].phase == number).collect();
        let (Some(first), count) = (seconds.first(), seconds.len() as f64) else { continue };
        let x = LEFT + *first as f64 * wide;
        let class = match phase.mood {
            Mood::Well | Mood::Back => "well",
            Mood::Hurt => "hurt",
            Mood::Down => "down",
        };
        rectangle(out, class, [x, TOP, count * wide, HEIGHT - TOP - BOTTOM]);
        let _ = write!(out, "<text x=\"{:.1}\" y=\"12\">{}</text>", x + 2.0, Escaped(phase.name));
    }
}

fn rectangle(out: &mut String, class: &str, [x, y, width, height]: [f64; 4]) {
    let _ = write!(
        out,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
    );
}

/// Text as it may stand in HTML, also in an attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::Naive;
    use crate::results::Other;
    use crate::scenario::SCENARIOS;
    use crate::verdict::tests::results;

    #[test]
    fn what_could_be_markup_is_escaped() {
        let text = Escaped("<a href='x'>\"&</a>").to_string();
        assert_eq!(text, "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&lt;/a&gt;");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_shows_both_twins() {
        for scenario in SCENARIOS {
            let results = results(scenario);
            let page = page(scenario, &results, &Verdict::of(scenario, &results));
            for absent in ["<script", "src=", "http://", "https://", "url(", "@import", "NaN", "inf"] {
                assert!(!page.contains(absent), "{absent}: {page}");
            }
            let always = CHARTS.iter().filter(|(_, of)| !of.is_of_some()).count();
            assert_eq!(page.matches("<svg").count(), 2 * always);
            assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
            let mut results = results.clone();
            results.others.push(Other { client: Naive::Loop, twin: results.naive.clone() });
            let three = super::page(scenario, &results, &Verdict::of(scenario, &results));
            assert_eq!(three.matches("<svg").count(), 3 * always);
            assert!(three.contains("<th>loop<th>resilient"), "{three}");
            assert!(page.contains("class=\"ok\"") && page.contains("class=\"line\""));
        }
    }

    #[test]
    fn a_run_of_no_second_is_drawn_all_the_same() {
        let mut results = results(SCENARIOS[0]);
        results.naive.seconds.clear();
        results.resilient.seconds.clear();
        let page = page(SCENARIOS[0], &results, &Verdict::of(SCENARIOS[0], &results));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
