//! What simulations break on purpose, to see that they find it.

use std::sync::Arc;
use std::time::Duration;

use crate::ResilienceLayer;
use crate::authority::Authority;
use crate::event::{CallEnd, CallId, Event, KnownMethod};
use crate::policy::breaker::{BreakerPolicy, Control};
use crate::time::now;
use crate::upstream::Upstream;

fn upstream(layer: &ResilienceLayer, url: &str) -> Arc<Upstream> {
    layer.core().upstream_of(&Authority::of_uri(&url.parse().expect("a URL")))
}

/// How many upstreams have a place in the registry.
pub fn upstreams(layer: &ResilienceLayer) -> usize {
    layer.core().upstreams()
}

/// An attempt's place that is never given back.
pub fn lost_slot(layer: &ResilienceLayer, url: &str) {
    std::mem::forget(upstream(layer, url).place(now()));
}

/// A call that never ends.
pub fn lost_call(layer: &ResilienceLayer, url: &str) {
    assert!(upstream(layer, url).enter());
}

/// Tokens of the retry budget that are never given back.
pub fn lost_tokens(layer: &ResilienceLayer, url: &str, tokens: usize) {
    let upstream = upstream(layer, url);
    (0..tokens).for_each(|_| _ = upstream.budget().try_withdraw());
}

/// A breaker that somebody forced, and forgot.
pub fn forced(layer: &ResilienceLayer, url: &str, control: Control) {
    upstream(layer, url).control(control);
}

/// A breaker over the same attempts that those of the endpoints judge.
pub fn second_breaker(layer: &ResilienceLayer, url: &str, policy: &BreakerPolicy) {
    upstream(layer, url).judge_twice(policy.compile().expect("a policy that works"));
}

/// The end of a call that nobody made.
pub fn call_finished() -> Event {
    Event::CallFinished {
        call: CallId::next(),
        method: KnownMethod::Get,
        duration: Duration::from_secs(1),
        end: CallEnd::Dropped,
        cut: false,
        streaming: false,
    }
}
