//! An older answer is often better than none: what a server allowed to be kept, given when it
//! fails.
//!
//! This is a fallback, not a cache: every call goes to the server first. Only when a `GET` or
//! `HEAD` ends in an error that isn't the caller's own, or in a final 500, 502, 503 or 504, does
//! the caller get the answer stored last instead. It is marked:
//! [`Response::is_degraded`](crate::Response::is_degraded) says so, [`Degraded`] why, `Age` how old
//! it is, and the report is that of the call that failed. `Warning` is not set; RFC 9111 has
//! retired it.
//!
//! # What may be given
//!
//! - While an answer is fresh by its own `max-age` or `Expires`, always. Freshness isn't guessed
//!   from `Last-Modified`.
//! - After that for as long as `stale-if-error=N` allows (RFC 5861): the request's `Cache-Control`
//!   before the response's before [`default_window`](StaleIfError::default_window), which is none
//!   unless set.
//! - Never against `no-store`, `no-cache` and `must-revalidate` of the server, or `no-store`,
//!   `no-cache`, `max-age` and `min-fresh` of the request (RFC 9111 section 5.2).
//!
//! # What is kept
//!
//! A successful answer (200, 203, 204) whose body has been read to its end, within
//! [`max_entry_bytes`](StaleIfError::max_entry_bytes). It is copied while its reader reads it:
//! nothing is read that the caller doesn't read, nothing waits, and a body that turns out too long
//! costs a copy up to the limit. Streams, upgrades, partial answers and answers found after a
//! redirect aren't kept, nor are those to requests with a body or a `Range`.
//!
//! The latest word of the server counts: an answer that may not be kept, or is too long, removes
//! the one its asker would have got before, a 403 or 404 as well. Only a refusal to answer now
//! (5xx, 408, 425, 429) and a 304 leave it. A 2xx or 3xx to a method other than `GET`, `HEAD`,
//! `OPTIONS` and `TRACE` removes every answer of its URL, whoever got it (RFC 9111 section 4.4),
//! and one on its way at that moment isn't kept.
//!
//! At most so many entries and so many bytes; beyond that the one longest not stored and not given
//! goes (LRU: what is asked for all the time is stored anew all the time, so one pass over many
//! URLs doesn't wash it out for long).
//!
//! # Nobody gets another's answer
//!
//! The rules are those of a private cache: `private` answers and those to requests with
//! `Authorization` are kept, and they die with the client. But a service asks on behalf of many. So
//! an answer is given only to a request with the *same headers*, values compared byte for byte,
//! besides the same method, URL, credentials in the URL and [`key`](crate::RequestBuilder::key).
//! Whatever says who is asking, a bearer token, a cookie or an `x-user-id` this crate never heard
//! of, keeps answers apart, without anything to configure. Left out are only headers that differ
//! from call to call and name nobody: trace context, request ids, idempotency keys, `User-Agent`,
//! the request's own cache directives and conditions ([`IGNORED`]), and those you
//! [add](StaleIfError::ignore_header). `Vary` is honoured for these too.
//!
//! An [`on_attempt`](crate::ClientBuilder::on_attempt) hook sets headers later, when nothing may be
//! sent at all. A client with both is refused unless it is set that
//! [the hook names nobody](StaleIfError::hook_names_nobody).
//!
//! Caveat: requests that differ in nothing look the same. A client whose *transport* varies by
//! user, through a cookie jar or a proxy that signs, needs one client per user.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::{Client, stale::StaleIfError};
//!
//! let fallback = StaleIfError::new().max_bytes(8 * 1024 * 1024).default_window(Duration::from_secs(600));
//! let client = Client::builder().stale_if_error(fallback).build()?;
//! # async fn run(client: Client) -> Result<(), resilient_client::Error> {
//! let response = client.get("http://users:3000/users/7").send_buffered().await?;
//! if let Some(degraded) = response.degraded() {
//!     eprintln!("{:?} old, because: {:?}\n{}", degraded.age(), degraded.error(), response.report());
//! }
//! # Ok(())
//! # }
//! # Ok::<(), resilient_client::Error>(())
//! ```

mod capture;
mod config;
mod key;
mod rules;
mod store;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

pub use config::StaleIfError;
pub use key::IGNORED;

pub(crate) use self::capture::Capture;
pub(crate) use self::config::Limits;
use self::key::Key;
use self::rules::{Kept, Moment};
use self::store::Store;
use crate::error::{Error, ErrorKind};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::{self, Tick};

/// How many counters the invalidations of all URLs share. Two URLs on one counter cost a store that
/// could have been made.
const GENERATIONS: usize = 256;

/// The answers of one client.
pub(crate) struct Cache {
    limits: Limits,
    /// A lock because a look-up moves an entry to the front. Held for map operations only, never
    /// across an await.
    store: Mutex<Store<Arc<Entry>>>,
    /// Counts the invalidations, by hash of the URL: an answer asked for before one isn't stored
    /// after it.
    generations: Vec<AtomicU64>,
}

/// One answer, whole.
struct Entry {
    kept: Kept,
    body: Bytes,
    came: Came,
}

/// When an answer's head came: between these two. They are one where the head was handed over as it
/// came; of an answer that was read inside the call only the call's beginning and end are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    pub(crate) earliest: Tick,
    pub(crate) latest: Tick,
}

impl Came {
    /// Whether it surely came no sooner than `other`. What may be older never takes the place of
    /// what may be newer.
    fn after(self, other: Self) -> bool {
        self.earliest >= other.latest
    }
}

/// How much is stored now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaleSnapshot {
    /// Answers.
    pub entries: usize,
    /// Their size in bytes, as it counts against the limits.
    pub bytes: usize,
}

/// Why a response is an older answer. In the response's extensions as well, where it outlives a
/// conversion.
#[derive(Clone, Debug)]
pub struct Degraded(Arc<Why>);

#[derive(Debug)]
struct Why {
    error: Option<Error>,
    status: Option<StatusCode>,
    age: Duration,
}

impl Degraded {
    /// The error the call ended in; `None` when the server answered with a 5xx.
    pub fn error(&self) -> Option<&Error> {
        self.0.error.as_ref()
    }

    /// The server's own final status; `None` when the call ended in an error.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// How old the answer is, counted from when the call that brought it began, plus the age it
    /// came with.
    pub fn age(&self) -> Duration {
        self.0.age
    }
}

impl Cache {
    pub(crate) fn new(limits: Limits) -> Self {
        let store = Mutex::new(Store::new(limits.max_entries, limits.max_bytes));
        let generations = (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect();
        Self { limits, store, generations }
    }

    pub(crate) fn snapshot(&self) -> StaleSnapshot {
        let store = self.store.lock();
        StaleSnapshot { entries: store.len(), bytes: store.bytes() }
    }

    fn counter(&self, of: impl Hash) -> Option<&AtomicU64> {
        self.generations.get(key::bucket(of, GENERATIONS))
    }

    /// How often what is stored under `key` was declared obsolete, for its asker or for everybody.
    /// It only ever grows.
    fn generation(&self, key: &Key) -> u64 {
        let counters = [self.counter(&key.url), self.counter((&key.url, &key.who))];
        counters.into_iter().flatten().map(|counter| counter.load(Ordering::Acquire)).sum()
    }

    /// A change of the URL makes everybody's answers obsolete.
    pub(crate) fn changed(&self, url: &str) {
        let mut store = self.store.lock();
        if let Some(counter) = self.counter(url) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
        store.forget_url(url);
    }

    /// The server's latest word is one that can't be stored.
    fn obsolete(&self, key: &Key) {
        let mut store = self.store.lock();
        if let Some(counter) = self.counter((&key.url, &key.who)) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
        store.remove(key);
    }

    /// An answer can't be kept, and makes what came before it obsolete.
    fn too_long(&self, draft: &Draft) {
        let newer = |known: Arc<Entry>| !draft.came.after(known.came);
        if !self.store.lock().get(&draft.key).is_some_and(newer) {
            self.obsolete(&draft.key);
        }
    }

    fn store(&self, draft: Draft, body: &[u8]) {
        let weight = draft.key.weight() + draft.kept.weight() + body.len();
        if weight > self.limits.max_entry_bytes {
            self.too_long(&draft);
            return;
        }
        let Draft { key, generation, kept, came, .. } = draft;
        // Copied: what the transport hands over may be a small part of a large buffer.
        let entry = Arc::new(Entry { kept, body: Bytes::copy_from_slice(body), came });
        let mut store = self.store.lock();
        // Asked under the lock that invalidations take.
        let current = self.generation(&key) == generation;
        // An answer that came sooner may be read later, and one that came later may be of a call
        // that began before.
        let newest = |known: Arc<Entry>| entry.came.after(known.came);
        if current && store.get(&key).is_none_or(newest) {
            store.put(key, entry, weight);
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// One call, as the store sees it.
pub(crate) enum Asked {
    /// It may be answered from the store, and fill it.
    Read(Box<Read>),
    /// Its success makes what is stored for its URL obsolete.
    Write { cache: Arc<Cache>, url: String },
}

pub(crate) struct Read {
    cache: Arc<Cache>,
    key: Key,
    headers: HeaderMap,
    generation: u64,
    began: Moment,
}

/// An answer on its way into the store: all but its body.
pub(crate) struct Draft {
    cache: Arc<Cache>,
    key: Key,
    generation: u64,
    kept: Kept,
    came: Came,
}

/// An answer from the store.
pub(crate) struct Stored {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    age: Duration,
}

impl Asked {
    /// `None` when the call has nothing to do with the store. `key` is what the caller keeps apart
    /// by itself.
    pub(crate) fn new(
        cache: &Arc<Cache>,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        key: Option<&str>,
        has_body: bool,
    ) -> Option<Self> {
        let cache = Arc::clone(cache);
        if !matches!(*method, Method::GET | Method::HEAD) {
            let safe = matches!(*method, Method::OPTIONS | Method::TRACE);
            return (!safe).then(|| Self::Write { cache, url: key::address(url) });
        }
        // A body or a range makes it another question, which the key doesn't tell apart.
        if has_body || headers.contains_key(RANGE) || !rules::allows(headers) {
            return None;
        }
        let key = Key::new(method, url, headers, key, &cache.limits.ignored);
        let generation = cache.generation(&key);
        let began = Moment { tick: time::now(), wall: time::wall() };
        Some(Self::Read(Box::new(Read { cache, key, headers: headers.clone(), generation, began })))
    }
}

impl Read {
    /// Whether a stored answer may stand in for `error`.
    pub(crate) fn stands_in_for_error(error: &Error) -> bool {
        use ErrorKind::{
            Body, BodyIdle, BulkheadFull, CircuitOpen, Connect, Deadline, NoEndpoint, Overloaded,
            RateLimited, Throttled, Timeout, Transport,
        };
        let kind = error.kind();
        matches!(kind, Connect | Timeout | Deadline | Transport | Body | BodyIdle)
            || matches!(kind, CircuitOpen | BulkheadFull | Overloaded | RateLimited | Throttled | NoEndpoint)
    }

    /// Whether a stored answer may stand in for a response: the statuses are those of RFC 5861
    /// section 4.
    pub(crate) fn stands_in_for_status(status: StatusCode) -> bool {
        matches!(status.as_u16(), 500 | 502 | 503 | 504)
    }

    /// The stored answer, if it may be given now.
    pub(crate) fn look_up(&self) -> Option<Stored> {
        let entry = self.cache.store.lock().get(&self.key)?;
        let now = Moment { tick: time::now(), wall: time::wall() };
        let age = rules::may_answer(&entry.kept, &self.headers, self.cache.limits.default_window, now)?;
        let mut headers = entry.kept.headers.clone();
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
        Some(Stored { status: entry.kept.status, headers, body: entry.body.clone(), age })
    }

    /// The server has answered. What is to become of the answer's body: `Some` to have it stored.
    ///
    /// `own` says whether the answer is this URL's, and not a stream; `came` when its head did.
    pub(crate) fn answered(
        self,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        own: bool,
        came: Came,
    ) -> Option<Draft> {
        // It can't answer now, or nothing has changed.
        if status.is_server_error() || matches!(status.as_u16(), 304 | 408 | 425 | 429) {
            return None;
        }
        let Self { cache, key, headers: asked, generation, began } = self;
        let fits = length.is_none_or(|length| length <= cache.limits.max_entry_bytes as u64);
        let kept = (own && fits)
            .then(|| rules::keep(&asked, status, headers, cache.limits.default_window, began))
            .flatten();
        if let Some(kept) = kept {
            return Some(Draft { cache, key, generation, kept, came });
        }
        cache.obsolete(&key);
        None
    }
}

impl Stored {
    /// The mark of a response given in place of `error` or `status`.
    pub(crate) fn degraded(&self, error: Option<Error>, status: Option<StatusCode>) -> Degraded {
        Degraded(Arc::new(Why { error, status, age: self.age }))
    }
}

impl Draft {
    /// The most bytes its body may have.
    fn room(&self) -> usize {
        self.cache.limits.max_entry_bytes
    }

    /// The body has ended and this is all of it.
    fn commit(self, body: &[u8]) {
        let cache = Arc::clone(&self.cache);
        cache.store(self, body);
    }

    /// The body is too long, and what was stored before it is obsolete.
    fn too_long(self) {
        self.cache.too_long(&self);
    }
}

#[cfg(test)]
mod tests;
