use proptest::prelude::*;

use super::*;
use crate::outcome::classify::Classified;
use crate::outcome::{FailureKind, Verdict};
use crate::policy::breaker::ForReady;
use crate::policy::budget::BudgetPolicy;
use crate::policy::retry::RetryPolicy;
use crate::rng::Rng;

const START: Tick = Tick::from_nanos(5_000_000_000);
const MS: u64 = 1_000_000;

fn ms(n: u64) -> Tick {
    START.after_nanos(n * MS)
}

fn terms() -> Terms {
    Terms {
        deadline: ms(10_000),
        attempt_timeout: 3_000 * MS,
        retry: Some(RetryPolicy::standard().compile().unwrap()),
        hedge_after: None,
        hedges: 0,
        replayable: true,
        safe: true,
        obeys_retry_after: true,
        for_ready: ForReady::Never,
    }
}

fn budget(tokens: u32) -> Budget {
    Budget::new(BudgetPolicy::standard().initial(tokens).compile().unwrap())
}

fn end(repeat: Repeat) -> Classified {
    Classified::failure(FailureKind::Status, repeat)
}

fn asked(seconds: u64) -> Classified {
    Classified { retry_after: Some(Duration::from_secs(seconds)), ..end(Repeat::IfSafe) }
}

/// A call whose first attempt is in flight.
fn in_flight(terms: Terms) -> Ledger {
    let mut ledger = Ledger::new(terms, START);
    assert_eq!(ledger.decide(START), Decision::Launch { number: 1, trigger: Trigger::First });
    ledger.launched(START);
    ledger
}

/// Where nothing stands in the way of another attempt.
fn world<'a>(budget: &'a Budget, cap: &'a Cap, rng: &'a mut Rng) -> World<'a> {
    World {
        budget,
        cap,
        circuit_open: false,
        elsewhere: false,
        again_from: None,
        replayable: true,
        usual: None,
        delays: None,
        rng,
    }
}

fn fail(ledger: &mut Ledger, end: &Classified, now: Tick, budget: &Budget) -> Next {
    fail_number(1, ledger, end, now, budget)
}

fn fail_number(number: u32, ledger: &mut Ledger, end: &Classified, now: Tick, budget: &Budget) -> Next {
    ledger.failed(number, end, now, world(budget, &Cap::closed(), &mut Rng::seeded(7)))
}

fn first_end(terms: Terms, end: &Classified) -> Next {
    fail(&mut in_flight(terms), end, ms(1), &budget(10))
}

#[test]
fn an_attempt_expires_when_its_time_is_up_and_not_before() {
    let ledger = in_flight(terms());
    assert_eq!(ledger.decide(ms(0)), Decision::WaitUntil(ms(3_000)));
    assert_eq!(ledger.decide(ms(2_999)), Decision::WaitUntil(ms(3_000)));
    assert_eq!(ledger.decide(ms(3_000)), Decision::Expire { number: 1 });
}

#[test]
fn an_attempt_that_had_to_wait_for_its_stream_has_all_its_time_from_there() {
    let mut ledger = in_flight(terms());
    assert_eq!(ledger.begins_anew(1, ms(2_900)), ms(5_900));
    assert_eq!(ledger.decide(ms(3_000)), Decision::WaitUntil(ms(5_900)));
    assert_eq!(ledger.decide(ms(5_900)), Decision::Expire { number: 1 });
}

#[test]
fn the_deadline_beats_everything() {
    let mut ledger = in_flight(Terms { deadline: ms(2_000), ..terms() });
    assert_eq!(ledger.decide(ms(0)), Decision::WaitUntil(ms(2_000)));
    assert_eq!(ledger.decide(ms(2_000)), Decision::Finish);
    assert_eq!(
        Ledger::new(Terms { deadline: START, ..terms() }, START).decide(START),
        Decision::Finish,
        "a call without time sends nothing"
    );
    ledger.succeeded();
    assert_eq!(ledger.decide(ms(1)), Decision::Finish);
}

#[test]
fn a_post_without_a_key_is_repeated_only_when_it_was_never_processed() {
    let post = Terms { safe: false, ..terms() };
    assert_eq!(first_end(post, &end(Repeat::IfSafe)), Next::GiveUp(Decline::NotSafe));
    assert!(matches!(first_end(post, &end(Repeat::Unprocessed)), Next::Retry { number: 2, .. }));
}

#[test]
fn a_stream_is_never_repeated() {
    let stream = Terms { replayable: false, ..terms() };
    assert_eq!(first_end(stream, &end(Repeat::Unprocessed)), Next::GiveUp(Decline::BodyIsStream));
    assert!(in_flight(stream).is_last());
}

#[test]
fn a_stream_that_outgrew_its_buffer_is_not_repeated_from_then_on() {
    let budget = budget(10);
    let fails = |terms| {
        let (cap, rng) = (Cap::closed(), &mut Rng::seeded(7));
        let world = World { replayable: false, ..world(&budget, &cap, rng) };
        in_flight(terms).failed(1, &end(Repeat::Unprocessed), ms(1), world)
    };
    assert_eq!(fails(terms()), Next::GiveUp(Decline::BodyNotKept));
    let once = Terms { retry: Some(RetryPolicy::standard().max_attempts(1).compile().unwrap()), ..terms() };
    let off = Next::GiveUp(Decline::RetriesOff);
    assert_eq!(fails(once), off, "the last attempt takes the request with it");
}

#[test]
fn without_retries_every_end_is_the_calls() {
    let once = Terms { retry: None, ..terms() };
    assert!(Ledger::new(once, START).is_last());
    assert_eq!(first_end(once, &end(Repeat::Unprocessed)), Next::GiveUp(Decline::RetriesOff));
}

#[test]
fn a_too_early_is_repeated_once_whatever_the_method() {
    let (mut ledger, budget) = (in_flight(Terms { safe: false, ..terms() }), budget(10));
    assert!(matches!(fail(&mut ledger, &end(Repeat::Once), ms(1), &budget), Next::Retry { .. }));
    ledger.launched(ms(50));
    let next = fail_number(2, &mut ledger, &end(Repeat::Once), ms(51), &budget);
    assert_eq!(next, Next::GiveUp(Decline::TriedOnceMore));
}

#[test]
fn an_open_circuit_ends_the_call_and_costs_no_token() {
    let (mut ledger, budget, cap, rng) = (in_flight(terms()), budget(10), Cap::closed(), &mut Rng::seeded(7));
    let world = World { circuit_open: true, ..world(&budget, &cap, rng) };
    assert_eq!(ledger.failed(1, &end(Repeat::IfSafe), ms(1), world), Next::GiveUp(Decline::CircuitOpen));
    assert!((budget.available() - 10.0).abs() < 1e-9);
}

#[test]
fn an_empty_budget_ends_the_call() {
    let next = fail(&mut in_flight(terms()), &end(Repeat::IfSafe), ms(1), &budget(0));
    assert_eq!(next, Next::GiveUp(Decline::BudgetExhausted));
}

#[test]
fn a_retry_after_beyond_the_deadline_ends_the_call_at_once() {
    let left = ms(1).until(terms().deadline);
    let asked_for = Duration::from_secs(3600);
    assert_eq!(
        first_end(terms(), &asked(3600)),
        Next::GiveUp(Decline::RetryAfterTooLong { asked: asked_for, left })
    );
}

#[test]
fn a_retry_after_that_barely_fits_is_honoured_and_stays_before_the_deadline() {
    for seed in 0..1000 {
        let mut ledger = in_flight(terms());
        let (budget, cap, rng) = (budget(10), Cap::closed(), &mut Rng::seeded(seed));
        let world = world(&budget, &cap, rng);
        let Next::Retry { delay, .. } = ledger.failed(1, &asked(9), ms(1), world) else { panic!("it fits") };
        assert!(delay >= Duration::from_secs(9), "{delay:?}");
        assert!(ms(1).after(delay) < terms().deadline, "{delay:?}");
    }
}

#[test]
fn a_retry_after_of_zero_is_an_ordinary_backoff() {
    let Next::Retry { delay, .. } = first_end(terms(), &asked(0)) else { panic!("repeatable") };
    assert!(delay <= Duration::from_millis(20) && !delay.is_zero(), "{delay:?}");
}

#[test]
fn a_refused_attempt_ends_the_call_and_its_token_can_be_taken_back_once() {
    let (mut ledger, budget) = (in_flight(terms()), budget(10));
    fail(&mut ledger, &end(Repeat::IfSafe), ms(1), &budget);
    assert!(ledger.take_grant().is_some() && ledger.take_grant().is_none());
    ledger.rejected();
    assert_eq!(ledger.decide(ms(100)), Decision::Finish);
}

fn hedging(budget: u32, cap: Option<u32>) -> (Terms, Budget, Cap) {
    let terms = Terms { hedge_after: Some(10 * MS), hedges: 1, ..terms() };
    let rules = |burst| crate::policy::hedge::HedgePolicy::standard().burst(burst).compile().unwrap();
    let cap = cap.map_or_else(Cap::closed, |burst| Cap::new(rules(burst)));
    (terms, self::budget(budget), cap)
}

fn fail_beside(
    ledger: &mut Ledger,
    number: u32,
    end: &Classified,
    at: Tick,
    budget: &Budget,
    cap: &Cap,
) -> Next {
    ledger.failed(number, end, at, world(budget, cap, &mut Rng::seeded(7)))
}

#[test]
fn a_fast_failure_is_hedged_at_once_and_takes_its_place_under_the_cap() {
    let (terms, budget, cap) = hedging(10, Some(1));
    let mut ledger = in_flight(terms);
    let next = fail_beside(&mut ledger, 1, &end(Repeat::IfSafe), ms(1), &budget, &cap);
    assert_eq!(next, Next::Retry { number: 2, delay: Duration::ZERO });
    assert!(cap.available() < 1.0 && ledger.take_grant().unwrap().capped);
}

#[test]
fn a_fast_failure_beyond_the_cap_is_a_retry_like_any_other() {
    let (terms, budget, cap) = hedging(10, None);
    let mut ledger = in_flight(terms);
    let next = fail_beside(&mut ledger, 1, &end(Repeat::IfSafe), ms(1), &budget, &cap);
    assert!(matches!(next, Next::Retry { delay, .. } if !delay.is_zero()), "{next:?}");
    assert!(!ledger.take_grant().unwrap().capped);
}

#[test]
fn a_hedge_the_budget_refuses_keeps_its_place_under_the_cap() {
    let (terms, budget, cap) = hedging(0, Some(1));
    let mut ledger = in_flight(terms);
    let next = fail_beside(&mut ledger, 1, &end(Repeat::IfSafe), ms(1), &budget, &cap);
    assert_eq!(next, Next::GiveUp(Decline::BudgetExhausted));
    assert!((cap.available() - 1.0).abs() < 1e-9);
}

/// The first attempt was asked to wait; the hedge beside it broke, and the call forgot the wait.
#[test]
fn what_one_attempt_was_told_to_wait_binds_the_one_after_another() {
    let (terms, budget, cap) = hedging(10, Some(5));
    let mut ledger = in_flight(terms);
    ledger.hedge(ms(10), &world(&budget, &cap, &mut Rng::seeded(7))).unwrap();
    assert!(ledger.take_grant().is_some());
    ledger.launched(ms(10));
    assert_eq!(fail_beside(&mut ledger, 1, &asked(2), ms(20), &budget, &cap), Next::Wait);
    let next = fail_beside(&mut ledger, 2, &end(Repeat::IfSafe), ms(30), &budget, &cap);
    assert!(matches!(next, Next::Retry { delay, .. } if ms(30).after(delay) >= ms(2_020)), "{next:?}");
}

/// Fails attempts of a call with `end` at once, one after the other; how many were launched when
/// nothing followed.
fn launches_until_it_gives_up(terms: Terms, end: &Classified, budget: &Budget) -> (u32, Decline) {
    let mut ledger = in_flight(terms);
    for number in 1.. {
        match fail_number(number, &mut ledger, end, ms(u64::from(number)), budget) {
            Next::Retry { .. } => ledger.launched(ms(u64::from(number))),
            Next::GiveUp(why) => return (number, why),
            Next::Wait => panic!("one at a time"),
        }
    }
    unreachable!()
}

#[test]
fn what_was_never_sent_goes_over_another_connection_at_once_and_free_and_not_for_ever() {
    let (post, budget) = (Terms { safe: false, ..terms() }, budget(0));
    let mut ledger = in_flight(post);
    let next = fail(&mut ledger, &end(Repeat::Unsent), ms(1), &budget);
    assert_eq!(next, Next::Retry { number: 2, delay: Duration::ZERO });
    assert_eq!(ledger.take_grant(), None);
    let launched = launches_until_it_gives_up(post, &end(Repeat::Unsent), &budget);
    assert_eq!(launched, (17, Decline::AttemptsExhausted(17)));
}

#[test]
fn what_was_refused_unseen_is_free_too_and_waits() {
    let (post, budget) = (Terms { safe: false, ..terms() }, budget(0));
    let next = fail(&mut in_flight(post), &end(Repeat::Refused), ms(1), &budget);
    assert!(matches!(next, Next::Retry { number: 2, delay } if !delay.is_zero()), "{next:?}");
    let launched = launches_until_it_gives_up(post, &end(Repeat::Refused), &budget);
    assert_eq!(launched, (9, Decline::AttemptsExhausted(9)));
}

#[test]
fn what_nothing_proves_is_repeated_if_safe_and_free_then() {
    let post = Terms { safe: false, ..terms() };
    assert_eq!(first_end(post, &end(Repeat::Doubtful)), Next::GiveUp(Decline::NotSafe));
    let next = fail(&mut in_flight(terms()), &end(Repeat::Doubtful), ms(1), &budget(0));
    assert!(matches!(next, Next::Retry { .. }), "{next:?}");
}

#[test]
fn six_dead_connections_leave_a_call_its_four_attempts() {
    let (mut ledger, budget) = (in_flight(terms()), budget(10));
    for number in 1..=6 {
        let next = fail_number(number, &mut ledger, &end(Repeat::Unsent), ms(1), &budget);
        assert!(matches!(next, Next::Retry { .. }), "{next:?}");
        assert!(!ledger.is_last());
        ledger.launched(ms(1));
    }
    for number in 7..=9 {
        let next = fail_number(number, &mut ledger, &end(Repeat::IfSafe), ms(1), &budget);
        assert!(matches!(next, Next::Retry { .. }), "{next:?}");
        ledger.launched(ms(2));
    }
    let next = fail_number(10, &mut ledger, &end(Repeat::IfSafe), ms(1), &budget);
    assert_eq!(next, Next::GiveUp(Decline::AttemptsExhausted(10)));
    assert!((budget.available() - 7.0).abs() < 1e-9, "three retries, three tokens");
}

/// What an attempt was granted is for whoever takes its place: else one token would be spent twice,
/// or two for one.
#[test]
fn an_attempt_that_was_never_sent_leaves_its_grant_to_the_next() {
    let (mut ledger, budget) = (in_flight(terms()), budget(10));
    fail(&mut ledger, &end(Repeat::IfSafe), ms(1), &budget);
    let grant = ledger.take_grant().unwrap();
    ledger.launched(ms(30));
    let next = fail_number(2, &mut ledger, &end(Repeat::Unsent), ms(31), &budget);
    assert!(matches!(next, Next::Retry { .. }), "{next:?}");
    ledger.inherit(grant);
    assert!(ledger.take_grant().is_some());
    assert!((budget.available() - 9.0).abs() < 1e-9);
}

#[test]
fn without_retries_nothing_is_repeated_not_even_for_free() {
    for retry in [None, Some(RetryPolicy::standard().max_attempts(1).compile().unwrap())] {
        let once = Terms { retry, ..terms() };
        assert!(Ledger::new(once, START).is_last());
        assert_eq!(first_end(once, &end(Repeat::Unsent)), Next::GiveUp(Decline::RetriesOff));
    }
}

#[test]
fn an_attempt_that_was_never_sent_waits_as_long_as_another_was_told_to() {
    let (terms, budget, cap) = hedging(10, Some(5));
    let mut ledger = in_flight(terms);
    ledger.hedge(ms(10), &world(&budget, &cap, &mut Rng::seeded(7))).unwrap();
    let _ = ledger.take_grant();
    ledger.launched(ms(10));
    assert_eq!(fail_beside(&mut ledger, 1, &asked(2), ms(20), &budget, &cap), Next::Wait);
    let next = fail_beside(&mut ledger, 2, &end(Repeat::Unsent), ms(30), &budget, &cap);
    assert!(matches!(next, Next::Retry { delay, .. } if ms(30).after(delay) >= ms(2_020)), "{next:?}");
}

/// What a server and a caller may do to a call.
#[derive(Clone, Debug)]
struct Story {
    replayable: bool,
    safe: bool,
    max_attempts: Option<u32>,
    tokens: u32,
    deadline_ms: u64,
    ends: Vec<(u64, Repeat, Option<u64>)>,
    open_from: usize,
    seed: u64,
}

fn story() -> impl Strategy<Value = Story> {
    let repeat = prop_oneof![
        1 => Just(Repeat::Never),
        4 => Just(Repeat::IfSafe),
        4 => Just(Repeat::Unprocessed),
        4 => Just(Repeat::Unsent),
        2 => Just(Repeat::Refused),
        1 => Just(Repeat::Doubtful),
        1 => Just(Repeat::Once)
    ];
    let ends = prop::collection::vec((0..5_000_u64, repeat, prop::option::of(0..20_u64)), 1..20);
    let head = (any::<bool>(), any::<bool>(), prop::option::of(1..=16_u32), 0..20_u32);
    (head, 1..30_000_u64, ends, 0..30_usize, any::<u64>()).prop_map(
        |((replayable, safe, max_attempts, tokens), deadline_ms, ends, open_from, seed)| Story {
            replayable,
            safe,
            max_attempts,
            tokens,
            deadline_ms,
            ends,
            open_from,
            seed,
        },
    )
}

proptest! {
    /// Plays a whole call on a virtual clock and holds every launch against the rules, stated once
    /// more and plainly.
    #[test]
    fn no_attempt_is_launched_that_a_rule_forbids(story in story()) {
        let terms = Terms {
            deadline: ms(story.deadline_ms),
            attempt_timeout: 3_000 * MS,
            retry: story.max_attempts.map(|n| RetryPolicy::standard().max_attempts(n).compile().unwrap()),
            hedge_after: None,
            hedges: 0,
            replayable: story.replayable,
            safe: story.safe,
            obeys_retry_after: true,
            for_ready: ForReady::Never,
        };
        let (budget, mut rng) = (budget(story.tokens), Rng::seeded(story.seed));
        let mut ledger = Ledger::new(terms, START);
        let (mut now, mut launches, mut once, mut free) = (START, 0_u32, 0_u32, 0_u32);
        let (mut paid, mut inherited) = (0_u32, None);
        let mut not_before = START;
        let mut ends = story.ends.iter().cycle();
        for step in 0.. {
            prop_assert!(step < 500, "a call ends");
            let decision = ledger.decide(now);
            prop_assert_eq!(decision, ledger.decide(now), "asking changes nothing");
            match decision {
                Decision::Finish => break,
                Decision::WaitUntil(at) => {
                    prop_assert!(at > now && at <= terms.deadline);
                    now = at;
                }
                Decision::Expire { .. } | Decision::Hedge => prop_assert!(false, "attempts here end in time"),
                Decision::Launch { number, .. } => {
                    launches += 1;
                    prop_assert_eq!(number, launches);
                    prop_assert!(now < terms.deadline, "no attempt starts after the deadline");
                    prop_assert!(now >= not_before, "no attempt undercuts Retry-After");
                    // Those that nobody saw don't count, nor the one about to set out until it has
                    // been seen.
                    let seen = launches - free;
                    prop_assert!(seen <= story.max_attempts.unwrap_or(1));
                    prop_assert!(seen <= 1 + story.tokens, "every extra attempt that may be seen is paid for");
                    prop_assert!(free <= 16);
                    prop_assert!(launches == 1 || story.replayable);
                    let grant = ledger.take_grant();
                    prop_assert_eq!(grant.is_some(), seen > 1, "paid for once, however often it takes to be seen");
                    paid += u32::from(grant.is_some() && inherited.is_none());
                    prop_assert!(!ledger.is_last() || !story.replayable || seen >= story.max_attempts.unwrap_or(1));
                    ledger.launched(now);
                    let (took, repeat, asked) = ends.next().unwrap();
                    now = now.after_nanos(took.min(&2_999) * MS);
                    if now >= terms.deadline { continue; }
                    let end = Classified {
                        retry_after: asked.map(Duration::from_secs),
                        verdict: Verdict::Failure,
                        ..end(*repeat)
                    };
                    let circuit_open = launches as usize > story.open_from;
                    let cap = Cap::closed();
                    let world = World { circuit_open, ..world(&budget, &cap, &mut rng) };
                    free += u32::from(repeat.is_free());
                    let next = ledger.failed(launches, &end, now, world);
                    inherited = None;
                    if let Next::Retry { delay, .. } = next {
                        if let Some(grant) = grant && repeat.is_free() {
                            inherited = Some(());
                            ledger.inherit(grant);
                        }
                        prop_assert!(!circuit_open && *repeat != Repeat::Never);
                        prop_assert!(story.safe || !matches!(repeat, Repeat::IfSafe | Repeat::Doubtful));
                        prop_assert!(!repeat.is_free() || story.max_attempts.is_some_and(|most| most > 1));
                        once += u32::from(*repeat == Repeat::Once);
                        prop_assert!(once <= 1, "425 is repeated once");
                        prop_assert!(now.after(delay) < terms.deadline);
                        not_before = now.after(asked.map_or(Duration::ZERO, Duration::from_secs));
                    }
                }
            }
        }
        let spent = f64::from(story.tokens) - budget.available();
        let reserved = u32::from(ledger.take_grant().is_some() && inherited.is_none());
        prop_assert!((spent - f64::from(paid + reserved)).abs() < 1e-6, "no token is lost");
        prop_assert!(launches - free <= 1 + paid, "attempts that may have been processed <= calls + tokens");
    }
}
