//! One upstream's live state: every machine that its calls share, and the permit that holds a place
//! in all of them.
//!
//! State is kept per authority (scheme, host, port), because that is what fails together; routes
//! and keys may have some of their own, and share the rest (see [`host`]).

mod admission;
mod attempt_permit;
mod control;
pub(crate) mod endpoints;
pub(crate) mod entered;
mod feedback;
mod host;
mod latency;
mod protocol;
pub(crate) mod registry;
mod retry_after_hold;
mod snapshot;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
#[cfg(feature = "hyper")]
use http::HeaderValue;
use tokio::sync::Notify;

use crate::authority::identity::UpstreamIdentity;
use crate::event::Event;
use crate::policy::breaker::{self, Breaker, ReadyQueue};
use crate::policy::budget::Budget;
use crate::policy::bulkhead::Bulkhead;
use crate::policy::concurrency::Concurrency;
use crate::policy::grant::Grant;
use crate::policy::hedge::Cap;
use crate::policy::overload::{Line, OverloadLimit};
use crate::policy::plan::{Modes, Plan};
use crate::policy::rate_limit::RateLimit;
use crate::policy::throttle::Throttle;
use crate::rng::Entropy;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::telemetry::Events;
use crate::time::{self, Tick, nanos};

pub(crate) use admission::{Admission, Ask, Patience, Refusal, Tried, Waiting};
pub(crate) use attempt_permit::AttemptPermit;
pub use endpoints::EndpointSnapshot;
pub(crate) use snapshot::ClientNumber;
pub use snapshot::UpstreamSnapshot;

use self::endpoints::{Balancer, Endpoint, Shut, Trial};
pub(crate) use self::host::{Part, Whole, Whose};
use self::protocol::Protocol;
use self::retry_after_hold::RetryAfterHold;
use crate::authority::key::Key;
use crate::policy::latency::Digest;

/// How long after the last call an upstream's open breaker, or the rate it used up, is worth
/// remembering. Nobody is spared anything by it then, and who comes asks a fresh one, which opens
/// after five failures.
pub(crate) const FORGETS_AFTER: Duration = Duration::from_secs(60);

/// The machines of one authority.
#[derive(Debug)]
pub(crate) struct Upstream {
    key: Key,
    name: Arc<str>,
    /// What requests to it say in `Host`, as RFC 9110 (7.2) has it: host and, unless it is the
    /// scheme's own, port.
    #[cfg(feature = "hyper")]
    host_header: Option<HeaderValue>,
    /// The headers that most requests to it are given, and the time they tell of: that of the first
    /// attempt that had as long as its plan says. After a reload that changes it they are of no
    /// use, and headers are put together one by one.
    usual_headers: OnceLock<(Duration, HeaderMap)>,
    /// Whether requests to it say how long their answers are waited for.
    told: bool,
    breaker: Breaker,
    /// Calls that wait for the breaker, or for the endpoints'.
    ready: ReadyQueue,
    budget: Budget,
    bulkhead: Bulkhead,
    throttle: Throttle,
    rate_limit: RateLimit,
    /// Finds the bulkhead's limit. Made when a policy first asks for it.
    concurrency: OnceLock<Concurrency>,
    /// How many attempts it can answer in time, where it is all there is; endpoints have limits and
    /// a line of their own.
    overload: OverloadLimit,
    /// Who waits for one of those places.
    line: Line,
    /// [`Modes`], as its bits.
    modes: AtomicU32,
    hedges: Cap,
    latency: Digest,
    protocol: Protocol,
    retry_after_hold: RetryAfterHold,
    /// Wakes who waits to be let in when a server's `Retry-After` begins to hold everybody back.
    hold_begins: Notify,
    /// When a call last asked, as a `Tick`, coarsely: it only orders idle upstreams for eviction.
    last_used: AtomicU64,
    /// A dropped attempt older than this counts as a failure, in nanoseconds.
    abandoned_after: AtomicU64,
    /// Calls that have begun and whose last body hasn't ended.
    calls: AtomicU64,
    /// Upstreams of routes and keys that share what is this host's. None of them outlives it in the
    /// registry.
    parts: AtomicU32,
    /// The host this is a part of; `None` when it is the whole.
    whole: Option<Whole>,
    /// What it shares with others that have no place in the registry; `None` when it has one.
    pool: Option<Arc<Self>>,
    /// The registry has let go of it, or is about to: a call that finds it so must look again.
    retired: AtomicBool,
    /// The endpoints its name stands for; `None` when it is the only one.
    balancer: Option<Arc<Balancer>>,
    entropy: Entropy,
    events: Events,
}

impl Upstream {
    pub(crate) fn new(key: Key, plan: &Plan, entropy: Entropy, events: &Events, now: Tick) -> Self {
        let breaker = plan.breaker.clone().map_or_else(Breaker::disabled, Breaker::new);
        let upstream = Self {
            events: events.of(UpstreamIdentity::of(&key)),
            name: key.name(),
            #[cfg(feature = "hyper")]
            host_header: key.host_header(),
            usual_headers: OnceLock::new(),
            told: false,
            key,
            breaker,
            ready: ReadyQueue::new(plan.breaker.as_ref()),
            budget: plan.budget.map_or_else(Budget::unlimited, Budget::new),
            bulkhead: plan.bulkhead.map_or_else(Bulkhead::unlimited, Bulkhead::new),
            throttle: plan.throttle.map_or_else(Throttle::off, Throttle::new),
            rate_limit: plan.rate_limit.map_or_else(RateLimit::unlimited, RateLimit::new),
            concurrency: OnceLock::new(),
            overload: OverloadLimit::new(plan.overload.is_some()),
            line: Line::new(plan.overload),
            modes: AtomicU32::new(plan.modes.bits()),
            hedges: plan.hedge.map_or_else(Cap::closed, Cap::new),
            latency: Digest::new(),
            retry_after_hold: RetryAfterHold::new(),
            hold_begins: Notify::new(),
            last_used: AtomicU64::new(now.as_nanos()),
            abandoned_after: AtomicU64::new(abandoned_after(plan)),
            calls: AtomicU64::new(0),
            parts: AtomicU32::new(0),
            whole: None,
            pool: None,
            retired: AtomicBool::new(false),
            balancer: None,
            protocol: Protocol::unknown(),
            entropy,
        };
        upstream.follow_limits(plan, || now);
        upstream
    }

    /// Without a place in the registry: it lasts as long as its call, and shares `pool`'s budget
    /// with others like it.
    pub(crate) fn without_place(mut self, pool: &Arc<Self>) -> Self {
        self.pool = Some(Arc::clone(pool));
        self
    }

    /// With several endpoints behind its name. Their breakers judge what fails there: a breaker of
    /// the name's would count it a second time. It follows no rules, and only an operator opens or
    /// closes it.
    pub(crate) fn behind(mut self, balancer: Option<Arc<Balancer>>) -> Self {
        if balancer.is_some() {
            self.breaker = Breaker::disabled();
        }
        self.balancer = balancer;
        self
    }

    /// The old rule, for the tests that must find it: the name has a breaker that counts what its
    /// endpoints fail at.
    #[cfg(any(test, feature = "__testkit"))]
    pub(crate) fn judge_twice(&self, rules: breaker::Rules) {
        self.breaker.set_rules(Some(rules));
    }

    /// Follows another plan from now on, and keeps its state.
    pub(crate) fn follow(&self, plan: &Plan) {
        self.abandoned_after.store(abandoned_after(plan), Ordering::Relaxed);
        self.budget.set_rules(plan.budget);
        self.throttle.set_rules(plan.throttle);
        self.rate_limit.set_rules(plan.rate_limit, time::now());
        self.modes.store(plan.modes.bits(), Ordering::Release);
        self.follow_limits(plan, time::now);
        self.follow_overload(plan);
        self.hedges.set_rules(plan.hedge);
        self.ready.set_rules(plan.breaker.as_ref());
        if self.balancer.is_some() {
            return;
        }
        if let Some(transition) = self.breaker.set_rules(plan.breaker.clone()) {
            self.emit(|| Event::BreakerTransition(transition));
        }
        self.ready.rouse();
    }

    /// A call begins; false when the registry has let go of this upstream meanwhile.
    pub(crate) fn enter(&self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(pool) = &self.pool {
            pool.calls.fetch_add(1, Ordering::SeqCst);
        }
        let stays = !self.retired.load(Ordering::SeqCst);
        if !stays {
            self.leave();
        }
        stays
    }

    /// A call is over: it has no attempt in flight, sends no other, and its response's body has
    /// ended.
    pub(crate) fn leave(&self) {
        self.calls.fetch_sub(1, Ordering::SeqCst);
        if let Some(pool) = &self.pool {
            pool.calls.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Lets no further call in, if none is in and there is nothing to remember.
    pub(crate) fn retire(&self, now: Tick) -> bool {
        self.retired.store(true, Ordering::SeqCst);
        let idle = self.unfinished() == 0 && self.is_idle(now);
        if !idle {
            self.retired.store(false, Ordering::SeqCst);
        }
        idle
    }

    /// What was granted to an attempt that never set out.
    pub(crate) fn give_back(&self, grant: Grant) {
        self.budget().refund(grant.token);
        if grant.capped {
            self.hedges.refund();
        }
    }

    /// Calls that have begun and aren't over.
    pub(crate) fn unfinished(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// What requests to it say in `Host`; `None` where several share it.
    #[cfg(feature = "hyper")]
    pub(crate) fn host_header(&self) -> Option<&HeaderValue> {
        self.host_header.as_ref()
    }

    /// The headers that most requests to it are given, made by `make` if they haven't been.
    pub(crate) fn usual_headers(
        &self,
        make: impl FnOnce() -> (Duration, HeaderMap),
    ) -> &(Duration, HeaderMap) {
        self.usual_headers.get_or_init(make)
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.pool.as_deref().unwrap_or(self).budget
    }

    /// Which HTTP it speaks.
    pub(crate) fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    pub(crate) fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    /// Whether an attempt has succeeded within so many nanoseconds, or up to a second more: at this
    /// endpoint, where there are several.
    pub(crate) fn has_served_within(&self, endpoint: Option<&Endpoint>, nanos: u64, now: Tick) -> bool {
        match endpoint {
            Some(endpoint) => endpoint.has_served_within(nanos, now),
            None => self.retry_after_hold().has_succeeded_within(nanos, now),
        }
    }

    /// Until when a server's `Retry-After` holds everyone back.
    fn held_until(&self) -> Tick {
        self.retry_after_hold().until()
    }

    fn modes(&self) -> Modes {
        Modes::from_bits(self.modes.load(Ordering::Relaxed))
    }

    /// What requests name in their `Host` header, unless it is the endpoint itself.
    pub(crate) fn host(&self) -> Option<&http::uri::Authority> {
        self.balancer.as_ref().and_then(|balancer| balancer.host())
    }

    pub(crate) fn hedges(&self) -> &Cap {
        &self.hedges
    }

    /// Whether no attempt would be let through now: by the breaker or, with several endpoints, by
    /// any of theirs.
    pub(crate) fn is_circuit_open(&self, now: Tick) -> bool {
        self.shut_for(now).is_some()
    }

    /// For how long that is so, as far as it is known.
    fn shut_for(&self, now: Tick) -> Option<breaker::Rejected> {
        let wait = |wait: Duration| Some(wait.max(Duration::from_nanos(1)));
        let shut = |balancer: &Balancer| match balancer.set().shut(now)? {
            _ if self.breaker.state() == breaker::State::ForcedClosed => None,
            Shut::Full(_) | Shut::Silent => None,
            Shut::Open(retry_after) => Some(breaker::Rejected { retry_after }),
            Shut::Held(held) => Some(breaker::Rejected { retry_after: wait(held) }),
            Shut::Empty => Some(breaker::Rejected { retry_after: wait(Duration::ZERO) }),
        };
        self.breaker.rejects_now(now).or_else(|| self.balancer.as_deref().and_then(shut))
    }

    /// Whether there is an endpoint to ask that a call hasn't `tried`.
    pub(crate) fn has_another(&self, tried: &[Trial], now: Tick) -> bool {
        self.balancer.as_deref().is_some_and(|balancer| balancer.set().has_another(tried, now))
    }

    /// With several endpoints: from when on a call that has `tried` some may ask one again, as far
    /// as they ask for time.
    pub(crate) fn again_from(&self, tried: &[Trial], now: Tick) -> Option<Tick> {
        self.balancer.as_deref()?.set().again_from(tried, now)
    }

    /// Whether it is kept when no call is in it.
    pub(crate) fn has_place(&self) -> bool {
        self.pool.is_none()
    }

    /// Attempts in flight, and answered ones whose bodies haven't ended: of the whole host where
    /// that finds a limit.
    pub(crate) fn in_use(&self) -> u32 {
        self.bulkhead(self.slot()).in_use()
    }

    /// Nothing in flight, and nothing to remember that anybody has asked for lately: safe to
    /// forget.
    pub(crate) fn is_idle(&self, now: Tick) -> bool {
        use breaker::State::{Disabled, ForcedClosed, ForcedOpen, HalfOpen, Open};
        if self.bulkhead.in_use() != 0 || self.parts.load(Ordering::SeqCst) != 0 {
            return false;
        }
        let state = self.breaker.state();
        let held = match state {
            ForcedOpen | ForcedClosed => true,
            // By an operator, or by a policy.
            Disabled => self.breaker.is_held(),
            _ => self.breaker.only_observes() && self.breaker.is_held(),
        };
        let remembers = matches!(state, Open | HalfOpen)
            || now < self.retry_after_hold.until()
            || self.rate_limit.owes(now);
        !held && (!remembers || now.since(self.last_used()) >= FORGETS_AFTER)
    }

    pub(crate) fn last_used(&self) -> Tick {
        Tick::from_nanos(self.last_used.load(Ordering::Relaxed))
    }

    /// A store a second at most: eviction needs no finer order, and a store a call would bounce the
    /// cache line.
    fn touch(&self, now: Tick) {
        const COARSE: Duration = Duration::from_secs(1);
        if now.since(self.last_used()) >= COARSE {
            self.last_used.store(now.as_nanos(), Ordering::Relaxed);
        }
    }
}

fn abandoned_after(plan: &Plan) -> u64 {
    plan.breaker.as_ref().map_or(u64::MAX, |breaker| nanos(breaker.abandoned_after()))
}
