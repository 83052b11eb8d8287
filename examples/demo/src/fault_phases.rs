//! The phases of a scenario: what is done to user-service, in which order and for how long.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::faults::Faults;

/// What is wrong with user-service for a while.
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
    /// With replicas: one answers 503 at once.
    OneRefuses,
    /// With replicas: all answers of one are slow.
    OneSlow,
    /// With replicas: one is stopped with `SIGSTOP`.
    OneHangs,
    /// With replicas: one is killed with `kill -9`.
    OneKilled,
}

impl Phase {
    /// In the order of their discriminants, so that `phase as usize` is an index.
    pub(crate) const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Slow,
        Self::Hang,
        Self::Killed,
        Self::Recovery,
        Self::OneRefuses,
        Self::OneSlow,
        Self::OneHangs,
        Self::OneKilled,
    ];
    /// Those of the scenario with one user-service, in its order.
    pub(crate) const OUTAGE: [Self; 5] =
        [Self::Healthy, Self::Slow, Self::Hang, Self::Killed, Self::Recovery];
    /// Those of the scenario with replicas, in its order.
    pub(crate) const REPLICAS: [Self; 6] =
        [Self::Healthy, Self::OneRefuses, Self::OneSlow, Self::OneHangs, Self::OneKilled, Self::Recovery];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow 30%",
            Self::Hang => "hang",
            Self::Killed => "kill -9",
            Self::Recovery => "recovery",
            Self::OneRefuses => "1 refuses",
            Self::OneSlow => "1 slow",
            Self::OneHangs => "1 hangs",
            Self::OneKilled => "1 killed",
        }
    }
}

/// The phase the scenario is in, for whoever wants to know.
#[derive(Default)]
pub(crate) struct CurrentPhase(AtomicU8);

impl CurrentPhase {
    pub(crate) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Phase {
        Phase::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }
}

/// What [`Phase::Slow`] switches on.
pub(crate) const SLOW: Faults = Faults { slow_share: 0.3, delay_ms: 1500, refuse: false };
/// The last part of [`Phase::Slow`], in which calls are quick again: otherwise those still waiting at its end would be
/// caught by the hang and count as lost to slowness.
pub(crate) const SLOW_ENDS: Duration = Duration::from_secs(2);

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
    const FULL: Self = Self::seconds([15, 15, 20, 15, 10, 30]);
    const QUICK: Self = Self::seconds([4, 5, 5, 3, 2, 10]);

    pub(crate) const fn of(quick: bool) -> &'static Self {
        if quick { &Self::QUICK } else { &Self::FULL }
    }

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

    /// The longest the scenario can take.
    pub(crate) fn limit(&self) -> Duration {
        self.healthy + self.slow + self.hang + self.killed + self.recovery_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_its_index() {
        assert!(Phase::ALL.iter().enumerate().all(|(index, phase)| *phase as usize == index));
    }

    #[test]
    fn the_plans_keep_their_promises() {
        assert!(Plan::FULL.limit() < Duration::from_secs(110), "under two minutes, start and audit included");
        assert!(
            Plan::QUICK.limit() < Duration::from_secs(28),
            "under half a minute, start and audit included"
        );
    }
}
