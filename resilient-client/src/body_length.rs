//! The length that a head announced, held against the bytes that came.
//!
//! hyper takes an HTTP/2 stream that is reset with `NO_ERROR`, or ended by a graceful `GOAWAY`, for
//! one that has ended well, however much of it is missing. Only the length tells: who announces ten
//! bytes and sends four has been cut off.
//!
//! The length comes from the body's own size hint at its head, not from the header. hyper makes the
//! one from the other and has then checked it, and where a transport decodes the body there is
//! none: what comes out has another length than what was announced, and a decoder notices itself
//! that its input stops too soon.
//!
//! One caveat: a body without a length that is reset with `NO_ERROR` looks like a whole one; nor
//! can one that is decoded and of which nothing came at all.

use std::fmt;
use std::task::Poll;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};

/// What is left to come of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// In bytes; 0 where nothing more is expected, or nothing is known.
    left: u64,
}

impl Expected {
    /// Of a body that may end at any time.
    pub(crate) const ANY: Self = Self { left: 0 };

    /// By what is known at the head. An answer to `HEAD`, and one whose status has no body, may
    /// name a length and has none.
    #[inline]
    pub(crate) fn at_head(to_head: bool, status: StatusCode, hint: &SizeHint) -> Self {
        match hint.exact() {
            Some(left) if left > 0 && !to_head && has_body(status) => Self { left },
            _ => Self::ANY,
        }
    }

    /// Whether the body may end here.
    #[inline]
    pub(crate) fn is_met(self) -> bool {
        self.left == 0
    }

    /// So many bytes have come.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }

    /// The body says that it has ended. Said once: whoever reads on gets an end.
    #[inline]
    pub(crate) fn end(&mut self) -> Result<(), Short> {
        if self.left == 0 { Ok(()) } else { Err(Short { missing: std::mem::take(&mut self.left) }) }
    }

    /// Looks at one poll of the body.
    #[inline]
    pub(crate) fn see<E>(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, E>>>) -> Result<(), Short> {
        match polled {
            Poll::Ready(Some(Ok(frame))) => self.take(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(None) => return self.end(),
            // It has failed, and that is said.
            Poll::Ready(Some(Err(_))) => *self = Self::ANY,
            Poll::Pending => {}
        }
        Ok(())
    }
}

/// RFC 9110, section 6.4.1.
fn has_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// A body ended before its length.
#[derive(Debug)]
pub(crate) struct Short {
    missing: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended {} bytes before its announced length", self.missing)
    }
}

impl std::error::Error for Short {}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(to_head: bool, status: u16, hint: &SizeHint) -> u64 {
        Expected::at_head(to_head, StatusCode::from_u16(status).unwrap(), hint).left
    }

    #[test]
    fn a_length_counts_only_where_a_body_follows() {
        let ten = SizeHint::with_exact(10);
        assert_eq!(left(false, 200, &ten), 10);
        assert_eq!(left(false, 503, &ten), 10);
        for (to_head, status) in [(true, 200), (false, 204), (false, 304), (false, 101)] {
            assert_eq!(left(to_head, status, &ten), 0, "{to_head} {status}");
        }
        let mut bounds = SizeHint::new();
        bounds.set_lower(3);
        for hint in [SizeHint::with_exact(0), SizeHint::new(), bounds] {
            assert_eq!(left(false, 200, &hint), 0);
        }
    }

    #[test]
    fn a_body_that_ends_too_soon_says_so_once_and_by_how_much() {
        let mut expected = Expected { left: 10 };
        expected.take(4);
        assert!(!expected.is_met());
        assert_eq!(expected.end().unwrap_err().missing, 6);
        assert!(expected.end().is_ok());
        let mut expected = Expected { left: 10 };
        expected.take(6);
        expected.take(5);
        assert!(expected.is_met() && expected.end().is_ok(), "more than was announced isn't less");
    }
}
