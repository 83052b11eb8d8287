//! Many endpoints behind one name: where attempts go, and what one bad replica costs.

use std::time::Duration;

use tower::service_fn;

use super::script::ms;
use super::*;
use crate::ErrorKind;
use crate::endpoints::{Endpoints, EndpointsHandle, Resolve, Resolving};
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::BreakerPolicy;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::retry::RetryPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::rng::Rng;
use crate::testkit::network::{NAME, Network, Replica, layer, start, three};
use crate::time::now;

const SECOND: Duration = Duration::from_secs(1);

/// One call, whether it was answered with a 200, and how long it took.
async fn call(layer: &ResilienceLayer, network: &Network) -> Result<(u16, crate::CallReport), Error> {
    start(layer, network, Method::GET, CallOptions::new()).await
}

#[derive(Debug)]
struct Seen {
    success: f64,
    p99: Duration,
}

/// 200 calls a second on average for `seconds`, and how they went.
async fn drive(layer: &ResilienceLayer, network: &Network, seconds: u64) -> Seen {
    let mut rng = Rng::seeded(11);
    let (mut calls, start, mut next) = (Vec::new(), now(), Duration::ZERO);
    for _ in 0..200 * seconds {
        let (layer, network, begun) = (layer.clone(), network.clone(), now());
        calls.push(tokio::spawn(async move {
            let ok = matches!(call(&layer, &network).await, Ok((200, _)));
            ok.then(|| now().since(begun))
        }));
        // Timers tick in milliseconds: a wait for each gap would round every one of them up.
        next += Duration::from_secs_f64(-(1.0 - rng.unit()).ln() / 200.0);
        tokio::time::sleep(next.saturating_sub(now().since(start))).await;
    }
    let all = calls.len();
    let mut took = Vec::new();
    for call in calls {
        took.extend(call.await.unwrap());
    }
    took.sort_unstable();
    let p99 = took.get(all * 99 / 100).copied().unwrap_or(Duration::MAX);
    Seen { success: took.len() as f64 / all as f64, p99 }
}

#[tokio::test(start_paused = true)]
async fn attempts_go_to_the_endpoints_and_the_report_says_which() {
    let network = Network::of(&[
        ("a:1", Replica::Answers(5)),
        ("b:2", Replica::Answers(5)),
        ("c:3", Replica::Answers(5)),
    ]);
    let layer = layer(Policy::standard(), three());
    drive(&layer, &network, 10).await;
    for replica in ["a:1", "b:2", "c:3"] {
        let share = network.share(replica);
        assert!((share - 1.0 / 3.0).abs() < 0.07, "{replica}: {share}");
    }
    let (_, report) = call(&layer, &network).await.unwrap();
    let endpoint = report.attempts()[0].endpoint().unwrap().to_string();
    assert!(report.to_string().contains(&format!(" to {endpoint}, ")), "{report}");
    assert_eq!(report.upstream(), NAME);
    assert_eq!(network.asked.lock().unwrap()[0].1, None, "a listed endpoint goes by its own name");
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_elsewhere_first() {
    let network =
        Network::of(&[("a:1", Replica::Fails(1)), ("b:2", Replica::Fails(1)), ("c:3", Replica::Fails(1))]);
    let policy = Policy::standard().retry(RetryPolicy::standard().max_attempts(3));
    let (status, report) = call(&layer(policy, three()), &network).await.unwrap();
    assert_eq!(status, 503);
    let mut went: Vec<_> =
        report.attempts().iter().map(|attempt| attempt.endpoint().unwrap().to_string()).collect();
    went.sort_unstable();
    assert_eq!(went, ["http://a:1", "http://b:2", "http://c:3"]);
}

/// The wish of one held for all that the call had tried, and so it ended there.
#[tokio::test(start_paused = true)]
async fn who_asked_for_time_is_left_alone_and_who_did_not_is_asked_again() {
    for _ in 0..20 {
        let network = Network::of(&[("a:1", Replica::Says(429, "60")), ("b:2", Replica::Fails(1))]);
        let two = Endpoints::fixed(["http://a:1", "http://b:2"]);
        let (status, report) = call(&layer(Policy::standard(), two), &network).await.unwrap();
        assert_eq!(status, 503, "{report}");
        assert_eq!((network.count("a:1"), network.count("b:2")), (1, 3), "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_elsewhere() {
    let network = Network::of(&[("a:1", Replica::Hangs), ("b:2", Replica::Hangs)]);
    let policy = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(20))));
    let layer = layer(policy, Endpoints::fixed(["http://a:1", "http://b:2"]));
    let calling = tokio::spawn({
        let (layer, network) = (layer.clone(), network.clone());
        async move { call(&layer, &network).await }
    });
    tokio::time::sleep(ms(100)).await;
    assert_eq!((network.count("a:1"), network.count("b:2")), (1, 1));
    calling.abort();
}

/// "3 replicas with one hung: success >= 99.9 %, p99 <= 1.5 x healthy after the first second." The
/// control is one name without balancing over the same replicas in turn.
#[tokio::test(start_paused = true)]
async fn one_hung_replica_of_three_costs_next_to_nothing() {
    let timeout = TimeoutPolicy::standard().attempt(ms(500)).total(SECOND * 3);
    let policy = Policy::standard().timeout(timeout).hedge(HedgePolicy::standard());
    let healthy =
        [("a:1", Replica::Answers(10)), ("b:2", Replica::Answers(10)), ("c:3", Replica::Answers(10))];
    let network = Network::of(&healthy);
    let layer = layer(policy, three());
    let before = drive(&layer, &network, 10).await;
    network.set("b:2", Replica::Hangs);
    let first = drive(&layer, &network, 1).await;
    let after = drive(&layer, &network, 20).await;
    println!("3 replicas: healthy {before:?}, the second in which one hangs {first:?}, after it {after:?}");
    assert!(first.success >= 0.99, "{first:?}");
    assert!(after.success >= 0.999 && after.p99 <= before.p99.mul_f64(1.5), "{after:?} {before:?}");
    // It comes back, slowly at first.
    network.set("b:2", Replica::Answers(10));
    drive(&layer, &network, 30).await;
    network.asked.lock().unwrap().clear();
    drive(&layer, &network, 10).await;
    assert!(network.share("b:2") > 0.2, "{}", network.share("b:2"));
}

/// "One replica refusing at once attracts no extra traffic (within 1.2 x fair share)", with
/// breakers and without.
#[tokio::test(start_paused = true)]
async fn a_replica_that_refuses_at_once_attracts_no_traffic() {
    for breaker in [Some(BreakerPolicy::standard()), None] {
        let network = Network::of(&[
            ("a:1", Replica::Answers(10)),
            ("b:2", Replica::Refuses),
            ("c:3", Replica::Answers(10)),
        ]);
        let layer = layer(Policy::standard().breaker(breaker.clone()), three());
        let seen = drive(&layer, &network, 20).await;
        println!(
            "one refuses, breaker {}: {seen:?}, its share {:.3}",
            breaker.is_some(),
            network.share("b:2")
        );
        assert!(network.share("b:2") <= 1.2 / 3.0, "{}", network.share("b:2"));
        assert!(seen.success >= 0.999, "{seen:?}");
    }
}

/// A call that drew a newcomer and a slow endpoint went to the slow one whenever the newcomer
/// didn't stand yet, which is nine times of ten at first, whatever was known of it.
#[tokio::test(start_paused = true)]
async fn while_one_starts_slowly_a_slow_one_takes_no_more() {
    let network = Network::of(&[
        ("a:1", Replica::Answers(10)),
        ("b:2", Replica::Answers(10)),
        ("c:3", Replica::Answers(10)),
    ]);
    let (endpoints, handle) = Endpoints::watched();
    handle.set(["http://a:1", "http://c:3"]).unwrap();
    let layer = layer(Policy::standard(), endpoints);
    drive(&layer, &network, 5).await;
    network.set("c:3", Replica::Answers(150));
    drive(&layer, &network, 2).await;

    handle.set(["http://a:1", "http://b:2", "http://c:3"]).unwrap();
    network.asked.lock().unwrap().clear();
    let seen = drive(&layer, &network, 5).await;
    let shares = ["a:1", "b:2", "c:3"].map(|replica| network.share(replica));
    println!("b starts slowly, c is slow: shares {shares:.3?}, {seen:?}");
    assert!(shares[2] <= 0.1, "{shares:?}");
    assert!(shares[1] <= 0.3, "it starts slowly still: {shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_can_be_replaced_and_who_leaves_finishes_what_it_has() {
    let (endpoints, handle): (_, EndpointsHandle) = Endpoints::watched();
    let network = Network::of(&[("a:1", Replica::Answers(300)), ("b:2", Replica::Answers(5))]);
    let layer = layer(Policy::standard(), endpoints);
    let error = call(&layer, &network).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEndpoint);
    assert!(error.to_string().starts_with("nowhere to send it: no endpoint is known"), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "no list of endpoints has been given yet");

    handle.set(["http://a:1"]).unwrap();
    let under_way = tokio::spawn({
        let (layer, network) = (layer.clone(), network.clone());
        async move { call(&layer, &network).await }
    });
    tokio::time::sleep(ms(100)).await;
    handle.set(["http://b:2"]).unwrap();
    for _ in 0..20 {
        assert_eq!(call(&layer, &network).await.unwrap().0, 200);
    }
    assert_eq!((network.count("a:1"), network.count("b:2")), (1, 20));
    assert_eq!(under_way.await.unwrap().unwrap().0, 200);
    assert!(handle.set(Vec::<String>::new()).is_err() && handle.set(["nonsense"]).is_err());
    assert_eq!(call(&layer, &network).await.unwrap().0, 200, "a bad list changes nothing");
}

/// A resolver that answers as it is told, after a while.
#[derive(Clone, Default)]
struct Zone {
    addresses: Arc<Mutex<Option<Vec<std::net::SocketAddr>>>>,
    asked: Arc<Mutex<u32>>,
}

impl Resolve for Zone {
    fn resolve(&self, _host: &str, _port: u16) -> Resolving {
        let zone = self.clone();
        Box::pin(async move {
            *zone.asked.lock().unwrap() += 1;
            tokio::time::sleep(ms(20)).await;
            zone.addresses.lock().unwrap().clone().ok_or_else(|| "no such name".into())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_by_the_calls_and_told_to_servers_as_their_host() {
    let zone = Zone::default();
    let network =
        Network::of(&[("10.0.0.1:3000", Replica::Answers(5)), ("10.0.0.2:3000", Replica::Answers(5))]);
    let endpoints =
        Endpoints::dns("http://users.internal:3000").every(Duration::from_secs(5)).resolver(zone.clone());
    let layer = layer(Policy::standard(), endpoints);

    let begun = now();
    let error = call(&layer, &network).await.unwrap_err();
    assert_eq!((error.kind(), now().since(begun)), (ErrorKind::NoEndpoint, ms(20)));
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "users.internal doesn't resolve");
    assert_eq!(cause.source().unwrap().to_string(), "no such name");
    assert!(error.is_unsent() && error.report().unwrap().attempts().is_empty());

    // That is believed for a second, then asked again.
    call(&layer, &network).await.unwrap_err();
    assert_eq!(*zone.asked.lock().unwrap(), 1);
    *zone.addresses.lock().unwrap() = Some(vec!["10.0.0.1:3000".parse().unwrap()]);
    tokio::time::sleep(ms(1_100)).await;
    let (status, report) = call(&layer, &network).await.unwrap();
    assert_eq!((status, report.queued()), (200, ms(20)));
    assert_eq!(
        network.asked.lock().unwrap()[0],
        ("10.0.0.1:3000".into(), Some("users.internal:3000".into()))
    );

    // A later answer is taken up without anybody waiting, and a failed one changes nothing.
    *zone.addresses.lock().unwrap() = Some(vec!["10.0.0.2:3000".parse().unwrap()]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (_, report) = call(&layer, &network).await.unwrap();
    assert_eq!(report.queued(), Duration::ZERO);
    tokio::time::sleep(ms(100)).await;
    *zone.addresses.lock().unwrap() = None;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(call(&layer, &network).await.unwrap().0, 200);
    }
    assert_eq!(network.count("10.0.0.2:3000"), 10);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_addresses_ends_with_the_calls_deadline() {
    #[derive(Clone)]
    struct Silent;
    impl Resolve for Silent {
        fn resolve(&self, _host: &str, _port: u16) -> Resolving {
            Box::pin(std::future::pending())
        }
    }
    let layer = layer(Policy::standard(), Endpoints::dns("http://users.internal:3000").resolver(Silent));
    let network = Network::default();
    let mut service = layer.layer(service_fn(move |request| network.clone().answer(request)));
    let begun = now();
    let request = Rig::request(Method::GET, CallOptions::new().timeout(ms(300)));
    let error = service.call(request).await.unwrap_err();
    assert_eq!((error.kind(), now().since(begun)), (ErrorKind::Deadline, ms(300)));
    assert_eq!(layer.drain(SECOND).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reload_reaches_the_endpoints_and_keeps_their_state() {
    let network = Network::of(&[
        ("a:1", Replica::Answers(10)),
        ("b:2", Replica::Refuses),
        ("c:3", Replica::Answers(10)),
    ]);
    let layer = layer(Policy::standard(), three());
    drive(&layer, &network, 5).await;
    let before = network.count("b:2");
    layer.reload(Policy::standard().retry(None)).unwrap();
    drive(&layer, &network, 2).await;
    assert!(network.count("b:2") - before < 20, "still out: {}", network.count("b:2") - before);
}

#[test]
fn names_and_lists_that_cannot_work_are_refused_saying_whose_they_are() {
    let build = |name: &str, endpoints| {
        let built = ResilienceLayer::builder().endpoints(name, endpoints).build();
        built.unwrap_err().to_string().replace("invalid policy: ", "")
    };
    let empty = build(NAME, Endpoints::fixed(Vec::<String>::new()));
    assert!(empty.starts_with("http://users:3000: endpoints"), "{empty}");
    let twice = build(NAME, Endpoints::fixed(["http://a", "http://A:80"]));
    assert!(twice.contains("is number 1 again"), "{twice}");
    assert!(build("users", three()).starts_with("users: "));
    let both =
        ResilienceLayer::builder().endpoints(NAME, three()).endpoints("http://USERS:3000", three()).build();
    let both = both.unwrap_err().to_string();
    assert_eq!(both, "invalid policy: http://USERS:3000: endpoints are given twice");
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_is_like_no_balancing() {
    let network = Network::of(&[("a:1", Replica::Refuses)]);
    let layer = layer(Policy::standard().retry(None), Endpoints::fixed(["http://a:1"]));
    let plain = ResilienceLayer::new(Policy::standard().retry(None)).unwrap();
    let plainly = Network::of(&[("users:3000", Replica::Refuses)]);
    for n in 0..30 {
        let (with, without) =
            (call(&layer, &network).await.unwrap_err(), call(&plain, &plainly).await.unwrap_err());
        assert_eq!(with.kind(), without.kind(), "call {n}");
    }
    assert_eq!(network.count("a:1"), plainly.count("users:3000"));
}

/// A retry that was paid for met an endpoint that nobody was at, and went on to the next: the token
/// was lost with the attempt nobody saw, and the success that it led to paid in as if it had been
/// the first.
#[tokio::test(start_paused = true)]
async fn a_retry_that_walks_on_takes_its_token_along() {
    let network =
        Network::of(&[("a:1", Replica::Fails(1)), ("b:2", Replica::Refuses), ("c:3", Replica::Answers(1))]);
    let mut walked = 0;
    for seed in 0..40 {
        let setup = Setup {
            endpoints: vec![(NAME.into(), three())],
            entropy: Entropy::seeded(seed),
            ..Setup::default()
        };
        let core = Arc::new(Core::new(setup).unwrap());
        let layer = ResilienceLayer::of(Arc::clone(&core));
        let (status, report) = call(&layer, &network).await.unwrap();
        assert_eq!(status, 200);
        let tokens = core.upstream_of(&Authority::of_uri(&NAME.parse().unwrap())).budget().available();
        let outcomes: Vec<_> = report.attempts().iter().map(|attempt| attempt.outcome).collect();
        let failed = outcomes.contains(&Some(Outcome::Failure(FailureKind::Status)));
        walked += u32::from(failed && outcomes.len() == 3);
        let expected = if failed { 10.0 } else { 10.25 };
        assert!((tokens - expected).abs() < 1e-9, "{tokens} after {outcomes:?}");
    }
    assert!(walked > 3, "{walked}");
}

/// The endpoint had quickly answered, and counted as one that takes a minute: for another minute
/// and a half it was asked for nothing.
#[tokio::test(start_paused = true)]
async fn a_long_download_that_is_cut_off_says_nothing_of_how_soon_its_endpoint_answers() {
    use super::script::{Piece, answer_with};

    for (cut, least, most) in
        [(Piece::Break, 900, 1_000), (Piece::Pause(Duration::from_secs(3600)), 4_900, 5_100)]
    {
        let untimed = Policy::standard().timeout(TimeoutPolicy::standard().total(None));
        let layer = layer(untimed, Endpoints::fixed(["http://a:1", "http://b:2"]));
        let mut service = layer.layer(service_fn(move |_: Request<String>| {
            let pieces = (0..60).flat_map(|_| [Piece::Data("x".into()), Piece::Pause(SECOND)]);
            answer_with(200, pieces.chain([cut.clone()]).collect()).act()
        }));
        let response = service.call(Rig::request(Method::GET, CallOptions::new())).await.unwrap();
        text(response).await.unwrap_err();
        let latency = layer.snapshot()[0].endpoints.iter().map(|endpoint| endpoint.latency).max().unwrap();
        assert!(latency >= ms(least) && latency <= ms(most), "{latency:?}");
    }
}
