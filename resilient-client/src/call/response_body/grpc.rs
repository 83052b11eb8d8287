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
use crate::policy::plan::Plan;
use crate::time::{self, Tick};
use crate::upstream::AttemptPermit;

/// What an answer owes whose head has no status.
#[derive(Debug)]
pub(super) struct Owed {
    classifier: Option<Classifier>,
    /// Its reader sees trailers, so that a status that hasn't come by the end is missing.
    shown: bool,
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
    /// It answers a gRPC call; if its head was `good` and has no status, that is to come.
    pub(in crate::call) fn of_grpc<X: Exchange>(&mut self, answer: &X::Answer, good: bool, plan: &Plan) {
        self.words = Words::ErrorsOfGrpc;
        if good && !has_status::<X>(answer) {
            let (classifier, shown) = (plan.classifier.clone(), X::SHOWS_TRAILERS);
            self.owed = Some(Box::new(Owed { classifier, shown }));
        }
    }

    /// Whoever reads it, if it is gRPC's, knows statuses, and no errors of ours.
    pub(crate) fn ends_in_a_status(&mut self) {
        if self.words == Words::ErrorsOfGrpc {
            self.words = Words::Statuses;
        }
    }

    /// It has ended, and hasn't said how the call went to somebody who would have heard.
    pub(super) fn lacks_status(&mut self) -> bool {
        self.owed.is_some() && self.owed.take().is_some_and(|owed| owed.shown)
    }

    /// Takes the status out of trailers, before they are judged as a piece of the body.
    /// They are its end, whenever they come.
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
        let Some(owed) = self.owed.take() else { return };
        if self.words == Words::Statuses {
            self.words = Words::Said;
        }
        record(self.permit.as_ref(), Some(trailers));
        let end = judge(owed.classifier.as_ref(), Some(trailers), self.begun);
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
            self.out_of_time(FailureKind::Timeout, Cause::Own, now);
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
                    (self.owed, self.words) = (None, Words::Said);
                    Poll::Ready(Some(Ok(Frame::trailers(crate::grpc::status(&error)))))
                }
                Words::Said => Poll::Ready(None),
            },
            judged => judged,
        }
    }
}
