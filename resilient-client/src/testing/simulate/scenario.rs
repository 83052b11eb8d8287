//! What goes wrong, and what is asked meanwhile.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::queue::Queue;
use crate::rng::Rng;
use crate::time::Tick;

/// When what goes wrong begins, and when it is over.
const TROUBLE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(8));
/// When half of the workers are gone, under overload.
const OVERLOAD: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(9_700));
/// How long a call usually takes.
const USUAL: Duration = Duration::from_millis(10);
/// How soon a failing server says so.
const SOON: Duration = Duration::from_millis(1);
const WORKERS: usize = 10;
const WORK: Duration = Duration::from_millis(25);
const SLOW: Duration = Duration::from_secs(1);

/// A server that has its troubles, and calls to it: 300 a second for 14 seconds, unless it is said
/// otherwise, in an open loop, so that nobody waits for the call before.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Scenario {
    pub(super) kind: Kind,
    pub(super) per_second: f64,
    pub(super) lasts: Duration,
    pub(super) seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Outage,
    Overload,
    SlowReplica,
    Errors(f64),
    Storm,
}

/// What one request comes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    pub(super) at: Tick,
    pub(super) status: StatusCode,
}

impl Scenario {
    fn of(kind: Kind) -> Self {
        Self { kind, per_second: 300.0, lasts: Duration::from_secs(14), seed: 1 }
    }

    /// Every request gets a 503, from the third second to the eighth.
    pub fn outage() -> Self {
        Self::of(Kind::Outage)
    }

    /// Ten workers of 25 ms with an endless queue before them; half of them are gone from second 3
    /// to second 9.7, and a third of what is asked is too much for the others.
    pub fn overload() -> Self {
        Self::of(Kind::Overload)
    }

    /// Three replicas behind one name; from the third second on one of them takes a second for each
    /// answer.
    ///
    /// The client knows all three, by [`Endpoints`](crate::Endpoints), which no policy asks for: so
    /// what is measured is the policy together with this library's choice among endpoints. A client
    /// that knows one address, behind which somebody else balances, isn't simulated.
    pub fn slow_replica() -> Self {
        Self::of(Kind::SlowReplica)
    }

    /// This share of the requests, from 0 to 1, gets a 503, whichever they are. What is outside is
    /// taken for the nearest, and what is no number for 0.
    pub fn errors(share: f64) -> Self {
        Self::of(Kind::Errors(nearest(share, 0.0, 1.0)))
    }

    /// Three services in a row, each a client of the next one under the same policy, and the last
    /// one has the [outage](Self::outage). Each makes a request of its own for the one it got, and
    /// holds itself and its call to the time its caller has left, as by the standard
    /// `DeadlineLayer` of `resilient_client::server`. It has no other layer: retry advice isn't
    /// passed back.
    pub fn retry_storm() -> Self {
        Self::of(Kind::Storm)
    }

    /// The five of them, with three errors in ten.
    pub fn all() -> [Self; 5] {
        [Self::outage(), Self::overload(), Self::slow_replica(), Self::errors(0.3), Self::retry_storm()]
    }

    /// How many calls begin in a second, from 1 to 10,000. What is outside is taken for the
    /// nearest, and what is no number for 1. Default 300.
    pub fn per_second(mut self, calls: f64) -> Self {
        // Each is simulated: with an infinite number it never ended.
        self.per_second = nearest(calls, 1.0, 10_000.0);
        self
    }

    /// What all that is random follows from. Default 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// From when to when something is wrong, if it isn't always.
    pub(super) fn trouble(&self) -> Option<(Duration, Duration)> {
        match self.kind {
            Kind::Outage | Kind::Storm => Some(TROUBLE),
            Kind::Overload => Some(OVERLOAD),
            Kind::SlowReplica | Kind::Errors(_) => None,
        }
    }

    /// The share of calls that can succeed at best, where none does from the trouble's end on for
    /// this long.
    pub(super) fn possible(&self, recovers: Duration) -> f64 {
        let Some((from, to)) = self.trouble() else {
            // One that fails for good does so whoever asks.
            return if self.kind == Kind::Errors(1.0) { 0.0 } else { 1.0 };
        };
        let meanwhile = if self.kind == Kind::Overload {
            let left = (WORKERS / 2) as f64 / WORK.as_secs_f64();
            (left / self.per_second).min(1.0)
        } else {
            0.0
        };
        let share = |time: Duration| time.as_secs_f64() / self.lasts.as_secs_f64();
        1.0 - share(to.saturating_sub(from)) * (1.0 - meanwhile) - share(recovers)
    }

    pub(super) fn replicas(&self) -> usize {
        if self.kind == Kind::SlowReplica { 3 } else { 1 }
    }

    /// How many services a call goes through.
    pub(super) fn hops(&self) -> usize {
        if self.kind == Kind::Storm { 3 } else { 1 }
    }
}

fn nearest(number: f64, least: f64, most: f64) -> f64 {
    // `max` of what is no number is the other.
    number.max(least).min(most)
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Outage => f.write_str("outage"),
            Kind::Overload => f.write_str("overload"),
            Kind::SlowReplica => f.write_str("slow replica"),
            Kind::Errors(share) => write!(f, "{:.0} % errors", share * 100.0),
            Kind::Storm => f.write_str("retry storm"),
        }
    }
}

/// The servers of a scenario.
#[derive(Debug)]
pub(super) struct Servers {
    kind: Kind,
    begun: Tick,
    rng: Rng,
    queue: Queue,
}

impl Servers {
    pub(super) fn new(scenario: &Scenario, begun: Tick) -> Self {
        let away = (begun.after(OVERLOAD.0), begun.after(OVERLOAD.1));
        Self {
            kind: scenario.kind,
            begun,
            rng: Rng::seeded(scenario.seed ^ 0x5eed),
            queue: Queue::new(WORKERS, WORKERS / 2, away, begun),
        }
    }

    /// What a request comes to that reaches this replica now.
    pub(super) fn answer(&mut self, replica: usize, now: Tick) -> Fate {
        let since = now.since(self.begun);
        let well = Fate { at: now.after(USUAL), status: StatusCode::OK };
        let fails = Fate { at: now.after(SOON), status: StatusCode::SERVICE_UNAVAILABLE };
        match self.kind {
            Kind::Outage | Kind::Storm if (TROUBLE.0..TROUBLE.1).contains(&since) => fails,
            Kind::Errors(share) if self.rng.unit() < share => fails,
            Kind::SlowReplica if replica == 0 && since >= TROUBLE.0 => Fate { at: now.after(SLOW), ..well },
            Kind::Overload => Fate { at: self.queue.ends(now, WORK), ..well },
            _ => well,
        }
    }
}
