//! What belongs to a host and isn't multiplied by keys and routes; and what is left when the
//! registry is full.

use std::time::Duration;

use http_body_util::Empty;
use tower::service_fn;

use super::script::{Step, answer, asks_to_wait, ms};
use super::*;
use crate::ErrorKind;
use crate::endpoints::Endpoints;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::concurrency::ConcurrencyPolicy;
use crate::policy::rate_limit::RateLimitPolicy;
use crate::policy::throttle::ThrottlePolicy;

const SECOND: Duration = Duration::from_secs(1);
const USERS: &str = "http://users:3000";

fn key(n: usize) -> CallOptions {
    CallOptions::new().key(format!("tenant {n}"))
}

fn slow(after: Duration) -> Step {
    Step::Answer { after, status: 200, retry_after: None, body: Vec::new() }
}

async fn sent(rig: &Rig, calls: impl IntoIterator<Item = CallOptions>) -> usize {
    let before = rig.script.count();
    for options in calls {
        drop(rig.start(Method::GET, options).await);
    }
    rig.script.count() - before
}

#[tokio::test(start_paused = true)]
async fn keys_share_their_hosts_rate() {
    let rig = Rig::new(&Policy::standard().rate_limit(RateLimitPolicy::new(10, SECOND)), [answer(200)]);
    assert_eq!(sent(&rig, (0..50).map(|n| key(n % 5))).await, 10, "not 50");
}

#[tokio::test(start_paused = true)]
async fn a_route_with_a_rate_of_its_own_has_it_in_place_of_its_hosts_and_other_routes_share() {
    let rate = |n| RateLimitPolicy::new(n, Duration::from_secs(3600));
    let set = |own: Option<u32>| {
        PolicySet::new(Policy::standard().rate_limit(rate(10))).route(USERS, "*", "/users/{id}", |host| {
            let host = host.breaker(BreakerPolicy::standard().probes(1));
            if let Some(own) = own { host.rate_limit(rate(own)) } else { host }
        })
    };
    for (own, route, key_after) in [(None, 10, 0), (Some(3), 3, 10)] {
        let rig = Rig::with(set(own), None, [answer(200)]);
        assert_eq!(sent(&rig, (0..20).map(|_| CallOptions::new())).await, route, "{own:?}");
        assert_eq!(sent(&rig, (0..20).map(key)).await, key_after, "{own:?}");
    }
    // A reload takes the route's own away, and gives it again.
    let rig = Rig::with(set(Some(3)), None, [answer(200)]);
    assert_eq!(sent(&rig, (0..5).map(|_| CallOptions::new())).await, 3);
    rig.core.reload(set(None)).unwrap();
    assert_eq!(sent(&rig, (0..20).map(|_| CallOptions::new())).await, 10);
    rig.core.reload(set(Some(3))).unwrap();
    assert_eq!(sent(&rig, (0..5).map(|_| CallOptions::new())).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_wait_is_asked_by_no_other_key() {
    let rig = Rig::new(&Policy::standard().retry(None), [asks_to_wait(503, "3")]);
    assert_eq!(sent(&rig, (0..5).map(key)).await, 1);
    let error = rig.start(Method::GET, key(7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert_eq!(sent(&rig, [CallOptions::new()]).await, 0, "nor without a key");
}

#[tokio::test(start_paused = true)]
async fn keys_share_their_hosts_throttle() {
    let policy = Policy::standard().retry(None).breaker(None).throttle(ThrottlePolicy::standard());
    let rig = Rig::new(&policy, [answer(503)]);
    sent(&rig, (0..50).map(key)).await;
    let sent = sent(&rig, (50..150).map(key)).await;
    assert!(sent < 20, "{sent} of 100 sent to a server that accepts none");
}

fn four() -> Policy {
    let adaptive = ConcurrencyPolicy::gradient().initial(4).min(4).max(4);
    Policy::standard().concurrency(adaptive).bulkhead(BulkheadPolicy::standard().max_in_flight(50))
}

#[tokio::test(start_paused = true)]
async fn keys_share_the_limit_that_is_found_for_their_host() {
    let rig = Rig::new(&four(), [slow(SECOND)]);
    let calls: Vec<_> = (0..20).map(|n| tokio::spawn(rig.start(Method::GET, key(n % 5)))).collect();
    tokio::time::sleep(ms(500)).await;
    assert_eq!((rig.script.count(), rig.in_use()), (4, 4));
    let mut full = 0;
    for call in calls {
        full += usize::from(call.await.unwrap().is_err_and(|error| error.kind() == ErrorKind::BulkheadFull));
    }
    assert_eq!((full, rig.in_use()), (16, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slot_goes_back_where_it_came_from_whatever_a_reload_says_meanwhile() {
    let fixed = || four().concurrency(None);
    for (before, after) in [(four(), fixed()), (fixed(), four())] {
        let rig = Rig::new(&before, [slow(SECOND)]);
        let call = tokio::spawn(rig.start(Method::GET, key(1)));
        tokio::time::sleep(ms(500)).await;
        rig.core.reload(after.clone().into()).unwrap();
        drop(call.await.unwrap().unwrap());
        for policy in [before, after] {
            rig.core.reload(policy.into()).unwrap();
            assert!(rig.core.snapshot().iter().all(|upstream| upstream.in_flight == 0));
        }
    }
}

/// Two calls of a route in a row, the second turned away further on: what it gives back is its
/// host's, though the route has been given a rate of its own meanwhile.
#[tokio::test(start_paused = true)]
async fn a_place_in_the_rate_goes_back_where_it_came_from_whatever_a_reload_says_meanwhile() {
    let rate = |burst| RateLimitPolicy::new(1, Duration::from_secs(3600)).burst(burst);
    let queue = BulkheadPolicy::standard().max_in_flight(1).max_queued(1).queue_wait(ms(500));
    let base = || Policy::standard().retry(None).rate_limit(rate(10));
    let set = |own: bool| {
        PolicySet::new(base()).route(USERS, "*", "/users/{id}", |host| {
            let host = host.bulkhead(queue.clone());
            if own { host.rate_limit(rate(9)) } else { host }
        })
    };
    let rig = Rig::with(set(false), None, [slow(SECOND), answer(200)]);
    let first = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
    tokio::time::sleep(ms(10)).await;
    let second = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
    tokio::time::sleep(ms(10)).await;
    rig.core.reload(set(true)).unwrap();
    let refused = second.await.unwrap().unwrap_err();
    assert!(refused.is_rejected(), "{refused}");
    drop(first.await);
    assert_eq!(sent(&rig, (0..20).map(key)).await, 9, "one of the host's ten was used");
}

#[tokio::test(start_paused = true)]
async fn a_key_equal_to_a_routes_name_does_not_share_its_breaker() {
    let set = PolicySet::new(Policy::standard().retry(None)).route(USERS, "GET", "/users/{id}", |host| {
        host.breaker(BreakerPolicy::standard().cold_consecutive_failures(1))
    });
    let rig = Rig::with(set, None, [answer(500), answer(500), answer(200)]);
    rig.get().await.unwrap();
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    let keyed = rig.start(Method::GET, CallOptions::new().key("GET /users/{id}")).await;
    assert_eq!(keyed.unwrap().status(), 500);
    let names: Vec<_> = rig.core.snapshot().iter().map(|upstream| upstream.name.to_string()).collect();
    let [route, key] = ["http://users:3000 GET /users/{id}", "http://users:3000 \"GET /users/{id}\""];
    assert_eq!(names, [USERS, key, route]);
}

/// A layer round a service that notes whom it was asked for, and whose answers take a second.
fn noting(setup: Setup) -> (ResilienceLayer, Arc<Mutex<Vec<String>>>, impl Fn(&str) -> Calling) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let layer = ResilienceLayer::of(Arc::new(Core::new(setup).unwrap()));
    let service = {
        let asked = Arc::clone(&asked);
        layer.layer(service_fn(move |request: Request<String>| {
            asked.lock().unwrap().push(request.uri().authority().unwrap().to_string());
            async {
                tokio::time::sleep(SECOND).await;
                Ok::<_, std::io::Error>(Response::new(Empty::<bytes::Bytes>::new()))
            }
        }))
    };
    let call = move |uri: &str| {
        let call = service.clone().call(Request::get(uri).body(String::new()).unwrap());
        tokio::spawn(async move { call.await.map(|response| response.status().as_u16()) })
    };
    (layer, asked, call)
}

type Calling = tokio::task::JoinHandle<Result<u16, Error>>;

/// A literal call to the name, as if it were a host.
#[tokio::test(start_paused = true)]
async fn a_name_with_endpoints_keeps_them_when_the_registry_is_full() {
    let endpoints = Endpoints::fixed(["http://10.0.0.1:80", "http://10.0.0.2:80"]);
    let setup = Setup { max_upstreams: 1, endpoints: vec![(USERS.into(), endpoints)], ..Setup::default() };
    let (layer, asked, call) = noting(setup);
    let busy = call("http://busy/");
    tokio::time::sleep(ms(1)).await;
    for _ in 0..4 {
        call("http://users:3000/").await.unwrap().unwrap();
    }
    busy.await.unwrap().unwrap();
    let asked = asked.lock().unwrap();
    assert!(!asked.contains(&"users:3000".to_owned()), "{asked:?}");
    let snapshot = layer.snapshot();
    let users = snapshot.iter().find(|upstream| &*upstream.name == USERS).unwrap();
    assert_eq!(users.endpoints.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_without_a_place_are_counted_and_drained_and_a_named_host_keeps_its_limits() {
    let rate = RateLimitPolicy::new(2, Duration::from_secs(3600));
    let policies = PolicySet::new(Policy::standard()).host(USERS, |policy| policy.rate_limit(rate));
    let (layer, asked, call) = noting(Setup { policies, max_upstreams: 1, ..Setup::default() });
    let mut calls = vec![call("http://busy/"), call("http://x/"), call("http://y/")];
    calls.extend((0..3).map(|_| call("http://users:3000/")));
    tokio::time::sleep(ms(1)).await;
    let names = |layer: &ResilienceLayer| -> Vec<(String, u64)> {
        layer.snapshot().iter().map(|upstream| (upstream.name.to_string(), upstream.calls)).collect()
    };
    let expected = [("http://busy", 1), (USERS, 2), ("overflow", 2)];
    assert_eq!(names(&layer), expected.map(|(name, calls)| (name.to_owned(), calls)));
    assert_eq!(layer.drain(ms(100)).await, 5);
    assert_eq!(layer.drain(SECOND).await, 0);
    let mut limited = 0;
    for call in calls {
        limited += u32::from(call.await.unwrap().is_err());
    }
    assert_eq!((limited, asked.lock().unwrap().len(), names(&layer).len()), (1, 5, 2));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_made_and_forgotten_says_so_outside_every_lock() {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let note = Arc::clone(&heard);
    let core = Arc::new(std::sync::OnceLock::<Arc<Core>>::new());
    let reloads = Arc::clone(&core);
    let observer = move |upstream: &str, event: &Event| {
        let what = match event {
            Event::UpstreamMade { kept } => format!("{upstream} made, kept: {kept}"),
            Event::UpstreamForgotten { unused_for } => format!("{upstream} forgotten after {unused_for:?}"),
            _ => return,
        };
        note.lock().unwrap().push(what);
        // Takes the locks of the whole registry.
        reloads.get().unwrap().reload(Policy::standard().into()).unwrap();
    };
    let observers: Vec<Arc<dyn Observer>> = vec![Arc::new(observer)];
    let made = Arc::new(Core::new(Setup { observers, max_upstreams: 1, ..Setup::default() }).unwrap());
    core.set(Arc::clone(&made)).ok().unwrap();
    let enter = |uri: &str| made.upstream_of(&Authority::of_uri(&uri.parse().unwrap()));
    let a = enter("http://a/");
    assert!(a.enter());
    enter("http://b/");
    a.leave();
    tokio::time::advance(SECOND).await;
    enter("http://c/");
    let expected = [
        "http://a made, kept: true",
        "http://b made, kept: false",
        "http://a forgotten after 1s",
        "http://c made, kept: true",
    ];
    assert_eq!(*heard.lock().unwrap(), expected);
}
