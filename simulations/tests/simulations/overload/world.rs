//! A server that may be overloaded, and calls to it.
//!
//! The server works on so many calls at once, first come, first served, and finishes what was given
//! up. A call is a success with a 200 within 2 s.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::*;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::rng::Rng;
use resilient_client::testing::simulate::Queue;
use resilient_client::testkit::script::{Step, answer, ms};
use resilient_client::time::now;

pub(super) const PLENTY: usize = 20_000;

/// A time from the beginning.
pub(super) fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// How many workers there are, and when all others are gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workers {
    pub(super) all: usize,
    pub(super) left: usize,
    pub(super) gone: (f64, f64),
}

impl Workers {
    pub(super) const fn always(all: usize) -> Self {
        Self { all, left: all, gone: (0.0, 0.0) }
    }
}

/// What one request comes to: how long a worker needs for it, and its status; `None` for no answer.
pub(super) type Work = Arc<dyn Fn(&mut Rng, f64) -> (f64, Option<u16>) + Send + Sync>;

#[derive(Clone)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) workers: Workers,
    pub(super) work: Work,
    pub(super) per_second: f64,
    pub(super) seconds: f64,
    /// Calls that come at once, and when.
    pub(super) bursts: &'static [(f64, usize)],
    pub(super) attempt: Duration,
    /// A success comes within this.
    pub(super) within: Duration,
}

impl Scenario {
    pub(super) fn new(
        name: &'static str,
        workers: Workers,
        work: impl Fn(&mut Rng, f64) -> (f64, Option<u16>) + Send + Sync + 'static,
    ) -> Self {
        let work = Arc::new(work);
        Self {
            name,
            workers,
            work,
            per_second: 300.0,
            seconds: 14.0,
            bursts: &[],
            attempt: ms(500),
            within: ms(2000),
        }
    }
}

/// First come, first served. So when an answer will come is known as soon as the request has.
fn server(scenario: &Scenario, seed: u64) -> impl FnMut() -> Step + Send + 'static {
    let (workers, work) = (scenario.workers, Arc::clone(&scenario.work));
    let begun = now();
    let gone = (begun.after(secs(workers.gone.0)), begun.after(secs(workers.gone.1)));
    // Unlimited ones needn't be asked.
    let mut queue = (workers.all < PLENTY).then(|| Queue::new(workers.all, workers.left, gone, begun));
    let mut rng = Rng::seeded(seed ^ 0x5eed);
    move || {
        let (needs, status) = work(&mut rng, now().since(begun).as_secs_f64());
        let Some(status) = status else { return Step::Hang };
        let after = queue.as_mut().map_or(secs(needs), |queue| now().until(queue.ends(now(), secs(needs))));
        Step::Answer { after, status, retry_after: None, body: Vec::new() }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Of all calls, in percent.
    pub(super) good: f64,
    /// Of those that began in the last ten seconds.
    pub(super) good_at_end: f64,
    pub(super) amplification: f64,
    pub(super) p99: Duration,
    /// Calls that were refused by the limit, by the breaker, by the bulkhead.
    pub(super) refused: (usize, usize, usize),
    /// Attempts that had to wait.
    pub(super) waited: usize,
    pub(super) opened: usize,
}

type Client = Arc<dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Poisson arrivals, the same for every policy.
async fn load(
    scenario: Scenario,
    clients: Vec<Client>,
    seed: u64,
) -> Vec<(f64, bool, Duration, Option<resilient_client::ErrorKind>)> {
    let (mut rng, begun) = (Rng::seeded(seed), now());
    let mut running = tokio::task::JoinSet::new();
    let mut bursts: VecDeque<_> = scenario.bursts.iter().copied().collect();
    let mut at = 0.0;
    let mut turn = 0;
    loop {
        at += -(1.0 - rng.unit()).ln() / scenario.per_second;
        let burst = bursts.front().copied().filter(|(when, _)| *when <= at);
        let (when, count) = burst.unwrap_or((at, 1));
        if burst.is_some() {
            bursts.pop_front();
        }
        if when >= scenario.seconds {
            break;
        }
        tokio::time::sleep(now().until(begun.after(secs(when)))).await;
        for _ in 0..count {
            turn += 1;
            let client = Arc::clone(&clients[turn % clients.len()]);
            let within = scenario.within;
            running.spawn(async move {
                let called = now();
                let answer = client().await;
                let took = now().since(called);
                let good = answer.as_ref().is_ok_and(|answer| answer.status() == 200) && took <= within;
                (when, good, took, answer.err().map(|error| error.kind()))
            });
        }
    }
    running.join_all().await
}

fn client(rig: Rig) -> Client {
    Arc::new(move || Box::pin(rig.start(Method::GET, CallOptions::new())))
}

async fn one_run(scenario: Scenario, policy: &Policy, clients: usize, seed: u64) -> Found {
    use resilient_client::ErrorKind::{BulkheadFull, CircuitOpen, Overloaded};
    let script = Script::new([answer(200)]);
    script.follow(server(&scenario, seed));
    let rigs: Vec<_> = (0..clients).map(|_| Rig::before(&script, policy)).collect();
    let events: Vec<_> = rigs.iter().map(|rig| Arc::clone(&rig.events)).collect();
    let ended = load(scenario.clone(), rigs.into_iter().map(client).collect(), seed).await;
    let share = |calls: &mut dyn Iterator<Item = bool>| {
        let (good, all) = calls.fold((0, 0), |(good, all), is_good| (good + usize::from(is_good), all + 1));
        good as f64 / f64::from(all.max(1)) * 100.0
    };
    let late = ended.iter().filter(|(at, ..)| *at >= scenario.seconds - 10.0);
    let mut took: Vec<_> = ended.iter().filter(|(_, good, ..)| *good).map(|(_, _, took, _)| *took).collect();
    took.sort();
    let of = |wanted| ended.iter().filter(|(.., kind)| *kind == Some(wanted)).count();
    let heard = |wanted: fn(&Event) -> bool| -> usize {
        events.iter().map(|events| events.lock().unwrap().iter().filter(|event| wanted(event)).count()).sum()
    };
    Found {
        good: share(&mut ended.iter().map(|(_, good, ..)| *good)),
        good_at_end: share(&mut late.map(|(_, good, ..)| *good)),
        amplification: script.count() as f64 / ended.len() as f64,
        p99: took.get(took.len() * 99 / 100).copied().unwrap_or_default(),
        refused: (of(Overloaded), of(CircuitOpen), of(BulkheadFull)),
        waited: heard(|event| matches!(event, Event::AttemptQueued { .. })),
        opened: heard(|event| matches!(event, Event::BreakerTransition(change) if change.to == State::Open)),
    }
}

fn median<T: PartialOrd + Copy>(found: &[Found], of: impl Fn(&Found) -> T) -> T {
    let mut all: Vec<T> = found.iter().map(of).collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all[all.len() / 2]
}

/// The median of a few seeds, figure by figure.
pub(super) fn run(scenario: &Scenario, policy: &Policy, clients: usize, seeds: u64) -> Found {
    let found: Vec<_> = (1..=seeds)
        .map(|seed| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().unwrap().block_on(one_run(
                scenario.clone(),
                policy,
                clients,
                seed,
            ))
        })
        .collect();
    Found {
        good: median(&found, |found| found.good),
        good_at_end: median(&found, |found| found.good_at_end),
        amplification: median(&found, |found| found.amplification),
        p99: median(&found, |found| found.p99),
        refused: median(&found, |found| found.refused),
        waited: median(&found, |found| found.waited),
        opened: median(&found, |found| found.opened),
    }
}

pub(super) fn print(scenario: &str, who: &str, found: &Found) {
    let Found { good, good_at_end, amplification, p99, refused, waited, opened } = found;
    println!(
        "{scenario:28} {who:22} good {good:6.2} %, at the end {good_at_end:6.2} %, {amplification:.3} requests a call, p99 {:5} ms, \
         refused {refused:?}, {waited} waited, opened {opened}",
        p99.as_millis()
    );
}

/// With the attempt timeout of the scenario.
pub(super) fn of(scenario: &Scenario, policy: Policy) -> Policy {
    policy.timeout(TimeoutPolicy::standard().attempt(scenario.attempt))
}

pub(super) fn bare() -> Policy {
    Policy::none().timeout(TimeoutPolicy::none().total(Duration::from_secs(5)))
}

/// With this mean.
pub(super) fn lognormal(rng: &mut Rng, mean: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
    let normal = radius * (rng.unit() * std::f64::consts::TAU).cos();
    mean * (sigma * normal - sigma * sigma / 2.0).exp()
}
