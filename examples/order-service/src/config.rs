//! What order-service can be told, by flag or by environment variable.

use std::{fmt, time::Duration};

use clap::Parser;

use crate::{Error, admin::AdminOptions};
use service_kit::{
    database::{Settings, Synchronous},
    faults::FaultOptions,
    limits::Limits,
};

const HOST: &str = "127.0.0.1";
const PORT: u16 = 3001;
const DATABASE_URL: &str = "sqlite://order-service.db?mode=rwc";
const USER_SERVICE_URL: &str = "http://127.0.0.1:3000";
const USER_TIMEOUT_MS: u64 = 1_000;
const LOOKUP_LIMIT_MS: u64 = 5_000;

/// Takes orders, and keeps taking them while user-service is down.
#[derive(Clone, Parser)]
#[command(name = "order-service", version)]
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
    /// Where user-service is: one URL, or the origins of several replicas, such as
    /// `http://10.0.0.1:3000,http://10.0.0.2:3000`
    #[arg(long, env = "USER_SERVICE_URL", hide_env_values = true, default_value = USER_SERVICE_URL)]
    pub user_service_url: String,
    /// How long resilient-client may take to ask user-service, in milliseconds, retries included;
    /// then the order is stored as pending
    #[arg(long, env = "USER_TIMEOUT_MS", default_value_t = USER_TIMEOUT_MS)]
    pub user_timeout_ms: u64,
    /// How long any client may take to ask user-service, in milliseconds: the safety net under one
    /// without a timeout
    #[arg(long, env = "LOOKUP_LIMIT_MS", default_value_t = LOOKUP_LIMIT_MS)]
    pub lookup_limit_ms: u64,
    /// Where `RabbitMQ` is, to keep a copy of users that follows their events, such as
    /// `amqp://user:password@127.0.0.1:5672/%2f`; needs the feature `amqp`
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<String>,
    /// How much one client may ask for.
    #[command(flatten)]
    pub limits: Limits,
    /// Whether faults may be injected.
    #[command(flatten)]
    pub faults: FaultOptions,
    /// Whether there is an admin router.
    #[command(flatten)]
    pub admin: AdminOptions,
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
            user_service_url: USER_SERVICE_URL.into(),
            user_timeout_ms: USER_TIMEOUT_MS,
            lookup_limit_ms: LOOKUP_LIMIT_MS,
            amqp_url: None,
            limits: Limits::default(),
            faults: FaultOptions::default(),
            admin: AdminOptions::default(),
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
            .field("user_timeout_ms", &self.user_timeout_ms)
            .field("lookup_limit_ms", &self.lookup_limit_ms)
            .field("amqp", &self.amqp_url.is_some())
            .field("limits", &self.limits)
            .field("faults", &self.faults)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

impl Config {
    pub(crate) fn database(&self) -> Settings<'_> {
        Settings {
            url: &self.database_url,
            connections: self.limits.database_connections,
            synchronous: self.sqlite_synchronous,
            wait: self.limits.database_wait(),
        }
    }

    /// Refuses what can't work, by name.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.limits.validate()?;
        if cfg!(not(feature = "amqp")) && self.amqp_url.is_some() {
            // Nobody would keep the copy that is asked for.
            return Err(Error::config("amqp-url needs an order-service that is built with --features amqp"));
        }
        let [user, lookup, request] =
            [self.user_timeout_ms, self.lookup_limit_ms, self.limits.request_timeout_ms];
        if user == 0 {
            return Err(Error::config("user-timeout-ms must be at least 1"));
        }
        if user > lookup {
            return Err(Error::config(format!("user-timeout-ms {user} is over lookup-limit-ms {lookup}")));
        }
        if lookup >= request {
            // The client would be told 503 about an order that is about to be stored.
            return Err(Error::config(format!(
                "lookup-limit-ms {lookup} is not under request-timeout-ms {request}"
            )));
        }
        Ok(())
    }

    pub(crate) fn lookup_limit(&self) -> Duration {
        Duration::from_millis(self.lookup_limit_ms)
    }
}
