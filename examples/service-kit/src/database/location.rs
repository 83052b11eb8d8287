//! Where a database is, fit for logs: without user and password.

use std::{fmt, path::PathBuf, str::FromStr as _};

use sqlx::sqlite::SqliteConnectOptions;

use crate::error::Error;

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In this process.
    Memory,
    /// In a file.
    File(PathBuf),
    /// At a server: `host:port/database`, or the path of its socket.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "no URL leads here then"))]
    Server(String),
}

impl Location {
    /// Refuses a URL that can't work. It may hold a password, so it is never repeated.
    pub(super) fn of(url: &str) -> Result<Self, Error> {
        if let Some(file) = url.strip_prefix("sqlite:") {
            let options = SqliteConnectOptions::from_str(url).map_err(|_| not_valid())?;
            if file.contains(":memory:") || file.contains("mode=memory") {
                return Ok(Self::Memory);
            }
            let path = options.get_filename();
            if path.as_os_str().is_empty() {
                // SQLite would make a temporary database for each connection.
                let example = "such as sqlite://data.db?mode=rwc, or be sqlite::memory:";
                return Err(Error::config(format!("database-url must name a file, {example}")));
            }
            return Ok(Self::File(path.to_owned()));
        }
        if !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
            return Err(Error::config("database-url must begin with sqlite: or postgres:"));
        }
        server(url)
    }
}

#[cfg(feature = "postgres")]
fn server(url: &str) -> Result<Location, Error> {
    let options = sqlx::postgres::PgConnectOptions::from_str(url).map_err(|_| not_valid())?;
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let database = options.get_database().unwrap_or_default();
    Ok(Location::Server(format!("{host}:{}/{database}", options.get_port())))
}

#[cfg(not(feature = "postgres"))]
fn server(_url: &str) -> Result<Location, Error> {
    Err(Error::config(
        "database-url is of Postgres, which this binary was built without (feature \"postgres\")",
    ))
}

pub(super) fn not_valid() -> Error {
    Error::config("database-url is not valid")
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("in memory"),
            Self::File(path) => path.display().fmt(f),
            Self::Server(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "postgres")]
    fn a_location_names_the_place_and_no_secret() {
        for (url, expected) in [
            ("sqlite::memory:", "in memory"),
            ("sqlite://x?mode=memory", "in memory"),
            ("sqlite://a%20b/c.db?mode=rwc", "a b/c.db"),
            ("sqlite:///var/lib/c.db", "/var/lib/c.db"),
            ("postgres://u:secret@db.example:6000/orders?sslmode=disable", "db.example:6000/orders"),
            ("postgresql://u:secret@[::1]/orders", "[::1]:5432/orders"),
        ] {
            assert_eq!(Location::of(url).unwrap().to_string(), expected, "{url}");
        }
    }

    #[test]
    #[cfg(not(feature = "postgres"))]
    fn without_postgres_its_urls_are_refused_by_name_and_not_repeated() {
        let error = Location::of("postgres://u:secret@db/orders").unwrap_err();
        assert!(error.is_config() && error.to_string().contains("Postgres"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn sqlite_without_a_path_is_refused() {
        for url in ["sqlite:", "sqlite://", "sqlite:?mode=rwc", "sqlite://?mode=rwc&cache=shared"] {
            let error = Location::of(url).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("must name a file"), "{url}: {error}");
        }
    }
}
