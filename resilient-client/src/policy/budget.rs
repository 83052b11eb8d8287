//! Retry budget: bound what retries add to an upstream's load, however many calls fail at once.
//!
//! A limit per call doesn't bound the whole: when everything fails, four attempts each make four
//! times the traffic, and the upstream that was merely slow stays down. A budget ties extra
//! attempts to success. Calls that succeed at the first try pay in, extra attempts (retries and
//! hedges alike) draw out, and when it is empty calls end with the result they have. (Finagle's
//! `RetryBudget` has the idea; there every request pays in, which keeps paying during an outage.)
//!
//! - It holds at most [`capacity`](BudgetPolicy::capacity) tokens and starts with
//!   [`initial`](BudgetPolicy::initial).
//! - A first-try success deposits a fraction of a token; an extra attempt withdraws one; an extra
//!   attempt that succeeds gets its token back.
//! - Exact under any concurrency: withdrawals never exceed `initial + deposits * ratio + refunds`.
//!
//! The unit is a millionth of a token. A ratio is rounded down to it, so rounding never grants an
//! attempt. The bucket itself is the one that hedging's [`Cap`](super::hedge::Cap) is made of, too.
//!
//! One caveat: a deposit at capacity is lost. A long quiet spell can't save up for a storm.
//!
//! ```
//! use resilient_client::policy::budget::{Budget, BudgetPolicy};
//!
//! let budget = Budget::new(BudgetPolicy::standard().initial(0).compile()?);
//! assert!(budget.try_withdraw().is_none());
//! for _ in 0..4 {
//!     budget.deposit();
//! }
//! assert!(budget.try_withdraw().is_some());
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

use super::token_bucket::{Era, Limit, MOST_TOKENS, TOKEN, TokenBucket, Tokens, rounded_down};
use crate::invalid::Invalid;
use crate::invalid::{count, rate};

/// How much retrying and hedging an upstream's successes pay for. Plain data:
/// [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BudgetPolicy {
    pub(crate) capacity: u32,
    pub(crate) initial: u32,
    pub(crate) deposit_per_success: f64,
}

impl BudgetPolicy {
    /// Capacity 100, 10 to begin with, 0.25 for each first-try success: at most a quarter more load
    /// in the long run.
    pub const fn standard() -> Self {
        Self { capacity: 100, initial: 10, deposit_per_success: 0.25 }
    }

    /// The most it holds, in tokens: 1 to 1,000,000. Also the largest burst of extra attempts.
    /// Default 100.
    pub const fn capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// What it starts with, in tokens: at most the capacity. Default 10.
    pub const fn initial(mut self, tokens: u32) -> Self {
        self.initial = tokens;
        self
    }

    /// What a first-try success pays in, in tokens: at most 1, at least 0.000001, rounded down to
    /// six places. Default 0.25.
    pub const fn deposit_per_success(mut self, tokens: f64) -> Self {
        self.deposit_per_success = tokens;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter, or
    /// when `initial` exceeds `capacity`.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let capacity = count("budget.capacity", self.capacity, 1, MOST_TOKENS)?;
        if self.initial > capacity {
            let problem = format!("must be at most budget.capacity ({capacity}), got {}", self.initial);
            return Err(Invalid::new("budget.initial", problem));
        }
        let deposit_per_success = rounded_down(rate("budget.deposit_per_success", self.deposit_per_success)?);
        if deposit_per_success == 0 {
            let problem = format!(
                "must be at least a millionth of a token (0.000001), got {}",
                self.deposit_per_success
            );
            return Err(Invalid::new("budget.deposit_per_success", problem));
        }
        Ok(Rules(Tokens {
            capacity: u64::from(capacity) * TOKEN,
            initial: u64::from(self.initial) * TOKEN,
            deposit: deposit_per_success,
        }))
    }
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Checked settings. Made by [`BudgetPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(Tokens);

/// The right to one extra attempt, taken from a [`Budget`].
///
/// Dropped, it is spent. Only what was taken can be given back, and only to the limit it was taken
/// from: an attempt that set out while the budget had no limit, or before it last had none, brings
/// nothing into one that has been given since.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping a token spends it"]
pub struct Token(Era);

/// A retry budget, shared by every call to one upstream.
///
/// Every balance check and change is one atomic step on one word, so tokens are neither lost nor
/// spent twice.
#[derive(Debug)]
pub struct Budget {
    bucket: TokenBucket,
}

impl Budget {
    /// A budget holding its initial tokens.
    pub fn new(rules: Rules) -> Self {
        Self { bucket: TokenBucket::new(Limit::Tokens(rules.0)) }
    }

    /// A budget that grants everything.
    pub fn unlimited() -> Self {
        Self { bucket: TokenBucket::new(Limit::Unlimited) }
    }

    /// Changes the rules and keeps the balance, as far as the new capacity allows; `None` lifts the
    /// limit. A budget that was unlimited starts with its initial tokens.
    pub fn set_rules(&self, rules: Option<Rules>) {
        self.bucket.set_limit(rules.map_or(Limit::Unlimited, |rules| Limit::Tokens(rules.0)));
    }

    /// Pays in for a call that succeeded at the first try.
    pub fn deposit(&self) {
        self.bucket.deposit();
    }

    /// Takes one token for an extra attempt; `None`, and nothing taken, when less than one is left.
    pub fn try_withdraw(&self) -> Option<Token> {
        self.bucket.try_withdraw().map(Token)
    }

    /// Gives back the token of an extra attempt that succeeded or never set out.
    #[allow(clippy::needless_pass_by_value, reason = "a token is given back once")]
    pub fn refund(&self, token: Token) {
        self.bucket.refund(token.0);
    }

    /// Tokens left; infinite when unlimited.
    pub fn available(&self) -> f64 {
        self.bucket.available()
    }

    /// The most tokens it holds; infinite when unlimited.
    pub fn capacity(&self) -> f64 {
        self.bucket.most()
    }
}

#[cfg(all(test, not(resilient_loom)))]
mod arithmetic;
#[cfg(test)]
#[allow(clippy::float_cmp, reason = "balances are whole millionths")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(capacity: u32, initial: u32, deposit: f64) -> Budget {
        Budget::new(rules(capacity, initial, deposit))
    }

    fn rules(capacity: u32, initial: u32, deposit: f64) -> Rules {
        BudgetPolicy::standard()
            .capacity(capacity)
            .initial(initial)
            .deposit_per_success(deposit)
            .compile()
            .unwrap()
    }

    fn withdraw(budget: &Budget) -> bool {
        budget.try_withdraw().is_some()
    }

    fn refund(budget: &Budget) {
        budget.refund(Token(budget.bucket.era()));
    }

    fn withdraw_all(budget: &Budget) -> usize {
        std::iter::repeat_with(|| withdraw(budget)).take_while(|granted| *granted).count()
    }

    #[test]
    fn the_standard_budget_starts_with_ten_and_gains_one_for_four_successes() {
        let budget = Budget::new(BudgetPolicy::standard().compile().unwrap());
        assert_eq!(withdraw_all(&budget), 10);
        for _ in 0..3 {
            budget.deposit();
        }
        assert_eq!(withdraw_all(&budget), 0);
        budget.deposit();
        assert_eq!(withdraw_all(&budget), 1);
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let budget = budget(3, 3, 1.0);
        for _ in 0..10 {
            budget.deposit();
            refund(&budget);
        }
        assert_eq!(withdraw_all(&budget), 3);
    }

    #[test]
    fn what_overflowed_does_not_come_back_with_a_larger_capacity() {
        let budget = budget(1, 0, 0.7);
        budget.deposit();
        budget.deposit();
        budget.set_rules(Some(rules(10, 0, 0.7)));
        assert_eq!(budget.available(), 1.0);
    }

    /// The peer's bug: 1000 deposits at a ratio of 0.6 granted 1000 retries.
    #[test]
    fn a_thousand_deposits_at_each_ratio_grant_exactly_that_share() {
        for percent in 1..=100_u32 {
            let budget = budget(100_000, 0, f64::from(percent) / 100.0);
            for _ in 0..1000 {
                budget.deposit();
            }
            assert_eq!(withdraw_all(&budget), percent as usize * 10, "{percent} %");
        }
    }

    #[test]
    fn every_ratio_of_six_places_is_kept_exactly() {
        for units in 1..=TOKEN {
            assert_eq!(rounded_down(units as f64 / TOKEN as f64), units);
        }
    }

    #[test]
    fn without_a_limit_everything_is_granted() {
        let budget = Budget::unlimited();
        assert!((0..1000).all(|_| withdraw(&budget)));
        assert_eq!(budget.available(), f64::INFINITY);
    }

    #[test]
    fn new_rules_keep_the_balance_as_far_as_it_fits() {
        let budget = budget(100, 50, 0.5);
        budget.set_rules(Some(rules(200, 0, 0.1)));
        assert_eq!(budget.available(), 50.0);
        budget.set_rules(Some(rules(20, 0, 0.1)));
        assert_eq!(budget.available(), 20.0);
        budget.set_rules(Some(rules(200, 0, 0.1)));
        assert_eq!(budget.available(), 20.0, "what didn't fit is gone");
        budget.deposit();
        assert_eq!(budget.available(), 20.1);
        budget.set_rules(None);
        assert_eq!(budget.available(), f64::INFINITY);
        budget.set_rules(Some(rules(100, 7, 0.5)));
        assert_eq!(budget.available(), 7.0);
    }

    /// A reload that set a limit let every attempt in flight mint a token with its success.
    #[test]
    fn what_was_granted_without_a_limit_brings_nothing_into_one() {
        let budget = Budget::unlimited();
        let token = budget.try_withdraw().unwrap();
        budget.set_rules(Some(rules(100, 7, 0.5)));
        budget.refund(token);
        assert_eq!(budget.available(), 7.0);
        let token = budget.try_withdraw().unwrap();
        budget.refund(token);
        assert_eq!(budget.available(), 7.0);
    }

    /// It minted one: limited, unlimited, limited again, and the attempt of the first succeeded in
    /// the third.
    #[test]
    fn what_was_taken_before_there_was_no_limit_brings_nothing_into_the_next_one() {
        let budget = budget(100, 7, 0.5);
        let token = budget.try_withdraw().unwrap();
        budget.set_rules(None);
        budget.set_rules(Some(rules(100, 3, 0.5)));
        budget.refund(token);
        assert_eq!(budget.available(), 3.0);
        // One that was taken under the limit in force comes back, also after its numbers have
        // changed.
        let token = budget.try_withdraw().unwrap();
        budget.set_rules(Some(rules(1_000_000, 3, 1.0)));
        budget.refund(token);
        assert_eq!(budget.available(), 3.0);
    }

    #[test]
    fn eras_wrap_without_touching_the_balance() {
        let budget = budget(1_000_000, 1_000_000, 1.0);
        budget.bucket.skip_to_the_last_era();
        assert_eq!(budget.available(), 1e6);
        budget.set_rules(None);
        budget.set_rules(Some(rules(10, 4, 1.0)));
        assert_eq!(budget.available(), 4.0);
        budget.deposit();
        assert_eq!(budget.available(), 5.0);
    }

    #[test]
    fn refuses_what_cannot_work_and_names_the_numbers() {
        let standard = BudgetPolicy::standard;
        for (policy, message) in [
            (standard().capacity(0), "budget.capacity must be between 1 and 1000000, got 0"),
            (standard().capacity(1_000_001), "budget.capacity must be between 1 and 1000000, got 1000001"),
            (standard().initial(101), "budget.initial must be at most budget.capacity (100), got 101"),
            (
                standard().deposit_per_success(0.0),
                "budget.deposit_per_success must be above 0 and at most 1, got 0",
            ),
            (
                standard().deposit_per_success(-0.25),
                "budget.deposit_per_success must be above 0 and at most 1, got -0.25",
            ),
            (
                standard().deposit_per_success(1.5),
                "budget.deposit_per_success must be above 0 and at most 1, got 1.5",
            ),
            (
                standard().deposit_per_success(f64::NAN),
                "budget.deposit_per_success must be above 0 and at most 1, got NaN",
            ),
            (
                standard().deposit_per_success(0.000_000_9),
                "budget.deposit_per_success must be at least a millionth of a token (0.000001), got 0.0000009",
            ),
        ] {
            assert_eq!(policy.compile().unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn a_ratio_is_rounded_down_by_less_than_a_millionth(ratio in 0.000_001..=1.0) {
            let units = rounded_down(ratio) as f64;
            prop_assert!(units / 1e6 <= ratio && ratio < (units + 1.0) / 1e6);
        }
    }

    #[cfg(resilient_loom)]
    mod under_loom {
        use loom::sync::Arc;
        use loom::thread;

        use super::*;

        fn beside<T: 'static>(
            budget: &Arc<Budget>,
            act: impl FnOnce(&Budget) -> T + 'static,
        ) -> thread::JoinHandle<T> {
            let budget = Arc::clone(budget);
            thread::spawn(move || act(&budget))
        }

        #[test]
        fn loom_one_token_is_granted_once() {
            loom::model(|| {
                let budget = Arc::new(budget(10, 1, 0.5));
                let others = [(); 2].map(|()| beside(&budget, withdraw));
                let mut granted = usize::from(withdraw(&budget));
                granted += others.map(|other| usize::from(other.join().unwrap())).into_iter().sum::<usize>();
                assert_eq!((granted, budget.available()), (1, 0.0));
            });
        }

        #[test]
        fn loom_tokens_are_conserved() {
            loom::model(|| {
                let budget = Arc::new(budget(10, 1, 0.5));
                let withdrawing = beside(&budget, withdraw);
                let depositing = beside(&budget, Budget::deposit);
                refund(&budget);
                let granted = f64::from(u8::from(withdrawing.join().unwrap()));
                depositing.join().unwrap();
                assert_eq!(budget.available() + granted, 2.5);
            });
        }

        #[test]
        fn loom_it_never_holds_more_than_its_capacity_whatever_changes_meanwhile() {
            loom::model(|| {
                let budget = Arc::new(budget(4, 3, 1.0));
                let refunding = beside(&budget, refund);
                budget.set_rules(Some(rules(2, 0, 1.0)));
                assert!(budget.available() <= 2.0);
                refunding.join().unwrap();
                assert_eq!(withdraw_all(&budget), 2);
            });
        }
    }
}
