//! What became of a hedge.

use std::fmt;

/// What became of an attempt sent, or to be sent, beside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HedgeEnd {
    /// It brought the answer.
    Won,
    /// Another attempt brought it, or the call ended first.
    Lost,
    /// It failed.
    Failed,
    /// It was due and never sent: it was [refused](super::Event::Rejected) here or by the hook, or
    /// the server asked for time meanwhile.
    Rejected,
}

impl HedgeEnd {
    /// A short fixed name for labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for HedgeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
