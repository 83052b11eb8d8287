//! Many endpoints behind one name: where they are, and how that is kept up to date.
//!
//! A service with several replicas should survive the loss of one without its callers noticing. The
//! client must know the replicas apart for that: a connection pool behind one DNS name can't tell
//! which of them is the slow one.
//!
//! - [`Endpoints::fixed`]: a list that doesn't change.
//! - [`Endpoints::dns`]: what a name resolves to, asked again every 30 s. Asking is left to the
//!   calls: the first waits for the answer, within its own deadline, and a later one that finds it
//!   old goes on with the old set meanwhile. When it is older than three intervals, as after an
//!   idle time, that one waits as well, a second at most. A resolver that fails, or answers with
//!   nothing, leaves the last good set in place.
//! - [`Endpoints::watched`]: a list one replaces at any time, for service registries.
//!
//! Which of them takes a call is decided by
//! [`BalancePolicy`](crate::policy::balance::BalancePolicy).
//!
//! Whatever changes the list, an endpoint that stays keeps what is known of it. One that leaves
//! finishes the calls it has; should it come back within a minute (with DNS, also within two
//! intervals), it is known still. A new one starts slowly, and so does one that comes back.
//!
//! Whom a request says it is for: with [`dns`](Endpoints::dns) the name, in `Host` or `:authority`
//! and in the response's URL; the address is only where it goes. The origins of a fixed or watched
//! list are names of their own: a request says the one it goes to, so that a list may hold servers
//! that answer to different names.
//!
//! Over HTTP/2 without TLS reqwest sends the address of a [`dns`](Endpoints::dns) name as
//! `:authority` beside the name as `Host`, because its pool goes where the URL says; the client
//! over hyper sends the name. Nor does reqwest follow a redirect to the name itself, whose origin
//! isn't the address's: it is handed to the caller.
//!
//! One caveat: [`dns`](Endpoints::dns) takes `http` only. Calls go to the addresses themselves, and
//! over TLS a certificate is checked against the host of the URL, which would be the address. For
//! `https`, list the replicas' own names.
//!
//! ```
//! use resilient_client::endpoints::Endpoints;
//!
//! let endpoints = Endpoints::fixed(["http://10.0.0.1:3000", "http://10.0.0.2:3000"]);
//! assert!(endpoints.check().is_ok());
//!
//! let twice = Endpoints::fixed(["http://a:80", "http://A"]).check().unwrap_err();
//! assert_eq!(twice.to_string(), "endpoints number 2, http://A: is number 1 again");
//!
//! let (endpoints, handle) = Endpoints::watched();
//! let changed = handle.set(["http://10.0.0.1:3000"])?;
//! assert_eq!((changed.added, changed.removed), (1, 0));
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod resolve;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::uri::Scheme;

pub use crate::origin::{MOST_ENDPOINTS, Origin};
pub use resolve::{NoEndpoint, Resolve, ResolveError, Resolving, SystemResolver};

use crate::invalid::{Invalid, positive};
use crate::sync::Mutex;

/// How long an endpoint that left the list is remembered, at least.
const LEAST_GRACE: Duration = Duration::from_secs(60);
/// Asking more often than this would cost more than it could tell: records live for seconds.
const LEAST_EVERY: Duration = Duration::from_millis(100);

/// Where the endpoints of one name are. Plain data, checked when the client is built; see the
/// [module docs](self).
#[derive(Clone)]
#[must_use]
pub struct Endpoints {
    kind: Kind,
    every: Option<Duration>,
    resolver: Option<Arc<dyn Resolve>>,
}

#[derive(Clone)]
enum Kind {
    Fixed(Vec<String>),
    Dns(String),
    Watched(Arc<Watched>),
}

impl Endpoints {
    /// How often a name is resolved again unless said otherwise.
    const EVERY: Duration = Duration::from_secs(30);

    /// These and no others: 1 to 1024 origins (scheme, host and port), all `http` or all `https`.
    pub fn fixed<T: Into<String>>(origins: impl IntoIterator<Item = T>) -> Self {
        // One more than is allowed is enough to refuse the list, however long it is.
        let origins = origins.into_iter().take(MOST_ENDPOINTS + 1).map(Into::into).collect();
        Self { kind: Kind::Fixed(origins), every: None, resolver: None }
    }

    /// What the host of `origin` resolves to, such as `http://users.internal:3000`. At most 1024
    /// addresses, the lowest. Requests name that host, not an address, in their `Host` header.
    pub fn dns(origin: impl Into<String>) -> Self {
        Self { kind: Kind::Dns(origin.into()), every: None, resolver: None }
    }

    /// A list to be [set](EndpointsHandle::set) at any time, by whoever holds the handle. Until
    /// then calls fail.
    pub fn watched() -> (Self, EndpointsHandle) {
        let watched = Arc::new(Watched::default());
        let endpoints = Self { kind: Kind::Watched(Arc::clone(&watched)), every: None, resolver: None };
        (endpoints, EndpointsHandle { watched })
    }

    /// How often a [name](Self::dns) is resolved again, give or take 10 %: at least 100 ms. Default
    /// 30 s. After a failure it is tried again sooner, with the next call a second later.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    /// Resolves the [name](Self::dns) another way.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Whether this can work.
    ///
    /// # Errors
    /// Names the offender: a list that is empty or too long, an endpoint that isn't an origin or is
    /// there twice, two schemes in one list, a name to resolve that is `https`, an interval too
    /// short or longer than ten years, an interval or a resolver without a name to resolve.
    pub fn check(&self) -> Result<(), Invalid> {
        self.compile().map(drop)
    }

    pub(crate) fn compile(&self) -> Result<Source, Invalid> {
        let Kind::Dns(name) = &self.kind else {
            if self.every.is_some() {
                return Err(Invalid::new("endpoints.every", "only has a meaning for a name to resolve"));
            }
            if self.resolver.is_some() {
                return Err(Invalid::new("endpoints.resolver", "only has a meaning for a name to resolve"));
            }
            return Ok(match &self.kind {
                Kind::Watched(watched) => Source::Watched(Arc::clone(watched)),
                Kind::Fixed(texts) => Source::Fixed(crate::origin::list(texts)?),
                Kind::Dns(_) => Source::Fixed(Arc::new([])),
            });
        };
        let origin = Origin::parse(name)?;
        if *origin.scheme() != Scheme::HTTP {
            let problem = format!(
                "{origin}: must be http, since over TLS its addresses would be taken for the certificate's name"
            );
            return Err(Invalid::new("endpoints", problem));
        }
        let every = self.every.unwrap_or(Self::EVERY);
        positive("endpoints.every", every)?;
        if every < LEAST_EVERY {
            return Err(Invalid::new(
                "endpoints.every",
                format!("must be at least {LEAST_EVERY:?}, got {every:?}"),
            ));
        }
        let resolver = self.resolver.clone().unwrap_or_else(|| Arc::new(SystemResolver));
        Ok(Source::Dns { origin, every, resolver })
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Fixed(origins) => write!(f, "Endpoints({} fixed)", origins.len()),
            Kind::Dns(_) => write!(f, "Endpoints(a name, every {:?})", self.every.unwrap_or(Self::EVERY)),
            Kind::Watched(watched) => write!(f, "Endpoints({} watched)", watched.list().origins.len()),
        }
    }
}

/// Replaces a [watched](Endpoints::watched) list. Clones replace the same one.
#[derive(Clone)]
pub struct EndpointsHandle {
    watched: Arc<Watched>,
}

impl EndpointsHandle {
    /// Replaces the list, by the rules of [`Endpoints::fixed`]. A call that starts afterwards keeps
    /// to it, and so do later attempts of calls under way; attempts already sent are left alone.
    ///
    /// # Errors
    /// Those of a fixed list, an empty one included: a registry that suddenly knows nobody is more
    /// often broken than right. Then nothing changes.
    pub fn set<T: AsRef<str>>(&self, origins: impl IntoIterator<Item = T>) -> Result<Changed, Invalid> {
        let list = crate::origin::list(origins)?;
        let _writer = self.watched.writer.lock();
        let before = self.watched.list();
        let changed = Changed::between(&before.origins, &list);
        // The same endpoints in another order are the same list.
        if changed.any() {
            self.watched.list.store(Arc::new(Version { version: before.version + 1, origins: list }));
        }
        Ok(changed)
    }
}

impl fmt::Debug for EndpointsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointsHandle({} endpoints)", self.watched.list().origins.len())
    }
}

/// What replacing a list changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Endpoints that weren't in the list.
    pub added: usize,
    /// Endpoints that no longer are.
    pub removed: usize,
}

impl Changed {
    /// Whether it changed anything.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    fn between(before: &[Origin], after: &[Origin]) -> Self {
        let known: HashSet<_> = before.iter().collect();
        let stayed = after.iter().filter(|origin| known.contains(origin)).count();
        Self { added: after.len() - stayed, removed: before.len() - stayed }
    }
}

/// A list somebody replaces. Readers look at it when they need it, so it keeps no list of readers.
#[derive(Debug)]
pub(crate) struct Watched {
    list: ArcSwap<Version>,
    /// Serialises writers, so that each learns what it changed.
    writer: Mutex<()>,
}

impl Default for Watched {
    fn default() -> Self {
        Self { list: ArcSwap::default(), writer: Mutex::new(()) }
    }
}

/// One of the lists there were, numbered; the empty one at the beginning is number zero.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) version: u64,
    pub(crate) origins: Arc<[Origin]>,
}

impl Default for Version {
    fn default() -> Self {
        Self { version: 0, origins: Arc::new([]) }
    }
}

impl Watched {
    pub(crate) fn list(&self) -> arc_swap::Guard<Arc<Version>> {
        self.list.load()
    }
}

/// Checked [`Endpoints`].
pub(crate) enum Source {
    Fixed(Arc<[Origin]>),
    Dns { origin: Origin, every: Duration, resolver: Arc<dyn Resolve> },
    Watched(Arc<Watched>),
}

impl Source {
    /// How long an endpoint that left the list is remembered.
    pub(crate) fn grace(&self) -> Duration {
        match self {
            Self::Dns { every, .. } => LEAST_GRACE.max(every.saturating_mul(2)),
            Self::Fixed(_) | Self::Watched(_) => LEAST_GRACE,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(list) => f.debug_tuple("Fixed").field(list).finish(),
            Self::Dns { origin, every, .. } => f.debug_tuple("Dns").field(origin).field(every).finish(),
            Self::Watched(watched) => f.debug_tuple("Watched").field(&watched.list().origins).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(endpoints: &Endpoints) -> String {
        endpoints.check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let dns = || Endpoints::dns("http://users:3000");
        dns().check().unwrap();
        assert_eq!(
            refusal(&Endpoints::fixed(Vec::<String>::new())),
            "endpoints must be at least one, got none"
        );
        assert_eq!(
            refusal(&dns().every(Duration::from_millis(99))),
            "endpoints.every must be at least 100ms, got 99ms"
        );
        assert_eq!(refusal(&dns().every(Duration::ZERO)), "endpoints.every must be longer than zero, got 0s");
        assert!(refusal(&dns().every(Duration::MAX)).contains("at most ten years"));
        assert!(
            refusal(&Endpoints::dns("https://users")).starts_with("endpoints https://users: must be http, ")
        );
        assert!(refusal(&Endpoints::dns("users")).starts_with("endpoints users: "));
        let fixed = || Endpoints::fixed(["http://a"]);
        assert!(refusal(&fixed().every(Duration::from_secs(1))).starts_with("endpoints.every only "));
        assert!(refusal(&fixed().resolver(SystemResolver)).starts_with("endpoints.resolver only "));
    }

    #[test]
    fn an_endless_list_is_refused_and_not_collected() {
        let endless = (1_u64..).map(|n| format!("http://host{n}"));
        assert_eq!(refusal(&Endpoints::fixed(endless)), "endpoints must be at most 1024, got more");
    }

    #[test]
    fn a_bad_list_changes_nothing() {
        let (_endpoints, handle) = Endpoints::watched();
        assert_eq!(handle.set(["http://a", "http://b"]).unwrap(), Changed { added: 2, removed: 0 });
        for bad in [&[][..], &["http://c", "http://c"], &["http://c", "https://d"], &["c"]] {
            handle.set(bad).unwrap_err();
            assert_eq!(format!("{:?}", handle.watched.list().origins), "[http://a, http://b]");
        }
        assert_eq!(handle.set(["http://b", "http://c"]).unwrap(), Changed { added: 1, removed: 1 });
        assert!(!handle.set(["http://c", "http://b"]).unwrap().any(), "another order is no change");
    }

    #[test]
    fn the_grace_covers_two_intervals() {
        let grace = |endpoints: Endpoints| endpoints.compile().unwrap().grace();
        let dns = |seconds| Endpoints::dns("http://a").every(Duration::from_secs(seconds));
        assert_eq!(grace(dns(5)), Duration::from_secs(60));
        assert_eq!(grace(dns(300)), Duration::from_secs(600));
        assert_eq!(grace(Endpoints::fixed(["http://a"])), Duration::from_secs(60));
    }
}
