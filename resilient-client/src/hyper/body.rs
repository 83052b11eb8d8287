//! A request's body: bytes, or a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

use crate::error::BoxError;
#[cfg(feature = "multipart")]
use crate::multipart::FormBody;
use crate::replay::{Replay, ReplayBody};

type Source = UnsyncBoxBody<Bytes, BoxError>;

/// A request's body. Bytes and text become one without a copy, and can be sent again without one.
//
// A pointer, because a request is moved two dozen times on its way to the socket, and most have no
// body.
#[derive(Default)]
pub struct Body(Option<Box<Payload>>);

enum Payload {
    Bytes(Bytes),
    /// Sent once.
    Once(Source),
    /// Kept as it is read, until it outgrows its buffer.
    Kept(ReplayBody<Source>),
    #[cfg(feature = "multipart")]
    Form(FormBody),
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
        Self::of(Payload::Once(body.map_err(Into::into).boxed_unsync()))
    }

    /// A form, which can be made again unless a part of it is a stream.
    #[cfg(feature = "multipart")]
    pub(super) fn form(form: FormBody) -> Self {
        Self::of(Payload::Form(form))
    }

    fn of(payload: Payload) -> Self {
        Self(Some(Box::new(payload)))
    }

    /// The bytes, if it isn't a stream.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self.0.as_deref() {
            None => Some(&[]),
            Some(Payload::Bytes(bytes)) => Some(bytes),
            Some(_) => None,
        }
    }

    /// The same, with up to `limit` bytes kept for another attempt if it is a stream.
    pub(crate) fn kept(self, limit: usize) -> Self {
        match self.0 {
            Some(payload) => Self::of(match *payload {
                Payload::Once(source) => Payload::Kept(ReplayBody::with_limit(source, limit)),
                #[cfg(feature = "multipart")]
                Payload::Form(form) if !form.is_replayable() => {
                    Payload::Kept(ReplayBody::with_limit(form.boxed_unsync(), limit))
                }
                other => other,
            }),
            None => self,
        }
    }
}

impl Replay for Body {
    fn is_replayable(&self) -> bool {
        match self.0.as_deref() {
            None | Some(Payload::Bytes(_)) => true,
            Some(Payload::Once(_)) => false,
            // Spelled out: a reference is `Clone`, and so another `Replay`.
            Some(Payload::Kept(kept)) => ReplayBody::is_replayable(kept),
            #[cfg(feature = "multipart")]
            Some(Payload::Form(form)) => form.is_replayable(),
        }
    }

    fn replay(&self) -> Option<Self> {
        match self.0.as_deref() {
            None => Some(Self::empty()),
            Some(Payload::Bytes(bytes)) => Some(bytes.clone().into()),
            Some(Payload::Once(_)) => None,
            Some(Payload::Kept(kept)) => ReplayBody::replay(kept).map(|again| Self::of(Payload::Kept(again))),
            #[cfg(feature = "multipart")]
            Some(Payload::Form(form)) => form.again().map(Self::form),
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
        match self.0.as_deref_mut() {
            None => Poll::Ready(None),
            Some(Payload::Bytes(bytes)) => {
                let bytes = std::mem::take(bytes);
                self.0 = None;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Payload::Once(source)) => Pin::new(source).poll_frame(cx),
            Some(Payload::Kept(kept)) => Pin::new(kept).poll_frame(cx),
            #[cfg(feature = "multipart")]
            Some(Payload::Form(form)) => Pin::new(form).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.0.as_deref() {
            None => true,
            Some(Payload::Bytes(_)) => false,
            Some(Payload::Once(source)) => source.is_end_stream(),
            Some(Payload::Kept(kept)) => kept.is_end_stream(),
            #[cfg(feature = "multipart")]
            Some(Payload::Form(form)) => form.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_deref() {
            None => SizeHint::with_exact(0),
            Some(Payload::Bytes(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Some(Payload::Once(source)) => source.size_hint(),
            Some(Payload::Kept(kept)) => kept.size_hint(),
            #[cfg(feature = "multipart")]
            Some(Payload::Form(form)) => form.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self::of(Payload::Bytes(bytes)) }
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
        match self.as_bytes() {
            Some(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            None => f.write_str("Body(stream)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `Request<Body>` that is longer than 256 bytes with what hyper puts round it costs several
    /// hundred instructions a request in copies.
    #[test]
    fn a_body_is_as_small_as_a_pointer() {
        assert_eq!(size_of::<Body>(), size_of::<usize>());
    }

    #[test]
    fn no_bytes_are_no_body() {
        use http_body::Body as _;

        let empty = [Body::empty(), Body::from(""), Body::from(Vec::new()), Body::from(())];
        assert!(empty.iter().all(|body| body.is_end_stream() && body.as_bytes() == Some(&[])));
    }
}
