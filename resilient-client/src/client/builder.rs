//! Building a client: everything is checked here, nothing at the first call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{Client, Shared};
use crate::engine::core::{Core, Setup};
use crate::engine::hook::{AttemptHook, Hook};
use crate::error::{Error, ErrorKind};
use crate::event::Observer;
use crate::policy::set::PlanSet;
use crate::policy::{Plan, PolicySet};
use crate::rng::Entropy;
use crate::transport::redirect;

/// The most a convenience reader reads of a body, unless the builder says otherwise.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Idle connections older than this are closed: shorter than what servers and load balancers commonly allow, so that
/// it is rarely the server who closes first.
const POOL_IDLE: Duration = Duration::from_secs(15);
#[cfg(feature = "http2")]
const PING_EVERY: Duration = Duration::from_secs(5);
#[cfg(feature = "http2")]
const PING_TIMEOUT: Duration = Duration::from_secs(2);

type Configure = Box<dyn FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send>;

/// Builds a [`Client`].
///
/// ```
/// use std::time::Duration;
/// use resilient_client::{Client, Policy, policy::timeout::TimeoutPolicy};
///
/// let timeout = TimeoutPolicy::standard().total(Duration::from_secs(2)).attempt(Duration::from_millis(500));
/// let client = Client::builder()
///     .policy(Policy::standard().timeout(timeout))
///     .transport(|reqwest| reqwest.user_agent("order-service/1.0"))
///     .build()?;
/// # Ok::<(), resilient_client::Error>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder {
    setup: Setup,
    configure: Vec<Configure>,
    max_body: usize,
}

impl ClientBuilder {
    pub(crate) fn new() -> Self {
        Self { setup: Setup::default(), configure: Vec::new(), max_body: MAX_BODY }
    }

    /// What to do for every call: one [`Policy`](crate::Policy), or a [`PolicySet`] with others for hosts and routes. Default
    /// [`Policy::standard`](crate::Policy::standard).
    pub fn policy(mut self, policies: impl Into<PolicySet>) -> Self {
        self.setup.policies = policies.into();
        self
    }

    /// Adjusts the reqwest client underneath: TLS, proxies, default headers, redirects, pool.
    ///
    /// Its retries stay off and its connect timeout is the policy's, whatever is set here. Redirects are followed to the same
    /// origin only, ten at most; under a redirect policy set here, a request whose redirect can't connect is taken for one
    /// that was never sent.
    pub fn transport(
        mut self,
        configure: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + 'static,
    ) -> Self {
        self.configure.push(Box::new(configure));
        self
    }

    /// Hears every event of every call. Can be given several times.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.setup.observers.push(Arc::new(observer));
        self
    }

    /// Asked before every attempt for its headers: to refresh a token, sign again, inject trace headers.
    pub fn on_attempt(mut self, hook: impl AttemptHook) -> Self {
        self.setup.hook = Some(Hook::new(hook));
        self
    }

    /// The request header that tells servers how long their answer is waited for, in milliseconds; `None` to tell nobody.
    /// Default `x-envoy-expected-rq-timeout-ms`. Calls marked streaming never tell.
    pub fn deadline_header(mut self, name: impl Into<Option<HeaderName>>) -> Self {
        self.setup.deadline_header = name.into();
        self
    }

    /// The origins that are told, such as `http://users:3000`; nobody else is. Default: everybody.
    pub fn deadline_origins(mut self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.setup.deadline_origins = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    /// The most upstreams to keep state for, at least 1. Default 1024. Beyond it the longest idle makes room; when all
    /// are busy or open, newcomers share one.
    pub fn max_upstreams(mut self, max: usize) -> Self {
        self.setup.max_upstreams = max;
        self
    }

    /// The most bytes `bytes()`, `text()` and `json()` read of a body, after decompression. Default 16 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Makes every random choice (jitter) follow from `seed`, so that a run can be repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.setup.entropy = Entropy::seeded(seed);
        self
    }

    /// Builds the client and the reqwest client underneath.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the policy can't work or reqwest refuses its settings.
    pub fn build(mut self) -> Result<Client, Error> {
        // Without TLS there may be no HTTP/2 either; with it, a dead connection must show before the calls on it do.
        let mut transport =
            reqwest::Client::builder().pool_idle_timeout(POOL_IDLE).redirect(redirect::same_origin());
        #[cfg(feature = "http2")]
        {
            transport = transport
                .http2_keep_alive_interval(PING_EVERY)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .http2_keep_alive_while_idle(true);
        }
        for configure in self.configure.drain(..) {
            transport = configure(transport);
        }
        if let Some(connect) = self.setup.policies.base().timeout.effective_connect() {
            transport = transport.connect_timeout(connect);
        }
        // Hidden retries would break every count; zero per request also keeps reqwest from cloning each request.
        transport = transport.retry(reqwest::retry::never().max_retries_per_request(0));
        let core = Core::new(self.setup).map_err(Error::config)?;
        let transport = transport.build().map_err(|error| Error::new(ErrorKind::Config).because(error))?;
        Ok(client(transport, core, self.max_body))
    }

    /// Builds the client over a reqwest client of your own, whose settings stay its own; [`transport`](Self::transport)
    /// has no effect.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the policy can't work.
    pub fn build_over(self, transport: reqwest::Client) -> Result<Client, Error> {
        let core = Core::new(self.setup).map_err(Error::config)?;
        Ok(client(transport, core, self.max_body))
    }

    /// The standard policy over a reqwest client of your own, which can't fail.
    pub(super) fn standard_over(transport: reqwest::Client) -> Client {
        client(transport, Core::of(Setup::default(), PlanSet::of(Plan::standard())), MAX_BODY)
    }
}

fn client(transport: reqwest::Client, core: Core, max_body: usize) -> Client {
    Client { transport, shared: Arc::new(Shared { core, max_body }) }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("policies", &self.setup.policies)
            .field("max_upstreams", &self.setup.max_upstreams)
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}
