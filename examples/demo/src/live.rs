//! A line under the table that is written over every second: how far the run is, and how the twins stand in all.
//!
//! Only on a terminal that can and is wide enough; everywhere else there is the table alone, as in a file.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crate::Problem;
use crate::breaker_log::Breaker;

/// What the line needs; a narrower terminal would wrap it, and then it couldn't be written over.
const COLUMNS: u16 = 80;
/// Of the bar.
const STEPS: u64 = 10;
/// To the start of the line, and all of it erased.
const ERASE: &str = "\r\x1b[2K";

/// What the line says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) elapsed: Duration,
    /// The longest it can take; zero for no end.
    pub(crate) limit: Duration,
    /// Of the naive twin, and of the resilient one.
    pub(crate) failed: [u64; 2],
    pub(crate) waiting: [usize; 2],
    pub(crate) later: u64,
    /// `None` with several user-services, which have one each.
    pub(crate) breaker: Option<Breaker>,
}

/// The line, if there is one.
#[derive(Debug)]
pub(crate) struct Live {
    wanted: bool,
    shown: bool,
}

impl Live {
    pub(crate) fn for_stdout() -> Self {
        let term = std::env::var_os("TERM");
        let wanted = wanted(std::io::stdout().is_terminal(), term.as_deref(), columns());
        Self { wanted, shown: false }
    }

    /// Prints a line of the table, and under it how things stand.
    pub(crate) fn say(&mut self, line: &str, standing: &Standing) -> Result<(), Problem> {
        let mut out = std::io::stdout().lock();
        if self.wanted {
            write!(out, "{ERASE}{line}\n{}", text(standing))?;
            self.shown = true;
        } else {
            writeln!(out, "{line}")?;
        }
        Ok(out.flush()?)
    }
}

/// Whatever is said next finds an empty line.
impl Drop for Live {
    fn drop(&mut self) {
        if self.shown {
            let mut out = std::io::stdout().lock();
            // Nobody may be there to see it any more.
            let _ = out.write_all(ERASE.as_bytes()).and_then(|()| out.flush());
        }
    }
}

fn wanted(is_terminal: bool, term: Option<&OsStr>, columns: Option<u16>) -> bool {
    is_terminal
        && term.is_some_and(|term| !term.is_empty() && term != "dumb")
        && columns.is_some_and(|columns| columns >= COLUMNS)
}

#[cfg(unix)]
fn columns() -> Option<u16> {
    rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| size.ws_col)
}

#[cfg(not(unix))]
fn columns() -> Option<u16> {
    None
}

fn text(standing: &Standing) -> String {
    let Standing { elapsed, limit, failed, waiting, later, breaker } = standing;
    let bar = if limit.is_zero() {
        String::new()
    } else {
        let done = (elapsed.as_secs() * STEPS / limit.as_secs().max(1)).min(STEPS) as usize;
        format!("[{}{}] ", "#".repeat(done), ".".repeat(STEPS as usize - done))
    };
    let breaker = breaker.map_or(String::new(), |breaker| format!(", {}", breaker.name()));
    let mut text = format!(
        "{bar}naive: {} failed, {} wait  ours: {} failed, {later} later{breaker}",
        failed[0], waiting[0], failed[1]
    );
    // The last column stays free: some terminals wrap when it is written.
    text.truncate(usize::from(COLUMNS) - 1);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_terminals_that_can_and_are_wide_enough() {
        let of = |text: &'static str| Some(OsStr::new(text));
        assert!(wanted(true, of("xterm-256color"), Some(80)));
        for (is_terminal, term, columns) in [
            (false, of("xterm"), Some(200)),
            (true, of("dumb"), Some(200)),
            (true, None, Some(200)),
            (true, of("xterm"), Some(79)),
            (true, of("xterm"), None),
        ] {
            assert!(!wanted(is_terminal, term, columns), "{is_terminal} {term:?} {columns:?}");
        }
    }

    #[test]
    fn it_never_wraps_and_the_bar_never_overflows() {
        let second = Duration::from_secs;
        for (elapsed, limit, done) in [(0, 46, 0), (23, 46, 5), (46, 46, 10), (60, 46, 10)] {
            let standing = Standing {
                elapsed: second(elapsed),
                limit: second(limit),
                failed: [999_999, 999_999],
                waiting: [9999, 9999],
                later: 999_999,
                breaker: Some(Breaker::HalfOpen),
            };
            let line = text(&standing);
            assert!(line.len() < usize::from(COLUMNS), "{line}");
            assert_eq!(line.matches('#').count(), done, "{line}");
        }
        assert!(text(&Standing::default()).starts_with("naive"), "no bar without an end");
    }
}
