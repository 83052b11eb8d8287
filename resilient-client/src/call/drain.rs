//! Reading an answer's body inside a call: to hand it over whole, or to set it aside.
//!
//! A body that is part of its attempt (`send_buffered`) is read up to the reader's limit, and its
//! failure is the attempt's. An answer that a retry will replace is read too, so that its
//! connection can be used again and so that it can still be returned when nothing better comes;
//! that is worth 64 KiB and 50 ms, and no more.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

use crate::body_length::Expected;
use crate::call::exchange::Exchange;
use crate::call::kept_body::KeptBody;
use crate::error::BoxError;
use crate::time::Tick;
use crate::upstream::AttemptPermit;

/// The most that is read of an answer set aside, in bytes.
const DRAIN_BYTES: usize = 64 * 1024;
/// The longest that may take.
const DRAIN_TIME: Duration = Duration::from_millis(50);

/// How a reading ended. The bytes so far stay with the [`Reading`].
pub(super) enum End {
    /// The body ended.
    Whole,
    /// It is longer than the limit.
    TooLong,
    /// It failed.
    Failed(BoxError),
    /// It stopped coming. Only who reads can tell.
    Stalled,
}

/// An answer whose body is being read.
///
/// The body is boxed: most calls never read one, and the call's future shouldn't carry room for it.
pub(super) struct Reading<X: Exchange> {
    head: X::Head,
    body: Pin<Box<X::Body>>,
    expected: Expected,
    first: Bytes,
    more: BytesMut,
    trailers: Option<Box<HeaderMap>>,
    limit: usize,
    progress: bool,
}

impl<X: Exchange> Reading<X> {
    pub(super) fn new(exchange: &X, answer: X::Answer, limit: usize) -> Self {
        let expected = exchange.expected(&answer);
        let (head, body) = X::dismantle(answer);
        Self {
            head,
            body: Box::pin(body),
            expected,
            first: Bytes::new(),
            more: BytesMut::new(),
            trailers: None,
            limit,
            progress: false,
        }
    }

    /// Reads on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while !(self.expected.is_met() && self.body.is_end_stream()) {
            let polled = self.body.as_mut().poll_frame(cx);
            if let Err(short) = self.expected.see(&polled) {
                return Poll::Ready(End::Failed(short.into()));
            }
            match ready!(polled) {
                None => break,
                Some(Err(error)) => return Poll::Ready(End::Failed(error.into())),
                Some(Ok(frame)) => {
                    self.progress = true;
                    match frame.into_data() {
                        Ok(data) => {
                            if !self.take_in(data) {
                                return Poll::Ready(End::TooLong);
                            }
                        }
                        Err(other) => self.trailers = other.into_trailers().ok().map(Box::new),
                    }
                }
            }
        }
        Poll::Ready(End::Whole)
    }

    /// Whether anything of the body has come.
    #[cfg(feature = "grpc")]
    pub(super) fn has_begun(&self) -> bool {
        !self.first.is_empty()
    }

    /// What came after the body, if it has ended.
    #[cfg(feature = "grpc")]
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// Whether anything has come since this was asked last.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Keeps a piece, or as much of it as the limit allows; false when that wasn't all of it. A
    /// body in one piece, the common case, isn't copied.
    fn take_in(&mut self, mut data: Bytes) -> bool {
        let room = self.limit - self.first.len() - self.more.len();
        let fits = data.len() <= room;
        data.truncate(room);
        if self.first.is_empty() {
            self.first = data;
        } else {
            self.more.extend_from_slice(&data);
        }
        fits
    }

    /// What has been read. Dropping the rest closes an HTTP/1 connection and resets an HTTP/2
    /// stream.
    pub(super) fn finish(self, cut: bool) -> (X::Head, KeptBody) {
        let bytes = if self.more.is_empty() {
            self.first
        } else {
            let mut whole = BytesMut::with_capacity(self.first.len() + self.more.len());
            whole.extend_from_slice(&self.first);
            whole.extend_from_slice(&self.more);
            whole.freeze()
        };
        (self.head, KeptBody { bytes, cut, trailers: self.trailers })
    }
}

/// An answer being set aside. Its attempt's slot stays taken until it is done, because its
/// connection is.
pub(super) struct DrainingResponse<X: Exchange> {
    reading: Reading<X>,
    until: Tick,
    _permit: AttemptPermit,
}

impl<X: Exchange> DrainingResponse<X> {
    pub(super) fn new(exchange: &X, answer: X::Answer, permit: AttemptPermit, now: Tick) -> Self {
        let reading = Reading::new(exchange, answer, DRAIN_BYTES);
        Self { reading, until: now.after(DRAIN_TIME), _permit: permit }
    }

    /// When draining ends.
    pub(super) fn until(&self) -> Tick {
        self.until
    }

    /// Reads on; ready with whether the body was cut.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.reading.poll(cx).map(|end| !matches!(end, End::Whole))
    }

    pub(super) fn finish(self, cut: bool) -> (X::Head, KeptBody) {
        self.reading.finish(cut)
    }

    /// What has come by now, without waiting for more.
    pub(super) fn finish_now(mut self) -> (X::Head, KeptBody) {
        let polled = self.poll(&mut Context::from_waker(Waker::noop()));
        self.finish(polled != Poll::Ready(false))
    }
}
