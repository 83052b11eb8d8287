//! Building a client over hyper: everything is checked here, nothing at the first call.

use std::fmt;
use std::sync::Arc;

use hyper_util::client::legacy::Builder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;

use super::Client;
use crate::engine::{Core, Setup};
use crate::error::Error;
use crate::faulted::Injector;
use crate::hyper::connector::{Connector, Options, share_out};
use crate::hyper::pool::Wire;
use crate::hyper::ticket::Executor;
use crate::pool_defaults::{MAX_BODY, POOL_IDLE};
#[cfg(feature = "http2")]
use crate::pool_defaults::{PING_EVERY, PING_TIMEOUT};
use crate::redirects::Redirects;
use crate::shared_methods::{defaults_methods, setup_methods};
use crate::sync::OneOwner;

type Adjust<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Builds a [`Client`].
///
/// ```
/// use std::time::Duration;
/// use resilient_client::hyper::Client;
/// use resilient_client::{Policy, policy::timeout::TimeoutPolicy};
///
/// let timeout = TimeoutPolicy::standard().total(Duration::from_secs(2)).attempt(Duration::from_millis(500));
/// let client = Client::builder()
///     .policy(Policy::standard().timeout(timeout))
///     .transport(|pool| _ = pool.pool_max_idle_per_host(32))
///     .build()?;
/// # Ok::<(), resilient_client::Error>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder {
    setup: Setup,
    max_body: usize,
    pool: OneOwner<Vec<Adjust<Builder>>>,
    sockets: OneOwner<Vec<Adjust<HttpConnector>>>,
    http2_only: bool,
    remote_addr: bool,
    redirects: Option<Redirects>,
    faults: Injector,
    #[cfg(feature = "hyper-rustls")]
    tls: Option<rustls::ClientConfig>,
}

impl ClientBuilder {
    /// What [`Client::builder`] gives: one that starts from
    /// [`Policy::standard`](crate::Policy::standard).
    pub fn new() -> Self {
        Self {
            setup: Setup::default(),
            max_body: MAX_BODY,
            pool: OneOwner::default(),
            sockets: OneOwner::default(),
            http2_only: false,
            remote_addr: true,
            redirects: None,
            faults: Injector::none(),
            #[cfg(feature = "hyper-rustls")]
            tls: None,
        }
    }

    setup_methods!();
    defaults_methods!();

    /// The most bytes `bytes()`, `text()` and `json()` read of a body. Default 16 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Which redirects are followed, each as a call of its own, under the policy and the circuit
    /// breaker of the origin it leads to; see [`redirects`](crate::redirects). Default none: a 3xx
    /// is the answer.
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.redirects = Some(redirects);
        self
    }

    /// Adjusts the connection pool: idle times, window sizes, limits of HTTP/1.1 and HTTP/2. Its
    /// own hidden repetition stays off, whatever is set here.
    pub fn transport(mut self, adjust: impl FnOnce(&mut Builder) + Send + 'static) -> Self {
        self.pool.get_mut().push(Box::new(adjust));
        self
    }

    /// Adjusts how sockets are made: local addresses, buffers, keep-alive probes. The connect
    /// timeout is the policy's, whatever is set here.
    pub fn sockets(mut self, adjust: impl FnOnce(&mut HttpConnector) + Send + 'static) -> Self {
        self.sockets.get_mut().push(Box::new(adjust));
        self
    }

    /// Whether responses over HTTP/1.1 know the [address](super::Response::remote_addr) that
    /// answered. Default true; it costs three allocations a response. Without, nobody knows of an
    /// idle connection that had ended whether it had ever served, so a request that it never took
    /// counts as a failure to connect.
    pub fn remote_addr(mut self, known: bool) -> Self {
        self.remote_addr = known;
        self
    }

    /// Speaks HTTP/2 to every server without asking, `http` URLs too. Otherwise HTTP/2 is spoken to
    /// `https` servers that choose it.
    #[cfg(feature = "http2")]
    pub fn http2_prior_knowledge(mut self) -> Self {
        self.http2_only = true;
        self
    }

    /// TLS settings of your own: trusted roots, a client's certificate. Which protocols are offered
    /// is decided here. Default: what the platform trusts.
    #[cfg(feature = "hyper-rustls")]
    pub fn tls_config(mut self, config: rustls::ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Injects [faults](crate::fault) into attempts, which the engine takes for the real thing.
    /// Default none.
    #[cfg(feature = "fault")]
    pub fn faults(mut self, faults: crate::fault::Faults) -> Self {
        self.faults = Injector::new(faults);
        self
    }

    /// Attempts go this way in place of the wire.
    #[cfg(feature = "testing")]
    pub(crate) fn injecting(mut self, injector: Injector) -> Self {
        self.faults = injector;
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the policy can't work or the platform's
    /// trust can't be read.
    pub fn build(self) -> Result<Client, Error> {
        let mut sockets = HttpConnector::new();
        sockets.set_nodelay(true);
        for adjust in self.sockets.into_inner() {
            adjust(&mut sockets);
        }
        let timeout = self.setup.policies.base().timeout.effective_connect();
        let hosts = self.setup.policies.connect_timeouts();
        // An address's share is cut from the longest; the whole is bounded for each host further
        // up.
        let longest =
            hosts.iter().map(|(_, own)| *own).fold(timeout, |longest, own| Some(longest?.max(own?)));
        share_out(&mut sockets, longest);
        let options = Options { timeout, tell: self.remote_addr, http2_only: self.http2_only };
        let core = Core::new(self.setup).map_err(Error::config)?;
        #[cfg(feature = "hyper-rustls")]
        let connector = Connector::secure(sockets, self.tls, options)?;
        #[cfg(not(feature = "hyper-rustls"))]
        let connector = Connector::plain(sockets, options);
        let connector = connector.with_timeouts(hosts);
        let core = core.connecting(Arc::clone(connector.sends().connections()));
        let mut pool = pool();
        for adjust in self.pool.into_inner() {
            adjust(&mut pool);
        }
        #[cfg(feature = "http2")]
        if self.http2_only {
            pool.http2_only(true);
        }
        // Hidden repetition would break every count. The ledger does it in the open.
        pool.retry_canceled_requests(false);
        let wire = Wire::new(&pool, connector, self.http2_only, self.faults).redirecting(self.redirects);
        Ok(Client { wire: Some(Arc::new(wire)), core: Arc::new(core), max_body: self.max_body })
    }
}

/// A client without a transport, every call of which is told why.
#[cold]
pub(super) fn unmade(error: &Error) -> Client {
    Client { wire: None, core: Arc::new(Core::unmade(error)), max_body: MAX_BODY }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self::new()
    }
}

fn pool() -> Builder {
    let mut pool = Builder::new(Executor);
    pool.pool_timer(TokioTimer::new()).timer(TokioTimer::new()).pool_idle_timeout(POOL_IDLE);
    #[cfg(feature = "http2")]
    pool.http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true);
    pool
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
