//! Everything a run with replicas found out, as plain data.

use std::time::Duration;

use serde::Serialize;

use crate::audit::Audit;
use crate::cli::Client;
use crate::fault_phases::Phase;
use crate::histogram::Histogram;
use crate::results::millis;
use crate::tally::{Answer, Books};

/// After a replica has turned bad, this much later all must be well again.
const GRACE: Duration = Duration::from_secs(1);

/// A run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) seed: u64,
    pub(crate) quick: bool,
    pub(crate) naive: Twin,
    pub(crate) resilient: Twin,
    /// The control: needs no user-service, so what slows it down slows everyone down.
    pub(crate) alone: Twin,
}

/// One order-service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Twin {
    /// In the order of [`Phase::REPLICAS`].
    pub(crate) phases: Vec<PhaseFigures>,
    pub(crate) audit: Audit,
}

/// One phase of one order-service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseFigures {
    pub(crate) phase: Phase,
    pub(crate) orders: u64,
    /// Orders answered at once and rightly: 201, or 422 for a user who doesn't exist.
    pub(crate) settled: u64,
    /// Orders answered 202: user-service could not be asked.
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// The same without the phase's first second.
    pub(crate) later_p99_ms: f64,
    pub(crate) reads: u64,
    pub(crate) reads_failed: u64,
    /// Calls that reached each replica.
    pub(crate) calls: Vec<u64>,
    /// The most requests that waited at the end of a second.
    pub(crate) most_waiting: usize,
}

/// What only the scenario itself sees of a phase.
pub(crate) struct Act {
    pub(crate) phase: Phase,
    /// When it began, since the start of the load.
    pub(crate) opened: Duration,
    /// By twin and replica.
    pub(crate) calls: [Vec<u64>; Client::TWINS.len()],
    /// By twin.
    pub(crate) most_waiting: [usize; Client::TWINS.len()],
}

impl Twin {
    pub(super) fn new(client: Client, books: &Books, acts: &[Act], audit: Audit) -> Self {
        let phases = acts.iter().map(|act| PhaseFigures::new(client, books, act)).collect();
        Self { phases, audit }
    }

    pub(super) fn phase(&self, phase: Phase) -> Option<&PhaseFigures> {
        self.phases.iter().find(|figures| figures.phase == phase)
    }
}

impl PhaseFigures {
    fn new(client: Client, books: &Books, act: &Act) -> Self {
        let (mut all, mut later) = (Histogram::default(), Histogram::default());
        for sent in books.sent().iter().filter(|sent| sent.phase == Some(act.phase)) {
            // Given up unsent, it would look quick.
            let latency = if sent.answer == Answer::GivenUp { Duration::MAX } else { sent.latency };
            all.record(latency);
            if sent.at >= act.opened + GRACE {
                later.record(latency);
            }
        }
        let quantile = |of: &Histogram, share| of.quantile(share).map_or(0.0, millis);
        let tally = books.phase(act.phase);
        Self {
            phase: act.phase,
            orders: tally.post.len(),
            settled: tally.settled,
            accepted: tally.accepted,
            failed: tally.failed,
            p50_ms: quantile(&all, 0.5),
            p99_ms: quantile(&all, 0.99),
            later_p99_ms: quantile(&later, 0.99),
            reads: tally.reads,
            reads_failed: tally.reads_failed,
            calls: act.calls.get(client as usize).cloned().unwrap_or_default(),
            most_waiting: act.most_waiting.get(client as usize).copied().unwrap_or_default(),
        }
    }

    /// The share of orders that were settled at once.
    pub(super) fn success(&self) -> f64 {
        if self.orders == 0 { 0.0 } else { self.settled as f64 / self.orders as f64 }
    }

    /// A replica's share of the calls.
    pub(super) fn share(&self, replica: usize) -> f64 {
        let all: u64 = self.calls.iter().sum();
        self.calls.get(replica).map_or(0.0, |calls| *calls as f64 / all.max(1) as f64)
    }
}
