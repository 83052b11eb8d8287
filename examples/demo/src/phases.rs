//! The story: what is done to user-service, in which order and for how long.

use std::time::Duration;

use serde::Serialize;

use crate::faults::Faults;

/// A chapter of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// user-service is well.
    Healthy,
    /// 30 % of its answers are slow.
    Slow,
    /// It is stopped with `SIGSTOP`: the kernel takes connections, nothing ever answers.
    Hang,
    /// It is killed with `kill -9`: connections are refused.
    Killed,
    /// It has been started again.
    Recovery,
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [Self::Healthy, Self::Slow, Self::Hang, Self::Killed, Self::Recovery];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow 30 %",
            Self::Hang => "hang",
            Self::Killed => "kill -9",
            Self::Recovery => "recovery",
        }
    }
}

/// What [`Phase::Slow`] switches on.
pub(crate) const SLOW: Faults = Faults { slow_share: 0.3, delay_ms: 2000 };

/// How long each phase takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) healthy: Duration,
    pub(crate) slow: Duration,
    pub(crate) hang: Duration,
    pub(crate) killed: Duration,
    /// Recovery lasts at least this long...
    pub(crate) recovery: Duration,
    /// ...and, until every pending order is resolved, at most this long.
    pub(crate) recovery_limit: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self::seconds([15, 15, 20, 15, 10, 30]);
    pub(crate) const QUICK: Self = Self::seconds([4, 4, 6, 3, 2, 8]);

    const fn seconds([healthy, slow, hang, killed, recovery, recovery_limit]: [u64; 6]) -> Self {
        Self {
            healthy: Duration::from_secs(healthy),
            slow: Duration::from_secs(slow),
            hang: Duration::from_secs(hang),
            killed: Duration::from_secs(killed),
            recovery: Duration::from_secs(recovery),
            recovery_limit: Duration::from_secs(recovery_limit),
        }
    }

    /// The longest the story can take.
    pub(crate) fn limit(&self) -> Duration {
        self.healthy + self.slow + self.hang + self.killed + self.recovery_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plans_keep_their_promises() {
        assert!(Plan::FULL.limit() < Duration::from_secs(110), "under two minutes, start and audit included");
        assert!(Plan::QUICK.limit() < Duration::from_secs(27), "under half a minute, start and audit included");
    }
}
