//! What the overload limit does to single calls: who waits, who is refused, and what is said of it.

use super::script::{Piece, answer, answer_with, ms};
use super::*;
use crate::ErrorKind;
use crate::endpoints::Endpoints;
use crate::policy::overload::OverloadPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;

fn short() -> Policy {
    Policy::standard().timeout(TimeoutPolicy::standard().attempt(ms(500)))
}

fn in_flight(rig: &Rig) -> u32 {
    rig.core.snapshot()[0].overload.expect("it is on").in_flight
}

/// An attempt is in flight as long as its timeout runs: to the head, or to the end where the body
/// is part of it.
#[tokio::test(start_paused = true)]
async fn an_open_stream_takes_no_place_and_a_body_read_within_the_attempt_does() {
    let slow = vec![Piece::Data("a".into()), Piece::Pause(ms(300)), Piece::Data("b".into())];
    let rig = Rig::new(&short(), [answer_with(200, slow)]);
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(rig.get().await.unwrap());
    }
    assert_eq!((rig.in_use(), in_flight(&rig)), (50, 0), "a slot of the bulkhead is all a body has");
    let call = tokio::spawn(rig.start(Method::GET, CallOptions::new().buffered(100)));
    tokio::time::sleep(ms(100)).await;
    assert_eq!(in_flight(&rig), 1);
    assert_eq!(text(call.await.unwrap().unwrap()).await.unwrap(), "ab");
    assert_eq!(in_flight(&rig), 0);
    drop(open);
    assert_eq!(rig.in_use(), 0);
}

/// Calls that set out together; how they ended.
async fn together(rig: &Rig, calls: usize, options: &CallOptions) -> Vec<Answer> {
    let calls: Vec<_> = (0..calls).map(|_| tokio::spawn(rig.start(Method::GET, options.clone()))).collect();
    let mut ended = Vec::new();
    for call in calls {
        ended.push(call.await.unwrap());
    }
    ended
}

fn slow(millis: u64) -> script::Step {
    script::Step::Answer { after: ms(millis), status: 200, retry_after: None, body: Vec::new() }
}

/// In force with the least limit: after quick calls some that take nearly all of their time.
async fn overloaded(policy: &Policy) -> Rig {
    let rig = Rig::new(policy, [answer(200)]);
    for _ in 0..200 {
        rig.get().await.unwrap();
    }
    rig.script.then([slow(450)]);
    for _ in 0..2 {
        together(&rig, 20, &CallOptions::new()).await;
    }
    assert!(rig.core.snapshot()[0].overload.unwrap().limit.is_some_and(|limit| limit < 50));
    rig
}

fn limits(rig: &Rig) -> Vec<Option<u32>> {
    let limit = |event: &Event| if let Event::OverloadLimit { limit } = event { Some(*limit) } else { None };
    rig.events.lock().unwrap().iter().filter_map(limit).collect()
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_waits_then_is_refused_and_the_end_is_told() {
    let rig = overloaded(&short()).await;
    let ended = together(&rig, 300, &CallOptions::new()).await;
    let refused: Vec<_> = ended.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.len() < 250, "{}", refused.len());
    assert!(refused.iter().all(|error| error.kind() == ErrorKind::Overloaded && error.is_rejected()));
    assert!(
        refused[0].to_string().contains("the server is overloaded: waited 1.0s for a place"),
        "{}",
        refused[0]
    );
    rig.script.then([answer(200)]);
    for _ in 0..100 {
        rig.get().await.unwrap();
    }
    let told = limits(&rig);
    assert!(matches!(*told, [Some(_), None]), "{told:?}");
    assert_eq!((in_flight(&rig), rig.queued(), rig.in_use()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_wait_is_refused_at_once_and_who_has_less_time_waits_less() {
    let rig = overloaded(&short().overload(OverloadPolicy::standard().max_waiting(0)).retry(None)).await;
    let begun = now();
    let ended = together(&rig, 100, &CallOptions::new()).await;
    assert!(
        ended.iter().any(|answer| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Overloaded))
    );
    assert_eq!(now().since(begun), ms(450), "nobody waited");
}

#[tokio::test(start_paused = true)]
async fn one_that_only_observes_refuses_nobody_and_says_whom_it_would_have() {
    let rig = overloaded(&short().overload(OverloadPolicy::standard().observe_only(true))).await;
    let ended = together(&rig, 200, &CallOptions::new()).await;
    assert!(ended.iter().all(Result::is_ok));
    let would = |event: &Event| {
        matches!(event, Event::WouldReject { rejection: crate::Rejection::Overloaded { .. } })
    };
    assert!(rig.events.lock().unwrap().iter().filter(|event| would(event)).count() > 100);
    assert_eq!(in_flight(&rig), 0);
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_host_share_its_limit_and_a_reload_lifts_it() {
    let rig = overloaded(&short().retry(None).overload(OverloadPolicy::standard().max_waiting(0))).await;
    let ended = together(&rig, 100, &CallOptions::new().key("tenant")).await;
    assert!(ended.iter().any(Result::is_err), "found without a key");
    rig.core.reload(short().overload(None).into()).unwrap();
    let ended = together(&rig, 100, &CallOptions::new().key("tenant")).await;
    assert!(ended.iter().all(Result::is_ok));
    assert!(rig.core.snapshot().iter().all(|upstream| upstream.overload.is_none()));
}

#[tokio::test(start_paused = true)]
async fn without_an_attempt_timeout_there_is_no_limit() {
    let mut timeout = TimeoutPolicy::standard();
    timeout.attempt = None;
    let rig = Rig::new(&Policy::standard().timeout(timeout), [answer(200)]);
    for _ in 0..100 {
        rig.get().await.unwrap();
    }
    rig.script.then([slow(9_000)]);
    assert!(together(&rig, 100, &CallOptions::new()).await.iter().all(Result::is_ok));
    assert!(limits(&rig).is_empty());
}

/// One of three is slow beyond use. Its limit is its own.
#[tokio::test(start_paused = true)]
async fn a_slow_replica_of_three_makes_no_call_wait() {
    use super::network::{Network, Replica};
    let network = Network::of(&[
        ("a:1", Replica::Answers(5)),
        ("b:2", Replica::Answers(5)),
        ("c:3", Replica::Answers(5)),
    ]);
    let endpoints =
        vec![("http://users:3000".to_owned(), Endpoints::fixed(["http://a:1", "http://b:2", "http://c:3"]))];
    let heard = Arc::<Mutex<Vec<Event>>>::default();
    let hears = Arc::clone(&heard);
    let observers: Vec<Arc<dyn Observer>> =
        vec![Arc::new(move |_: &str, event: &Event| hears.lock().unwrap().push(event.clone()))];
    let setup = Setup {
        policies: short().into(),
        endpoints,
        observers,
        entropy: Entropy::seeded(3),
        ..Setup::default()
    };
    let core = Arc::new(Core::new(setup).unwrap());
    let served = network.clone();
    let service = ResilienceLayer::of(Arc::clone(&core))
        .layer(tower::service_fn(move |request| served.clone().answer(request)));
    let mut running = tokio::task::JoinSet::new();
    for n in 0..3_000 {
        if n == 1_000 {
            network.set("c:3", Replica::Answers(450));
        }
        let mut service = service.clone();
        running
            .spawn(async move { service.call(Rig::request(Method::GET, CallOptions::new())).await.is_ok() });
        tokio::time::sleep(ms(2)).await;
    }
    assert!(running.join_all().await.into_iter().all(|good| good));
    let waited =
        heard.lock().unwrap().iter().filter(|event| matches!(event, Event::AttemptQueued { .. })).count();
    assert_eq!(waited, 0);
}

/// With all of them overloaded calls wait in one line, for whichever has a place first.
#[tokio::test(start_paused = true)]
async fn with_every_replica_overloaded_calls_wait_for_the_first_that_has_a_place() {
    use super::network::{Network, Replica};
    let network = Network::of(&[("a:1", Replica::Answers(5)), ("b:2", Replica::Answers(5))]);
    let endpoints = vec![("http://users:3000".to_owned(), Endpoints::fixed(["http://a:1", "http://b:2"]))];
    let setup =
        Setup { policies: short().into(), endpoints, entropy: Entropy::seeded(3), ..Setup::default() };
    let core = Arc::new(Core::new(setup).unwrap());
    let served = network.clone();
    let service = ResilienceLayer::of(Arc::clone(&core))
        .layer(tower::service_fn(move |request| served.clone().answer(request)));
    let call = || service.clone().call(Rig::request(Method::GET, CallOptions::new()));
    for _ in 0..400 {
        call().await.unwrap();
    }
    for replica in ["a:1", "b:2"] {
        network.set(replica, Replica::Answers(450));
    }
    let several = |count: usize| (0..count).map(|_| tokio::spawn(call())).collect::<Vec<_>>();
    let mut calls = Vec::new();
    for _ in 0..150 {
        calls.push(tokio::spawn(call()));
        tokio::time::sleep(ms(5)).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let endpoints = core.snapshot()[0].endpoints.clone();
    assert!(endpoints.iter().all(|endpoint| endpoint.overload.limit.is_some()), "{endpoints:?}");
    let calls = several(200);
    tokio::time::sleep(ms(10)).await;
    assert!(core.snapshot()[0].queued > 0);
    for endpoint in &core.snapshot()[0].endpoints {
        assert!(
            endpoint.overload.limit.is_none_or(|limit| endpoint.overload.in_flight <= limit),
            "{endpoint:?}"
        );
    }
    // One is well again: who waits goes there.
    network.set("a:1", Replica::Answers(5));
    let mut good = 0;
    for call in calls {
        good += usize::from(call.await.unwrap().is_ok());
    }
    assert!(good >= 190, "{good}");
    assert_eq!((core.snapshot()[0].queued, core.snapshot()[0].in_flight), (0, 0));
}
