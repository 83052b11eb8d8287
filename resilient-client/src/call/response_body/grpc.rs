//! The status of a gRPC call, as far as it comes with its answer's trailers.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;

use super::Guard;
use crate::call::exchange::Exchange;
use crate::error::Error;
use crate::outcome::classify::evidence::Evidence;
use crate::outcome::classify::grpc::Code;
use crate::outcome::classify::{Classified, Classifier, Ended, Speech};
use crate::outcome::{Cause, FailureKind, Outcome};
use crate::time::{self, Tick};
use crate::upstream::AttemptPermit;

/// What an answer owes whose head has no status.
#[derive(Debug)]
pub(super) struct Owed {
    classifier: Option<Classifier>,
    /// Its reader sees trailers, so that a status that hasn't come by the end is missing.
    shown: bool,
    /// Its reader knows statuses, and no errors of ours.
    in_a_status: bool,
}

/// Whether an answer's head says how the call went.
pub(in crate::call) fn has_status<X: Exchange>(answer: &X::Answer) -> bool {
    Code::of(X::headers(answer)).is_some()
}

/// Says in an attempt's span how the call went, if these headers or trailers do.
pub(in crate::call) fn record(permit: Option<&AttemptPermit>, headers: Option<&HeaderMap>) {
    if let Some(span) = permit.and_then(AttemptPermit::span)
        && let Some(code) = headers.and_then(Code::of)
    {
        span.has_grpc_status(code);
    }
}

/// What an answer means whose head had no status, by its trailers if there are any.
pub(in crate::call) fn judge(classifier: Option<&Classifier>, trailers: Option<&HeaderMap>) -> Classified {
    let none = HeaderMap::new();
    let end = Ended::Response(StatusCode::OK, trailers.unwrap_or(&none));
    Classifier::classify(classifier, end, Evidence::DIRECT, Speech::GrpcTrailers)
}

impl Guard {
    /// It answers a gRPC call, and its head was good.
    pub(in crate::call) fn owes_status<X: Exchange>(
        &mut self,
        answer: &X::Answer,
        classifier: Option<Classifier>,
    ) {
        if !has_status::<X>(answer) {
            let (shown, in_a_status) = (X::SHOWS_TRAILERS, false);
            self.owed = Some(Box::new(Owed { classifier, shown, in_a_status }));
        }
    }

    /// Whoever reads it knows statuses, and no errors of ours.
    pub(crate) fn ends_in_a_status(&mut self) {
        if let Some(owed) = &mut self.owed {
            owed.in_a_status = true;
        }
    }

    /// It has ended, and hasn't said how the call went to somebody who would have heard.
    pub(super) fn lacks_status(&mut self) -> bool {
        self.owed.is_some() && self.owed.take().is_some_and(|owed| owed.shown)
    }

    /// Takes the status out of trailers, before they are judged as a piece of the body.
    #[inline]
    pub(super) fn hear_status<E>(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, E>>>) {
        if self.owed.is_some()
            && let Poll::Ready(Some(Ok(frame))) = polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.heard_status(trailers);
        }
    }

    #[cold]
    fn heard_status(&mut self, trailers: &HeaderMap) {
        // By the time our own timer would have ended it.
        const ABOUT: u64 = 2_000_000;
        let Some(owed) = self.owed.take() else { return };
        record(self.permit.as_ref(), Some(trailers));
        let end = judge(owed.classifier.as_ref(), Some(trailers));
        if end.is_success() {
            return;
        }
        let now = time::now();
        let timed_out = end.outcome == Outcome::Failure(FailureKind::Timeout);
        if !(timed_out && now.after_nanos(ABOUT) >= self.deadline) {
            return self.failed_as(&end, now);
        }
        // The caller's time is over, of which the server was told.
        if let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) {
            let waited =
                self.idle_timer.waited(now).map_or(Duration::ZERO, |(since, until)| until.since(since));
            let outcome = permit.abandon(FailureKind::Timeout, Cause::Own, waited, u64::MAX, now);
            self.report.settled(permit.number(), outcome, permit.status(), now);
        }
    }

    /// The body has ended, and not well.
    pub(super) fn failed_as(&mut self, end: &Classified, now: Tick) {
        let Some(mut permit) = self.permit.take().filter(AttemptPermit::awaits_body) else { return };
        self.report.settled(permit.number(), end.outcome, permit.status(), now);
        permit.body(end.verdict, end, now);
    }

    /// What the reader gets, who may know statuses and no errors.
    #[inline]
    pub(super) fn in_its_words(
        &mut self,
        judged: Poll<Option<Result<Frame<Bytes>, Error>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match judged {
            Poll::Ready(Some(Err(error))) if self.owed.as_ref().is_some_and(|owed| owed.in_a_status) => {
                self.owed = None;
                Poll::Ready(Some(Ok(Frame::trailers(crate::grpc::status(&error)))))
            }
            judged => judged,
        }
    }
}
