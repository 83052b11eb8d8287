//! Calls that wait for an open breaker rather than fail at once.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::network::{Network, Replica, layer, start, three};
use super::script::{Piece, Step, answer, ms};
use super::*;
use crate::event::Event;
use crate::policy::breaker::{BreakerPolicy, Control};
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::rate_limit::RateLimitPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;
use crate::{Endpoints, ErrorKind};

const SECOND: Duration = Duration::from_secs(1);

fn waits() -> CallOptions {
    CallOptions::new().wait_for_ready(true)
}

/// A server that refuses, and whose breaker has just opened.
async fn broken(policy: &Policy) -> Rig {
    let rig = Rig::new(policy, [Step::Refuse]);
    while rig.get().await.unwrap_err().kind() != ErrorKind::CircuitOpen {}
    rig
}

fn spawn(rig: &Rig, options: CallOptions) -> JoinHandle<Answer> {
    tokio::spawn(rig.start(Method::GET, options))
}

fn control(rig: &Rig, control: Control) {
    rig.service.breaker("http://users:3000").unwrap().control(control).unwrap();
}

fn waiting(rig: &Rig) -> usize {
    rig.core.snapshot().iter().map(|upstream| upstream.waiting_for_ready).sum()
}

/// What every waiting call must have given back in the end.
fn is_idle(rig: &Rig) -> bool {
    waiting(rig) == 0 && rig.in_use() == 0 && rig.upstream().unfinished() == 0
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_probe_it_then_is_and_says_how_long_it_waited() {
    let rig = broken(&Policy::standard()).await;
    rig.script.then([answer(200)]);
    rig.events.lock().unwrap().clear();
    let begun = now();
    let response = rig.start(Method::GET, waits()).await.unwrap();
    let waited = now().since(begun);
    assert_eq!(response.status(), 200);
    assert!(waited >= ms(200) && waited <= ms(280), "{waited:?}");
    assert!(response.body().report().queued() >= ms(200));
    drop(response);
    let events = rig.events.lock().unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::AttemptQueued { number: 1, .. })));
    assert!(events.iter().any(|event| matches!(event, Event::AttemptDequeued { admitted: true, .. })));
    assert!(!events.iter().any(|event| matches!(event, Event::Rejected { .. })));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_who_does_not_ask_to_and_the_call_has_the_last_word() {
    let asks = Policy::standard().breaker(BreakerPolicy::standard().wait_for_ready(true));
    for (policy, options, waits) in [
        (Policy::standard(), CallOptions::new(), false),
        (Policy::standard(), waits(), true),
        (asks.clone(), CallOptions::new(), true),
        (asks, CallOptions::new().wait_for_ready(false), false),
    ] {
        let rig = broken(&Policy::standard().breaker(BreakerPolicy::standard())).await;
        rig.core.reload(policy.into()).unwrap();
        rig.script.then([answer(200)]);
        let begun = now();
        let ended = rig.start(Method::GET, options).await;
        match ended {
            Ok(response) => assert!(waits && response.status() == 200),
            Err(error) => {
                assert!(!waits && error.kind() == ErrorKind::CircuitOpen, "{error}");
                assert_eq!(now(), begun);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_wait_in_line_one_probes_at_a_time_and_all_go_when_it_closes() {
    let rig = broken(&Policy::standard()).await;
    let sent = rig.script.count();
    let calls: Vec<_> = (0..100).map(|_| spawn(&rig, waits())).collect();
    sleep(ms(100)).await;
    assert_eq!((waiting(&rig), rig.in_use(), rig.script.count() - sent), (100, 0, 0));
    rig.script.then([Step::Answer { after: ms(50), status: 200, retry_after: None, body: Vec::new() }]);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    let launches = rig.script.launches().split_off(sent);
    let after: Vec<_> = launches.iter().map(|at| at.since(launches[0]).as_millis()).collect();
    // The first alone, two more when it has succeeded, and the rest when those have.
    assert_eq!((after[0], after[1], after[2], after[3], after[99]), (0, 50, 50, 100, 100));
    assert!(is_idle(&rig));
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may_and_no_longer() {
    let breaker = BreakerPolicy::standard().wait_for_ready(true).max_waiting(5).ready_wait(ms(700));
    let rig = broken(&Policy::standard().breaker(BreakerPolicy::standard())).await;
    rig.core.reload(Policy::standard().retry(None).breaker(breaker).into()).unwrap();
    control(&rig, Control::ForceOpen);
    let begun = now();
    let calls: Vec<_> = (0..6).map(|_| spawn(&rig, CallOptions::new())).collect();
    let mut took = Vec::new();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CircuitOpen);
        assert_eq!(error.retry_after(), None, "it is forced open");
        took.push(now().since(begun));
    }
    assert!(
        took.iter().all(|took| *took >= ms(700) && *took <= ms(702)),
        "the sixth was looked at last: {took:?}"
    );
    let queued = rig
        .events
        .lock()
        .unwrap()
        .iter()
        .filter(|event| matches!(event, Event::AttemptQueued { .. }))
        .count();
    assert_eq!(queued, 5);
    assert!(is_idle(&rig));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait() {
    let rig = broken(&Policy::standard()).await;
    control(&rig, Control::ForceOpen);
    let begun = now();
    let error = rig.start(Method::GET, waits().timeout(ms(150))).await.unwrap_err();
    assert_eq!((error.kind(), now().since(begun)), (ErrorKind::Deadline, ms(150)));
    assert!(is_idle(&rig));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_leaves_nothing_behind_and_the_next_moves_up() {
    let rig = broken(&Policy::standard()).await;
    let sent = rig.script.count();
    let calls: Vec<_> = (0..10).map(|_| spawn(&rig, waits())).collect();
    sleep(ms(100)).await;
    let mut calls = calls.into_iter();
    for call in calls.by_ref().take(9) {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    assert_eq!((waiting(&rig), rig.upstream().unfinished()), (1, 1));
    rig.script.then([answer(200)]);
    let last = calls.next().unwrap().await.unwrap().unwrap();
    assert_eq!((last.status().as_u16(), rig.script.count() - sent), (200, 1));
    drop(last);
    assert!(is_idle(&rig));
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_lifts_what_kept_them_out_lets_them_go_at_once() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    drop(rig.get().await.unwrap());
    control(&rig, Control::ForceOpen);
    let calls: Vec<_> = (0..20).map(|_| spawn(&rig, waits())).collect();
    sleep(ms(1_010)).await;
    assert_eq!(waiting(&rig), 20);
    let lifted = now();
    control(&rig, Control::Enable);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(now().since(lifted), ms(1));
}

/// A server that stays dead: each of those who wait probes in its turn, and each has an end.
#[tokio::test(start_paused = true)]
async fn before_a_server_that_stays_dead_every_call_ends_and_few_are_sent() {
    let rig = broken(&Policy::standard()).await;
    let (sent, begun) = (rig.script.count(), now());
    let calls: Vec<_> = (0..50).map(|_| spawn(&rig, waits())).collect();
    for call in calls {
        assert!(call.await.unwrap().is_err());
    }
    let took = now().since(begun);
    let sent = rig.script.count() - sent;
    println!("50 waiting calls before a dead server: {sent} attempts in {took:?}");
    assert!(took <= 11 * SECOND && sent <= 50, "{took:?} {sent}");
    assert!(is_idle(&rig));
}

/// It is its own calls' failures that open it: who would rather wait than fail isn't done with its
/// first attempt.
#[tokio::test(start_paused = true)]
async fn a_retry_waits_too() {
    let breaker = BreakerPolicy::standard().cold_consecutive_failures(1);
    let rig = Rig::new(&Policy::standard().breaker(breaker), [Step::Refuse, answer(200)]);
    let response = rig.start(Method::GET, waits()).await.unwrap();
    assert_eq!((response.status().as_u16(), rig.script.count()), (200, 2));
    let rig = Rig::new(
        &Policy::standard().breaker(BreakerPolicy::standard().cold_consecutive_failures(1)),
        [Step::Refuse, answer(200)],
    );
    assert!(rig.get().await.is_err(), "the control ends at once");
}

#[tokio::test(start_paused = true)]
async fn who_waits_holds_no_place_in_the_bulkhead_or_the_rate() {
    let policy = Policy::standard()
        .bulkhead(BulkheadPolicy::standard().max_in_flight(1))
        .rate_limit(RateLimitPolicy::new(10, SECOND).burst(10));
    let rig = Rig::new(&policy, [answer(200)]);
    control(&rig, Control::ForceOpen);
    let calls: Vec<_> = (0..10).map(|_| spawn(&rig, waits())).collect();
    sleep(ms(10)).await;
    assert_eq!((waiting(&rig), rig.in_use()), (10, 0));
    control(&rig, Control::Enable);
    let mut kinds: Vec<_> = Vec::new();
    for call in calls {
        kinds.push(call.await.unwrap().map_err(|error| error.kind()).err());
    }
    let refused = kinds.iter().flatten().filter(|kind| **kind == ErrorKind::BulkheadFull).count();
    assert_eq!((kinds[0], refused), (None, 9), "the bulkhead is asked when they go: {kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn with_endpoints_a_call_waits_until_one_of_them_may_be_asked() {
    let network = Network::default();
    let policy = Policy::standard().timeout(TimeoutPolicy::standard());
    let layer = layer(policy, three());
    let call = |options| start(&layer, &network, Method::GET, options);
    while call(CallOptions::new()).await.unwrap_err().kind() != ErrorKind::CircuitOpen {}
    network.set("b:2", Replica::Answers(10));
    let begun = now();
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(call(waits()))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().0, 200);
    }
    let took = now().since(begun);
    assert!(took <= SECOND, "{took:?}");
    assert_eq!(layer.snapshot()[0].waiting_for_ready, 0);
}

/// Nobody tells those who wait that there is somebody new to ask.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_new_is_asked_by_who_waits() {
    let network = Network::of(&[("new:4", Replica::Answers(10))]);
    let (endpoints, handle) = crate::Endpoints::watched();
    handle.set(["http://a:1"]).unwrap();
    let layer = layer(Policy::standard().breaker(BreakerPolicy::standard().open_for(3 * SECOND)), endpoints);
    let call = |options| start(&layer, &network, Method::GET, options);
    while call(CallOptions::new()).await.unwrap_err().kind() != ErrorKind::CircuitOpen {}
    let waiting = tokio::spawn(call(waits()));
    sleep(ms(500)).await;
    handle.set(["http://a:1", "http://new:4"]).unwrap();
    let begun = now();
    assert_eq!(waiting.await.unwrap().unwrap().0, 200);
    assert!(now().since(begun) <= ms(150), "{:?}", now().since(begun));
}

/// The poll that is dropped may be any.
#[tokio::test(start_paused = true)]
async fn a_waiting_call_dropped_after_any_poll_gives_everything_back() {
    for polls in 0..12 {
        let rig = broken(&Policy::standard()).await;
        rig.script.then([answer(200)]);
        let other = spawn(&rig, waits());
        let mut call = Box::pin(rig.start(Method::GET, waits()));
        for _ in 0..polls {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if call.as_mut().poll(&mut cx).is_ready() {
                break;
            }
            advance(ms(30)).await;
            tokio::task::yield_now().await;
        }
        drop(call);
        assert_eq!(other.await.unwrap().unwrap().status(), 200, "after {polls} polls");
        assert!(is_idle(&rig), "after {polls} polls");
    }
}

fn answers_after(millis: u64, status: u16) -> Step {
    Step::Answer { after: ms(millis), status, retry_after: None, body: Vec::new() }
}

/// Open, and with a first probe that has succeeded; two calls that are the others, under way.
async fn recovering(
    policy: &Policy,
    others: impl IntoIterator<Item = Step>,
) -> (Rig, [JoinHandle<Answer>; 2]) {
    let rig = broken(&Policy::standard()).await;
    rig.core.reload(policy.clone().into()).unwrap();
    sleep(ms(300)).await;
    rig.script.then([answer(200)]);
    rig.get().await.unwrap();
    rig.script.then(others);
    let probes = [spawn(&rig, CallOptions::new()), spawn(&rig, CallOptions::new())];
    sleep(ms(1)).await;
    (rig, probes)
}

/// They were refused for as long as the last probes took, by a server that answered.
#[tokio::test(start_paused = true)]
async fn once_a_probe_has_succeeded_calls_wait_for_the_others_unasked() {
    let (rig, probes) = recovering(&Policy::standard(), [answers_after(50, 200)]).await;
    let begun = now();
    let calls: Vec<_> = (0..20).map(|_| spawn(&rig, CallOptions::new())).collect();
    let error = rig.start(Method::GET, CallOptions::new().wait_for_ready(false)).await.unwrap_err();
    assert_eq!((error.kind(), now()), (ErrorKind::CircuitOpen, begun));
    sleep(ms(1)).await;
    assert_eq!(waiting(&rig), 20);
    rig.script.then([answer(200)]);
    for call in probes.into_iter().chain(calls) {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert!(now().since(begun) <= ms(55), "{:?}", now().since(begun));
    assert!(is_idle(&rig));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_after_all_turns_away_who_waited_for_it_at_once() {
    let policy = Policy::standard().retry(None);
    let (rig, _probes) = recovering(&policy, [answers_after(50, 503)]).await;
    let begun = now();
    let calls: Vec<_> = (0..20).map(|_| spawn(&rig, CallOptions::new())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::CircuitOpen);
    }
    assert!(now().since(begun) <= ms(50), "{:?}", now().since(begun));
    assert!(is_idle(&rig));
}

/// One who waits for all of a recovery stands before them, and stays.
#[tokio::test(start_paused = true)]
async fn who_waits_for_more_keeps_nobody_from_hearing_that_a_probe_failed() {
    let (rig, _probes) = recovering(&Policy::standard().retry(None), [answers_after(50, 503)]).await;
    let begun = now();
    let patient = spawn(&rig, waits());
    sleep(ms(1)).await;
    let calls: Vec<_> = (0..20).map(|_| spawn(&rig, CallOptions::new())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::CircuitOpen);
    }
    assert!(now().since(begun) <= ms(50), "{:?}", now().since(begun));
    assert_eq!(waiting(&rig), 1);
    rig.script.then([answer(200)]);
    assert_eq!(patient.await.unwrap().unwrap().status(), 200);
}

/// Its head was well: what opens the breaker again is its body.
#[tokio::test(start_paused = true)]
async fn a_probes_body_that_fails_turns_away_who_waited_at_once() {
    use http_body_util::BodyExt as _;
    let (rig, [_silent, probe]) = recovering(
        &Policy::standard().retry(None),
        [
            Step::Hang,
            Step::Answer { after: ms(50), status: 200, retry_after: None, body: vec![Piece::Break] },
        ],
    )
    .await;
    rig.script.then([Step::Hang]);
    let begun = now();
    let calls: Vec<_> = (0..20).map(|_| spawn(&rig, CallOptions::new())).collect();
    let response = probe.await.unwrap().unwrap();
    assert!(response.into_body().collect().await.is_err());
    for call in calls {
        assert!(call.await.unwrap().is_err());
    }
    assert!(now().since(begun) <= ms(52), "{:?}", now().since(begun));
}

#[tokio::test(start_paused = true)]
async fn who_did_not_ask_to_wait_keeps_nobody_from_a_place_who_did() {
    let breaker = BreakerPolicy::standard().max_waiting(5);
    let (rig, probes) = recovering(&Policy::standard().breaker(breaker), [answers_after(50, 200)]).await;
    let unasked: Vec<_> = (0..6).map(|_| spawn(&rig, CallOptions::new())).collect();
    sleep(ms(1)).await;
    assert_eq!(waiting(&rig), 5, "as many of each kind as may");
    let asked = spawn(&rig, waits());
    sleep(ms(1)).await;
    assert_eq!(waiting(&rig), 6);
    rig.script.then([answer(200)]);
    let mut served = 0;
    for call in unasked {
        served += usize::from(call.await.unwrap().is_ok());
    }
    assert_eq!(served, 5);
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    for probe in probes {
        assert_eq!(probe.await.unwrap().unwrap().status(), 200);
    }
    assert!(is_idle(&rig));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_probes_that_hang_or_for_more_than_half_of_its_time() {
    let (rig, _probes) = recovering(&Policy::standard(), [Step::Hang]).await;
    for (options, longest) in
        [(CallOptions::new(), 250), (CallOptions::new().timeout(ms(100)), 50), (CallOptions::new(), 250)]
    {
        let begun = now();
        let error = rig.start(Method::GET, options).await.unwrap_err();
        assert_eq!((error.kind(), now().since(begun)), (ErrorKind::CircuitOpen, ms(longest)));
    }
    let call = spawn(&rig, CallOptions::new());
    sleep(ms(10)).await;
    call.abort();
    sleep(ms(1)).await;
    assert_eq!(waiting(&rig), 0);
}

/// They slept for a quarter of a second, and were refused, while the next call to come was let in.
#[tokio::test(start_paused = true)]
async fn when_the_last_probes_expire_one_that_waits_goes_in_their_place_at_once() {
    let breaker = BreakerPolicy::standard().probe_timeout(ms(100));
    let (rig, _probes) = recovering(&Policy::standard().breaker(breaker), [Step::Hang]).await;
    let begun = now();
    rig.script.then([answers_after(20, 200)]);
    let calls: Vec<_> = (0..5).map(|_| spawn(&rig, CallOptions::new())).collect();
    let (mut served, mut refused) = (Vec::new(), 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => served.push(now().since(begun)),
            Err(error) => refused += usize::from(error.kind() == ErrorKind::CircuitOpen),
        }
    }
    assert_eq!(refused, 4, "nothing is known any more");
    assert!(served.len() == 1 && served[0] <= ms(125), "{served:?}");
    assert!(now().since(begun) <= ms(125), "{:?}", now().since(begun));
}

#[tokio::test(start_paused = true)]
async fn so_it_does_when_an_endpoints_last_probes_expire() {
    let network = Network::of(&[("a:1", Replica::Refuses)]);
    let breaker = BreakerPolicy::standard().probe_timeout(ms(100));
    let layer = layer(Policy::standard().hedge(None).breaker(breaker), Endpoints::fixed(["http://a:1"]));
    let get = |options| start(&layer, &network, Method::GET, options);
    while get(CallOptions::new()).await.unwrap_err().kind() != ErrorKind::CircuitOpen {}
    network.set("a:1", Replica::Answers(5));
    while get(CallOptions::new()).await.is_err() {
        sleep(ms(1)).await;
    }
    // Two more have to succeed, and hang.
    network.set("a:1", Replica::Hangs);
    let mut probes = tokio::task::JoinSet::new();
    for _ in 0..2 {
        probes.spawn(get(CallOptions::new()));
    }
    sleep(ms(10)).await;
    network.set("a:1", Replica::Answers(5));
    let begun = now();
    assert!(get(CallOptions::new()).await.is_ok(), "after {:?}", now().since(begun));
    assert!(now().since(begun) <= ms(100), "{:?}", now().since(begun));
}

#[tokio::test(start_paused = true)]
async fn behind_a_name_they_wait_for_the_endpoint_that_answers_again() {
    let network = Network::of(&["a:1", "b:2", "c:3"].map(|authority| (authority, Replica::Refuses)));
    let layer = layer(Policy::standard().hedge(None), three());
    let get = || start(&layer, &network, Method::GET, CallOptions::new());
    while get().await.unwrap_err().kind() != ErrorKind::CircuitOpen {}
    network.set("b:2", Replica::Answers(20));
    // One call a millisecond.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let (begun, call) = (now(), get());
        calls.spawn(async move { (begun, call.await.is_ok(), now()) });
        sleep(ms(1)).await;
    }
    let ended = calls.join_all().await;
    let proven = ended.iter().filter(|(_, served, _)| *served).map(|(.., at)| *at).min().unwrap();
    assert!(ended.iter().any(|(_, served, _)| !served), "as long as it was open");
    assert!(ended.iter().all(|(begun, served, _)| *served || *begun < proven));
}
