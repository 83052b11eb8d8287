//! What the clients have in common, written once.
//!
//! There are two clients, over reqwest and over hyper, and a layer. Each has its own transport and
//! the rest is the same to the letter. The rest is here: macros of public methods, because the
//! types have no common ancestor that users should see, and what these methods do as plain
//! functions. One generic client was tried in their place:
//! docs/decisions/0030-macros-for-the-doors.md.

mod defaults;
mod responses;

pub(crate) use self::defaults::defaults_methods;
pub(crate) use self::responses::{Pieces, response_methods, text};

/// An `Idempotency-Key` that no other call has.
#[cfg(any(feature = "reqwest", feature = "hyper"))]
pub(crate) fn new_idempotency_key() -> String {
    let mut text = uuid::Uuid::encode_buffer();
    uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text).to_owned()
}

/// The builders' settings that go to the engine, whatever the transport. For a struct with a
/// `setup`.
macro_rules! setup_methods {
    () => {
        /// What to do for every call: one [`Policy`](crate::Policy), or a
        /// [`PolicySet`](crate::policy::PolicySet) with others for hosts and routes. Default
        /// [`Policy::standard`](crate::Policy::standard).
        pub fn policy(mut self, policies: impl Into<crate::policy::PolicySet>) -> Self {
            self.setup.policies = policies.into();
            self
        }

        /// Hears every event of every call. Can be given several times.
        pub fn observer(mut self, observer: impl crate::event::Observer) -> Self {
            self.setup.observers.push(std::sync::Arc::new(observer));
            self
        }

        /// Asked before every attempt for its headers: to refresh a token, sign again, inject trace
        /// headers. Of several all are asked, in the order in which they were given; each sees the
        /// request's own headers, and a later one's stand over an earlier one's.
        pub fn on_attempt(mut self, hook: impl crate::AttemptHook) -> Self {
            let hook = crate::hook::Hook::new(hook);
            self.setup.hook = Some(match self.setup.hook.take() {
                Some(earlier) => earlier.and(hook),
                None => hook,
            });
            self
        }

        /// The request header that tells servers how long their answer is waited for, in
        /// milliseconds; `None` to tell nobody. Default `x-envoy-expected-rq-timeout-ms`. Calls
        /// marked streaming never tell. Whom: [`deadline_origins`](Self::deadline_origins).
        pub fn deadline_header(mut self, name: impl Into<Option<http::HeaderName>>) -> Self {
            self.setup.deadline_header = name.into();
            self
        }

        /// The only origins that requests bear it to, and
        /// [`x-envoy-attempt-count`](crate::ATTEMPT_COUNT) from the second attempt on: each is an
        /// origin, such as `http://users:3000`, all hosts below a name, such as `*.corp.example`,
        /// or `*` for everybody.
        ///
        /// Default: those that are local, as strangers have no use for either. Loopback and private
        /// addresses (10/8, 172.16/12, 192.168/16, 169.254/16, 100.64/10, `fc00::/7`, `fe80::/10`),
        /// names of one label, and below `localhost`, `local`, `internal`, `home.arpa` and `svc`.
        ///
        /// With [endpoints](Self::endpoints) it must hold for both: the name that is called, and
        /// the endpoint's own origin, or the name that is resolved.
        pub fn deadline_origins(mut self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
            self.setup.deadline_origins = Some(origins.into_iter().map(Into::into).collect());
            self
        }

        /// What `origin`, such as `http://users:3000`, stands for: each attempt goes to one of
        /// these [endpoints](crate::endpoints). Budget and bulkhead are the whole's, breaker and
        /// overload limit are each endpoint's own. A name is taken once.
        pub fn endpoints(
            mut self,
            origin: impl Into<String>,
            endpoints: crate::endpoints::Endpoints,
        ) -> Self {
            self.setup.endpoints.push((origin.into(), endpoints));
            self
        }

        /// The most upstreams to keep state for, at least 1. Default 1024. Beyond it the longest
        /// idle makes room: nobody is in it, and if its breaker is open nobody has asked for it for
        /// a minute. When all are busy, what is made for a newcomer lasts as long as its call: it
        /// is neither protected nor limited by what calls before it met, and shares one retry
        /// budget with others like it. Hosts and routes that a policy names, and names with
        /// [endpoints](Self::endpoints), have a place in any case, so their limits hold.
        pub fn max_upstreams(mut self, max: usize) -> Self {
            self.setup.max_upstreams = max;
            self
        }

        /// Makes every random choice (jitter, which endpoints are drawn, the throttle) follow from
        /// `seed`, so that a run can be repeated. Generated idempotency keys don't.
        pub fn seed(mut self, seed: u64) -> Self {
            self.setup.entropy = crate::rng::Entropy::seeded(seed);
            self
        }
    };
}

/// A hand on the breakers, for a struct with a `core`.
macro_rules! control_methods {
    () => {
        /// The circuit breaker of an upstream, to
        /// [force open or closed, disable, observe, enable and reset](crate::BreakerControl).
        /// `upstream` is an origin, such as `http://users:3000`, which needn't have been called
        /// yet, or a name that a [snapshot](Self::snapshot) shows, for the breaker of a route or
        /// key.
        ///
        /// # Errors
        /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it is neither, or when there is no
        /// place to keep its state.
        pub fn breaker(&self, upstream: &str) -> Result<crate::BreakerControl, crate::Error> {
            crate::BreakerControl::new(std::sync::Arc::clone(&self.core), upstream)
        }

        /// Adds an observer to those that it was built with, for as long as the client and its
        /// clones live. It hears of calls that begin from now on, the whole of each, and of what
        /// happens to upstreams, those already met among them; of calls under way it hears
        /// nothing.
        pub fn observe(&self, observer: impl crate::event::Observer) {
            let observer: std::sync::Arc<dyn crate::event::Observer> = std::sync::Arc::new(observer);
            self.core.observe(&observer);
        }

        #[cfg(feature = "admin")]
        pub(crate) fn core(&self) -> &std::sync::Arc<crate::engine::Core> {
            &self.core
        }
    };
}

/// A client's verbs, and what it does for all calls. For a struct with a `request` method, whose
/// URL is of type `$url`, and a `core`.
macro_rules! client_methods {
    ($url:ty) => {
        /// Starts a `GET` request.
        pub fn get(&self, url: $url) -> RequestBuilder {
            self.request(http::Method::GET, url)
        }

        /// Starts a `POST` request. It is repeated only when the server provably did not process
        /// it, unless it carries an `Idempotency-Key` or is marked
        /// [`idempotent`](RequestBuilder::idempotent).
        pub fn post(&self, url: $url) -> RequestBuilder {
            self.request(http::Method::POST, url)
        }

        /// Starts a `PUT` request.
        pub fn put(&self, url: $url) -> RequestBuilder {
            self.request(http::Method::PUT, url)
        }

        /// Starts a `PATCH` request. Repeated under the same conditions as a `POST`.
        pub fn patch(&self, url: $url) -> RequestBuilder {
            self.request(http::Method::PATCH, url)
        }

        /// Starts a `DELETE` request.
        pub fn delete(&self, url: $url) -> RequestBuilder {
            self.request(http::Method::DELETE, url)
        }

        /// Starts a `HEAD` request.
        pub fn head(&self, url: $url) -> RequestBuilder {
            self.request(http::Method::HEAD, url)
        }

        /// Puts other policies in force for the calls that begin from now on, all of them or, when
        /// one can't work, none.
        ///
        /// Live state is kept: an open breaker stays open, a budget keeps its balance, slots stay
        /// taken. Calls in progress finish under the policies they began with. A connect timeout
        /// belongs to the connection pool and isn't changed; the answer says so.
        ///
        /// # Errors
        /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a policy can't work; nothing has
        /// changed then.
        pub fn reload(
            &self,
            policies: impl Into<crate::policy::PolicySet>,
        ) -> Result<crate::Reloaded, crate::Error> {
            self.core.reload(policies.into()).map_err(crate::Error::config)
        }

        /// Begins no further call, on this client and its clones, and waits until those in progress
        /// have finished, bodies read or dropped, or until `limit` has passed. Returns how many had
        /// not.
        ///
        /// Calls made while or after draining are refused with
        /// [`ErrorKind::Draining`](crate::ErrorKind::Draining).
        pub async fn drain(&self, limit: std::time::Duration) -> u64 {
            self.core.drain(limit).await
        }

        /// Every upstream's live state, by name: breaker, places taken, tokens left.
        ///
        /// ```
        /// # fn log(client: &resilient_client::Client) {
        /// for upstream in client.snapshot() {
        ///     println!("{}: {:?}, {} in flight", upstream.name, upstream.breaker.state, upstream.in_flight);
        /// }
        /// # }
        /// ```
        pub fn snapshot(&self) -> Vec<crate::UpstreamSnapshot> {
            self.core.snapshot()
        }

        crate::shared_methods::control_methods!();

        /// How many upstreams this client keeps state for.
        pub fn upstreams(&self) -> usize {
            self.core.upstreams()
        }
    };
}

/// What a call asks for differently, and the ways to make it. For a struct with a `client`,
/// `options`, `header` and `send`.
macro_rules! request_methods {
    () => {
        /// The total time of this call: every attempt, the waits between them, and the body. See
        /// [`CallOptions::timeout`](crate::CallOptions::timeout) for what becomes of the attempt
        /// timeout.
        pub fn timeout(mut self, total: std::time::Duration) -> Self {
            self.options = self.options.timeout(total);
            self
        }

        /// The time of each attempt of this call, up to its response's head.
        pub fn attempt_timeout(mut self, attempt: std::time::Duration) -> Self {
            self.options = self.options.attempt_timeout(attempt);
            self
        }

        /// Lets the response's body take longer than the total, which then bounds the time to its
        /// head. The body's idle timeout stays. Upgrades (101) and server-sent events have this
        /// without asking.
        pub fn streaming(mut self) -> Self {
            self.options = self.options.streaming();
            self
        }

        /// Repeats this call after the policy's own wait, however long an answer asked to be left
        /// alone with `Retry-After`; see
        /// [`CallOptions::ignore_retry_after`](crate::CallOptions::ignore_retry_after).
        pub fn ignore_retry_after(mut self) -> Self {
            self.options = self.options.ignore_retry_after();
            self
        }

        /// Whether this call waits for an open circuit breaker rather than fail at once, in place
        /// of what its policy says; see
        /// [`BreakerPolicy::wait_for_ready`](crate::policy::breaker::BreakerPolicy::wait_for_ready).
        pub fn wait_for_ready(mut self, wait: bool) -> Self {
            self.options = self.options.wait_for_ready(wait);
            self
        }

        /// Keeps up to `bytes` of a streamed body as it is sent, so that the call can be retried
        /// and hedged until the stream has grown longer than that; see
        /// [`ReplayBody`](crate::ReplayBody), whose default is 64 KiB. A body of bytes is replayed
        /// for free and needs none.
        pub fn replay_buffer(mut self, bytes: usize) -> Self {
            self.options.rare.get_or_insert_default().replay_buffer = Some(bytes);
            self
        }

        /// Whether repeating this request does no harm, whatever its method says.
        pub fn idempotent(mut self, idempotent: bool) -> Self {
            self.options = self.options.idempotent(idempotent);
            self
        }

        /// Sets `Idempotency-Key`, the same for every attempt, which makes the request safe to
        /// repeat against a server that honours it. It takes the place of one that was set before,
        /// and one that is blank makes nothing safe.
        pub fn idempotency_key(self, key: impl AsRef<str>) -> Self {
            let (name, key) = (crate::IDEMPOTENCY_KEY, key.as_ref());
            match http::HeaderValue::from_str(key) {
                Ok(value) => self.headers(http::HeaderMap::from_iter([(name, value)])),
                // Which shows when it is built.
                Err(_) => self.header(name, key),
            }
        }

        /// Sets an `Idempotency-Key` made for this call: 122 random bits, the same for every
        /// attempt. A call made again by its caller gets another, so a caller who may repeat it
        /// should bring a key of his own.
        pub fn generate_idempotency_key(self) -> Self {
            self.idempotency_key(crate::shared_methods::new_idempotency_key())
        }

        /// Gives the calls with this key a breaker, budget and bulkhead of their own, apart from
        /// their host's: for a host behind which several things fail separately, such as shards or
        /// tenants.
        pub fn key(mut self, key: impl Into<std::sync::Arc<str>>) -> Self {
            self.options = self.options.key(key);
            self
        }

        /// Names the call in its spans, such as `/users/{id}`; see
        /// [`CallOptions::url_template`](crate::CallOptions::url_template).
        pub fn url_template(mut self, template: impl AsRef<str>) -> Self {
            self.options = self.options.url_template(template);
            self
        }

        /// Which redirects this call follows, in place of what its client does; see
        /// [`Redirects`](crate::Redirects).
        pub fn redirects(mut self, redirects: crate::Redirects) -> Self {
            self.options = self.options.redirects(redirects);
            self
        }

        /// What this call is worth where not all can be served, in place of its policy's.
        pub fn priority(mut self, priority: crate::policy::priority::Priority) -> Self {
            self.options = self.options.priority(priority);
            self
        }

        /// Makes the call and reads the whole body as part of it, up to the client's limit for
        /// bodies read whole. A body that stalls, is cut off or is reset is then retried like any
        /// failure, which nothing can do once the response is out.
        ///
        /// # Errors
        /// Those of [`send`](Self::send),
        /// [`ErrorKind::BodyTooLarge`](crate::ErrorKind::BodyTooLarge), and
        /// [`ErrorKind::Body`](crate::ErrorKind::Body) or
        /// [`ErrorKind::BodyIdle`](crate::ErrorKind::BodyIdle) when the last attempt's body failed.
        pub fn send_buffered(mut self) -> Pending {
            self.options = self.options.buffered(self.client.max_body());
            self.send()
        }

        /// The bytes of a successful response, read as part of the call. See
        /// [`send_buffered`](Self::send_buffered).
        ///
        /// # Errors
        /// Those of `send_buffered`, and [`ErrorKind::Status`](crate::ErrorKind::Status) for a 4xx
        /// or 5xx.
        pub async fn fetch_bytes(self) -> Result<bytes::Bytes, crate::Error> {
            self.send_buffered().await?.error_for_status()?.bytes().await
        }

        /// The text of a successful response, read as part of the call. See
        /// [`send_buffered`](Self::send_buffered).
        ///
        /// # Errors
        /// Those of `send_buffered`, and [`ErrorKind::Status`](crate::ErrorKind::Status) for a 4xx
        /// or 5xx.
        pub async fn fetch_text(self) -> Result<String, crate::Error> {
            self.send_buffered().await?.error_for_status()?.text().await
        }

        /// The JSON of a successful response, read as part of the call. See
        /// [`send_buffered`](Self::send_buffered).
        ///
        /// # Errors
        /// Those of `send_buffered`, [`ErrorKind::Status`](crate::ErrorKind::Status) for a 4xx or
        /// 5xx, and [`ErrorKind::Decode`](crate::ErrorKind::Decode).
        #[cfg(feature = "json")]
        pub async fn fetch_json<T: serde::de::DeserializeOwned>(self) -> Result<T, crate::Error> {
            self.send_buffered().await?.error_for_status()?.json().await
        }
    };
}

pub(crate) use {client_methods, control_methods, request_methods, setup_methods};
