//! An operator's hand on an upstream's breaker, or an endpoint's.

use super::Upstream;
use super::endpoints::NoSuchEndpoint;
use crate::event::Event;
use crate::origin::Origin;
use crate::policy::breaker;
use crate::time::Tick;

impl Upstream {
    /// The breaker's state and counts.
    pub(crate) fn breaker_snapshot(&self, now: Tick) -> breaker::Snapshot {
        self.breaker.snapshot(now)
    }

    /// Does as an operator says, and tells of it.
    pub(crate) fn control(&self, control: breaker::Control) -> Option<breaker::Transition> {
        let transition = self.breaker.control(control);
        if let Some(transition) = transition {
            self.emit(|| Event::BreakerTransition(transition));
        }
        self.rouse();
        transition
    }

    /// Who waits to be let in looks again.
    fn rouse(&self) {
        self.ready.rouse();
        self.line(self.gate()).wake();
    }

    /// The same with one of its endpoints.
    pub(crate) fn control_endpoint(
        &self,
        origin: &Origin,
        control: breaker::Control,
    ) -> Result<Option<breaker::Transition>, NoSuchEndpoint> {
        let balancer = self.balancer.as_ref().ok_or(NoSuchEndpoint)?;
        let transition = balancer.set().control(origin, control);
        self.rouse();
        transition
    }
}
