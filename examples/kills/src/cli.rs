//! What can be asked for.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

/// Runs two order-services on one database and three user-services behind one name, under load, and
/// kills a process of theirs after another (`kill -9`), their database and broker too.
///
/// Postgres and `RabbitMQ` are started for this run where they are installed. At the end every
/// order that was acknowledged must be there once, with the right verdict. Ends with 0 if so, with
/// 1 if not.
#[derive(Debug, Parser)]
#[command(name = "kills", version, max_term_width = 80, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Options {
    /// How many processes to kill
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) kills: u32,
    /// Repeats the choices of another run: whom to kill and when, and what is ordered; not its
    /// races. Any by default
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Longest pause between two kills, in milliseconds
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) pause_ms: u64,
    /// How long everything may take to settle after the last kill, in seconds
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) settle_s: u64,
    /// `SQLite` though Postgres is installed
    #[arg(long)]
    pub(crate) sqlite: bool,
    /// No broker though `RabbitMQ` is installed
    #[arg(long)]
    pub(crate) no_broker: bool,
    /// Fail rather than do without Postgres or `RabbitMQ`
    #[arg(long, conflicts_with_all = ["sqlite", "no_broker"])]
    pub(crate) all: bool,
    /// Send no idempotency keys, to see that the audit finds what that doubles: the run must end
    /// with 1
    #[arg(long)]
    pub(crate) without_keys: bool,
    /// Keep the logs and `SQLite`'s files here
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

impl Options {
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_millis(self.pause_ms)
    }

    pub(crate) fn settle(&self) -> Duration {
        Duration::from_secs(self.settle_s)
    }
}

/// This program as one of the processes that are killed.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    #[command(hide = true)]
    ServeUsers(ServeUsers),
    #[command(hide = true)]
    ServeOrders(ServeOrders),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeUsers {
    #[command(flatten)]
    pub(crate) config: user_service::Config,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeOrders {
    #[command(flatten)]
    pub(crate) config: order_service::Config,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["kills", "--kills", "200", "--seed", "7"]).unwrap().role.is_none());
        assert!(Cli::try_parse_from(["kills", "serve-users", "--port", "1"]).unwrap().role.is_some());
    }
}
