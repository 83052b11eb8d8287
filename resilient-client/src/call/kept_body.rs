//! The body of an answer that was read inside its call.

use std::pin::Pin;

use std::task::Context;

use std::task::Poll;

use bytes::Bytes;

use http_body::Body;

use http_body::Frame;

use http_body::SizeHint;

use crate::error::{Error, ErrorKind};

/// The body of an answer that was read inside the call: its bytes, and whether they are all of it.
///
/// Reading one that was cut yields its bytes and then an error: bytes passed off as the whole would
/// be a silent success.
#[derive(Debug, Default)]
pub(crate) struct KeptBody {
    pub(crate) bytes: Bytes,
    pub(crate) cut: bool,
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
        Poll::Ready(std::mem::take(&mut self.cut).then(|| {
            Err(Error::new(ErrorKind::Body)
                .says("set aside for a retry, and longer or slower than could be kept"))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        // A cut body has no known length: claiming one would let a reader take what is there for
        // all there was.
        if self.cut { SizeHint::default() } else { SizeHint::with_exact(self.bytes.len() as u64) }
    }
}
