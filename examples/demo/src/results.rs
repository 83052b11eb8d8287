//! Everything a run found out, as plain data: the verdict judges it, the report shows it, `--json`
//! writes it.

mod full_service;
mod machine;

use std::time::{Duration, Instant};

use serde::Serialize;

use self::full_service::full_service;
pub(crate) use self::machine::Machine;
use crate::audit::Audit;
use crate::breaker_log::BreakerLog;
use crate::cli::Client;
use crate::counted::Counted;
use crate::follow::STREAMS;
use crate::histogram::Histogram;
use crate::load::PATIENCE;
use crate::naive::Naive;
use crate::parts::Without;
use crate::scenario::{Mood, Scenario};
use crate::tally::{Answer, Books, Sent};

/// After something has broken, this much later all must be well again.
const GRACE: Duration = Duration::from_secs(1);
/// The end of a phase, for what must be well by then; of a quick run half as much.
const END: Duration = Duration::from_secs(10);

/// A run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) scenario: &'static str,
    pub(crate) seed: u64,
    pub(crate) quick: bool,
    pub(crate) naive_client: Naive,
    pub(crate) without: Without,
    pub(crate) machine: Machine,
    pub(crate) naive: Twin,
    pub(crate) resilient: Twin,
    /// The control: needs no user-service, so what slows it down slows everyone down.
    pub(crate) alone: Twin,
    /// The resilient one's calls.
    pub(crate) counted: Counted,
}

/// One order-service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Twin {
    /// In the order of the scenario's.
    pub(crate) phases: Vec<PhaseFigures>,
    /// Orders while its circuit breaker was open; `None` if it has none or it never opened.
    pub(crate) once_open: Option<OnceOpen>,
    /// From the moment all was well again to the end of the last second in which more than a few
    /// orders weren't settled at once; `None` if the last second of all was one.
    pub(crate) full_service_after_ms: Option<f64>,
    /// From the moment all was well again until no order was pending; `None` if that never came.
    pub(crate) resolved_after_ms: Option<f64>,
    pub(crate) audit: Audit,
    /// By second.
    pub(crate) seconds: Vec<SecondFigures>,
}

/// One phase of one order-service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseFigures {
    pub(crate) name: &'static str,
    pub(crate) orders: u64,
    /// Orders answered at once and rightly: 201, or 422 for a user who doesn't exist.
    pub(crate) settled: u64,
    /// Orders answered 202: user-service could not be asked.
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    /// Those of the failed that were answered with an error, or with none.
    pub(crate) wrong: u64,
    pub(crate) post_p50_ms: f64,
    pub(crate) post_p99_ms: f64,
    /// The same without the phase's first second.
    pub(crate) later_p99_ms: f64,
    /// How late the load's requests were sent; the same for all.
    pub(crate) sent_late_p99_ms: f64,
    /// Orders that took longer than [`OnceOpen::LIMIT`].
    pub(crate) post_slow: u64,
    /// The share of the orders of its last seconds that were settled at once; `None` if there were
    /// none.
    pub(crate) settled_at_end: Option<f64>,
    pub(crate) reads: u64,
    pub(crate) reads_failed: u64,
    pub(crate) read_p50_ms: f64,
    pub(crate) read_p99_ms: f64,
    /// Calls that reached each user-service during the phase.
    pub(crate) calls: Vec<u64>,
    pub(crate) work: Work,
    /// Streams that ended, and those alive when the phase did.
    pub(crate) streams: Streams,
    /// The most requests that waited at the end of a second.
    pub(crate) most_waiting: usize,
}

/// One second of one order-service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SecondFigures {
    /// Since the start of the load.
    pub(crate) at: u64,
    pub(crate) phase: usize,
    pub(crate) settled: u64,
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    pub(crate) post_p99_ms: Option<f64>,
    pub(crate) read_p99_ms: Option<f64>,
    pub(crate) reads_failed: u64,
    pub(crate) calls: u64,
    /// Work begun for callers who had gone.
    pub(crate) in_vain: u64,
    /// Streams alive at its end; `None` where there are none.
    pub(crate) streams: Option<u64>,
    pub(crate) waiting: usize,
}

/// An order-service's streams of events in a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Streams {
    pub(crate) ended: u64,
    /// When the phase ended.
    pub(crate) alive: u64,
}

/// Calls that the user-services' workers began; see [`crate::faults`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Work {
    pub(crate) begun: u64,
    /// Those whose caller had gone.
    pub(crate) in_vain: u64,
}

impl Work {
    /// The share of it that nobody waited for.
    pub(crate) fn share_in_vain(self) -> f64 {
        self.in_vain as f64 / self.begun.max(1) as f64
    }

    pub(crate) const fn since(self, before: Self) -> Self {
        Self { begun: self.begun - before.begun, in_vain: self.in_vain - before.in_vain }
    }
}

/// What of a phase is seen from outside the requests.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// When it began and ended, since the start of the load.
    pub(crate) opened: Duration,
    pub(crate) closed: Duration,
    /// By twin and user-service.
    pub(crate) calls: [Vec<u64>; Client::TWINS.len()],
    pub(crate) work: [Work; Client::TWINS.len()],
    pub(crate) streams: [Streams; Client::TWINS.len()],
    /// By twin.
    pub(crate) most_waiting: [usize; Client::TWINS.len()],
}

/// What only the stage sees: not the load, nor the services.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) start: Instant,
    pub(crate) phases: Vec<Observed>,
    pub(crate) back: Return,
    /// By twin.
    pub(crate) seconds: [Vec<SecondFigures>; Client::TWINS.len()],
}

/// Orders sent between the breaker's opening and the end of the outage.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OnceOpen {
    pub(crate) orders: usize,
    /// From the first moment of the outage to the opening.
    pub(crate) opened_after_ms: f64,
    /// Those answered 202 within [`OnceOpen::LIMIT`].
    pub(crate) fast: usize,
    /// How often the breaker went half-open meanwhile, and let probes through that may be slow.
    pub(crate) half_opens: usize,
}

/// When all was well again, by the load's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Return {
    pub(crate) ready: Duration,
    /// When each order-service had no pending order for the first time after that.
    pub(crate) resolved: [Option<Duration>; Client::ALL.len()],
}

impl OnceOpen {
    /// "At once", for a 202.
    pub(crate) const LIMIT: Duration = Duration::from_millis(50);

    fn count(scenario: &Scenario, sent: &[Sent], breaker: &BreakerLog, start: Instant) -> Option<Self> {
        let down = |sent: &&Sent| sent.phase.is_some_and(|phase| scenario.phases[phase].mood == Mood::Down);
        let began = sent.iter().filter(down).map(|sent| sent.at).min()?;
        let opened = breaker.first_open(start, began)?;
        let after: Vec<_> = sent.iter().filter(down).filter(|sent| sent.at >= opened).collect();
        let ended = after.iter().map(|sent| sent.at).max()?;
        let fast = |sent: &&&Sent| sent.answer == Answer::Accepted && sent.latency <= Self::LIMIT;
        Some(Self {
            orders: after.len(),
            opened_after_ms: millis(opened.saturating_sub(began)),
            fast: after.iter().filter(fast).count(),
            half_opens: breaker.half_opens(start, opened, ended),
        })
    }
}

impl Twin {
    #[allow(clippy::too_many_arguments, reason = "each is another source of what is put together here")]
    pub(crate) fn new(
        scenario: &Scenario,
        quick: bool,
        client: Client,
        books: &Books,
        seen: &Seen,
        late: &[Histogram],
        breaker: &BreakerLog,
        audit: Audit,
    ) -> Self {
        let after_return = |at: Duration| millis(at.saturating_sub(seen.back.ready));
        let back = books
            .sent()
            .iter()
            .filter(|sent| sent.phase.is_some_and(|phase| scenario.phases[phase].mood == Mood::Back));
        let back = back.map(|sent| {
            let settled = sent.served() && sent.answer != Answer::Accepted;
            (sent.at.saturating_sub(seen.back.ready), settled)
        });
        let end = if quick { END / 2 } else { END };
        let phases = seen.phases.iter().zip(scenario.phases).enumerate().map(|(index, (observed, phase))| {
            let late = late.get(index).and_then(|late| quantile(late, 0.99)).unwrap_or_default();
            PhaseFigures::new(client, books, index, phase.name, observed, end, late)
        });
        Self {
            phases: phases.collect(),
            once_open: OnceOpen::count(scenario, books.sent(), breaker, seen.start),
            full_service_after_ms: full_service(back).map(millis),
            resolved_after_ms: seen.back.resolved[client as usize].map(after_return),
            audit,
            seconds: seen.seconds.get(client as usize).cloned().unwrap_or_default(),
        }
    }

    /// The share of orders that took longer than [`OnceOpen::LIMIT`] while user-service was down.
    pub(crate) fn slow_share_when_down(&self, scenario: &Scenario) -> f64 {
        let down = self.phases.iter().zip(scenario.phases).filter(|(_, phase)| phase.mood == Mood::Down);
        let (slow, all) =
            down.fold((0, 0), |(slow, all), (phase, _)| (slow + phase.post_slow, all + phase.orders));
        slow as f64 / all.max(1) as f64
    }

    /// What user-services' workers began for it, in all.
    pub(crate) fn work(&self) -> Work {
        self.phases.iter().fold(Work::default(), |all, phase| Work {
            begun: all.begun + phase.work.begun,
            in_vain: all.in_vain + phase.work.in_vain,
        })
    }

    /// The share of its time that a stream was dead; `None` where there are none.
    pub(crate) fn streams_dead(&self) -> Option<f64> {
        let alive: u64 = self.seconds.iter().map(|second| second.streams).sum::<Option<u64>>()?;
        (!self.seconds.is_empty()).then(|| 1.0 - alive as f64 / (STREAMS * self.seconds.len()) as f64)
    }

    /// The share of reads that were answered.
    pub(crate) fn reads_answered(&self) -> f64 {
        let (reads, failed) = self
            .phases
            .iter()
            .fold((0, 0), |(reads, failed), phase| (reads + phase.reads, failed + phase.reads_failed));
        1.0 - failed as f64 / reads.max(1) as f64
    }
}

impl PhaseFigures {
    fn new(
        client: Client,
        books: &Books,
        index: usize,
        name: &'static str,
        observed: &Observed,
        end: Duration,
        sent_late_p99_ms: f64,
    ) -> Self {
        let (mut all, mut later) = (Histogram::default(), Histogram::default());
        let (mut at_end, mut settled_at_end, mut wrong) = (0_u64, 0_u64, 0_u64);
        for sent in books.sent().iter().filter(|sent| sent.phase == Some(index)) {
            // Given up unsent, it would look quick.
            let latency = if sent.answer == Answer::GivenUp { PATIENCE } else { sent.latency };
            all.record(latency);
            wrong += u64::from(sent.answer.is_wrong());
            if sent.at >= observed.opened + GRACE {
                later.record(latency);
            }
            if sent.at + end >= observed.closed {
                at_end += 1;
                settled_at_end += u64::from(sent.served() && sent.answer != Answer::Accepted);
            }
        }
        let tally = books.phase(index);
        let twin = client as usize;
        Self {
            name,
            orders: tally.post.len(),
            settled: tally.settled,
            accepted: tally.accepted,
            failed: tally.failed,
            wrong,
            post_p50_ms: quantile(&all, 0.5).unwrap_or_default(),
            post_p99_ms: quantile(&all, 0.99).unwrap_or_default(),
            later_p99_ms: quantile(&later, 0.99).unwrap_or_default(),
            sent_late_p99_ms,
            post_slow: all.above(OnceOpen::LIMIT),
            settled_at_end: (at_end > 0).then(|| settled_at_end as f64 / at_end as f64),
            reads: tally.reads,
            reads_failed: tally.reads_failed,
            read_p50_ms: quantile(&tally.read, 0.5).unwrap_or_default(),
            read_p99_ms: quantile(&tally.read, 0.99).unwrap_or_default(),
            calls: observed.calls.get(twin).cloned().unwrap_or_default(),
            work: observed.work.get(twin).copied().unwrap_or_default(),
            streams: observed.streams.get(twin).copied().unwrap_or_default(),
            most_waiting: observed.most_waiting.get(twin).copied().unwrap_or_default(),
        }
    }

    /// The share of orders that got a right answer.
    pub(crate) fn served_share(&self) -> f64 {
        if self.orders == 0 { 0.0 } else { (self.settled + self.accepted) as f64 / self.orders as f64 }
    }

    /// The share of orders that were settled at once.
    pub(crate) fn settled_share(&self) -> f64 {
        if self.orders == 0 { 0.0 } else { self.settled as f64 / self.orders as f64 }
    }

    /// Calls that reached a user-service for each order.
    pub(crate) fn calls_per_order(&self) -> f64 {
        self.calls.iter().sum::<u64>() as f64 / self.orders.max(1) as f64
    }

    /// A user-service's share of the calls.
    pub(crate) fn share(&self, user_service: usize) -> f64 {
        let all: u64 = self.calls.iter().sum();
        self.calls.get(user_service).map_or(0.0, |calls| *calls as f64 / all.max(1) as f64)
    }
}

pub(crate) fn quantile(histogram: &Histogram, share: f64) -> Option<f64> {
    histogram.quantile(share).map(millis)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
