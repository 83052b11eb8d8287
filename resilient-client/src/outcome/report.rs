//! What happened inside one call, for whoever has to explain it.
//!
//! A report is built as the call goes, in place: a call that succeeds at the first attempt
//! allocates nothing for it.

mod decline;
mod rare;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use smallvec::SmallVec;

pub use self::decline::Decline;
use self::rare::Rare;
use crate::origin::Origin;
use crate::outcome::Outcome;
use crate::outcome::call_id::CallId;
use crate::redact::Template;
use crate::time::Tick;

/// Why an attempt was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// The call's first attempt.
    First,
    /// An earlier attempt failed.
    Retry,
    /// An earlier attempt was taking its time.
    Hedge,
}

impl Trigger {
    /// The stable name used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One attempt of a call.
#[derive(Clone, Debug)]
pub struct AttemptReport {
    pub(crate) number: u32,
    pub(crate) trigger: Trigger,
    pub(crate) endpoint: Option<Origin>,
    /// From the start of the call, in nanoseconds.
    started: u64,
    /// In nanoseconds.
    duration: u64,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) status: Option<StatusCode>,
}

impl AttemptReport {
    /// 1 for the first.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Why it was sent.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// Where it went, if the name called stands for several endpoints.
    pub fn endpoint(&self) -> Option<&Origin> {
        self.endpoint.as_ref()
    }

    /// When it was sent, from the start of the call.
    pub fn started(&self) -> Duration {
        Duration::from_nanos(self.started)
    }

    /// From sending to the response's head, or to its failure.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration)
    }

    /// What it came to; `None` when the call ended while it was still in flight.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The response's status, where there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }
}

/// Every attempt of a call, and every decision not to make one.
///
/// Carried by every [`Response`](crate::Response) and every [`Error`](crate::Error) of a call.
/// `Display` explains the call in a line an attempt:
///
/// ```text
/// http://users:3000: 2 attempts in 41.2ms
///   #1 first at 0.0ns, 3.1ms: status (503)
///   #2 retry at 21.0ms, 20.2ms: success (200)
/// ```
// Small, because it moves with every response: times are nanoseconds, and what few calls have is
// apart.
#[derive(Clone, Debug)]
pub struct CallReport {
    call: CallId,
    upstream: Arc<str>,
    /// What the call's path is shown as.
    template: Option<Template>,
    began: Tick,
    /// In nanoseconds.
    pub(crate) elapsed: u64,
    /// In nanoseconds.
    queued: u64,
    attempts: SmallVec<[AttemptReport; 1]>,
    /// Boxed, as most calls have none of it.
    rare: Option<Box<Rare>>,
    version: u32,
    /// How many attempts the server provably did not process.
    unprocessed: u16,
    cut: bool,
    pub(crate) streams: bool,
}

impl CallReport {
    pub(crate) fn new(call: CallId, upstream: Arc<str>, version: u64, began: Tick) -> Self {
        Self {
            call,
            upstream,
            template: None,
            version: u32::try_from(version).unwrap_or(u32::MAX),
            unprocessed: 0,
            streams: false,
            began,
            elapsed: 0,
            attempts: SmallVec::new(),
            rare: None,
            cut: false,
            queued: 0,
        }
    }

    /// Of a response that no call has brought.
    pub(crate) fn of_none(upstream: &str) -> Self {
        Self::new(CallId::NONE, upstream.into(), 0, Tick::ZERO)
    }

    pub(crate) fn shown_as(mut self, template: Option<Template>) -> Self {
        self.template = template;
        self
    }

    /// What the call's path is shown as, where it isn't to be shown itself.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// The call's number, which its [events](crate::event::Event) bear.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// The authority called, such as `http://users:3000`.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// From the start of the call to its result (the response's head, for a response).
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed)
    }

    /// Every attempt handed to the transport, in order.
    pub fn attempts(&self) -> &[AttemptReport] {
        &self.attempts
    }

    /// Whether the response returned was set aside for a retry and its body was longer or slower
    /// than could be kept (64 KiB, 50 ms). Reading such a body yields what was kept, then an error.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether the body is exempt from the call's total, because it is an upgrade, a stream of
    /// server-sent events, or the call was marked streaming. Its idle timeout stays.
    pub fn is_streaming(&self) -> bool {
        self.streams
    }

    /// The version of the policies the call followed: how many reloads had changed them.
    pub fn policy_version(&self) -> u64 {
        self.version.into()
    }

    /// How long its attempts waited to be let in: for the rate limit, a place in the bulkhead or
    /// under the overload limit, the first endpoints, or an open breaker.
    pub fn queued(&self) -> Duration {
        Duration::from_nanos(self.queued)
    }

    pub(crate) fn waited(&mut self, since: Tick, now: Tick) {
        self.queued = self.queued.saturating_add(now.nanos_since(since));
    }

    pub(crate) fn launched(&mut self, number: u32, trigger: Trigger, endpoint: Option<Origin>, now: Tick) {
        self.attempts.push(AttemptReport {
            number,
            trigger,
            endpoint,
            started: now.nanos_since(self.began),
            duration: 0,
            outcome: None,
            status: None,
        });
    }

    /// An attempt was never handed to the transport: it was none.
    pub(crate) fn withdraw(&mut self, number: u32) {
        self.attempts.retain(|attempt| attempt.number != number);
    }

    /// The server provably did not process an attempt that has ended.
    pub(crate) fn unprocessed(&mut self) {
        self.unprocessed = self.unprocessed.saturating_add(1);
    }

    /// Whether no attempt was processed, provably. Who redirects has processed.
    pub(crate) fn is_unprocessed(&self) -> bool {
        usize::from(self.unprocessed) == self.attempts.len() && self.redirected_from().is_empty()
    }

    pub(crate) fn settled(&mut self, number: u32, outcome: Outcome, status: Option<StatusCode>, now: Tick) {
        if let Some(attempt) = self.attempts.iter_mut().rev().find(|attempt| attempt.number == number) {
            attempt.duration = now.nanos_since(self.began).saturating_sub(attempt.started);
            attempt.outcome = Some(outcome);
            attempt.status = status;
        }
    }

    /// When the call began.
    pub(crate) fn began(&self) -> Tick {
        self.began
    }

    /// Whether attempt `number` was sent beside another.
    #[cold]
    pub(crate) fn is_hedge(&self, number: u32) -> bool {
        self.attempts.iter().any(|attempt| attempt.number == number && attempt.trigger == Trigger::Hedge)
    }

    /// The attempts sent beside others that haven't ended.
    pub(crate) fn hedges_in_flight(&self) -> impl Iterator<Item = u32> {
        let hedges = self.attempts.iter().filter(|attempt| attempt.trigger == Trigger::Hedge);
        hedges.filter(|attempt| attempt.outcome.is_none()).map(|attempt| attempt.number)
    }

    /// When the call had its result.
    pub(crate) fn ended(&self) -> Tick {
        self.began.after_nanos(self.elapsed)
    }

    pub(crate) fn finish(&mut self, now: Tick, cut: bool) {
        self.elapsed = now.nanos_since(self.began);
        self.cut = cut;
    }
}

impl fmt::Display for CallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for call in self.redirected_from() {
            writeln!(f, "{call}\n  redirected:")?;
        }
        let plural = if self.attempts.len() == 1 { "" } else { "s" };
        write!(f, "{}: {} attempt{plural} in {:.1?}", self.upstream, self.attempts.len(), self.elapsed())?;
        if self.queued != 0 {
            write!(f, ", {:.1?} of it waiting to be let in", self.queued())?;
        }
        for attempt in &self.attempts {
            write!(f, "\n  #{} {} at {:.1?}", attempt.number, attempt.trigger, attempt.started())?;
            if let Some(endpoint) = &attempt.endpoint {
                write!(f, " to {endpoint}")?;
            }
            f.write_str(", ")?;
            match (attempt.outcome, attempt.status) {
                (Some(outcome), Some(status)) => {
                    write!(f, "{:.1?}: {outcome} ({})", attempt.duration(), status.as_u16())?;
                }
                (Some(outcome), None) => write!(f, "{:.1?}: {outcome}", attempt.duration())?,
                (None, _) => f.write_str("still in flight")?,
            }
        }
        for why in self.declined() {
            write!(f, "\n  not retried: {why}")?;
        }
        if let Some((url, why)) = self.unfollowed() {
            write!(f, "\n  redirect to {url} not followed: {why}")?;
        }
        Ok(())
    }
}
