//! Everything a run found out, as plain data: the verdict judges it, the report shows it, `--json` writes it.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::audit::Audit;
use crate::breaker_log::BreakerLog;
use crate::cli::Client;
use crate::fault_phases::Phase;
use crate::histogram::Histogram;
use crate::tally::{Answer, Books, Sent, Tally};

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
    pub(crate) phases: Vec<PhaseFigures>,
    /// Orders while its circuit breaker was open; `None` if it has none or it never opened.
    pub(crate) once_open: Option<OnceOpen>,
    /// From user-service's first answer after its restart to the last order that was not settled at once.
    pub(crate) full_service_after_ms: f64,
    /// From user-service's first answer after its restart until no order was pending; `None` if that never came.
    pub(crate) resolved_after_ms: Option<f64>,
    pub(crate) audit: Audit,
}

/// One phase of one order-service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseFigures {
    pub(crate) phase: Phase,
    pub(crate) orders: u64,
    pub(crate) settled: u64,
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    pub(crate) post_p50_ms: f64,
    pub(crate) post_p99_ms: f64,
    /// Orders that took longer than [`OnceOpen::LIMIT`].
    pub(crate) post_slow: u64,
    pub(crate) reads: u64,
    pub(crate) reads_failed: u64,
    pub(crate) read_p50_ms: f64,
    pub(crate) read_p99_ms: f64,
    /// Calls that reached user-service during the phase.
    pub(crate) calls: u64,
    /// The most requests that waited at the end of a second.
    pub(crate) most_waiting: usize,
}

/// What of a phase is seen from outside the requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outside {
    pub(crate) calls: u64,
    pub(crate) most_waiting: usize,
}

/// Orders sent between the breaker's opening and user-service's return.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OnceOpen {
    pub(crate) orders: usize,
    /// Those answered 202 within [`OnceOpen::LIMIT`].
    pub(crate) fast: usize,
    /// How often the breaker went half-open meanwhile, and let probes through that may be slow.
    pub(crate) half_opens: usize,
}

impl OnceOpen {
    /// "At once", for a 202.
    pub(crate) const LIMIT: Duration = Duration::from_millis(50);

    fn count(sent: &[Sent], breaker: &BreakerLog, start: Instant) -> Option<Self> {
        let outage = |sent: &&Sent| matches!(sent.phase, Some(Phase::Hang | Phase::Killed));
        let began = sent.iter().filter(outage).map(|sent| sent.at).min()?;
        let opened = breaker.first_open(start, began)?;
        let after: Vec<_> = sent.iter().filter(outage).filter(|sent| sent.at >= opened).collect();
        let ended = after.iter().map(|sent| sent.at).max()?;
        let fast = |sent: &&&Sent| sent.answer == Answer::Accepted && sent.latency <= Self::LIMIT;
        Some(Self {
            orders: after.len(),
            fast: after.iter().filter(fast).count(),
            half_opens: breaker.half_opens(start, opened, ended),
        })
    }
}

/// What happened around user-service's return, by the load's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    /// When user-service gave its first answer after the restart.
    pub(crate) ready: Duration,
    /// When each order-service had no pending order for the first time after that.
    pub(crate) resolved: [Option<Duration>; Client::ALL.len()],
}

impl Twin {
    pub(crate) fn phase(&self, phase: Phase) -> Option<&PhaseFigures> {
        self.phases.iter().find(|figures| figures.phase == phase)
    }

    /// The share of orders that took longer than [`OnceOpen::LIMIT`] while user-service hung or was dead.
    pub(crate) fn slow_share_in_outage(&self) -> f64 {
        let outage = [Phase::Hang, Phase::Killed].into_iter().filter_map(|phase| self.phase(phase));
        let (slow, all) =
            outage.fold((0, 0), |(slow, all), phase| (slow + phase.post_slow, all + phase.orders));
        slow as f64 / all.max(1) as f64
    }

    pub(crate) fn new(
        client: Client,
        books: &Books,
        outside: [Outside; Phase::ALL.len()],
        breaker: &BreakerLog,
        back: Return,
        start: Instant,
        audit: Audit,
    ) -> Self {
        let after_return = |at: Duration| millis(at.saturating_sub(back.ready));
        let unsettled = |sent: &&Sent| {
            let late = sent.phase == Some(Phase::Recovery);
            late && !(sent.served() && sent.answer != Answer::Accepted)
        };
        let last_unsettled = books.sent().iter().filter(unsettled).map(|sent| sent.at).max();
        Self {
            phases: Phase::OUTAGE
                .map(|phase| PhaseFigures::new(phase, books.phase(phase), outside[phase as usize]))
                .into(),
            once_open: OnceOpen::count(books.sent(), breaker, start),
            full_service_after_ms: last_unsettled.map_or(0.0, after_return),
            resolved_after_ms: back.resolved[client as usize].map(after_return),
            audit,
        }
    }
}

impl PhaseFigures {
    fn new(phase: Phase, tally: &Tally, outside: Outside) -> Self {
        Self {
            phase,
            orders: tally.post.len(),
            settled: tally.settled,
            accepted: tally.accepted,
            failed: tally.failed,
            post_p50_ms: quantile(&tally.post, 0.5),
            post_p99_ms: quantile(&tally.post, 0.99),
            post_slow: tally.post.above(OnceOpen::LIMIT),
            reads: tally.reads,
            reads_failed: tally.reads_failed,
            read_p50_ms: quantile(&tally.read, 0.5),
            read_p99_ms: quantile(&tally.read, 0.99),
            calls: outside.calls,
            most_waiting: outside.most_waiting,
        }
    }

    /// The share of orders that got a right answer.
    pub(crate) fn success(&self) -> f64 {
        if self.orders == 0 { 0.0 } else { (self.settled + self.accepted) as f64 / self.orders as f64 }
    }

    /// Calls that reached user-service for each order.
    pub(crate) fn calls_per_order(&self) -> f64 {
        if self.orders == 0 { 0.0 } else { self.calls as f64 / self.orders as f64 }
    }
}

fn quantile(histogram: &Histogram, share: f64) -> f64 {
    histogram.quantile(share).map_or(0.0, millis)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
