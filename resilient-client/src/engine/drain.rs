//! Setting an answer aside: its body is read, so that its connection can be used again and so that the answer can still
//! be returned when nothing better comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;

use crate::time::Tick;
use crate::transport::KeptBody;
use crate::upstream::Permit;

/// The most that is read of a body set aside.
const LONGEST: usize = 64 * 1024;
/// The longest it may take.
const PATIENCE: Duration = Duration::from_millis(50);

/// An answer being set aside. Its attempt's slot stays taken until it is done, because its connection is.
///
/// The body is boxed: this is the path of a failure, and the call's future shouldn't carry room for it.
pub(crate) struct Drain<H, B> {
    head: Option<H>,
    body: Pin<Box<B>>,
    bytes: BytesMut,
    until: Tick,
    _permit: Permit,
}

impl<H, B> Drain<H, B>
where
    B: Body<Data = Bytes>,
{
    pub(crate) fn new(head: H, body: B, permit: Permit, now: Tick) -> Self {
        Self {
            head: Some(head),
            body: Box::pin(body),
            bytes: BytesMut::new(),
            until: now.after(PATIENCE),
            _permit: permit,
        }
    }

    /// When patience ends.
    pub(crate) fn until(&self) -> Tick {
        self.until
    }

    /// Reads on; ready with the answer once it is whole, failed, or too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<(H, KeptBody)>> {
        loop {
            if self.body.is_end_stream() {
                return Poll::Ready(self.finish(false));
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(self.finish(false)),
                Some(Err(_)) => return Poll::Ready(self.finish(true)),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let room = LONGEST - self.bytes.len();
                    self.bytes.extend_from_slice(&data[..data.len().min(room)]);
                    if data.len() > room {
                        return Poll::Ready(self.finish(true));
                    }
                }
            }
        }
    }

    /// Takes what is there. Dropping the rest closes an HTTP/1 connection or resets an HTTP/2 stream.
    pub(crate) fn finish(&mut self, cut: bool) -> Option<(H, KeptBody)> {
        let bytes = std::mem::take(&mut self.bytes).freeze();
        self.head.take().map(|head| (head, KeptBody { bytes, cut }))
    }
}
