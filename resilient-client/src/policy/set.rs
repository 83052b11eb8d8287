//! Which policy a call gets: the client's, its host's, or its route's.
//!
//! One policy rarely fits every call of a service. Each more specific policy starts from the less specific one and says
//! only what differs, so "the most specific wins, policy by policy" isn't a merge rule to remember but what the code
//! does:
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::Policy;
//! use resilient_client::policy::PolicySet;
//! use resilient_client::policy::retry::RetryPolicy;
//! use resilient_client::policy::timeout::TimeoutPolicy;
//!
//! let set = PolicySet::new(Policy::standard())
//!     .host("http://users:3000", |base| base.retry(RetryPolicy::standard().max_attempts(2)))
//!     .route("http://users:3000", "GET", "/users/{id}/avatar", |users| {
//!         users.timeout(TimeoutPolicy::standard().total(Duration::from_secs(1)).attempt(Duration::from_millis(400)))
//!     });
//! assert!(set.check().is_ok());
//! ```
//!
//! A route whose breaker, budget or bulkhead differs from its host's has live state of its own; others share the host's,
//! because a host fails as one.
//!
//! One caveat: a policy that isn't named keeps what the less specific one said when the set was put together. So name
//! hosts before their routes.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::{Invalid, Plan, Policy};
use crate::error::redacted_text;
use crate::upstream::registry::Authority;

/// A client's policies: one for everything, and others for hosts and routes. See the [module docs](self).
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySet {
    base: Policy,
    hosts: Vec<Host>,
    routes: Vec<Route>,
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
        Self { base, hosts: Vec::new(), routes: Vec::new() }
    }

    /// A policy for the calls to one origin, such as `http://users:3000`, made from the client's.
    ///
    /// Naming an origin again changes its policy further.
    #[must_use]
    pub fn host(mut self, origin: impl Into<String>, change: impl FnOnce(Policy) -> Policy) -> Self {
        let origin = origin.into();
        match self.hosts.iter_mut().find(|host| host.origin == origin) {
            Some(host) => host.policy = change(host.policy.clone()),
            None => self.hosts.push(Host { policy: change(self.base.clone()), origin }),
        }
        self
    }

    /// A policy for the calls of one method (`*` for any) to the paths of one origin that match a template, made from
    /// the host's, or the client's.
    ///
    /// A template is a path whose segments are literal or `{name}`, which stands for one segment of any kind. The first
    /// route that matches is taken.
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

    /// Whether every policy can work. The error names whose policy it is, the setting, and every number involved.
    pub fn check(&self) -> Result<(), Invalid> {
        self.compile(0).map(drop)
    }

    fn of_origin(&self, origin: &str) -> &Policy {
        self.hosts.iter().find(|host| host.origin == origin).map_or(&self.base, |host| &host.policy)
    }

    pub(crate) fn base(&self) -> &Policy {
        &self.base
    }

    pub(crate) fn compile(&self, version: u64) -> Result<PlanSet, Invalid> {
        let base = Arc::new(self.base.compile(version)?);
        let mut hosts = Vec::new();
        for host in &self.hosts {
            let named = |invalid: Invalid| invalid.of(&host.origin);
            let authority = origin(&host.origin).map_err(named)?;
            hosts.push((authority, Arc::new(host.policy.compile(version).map_err(named)?)));
        }
        let mut routes = Vec::new();
        for route in &self.routes {
            let named = |invalid: Invalid| invalid.of_named(route.shown());
            let host = self.of_origin(&route.origin);
            routes.push(PlannedRoute {
                authority: origin(&route.origin).map_err(named)?,
                method: method(&route.method).map_err(named)?,
                segments: segments(&route.template).map_err(named)?,
                scope: route
                    .policy
                    .state_differs(host)
                    .then(|| format!("{} {}", route.method, route.template).into()),
                plan: Arc::new(route.policy.compile(version).map_err(named)?),
            });
        }
        Ok(PlanSet { base, hosts, routes })
    }

    /// What differs from `other`, as `whose: which policy`, such as `http://users:3000: retry`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = self.base.differences(&other.base, "client");
        let origins = self.hosts.iter().chain(&other.hosts).map(|host| &host.origin);
        let mut seen: Vec<&String> = Vec::new();
        for origin in origins {
            if !seen.contains(&origin) {
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
    /// `None` for any.
    method: Option<Method>,
    /// `None` for any one segment.
    segments: Vec<Option<String>>,
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

    /// The plan of a call, and the name of the live state its route has of its own, if any. Costs nothing to speak of
    /// while no host and no route is named.
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
    pub(crate) fn of_state(&self, authority: &Authority<'_>, scope: Option<&str>) -> &Arc<Plan> {
        let routes = &mut self.routes.iter();
        let route = scope.and_then(|scope| {
            routes.find(|route| route.authority == *authority && route.scope.as_deref() == Some(scope))
        });
        route.map_or_else(|| self.of_host(authority), |route| &route.plan)
    }

    fn of_host(&self, authority: &Authority<'_>) -> &Arc<Plan> {
        self.hosts.iter().find(|(host, _)| host == authority).map_or(&self.base, |(_, plan)| plan)
    }
}

impl PlannedRoute {
    fn matches(&self, authority: &Authority<'_>, method: &Method, path: &str) -> bool {
        if self.authority != *authority || self.method.as_ref().is_some_and(|wanted| wanted != method) {
            return false;
        }
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        let literal = |segment: &Option<String>| {
            parts.next().is_some_and(|part| segment.as_deref().is_none_or(|segment| segment == part))
        };
        self.segments.iter().all(literal) && parts.next().is_none()
    }
}

/// An origin, which is what an authority looks like in a file.
pub(crate) fn origin(text: &str) -> Result<Authority<'static>, Invalid> {
    let refuse = |why: &str| {
        Invalid::new("origin", format!("{why}: want scheme, host and port, as in http://users:3000"))
    };
    let url = reqwest::Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if url.host_str().is_none() {
        return Err(refuse("has no host"));
    }
    let credentials = !url.username().is_empty() || url.password().is_some();
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || credentials {
        return Err(refuse("has more than an origin"));
    }
    Ok(Authority::of_url(&url).into_owned())
}

fn method(text: &str) -> Result<Option<Method>, Invalid> {
    if text == "*" {
        return Ok(None);
    }
    let known = Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_uppercase()));
    known
        .map(Some)
        .ok_or_else(|| Invalid::new("method", format!("must be a method in capitals or *, got {text:?}")))
}

fn segments(template: &str) -> Result<Vec<Option<String>>, Invalid> {
    let refuse = |why: &str| Invalid::new("template", format!("{why}: {:?}", redacted_text(template)));
    let path = template.strip_prefix('/').ok_or_else(|| refuse("must begin with /"))?;
    path.split('/')
        .map(|segment| match (segment.strip_prefix('{'), segment.ends_with('}')) {
            (Some(name), true) if name.len() > 1 => Ok(None),
            (None, false) if !segment.contains(['{', '}', '?', '#']) => Ok(Some(segment.to_owned())),
            _ => Err(refuse("has a segment that is neither literal nor {name}")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let url = reqwest::Url::parse(url).unwrap();
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
        let short = |policy: Policy| policy.timeout(TimeoutPolicy::standard().total(Duration::from_secs(1)));
        for (set, expected) in [
            (
                set().host(USERS, short),
                "http://users:3000: timeout.attempt is 3s, longer than timeout.total, 1s",
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
