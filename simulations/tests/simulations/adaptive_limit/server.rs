//! E12: a server with a changing number of workers, an open-loop load, and the real machines on
//! virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use resilient_client::policy::concurrency::{Concurrency, ConcurrencyPolicy, Outcome, Sample};
use resilient_client::rng::Rng;
use resilient_client::time::Tick;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// What a worker needs for one call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Service {
    /// Mean 50 ms with this sigma: 0.3 is an ordinary endpoint.
    Lognormal(f64),
    /// Mean 50 ms.
    Exponential,
    /// Two endpoints of 10 ms and 100 ms, each with some spread.
    Bimodal,
}

impl Service {
    fn draw(self, rng: &mut Rng) -> u64 {
        let ms = match self {
            Self::Lognormal(sigma) => 50.0 * lognormal(rng, sigma),
            Self::Exponential => -50.0 * (1.0 - rng.unit()).ln(),
            Self::Bimodal => (if rng.unit() < 0.5 { 10.0 } else { 100.0 }) * lognormal(rng, 0.2),
        };
        ((ms * MS as f64) as u64).max(1)
    }

    fn mean(self) -> f64 {
        match self {
            Self::Lognormal(_) | Self::Exponential => 0.050,
            Self::Bimodal => 0.055,
        }
    }

    /// The p99 of a server without a queue, in nanoseconds.
    fn p99(self) -> f64 {
        let mut rng = Rng::seeded(99);
        let mut draws: Vec<u64> = (0..100_000).map(|_| self.draw(&mut rng)).collect();
        draws.sort_unstable();
        draws[99_000] as f64
    }
}

/// With a mean of 1.
fn lognormal(rng: &mut Rng, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
    let normal = radius * (rng.unit() * std::f64::consts::TAU).cos();
    (sigma * normal - sigma * sigma / 2.0).exp()
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    Up,
    /// Every call is refused after a millisecond.
    Refuses,
    /// No call is answered.
    Hangs,
}

/// A time in which nothing changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) seconds: u64,
    /// Not measured at first.
    pub(super) settle: u64,
    pub(super) workers: usize,
    /// Calls that arrive while one is served: offered load in workers kept busy.
    pub(super) offered: f64,
    /// Added to every round trip without keeping a worker busy.
    pub(super) network: u64,
    pub(super) server: Server,
}

pub(super) fn phase(workers: usize, load: f64) -> Phase {
    let offered = workers as f64 * load;
    Phase { seconds: 20, settle: 10, workers, offered, network: 0, server: Server::Up }
}

#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) clients: usize,
    pub(super) limiter: Limiter,
    pub(super) service: Service,
    pub(super) phases: Vec<Phase>,
    pub(super) timeout: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Limiter {
    Fixed(u32),
    Adaptive(ConcurrencyPolicy),
    /// As published, as a control.
    Gradient2,
}

/// `Gradient2Limit` by its published formula and default numbers: the round trip against its own
/// long average.
#[derive(Clone, Copy, Debug)]
struct Gradient2 {
    limit: f64,
    long: f64,
    opened: u64,
    sum: f64,
    count: f64,
    most_in_flight: u32,
}

impl Gradient2 {
    fn record(&mut self, sample: Sample, now: u64) -> u32 {
        self.sum += sample.rtt_nanos as f64;
        self.count += 1.0;
        self.most_in_flight = self.most_in_flight.max(sample.in_flight);
        if now - self.opened >= SECOND && self.count >= 10.0 {
            let short = self.sum / self.count;
            self.long = if self.long > 0.0 { self.long + (short - self.long) * 2.0 / 601.0 } else { short };
            if self.long / short > 2.0 {
                self.long *= 0.95;
            }
            if f64::from(self.most_in_flight) >= self.limit / 2.0 {
                let gradient = (1.5 * self.long / short).clamp(0.5, 1.0);
                self.limit = (self.limit * 0.8 + (self.limit * gradient + 4.0) * 0.2).clamp(20.0, 1000.0);
            }
            *self = Self { opened: now, sum: 0.0, count: 0.0, most_in_flight: 0, ..*self };
        }
        self.limit as u32
    }
}

/// What one phase came to, once settled.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Time workers were busy, of all they had. Answers a second would tell a seed's luck with
    /// heavy-tailed work.
    pub(super) throughput: f64,
    /// Over that of an unloaded server.
    pub(super) p99: f64,
    pub(super) rejected: f64,
    /// The sum of the clients' limits, once a second: over the whole phase.
    pub(super) limits: Vec<u32>,
    /// Answers to each client.
    pub(super) shares: Vec<u64>,
    /// Of all calls offered in each second of the whole phase.
    pub(super) rejected_by_second: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Served(usize),
    /// The answer is back at the client.
    Answered(usize),
    Refused(usize),
    TimedOut(usize, u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Call {
    /// Told apart from the one that had its place before.
    serial: u64,
    client: usize,
    sent: u64,
    in_flight: u32,
    work: u64,
    over: bool,
}

struct Client {
    machine: Option<Concurrency>,
    gradient2: Option<Gradient2>,
    limit: u32,
    in_flight: u32,
}

struct World {
    rng: Rng,
    service: Service,
    timeout: Option<u64>,
    clients: Vec<Client>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    calls: Vec<Call>,
    free: Vec<usize>,
    queue: VecDeque<usize>,
    busy: usize,
    /// Counted until then.
    busy_until: u64,
    /// Nanoseconds of all workers since `measured_from`.
    busy_for: u64,
    now: Phase,
    measured_from: u64,
    latencies: Vec<u64>,
    found: Found,
}

pub(super) fn run(setup: &Setup) -> Vec<Found> {
    let client = || {
        let (mut machine, mut gradient2, mut limit) = (None, None, 20);
        match &setup.limiter {
            Limiter::Fixed(fixed) => limit = *fixed,
            Limiter::Adaptive(policy) => {
                let new = Concurrency::new(policy.compile().unwrap());
                limit = new.limit();
                machine = Some(new);
            }
            Limiter::Gradient2 => {
                let (sum, count) = (0.0, 0.0);
                gradient2 =
                    Some(Gradient2 { limit: 20.0, long: 0.0, opened: 0, sum, count, most_in_flight: 0 });
            }
        }
        Client { machine, gradient2, limit, in_flight: 0 }
    };
    let mut world = World {
        rng: Rng::seeded(setup.seed),
        service: setup.service,
        timeout: setup.timeout,
        clients: (0..setup.clients).map(|_| client()).collect(),
        events: BinaryHeap::new(),
        scheduled: 0,
        calls: Vec::new(),
        free: Vec::new(),
        queue: VecDeque::new(),
        busy: 0,
        busy_until: 0,
        busy_for: 0,
        now: setup.phases[0],
        measured_from: 0,
        latencies: Vec::new(),
        found: Found::default(),
    };
    // An hour, as the crate's own clock begins.
    let mut start = 3600 * SECOND;
    let unloaded = setup.service.p99();
    setup.phases.iter().map(|phase| world.live_through(*phase, &mut start, unloaded)).collect()
}

impl World {
    fn live_through(&mut self, phase: Phase, start: &mut u64, unloaded_p99: f64) -> Found {
        self.now = phase;
        self.measured_from = *start + phase.settle * SECOND;
        self.latencies.clear();
        (self.busy_until, self.busy_for) = (self.measured_from, 0);
        self.found = Found { shares: vec![0; self.clients.len()], ..Found::default() };
        self.serve(*start);
        let per_nano = phase.offered / (self.service.mean() * SECOND as f64);
        let mut arrival = *start + self.gap(per_nano);
        let (mut offered, mut rejected) = (0_u64, 0_u64);
        for _ in 0..phase.seconds {
            *start += SECOND;
            let (mut here, mut refused) = (0_u64, 0_u64);
            loop {
                let next = self.events.peek().map_or(u64::MAX, |Reverse((time, _, _))| *time);
                if next.min(arrival) >= *start {
                    break;
                }
                if next <= arrival {
                    if let Some(Reverse((time, _, event))) = self.events.pop() {
                        self.happens(event, time);
                    }
                } else {
                    here += 1;
                    refused += u64::from(!self.arrives(arrival));
                    arrival += self.gap(per_nano);
                }
            }
            self.found.limits.push(self.clients.iter().map(|client| client.limit).sum());
            self.found.rejected_by_second.push(refused as f64 / here.max(1) as f64);
            if *start > self.measured_from {
                offered += here;
                rejected += refused;
            }
        }
        self.keep_time(*start);
        self.latencies.sort_unstable();
        let served = self.latencies.len();
        let measured = (phase.seconds - phase.settle) * SECOND;
        let mut found = std::mem::take(&mut self.found);
        found.throughput = self.busy_for as f64 / (measured * phase.workers as u64) as f64;
        found.p99 = self.latencies.get(served * 99 / 100).map_or(f64::INFINITY, |p99| *p99 as f64)
            / (unloaded_p99 + phase.network as f64);
        found.rejected = rejected as f64 / offered.max(1) as f64;
        found
    }

    fn gap(&mut self, per_nano: f64) -> u64 {
        (-(1.0 - self.rng.unit()).ln() / per_nano) as u64
    }

    fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((time, self.scheduled, event)));
    }

    /// Whether the client let the call through.
    fn arrives(&mut self, now: u64) -> bool {
        let of = self.rng.between(0, self.clients.len() as u64 - 1) as usize;
        let work = self.service.draw(&mut self.rng);
        let client = &mut self.clients[of];
        if client.in_flight >= client.limit {
            return false;
        }
        client.in_flight += 1;
        let in_flight = client.in_flight;
        let serial = self.scheduled;
        let call = Call { serial, client: of, sent: now, in_flight, work, over: false };
        let place = self.free.pop().unwrap_or(self.calls.len());
        if place == self.calls.len() {
            self.calls.push(call);
        } else {
            self.calls[place] = call;
        }
        match self.now.server {
            Server::Refuses => self.at(now + MS, Event::Refused(place)),
            Server::Up | Server::Hangs => {
                if let Some(timeout) = self.timeout {
                    self.at(now + timeout, Event::TimedOut(place, serial));
                }
                self.queue.push_back(place);
                self.serve(now);
            }
        }
        true
    }

    fn keep_time(&mut self, now: u64) {
        self.busy_for += now.saturating_sub(self.busy_until) * self.busy as u64;
        self.busy_until = self.busy_until.max(now);
    }

    /// Gives free workers something to do.
    fn serve(&mut self, now: u64) {
        if matches!(self.now.server, Server::Up) {
            while self.busy < self.now.workers
                && let Some(place) = self.queue.pop_front()
            {
                // A call its client gave up is noticed before work on it begins.
                if self.calls[place].over {
                    self.free.push(place);
                    continue;
                }
                self.keep_time(now);
                self.busy += 1;
                self.at(now + self.calls[place].work, Event::Served(place));
            }
        }
    }

    fn happens(&mut self, event: Event, now: u64) {
        match event {
            Event::Served(place) => {
                self.keep_time(now);
                self.busy -= 1;
                self.serve(now);
                if self.now.network > 0 {
                    self.at(now + self.now.network, Event::Answered(place));
                } else {
                    self.happens(Event::Answered(place), now);
                }
            }
            Event::Answered(place) => {
                if !self.calls[place].over {
                    let Call { sent, client, .. } = self.calls[place];
                    if now >= self.measured_from {
                        self.latencies.push(now - sent);
                        self.found.shares[client] += 1;
                    }
                    self.ends(place, Outcome::Completed, now);
                }
                self.free.push(place);
            }
            Event::Refused(place) => {
                self.ends(place, Outcome::Dropped, now);
                self.free.push(place);
            }
            Event::TimedOut(place, serial) => {
                if self.calls[place].serial == serial && !self.calls[place].over {
                    self.ends(place, Outcome::Dropped, now);
                }
            }
        }
    }

    fn ends(&mut self, place: usize, outcome: Outcome, now: u64) {
        let call = &mut self.calls[place];
        call.over = true;
        let client = &mut self.clients[call.client];
        client.in_flight -= 1;
        let sample = Sample::new(Duration::from_nanos(now - call.sent), call.in_flight, outcome);
        if let Some(machine) = &client.machine
            && let Some(limit) = machine.record(sample, Tick::from_nanos(now))
        {
            client.limit = limit;
        }
        if let Some(gradient2) = &mut client.gradient2
            && outcome == Outcome::Completed
        {
            client.limit = gradient2.record(sample, now);
        }
    }
}
