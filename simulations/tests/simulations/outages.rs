//! Some or all endpoints of a name are down, and `Policy::standard()` is untouched: who is asked,
//! and who is served.

use std::time::Duration;

use tokio::time::sleep;
use tower::service_fn;

use super::network::{Network, Replica, layer, start, three};
use super::script::ms;
use super::*;
use resilient_client::ErrorKind;
use resilient_client::deadline::{self, Deadline};
use resilient_client::endpoints::{Endpoints, Resolve, Resolving};
use resilient_client::rng::Rng;
use resilient_client::time::now;

const SECOND: Duration = Duration::from_secs(1);
const WELL: Replica = Replica::Answers(10);

/// A call in a task of its own.
fn spawn(
    layer: &ResilienceLayer,
    network: &Network,
    method: Method,
) -> tokio::task::JoinHandle<Result<(u16, resilient_client::CallReport), Error>> {
    tokio::spawn(start(layer, network, method, CallOptions::new()))
}

async fn served(call: tokio::task::JoinHandle<Result<(u16, resilient_client::CallReport), Error>>) -> bool {
    matches!(call.await, Ok(Ok((200, _))))
}

/// How many of so many GETs at this rate are served.
async fn drive(layer: &ResilienceLayer, network: &Network, rate: f64, calls: usize, seed: u64) -> usize {
    let (mut rng, mut under_way) = (Rng::seeded(seed), Vec::new());
    let (start, mut next) = (now(), Duration::ZERO);
    for _ in 0..calls {
        under_way.push(spawn(layer, network, Method::GET));
        next += Duration::from_secs_f64(-(1.0 - rng.unit()).ln() / rate);
        sleep(next.saturating_sub(now().since(start))).await;
    }
    let mut count = 0;
    for call in under_way {
        count += usize::from(served(call).await);
    }
    count
}

fn seeded(endpoints: Endpoints, seed: u64) -> ResilienceLayer {
    let layer = ResilienceLayer::builder().policy(Policy::standard());
    layer.endpoints("http://users:3000", endpoints).seed(seed).build().unwrap()
}

fn origins(n: usize) -> Vec<String> {
    (1..=n).map(|n| format!("http://10.0.0.{n}:3000")).collect()
}

/// `n` endpoints, the first `dead` of which refuse connections.
fn some_dead(n: usize, dead: usize) -> Network {
    let network = Network::default();
    for place in 1..=n {
        let replica = if place <= dead { Replica::Refuses } else { WELL };
        network.set(&format!("10.0.0.{place}:3000"), replica);
    }
    network
}

/// The name's own breaker counted what its endpoints failed at: five quick ones were five in a row,
/// and it lost 99 % (one of two) or 64 % (one of three) of the calls.
#[tokio::test(start_paused = true)]
async fn bursts_are_served_while_one_of_two_or_three_refuses() {
    for n in [2, 3] {
        let (mut count, mut all) = (0, 0);
        for seed in 0..5 {
            let (layer, network) = (seeded(Endpoints::fixed(origins(n)), seed), some_dead(n, 1));
            for _ in 0..10 {
                let burst: Vec<_> = (0..20).map(|_| spawn(&layer, &network, Method::GET)).collect();
                for call in burst {
                    count += usize::from(served(call).await);
                    all += 1;
                }
                sleep(15 * SECOND).await;
            }
        }
        println!("one of {n} refuses: {count} of {all} served");
        assert_eq!(count, all, "one of {n}");
    }
}

/// Not served within two minutes in 12 to 14 of 20 runs: what the name's breaker let through met
/// the dead ones.
#[tokio::test(start_paused = true)]
async fn one_that_returns_after_all_were_down_serves_within_seconds() {
    let mut longest = Duration::ZERO;
    for seed in 0..20 {
        let (layer, network) = (seeded(Endpoints::fixed(origins(3)), seed), some_dead(3, 3));
        drive(&layer, &network, 5.0, 300, seed).await;
        network.set("10.0.0.2:3000", WELL);
        let returned = now();
        let mut in_a_row = 0;
        while in_a_row < 5 {
            let well = served(spawn(&layer, &network, Method::GET)).await;
            in_a_row = if well { in_a_row + 1 } else { 0 };
            sleep(ms(200)).await;
            assert!(now().since(returned) < 8 * SECOND, "seed {seed}");
        }
        longest = longest.max(now().since(returned));
    }
    println!("five in a row served within {longest:?} at most, 20 seeds");
}

/// It was asked again when its failures had decayed, 20 to 50 s later: too few to open its breaker,
/// enough to lose every draw.
#[tokio::test(start_paused = true)]
async fn one_that_was_down_too_briefly_for_its_breaker_is_asked_again_within_seconds() {
    let mut longest = Duration::ZERO;
    for seed in 0..20 {
        let (layer, network) = (seeded(Endpoints::fixed(origins(3)), seed), some_dead(3, 0));
        drive(&layer, &network, 40.0, 120, seed).await;
        network.set("10.0.0.2:3000", Replica::Refuses);
        let down = network.count("10.0.0.2:3000");
        while network.count("10.0.0.2:3000") < down + 2 {
            assert!(served(spawn(&layer, &network, Method::GET)).await, "seed {seed}");
            sleep(ms(15)).await;
        }
        network.set("10.0.0.2:3000", WELL);
        let (returned, down) = (now(), network.count("10.0.0.2:3000"));
        while network.count("10.0.0.2:3000") < down + 5 {
            assert!(served(spawn(&layer, &network, Method::GET)).await, "seed {seed}");
            sleep(ms(15)).await;
            let (count, spent) = (network.count("10.0.0.2:3000") - down, now().since(returned));
            assert!(spent < 6 * SECOND, "seed {seed}: {count} calls");
        }
        longest = longest.max(now().since(returned));
    }
    println!("five calls within {longest:?} at most, 20 seeds");
}

/// Of 1,390 calls 3 to 21 were served with 8 or 9 of ten dead, and 894 or 33 with 7.
#[tokio::test(start_paused = true)]
async fn calls_go_to_the_living_however_few_of_ten_they_are() {
    for dead in [5, 7, 8, 9] {
        for seed in 0..3 {
            let (layer, network) = (seeded(Endpoints::fixed(origins(10)), seed), some_dead(10, dead));
            let count = drive(&layer, &network, 232.0, 1_390, seed).await;
            println!("{dead} of ten dead, seed {seed}: {count} of 1390 served");
            assert_eq!(count, 1_390, "{dead} of ten dead, seed {seed}");
        }
    }
}

#[derive(Clone)]
struct Ten;

impl Resolve for Ten {
    fn resolve(&self, _host: &str, port: u16) -> Resolving {
        Box::pin(async move { Ok((1..=10).map(|n| ([10, 0, 0, n], port).into()).collect()) })
    }
}

/// It served 3 of the first 20 at most; who walks through the addresses as they come serves every
/// one.
#[tokio::test(start_paused = true)]
async fn nine_of_ten_addresses_of_a_name_are_dead() {
    for seed in 0..5 {
        let (layer, network) =
            (seeded(Endpoints::dns("http://users:3000").resolver(Ten), seed), some_dead(10, 9));
        let mut count = 0;
        for _ in 0..20 {
            count += usize::from(served(spawn(&layer, &network, Method::GET)).await);
            sleep(ms(50)).await;
        }
        println!("nine of ten addresses dead, seed {seed}: {count} of 20");
        assert_eq!(count, 20, "seed {seed}");
    }
}

/// A probing endpoint was always preferred, and a probe that decides nothing cost nothing: 300 of
/// 300 POSTs, for ever.
#[tokio::test(start_paused = true)]
async fn probes_that_decide_nothing_take_no_traffic() {
    for (undecided, name) in [(Replica::Says(429, "1"), "429"), (Replica::Sheds, "shed")] {
        let network = Network::of(&[("a:1", WELL), ("b:2", Replica::Refuses), ("c:3", WELL)]);
        let layer = layer(Policy::standard(), three());
        drive(&layer, &network, 50.0, 500, 1).await;
        network.set("b:2", undecided);
        sleep(6 * SECOND).await;
        let before = network.count("b:2");
        let mut count = 0;
        for _ in 0..300 {
            count += usize::from(served(spawn(&layer, &network, Method::POST)).await);
            sleep(ms(20)).await;
        }
        let probes = network.count("b:2") - before;
        println!("{name}: {count} of 300 POSTs served, {probes} went to it in 9 s");
        assert!(count >= 297 && probes <= 6, "{name}: {count}, {probes}");
    }
}

/// Hung, it took 200 of 200 calls whose callers left before a second, or whose deadlines were that
/// short.
#[tokio::test(start_paused = true)]
async fn hung_endpoints_take_no_more_than_their_probes_from_hasty_callers() {
    for ambient in [false, true] {
        let network = Network::of(&[("a:1", WELL), ("b:2", Replica::Refuses), ("c:3", WELL)]);
        let layer = layer(Policy::standard(), three());
        drive(&layer, &network, 50.0, 500, 1).await;
        network.set("b:2", Replica::Hangs);
        sleep(6 * SECOND).await;
        let (before, mut rng, mut count) = (network.count("b:2"), Rng::seeded(3), 0);
        for _ in 0..200 {
            let wait = ms(rng.between(300, 900));
            let network = network.clone();
            let mut service = layer.layer(service_fn(move |request| network.clone().answer(request)));
            let call =
                async move { service.call(Rig::request(Method::GET, CallOptions::new())).await.is_ok() };
            count += usize::from(if ambient {
                deadline::scope(Deadline::within(wait), call).await
            } else {
                tokio::time::timeout(wait, call).await.unwrap_or(false)
            });
            sleep(ms(40)).await;
        }
        let probes = network.count("b:2") - before;
        println!("ambient {ambient}: {count} of 200 served, {probes} went to the hung one in 10 s");
        assert!(count >= 196 && probes <= 5, "ambient {ambient}: {count}, {probes}");
    }
}

/// A third of GETs ended in the 429 of one of three; and its 503 kept every fourth client from the
/// other two for 5 s.
#[tokio::test(start_paused = true)]
async fn what_one_of_three_asks_for_keeps_nobody_from_the_others() {
    for status in [429, 503] {
        for seed in 0..10 {
            let network = some_dead(3, 0);
            network.set("10.0.0.2:3000", Replica::Says(status, "60"));
            let layer = seeded(Endpoints::fixed(origins(3)), seed);
            for n in 0..60 {
                let begun = now();
                let ended = spawn(&layer, &network, Method::GET).await.unwrap();
                let took = now().since(begun);
                let status = ended.as_ref().map(|(status, _)| *status).map_err(Error::kind);
                assert_eq!(status, Ok(200), "seed {seed}, call {n}");
                assert!(took < ms(100), "seed {seed}, call {n} waited {took:?}");
                sleep(ms(100)).await;
            }
            if status == 503 {
                let asked = network.count("10.0.0.2:3000");
                assert!(asked <= 2, "it asked for a minute: {asked}");
            }
        }
    }
}

/// The call that was told keeps away from who told it, even when there is nobody else left to ask.
#[tokio::test(start_paused = true)]
async fn who_asked_for_time_is_not_asked_again_by_the_same_call() {
    let network = some_dead(2, 1);
    network.set("10.0.0.2:3000", Replica::Says(503, "60"));
    for seed in 0..10 {
        let layer = seeded(Endpoints::fixed(origins(2)), seed);
        let before = network.count("10.0.0.2:3000");
        let begun = now();
        let (status, _) = spawn(&layer, &network, Method::GET).await.unwrap().unwrap();
        assert_eq!((status, network.count("10.0.0.2:3000") - before), (503, 1), "seed {seed}");
        assert!(now().since(begun) < SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_refuses_only_when_no_endpoint_may_be_asked_and_says_how_long() {
    let network = Network::default();
    let layer = layer(Policy::standard(), three());
    drive(&layer, &network, 50.0, 150, 1).await;
    let open = layer.snapshot()[0].endpoints.iter().map(|endpoint| endpoint.breaker.open_for).min().unwrap();
    let error = spawn(&layer, &network, Method::GET).await.unwrap().unwrap_err();
    let (kind, wait) = (error.kind(), error.retry_after().unwrap());
    assert_eq!(kind, ErrorKind::CircuitOpen);
    assert!(wait.abs_diff(open) <= ms(1), "{wait:?} {open:?}");
    network.set("a:1", WELL);
    sleep(6 * SECOND).await;
    for n in 0..20 {
        assert!(served(spawn(&layer, &network, Method::GET)).await, "call {n}");
    }
}

/// The pods of a name are replaced while nobody calls it.
#[tokio::test(start_paused = true)]
async fn after_an_idle_hour_the_first_call_goes_to_an_address_of_now() {
    #[derive(Clone, Default)]
    struct Moving(Arc<Mutex<u8>>);
    impl Resolve for Moving {
        fn resolve(&self, _host: &str, port: u16) -> Resolving {
            let host = *self.0.lock().unwrap();
            Box::pin(async move {
                sleep(ms(5)).await;
                Ok(vec![([10, 0, 0, host], port).into()])
            })
        }
    }
    let (zone, network) = (Moving::default(), Network::default());
    *zone.0.lock().unwrap() = 1;
    network.set("10.0.0.1:3000", WELL);
    let layer = seeded(Endpoints::dns("http://users:3000").resolver(zone.clone()), 1);
    assert!(served(spawn(&layer, &network, Method::GET)).await);
    sleep(Duration::from_hours(1)).await;
    *zone.0.lock().unwrap() = 2;
    // Somebody else has the address now, and does as it is told.
    network.set("10.0.0.2:3000", WELL);
    assert!(served(spawn(&layer, &network, Method::POST)).await);
    assert_eq!((network.count("10.0.0.1:3000"), network.count("10.0.0.2:3000")), (1, 1));
}
