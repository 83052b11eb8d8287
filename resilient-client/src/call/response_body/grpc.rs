//! The status of a gRPC call, as far as it comes with its answer's trailers.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;

use super::Guard;
use crate::call::exchange::Exchange;
use crate::call::state::told::finished_for_all;
use crate::error::Error;
use crate::event::CallEnd;
use crate::outcome::classify::evidence::Evidence;
use crate::outcome::classify::grpc::Code;
use crate::outcome::classify::{Classified, Classifier, Ended, Speech};
use crate::outcome::report::CallReport;
use crate::outcome::{FailureCause, FailureKind, Outcome};
use crate::policy::plan::Plan;
use crate::telemetry::{CallSpan, Heard};
use crate::time::{self, Tick};
use crate::upstream::{AttemptPermit, Upstream};

/// What an answer owes whose head has no status.
#[derive(Debug)]
pub(super) struct Owed {
    classifier: Option<Classifier>,
    /// Its reader sees trailers, so that a status that hasn't come by the end is missing.
    shown: bool,
    /// The status hasn't come.
    due: bool,
    /// What is told of the call once it has.
    untold: Option<Untold>,
}

/// A call whose end isn't told with its head, as that doesn't say how it went.
#[derive(Debug)]
pub(in crate::call) struct Untold {
    pub(in crate::call) heard: Heard,
    pub(in crate::call) span: Option<Box<CallSpan>>,
}

impl Untold {
    #[cold]
    fn tell(&self, upstream: &Upstream, report: &CallReport, nanos: u64, end: CallEnd) {
        if let Some(span) = &self.span {
            span.ended(end, report.attempts().len());
        }
        finished_for_all(upstream, self.heard, report, nanos, end);
    }
}

/// In which words whoever reads a body hears that it has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// In errors: it isn't gRPC's.
    Errors,
    /// In errors: it is gRPC's, but read by who knows them.
    ErrorsOfGrpc,
    /// In a status.
    Statuses,
    /// It has been given its trailers, after which there is nothing.
    Said,
}

/// Whether an answer's head says how the call went.
pub(in crate::call) fn has_status<X: Exchange>(answer: &X::Answer) -> bool {
    Code::of(X::headers(answer)).is_some()
}

/// Whether a good answer says how the call went when its trailers come, and its reader sees those.
pub(in crate::call) fn is_owed<X: Exchange>(answer: &X::Answer) -> bool {
    X::SHOWS_TRAILERS && !has_status::<X>(answer)
}

/// Says in an attempt's span how the call went, if these headers or trailers do.
pub(in crate::call) fn record(permit: Option<&AttemptPermit>, headers: Option<&HeaderMap>) {
    if let Some(span) = permit.and_then(AttemptPermit::span)
        && let Some(code) = headers.and_then(Code::of)
    {
        span.has_grpc_status(code);
    }
}

/// What an answer means whose head had no status, by its trailers if there are any; `begun` when
/// something came before them.
pub(in crate::call) fn judge(
    classifier: Option<&Classifier>,
    trailers: Option<&HeaderMap>,
    begun: bool,
) -> Classified {
    let none = HeaderMap::new();
    let end = Ended::Response(StatusCode::OK, trailers.unwrap_or(&none));
    Classifier::classify(classifier, end, Evidence::DIRECT, Speech::GrpcTrailers { begun })
}

impl Guard {
    /// It answers a gRPC call; if its head was `good` and has no status, that is to come, and then
    /// the call's end is told.
    pub(in crate::call) fn of_grpc<X: Exchange>(
        &mut self,
        answer: &X::Answer,
        good: bool,
        plan: &Plan,
        untold: Option<Untold>,
    ) {
        self.words = Words::ErrorsOfGrpc;
        if good && !has_status::<X>(answer) {
            let (classifier, shown, due) = (plan.classifier.clone(), X::SHOWS_TRAILERS, true);
            self.owed = Some(Box::new(Owed { classifier, shown, due, untold }));
        }
    }

    /// The call has its end, if that is still to be told. A stream has been the caller's since its
    /// head came; any other call lasts until its status is known.
    pub(super) fn call_ends(
        &mut self,
        permit: &AttemptPermit,
        end: impl FnOnce(Option<StatusCode>) -> CallEnd,
        now: Tick,
    ) {
        let Some(untold) = self.owed.as_mut().and_then(|owed| owed.untold.take()) else { return };
        let report = &self.report;
        let nanos = if report.is_streaming() { report.elapsed } else { now.nanos_since(report.began()) };
        untold.tell(permit.upstream(), report, nanos, end(permit.status()));
    }

    /// The call is over without its status. That is how a stream ends that its caller wants no
    /// more, or that has had its time.
    pub(super) fn call_is_cut(&mut self, permit: &AttemptPermit, end: CallEnd, now: Tick) {
        let streaming = self.report.is_streaming();
        let end = |status| if streaming { CallEnd::answered(status, Outcome::Success) } else { end };
        self.call_ends(permit, end, now);
    }

    /// Whether its status is still to come.
    #[inline]
    fn owes_status(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.due)
    }

    /// Whoever reads it, if it is gRPC's, knows statuses, and no errors of ours.
    pub(crate) fn ends_in_a_status(&mut self) {
        if self.words == Words::ErrorsOfGrpc {
            self.words = Words::Statuses;
        }
    }

    /// It has ended, and hasn't said how the call went to somebody who would have heard.
    pub(super) fn lacks_status(&mut self) -> bool {
        let Some(owed) = self.owed.as_mut() else { return false };
        std::mem::take(&mut owed.due) && owed.shown
    }

    /// Takes the status out of trailers, before they are judged as a piece of the body.
    /// They are its end, whenever they come.
    #[inline]
    pub(super) fn hear_status<E>(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, E>>>) {
        if self.owes_status()
            && let Poll::Ready(Some(Ok(frame))) = polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.heard_status(trailers);
        }
    }

    #[cold]
    fn heard_status(&mut self, trailers: &HeaderMap) {
        let Some(owed) = self.owed.as_mut() else { return };
        owed.due = false;
        let end = judge(owed.classifier.as_ref(), Some(trailers), self.begun);
        if self.words == Words::Statuses {
            self.words = Words::Said;
        }
        record(self.permit.as_ref(), Some(trailers));
        if end.is_success() {
            self.ended();
        } else {
            self.ends_as(&end, time::now());
        }
    }

    /// The body has ended, and not well: as its server says, or without a status.
    pub(super) fn ends_as(&mut self, end: &Classified, now: Tick) {
        // By the time our own timer would have ended it.
        const ABOUT: u64 = 2_000_000;
        let cut = matches!(end.outcome, Outcome::Failure(FailureKind::Timeout | FailureKind::Body));
        if cut && now.after_nanos(ABOUT) >= self.deadline {
            // The caller's time is over, of which the server was told.
            self.out_of_time(FailureKind::Timeout, FailureCause::Own, now);
        } else {
            self.failed_with(end, Duration::ZERO, now);
        }
    }

    /// What the reader gets, who may know statuses and no errors.
    #[inline]
    pub(super) fn in_its_words(
        &mut self,
        judged: Poll<Option<Result<Frame<Bytes>, Error>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match judged {
            Poll::Ready(Some(Err(error))) => match self.words {
                Words::Errors | Words::ErrorsOfGrpc => Poll::Ready(Some(Err(error))),
                Words::Statuses => {
                    self.words = Words::Said;
                    Poll::Ready(Some(Ok(Frame::trailers(crate::grpc::status(&error)))))
                }
                Words::Said => Poll::Ready(None),
            },
            judged => judged,
        }
    }
}
