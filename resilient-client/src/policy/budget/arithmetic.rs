//! PROOF E4: what a budget grants was paid in. The checks know nothing of [`Budget`], so that they
//! can be pointed at budgets with a bug, which they must find.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use super::{Budget, BudgetPolicy, TOKEN, Token, rounded_down};

/// A budget, ours or one with a bug.
trait Purse: Sync {
    fn deposit(&self);
    fn refund(&self);
    fn try_withdraw(&self) -> bool;
    /// In millionths of a token.
    fn balance(&self) -> u64;
}

impl Purse for Budget {
    fn deposit(&self) {
        Budget::deposit(self);
    }

    fn refund(&self) {
        Budget::refund(self, Token(self.bucket.era()));
    }

    fn try_withdraw(&self) -> bool {
        Budget::try_withdraw(self).is_some()
    }

    fn balance(&self) -> u64 {
        (self.available() * TOKEN as f64).round() as u64
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Deposit,
    Withdraw,
    Refund,
}

#[derive(Clone, Debug)]
struct Story {
    capacity: u32,
    initial: u32,
    ratio: f64,
    steps: Vec<Step>,
}

fn stories() -> impl Strategy<Value = Story> {
    let ratio = prop_oneof![0.000_001..=1.0, (1_u32..=100).prop_map(|percent| f64::from(percent) / 100.0)];
    let step = prop_oneof![5 => Just(Step::Deposit), 3 => Just(Step::Withdraw), 1 => Just(Step::Refund)];
    (1_u32..50, 0.0..=1.0, ratio, prop::collection::vec(step, 0..600)).prop_map(
        |(capacity, reserve, ratio, steps)| {
            let initial = (f64::from(capacity) * reserve) as u32;
            Story { capacity, initial, ratio, steps }
        },
    )
}

/// The model is the sentence itself: a clamped sum of millionths.
fn keeps_the_books(purse: &impl Purse, story: &Story) -> Result<(), TestCaseError> {
    let full = u64::from(story.capacity) * TOKEN;
    let mut balance = u64::from(story.initial) * TOKEN;
    let (mut granted, mut earned) = (0.0, f64::from(story.initial));
    for step in &story.steps {
        match step {
            Step::Deposit => {
                purse.deposit();
                balance = (balance + rounded_down(story.ratio)).min(full);
                earned += story.ratio;
            }
            Step::Refund => {
                purse.refund();
                balance = (balance + TOKEN).min(full);
                earned += 1.0;
            }
            Step::Withdraw => {
                let expected = balance >= TOKEN;
                prop_assert_eq!(purse.try_withdraw(), expected);
                if expected {
                    balance -= TOKEN;
                    granted += 1.0;
                }
            }
        }
        prop_assert_eq!(purse.balance(), balance);
        prop_assert!(granted <= earned + 1e-9, "{} granted of {}", granted, earned);
        prop_assert!(purse.balance() <= full);
    }
    Ok(())
}

/// Searches for a story in which the purse made from it goes wrong.
fn search<P: Purse>(make: impl Fn(&Story) -> P) -> Result<(), String> {
    // A purse with a bug is no regression to remember.
    let mut runner = TestRunner::new(Config { cases: 1_000, failure_persistence: None, ..Config::default() });
    let found = runner.run(&stories(), |story| keeps_the_books(&make(&story), &story));
    found.map_err(|found| match found {
        TestError::Fail(_, Story { initial, ratio, steps, .. }) => {
            format!("with {initial} at first and {ratio} for a deposit, after {steps:?}")
        }
        TestError::Abort(why) => why.to_string(),
    })
}

/// Eight threads pay in and draw out, some give back: not a millionth may be lost or made. The
/// purse holds 5 tokens, gains 0.3 for a deposit, and never reaches its capacity.
fn conserves_tokens_between_threads(purse: &impl Purse, rounds: u64) -> Result<(), String> {
    const THREADS: u64 = 8;
    let granted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for n in 0..rounds {
                    purse.deposit();
                    if purse.try_withdraw() {
                        granted.fetch_add(1, Ordering::Relaxed);
                        if n % 3 == 0 {
                            granted.fetch_sub(1, Ordering::Relaxed);
                            purse.refund();
                        }
                    }
                }
            });
        }
    });
    let paid_in = 5 * TOKEN + THREADS * rounds * 300_000;
    let accounted_for = granted.into_inner() * TOKEN + purse.balance();
    if accounted_for == paid_in { Ok(()) } else { Err(format!("{accounted_for} of {paid_in}")) }
}

fn ours(capacity: u32, initial: u32, ratio: f64) -> Budget {
    let policy = BudgetPolicy::standard().capacity(capacity).initial(initial).deposit_per_success(ratio);
    Budget::new(policy.compile().unwrap())
}

#[test]
fn grants_what_was_paid_in_and_never_more() {
    search(|story| ours(story.capacity, story.initial, story.ratio)).unwrap();
}

#[test]
fn tokens_are_conserved_between_threads() {
    conserves_tokens_between_threads(&ours(1_000_000, 5, 0.3), 20_000).unwrap();
}

// ---- the controls: budgets with one bug each ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// None: the control of the controls.
    Correct,
    /// A refund at capacity still makes a token.
    MintsOnRefund,
    /// Grants the attempt that would leave it one token in debt.
    OneTooMany,
    /// Refuses the last token.
    OneTooFew,
    /// Its deposit is rounded up to a hundredth.
    RoundsUp,
    /// A refused withdrawal is paid for.
    ChargesForRefusals,
    /// Reads, then writes what it read plus the change.
    LosesUpdates,
}

struct Planted {
    bug: Bug,
    balance: AtomicU64,
    capacity: u64,
    deposit: u64,
}

impl Planted {
    fn new(bug: Bug, story: &Story) -> Self {
        let exact = rounded_down(story.ratio);
        let deposit = if bug == Bug::RoundsUp { exact.div_ceil(10_000) * 10_000 } else { exact };
        let balance = AtomicU64::new(u64::from(story.initial) * TOKEN);
        Self { bug, balance, capacity: u64::from(story.capacity) * TOKEN, deposit }
    }

    fn change(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        if self.bug != Bug::LosesUpdates {
            return self.balance.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).is_ok();
        }
        let Some(next) = change(self.balance.load(Ordering::SeqCst)) else { return false };
        std::thread::yield_now();
        self.balance.store(next, Ordering::SeqCst);
        true
    }
}

impl Purse for Planted {
    fn deposit(&self) {
        self.change(|balance| Some((balance + self.deposit).min(self.capacity)));
    }

    fn refund(&self) {
        let most = if self.bug == Bug::MintsOnRefund { u64::MAX } else { self.capacity };
        self.change(|balance| Some((balance + TOKEN).min(most)));
    }

    fn try_withdraw(&self) -> bool {
        let least = match self.bug {
            Bug::OneTooMany => 1,
            Bug::OneTooFew => TOKEN + 1,
            _ => TOKEN,
        };
        let granted = self.change(|balance| (balance >= least).then(|| balance.saturating_sub(TOKEN)));
        if !granted && self.bug == Bug::ChargesForRefusals {
            self.balance.store(0, Ordering::SeqCst);
        }
        granted
    }

    fn balance(&self) -> u64 {
        self.balance.load(Ordering::SeqCst)
    }
}

#[test]
fn control_each_planted_bug_is_found() {
    use Bug::{ChargesForRefusals, Correct, LosesUpdates, MintsOnRefund, OneTooFew, OneTooMany, RoundsUp};
    for bug in [MintsOnRefund, OneTooMany, OneTooFew, RoundsUp, ChargesForRefusals] {
        let found = search(|story| Planted::new(bug, story)).expect_err("the search must find it");
        println!("E4: {bug:?} found: {found}");
    }
    // One thread at a time, losing updates doesn't show, and neither does no bug at all.
    for bug in [Correct, LosesUpdates] {
        search(|story| Planted::new(bug, story)).unwrap();
    }
}

#[test]
fn control_a_budget_that_loses_updates_between_threads_is_found() {
    let story = Story { capacity: 1_000_000, initial: 5, ratio: 0.3, steps: Vec::new() };
    conserves_tokens_between_threads(&Planted::new(Bug::Correct, &story), 2_000).unwrap();
    let found = conserves_tokens_between_threads(&Planted::new(Bug::LosesUpdates, &story), 2_000);
    println!("E4: lost updates found: {}", found.expect_err("the check must find them"));
}
