//! What faults may cost, whoever asks for them.

use std::time::Duration;

use crate::invalid::{Invalid, count, positive};

/// The longest that anything may be made to wait.
const LONGEST: Duration = Duration::from_secs(3600);
/// The largest that anything may be made.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The bounds of what faults may cost. They are set in code or by file, and can't be changed at run
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_field_names, reason = "as they are called in files")]
#[must_use]
pub struct Limits {
    pub(super) max_active: u32,
    pub(super) max_delay: Duration,
    pub(super) max_bytes: u64,
}

impl Limits {
    /// 100 faults at a time, none longer than 30 s, no answer of more than 64 KiB.
    pub const fn standard() -> Self {
        Self { max_active: 100, max_delay: Duration::from_secs(30), max_bytes: 64 * 1024 }
    }

    /// The most faults in force at one time; requests beyond it are served as if there were none. 1
    /// to 100,000. Default 100.
    pub const fn max_active(mut self, faults: u32) -> Self {
        self.max_active = faults;
        self
    }

    /// The longest a delay, a hang or a trickle may take, at most an hour. Default 30 s.
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The most bytes, headers included, of an answer that a rule makes, at most 16 MiB. Default 64
    /// KiB.
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        count("max_active", self.max_active, 1, 100_000)?;
        positive("max_delay", self.max_delay)?;
        if self.max_delay > LONGEST {
            let problem = format!("must be at most {LONGEST:?}, got {:?}", self.max_delay);
            return Err(Invalid::new("max_delay", problem));
        }
        if self.max_bytes > LARGEST {
            return Err(Invalid::new(
                "max_bytes",
                format!("must be at most {LARGEST}, got {}", self.max_bytes),
            ));
        }
        Ok(())
    }

    pub(super) fn allows_wait(&self, setting: &'static str, wait: Duration) -> Result<(), Invalid> {
        if wait <= self.max_delay {
            return Ok(());
        }
        let problem = format!("must be at most max_delay ({:?}), got {wait:?}", self.max_delay);
        Err(Invalid::new(setting, problem))
    }

    pub(super) fn has_room_for(&self, setting: &'static str, bytes: u64) -> Result<(), Invalid> {
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let problem = format!("must be at most max_bytes ({}) with its headers, got {bytes}", self.max_bytes);
        Err(Invalid::new(setting, problem))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::standard()
    }
}
