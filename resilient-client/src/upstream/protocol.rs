//! Which HTTP an upstream speaks: whether attempts share connections there, of which reqwest tells
//! only by its answers.

use http::Version;

use crate::sync::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
/// Attempts have connections to themselves.
const HTTP_1: u8 = 1;
/// Attempts share connections.
const HTTP_2: u8 = 2;

/// The highest version that an answer has come over.
#[derive(Debug)]
pub(crate) struct Protocol(AtomicU8);

impl Protocol {
    pub(super) fn unknown() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// An answer came.
    #[inline]
    pub(crate) fn answered(&self, version: Version) {
        let version = if version == Version::HTTP_2 { HTTP_2 } else { HTTP_1 };
        // Read first: it is nearly always so, and attempts in parallel share this.
        if self.0.load(Ordering::Relaxed) < version {
            self.0.fetch_max(version, Ordering::Relaxed);
        }
    }

    /// Whether attempts share connections for all that is known.
    #[inline]
    pub(crate) fn shares(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HTTP_2
    }

    /// Whether an attempt may have to wait until the server allows one more stream.
    #[inline]
    pub(crate) fn may_share(&self) -> bool {
        self.0.load(Ordering::Relaxed) != HTTP_1
    }
}
