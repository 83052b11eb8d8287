//! What is told of a call as it begins.

use http::Method;

use crate::event::{Event, EventKinds};
use crate::outcome::call_id::CallId;
use crate::redact::Template;
use crate::telemetry::{CallSpan, Heard};
use crate::time::Tick;
use crate::upstream::Upstream;

/// Somebody listens to a call that begins. Its span, if somebody looks at those.
#[cold]
pub(super) fn began(
    upstream: &Upstream,
    heard: Heard,
    (method, template): (&Method, Option<&Template>),
    begin: Begin,
) -> Option<Box<CallSpan>> {
    let span = CallSpan::begin(method, template, || upstream.identity());
    let method = heard.method;
    upstream.emit_of_call(heard, EventKinds::CALL_STARTED, || {
        let Begin { call, at, policy_version, until } = begin;
        Event::CallStarted { call, method, at, policy_version, until }
    });
    span
}

/// What is said of a call as it begins.
#[derive(Clone, Copy)]
pub(super) struct Begin {
    pub(super) call: CallId,
    pub(super) at: Tick,
    pub(super) policy_version: u64,
    pub(super) until: Option<Tick>,
}
