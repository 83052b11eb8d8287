//! What the fallback is asked to do.

use std::time::Duration;

use http::HeaderName;

use crate::invalid::{Invalid, LONGEST};

/// The fewest bytes an entry may be limited to: below it not even a head fits.
const SMALLEST_ENTRY: usize = 1024;
/// The most entries: a slot is an index of 32 bits, and this is more than memory holds.
const MOST_ENTRIES: usize = 1 << 24;

/// How many answers are kept for when the server fails, and for how long they may be given. See the
/// [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct StaleIfError {
    pub(crate) max_entries: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_entry_bytes: usize,
    pub(crate) default_window: Option<Duration>,
    pub(crate) ignored: Vec<HeaderName>,
    pub(crate) hook_names_nobody: bool,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(super) max_entries: usize,
    pub(super) max_bytes: usize,
    pub(super) max_entry_bytes: usize,
    pub(super) default_window: Option<u64>,
    pub(super) ignored: Vec<HeaderName>,
}

impl Default for StaleIfError {
    fn default() -> Self {
        Self::new()
    }
}

impl StaleIfError {
    /// 1,000 answers, 16 MiB in all, 64 KiB each, given only as long as the server or the request
    /// allows.
    pub fn new() -> Self {
        Self {
            max_entries: 1000,
            max_bytes: 16 * 1024 * 1024,
            max_entry_bytes: 64 * 1024,
            default_window: None,
            ignored: Vec::new(),
            hook_names_nobody: false,
        }
    }

    /// The most answers kept. Default 1,000.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// The most bytes kept: bodies, heads, what they are found by, and what it takes to keep them.
    /// Default 16 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The most bytes one answer may take, counted the same way. A larger one isn't kept. Default
    /// 64 KiB: many answers between services are smaller, and it is also the most that each
    /// response being read holds a copy of.
    pub fn max_entry_bytes(mut self, bytes: usize) -> Self {
        self.max_entry_bytes = bytes;
        self
    }

    /// How long past its freshness an answer may be given when neither the request nor the response
    /// says `stale-if-error`; in whole seconds, rounded down. Default: not at all. An answer whose
    /// server forbids it with `must-revalidate`, `no-cache` or `no-store` isn't given whatever this
    /// says.
    pub fn default_window(mut self, window: Duration) -> Self {
        self.default_window = Some(window);
        self
    }

    /// A request header that differs from call to call and says nothing of who is asking: requests
    /// that differ in nothing else may get each other's answers. Can be given several times. See
    /// [`IGNORED`](super::IGNORED) for those ignored already.
    pub fn ignore_header(mut self, name: HeaderName) -> Self {
        self.ignored.push(name);
        self
    }

    /// Promises that the headers set by [`on_attempt`](crate::ClientBuilder::on_attempt) are the
    /// same for everybody: a token of the service itself, trace context. With a hook that sets a
    /// user's token, one user could get another's answer.
    pub fn hook_names_nobody(mut self) -> Self {
        self.hook_names_nobody = true;
        self
    }

    /// Checks every number. `hooked` says whether the client has an attempt hook.
    pub(crate) fn compile(&self, hooked: bool) -> Result<Limits, Invalid> {
        let Self { max_entries, max_bytes, max_entry_bytes, default_window, .. } = *self;
        if !(1..=MOST_ENTRIES).contains(&max_entries) {
            let problem = format!("must be between 1 and {MOST_ENTRIES}, got {max_entries}");
            return Err(Invalid::new("stale_if_error.max_entries", problem));
        }
        if max_entry_bytes < SMALLEST_ENTRY {
            let problem = format!("must be at least {SMALLEST_ENTRY}, got {max_entry_bytes}");
            return Err(Invalid::new("stale_if_error.max_entry_bytes", problem));
        }
        if max_bytes < max_entry_bytes {
            let problem = format!("must be at least max_entry_bytes ({max_entry_bytes}), got {max_bytes}");
            return Err(Invalid::new("stale_if_error.max_bytes", problem));
        }
        if let Some(window) = default_window.filter(|window| window.as_secs() == 0 || *window > LONGEST) {
            let problem = format!("must be between one second and ten years (315360000s), got {window:?}");
            return Err(Invalid::new("stale_if_error.default_window", problem));
        }
        if hooked && !self.hook_names_nobody {
            let problem = "can't know who is asking when on_attempt sets headers; promise hook_names_nobody, or do without";
            return Err(Invalid::new("stale_if_error", problem));
        }
        Ok(Limits {
            max_entries,
            max_bytes,
            max_entry_bytes,
            default_window: default_window.map(|window| window.as_secs()),
            ignored: self.ignored.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_number_is_named() {
        let good = StaleIfError::new;
        for (config, hooked, setting) in [
            (good().max_entries(0), false, "stale_if_error.max_entries"),
            (good().max_entries(usize::MAX), false, "stale_if_error.max_entries"),
            (good().max_entry_bytes(1023), false, "stale_if_error.max_entry_bytes"),
            (good().max_bytes(64 * 1024 - 1), false, "stale_if_error.max_bytes"),
            (good().default_window(Duration::from_millis(999)), false, "stale_if_error.default_window"),
            (good().default_window(Duration::MAX), false, "stale_if_error.default_window"),
            (good(), true, "stale_if_error"),
        ] {
            assert_eq!(config.compile(hooked).unwrap_err().setting(), setting);
        }
        assert!(good().compile(false).is_ok());
        assert!(good().hook_names_nobody().compile(true).is_ok());
    }
}
