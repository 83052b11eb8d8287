//! Logs go to stderr, one event a line; `RUST_LOG` chooses which. All of it is tracing-subscriber's; this is the choice.

use std::{env, ffi::OsStr, io, io::IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Compact,
    /// For machines.
    Json,
}

/// Installs the process-wide subscriber; `info` and above unless `RUST_LOG` says otherwise.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours(
            io::stderr().is_terminal(),
            env::var_os("NO_COLOR").as_deref(),
            env::var_os("TERM").as_deref(),
        ));
    match format {
        LogFormat::Compact => builder.compact().init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Whether log lines are coloured: on a terminal that can, unless somebody asked for none (<https://no-color.org>).
fn colours(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        let of = |text: &'static str| Some(OsStr::new(text));
        assert!(colours(true, None, None) && colours(true, of(""), of("xterm-256color")));
        assert!(!colours(false, None, of("xterm")));
        assert!(!colours(true, of("1"), of("xterm")) && !colours(true, None, of("dumb")));
    }
}
