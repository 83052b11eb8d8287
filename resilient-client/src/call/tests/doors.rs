//! What held when an attempt asked to be let in is asked again when its wait is over: at every
//! later door.

use std::time::Duration;

use tower::service_fn;

use super::network::{Network, Replica, layer};
use super::script::{answer, asks_to_wait, ms};
use super::*;
use crate::ErrorKind;
use crate::endpoints::Endpoints;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::rate_limit::RateLimitPolicy;
use crate::policy::retry::RetryPolicy;
use crate::time::now;

const SECOND: Duration = Duration::from_secs(1);

fn spawn(rig: &Rig) -> tokio::task::JoinHandle<Answer> {
    tokio::spawn(rig.start(Method::POST, CallOptions::new()))
}

fn one_at_a_time() -> BulkheadPolicy {
    BulkheadPolicy::standard().max_in_flight(1).max_queued(100)
}

/// How each of these calls was refused, and when.
async fn refusals(calls: Vec<tokio::task::JoinHandle<Answer>>) -> Vec<(ErrorKind, Duration)> {
    let (begun, mut refusals) = (now(), Vec::new());
    for call in calls {
        refusals.push((call.await.unwrap().unwrap_err().kind(), now().since(begun)));
    }
    refusals
}

/// 50 of 50 were still sent, one by one, to a server whose first answer was to leave it alone for 5
/// s.
#[tokio::test(start_paused = true)]
async fn calls_in_the_queue_fail_at_once_when_the_server_asks_for_time() {
    let rig = Rig::new(&Policy::standard().bulkhead(one_at_a_time()), [asks_to_wait(503, "5"), answer(200)]);
    let first = spawn(&rig);
    let waiting: Vec<_> = (0..50).map(|_| spawn(&rig)).collect();
    assert_eq!(first.await.unwrap().unwrap().status(), 503);
    assert_eq!(refusals(waiting).await, vec![(ErrorKind::Throttled, Duration::ZERO); 50]);
    assert_eq!((rig.script.count(), rig.in_use(), rig.queued()), (1, 0, 0));
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(rig.post().await.unwrap().status(), 200);
}

/// 20 of 20 were still sent, each in its turn.
#[tokio::test(start_paused = true)]
async fn calls_waiting_for_their_turn_in_the_rate_fail_at_once_when_the_server_asks_for_time() {
    let rate = RateLimitPolicy::new(10, SECOND).burst(1).wait(true);
    let rig = Rig::new(&Policy::standard().rate_limit(rate), [asks_to_wait(503, "5"), answer(200)]);
    let first = spawn(&rig);
    let waiting: Vec<_> = (0..20).map(|_| spawn(&rig)).collect();
    assert_eq!(first.await.unwrap().unwrap().status(), 503);
    assert_eq!(refusals(waiting).await, vec![(ErrorKind::Throttled, Duration::ZERO); 20]);
    assert_eq!((rig.script.count(), rig.in_use()), (1, 0));
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(rig.post().await.unwrap().status(), 200);
}

/// Each door by itself: nobody is woken, and what comes is refused all the same.
#[tokio::test(start_paused = true)]
async fn a_turn_or_a_place_that_comes_while_the_server_is_left_alone_is_not_taken() {
    let rate = RateLimitPolicy::new(1, SECOND).burst(1).wait(true);
    let policy = Policy::standard().rate_limit(rate).bulkhead(one_at_a_time()).retry(None);
    let slow = script::Step::Answer { after: ms(900), status: 503, retry_after: Some("5"), body: Vec::new() };
    let rig = Rig::new(&policy, [slow, answer(200)]);
    let first = spawn(&rig);
    let second = spawn(&rig);
    assert_eq!(first.await.unwrap().unwrap().status(), 503);
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    assert_eq!(rig.script.count(), 1);
}

fn start(layer: &ResilienceLayer, network: &Network) -> tokio::task::JoinHandle<Result<u16, ErrorKind>> {
    let network = network.clone();
    let mut service = layer.layer(service_fn(move |request| network.clone().answer(request)));
    tokio::spawn(async move {
        let response = service.call(Rig::request(Method::POST, CallOptions::new())).await;
        response.map(|response| response.status().as_u16()).map_err(|error| error.kind())
    })
}

#[tokio::test(start_paused = true)]
async fn with_several_endpoints_those_who_wait_go_to_the_others_while_there_are_any() {
    let policy = || Policy::standard().bulkhead(one_at_a_time()).retry(RetryPolicy::standard());
    for (second, expected) in
        [(Replica::Answers(1), Ok(200)), (Replica::Says(503, "5"), Err(ErrorKind::Throttled))]
    {
        let network = Network::of(&[("a:1", Replica::Says(503, "5")), ("b:2", second)]);
        let layer = layer(policy(), Endpoints::fixed(["http://a:1", "http://b:2"]));
        let calls: Vec<_> = (0..30).map(|_| start(&layer, &network)).collect();
        let mut ended = Vec::new();
        for call in calls {
            ended.push(call.await.unwrap());
        }
        let as_expected = ended.iter().filter(|ended| **ended == expected).count();
        assert!(as_expected >= 28, "{ended:?}");
        assert!(network.count("a:1") <= 1 && (expected.is_ok() || network.count("b:2") <= 1));
    }
}
