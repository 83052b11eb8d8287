//! The policies of hosts and routes, for whoever shows them or asks for one.

#[cfg(feature = "config")]
use super::Host;
use super::{Policy, PolicySet, Route, same_origin};

/// Whose policy it is: a host's, or a route's with its method and template.
#[cfg(feature = "config")]
pub(crate) struct Named<'a> {
    pub(crate) origin: &'a str,
    pub(crate) route: Option<(&'a str, &'a str)>,
    pub(crate) policy: &'a Policy,
    /// The client's for a host, the host's for a route.
    pub(crate) began_from: &'a Policy,
}

impl PolicySet {
    /// The hosts that have a policy of their own.
    #[cfg(feature = "config")]
    pub(crate) fn hosts(&self) -> Vec<Named<'_>> {
        let began_from = &self.base;
        let hosts = self.hosts.iter();
        hosts.map(|Host { origin, policy }| Named { origin, route: None, policy, began_from }).collect()
    }

    /// The routes, in the order in which they are asked.
    #[cfg(feature = "config")]
    pub(crate) fn routes(&self) -> Vec<Named<'_>> {
        let routes = self.routes.iter();
        let named = routes.map(|Route { origin, method, template, policy }| {
            let route = Some((method.as_str(), template.as_str()));
            Named { origin, route, policy, began_from: self.of_origin(origin) }
        });
        named.collect()
    }

    /// The policy that a host was given, however its origin is spelled; `None` for one that goes by
    /// the client's.
    pub fn own(&self, origin: &str) -> Option<&Policy> {
        let host = self.hosts.iter().find(|host| same_origin(&host.origin, origin));
        host.map(|host| &host.policy)
    }

    /// The origins of the hosts that have a policy of their own, as they were named.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| &*host.origin)
    }

    /// The routes that have a policy of their own, in the order in which they are asked:
    /// `GET http://users:3000/users/{id}`.
    pub fn route_names(&self) -> impl Iterator<Item = String> {
        self.routes.iter().map(Route::name)
    }
}
