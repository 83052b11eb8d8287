//! Overload limit.

mod law;
mod limit;
mod line;
mod policy;
mod slot;
#[cfg(test)]
mod tests;

use std::fmt;

pub use limit::{Change, OverloadLimit};
pub(crate) use line::Line;
pub use policy::{OverloadPolicy, Rules};
pub(crate) use slot::UNIT_BITS;

/// As many attempts are in flight as the upstream can answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// How many of them there may be, of this class.
    pub limit: u32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attempts in flight are all that can be answered in time", self.limit)
    }
}

impl std::error::Error for Full {}

/// How one attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// From sending it to its end, in nanoseconds: to its answer, its failure, or the end of its time.
    pub rtt_nanos: u64,
    /// The time it had, in nanoseconds: its timeout, or what its call had left.
    pub allowed_nanos: u64,
}

/// What an [`OverloadLimit`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Attempts that may be in flight; `None` while no limit is in force.
    pub limit: Option<u32>,
    /// Attempts in flight: sent, and neither answered nor given up. Bodies that are still coming aren't counted.
    pub in_flight: u32,
    /// The mean of the last round trips, in nanoseconds; `None` before the first.
    pub rtt_nanos: Option<u64>,
    /// The usual round trip, in nanoseconds.
    pub usual_rtt_nanos: Option<u64>,
}
