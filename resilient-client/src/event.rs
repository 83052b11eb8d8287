//! What happens inside a call, as values.
//!
//! Machines return what changed and the engine emits it here; logs, metrics and tests all read the same stream. A call's
//! report is built beside it, and a test rebuilds it from the events to show that both say the same. No policy formats a log line. When nobody listens, an event costs one branch.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::endpoints::Origin;
use crate::engine::report::{Decline, Trigger};
use crate::error::ErrorKind;
use crate::outcome::Outcome;
use crate::policy::breaker::Transition;
use crate::time::Tick;
use crate::upstream::Rejection;

/// A call's number, unique in this process. An attempt is known by its call's and its own, which counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// No call's.
    pub(crate) const NONE: Self = Self(0);

    /// A number that no other call has. Threads take them in blocks, so calls don't meet at one counter.
    #[inline]
    pub(crate) fn next() -> Self {
        const BLOCK: u64 = 1 << 16;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static OWN: Cell<u64> = const { Cell::new(0) };
        }
        let own = OWN.get();
        // What is left of a block is counted by its low bits: a block begins at a multiple of its length, plus one.
        let id = if own.is_multiple_of(BLOCK) { NEXT.fetch_add(BLOCK, Ordering::Relaxed) } else { own };
        OWN.set(id + 1);
        Self(id)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallEnd {
    /// A response with this status. Its body may still be coming, so that one of its attempts isn't finished.
    Response(StatusCode),
    /// An error of this kind.
    Error(ErrorKind),
    /// Nobody waited for it: the call was dropped.
    Dropped,
}

/// What became of an attempt sent, or to be sent, beside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HedgeEnd {
    /// It brought the answer.
    Won,
    /// Another attempt brought it, or the call ended first.
    Lost,
    /// It failed.
    Failed,
    /// It was due and never sent: it was [refused](Event::Rejected) here or by the hook, or the server asked for time meanwhile.
    Rejected,
}

impl HedgeEnd {
    /// A short fixed name for labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for HedgeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that happened to a call or to an upstream.
///
/// Those of a call bear its [number](CallId), and those of an attempt the attempt's. Together they are what the
/// [report](crate::CallReport) says. Each call that started finishes, and so does each attempt, if perhaps later, with
/// its body.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A call began: it was polled for the first time.
    CallStarted {
        /// Which.
        call: CallId,
        /// When.
        at: Tick,
        /// The version of the policies it follows.
        policy_version: u64,
    },
    /// A call has its result, or was dropped.
    CallFinished {
        /// Which.
        call: CallId,
        /// From its start.
        duration: Duration,
        /// With what.
        end: CallEnd,
        /// Whether the response had been set aside and its body is cut.
        cut: bool,
        /// Whether the response is a stream.
        streaming: bool,
    },
    /// An attempt has to wait before it is let in: for addresses, the rate, a place, or an
    /// open breaker if it would rather wait for that than fail.
    AttemptQueued {
        /// Of which call.
        call: CallId,
        /// 1 for the first.
        number: u32,
    },
    /// An attempt waits no more: it was let in, or refused, or its call ended.
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
    /// An attempt was handed to the transport.
    AttemptStarted {
        /// Of which call.
        call: CallId,
        /// 1 for the first.
        number: u32,
        /// When.
        at: Tick,
        /// Why it was sent.
        trigger: Trigger,
        /// Where it went, if the name called stands for several endpoints.
        endpoint: Option<Origin>,
    },
    /// The head of an answer came that is the call's: its body is still to come.
    AttemptHead {
        /// Of which call.
        call: CallId,
        /// 1 for the first.
        number: u32,
        /// From launch to now.
        duration: Duration,
        /// The response's status.
        status: Option<StatusCode>,
    },
    /// An attempt ended: at its response's head when that failed, else at the end of its body.
    AttemptFinished {
        /// Of which call.
        call: CallId,
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
    HedgeEnded {
        /// Of which call.
        call: CallId,
        /// 1 for the first attempt, so at least 2.
        number: u32,
        /// What.
        end: HedgeEnd,
    },
    /// Another attempt will follow.
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
    RetryDeclined {
        /// Of which call.
        call: CallId,
        /// Why not.
        why: Decline,
    },
    /// An attempt was refused here, before anything was sent.
    Rejected {
        /// Of which call.
        call: CallId,
        /// 1 for the first.
        number: u32,
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
    /// The overload limit came into force or ended. While it is in force it moves with what the upstream answers, which is nobody's
    /// news; a snapshot says where it is.
    OverloadLimit {
        /// How many attempts may be in flight now; `None` when it ended.
        limit: Option<u32>,
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

thread_local! {
    /// Events that wait for locks to be released; `None` while none has to.
    static HELD: RefCell<Option<Vec<(Events, String, Event)>>> = const { RefCell::new(None) };
}

/// While it lives, events of this thread wait. Made before a lock is taken, it is dropped after the lock: observers run
/// outside every lock, and may do whatever a call may, reload policies among it.
#[must_use]
pub(crate) struct Held {
    outermost: bool,
}

impl Held {
    pub(crate) fn begin() -> Self {
        let begin = |held: &RefCell<Option<_>>| {
            let mut held = held.borrow_mut();
            let outermost = held.is_none();
            held.get_or_insert_default();
            outermost
        };
        Self { outermost: HELD.try_with(begin).unwrap_or(false) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.outermost {
            return;
        }
        let held = HELD.try_with(RefCell::take).ok().flatten();
        for (events, upstream, event) in held.unwrap_or_default() {
            events.deliver(&upstream, &event);
        }
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
        if self.heard() {
            self.tell(upstream, event());
        }
    }

    /// Whether anybody listens.
    #[inline]
    pub(crate) fn heard(&self) -> bool {
        !self.observers.is_empty() || crate::telemetry::heard()
    }

    #[cold]
    fn tell(&self, upstream: &str, event: Event) {
        let mut event = Some(event);
        // On a thread that ends none is held any more.
        let _ = HELD.try_with(|held| {
            if let Some(held) = &mut *held.borrow_mut()
                && let Some(event) = event.take()
            {
                held.push((self.clone(), upstream.to_owned(), event));
            }
        });
        if let Some(event) = event {
            self.deliver(upstream, &event);
        }
    }

    fn deliver(&self, upstream: &str, event: &Event) {
        crate::telemetry::log(upstream, event);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread keeps to its end, a runtime say, may drop its calls then: it aborted the process.
    #[test]
    fn what_happens_as_a_thread_ends_is_told() {
        struct Late(Events);
        impl Drop for Late {
            fn drop(&mut self) {
                self.0.emit("users", || Event::LimitChanged { limit: 1 });
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Late>> = const { RefCell::new(None) };
        }
        let heard = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&heard);
        let observer = move |_: &str, _: &Event| _ = counted.fetch_add(1, Ordering::Relaxed);
        let events = Events::new(vec![Arc::new(observer)]);
        let thread = std::thread::spawn(move || {
            // Kept first, it goes last.
            LAST.set(Some(Late(events.clone())));
            events.emit("users", || Event::LimitChanged { limit: 2 });
        });
        thread.join().unwrap();
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
