//! Instructions per call, counted by callgrind. Where valgrind isn't there, says so and does
//! nothing.
//!
//! This process starts itself under callgrind twice, for N and for 2N calls, and divides the
//! difference by N: start and warming up cancel out. Counts are the same from run to run to within
//! a few in a thousand, whatever else the machine does.
//!
//! With `--check FILE` it only compares ours with the ceilings in that file, and fails above them;
//! `--update FILE` writes them anew.
//!
//! Under valgrind every clock read is a system call, so a clock read counts for fewer instructions
//! than it is worth.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use resilient_client::Policy;
use resilient_client_benches::args::Args;
use resilient_client_benches::loopback::{Server, serve_if_asked};
use resilient_client_benches::subject::Subject;
use resilient_client_benches::table::{Goal, Table};
use resilient_client_benches::wire::{self, Client};
use resilient_client_benches::{machines, noop};

/// Holds `<subject> <calls> <url>` in a process under callgrind.
const ROLE: &str = "RESILIENT_CLIENT_BENCH_COUNT";

fn main() {
    if serve_if_asked() || run_if_asked() {
        return;
    }
    let args = Args::from_env();
    if !args.wants("instructions") {
        return;
    }
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("\nInstructions per call: SKIPPED, valgrind isn't installed");
        return;
    }
    let counter = Counter {
        server: Server::start(),
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        noop: args.effort.pick(20_000, 5_000, 10),
        http: args.effort.pick(1_000, 300, 5),
    };
    if let Some(file) = args.file("--update") {
        return update(&counter, file);
    }
    if let Some(file) = args.file("--check") {
        return check(&counter, file);
    }
    let mut table = Table::new("Instructions per call, callgrind");
    let closed = counter.noop("breaker-closed");
    table.counts("breaker, closed", closed, ("failsafe", counter.noop("failsafe-closed")), Goal::None);
    table.counts("breaker, closed", closed, ("recloser", counter.noop("recloser-closed")), Goal::None);
    let theirs = ("tower-resilience", counter.noop("tower-resilience-closed"));
    table.counts("breaker, closed", closed, theirs, Goal::None);
    table.alone("breaker, rejected", counter.noop("breaker-rejected"), Goal::None);

    let (ours, bare) = (counter.noop("call-ours"), counter.noop("call-bare"));
    let tower = ("tower: retry, limit, timeout", counter.noop("call-tower"));
    let tower_budget = ("tower: and its budget and a total timeout", counter.noop("call-tower-budget"));
    let seatbelt = ("seatbelt: retry, breaker, timeout", counter.noop("call-seatbelt"));
    let tower_resilience = ("tower-resilience", counter.noop("call-tower-resilience"));
    for peer in [("bare service", bare), tower, tower_budget, seatbelt, tower_resilience] {
        table.counts("round a service that does nothing", ours, peer, Goal::None);
    }
    table.alone("the same, above the bare service", ours - bare, Goal::None);
    table.alone("the same, body sent once", counter.noop("call-ours-once") - bare, Goal::None);
    table.alone("the same, no deadline header", counter.noop("call-ours-untold") - bare, Goal::None);
    table.alone("the same, no policy", counter.noop("call-ours-none") - bare, Goal::None);
    table.alone("metrics, with a recorder of plain atomics", counter.metrics(), Goal::None);
    table.alone("what they tell it, without the call", counter.noop("instruments"), Goal::None);
    let prometheus = counter.noop("call-ours-prometheus");
    table.alone("metrics, with Prometheus's", prometheus - ours, Goal::None);

    let ours = counter.http("http-ours");
    // The goal was set against reqwest keeping a copy of each request, as it does unless told
    // otherwise.
    let as_it_comes = ("reqwest as it comes", counter.http("http-bare-as-it-comes"));
    table.counts("over reqwest", ours, as_it_comes, Goal::Ratio(59.5 / 57.7));
    table.counts("over reqwest", ours, ("reqwest, no retries", counter.http("http-bare")), Goal::None);
    for (peer, name) in [
        ("reqwest-retry", "http-middleware"),
        ("tower", "http-tower"),
        ("tower-resilience", "http-tower-resilience"),
    ] {
        table.counts("over reqwest", ours, (peer, counter.http(name)), Goal::None);
    }
    table.alone("over reqwest, no policy", counter.http("http-ours-none"), Goal::None);

    let hyper = ("hyper-util", counter.http("http-hyper"));
    table.counts("over hyper", counter.http("http-ours-hyper"), hyper, Goal::Ratio(32.2 / 28.9));
    table.alone("over hyper, no policy", counter.http("http-ours-hyper-none"), Goal::None);
    table.publish(&args);
}

/// What a change must not make dearer unnoticed: subjects of ours, counted against committed
/// ceilings.
const WATCHED: [&str; 4] = ["call-ours", "http-ours", "http-ours-hyper", METRICS];
/// What metrics add to a call when somebody records them: at most 400 is what was asked for.
const METRICS: &str = "call-metrics";
/// A ceiling above what was measured: the counts of two runs differ by a few in a thousand.
const SLACK: f64 = 1.03;

/// Writes ceilings from what is measured now.
fn update(counter: &Counter, file: &Path) {
    let ceilings: serde_json::Map<String, serde_json::Value> = WATCHED
        .iter()
        .map(|name| ((*name).to_owned(), ((counter.watched(name) * SLACK).round() as u64).into()))
        .collect();
    let text = serde_json::to_string_pretty(&ceilings).expect("JSON");
    std::fs::write(file, text + "\n").expect("the file of ceilings");
    println!("{} now holds {ceilings:?}", file.display());
}

/// Ends this process with failure when a count is above its ceiling.
fn check(counter: &Counter, file: &Path) {
    let text = std::fs::read_to_string(file).expect("the file of ceilings");
    let ceilings: serde_json::Value = serde_json::from_str(&text).expect("ceilings");
    println!("\nInstructions per call against {}", file.display());
    let mut above = 0;
    for name in WATCHED {
        let ceiling = ceilings[name].as_f64().expect("a ceiling");
        let counted = counter.watched(name);
        let verdict = if counted <= ceiling { "ok" } else { "ABOVE" };
        println!("  {name:<16} {counted:>8} of at most {ceiling:>8}  {verdict}");
        above += u32::from(counted > ceiling);
    }
    if above > 0 {
        println!("  Either find what became dearer, or accept it: -- --update benches/instructions.json");
        std::process::exit(1);
    }
}

fn subject(name: &str, url: &str) -> Subject {
    let standard = Policy::standard();
    match name {
        "breaker-closed" => machines::closed("ours", 1),
        "breaker-rejected" => machines::rejected("ours", 1),
        "failsafe-closed" => machines::failsafe_closed("failsafe", 1),
        "tower-resilience-closed" => machines::tower_resilience_closed("tower-resilience", 1),
        "recloser-closed" => machines::recloser_closed("recloser", 1),
        "call-bare" => noop::bare("bare"),
        "call-ours" => noop::ours("ours", &standard),
        "instruments" => noop::instruments("instruments"),
        "call-ours-metrics" => noop::ours_counted("ours", &standard),
        "call-ours-prometheus" => noop::ours_prometheus("ours", &standard),
        "call-ours-once" => noop::ours_unrepeatable("ours", &standard),
        "call-ours-untold" => noop::ours_untold("ours", &standard),
        "call-ours-none" => noop::ours("ours", &Policy::none()),
        "call-tower" => noop::tower("tower"),
        "call-seatbelt" => noop::seatbelt("seatbelt"),
        "call-tower-resilience" => noop::tower_resilience("tower-resilience"),
        "call-tower-budget" => noop::tower_with_budget("tower"),
        "http-bare" => wire::sequential("bare", Client::bare(), url),
        "http-bare-as-it-comes" => wire::sequential("bare", Client::bare_as_it_comes(), url),
        "http-middleware" => wire::sequential("reqwest-retry", Client::middleware(), url),
        "http-tower" => wire::sequential("tower", Client::tower(), url),
        "http-tower-resilience" => wire::sequential("tower-resilience", Client::tower_resilience(), url),
        "http-ours-none" => wire::sequential("none", Client::ours(Policy::none()), url),
        "http-hyper" => wire::sequential("bare", Client::bare_hyper(), url),
        "http-ours-hyper" => wire::sequential("ours", Client::ours_on_hyper(standard), url),
        "http-ours-hyper-none" => wire::sequential("none", Client::ours_on_hyper(Policy::none()), url),
        "http-ours" => wire::sequential("ours", Client::ours(standard), url),
        _ => panic!("no subject {name}"),
    }
}

/// In a process under callgrind: does what it was started for, and returns true.
fn run_if_asked() -> bool {
    let Ok(role) = env::var(ROLE) else { return false };
    let [name, calls, url] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("{ROLE}={role}") };
    let mut subject = subject(name, url);
    subject.run(10);
    subject.run(calls.parse().expect("a number of calls"));
    true
}

struct Counter {
    server: Server,
    dir: PathBuf,
    noop: u64,
    http: u64,
}

impl Counter {
    fn noop(&self, name: &str) -> f64 {
        self.per_call(name, self.noop)
    }

    fn http(&self, name: &str) -> f64 {
        self.per_call(name, self.http)
    }

    fn watched(&self, name: &str) -> f64 {
        match name {
            METRICS => self.metrics(),
            name if name.starts_with("http") => self.http(name),
            name => self.noop(name),
        }
    }

    fn metrics(&self) -> f64 {
        self.noop("call-ours-metrics") - self.noop("call-ours")
    }

    fn per_call(&self, name: &str, n: u64) -> f64 {
        let (once, twice) = (self.total(name, n), self.total(name, 2 * n));
        ((twice as f64 - once as f64) / n as f64).round()
    }

    fn total(&self, name: &str, calls: u64) -> u64 {
        // Kept for callgrind_annotate.
        let profile = self.dir.join(format!("callgrind.{name}.{calls}"));
        let output = Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(env::current_exe().expect("own path"))
            .env(ROLE, format!("{name} {calls} {}", self.server.url()))
            .stdin(Stdio::null())
            .output()
            .expect("valgrind");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        read_total(&profile)
    }
}

fn read_total(profile: &Path) -> u64 {
    let text = std::fs::read_to_string(profile).expect("callgrind's profile");
    let total =
        text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind's total")
}
