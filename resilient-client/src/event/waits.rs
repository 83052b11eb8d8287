//! What an attempt waits for before it is let in.

use std::fmt;

/// What an attempt waits for before it is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitsFor {
    /// The addresses behind the upstream's name.
    Addresses,
    /// Its turn in the rate.
    Rate,
    /// A place in the bulkhead.
    Place,
    /// A place at an upstream that is overloaded.
    Overload,
    /// An answer of an upstream that is [silent](crate::policy::overload#silence).
    Answer,
    /// A breaker that lets it go: it would rather wait for that than fail.
    Breaker,
}

impl WaitsFor {
    /// A short fixed name for labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Rate => "rate",
            Self::Place => "place",
            Self::Overload => "overload",
            Self::Answer => "answer",
            Self::Breaker => "breaker",
        }
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
