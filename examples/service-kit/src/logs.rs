//! Logs go to stderr, one event a line; `RUST_LOG` chooses which. All of it is
//! tracing-subscriber's; this is the choice.
//!
//! `RUST_LOG` is a list of targets and levels, such as `info,resilient_client=debug`. Filters by
//! span or field aren't understood: they would bring in a regex engine, ten seconds of compiling.

use std::{env, ffi::OsStr, io, io::IsTerminal as _};

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt::layer, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::traces::Traces;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Compact,
    /// For machines.
    Json,
}

/// Installs the process-wide subscriber; `info` and above unless `RUST_LOG` says otherwise. Spans
/// go to `traces`, too.
pub fn init(format: LogFormat, traces: &Traces) {
    let filter = filter(env::var("RUST_LOG").ok().as_deref());
    let colours = colours(
        io::stderr().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
        env::var_os("TERM").as_deref(),
    );
    let lines = layer().with_writer(io::stderr).with_ansi(colours);
    let lines = match format {
        LogFormat::Compact => lines.compact().boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces.layer()).init();
}

/// What `RUST_LOG` says, or when it is missing, empty or no list of targets and levels: what
/// matters.
fn filter(asked: Option<&str>) -> Targets {
    let asked = asked.filter(|asked| !asked.trim().is_empty()).and_then(|asked| asked.parse().ok());
    asked.unwrap_or_else(|| Targets::new().with_default(Level::INFO).with_target("sqlx", Level::WARN))
}

/// Whether log lines are coloured: on a terminal that can, unless somebody asked for none
/// (<https://no-color.org>).
fn colours(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_chooses_and_what_it_cannot_say_is_passed_over() {
        let debug = |asked: Option<&str>, target: &str| filter(asked).would_enable(target, &Level::DEBUG);
        assert!(debug(Some("info,resilient_client=debug"), "resilient_client::call"));
        assert!(!debug(Some("info,resilient_client=debug"), "order_service"));
        for asked in [None, Some(""), Some("order_service=loud")] {
            assert!(!debug(asked, "order_service"), "{asked:?}");
            let usual = filter(asked);
            assert!(usual.would_enable("order_service", &Level::INFO), "{asked:?}");
            assert!(!usual.would_enable("sqlx::query", &Level::INFO), "{asked:?}");
        }
    }

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        let of = |text: &'static str| Some(OsStr::new(text));
        assert!(colours(true, None, None) && colours(true, of(""), of("xterm-256color")));
        assert!(!colours(false, None, of("xterm")));
        assert!(!colours(true, of("1"), of("xterm")) && !colours(true, None, of("dumb")));
    }
}
