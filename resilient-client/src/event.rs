//! What happens inside a call, as values.
//!
//! Machines return what changed and the engine emits it here; logs, metrics, the report and tests all read the same
//! stream. No policy formats a log line. When nobody listens, an event costs one branch.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::endpoints::Origin;
use crate::engine::report::{Decline, Trigger};
use crate::outcome::Outcome;
use crate::policy::breaker::Transition;
use crate::upstream::Rejection;

/// Something that happened to a call or to an upstream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An attempt was handed to the transport.
    AttemptStarted {
        /// 1 for the first.
        number: u32,
        /// Why it was sent.
        trigger: Trigger,
        /// Where it went, if the name called stands for several endpoints.
        endpoint: Option<Origin>,
    },
    /// An attempt ended: at its response's head when that failed, else at the end of its body.
    AttemptFinished {
        /// 1 for the first.
        number: u32,
        /// From launch to this end.
        duration: Duration,
        /// What it came to.
        outcome: Outcome,
        /// The response's status, where there was one.
        status: Option<StatusCode>,
    },
    /// Another attempt will follow.
    RetryScheduled {
        /// The number the next attempt will have.
        number: u32,
        /// The wait before it.
        delay: Duration,
        /// What made it needed.
        after: Outcome,
    },
    /// A failed attempt will not be followed by another.
    RetryDeclined {
        /// Why not.
        why: Decline,
    },
    /// An attempt was refused here, before anything was sent.
    Rejected {
        /// By what, and for how long.
        rejection: Rejection,
    },
    /// An attempt would have been refused, or made to wait, by a policy that only observes.
    WouldReject {
        /// By what, and for how long.
        rejection: Rejection,
    },
    /// A circuit breaker changed its state.
    BreakerTransition(Transition),
    /// How many attempts may be in flight was found to be another number.
    LimitChanged {
        /// It is now this.
        limit: u32,
    },
    /// The client has met an upstream for the first time, or again after it had forgotten it.
    UpstreamMade {
        /// Whether its state is kept; else there was no place for it (see
        /// [`max_upstreams`](crate::ClientBuilder::max_upstreams)), and it lasts as long as the call.
        kept: bool,
    },
    /// An idle upstream made room for another; what was known of it is gone.
    UpstreamForgotten {
        /// How long ago it was last called, to a second.
        unused_for: Duration,
    },
    /// The server asked for quiet, and not this one call only: calls to this upstream fail at once for this long.
    HeldBack {
        /// How long.
        duration: Duration,
    },
}

/// Hears every event. Called in line with the call, on whatever task it runs: be quick and don't block.
///
/// A panic in an observer is caught and dropped: it must not cost a call its permit, or abort a process that is already
/// unwinding.
pub trait Observer: Send + Sync + 'static {
    /// `upstream` is the authority the event belongs to, such as `http://users:3000`.
    fn event(&self, upstream: &str, event: &Event);
}

impl<F: Fn(&str, &Event) + Send + Sync + 'static> Observer for F {
    fn event(&self, upstream: &str, event: &Event) {
        self(upstream, event);
    }
}

/// Where the engine sends events.
#[derive(Clone, Default)]
pub(crate) struct Events {
    observers: Arc<[Arc<dyn Observer>]>,
}

impl Events {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        Self { observers: observers.into() }
    }

    /// Builds the event only when somebody listens.
    #[inline]
    pub(crate) fn emit(&self, upstream: &str, event: impl FnOnce() -> Event) {
        if !self.observers.is_empty() || crate::telemetry::heard() {
            self.deliver(upstream, &event());
        }
    }

    #[cold]
    fn deliver(&self, upstream: &str, event: &Event) {
        crate::telemetry::trace(upstream, event);
        for observer in self.observers.iter() {
            let _ = catch_unwind(AssertUnwindSafe(|| observer.event(upstream, event)));
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} observers)", self.observers.len())
    }
}
