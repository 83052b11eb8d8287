//! The set against what anyone can say about it without knowing how it chooses.

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

#[derive(Clone, Debug)]
enum Step {
    Update(Vec<u16>),
    Admit { retry_of: usize },
    Settle { which: usize, verdict: Verdict, took: u64 },
    Drop { which: usize },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        3 => Just(Verdict::Success), 4 => Just(Verdict::Failure), 1 => Just(Verdict::Neutral)
    ];
    prop_oneof![
        1 => prop::collection::vec(1_u16..8, 0..8).prop_map(Step::Update),
        8 => (0_usize..4).prop_map(|retry_of| Step::Admit { retry_of }),
        6 => (any::<usize>(), verdict, 0_u64..4_000)
            .prop_map(|(which, verdict, took)| Step::Settle { which, verdict, took }),
        2 => any::<usize>().prop_map(|which| Step::Drop { which }),
        3 => (0_u64..1_500).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn it_keeps_its_promises(first in prop::collection::vec(1_u16..8, 0..8), steps in prop::collection::vec(step(), 1..150), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _in_runtime = runtime.enter();
        let (set, mut rng, mut now) = (set(first.clone()), Rng::seeded(seed), START);
        let mut listed = first;
        let mut held: Vec<EndpointPermit> = Vec::new();
        let mut last: Vec<EndpointId> = Vec::new();
        for step in steps {
            match step {
                Step::Update(ports) => {
                    set.update(&origins(ports.iter().copied()), now);
                    listed = ports;
                }
                Step::Wait(millis) => now = now.after_nanos(millis * MS),
                Step::Settle { which, verdict, took } => {
                    let count = held.len().max(1);
                    if let Some(permit) = held.get_mut(which % count) {
                        permit.settle(verdict, took * MS, now);
                    }
                }
                Step::Drop { which } => {
                    if !held.is_empty() {
                        held.swap_remove(which % held.len());
                    }
                }
                Step::Admit { retry_of } => {
                    let tried: Vec<_> = last.iter().rev().take(retry_of).copied().collect();
                    let standing: HashMap<_, _> = set.list.load().endpoints.iter()
                        .map(|endpoint| (endpoint.id(), endpoint.standing(now))).collect();
                    let Some(permit) = set.admit(&tried, now, &mut rng) else {
                        prop_assert!(listed.is_empty(), "there is always somebody");
                        continue;
                    };
                    let (id, port) = (permit.endpoint().id(), permit.endpoint().origin().port());
                    prop_assert!(listed.contains(&port), "never one that was removed");
                    let n = standing.len();
                    let out = standing.values().filter(|standing| **standing == Standing::Out).count();
                    if n > 1 && out <= n / 2 {
                        prop_assert_ne!(standing[&id], Standing::Out, "none that is out, of at most half");
                        prop_assert!(!permit.is_overruled());
                    }
                    if n > 1 && permit.is_overruled() {
                        prop_assert!(out > n / 2);
                    }
                    if tried.contains(&id) {
                        let others = standing.iter().filter(|(id, standing)| {
                            !tried.contains(id) && (**standing == Standing::In || out > n / 2)
                        });
                        prop_assert_eq!(others.count(), 0, "tried before, with others to try");
                    }
                    last.push(id);
                    held.push(permit);
                }
            }
            // What is in flight is what is held, and nothing else.
            let mut in_flight: HashMap<EndpointId, u32> = HashMap::new();
            for permit in &held {
                *in_flight.entry(permit.endpoint().id()).or_default() += 1;
            }
            for permit in &held {
                prop_assert_eq!(permit.endpoint().in_flight(), in_flight[&permit.endpoint().id()]);
            }
            for endpoint in &set.list.load().endpoints {
                prop_assert_eq!(endpoint.in_flight(), in_flight.get(&endpoint.id()).copied().unwrap_or(0));
            }
        }
        drop(held);
        prop_assert!(set.snapshot(now).iter().all(|snapshot| snapshot.in_flight == 0));
    }
}
