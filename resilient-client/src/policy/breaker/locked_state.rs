//! What only failures, slow calls, probes and transitions touch: several numbers that must change
//! together.

use crate::outcome::FailureCause;
use crate::policy::breaker::causes::{Causes, SeenFailure};
use crate::policy::breaker::custom_trip::Tripper;
use crate::policy::breaker::pause::Length;
use crate::policy::breaker::rules::{Counted, Numbers};
use crate::policy::breaker::state::Cause;
use crate::policy::breaker::window::Window;
use crate::policy::breaker::window_counts::WindowCounts;
use crate::time::Tick;

/// See [`Breaker::locked`](super::Breaker).
#[derive(Debug)]
pub(super) struct LockedState {
    /// Without any, the state is disabled unless it is forced.
    pub(super) rules: Option<Numbers>,
    /// Decides when to open, in place of most rules.
    pub(super) trip: Option<Box<Tripper>>,
    pub(super) counts: WindowCounts,
    /// Made with the first failure whose cause may be shared.
    pub(super) causes: Option<Box<Causes>>,
    /// Somebody put the breaker in its state, and only that can end it.
    pub(super) forced: bool,
    /// Somebody said that nothing is to be rejected, whatever the rules say.
    pub(super) observed: bool,
    /// Failed recoveries since the breaker was last closed.
    pub(super) reopens: u16,
    /// Probes in a row that decided nothing, or left the next one to find out.
    pub(super) undecided: u16,
    /// The number of the newest probe of this generation.
    pub(super) newest: u16,
    /// Probes of lower numbers had gone alone and not answered for so long that another followed,
    /// whose their slot is.
    pub(super) followed: u16,
    /// Probe slots taken in this generation, by probes under way or successful.
    pub(super) taken: u32,
    pub(super) succeeded: u32,
    /// When the probes under way stop holding their slots.
    pub(super) lease_end: Tick,
}

impl LockedState {
    pub(super) fn new(rules: Option<Numbers>) -> Self {
        Self {
            rules,
            trip: None,
            counts: rules.as_ref().map(WindowCounts::new).unwrap_or_default(),
            causes: None,
            forced: false,
            observed: false,
            reopens: 0,
            undecided: 0,
            newest: 0,
            followed: 0,
            taken: 0,
            succeeded: 0,
            lease_end: Tick::ZERO,
        }
    }

    /// Whether another probe would be one too many: one goes alone until one has succeeded.
    pub(super) fn is_full(&self, rules: &Numbers) -> bool {
        self.taken >= if self.succeeded == 0 { 1 } else { rules.probes }
    }

    /// Probes in a row that brought no success.
    pub(super) fn vain(&self) -> u32 {
        u32::from(self.reopens) + u32::from(self.undecided)
    }

    /// Whether there is a slot for one more probe. A probe that went alone and hasn't answered
    /// loses its slot for that, as long as there are numbers to tell the two apart.
    pub(super) fn makes_room(&mut self, rules: &Numbers, now: Tick) -> bool {
        if !self.is_full(rules) {
            return true;
        }
        let Some(next) = self.newest.checked_add(1) else { return false };
        if self.succeeded != 0 || now >= self.lease_end {
            return false;
        }
        self.taken -= 1;
        self.undecided = self.undecided.saturating_add(1);
        self.followed = next;
        true
    }

    /// Whether a closed breaker opens now that a call has been counted: why, and for how long.
    pub(super) fn opening(
        &mut self,
        rules: &Numbers,
        call: Counted,
        now: Tick,
        unit: &mut dyn FnMut() -> f64,
    ) -> Option<(Cause, Length)> {
        match &mut self.trip {
            Some(trip) if call.failed => trip.failure(now).map(|time| (Cause::Tripped, Length::fixed(time))),
            Some(trip) => {
                trip.success(now);
                None
            }
            None => rules.broken_by(call).map(|cause| {
                let length = rules.pause(self.reopens.into(), unit());
                // It had closed because of heads whose bodies failed then: what that costs is no
                // probe, but all calls until a body fails again.
                let forward = if self.reopens == 0 { length.forward } else { 0 };
                (cause, Length { forward, ..length })
            }),
        }
    }

    /// Whether a failure tells of what has been counted.
    pub(super) fn knows(&mut self, seen: SeenFailure, window: &Window) -> bool {
        if seen.cause == FailureCause::Own {
            return false;
        }
        let successes = || self.counts.totals(window, seen.now).successes;
        self.causes.get_or_insert_default().is_known(seen, successes)
    }

    /// For how long to open after a failed or slow probe.
    pub(super) fn reopening(&mut self, rules: &Numbers, now: Tick, unit: &mut dyn FnMut() -> f64) -> Length {
        self.undecided = 0;
        self.reopens = self.reopens.saturating_add(1);
        let asked = self.trip.as_mut().and_then(|trip| trip.probe_failed(now));
        asked.map_or_else(|| rules.pause(self.reopens.into(), unit()), Length::fixed)
    }
}
