//! Building a blocking client.

use std::fmt;
use std::sync::Arc;

use super::runtime::Runtime;
use super::{Client, handed_on};
use crate::error::Error;

/// Builds a [`Client`], with the settings of the async one's.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder(crate::ClientBuilder);

impl ClientBuilder {
    /// What [`Client::builder`] gives.
    pub fn new() -> Self {
        Self(crate::ClientBuilder::new())
    }

    pub(crate) fn map(self, change: impl FnOnce(crate::ClientBuilder) -> crate::ClientBuilder) -> Self {
        Self(change(self.0))
    }

    handed_on! {
        "ClientBuilder":
        fn policy(policies: impl Into<crate::policy::PolicySet>);
        fn observer(observer: impl crate::event::Observer);
        fn on_attempt(hook: impl crate::AttemptHook);
        fn deadline_header(name: impl Into<Option<http::HeaderName>>);
        fn deadline_origins(origins: impl IntoIterator<Item = impl Into<String>>);
        fn endpoints(origin: impl Into<String>, endpoints: crate::endpoints::Endpoints);
        fn max_upstreams(max: usize);
        fn seed(seed: u64);
        fn base_url(url: impl AsRef<str>);
        fn default_headers(headers: http::HeaderMap);
        fn transport(configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + 'static);
        fn max_body(bytes: usize);
        fn follows_no_redirects();
        fn redirects(redirects: crate::Redirects);
        #[cfg(feature = "cookies")]
        fn cookie_store(enable: bool);
        #[cfg(feature = "cache")]
        fn stale_if_error(stale: crate::stale::StaleIfError);
        #[cfg(feature = "fault")]
        fn faults(faults: crate::fault::Faults);
    }

    /// As [`ClientBuilder::user_agent`](crate::ClientBuilder::user_agent).
    pub fn user_agent<V>(self, value: V) -> Self
    where
        V: TryInto<http::HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.map(|inner| inner.user_agent(value))
    }

    /// As [`ClientBuilder::cookie_provider`](crate::ClientBuilder::cookie_provider).
    #[cfg(feature = "cookies")]
    pub fn cookie_provider<C: reqwest::cookie::CookieStore + 'static>(self, store: Arc<C>) -> Self {
        self.map(|inner| inner.cookie_provider(store))
    }

    /// Builds the client and starts its thread.
    ///
    /// # Errors
    /// Those of [`ClientBuilder::build`](crate::ClientBuilder::build), and
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when there is no thread to be had.
    pub fn build(self) -> Result<Client, Error> {
        let runtime = Runtime::start()?;
        let inner = runtime.inside(|| self.0.build())?;
        Ok(Client { inner, runtime: Arc::new(runtime) })
    }

    /// Builds the client over a reqwest client of your own, an async one; see
    /// [`ClientBuilder::build_over`](crate::ClientBuilder::build_over).
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_over(self, transport: reqwest::Client) -> Result<Client, Error> {
        let runtime = Runtime::start()?;
        let inner = runtime.inside(|| self.0.build_over(transport))?;
        Ok(Client { inner, runtime: Arc::new(runtime) })
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
