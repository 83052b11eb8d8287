//! `cargo demo`: what happens to two order-services when user-service slows down, hangs and dies.
//!
//! ```text
//!              same orders,            naive order-service ───────┐  reqwest alone
//!   load.rs ── same reads, ──┬──> (sqlite)                        v
//!              same time     │                               user-service (sqlite) <── slow 30 %, SIGSTOP, kill -9
//!                            └──> resilient order-service ────────^  resilient-client
//!                                 (sqlite)
//! ```
//!
//! Every box is a process: this program starts itself again in other roles. Read on in `outage_scenario.rs`, which goes through
//! the phases in order; `child_services.rs` is what the other processes run, `verdict.rs` is what must hold. With `--replicas` there
//! are several user-services and another scenario, `replicas.rs`.

mod arrivals;
mod audit;
mod breaker_log;
mod child_services;
mod cli;
mod clock;
mod colour;
mod fault_phases;
mod faults;
mod histogram;
mod load;
mod naive;
mod orphan_guard;
mod outage_scenario;
mod ports;
mod processes;
mod replicas;
mod report;
mod results;
mod signal;
mod tally;
mod verdict;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use crate::cli::{Cli, Options, Role};
use crate::colour::Colours;
use crate::fault_phases::Plan;
use crate::outage_scenario::say;
use crate::processes::Fleet;
use crate::verdict::Verdict;

/// Anything that keeps the demo from coming to a verdict.
type Problem = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let Cli { role, options } = Cli::parse_from(Cli::typed(std::env::args_os()));
    let ended = match role {
        Some(Role::Watchdog { remove }) => {
            orphan_guard::kill_orphans(remove.as_deref());
            Ok(ExitCode::SUCCESS)
        }
        Some(Role::ServeUser(user)) => run(child_services::serve_user(user)).map(|()| ExitCode::SUCCESS),
        Some(Role::ServeOrder(order)) => run(child_services::serve_order(order)).map(|()| ExitCode::SUCCESS),
        None => run(demo(options)),
    };
    ended.unwrap_or_else(|problem| {
        let unread = problem
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if !unread {
            eprintln!("demo: {problem}");
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
    let json = options.json.as_deref().map(|path| File::create(path).map_err(|error| about(path, &error)));
    let json = json.transpose()?;
    let directory = Directory::open(options.keep.as_deref())?;
    let colours = Colours::for_stdout();
    say(&introduction(&options))?;

    let replicas = options.replicas.map_or(1, usize::from);
    let mut fleet = tokio::select! {
        fleet = Fleet::start(directory.path(), options.keep.is_none(), options.seed, replicas) => fleet?,
        () = &mut interrupted => return say_interrupted(),
    };
    let ended = tokio::select! {
        end = run_scenario(&mut fleet, &options, colours) => Some(end),
        () = &mut interrupted => None,
    };
    // However it went: every process is ended before anything is said about it.
    fleet.stop().await?;
    let Some(end) = ended.transpose()? else { return say_interrupted() };

    say(&format!("\n{}", end.summary))?;
    if let Some(file) = json {
        serde_json::to_writer_pretty(file, &end.json)?;
    }
    Ok(if options.check && !end.passed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn introduction(Options { quick, orders, reads, seed, replicas, .. }: &Options) -> String {
    match replicas {
        None => report::introduction(Plan::of(*quick), *orders, *reads, *seed),
        Some(replicas) => {
            replicas::introduction(replicas::Plan::of(*quick), usize::from(*replicas), *orders, *reads, *seed)
        }
    }
}

/// How a scenario ended.
struct End {
    summary: String,
    json: serde_json::Value,
    passed: bool,
}

/// Runs the scenario that was asked for.
async fn run_scenario(fleet: &mut Fleet, options: &Options, colours: Colours) -> Result<End, Problem> {
    Ok(if options.replicas.is_some() {
        let results = replicas::run(fleet, options, replicas::Plan::of(options.quick), colours).await?;
        let verdict = replicas::Verdict::of(&results);
        End {
            summary: replicas::summary(colours, &results, &verdict),
            passed: verdict.passed(),
            json: json!({ "results": results, "verdict": verdict }),
        }
    } else {
        let results = outage_scenario::run(fleet, options, Plan::of(options.quick), colours).await?;
        let verdict = Verdict::of(&results);
        End {
            summary: report::summary(colours, &results, &verdict),
            passed: verdict.passed(),
            json: json!({ "results": results, "verdict": verdict }),
        }
    })
}

fn say_interrupted() -> Result<ExitCode, Problem> {
    say("interrupted")?;
    Ok(ExitCode::from(130))
}

fn about(path: &Path, error: &io::Error) -> Problem {
    format!("{}: {error}", path.display()).into()
}

/// Where databases and logs go.
enum Directory {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Directory {
    fn open(keep: Option<&Path>) -> Result<Self, Problem> {
        let Some(path) = keep else { return Ok(Self::Temporary(tempfile::tempdir()?)) };
        std::fs::create_dir_all(path).map_err(|error| about(path, &error))?;
        if std::fs::read_dir(path).map_err(|error| about(path, &error))?.next().is_some() {
            return Err(
                format!("{}: not empty, and an older run's orders would be audited", path.display()).into()
            );
        }
        Ok(Self::Kept(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }
}

/// Hears from now on, and comes when, somebody wants the demo to end: Ctrl-C, or on Unix also `SIGTERM` and a closed
/// terminal.
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
