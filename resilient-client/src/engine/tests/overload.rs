//! Overload, whole calls on a virtual clock: what the standard policy serves beside a bare client, and what it never refuses.
//!
//! The server works on so many calls at once, first come, first served, and finishes what was given up. A call is a success
//! with a 200 within 2 s.

use std::collections::VecDeque;
use std::time::Duration;

use super::script::{Step, answer, ms};
use super::*;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::concurrency::ConcurrencyPolicy;
use crate::policy::overload::OverloadPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::rng::Rng;
use crate::time::{Tick, now};

const SEEDS: u64 = 3;
const PLENTY: usize = 20_000;

/// A time from the beginning.
fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// How many workers there are, and when all others are gone.
#[derive(Clone, Copy, Debug)]
struct Workers {
    all: usize,
    left: usize,
    gone: (f64, f64),
}

impl Workers {
    const fn always(all: usize) -> Self {
        Self { all, left: all, gone: (0.0, 0.0) }
    }
}

/// What one request comes to: how long a worker needs for it, and its status; `None` for no answer.
type Work = Arc<dyn Fn(&mut Rng, f64) -> (f64, Option<u16>) + Send + Sync>;

#[derive(Clone)]
struct Scenario {
    name: &'static str,
    workers: Workers,
    work: Work,
    per_second: f64,
    seconds: f64,
    /// Calls that come at once, and when.
    bursts: &'static [(f64, usize)],
    attempt: Duration,
    /// A success comes within this.
    within: Duration,
}

impl Scenario {
    fn new(
        name: &'static str,
        workers: Workers,
        work: impl Fn(&mut Rng, f64) -> (f64, Option<u16>) + Send + Sync + 'static,
    ) -> Self {
        let work = Arc::new(work);
        Self { name, workers, work, per_second: 300.0, seconds: 14.0, bursts: &[], attempt: ms(500), within: ms(2000) }
    }
}

/// First come, first served. So when an answer will come is known as soon as the request has.
fn server(scenario: &Scenario, seed: u64) -> impl FnMut() -> Step + Send + 'static {
    let (workers, work) = (scenario.workers, Arc::clone(&scenario.work));
    let begun = now();
    let gone = (begun.after(secs(workers.gone.0)), begun.after(secs(workers.gone.1)));
    // When each worker is free; unlimited ones needn't be asked.
    let mut free = vec![begun; if workers.all >= PLENTY { 0 } else { workers.all }];
    let mut rng = Rng::seeded(seed ^ 0x5eed);
    move || {
        let (needs, status) = work(&mut rng, now().since(begun).as_secs_f64());
        let Some(status) = status else { return Step::Hang };
        let after = if free.is_empty() {
            secs(needs)
        } else {
            let starts = |worker: usize, free: Tick| {
                let start = free.max(now());
                if worker >= workers.left && start >= gone.0 && start < gone.1 { gone.1 } else { start }
            };
            let first = (0..free.len()).map(|worker| (starts(worker, free[worker]), worker)).min();
            let (start, worker) = first.expect("it has workers");
            free[worker] = start.after(secs(needs));
            now().until(free[worker])
        };
        Step::Answer { after, status, retry_after: None, body: Vec::new() }
    }
}

#[derive(Clone, Debug, Default)]
struct Found {
    /// Of all calls, in percent.
    good: f64,
    /// Of those that began in the last ten seconds.
    good_at_end: f64,
    amplification: f64,
    p99: Duration,
    /// Calls that were refused by the limit, by the breaker, by the bulkhead.
    refused: (usize, usize, usize),
    /// Attempts that had to wait.
    waited: usize,
    opened: usize,
}

type Client = Arc<dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Poisson arrivals, the same for every policy.
async fn load(scenario: Scenario, clients: Vec<Client>, seed: u64) -> Vec<(f64, bool, Duration, Option<crate::ErrorKind>)> {
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
        tokio::time::sleep_until(crate::time::instant(begun.after(secs(when)))).await;
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
    use crate::ErrorKind::{BulkheadFull, CircuitOpen, Overloaded};
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

/// The median of a few seeds, figure by figure.
fn run(scenario: &Scenario, policy: &Policy, clients: usize) -> Found {
    let found: Vec<_> = (1..=SEEDS)
        .map(|seed| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().unwrap().block_on(one_run(scenario.clone(), policy, clients, seed))
        })
        .collect();
    fn median<T: PartialOrd + Copy>(found: &[Found], of: impl Fn(&Found) -> T) -> T {
        let mut all: Vec<T> = found.iter().map(of).collect();
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        all[all.len() / 2]
    }
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

fn print(scenario: &str, who: &str, found: &Found) {
    let Found { good, good_at_end, amplification, p99, refused, waited, opened } = found;
    println!(
        "{scenario:28} {who:22} good {good:6.2} %, at the end {good_at_end:6.2} %, {amplification:.3} requests a call, p99 {:5} ms, \
         refused {refused:?}, {waited} waited, opened {opened}",
        p99.as_millis()
    );
}

/// With the attempt timeout of the scenario.
fn of(scenario: &Scenario, policy: Policy) -> Policy {
    policy.timeout(TimeoutPolicy::standard().attempt(scenario.attempt))
}

fn bare() -> Policy {
    Policy::none().timeout(TimeoutPolicy::none().total(Duration::from_secs(5)))
}

fn all_scenarios() -> Vec<Scenario> {
    let half = |until| Workers { all: 10, left: 5, gone: (3.0, until) };
    let plenty = Workers::always(PLENTY);
    use Scenario as S;
    vec![
        S::new("storm overload", half(9.7), |_, _| (0.025, Some(200))),
        Scenario { seconds: 70.0, ..S::new("overload, 60 s", half(63.0), |_, _| (0.025, Some(200))) },
        S::new("stall, 2.4 s", Workers { left: 0, gone: (3.0, 5.4), ..half(0.0) }, |_, _| (0.025, Some(200))),
        S::new("5 x slower", plenty, |_, at| (if at < 5.0 { 0.01 } else { 0.05 }, Some(200))),
        S::new("25 x slower", plenty, |_, at| (if at < 5.0 { 0.01 } else { 0.25 }, Some(200))),
        S::new("40 x slower", plenty, |_, at| (if at < 5.0 { 0.01 } else { 0.40 }, Some(200))),
        S::new("5 % +200 ms", plenty, |rng, _| (if rng.unit() < 0.05 { 0.21 } else { 0.01 }, Some(200))),
        S::new("5 % hang", plenty, |rng, _| (0.01, Some(200).filter(|_| rng.unit() >= 0.05))),
        S::new("30 % hang", plenty, |rng, _| (0.01, Some(200).filter(|_| rng.unit() >= 0.3))),
        S::new("503 x 30 %", plenty, |rng, _| (0.002, Some(if rng.unit() < 0.3 { 503 } else { 200 }))),
        S::new("lognormal near capacity", Workers::always(10), |rng, _| (lognormal(rng, 0.030, 0.8), Some(200))),
        Scenario {
            per_second: 2.0,
            seconds: 20.0,
            bursts: &[(10.0, 200), (15.0, 200)],
            ..S::new("bursts after idle", Workers::always(50), |_, _| (0.02, Some(200)))
        },
        Scenario {
            per_second: 20.0,
            seconds: 20.0,
            bursts: &[(10.0, 200), (15.0, 200)],
            ..S::new("bursts, usual 200 ms", plenty, |_, _| (0.2, Some(200)))
        },
        S::new("outage of 5 s", plenty, |_, at| if (3.0..8.0).contains(&at) { (0.001, Some(503)) } else { (0.01, Some(200)) }),
        Scenario {
            per_second: 800.0,
            seconds: 40.0,
            attempt: Duration::from_secs(1),
            ..S::new("E1, 800/s", Workers { all: 10, left: 5, gone: (20.0, 30.0) }, |_, _| (0.01, Some(200)))
        },
    ]
}

/// With this mean.
fn lognormal(rng: &mut Rng, mean: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
    let normal = radius * (rng.unit() * std::f64::consts::TAU).cos();
    mean * (sigma * normal - sigma * sigma / 2.0).exp()
}

#[test]
#[ignore = "for eyes"]
fn table() {
    let wanted = std::env::var("ROW").unwrap_or_default();
    let clients = std::env::var("CLIENTS").map_or(1, |clients| clients.parse().unwrap());
    for scenario in all_scenarios().into_iter().filter(|scenario| scenario.name.contains(&wanted)) {
        let limited = |overload| of(&scenario, Policy::standard().overload(overload));
        let wait = |ms| OverloadPolicy::standard().wait(Duration::from_millis(ms));
        let queue = BulkheadPolicy::standard().max_queued(300);
        let adaptive = |kind| of(&scenario, Policy::standard().overload(None).concurrency(kind).bulkhead(queue.clone()));
        for (who, policy) in [
            ("bare", bare()),
            ("without", of(&scenario, Policy::standard().overload(None))),
            ("no waiting", limited(OverloadPolicy::standard().max_waiting(0))),
            ("waits 0.5 s", limited(wait(500))),
            ("waits 1 s", limited(wait(1000))),
            ("gradient", adaptive(ConcurrencyPolicy::gradient())),
            ("vegas", adaptive(ConcurrencyPolicy::vegas())),
            ("aimd", adaptive(ConcurrencyPolicy::aimd())),
        ] {
            print(scenario.name, who, &run(&scenario, &policy, clients));
        }
        println!();
    }
}

/// Slower for good, at rates and times that leave the bulkhead room: nobody may be refused.
#[test]
#[ignore = "for eyes"]
fn harm() {
    let var = |name: &str, usual: f64| std::env::var(name).map_or(usual, |value| value.parse().unwrap());
    let (attempt, sigma) = (var("ATTEMPT", 3.0), var("SIGMA", 0.0));
    for share in [0.4, 0.5, 0.67, 0.8, 0.9] {
        for per_second in [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
            let slow = share * attempt;
            if per_second * slow > 200.0 {
                continue;
            }
            let scenario = Scenario {
                per_second,
                seconds: 60.0,
                attempt: secs(attempt),
                within: secs(10.0),
                ..Scenario::new("slower", Workers::always(PLENTY), move |rng, at| {
                    let mean = if at < 20.0 { 0.05 } else { slow };
                    (if sigma > 0.0 { lognormal(rng, mean, sigma) } else { mean }, Some(200))
                })
            };
            for (who, policy) in [("without", Policy::standard().overload(None)), ("standard", Policy::standard())] {
                let found = run(&scenario, &of(&scenario, policy), 1);
                print(&format!("{share} of {attempt} s at {per_second}/s"), who, &found);
            }
        }
    }
}

#[test]
#[ignore = "for eyes"]
fn score() {
    let mut line = String::new();
    for (name, clients) in [("storm", 1), ("60 s", 1), ("storm", 5), ("storm", 10), ("storm", 20), ("60 s", 5), ("60 s", 10), ("60 s", 20), ("40 x", 1), ("40 x", 10), ("25 x", 1), ("stall", 1), ("E1", 1), ("lognormal", 10), ("30 % hang", 1), ("30 % hang", 10), ("5 % hang", 1)] {
        let scenario = all_scenarios().into_iter().find(|scenario| scenario.name.contains(name)).unwrap();
        let found = run(&scenario, &of(&scenario, Policy::standard()), clients);
        line += &format!("{name}/{clients} {:.1} (opened {}); ", found.good, found.opened);
    }
    println!("SCORE {line}");
    if std::env::var("QUICK").is_ok() {
        return;
    }
    let (mut line, mut sum) = (String::new(), 0.0);
    for (attempt, sigma) in [(3.0, 0.0), (3.0, 0.4), (1.0, 0.3)] {
        for (share, per_second) in [(0.5, 1.0), (0.5, 2.0), (0.5, 5.0), (0.5, 20.0), (0.67, 2.0), (0.67, 10.0), (0.67, 50.0), (0.8, 2.0), (0.8, 5.0), (0.8, 10.0), (0.8, 50.0), (0.9, 10.0), (0.9, 50.0)] {
            let slow = share * attempt;
            let scenario = Scenario {
                per_second,
                seconds: 60.0,
                attempt: secs(attempt),
                within: secs(10.0),
                ..Scenario::new("slower", Workers::always(PLENTY), move |rng, at| {
                    let mean = if at < 20.0 { 0.05 } else { slow };
                    (if sigma > 0.0 { lognormal(rng, mean, sigma) } else { mean }, Some(200))
                })
            };
            let found = run(&scenario, &of(&scenario, Policy::standard()), 1);
            sum += 100.0 - found.good;
            if found.good < 99.0 {
                line += &format!("{share}*{attempt}@{per_second}s{sigma} {:.1}; ", found.good);
            }
        }
    }
    println!("SCORE harm {sum:.1}: {line}");
}
