//! Why a replayed body ended early.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::error::BoxError;

/// Why reading a [`ReplayBody`](super::ReplayBody) failed. Every reader gets the same one, once.
///
/// Its [`source`](StdError::source) is the streamed body's own error, where that is the reason.
#[derive(Clone, Debug)]
pub struct ReplayError(Why);

#[derive(Clone, Debug)]
enum Why {
    Failed(Arc<dyn StdError + Send + Sync>),
    Panicked,
    CutOff,
}

impl ReplayError {
    pub(super) fn failed(error: BoxError) -> Self {
        Self(Why::Failed(error.into()))
    }

    pub(super) fn panicked() -> Self {
        Self(Why::Panicked)
    }

    pub(super) fn cut_off() -> Self {
        Self(Why::CutOff)
    }

    /// The body outgrew its buffer while another attempt was ahead of this one, and that one has
    /// the rest. It says nothing about the server, nor about the other attempt.
    pub fn is_cut_off(&self) -> bool {
        matches!(self.0, Why::CutOff)
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Why::Failed(_) => "the request's body failed",
            Why::Panicked => "the request's body panicked",
            Why::CutOff => "the request's body outgrew its replay buffer, and another attempt has the rest",
        })
    }
}

impl StdError for ReplayError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Why::Failed(error) => Some(&**error),
            Why::Panicked | Why::CutOff => None,
        }
    }
}
