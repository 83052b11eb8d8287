//! Copies a body for the store while its reader reads it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Draft;
use crate::body_length::Expected;

pin_project! {
    /// A body of which a copy is stored once it has been read to its end. One that fails, ends too
    /// soon or is dropped before, isn't.
    pub(crate) struct Capture<B> {
        #[pin]
        body: B,
        expected: Expected,
        copy: Option<Box<Copied>>,
    }
}

struct Copied {
    draft: Draft,
    bytes: Vec<u8>,
}

impl<B: Body> Capture<B> {
    pub(crate) fn new(body: B, draft: Draft, expected: Expected) -> Self {
        let mut copy = Some(Box::new(Copied { draft, bytes: Vec::new() }));
        // Nobody need ask an empty body for its end.
        if body.is_end_stream() || body.size_hint().exact() == Some(0) {
            ended(&mut copy);
        }
        Self { body, expected, copy }
    }
}

fn ended(copy: &mut Option<Box<Copied>>) {
    if let Some(copy) = copy.take() {
        let Copied { draft, bytes } = *copy;
        draft.commit(&bytes);
    }
}

fn take_in(copy: &mut Option<Box<Copied>>, data: &[u8]) {
    let fits = |copy: &Copied| data.len() <= copy.draft.room().saturating_sub(copy.bytes.len());
    match copy.take() {
        Some(mut copied) if fits(&copied) => {
            copied.bytes.extend_from_slice(data);
            *copy = Some(copied);
        }
        Some(copied) => copied.draft.too_long(),
        None => (),
    }
}

impl<B: Body<Data = Bytes>> Body for Capture<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        let announced = !this.expected.is_met();
        if this.expected.see(&polled).is_err() {
            // Cut off, which whoever counts above says.
            *this.copy = None;
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    take_in(this.copy, data);
                }
                // Readers that trust `is_end_stream`, or the length, never ask for the `None`.
                // reqwest's bodies don't know that they have ended where it can decode bodies.
                if (announced || this.body.is_end_stream()) && this.expected.is_met() {
                    ended(this.copy);
                }
            }
            Poll::Ready(None) => ended(this.copy),
            Poll::Ready(Some(Err(_))) => *this.copy = None,
            Poll::Pending => (),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
