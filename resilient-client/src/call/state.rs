//! What a call knows, apart from its futures: it lets attempts in, sends them off, and says what
//! follows each.

mod begun;
mod entry;
mod hop;
mod settle;
pub(super) mod told;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Method, StatusCode};
use tracing::span::EnteredSpan;

use self::begun::{Begin, began};
use super::attempt::{AttemptResult, View};
#[cfg(feature = "grpc")]
use super::begin::{Beyond, GrpcCall};
use super::drain::DrainingResponse;
use super::exchange::Finished;
use super::ledger::{Ledger, Terms};
use super::response_body::Guard;
use crate::call::exchange::Exchange;
use crate::call::kept_body::KeptBody;
use crate::engine::Core;
use crate::error::{Error, ErrorKind};
use crate::event::{CallEnd, Event, EventKinds, HedgeEnd, KnownMethod};
use crate::outcome::call_id::CallId;
use crate::outcome::classify::Classified;
use crate::outcome::rejection::Rejection;
use crate::outcome::report::{CallReport, Decline, Trigger};
use crate::policy::plan::Plan;
use crate::policy::priority::Priority;
use crate::redact::Template;
use crate::telemetry::{CallSpan, Heard, spans_heard};
use crate::time::{self, Tick};
use crate::upstream::entered::Entered;
use crate::upstream::{AttemptPermit, Tried, Waiting};

/// How a call treats what its attempts bring, as far as it isn't in its plan.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a thing of its own")]
pub(super) struct CallSettings {
    /// The longest body to read inside an attempt; `None` to hand bodies over unread.
    pub(super) buffer: Option<usize>,
    /// What the call is worth.
    pub(super) priority: Priority,
    /// Whether the body may take longer than the call's total.
    pub(super) streaming: bool,
    /// Whether a hook is asked for headers.
    pub(super) hooked: bool,
    /// Whether requests say how long their answers are waited for.
    pub(super) tells: bool,
    /// How long, in microseconds, an attempt that the deadline cuts short must have been out to be
    /// held against the server.
    pub(super) chance: u32,
    /// The call has less time than an attempt may take, because whoever waits for its caller has no
    /// more.
    pub(super) hurried: bool,
    #[cfg(feature = "grpc")]
    pub(super) grpc: GrpcCall,
    /// Until when its caller itself gives it, by gRPC.
    #[cfg(feature = "grpc")]
    pub(super) beyond: Beyond,
}

/// With less than this, in nanoseconds, nobody's deadline says anything about a server.
const LEAST_CHANCE: u64 = 100_000_000;
/// A deadline that cuts an attempt short within so many times what attempts usually take was too
/// short.
const USUAL_TIMES: u64 = 3;

/// How long an attempt must have been out, in microseconds, to be held against the server when the
/// call's deadline cuts it short, and whether the call is hurried: `left` is the time it has,
/// `attempt` what it gives an attempt, in nanoseconds.
///
/// Half of an attempt's time is a chance. A caller's deadline that leaves less than an attempt's
/// time must not hide a server that hangs, so then half of what is left is one; but hardly any time
/// is none.
pub(super) fn chance(left: u64, attempt: u64) -> (u32, bool) {
    let hurried = left < attempt;
    let chance = if hurried { (left / 2).max(LEAST_CHANCE).min(attempt / 2) } else { attempt / 2 };
    (u32::try_from(chance / 1000).unwrap_or(u32::MAX), hurried)
}

/// An attempt that waits to be let in.
struct Entry {
    number: u32,
    trigger: Trigger,
    waiting: Box<Waiting>,
}

/// See the [module docs](self). Dropped, it gives back what was granted to attempts that never set
/// out.
pub(super) struct CallState<X: Exchange> {
    pub(super) ledger: Ledger,
    core: Arc<Core>,
    plan: Arc<Plan>,
    settings: CallSettings,
    /// `None` once the call has its result.
    report: Option<CallReport>,
    call: CallId,
    /// Whether somebody listened when the call began.
    heard: Option<Heard>,
    /// Its span, if somebody listens to those.
    span: Option<Box<CallSpan>>,
    // Boxed, all of them: few calls have any, and every call is moved with the room for it.
    entry: Option<Box<Entry>>,
    /// Where its attempts went.
    tried: Tried,
    /// The last real response, being set aside or set aside.
    draining: Option<Box<DrainingResponse<X>>>,
    kept: Option<Box<(X::Head, KeptBody)>>,
    /// What it is for its call.
    kept_end: Option<CallEnd>,
    /// How the last attempt without a response failed, or was refused.
    fault: Option<Error>,
    rejection: Option<Box<Rejection>>,
    /// Left last, when nothing of the call is in it any more.
    upstream: Entered,
}

impl<X: Exchange> CallState<X> {
    #[inline]
    pub(super) fn new(
        core: Arc<Core>,
        plan: Arc<Plan>,
        upstream: Entered,
        terms: Terms,
        settings: CallSettings,
        (method, template): (&Method, Option<Template>),
        now: Tick,
    ) -> Self {
        let (call, policy_version) = (CallId::next(), plan.version);
        let heard = upstream.heard(method);
        let template_shown = template.as_ref();
        let told = heard.filter(|_| spans_heard() || upstream.wants(EventKinds::CALL_STARTED));
        let span = told.and_then(|heard| {
            let until = Some(terms.deadline).filter(|until| !until.is_never() && !settings.streaming);
            let begin = Begin { call, at: now, policy_version, until };
            began(&upstream, heard, (method, template_shown), begin)
        });
        Self {
            heard,
            span,
            ledger: Ledger::new(terms, now),
            report: Some(
                CallReport::new(call, Arc::clone(upstream.name()), policy_version, now).shown_as(template),
            ),
            call,
            core,
            plan,
            settings,
            entry: None,
            tried: Tried::new(),
            draining: None,
            kept: None,
            kept_end: None,
            fault: None,
            rejection: None,
            upstream,
        }
    }

    /// Tells of something that happened to this call, if anybody wants to hear of its `kind`.
    #[inline]
    fn emit(&self, kind: EventKinds, event: impl FnOnce(KnownMethod) -> Event) {
        if let Some(heard) = self.heard {
            self.upstream.emit_of_call(heard, kind, || event(heard.method));
        }
    }

    /// Makes the call's span, if it has one, the current one.
    #[inline]
    pub(super) fn entered(&self) -> Option<EnteredSpan> {
        self.span.as_deref().map(CallSpan::entered)
    }

    /// How the attempts of this call look at their results.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        let body_idle = self.plan.timeout.body_idle;
        // The attempt's own timer is there already: another is needed only if it could fire first.
        let body_idle = if body_idle < self.ledger.terms().attempt_timeout { body_idle } else { u64::MAX };
        let classifier = self.plan.classifier.as_ref();
        View {
            classifier,
            buffer: self.settings.buffer,
            body_idle,
            #[cfg(feature = "grpc")]
            grpc: self.settings.grpc != GrpcCall::No,
        }
    }

    /// Reads on in an answer that is being set aside: ready when that is done.
    pub(super) fn poll_draining(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(draining) = &mut self.draining else { return Poll::Pending };
        let cut = ready!(draining.poll(cx));
        self.kept = self.draining.take().map(|draining| Box::new(draining.finish(cut)));
        Poll::Ready(())
    }

    /// Until when an answer may take to be set aside, if one is.
    pub(super) fn drain_until(&self) -> Option<Tick> {
        self.draining.as_ref().map(|draining| draining.until())
    }

    /// Sets an answer aside as it is.
    pub(super) fn stop_draining(&mut self) {
        self.kept = self.draining.take().map(|draining| Box::new(draining.finish(true)));
    }

    /// Whether nothing but an attempt in flight, or time, can bring this call on.
    pub(super) fn is_idle(&self) -> bool {
        self.entry.is_none() && self.draining.is_none()
    }

    /// How long, in nanoseconds, an attempt that the deadline cuts short must have been out to be
    /// held against the server.
    pub(super) fn chance(&self, now: Tick) -> u64 {
        let usual = if self.settings.hurried { self.upstream.usual_or_shortest(now) } else { None };
        (u64::from(self.settings.chance) * 1000)
            .max(usual.map_or(0, |usual| usual.saturating_mul(USUAL_TIMES)))
    }

    /// How long an attempt may take, in nanoseconds.
    pub(super) fn attempt_timeout(&self) -> u64 {
        self.ledger.terms().attempt_timeout
    }

    /// The deadline has cut an attempt short.
    pub(super) fn cut_short(&mut self) {
        self.fault = Some(Error::new(ErrorKind::Deadline));
    }

    /// The call's result, from the attempt that ends it.
    #[allow(clippy::inline_always, reason = "what it returns is large, and is taken apart at once")]
    #[inline(always)]
    pub(super) fn answer(
        &mut self,
        exchange: &mut X,
        permit: Option<AttemptPermit>,
        result: AttemptResult<X>,
        end: Classified,
        now: Tick,
    ) -> Option<Finished<X>> {
        self.leave_entry(false, now);
        let mut permit = permit?;
        let mut report = self.report.take()?;
        let response = || CallEnd::answered(end.status, end.outcome);
        if end.is_success() {
            // The verdict is left to the body, unless that has been read.
            permit.timed(now);
            self.ledger.succeeded();
        }
        match result {
            AttemptResult::Head(answer) => {
                permit.head(&end, now);
                self.forget_the_rest();
                report.finish(now, false);
                let unending = self.settings.streaming || X::is_unending(&answer);
                let deadline = if unending { self.streams_until() } else { self.ledger.terms().deadline };
                report.streams = unending;
                #[cfg(feature = "grpc")]
                let untold = self.untold(&answer, &end);
                #[cfg(feature = "grpc")]
                let told = untold.is_none();
                #[cfg(not(feature = "grpc"))]
                let told = true;
                if told {
                    self.finished(&report, response);
                }
                self.upstream.leave_with(&mut permit);
                let timeout = &self.plan.timeout;
                let idle = if unending { timeout.stream_idle } else { timeout.body_idle };
                let mut guard = Guard::new(permit, report, deadline, idle);
                guard.on_shared(X::is_shared(&answer));
                #[cfg(feature = "grpc")]
                if self.settings.grpc != GrpcCall::No {
                    guard.of_grpc::<X>(&answer, end.is_success(), &self.plan, untold);
                }
                Some(Ok(exchange.seal(answer, guard)))
            }
            AttemptResult::Whole(whole) => {
                report.finish(now, false);
                permit.settle(&end, now);
                drop(permit);
                self.forget_the_rest();
                self.finished(&report, response);
                self.upstream.leave();
                let (head, body) = *whole;
                Some(Ok(exchange.reassemble(head, body, report)))
            }
            AttemptResult::Fault(error) => {
                self.fault = Some(error);
                // Settled already, unless a classifier of the user's calls an error a success.
                permit.settle(&end, now);
                drop(permit);
                self.report = Some(report);
                self.without_answer(exchange, now)
            }
        }
    }

    /// The answer is there: what was kept in case none came, and what was granted to an attempt
    /// that won't set out, are given back now and not when the caller drops the call.
    #[inline]
    fn forget_the_rest(&mut self) {
        // Most calls have had one attempt, and so neither.
        if self.ledger.has_followed() {
            (self.draining, self.kept) = (None, None);
            self.give_grant_back();
        }
    }

    /// The result of a call whose last attempt brought no response: the last real response there
    /// was, else the error.
    #[cold]
    pub(super) fn without_answer(&mut self, exchange: &mut X, now: Tick) -> Option<Finished<X>> {
        let unresolved = self.entry.as_ref().and_then(|entry| entry.waiting.unresolved(now));
        self.leave_entry(false, now);
        let mut report = self.report.take()?;
        if let Some(draining) = self.draining.take() {
            self.kept = Some(Box::new(draining.finish_now()));
        }
        self.give_grant_back();
        self.upstream.leave();
        if let Some((head, body)) = self.kept.take().map(|kept| *kept) {
            report.finish(now, body.cut);
            self.finished(&report, || self.kept_end.unwrap_or(CallEnd::Response(StatusCode::OK)));
            return Some(Ok(exchange.reassemble(head, body, report)));
        }
        report.finish(now, false);
        let error = match (self.fault.take(), self.rejection.take()) {
            (Some(fault), _) => fault,
            (None, Some(rejection)) => Error::rejected(*rejection),
            (None, None) => match unresolved {
                Some(cause) => Error::new(ErrorKind::Deadline).says(cause.to_string()).because(cause),
                None => Error::new(ErrorKind::Deadline),
            },
        };
        self.finished(&report, || CallEnd::Error(error.kind()));
        Some(Err(error.with_report(report)))
    }

    fn decline(&mut self, why: Decline) {
        let call = self.call;
        self.emit(EventKinds::RETRY_DECLINED, |_| Event::RetryDeclined { call, why: why.clone() });
        if let Some(report) = &mut self.report {
            report.decline(why);
        }
    }

    fn give_grant_back(&mut self) {
        if let Some(grant) = self.ledger.take_grant() {
            self.upstream.give_back(grant);
        }
    }
}

impl<X: Exchange> Drop for CallState<X> {
    fn drop(&mut self) {
        self.give_grant_back();
        if let Some(report) = &self.report
            && self.heard.is_some()
        {
            let (call, now) = (self.call, time::now());
            let (duration, attempts) = (now.since(report.began()), report.attempts().len());
            for number in report.hedges_in_flight() {
                let lost = Event::HedgeEnded { call, number, end: HedgeEnd::Lost };
                self.emit(EventKinds::HEDGE_ENDED, |_| lost);
            }
            self.leave_entry(false, now);
            let end = CallEnd::Dropped;
            if let Some(span) = &self.span {
                span.ended(end, attempts);
            }
            let (cut, streaming) = (false, false);
            self.emit(EventKinds::CALL_FINISHED, |method| Event::CallFinished {
                call,
                method,
                duration,
                end,
                cut,
                streaming,
            });
        }
    }
}
