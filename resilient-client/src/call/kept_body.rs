//! The body of an answer that was read inside its call.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::error::{Error, ErrorKind};

/// The body of an answer that was read inside the call: its bytes, whether they are all of it, and
/// what came after them.
///
/// Reading one that was cut yields its bytes and then an error: bytes passed off as the whole would
/// be a silent success.
#[derive(Debug, Default)]
pub(crate) struct KeptBody {
    pub(crate) bytes: Bytes,
    pub(crate) cut: bool,
    /// Boxed, as few answers have any.
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

impl Body for KeptBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if std::mem::take(&mut self.cut) {
            return Poll::Ready(Some(Err(Error::new(ErrorKind::Body)
                .says("set aside for a retry, and longer or slower than could be kept"))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && !self.cut && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // A cut body has no known length: claiming one would let a reader take what is there for
        // all there was.
        if self.cut { SizeHint::default() } else { SizeHint::with_exact(self.bytes.len() as u64) }
    }
}
