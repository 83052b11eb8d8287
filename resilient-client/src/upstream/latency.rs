//! How long attempts take at an upstream, for those who decide by it.

use super::Upstream;
use crate::policy::hedge;
use crate::time::Tick;

impl Upstream {
    /// How long half of the recent attempts took at most, in nanoseconds; `None` while too little
    /// is known.
    pub(crate) fn usual(&self, now: Tick) -> Option<u64> {
        self.latency.median(now)
    }

    /// The same by what little is known: the shortest of them, where there are too few for a
    /// median.
    pub(crate) fn usual_or_shortest(&self, now: Tick) -> Option<u64> {
        self.usual(now).or_else(|| self.latency.shortest(now))
    }

    /// How long an attempt may be out before a hedge follows, in nanoseconds. Asked once a call,
    /// which pays its share into the cap.
    pub(crate) fn hedge_after(&self, rules: hedge::Rules, now: Tick) -> Option<u64> {
        self.hedges.deposit();
        rules.delay(&self.latency, now)
    }
}
