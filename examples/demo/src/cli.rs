//! What `cargo demo` takes. The hidden subcommands are the demo starting itself again as another
//! process.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::by_hand::{FaultArgs, ToxicArgs};
use crate::load::Rates;
use crate::naive::Naive;
use crate::parts::{Part, Without};
use crate::scenario::{ISOLATION, REPLICAS, SCENARIOS, Scenario};

/// Where [`ServeUser`] finds its token.
pub(crate) const FAULTS_TOKEN: &str = "RESILIENT_CLIENT_DEMO_FAULTS_TOKEN";

/// Where it finds the one by which the demo sets what a scenario does.
pub(crate) const CONTROL_TOKEN: &str = "RESILIENT_CLIENT_DEMO_CONTROL_TOKEN";

/// Where [`ServeOrder`] finds the one of its admin page.
pub(crate) const ADMIN_TOKEN: &str = "RESILIENT_CLIENT_DEMO_ADMIN_TOKEN";

/// Two order-services, one naive and one resilient, under the same load while user-service slows
/// down, hangs and dies.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo", version, max_term_width = 80)]
#[command(after_help = "\
Takes about a minute (--quick: under half a minute). Uses loopback only.
With --check it exits with 0 if all held, 1 if something did not, and 3 if this
machine was too busy to say.")]
#[command(args_conflicts_with_subcommands = true)]
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
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Options {
    /// What happens; --list shows all
    #[arg(value_name = "SCENARIO", value_parser = scenario)]
    positional: Option<&'static Scenario>,
    /// The same, as an option
    #[arg(long, value_name = "SCENARIO", value_parser = scenario, conflicts_with = "positional")]
    scenario: Option<&'static Scenario>,
    /// Lists the scenarios
    #[arg(long)]
    pub(crate) list: bool,
    /// Shorter phases, for CI
    #[arg(long)]
    pub(crate) quick: bool,
    /// Exit with status 1 unless all held, or 3 if this machine was too busy to say
    #[arg(long)]
    pub(crate) check: bool,
    /// The scenario `replicas` with so many user-services
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=9))]
    #[arg(conflicts_with_all = ["positional", "scenario"])]
    replicas: Option<u8>,
    /// Which naive client to compare with, in place of the scenario's; or `all` three at once
    #[arg(long, value_enum, value_name = "CLIENT")]
    naive: Option<Compared>,
    /// Switches every policy of the resilient client off: the check must fail
    #[arg(long)]
    unprotected: bool,
    /// Switches one part of the protection off, or several: the check of a scenario that shows it
    /// must fail
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    without: Vec<Part>,
    /// Starts everything, says where, and keeps it running under load until Ctrl-C: break it
    /// yourself
    #[arg(long, conflicts_with_all = ["check", "quick", "json", "report"])]
    pub(crate) hold: bool,
    /// Decides arrivals, users and which calls are hit
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Orders a second, sent to each order-service [default: the scenario's, 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    orders: Option<u32>,
    /// Reads a second, sent to each order-service [default: the scenario's, 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    reads: Option<u32>,
    /// Also write the results here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write a page of HTML here, with both twins' timelines
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write the spans of every order-service, gateway and user-service into this folder, a file
    /// each: OTLP in JSON
    #[arg(long, value_name = "DIR")]
    pub(crate) traces: Option<PathBuf>,
    /// Keep databases and logs here (otherwise they go to a temporary directory that is removed)
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

impl Options {
    pub(crate) fn scenario(&self) -> &'static Scenario {
        let named = self.positional.or(self.scenario);
        named.unwrap_or(if self.replicas.is_some() { &REPLICAS } else { &ISOLATION })
    }

    /// How many user-services there are.
    pub(crate) fn user_services(&self) -> usize {
        self.replicas.map_or(self.scenario().user_services, usize::from)
    }

    /// The naive client that is shown second by second.
    pub(crate) fn naive(&self, scenario: &Scenario) -> Naive {
        match self.naive {
            Some(Compared::NoTimeout) => Naive::NoTimeout,
            Some(Compared::Loop) => Naive::Loop,
            Some(Compared::ReqwestRetry) => Naive::ReqwestRetry,
            Some(Compared::All) | None => scenario.naive,
        }
    }

    /// The order-services of the run, and the naive ones' clients.
    pub(crate) fn cast(&self, scenario: &Scenario) -> Cast {
        let shown = self.naive(scenario);
        let mut naive = vec![shown];
        if self.naive == Some(Compared::All) {
            naive.extend(Naive::value_variants().iter().filter(|kind| **kind != shown));
        }
        Cast { naive }
    }

    /// What the scenario does without, and what the command line says.
    pub(crate) fn without(&self, scenario: &Scenario) -> Without {
        let mut parts = scenario.off.to_vec();
        parts.extend(self.without.iter().filter(|part| !scenario.off.contains(part)));
        Without { unprotected: self.unprotected, parts }
    }

    pub(crate) fn rates(&self, scenario: &Scenario) -> Rates {
        Rates {
            orders: self.orders.unwrap_or(scenario.orders),
            reads: self.reads.unwrap_or(scenario.reads),
            seed: self.seed,
        }
    }

    /// The parts that are off and whose absence this scenario isn't about.
    pub(crate) fn not_shown(&self) -> impl Iterator<Item = Part> {
        let shows = self.scenario().shows;
        self.without.iter().copied().filter(|part| !shows.iter().any(|parts| parts.contains(part)))
    }
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    Scenario::named(name).ok_or_else(|| {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn door(text: &str) -> Result<(Client, u16), String> {
    let (client, port) = text.split_once(':').ok_or("no port")?;
    Ok((Client::from_str(client, false)?, port.parse().map_err(|_| "no port")?))
}

/// What else there is to do: by hand, and by the demo's other processes.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Breaks the user-service of a held demo: cargo demo fault user-service delay 500ms 30%
    #[command(bin_name = "cargo demo fault", max_term_width = 80)]
    Fault(FaultArgs),
    /// Breaks the connections of a held demo: cargo demo toxic latency 200ms --upstream
    #[command(bin_name = "cargo demo toxic", max_term_width = 80)]
    Toxic(ToxicArgs),
    /// user-service behind the switchable faults
    #[command(hide = true)]
    ServeUser(ServeUser),
    /// order-service with one of the clients
    #[command(hide = true)]
    ServeOrder(ServeOrder),
    /// What stands in front of an order-service, with one of the clients
    #[command(hide = true)]
    ServeGateway(ServeGateway),
    /// Waits for the demo to end, however it ends, and leaves no process or file behind
    #[command(hide = true)]
    Watchdog {
        /// Removed at the end
        #[arg(long)]
        remove: Vec<PathBuf>,
    },
}

/// Each user-service listens several times: each order-service has a door of its own, so a call is
/// counted by where it came in and the clients need not say who they are; the demo sets faults
/// through the last.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeUser {
    /// An order-service and the port of its door
    #[arg(long, value_name = "CLIENT:PORT", value_parser = door)]
    pub(crate) door: Vec<(Client, u16)>,
    #[arg(long)]
    pub(crate) control_port: u16,
    #[arg(long, env = CONTROL_TOKEN, hide_env_values = true)]
    pub(crate) control_token: String,
    /// Whether it publishes what happens to users
    #[arg(long)]
    pub(crate) broker: bool,
    #[arg(long)]
    pub(crate) database: PathBuf,
    /// Where it writes what comes to the resilient order-service's door, if it does
    #[arg(long)]
    pub(crate) log: Option<PathBuf>,
    #[arg(long)]
    pub(crate) seed: u64,
    /// Lets faults be injected by whoever bears it. Not as an argument, which others could read.
    #[arg(long, env = FAULTS_TOKEN, hide_env_values = true)]
    pub(crate) faults_token: Option<String>,
    /// Where its spans go, if anywhere
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeOrder {
    #[arg(long)]
    pub(crate) client: Client,
    /// Which naive client
    #[arg(long, default_value = "no-timeout")]
    pub(crate) naive: Naive,
    #[arg(long)]
    pub(crate) unprotected: bool,
    #[arg(long, value_enum)]
    pub(crate) without: Vec<Part>,
    #[arg(long)]
    pub(crate) port: u16,
    #[arg(long)]
    pub(crate) database: PathBuf,
    /// One URL, or several with commas between
    #[arg(long)]
    pub(crate) user_service: Option<String>,
    /// Whether it follows user-service's events, too
    #[arg(long)]
    pub(crate) streams: bool,
    /// Whether it keeps a copy of users
    #[arg(long)]
    pub(crate) broker: bool,
    /// Where its client's admin page is, and what that asks for
    #[arg(long, requires = "admin_token")]
    pub(crate) admin_port: Option<u16>,
    #[arg(long, env = ADMIN_TOKEN, hide_env_values = true)]
    pub(crate) admin_token: Option<String>,
    /// Where it writes its calls' reports, if it does
    #[arg(long)]
    pub(crate) reports: Option<PathBuf>,
    /// Where its spans go, if anywhere
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeGateway {
    #[arg(long)]
    pub(crate) client: Client,
    #[arg(long)]
    pub(crate) unprotected: bool,
    #[arg(long, value_enum)]
    pub(crate) without: Vec<Part>,
    #[arg(long)]
    pub(crate) port: u16,
    #[arg(long)]
    pub(crate) order_service: String,
    /// Where its spans go, if anywhere
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
}

/// Which naive clients to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compared {
    /// reqwest as it comes: no timeout, one try
    NoTimeout,
    /// A timeout of a second, and three tries in a loop
    Loop,
    /// reqwest-middleware and reqwest-retry as their README has it
    ReqwestRetry,
    /// All three at once: one table of four at the end
    All,
}

/// The order-services of a run.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    /// The naive ones' clients; the first is shown second by second.
    pub(crate) naive: Vec<Naive>,
}

impl Cast {
    /// In the order of [`Client::ALL`].
    pub(crate) fn clients(&self) -> impl Iterator<Item = Client> + use<> {
        Client::ALL.into_iter().take(2 + self.naive.len())
    }

    /// Those that ask user-service.
    pub(crate) fn callers(&self) -> impl Iterator<Item = Client> + use<> {
        self.clients().filter(|client| *client != Client::Alone)
    }

    /// The client of a naive one.
    pub(crate) fn naive_client(&self, client: Client) -> Naive {
        let which = Client::NAIVE.iter().position(|naive| *naive == client).unwrap_or_default();
        self.naive.get(which).copied().unwrap_or(self.naive[0])
    }
}

/// The one difference between the order-services: how they find out whether a user exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// By one of the clients most services start with.
    Naive,
    /// By resilient-client with its standard policy.
    Resilient,
    /// They just know: the control, which shows what this machine does by itself meanwhile.
    Alone,
    /// By another naive client, with `--naive all`...
    NaiveToo,
    /// ...and by a third.
    NaiveThree,
}

impl Client {
    pub(crate) const ALL: [Self; 5] =
        [Self::Naive, Self::Resilient, Self::Alone, Self::NaiveToo, Self::NaiveThree];
    pub(crate) const NAIVE: [Self; 3] = [Self::Naive, Self::NaiveToo, Self::NaiveThree];
    /// Those that are shown second by second.
    pub(crate) const TWINS: [Self; 2] = [Self::Naive, Self::Resilient];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Resilient => "resilient",
            Self::Alone => "alone",
            Self::NaiveToo => "naive-too",
            Self::NaiveThree => "naive-three",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Options, clap::Error> {
        let words = line.split(' ').map(OsString::from);
        Cli::try_parse_from(Cli::typed(words)).map(|cli| cli.options)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn with_dashes_of_ones_own_or_without_it_is_the_same_command() {
        for line in ["demo --quick --replicas 3", "demo -- --quick --replicas 3"] {
            let options = typed(line).unwrap();
            assert_eq!((options.quick, options.scenario().name), (true, "replicas"), "{line}");
            assert_eq!(options.user_services(), 3);
        }
        let cli = Cli::try_parse_from(Cli::typed(["demo", "--"].map(OsString::from))).unwrap();
        assert!(cli.role.is_none());
    }

    #[test]
    fn a_scenario_may_be_named_either_way_and_only_once() {
        for line in ["demo hang", "demo --scenario hang", "demo -- hang --quick", "demo --quick hang"] {
            assert_eq!(typed(line).unwrap().scenario().name, "hang", "{line}");
        }
        assert_eq!(typed("demo").unwrap().scenario().name, "isolation");
        assert_eq!(typed("demo --replicas 5").unwrap().user_services(), 5);
        assert_eq!(typed("demo replicas").unwrap().user_services(), 3);
        for wrong in ["demo nonsense", "demo hang --scenario hang", "demo hang --replicas 3"] {
            typed(wrong).unwrap_err();
        }
    }

    #[test]
    fn all_naive_clients_are_the_scenarios_and_the_two_others() {
        for (line, naive, clients) in [
            ("demo hang", vec![Naive::NoTimeout], 3),
            ("demo hang --naive loop", vec![Naive::Loop], 3),
            ("demo streams --naive all", vec![Naive::Loop, Naive::NoTimeout, Naive::ReqwestRetry], 5),
        ] {
            let options = typed(line).unwrap();
            let cast = options.cast(options.scenario());
            assert_eq!((&cast.naive, cast.clients().count()), (&naive, clients), "{line}");
            assert_eq!(cast.callers().count(), clients - 1, "{line}");
            let asked_by = Client::NAIVE.into_iter().zip(naive);
            assert!(asked_by.into_iter().all(|(client, kind)| cast.naive_client(client) == kind), "{line}");
        }
    }

    #[test]
    fn what_a_scenario_does_without_adds_up_with_what_is_switched_off() {
        let options = typed("demo retry-storm --without budget,breaker").unwrap();
        let without = options.without(options.scenario());
        assert_eq!(without.parts, [Part::Breaker, Part::Budget]);
        assert_eq!(options.not_shown().collect::<Vec<_>>(), [Part::Breaker]);
    }
}
