//! How much one client may ask of the service. Reading flags and variables is clap's; what makes
//! sense is said here.

use std::time::Duration;

use clap::Args;

use crate::{error::Error, server::Bounds};

const MAX_BODY_BYTES: usize = 64 * 1024;
const REQUEST_TIMEOUT_MS: u64 = 10_000;
const DRAIN_TIMEOUT_MS: u64 = 10_000;
const LAME_DUCK_MS: u64 = 500;
const DATABASE_CONNECTIONS: u32 = 8;
const DATABASE_WAIT_MS: u64 = 30_000;
const MAX_CONNECTIONS: u32 = 1024;
const MAX_CONNECTIONS_PER_PEER: u32 = 512;
const IDLE_TIMEOUT_MS: u64 = 30_000;
const HEAD_TIMEOUT_MS: u64 = 5_000;
const WRITE_TIMEOUT_MS: u64 = 10_000;

/// A longer time than this is a slip of the pen.
const LONGEST_MS: u64 = 60 * 60 * 1000;

/// The bounds of the service. Each is a flag and an environment variable; what can't work is
/// refused by name.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest request body in bytes; a larger one is answered 413
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = MAX_BODY_BYTES)]
    pub max_body_bytes: usize,
    /// How long one request may take in milliseconds, reading its body included; then it is
    /// answered 503
    #[arg(long, env = "REQUEST_TIMEOUT_MS", default_value_t = REQUEST_TIMEOUT_MS)]
    pub request_timeout_ms: u64,
    /// How long the service goes on serving once it was told to stop, in milliseconds: not ready
    /// any more, every answer ending its connection
    #[arg(long, env = "LAME_DUCK_MS", default_value_t = LAME_DUCK_MS)]
    pub lame_duck_ms: u64,
    /// How long open requests may take to finish after that, in milliseconds
    #[arg(long, env = "DRAIN_TIMEOUT_MS", default_value_t = DRAIN_TIMEOUT_MS)]
    pub drain_timeout_ms: u64,
    /// Most database connections held for reading (`SQLite` adds one that writes), at most 512
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = DATABASE_CONNECTIONS)]
    pub database_connections: u32,
    /// How long a start waits for a database that can't be reached yet, in milliseconds
    #[arg(long, env = "DATABASE_WAIT_MS", default_value_t = DATABASE_WAIT_MS)]
    pub database_wait_ms: u64,
    /// Most client connections
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = MAX_CONNECTIONS)]
    pub max_connections: u32,
    /// Most client connections from one peer: an IPv4 address, or 64 bits of an IPv6 address
    #[arg(long, env = "MAX_CONNECTIONS_PER_PEER", default_value_t = MAX_CONNECTIONS_PER_PEER)]
    pub max_connections_per_peer: u32,
    /// How long a connection is kept without a request, in milliseconds
    #[arg(long, env = "IDLE_TIMEOUT_MS", default_value_t = IDLE_TIMEOUT_MS)]
    pub idle_timeout_ms: u64,
    /// How long a client may take over the head of a request, in milliseconds
    #[arg(long, env = "HEAD_TIMEOUT_MS", default_value_t = HEAD_TIMEOUT_MS)]
    pub head_timeout_ms: u64,
    /// How long a client may pause in reading an answer, in milliseconds
    #[arg(long, env = "WRITE_TIMEOUT_MS", default_value_t = WRITE_TIMEOUT_MS)]
    pub write_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: MAX_BODY_BYTES,
            request_timeout_ms: REQUEST_TIMEOUT_MS,
            lame_duck_ms: LAME_DUCK_MS,
            drain_timeout_ms: DRAIN_TIMEOUT_MS,
            database_connections: DATABASE_CONNECTIONS,
            database_wait_ms: DATABASE_WAIT_MS,
            max_connections: MAX_CONNECTIONS,
            max_connections_per_peer: MAX_CONNECTIONS_PER_PEER,
            idle_timeout_ms: IDLE_TIMEOUT_MS,
            head_timeout_ms: HEAD_TIMEOUT_MS,
            write_timeout_ms: WRITE_TIMEOUT_MS,
        }
    }
}

impl Limits {
    /// Refuses what can't work, by name.
    pub fn validate(&self) -> Result<(), Error> {
        for (name, value, least, most) in [
            ("max-body-bytes", self.max_body_bytes as u64, 1, 1 << 30),
            ("request-timeout-ms", self.request_timeout_ms, 1, LONGEST_MS),
            ("lame-duck-ms", self.lame_duck_ms, 0, LONGEST_MS),
            ("drain-timeout-ms", self.drain_timeout_ms, 1, LONGEST_MS),
            // Far more than any of the two databases serves; a pool sets them all aside at once.
            ("database-connections", u64::from(self.database_connections), 1, 512),
            ("database-wait-ms", self.database_wait_ms, 0, LONGEST_MS),
            ("max-connections", u64::from(self.max_connections), 1, 1 << 20),
            ("max-connections-per-peer", u64::from(self.max_connections_per_peer), 1, 1 << 20),
            ("idle-timeout-ms", self.idle_timeout_ms, 1, LONGEST_MS),
            ("head-timeout-ms", self.head_timeout_ms, 1, LONGEST_MS),
            ("write-timeout-ms", self.write_timeout_ms, 1, LONGEST_MS),
        ] {
            if !(least..=most).contains(&value) {
                let reason = format!("{name} must be from {least} to {most}, and is {value}");
                return Err(Error::config(reason));
            }
        }
        Ok(())
    }

    /// `request_timeout_ms` as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// `lame_duck_ms` as a duration.
    pub fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck_ms)
    }

    /// `drain_timeout_ms` as a duration.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// `database_wait_ms` as a duration.
    pub fn database_wait(&self) -> Duration {
        Duration::from_millis(self.database_wait_ms)
    }

    /// What a server's connections may take.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            connections: self.max_connections as usize,
            connections_per_peer: self.max_connections_per_peer as usize,
            idle: Duration::from_millis(self.idle_timeout_ms),
            head: Duration::from_millis(self.head_timeout_ms),
            write: Duration::from_millis(self.write_timeout_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        Limits::default().validate().unwrap();
        for (adjust, name) in [
            ((|l| l.max_body_bytes = 0) as fn(&mut Limits), "max-body-bytes"),
            (|l| l.max_body_bytes = usize::MAX, "max-body-bytes"),
            (|l| l.request_timeout_ms = u64::MAX, "request-timeout-ms"),
            (|l| l.drain_timeout_ms = 0, "drain-timeout-ms"),
            (|l| l.database_connections = 0, "database-connections"),
            (|l| l.database_connections = u32::MAX, "database-connections"),
            (|l| l.max_connections = 0, "max-connections"),
            (|l| l.max_connections_per_peer = 0, "max-connections-per-peer"),
        ] {
            let mut limits = Limits::default();
            adjust(&mut limits);
            let error = limits.validate().unwrap_err();
            assert!(error.is_config() && error.to_string().contains(name), "{name}: {error}");
        }
    }
}
