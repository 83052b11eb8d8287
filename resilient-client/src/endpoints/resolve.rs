//! From a name to addresses.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Any error, shared by the calls that failed of it.
pub type ResolveError = Box<dyn StdError + Send + Sync>;

/// A lookup under way.
pub type Resolving = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, ResolveError>> + Send>>;

/// Finds the addresses of a name. The [system's resolver](SystemResolver) unless another is given.
pub trait Resolve: Send + Sync + 'static {
    /// Looks `host` up; `port` goes into the answer unless the resolver knows better. It is asked
    /// by one task at a time. The order of the addresses doesn't matter, nor do repetitions.
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

/// What the operating system uses (`getaddrinfo`), on a thread where it may block.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Why a name has no endpoint to send a call to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NoEndpoint {
    /// The name has never resolved, or not within an attempt's time. The source is the resolver's
    /// error.
    #[non_exhaustive]
    Unresolved {
        /// The name.
        host: Arc<str>,
        /// What the resolver said.
        error: Arc<dyn StdError + Send + Sync>,
    },
    /// A watched list was never [set](super::EndpointsHandle::set).
    NotSet,
}

impl NoEndpoint {
    /// Nothing has been heard of the name for so long.
    pub(crate) fn unanswered(host: &str, waited: Duration) -> Self {
        let error = ResolveError::from(format!("no answer from DNS within {waited:.1?}"));
        Self::Unresolved { host: host.into(), error: error.into() }
    }
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved { host, .. } => write!(f, "{host} doesn't resolve"),
            Self::NotSet => f.write_str("no list of endpoints has been given yet"),
        }
    }
}

impl StdError for NoEndpoint {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unresolved { error, .. } => Some(&**error),
            Self::NotSet => None,
        }
    }
}
