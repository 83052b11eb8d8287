//! Which policy a call gets: the client's, its host's, or its route's.

mod named;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::Policy;
use super::plan::Plan;
use super::route::Pattern;
use crate::authority::Authority;
use crate::authority::key::Scope;
use crate::invalid::Invalid;
use crate::redact::{Template, redacted_text};
#[cfg(feature = "config")]
pub(super) use named::Named;

/// A client's policies: one for everything, and others for hosts and routes.
///
/// One policy rarely fits every call of a service. Each more specific policy starts from the less
/// specific one and says only what differs, so "the most specific wins, policy by policy" isn't a
/// merge rule to remember but what the code does:
///
/// ```
/// use std::time::Duration;
/// use resilient_client::Policy;
/// use resilient_client::policy::PolicySet;
/// use resilient_client::policy::retry::RetryPolicy;
/// use resilient_client::policy::timeout::TimeoutPolicy;
///
/// let set = PolicySet::new(Policy::standard())
///     .host("http://users:3000", |base| base.retry(RetryPolicy::standard().max_attempts(2)))
///     .route("http://users:3000", "GET", "/users/{id}/avatar", |users| {
///         users.timeout(TimeoutPolicy::standard().total(Duration::from_secs(1)).attempt(Duration::from_millis(400)))
///     });
/// assert!(set.check().is_ok());
/// ```
///
/// A route whose breaker, budget, bulkhead or hedging differs from its host's has live state of its
/// own; others share the host's, because a host fails as one. What stands for the server as such
/// isn't multiplied by routes and keys: rate limit, throttle, adaptive limit and the wait a server
/// asks for are the host's, whoever calls. A route that sets a rate limit, throttle or adaptive
/// limit of its own has that in place of the host's, and its calls don't count in the host's; so
/// who sets both divides a quota between them. The wait is always the host's.
///
/// One caveat: a policy that isn't named keeps what the less specific one said when the set was put
/// together. So hosts are named before their routes; the other way round is refused.
#[cfg_attr(feature = "config", doc = "")]
#[cfg_attr(feature = "config", doc = include_str!("config/files.md"))]
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySet {
    base: Policy,
    hosts: Vec<Host>,
    routes: Vec<Route>,
    /// Hosts that were changed after a route that began from them, and that route.
    late: Vec<(String, String)>,
}

#[derive(Clone, PartialEq)]
struct Host {
    origin: String,
    policy: Policy,
}

#[derive(Clone, PartialEq)]
struct Route {
    origin: String,
    method: String,
    template: String,
    policy: Policy,
}

impl PolicySet {
    /// One policy for every call.
    pub fn new(base: Policy) -> Self {
        Self { base, hosts: Vec::new(), routes: Vec::new(), late: Vec::new() }
    }

    /// A policy for the calls to one origin, such as `http://users:3000`, made from the client's.
    ///
    /// Naming an origin again, however it is spelled, changes its policy further. A host is named
    /// before its routes, which begin from it: [`check`](Self::check) refuses one that is changed
    /// afterwards.
    #[must_use]
    pub fn host(mut self, origin: impl Into<String>, change: impl FnOnce(Policy) -> Policy) -> Self {
        let origin = origin.into();
        let before = self.of_origin(&origin).clone();
        let policy = change(before.clone());
        if policy != before
            && let Some(route) = self.routes.iter().find(|route| same_origin(&route.origin, &origin))
        {
            self.late.push((origin.clone(), route.name()));
        }
        match self.hosts.iter_mut().find(|host| same_origin(&host.origin, &origin)) {
            Some(host) => host.policy = policy,
            None => self.hosts.push(Host { origin, policy }),
        }
        self
    }

    /// How a host that is named already is spelled.
    #[cfg(feature = "config")]
    pub(super) fn host_like(&self, origin: &str) -> Option<&str> {
        let mut hosts = self.hosts.iter().map(|host| &*host.origin);
        hosts.find(|host| same_origin(host, origin))
    }

    /// A policy for the calls of one method (`*` for any) to the paths of one origin that match a
    /// template, made from the host's, or the client's.
    ///
    /// A template is a path whose segments are literal or `{name}`, which stands for one segment of
    /// any kind. The first route that matches is taken; one that an earlier route leaves nothing to
    /// match is refused by [`check`](Self::check).
    #[must_use]
    pub fn route(
        mut self,
        origin: impl Into<String>,
        method: impl Into<String>,
        template: impl Into<String>,
        change: impl FnOnce(Policy) -> Policy,
    ) -> Self {
        let origin = origin.into();
        let policy = change(self.of_origin(&origin).clone());
        self.routes.push(Route { origin, method: method.into(), template: template.into(), policy });
        self
    }

    /// Whether every policy can work. The error names whose policy it is, the setting, and every
    /// number involved.
    pub fn check(&self) -> Result<(), Invalid> {
        self.compile(0).map(drop)
    }

    /// The policy of the calls to an origin that no route is for: the host's, or the client's.
    pub fn of_origin(&self, origin: &str) -> &Policy {
        self.own(origin).unwrap_or(&self.base)
    }

    /// The client's policy.
    pub fn base(&self) -> &Policy {
        &self.base
    }

    /// The hosts whose connections have another time to be made in than the client's, and that
    /// time.
    #[cfg(any(test, feature = "hyper"))]
    pub(crate) fn connect_timeouts(&self) -> Vec<(Authority<'static>, Option<Duration>)> {
        let base = self.base.timeout.effective_connect();
        let own = self.hosts.iter().filter_map(|host| {
            let connect = host.policy.timeout.effective_connect();
            (connect != base).then_some((origin(&host.origin).ok()?, connect))
        });
        own.collect()
    }

    /// Refuses a host that asks for a connect timeout of its own, for a transport that has one for
    /// all.
    pub(crate) fn has_one_connect_timeout(&self) -> Result<(), Invalid> {
        let base = self.base.timeout.connect;
        let Some(host) = self.hosts.iter().find(|host| host.policy.timeout.connect != base) else {
            return Ok(());
        };
        let show = |bound: Option<Duration>| bound.map_or("off".to_owned(), |bound| format!("{bound:?}"));
        let problem = format!(
            "is {}, and a client over reqwest has one for all hosts, {}",
            show(host.policy.timeout.connect),
            show(base)
        );
        Err(Invalid::new("timeout.connect", problem).of(&host.origin))
    }

    /// Whose connections would have another time to be made in after a change to `other`.
    pub(crate) fn connects_otherwise(&self, other: &Self) -> Vec<String> {
        let differs = |mine: &Policy, theirs: &Policy| {
            mine.timeout.effective_connect() != theirs.timeout.effective_connect()
        };
        let mut whose = Vec::new();
        if differs(&self.base, &other.base) {
            whose.push("client".to_owned());
        }
        for host in self.hosts.iter().chain(&other.hosts) {
            let named = whose.iter().any(|named| same_origin(named, &host.origin));
            if !named && differs(self.of_origin(&host.origin), other.of_origin(&host.origin)) {
                whose.push(host.origin.clone());
            }
        }
        whose
    }

    pub(crate) fn compile(&self, version: u64) -> Result<PlanSet, Invalid> {
        let base = Arc::new(self.base.compile(version)?);
        let mut hosts = Vec::new();
        for host in &self.hosts {
            let named = |invalid: Invalid| invalid.of(&host.origin);
            let authority = origin(&host.origin).map_err(named)?;
            hosts.push((authority, Arc::new(host.policy.compile(version).map_err(named)?)));
        }
        if let Some((host, route)) = self.late.first() {
            let problem = format!(
                "is named after its route {route}, which doesn't follow it: name hosts before routes"
            );
            return Err(Invalid::new("host", problem).of(host));
        }
        let mut routes: Vec<PlannedRoute> = Vec::new();
        for route in &self.routes {
            let named = |invalid: Invalid| invalid.of_named(route.shown());
            let host = self.of_origin(&route.origin);
            let planned = PlannedRoute {
                authority: origin(&route.origin).map_err(named)?,
                pattern: Pattern::new(&route.method, &route.template).map_err(named)?,
                scope: route
                    .policy
                    .state_differs(host)
                    .then(|| format!("{} {}", route.method, route.template).into()),
                plan: Arc::new(route.plan(host, version).map_err(named)?),
            };
            let covers = |earlier: &PlannedRoute| {
                earlier.authority == planned.authority && earlier.pattern.covers(&planned.pattern)
            };
            if let Some(earlier) = routes.iter().position(covers).and_then(|index| self.routes.get(index)) {
                let problem = format!("is never reached: {} comes first and matches as much", earlier.name());
                return Err(named(Invalid::new("route", problem)));
            }
            routes.push(planned);
        }
        Ok(PlanSet { base, hosts, routes })
    }

    /// What differs from `other`, as `whose: which policy`, such as `http://users:3000: retry`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = self.base.differences(&other.base, "client");
        let origins = self.hosts.iter().chain(&other.hosts).map(|host| &host.origin);
        let mut seen: Vec<&String> = Vec::new();
        for origin in origins {
            if !seen.iter().any(|seen| same_origin(seen, origin)) {
                found.extend(self.of_origin(origin).differences(other.of_origin(origin), origin));
                seen.push(origin);
            }
        }
        let mut seen: Vec<String> = Vec::new();
        for route in self.routes.iter().chain(&other.routes) {
            let name = route.name();
            if !seen.contains(&name) {
                found.extend(self.of_route(route).differences(other.of_route(route), &name));
                seen.push(name);
            }
        }
        found
    }

    fn of_route(&self, wanted: &Route) -> &Policy {
        self.routes
            .iter()
            .find(|route| route.name() == wanted.name())
            .map_or_else(|| self.of_origin(&wanted.origin), |route| &route.policy)
    }
}

/// Without what may be secret: an origin is checked only when the set is used.
impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, policy } = self;
        f.debug_struct("Host").field("origin", &redacted_text(origin)).field("policy", policy).finish()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.shown()).field(&self.policy).finish()
    }
}

impl Route {
    fn plan(&self, host: &Policy, version: u64) -> Result<Plan, Invalid> {
        let plan = self.policy.compile(version)?;
        let modes = plan.modes.of_route(&self.policy, host);
        Ok(Plan { modes, template: Some(Template::new(&self.template)), ..plan })
    }

    /// Its name without what may be secret. An `@` in a path is none.
    fn shown(&self) -> String {
        let path = self.template.split(['?', '#']).next().unwrap_or_default();
        format!("{} {}{path}", self.method, redacted_text(&self.origin))
    }

    fn name(&self) -> String {
        format!("{} {}{}", self.method, self.origin, self.template)
    }
}

impl From<Policy> for PolicySet {
    fn from(base: Policy) -> Self {
        Self::new(base)
    }
}

impl From<&Policy> for PolicySet {
    fn from(base: &Policy) -> Self {
        Self::new(base.clone())
    }
}

/// A checked [`PolicySet`].
#[derive(Debug)]
pub(crate) struct PlanSet {
    base: Arc<Plan>,
    hosts: Vec<(Authority<'static>, Arc<Plan>)>,
    routes: Vec<PlannedRoute>,
}

#[derive(Debug)]
struct PlannedRoute {
    authority: Authority<'static>,
    pattern: Pattern,
    /// The name of its own live state, where it has any.
    scope: Option<Arc<str>>,
    plan: Arc<Plan>,
}

impl PlanSet {
    /// One plan for everything.
    pub(crate) fn of(base: Plan) -> Self {
        Self { base: Arc::new(base), hosts: Vec::new(), routes: Vec::new() }
    }

    pub(crate) fn base(&self) -> &Arc<Plan> {
        &self.base
    }

    /// The plan of a call, and the name of the live state its route has of its own, if any. Costs
    /// nothing to speak of while no host and no route is named.
    pub(crate) fn of_call(
        &self,
        authority: &Authority<'_>,
        method: &Method,
        path: &str,
    ) -> (&Arc<Plan>, Option<&Arc<str>>) {
        let route = self.routes.iter().find(|route| route.matches(authority, method, path));
        match route {
            Some(route) => (&route.plan, route.scope.as_ref()),
            None => (self.of_host(authority), None),
        }
    }

    /// The plan whose rules the live state of `authority` (and `scope`, a route's) follows.
    pub(crate) fn of_state(&self, authority: &Authority<'_>, scope: Option<Scope<&Arc<str>>>) -> &Arc<Plan> {
        let Some(Scope::Route(name)) = scope else { return self.of_host(authority) };
        let mut routes = self.routes.iter();
        let route = routes.find(|route| route.authority == *authority && route.scope.as_ref() == Some(name));
        route.map_or_else(|| self.of_host(authority), |route| &route.plan)
    }

    /// The hosts that have a policy of their own, or a route that has one.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &Authority<'static>> {
        let of_routes = self.routes.iter().map(|route| &route.authority);
        self.hosts.iter().map(|(host, _)| host).chain(of_routes)
    }

    fn of_host(&self, authority: &Authority<'_>) -> &Arc<Plan> {
        self.hosts.iter().find(|(host, _)| host == authority).map_or(&self.base, |(_, plan)| plan)
    }
}

impl PlannedRoute {
    fn matches(&self, authority: &Authority<'_>, method: &Method, path: &str) -> bool {
        self.authority == *authority && self.pattern.matches(method, path)
    }
}

/// Whether two spellings, such as `http://users` and `http://Users:80/`, are one origin.
fn same_origin(a: &str, b: &str) -> bool {
    a == b || origin(a).is_ok_and(|a| origin(b).is_ok_and(|b| a == b))
}

/// An origin, which is what an authority looks like in a file.
pub(crate) fn origin(text: &str) -> Result<Authority<'static>, Invalid> {
    let refuse = |why: &str| {
        Invalid::new("origin", format!("{why}: want scheme, host and port, as in http://users:3000"))
    };
    let url = url::Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if url.host_str().is_none() {
        return Err(refuse("has no host"));
    }
    let credentials = !url.username().is_empty() || url.password().is_some();
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || credentials {
        return Err(refuse("has more than an origin"));
    }
    Ok(Authority::of_url(&url).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::breaker::BreakerPolicy;
    use crate::policy::retry::RetryPolicy;
    use crate::policy::timeout::TimeoutPolicy;

    const USERS: &str = "http://users:3000";

    fn attempts(n: u32) -> impl FnOnce(Policy) -> Policy {
        move |policy| policy.retry(RetryPolicy::standard().max_attempts(n))
    }

    fn set() -> PolicySet {
        PolicySet::new(Policy::standard())
            .host(USERS, attempts(2))
            .route(USERS, "GET", "/users/{id}", attempts(3))
            .route(USERS, "*", "/slow", |policy| policy.breaker(BreakerPolicy::standard().probes(1)))
    }

    fn found(set: &PlanSet, method: &Method, url: &str) -> (u32, Option<String>) {
        let url = url::Url::parse(url).unwrap();
        let (plan, scope) = set.of_call(&Authority::of_url(&url), method, url.path());
        (plan.retry.unwrap().max_attempts(), scope.map(ToString::to_string))
    }

    #[test]
    fn the_most_specific_policy_is_taken() {
        let set = set().compile(1).unwrap();
        for (method, url, expected) in [
            (Method::GET, "http://other/users/7", 4),
            (Method::GET, "http://users:3000/", 2),
            (Method::GET, "http://users:3000/users/7?x=1", 3),
            (Method::POST, "http://users:3000/users/7", 2),
            (Method::GET, "http://users:3000/users/7/orders", 2),
            (Method::GET, "http://users:3000/users", 2),
            (Method::GET, "https://users:3000/users/7", 4),
        ] {
            assert_eq!(found(&set, &method, url), (expected, None), "{method} {url}");
        }
    }

    #[test]
    fn a_route_starts_from_its_host_and_has_state_of_its_own_only_if_that_differs() {
        let set = set().compile(1).unwrap();
        assert_eq!(found(&set, &Method::PUT, "http://users:3000/slow"), (2, Some("* /slow".into())));
    }

    #[test]
    fn a_mistake_names_whose_policy_it_is() {
        let short =
            |policy: Policy| policy.timeout(TimeoutPolicy::standard().attempt(Duration::from_secs(30)));
        for (set, expected) in [
            (
                set().host(USERS, short),
                "http://users:3000: timeout.attempt is 30s, longer than timeout.total, 10s",
            ),
            (set().host("users:3000", |policy| policy), "users:3000: origin has no host: want scheme"),
            (set().host("http://users/x", |policy| policy), "http://users/x: origin has more than an origin"),
            (
                set().host("http://:pw@users", |policy| policy),
                "http://***@users: origin has more than an origin",
            ),
            (
                set().route(USERS, "get", "/", |policy| policy),
                "get http://users:3000/: method must be a method in",
            ),
            (set().route(USERS, "GET", "x", |policy| policy), "template must begin with /: \"x\""),
            (
                set().route(USERS, "GET", "/a{b}", |policy| policy),
                "template has a segment that is neither literal",
            ),
        ] {
            let message = set.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_mistake_keeps_secrets() {
        for origin in
            ["http://:s3cret@users", "http://me:s3cret@users", "me:s3cret@users", "http://users?k=s3cret"]
        {
            let sets = [
                set().host(origin, |policy| policy),
                set().route(origin, "GET", "/@{name}", |policy| policy),
                set().route(USERS, "GET", "/users?key=s3cret", |policy| policy),
            ];
            for set in sets {
                let said = format!("{} {set:?}", set.check().unwrap_err());
                assert!(!said.contains("s3cret"), "{said}");
            }
        }
        let route = format!("{:?}", set().route(USERS, "GET", "/@{name}", |policy| policy));
        assert!(route.contains("GET http://users:3000/@{name}"), "{route}");
    }

    #[test]
    fn one_origin_spelled_two_ways_is_one_host_and_its_routes_begin_from_it() {
        let set = PolicySet::new(Policy::standard())
            .host("http://users", attempts(2))
            .host("http://Users:80/", |policy| policy.breaker(None))
            .route("http://users:80", "GET", "/x", |policy| policy.budget(None));
        let plans = set.compile(1).unwrap();
        let url = url::Url::parse("http://users/x").unwrap();
        for method in [Method::GET, Method::PUT] {
            let (plan, _) = plans.of_call(&Authority::of_url(&url), &method, url.path());
            assert_eq!((plan.retry.unwrap().max_attempts(), plan.breaker.clone()), (2, None), "{method}");
        }
        assert!(set.differences(&set.clone().host("http://users:80", |policy| policy)).is_empty());
    }

    #[test]
    fn a_host_changed_after_its_route_is_refused_since_the_route_would_not_follow() {
        let set = PolicySet::new(Policy::standard()).route("http://users:80", "GET", "/x", attempts(3));
        set.clone().host("http://users", |policy| policy).check().unwrap();
        let message =
            set.host("http://users", |policy| policy.bulkhead(None)).check().unwrap_err().to_string();
        let expected = "http://users: host is named after its route GET http://users:80/x, which";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn a_hosts_connect_timeout_is_known_to_who_can_keep_it_and_refused_by_who_cannot() {
        let second = Duration::from_secs(1);
        let within = |connect: Duration, attempt: Duration| {
            move |policy: Policy| policy.timeout(TimeoutPolicy::standard().connect(connect).attempt(attempt))
        };
        let set = PolicySet::new(Policy::standard());
        let slow = set.clone().host("http://far", within(2 * second, 4 * second));
        let short = set.clone().host("http://near", within(second, second / 2));
        let far = origin("http://far:80").unwrap();
        assert_eq!(slow.connect_timeouts(), [(far, Some(2 * second))]);
        assert_eq!(short.connect_timeouts()[0].1, Some(second / 8 * 3));
        assert!(set.connect_timeouts().is_empty());
        let message = slow.has_one_connect_timeout().unwrap_err().to_string();
        let expected =
            "http://far: timeout.connect is 2s, and a client over reqwest has one for all hosts, 1s";
        assert_eq!(message, expected);
        short.has_one_connect_timeout().unwrap();
        assert_eq!(set.connects_otherwise(&slow), ["http://far"]);
        assert!(slow.connects_otherwise(&slow.clone()).is_empty());
    }

    #[test]
    fn a_route_that_is_never_reached_is_refused() {
        let set = |method: &str, origin: &str, template: &str| {
            let set =
                PolicySet::new(Policy::standard()).route("http://users", "GET", "/users/{id}", attempts(3));
            set.route(origin, method, template, attempts(2)).check()
        };
        for (method, origin, template) in
            [("GET", "http://users", "/users/{id}"), ("GET", "http://users:80", "/users/me")]
        {
            let message = set(method, origin, template).unwrap_err().to_string();
            let expected = format!(
                "{method} {origin}{template}: route is never reached: GET http://users/users/{{id}} comes first"
            );
            assert!(message.starts_with(&expected), "{message}");
        }
        set("*", "http://users", "/users/{id}").unwrap();
        set("GET", "http://others", "/users/{id}").unwrap();
    }

    #[test]
    fn differences_name_each_policy_that_changed_and_no_other() {
        assert!(set().differences(&set()).is_empty());
        let other =
            set().route(USERS, "GET", "/new", attempts(9)).host(USERS, |policy| policy.bulkhead(None));
        assert_eq!(
            set().differences(&other),
            ["http://users:3000: bulkhead", "GET http://users:3000/new: retry"]
        );
    }
}
