//! E6 in miniature: one upstream, calls that arrive at random, and hedging by the real machines on
//! virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use resilient_client::policy::hedge::{Cap, Delay, Digest, HedgePolicy, Rules};
use resilient_client::rng::Rng;
use resilient_client::time::Tick;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// What is simulated.
#[derive(Clone, Debug)]
struct Setup {
    per_second: f64,
    calls: usize,
    /// How many attempts the server works on at once; the others queue, first come first served.
    workers: usize,
    /// Whether the server stops working on an attempt that was cancelled.
    notices_cancel: bool,
    /// The share of attempts that take 200 ms more.
    slow: f64,
    /// Whether a cancelled attempt enters the digest at its age.
    counts_losers: bool,
    hedge: Option<HedgePolicy>,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    p99: u64,
    hedges: usize,
    calls: usize,
}

impl Found {
    fn extra(&self) -> f64 {
        self.hedges as f64 / self.calls as f64
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrival,
    Late { call: usize },
    Served { attempt: usize },
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    call: usize,
    started: u64,
    work: u64,
    /// A worker is on it.
    serving: bool,
    /// Answered or cancelled.
    over: bool,
}

#[derive(Clone, Debug, Default)]
struct Call {
    attempts: Vec<usize>,
    answered: bool,
}

struct World {
    setup: Setup,
    /// Arrivals and the work of first attempts: the same whatever is done about the late ones.
    rng: Rng,
    hedges_rng: Rng,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    attempts: Vec<Attempt>,
    calls: Vec<Call>,
    queue: VecDeque<usize>,
    busy: usize,
    rules: Option<Rules>,
    cap: Cap,
    digest: Digest,
    hedges: usize,
    latencies: Vec<u64>,
}

/// Runs the setup to the last answer.
fn run(setup: &Setup) -> Found {
    let rules = setup.hedge.as_ref().map(|policy| policy.compile().unwrap());
    let mut world = World {
        rng: Rng::seeded(setup.seed),
        hedges_rng: Rng::seeded(!setup.seed),
        setup: setup.clone(),
        events: BTreeMap::new(),
        scheduled: 0,
        attempts: Vec::new(),
        calls: Vec::new(),
        queue: VecDeque::new(),
        busy: 0,
        cap: rules.map_or_else(Cap::closed, Cap::new),
        rules,
        digest: Digest::new(),
        hedges: 0,
        latencies: Vec::new(),
    };
    world.at(3600 * SECOND, Event::Arrival);
    while let Some(((now, _), event)) = world.events.pop_first() {
        world.happens(event, now);
    }
    let (calls, hedges) = (world.calls.len(), world.hedges);
    assert_eq!(world.latencies.len(), calls, "every call is answered");
    world.latencies.sort_unstable();
    Found { p99: world.latencies[calls * 99 / 100], hedges, calls }
}

impl World {
    fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((time, self.scheduled), event);
    }

    fn happens(&mut self, event: Event, now: u64) {
        match event {
            Event::Arrival => {
                let call = self.calls.len();
                self.calls.push(Call::default());
                self.cap.deposit();
                let work = work(&mut self.rng, self.setup.slow);
                self.send(call, work, now);
                let delay = self.rules.and_then(|rules| rules.delay(&self.digest, Tick::from_nanos(now)));
                if let Some(delay) = delay {
                    self.at(now + delay, Event::Late { call });
                }
                if self.calls.len() < self.setup.calls {
                    let gap = -(1.0 - self.rng.unit()).ln() / self.setup.per_second;
                    self.at(now + (gap * SECOND as f64) as u64, Event::Arrival);
                }
            }
            Event::Late { call } => {
                if !self.calls[call].answered && self.cap.try_withdraw() {
                    self.hedges += 1;
                    let work = work(&mut self.hedges_rng, self.setup.slow);
                    self.send(call, work, now);
                }
            }
            Event::Served { attempt } if self.attempts[attempt].serving => {
                if !self.attempts[attempt].over {
                    self.answered(attempt, now);
                }
                self.release(attempt, now);
            }
            Event::Served { .. } => {}
        }
    }

    fn send(&mut self, call: usize, work: u64, now: u64) {
        let attempt = self.attempts.len();
        self.attempts.push(Attempt { call, started: now, work, serving: false, over: false });
        self.calls[call].attempts.push(attempt);
        self.queue.push_back(attempt);
        self.serve(now);
    }

    /// Gives free workers something to do.
    fn serve(&mut self, now: u64) {
        while self.busy < self.setup.workers
            && let Some(attempt) = self.queue.pop_front()
        {
            let Attempt { over, work, .. } = self.attempts[attempt];
            if !(over && self.setup.notices_cancel) {
                self.busy += 1;
                self.attempts[attempt].serving = true;
                self.at(now + work, Event::Served { attempt });
            }
        }
    }

    fn release(&mut self, attempt: usize, now: u64) {
        self.attempts[attempt].serving = false;
        self.busy -= 1;
        self.serve(now);
    }

    /// The first answer ends the call and cancels the other attempt.
    fn answered(&mut self, winner: usize, now: u64) {
        let call = self.attempts[winner].call;
        self.calls[call].answered = true;
        let attempts = std::mem::take(&mut self.calls[call].attempts);
        self.latencies.push(now - self.attempts[attempts[0]].started);
        for attempt in attempts {
            self.attempts[attempt].over = true;
            // The winner's latency, and the loser's age.
            if attempt == winner || self.setup.counts_losers {
                self.digest.record(now - self.attempts[attempt].started, Tick::from_nanos(now));
            }
            if attempt != winner && self.attempts[attempt].serving && self.setup.notices_cancel {
                self.release(attempt, now);
            }
        }
    }
}

/// Lognormal with a median of 10 ms and a sigma of 0.5; a share `slow` takes 200 ms more.
fn work(rng: &mut Rng, slow: f64) -> u64 {
    let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
    let normal = radius * (rng.unit() * std::f64::consts::TAU).cos();
    let usual = (10.0 * (0.5 * normal).exp() * MS as f64) as u64;
    if rng.unit() < slow { usual + 200 * MS } else { usual }
}

/// A server that is never busy.
fn idle(slow: f64, hedge: impl Into<Option<HedgePolicy>>) -> Setup {
    Setup {
        per_second: 200.0,
        calls: 20_000,
        workers: usize::MAX,
        notices_cancel: true,
        slow,
        counts_losers: true,
        hedge: hedge.into(),
        seed: 0,
    }
}

/// A server at this load, unhedged, that finishes what nobody waits for any more.
fn loaded(load: f64, workers: usize, slow: f64, hedge: impl Into<Option<HedgePolicy>>) -> Setup {
    let mean = 0.010 * 0.125_f64.exp() + 0.200 * slow;
    let per_second = load * workers as f64 / mean;
    Setup { per_second, workers, notices_cancel: false, ..idle(slow, hedge) }
}

fn at(quantile: f64, multiplier: f64) -> HedgePolicy {
    let floor = Duration::from_millis(10);
    HedgePolicy::standard().delay(Delay::Percentile { quantile, multiplier, floor })
}

fn uncapped(policy: HedgePolicy) -> HedgePolicy {
    policy.max_share(1.0).burst(1_000_000)
}

/// Means over a few seeds: the p99 beside that without hedging, and the hedges as a share of calls.
fn beside_unhedged(setup: &Setup) -> (f64, f64) {
    const SEEDS: u64 = 8;
    let (mut unhedged, mut hedged, mut extra) = (0, 0, 0.0);
    for seed in 0..SEEDS {
        let found = run(&Setup { seed, ..setup.clone() });
        unhedged += run(&Setup { seed, hedge: None, ..setup.clone() }).p99;
        hedged += found.p99;
        extra += found.extra() / SEEDS as f64;
    }
    let ratio = hedged as f64 / unhedged as f64;
    println!("p99 x {ratio:.2}, extra {:.2} %", extra * 100.0);
    (ratio, extra)
}

const CAP: f64 = 0.07;

#[test]
fn cuts_the_tail_by_more_than_two_thirds_for_fewer_hedges_than_the_cap() {
    let (p99, extra) = beside_unhedged(&idle(0.05, HedgePolicy::standard()));
    assert!(p99 <= 0.30, "p99 x {p99}");
    assert!(extra <= CAP + 0.002, "{extra}");
}

/// "At p95, healthy calls eat the cap": the slow attempts, once they are cancelled, no longer count
/// as slow, the percentile falls to where healthy calls are, and nothing is left for the late ones.
#[test]
fn control_at_the_95th_percentile_without_the_losers_age_the_cap_is_eaten_and_the_tail_stays() {
    let forgetful = Setup { counts_losers: false, ..idle(0.05, at(0.95, 1.0)) };
    let (p99, extra) = beside_unhedged(&forgetful);
    assert!(p99 >= 0.90, "p99 x {p99}");
    assert!(extra >= CAP - 0.003, "{extra}");
    // The same for a percentile without the multiplier.
    let (p99, _) = beside_unhedged(&idle(0.05, at(0.9, 1.0)));
    assert!(p99 >= 0.90, "p99 x {p99}");
}

#[test]
fn hardly_hedges_when_nothing_is_late() {
    let (_, extra) = beside_unhedged(&idle(0.0, HedgePolicy::standard()));
    assert!(extra <= 0.01, "{extra}");
    let (_, control) = beside_unhedged(&idle(0.0, at(0.95, 1.0)));
    assert!(control >= 0.05, "{control}");
}

/// The hardest servers: few workers, and they finish what was cancelled, so that every hedge is
/// load for nothing.
#[test]
fn never_makes_a_loaded_server_much_slower() {
    for (load, workers, slow) in
        [(0.85, 1, 0.0), (0.85, 2, 0.05), (0.85, 10, 0.05), (0.85, 10, 0.0), (0.95, 10, 0.05)]
    {
        let (p99, extra) = beside_unhedged(&loaded(load, workers, slow, HedgePolicy::standard()));
        assert!(p99 <= 1.5, "p99 x {p99} with {workers} workers at {load}, {slow} slow");
        assert!(extra <= CAP / 2.0, "{extra}: a loaded server moves its own threshold");
    }
}

#[test]
fn still_cuts_the_tail_of_a_loaded_server_that_stops_cancelled_work() {
    let hears = |policy| Setup { notices_cancel: true, ..loaded(0.85, 10, 0.05, policy) };
    let (p99, extra) = beside_unhedged(&hears(HedgePolicy::standard()));
    assert!(p99 <= 0.7, "p99 x {p99}");
    assert!(extra <= CAP + 0.002, "{extra}");
}

#[test]
fn control_without_the_cap_a_loaded_server_collapses() {
    let (p99, _) = beside_unhedged(&loaded(0.85, 10, 0.05, uncapped(HedgePolicy::standard())));
    assert!(p99 >= 4.0, "p99 x {p99}");
    // A threshold that doesn't leave room makes it a rout: nearly every call is sent twice.
    let (p99, extra) = beside_unhedged(&loaded(0.85, 10, 0.05, uncapped(at(0.95, 1.0))));
    assert!(p99 >= 20.0 && extra >= 0.9, "p99 x {p99}, extra {extra}");
}
