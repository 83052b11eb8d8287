//! How much one client may ask of the service. Reading flags and variables is clap's; what makes sense is said here.

use std::time::Duration;

use clap::Args;

use crate::error::Error;

const MAX_BODY_BYTES: usize = 64 * 1024;
const REQUEST_TIMEOUT_MS: u64 = 10_000;
const DRAIN_TIMEOUT_MS: u64 = 10_000;
const DATABASE_CONNECTIONS: u32 = 8;

/// The bounds of the service. Each is a flag and an environment variable; zero is refused.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest request body in bytes; a larger one is answered 413
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = MAX_BODY_BYTES)]
    pub max_body_bytes: usize,
    /// How long one request may take in milliseconds, reading its body included; then it is answered 503
    #[arg(long, env = "REQUEST_TIMEOUT_MS", default_value_t = REQUEST_TIMEOUT_MS)]
    pub request_timeout_ms: u64,
    /// How long open requests may take to finish, in milliseconds, once the service was told to stop
    #[arg(long, env = "DRAIN_TIMEOUT_MS", default_value_t = DRAIN_TIMEOUT_MS)]
    pub drain_timeout_ms: u64,
    /// Most database connections held for reading (`SQLite` adds one that writes)
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = DATABASE_CONNECTIONS)]
    pub database_connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: MAX_BODY_BYTES,
            request_timeout_ms: REQUEST_TIMEOUT_MS,
            drain_timeout_ms: DRAIN_TIMEOUT_MS,
            database_connections: DATABASE_CONNECTIONS,
        }
    }
}

impl Limits {
    /// Refuses what can't work, by name.
    pub fn validate(&self) -> Result<(), Error> {
        let zero = [
            ("max-body-bytes", self.max_body_bytes == 0),
            ("request-timeout-ms", self.request_timeout_ms == 0),
            ("drain-timeout-ms", self.drain_timeout_ms == 0),
            ("database-connections", self.database_connections == 0),
        ];
        match zero.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(Error::config(format!("{name} must be at least 1"))),
            None => Ok(()),
        }
    }

    /// `request_timeout_ms` as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// `drain_timeout_ms` as a duration.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}
