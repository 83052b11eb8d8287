//! What one call asks for differently.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};

use crate::outcome::classify::is_idempotent;
use crate::policy::priority::Priority;
use crate::policy::retry;
use crate::redact::Template;
use crate::redirects::Redirects;
use crate::time::Tick;

/// The request header that lets a server recognise a repetition
/// ([draft-ietf-httpapi-idempotency-key-header]).
///
/// [draft-ietf-httpapi-idempotency-key-header]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One call's own settings, over its policy's.
///
/// [`RequestBuilder`](crate::RequestBuilder) has a method for each. Under
/// [`ResilienceLayer`](crate::ResilienceLayer), put one into the request's extensions:
///
/// ```
/// use std::time::Duration;
/// use resilient_client::CallOptions;
///
/// let mut request = http::Request::post("http://users:3000/search").body(()).unwrap();
/// request.extensions_mut().insert(CallOptions::new().idempotent(true).timeout(Duration::from_secs(1)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub(crate) total: Option<Duration>,
    pub(crate) attempt: Option<Duration>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) buffer: Option<usize>,
    pub(crate) streaming: bool,
    pub(crate) ignores_retry_after: bool,
    pub(crate) wait_for_ready: Option<bool>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) url_template: Option<Template>,
    pub(crate) priority: Option<Priority>,
    /// Boxed, as few calls have any of it and all are moved with the room for it.
    pub(crate) rare: Option<Box<Rare>>,
}

/// What few calls ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    /// Set by `RequestBuilder` only: under a layer the body's own type says it.
    pub(crate) replay_buffer: Option<usize>,
    pub(crate) redirects: Option<Redirects>,
    /// It follows a redirect.
    pub(crate) hop: Option<Hop>,
}

/// What a call is bound by that follows a redirect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    /// When the time of the call that was redirected is over.
    pub(crate) until: Tick,
    /// When the time is over that its caller itself gave it, by gRPC; never if it said nothing.
    #[cfg(feature = "grpc")]
    pub(crate) said: Tick,
    /// It has left the origin that was called, for which alone a hook's headers are meant.
    pub(crate) abroad: bool,
}

impl CallOptions {
    /// Nothing different from the policy.
    pub fn new() -> Self {
        Self::default()
    }

    /// The total time of this call. The attempts have as much, unless the policy
    /// [sets](crate::policy::timeout::TimeoutPolicy::attempt) an attempt timeout or this call has
    /// one of its own: set both where an answer that hangs is to leave time for another attempt. A
    /// total in which the policy's last hedge couldn't set out is a
    /// [`Config`](crate::ErrorKind::Config) error.
    #[must_use]
    pub fn timeout(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// The time of each attempt of this call; longer than the total, or than half of the breaker's
    /// window in time, is a [`Config`](crate::ErrorKind::Config) error.
    #[must_use]
    pub fn attempt_timeout(mut self, attempt: Duration) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// Whether repeating this request does no harm, whatever its method and its policy say.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// Makes the response's body part of each attempt: it is read inside the call, up to `limit`
    /// bytes, so that a body that stalls, is cut off or is reset is retried like any failure. A
    /// longer one is a [`BodyTooLarge`](crate::ErrorKind::BodyTooLarge) error.
    #[must_use]
    pub fn buffered(mut self, limit: usize) -> Self {
        self.buffer = Some(limit);
        self
    }

    /// Lets the response's body take longer than the total, which then bounds the time to its head.
    /// The body's idle timeout stays. Upgrades (101) and server-sent events have this without
    /// asking.
    #[must_use]
    pub fn streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// Repeats this call after the policy's own wait, however long an answer asked to be left alone
    /// with `Retry-After`. For a caller to whom a late answer is worth nothing: obeying, a call
    /// ends with the answer it has when the time asked for doesn't fit into its own. What was asked
    /// for still holds where it concerns other calls as well, this one included: see
    /// [`ErrorKind::Throttled`](crate::ErrorKind::Throttled).
    #[must_use]
    pub fn ignore_retry_after(mut self) -> Self {
        self.ignores_retry_after = true;
        self
    }

    /// Whether this call waits for an open circuit breaker rather than fail at once, in place of
    /// what its policy says; with `false` not even for the last probes of one about to close. See
    /// [`BreakerPolicy::wait_for_ready`](crate::policy::breaker::BreakerPolicy::wait_for_ready).
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }

    /// Gives the calls with this key a breaker, budget and bulkhead of their own, apart from their
    /// host's: for a host behind which several things fail separately, such as shards or tenants.
    /// The number of keys kept apart is bounded like that of hosts.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Names the call in its spans (`url.template`), such as `/users/{id}`, in place of the
    /// policies' route that matches: then no path is in them. Metrics, whose labels must be few, go
    /// by routes alone.
    #[must_use]
    pub fn url_template(mut self, template: impl AsRef<str>) -> Self {
        self.url_template = Some(Template::new(template.as_ref()));
        self
    }

    /// What this call is worth where not all can be served, in place of its policy's.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Which redirects this call follows, in place of what its client does; see
    /// [`Redirects`]. Not for [`ResilienceLayer`](crate::ResilienceLayer), which
    /// follows none.
    #[must_use]
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.rare.get_or_insert_default().redirects = Some(redirects);
        self
    }

    pub(crate) fn replay_buffer(&self) -> Option<usize> {
        self.rare.as_ref()?.replay_buffer
    }

    pub(crate) fn own_redirects(&self) -> Option<&Redirects> {
        self.rare.as_ref()?.redirects.as_ref()
    }

    pub(crate) fn hop(&self) -> Option<Hop> {
        self.rare.as_ref()?.hop
    }

    /// Whether the request may be repeated although the server may have processed it.
    pub(crate) fn is_safe(&self, method: &Method, headers: &HeaderMap, retry: Option<&retry::Rules>) -> bool {
        let has_key = || headers.get(IDEMPOTENCY_KEY).is_some_and(|key| !is_blank(key.as_bytes()));
        let is_said = || retry.is_some_and(retry::Rules::idempotent);
        self.idempotent.unwrap_or_else(|| is_idempotent(method) || has_key() || is_said())
    }
}

/// A key of nothing tells no request from another: no server recognises a repetition by it. It is a
/// string of a structured header by its draft, which is written in quotes.
fn is_blank(key: &[u8]) -> bool {
    let key = key.trim_ascii();
    let key = key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\"")).unwrap_or(key);
    key.trim_ascii().is_empty()
}
