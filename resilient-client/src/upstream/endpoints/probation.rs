//! When an endpoint on probation is asked beside others that are well.
//!
//! The breaker says when a probe may set out, how many of them may, and what they decide. It can't
//! say what a probe risks: while another endpoint serves its calls, one that would be served there.
//! So an endpoint has to be drawn and passed over [`PASSES`] times before, and [`MANY_PASSES`] when
//! the call couldn't be repeated elsewhere or the last probe decided nothing: then at most one call
//! in a hundred is risked, at whatever rate they come. Once a probe has succeeded the others
//! needn't wait.
//!
//! One whose breaker is closed can be passed over as long: too few failures to open it are enough
//! to lose every draw, and nobody would see that they are over until they have decayed. The same
//! rule holds, once it isn't known for answering more slowly than the one it was drawn with: that
//! is forgotten with time.

use crate::policy::breaker::Probing;
use crate::sync::{AtomicU32, Ordering};

/// Draws between two probes that are calls which can be repeated elsewhere.
const PASSES: u32 = 20;
/// Draws between two other probes. Each call draws two endpoints.
const MANY_PASSES: u32 = 200;

/// See the [module docs](self). Shared by every call to one endpoint.
#[derive(Debug, Default)]
pub(super) struct Probation {
    /// Draws that passed it over since it was last taken.
    passed: AtomicU32,
}

impl Probation {
    /// A draw passes it over, or would: whether it has been passed over often enough, though others
    /// serve.
    pub(super) fn is_due(&self, probing: Probing, repeatable: bool) -> bool {
        let passed = self.passed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        match probing {
            Probing::Recovering => true,
            Probing::First if repeatable => passed >= PASSES,
            Probing::First | Probing::Undecided => passed >= MANY_PASSES,
        }
    }

    /// It isn't passed over this time, or what there was to find out is known.
    pub(super) fn taken(&self) {
        self.passed.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_twenty_is_risked_or_in_two_hundred() {
        let probation = Probation::default();
        let draws = |probing, repeatable| {
            let draws = (1..100_000).find(|_| probation.is_due(probing, repeatable)).unwrap();
            probation.taken();
            draws
        };
        assert_eq!(draws(Probing::First, true), 20);
        assert_eq!(draws(Probing::First, false), 200);
        assert_eq!(draws(Probing::Undecided, true), 200, "nor one that might be left");
        assert_eq!(draws(Probing::Recovering, false), 1);
    }
}
