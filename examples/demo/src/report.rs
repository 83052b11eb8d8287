//! What the demo prints while it runs: an introduction and a line a second. The end of it is in
//! `report/summary.rs`.

mod html;
mod summary;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

pub(crate) use self::html::page;
pub(crate) use self::summary::{sentence, summary};

use crate::breaker_log::Breaker;
use crate::by_hand::Handle;
use crate::cli::{Client, Options};
use crate::colour::{Colour, Colours};
use crate::follow::STREAMS;
use crate::gateway::PROMISE;
use crate::load::{PATIENCE, Rates};
use crate::parts::Part;
use crate::processes::Held;
use crate::results::millis;
use crate::scenario::{Columns, Mood, Phase, SCENARIOS, Scenario};
use crate::tally::Tally;

/// What `--list` prints.
pub(crate) fn list() -> String {
    let mut out = String::new();
    for scenario in SCENARIOS {
        let set = |parts: &&[Part]| parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(",");
        let shows: Vec<_> = scenario.shows.iter().map(set).collect();
        let _ = writeln!(out, "{:<18} {}", scenario.name, scenario.about);
        let mut line = format!("{:<18} fails --without {}", "", shows.join(" or "));
        if line.len() > 80 {
            // The first set alone is the long one.
            line = line.replacen(" or ", &format!("\n{:<24} or ", ""), 1);
        }
        let _ = writeln!(out, "{line}");
    }
    out.push_str("\ncargo demo NAME runs one; --unprotected switches every policy off");
    out
}

/// What the demo is about to do.
pub(crate) fn introduction(options: &Options) -> String {
    let scenario = options.scenario();
    let (services, Rates { orders, reads, seed }) = (options.user_services(), options.rates(scenario));
    let asked = match services {
        1 => "one user-service".to_owned(),
        several => format!("{several} user-services"),
    };
    let cast = options.cast(scenario);
    let hedged = if services == 1 { "" } else { " and hedging" };
    let mut out = format!(
        "\
{name}: {about}.
{count} order-services ask {asked} about every customer; each is a process
with a database of its own.
  naive      {naive};
             if the question fails, so does the order (500)
  resilient  resilient-client with its standard policy{hedged};
             if the question fails, the order is kept (202)
  alone      knows its customers and asks nobody: the control, which shows what
             this machine does by itself
All get the same {orders} orders and {reads} reads a second, from clients that
wait {patience} s.
  ok    orders answered 201 (422: no such user)  p99    99 of 100 were quicker
  202   orders stored, to be verified later      read   the same of reads
  fail  orders answered 500, or not at all       calls  to each user-service
                                                 wait   requests unanswered yet
",
        name = scenario.name,
        about = scenario.about,
        count = if cast.naive.len() == 1 { "Two" } else { "Four" },
        naive = cast.naive.iter().map(|kind| kind.described()).collect::<Vec<_>>().join(";\n             "),
        patience = PATIENCE.as_secs(),
    );
    if scenario.streams {
        let _ = writeln!(
            out,
            "Each also follows user-service's events, on {STREAMS} streams.\n  alive {STREAMS} streams at most"
        );
    }
    if scenario.gateway {
        let waits = PROMISE.as_millis();
        let _ = writeln!(
            out,
            "In front of each stands a gateway with a client of its kind; it waits {waits} ms."
        );
    }
    if let Some(missing) = options.without(scenario).told() {
        let _ = writeln!(out, "The resilient one is without {missing}.");
    }
    for part in options.not_shown() {
        let _ =
            writeln!(out, "Whether the {} works isn't what this scenario shows; see --list.", part.name());
    }
    let _ = write!(out, "Seed {seed}");
    if !options.hold {
        let _ = write!(out, "; at most {} s", scenario.limit(options.quick).as_secs());
    }
    out.push_str(".\n");
    out
}

/// Where it can be watched.
pub(crate) fn to_watch(url: &str, admin: &str, token: &str) -> String {
    format!("Both twins' last orders:    {url}/\nThe resilient client's own: {admin}\n  its token: {token}\n")
}

/// Where the traces are, and how to read them.
pub(crate) fn traced(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Traces of each process: {folder}\nWhich orders have a story, and one order's:\n  \
         cargo run -p otlp -- story {folder}\n  cargo run -p otlp -- story {folder} <id>"
    )
}

/// What to type; `cargo demo fault --help` has the rest.
const BY_HAND: &str = "\
# every second answer takes 1500 ms longer; every answer is a 503; a proxy's page
cargo demo fault user-service delay 1500ms 50%
cargo demo fault user-service abort 503
cargo demo fault user-service wrong-page 404
# what is sent to it comes 200 ms later; every connection is reset
cargo demo toxic latency 200ms --upstream
cargo demo toxic reset-peer
# well again
cargo demo fault clear
cargo demo toxic clear
";

/// What is said while everything is held: where it is, and how to break it.
pub(crate) fn held(scenario: &Scenario, held: &Held, user: &str) -> String {
    let mut out = format!("Everything of {} is up, and stays up until Ctrl-C.\n", scenario.name);
    for (number, (pid, url)) in held.users.iter().enumerate() {
        let _ = writeln!(out, "  user-service {}           {url}  pid {pid}", number + 1);
    }
    for (client, pid, url) in &held.orders {
        let _ = writeln!(out, "  {:<9} order-service  {url}  pid {pid}", client.name());
    }
    for (client, pid, url) in &held.gateways {
        let _ = writeln!(out, "  {:<9} gateway        {url}  pid {pid}", client.name());
    }
    let _ = writeln!(out, "  databases and logs       {}", held.directory.display());
    let (Some((pid, _)), Some(handle)) = (held.users.first(), &held.handle) else { return out };
    let Handle { token, faults, toxics, .. } = handle;
    out.push_str("\nIn another terminal:\n");
    out.push_str(BY_HAND);
    let _ = writeln!(out, "# it hangs; and goes on\nkill -STOP {pid}\nkill -CONT {pid}");
    out.push_str("# the same by HTTP\n");
    for (method, body) in [("PUT", r#" --json '{"kind":"abort","status":503}'"#), ("DELETE", "")] {
        let url = faults.first().map_or("", String::as_str);
        let _ = writeln!(out, "curl -X {method} {url} -H 'authorization: Bearer {token}'{body}");
    }
    let _ = writeln!(out, "curl {toxics}/proxies");
    out.push_str("# an order\n");
    let entrances = if held.gateways.is_empty() { &held.orders } else { &held.gateways };
    for (client, _, url) in entrances {
        if *client != Client::Alone {
            let body = format!(r#"{{"user_id":"{user}","items":[{{"sku":"tea","quantity":1}}]}}"#);
            let _ = writeln!(out, "curl {url}/orders -H 'content-type: application/json' -d '{body}'");
        }
    }
    out
}

/// The columns of one order-service in the table of seconds: their heads and widths. There is no
/// room for what doesn't tell much: only the resilient one has a circuit breaker and answers 202;
/// only at the naive one requests pile up.
const COLUMNS: [(&str, usize); 9] = [
    ("ok", 4),
    ("202", 4),
    ("fail", 5),
    ("p99", 6),
    ("read", 6),
    ("calls", 6),
    ("alive", 6),
    ("wait", 5),
    ("breaker", 8),
];

fn columns(columns: Columns, client: Client) -> impl Iterator<Item = (&'static str, usize)> {
    let has = move |head: &str| match (columns, client) {
        (Columns::Reads, Client::Resilient) => !matches!(head, "wait" | "alive"),
        (Columns::Reads, _) => !matches!(head, "202" | "calls" | "breaker" | "alive"),
        (Columns::Calls, Client::Resilient) => !matches!(head, "wait" | "read" | "breaker" | "alive"),
        (Columns::Calls, _) => !matches!(head, "202" | "read" | "breaker" | "alive"),
        (Columns::Streams, Client::Resilient) => !matches!(head, "wait" | "read" | "calls"),
        (Columns::Streams, _) => !matches!(head, "202" | "read" | "calls" | "breaker"),
    };
    let wide = move |width| if columns == Columns::Calls { 12 } else { width };
    COLUMNS
        .into_iter()
        .filter(move |(head, _)| has(head))
        .map(move |(head, width)| (head, if head == "calls" { wide(width) } else { width }))
}

/// The head of the table of seconds.
pub(crate) fn header(colours: Colours, which: Columns) -> String {
    let mut lines = [format!("{:12}|", ""), format!("{:>3} {:8}|", "s", "phase")];
    for client in Client::TWINS {
        let width: usize = columns(which, client).map(|(_, width)| width).sum();
        let _ = write!(lines[0], "{:^width$}|", client.name());
        for (head, width) in columns(which, client) {
            let _ = write!(lines[1], "{head:>width$}");
        }
        lines[1].push('|');
    }
    lines.map(|line| colours.apply(Colour::Bold, &line)).join("\n")
}

/// One order-service in one second.
pub(crate) struct Second {
    pub(crate) tally: Tally,
    /// By user-service.
    pub(crate) calls: Vec<u64>,
    /// Begun for callers who had gone.
    pub(crate) in_vain: u64,
    /// Streams alive; `None` where there are none.
    pub(crate) streams: Option<u64>,
    pub(crate) waiting: usize,
}

/// What a line of the table says.
pub(crate) struct Line<'a> {
    pub(crate) at: u64,
    pub(crate) phase: &'a Phase,
    /// By order-service, the twins first.
    pub(crate) seconds: &'a [Second],
    /// The resilient one's.
    pub(crate) breaker: Breaker,
}

/// A line of the table of seconds.
pub(crate) fn second(colours: Colours, which: Columns, said: &Line<'_>) -> String {
    let Line { at, phase, seconds, breaker } = said;
    let mut line =
        format!("{at:>3} {}|", colours.apply(mood_colour(phase.mood), &format!("{:<8}", phase.name)));
    for (client, second) in Client::TWINS.into_iter().zip(*seconds) {
        for (head, width) in columns(which, client) {
            let (text, colour) = cell(head, second, *breaker);
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
        "calls" => (slashed(second.calls.iter().map(u64::to_string)), None),
        "alive" => {
            let alive = second.streams.unwrap_or_default();
            (alive.to_string(), (alive < STREAMS as u64).then_some(Colour::Red))
        }
        "wait" => (second.waiting.to_string(), None),
        // In the width there is.
        _ if breaker == Breaker::HalfOpen => ("half".into(), breaker_colour(breaker)),
        _ => (breaker.name().into(), breaker_colour(breaker)),
    }
}

fn slashed(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("/")
}

/// A line that says what is done now.
pub(crate) fn event(colours: Colours, what: &str) -> String {
    colours.apply(Colour::Bold, &format!("--- {what}"))
}

const fn mood_colour(mood: Mood) -> Colour {
    match mood {
        Mood::Well | Mood::Back => Colour::Green,
        Mood::Hurt => Colour::Yellow,
        Mood::Down => Colour::Red,
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

#[cfg(test)]
mod tests;
