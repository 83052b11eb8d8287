//! The policies in force, and what others would change.

use crate::policy::PolicySet;
use crate::time::Tick;

#[derive(Debug)]
pub(super) struct Versioned {
    pub(super) set: PolicySet,
    pub(super) version: u64,
    /// Since when it is in force.
    pub(super) since: Tick,
}

impl Versioned {
    /// What a reload to `set` changes.
    pub(super) fn compared(&self, set: &PolicySet) -> Reloaded {
        let changes = self.set.differences(set);
        let pools = |whose: String| format!("{whose}: timeout.connect belongs to the connection pool");
        Reloaded {
            version: self.version + u64::from(!changes.is_empty()),
            changes,
            not_applied: self.set.connects_otherwise(set).into_iter().map(pools).collect(),
        }
    }
}

/// What a [reload](crate::Client::reload) changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// The version calls report from now on.
    pub version: u64,
    /// Which policies differ from before, as `whose: which`, such as `client: retry` or
    /// `http://users:3000: breaker`.
    pub changes: Vec<String>,
    /// What differs and can't take effect in a client that is built, such as its connect timeout.
    pub not_applied: Vec<String>,
}
