//! PROOF E1, E5 and E7 on a virtual clock: what many clients do to a server together. Each prints
//! its figures (`--nocapture`), names its seed, and has a control that fails.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Empty;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use super::script::{Step, answer, asks_to_wait, ms};
use super::*;
use resilient_client::policy::retry::{Jitter, RetryPolicy};
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::rng::Rng;
use resilient_client::testing::simulate::Queue;
use resilient_client::time::now;

// ---- E1 ----

const SECONDS: usize = 120;
const WORKERS: usize = 10;
const WORK: Duration = Duration::from_millis(10);
/// Half of the workers are gone from the 20th second to the 30th.
const GONE: (u64, u64) = (20, 30);

/// First come, first served, by workers that finish whatever they were asked, wanted or not. So
/// when an answer will come is known as soon as the request has.
fn queue() -> impl FnMut() -> Step + Send + 'static {
    let begun = now();
    let gone = (begun.after(Duration::from_secs(GONE.0)), begun.after(Duration::from_secs(GONE.1)));
    let mut queue = Queue::new(WORKERS, WORKERS / 2, gone, begun);
    move || {
        let after = now().until(queue.ends(now(), WORK));
        Step::Answer { after, status: 200, retry_after: None, body: Vec::new() }
    }
}

#[derive(Debug)]
struct Course {
    /// The share of good calls among those that began in each second.
    goodput: Vec<f64>,
    amplification: f64,
}

impl Course {
    fn at_the_end(&self) -> f64 {
        self.goodput[SECONDS - 10..].iter().sum::<f64>() / 10.0
    }

    /// Seconds from the workers' return to the first second of three good ones.
    fn recovered_after(&self) -> Option<usize> {
        let after = &self.goodput[GONE.1 as usize..];
        after.windows(3).position(|three| three.iter().all(|share| *share >= 0.95))
    }
}

/// Poisson arrivals, the same for every client.
async fn course(policy: &Policy, per_second: f64, seed: u64) -> Course {
    let rig = Rig::new(policy, [answer(200)]);
    rig.script.follow(queue());
    let (mut rng, begun) = (Rng::seeded(seed), now());
    let mut running = tokio::task::JoinSet::new();
    let mut at = begun;
    loop {
        at = at.after(Duration::from_secs_f64(-(1.0 - rng.unit()).ln() / per_second));
        let second = at.since(begun).as_secs() as usize;
        if second >= SECONDS {
            break;
        }
        tokio::time::sleep(now().until(at)).await;
        let call = rig.start(Method::GET, CallOptions::new());
        running.spawn(async move { (second, call.await.is_ok_and(|response| response.status() == 200)) });
    }
    let (mut calls, mut good) = ([0.0; SECONDS], [0.0; SECONDS]);
    for (second, is_good) in running.join_all().await {
        calls[second] += 1.0;
        good[second] += f64::from(u8::from(is_good));
    }
    let goodput = good.iter().zip(calls).map(|(good, calls)| good / calls).collect();
    let amplification = rig.script.count() as f64 / calls.iter().sum::<f64>();
    Course { goodput, amplification }
}

async fn e1(per_second: f64, seed: u64) {
    let timeout = TimeoutPolicy::standard().attempt(Duration::from_secs(1));
    let ours = Policy::standard().timeout(timeout);
    let naive = ours.clone().budget(None).breaker(None).bulkhead(None).overload(None);
    let once = naive.clone().retry(None);
    let ours = course(&ours, per_second, seed).await;
    let naive = course(&naive, per_second, seed).await;
    let once = course(&once, per_second, seed).await;
    let (well, patience) = (ours.recovered_after(), once.recovered_after().expect("it recovers by itself"));
    println!(
        "E1 at {per_second}/s, seed {seed}: goodput at the end {:.2} %, back after {well:?} s, amplification {:.3}; \
         four tries {:.2} % and {:.2}; no retries back after {patience} s",
        ours.at_the_end() * 100.0,
        ours.amplification,
        naive.at_the_end() * 100.0,
        naive.amplification,
    );
    assert!(ours.at_the_end() >= 0.95, "{:?}", ours.goodput);
    let within = patience as f64 * 1.5 + 3.0;
    assert!(well.is_some_and(|well| well as f64 <= within), "{well:?} of {within}: {:?}", ours.goodput);
    assert!(naive.at_the_end() < 0.05, "the control collapses: {:?}", naive.goodput);
}

#[tokio::test(start_paused = true)]
async fn e1_recovers_by_itself_at_600_a_second() {
    e1(600.0, 1).await;
}

#[tokio::test(start_paused = true)]
async fn e1_recovers_by_itself_at_800_a_second() {
    e1(800.0, 2).await;
}

#[tokio::test(start_paused = true)]
async fn e1_recovers_by_itself_at_900_a_second() {
    e1(900.0, 3).await;
}

// ---- E5 ----

type Tier = BoxCloneSyncService<Request<String>, Response<Empty<Bytes>>, Infallible>;

fn saying(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// A service that answers as the one behind it did, and each call to that goes through a client of
/// its own.
fn tier(policy: &Policy, behind: Tier) -> Tier {
    let layer = ResilienceLayer::builder().policy(policy.clone()).seed(5).build();
    let client = layer.expect("a policy that works").layer(behind);
    BoxCloneSyncService::new(service_fn(move |request: Request<String>| {
        let client = client.clone();
        async move {
            let status =
                client.oneshot(request).await.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status());
            Ok::<_, Infallible>(saying(status))
        }
    }))
}

/// What each of three services in a row is asked, for one call at its head, while the last fails
/// every time.
async fn chain(policy: &Policy, calls: usize, every: Duration) -> usize {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let last = BoxCloneSyncService::new(service_fn(move |_: Request<String>| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(ms(1)).await;
            Ok::<_, Infallible>(saying(StatusCode::SERVICE_UNAVAILABLE))
        }
    }));
    let head = (0..3).fold(last, |behind, _| tier(policy, behind));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..calls {
        running.spawn(head.clone().oneshot(Rig::request(Method::GET, CallOptions::new())));
        tokio::time::sleep(every).await;
    }
    for ended in running.join_all().await {
        assert_eq!(ended.unwrap().status(), 503);
    }
    asked.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn e5_three_layers_of_retries_do_not_multiply() {
    const CALLS: usize = 12_000;
    /// Each of the control's is 64 requests.
    const FEWER: usize = 200;
    let policy = Policy::standard().breaker(None);
    let ours = chain(&policy, CALLS, ms(5)).await;
    let naive = chain(&policy.budget(None).bulkhead(None).overload(None), FEWER, ms(5)).await;
    let amplification = ours as f64 / CALLS as f64;
    println!("E5: amplification {amplification:.4}; without budgets {:.1}", naive as f64 / FEWER as f64);
    assert!(amplification <= 1.34, "{amplification}");
    assert_eq!(ours, CALLS + 3 * 10, "each layer's first ten tokens, exactly");
    assert_eq!(naive, 64 * FEWER, "the control multiplies by four at each layer");
}

// ---- E7 ----

/// A thousand clients are told to come back in a second: when each does, and the largest share
/// within 100 ms.
async fn herd(policy: &Policy, seed: u64) -> (Vec<Duration>, f64) {
    const CLIENTS: usize = 1_000;
    let rig = Rig::new(policy, [answer(200)]);
    let mut told = 0;
    rig.script.follow(move || {
        told += 1;
        if told <= CLIENTS { asks_to_wait(503, "1") } else { answer(200) }
    });
    let begun = now();
    let mut running = tokio::task::JoinSet::new();
    for n in 0..CLIENTS as u64 {
        let layer = ResilienceLayer::builder().policy(policy.clone()).seed(seed * 1_000_000 + n).build();
        let client = layer.unwrap().layer(rig.script.clone());
        running.spawn(client.oneshot(Rig::request(Method::GET, CallOptions::new())));
    }
    for ended in running.join_all().await {
        assert_eq!(ended.unwrap().status(), 200);
    }
    let mut back: Vec<_> = rig.script.launches().iter().skip(CLIENTS).map(|at| at.since(begun)).collect();
    back.sort();
    assert_eq!(back.len(), CLIENTS, "each comes back once");
    // Wherever those 100 ms begin.
    let within = |first: &Duration| back.iter().filter(|at| *at >= first && **at < *first + ms(100)).count();
    let peak = back.iter().map(within).max().unwrap_or_default();
    (back, peak as f64 / CLIENTS as f64)
}

#[tokio::test(start_paused = true)]
async fn e7_a_thousand_clients_told_the_same_do_not_come_back_together() {
    for seed in [1, 2, 3] {
        let (back, peak) = herd(&Policy::standard(), seed).await;
        let together = RetryPolicy::standard().jitter(Jitter::None);
        let (_, control) = herd(&Policy::standard().retry(together), seed).await;
        let (first, last) = (back[0], back[back.len() - 1]);
        println!(
            "E7 seed {seed}: peak {:.1} % within 100 ms, between {first:.2?} and {last:.2?}; without jitter {:.1} %",
            peak * 100.0,
            control * 100.0
        );
        assert!(peak <= 0.12, "{peak}");
        assert!(first >= Duration::from_secs(1), "none comes sooner than it was told");
        assert!(control > 0.99, "the control is a herd");
    }
}
