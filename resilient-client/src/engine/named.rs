//! Upstreams as whoever names them means them: code, an operator, or the configuration.

use super::{Core, Upstreams};
use crate::authority::Authority;
use crate::invalid::Invalid;
use crate::policy::set;
use crate::time;
use crate::upstream::entered::Entered;

impl Core {
    /// The upstream of an origin, made if it is new, or of a name as [`snapshot`](Self::snapshot)
    /// has it; kept while this is there.
    pub(crate) fn upstream_named(&self, name: &str) -> Result<Entered, Invalid> {
        let found = match set::origin(name) {
            Ok(authority) => {
                let now = time::now();
                Some(self.registry.enter(&authority, None, now, &Upstreams { core: self, now }))
            }
            Err(_) => self.registry.enter_named(name),
        };
        let unknown = || Invalid::new("upstream", "is no origin and isn't known").of(name);
        let upstream = Entered::new(found.ok_or_else(unknown)?);
        if !upstream.has_place() {
            return Err(Invalid::new("upstream", "has no place: all max_upstreams are busy").of(name));
        }
        Ok(upstream)
    }

    /// The same if it is there, or the configuration names it: none is made for a slip of the pen.
    #[cfg(feature = "admin")]
    pub(crate) fn upstream_known(&self, name: &str) -> Option<Entered> {
        let Ok(authority) = set::origin(name) else {
            return self.registry.enter_named(name).map(Entered::new);
        };
        match self.registry.enter_known(&authority, None) {
            Some(upstream) => Some(Entered::new(upstream)),
            None if self.configures(&authority) => self.upstream_named(name).ok(),
            None => None,
        }
    }

    /// The names that these may have, each once, in order.
    #[cfg(feature = "admin")]
    pub(crate) fn known_names(&self) -> Vec<String> {
        let live = self.snapshot();
        let plans = self.plans.load();
        let configured = self.names.keys().chain(self.defaults.authority()).chain(plans.authorities());
        let configured = configured.map(ToString::to_string);
        let mut known: Vec<_> = live.iter().map(|live| live.name.to_string()).chain(configured).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Whether the configuration names it: as the base of URLs, as several endpoints, or with a
    /// policy of its own.
    pub(super) fn configures(&self, authority: &Authority<'_>) -> bool {
        self.names.contains_key(authority)
            || self.defaults.authority() == Some(authority)
            || self.plans.load().authorities().any(|named| named == authority)
    }
}
