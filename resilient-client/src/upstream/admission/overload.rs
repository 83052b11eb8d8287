//! The overload limit's say in admission.

use std::time::Duration;

use super::{Ask, Stuck};
use crate::outcome::rejection::Rejection;
use crate::policy::overload;
use crate::policy::plan::Modes;
use crate::policy::priority::Priority;
use crate::time::Tick;
use crate::upstream::{Part, Upstream};

impl Upstream {
    /// With the breaker open, or each endpoint's, a place would be of no use: the call is turned
    /// away by that.
    pub(super) fn is_of_no_use(&self, ask: &Ask<'_>, now: Tick) -> Option<Stuck> {
        if let Some(retry_after) = self.breaker.rejects_now(now) {
            self.breaker.turn_away();
            return Some(Rejection::CircuitOpen { retry_after }.into());
        }
        let balancer = self.balancer.as_ref().filter(|_| self.is_circuit_open(now))?;
        // One may have come since, or a breaker let somebody in: nobody was asked for that.
        self.choose_endpoint(balancer, ask, now).map(|mut place| place.unsent()).err()
    }

    /// There is no place. With the breaker open none would be of use.
    #[cold]
    pub(super) fn judge_overload(
        &self,
        ask: &Ask<'_>,
        gate: Part,
        full: overload::Full,
        now: Tick,
    ) -> Result<(), Stuck> {
        if let Some(refused) = self.is_of_no_use(ask, now) {
            return Err(refused);
        }
        let overload::Full { limit } = full;
        let rejection = Rejection::Overloaded { limit, waited: Duration::ZERO };
        match self.judge(rejection, Modes::OVERLOAD_OBSERVES) {
            Ok(()) => {
                self.overload(gate).overrun();
                Ok(())
            }
            Err(_) => Err(Stuck::Overloaded(limit)),
        }
    }

    /// Whether the limit is in force: of the upstream or, with several endpoints, of any of them.
    pub(super) fn is_overloaded(&self) -> bool {
        match &self.balancer {
            None => self.overload(self.gate()).limit().is_some(),
            Some(balancer) => balancer.set().is_overloaded(),
        }
    }

    /// Whether the next in line would find a place.
    pub(super) fn has_room(&self, gate: Part, priority: Priority) -> bool {
        match &self.balancer {
            None => self.overload(gate).has_place(priority),
            Some(balancer) => balancer.set().has_place(priority),
        }
    }
}
