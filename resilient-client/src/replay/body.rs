//! A streamed body that can be sent more than once.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Replay;
use super::memory::ReplayMemory;
use super::recording::{Piece, ReaderId};
use super::shared::Shared;
use crate::error::BoxError;

/// A streamed body that keeps what was read of it, so that it can be sent again.
///
/// A stream can be read once, so a call that sends one can't be repeated, although most such bodies
/// are short and most failures come early. Wrapped in this, a call with a stream is retried and
/// hedged like any other until the stream has grown longer than the buffer.
///
/// - Every attempt sees the same data and trailers in the same order. Attempts in flight together
///   share one source, which is read as fast as the fastest of them reads; no attempt waits for
///   another, and one that is slow, stalled or dropped stops nobody.
/// - At most [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT) bytes are kept for a call, and [`ReplayMemory`]
///   bounds all calls of the process together. A frame counts for its length, and for at least 64
///   bytes. Nothing is kept that no attempt can need any more.
/// - When a frame doesn't fit, the attempt that read it goes on to the end with nothing lost, what
///   was kept is freed, and from then on [`is_replayable`](Replay::is_replayable) is false. Another
///   attempt that was behind it fails with
///   [`ReplayError::is_cut_off`](super::ReplayError::is_cut_off).
/// - If the source fails or panics, each attempt gets what came before and then that error, once.
/// - Length and end are those the source announced when it was wrapped, for every attempt, however
///   much is known by the time of a later one: an attempt isn't sent with `Content-Length` when the
///   one before was chunked.
///
/// One caveat: what is kept is copied, because data from a socket is a slice of a read buffer that
/// may be much larger. That is up to one limit's worth of copying for each call. A body whose bytes
/// are all there (`Full<Bytes>`, `String`, ...) needs none of this: it is `Clone`, and replayed for
/// free.
///
/// ```
/// use http_body_util::{BodyExt, Full};
/// use resilient_client::{Replay, ReplayBody, SendOnce};
/// # use bytes::Bytes;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// // Stands for a stream; the request would be `http::Request::put(url).body(body)`.
/// let stream = SendOnce::new(Full::new(Bytes::from("hello")));
/// let body = ReplayBody::new(stream);
///
/// // What the engine does for each attempt.
/// let first = body.replay().ok_or("not replayable")?;
/// let second = body.replay().ok_or("not replayable")?;
/// assert_eq!(first.collect().await?.to_bytes(), "hello");
/// assert_eq!(second.collect().await?.to_bytes(), "hello");
/// # Ok(())
/// # }
/// ```
pub struct ReplayBody<B> {
    shared: Arc<Shared<B>>,
    id: ReaderId,
    /// Of what this reader hasn't read yet.
    hint: SizeHint,
    empty: bool,
    begun: bool,
    done: bool,
}

impl<B: Body> ReplayBody<B> {
    /// 64 KiB.
    pub const DEFAULT_LIMIT: usize = 64 * 1024;

    /// Keeps up to [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT) bytes of `source`.
    pub fn new(source: B) -> Self {
        Self::with_limit(source, Self::DEFAULT_LIMIT)
    }

    /// Keeps up to `limit` bytes of `source`. With 0 it can be sent again as long as no attempt has
    /// begun to read it, after a failure to connect for example.
    pub fn with_limit(source: B, limit: usize) -> Self {
        Self::within(ReplayMemory::process(), source, limit)
    }

    pub(super) fn within(memory: &'static ReplayMemory, source: B, limit: usize) -> Self {
        let (hint, empty) = (source.size_hint(), source.is_end_stream());
        let (shared, id) = Shared::new((!empty).then_some(source), limit, memory);
        Self { shared: Arc::new(shared), id, hint, empty, begun: false, done: false }
    }
}

/// A reader that has begun can't be replayed: keep one that hasn't, as the engine does, and send
/// the others.
impl<B> Replay for ReplayBody<B> {
    fn is_replayable(&self) -> bool {
        !self.begun && self.shared.can_join(self.id)
    }

    fn replay(&self) -> Option<Self> {
        if self.begun {
            return None;
        }
        let id = self.shared.join(self.id)?;
        let shared = Arc::clone(&self.shared);
        Some(Self { shared, id, hint: self.hint, empty: self.empty, begun: false, done: false })
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        this.begun = true;
        Poll::Ready(match ready!(this.shared.poll(this.id, cx)) {
            Some(Ok(piece)) => {
                if let Piece::Data(data) = &piece {
                    this.hint = less(this.hint, data.len() as u64);
                }
                Some(Ok(piece.into_frame()))
            }
            Some(Err(error)) => {
                this.done = true;
                Some(Err(error.into()))
            }
            None => {
                this.done = true;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        // Before the first poll, what the source said at first: by now it may be known to be empty,
        // but then the attempt before had a body of no bytes and this one would have none.
        self.done || if self.begun { self.shared.is_at_end(self.id) } else { self.empty }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// What is left of an announced size after `read` bytes. A source that announced too little leaves
/// nothing.
fn less(hint: SizeHint, read: u64) -> SizeHint {
    let mut left = SizeHint::new();
    left.set_lower(hint.lower().saturating_sub(read));
    if let Some(upper) = hint.upper() {
        left.set_upper(upper.saturating_sub(read));
    }
    left
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("begun", &self.begun).finish_non_exhaustive()
    }
}
