//! What is told of a call that has its result.

use std::time::Duration;

use super::CallState;
#[cfg(feature = "grpc")]
use crate::call::begin::GrpcCall;
use crate::call::exchange::Exchange;
#[cfg(feature = "grpc")]
use crate::call::response_body::grpc::{Untold, is_owed};
use crate::event::{CallEnd, Event, EventKinds};
#[cfg(feature = "grpc")]
use crate::outcome::classify::Classified;
use crate::outcome::report::CallReport;
use crate::telemetry::Heard;
use crate::upstream::Upstream;

impl<X: Exchange> CallState<X> {
    /// The call has its result.
    #[inline]
    pub(super) fn finished(&self, report: &CallReport, end: impl FnOnce() -> CallEnd) {
        if let Some(heard) = self.heard {
            self.tell_finished(heard, report, end());
        }
    }

    /// What is to be told once a gRPC call's status has come, if its head hasn't brought it.
    #[cfg(feature = "grpc")]
    #[inline]
    pub(super) fn untold(&mut self, answer: &X::Answer, end: &Classified) -> Option<Untold> {
        if self.settings.grpc == GrpcCall::No || !end.is_success() || !is_owed::<X>(answer) {
            return None;
        }
        self.heard.map(|heard| Untold { heard, span: self.span.take() })
    }

    #[inline(never)]
    fn tell_finished(&self, heard: Heard, report: &CallReport, end: CallEnd) {
        if let Some(span) = &self.span {
            span.ended(end, report.attempts().len());
        }
        match self.upstream.only_counted(heard, EventKinds::CALL_FINISHED) {
            Some(one) => one.tell(|counts| counts.call_finished(heard.method, report.elapsed, end)),
            None => finished_for_all(&self.upstream, heard, report, report.elapsed, end),
        }
    }
}

/// Tells everybody who hears of it that a call has its end, after so many nanoseconds.
#[cold]
pub(in crate::call) fn finished_for_all(
    upstream: &Upstream,
    heard: Heard,
    report: &CallReport,
    nanos: u64,
    end: CallEnd,
) {
    let (call, method) = (report.call(), heard.method);
    let finished = || Event::CallFinished {
        call,
        method,
        duration: Duration::from_nanos(nanos),
        end,
        cut: report.is_cut(),
        streaming: report.is_streaming(),
    };
    upstream.count_of_call(heard, EventKinds::CALL_FINISHED, finished, |counts| {
        counts.call_finished(method, nanos, end);
    });
}
