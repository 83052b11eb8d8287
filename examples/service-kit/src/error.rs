//! Why a service could not start, or stopped.

use std::{error, fmt, io};

/// Why a service could not start, or stopped serving.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Config(String),
    Database(String, sqlx::Error),
    Unreachable(String, String),
    Listen(String, io::Error),
    Serve(io::Error),
}

impl Error {
    /// A setting that can't work; `reason` names it.
    pub fn config(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Config(reason.into()) }
    }

    /// The database at `location` could not be opened or brought up to date.
    pub fn database(location: String, source: sqlx::Error) -> Self {
        Self { kind: Kind::Database(location, source) }
    }

    /// The database at `location` was waited for in vain; `cause` is why the last attempt failed.
    pub fn unreachable(location: String, cause: String) -> Self {
        Self { kind: Kind::Unreachable(location, cause) }
    }

    /// An address that can't be listened on.
    pub fn listen(address: String, source: io::Error) -> Self {
        Self { kind: Kind::Listen(address, source) }
    }

    /// Whether a setting is to blame, so that trying again can't help.
    pub fn is_config(&self) -> bool {
        matches!(self.kind, Kind::Config(_))
    }

    /// Whether the database could not be opened or brought up to date.
    pub fn is_database(&self) -> bool {
        matches!(self.kind, Kind::Database(..) | Kind::Unreachable(..))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Config(reason) => write!(f, "configuration: {reason}"),
            Kind::Database(location, _) => write!(f, "the database at {location} can't be opened"),
            Kind::Unreachable(location, cause) => {
                write!(f, "the database at {location} can't be reached: {cause}")
            }
            Kind::Listen(address, _) => write!(f, "can't listen on {address}"),
            Kind::Serve(_) => f.write_str("the server stopped"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Config(_) | Kind::Unreachable(..) => None,
            Kind::Database(_, source) => Some(source),
            Kind::Listen(_, source) | Kind::Serve(source) => Some(source),
        }
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self { kind: Kind::Serve(source) }
    }
}

/// The error and what is behind it: each level's message says its own part only.
pub fn causes(error: &(dyn error::Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let own = cause.to_string();
        // Some repeat what is behind them.
        if !message.ends_with(&own) {
            message = format!("{message}: {own}");
        }
        source = cause.source();
    }
    message
}
