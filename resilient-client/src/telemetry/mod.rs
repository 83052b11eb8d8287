//! Events as `tracing` lines.
//!
//! Target `resilient_client`. What an operator acts on (a breaker opening, an upstream asking for quiet) is a warning,
//! a recovery is info, and each attempt is debug, so the default level tells a story without drowning it.

use tracing::{Level, debug, info, level_filters::LevelFilter, warn};

use crate::endpoints::Origin;
use crate::event::Event;
use crate::policy::breaker::State;

/// Whether anything at all listens at a level we speak at. One relaxed load.
pub(crate) fn heard() -> bool {
    LevelFilter::current() >= Level::WARN
}

pub(crate) fn trace(upstream: &str, event: &Event) {
    match event {
        Event::AttemptStarted { number, trigger, endpoint } => {
            let endpoint = endpoint.as_ref().map(Origin::as_str);
            debug!(target: "resilient_client", upstream, number, %trigger, endpoint, "attempt started");
        }
        Event::AttemptFinished { number, duration, outcome, status } => {
            let status = status.map(|status| status.as_u16());
            debug!(target: "resilient_client", upstream, number, ?duration, %outcome, status, "attempt finished");
        }
        Event::RetryScheduled { number, delay, after } => {
            debug!(target: "resilient_client", upstream, number, ?delay, %after, "retry scheduled");
        }
        Event::RetryDeclined { why } => debug!(target: "resilient_client", upstream, "not retried: {why}"),
        Event::Rejected { rejection } => {
            debug!(target: "resilient_client", upstream, "rejected: {rejection}");
        }
        Event::LimitChanged { limit } => {
            debug!(target: "resilient_client", upstream, limit, "concurrency limit changed");
        }
        Event::WouldReject { rejection } => {
            debug!(target: "resilient_client", upstream, "would reject: {rejection}");
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
            warn!(target: "resilient_client", upstream, ?duration, "upstream asked for quiet");
        }
    }
}
