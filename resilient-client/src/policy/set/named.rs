//! The policies of hosts and routes, for whoever shows them.

use super::{Host, Policy, PolicySet, Route};

/// Whose policy it is: a host's, or a route's with its method and template.
pub(crate) struct Named<'a> {
    pub(crate) origin: &'a str,
    pub(crate) route: Option<(&'a str, &'a str)>,
    pub(crate) policy: &'a Policy,
    /// The client's for a host, the host's for a route.
    pub(crate) began_from: &'a Policy,
}

impl PolicySet {
    /// The hosts that have a policy of their own.
    pub(crate) fn hosts(&self) -> Vec<Named<'_>> {
        let began_from = &self.base;
        let hosts = self.hosts.iter();
        hosts.map(|Host { origin, policy }| Named { origin, route: None, policy, began_from }).collect()
    }

    /// The routes, in the order in which they are asked.
    pub(crate) fn routes(&self) -> Vec<Named<'_>> {
        let routes = self.routes.iter();
        let named = routes.map(|Route { origin, method, template, policy }| {
            let route = Some((method.as_str(), template.as_str()));
            Named { origin, route, policy, began_from: self.of_origin(origin) }
        });
        named.collect()
    }
}
