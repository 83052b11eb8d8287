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

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::attempt::cause_of_stall;
use super::idle_timer::IdleTimer;
use crate::body_length::Expected;
use crate::call::kept_body::KeptBody;
use crate::error::{BoxError, Error, ErrorKind};
use crate::outcome::Verdict;
use crate::outcome::classify::{Classified, Repeat, connecting};
use crate::outcome::report::CallReport;
use crate::outcome::{Cause, FailureKind, Outcome};
use crate::time::{self, Tick};
use crate::upstream::AttemptPermit;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Watches one response's body. See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Guard {
    /// `None` once the body has ended.
    permit: Option<AttemptPermit>,
    report: CallReport,
    deadline: Tick,
    idle_timer: IdleTimer,
    /// The first piece has come.
    begun: bool,
    /// Its connection may be the cause of its stalling.
    shared: bool,
    /// The reader has been given an error. Nobody watches what comes after that, so nothing does.
    failed: bool,
    /// What of a gRPC call its head hasn't said.
    #[cfg(feature = "grpc")]
    owed: Option<Box<grpc::Owed>>,
    /// How its reader hears that it has failed.
    #[cfg(feature = "grpc")]
    words: grpc::Words,
}

impl Guard {
    /// `permit` has said what the head means.
    pub(crate) fn new(permit: AttemptPermit, report: CallReport, deadline: Tick, idle: u64) -> Self {
        let idle_timer = IdleTimer::new(idle);
        Self {
            permit: Some(permit),
            report,
            deadline,
            idle_timer,
            begun: false,
            shared: false,
            failed: false,
            #[cfg(feature = "grpc")]
            owed: None,
            #[cfg(feature = "grpc")]
            words: grpc::Words::Errors,
        }
    }

    /// Others may share the body's connection.
    pub(super) fn on_shared(&mut self, shared: bool) {
        self.shared = shared;
    }

    pub(crate) fn report(&self) -> &CallReport {
        &self.report
    }

    pub(crate) fn report_mut(&mut self) -> &mut CallReport {
        &mut self.report
    }

    /// The body has ended well; further calls do nothing. Reading the clock is left to this moment.
    pub(crate) fn ended(&mut self) {
        self.ended_at(time::now);
    }

    /// There is no body: the call was over with the head, whose time is known.
    pub(crate) fn ended_with_head(&mut self) {
        let head = self.report.ended();
        self.ended_at(|| head);
    }

    fn ended_at(&mut self, now: impl FnOnce() -> Tick) {
        #[cfg(feature = "grpc")]
        if self.lacks_status() {
            return self.ends_as(&Classified::WITHOUT_STATUS, now());
        }
        if let Some(mut permit) = self.permit.take() {
            permit.body(Verdict::Success, &Classified::answered(None), now());
        }
    }

    /// The body failed; `kind` says how.
    fn failed(&mut self, kind: FailureKind, now: Tick) {
        let waited = self.idle_timer.waited(now).map_or(Duration::ZERO, |(since, until)| until.since(since));
        self.failed_with(&body_failure(kind, self.shared), waited, now);
    }

    /// The body has failed by what it says, or by what befell it. A stream that had brought
    /// something ends so, unless its server says that the fault is its own.
    fn failed_with(&mut self, end: &Classified, waited: Duration, now: Tick) {
        let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) else { return };
        self.report.settled(permit.number(), end.outcome, permit.status(), now);
        let own = end.outcome == Outcome::Failure(FailureKind::Status) && end.cause == Cause::Own;
        let expected = self.begun && self.report.is_streaming() && !own && end.verdict == Verdict::Failure;
        permit.body_after(waited, if expected { Verdict::Neutral } else { end.verdict }, end, now);
    }

    /// The call's time is over while somebody waits for the body: as if that had been dropped.
    #[cold]
    fn out_of_time(&mut self, kind: FailureKind, cause: Cause, now: Tick) {
        let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) else { return };
        let (since, until) = self.idle_timer.waited(now).unwrap_or((now, now));
        let outcome = if self.report.is_streaming() {
            permit.body(Verdict::Neutral, &Classified::ABANDONED, now);
            Outcome::Abandoned
        } else {
            permit.abandon(kind, cause, until.since(since), u64::MAX, now)
        };
        self.report.settled(permit.number(), outcome, permit.status(), now);
    }

    /// The reader looks away while it waits: what a later drop says about the server is how long it
    /// had waited.
    pub(crate) fn look_away(&mut self) {
        self.idle_timer.look_away();
    }

    /// Whether the reader has been given an error, after which there is nothing.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Judges one poll of the body: what the reader gets, and what the attempt has come to.
    pub(crate) fn judge<T: Piece, E: Into<BoxError>>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<Option<Result<T, E>>>,
    ) -> Poll<Option<Result<T, Error>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let judged = self.judge_next(cx, polled);
        self.failed = matches!(judged, Poll::Ready(Some(Err(_))));
        judged
    }

    fn judge_next<T: Piece, E: Into<BoxError>>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<Option<Result<T, E>>>,
    ) -> Poll<Option<Result<T, Error>>> {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle_timer.rest();
                // Most bodies come with their head, so the first piece is let through without a
                // look at the clock.
                if std::mem::replace(&mut self.begun, true) && self.is_overdue() && !frame.is_the_end() {
                    return Poll::Ready(Some(Err(self.overdue())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.ended();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let (kind, error) = connecting::body_error(error.into());
                self.failed(kind, time::now());
                Poll::Ready(Some(Err(error.with_report(self.report.clone()))))
            }
            Poll::Pending => {
                ready!(self.idle_timer.poll(cx, self.deadline));
                Poll::Ready(Some(Err(self.timed_out())))
            }
        }
    }

    fn is_overdue(&self) -> bool {
        !self.deadline.is_never() && self.permit.is_some() && time::now() >= self.deadline
    }

    /// The call's time is over while the body still comes: whoever reads it was too slow, or it is
    /// too long.
    #[cold]
    fn overdue(&mut self) -> Error {
        if let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) {
            let now = time::now();
            self.report.settled(permit.number(), Outcome::Abandoned, permit.status(), now);
            permit.body(Verdict::Neutral, &Classified::ABANDONED, now);
        }
        Error::new(ErrorKind::Deadline).with_report(self.report.clone())
    }

    #[cold]
    fn timed_out(&mut self) -> Error {
        let now = time::now();
        let kind = if now >= self.deadline {
            self.out_of_time(FailureKind::BodyIdle, cause_of_stall(self.shared), now);
            ErrorKind::Deadline
        } else {
            self.failed(FailureKind::BodyIdle, now);
            ErrorKind::BodyIdle
        };
        Error::new(kind).with_report(self.report.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) else { return };
        let now = time::now();
        match self.idle_timer.waited(now) {
            // A reader of a stream is nearly always waiting; who hangs up says nothing against the
            // server.
            Some((since, until)) if !self.report.is_streaming() => {
                permit.abandon(
                    FailureKind::BodyIdle,
                    cause_of_stall(self.shared),
                    until.since(since),
                    u64::MAX,
                    now,
                );
            }
            _ => permit.body(Verdict::Neutral, &Classified::answered(None), now),
        }
    }
}

/// What a body is read in.
pub(crate) trait Piece {
    /// Whether nothing can follow: whoever has it has all, however late.
    fn is_the_end(&self) -> bool {
        false
    }
}

impl Piece for Frame<Bytes> {
    fn is_the_end(&self) -> bool {
        self.is_trailers()
    }
}

impl Piece for Bytes {}

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

/// A body that failed. One that stalls does so by itself, or because its connection has fallen
/// silent, if that is shared; one that breaks may have lost its connection, and others with it.
pub(super) fn body_failure(kind: FailureKind, shared: bool) -> Classified {
    match kind {
        FailureKind::BodyIdle => {
            Classified { cause: cause_of_stall(shared), ..Classified::failure(kind, Repeat::IfSafe) }
        }
        _ => Classified::lost(kind, Repeat::IfSafe),
    }
}
