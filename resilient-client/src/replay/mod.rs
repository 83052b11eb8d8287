//! Whether a request's body can be sent twice.
//!
//! Bytes can, for free. A stream can't, unless it is wrapped in a [`ReplayBody`], which keeps what
//! was read of it.

mod body;
mod error;
mod memory;
mod recording;
mod shared;

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pub use body::ReplayBody;
pub use error::ReplayError;
pub use memory::ReplayMemory;

/// A request body that knows whether it can be sent again.
///
/// Every `Clone` body can (`Full<Bytes>`, `Empty`, `String`, ...): cloning such a body shares its
/// bytes. A body that streams isn't `Clone`; wrap it in a [`ReplayBody`] to have it kept as it is
/// read, or in [`SendOnce`] to say that one attempt is all there can be.
pub trait Replay: Sized {
    /// Whether [`replay`](Self::replay) gives a copy. May turn false during a call, and never true
    /// again.
    fn is_replayable(&self) -> bool;

    /// A copy for another attempt.
    fn replay(&self) -> Option<Self>;
}

impl<B: Clone> Replay for B {
    fn is_replayable(&self) -> bool {
        true
    }

    fn replay(&self) -> Option<Self> {
        Some(self.clone())
    }
}

pin_project! {
    /// A body that can be sent only once, such as a stream.
    ///
    /// A call with such a body isn't retried; its report says so.
    #[derive(Debug)]
    pub struct SendOnce<B> {
        #[pin]
        body: B,
    }
}

impl<B> SendOnce<B> {
    /// Marks `body` as one that can't be sent again.
    pub fn new(body: B) -> Self {
        Self { body }
    }
}

impl<B> Replay for SendOnce<B> {
    fn is_replayable(&self) -> bool {
        false
    }

    fn replay(&self) -> Option<Self> {
        None
    }
}

impl<B: Body> Body for SendOnce<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(all(test, not(resilient_loom)))]
mod tests;
