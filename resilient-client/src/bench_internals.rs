//! What the benches time alone and the API shows only as a part of a whole call. No promise is made
//! about any of it.

use std::sync::Arc;

use crate::authority::Authority;
use crate::authority::key::{Key, Scope};
use crate::invalid::Invalid;
use crate::policy::Policy;
use crate::policy::plan::Plan;
use crate::rng::Entropy;
use crate::telemetry::Events;
use crate::time::{self, Tick};
use crate::upstream::entered::Entered;
use crate::upstream::registry::{Registry, Source};
use crate::upstream::{Upstream, Whole};

/// A client's table of upstreams, and how a call finds its own in it.
#[derive(Debug)]
pub struct Lookup {
    registry: Registry,
    authorities: Vec<Authority<'static>>,
    plan: Plan,
    now: Tick,
}

impl Lookup {
    /// One upstream for each of `uris`, all of which the table has room for.
    ///
    /// # Errors
    /// The policy's, if a setting can't work.
    pub fn new(policy: &Policy, uris: &[http::Uri]) -> Result<Self, Invalid> {
        let (plan, now) = (policy.compile(0)?, time::now());
        let registry = Registry::new(2 * uris.len(), upstream(Key::overflow(), &plan, now));
        let authorities = uris.iter().map(|uri| Authority::of_uri(uri).into_owned()).collect();
        let lookup = Self { registry, authorities, plan, now };
        for uri in uris {
            lookup.by_uri(uri);
        }
        Ok(lookup)
    }

    /// A call enters the upstream of the `i`-th URI and leaves it.
    pub fn by_authority(&self, i: usize) {
        self.enter_and_leave(&self.authorities[i]);
    }

    /// The same, reading scheme, host and port from `uri` first.
    pub fn by_uri(&self, uri: &http::Uri) {
        self.enter_and_leave(&Authority::of_uri(uri));
    }

    /// How many upstreams are kept apart.
    pub fn upstreams(&self) -> usize {
        self.registry.len()
    }

    fn enter_and_leave(&self, authority: &Authority<'_>) {
        drop(Entered::new(self.registry.enter(authority, None, self.now, self)));
    }
}

impl Source for Lookup {
    fn make(&self, key: Key, _whole: Option<Whole>) -> Upstream {
        upstream(key, &self.plan, self.now)
    }

    fn names(&self, _authority: &Authority<'_>, _scope: Option<Scope<&Arc<str>>>) -> bool {
        false
    }
}

fn upstream(key: Key, plan: &Plan, now: Tick) -> Upstream {
    Upstream::new(key, plan, Entropy::seeded(1), &Events::default(), now)
}
