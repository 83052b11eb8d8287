//! The breaker does what the simplest breaker there could be does.

mod reference;

use std::collections::VecDeque;

use super::*;
use reference::Model;

#[derive(Clone, Debug)]
enum Step {
    Acquire,
    Record { which: usize, verdict: Verdict, cause: FailureCause, took: u64, unit: f64 },
    Body { which: usize, verdict: Verdict, cause: FailureCause, unit: f64 },
    Lose { which: usize },
    Release { which: usize },
    Wait(u64),
    Control(Control),
    Rules(Option<BreakerPolicy>),
}

/// What counts as slow, where that is judged.
const SLOW: u64 = 100_000_000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict =
        || prop_oneof![3 => Just(Verdict::Success), 3 => Just(Verdict::Failure), 1 => Just(Verdict::Neutral)];
    let cause = || {
        prop_oneof![
            6 => Just(FailureCause::Own),
            1 => Just(FailureCause::Lost),
            1 => (0_u64..12).prop_map(FailureCause::Connection),
        ]
    };
    let took = prop_oneof![Just(0), Just(SLOW), Just(SLOW + 1), 0..3 * SLOW];
    let wait = prop_oneof![
        4 => 0_u64..50_000_000,
        2 => 50_000_000_u64..600_000_000,
        1 => 600_000_000_u64..5_000_000_000,
    ];
    let step = prop_oneof![
        60 => Just(Step::Acquire),
        60 => (any::<usize>(), verdict(), cause(), took, 0.0..1.0)
            .prop_map(|(which, verdict, cause, took, unit)| Step::Record { which, verdict, cause, took, unit }),
        20 => (any::<usize>(), verdict(), cause(), 0.0..1.0)
            .prop_map(|(which, verdict, cause, unit)| Step::Body { which, verdict, cause, unit }),
        10 => any::<usize>().prop_map(|which| Step::Lose { which }),
        10 => any::<usize>().prop_map(|which| Step::Release { which }),
        20 => wait.prop_map(Step::Wait),
        1 => prop::sample::select(Control::ALL.into_iter().filter(|control| *control != Control::Observe).collect::<Vec<_>>()).prop_map(Step::Control),
        1 => prop::option::weighted(0.8, policies()).prop_map(Step::Rules),
    ];
    prop::collection::vec(step, 1..400)
}

fn policies() -> impl Strategy<Value = BreakerPolicy> {
    let window = prop_oneof![(100_u64..2000).prop_map(Ok), (0_u32..100).prop_map(Err)];
    let slow = prop::option::of(0.1..0.9);
    let share = prop_oneof![Just(0.0), Just(0.02), 0.0..=1.0];
    (0.1..=1.0, window, 1_u32..12, 1_u32..10, 1_u32..6, 1_u32..4, (slow, share)).prop_map(
        |(rate, window, calls, row, cold, probes, (slow, share))| {
            let policy = BreakerPolicy::standard()
                .failure_rate(rate)
                .min_calls(calls)
                .consecutive_failures(row)
                .cold_consecutive_failures(cold)
                .probes(probes)
                .open_for(ms(100))
                .open_cap(ms(350))
                .probe_share(share)
                .probe_timeout(ms(400));
            let policy = match window {
                Ok(time) => policy.window(ms(time)),
                Err(more) => policy.window_calls(calls + more),
            };
            slow.map_or(policy.clone(), |share| policy.slow_call(Duration::from_nanos(SLOW), share))
        },
    )
}

/// A call out: its permit, and that of the breaker that only observes.
type Out = (Option<Permit>, Option<Permit>);

/// Its generation and, of a probe, its number in it.
fn of(permit: &Permit) -> (u64, u32) {
    (permit.generation(), permit.number().into())
}

/// Both machines agree with the model on whether a call may go, and the observing one lets it go
/// all the same. (Without rules there is nothing that tells it to observe only.)
fn acquire(
    breaker: &Breaker,
    observing: &Breaker,
    model: &mut Model,
    now: Tick,
) -> Result<Out, TestCaseError> {
    let peek = breaker.rejects_now(now);
    let shadow_peek = observing.rejects_now(now);
    let shadow = observing.try_acquire(now);
    match (breaker.try_acquire(now), model.acquire(now.as_nanos()), shadow) {
        (Ok(admitted), Ok((generation, transition)), Ok(shadow)) => {
            prop_assert_eq!((peek, shadow_peek), (None, None));
            prop_assert_eq!(admitted.transition, transition);
            prop_assert_eq!(admitted.would_reject, None);
            prop_assert_eq!(admitted.permit.generation(), generation);
            prop_assert_eq!(admitted.permit.is_probe(), model.state == State::HalfOpen);
            prop_assert_eq!(shadow.transition, transition);
            prop_assert_eq!(shadow.would_reject, None);
            prop_assert_eq!(shadow.permit.is_probe(), admitted.permit.is_probe());
            Ok((Some(admitted.permit), Some(shadow.permit)))
        }
        (Err(rejected), Err(wait), Ok(shadow)) => {
            prop_assert_eq!(rejected.retry_after, wait.map(Duration::from_nanos));
            prop_assert_eq!((peek, shadow_peek), (Some(rejected), None));
            prop_assert_eq!(shadow.would_reject, Some(rejected));
            prop_assert_eq!(shadow.transition, None);
            prop_assert!(!shadow.permit.is_probe());
            Ok((None, Some(shadow.permit)))
        }
        (Err(rejected), Err(wait), Err(shadow)) if model.rules.is_none() => {
            prop_assert_eq!((rejected.retry_after, shadow), (wait.map(Duration::from_nanos), rejected));
            Ok((None, None))
        }
        answers => Err(TestCaseError::fail(format!("they disagree: {answers:?}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_the_model_does_and_observing_changes_nothing_but_that_nothing_is_rejected(
        policy in policies(), steps in steps(),
    ) {
        let rules = policy.compile().unwrap();
        let (breaker, mut model) = (Breaker::new(rules.clone()), Model::new(rules.numbers));
        let observing = Breaker::new(policy.observe_only(true).compile().unwrap());
        let mut now = START;
        let mut out: Vec<Out> = Vec::new();
        let mut bodies: Vec<(Option<BodyPermit>, Option<BodyPermit>, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(nanos) => now = now.after_nanos(nanos),
                Step::Acquire => out.push(acquire(&breaker, &observing, &mut model, now)?),
                Step::Record { which, verdict, cause, took, unit } if !out.is_empty() => {
                    let (permit, shadow) = out.swap_remove(which % out.len());
                    if verdict == Verdict::Success {
                        let body = |permit: &Option<Permit>| permit.as_ref().map(Permit::body);
                        bodies.push((body(&permit), body(&shadow), now.as_nanos()));
                    }
                    let expected = permit.as_ref().and_then(|permit| {
                        model.record(of(permit), (verdict, cause), took, now.as_nanos(), unit)
                    });
                    let record = |breaker: &Breaker, permit| {
                        let result = CallResult::new(verdict, Duration::from_nanos(took)).caused_by(cause);
                        breaker.record(permit, result, now, || unit)
                    };
                    prop_assert_eq!(permit.and_then(|permit| record(&breaker, permit)), expected);
                    prop_assert_eq!(shadow.and_then(|permit| record(&observing, permit)), expected);
                }
                Step::Body { which, verdict, cause, unit } if !bodies.is_empty() => {
                    let (permit, shadow, then) = bodies.swap_remove(which % bodies.len());
                    let expected = permit.as_ref().and_then(|permit| {
                        let generation = permit.era.generation();
                        model.record_body(generation, (verdict, cause), then, now.as_nanos(), unit)
                    });
                    let record = |breaker: &Breaker, permit| {
                        let result = BodyResult::new(verdict, Tick::from_nanos(then)).caused_by(cause);
                        breaker.record_body(permit, result, now, || unit)
                    };
                    prop_assert_eq!(permit.and_then(|permit| record(&breaker, permit)), expected);
                    prop_assert_eq!(shadow.and_then(|permit| record(&observing, permit)), expected);
                }
                Step::Lose { which } if !out.is_empty() => drop(out.swap_remove(which % out.len())),
                Step::Release { which } if !out.is_empty() => {
                    let (permit, shadow) = out.swap_remove(which % out.len());
                    if let Some(permit) = permit {
                        model.release(of(&permit));
                        breaker.release(permit);
                    }
                    if let Some(shadow) = shadow {
                        observing.release(shadow);
                    }
                }
                Step::Record { .. } | Step::Body { .. } | Step::Lose { .. } | Step::Release { .. } => {}
                Step::Control(control) => {
                    let expected = model.control(control);
                    prop_assert_eq!(breaker.control(control), expected);
                    prop_assert_eq!(observing.control(control), expected);
                }
                Step::Rules(policy) => {
                    let rules = policy.clone().map(|policy| policy.compile().unwrap());
                    let shadow = policy.map(|policy| policy.observe_only(true).compile().unwrap());
                    let expected = model.set_rules(rules.as_ref().map(|rules| rules.numbers));
                    prop_assert_eq!(breaker.set_rules(rules), expected);
                    prop_assert_eq!(observing.set_rules(shadow), expected);
                }
            }
            let snapshot = breaker.snapshot(now);
            prop_assert_eq!((snapshot.state, snapshot.forced), (model.state, model.forced));
            prop_assert_eq!(snapshot.generation, model.generation);
            let counts = (snapshot.failures, snapshot.successes, snapshot.slow);
            prop_assert_eq!(counts, model.window(now.as_nanos()));
            prop_assert_eq!((snapshot.streak, snapshot.reopens), (model.streak, model.reopens));
            prop_assert_eq!(snapshot.probes, model.taken - model.succeeded);
            let observes = Snapshot { observe_only: model.rules.is_some(), ..snapshot };
            prop_assert_eq!(observing.snapshot(now), observes);
        }
    }
}
