//! A request's body, as far as it can be sent again.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body as _;
use reqwest::{Body, Request};

use crate::replay::{Replay as _, ReplayBody};

/// What is left of the request's body to send.
#[derive(Debug)]
pub(super) enum Payload {
    None,
    Bytes(Bytes),
    /// A stream that is kept as it is read, until it outgrows its buffer.
    Stream(ReplayBody<Body>),
    /// A form that can be made again.
    #[cfg(feature = "multipart")]
    Form(Box<crate::multipart::FormBody>),
    /// A stream: it stays in the one request there can be.
    Once,
    /// The last attempt has taken the request.
    Gone,
}

impl Payload {
    /// What another request's body is made from; `None` where there can't be another.
    pub(super) fn again(&self) -> Option<Self> {
        Some(match self {
            Self::None => Self::None,
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Self::Stream(stream) => Self::Stream(stream.replay()?),
            #[cfg(feature = "multipart")]
            Self::Form(form) => Self::Form(Box::new(form.again()?)),
            Self::Once | Self::Gone => return None,
        })
    }

    pub(super) fn is_replayable(&self) -> bool {
        match self {
            Self::None | Self::Bytes(_) => true,
            Self::Stream(stream) => stream.is_replayable(),
            #[cfg(feature = "multipart")]
            Self::Form(form) => form.is_replayable(),
            Self::Once | Self::Gone => false,
        }
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The body that the last request takes along.
    pub(super) fn into_body(self) -> Option<Body> {
        match self {
            Self::None | Self::Once | Self::Gone => None,
            Self::Bytes(bytes) => Some(bytes.into()),
            Self::Stream(stream) => Some(Body::wrap(stream)),
            #[cfg(feature = "multipart")]
            Self::Form(form) => Some(Body::wrap(*form)),
        }
    }
}

/// Takes a body out of its request, unless that can be sent only once.
pub(super) fn payload(request: &mut Request, replay_buffer: Option<usize>) -> Payload {
    match (request.body_mut().as_mut().map(whole_bytes), replay_buffer) {
        (None, _) => Payload::None,
        (Some(Some(bytes)), _) => {
            *request.body_mut() = None;
            Payload::Bytes(bytes)
        }
        (Some(None), Some(limit)) => {
            let stream = request.body_mut().take().unwrap_or_default();
            Payload::Stream(ReplayBody::with_limit(stream, limit))
        }
        (Some(None), None) => Payload::Once,
    }
}

/// The body's bytes, shared and not copied; `None` for a stream.
fn whole_bytes(body: &mut Body) -> Option<Bytes> {
    body.as_bytes()?;
    // A body of bytes yields them as its only frame, at once. It is the one way to get at them
    // without a copy.
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        Poll::Ready(None) => Some(Bytes::new()),
        Poll::Ready(Some(Err(_))) | Poll::Pending => None,
    }
}
