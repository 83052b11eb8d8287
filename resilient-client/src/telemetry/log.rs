//! Events as `tracing` lines. See the [module docs](super).

use tracing::Level;

use tracing::debug;

use tracing::info;

use tracing::level_filters::LevelFilter;

use tracing::trace;

use tracing::warn;

use crate::event::{Event, EventKinds};
use crate::origin::Origin;
use crate::policy::breaker::State;

/// Whether anything at all listens at a level we speak at. One relaxed load.
pub(super) fn heard() -> bool {
    LevelFilter::current() >= Level::WARN
}

/// What is told at the level trace only.
const TRACED: EventKinds = EventKinds::CALL_STARTED.and(EventKinds::ATTEMPT_HEAD);

/// What is told at the level that is listened at. What happens to calls is a line at the level
/// debug, where most processes don't listen.
#[inline]
pub(super) fn written() -> EventKinds {
    match LevelFilter::current() {
        LevelFilter::OFF | LevelFilter::ERROR => EventKinds::NONE,
        LevelFilter::TRACE => EventKinds::ALL,
        LevelFilter::DEBUG => EventKinds::ALL.without(TRACED),
        _ => EventKinds::ALL.without(EventKinds::OF_CALLS),
    }
}

#[inline(never)]
pub(super) fn write(upstream: &str, event: &Event) {
    match event {
        Event::CallStarted { call, .. } => {
            trace!(target: "resilient_client", upstream, %call, "call started");
        }
        Event::CallFinished { call, duration, end, .. } => {
            debug!(target: "resilient_client", upstream, %call, ?duration, ?end, "call finished");
        }
        Event::AttemptQueued { call, number, waits_for } => {
            debug!(target: "resilient_client", upstream, %call, number, %waits_for, "attempt waits to be let in");
        }
        Event::AttemptDequeued { call, number, waited, admitted } => {
            debug!(target: "resilient_client", upstream, %call, number, ?waited, admitted, "attempt waits no more");
        }
        Event::AttemptStarted { call, number, trigger, endpoint, .. } => {
            let endpoint = endpoint.as_ref().map(Origin::as_str);
            debug!(target: "resilient_client", upstream, %call, number, %trigger, endpoint, "attempt started");
        }
        Event::AttemptHead { call, number, duration, status, .. } => {
            let status = status.map(|status| status.as_u16());
            trace!(target: "resilient_client", upstream, %call, number, ?duration, status, "head of the answer");
        }
        Event::AttemptFinished { call, number, duration, outcome, status, .. } => {
            let status = status.map(|status| status.as_u16());
            debug!(target: "resilient_client", upstream, %call, number, ?duration, %outcome, status, "attempt finished");
        }
        Event::HedgeEnded { call, number, end } => {
            debug!(target: "resilient_client", upstream, %call, number, %end, "hedge ended");
        }
        Event::RetryScheduled { call, number, delay, after } => {
            debug!(target: "resilient_client", upstream, %call, number, ?delay, %after, "retry scheduled");
        }
        Event::RetryDeclined { call, why } => {
            debug!(target: "resilient_client", upstream, %call, "not retried: {why}");
        }
        Event::Rejected { call, number, rejection } => {
            let reason = rejection.as_str();
            debug!(target: "resilient_client", upstream, %call, number, reason, "rejected: {rejection}");
        }
        _ => of_upstream(upstream, event),
    }
}

/// What happened to an upstream, or to the client, rather than to a call.
fn of_upstream(upstream: &str, event: &Event) {
    match event {
        Event::LimitChanged { limit } => {
            debug!(target: "resilient_client", upstream, limit, "concurrency limit changed");
        }
        Event::OverloadLimit { limit: Some(limit) } => {
            info!(target: "resilient_client", upstream, limit, "overload limit in force");
        }
        Event::OverloadLimit { limit: None } => {
            info!(target: "resilient_client", upstream, "overload limit ended");
        }
        Event::Silence { silent: true, duration } => {
            info!(target: "resilient_client", upstream, ?duration, "upstream is silent");
        }
        Event::Silence { silent: false, duration } => {
            info!(target: "resilient_client", upstream, ?duration, "upstream answers again");
        }
        Event::WouldReject { rejection } => {
            let reason = rejection.as_str();
            debug!(target: "resilient_client", upstream, reason, "would reject: {rejection}");
        }
        Event::BreakerTransition(change) => match change.to {
            State::Open => {
                warn!(target: "resilient_client", upstream, from = ?change.from, cause = ?change.cause, "circuit breaker opened");
            }
            State::Closed => {
                info!(target: "resilient_client", upstream, from = ?change.from, cause = ?change.cause, "circuit breaker closed");
            }
            to => {
                info!(target: "resilient_client", upstream, from = ?change.from, ?to, cause = ?change.cause, "circuit breaker changed");
            }
        },
        Event::UpstreamMade { kept: true } => debug!(target: "resilient_client", upstream, "upstream made"),
        Event::UpstreamMade { kept: false } => {
            debug!(target: "resilient_client", upstream, "upstream made for one call: all places are taken");
        }
        Event::UpstreamForgotten { unused_for } => {
            debug!(target: "resilient_client", upstream, ?unused_for, "upstream forgotten");
        }
        Event::HeldBack { duration } => {
            warn!(target: "resilient_client", upstream, ?duration, "upstream asked for a wait");
        }
        Event::Reloaded { version, changes } => {
            info!(target: "resilient_client", version, changes = changes.join(", "), "policies reloaded");
        }
        _ => {}
    }
}
