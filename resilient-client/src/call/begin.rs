//! How a call begins.

use std::sync::Arc;

use super::state::chance;
use crate::call::exchange::Exchange;
use crate::call::ledger::Terms;
use crate::call::options::CallOptions;
use crate::call::state::{CallSettings, CallState};
use crate::deadline;
#[cfg(feature = "grpc")]
use crate::engine::Address;
use crate::engine::Core;
use crate::error::Error;
use crate::header_limit::{MOST_HEADERS, too_many_headers};
use crate::policy::breaker::{self, ForReady};
use crate::time::Tick;

/// A call begins: it is in its upstream from here on, and its time runs. Its state is made where it
/// stays, being large.
#[allow(clippy::inline_always, reason = "so that it is made there")]
#[inline(always)]
pub(super) fn begin<X: Exchange>(
    core: Arc<Core>,
    exchange: &X,
    options: &CallOptions,
    now: Tick,
    state: &mut Option<CallState<X>>,
) -> Result<(), Error> {
    let address = exchange.address()?;
    if address.headers.keys_len() > MOST_HEADERS {
        return Err(too_many_headers(address.headers.keys_len()));
    }
    let (upstream, plan) = core.enter(&address, options.key.as_ref(), now, options.hop().is_some())?;
    let timeout = plan.timeout.overridden(options.total, options.attempt).map_err(Error::config)?;
    let own = now.after_nanos(timeout.total);
    let own = options.hop().map_or(own, |hop| own.min(hop.until));
    #[cfg(feature = "grpc")]
    let (grpc, said) = by_grpc(&core, &address, options, now);
    #[cfg(feature = "grpc")]
    let own = own.min(said);
    let deadline = deadline::for_calls().map_or(own, |ambient| own.min(ambient.tick()));
    let (chance, hurried) = chance(deadline.nanos_since(now), timeout.attempt);
    let terms = Terms {
        deadline,
        attempt_timeout: timeout.attempt,
        retry: plan.retry,
        hedge_after: plan.hedge.and_then(|hedge| upstream.hedge_after(hedge, now)),
        hedges: plan.hedge.map_or(0, |hedge| hedge.max_hedges()),
        replayable: exchange.is_replayable(),
        safe: options.is_safe(address.method, address.headers, plan.retry.as_ref()),
        obeys_retry_after: !options.ignores_retry_after,
        for_ready: match options.wait_for_ready {
            Some(true) => ForReady::Always,
            Some(false) => ForReady::Never,
            None => plan.breaker.as_ref().map_or(ForReady::Never, breaker::Rules::for_ready),
        },
    };
    let settings = CallSettings {
        buffer: options.buffer,
        priority: options.priority.unwrap_or(plan.priority),
        streaming: options.streaming,
        hooked: options.hop().is_none_or(|hop| !hop.abroad),
        tells: !options.streaming && upstream.is_told(),
        chance,
        hurried,
        #[cfg(feature = "grpc")]
        grpc,
        #[cfg(feature = "grpc")]
        beyond: Beyond::of(deadline, said),
    };
    let template = options.url_template.clone().or_else(|| plan.template.clone());
    *state = Some(CallState::new(core, plan, upstream, terms, settings, (address.method, template), now));
    Ok(())
}

/// Whether a call is by gRPC, and its server told how much of its time is left.
#[cfg(feature = "grpc")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcCall {
    No,
    Untold,
    Told,
}

/// How much longer than its call a stream by gRPC may take, in milliseconds, which costs no room.
#[cfg(feature = "grpc")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beyond(u32);

#[cfg(feature = "grpc")]
impl Beyond {
    const WITHOUT_END: Self = Self(u32::MAX);
    const MILLI: u64 = 1_000_000;

    /// Of a call that is over at `deadline`, whose caller itself gives it until `said`.
    #[inline]
    fn of(deadline: Tick, said: Tick) -> Self {
        if said.is_never() {
            return Self::WITHOUT_END;
        }
        Self(u32::try_from(said.nanos_since(deadline) / Self::MILLI).unwrap_or(u32::MAX))
    }

    /// When that is; never if nobody said anything.
    pub(super) fn until(self, deadline: Tick) -> Tick {
        match self {
            Self::WITHOUT_END => Tick::NEVER,
            Self(beyond) => deadline.after_nanos(u64::from(beyond) * Self::MILLI),
        }
    }
}

/// Whether a request is a call by gRPC, and until when its caller itself gives it: with
/// `grpc-timeout`, or by the deadline of what it is made for.
#[cfg(feature = "grpc")]
#[inline]
fn by_grpc(core: &Core, address: &Address<'_>, options: &CallOptions, now: Tick) -> (GrpcCall, Tick) {
    if !crate::media::calls_grpc(address.method, address.headers) {
        return (GrpcCall::No, Tick::NEVER);
    }
    let asked = deadline::header::parse_grpc(address.headers);
    let said = asked.map_or(Tick::NEVER, |time| now.after(time));
    // A hop's request says it anew.
    let said = options.hop().map_or(said, |hop| said.min(hop.said));
    let said = deadline::for_calls().map_or(said, |ambient| said.min(ambient.tick()));
    // What the caller says goes out with what is left of it.
    let told = asked.is_some() || core.deadline_header().is_some();
    (if told { GrpcCall::Told } else { GrpcCall::Untold }, said)
}
