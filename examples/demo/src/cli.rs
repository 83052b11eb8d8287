//! What `cargo demo` takes. The hidden subcommands are the demo starting itself again as another process.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Two order-services, one naive and one resilient, under the same load while user-service slows down, hangs and dies.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo", version, max_term_width = 80)]
#[command(after_help = "Takes about a minute and a half (--quick: under half a minute). Uses loopback only.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) options: Options,
}

impl Cli {
    /// What cargo hands over. The alias ends in `--` already, and who types another means the same.
    pub(crate) fn typed(args: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
        args.into_iter().enumerate().filter(|(n, arg)| *n != 1 || arg != "--").map(|(_, arg)| arg)
    }
}

/// How to run the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Shorter phases, for CI
    #[arg(long)]
    pub(crate) quick: bool,
    /// Exit with status 1 unless isolation held
    #[arg(long)]
    pub(crate) check: bool,
    /// Runs so many replicas of user-service, and refuses on, slows, hangs and kills single ones of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=9))]
    pub(crate) replicas: Option<u8>,
    /// Decides arrivals, users and which calls are slow
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Orders a second, sent to each order-service
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) orders: u32,
    /// Reads a second, sent to each order-service
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) reads: u32,
    /// Also write the results here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Keep databases and logs here (otherwise they go to a temporary directory that is removed)
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// The other processes of the demo.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// user-service behind the switchable faults
    #[command(hide = true)]
    ServeUser(ServeUser),
    /// order-service with one of the two clients
    #[command(hide = true)]
    ServeOrder(ServeOrder),
    /// Waits for the demo to end, however it ends, and leaves no process or file behind
    #[command(hide = true)]
    Watchdog {
        /// Removed at the end
        #[arg(long)]
        remove: Option<PathBuf>,
    },
}

/// Each user-service listens three times: each order-service has a door of its own, so a call is counted by where it came
/// in and the two clients need not say who they are; the demo sets faults through the third.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeUser {
    #[arg(long)]
    pub(crate) naive_port: u16,
    #[arg(long)]
    pub(crate) resilient_port: u16,
    #[arg(long)]
    pub(crate) control_port: u16,
    #[arg(long)]
    pub(crate) database: PathBuf,
    #[arg(long)]
    pub(crate) seed: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeOrder {
    #[arg(long)]
    pub(crate) client: Client,
    #[arg(long)]
    pub(crate) port: u16,
    #[arg(long)]
    pub(crate) database: PathBuf,
    /// One URL, or several with commas between
    #[arg(long)]
    pub(crate) user_service: Option<String>,
}

/// The one difference between the order-services: how they find out whether a user exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// By reqwest with its default settings.
    Naive,
    /// By resilient-client with its standard policy.
    Resilient,
    /// They just know: the control, which shows what this machine does by itself meanwhile.
    Alone,
}

impl Client {
    pub(crate) const ALL: [Self; 3] = [Self::Naive, Self::Resilient, Self::Alone];
    /// Those the demo is about.
    pub(crate) const TWINS: [Self; 2] = [Self::Naive, Self::Resilient];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Resilient => "resilient",
            Self::Alone => "alone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn with_dashes_of_ones_own_or_without_it_is_the_same_command() {
        for line in ["demo --quick --replicas 3", "demo -- --quick --replicas 3"] {
            let cli = Cli::try_parse_from(Cli::typed(line.split(' ').map(OsString::from))).unwrap();
            assert_eq!((cli.options.quick, cli.options.replicas), (true, Some(3)), "{line}");
        }
        let cli = Cli::try_parse_from(Cli::typed(["demo", "--"].map(OsString::from))).unwrap();
        assert!(cli.role.is_none());
    }
}
