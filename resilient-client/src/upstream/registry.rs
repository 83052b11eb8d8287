//! Every upstream a client has met, found by authority.
//!
//! A lookup is the hottest shared thing in the crate, so it takes no lock and allocates nothing: it hashes the borrowed
//! parts of the URL and reads an immutable table. A new upstream copies the table, which is rare and bounded by the
//! cap. The cap keeps a caller that meets a million hosts from growing without end: the longest idle upstream makes
//! room, one with an open breaker never does (a stream of made-up hosts must not wash the memory of a broken one away),
//! and when nobody can make room, newcomers share one overflow upstream.

use std::borrow::Cow;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::Upstream;
use crate::sync::Mutex;
use crate::time::Tick;

/// What fails together, borrowed from a URL: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Authority<'a> {
    scheme: Cow<'a, str>,
    host: Cow<'a, str>,
    port: u16,
}

impl<'a> Authority<'a> {
    /// Of a URL, which is already normalised. A URL without a host (`data:`) has an empty one.
    pub(crate) fn of_url(url: &'a reqwest::Url) -> Self {
        Self {
            scheme: Cow::Borrowed(url.scheme()),
            host: Cow::Borrowed(url.host_str().unwrap_or_default()),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }

    /// Of a URI as it stands in an `http::Request`: a relative one belongs to the nameless upstream.
    pub(crate) fn of_uri(uri: &'a http::Uri) -> Self {
        let scheme = uri.scheme_str().unwrap_or_default();
        let default_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => 0,
        };
        let (host, port) = split(uri.authority().map_or("", http::uri::Authority::as_str));
        Self { scheme: Cow::Borrowed(scheme), host: lower_case(host), port: port.unwrap_or(default_port) }
    }

    pub(crate) fn into_owned(self) -> Authority<'static> {
        Authority {
            scheme: Cow::Owned(self.scheme.into_owned()),
            host: Cow::Owned(self.host.into_owned()),
            port: self.port,
        }
    }
}

/// The host and the port of an authority that is known to be valid; `Uri`'s own methods parse it again for each.
fn split(authority: &str) -> (&str, Option<u16>) {
    let authority = authority.rsplit_once('@').map_or(authority, |(_userinfo, rest)| rest);
    match authority.rsplit_once(':') {
        // The last colon of an IPv6 address is inside its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.scheme, self.port) {
            ("http", 80) | ("https", 443) | (_, 0) => write!(f, "{}://{}", self.scheme, self.host),
            _ => write!(f, "{}://{}:{}", self.scheme, self.host, self.port),
        }
    }
}

#[derive(Clone)]
struct Entry {
    hash: u64,
    authority: Authority<'static>,
    /// The route whose own state this is; `None` for the whole authority's.
    scope: Option<Arc<str>>,
    upstream: Arc<Upstream>,
}

impl Entry {
    fn is(&self, authority: &Authority<'_>, scope: Option<&str>) -> bool {
        self.authority == *authority && self.scope.as_deref() == scope
    }
}

/// See the [module docs](self).
pub(crate) struct Registry {
    table: ArcSwap<HashTable<Entry>>,
    /// Serialises writers only; a `Mutex` because two copies made at once would lose one of two newcomers.
    writer: Mutex<()>,
    overflow: Arc<Upstream>,
    cap: usize,
    hasher: DefaultHashBuilder,
}

impl Registry {
    pub(crate) fn new(cap: usize, overflow: Upstream) -> Self {
        Self {
            table: ArcSwap::default(),
            writer: Mutex::new(()),
            overflow: Arc::new(overflow),
            cap,
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The upstream of `authority`, or of a route of it, made by `make` (which is given its name) if it is new. A call has
    /// [entered](Upstream::enter) it, so that it can't be evicted in between.
    pub(crate) fn enter(
        &self,
        authority: &Authority<'_>,
        scope: Option<&Arc<str>>,
        now: Tick,
        make: impl Fn(&Authority<'_>, Arc<str>) -> Upstream,
    ) -> Arc<Upstream> {
        let hash = self.hasher.hash_one((authority, scope));
        loop {
            let table = self.table.load();
            let upstream = match table.find(hash, |entry| entry.is(authority, scope.map(|scope| &**scope))) {
                Some(entry) => Arc::clone(&entry.upstream),
                None => self.insert(hash, authority, scope, now, &make),
            };
            if upstream.enter() {
                return upstream;
            }
            // It is being evicted: once the lock is free it is gone from the table, or stays.
            drop(self.writer.lock());
        }
    }

    /// Changes what upstreams are made from, and then those there are, with no newcomer in between.
    pub(crate) fn retune(
        &self,
        change: impl FnOnce(),
        mut each: impl FnMut(&Authority<'_>, Option<&str>, &Upstream),
    ) {
        let _writer = self.writer.lock();
        change();
        for entry in self.table.load().iter() {
            each(&entry.authority, entry.scope.as_deref(), &entry.upstream);
        }
    }

    /// Something of every upstream, the overflow last.
    pub(crate) fn map<T>(&self, of: impl FnMut(&Upstream) -> T) -> Vec<T> {
        let table = self.table.load();
        let all = table.iter().map(|entry| &*entry.upstream).chain([&*self.overflow]);
        all.map(of).collect()
    }

    /// The upstream that newcomers share when nobody can make room.
    pub(crate) fn overflow(&self) -> &Upstream {
        &self.overflow
    }

    #[cold]
    fn insert(
        &self,
        hash: u64,
        authority: &Authority<'_>,
        scope: Option<&Arc<str>>,
        now: Tick,
        make: impl Fn(&Authority<'_>, Arc<str>) -> Upstream,
    ) -> Arc<Upstream> {
        let _writer = self.writer.lock();
        let mut table = HashTable::clone(&self.table.load());
        if let Some(entry) = table.find(hash, |entry| entry.is(authority, scope.map(|scope| &**scope))) {
            return Arc::clone(&entry.upstream);
        }
        if table.len() >= self.cap && !evict_longest_idle(&mut table, now) {
            return Arc::clone(&self.overflow);
        }
        let name = match scope {
            None => authority.to_string(),
            Some(scope) => format!("{authority} {scope}"),
        };
        let upstream = Arc::new(make(authority, name.into()));
        let entry = Entry {
            hash,
            authority: authority.clone().into_owned(),
            scope: scope.cloned(),
            upstream: Arc::clone(&upstream),
        };
        table.insert_unique(hash, entry, |entry| entry.hash);
        self.table.store(Arc::new(table));
        upstream
    }

    /// How many upstreams are kept apart; the overflow isn't one of them.
    pub(crate) fn len(&self) -> usize {
        self.table.load().len()
    }
}

/// Whether room was made. An upstream that a call is in, or its body, is never idle.
fn evict_longest_idle(table: &mut HashTable<Entry>, now: Tick) -> bool {
    let idle = |entry: &&Entry| entry.upstream.unfinished() == 0 && entry.upstream.is_idle(now);
    let (hash, upstream) = loop {
        let Some(longest) = table.iter().filter(idle).min_by_key(|entry| entry.upstream.last_used()) else {
            return false;
        };
        // Refused when a call came in just now; then it isn't idle at the next look.
        if longest.upstream.retire(now) {
            break (longest.hash, Arc::clone(&longest.upstream));
        }
    };
    match table.find_entry(hash, |entry| Arc::ptr_eq(&entry.upstream, &upstream)) {
        Ok(entry) => {
            entry.remove();
            true
        }
        Err(_) => false,
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} of at most {} upstreams)", self.len(), self.cap)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::Events;
    use crate::policy::Policy;
    use crate::policy::breaker::Verdict;
    use crate::rng::Entropy;

    const NOW: Tick = Tick::from_nanos(1_000_000_000);

    fn upstream(name: Arc<str>) -> Upstream {
        let plan = Policy::standard().compile(0).unwrap();
        Upstream::new(name, &plan, Entropy::seeded(1), Events::default(), NOW)
    }

    fn registry(cap: usize) -> Registry {
        Registry::new(cap, upstream("overflow".into()))
    }

    fn get(registry: &Registry, url: &str, now: Tick) -> Arc<Upstream> {
        let url = url.parse().unwrap();
        let found = registry.enter(&Authority::of_url(&url), None, now, |_, name| upstream(name));
        found.leave();
        found
    }

    fn later(seconds: u64) -> Tick {
        NOW.after(Duration::from_secs(seconds))
    }

    #[test]
    fn one_authority_is_one_upstream_whatever_the_path_and_case() {
        let registry = registry(8);
        let a = get(&registry, "http://Users:3000/a?x=1", NOW);
        let b = get(&registry, "http://users:3000/b", NOW);
        let uri: http::Uri = "http://USERS:3000/c".parse().unwrap();
        let c = registry.enter(&Authority::of_uri(&uri), None, NOW, |_, name| upstream(name));
        assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a, &c));
        assert_eq!(&**a.name(), "http://users:3000");
        assert!(!Arc::ptr_eq(&a, &get(&registry, "https://users:3000/", NOW)));
        assert!(!Arc::ptr_eq(&a, &get(&registry, "http://users/", NOW)));
    }

    #[test]
    fn an_authority_is_split_as_uri_splits_it() {
        for text in [
            "users",
            "users:3000",
            "Users:3000",
            "a.b.c:80",
            "[::1]",
            "[::1]:3000",
            "alice:pass@users:3000",
            "alice@users",
            "alice:pass@[2001:db8::1]:8080",
            "users:",
            "127.0.0.1:65535",
        ] {
            let uri: http::Uri = format!("http://{text}/path?x=a:1@b").parse().unwrap();
            let expected = (uri.host().unwrap(), uri.port_u16());
            assert_eq!(split(uri.authority().unwrap().as_str()), expected, "{text}");
        }
    }

    #[test]
    fn the_default_port_is_the_port() {
        let registry = registry(8);
        let a = get(&registry, "http://users/", NOW);
        let b = get(&registry, "http://users:80/", NOW);
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!(&**a.name(), "http://users");
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let registry = registry(2);
        drop(get(&registry, "http://a/", NOW).place(NOW));
        drop(get(&registry, "http://b/", NOW).place(later(5)));
        drop(get(&registry, "http://a/", NOW).place(later(9)));
        get(&registry, "http://c/", later(10));
        assert_eq!(registry.len(), 2);
        let names: Vec<_> =
            registry.table.load().iter().map(|entry| entry.upstream.name().to_string()).collect();
        assert!(!names.contains(&"http://b".to_string()), "{names:?}");
    }

    #[test]
    fn the_busy_and_the_broken_stay_and_newcomers_share_the_overflow() {
        let registry = registry(2);
        let busy = get(&registry, "http://busy/", NOW);
        let _held = busy.place(NOW).unwrap();
        let broken = get(&registry, "http://broken/", NOW);
        while let Some(mut permit) = broken.place(NOW) {
            permit.settle(crate::outcome::Outcome::Ignored, Verdict::Failure, None, NOW);
        }
        drop(broken);
        let x = get(&registry, "http://x/", NOW);
        let y = get(&registry, "http://y/", NOW);
        assert!(Arc::ptr_eq(&x, &y) && &**x.name() == "overflow");
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn a_hundred_thousand_hosts_keep_to_the_cap() {
        let registry = registry(64);
        for n in 0..100_000_u32 {
            get(&registry, &format!("http://host{n}/"), NOW);
        }
        assert_eq!(registry.len(), 64);
    }
}
