use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn rules(max_share: f64, burst: u32) -> Rules {
    HedgePolicy::standard().max_share(max_share).burst(burst).compile().unwrap()
}

fn cap(max_share: f64, burst: u32) -> Cap {
    Cap::new(rules(max_share, burst))
}

fn withdraw_all(cap: &Cap) -> u64 {
    std::iter::repeat_with(|| cap.try_withdraw()).take_while(|granted| *granted).count() as u64
}

fn digest(sample: u64, samples: usize) -> Digest {
    let digest = Digest::new();
    (0..samples).for_each(|_| digest.record(sample, Tick::ZERO));
    digest
}

// ---- the delay ----

#[test]
fn the_standard_delay_is_twice_the_ninetieth_percentile_and_at_least_ten_milliseconds() {
    let rules = HedgePolicy::standard().compile().unwrap();
    for (sample, expected) in
        [(MS, 10 * MS), (4 * MS, 10 * MS), (50 * MS, 100 * MS), (1_000 * MS, 2_000 * MS)]
    {
        let delay = rules.delay(&digest(sample, 20), Tick::ZERO).unwrap();
        assert!(delay.abs_diff(expected) <= expected * 6 / 100, "{delay} for {sample}");
    }
}

#[test]
fn nothing_is_hedged_while_too_little_is_known() {
    let rules = HedgePolicy::standard().compile().unwrap();
    assert_eq!(rules.delay(&Digest::new(), Tick::ZERO), None);
    assert_eq!(rules.delay(&digest(MS, 19), Tick::ZERO), None);
    let ten_seconds_later = Tick::from_nanos(10_000 * MS);
    assert_eq!(rules.delay(&digest(MS, 1_000), ten_seconds_later), None, "and what was known is forgotten");
}

#[test]
fn a_fixed_delay_needs_no_samples() {
    let policy = HedgePolicy::standard().delay(Delay::Fixed(Duration::from_millis(30)));
    assert_eq!(policy.compile().unwrap().delay(&Digest::new(), Tick::ZERO), Some(30 * MS));
    assert_eq!(policy.max_hedges(3).least_cumulative_delay(), Duration::from_millis(90));
}

#[test]
fn the_longest_sample_and_the_largest_multiplier_do_not_overflow() {
    let delay = Delay::Percentile { quantile: 0.9, multiplier: 100.0, floor: Duration::from_millis(1) };
    let rules = HedgePolicy::standard().delay(delay).compile().unwrap();
    assert!(rules.delay(&digest(u64::MAX, 20), Tick::ZERO).unwrap() > 10_000_000 * MS);
}

#[test]
fn refuses_what_cannot_work_and_names_the_numbers() {
    let standard = HedgePolicy::standard;
    let percentile = |quantile, multiplier, floor| {
        standard().delay(Delay::Percentile { quantile, multiplier, floor: Duration::from_millis(floor) })
    };
    for (policy, message) in [
        (standard().max_share(0.0), "hedge.max_share must be above 0 and at most 1, got 0"),
        (standard().max_share(1.1), "hedge.max_share must be above 0 and at most 1, got 1.1"),
        (standard().max_share(f64::NAN), "hedge.max_share must be above 0 and at most 1, got NaN"),
        (
            standard().max_share(1e-7),
            "hedge.max_share must be at least a millionth (0.000001), got 0.0000001",
        ),
        (standard().burst(0), "hedge.burst must be between 1 and 1000000, got 0"),
        (standard().burst(1_000_001), "hedge.burst must be between 1 and 1000000, got 1000001"),
        (standard().max_hedges(0), "hedge.max_hedges must be between 1 and 4, got 0"),
        (standard().max_hedges(5), "hedge.max_hedges must be between 1 and 4, got 5"),
        (percentile(0.0, 2.0, 10), "hedge.quantile must be between 0.0001 and 0.9999, got 0"),
        (percentile(1.0, 2.0, 10), "hedge.quantile must be between 0.0001 and 0.9999, got 1"),
        (percentile(f64::NAN, 2.0, 10), "hedge.quantile must be between 0.0001 and 0.9999, got NaN"),
        (percentile(0.9, 0.99, 10), "hedge.multiplier must be between 1 and 100, got 0.99"),
        (percentile(0.9, f64::INFINITY, 10), "hedge.multiplier must be between 1 and 100, got inf"),
        (percentile(0.9, 2.0, 0), "hedge.floor must be longer than zero, got 0s"),
    ] {
        assert_eq!(policy.compile().unwrap_err().to_string(), message);
    }
    let absurd = standard().delay(Delay::Fixed(Duration::MAX));
    assert!(absurd.compile().unwrap_err().to_string().contains("at most ten years"));
    assert!(standard().delay(Delay::Fixed(Duration::ZERO)).compile().is_ok(), "all at once is a choice");
}

// ---- the cap ----

#[test]
fn the_standard_cap_grants_five_and_then_seven_in_a_hundred() {
    let cap = Cap::new(HedgePolicy::standard().compile().unwrap());
    assert_eq!(withdraw_all(&cap), 5);
    let granted: u64 = (0..1_000)
        .map(|_| {
            cap.deposit();
            withdraw_all(&cap)
        })
        .sum();
    assert_eq!(granted, 70);
}

#[test]
fn every_share_is_met_exactly() {
    for percent in 1..=100_u32 {
        let cap = cap(f64::from(percent) / 100.0, 1_000);
        withdraw_all(&cap);
        (0..1_000).for_each(|_| cap.deposit());
        assert_eq!(withdraw_all(&cap), u64::from(percent) * 10, "{percent} %");
    }
}

#[test]
fn calls_nobody_hedges_save_up_to_the_burst_and_no_further() {
    let cap = cap(1.0, 3);
    (0..1_000).for_each(|_| cap.deposit());
    cap.refund();
    assert_eq!(withdraw_all(&cap), 3);
}

#[test]
fn a_hedge_that_never_set_out_gives_its_token_back() {
    let cap = cap(0.07, 1);
    assert!(cap.try_withdraw() && !cap.try_withdraw());
    cap.refund();
    assert!(cap.try_withdraw());
}

#[test]
fn a_closed_cap_grants_nothing_until_it_has_rules() {
    let cap = Cap::closed();
    cap.deposit();
    cap.refund();
    assert_eq!(withdraw_all(&cap), 0);
    cap.set_rules(Some(rules(0.07, 4)));
    assert_eq!(withdraw_all(&cap), 4);
    cap.set_rules(None);
    cap.deposit();
    assert_eq!(withdraw_all(&cap), 0);
}

#[test]
fn new_rules_keep_the_balance_as_far_as_the_burst_allows() {
    let cap = cap(0.5, 10);
    assert!(cap.try_withdraw());
    cap.set_rules(Some(rules(0.25, 20)));
    assert!((cap.available() - 9.0).abs() < f64::EPSILON);
    cap.deposit();
    assert!((cap.available() - 9.25).abs() < f64::EPSILON);
    cap.set_rules(Some(rules(0.25, 3)));
    cap.set_rules(Some(rules(0.25, 20)));
    assert_eq!(withdraw_all(&cap), 3, "what didn't fit is gone");
}

#[derive(Clone, Debug)]
enum Step {
    Call,
    Hedge,
    Refund,
    Reload(u32, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Call),
        5 => Just(Step::Hedge),
        1 => Just(Step::Refund),
        1 => (1_u32..=1_000_000, 1_u32..20).prop_map(|(share, burst)| Step::Reload(share, burst)),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// The model: a balance in whole millionths.
    #[test]
    fn behaves_as_the_model_does(share in 1_u32..=1_000_000, burst in 1_u32..20, steps in steps()) {
        let of = |share: u32| f64::from(share) / 1e6;
        let cap = cap(of(share), burst);
        let (mut share, mut burst) = (u64::from(share), u64::from(burst) * TOKEN);
        let mut balance = burst;
        for step in steps {
            match step {
                Step::Call => {
                    cap.deposit();
                    balance = (balance + share).min(burst);
                }
                Step::Refund => {
                    cap.refund();
                    balance = (balance + TOKEN).min(burst);
                }
                Step::Hedge => {
                    prop_assert_eq!(cap.try_withdraw(), balance >= TOKEN);
                    balance = balance.checked_sub(TOKEN).unwrap_or(balance);
                }
                Step::Reload(new_share, new_burst) => {
                    cap.set_rules(Some(rules(of(new_share), new_burst)));
                    (share, burst) = (u64::from(new_share), u64::from(new_burst) * TOKEN);
                    balance = balance.min(burst);
                }
            }
            prop_assert_eq!(cap.bucket.balance(), balance);
        }
    }

    #[test]
    fn hedges_never_exceed_the_burst_and_the_share_of_calls(
        share in 0.000_001..=1.0, burst in 1_u32..20, acts in prop::collection::vec(any::<bool>(), 0..2_000),
    ) {
        let cap = cap(share, burst);
        let (mut calls, mut hedges) = (0_u32, 0_u32);
        for act in acts {
            if act { calls += 1; cap.deposit(); } else { hedges += u32::from(cap.try_withdraw()); }
            prop_assert!(f64::from(hedges) <= f64::from(burst) + share * f64::from(calls) + 1e-9);
        }
    }
}

#[cfg(not(resilient_loom))]
#[test]
fn hedges_are_exact_under_threads() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 20_000;
    let cap = cap(0.3, 5);
    let call = |_| {
        cap.deposit();
        u64::from(cap.try_withdraw())
    };
    let hedges: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| (0..CALLS).map(call).sum::<u64>())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let left = cap.bucket.balance();
    // At most, because a deposit to a full cap is lost: the first few are.
    assert!(hedges * TOKEN + left <= 5 * TOKEN + THREADS * CALLS * 300_000);
    assert!(hedges >= THREADS * CALLS * 3 / 10 - 20, "{hedges}");
}

#[cfg(resilient_loom)]
mod under_loom {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn beside<T: 'static>(cap: &Arc<Cap>, act: impl FnOnce(&Cap) -> T + 'static) -> thread::JoinHandle<T> {
        let cap = Arc::clone(cap);
        thread::spawn(move || act(&cap))
    }

    #[test]
    fn loom_one_token_is_granted_once() {
        loom::model(|| {
            let cap = Arc::new(cap(0.5, 1));
            let others = [(); 2].map(|()| beside(&cap, Cap::try_withdraw));
            let mut granted = u32::from(cap.try_withdraw());
            granted += others.map(|other| u32::from(other.join().unwrap())).iter().sum::<u32>();
            assert_eq!(granted, 1);
        });
    }

    #[test]
    fn loom_calls_and_hedges_together_conserve_tokens() {
        loom::model(|| {
            let cap = Arc::new(cap(0.5, 2));
            assert!(cap.try_withdraw());
            let calling = beside(&cap, Cap::deposit);
            let hedging = beside(&cap, Cap::try_withdraw);
            cap.deposit();
            calling.join().unwrap();
            let granted = u64::from(hedging.join().unwrap());
            assert_eq!(cap.bucket.balance() + granted * TOKEN, 2 * TOKEN);
        });
    }

    #[test]
    fn loom_it_never_grants_more_than_the_burst_whatever_changes_meanwhile() {
        loom::model(|| {
            let cap = Arc::new(cap(1.0, 3));
            let calling = beside(&cap, Cap::deposit);
            cap.set_rules(Some(rules(1.0, 2)));
            assert!(cap.available() <= 2.0);
            calling.join().unwrap();
            assert_eq!(withdraw_all(&cap), 2);
        });
    }
}
