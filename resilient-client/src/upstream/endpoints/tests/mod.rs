//! The set: who is chosen, who is out, and who is remembered.

mod model;
mod threads;

use std::collections::HashMap;

use super::*;
use crate::outcome::Verdict;
use crate::policy::balance::BalancePolicy;
use crate::policy::breaker::{BreakerPolicy, CallResult, State};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Far ahead of the real clock, which a drop reads: a permit dropped here has no age.
const START: Tick = Tick::from_nanos(10_000_000 * SECOND);

fn after(millis: u64) -> Tick {
    START.after_nanos(millis * MS)
}

fn origins(ports: impl IntoIterator<Item = u16>) -> Vec<Origin> {
    ports.into_iter().map(|port| Origin::parse(&format!("http://10.0.0.1:{port}")).unwrap()).collect()
}

/// Endpoints on these ports, whose breakers open for a second at the second failure in a row.
fn set_with(policy: &BalancePolicy, ports: impl IntoIterator<Item = u16>) -> EndpointSet {
    let breaker = BreakerPolicy::standard().consecutive_failures(2).cold_consecutive_failures(2);
    let checks = Checks {
        breaker: Some(breaker.compile().unwrap()),
        entropy: Entropy::seeded(7),
        ..Checks::default()
    };
    let set = EndpointSet::new(policy.compile().unwrap(), checks, Duration::from_secs(60));
    set.update(&origins(ports), START);
    set
}

fn set(ports: impl IntoIterator<Item = u16>) -> EndpointSet {
    set_with(&BalancePolicy::standard(), ports)
}

/// What an attempt of a call looks for that has been there and can still be repeated.
fn again(tried: &[Trial]) -> Seek<'_> {
    Seek { tried, repeatable: true, ..Seek::first() }
}

fn endpoint(set: &EndpointSet, port: u16) -> Arc<Endpoint> {
    let list = set.list.load();
    Arc::clone(list.endpoints.iter().find(|endpoint| endpoint.origin().port() == port).unwrap())
}

/// The port the next attempt would go to, settled at once as `verdict` after `took` milliseconds.
fn attempt(set: &EndpointSet, verdict: Verdict, took: u64, now: Tick, rng: &mut Rng) -> u16 {
    let mut permit = set.admit(&Seek::first(), now, rng).unwrap();
    permit.settle(verdict, took * MS, now);
    permit.endpoint().origin().port()
}

/// How a thousand attempts spread that all succeed after 10 ms, one after the other, 1 ms apart.
fn shares(set: &EndpointSet, start: u64, rng: &mut Rng) -> HashMap<u16, u32> {
    let mut shares = HashMap::new();
    for n in 0..1_000 {
        *shares.entry(attempt(set, Verdict::Success, 10, after(start + n), rng)).or_default() += 1;
    }
    shares
}

fn trip(set: &EndpointSet, port: u16, now: Tick) {
    let endpoint = endpoint(set, port);
    while endpoint.breaker.state() == State::Closed {
        let permit = endpoint.breaker.try_acquire(now).unwrap().permit;
        endpoint.breaker.record(permit, CallResult::new(Verdict::Failure, Duration::ZERO), now, || 0.5);
    }
}

#[test]
fn no_endpoints_no_permit() {
    assert!(matches!(set([]).admit(&Seek::first(), START, &mut Rng::seeded(1)), Err(Shut::Empty)));
}

#[test]
fn equal_endpoints_share_alike_while_calls_overlap() {
    let (set, mut rng) = (set([1, 2, 3, 4]), Rng::seeded(1));
    let held: Vec<_> = (0..400).map(|_| set.admit(&Seek::first(), START, &mut rng).unwrap()).collect();
    for snapshot in set.snapshot(START) {
        assert!((98..=102).contains(&snapshot.in_flight), "{}", snapshot.in_flight);
    }
    for mut permit in held {
        permit.settle(Verdict::Success, MS, START);
    }
    assert!(set.snapshot(START).iter().all(|snapshot| snapshot.in_flight == 0));
}

#[test]
fn a_single_endpoints_breaker_judges_like_any_other() {
    let (set, mut rng) = (set([1]), Rng::seeded(1));
    for _ in 0..2 {
        assert_eq!(attempt(&set, Verdict::Failure, 0, START, &mut rng), 1);
    }
    let open = endpoint(&set, 1).breaker.snapshot(START).open_for;
    assert_eq!(set.admit(&Seek::first(), START, &mut rng).unwrap_err(), Shut::Open(Some(open)));
    let probe = set.admit(&Seek::first(), START.after(open), &mut rng).unwrap();
    assert!(probe.is_probe());
    assert!(matches!(set.admit(&Seek::first(), START.after(open), &mut rng), Err(Shut::Open(_))));
}

#[test]
fn a_retry_goes_where_the_call_has_not_been() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    for _ in 0..200 {
        let mut tried = Vec::new();
        for _ in 0..3 {
            let permit = set.admit(&again(&tried), START, &mut rng).unwrap();
            assert!(!has_been(&tried, permit.endpoint()));
            tried.push(Trial::of(permit.endpoint().id()));
            let mut permit = permit;
            permit.settle(Verdict::Success, MS, START);
        }
        assert!(
            set.admit(&again(&tried), START, &mut rng).is_ok(),
            "and anywhere once it has been everywhere"
        );
    }
}

#[test]
fn an_endpoint_whose_breaker_is_open_takes_no_calls_but_its_probes() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    trip(&set, 2, START);
    for n in 0..225 {
        assert_ne!(attempt(&set, Verdict::Success, 10, after(n), &mut rng), 2);
    }
    let mut held = Vec::new();
    let mut probes_by = |until: u64| {
        for n in held.len() as u64..until / 10 {
            held.push(set.admit(&again(&[]), after(1_200 + n * 10), &mut rng).unwrap());
        }
        let to_second = held.iter().filter(|permit| permit.endpoint().origin().port() == 2);
        to_second.map(|permit| u32::from(permit.is_probe())).collect::<Vec<_>>()
    };
    // While none of them answers, another follows as it would follow one that failed.
    for (until, most) in [(4_000, 5), (9_000, 8), (19_000, 13)] {
        let probes = probes_by(until);
        assert!(probes.len() > 1 && probes.len() <= most, "{} by {until} ms", probes.len());
        assert!(probes.iter().all(|probe| *probe == 1));
    }
}

#[test]
fn beside_one_that_is_well_few_calls_are_probes() {
    for (seek, most) in [(again(&[]), 1_000 / 20), (Seek::first(), 1_000 / 200)] {
        let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
        trip(&set, 2, START);
        let mut probes = 0;
        for n in 0..1_000 {
            let now = after(6_000 * (n + 1));
            let mut permit = set.admit(&seek, now, &mut rng).unwrap();
            probes += u64::from(permit.is_probe());
            let verdict = if permit.is_probe() { Verdict::Failure } else { Verdict::Success };
            permit.settle(verdict, MS, now);
        }
        assert_eq!(probes, most);
    }
}

#[test]
fn a_retry_goes_to_who_is_well_then_to_a_probe_then_to_who_has_failed_it() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    trip(&set, 2, START);
    let tried = [1, 3].map(|port| Trial::of(endpoint(&set, port).id()));
    let mut goes = |seek: &Seek<'_>| {
        let mut permit = set.admit(seek, after(2_000), &mut rng).unwrap();
        permit.settle(Verdict::Neutral, 0, after(2_000));
        permit.endpoint().origin().port()
    };
    assert_eq!(goes(&again(&tried[..1])), 3);
    assert_ne!(goes(&Seek { repeatable: false, ..again(&tried) }), 2, "what can't be repeated takes no risk");
    assert_eq!(goes(&again(&tried)), 2);
    assert_ne!(goes(&again(&tried)), 2, "it decided nothing");
}

/// Half of them kept the other half in the draw.
#[test]
fn who_is_out_takes_no_calls_however_many_are() {
    let (set, mut rng) = (set(1..=10), Rng::seeded(1));
    for dead in 1..=9 {
        trip(&set, dead, START);
        for _ in 0..200 {
            assert!(attempt(&set, Verdict::Success, 10, START, &mut rng) > dead);
        }
    }
    trip(&set, 10, START);
    let refused = set.admit(&Seek::first(), START, &mut rng).unwrap_err();
    let first = (1..=10).map(|port| endpoint(&set, port).breaker.snapshot(START).open_for).min().unwrap();
    assert_eq!(refused, Shut::Open(Some(first)));
    assert_eq!(set.shut(START), Some(Shut::Open(Some(first))));
    let later = START.after(first);
    assert_eq!(set.shut(later), None);
    let held: Vec<_> = (0..50).filter_map(|_| set.admit(&Seek::first(), later, &mut rng).ok()).collect();
    assert!(held.len() == 10 && held.iter().all(EndpointPermit::is_probe), "one for each of them");
    drop(held);
}

#[test]
fn forced_closed_the_name_overrules_its_endpoints() {
    let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
    trip(&set, 1, START);
    trip(&set, 2, START);
    let overruled = Seek { overrules: true, ..Seek::first() };
    let mut permit = set.admit(&overruled, START, &mut rng).unwrap();
    assert!(permit.is_overruled() && !permit.is_probe());
    permit.settle(Verdict::Success, MS, START);
    assert_eq!(endpoint(&set, 1).breaker.state(), State::Open);
}

/// One of three answered 503 with `Retry-After`, and every fourth client stayed away from all
/// three.
#[test]
fn who_asked_for_time_is_passed_over_while_there_is_somebody_else() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    // Not the first answer of a young client: nobody is held back by one.
    shares(&set, 0, &mut rng);
    let now = after(1_000);
    let told = |port: u16, seconds: u64| {
        assert_eq!(endpoint(&set, port).asked_for_time(Duration::from_secs(seconds), now), None);
    };
    told(2, 60);
    for n in 0..500 {
        assert_ne!(attempt(&set, Verdict::Success, 10, after(1_000 + n * 10), &mut rng), 2);
    }
    assert!((0..300).any(|n| attempt(&set, Verdict::Success, 10, after(6_000 + n * 10), &mut rng) == 2));
    let now = after(10_000);
    let told = |port: u16, seconds: u64| {
        assert_eq!(endpoint(&set, port).asked_for_time(Duration::from_secs(seconds), now), None);
    };
    told(1, 60);
    told(2, 60);
    told(3, 60);
    let all: Vec<_> = (0..30).map(|_| attempt(&set, Verdict::Success, 10, now, &mut rng)).collect();
    assert!([1, 2, 3].iter().all(|port| all.contains(port)), "nobody else: {all:?}");
}

#[test]
fn the_call_that_was_told_asks_none_that_told_it() {
    let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
    let tried =
        [1, 2].map(|port| Trial { rests_until: after(3_000), ..Trial::of(endpoint(&set, port).id()) });
    let told = again(&tried);
    assert_eq!(set.again_from(&tried, START), Some(after(3_000)));
    assert_eq!(set.admit(&told, START, &mut rng).unwrap_err(), Shut::Held(Duration::from_secs(3)));
    assert!(set.has_another(&tried[..1], START) && !set.has_another(&tried, START));
    let permit = set.admit(&Seek { tried: &tried[..1], ..told }, START, &mut rng).unwrap();
    assert_eq!(permit.endpoint().origin().port(), 2);
    assert!(set.admit(&told, after(3_000), &mut rng).is_ok());
    let (told, not) = (tried[0], Trial::of(tried[1].id));
    for _ in 0..20 {
        assert_eq!(set.again_from(&[told, not], START), Some(START));
        let mut permit = set.admit(&again(&[told, not]), START, &mut rng).unwrap();
        permit.settle(Verdict::Neutral, 0, START);
        assert_eq!(permit.endpoint().origin().port(), 2, "it asked for nothing");
    }
}

#[test]
fn a_breaker_that_only_observes_changes_nothing() {
    let checks = Checks {
        breaker: Some(
            BreakerPolicy::standard().cold_consecutive_failures(2).observe_only(true).compile().unwrap(),
        ),
        ..Checks::default()
    };
    let set = EndpointSet::new(BalancePolicy::standard().compile().unwrap(), checks, Duration::ZERO);
    set.update(&origins([1, 2, 3]), START);
    trip(&set, 2, START);
    let mut rng = Rng::seeded(1);
    let held: Vec<_> = (0..300).map(|_| set.admit(&Seek::first(), START, &mut rng).unwrap()).collect();
    assert!(set.snapshot(START).iter().all(|snapshot| (95..=105).contains(&snapshot.in_flight)));
    assert!(held.iter().all(|permit| !permit.is_overruled()));
}

#[test]
fn failing_at_once_attracts_no_calls_even_without_breakers() {
    for settled in [Verdict::Failure, Verdict::Success] {
        let checks = Checks { entropy: Entropy::seeded(7), ..Checks::default() };
        let rules = BalancePolicy::standard().compile().unwrap();
        let set = EndpointSet::new(rules, checks, Duration::ZERO);
        set.update(&origins([1, 2, 3]), START);
        let (mut rng, mut to_first, mut pending) = (Rng::seeded(1), 0_u32, Vec::new());
        for n in 0..3_000_u64 {
            let now = after(n);
            pending.retain_mut(|(until, permit): &mut (Tick, EndpointPermit)| {
                let over = *until <= now;
                if over {
                    permit.settle(Verdict::Success, 20 * MS, now);
                }
                !over
            });
            let mut permit = set.admit(&Seek::first(), now, &mut rng).unwrap();
            if permit.endpoint().origin().port() == 1 {
                to_first += 1;
                permit.settle(settled, MS / 10, now);
            } else {
                pending.push((after(n + 20), permit));
            }
        }
        // The other half of the test: an endpoint that is really that fast gets nearly everything.
        let share = f64::from(to_first) / 3_000.0;
        assert!(if settled == Verdict::Failure { share < 0.02 } else { share > 0.6 }, "{settled:?}: {share}");
    }
}

/// A millionth of a failure broke every tie, so where calls don't overlap it was asked for nothing
/// for three minutes.
#[test]
fn one_that_failed_twice_and_is_well_again_is_asked_soon_though_calls_never_overlap() {
    for (repeatable, within) in [(true, 3), (false, 30)] {
        let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
        let (rules, third) = (set.list.load().rules, endpoint(&set, 3));
        third.score.failed(MS, &rules, START);
        third.score.failed(MS, &rules, START);
        let asked = (0..4_000).find(|n| {
            let (now, seek) = (after(50 * n), Seek { repeatable, ..Seek::first() });
            let mut permit = set.admit(&seek, now, &mut rng).unwrap();
            permit.settle(Verdict::Success, 10 * MS, now.after_nanos(10 * MS));
            permit.endpoint().origin().port() == 3
        });
        let seconds = asked.map(|nth| nth / 20);
        println!("repeatable: {repeatable}: asked after {seconds:?} s");
        assert!(seconds.is_some_and(|seconds| seconds < within));
    }
}

#[test]
fn one_failure_does_not_shun_a_healthy_endpoint() {
    let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
    shares(&set, 0, &mut rng);
    endpoint(&set, 1).score.failed(0, &set.list.load().rules, after(1_000));
    // With overlapping calls, as a third more cost is less than one more call in flight.
    let held: Vec<_> = (0..100).map(|_| set.admit(&Seek::first(), after(1_000), &mut rng).unwrap()).collect();
    let first = held.iter().filter(|permit| permit.endpoint().origin().port() == 1).count();
    assert!((40..=46).contains(&first), "{first}");
}

#[test]
fn a_hung_endpoint_repels_calls_whose_callers_all_give_up() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    shares(&set, 0, &mut rng);
    let mut to_hung = 0;
    for n in 0..300 {
        let now = after(1_000 + n * 10);
        let mut permit = set.admit(&Seek::first(), now, &mut rng).unwrap();
        if permit.endpoint().origin().port() == 1 {
            to_hung += 1;
            permit.settle(Verdict::Neutral, 200 * MS, now);
        } else {
            permit.settle(Verdict::Success, 10 * MS, now);
        }
    }
    assert!(to_hung <= 2, "{to_hung}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_attempt_gives_its_place_back_and_its_age_is_learnt() {
    let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
    for (age, failures) in [(900, 0), (1_100, 1)] {
        let now = crate::time::now();
        let permit = set.admit(&Seek::first(), now, &mut rng).unwrap();
        let endpoint = Arc::clone(permit.endpoint());
        tokio::time::advance(Duration::from_millis(age)).await;
        drop(permit);
        let now = crate::time::now();
        let snapshot = endpoint.snapshot(&set.list.load().rules, now);
        assert_eq!((snapshot.in_flight, snapshot.breaker.failures), (0, failures));
        let latency = snapshot.latency.as_nanos() as u64;
        assert!(latency.abs_diff(age * MS) <= MS, "{latency}");
    }
}

#[test]
fn a_permit_is_settled_once() {
    let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
    let mut permit = set.admit(&Seek::first(), START, &mut rng).unwrap();
    let endpoint = Arc::clone(permit.endpoint());
    for _ in 0..10 {
        permit.settle(Verdict::Failure, 0, START);
    }
    assert_eq!((endpoint.breaker.snapshot(START).failures, endpoint.in_flight()), (1, 1));
    drop(permit);
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn a_new_endpoint_comes_in_over_ten_seconds() {
    let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
    shares(&set, 0, &mut rng);
    set.update(&origins([1, 2, 3]), after(1_000));
    // Whether it wins when it stands is another matter: here how often it stands is counted.
    let third = endpoint(&set, 3);
    let rules = set.list.load().rules;
    let percent = |age: u64| (third.share_of_draws(&rules, after(1_000 + age)) * 100.0).round() as u32;
    assert_eq!([0, 2_500, 5_000, 10_000].map(percent), [10, 25, 50, 100]);
    let share = |age: u64| {
        let mut rng = Rng::seeded(age);
        let held = (0..3_000).filter(|_| {
            let list = set.list.load();
            list.choose(&Seek::first(), after(1_000 + age), &mut rng).unwrap().origin().port() == 3
        });
        held.count() as f64 / 3_000.0
    };
    // With nothing in flight it wins each draw it stands for: two draws in three.
    endpoint(&set, 1).begin();
    endpoint(&set, 2).begin();
    for (age, expected) in [(0, 0.067), (5_000, 0.333), (10_000, 0.667)] {
        assert!((share(age) - expected).abs() < 0.03, "{age}: {}", share(age));
    }
}

#[test]
fn a_cold_endpoint_gets_neither_everything_nor_nothing() {
    let policy = BalancePolicy::standard().slow_start(Duration::ZERO);
    let (set, mut rng) = (set_with(&policy, [1, 2]), Rng::seeded(1));
    shares(&set, 0, &mut rng);
    set.update(&origins([1, 2, 3]), after(1_000));
    let held: Vec<_> = (0..300).map(|_| set.admit(&Seek::first(), after(1_001), &mut rng).unwrap()).collect();
    let third = held.iter().filter(|permit| permit.endpoint().origin().port() == 3).count();
    assert!((90..=110).contains(&third), "{third}");
}

#[test]
fn a_recovered_endpoint_begins_anew() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    shares(&set, 0, &mut rng);
    trip(&set, 2, after(1_000));
    endpoint(&set, 2).score.failed(3 * SECOND, &set.list.load().rules, after(1_000));
    let mut probes = 0;
    for n in 0..100 {
        let now = after(2_200 + n);
        let mut permit = set.admit(&again(&[]), now, &mut rng).unwrap();
        permit.settle(Verdict::Success, 10 * MS, now);
        probes += u32::from(permit.endpoint().origin().port() == 2);
    }
    let second = endpoint(&set, 2);
    assert_eq!(second.breaker.state(), State::Closed);
    let rules = set.list.load().rules;
    assert!(second.share_of_draws(&rules, after(2_300)) < 0.2);
    assert!(
        second.snapshot(&rules, after(2_300)).latency < Duration::from_millis(11),
        "its bad time is forgotten"
    );
    assert!(probes >= 3);
}

/// Its heads are good and its bodies aren't: that the last probe had a good head is no reason to
/// send three at once.
#[test]
fn a_probe_whose_body_failed_has_earned_no_trust() {
    let (set, mut rng) = (set([1]), Rng::seeded(1));
    trip(&set, 1, START);
    let mut probe = set.admit(&again(&[]), after(1_200), &mut rng).unwrap();
    assert!(probe.is_probe());
    probe.settle(Verdict::Success, 10 * MS, after(1_210));
    probe.settle_body(Verdict::Failure, crate::outcome::FailureCause::Own, 0, after(1_300));
    drop(probe);
    assert_eq!(endpoint(&set, 1).breaker.state(), State::Open);
    let now = after(4_000);
    let _first = set.admit(&again(&[]), now, &mut rng).unwrap();
    assert!(set.admit(&again(&[]), now, &mut rng).is_err(), "the first goes alone, as ever");
}

#[test]
fn endpoints_that_stay_or_come_back_keep_their_state_and_others_do_not() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    shares(&set, 0, &mut rng);
    trip(&set, 2, after(1_000));
    let (first, second) = (endpoint(&set, 1), endpoint(&set, 2));
    assert_eq!(set.update(&origins([4, 1]), after(1_000)), Changed { added: 1, removed: 2 });
    assert!(Arc::ptr_eq(&first, &endpoint(&set, 1)));
    assert_eq!(set.update(&origins([1, 2, 4]), after(30_000)), Changed { added: 1, removed: 0 });
    assert!(Arc::ptr_eq(&second, &endpoint(&set, 2)), "back within the minute");
    let chance = second.share_of_draws(&set.list.load().rules, after(30_000));
    assert!(chance < 0.2, "and slowly: {chance}");
    assert_eq!(second.breaker.state(), State::Open);
    set.update(&origins([1, 4]), after(40_000));
    set.update(&origins([1, 4]), after(100_000));
    set.update(&origins([1, 2, 4]), after(101_000));
    assert!(!Arc::ptr_eq(&second, &endpoint(&set, 2)), "too late");
}

#[test]
fn a_removed_endpoint_keeps_the_calls_it_has_and_gets_no_more() {
    let (set, mut rng) = (set([1, 2]), Rng::seeded(1));
    let mut held: Vec<_> = (0..10).map(|_| set.admit(&Seek::first(), START, &mut rng).unwrap()).collect();
    let first = endpoint(&set, 1);
    let had = first.in_flight();
    set.update(&origins([2]), START);
    assert_eq!(first.in_flight(), had);
    assert!((0..100).all(|_| attempt(&set, Verdict::Success, 1, START, &mut rng) == 2));
    for permit in &mut held {
        permit.settle(Verdict::Success, MS, START);
    }
    drop(held);
    assert_eq!(first.in_flight(), 0);
}

#[test]
fn duplicates_are_one_endpoint() {
    let set = set([1, 1, 2, 1]);
    assert_eq!(set.len(), 2);
    assert!(!set.update(&origins([2, 1, 2]), START).any());
}

#[test]
fn names_that_never_answer_the_same_twice_are_remembered_within_bounds() {
    let set = set([1]);
    for n in 0..40 {
        set.update(&origins(n * 100 + 1..=n * 100 + 100), START);
    }
    let writer = set.writer.lock();
    assert_eq!((set.len(), writer.gone.len()), (100, MOST_ENDPOINTS));
}

#[test]
fn other_rules_reach_every_endpoint_and_keep_its_state() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    trip(&set, 1, START);
    let strict = BreakerPolicy::standard().consecutive_failures(1).cold_consecutive_failures(1);
    let rules = BalancePolicy::standard().compile().unwrap();
    set.follow(rules, Some(strict.compile().unwrap()), None);
    assert_eq!(endpoint(&set, 1).breaker.state(), State::Open);
    let failed = attempt(&set, Verdict::Failure, 1, START, &mut rng);
    assert_eq!(endpoint(&set, failed).breaker.state(), State::Open);
    set.follow(rules, None, None);
    assert!([1, 2, 3].iter().all(|port| endpoint(&set, *port).breaker.state() == State::Disabled));
}

/// One probe of three had succeeded when an operator reset the breaker; the trust in the other two
/// outlived it, and drew all calls there whatever it answered.
#[test]
fn after_a_reset_nothing_is_left_of_a_probation() {
    let (set, mut rng) = (set([1, 2, 3]), Rng::seeded(1));
    shares(&set, 0, &mut rng);
    trip(&set, 2, after(1_000));
    let broken = endpoint(&set, 2);
    let mut now = 60_000;
    while broken.breaker.snapshot(after(now)).state != State::HalfOpen {
        attempt(&set, Verdict::Success, 10, after(now), &mut rng);
        now += 1;
    }
    set.control(broken.origin(), Control::Reset).unwrap();
    // It answers 429 from here on: that opens no breaker.
    let mut asked = 0;
    for n in 0..1_000 {
        let now = after(now + n);
        let mut permit = set.admit(&Seek::first(), now, &mut rng).unwrap();
        if permit.endpoint().origin().port() == 2 {
            asked += 1;
            permit.put_off(MS, now);
            permit.settle(Verdict::Neutral, MS, now);
        } else {
            permit.settle(Verdict::Success, 10 * MS, now);
        }
    }
    assert!(asked < 60, "{asked} of 1000 calls went to it");
}

/// One is full, the other only silent: nobody is refused while one may just be late.
#[test]
fn beside_one_that_is_overloaded_a_silent_one_is_what_calls_wait_for() {
    use crate::policy::overload::{OverloadPolicy, Sample};
    use crate::policy::priority::Priority;
    for ports in [[1, 2], [2, 1]] {
        let overload = Some(OverloadPolicy::standard().compile().unwrap());
        let checks = Checks { overload, entropy: Entropy::seeded(7), ..Checks::default() };
        let rules = BalancePolicy::standard().compile().unwrap();
        let set = EndpointSet::new(rules, checks, Duration::from_secs(60));
        set.update(&origins(ports), START);
        let (full, silent) = (endpoint(&set, 1), endpoint(&set, 2));
        let feed = |endpoint: &Endpoint, from: u64, took: u64| {
            for n in 0..400 {
                let sample = Sample { rtt_nanos: took * MS, allowed_nanos: 500 * MS };
                let _ = endpoint.overload.record(sample, after(from + n * 5));
            }
        };
        feed(&full, 0, 20);
        feed(&silent, 0, 20);
        feed(&full, 2_000, 450);
        (0..100).for_each(|_| full.overload.overrun());
        for _ in 0..20 {
            silent.overload.try_acquire(Priority::Normal, after(4_000)).unwrap();
        }
        let admit = |at| set.admit(&Seek::first(), after(at), &mut Rng::seeded(1));
        let scout = admit(4_151).unwrap();
        assert_eq!(scout.endpoint().origin().port(), 2, "it goes to find out");
        assert_eq!(admit(4_152).unwrap_err(), Shut::Silent);
        assert!(set.is_silent(after(4_152)) && set.is_overloaded());
        silent.overload.release(crate::policy::overload::Ended::Answered);
        assert_eq!(admit(4_153).unwrap().endpoint().origin().port(), 2);
    }
}
