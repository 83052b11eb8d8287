//! A set of endpoints and where its list comes from, kept in step by the calls themselves.
//!
//! No task runs between calls. A call that finds a watched list replaced takes the new one over; a
//! call that finds a name's addresses old starts one task that asks for them and ends with the
//! answer, or with the balancer.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::uri::Authority;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::refresh::{PATIENCE, Refresh, Step};
use super::{Checks, EndpointPermit, EndpointSet, Seek, Shut};
use crate::endpoints::{NoEndpoint, Resolve, ResolveError, Source, Watched};
use crate::origin::Origin;
use crate::policy::balance::Rules;
use crate::rng::{Entropy, Rng};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::telemetry::Held;
use crate::time::{self, Tick, nanos};

/// The endpoints of one name and what keeps their list up to date.
#[derive(Debug)]
pub(crate) struct Balancer {
    set: Arc<EndpointSet>,
    feed: Feed,
}

#[derive(Debug)]
enum Feed {
    Fixed,
    Watched(Following),
    Dns(Arc<Discovery>),
}

impl Balancer {
    pub(crate) fn new(source: Source, rules: Rules, checks: Checks, now: Tick) -> Self {
        let entropy = checks.entropy.clone();
        let set = Arc::new(EndpointSet::new(rules, checks, source.grace()));
        let feed = match source {
            Source::Fixed(list) => {
                set.update(&list, now);
                Feed::Fixed
            }
            Source::Watched(watched) => {
                let following = Following { watched, seen: AtomicU64::new(0), lock: Mutex::new(()) };
                following.catch_up(&set, now);
                Feed::Watched(following)
            }
            Source::Dns { origin, every, resolver } => Feed::Dns(Arc::new(Discovery {
                host: host(&origin),
                refresh: Mutex::new(Refresh::new(nanos(every))),
                fresh_until: AtomicU64::new(0),
                answered: Notify::new(),
                task: Mutex::new(None),
                origin,
                resolver,
                set: Arc::clone(&set),
                entropy,
            })),
        };
        Self { set, feed }
    }

    /// Waits until there are endpoints to choose from: for the first answer about a name, for
    /// another when that was a failure, and for a second at most when the last is older than three
    /// intervals. There is no other bound but the resolver's 10 s, so wait within a deadline.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`NoEndpoint`] when the name doesn't resolve; that is believed for a second.
    pub(crate) async fn ready(&self, now: Tick) -> Result<(), NoEndpoint> {
        match &self.feed {
            Feed::Fixed | Feed::Watched(_) => Ok(()),
            Feed::Dns(discovery) => discovery.ready(now).await,
        }
    }

    /// Whether [`ready`](Self::ready) has nothing to wait for, nor to ask.
    pub(crate) fn is_fresh(&self, now: Tick) -> bool {
        match &self.feed {
            Feed::Fixed | Feed::Watched(_) => true,
            Feed::Dns(discovery) => now.as_nanos() < discovery.fresh_until.load(Ordering::Acquire),
        }
    }

    /// A place for an attempt: see [`EndpointSet::admit`].
    ///
    /// # Errors
    /// [`Shut`] when no endpoint may be asked. [`Shut::Empty`] when a watched list was never set,
    /// or nobody waited for [`ready`](Self::ready).
    pub(crate) fn admit(&self, seek: &Seek<'_>, now: Tick, rng: &mut Rng) -> Result<EndpointPermit, Shut> {
        self.catch_up(now);
        self.set.admit(seek, now, rng)
    }

    /// Follows the last list that was set.
    pub(crate) fn catch_up(&self, now: Tick) {
        if let Feed::Watched(following) = &self.feed {
            following.catch_up(&self.set, now);
        }
    }

    /// Why there is no endpoint at all.
    pub(crate) fn nobody(&self) -> NoEndpoint {
        match &self.feed {
            Feed::Dns(discovery) => discovery.unresolved(None),
            Feed::Fixed | Feed::Watched(_) => NoEndpoint::NotSet,
        }
    }

    /// What requests name in their `Host` header, unless it is the endpoint itself.
    pub(crate) fn host(&self) -> Option<&Authority> {
        match &self.feed {
            Feed::Dns(discovery) => Some(discovery.origin.authority()),
            Feed::Fixed | Feed::Watched(_) => None,
        }
    }

    pub(crate) fn set(&self) -> &EndpointSet {
        &self.set
    }
}

/// The name as a resolver wants it: an IPv6 address goes without its brackets.
fn host(origin: &Origin) -> Arc<str> {
    origin.authority().host().trim_start_matches('[').trim_end_matches(']').into()
}

/// A watched list, and how much of it has been taken over.
#[derive(Debug)]
struct Following {
    watched: Arc<Watched>,
    /// The version taken over. Written under the lock.
    seen: AtomicU64,
    /// Held from reading a list to having taken it over, so that an older one can't come last.
    lock: Mutex<()>,
}

impl Following {
    fn catch_up(&self, set: &EndpointSet, now: Tick) {
        if self.watched.list().version == self.seen.load(Ordering::Acquire) {
            return;
        }
        let _events = Held::begin();
        let _taking_over = self.lock.lock();
        let list = self.watched.list();
        if list.version != self.seen.load(Ordering::Acquire) {
            set.update(&list.origins, now);
            self.seen.store(list.version, Ordering::Release);
        }
    }
}

/// A name and its addresses.
struct Discovery {
    origin: Origin,
    host: Arc<str>,
    resolver: Arc<dyn Resolve>,
    set: Arc<EndpointSet>,
    entropy: Entropy,
    /// Locked for a decision at a time.
    refresh: Mutex<Refresh>,
    /// Until then, as a `Tick`, a call needn't lock `refresh`.
    fresh_until: AtomicU64,
    /// Wakes who waits for an answer.
    answered: Notify,
    /// The question under way, ended with this. Locked to put another in its place.
    task: Mutex<Option<AbortHandle>>,
}

impl Discovery {
    async fn ready(self: &Arc<Self>, mut now: Tick) -> Result<(), NoEndpoint> {
        loop {
            // Made before looking, so that an answer in between wakes it.
            let answered = self.answered.notified();
            if now.as_nanos() < self.fresh_until.load(Ordering::Acquire) {
                return Ok(());
            }
            let (step, question) = {
                let mut refresh = self.refresh.lock();
                let step = refresh.step(now);
                self.fresh_until.store(refresh.fresh_until().as_nanos(), Ordering::Release);
                (step, refresh.question())
            };
            if matches!(step, Step::AskAndGo | Step::AskAndWait) {
                self.ask(question);
            }
            match step {
                Step::Go | Step::AskAndGo => return Ok(()),
                Step::Fail(error) => return Err(self.unresolved(Some(error))),
                Step::Wait | Step::AskAndWait => {
                    let (failed, longest) = {
                        let refresh = self.refresh.lock();
                        (refresh.failure().is_some(), refresh.longest_wait(now))
                    };
                    // The answer may be there already: who can't ask gives one at once.
                    if !failed {
                        // The task may die with its runtime while this call lives on in another.
                        let _ = tokio::time::timeout(Duration::from_nanos(longest), answered).await;
                    }
                    now = time::now();
                }
            }
        }
    }

    /// Puts a question to the resolver, in a task of its own: other calls wait for the answer too,
    /// or don't wait at all, so it must not depend on this one's patience.
    fn ask(self: &Arc<Self>, question: u64) {
        let answer = Answer { to: Arc::downgrade(self), question };
        let Ok(runtime) = Handle::try_current() else {
            return answer.give(Err("there is no tokio runtime to ask in".into()));
        };
        let (resolver, host, port) = (Arc::clone(&self.resolver), Arc::clone(&self.host), self.origin.port());
        // Even the question is put in the task: a resolver that panics there takes no call with it.
        let asked = async move { resolver.resolve(&host, port).await };
        let task = runtime.spawn(answered_by(asked, answer));
        if let Some(before) = self.task.lock().replace(task.abort_handle()) {
            before.abort();
        }
    }

    fn take(&self, question: u64, answer: Result<Vec<SocketAddr>, ResolveError>, now: Tick) {
        {
            let _events = Held::begin();
            let mut refresh = self.refresh.lock();
            let unit = self.entropy.rng().unit();
            if let Some(origins) = refresh.answered(question, answer, now, unit) {
                // Still locked: who reads that there are endpoints must find them, and an older
                // answer can't come last.
                self.set.update(&origins, now);
            }
            self.fresh_until.store(refresh.fresh_until().as_nanos(), Ordering::Release);
        }
        self.answered.notify_waiters();
    }

    fn unresolved(&self, error: Option<Arc<dyn std::error::Error + Send + Sync>>) -> NoEndpoint {
        let error = error.or_else(|| self.refresh.lock().failure());
        let error = error.unwrap_or_else(|| Arc::from(ResolveError::from("nobody has asked yet")));
        NoEndpoint::Unresolved { host: Arc::clone(&self.host), error }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Discovery").field(&self.origin).finish_non_exhaustive()
    }
}

async fn answered_by(
    asked: impl Future<Output = Result<Vec<SocketAddr>, ResolveError>> + Send,
    answer: Answer,
) {
    let patience = Duration::from_nanos(PATIENCE);
    let result = match tokio::time::timeout(patience, asked).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {patience:?}").into()),
    };
    answer.give(result);
}

/// Owes a discovery an answer, and gives it in any case: one that never came would keep calls
/// waiting.
struct Answer {
    to: Weak<Discovery>,
    question: u64,
}

impl Answer {
    fn give(mut self, answer: Result<Vec<SocketAddr>, ResolveError>) {
        if let Some(to) = std::mem::take(&mut self.to).upgrade() {
            to.take(self.question, answer, time::now());
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(to) = self.to.upgrade() {
            to.take(self.question, Err("the resolver panicked or was stopped".into()), time::now());
        }
    }
}

#[cfg(test)]
mod tests;
