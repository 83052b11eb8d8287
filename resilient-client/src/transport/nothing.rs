//! A body without content that knows whether it was asked for any.
//!
//! hyper asks a body for the first time when its request has become a stream of its own. So a `GOAWAY` that ends a request
//! whose body had been asked is about that stream; before, it may be the connection's, reported for a request that is on the
//! wire and admitted. A request without a body would say nothing of either.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Which of a call's attempts had their bodies asked for content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<AtomicU64>);

impl Asked {
    /// A body for attempt `number`.
    pub(crate) fn nothing(&self, number: u32) -> Nothing {
        Nothing { asked: self.clone(), bit: bit(number) }
    }

    /// Whether that attempt's was asked. Of those beyond the 64th it isn't known.
    pub(crate) fn was(&self, number: u32) -> bool {
        self.0.load(Ordering::Acquire) & bit(number) != 0
    }
}

fn bit(number: u32) -> u64 {
    1_u64.checked_shl(number.wrapping_sub(1)).unwrap_or(0)
}

/// See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Nothing {
    asked: Asked,
    bit: u64,
}

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.asked.0.fetch_or(self.bit, Ordering::Release);
        Poll::Ready(None)
    }

    /// Else it would never be asked.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn it_knows_whose_body_was_asked() {
        let asked = Asked::default();
        let mut bodies = [1, 2, 64, 65].map(|number| (number, asked.nothing(number)));
        for (number, body) in &mut bodies {
            assert!(!asked.was(*number));
            let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(None)));
            assert_eq!(asked.was(*number), *number <= 64, "{number}");
        }
        assert!(!asked.was(3));
    }
}
