//! Thousands of clients, a breaker each, before one server that goes down and comes back: what they
//! send it together.
//!
//! The server takes one request after the other, and finishes what it has begun, wanted or not.
//! Down, it refuses at once. Each client calls at random times. Nobody retries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use std::time::Duration;

use resilient_client::outcome::Verdict;
use resilient_client::policy::breaker::{Breaker, BreakerPolicy, CallResult};
use resilient_client::rng::Rng;
use resilient_client::time::Tick;

const START: Tick = Tick::from_nanos(3600 * SECOND);
const SECOND: u64 = 1_000_000_000;
const TIMEOUT: u64 = SECOND / 2;

struct World {
    clients: usize,
    /// Calls a second of each client.
    rate: f64,
    /// What the server can do, over all that is asked of it.
    capacity: f64,
    /// Seconds from which to which the server is down, and when the simulation ends.
    down: (u64, u64),
    end: u64,
}

/// What came of a world, in hundredths of a second.
struct Course {
    /// Requests that reached the server.
    offered: Vec<u32>,
    calls: Vec<u32>,
    good: Vec<u32>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    /// In the order they were sent, when they end together.
    Answer {
        number: usize,
        good: bool,
        took: u64,
        called: usize,
    },
}

impl World {
    fn run(&self, policy: &BreakerPolicy, seed: u64) -> Course {
        let rules = policy.compile().unwrap();
        let mut rng = Rng::seeded(seed);
        let breakers: Vec<_> = (0..self.clients).map(|_| Breaker::new(rules.clone())).collect();
        let slots = (self.end * 100) as usize;
        let mut course = Course { offered: vec![0; slots], calls: vec![0; slots], good: vec![0; slots] };
        let work = (SECOND as f64 / (self.clients as f64 * self.rate * self.capacity)) as u64;
        let mut pause = |rate: f64| (-(1.0 - rng.unit()).ln() / rate * SECOND as f64) as u64;
        let mut events = BinaryHeap::new();
        for client in 0..self.clients {
            events.push(Reverse((pause(self.rate), Event::Call, client)));
        }
        let (mut permits, mut free, mut number, mut jitter) =
            (std::collections::HashMap::new(), 0, 0, Rng::seeded(!seed));
        while let Some(Reverse((at, event, client))) = events.pop() {
            let (slot, now, breaker) =
                ((at / (SECOND / 100)) as usize, START.after_nanos(at), &breakers[client]);
            if slot >= slots {
                break;
            }
            match event {
                Event::Call => {
                    events.push(Reverse((at + pause(self.rate), Event::Call, client)));
                    course.calls[slot] += 1;
                    let Ok(admitted) = breaker.try_acquire(now) else { continue };
                    course.offered[slot] += 1;
                    let is_down = at >= self.down.0 * SECOND && at < self.down.1 * SECOND;
                    let took = if is_down {
                        free = at;
                        SECOND / 1000
                    } else {
                        free = free.max(at) + work;
                        free - at
                    };
                    number += 1;
                    permits.insert(number, admitted.permit);
                    let good = !is_down && took < TIMEOUT;
                    let took = took.min(TIMEOUT);
                    events.push(Reverse((
                        at + took,
                        Event::Answer { number, good, took, called: slot },
                        client,
                    )));
                }
                Event::Answer { number, good, took, called } => {
                    course.good[called] += u32::from(good);
                    let verdict = if good { Verdict::Success } else { Verdict::Failure };
                    let permit = permits.remove(&number).unwrap();
                    breaker.record(permit, CallResult::new(verdict, Duration::from_nanos(took)), now, || {
                        jitter.unit()
                    });
                }
            }
        }
        course
    }

    /// Calls in a tenth of a second.
    fn usual(&self) -> f64 {
        self.clients as f64 * self.rate / 10.0
    }
}

impl Course {
    /// The most that reached the server in any tenth of a second between these seconds.
    fn peak(&self, from: u64, to: u64) -> u32 {
        let slots = &self.offered[from as usize * 100..to as usize * 100];
        slots.windows(10).map(|tenth| tenth.iter().sum()).max().unwrap_or_default()
    }

    /// How long after this second, in seconds, 98 % of all calls are good again and stay so.
    fn recovered(&self, from: u64) -> f64 {
        let share = |tenth: usize| {
            let of = |what: &[u32]| f64::from(what[tenth * 10..tenth * 10 + 10].iter().sum::<u32>());
            of(&self.good) / of(&self.calls).max(1.0)
        };
        let last = self.calls.len() / 10 - 10;
        let bad = (from as usize * 10..last).rev().find(|tenth| share(*tenth) < 0.98);
        bad.map_or(0.0, |bad| (bad + 1) as f64 / 10.0 - from as f64)
    }
}

#[test]
fn thousands_that_come_back_do_not_flatten_the_server() {
    for (clients, rate, outage, within) in [
        (5_000, 0.2, 60, 6.0),
        (2_000, 1.0, 60, 5.5),
        (1_000, 5.0, 60, 4.0),
        (1_000, 5.0, 2, 4.0),
        (200, 50.0, 20, 1.2),
        (50, 300.0, 20, 0.5),
    ] {
        let (down, up) = (10, 10 + outage);
        let world = World { clients, rate, capacity: 1.2, down: (down, up), end: up + 12 };
        for seed in [1, 2] {
            let course = world.run(&BreakerPolicy::standard(), seed);
            let usual = world.usual();
            // It takes a while to see an outage, at few calls a second.
            let open = down + outage / 2;
            let sent: u32 = course.offered[open as usize * 100..up as usize * 100].iter().sum();
            let a_second = f64::from(sent) / (up - open) as f64;
            let (while_down, after) = (course.peak(open, up), course.peak(up, up + 12));
            let back = course.recovered(up);
            println!(
                "{clients} clients at {rate}/s, down for {outage} s: {a_second:.0} probes a second, at most {:.0} % of the usual \
                 load in 100 ms; back within {back:.1} s, with at most {:.0} %",
                f64::from(while_down) / usual * 100.0,
                f64::from(after) / usual * 100.0,
            );
            let allowed = clients as f64 * (rate * 0.02 + rate.min(1.0));
            assert!(outage < 20 || a_second <= allowed, "{a_second} of {allowed} a second");
            // Calls come at random: so many come in some 100 ms without any breaker, too.
            assert!(
                f64::from(after) <= usual + 4.5 * usual.sqrt(),
                "more than the usual load: {after} of {usual}"
            );
            assert!(back <= within, "{back}");
        }
    }
}
