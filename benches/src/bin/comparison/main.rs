//! Turns what the benches wrote with `--json FILE` into docs/COMPARISON.md and its bar plots.
//!
//! ```text
//! cargo run --release -p resilient-client-benches --bin comparison -- FILE DATE [REMARK]
//! ```
//!
//! The machine, the compiler and the commit are asked for; the date is given, because nothing here
//! reads a calendar.

mod storm;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use resilient_client_benches::args::from_root;
use serde_json::Value;

/// Counts first: they are the same on a busy machine.
const ORDER: [&str; 5] = ["Instructions", "Allocations", "Bytes", "Machines", "Call"];
const PEERS: [&str; 15] = [
    "failsafe",
    "fetch",
    "governor",
    "layered",
    "hyper",
    "hyper-util",
    "recloser",
    "reqwest",
    "reqwest-middleware",
    "reqwest-retry",
    "reqx",
    "seatbelt",
    "tokio",
    "tower",
    "tower-resilience",
];

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(date)) = (args.next(), args.next()) else {
        eprintln!("comparison FILE DATE [REMARK]");
        std::process::exit(2);
    };
    let text = fs::read_to_string(from_root(&file)).expect("what the benches wrote");
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let place = |line: &Value| {
        let title = line["title"].as_str().unwrap_or_default();
        let known = ORDER.iter().position(|start| title.starts_with(start)).unwrap_or(ORDER.len());
        // The storm first: what a stack does for its user comes before what it costs.
        if line["kind"] == "storm" { 0 } else { known + 1 }
    };
    lines.sort_by_key(place);
    let mut page = head(&date, args.next().as_deref());
    goals(&mut page, &lines);
    for (number, line) in lines.iter().enumerate() {
        if line["kind"] == "storm" { storm::storm(&mut page, line) } else { table(&mut page, line, number) }
    }
    write("docs/COMPARISON.md", &page);
}

fn head(date: &str, remark: Option<&str>) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut page = format!(
        "# Beside its peers\n\nWritten by the `comparison` binary from one run of `cargo bench`; how each number is taken and \
         how each peer is set up is in [benches/README.md](../benches/README.md).\n\n\
         - Date: {date}. Commit: {}. {}.\n- Machine: {cores} cores,{}.\n- Versions: {}.\n",
        asked("git", &["rev-parse", "--short", "HEAD"]),
        asked("rustc", &["--version"]),
        model
            .trim_start_matches([' ', '\t', ':'])
            .split('@')
            .next()
            .map(|name| format!(" {name}"))
            .unwrap_or_default(),
        versions(),
    );
    if let Some(remark) = remark {
        let _ = writeln!(page, "- {remark}");
    }
    page.push_str(
        "\nCounts (allocations, instructions, requests, successes) hold on any machine; times are worth something only beside \
         another of the same run.\n",
    );
    page
}

/// What was asked for, at a glance: how much of it is met, and by name what isn't.
fn goals(page: &mut String, lines: &[Value]) {
    let (mut met, mut missed) = (0, Vec::new());
    for line in lines {
        for row in line["rows"].as_array().into_iter().flatten() {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            let mut judge = |verdict: &Value, what: String| match verdict.as_bool() {
                Some(true) => met += 1,
                Some(false) => missed.push(what),
                None => {}
            };
            for goal in row["goals"].as_array().into_iter().flatten() {
                let goal_text = goal["goal"].as_str().unwrap_or_default();
                judge(&goal["met"], format!("{} under {}: {goal_text}", text("stack"), text("fault")));
            }
            let ours = row["ours"].as_f64().map_or_else(String::new, figure);
            let ratio = row["ratio"].as_f64().map_or_else(String::new, |ratio| format!(", ratio {ratio:.3}"));
            let title = line["title"].as_str().unwrap_or_default();
            judge(&row["met"], format!("{title}: {}, {ours}{ratio}; goal {}", text("what"), text("goal")));
        }
    }
    missed.dedup();
    let _ = writeln!(
        page,
        "\n## Goals\n\n{met} met, {} missed. Why: [What a call costs](design/cost.md).\n",
        missed.len()
    );
    for what in missed {
        let _ = writeln!(page, "- {what}");
    }
}

fn asked(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(from_root("")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// From the lock file: what was built.
fn versions() -> String {
    let lock = fs::read_to_string(from_root("Cargo.lock")).unwrap_or_default();
    let of = |peer: &str| {
        let named = format!("name = \"{peer}\"\nversion = \"");
        let all: Vec<&str> = lock.split(&named).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        (!all.is_empty()).then(|| format!("{peer} {}", all.join(" and ")))
    };
    PEERS.iter().filter_map(|peer| of(peer)).collect::<Vec<_>>().join(", ")
}

fn table(page: &mut String, line: &Value, number: usize) {
    let title = line["title"].as_str().unwrap_or_default();
    let rows = line["rows"].as_array().cloned().unwrap_or_default();
    let _ = write!(
        page,
        "\n## {title}\n\n| what | ours | peer | theirs | ratio | goal | |\n|---|--:|---|--:|--:|---|---|\n"
    );
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let value = |key: &str| row[key].as_f64().map_or("-".to_owned(), figure);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            text("what"),
            value("ours"),
            text("peer"),
            value("theirs"),
            row["ratio"].as_f64().map_or("-".to_owned(), |ratio| format!("{ratio:.3}")),
            text("goal"),
            verdict(&row["met"]),
        );
    }
    let mut groups: Vec<Group> = Vec::new();
    for row in rows.iter().filter(|row| row["theirs"].is_number()) {
        let (what, ours) = (row["what"].as_str().unwrap_or_default(), row["ours"].as_f64().unwrap_or(0.0));
        if groups.last().is_none_or(|group| group.title != what) {
            groups.push(Group { title: what.to_owned(), bars: vec![("ours".to_owned(), ours)] });
        }
        let peer = row["peer"].as_str().unwrap_or_default().to_owned();
        if let Some(group) = groups.last_mut() {
            group.bars.push((peer, row["theirs"].as_f64().unwrap_or(0.0)));
        }
    }
    if !groups.is_empty() {
        let first = title.split([' ', ',']).next().unwrap_or_default().to_lowercase();
        plot(page, &format!("{first}-{number}"), title, &groups);
    }
}

fn verdict(met: &Value) -> &'static str {
    match met.as_bool() {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    }
}

struct Group {
    title: String,
    bars: Vec<(String, f64)>,
}

/// Bars in groups, each group to its own scale. Ours are dark.
fn plot(page: &mut String, name: &str, title: &str, groups: &[Group]) {
    const WIDTH: f64 = 860.0;
    const LABELS: f64 = 300.0;
    const BAR: f64 = 18.0;
    let mut body = String::new();
    let mut y = 48.0;
    for group in groups {
        let _ = writeln!(body, r#"<text x="8" y="{y}" font-weight="bold">{}</text>"#, escaped(&group.title));
        y += 6.0;
        let most = group.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (label, value) in &group.bars {
            let length = (WIDTH - LABELS - 90.0) * value / most;
            let colour = if label.starts_with("ours") { "#14507a" } else { "#a8b4bd" };
            let (text, after) = (y + 13.0, LABELS + length + 5.0);
            let _ = writeln!(
                body,
                r#"<text x="{:.0}" y="{text}" text-anchor="end">{}</text><rect x="{LABELS}" y="{y}" width="{length:.1}" height="{:.0}" fill="{colour}"/><text x="{after:.1}" y="{text}">{}</text>"#,
                LABELS - 6.0,
                escaped(label),
                BAR - 3.0,
                figure(*value),
            );
            y += BAR;
        }
        y += 22.0;
    }
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"8\" y=\"22\" font-size=\"15\">{}</text>\n{body}</svg>\n",
        escaped(title)
    );
    write(&format!("docs/comparison-{name}.svg"), &svg);
    let _ = write!(page, "\n![{title}](comparison-{name}.svg)\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn write(path: &str, text: &str) {
    fs::write(from_root(Path::new(path)), text).expect("docs");
}
