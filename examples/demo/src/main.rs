//! `cargo demo`: what happens to two order-services when the user-services that they ask break in
//! one way or another.
//!
//! ```text
//!              same orders,            naive order-service ───────┐  reqwest alone, say
//!   load.rs ── same reads, ──┬──> (sqlite)                        v
//!              same time     │                               user-service (sqlite) <── slow, SIGSTOP, kill -9 ...
//!                            └──> resilient order-service ────────^  resilient-client
//!                                 (sqlite)
//! ```
//!
//! Every box is a process: this program starts itself again in other roles. A scenario is data
//! (`scenario/table.rs`): the phases, what is done in each, and what must hold (`rules.rs`).
//! `stage.rs` plays any of them, `child_services.rs` is what the other processes run, `verdict.rs`
//! says how it ended.

mod arrivals;
mod ask_first;
mod audit;
mod believing;
mod breaker_log;
mod broker;
mod budget_log;
mod by_hand;
mod child_services;
mod cli;
mod clock;
mod colour;
mod counted;
mod faults;
mod follow;
mod gateway;
mod histogram;
mod live;
mod load;
mod naive;
mod orphan_guard;
mod page;
mod parts;
mod ports;
mod processes;
mod report;
mod results;
mod rules;
mod scenario;
mod signal;
mod stage;
mod tally;
mod verdict;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use tempfile::TempDir;

use crate::cli::{Cli, Options, Role};
use crate::colour::Colours;
use crate::load::{MOST_WAITING, PATIENCE, Rates};
use crate::processes::Fleet;
use crate::results::Results;
use crate::stage::say;
use crate::verdict::{Judgement, Verdict};

/// Anything that keeps the demo from coming to a verdict.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// The exit status of a run on a machine that was too busy to judge by.
const INCONCLUSIVE: u8 = 3;

fn main() -> ExitCode {
    let Cli { role, options } = Cli::parse_from(Cli::typed(std::env::args_os()));
    let ended = match role {
        Some(Role::Watchdog { remove }) => {
            orphan_guard::kill_orphans(&remove);
            Ok(ExitCode::SUCCESS)
        }
        Some(Role::ServeUser(user)) => run(child_services::serve_user(user)).map(|()| ExitCode::SUCCESS),
        Some(Role::ServeOrder(order)) => run(child_services::serve_order(order)).map(|()| ExitCode::SUCCESS),
        Some(Role::ServeGateway(gateway)) => {
            run(child_services::serve_gateway(gateway)).map(|()| ExitCode::SUCCESS)
        }
        Some(Role::Fault(args)) => run(by_hand::fault(args)).map(|()| ExitCode::SUCCESS),
        Some(Role::Toxic(args)) => run(by_hand::toxic(args)).map(|()| ExitCode::SUCCESS),
        None if options.list => say(&report::list()).map(|()| ExitCode::SUCCESS),
        None => run(demo(options)),
    };
    ended.unwrap_or_else(|problem| {
        let unread = problem
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if !unread {
            // The terminal may be gone, at which `eprintln!` would panic.
            let _ = writeln!(io::stderr(), "demo: {problem}");
        }
        ExitCode::from(2)
    })
}

fn run<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::runtime::Runtime::new()?.block_on(work)
}

async fn demo(options: Options) -> Result<ExitCode, Problem> {
    // First of all, so that there is no moment at which Ctrl-C goes unheard.
    let mut interrupted = pin!(interrupted()?);
    let scenario = options.scenario();
    if scenario.broker
        && let Some(why) = broker::missing().await
    {
        say(&format!("SKIPPED: {}: {why}", scenario.name))?;
        return Ok(ExitCode::SUCCESS);
    }
    enough_open_files(&options)?;
    let files = Files::open(&options)?;
    let directory = Directory::open(options.keep.as_deref())?;
    if let Some(traces) = &options.traces {
        empty(traces, "an older run's orders would be told of")?;
    }
    let handle = options.hold.then(by_hand::directory).transpose()?;
    let not_kept = options.keep.is_none().then(|| directory.path());
    let remove: Vec<_> = not_kept.into_iter().chain(handle.as_ref().map(TempDir::path)).collect();
    let colours = Colours::for_stdout();
    say(&report::introduction(&options))?;

    let mut fleet = tokio::select! {
        fleet = Fleet::start(directory.path(), &remove, &options, scenario) => fleet?,
        () = &mut interrupted => return say_interrupted(),
    };
    if let Some(handle) = handle {
        if let Some(found) = fleet.handle() {
            found.write(handle.path())?;
        }
        let ended = tokio::select! {
            ended = stage::hold(&mut fleet, &options, scenario, colours) => ended,
            () = &mut interrupted => Ok(()),
        };
        fleet.stop().await?;
        say("everything is stopped")?;
        return ended.map(|()| ExitCode::SUCCESS);
    }
    let ended = tokio::select! {
        results = stage::run(&mut fleet, &options, scenario, colours) => Some(results),
        () = &mut interrupted => None,
    };
    // However it went: every process is ended before anything is said about it.
    fleet.stop().await?;
    let Some(results) = ended.transpose()? else { return say_interrupted() };

    let verdict = Verdict::of(scenario, &results);
    say(&format!("\n{}", report::summary(colours, scenario, &results, &verdict)))?;
    if let Some(traces) = &options.traces {
        say(&report::traced(traces))?;
    }
    files.write(scenario, &results, &verdict)?;
    Ok(match verdict.judgement {
        _ if !options.check => ExitCode::SUCCESS,
        Judgement::Held => ExitCode::SUCCESS,
        Judgement::DidNotHold => ExitCode::FAILURE,
        Judgement::Inconclusive(_) => ExitCode::from(INCONCLUSIVE),
    })
}

/// Refuses to start what would fail for want of open files, and says how many it needs.
fn enough_open_files(options: &Options) -> Result<(), Problem> {
    /// More than a few hundred are used only while requests pile up.
    const COMFORTABLE: u64 = 4096;
    let scenario = options.scenario();
    let needed = open_files(options.rates(scenario), options.cast(scenario).naive.len());
    let allowed = signal::allow_open_files(COMFORTABLE.max(needed))?;
    if allowed < needed {
        let why = format!(
            "this run needs {needed} open files and {allowed} are allowed: \
             `ulimit -n {needed}`, or fewer --orders and --reads"
        );
        return Err(why.into());
    }
    Ok(())
}

/// While user-service hangs, every order of the last seconds waits at the naive order-service,
/// which holds a connection to its client and one to user-service. With several naive ones, their
/// clients and user-service hold one for each. Reads are answered; a busy machine may take a second
/// over them.
fn open_files(Rates { orders, reads, .. }: Rates, naive: usize) -> u64 {
    const BESIDES: u64 = 256;
    let waiting = (u64::from(orders) * PATIENCE.as_secs()).min(MOST_WAITING as u64);
    BESIDES + waiting * naive.max(2) as u64 + u64::from(reads)
}

/// Where results go besides the terminal. Opened before the run, so that a path that can't be
/// written is known then; what is there stays until there is something to take its place.
struct Files {
    json: Option<(PathBuf, File)>,
    report: Option<(PathBuf, File)>,
}

impl Files {
    fn open(options: &Options) -> Result<Self, Problem> {
        let open = |path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let file = File::options().write(true).create(true).truncate(false).open(path);
            file.map(|file| Some((path.clone(), file))).map_err(|error| about(path, &error))
        };
        Ok(Self { json: open(&options.json)?, report: open(&options.report)? })
    }

    fn write(
        self,
        scenario: &scenario::Scenario,
        results: &Results,
        verdict: &Verdict,
    ) -> Result<(), Problem> {
        if let Some((path, file)) = self.json {
            let results = serde_json::to_vec_pretty(&json!({ "results": results, "verdict": verdict }))?;
            replace(file, &results).map_err(|error| about(&path, &error))?;
        }
        if let Some((path, file)) = self.report {
            let page = report::page(scenario, results, verdict);
            replace(file, page.as_bytes()).map_err(|error| about(&path, &error))?;
        }
        Ok(())
    }
}

/// Puts this in the place of what was there.
fn replace(mut file: File, content: &[u8]) -> io::Result<()> {
    // A pipe or a device has nothing to be cut off.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(content)
}

fn say_interrupted() -> Result<ExitCode, Problem> {
    say("interrupted")?;
    Ok(ExitCode::from(130))
}

fn about(path: &Path, error: &io::Error) -> Problem {
    format!("{}: {error}", path.display()).into()
}

/// Makes a folder that is empty, or says why one that isn't won't do.
fn empty(path: &Path, why: &str) -> Result<(), Problem> {
    std::fs::create_dir_all(path).map_err(|error| about(path, &error))?;
    if std::fs::read_dir(path).map_err(|error| about(path, &error))?.next().is_some() {
        return Err(format!("{}: not empty, and {why}", path.display()).into());
    }
    Ok(())
}

/// Where databases and logs go.
enum Directory {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Directory {
    fn open(keep: Option<&Path>) -> Result<Self, Problem> {
        let Some(path) = keep else { return Ok(Self::Temporary(tempfile::tempdir()?)) };
        empty(path, "an older run's orders would be audited")?;
        Ok(Self::Kept(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }
}

/// Hears from now on, and comes when, somebody wants the demo to end: Ctrl-C, or on Unix also
/// `SIGTERM` and a closed terminal.
fn interrupted() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_load_needs_no_more_open_files_than_are_usually_allowed() {
        let usual = open_files(Rates { orders: 50, reads: 100, seed: 1 }, 1);
        assert!((800..=1024).contains(&usual), "{usual}");
        let most = open_files(Rates { orders: 500, reads: 500, seed: 1 }, 3);
        assert!(most <= 4096, "{most}");
    }
}
