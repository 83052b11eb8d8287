//! Calls under way: what they wait for, and for how long. Rebuilt from their events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{CallEnd, Event, WaitsFor};
use crate::outcome::Outcome;
use crate::outcome::call_id::CallId;
use crate::outcome::rejection::Rejection;
use crate::outcome::report::CallReport;
use crate::sync::Mutex;
use crate::time::Tick;

/// The most calls that are followed at a time. Those beyond it are counted and not shown.
const MOST: usize = 16 * 1024;
const SHARDS: usize = 16;

/// What a call does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// An attempt is made ready.
    Starting,
    /// An attempt waits to be let in.
    Queued(WaitsFor),
    /// This many attempts wait for an answer.
    InFlight(u32),
    /// It waits before another attempt.
    BackingOff,
    /// It has its answer, whose body isn't read to its end.
    Body,
}

impl Doing {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Queued(_) => "queued",
            Self::InFlight(_) => "in_flight",
            Self::BackingOff => "backing_off",
            Self::Body => "body",
        }
    }

    /// What an attempt waits for that waits to be let in.
    pub(crate) const fn waits_for(self) -> Option<&'static str> {
        match self {
            Self::Queued(waits_for) => Some(waits_for.as_str()),
            _ => None,
        }
    }
}

/// A call that isn't over.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    report: CallReport,
    began: Tick,
    /// Until when it may take, if there is such a time.
    until: Option<Tick>,
    /// When it began to do what it does.
    since: Tick,
    queued: Option<WaitsFor>,
    /// Attempts that were sent and haven't ended.
    open: u32,
    backing_off: bool,
    /// Its head is there, and it has only its body to wait for. It may not be finished: a gRPC
    /// call's status comes behind that.
    answered: bool,
    finished: bool,
    /// Why an attempt was refused here, the last time one was: a report says it only of repeats.
    refused: Option<Rejection>,
}

impl Call {
    pub(crate) fn upstream(&self) -> &str {
        self.report.upstream()
    }

    pub(crate) fn id(&self) -> CallId {
        self.report.call()
    }

    pub(crate) fn age(&self, now: Tick) -> Duration {
        now.since(self.began)
    }

    /// For how long it has done what it does.
    pub(crate) fn doing_for(&self, now: Tick) -> Duration {
        now.since(self.since)
    }

    /// Whether it has had its answer and is read for longer than the call may take: whoever holds
    /// it reads no more, or its end would have come.
    pub(crate) fn holds_old_body(&self, now: Tick) -> bool {
        self.doing() == Doing::Body && self.until.is_some_and(|until| now > until)
    }

    pub(crate) fn attempts(&self) -> usize {
        self.report.attempts().len()
    }

    pub(crate) fn doing(&self) -> Doing {
        if self.answered || self.finished {
            Doing::Body
        } else if self.open > 0 {
            Doing::InFlight(self.open)
        } else if let Some(waits_for) = self.queued {
            Doing::Queued(waits_for)
        } else if self.backing_off {
            Doing::BackingOff
        } else {
            Doing::Starting
        }
    }

    fn is_over(&self) -> bool {
        self.finished && self.open == 0
    }

    fn hear(&mut self, event: &Event, now: Tick) {
        let before = self.doing();
        match event {
            Event::AttemptQueued { waits_for, .. } => self.queued = Some(*waits_for),
            Event::AttemptDequeued { waited, .. } => {
                self.queued = None;
                self.report.waited(Tick::ZERO, Tick::ZERO.after(*waited));
            }
            Event::AttemptStarted { number, at, trigger, endpoint, .. } => {
                self.open += 1;
                self.backing_off = false;
                self.report.launched(*number, *trigger, endpoint.clone(), *at);
            }
            Event::AttemptHead { number, status, .. } => {
                self.answered = true;
                self.report.settled(*number, Outcome::Success, *status, now);
            }
            Event::AttemptFinished { number, outcome, status, .. } => {
                self.open = self.open.saturating_sub(1);
                // A good head has said what there is to say, unless the body fails.
                let settled = |attempt: &crate::AttemptReport| attempt.outcome().is_some();
                let known = self.report.attempts().iter().find(|attempt| attempt.number() == *number);
                if *outcome != Outcome::Success || !known.is_some_and(settled) {
                    self.report.settled(*number, *outcome, *status, now);
                }
            }
            Event::RetryScheduled { .. } => self.backing_off = true,
            Event::Rejected { rejection, .. } => self.refused = Some(*rejection),
            Event::RetryDeclined { why, .. } => self.report.decline(why.clone()),
            Event::CallFinished { cut, streaming, .. } => {
                self.finished = true;
                if *streaming {
                    self.until = None;
                }
                self.report.finish(now, *cut);
            }
            _ => {}
        }
        if self.doing() != before {
            self.since = now;
        }
    }
}

/// Every call under way, by its number.
#[derive(Debug)]
pub(crate) struct Calls {
    shards: [Mutex<HashMap<CallId, Call>>; SHARDS],
}

/// How a call that has ended is remembered, if it is worth it: not what went as it should.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    pub(crate) call: CallId,
    pub(crate) end: CallEnd,
    /// The report's words.
    pub(crate) text: String,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())) }
    }

    /// Takes an event of a call. What is to be told of the call when this ended it and something
    /// went wrong in it.
    pub(crate) fn hear(&self, upstream: &Arc<str>, event: &Event, now: Tick) -> Option<Explained> {
        let id = call_of(event)?;
        let mut shard = self.shards[(id.as_u64() % SHARDS as u64) as usize].lock();
        if let Event::CallStarted { call, at, policy_version, until, .. } = event {
            if shard.len() < MOST / SHARDS {
                let report = CallReport::new(*call, Arc::clone(upstream), *policy_version, *at);
                let (began, since, until) = (*at, *at, *until);
                let (queued, open, backing_off, answered, finished) = (None, 0, false, false, false);
                let call = Call {
                    report,
                    began,
                    until,
                    since,
                    queued,
                    open,
                    backing_off,
                    answered,
                    finished,
                    refused: None,
                };
                shard.insert(id, call);
            }
            return None;
        }
        let call = shard.get_mut(&id)?;
        call.hear(event, now);
        let explained = match event {
            Event::CallFinished { end, .. } if is_worth_telling(*end, &call.report) => {
                Some((*end, call.report.clone(), call.refused))
            }
            _ => None,
        };
        if call.is_over() {
            shard.remove(&id);
        }
        drop(shard);
        let (end, report, refused) = explained?;
        let text = match refused.filter(|_| report.attempts().is_empty()) {
            Some(refused) => format!("{report}\n  refused here: {refused}"),
            None => report.to_string(),
        };
        Some(Explained { call: id, end, text })
    }

    /// The oldest of the calls that are `wanted`, at most so many, and how many those are. No lock
    /// is held while more than a few are copied.
    pub(crate) fn oldest(&self, most: usize, wanted: impl Fn(&Call) -> bool) -> (Vec<Call>, usize) {
        let mut all = Vec::new();
        let mut count = 0;
        let wanted = |call: &&Call| wanted(call);
        for shard in &self.shards {
            let shard = shard.lock();
            let mut oldest: Vec<_> = shard.values().filter(wanted).collect();
            count += oldest.len();
            if oldest.len() > most {
                oldest.select_nth_unstable_by_key(most, |call| call.began);
                oldest.truncate(most);
            }
            all.extend(oldest.into_iter().cloned());
        }
        all.sort_by_key(|call: &Call| call.began);
        all.truncate(most);
        (all, count)
    }
}

/// A success at the first attempt explains itself.
fn is_worth_telling(end: CallEnd, report: &CallReport) -> bool {
    match end {
        CallEnd::Response(status) => {
            report.attempts().len() > 1 || status.is_server_error() || status.as_u16() == 429
        }
        CallEnd::Error(_) | CallEnd::FailedResponse(..) => true,
        CallEnd::Dropped => false,
    }
}

/// The call that an event is of, if it is a call's.
fn call_of(event: &Event) -> Option<CallId> {
    match event {
        Event::CallStarted { call, .. }
        | Event::CallFinished { call, .. }
        | Event::AttemptQueued { call, .. }
        | Event::AttemptDequeued { call, .. }
        | Event::AttemptStarted { call, .. }
        | Event::AttemptHead { call, .. }
        | Event::AttemptFinished { call, .. }
        | Event::HedgeEnded { call, .. }
        | Event::RetryScheduled { call, .. }
        | Event::RetryDeclined { call, .. }
        | Event::Rejected { call, .. } => Some(*call),
        Event::WouldReject { .. }
        | Event::BreakerTransition(_)
        | Event::LimitChanged { .. }
        | Event::OverloadLimit { .. }
        | Event::Silence { .. }
        | Event::UpstreamMade { .. }
        | Event::UpstreamForgotten { .. }
        | Event::HeldBack { .. }
        | Event::Reloaded { .. } => None,
    }
}
