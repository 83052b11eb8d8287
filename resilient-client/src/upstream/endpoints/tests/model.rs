//! The set against what anyone can say about it without knowing how it chooses.

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

#[derive(Clone, Debug)]
enum Step {
    Update(Vec<u16>),
    Admit { retry_of: usize, repeatable: bool, rested: bool },
    AsksForTime { which: usize, seconds: u64 },
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
        8 => (0_usize..4, any::<bool>(), any::<bool>())
            .prop_map(|(retry_of, repeatable, rested)| Step::Admit { retry_of, repeatable, rested }),
        1 => (any::<usize>(), 0_u64..100).prop_map(|(which, seconds)| Step::AsksForTime { which, seconds }),
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
                Step::AsksForTime { which, seconds } => {
                    let list = set.list.load();
                    if let Some(endpoint) = list.endpoints.get(which % list.endpoints.len().max(1)) {
                        endpoint.asked_for_time(Duration::from_secs(seconds), now);
                    }
                }
                Step::Admit { retry_of, repeatable, rested } => {
                    let tried: Vec<_> = last.iter().rev().take(retry_of).copied().collect();
                    let rests_until = if rested { now.after_nanos(SECOND) } else { Tick::ZERO };
                    let trials: Vec<_> = tried.iter().map(|&id| Trial { id, rests_until }).collect();
                    let seek = Seek { repeatable, ..again(&trials) };
                    let before: Vec<_> = set.list.load().endpoints.iter()
                        .map(|endpoint| (endpoint.id(), endpoint.takes(now), endpoint.is_spared(now))).collect();
                    let may = |(id, takes, _): &(EndpointId, Takes, bool)| {
                        matches!(takes, Takes::Any | Takes::Probe) && !(rested && tried.contains(id))
                    };
                    let permit = match set.admit(&seek, now, &mut rng) {
                        Ok(permit) => permit,
                        Err(Shut::Empty) => {
                            prop_assert!(listed.is_empty());
                            continue;
                        }
                        Err(Shut::Open(Some(wait)) | Shut::Held(wait)) => {
                            prop_assert!(!before.iter().any(may), "there is somebody to ask");
                            prop_assert!(!wait.is_zero() && wait <= Duration::from_secs(10), "{:?}", wait);
                            continue;
                        }
                        Err(Shut::Open(None)) => {
                            prop_assert!(false, "nobody has forced any");
                            continue;
                        }
                        Err(Shut::Full(_) | Shut::Silent) => {
                            prop_assert!(false, "no limit is in force, and nothing is known of round trips");
                            continue;
                        }
                    };
                    let (id, port) = (permit.endpoint().id(), permit.endpoint().origin().port());
                    prop_assert!(listed.contains(&port), "never one that was removed");
                    let asked = before.iter().find(|(asked, ..)| *asked == id).unwrap();
                    prop_assert!(may(asked), "none that is out, held back or resting: {:?}", asked);
                    prop_assert!(!permit.is_overruled());
                    prop_assert_eq!(permit.is_probe(), asked.1 == Takes::Probe);
                    let well = |(id, takes, spared): &(EndpointId, Takes, bool)| {
                        *takes == Takes::Any && !spared && !tried.contains(id)
                    };
                    let anybody_well = before.iter().any(well);
                    prop_assert!(!anybody_well || !tried.contains(&id), "tried before, with others to try");
                    prop_assert!(!anybody_well || !asked.2, "asked for time, with others to ask");
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
