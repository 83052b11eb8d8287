//! `kill -9` to every process, again and again, under load; then the audit.
//!
//! ```text
//!  load.rs: clients ──> 2 order-services ──> 3 user-services     each a process: this program in another role
//!     │                    │        ^            │    │
//!     v                    v        └ RabbitMQ <─┘    v
//!  journal.rs           Postgres, one database for the orders, one for the users
//!     └───── audit.rs <─────┘
//! ```
//!
//! `fleet.rs` kills and starts them all, `member.rs` is one of them. The database and the broker
//! are this program's own (`service_kit::testing::servers`); where they aren't installed it does
//! without and says so.
#![cfg(unix)]

mod audit;
mod cli;
mod clock;
mod fleet;
mod journal;
mod load;
mod member;
mod report;
mod serve;
mod settled;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser as _;
use service_kit::{logs::LogFormat, start, testing::servers::Postgres, traces::TraceOptions};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Audit,
    cli::{Cli, Options, Role},
    clock::Moment,
    fleet::{Fleet, With},
    journal::Journal,
    load::Load,
    report::say,
};

/// Anything that keeps it from coming to a verdict.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Clients at a time.
const CLIENTS: u32 = 8;
/// How often it says how far it is.
const EVERY_KILLS: u32 = 20;

/// The command.
pub fn main() -> ExitCode {
    let Cli { options, role } = Cli::parse();
    match role {
        Some(Role::ServeUsers(users)) => start::traced(
            "user-service",
            LogFormat::default(),
            &TraceOptions::default(),
            serve::users(users.config),
        ),
        Some(Role::ServeOrders(orders)) => start::traced(
            "order-service",
            LogFormat::default(),
            &TraceOptions::default(),
            serve::orders(orders.config),
        ),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            match runtime.map_err(Problem::from).and_then(|runtime| runtime.block_on(play(&options))) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(problem) => {
                    eprintln!("kills: {problem}");
                    ExitCode::from(2)
                }
            }
        }
    }
}

/// Runs it, or ends early when it is told to. Dropping the fleet kills all of it.
async fn play(options: &Options) -> Result<bool, Problem> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        held = run(options) => held,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("interrupted".into()),
    }
}

async fn run(options: &Options) -> Result<bool, Problem> {
    let with = available(options)?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..100_000));
    let mut rng = fastrand::Rng::with_seed(seed);
    let folder = Folder::open(options.keep.clone())?;
    say(&report::introduction(options, with, seed))?;
    let mut fleet = Fleet::start(folder.path(), with, options.settle()).await?;
    let began = Moment::now();

    let load = Load::new(fleet.user_services.clone(), fleet.order_services.clone(), !options.without_keys)?;
    let stop = CancellationToken::new();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(load.clone().client(rng.fork(), stop.clone()));
    }
    // Before the first kill something is to be lost.
    fleet.live(&mut rng, Duration::from_secs(1)).await?;
    let (mut killed, mut told) = (0, 0);
    while killed < options.kills {
        let pause = options.pause().mul_f64(rng.f64());
        fleet.live(&mut rng, pause).await?;
        killed += fleet.kill(&mut rng, options.kills - killed).await?;
        if killed / EVERY_KILLS > told {
            told = killed / EVERY_KILLS;
            say(&report::progress(killed, Moment::now().seconds_since(began), &load))?;
        }
    }
    fleet.all_up(options.settle()).await?;
    stop.cancel();
    let mut journal = Journal::default();
    let finish = async {
        while let Some(client) = clients.join_next().await {
            journal.merge(client?);
        }
        Ok::<_, Problem>(())
    };
    let finished = tokio::time::timeout(options.settle(), finish).await;
    finished.map_err(|_| "a request is not answered though everything is up")??;
    let left_alone = Moment::now();
    let is_settled = settled::orders(&load, options.settle()).await;
    let are_events_through = !fleet.has_broker || settled::events(&fleet, options.settle()).await;
    let audit = Audit::of(&journal, &settled::all_orders(&load).await?, &settled::all_users(&load).await?);
    let held = is_settled && are_events_through && audit.holds();
    let took = (left_alone.seconds_since(began), Moment::now().seconds_since(left_alone));
    say(&report::verdict(&fleet, &journal, &audit, are_events_through, took, seed, held))?;
    Ok(held)
}

/// Which of Postgres and `RabbitMQ` this run has.
fn available(options: &Options) -> Result<With, Problem> {
    let with = With {
        postgres: !options.sqlite && Postgres::is_installed(),
        broker: !options.no_broker && has_rabbit(),
    };
    if options.all && !(with.postgres && with.broker) {
        return Err("Postgres and RabbitMQ must be installed, and this built with --features amqp".into());
    }
    Ok(with)
}

#[cfg(feature = "amqp")]
fn has_rabbit() -> bool {
    service_kit::testing::servers::Rabbit::is_installed()
}

#[cfg(not(feature = "amqp"))]
fn has_rabbit() -> bool {
    false
}

/// Where logs and `SQLite`'s files are.
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn open(keep: Option<PathBuf>) -> Result<Self, Problem> {
        let Some(path) = keep else { return Ok(Self::Temporary(tempfile::tempdir()?)) };
        std::fs::create_dir_all(&path)?;
        if std::fs::read_dir(&path)?.next().is_some() {
            return Err(format!("{} is not empty", path.display()).into());
        }
        Ok(Self::Kept(std::path::absolute(path)?))
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}
