//! Every upstream a client has met, found by authority.
//!
//! A lookup is the hottest shared thing in the crate, so it takes no lock and allocates nothing: it
//! hashes the borrowed parts of the URL and reads an immutable table. A new upstream copies a shard
//! of the table, a few dozen entries. The cap keeps a caller that meets a million hosts from
//! growing without end: the longest idle upstream makes room.
//!
//! - One that has something to remember (an open or half-open breaker, a wait it asked for, a rate
//!   that is used up) is idle once nobody has asked for it for a [minute](super::FORGETS_AFTER): a
//!   stream of made-up hosts must not wash away what callers are being spared just now, and what
//!   nobody asks for mustn't keep its place for ever. One whose breaker somebody forced is never
//!   forgotten.
//! - When nobody can make room, a newcomer gets bookkeeping of its own, which lasts as long as its
//!   call: no history, hence nobody else's failures, and nobody else's successes. All of them share
//!   one retry budget, since without it each would bring its own and an outage could multiply
//!   traffic.
//! - What a policy or a list of endpoints names has a place in any case, beyond the cap: a file
//!   bounds their number.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::Upstream;
use super::host::Whole;
use crate::authority::Authority;
use crate::authority::key::{Key, Scope};
use crate::event::Event;
use crate::sync::{AtomicU64, Mutex};
use crate::time::Tick;

#[derive(Clone)]
struct Entry {
    hash: u64,
    upstream: Arc<Upstream>,
}

/// A part of the table, so that a newcomer copies a part only.
struct Shard {
    table: ArcSwap<HashTable<Entry>>,
    /// Serialises writers only; a `Mutex` because two copies made at once would lose one of two
    /// newcomers.
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

/// A shard holds about so many at the cap: few enough to copy, and enough for the longest idle of
/// them to be long idle.
const SHARD: usize = 32;
const MOST_SHARDS: usize = 64;
/// How long nobody looks for room after somebody found none. Looking through a thousand upstreams
/// takes some 400 us: at this rate at most half a hundredth of a core, however many newcomers there
/// are.
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

    /// A place for one more, if there is one or somebody idle makes room (in the newcomer's own
    /// shard if possible), or if the newcomer is named.
    ///
    /// Only the named have places beyond the cap, so nobody else inherits one: then the next idle
    /// one has to make room, too.
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

    /// Who was longest idle, and isn't here any more. An upstream that a call is in, or its body,
    /// is never idle.
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

    use super::*;
    use crate::outcome::Verdict;
    use crate::outcome::classify::Classified;
    use crate::policy::Policy;
    use crate::rng::Entropy;
    use crate::telemetry::Events;

    const NOW: Tick = Tick::from_nanos(1_000_000_000);

    fn upstream(key: Key) -> Upstream {
        let plan = Policy::standard().compile(0).unwrap();
        Upstream::new(key, &plan, Entropy::seeded(1), &Events::default(), NOW)
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
    fn the_default_port_is_the_port() {
        let registry = registry(8);
        let a = get(&registry, "http://users/", NOW);
        let b = get(&registry, "http://users:80/", NOW);
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!(&**a.name(), "http://users");
    }

    /// A place came free between the two looks, and the key took it: its host's rate and limit
    /// would have been its own, apart from those of the host that found a place later.
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

    /// The issue's: 1024 dead hosts, five calls each; a day later all were still open and could not
    /// be evicted.
    #[test]
    fn an_open_breaker_that_nobody_has_asked_for_a_minute_makes_room() {
        for half_open in [false, true] {
            let registry = registry(1);
            let broken = get(&registry, "http://broken/", NOW);
            break_down(&broken, NOW);
            let last = if half_open {
                // A probe that decides nothing keeps it half-open.
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

    /// One of its places beyond the cap went to a newcomer each time it was idle, and it was given
    /// another when it came back.
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
