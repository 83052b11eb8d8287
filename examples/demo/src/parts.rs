//! What protects the resilient order-service, part by part, and how each is switched off: a check
//! that stays green without the part that it is about shows nothing.

use clap::ValueEnum;
use resilient_client::Policy;
use resilient_client::policy::timeout::TimeoutPolicy;
use serde::Serialize;

/// One of the things that protect the resilient order-service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// The circuit breaker
    Breaker,
    /// Further attempts after a failed one
    Retries,
    /// The limit on further attempts
    Budget,
    /// The limits on attempts in flight: bulkhead and overload limit
    Limits,
    /// Of the call, its attempts and their connections
    Timeouts,
    /// A second attempt beside one that is late
    Hedging,
    /// The 202 for an order whose customer can't be verified now
    Fallback,
    /// Whether a 200 or 404 is user-service's own
    AnswerCheck,
    /// The copy of users that follows their events
    Copy,
    /// That services tell each other how long they wait
    Deadlines,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Retries => "retries",
            Self::Budget => "budget",
            Self::Limits => "limits",
            Self::Timeouts => "timeouts",
            Self::Hedging => "hedging",
            Self::Fallback => "fallback",
            Self::AnswerCheck => "answer-check",
            Self::Copy => "copy",
            Self::Deadlines => "deadlines",
        }
    }

    /// The policy without this part. The last ones aren't in a policy: they are order-service's
    /// own, or the client builder's.
    fn removed_from(self, policy: Policy) -> Policy {
        match self {
            Self::Breaker => policy.breaker(None),
            Self::Retries => policy.retry(None),
            Self::Budget => policy.budget(None),
            Self::Limits => policy.bulkhead(None).overload(None),
            Self::Timeouts => policy.timeout(TimeoutPolicy::none()),
            Self::Hedging => policy.hedge(None),
            Self::Fallback | Self::AnswerCheck | Self::Copy | Self::Deadlines => policy,
        }
    }
}

/// What the resilient order-service has to do without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Without {
    /// Every policy of the client: `Policy::none()`.
    pub(crate) unprotected: bool,
    pub(crate) parts: Vec<Part>,
}

impl Without {
    pub(crate) fn has(&self, part: Part) -> bool {
        !self.parts.contains(&part)
    }

    pub(crate) fn adjust(&self, policy: Policy) -> Policy {
        if self.unprotected {
            return Policy::none();
        }
        self.parts.iter().fold(policy, |policy, part| part.removed_from(policy))
    }

    /// In words; `None` when nothing is missing.
    pub(crate) fn told(&self) -> Option<String> {
        let names: Vec<_> = self
            .unprotected
            .then_some("any policy (--unprotected)")
            .into_iter()
            .chain(self.parts.iter().map(|part| part.name()))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_called_on_the_command_line_what_it_is_called_in_the_report() {
        for part in Part::value_variants() {
            let value = part.to_possible_value().expect("none is hidden");
            assert_eq!(value.get_name(), part.name());
        }
    }

    #[test]
    fn every_part_of_the_client_can_be_switched_off_and_what_is_left_still_works() {
        use resilient_client::policy::hedge::HedgePolicy;
        let whole = || Policy::standard().hedge(HedgePolicy::standard());
        for part in Part::value_variants() {
            let policy = Without { unprotected: false, parts: vec![*part] }.adjust(whole());
            policy.check().unwrap_or_else(|invalid| panic!("{}: {invalid}", part.name()));
            let same = policy == whole();
            assert_eq!(
                same,
                matches!(part, Part::Fallback | Part::AnswerCheck | Part::Copy | Part::Deadlines),
                "{}",
                part.name()
            );
        }
        assert_eq!(Without { unprotected: true, parts: vec![] }.adjust(whole()), Policy::none());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Without::default().told(), None);
        let without = Without { unprotected: false, parts: vec![Part::Breaker, Part::Limits] };
        assert_eq!(without.told().as_deref(), Some("breaker, limits"));
        assert!(!without.has(Part::Breaker) && without.has(Part::Hedging));
    }
}
