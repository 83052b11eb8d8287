//! What user-service can be told, by flag or by environment variable.

use std::fmt;

use clap::Parser;

use crate::Error;
use service_kit::{
    database::{Settings, Synchronous},
    faults::FaultOptions,
    limits::Limits,
};

const HOST: &str = "127.0.0.1";
const PORT: u16 = 3000;
const EVENTS_HEARTBEAT_MS: u64 = 15_000;
const DATABASE_URL: &str = "sqlite://user-service.db?mode=rwc";

/// Keeps users. order-service asks it whether a user exists.
#[derive(Clone, Parser)]
#[command(name = "user-service", version)]
pub struct Config {
    /// Address or name to listen on
    #[arg(long, env = "HOST", default_value = HOST)]
    pub host: String,
    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = PORT)]
    pub port: u16,
    /// Port to answer `/healthz` and `/readyz` on, also while the service starts or is full; 100
    /// after the other by default
    #[arg(long, env = "HEALTH_PORT")]
    pub health_port: Option<u16>,
    /// Where the data is: a `sqlite:` or `postgres:` URL
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, default_value = DATABASE_URL)]
    pub database_url: String,
    /// What an acknowledged write survives, with `SQLite`
    #[arg(long, env = "SQLITE_SYNCHRONOUS", value_enum, default_value_t)]
    pub sqlite_synchronous: Synchronous,
    /// Where `RabbitMQ` is, to publish there what happens to users, such as
    /// `amqp://user:password@127.0.0.1:5672/%2f`; needs the feature `amqp`
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<String>,
    /// How often a stream of events shows that it is alive, in milliseconds, while nothing changes
    #[arg(long, env = "EVENTS_HEARTBEAT_MS", default_value_t = EVENTS_HEARTBEAT_MS, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub events_heartbeat_ms: u64,
    /// How much one client may ask for.
    #[command(flatten)]
    pub limits: Limits,
    /// Whether faults may be injected.
    #[command(flatten)]
    pub faults: FaultOptions,
}

impl Default for Config {
    /// What the binary runs with when it is told nothing.
    fn default() -> Self {
        Self {
            host: HOST.into(),
            port: PORT,
            health_port: None,
            database_url: DATABASE_URL.into(),
            sqlite_synchronous: Synchronous::default(),
            amqp_url: None,
            events_heartbeat_ms: EVENTS_HEARTBEAT_MS,
            limits: Limits::default(),
            faults: FaultOptions::default(),
        }
    }
}

/// Leaves out the URLs, which may hold passwords.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("health_port", &self.health_port)
            .field("sqlite_synchronous", &self.sqlite_synchronous)
            .field("amqp", &self.amqp_url.is_some())
            .field("limits", &self.limits)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Without the feature nobody would publish what is asked for.
    pub(crate) fn check_amqp(&self) -> Result<(), Error> {
        if cfg!(feature = "amqp") || self.amqp_url.is_none() {
            return Ok(());
        }
        Err(Error::config("amqp-url needs a user-service that is built with --features amqp"))
    }

    pub(crate) fn database(&self) -> Settings<'_> {
        Settings {
            url: &self.database_url,
            connections: self.limits.database_connections,
            synchronous: self.sqlite_synchronous,
            wait: self.limits.database_wait(),
        }
    }
}
