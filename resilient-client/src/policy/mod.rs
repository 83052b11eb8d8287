//! What you ask for, and the pure machines that do it.
//!
//! Every policy is one small room with the same furniture: `XxxPolicy` is plain data you fill in,
//! `XxxPolicy::compile` checks it and returns its `Rules` (validated, in nanoseconds and integer
//! units), and the machine, named `Xxx`, is built from `Rules` only, so a machine with impossible
//! settings can't exist.
//!
//! [`Policy`] is the set of them.
//!
//! # The order in which they act
//!
//! It is fixed, so there is none to get wrong. A call has its deadline; its ledger (retry, hedge,
//! budget) decides when an attempt sets out. Each attempt then has to pass, in this order:
//!
//! 1. the addresses behind its name, where they have to be looked up
//! 2. a pause the server asked for (`Retry-After`)
//! 3. the client throttle
//! 4. the rate limit
//! 5. the bulkhead, or the adaptive limit in its place
//! 6. the overload limit and the circuit breaker; of several endpoints one is chosen here, and they
//!    are the endpoint's own
//!
//! The breaker is last, so that nothing that may still be refused uses up a probe. What an attempt
//! took on the way goes back when something further on refuses it, and 2 is asked again after each
//! wait. Then the attempt timeout runs.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::{Policy, breaker::BreakerPolicy, retry::RetryPolicy, timeout::TimeoutPolicy};
//!
//! let policy = Policy::standard()
//!     .timeout(TimeoutPolicy::standard().total(Duration::from_secs(2)).attempt(Duration::from_millis(500)))
//!     .retry(RetryPolicy::standard().max_attempts(3))
//!     .breaker(BreakerPolicy::standard().open_for(Duration::from_millis(500)))
//!     .bulkhead(None);
//! assert!(policy.check().is_ok());
//! ```

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod bulkhead;
pub mod concurrency;
#[cfg(feature = "config")]
pub(crate) mod config;
pub(crate) mod grant;
pub mod hedge;
pub(crate) mod latency;
pub mod overload;
pub(crate) mod plan;
pub mod priority;
pub mod rate_limit;
pub mod retry;
pub(crate) mod route;
pub(crate) mod set;
pub mod throttle;
pub mod timeout;
mod token_bucket;

pub use crate::invalid::Invalid;
pub use set::PolicySet;

use balance::BalancePolicy;
use breaker::BreakerPolicy;
use budget::BudgetPolicy;
use bulkhead::BulkheadPolicy;
use concurrency::ConcurrencyPolicy;
use hedge::HedgePolicy;
use overload::OverloadPolicy;
use priority::Priority;
use rate_limit::RateLimitPolicy;
use retry::RetryPolicy;
use throttle::ThrottlePolicy;
use timeout::TimeoutPolicy;

use crate::outcome::classify::{Classifier, Classify};

/// What a client does for every call. Plain data: checked when the client is built.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(crate) timeout: TimeoutPolicy,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) budget: Option<BudgetPolicy>,
    pub(crate) breaker: Option<BreakerPolicy>,
    pub(crate) bulkhead: Option<BulkheadPolicy>,
    pub(crate) hedge: Option<HedgePolicy>,
    pub(crate) rate_limit: Option<RateLimitPolicy>,
    pub(crate) throttle: Option<ThrottlePolicy>,
    pub(crate) concurrency: Option<ConcurrencyPolicy>,
    pub(crate) overload: Option<OverloadPolicy>,
    pub(crate) balance: BalancePolicy,
    pub(crate) priority: Priority,
    pub(crate) classifier: Option<Classifier>,
}

impl Policy {
    /// Safe for calls between services with no tuning: timeouts, retries, a budget, a breaker, a
    /// bulkhead and the overload limit, each with its standard settings. Hedging, rate limit,
    /// throttle and adaptive limit are off.
    pub fn standard() -> Self {
        Self {
            timeout: TimeoutPolicy::standard(),
            retry: Some(RetryPolicy::standard()),
            budget: Some(BudgetPolicy::standard()),
            breaker: Some(BreakerPolicy::standard()),
            bulkhead: Some(BulkheadPolicy::standard()),
            hedge: None,
            rate_limit: None,
            throttle: None,
            concurrency: None,
            overload: Some(OverloadPolicy::standard()),
            balance: BalancePolicy::standard(),
            priority: Priority::Normal,
            classifier: None,
        }
    }

    /// A passthrough: one attempt, no bounds. Calls are still reported.
    pub fn none() -> Self {
        Self {
            timeout: TimeoutPolicy::none(),
            retry: None,
            budget: None,
            breaker: None,
            bulkhead: None,
            hedge: None,
            rate_limit: None,
            throttle: None,
            concurrency: None,
            overload: None,
            balance: BalancePolicy::standard(),
            priority: Priority::Normal,
            classifier: None,
        }
    }

    /// How long things may take.
    #[must_use]
    pub fn timeout(mut self, timeout: TimeoutPolicy) -> Self {
        self.timeout = timeout;
        self
    }

    /// When another attempt follows a failed one; `None` for never.
    #[must_use]
    pub fn retry(mut self, retry: impl Into<Option<RetryPolicy>>) -> Self {
        self.retry = retry.into();
        self
    }

    /// How many extra attempts an upstream gets; `None` for no limit, which invites retry storms.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<BudgetPolicy>>) -> Self {
        self.budget = budget.into();
        self
    }

    /// When calls to an upstream stop for a while; `None` for never.
    #[must_use]
    pub fn breaker(mut self, breaker: impl Into<Option<BreakerPolicy>>) -> Self {
        self.breaker = breaker.into();
        self
    }

    /// How many attempts an upstream may have in flight; `None` for no limit.
    #[must_use]
    pub fn bulkhead(mut self, bulkhead: impl Into<Option<BulkheadPolicy>>) -> Self {
        self.bulkhead = bulkhead.into();
        self
    }

    /// When another attempt is sent beside one that is late; `None`, the default, for never. Only
    /// for requests that are safe to repeat and can be sent twice.
    #[must_use]
    pub fn hedge(mut self, hedge: impl Into<Option<HedgePolicy>>) -> Self {
        self.hedge = hedge.into();
        self
    }

    /// How many attempts an upstream gets in how much time; `None`, the default, for no limit. It
    /// is the host's, shared by its routes and keys, but for a route whose own policy sets another:
    /// that one has it in place of the host's.
    #[must_use]
    pub fn rate_limit(mut self, rate_limit: impl Into<Option<RateLimitPolicy>>) -> Self {
        self.rate_limit = rate_limit.into();
        self
    }

    /// Whether attempts are held back here that an overloaded upstream would refuse; `None`, the
    /// default, for never. Like the rate limit it is the host's.
    #[must_use]
    pub fn throttle(mut self, throttle: impl Into<Option<ThrottlePolicy>>) -> Self {
        self.throttle = throttle.into();
        self
    }

    /// How many attempts an upstream may have in flight, found out while they are made; `None`, the
    /// default, for what the bulkhead says. It replaces the bulkhead's number; the bulkhead's queue
    /// stays. Like the rate limit it is the host's, and so are the places it limits: those of a
    /// route or key are then no longer counted apart.
    #[must_use]
    pub fn concurrency(mut self, concurrency: impl Into<Option<ConcurrencyPolicy>>) -> Self {
        self.concurrency = concurrency.into();
        self
    }

    /// Whether attempts are held back that an overloaded upstream would answer too late; `None` for
    /// never. It needs an attempt timeout: without one there is no limit. Like the rate limit it is
    /// the host's; with several endpoints it belongs to each of them, by the host's policy.
    #[must_use]
    pub fn overload(mut self, overload: impl Into<Option<OverloadPolicy>>) -> Self {
        self.overload = overload.into();
        self
    }

    /// Which of several endpoints behind one name takes an attempt; see
    /// [`endpoints`](crate::endpoints). A host's policy decides; a route's has no say in it.
    #[must_use]
    pub fn balance(mut self, balance: BalancePolicy) -> Self {
        self.balance = balance;
        self
    }

    /// What the calls are worth where not all can be served, unless a call
    /// [says otherwise](crate::CallOptions::priority). Default [`Priority::Normal`].
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// What counts as a failure and what is tried again, in place of the
    /// [standard table](crate::outcome::classify).
    #[must_use]
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.classifier = Some(Classifier::new(classify));
        self
    }

    /// Whether this policy can work; the error names the setting and every number involved.
    pub fn check(&self) -> Result<(), Invalid> {
        self.compile(0).map(drop)
    }

    /// Each policy by name, whether the live state that calls share follows it, and whether the
    /// other's differs. The one list there is: a policy that it lacks doesn't compile.
    fn compared(&self, other: &Self) -> [(&'static str, bool, bool); 13] {
        let Self {
            timeout,
            retry,
            budget,
            breaker,
            bulkhead,
            hedge,
            rate_limit,
            throttle,
            concurrency,
            overload,
            balance,
            priority,
            classifier,
        } = self;
        [
            ("timeout", false, *timeout != other.timeout),
            ("retry", false, *retry != other.retry),
            ("budget", true, *budget != other.budget),
            ("breaker", true, *breaker != other.breaker),
            ("bulkhead", true, *bulkhead != other.bulkhead),
            ("hedge", true, *hedge != other.hedge),
            ("rate_limit", true, *rate_limit != other.rate_limit),
            ("throttle", true, *throttle != other.throttle),
            ("concurrency", true, *concurrency != other.concurrency),
            ("overload", true, *overload != other.overload),
            // A host's policy decides it, never a route's, of which this is asked.
            ("balance", false, *balance != other.balance),
            ("priority", false, *priority != other.priority),
            ("classifier", false, *classifier != other.classifier),
        ]
    }

    /// Whether the live state that calls share would follow other rules.
    fn state_differs(&self, other: &Self) -> bool {
        self.compared(other).iter().any(|(_, shared, differs)| *shared && *differs)
    }

    /// Which policies differ, as `whose: which`.
    fn differences(&self, other: &Self, whose: &str) -> Vec<String> {
        self.names_of_differences(other).into_iter().map(|which| format!("{whose}: {which}")).collect()
    }

    fn names_of_differences(&self, other: &Self) -> Vec<&'static str> {
        let differ = self.compared(other).into_iter().filter(|(.., differs)| *differs);
        differ.map(|(which, ..)| which).collect()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::standard()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_presets_can_work() {
        Policy::standard().check().unwrap();
        Policy::none().check().unwrap();
    }

    #[test]
    fn what_stands_in_for_the_standard_rules_is_them() {
        assert_eq!(BalancePolicy::standard().compile().unwrap(), balance::Rules::STANDARD);
    }

    #[test]
    fn a_window_shorter_than_two_attempts_is_refused_naming_both_numbers() {
        let policy = Policy::standard().breaker(BreakerPolicy::standard().window(Duration::from_secs(5)));
        let message = policy.check().unwrap_err().to_string();
        assert!(
            message.starts_with("breaker.window is 5s, shorter than twice timeout.attempt, 3s"),
            "{message}"
        );
    }
}
