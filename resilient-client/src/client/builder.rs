//! Building a client: everything is checked here, nothing at the first call.

use std::fmt;
use std::sync::Arc;

use super::Client;
use super::fallback::Answers;
use super::recipe::Recipe;
use crate::client::redirect::ReqwestFacts;
use crate::engine::{Core, Setup};
use crate::error::{Error, ErrorKind};
use crate::faulted::Injector;
use crate::invalid::Invalid;
use crate::policy::plan::Plan;
use crate::policy::set::PlanSet;
use crate::pool_defaults::MAX_BODY;
use crate::redirects::Redirects;
use crate::shared_methods::{defaults_methods, setup_methods};

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
    recipe: Recipe,
    max_body: usize,
    redirects: Option<Redirects>,
    faults: Injector,
    /// It keeps cookies.
    #[cfg(feature = "cookies")]
    cookies: bool,
    #[cfg(feature = "cache")]
    stale: Option<crate::stale::StaleIfError>,
}

impl ClientBuilder {
    /// What [`Client::builder`] gives: one that starts from
    /// [`Policy::standard`](crate::Policy::standard).
    pub fn new() -> Self {
        Self {
            setup: Setup::default(),
            recipe: Recipe::default(),
            max_body: MAX_BODY,
            redirects: None,
            faults: Injector::none(),
            #[cfg(feature = "cookies")]
            cookies: false,
            #[cfg(feature = "cache")]
            stale: None,
        }
    }

    setup_methods!();
    defaults_methods!();

    /// Adjusts the reqwest client underneath: TLS, proxies, default headers, redirects, pool.
    ///
    /// Its retries stay off and its connect timeout is the policy's, whatever is set here.
    /// Which redirects are followed is better said with [`redirects`](Self::redirects). Under a
    /// redirect policy set here nobody can tell whether an error is the request's or a hop's, so
    /// none proves that the request was never sent, and a POST isn't repeated after it; see
    /// [`follows_no_redirects`](Self::follows_no_redirects). A timeout set
    /// here holds beside the policy's, and no call's own lifts it; its error says whose it was.
    ///
    /// It runs twice: there is a second reqwest client, whose every request has a connection of its
    /// own, to which an attempt goes after one before it in its call has found a connection out of
    /// the pool dead, or may have. What both must have in common is made outside and cloned here, a
    /// cookie jar with reqwest's `cookie_provider`: `cookie_store(true)` makes a new one each time.
    pub fn transport(
        mut self,
        configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + 'static,
    ) -> Self {
        self.recipe.configure.get_mut().push(Box::new(configure));
        self
    }

    /// Keeps the cookies that servers set, and sends them back. Default: no.
    ///
    /// The jar is asked for each attempt and at each redirect that is followed, and filled by each
    /// answer, whether a call ends with it or not: a retry sends what the answer before it set, and
    /// each cookie once. A request's own `cookie` header goes in place of the jar's.
    ///
    /// Not together with [`endpoints`](Self::endpoints), which [`build`](Self::build) refuses:
    /// reqwest keeps cookies by the URL that an attempt goes to, which is an endpoint's. Two names
    /// with an endpoint in common would send each other's cookies, and one set for a `Domain` would
    /// be refused. The same holds for a store set with [`transport`](Self::transport), which isn't
    /// seen here.
    #[cfg(feature = "cookies")]
    pub fn cookie_store(self, enable: bool) -> Self {
        if enable {
            self.cookie_provider(Arc::new(reqwest::cookie::Jar::default()))
        } else {
            Self { cookies: false, ..self.transport(|inner| inner.cookie_store(false)) }
        }
    }

    /// The same with a store of your own, such as a [`Jar`](reqwest::cookie::Jar) with cookies in
    /// it; and as little together with [`endpoints`](Self::endpoints).
    #[cfg(feature = "cookies")]
    pub fn cookie_provider<C: reqwest::cookie::CookieStore + 'static>(self, store: Arc<C>) -> Self {
        Self { cookies: true, ..self.transport(move |inner| inner.cookie_provider(Arc::clone(&store))) }
    }

    /// A jar goes by where an attempt is sent to, and not by the name that was called.
    #[cfg(feature = "cookies")]
    fn keeps_cookies_apart(&self) -> Result<(), Invalid> {
        match self.setup.endpoints.first() {
            Some((name, _)) if self.cookies => {
                let problem = "can't be kept apart by name where a name stands for endpoints";
                Err(Invalid::new("cookie_store", problem).of(name))
            }
            _ => Ok(()),
        }
    }

    #[cfg(not(feature = "cookies"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
    fn keeps_cookies_apart(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// The most bytes `bytes()`, `text()` and `json()` read of a body, after decompression. Default
    /// 16 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Which redirects are followed, each as a call of its own, under the policy and the circuit
    /// breaker of the origin it leads to; see [`redirects`](crate::redirects). Default: those to
    /// the same origin, ten at most, within the attempt that meets them; any other is the answer,
    /// and the [report](crate::CallReport::unfollowed) says so.
    ///
    /// A reqwest client that was [given](Self::build_over), or whose redirect policy was set with
    /// [`transport`](Self::transport), follows by itself what it does, before anything is asked
    /// here. Where it was led to elsewhere is no home: what goes on from there is what may go to
    /// strangers. One whose default headers, set there, hold credentials follows none to other
    /// origins, as they can't be left out.
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.redirects = Some(redirects);
        self
    }

    /// Redirects are handed over as they come: a client built here follows none, and one that is
    /// [given](Self::build_over) is promised not to. Default: a client built here follows those to
    /// the same origin, and a given one is taken to follow any.
    ///
    /// It matters for requests that must not be repeated. A server that answers a POST with a
    /// redirect has processed it, and if the hop then can't connect, reqwest's error looks like one
    /// of a request that was never sent. So without this promise no error of a given client proves
    /// that, and a POST that found no connection isn't tried again.
    pub fn follows_no_redirects(mut self) -> Self {
        self.recipe.no_redirects = true;
        self
    }

    /// Keeps answers and gives the last one, marked, when the server fails; see
    /// [`stale`](crate::stale). Default: not at all.
    #[cfg(feature = "cache")]
    pub fn stale_if_error(mut self, stale: crate::stale::StaleIfError) -> Self {
        self.stale = Some(stale);
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

    #[cfg(feature = "cache")]
    fn answers(&self) -> Result<Answers, Error> {
        let hooked = self.setup.hook.is_some();
        let limits = self.stale.as_ref().map(|stale| stale.compile(hooked)).transpose();
        Ok(Answers::within(limits.map_err(Error::config)?))
    }

    #[cfg(not(feature = "cache"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
    fn answers(&self) -> Result<Answers, Error> {
        Ok(Answers::none())
    }

    /// Builds the client and the reqwest client underneath.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the policy can't work, when a host's policy has a connect timeout
    /// of its own (reqwest has one for all; `hyper::Client` can), when cookies are kept and there
    /// are [`endpoints`](Self::endpoints), or when reqwest refuses its settings.
    pub fn build(mut self) -> Result<Client, Error> {
        self.setup.policies.has_one_connect_timeout().map_err(Error::config)?;
        self.keeps_cookies_apart().map_err(Error::config)?;
        self.recipe.connect = self.setup.policies.base().timeout.effective_connect();
        let answers = self.answers()?;
        let core = Core::new(self.setup).map_err(Error::config)?;
        // Both here, although that takes twice as long: at the moment when the second is needed the
        // first time, many calls may need it at once, and with TLS its making would stop them all
        // for as long as it takes to read the system's certificates.
        let mut make =
            |pool| self.recipe.make(pool).map_err(|error| Error::new(ErrorKind::Config).because(error));
        let ((transport, one), (fresh, other)) = (make(true)?, make(false)?);
        // What an error proves must not depend on which of the two it comes from.
        let facts = ReqwestFacts::new(one && other, self.max_body, Some(fresh), self.faults)
            .redirecting(self.redirects, self.recipe.no_redirects);
        Ok(client((transport, facts), core, self.max_body, answers))
    }

    /// Builds the client over a reqwest client of your own, whose settings stay its own;
    /// [`transport`](Self::transport) has no effect.
    ///
    /// There is no second client of the same settings then, for the attempts that follow one on a
    /// dead connection: they go over the pool again, where they may meet another.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the policy can't work.
    pub fn build_over(self, transport: reqwest::Client) -> Result<Client, Error> {
        let answers = self.answers()?;
        let core = Core::new(self.setup).map_err(Error::config)?;
        let off = self.recipe.no_redirects;
        let facts = ReqwestFacts::new(off, self.max_body, None, self.faults).redirecting(self.redirects, off);
        Ok(client((transport, facts), core, self.max_body, answers))
    }

    /// The standard policy over a reqwest client of your own, which can't fail.
    pub(super) fn standard_over(transport: reqwest::Client) -> Client {
        let core = Core::of(Setup::default(), PlanSet::of(Plan::standard()));
        let facts = ReqwestFacts::new(false, MAX_BODY, None, Injector::none()).redirecting(None, false);
        client((transport, facts), core, MAX_BODY, Answers::none())
    }
}

fn client(
    (transport, facts): (reqwest::Client, Arc<ReqwestFacts>),
    core: Core,
    max_body: usize,
    answers: Answers,
) -> Client {
    Client { transport: Some(transport), facts, core: Arc::new(core), max_body, answers }
}

/// A client without a transport, every call of which is told why.
#[cold]
pub(super) fn unmade(error: &Error) -> Client {
    let facts = ReqwestFacts::new(false, MAX_BODY, None, Injector::none()).redirecting(None, false);
    let core = Arc::new(Core::unmade(error));
    Client { transport: None, facts, core, max_body: MAX_BODY, answers: Answers::none() }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self::new()
    }
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
