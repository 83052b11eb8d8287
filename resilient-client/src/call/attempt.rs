//! One attempt on its way: its place in the upstream, its future, and its body where that is part
//! of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tracing::span::Entered;

use super::drain::{End, Reading};
use super::idle_timer::IdleTimer;
#[cfg(feature = "grpc")]
use super::response_body::grpc;
use crate::call::exchange::{Departure, Exchange, Expired, Outbound, Overdue, Reached};
use crate::call::kept_body::KeptBody;
use crate::call::response_body::body_failure;
use crate::error::{BoxError, Error, ErrorKind};
use crate::hook::{self, Later};
use crate::outcome::classify::connecting;
use crate::outcome::classify::{Classified, Classifier, Repeat, Speech};
use crate::outcome::report::Trigger;
use crate::outcome::{FailureCause, FailureKind};
use crate::telemetry::AttemptSpan;
use crate::time::{self, Tick};
use crate::upstream::AttemptPermit;

pin_project! {
    /// One attempt in flight.
    pub(super) struct RunningAttempt<X: Exchange> {
        // What a hook still has to say, before there is a future.
        preparing: Option<Box<(Later, Outbound)>>,
        // `None` once the head has come.
        #[pin]
        future: Option<X::Future>,
        reading: Option<Box<Whole<X>>>,
        permit: Option<AttemptPermit>,
        number: u32,
    }
}

/// An answer whose body is part of the attempt.
struct Whole<X: Exchange> {
    reading: Reading<X>,
    head: Classified,
    limit: usize,
    idle_timer: IdleTimer,
    /// Its connection may be the cause of its stalling.
    shared: bool,
    /// It is gRPC's, and its head hasn't said what it is.
    #[cfg(feature = "grpc")]
    owes_status: bool,
}

/// What came of an attempt.
pub(super) enum AttemptResult<X: Exchange> {
    /// A head, its body still to come.
    Head(X::Answer),
    /// An answer read to its end. Boxed with what it was read by.
    Whole(Box<(X::Head, KeptBody)>),
    /// Nothing.
    Fault(Error),
}

/// An attempt that has ended.
pub(super) struct SettledAttempt<X: Exchange> {
    pub(super) number: u32,
    /// Its place in the upstream.
    pub(super) permit: Option<AttemptPermit>,
    pub(super) result: AttemptResult<X>,
    /// What that means.
    pub(super) classified: Classified,
}

/// How the attempts of a call look at their results.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) classifier: Option<&'a Classifier>,
    /// The longest body to read inside the attempt; `None` to hand bodies over unread.
    pub(super) buffer: Option<usize>,
    /// The longest pause in such a body, in nanoseconds.
    pub(super) body_idle: u64,
    /// The call is by gRPC.
    #[cfg(feature = "grpc")]
    pub(super) grpc: bool,
}

impl View<'_> {
    /// What is known of an answer before its headers are looked at; `may_be_grpc` when it is over
    /// with its head, and came over HTTP/2.
    #[inline]
    #[cfg_attr(not(feature = "grpc"), allow(clippy::unused_self, reason = "it knows no gRPC"))]
    fn speech(&self, may_be_grpc: bool) -> Speech {
        #[cfg(feature = "grpc")]
        if self.grpc {
            return Speech::Grpc { whole: may_be_grpc };
        }
        if may_be_grpc { Speech::MayBeGrpc } else { Speech::Http }
    }
}

/// The attempt's span is the current one while its future is polled.
#[inline]
fn entered(permit: Option<&AttemptPermit>) -> Option<Entered<'_>> {
    permit.and_then(AttemptPermit::span).map(AttemptSpan::enter)
}

/// An attempt for which there is no more time. Whether others are answered lately: within the
/// `usual` time of one, and since this one set out.
fn overdue(permit: &AttemptPermit, usual: u64, now: Tick) -> Overdue<'_> {
    let since = permit.started();
    let alive = permit.has_served_within(usual.min(now.nanos_since(since)), now);
    Overdue { upstream: permit.upstream(), since, now, alive }
}

impl<X: Exchange> RunningAttempt<X> {
    /// With the transport, to be sent at the first poll, unless it is at work already.
    pub(super) fn launched(
        future: X::Future,
        mut permit: AttemptPermit,
        number: u32,
        trigger: Trigger,
    ) -> Self {
        permit.launched(trigger, X::is_eager(&future));
        Self { preparing: None, future: Some(future), reading: None, permit: Some(permit), number }
    }

    /// Waiting for a hook.
    pub(super) fn preparing(later: Later, outbound: Outbound, mut permit: AttemptPermit) -> Self {
        permit.prepares();
        let number = outbound.number;
        Self {
            preparing: Some(Box::new((later, outbound))),
            future: None,
            reading: None,
            permit: Some(permit),
            number,
        }
    }

    /// Never sent, because its time was up before it could be: it only waits for its end.
    pub(super) fn overdue(mut permit: AttemptPermit, number: u32) -> Self {
        permit.prepares();
        Self { preparing: None, future: None, reading: None, permit: Some(permit), number }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Its span, if somebody listens to those.
    pub(super) fn span(&self) -> Option<&AttemptSpan> {
        self.permit.as_ref()?.span()
    }

    /// Its place in the upstream; `None` if it was taken before.
    pub(super) fn take_permit(self: Pin<&mut Self>) -> Option<AttemptPermit> {
        self.project().permit.take()
    }

    /// Its time is up.
    pub(super) fn expired(
        self: Pin<&mut Self>,
        exchange: &mut X,
        now: Tick,
        counts: impl FnOnce(&AttemptPermit) -> bool,
        usual: u64,
    ) -> Expired {
        let this = self.project();
        if let Some(whole) = this.reading {
            exchange.body_failed();
            return Expired { cause: cause_of_stall(whole.shared), reached: Reached::Server };
        }
        let Some((future, permit)) = this.future.as_pin_mut().zip(this.permit.as_ref()) else {
            return Expired::default();
        };
        exchange.expired(future, overdue(permit, usual, now), counts(permit))
    }

    /// Since when it has its time, if the server may not have had it all the while.
    pub(super) fn begun(&self, exchange: &X, now: Tick, usual: u64) -> Option<Tick> {
        let (future, permit) = self.future.as_ref().zip(self.permit.as_ref())?;
        Some(exchange.begun(future, overdue(permit, usual, now)))
    }

    /// Ready when the attempt has ended, as far as it is read in flight.
    #[allow(clippy::inline_always, reason = "what it returns is large, and is taken apart at once")]
    #[inline(always)]
    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        exchange: &mut X,
        view: View<'_>,
    ) -> Poll<(AttemptResult<X>, Classified)> {
        if self.preparing.is_some()
            && let Some(end) = ready!(self.as_mut().poll_hook(cx, exchange))
        {
            return Poll::Ready(end);
        }
        let mut this = self.project();
        loop {
            if this.reading.is_some() {
                let _entered = entered(this.permit.as_ref());
                return poll_body(this.reading, cx, exchange, view, this.permit.as_ref());
            }
            let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Pending };
            if let Some(permit) = this.permit {
                permit.sent();
            }
            let end = {
                let _entered = entered(this.permit.as_ref());
                ready!(future.poll(cx))
            };
            this.future.set(None);
            let may_be_grpc = end.as_ref().is_ok_and(X::may_be_grpc);
            let evidence = exchange.evidence(&end, this.permit.as_ref().map(AttemptPermit::upstream));
            #[cfg(feature = "grpc")]
            if view.grpc {
                grpc::record(this.permit.as_ref(), end.as_ref().ok().map(X::headers));
            }
            let speech = view.speech(may_be_grpc);
            let classified = Classifier::classify(view.classifier, X::end(&end), evidence, speech);
            let answer = match end {
                Ok(answer) => answer,
                Err(fault) => {
                    let error = connecting::error_of(classified.outcome, fault.into());
                    return Poll::Ready((AttemptResult::Fault(error), classified));
                }
            };
            let Some(limit) = view.buffer.filter(|_| classified.is_success()) else {
                return Poll::Ready((AttemptResult::Head(answer), classified));
            };
            if let Some(permit) = this.permit {
                permit.has_status(classified.status);
            }
            let shared = X::is_shared(&answer);
            #[cfg(feature = "grpc")]
            let owes_status = view.grpc && !grpc::has_status::<X>(&answer);
            *this.reading = Some(Box::new(Whole {
                shared,
                reading: Reading::new(exchange, answer, limit),
                head: classified,
                limit,
                idle_timer: IdleTimer::new(view.body_idle),
                #[cfg(feature = "grpc")]
                owes_status,
            }));
        }
    }

    /// Waits for the hook, then hands the request to the transport. Ready with `None` when that has
    /// been done, and with the attempt's end when it can't be.
    #[cold]
    fn poll_hook(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        exchange: &mut X,
    ) -> Poll<Option<(AttemptResult<X>, Classified)>> {
        let mut this = self.project();
        let Some(preparing) = this.preparing else { return Poll::Ready(None) };
        let prepared = {
            let _entered = entered(this.permit.as_ref());
            ready!(preparing.0.as_mut().poll(cx))
        };
        let Some((_, outbound)) = this.preparing.take().map(|preparing| *preparing) else {
            return Poll::Pending;
        };
        let request = exchange.request();
        let request = request.as_ref().map(|request| request.headers);
        let headers = match prepared.and_then(|headers| hook::fitting(headers, request)) {
            Ok(headers) => headers,
            Err(error) => {
                return Poll::Ready(Some((AttemptResult::Fault(unprepared(error)), Classified::IGNORED)));
            }
        };
        let now = time::now();
        if now >= outbound.until {
            // Nobody would wait for the answer; the engine ends the attempt when it looks at its
            // clock.
            return Poll::Pending;
        }
        let Some(permit) = this.permit.as_mut() else { return Poll::Pending };
        permit.leaves();
        let trigger = outbound.trigger;
        let outbound = Outbound { headers: Some(Box::new(headers)), ..outbound };
        let to = Departure { upstream: permit.upstream(), cx, now };
        let entered = permit.span().map(AttemptSpan::enter);
        let future = exchange.launch(outbound, to);
        drop(entered);
        let Some(future) = future else {
            permit.prepares();
            // Another attempt has outgrown the body's buffer meanwhile, and may well succeed.
            let end = Classified { repeat: Repeat::IfSafe, ..Classified::IGNORED };
            return Poll::Ready(Some((AttemptResult::Fault(not_kept()), end)));
        };
        permit.launched(trigger, X::is_eager(&future));
        this.future.set(Some(future));
        Poll::Ready(None)
    }
}

/// Reads on in an answer whose body is part of the attempt: ready with the attempt's end.
#[allow(clippy::inline_always, reason = "what it returns is large, and is taken apart at once")]
#[inline(always)]
fn poll_body<X: Exchange>(
    reading: &mut Option<Box<Whole<X>>>,
    cx: &mut Context<'_>,
    exchange: &mut X,
    view: View<'_>,
    permit: Option<&AttemptPermit>,
) -> Poll<(AttemptResult<X>, Classified)> {
    let Some(whole) = reading else { return Poll::Pending };
    let end = ready!(whole.poll(cx));
    let Some(whole) = reading.take() else { return Poll::Pending };
    if matches!(end, End::Failed(_) | End::Stalled) {
        exchange.body_failed();
    }
    Poll::Ready(whole.end(end, view, permit))
}

/// What it is put down to when a body doesn't come. Nobody knows which connection those were on
/// that shared one.
pub(super) fn cause_of_stall(shared: bool) -> FailureCause {
    if shared { FailureCause::Lost } else { FailureCause::Own }
}

/// The error of an attempt whose hook failed.
pub(super) fn unprepared(error: BoxError) -> Error {
    Error::new(ErrorKind::Request).says("the attempt's hook failed").because(error)
}

/// The error of an attempt whose request was gone when it was to be sent.
fn not_kept() -> Error {
    Error::new(ErrorKind::Request).says("its body can't be sent again")
}

impl<X: Exchange> Whole<X> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let polled = self.reading.poll(cx);
        if self.reading.take_progress() {
            self.idle_timer.rest();
        }
        if polled.is_pending() {
            ready!(self.idle_timer.poll(cx, Tick::NEVER));
            return Poll::Ready(End::Stalled);
        }
        polled
    }

    /// The attempt's result, and what it means.
    #[cfg_attr(not(feature = "grpc"), allow(unused_variables, reason = "the head has said it"))]
    fn end(self, end: End, view: View<'_>, permit: Option<&AttemptPermit>) -> (AttemptResult<X>, Classified) {
        #[cfg(feature = "grpc")]
        let owes_status = self.owes_status;
        let Self { reading, head, limit, shared, .. } = self;
        let failed = |end: Classified| Classified { status: head.status, ..end };
        match end {
            End::Whole => {
                #[cfg(feature = "grpc")]
                let head = if owes_status {
                    grpc::record(permit, reading.trailers());
                    grpc::judge(view.classifier, reading.trailers(), reading.has_begun())
                } else {
                    head
                };
                let (parts, body) = reading.finish(false);
                (AttemptResult::Whole(Box::new((parts, body))), head)
            }
            End::TooLong => {
                let error = Error::new(ErrorKind::BodyTooLarge).says(format!("more than {limit} bytes"));
                (AttemptResult::Fault(error), Classified { status: head.status, ..Classified::IGNORED })
            }
            End::Failed(error) => {
                let (kind, error) = connecting::body_error(error);
                (AttemptResult::Fault(error), failed(body_failure(kind, shared)))
            }
            End::Stalled => {
                let end = body_failure(FailureKind::BodyIdle, shared);
                (AttemptResult::Fault(Error::new(ErrorKind::BodyIdle)), failed(end))
            }
        }
    }
}
