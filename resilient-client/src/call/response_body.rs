//! The body guard: an attempt isn't over when its head has come.
//!
//! The head has said what it means for the server. A server that sends a head and then stalls is as
//! broken as one that sends nothing, so the permit moves into the response: the slot is held, and a
//! second word can follow, until the body ends, fails, stalls for longer than the idle timeout,
//! runs into the call's deadline, or is dropped.
//!
//! | end of the body | what it adds |
//! |---|---|
//! | it ended | bodies end well |
//! | it failed, or stalled for longer than the idle timeout | a failure, in place of the head's success |
//! | the same of a stream (an upgrade, server-sent events, a call marked streaming) that had brought something | nothing: streams end so, and may be silent |
//! | the call's deadline passed, or the body was dropped, while somebody waited for it for longer than `abandoned_after` | a failure |
//! | the same after a shorter wait, or while nobody waited | nothing: the caller wanted no more |
//! | it ended with a [gRPC status](crate::outcome::classify::grpc) (feature `grpc`) | what that says |

#[cfg(feature = "grpc")]
pub(crate) mod grpc;
mod guard;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pub(crate) use self::guard::Guard;
pub(super) use self::guard::body_failure;
use crate::body_length::Expected;
use crate::call::kept_body::KeptBody;
use crate::error::{BoxError, Error};
use crate::outcome::report::CallReport;

pin_project! {
    /// A response's body, guarded: it holds its attempt's place until it ends.
    ///
    /// Its errors are [`Error`]s of the kinds `Body`, `BodyIdle` and `Deadline`.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<B> {
        Live { #[pin] body: B, guard: Guard, expected: Expected },
        Kept { body: KeptBody, report: CallReport },
    }
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn live(body: B, guard: Guard, expected: Expected) -> Self {
        let mut live = Self::watched(body, guard, expected);
        live.may_be_over();
        live
    }

    /// The same, before anybody has asked whether it [is over](Self::may_be_over) with its head.
    #[inline]
    pub(crate) fn watched(body: B, guard: Guard, expected: Expected) -> Self {
        Self { state: State::Live { body, guard, expected } }
    }

    /// Watches a body no more that is over with its head. Asked where it stays: it is large, and
    /// would be copied.
    #[inline]
    pub(crate) fn may_be_over(&mut self) {
        if let State::Live { body, guard, .. } = &mut self.state
            && body.is_end_stream()
        {
            guard.ended_with_head();
        }
    }

    pub(crate) fn kept(body: KeptBody, report: CallReport) -> Self {
        Self { state: State::Kept { body, report } }
    }
}

impl<B> ResponseBody<B> {
    /// See [`Guard::look_away`].
    #[cfg(feature = "hyper")]
    pub(crate) fn look_away(&mut self) {
        if let State::Live { guard, .. } = &mut self.state {
            guard.look_away();
        }
    }

    /// How the call went.
    pub fn report(&self) -> &CallReport {
        match &self.state {
            State::Live { guard, .. } => guard.report(),
            State::Kept { report, .. } => report,
        }
    }

    #[cfg(feature = "hyper")]
    pub(crate) fn report_mut(&mut self) -> &mut CallReport {
        match &mut self.state {
            State::Live { guard, .. } => guard.report_mut(),
            State::Kept { report, .. } => report,
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.project().state.project() {
            StateProj::Live { mut body, guard, expected } => {
                let polled = body.as_mut().poll_frame(cx);
                #[cfg(feature = "grpc")]
                guard.hear_status(&polled);
                let judged = match expected.see(&polled) {
                    Ok(()) => guard.judge(cx, polled),
                    Err(short) => guard.judge(cx, Poll::Ready(Some(Err(short)))),
                };
                #[cfg(feature = "grpc")]
                let judged = guard.in_its_words(judged);
                // Readers that trust `is_end_stream` never ask for the `None` that would end the
                // guard.
                if body.is_end_stream() && expected.is_met() && matches!(judged, Poll::Ready(Some(Ok(_)))) {
                    guard.ended();
                }
                judged
            }
            StateProj::Kept { body, .. } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Live { body, guard, expected } => {
                guard.has_failed() || body.is_end_stream() && expected.is_met()
            }
            State::Kept { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Live { guard, .. } if guard.has_failed() => SizeHint::with_exact(0),
            State::Live { body, .. } => body.size_hint(),
            State::Kept { body, .. } => body.size_hint(),
        }
    }
}
