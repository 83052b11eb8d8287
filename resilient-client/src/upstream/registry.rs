//! Every upstream a client has met, found by authority.
//!
//! A lookup is the hottest shared thing in the crate, so it takes no lock and allocates nothing: it hashes the borrowed
//! parts of the URL and reads an immutable table. A new upstream copies a shard of the table, a few dozen entries. The
//! cap keeps a caller that meets a million hosts from growing without end: the longest idle upstream makes room.
//!
//! - One that has something to remember (an open or half-open breaker, a quiet it asked for, a rate that is used up) is
//!   idle once nobody has asked for it for a [minute](super::FORGETS_AFTER): a stream of made-up hosts must not wash away
//!   what callers are being spared just now, and what nobody asks for mustn't keep its place for ever. One whose breaker
//!   somebody forced is never forgotten.
//! - When nobody can make room, a newcomer gets bookkeeping of its own, which lasts as long as its call: no history, hence
//!   nobody else's failures, and nobody else's successes. All of them share one retry budget, since without it each would
//!   bring its own and an outage could multiply traffic.
//! - What a policy or a list of endpoints names has a place in any case, beyond the cap: a file bounds their number.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashTable};
#[cfg(feature = "hyper")]
use http::HeaderValue;
use http::uri::Scheme;

use super::host::Whole;
pub(crate) use super::key::{Key, Scope};
use super::{Upstream, host_name};
use crate::event::Event;
use crate::sync::{AtomicU64, Mutex};
use crate::time::Tick;

/// What fails together, borrowed from a URL: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    // In the order in which two are told apart soonest.
    port: u16,
    host: Cow<'a, str>,
    scheme: Cow<'a, str>,
}

/// The scheme hardly ever tells two authorities apart that host and port don't, so only its length is hashed.
impl Hash for Authority<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.host.as_bytes());
        state.write_u64(u64::from(self.port) << 32 | self.scheme.len() as u64);
    }
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

    /// Of a URI that is known to be good.
    #[cfg(any(test, feature = "__bench"))]
    pub(crate) fn of_uri(uri: &'a http::Uri) -> Self {
        Self::read(uri).and_then(Self::normal).unwrap_or_else(|_| Authority::nowhere("overflow"))
    }

    /// Of a URI as it stands in an `http::Request`: a relative one belongs to the nameless upstream. In lower case, and an
    /// address as it is written: see [`normal`](Self::normal).
    ///
    /// # Errors
    /// Says what is wrong with the port. `http::Uri` takes `http://users:99999` and finds no port
    /// in it, and a transport then goes to port 80.
    pub(crate) fn read(uri: &'a http::Uri) -> Result<Self, String> {
        let (scheme, default_port) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => ("http", 80),
            Some(scheme) if *scheme == Scheme::HTTPS => ("https", 443),
            Some(scheme) => (scheme.as_str(), 0),
            None => ("", 0),
        };
        let text = uri.authority().map_or("", http::uri::Authority::as_str);
        let HostAndPort { host, port, upper, bad_port } = host_and_port(text);
        let host = if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) };
        // Only these two are known to go to hosts and ports.
        if bad_port && default_port != 0 {
            return Err(bad_port_in(text));
        }
        Ok(Self { scheme: Cow::Borrowed(scheme), host, port: port.unwrap_or(default_port) })
    }

    /// The same with its host as a URL has it. What is found in the table is so already, as all that is there is; so this is left
    /// to what isn't found.
    ///
    /// # Errors
    /// Says what is wrong with the host.
    pub(crate) fn normal(self) -> Result<Self, String> {
        let Self { port, host, scheme } = self;
        if !matches!(&*scheme, "http" | "https") {
            return Ok(Self { port, host, scheme });
        }
        let zone = host.contains('%');
        let host = host_name::normal(host).ok_or_else(|| no_host(zone).to_owned())?;
        Ok(Self { port, host, scheme })
    }

    /// Of what no URL names.
    pub(super) fn nowhere(name: &'static str) -> Authority<'static> {
        Authority { scheme: Cow::Borrowed(""), host: Cow::Borrowed(name), port: 0 }
    }

    /// What requests to it say in `Host`; `None` for the nameless.
    #[cfg(feature = "hyper")]
    pub(super) fn host_header(&self) -> Option<HeaderValue> {
        let Self { scheme, host, port } = self;
        match (&**scheme, port) {
            ("", _) => None,
            ("http", 80) | ("https", 443) => HeaderValue::from_str(host).ok(),
            _ => HeaderValue::from_str(&format!("{host}:{port}")).ok(),
        }
    }

    pub(crate) fn into_owned(self) -> Authority<'static> {
        Authority {
            scheme: Cow::Owned(self.scheme.into_owned()),
            host: Cow::Owned(self.host.into_owned()),
            port: self.port,
        }
    }
}

/// What stands in a URI's authority.
struct HostAndPort<'a> {
    host: &'a str,
    /// `None` where there is none, or it is bad.
    port: Option<u16>,
    /// The host has upper-case letters.
    upper: bool,
    /// There is a port, and it isn't a port's number.
    bad_port: bool,
}

/// `Uri::host` and `Uri::port` look through the text twice each.
fn host_and_port(authority: &str) -> HostAndPort<'_> {
    let bytes = authority.as_bytes();
    let digits = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, number) = bytes.split_at(bytes.len() - digits);
    let named = rest.last() == Some(&b':');
    let port = if named && digits > 0 {
        let add = |number: u32, digit: &u8| number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
        let number = number.iter().fold(0, add);
        u16::try_from(number).ok()
    } else {
        None
    };
    let host = authority.get(..if named { rest.len() - 1 } else { bytes.len() }).unwrap_or_default();
    let found = host.bytes().fold(0, |found, byte| found | NOTED[byte as usize]);
    // Nearly no URL has credentials.
    let host = if found & AT != 0 { host.rsplit_once('@').map_or(host, |(_, host)| host) } else { host };
    // A colon that isn't an address's is followed by something else than digits.
    let odd_colon = found & COLON != 0 && !host.starts_with('[') && host.contains(':');
    let bad_port = odd_colon || named && digits > 0 && port.is_none();
    HostAndPort { host, port, upper: found & UPPER != 0, bad_port }
}

#[cold]
fn no_host(has_zone: bool) -> &'static str {
    if has_zone {
        "the URL names an IPv6 zone, which the URL standard has no place for"
    } else {
        "the URL's host looks like an IP address and is none"
    }
}

/// Names the port if that can't be anything else, such as the password of a URL without a host.
#[cold]
fn bad_port_in(authority: &str) -> String {
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let number = port.len() <= 8 && port.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let shown = if number { format!(": {port}") } else { String::new() };
    format!("the URL's port must be a number up to 65535{shown}")
}

const AT: u8 = 1;
const UPPER: u8 = 2;
const COLON: u8 = 4;

/// What a host is looked through for. By table and without an early end, which is faster for what is as short as a host.
static NOTED: [u8; 256] = {
    let mut noted = [0; 256];
    noted[b'@' as usize] = AT;
    noted[b':' as usize] = COLON;
    let mut letter = b'A';
    while letter <= b'Z' {
        noted[letter as usize] = UPPER;
        letter += 1;
    }
    noted
};

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.scheme, self.port) {
            ("", 0) => f.write_str(&self.host),
            ("http", 80) | ("https", 443) | (_, 0) => write!(f, "{}://{}", self.scheme, self.host),
            _ => write!(f, "{}://{}:{}", self.scheme, self.host, self.port),
        }
    }
}

#[derive(Clone)]
struct Entry {
    hash: u64,
    upstream: Arc<Upstream>,
}

/// A part of the table, so that a newcomer copies a part only.
struct Shard {
    table: ArcSwap<HashTable<Entry>>,
    /// Serialises writers only; a `Mutex` because two copies made at once would lose one of two newcomers.
    writer: Mutex<()>,
}

/// What upstreams are made by.
pub(crate) trait Source {
    /// A new one; `whole` is its authority's own when it is a part of that.
    fn make(&self, key: Key, whole: Option<Whole>) -> Upstream;

    /// Whether it has a place in any case.
    fn names(&self, authority: &Authority<'_>, scope: Option<Scope<&Arc<str>>>) -> bool;
}

/// See the [module docs](self).
pub(crate) struct Registry {
    shards: Box<[Shard]>,
    /// What upstreams without a place have in common: a budget, and the count of calls in them.
    overflow: Arc<Upstream>,
    cap: usize,
    /// Upstreams in all shards together, and places taken for newcomers.
    count: AtomicUsize,
    /// Until when nobody looks for room, as a `Tick`: there was none a moment ago.
    full_until: AtomicU64,
    hasher: DefaultHashBuilder,
}

/// A shard holds about so many at the cap: few enough to copy, and enough for the longest idle of them to be long idle.
const SHARD: usize = 32;
const MOST_SHARDS: usize = 64;
/// How long nobody looks for room after somebody found none. Looking through a thousand upstreams takes some 400 us: at
/// this rate at most half a hundredth of a core, however many newcomers there are.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

impl Registry {
    pub(crate) fn new(cap: usize, overflow: Upstream) -> Self {
        let shards = (cap / SHARD).clamp(1, MOST_SHARDS).next_power_of_two();
        Self {
            shards: std::iter::repeat_with(Shard::new).take(shards).collect(),
            overflow: Arc::new(overflow),
            cap,
            count: AtomicUsize::new(0),
            full_until: AtomicU64::new(0),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The upstream of `authority`, or of a part of it, made by `source` if it is new. A call has
    /// [entered](Upstream::enter) it, so that it can't be evicted in between.
    pub(crate) fn enter(
        &self,
        authority: &Authority<'_>,
        scope: Option<Scope<&Arc<str>>>,
        now: Tick,
        source: &dyn Source,
    ) -> Arc<Upstream> {
        let hash = self.hasher.hash_one((authority, scope));
        let shard = self.shard(hash);
        loop {
            let found = find(&shard.table.load(), hash, authority, scope).cloned();
            let upstream = found.unwrap_or_else(|| self.insert(shard, hash, authority, scope, now, source));
            if upstream.enter() {
                return upstream;
            }
            // It is being evicted: once the lock is free it is gone from the table, or stays.
            drop(shard.writer.lock());
        }
    }

    /// The same if it is there, and stays.
    #[inline]
    pub(crate) fn enter_known(
        &self,
        authority: &Authority<'_>,
        scope: Option<Scope<&Arc<str>>>,
    ) -> Option<Arc<Upstream>> {
        let hash = self.hasher.hash_one((authority, scope));
        let found = find(&self.shard(hash).table.load(), hash, authority, scope).cloned();
        found.filter(|upstream| upstream.enter())
    }

    /// The table itself uses the low bits and the seven highest.
    fn shard(&self, hash: u64) -> &Shard {
        // Their number is a power of two.
        &self.shards[(hash >> 48) as usize & (self.shards.len() - 1)]
    }

    /// Changes what upstreams are made from, and then those there are, with no newcomer in between.
    pub(crate) fn retune(&self, change: impl FnOnce(), mut each: impl FnMut(&Key, &Upstream)) {
        // In order, as nobody else holds two of them.
        let _writers: Vec<_> = self.shards.iter().map(|shard| shard.writer.lock()).collect();
        change();
        for shard in &self.shards {
            for entry in shard.table.load().iter() {
                each(entry.upstream.key(), &entry.upstream);
            }
        }
    }

    /// Something of every upstream that has a place, and of what the others share last.
    pub(crate) fn map<T>(&self, mut of: impl FnMut(&Upstream) -> T) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len() + 1);
        for shard in &self.shards {
            all.extend(shard.table.load().iter().map(|entry| of(&entry.upstream)));
        }
        all.push(of(&self.overflow));
        all
    }

    /// The one of this name that has a place, with a call in it.
    pub(crate) fn enter_named(&self, name: &str) -> Option<Arc<Upstream>> {
        let named = |shard: &Shard| {
            let table = shard.table.load();
            table
                .iter()
                .find(|entry| **entry.upstream.name() == *name)
                .map(|entry| Arc::clone(&entry.upstream))
        };
        self.shards.iter().find_map(named).filter(|upstream| upstream.enter())
    }

    /// What upstreams without a place have in common.
    pub(crate) fn overflow(&self) -> &Upstream {
        &self.overflow
    }

    #[cold]
    fn insert(
        &self,
        shard: &Shard,
        hash: u64,
        authority: &Authority<'_>,
        scope: Option<Scope<&Arc<str>>>,
        now: Tick,
        source: &dyn Source,
    ) -> Arc<Upstream> {
        // A part keeps its whole; a call in it keeps that from being evicted until then.
        let whole = scope.map(|_| self.enter(authority, None, now, source));
        // Without its whole it would soon belong to another than the others do.
        let beside_whole = whole.as_ref().is_none_or(|whole| whole.has_place());
        let room = beside_whole && self.take_place(shard, now, || source.names(authority, scope));
        let make = || {
            let upstream = source.make(Key::new(authority, scope), whole.as_ref().map(Whole::of));
            Arc::new(if room { upstream } else { upstream.without_place(&self.overflow) })
        };
        let upstream = {
            let _writer = shard.writer.lock();
            let table = shard.table.load();
            let found = find(&table, hash, authority, scope).map(Arc::clone);
            match found {
                Some(upstream) => {
                    if room {
                        self.count.fetch_sub(1, Ordering::Relaxed);
                    }
                    Err(upstream)
                }
                None if !room => Ok(make()),
                None => {
                    let mut table = HashTable::clone(&table);
                    let upstream = make();
                    let entry = Entry { hash, upstream: Arc::clone(&upstream) };
                    table.insert_unique(hash, entry, |entry| entry.hash);
                    shard.table.store(Arc::new(table));
                    Ok(upstream)
                }
            }
        };
        if let Some(whole) = whole {
            whole.leave();
        }
        match upstream {
            Ok(made) => {
                made.emit(|| Event::UpstreamMade { kept: room });
                made
            }
            Err(found) => found,
        }
    }

    /// A place for one more, if there is one or somebody idle makes room (in the newcomer's own shard if possible), or if
    /// the newcomer is named.
    ///
    /// Only the named have places beyond the cap, so nobody else inherits one: then the next idle one has to make room, too.
    fn take_place(&self, own: &Shard, now: Tick, named: impl FnOnce() -> bool) -> bool {
        let below_cap = |count: usize| (count < self.cap).then(|| count + 1);
        let beyond_cap = |count: usize| (count > self.cap).then(|| count - 1);
        loop {
            if self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_cap).is_ok() {
                return true;
            }
            if !self.evict(own, now) {
                break;
            }
            if self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, beyond_cap).is_err() {
                return true;
            }
        }
        let named = named();
        if named {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        named
    }

    /// Whether somebody idle made room. When nobody could, nobody looks again for a while.
    fn evict(&self, own: &Shard, now: Tick) -> bool {
        if now < Tick::from_nanos(self.full_until.load(Ordering::Relaxed)) {
            return false;
        }
        let others = self.shards.iter().filter(|shard| !std::ptr::eq(*shard, own));
        let evicted = std::iter::once(own).chain(others).find_map(|shard| shard.evict_longest_idle(now));
        let Some(evicted) = evicted else {
            self.full_until.store(now.after(LOOKS_EVERY).as_nanos(), Ordering::Relaxed);
            return false;
        };
        let unused_for = now.since(evicted.last_used());
        evicted.emit(|| Event::UpstreamForgotten { unused_for });
        true
    }

    /// How many upstreams have a place.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.table.load().len()).sum()
    }
}

fn find<'a>(
    table: &'a HashTable<Entry>,
    hash: u64,
    authority: &Authority<'_>,
    scope: Option<Scope<&Arc<str>>>,
) -> Option<&'a Arc<Upstream>> {
    table.find(hash, |entry| entry.upstream.key().is(authority, scope)).map(|entry| &entry.upstream)
}

impl Shard {
    fn new() -> Self {
        Self { table: ArcSwap::default(), writer: Mutex::new(()) }
    }

    /// Who was longest idle, and isn't here any more. An upstream that a call is in, or its body, is never idle.
    fn evict_longest_idle(&self, now: Tick) -> Option<Arc<Upstream>> {
        let _writer = self.writer.lock();
        let table = self.table.load();
        let idle = |entry: &&Entry| entry.upstream.unfinished() == 0 && entry.upstream.is_idle(now);
        let longest = loop {
            let longest = table.iter().filter(idle).min_by_key(|entry| entry.upstream.last_used())?;
            // Refused when a call came in just now; then it isn't idle at the next look.
            if longest.upstream.retire(now) {
                break Arc::clone(&longest.upstream);
            }
        };
        let mut rest = HashTable::clone(&table);
        rest.retain(|entry| !Arc::ptr_eq(&entry.upstream, &longest));
        self.table.store(Arc::new(rest));
        Some(longest)
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

    use proptest::prelude::*;

    use super::*;
    use crate::event::Events;
    use crate::outcome::classify::Classified;
    use crate::policy::Policy;
    use crate::policy::breaker::Verdict;
    use crate::rng::Entropy;

    const NOW: Tick = Tick::from_nanos(1_000_000_000);

    fn upstream(key: Key) -> Upstream {
        let plan = Policy::standard().compile(0).unwrap();
        Upstream::new(key, &plan, Entropy::seeded(1), Events::default(), NOW)
    }

    /// Makes them all alike, and knows none by name.
    struct Alike;

    impl Source for Alike {
        fn make(&self, key: Key, whole: Option<Whole>) -> Upstream {
            upstream(key).part_of(whole)
        }

        fn names(&self, authority: &Authority<'_>, _scope: Option<Scope<&Arc<str>>>) -> bool {
            authority.to_string() == "http://named"
        }
    }

    fn registry(cap: usize) -> Registry {
        Registry::new(cap, upstream(Key::overflow()))
    }

    fn get(registry: &Registry, url: &str, now: Tick) -> Arc<Upstream> {
        let url = url.parse().unwrap();
        let found = registry.enter(&Authority::of_url(&url), None, now, &Alike);
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
        let c = registry.enter(&Authority::of_uri(&uri), None, NOW, &Alike);
        assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a, &c));
        assert_eq!(&**a.name(), "http://users:3000");
        assert!(!Arc::ptr_eq(&a, &get(&registry, "https://users:3000/", NOW)));
        assert!(!Arc::ptr_eq(&a, &get(&registry, "http://users/", NOW)));
    }

    #[test]
    fn a_uri_is_read_as_its_own_accessors_read_it() {
        for text in [
            "http://users/",
            "http://users:3000/a?x=1:2@3",
            "http://[::1]/",
            "http://[::1]:80/",
            "https://10.0.0.1:8443",
            "http://alice:7@users/",
            "http://alice:7@users:9/",
            "http://users:/",
            "/relative",
            "users:80",
            "http://users:000081/",
            "http://users:65535/",
            "http://a:b@[::1]:9/",
        ] {
            is_read_as_its_own_accessors_read_it(&text.parse().unwrap());
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_not_taken_for_the_usual_one() {
        for (text, said) in [
            ("http://users:65536/", ": 65536"),
            ("http://users:99999", ": 99999"),
            ("https://users:-1/x", ": -1"),
            ("http://users:8o80/", "65535"),
            ("http://alice:hunter2@users:8o80/", "65535"),
            ("http://[::1]:99999/", ": 99999"),
            ("http://[::1]:x/", ""),
        ] {
            let Ok(uri) = text.parse() else { continue };
            let refusal = Authority::read(&uri).and_then(Authority::normal).unwrap_err();
            assert!(refusal.ends_with(said) && !refusal.contains("hunter2"), "{text}: {refusal}");
        }
    }

    #[test]
    fn an_address_is_one_upstream_over_both_kinds_of_url() {
        for text in ["http://127.1:80/", "http://0x7f000001/", "http://2130706433/", "HTTP://127.0.0.1"] {
            let uri: http::Uri = text.parse().unwrap();
            assert_eq!(
                Authority::read(&uri).and_then(Authority::normal).unwrap(),
                Authority::of_url(&"http://127.0.0.1".parse().unwrap())
            );
        }
    }

    fn is_read_as_its_own_accessors_read_it(uri: &http::Uri) {
        let host = uri.host().unwrap_or_default().to_lowercase();
        let authority = Authority::read(uri).and_then(Authority::normal);
        let port = uri.authority().and_then(|all| all.as_str().rsplit_once(':')).map_or("", |(_, port)| port);
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && uri.port_u16().is_none() {
            assert!(authority.is_err() || uri.scheme_str() == Some("ftp"), "{uri}");
            return;
        }
        // Addresses are written in one way only, and some are none: `host` has the tests.
        let Ok(authority) = authority else { return };
        if authority.host != host {
            assert_eq!(Some(&*authority.host), host_name::normal(host.into()).as_deref(), "{uri}");
        }
        let default_port = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            _ => 0,
        };
        assert_eq!(authority.port, uri.port_u16().unwrap_or(default_port), "{uri}");
    }

    proptest! {
        #[test]
        fn any_uri_is_read_as_its_own_accessors_read_it(
            scheme in "https?|ftp", user in "([a-z0-9:]{0,4}@)?", host in "[a-zA-Z0-9.-]{1,12}|\\[[0-9a-f:]{2,9}\\]",
            port in "(:[0-9]{0,6})?", path in "(/[a-z0-9:@]{0,5})?",
        ) {
            if let Ok(uri) = format!("{scheme}://{user}{host}{port}{path}").parse() {
                is_read_as_its_own_accessors_read_it(&uri);
            }
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

    /// A place came free between the two looks, and the key took it: its host's rate and limit would have been its own, apart from
    /// those of the host that found a place later.
    #[test]
    fn a_part_has_a_place_only_beside_its_host() {
        struct Returns<'a>(&'a Registry);

        impl Source for Returns<'_> {
            fn make(&self, key: Key, whole: Option<Whole>) -> Upstream {
                if whole.is_none() {
                    self.0.count.fetch_sub(1, Ordering::Relaxed);
                }
                Alike.make(key, whole)
            }

            fn names(&self, _authority: &Authority<'_>, _scope: Option<Scope<&Arc<str>>>) -> bool {
                false
            }
        }

        let registry = registry(2);
        let url = "http://busy/".parse().unwrap();
        let busy = registry.enter(&Authority::of_url(&url), None, NOW, &Alike);
        // Somebody has taken the other place, and gives it back when somebody else was sooner.
        registry.count.fetch_add(1, Ordering::Relaxed);
        let (url, key) = ("http://users/".parse().unwrap(), Arc::from("tenant"));
        let part = registry.enter(&Authority::of_url(&url), Some(Scope::Key(&key)), NOW, &Returns(&registry));
        assert!(busy.has_place() && !part.has_place());
        let part = registry.enter(&Authority::of_url(&url), Some(Scope::Key(&key)), NOW, &Alike);
        assert!(!part.has_place(), "the host has the only one");
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let registry = registry(2);
        drop(get(&registry, "http://a/", NOW).place(NOW));
        drop(get(&registry, "http://b/", NOW).place(later(5)));
        drop(get(&registry, "http://a/", NOW).place(later(9)));
        get(&registry, "http://c/", later(10));
        assert_eq!(registry.len(), 2);
        let names: Vec<_> = registry.map(|upstream| upstream.name().to_string());
        assert!(!names.contains(&"http://b".to_string()), "{names:?}");
    }

    fn part(registry: &Registry, url: &str, scope: Scope<&str>, now: Tick) -> Arc<Upstream> {
        let (url, text) = (url.parse().unwrap(), |text: &str| Arc::<str>::from(text));
        let (route, key);
        let scope = match scope {
            Scope::Route(name) => Scope::Route({
                route = text(name);
                &route
            }),
            Scope::Key(name) => Scope::Key({
                key = text(name);
                &key
            }),
        };
        let found = registry.enter(&Authority::of_url(&url), Some(scope), now, &Alike);
        found.leave();
        found
    }

    /// Five failures in a row open it.
    fn break_down(upstream: &Arc<Upstream>, now: Tick) {
        while let Some(mut permit) = upstream.place(now) {
            permit.settle(&Classified { verdict: Verdict::Failure, ..Classified::IGNORED }, now);
        }
    }

    fn names(registry: &Registry) -> Vec<String> {
        registry.map(|upstream| upstream.name().to_string())
    }

    #[test]
    fn the_busy_and_the_broken_stay_and_a_newcomer_has_bookkeeping_of_its_own() {
        let registry = registry(2);
        let busy = get(&registry, "http://busy/", NOW);
        let _held = busy.place(NOW).unwrap();
        let broken = get(&registry, "http://broken/", NOW);
        break_down(&broken, NOW);
        drop(broken);
        let x = get(&registry, "http://x/", NOW);
        let y = get(&registry, "http://y/", NOW);
        assert!(!Arc::ptr_eq(&x, &y));
        assert_eq!((&**x.name(), &**y.name()), ("http://x", "http://y"));
        break_down(&x, NOW);
        assert!(y.place(NOW).is_some(), "one bad newcomer is nobody else's");
        assert!(get(&registry, "http://x/", NOW).place(NOW).is_some(), "no history");
        assert_eq!(registry.len(), 2);
    }

    /// The issue's: 1024 dead hosts, five calls each; a day later all were still open and could not be evicted.
    #[test]
    fn an_open_breaker_that_nobody_has_asked_for_a_minute_makes_room() {
        for half_open in [false, true] {
            let registry = registry(1);
            let broken = get(&registry, "http://broken/", NOW);
            break_down(&broken, NOW);
            let last = if half_open {
                // A probe that comes to nothing leaves it half-open.
                drop(broken.place(later(7)).unwrap());
                assert_eq!(broken.breaker_snapshot(later(7)).state, crate::policy::breaker::State::HalfOpen);
                7
            } else {
                assert!(broken.place(later(0)).is_none());
                0
            };
            get(&registry, "http://x/", later(last + 59));
            assert_eq!(names(&registry), ["http://broken", "overflow"], "half-open: {half_open}");
            get(&registry, "http://x/", later(last + 61));
            assert_eq!(names(&registry), ["http://x", "overflow"], "half-open: {half_open}");
        }
    }

    #[test]
    fn a_breaker_that_somebody_forced_is_never_forgotten() {
        use crate::policy::breaker::Control;

        for control in [Control::ForceOpen, Control::ForceClosed, Control::Disable] {
            let registry = registry(1);
            get(&registry, "http://forced/", NOW).breaker.control(control).unwrap();
            get(&registry, "http://x/", later(100_000));
            assert_eq!(names(&registry), ["http://forced", "overflow"], "{control}");
        }
    }

    /// 390 us for each of such calls, instead of 4.
    #[test]
    fn when_nobody_could_make_room_nobody_looks_again_for_a_while() {
        let registry = registry(1);
        let busy = get(&registry, "http://busy/", NOW);
        let held = busy.place(NOW).unwrap();
        get(&registry, "http://x/", NOW);
        drop(held);
        let ms = |ms| NOW.after(Duration::from_millis(ms));
        get(&registry, "http://x/", ms(99));
        assert_eq!(names(&registry), ["http://busy", "overflow"]);
        get(&registry, "http://x/", ms(100));
        assert_eq!(names(&registry), ["http://x", "overflow"]);
    }

    #[test]
    fn what_a_policy_names_has_a_place_in_any_case() {
        let registry = registry(1);
        let busy = get(&registry, "http://busy/", NOW);
        let _held = busy.place(NOW).unwrap();
        let named = get(&registry, "http://named/", NOW);
        assert!(Arc::ptr_eq(&named, &get(&registry, "http://named/x", NOW)));
        assert_eq!(registry.len(), 2);
    }

    /// One of its places beyond the cap went to a newcomer each time it was idle, and it was given another when it came back.
    #[test]
    fn a_place_beyond_the_cap_is_the_nameds_own_however_often_it_comes_and_goes() {
        let registry = registry(2);
        let (mut held, mut at) = (Vec::new(), NOW);
        let mut enter = |url: &str| {
            at = at.after(Duration::from_secs(1));
            get(&registry, url, at).place(at)
        };
        for n in 0..10 {
            let named = enter("http://named/");
            held.push(enter(&format!("http://host{n}/")));
            // Only the named is idle when the next newcomer looks for room.
            drop(named);
            held.push(enter(&format!("http://other{n}/")));
            assert!(registry.len() <= 3, "{:?}", names(&registry));
        }
    }

    #[test]
    fn those_without_a_place_share_a_budget_and_are_counted() {
        let registry = registry(1);
        let _held = get(&registry, "http://busy/", NOW).place(NOW).unwrap();
        let enter = |url: &str| registry.enter(&Authority::of_uri(&url.parse().unwrap()), None, NOW, &Alike);
        let (x, y) = (enter("http://x/"), enter("http://y/"));
        assert_eq!(registry.overflow().unfinished(), 2);
        assert!((0..5).all(|_| x.budget().try_withdraw().is_some() && y.budget().try_withdraw().is_some()));
        assert!(x.budget().try_withdraw().is_none() && enter("http://z/").budget().try_withdraw().is_none());
        x.leave();
        y.leave();
        assert_eq!(registry.overflow().unfinished(), 1);
    }

    #[test]
    fn a_part_keeps_its_whole_and_a_key_shares_nothing_with_a_route_of_its_name() {
        let registry = registry(3);
        let route = part(&registry, "http://users/", Scope::Route("GET /x"), NOW);
        let key = part(&registry, "http://users/", Scope::Key("GET /x"), NOW);
        assert!(!Arc::ptr_eq(&route, &key));
        break_down(&route, NOW);
        assert!(key.place(NOW).is_some());
        // The whole is the longest unused, and a part of it is there.
        for (n, url) in [(0, "http://a/"), (1, "http://b/")] {
            drop(get(&registry, url, later(100_000 + n)).place(later(100_000 + n)));
        }
        let left = names(&registry);
        assert!(left.contains(&"http://users".to_string()), "{left:?}");
        drop((route, key));
        get(&registry, "http://c/", later(100_002));
        let left = names(&registry);
        assert!(!left.contains(&"http://users".to_string()), "{left:?}");
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
