//! What watches a body: it holds its attempt's place, and says what the body came to.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;

#[cfg(feature = "grpc")]
use super::grpc;
use crate::call::attempt::cause_of_stall;
use crate::call::idle_timer::IdleTimer;
use crate::error::{BoxError, Error, ErrorKind};
#[cfg(feature = "grpc")]
use crate::event::CallEnd;
use crate::outcome::Verdict;
use crate::outcome::classify::{Classified, Repeat, connecting};
use crate::outcome::report::CallReport;
use crate::outcome::{FailureCause, FailureKind, Outcome};
use crate::time::{self, Tick};
use crate::upstream::AttemptPermit;

/// Watches one response's body. See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Guard {
    /// `None` once the body has ended.
    pub(super) permit: Option<AttemptPermit>,
    pub(super) report: CallReport,
    pub(super) deadline: Tick,
    idle_timer: IdleTimer,
    /// The first piece has come.
    pub(super) begun: bool,
    /// Its connection may be the cause of its stalling.
    shared: bool,
    /// The reader has been given an error. Nobody watches what comes after that, so nothing does.
    pub(super) failed: bool,
    /// What of a gRPC call its head hasn't said.
    #[cfg(feature = "grpc")]
    pub(super) owed: Option<Box<grpc::Owed>>,
    /// How its reader hears that it has failed.
    #[cfg(feature = "grpc")]
    pub(super) words: grpc::Words,
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
    pub(in crate::call) fn on_shared(&mut self, shared: bool) {
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
            let now = now();
            permit.body(Verdict::Success, &Classified::answered(None), now);
            #[cfg(feature = "grpc")]
            self.call_ends(&permit, |status| CallEnd::answered(status, Outcome::Success), now);
        }
    }

    /// The body failed; `kind` says how.
    fn failed(&mut self, kind: FailureKind, now: Tick) {
        let waited = self.idle_timer.waited(now).map_or(Duration::ZERO, |(since, until)| until.since(since));
        self.failed_with(&body_failure(kind, self.shared), waited, now);
    }

    /// The body has failed by what it says, or by what befell it. A stream that had brought
    /// something ends so, unless its server says that the fault is its own.
    pub(super) fn failed_with(&mut self, end: &Classified, waited: Duration, now: Tick) {
        let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) else { return };
        self.report.settled(permit.number(), end.outcome, permit.status(), now);
        let own = end.outcome == Outcome::Failure(FailureKind::Status) && end.cause == FailureCause::Own;
        let expected = self.begun && self.report.is_streaming() && !own && end.verdict == Verdict::Failure;
        permit.body_after(waited, if expected { Verdict::Neutral } else { end.verdict }, end, now);
        #[cfg(feature = "grpc")]
        self.call_ends(&permit, |status| CallEnd::answered(status, end.outcome), now);
    }

    /// The call's time is over while somebody waits for the body: as if that had been dropped.
    #[cold]
    pub(super) fn out_of_time(&mut self, kind: FailureKind, cause: FailureCause, now: Tick) {
        let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) else { return };
        let (since, until) = self.idle_timer.waited(now).unwrap_or((now, now));
        let outcome = if self.report.is_streaming() {
            permit.body(Verdict::Neutral, &Classified::ABANDONED, now);
            Outcome::Abandoned
        } else {
            permit.abandon(kind, cause, until.since(since), u64::MAX, now)
        };
        self.report.settled(permit.number(), outcome, permit.status(), now);
        #[cfg(feature = "grpc")]
        self.call_is_cut(&permit, CallEnd::Error(ErrorKind::Deadline), now);
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
            #[cfg(feature = "grpc")]
            self.call_is_cut(&permit, CallEnd::Error(ErrorKind::Deadline), now);
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
        #[cfg(feature = "grpc")]
        self.call_is_cut(&permit, CallEnd::Dropped, now);
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

/// A body that failed. One that stalls does so by itself, or because its connection has fallen
/// silent, if that is shared; one that breaks may have lost its connection, and others with it.
pub(in crate::call) fn body_failure(kind: FailureKind, shared: bool) -> Classified {
    match kind {
        FailureKind::BodyIdle => {
            Classified { cause: cause_of_stall(shared), ..Classified::failure(kind, Repeat::IfSafe) }
        }
        _ => Classified::lost(kind, Repeat::IfSafe),
    }
}
