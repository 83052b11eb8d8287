//! Whom calls are addressed to, taken apart: for labels, which must not be made of names that
//! anybody may choose.

use std::sync::Arc;

use super::key::{Key, Scope};

/// An upstream, taken apart: what its name says in one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamIdentity {
    scheme: Arc<str>,
    host: Arc<str>,
    port: Option<u16>,
    route: Option<Arc<str>>,
    key: Option<Arc<str>>,
}

impl UpstreamIdentity {
    pub(crate) fn of(key: &Key) -> Self {
        let authority = key.authority();
        let (route, key) = match key.scope() {
            None => (None, None),
            Some(Scope::Route(route)) => (Some(Arc::clone(route)), None),
            Some(Scope::Key(key)) => (None, Some(Arc::clone(key))),
        };
        Self {
            scheme: authority.scheme().into(),
            host: authority.host().into(),
            port: Some(authority.port()).filter(|port| *port != 0),
            route,
            key,
        }
    }

    /// Whether it stands for all those that have no place.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_overflow(&self) -> bool {
        self.scheme.is_empty() && &*self.host == super::key::OVERFLOW
    }

    /// `http` or `https`, as a rule; empty for requests whose URI is relative.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// A name or an address, as URLs have it; empty for requests whose URI is relative.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, given or the scheme's own.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The route, if this is the state of one: its method, or `*`, and its template.
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// The key, if this is the state of one. Callers choose them, so they may be anything.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}
