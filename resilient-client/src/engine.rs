//! What all calls of a client share. A call asks it to be [let in](Core::enter); it makes none.

mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderName, Method};

mod named;
mod reloaded;
mod told;

pub use self::reloaded::Reloaded;
use self::reloaded::Versioned;
use self::told::Told;
use super::hook::Hook;
use crate::authority::Authority;
use crate::authority::identity::UpstreamIdentity;
use crate::authority::key::{Key, Scope};
use crate::connections::Counters;
use crate::deadline::header;
use crate::defaults::{Defaults, Given};
use crate::endpoints::Endpoints;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Observer};
use crate::invalid::Invalid;
use crate::origin::Origin;
use crate::policy::plan::Plan;
use crate::policy::set::{self, PlanSet};
use crate::policy::{Policy, PolicySet};
use crate::rng::Entropy;
use crate::sync::Mutex;
use crate::telemetry::Events;
use crate::time::{self, Tick};
use crate::upstream::endpoints::{Balancer, Checks};
use crate::upstream::entered::Entered;
use crate::upstream::registry::{Registry, Source};
use crate::upstream::{ClientNumber, Upstream, UpstreamSnapshot, Whole};
use http::HeaderMap;

/// The most upstreams kept apart, unless the builder says otherwise.
const MAX_UPSTREAMS: usize = 1024;

/// How often a drain looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// What a client or a layer is made from.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) policies: PolicySet,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    pub(crate) max_upstreams: usize,
    pub(crate) entropy: Entropy,
    pub(crate) hook: Option<Hook>,
    /// The header that carries deadlines on; `None` to keep them to ourselves.
    pub(crate) deadline_header: Option<HeaderName>,
    /// The origins that requests bear deadlines to; `None` for those that are local.
    pub(crate) deadline_origins: Option<Vec<String>>,
    /// The names that stand for several endpoints.
    pub(crate) endpoints: Vec<(String, Endpoints)>,
    /// What requests begin with.
    pub(crate) defaults: Given,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policies: Policy::standard().into(),
            observers: Vec::new(),
            max_upstreams: MAX_UPSTREAMS,
            entropy: Entropy::default(),
            hook: None,
            deadline_header: Some(header::EXPECTED_TIMEOUT),
            deadline_origins: None,
            endpoints: Vec::new(),
            defaults: Given::default(),
        }
    }
}

/// The policies in force and the live state of every upstream.
#[derive(Debug)]
pub(crate) struct Core {
    plans: ArcSwap<PlanSet>,
    /// What the plans were made from. A lock because a reload is compared with the one before it,
    /// one at a time.
    policies: Mutex<Versioned>,
    registry: Registry,
    entropy: Entropy,
    events: Events,
    hook: Option<Hook>,
    deadline_header: Option<HeaderName>,
    /// Whom requests bear deadlines to.
    told: Told,
    /// The names that stand for several endpoints. Their state is shared by whatever routes and
    /// keys they have.
    names: HashMap<Authority<'static>, Arc<Balancer>>,
    draining: AtomicBool,
    /// What requests begin with.
    defaults: Defaults,
    /// Why nothing can be sent, if nothing can.
    unmade: Option<String>,
    /// Where the transport counts its connections; `None` where it doesn't tell.
    #[cfg_attr(not(any(feature = "admin", feature = "hyper")), allow(dead_code, reason = "nobody asks"))]
    connections: Option<Arc<Counters>>,
    number: ClientNumber,
}

impl Core {
    pub(crate) fn new(setup: Setup) -> Result<Self, Invalid> {
        if setup.max_upstreams == 0 {
            return Err(Invalid::new("max_upstreams", "must be at least 1, got 0"));
        }
        let plans = setup.policies.compile(0)?;
        let told = Told::of(setup.deadline_origins.as_deref())?;
        let defaults = setup.defaults.compile()?;
        let events = Events::new(setup.observers.clone());
        let mut names = HashMap::new();
        for (name, endpoints) in &setup.endpoints {
            let named = |invalid: Invalid| invalid.of(name);
            let (authority, source) =
                (set::origin(name).map_err(named)?, endpoints.compile().map_err(named)?);
            let checks = Checks {
                entropy: setup.entropy.clone(),
                events: events.of(UpstreamIdentity::of(&Key::new(&authority, None))),
                ..checks(plans.of_state(&authority, None))
            };
            let rules = plans.of_state(&authority, None).balance;
            let balancer = Balancer::new(source, rules, checks, time::now());
            if names.insert(authority, Arc::new(balancer)).is_some() {
                return Err(Invalid::new("endpoints", "are given twice").of(name));
            }
        }
        Ok(Self { told, names, defaults, ..Self::telling(events, setup, plans) })
    }

    /// The same with plans that are known to be good.
    pub(crate) fn of(setup: Setup, plans: PlanSet) -> Self {
        Self::telling(Events::new(setup.observers.clone()), setup, plans)
    }

    fn telling(events: Events, setup: Setup, plans: PlanSet) -> Self {
        let Setup { policies, max_upstreams, entropy, hook, deadline_header, .. } = setup;
        let now = time::now();
        let overflow = Upstream::new(Key::overflow(), plans.base(), entropy.clone(), &events, now);
        Self {
            plans: ArcSwap::from_pointee(plans),
            policies: Mutex::new(Versioned { set: policies, version: 0, since: now }),
            registry: Registry::new(max_upstreams, overflow),
            entropy,
            events,
            hook,
            deadline_header,
            told: Told::Local,
            names: HashMap::new(),
            draining: AtomicBool::new(false),
            defaults: Defaults::default(),
            unmade: None,
            connections: None,
            number: ClientNumber::next(),
        }
    }

    /// The upstream of a call to `authority`, with the call in it; and the call's plan. `goes_on`:
    /// it follows one that was let in, which no drain refuses.
    pub(crate) fn enter(
        &self,
        address: &Address<'_>,
        key: Option<&Arc<str>>,
        now: Tick,
        goes_on: bool,
    ) -> Result<(Entered, Arc<Plan>), Error> {
        let plans = self.plans.load();
        let (plan, route) = plans.of_call(&address.authority, address.method, address.path);
        match self.registry.enter_known(&address.authority, scope(key, route)) {
            Some(upstream) => self.entered(upstream, plan, goes_on),
            None => self.enter_anew(address, key, now, goes_on),
        }
    }

    /// The same for an upstream that isn't there, or not by this spelling.
    #[cold]
    fn enter_anew(
        &self,
        address: &Address<'_>,
        key: Option<&Arc<str>>,
        now: Tick,
        goes_on: bool,
    ) -> Result<(Entered, Arc<Plan>), Error> {
        let authority = address.authority.clone().normal();
        let authority = &authority.map_err(|problem| Error::new(ErrorKind::Request).says(problem))?;
        let plans = self.plans.load();
        let (plan, route) = plans.of_call(authority, address.method, address.path);
        let upstreams = Upstreams { core: self, now };
        let upstream = self.registry.enter(authority, scope(key, route), now, &upstreams);
        self.entered(upstream, plan, goes_on)
    }

    #[inline]
    fn entered(
        &self,
        upstream: Arc<Upstream>,
        plan: &Arc<Plan>,
        goes_on: bool,
    ) -> Result<(Entered, Arc<Plan>), Error> {
        let upstream = Entered::new(upstream);
        // Asked once the call counts: a drain either sees it or is seen by it.
        if self.draining.load(Ordering::SeqCst) && !goes_on {
            return Err(Error::new(ErrorKind::Draining));
        }
        Ok((upstream, Arc::clone(plan)))
    }

    /// One more observer for what happens from now on.
    pub(crate) fn observe(&self, observer: &Arc<dyn Observer>) {
        self.events.add(observer);
    }

    /// Asked before every attempt.
    pub(crate) fn hook(&self) -> Option<&Hook> {
        self.hook.as_ref()
    }

    /// The header that tells a server how long its answer is waited for.
    pub(crate) fn deadline_header(&self) -> Option<&HeaderName> {
        self.deadline_header.as_ref()
    }

    /// Whether an endpoint may be told, as far as that is up to it: one of a name that is resolved
    /// is what the name is, `host`; any other has a name of its own.
    #[cold]
    pub(crate) fn tells(&self, host: Option<&http::uri::Authority>, origin: &Origin) -> bool {
        let named = host.map(|host| format!("http://{host}"));
        let authority = set::origin(named.as_deref().unwrap_or_else(|| origin.as_str()));
        authority.is_ok_and(|authority| self.told.has(&authority))
    }

    /// Puts other policies in force, all or none. Live state is kept.
    pub(crate) fn reload(&self, set: PolicySet) -> Result<Reloaded, Invalid> {
        // Observers hear of what changes when the locks are free: they may reload again.
        let _events = crate::telemetry::Held::begin();
        let mut current = self.policies.lock();
        let reloaded = current.compared(&set);
        let plans = Arc::new(set.compile(reloaded.version)?);
        if reloaded.version != current.version {
            let Reloaded { version, ref changes, .. } = reloaded;
            self.events.emit("", || Event::Reloaded { version, changes: changes.clone() });
        }
        self.registry.retune(
            || self.plans.store(Arc::clone(&plans)),
            |key, upstream| upstream.follow(plans.of_state(key.authority(), key.scope())),
        );
        self.registry.overflow().follow(plans.base());
        for (authority, balancer) in &self.names {
            let plan = plans.of_state(authority, None);
            balancer.set().follow(plan.balance, plan.breaker.clone(), plan.overload);
        }
        let since = if reloaded.version == current.version { current.since } else { time::now() };
        *current = Versioned { set, version: reloaded.version, since };
        Ok(reloaded)
    }

    /// What a reload would change. Nothing is.
    #[cfg(feature = "admin")]
    pub(crate) fn would_reload(&self, set: &PolicySet) -> Result<Reloaded, Invalid> {
        set.check()?;
        Ok(self.policies.lock().compared(set))
    }

    /// The policies in force, their version, and since when they are.
    #[cfg(feature = "admin")]
    pub(crate) fn in_force(&self) -> (PolicySet, u64, Tick) {
        let current = self.policies.lock();
        (current.set.clone(), current.version, current.since)
    }

    /// Whether no further call begins.
    #[cfg(feature = "admin")]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Admits no further call and waits until those begun have finished, or `limit` has passed. How
    /// many had not.
    pub(crate) async fn drain(&self, limit: Duration) -> u64 {
        self.draining.store(true, Ordering::SeqCst);
        let until = time::now().after(limit);
        loop {
            let unfinished = self.registry.map(Upstream::unfinished).iter().sum();
            if unfinished == 0 || time::now() >= until {
                return unfinished;
            }
            tokio::time::sleep(DRAIN_LOOK.min(time::now().until(until))).await;
        }
    }

    /// The live state of `authority`, for tests that look inside.
    #[cfg(any(test, feature = "__testkit"))]
    pub(crate) fn upstream_of(&self, authority: &Authority<'_>) -> Arc<Upstream> {
        let headers = &http::HeaderMap::new();
        let address = Address { authority: authority.clone(), method: &Method::GET, path: "/", headers };
        let entered = self.enter(&address, None, time::now(), false);
        entered.map(|(upstream, _)| Arc::clone(&upstream)).expect("not draining")
    }

    /// Every upstream, by name; what those without a place share only while a call is in one.
    pub(crate) fn snapshot(&self) -> Vec<UpstreamSnapshot> {
        let now = time::now();
        let mut all = self.registry.map(|upstream| {
            let mut snapshot = upstream.snapshot(now);
            snapshot.client = self.number;
            if let Some(connections) = &self.connections {
                snapshot.connected(upstream.key().authority(), |origin| connections.open_to(origin));
            }
            snapshot
        });
        if all.last().is_some_and(|overflow| overflow.calls == 0) {
            all.pop();
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// How many upstreams are kept apart.
    pub(crate) fn upstreams(&self) -> usize {
        self.registry.len()
    }
}

/// What of its host a call belongs to. A key of the caller's is more specific than a route.
#[inline]
fn scope<'a>(key: Option<&'a Arc<str>>, route: Option<&'a Arc<str>>) -> Option<Scope<&'a Arc<str>>> {
    key.map(Scope::Key).or(route.map(Scope::Route))
}

/// Makes upstreams that are met for the first time.
struct Upstreams<'a> {
    core: &'a Core,
    now: Tick,
}

impl Source for Upstreams<'_> {
    fn make(&self, key: Key, whole: Option<Whole>) -> Upstream {
        let Core { plans, entropy, events, names, .. } = self.core;
        // Read anew under the registry's lock: a reload may have come in between.
        let plans = plans.load();
        let plan = plans.of_state(key.authority(), key.scope());
        let balancer = names.get(key.authority()).cloned();
        let told = self.core.told.has(key.authority());
        let upstream = Upstream::new(key, plan, entropy.clone(), events, self.now);
        upstream.part_of(whole).behind(balancer).told(told)
    }

    fn names(&self, authority: &Authority<'_>, scope: Option<Scope<&Arc<str>>>) -> bool {
        !matches!(scope, Some(Scope::Key(_))) && self.core.configures(authority)
    }
}

/// What the endpoints of an upstream are checked with: the same breaker as the whole of it.
fn checks(plan: &Plan) -> Checks {
    Checks { breaker: plan.breaker.clone(), overload: plan.overload, ..Checks::default() }
}

/// Whom a request is addressed to, and what policies go by.
pub(crate) struct Address<'a> {
    pub(crate) authority: Authority<'a>,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
}
