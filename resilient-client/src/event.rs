//! What happens inside a call, as values.
//!
//! Machines return what changed and the engine [tells](Observer) of it; logs, metrics and tests all
//! read the same stream. A call's report is built beside it, and a test rebuilds it from the events
//! to show that both say the same. No policy formats a log line. When nobody listens, an event
//! costs one branch; and one of a [kind](EventKinds) that nobody [wants](Observer::interest) isn't
//! built.

mod counts;
mod hedge_end;
mod kinds;
mod waits;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

pub use self::counts::Counts;
pub use self::hedge_end::HedgeEnd;
pub use self::kinds::EventKinds;
pub use self::waits::WaitsFor;
pub use crate::authority::identity::UpstreamIdentity;
use crate::error::ErrorKind;
use crate::origin::Origin;
use crate::outcome::Outcome;
pub use crate::outcome::call_id::CallId;
use crate::outcome::rejection::Rejection;
use crate::outcome::report::{Decline, Trigger};
use crate::policy::breaker::Transition;
use crate::time::Tick;

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallEnd {
    /// A response with this status. Its body may still be coming, so that one of its attempts isn't
    /// finished.
    Response(StatusCode),
    /// The same of one that isn't a success, although its status says nothing of that: gRPC's is in
    /// its own status, and a classifier may say so of any.
    FailedResponse(StatusCode, Outcome),
    /// An error of this kind.
    Error(ErrorKind),
    /// Nobody waited for it: the call was dropped.
    Dropped,
}

impl CallEnd {
    /// With an answer that came to this.
    #[inline]
    pub(crate) fn answered(status: Option<StatusCode>, outcome: Outcome) -> Self {
        let status = status.unwrap_or_default();
        if outcome == Outcome::Success || status.is_client_error() || status.is_server_error() {
            Self::Response(status)
        } else {
            Self::FailedResponse(status, outcome)
        }
    }
}

/// A request's method, as a label may have it: those of RFC 9110 and RFC 5789, and one name for all
/// others, since anybody may make up methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the methods have their own names")]
#[repr(u8)]
#[non_exhaustive]
pub enum KnownMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other.
    Other,
}

impl KnownMethod {
    pub(crate) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            Method::CONNECT => Self::Connect,
            Method::OPTIONS => Self::Options,
            Method::TRACE => Self::Trace,
            Method::PATCH => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The method in capitals; `_OTHER`, as OpenTelemetry's conventions have it, for one that isn't
    /// known.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "_OTHER",
        }
    }
}

/// Something that happened to a call, to an upstream, or to the client's policies.
///
/// Those of a call bear its [number](CallId), and those of an attempt the attempt's. Together they
/// are what the [report](crate::CallReport) says. Each call that started finishes, and so does each
/// attempt, if perhaps later, with its body.
///
/// Match each with `..`: what one tells may grow.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A call began: it was polled for the first time.
    #[non_exhaustive]
    CallStarted {
        /// Which.
        call: CallId,
        /// The request's method.
        method: KnownMethod,
        /// When.
        at: Tick,
        /// The version of the policies it follows.
        policy_version: u64,
        /// Until when it may take, its body included: by its own total, or its caller's deadline if
        /// that is sooner. `None` for a call without either, or with a body that may take longer.
        until: Option<Tick>,
    },
    /// A call has its result, or was dropped. Of a gRPC call that is known with its status, where
    /// the reader of its body sees that (not over reqwest): with its head or, later, its trailers.
    #[non_exhaustive]
    CallFinished {
        /// Which.
        call: CallId,
        /// The request's method.
        method: KnownMethod,
        /// From its start: to its response's head, or, of a gRPC call that is no stream and whose
        /// status comes behind its messages, to that.
        duration: Duration,
        /// With what.
        end: CallEnd,
        /// Whether the response had been set aside and its body is cut.
        cut: bool,
        /// Whether the response is a stream.
        streaming: bool,
    },
    /// An attempt has to wait before it is let in.
    #[non_exhaustive]
    AttemptQueued {
        /// Of which call.
        call: CallId,
        /// 1 for the first.
        number: u32,
        /// For what, at first: from there it may have to wait for something else.
        waits_for: WaitsFor,
    },
    /// An attempt waits no more: it was let in, or refused, or its call ended.
    #[non_exhaustive]
    AttemptDequeued {
        /// Of which call.
        call: CallId,
        /// 1 for the first.
        number: u32,
        /// How long it had waited.
        waited: Duration,
        /// Whether it was let in.
        admitted: bool,
    },
    /// An attempt was handed to the transport. One that a hook held back isn't told of: nothing was
    /// sent.
    #[non_exhaustive]
    AttemptStarted {
        /// Of which call.
        call: CallId,
        /// The request's method.
        method: KnownMethod,
        /// 1 for the first.
        number: u32,
        /// When it was let in: the time of its hook is part of it.
        at: Tick,
        /// Why it was sent.
        trigger: Trigger,
        /// Where it went, if the name called stands for several endpoints.
        endpoint: Option<Origin>,
    },
    /// The head of an answer came that is the call's: its body is still to come.
    #[non_exhaustive]
    AttemptHead {
        /// Of which call.
        call: CallId,
        /// The request's method.
        method: KnownMethod,
        /// 1 for the first.
        number: u32,
        /// From launch to now.
        duration: Duration,
        /// The response's status.
        status: Option<StatusCode>,
    },
    /// An attempt ended: at its response's head when that failed, else at the end of its body.
    #[non_exhaustive]
    AttemptFinished {
        /// Of which call.
        call: CallId,
        /// The request's method.
        method: KnownMethod,
        /// 1 for the first.
        number: u32,
        /// From launch to this end.
        duration: Duration,
        /// What it came to.
        outcome: Outcome,
        /// The response's status, where there was one.
        status: Option<StatusCode>,
        /// The server provably did not process it.
        unprocessed: bool,
    },
    /// What became of a hedge.
    #[non_exhaustive]
    HedgeEnded {
        /// Of which call.
        call: CallId,
        /// 1 for the first attempt, so at least 2.
        number: u32,
        /// What.
        end: HedgeEnd,
    },
    /// Another attempt will follow.
    #[non_exhaustive]
    RetryScheduled {
        /// Of which call.
        call: CallId,
        /// The number the next attempt will have.
        number: u32,
        /// The wait before it.
        delay: Duration,
        /// What made it needed.
        after: Outcome,
    },
    /// A failed attempt will not be followed by another, or one in flight by no hedge.
    #[non_exhaustive]
    RetryDeclined {
        /// Of which call.
        call: CallId,
        /// Why not.
        why: Decline,
    },
    /// An attempt was refused here, before anything was sent.
    #[non_exhaustive]
    Rejected {
        /// Of which call.
        call: CallId,
        /// 1 for the first.
        number: u32,
        /// By what, and for how long.
        rejection: Rejection,
    },
    /// An attempt would have been refused, or made to wait, by a policy that only observes.
    #[non_exhaustive]
    WouldReject {
        /// By what, and for how long.
        rejection: Rejection,
    },
    /// A circuit breaker changed its state.
    BreakerTransition(Transition),
    /// How many attempts may be in flight was found to be another number.
    #[non_exhaustive]
    LimitChanged {
        /// It is now this.
        limit: u32,
    },
    /// The overload limit came into force or ended. While it is in force it moves with what the
    /// upstream answers, which is nobody's news; a snapshot says where it is.
    #[non_exhaustive]
    OverloadLimit {
        /// How many attempts may be in flight now; `None` when it ended.
        limit: Option<u32>,
    },
    /// The client has met an upstream for the first time, or again after it had forgotten it.
    #[non_exhaustive]
    UpstreamMade {
        /// Whether its state is kept; else there was no place for it (see
        /// [`max_upstreams`](crate::ClientBuilder::max_upstreams)), and it lasts as long as the
        /// call.
        kept: bool,
    },
    /// An idle upstream made room for another; what was known of it is gone.
    #[non_exhaustive]
    UpstreamForgotten {
        /// How long ago it was last called, to a second.
        unused_for: Duration,
    },
    /// The server asked for a wait, and not this one call only: calls to this upstream fail at once
    /// for this long.
    #[non_exhaustive]
    HeldBack {
        /// How long.
        duration: Duration,
    },
    /// The upstream fell [silent](crate::policy::overload#silence), as an attempt found that waits
    /// for its answer, goes elsewhere, or would if the policy didn't only observe; or it has
    /// answered after that.
    #[non_exhaustive]
    Silence {
        /// Whether it is silent now.
        silent: bool,
        /// For how long it has answered nothing, or had not.
        duration: Duration,
    },
    /// Other policies came into force, by a [reload](crate::Client::reload) that changed something.
    /// It is the client's own: the upstream's name that comes with it is empty, and no
    /// [observer of an upstream](Observer::of_upstream) hears of it.
    #[non_exhaustive]
    Reloaded {
        /// Their version, which calls report from now on.
        version: u64,
        /// Which policies differ from before, as [`Reloaded::changes`](crate::Reloaded::changes)
        /// has them.
        changes: Vec<String>,
    },
}

/// Hears every event. Called in line with the call, on whatever task it runs: be quick and don't
/// block.
///
/// A panic in an observer is caught: it must not cost a call its permit, or abort a process that is
/// already unwinding. The event is lost to that observer, which metrics count.
pub trait Observer: Send + Sync + 'static {
    /// `upstream` is the authority the event belongs to, such as `http://users:3000`; empty for a
    /// [reload](Event::Reloaded), which is the client's.
    fn event(&self, upstream: &str, event: &Event);

    /// Which kinds of events it wants to hear of: others aren't built for it. Asked once for each
    /// upstream. By default all.
    fn interest(&self) -> EventKinds {
        EventKinds::ALL
    }

    /// Who hears of what happens at one upstream, in this observer's place. Asked once for each
    /// upstream, before the first event that this observer hears of it, so that what an observer
    /// keeps for each is found once and not with every event; calls that meet an upstream at the
    /// same moment may ask at the same time, and one answer is kept. No lock is held meanwhile.
    /// What happens at a name's endpoints is the name's, which is asked about as well, without
    /// route and key. By default `None`: this observer.
    fn of_upstream(&self, upstream: &UpstreamIdentity) -> Option<Arc<dyn Observer>> {
        let _ = upstream;
        None
    }

    /// Whether it only counts, and has no use for events: then it is told the same in values.
    /// For this crate's own, since what there is to count may change.
    #[doc(hidden)]
    fn counts(self: Arc<Self>) -> Option<Arc<dyn Counts>> {
        None
    }
}

impl<F: Fn(&str, &Event) + Send + Sync + 'static> Observer for F {
    fn event(&self, upstream: &str, event: &Event) {
        self(upstream, event);
    }
}
