//! A request's body: bytes, or a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

use crate::error::BoxError;
use crate::transport::replay::{Replay, ReplayBody};

type Source = UnsyncBoxBody<Bytes, BoxError>;

/// A request's body. Bytes and text become one for free, and can be sent again for free.
#[derive(Default)]
pub struct Body(Payload);

/// As small as `Bytes`, because a request is moved about two dozen times on its way to the socket.
enum Payload {
    Bytes(Bytes),
    Stream(Box<Stream>),
}

enum Stream {
    /// Sent once.
    Once(Source),
    /// Kept as it is read, until it outgrows its buffer.
    Kept(ReplayBody<Source>),
}

impl Default for Payload {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A streamed body. It is sent once, so the call isn't retried unless it has a
    /// [`replay_buffer`](super::RequestBuilder::replay_buffer).
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::of(Stream::Once(body.map_err(Into::into).boxed_unsync()))
    }

    fn of(stream: Stream) -> Self {
        Self(Payload::Stream(Box::new(stream)))
    }

    /// The bytes, if it isn't a stream.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Payload::Bytes(bytes) = &self.0 { Some(bytes) } else { None }
    }

    /// The same, with up to `limit` bytes kept for another attempt if it is a stream.
    pub(crate) fn kept(self, limit: usize) -> Self {
        match self.0 {
            Payload::Stream(stream) => Self::of(match *stream {
                Stream::Once(source) => Stream::Kept(ReplayBody::with_limit(source, limit)),
                kept @ Stream::Kept(_) => kept,
            }),
            bytes @ Payload::Bytes(_) => Self(bytes),
        }
    }
}

impl Replay for Body {
    fn is_replayable(&self) -> bool {
        match &self.0 {
            Payload::Bytes(_) => true,
            Payload::Stream(stream) => match &**stream {
                Stream::Once(_) => false,
                // Spelled out: a reference is `Clone`, and so another `Replay`.
                Stream::Kept(kept) => ReplayBody::is_replayable(kept),
            },
        }
    }

    fn replay(&self) -> Option<Self> {
        match &self.0 {
            Payload::Bytes(bytes) => Some(bytes.clone().into()),
            Payload::Stream(stream) => match &**stream {
                Stream::Once(_) => None,
                Stream::Kept(kept) => ReplayBody::replay(kept).map(|again| Self::of(Stream::Kept(again))),
            },
        }
    }
}

impl Stream {
    fn as_body(&self) -> &dyn http_body::Body<Data = Bytes, Error = BoxError> {
        match self {
            Self::Once(source) => source,
            Self::Kept(kept) => kept,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Payload::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Payload::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Payload::Stream(stream) => match &mut **stream {
                Stream::Once(source) => Pin::new(source).poll_frame(cx),
                Stream::Kept(kept) => Pin::new(kept).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Payload::Bytes(bytes) => bytes.is_empty(),
            Payload::Stream(stream) => stream.as_body().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Payload::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Stream(stream) => stream.as_body().size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Payload::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Body {
    /// Without the bytes, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Payload::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Payload::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `Request<Body>` of more than 256 bytes costs several hundred instructions a request in copies.
    #[test]
    fn a_body_is_no_larger_than_its_bytes() {
        assert_eq!(size_of::<Body>(), size_of::<Bytes>());
        assert!(size_of::<http::Request<Body>>() <= 256);
    }
}
