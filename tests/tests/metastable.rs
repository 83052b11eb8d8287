//! E1 over real sockets, smaller: a server that finishes what nobody waits for any more loses half
//! its workers for a while. Four naive tries keep it down for good; ours let it recover.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::rng::Rng;
use resilient_client::{Client, Policy};
use resilient_client_tests::{Reply, Server, clock, within};
use tokio::task::JoinSet;

const WORKERS: usize = 4;
const WORK: Duration = Duration::from_millis(20);
/// A second, of the 200 that could be served.
const ARRIVALS: f64 = 150.0;
const ATTEMPT: Duration = Duration::from_millis(300);
/// Half of the workers are gone from the 2nd second to the 4th.
const GONE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
const SECONDS: usize = 12;
/// How many seconds at the end are judged.
const END: usize = 2;

/// First come, first served, by workers that finish whatever they were asked: when an answer will
/// come is known as soon as the request has.
struct Queue {
    begun: Instant,
    free: [Instant; WORKERS],
}

impl Queue {
    fn new(begun: Instant) -> Self {
        Self { begun, free: [begun; WORKERS] }
    }

    /// How long the request that has just come will take.
    fn take(&mut self) -> Duration {
        let now = clock::now();
        let gone = (self.begun + GONE.0, self.begun + GONE.1);
        let starts = |worker: usize| {
            let start = self.free[worker].max(now);
            if worker < WORKERS / 2 && start >= gone.0 && start < gone.1 { gone.1 } else { start }
        };
        let (worker, start) = (0..WORKERS)
            .map(|worker| (worker, starts(worker)))
            .min_by_key(|(_, start)| *start)
            .expect("it has workers");
        self.free[worker] = start + WORK;
        self.free[worker] - now
    }
}

/// The share of good calls in the last seconds, and how often the server was asked for each call.
async fn course(policy: Policy) -> (f64, f64) {
    let begun = clock::now();
    let queue = Mutex::new(Queue::new(begun));
    let server =
        Server::start(move |_| Reply::answer(200, "done").delayed(queue.lock().unwrap().take())).await;
    let client = Client::builder().policy(policy).build().unwrap();
    let (mut rng, mut at, mut calls) = (Rng::seeded(1), begun, JoinSet::new());
    loop {
        // Poisson arrivals, the same for every client.
        at += Duration::from_secs_f64(-(1.0 - rng.unit()).ln() / ARRIVALS);
        let second = (at - begun).as_secs() as usize;
        if second >= SECONDS {
            break;
        }
        tokio::time::sleep_until(at.into()).await;
        let call = client.get(server.url("/")).send();
        calls.spawn(async move { (second, call.await.is_ok_and(|response| response.status() == 200)) });
    }
    let (mut made, mut judged, mut good) = (0.0, 0.0, 0.0);
    for (second, is_good) in calls.join_all().await {
        made += 1.0;
        if second >= SECONDS - END {
            judged += 1.0;
            good += f64::from(u8::from(is_good));
        }
    }
    (good / judged, server.count() as f64 / made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_half_its_workers_for_a_while_recovers() {
    let ours = Policy::standard().timeout(TimeoutPolicy::standard().attempt(ATTEMPT));
    let naive = ours.clone().budget(None).breaker(None).bulkhead(None).overload(None);
    let both = async { tokio::join!(course(ours), course(naive)) };
    let ((ours, asked), (naive, naive_asked)) = within(Duration::from_mins(1), both).await;
    println!(
        "E1 over sockets: goodput at the end {:.1} %, amplification {asked:.2}; four tries {:.1} % and {naive_asked:.2}",
        ours * 100.0,
        naive * 100.0,
    );
    assert!(ours >= 0.95, "{ours}");
    assert!(naive < 0.05, "the control stays down: {naive}");
}
