//! The rules that scenarios are made of: what must hold for an order-service, and the figures that
//! say whether it did.
//!
//! A rule about speed compares with the lone order-service, which asks nobody: what slows that one
//! down is this machine. Where it is so slow that a call that waited for a broken user-service
//! would pass for ordinary, the rule says so (`Outcome::Unclear`) and neither holds nor fails.

use crate::follow::STREAMS;
use crate::results::{OnceOpen, PhaseFigures, Streams, Twin, Work};
use crate::scenario::{Mood, Scenario};
use crate::verdict::Check;

/// Requests may take this many times as long as while all was well, or as the lone order-service's
/// take meanwhile if that is more...
const SLOWER: f64 = 1.5;
/// ...plus this, in milliseconds, for stray scheduling delays: of so few, p99 is the second or
/// third worst. A request that waited for a bad user-service would take 250 and more.
const STRAY_MS: f64 = 20.0;
/// When the lone order-service's p99 is above this, in milliseconds, the limit would be near to
/// what a fault costs.
const UNCLEAR_MS: f64 = 100.0;
/// The circuit breaker lets this many probes through when it goes half-open; they wait for a hung
/// service.
const PROBES: usize = 3;
/// Yet no more than this share of the orders may be probes.
const PROBED_SHARE: f64 = 0.1;
/// From the first moment of an outage the circuit breaker may take this long to open.
const OPENS_WITHIN_MS: f64 = 3000.0;
/// The share of other orders that may miss [`OnceOpen::LIMIT`] for stray delays...
const STRAY_SHARE: f64 = 0.01;
/// ...and this many times the share of the lone order-service's orders that did so meanwhile: a
/// stall of the disk hits whoever commits just then. On a quiet machine that is none.
const STRAY_FACTOR: f64 = 3.0;
/// When more of the lone order-service's orders than this failed or were slow, the limit would be
/// near to what a fault costs.
const UNCLEAR_SHARE: f64 = 0.1;
/// At the end of a phase all streams must have been alive for as long, in milliseconds: one that is
/// opened again every time it breaks off is alive whenever one looks.
const WHOLE_MS: u64 = 2000;
/// A user-service that refuses at once may get this many times its fair share of the calls.
const ATTRACTION: f64 = 1.2;

/// One thing that must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Every read is answered.
    ReadsAnswered,
    /// Reads are as quick as while all was well.
    ReadsQuick,
    /// Every order is answered rightly: stored if the user exists, refused if not, accepted in
    /// either case.
    OrdersAnswered,
    /// The same in one phase, but for a few: of those who wait for a short time only, a busy
    /// machine lets some go.
    AnsweredInTime { at_least: f64, phase: &'static str },
    /// Hardly any work is begun for callers who have gone.
    WorkWanted { phase: &'static str, in_vain: f64 },
    /// No stream of events ends in this phase, and at its end all have been alive for a while.
    StreamsWhole { phase: &'static str },
    /// Whatever happened to them in this phase, at its end all streams have been alive for a while.
    StreamsAlive { phase: &'static str },
    /// While user-service is down and the circuit breaker open, orders are accepted at once. About
    /// the breaker, and so not for the naive twin.
    AtOnceWhenOpen,
    /// Orders are settled at once, in one phase or in every one.
    SettledAtOnce { at_least: f64, phase: Option<&'static str> },
    /// Orders are settled at once in the last seconds of a phase.
    SettledAtEnd { at_least: f64, phase: &'static str },
    /// Orders are as quick as while all was well, once a bad phase's first second is over; in one
    /// or in every one.
    OrdersQuick { phase: Option<&'static str> },
    /// Whoever orders in this phase waits no longer than this.
    OrdersWithin { phase: &'static str, ms: f64 },
    /// A user-service that refuses at once doesn't look fast.
    AttractsNothing { phase: &'static str, user_service: usize },
    /// A user-service gets no call while it is dead, and gets some again.
    CalledAgain { dead: &'static str, back: &'static str, user_service: usize },
    /// So many calls for each order, and a few.
    FewCalls { phase: &'static str, each: f64, spare: u64 },
    /// What was acknowledged is stored, once.
    NoneLost,
    /// What was answered 202 is settled since, rightly and once.
    ResolvedOnce,
    /// Once all is well again, orders are settled at once after so many seconds, and after so many
    /// nothing is pending.
    Recovered { settled: u64, resolved: u64 },
}

impl Rule {
    /// Whether it is put to the naive twin as well.
    pub(crate) const fn is_for_all(self) -> bool {
        !matches!(self, Self::AtOnceWhenOpen)
    }

    /// The phases that it names.
    #[cfg(test)]
    pub(crate) fn phases(self) -> Vec<&'static str> {
        match self {
            Self::SettledAtOnce { phase, .. } | Self::OrdersQuick { phase } => phase.into_iter().collect(),
            Self::SettledAtEnd { phase, .. }
            | Self::AttractsNothing { phase, .. }
            | Self::OrdersWithin { phase, .. }
            | Self::AnsweredInTime { phase, .. }
            | Self::WorkWanted { phase, .. }
            | Self::StreamsWhole { phase }
            | Self::StreamsAlive { phase }
            | Self::FewCalls { phase, .. } => vec![phase],
            Self::CalledAgain { dead, back, .. } => vec![dead, back],
            _ => Vec::new(),
        }
    }

    /// Whether `twin` kept it, beside the lone order-service.
    pub(crate) fn check(self, scenario: &Scenario, twin: &Twin, alone: &Twin) -> Check {
        let runs = Runs { scenario, twin, alone };
        match self {
            Self::ReadsAnswered => runs.reads_answered(),
            Self::ReadsQuick => {
                runs.quick("reads: as quick as before", None, |phase| (phase.read_p99_ms, phase.read_p99_ms))
            }
            Self::OrdersAnswered => runs.orders_answered(),
            Self::AnsweredInTime { at_least, phase } => runs.answered_in_time(at_least, phase),
            Self::WorkWanted { phase, in_vain } => runs.work_wanted(phase, in_vain),
            Self::StreamsWhole { phase } => runs.streams("streams: none ends while well", phase, Some(0)),
            Self::StreamsAlive { phase } => runs.streams("streams: all alive again", phase, None),
            Self::AtOnceWhenOpen => runs.at_once_when_open(),
            Self::SettledAtOnce { at_least, phase } => runs.settled_at_once(at_least, phase),
            Self::SettledAtEnd { at_least, phase } => runs.settled_at_end(at_least, phase),
            Self::OrdersQuick { phase } => runs.quick("orders: as quick after a second", phase, |phase| {
                (phase.post_p99_ms, phase.later_p99_ms)
            }),
            Self::OrdersWithin { phase, ms } => runs.orders_within(phase, ms),
            Self::AttractsNothing { phase, user_service } => runs.attracts_nothing(phase, user_service),
            Self::CalledAgain { dead, back, user_service } => runs.called_again(dead, back, user_service),
            Self::FewCalls { phase, each, spare } => runs.few_calls(phase, each, spare),
            Self::NoneLost => runs.none_lost(),
            Self::ResolvedOnce => runs.resolved_once(),
            Self::Recovered { settled, resolved } => runs.recovered(settled, resolved),
        }
    }
}

/// What a rule looks at.
struct Runs<'a> {
    scenario: &'a Scenario,
    twin: &'a Twin,
    alone: &'a Twin,
}

/// A phase beside its limit.
struct Judged {
    /// Above the limit.
    excess: f64,
    /// Whether the limit is one to judge by.
    unclear: bool,
    figures: String,
}

impl Judged {
    /// A phase that is above a limit to judge by fails the rule; without one, a phase that can't be
    /// judged leaves it open.
    fn all(name: &'static str, judged: impl Iterator<Item = Self>) -> Check {
        let mut judged: Vec<_> = judged.collect();
        judged.sort_by(|a, b| b.excess.total_cmp(&a.excess));
        let failed = judged.iter().find(|phase| !phase.unclear && phase.excess > 0.0);
        let unclear = judged.iter().find(|phase| phase.unclear);
        match failed.or(unclear).or(judged.first()) {
            Some(phase) => Check::of(name, failed.is_none(), phase.figures.clone())
                .unclear_if(failed.is_none() && phase.unclear),
            None => Check::of(name, false, "no phase to judge".into()),
        }
    }
}

impl Runs<'_> {
    fn phase(&self, name: &str) -> Option<&PhaseFigures> {
        self.twin.phases.get(self.scenario.phase(name)?)
    }

    /// The twin's phases with the lone order-service's, all or the one that is named.
    fn phases(&self, only: Option<&str>) -> impl Iterator<Item = (&PhaseFigures, &PhaseFigures)> {
        let only = only.map(str::to_owned);
        let pairs = self.twin.phases.iter().zip(&self.alone.phases);
        pairs.filter(move |(phase, _)| only.as_deref().is_none_or(|name| name == phase.name))
    }

    fn mood(&self, phase: &PhaseFigures) -> Mood {
        self.scenario.phase(phase.name).map_or(Mood::Well, |index| self.scenario.phases[index].mood)
    }

    fn sum(&self, of: impl Fn(&PhaseFigures) -> u64) -> u64 {
        self.twin.phases.iter().map(of).sum()
    }

    fn reads_answered(&self) -> Check {
        let (reads, failed) = (self.sum(|phase| phase.reads), self.sum(|phase| phase.reads_failed));
        let held = failed == 0 && self.twin.phases.iter().all(|phase| phase.reads > 0);
        Check::of("reads: all answered", held, format!("{} of {reads}", reads - failed))
    }

    fn orders_answered(&self) -> Check {
        let (orders, failed) = (self.sum(|phase| phase.orders), self.sum(|phase| phase.failed));
        let held = failed == 0 && self.twin.phases.iter().all(|phase| phase.orders > 0);
        Check::of("orders: all answered rightly", held, format!("{} of {orders}", orders - failed))
    }

    fn answered_in_time(&self, at_least: f64, phase: &str) -> Check {
        let missing = |phase: &PhaseFigures| 1.0 - phase.served_share();
        let judged = self.phases(Some(phase)).map(|(phase, alone)| Judged {
            excess: missing(phase) - (1.0 - at_least) - STRAY_FACTOR * missing(alone) - 1e-9,
            unclear: missing(alone) > UNCLEAR_SHARE,
            figures: format!(
                "{} of {}, {}; at least {:.1} %",
                phase.orders - phase.failed,
                phase.orders,
                phase.name,
                at_least * 100.0
            ),
        });
        Judged::all("orders: answered while it matters", judged)
    }

    fn work_wanted(&self, phase: &str, at_most: f64) -> Check {
        let name = "work: none for those who have gone";
        let Some(figures) = self.phase(phase) else { return Check::of(name, false, String::new()) };
        let Work { begun, in_vain } = figures.work;
        let held = begun > 0 && figures.work.share_in_vain() <= at_most;
        Check::of(name, held, format!("{in_vain} of {begun}, {phase}; at most {:.0} %", at_most * 100.0))
    }

    fn streams(&self, name: &'static str, phase: &str, at_most: Option<u64>) -> Check {
        let Some(figures) = self.phase(phase) else { return Check::of(name, false, String::new()) };
        let Streams { ended, alive, whole_ms } = figures.streams;
        let whole = alive == STREAMS as u64 && whole_ms >= WHOLE_MS;
        let held = whole && at_most.is_none_or(|at_most| ended <= at_most);
        let since = whole_ms as f64 / 1e3;
        let figures = format!("{ended} ended, {alive} of {STREAMS} alive, all for {since:.1} s, {phase}");
        Check::of(name, held, figures)
    }

    /// `p99` of a phase in which all is well, and of another.
    fn quick(
        &self,
        name: &'static str,
        only: Option<&str>,
        p99: impl Fn(&PhaseFigures) -> (f64, f64),
    ) -> Check {
        let healthy = self.twin.phases.first().map_or(0.0, |phase| p99(phase).0);
        let bad = self.phases(only).filter(|(phase, _)| self.mood(phase).is_bad());
        let judged = bad.map(|(phase, alone)| {
            // Who sends late reads late, too.
            let meanwhile = p99(alone).1.max(phase.sent_late_p99_ms);
            let (p99, limit) = (p99(phase).1, healthy.max(meanwhile) * SLOWER + STRAY_MS);
            Judged {
                excess: p99 - limit,
                unclear: meanwhile > UNCLEAR_MS,
                figures: format!("closest: p99 {p99:.1} ms, {}, limit {limit:.1} ms", phase.name),
            }
        });
        Judged::all(name, judged)
    }

    fn orders_within(&self, phase: &str, ms: f64) -> Check {
        let name = "orders: nobody waits for long";
        let Some(figures) = self.phase(phase) else { return Check::of(name, false, String::new()) };
        let p99 = figures.post_p99_ms;
        Check::of(name, p99 <= ms, format!("p99 {p99:.0} ms, {phase}, limit {ms:.0} ms"))
    }

    fn at_once_when_open(&self) -> Check {
        const { assert!(OnceOpen::LIMIT.as_millis() == 50) };
        let name = "orders: 202 at once, breaker open";
        let Some(OnceOpen { orders, opened_after_ms, fast, half_opens }) = self.twin.once_open else {
            return Check::of(name, false, "it never opened, or there is none".into());
        };
        let meanwhile = self.alone.slow_share_when_down(self.scenario);
        // However often it probes.
        let probes = (PROBES * half_opens).min((orders as f64 * PROBED_SHARE).ceil() as usize);
        let strays = (orders as f64 * (STRAY_SHARE + STRAY_FACTOR * meanwhile)).ceil() as usize;
        let held = orders > 0 && opened_after_ms <= OPENS_WITHIN_MS && orders - fast <= probes + strays;
        let figures = format!(
            "open after {:.1} s; {fast} of {orders}; allowed: {probes} probes, {strays} strays",
            opened_after_ms / 1e3
        );
        Check::of(name, held, figures).unclear_if(meanwhile > UNCLEAR_SHARE)
    }

    fn settled_at_once(&self, at_least: f64, only: Option<&str>) -> Check {
        let name = match only {
            Some(_) => "orders: settled at once, mostly",
            None => "orders: settled at once, all",
        };
        let missing = |phase: &PhaseFigures| 1.0 - phase.settled_share();
        let judged = self.phases(only).map(|(phase, alone)| Judged {
            // A hair's breadth, because shares are rounded.
            excess: missing(phase) - (1.0 - at_least) - STRAY_FACTOR * missing(alone) - 1e-9,
            unclear: missing(alone) > UNCLEAR_SHARE,
            figures: format!(
                "{} of {}, {}; at least {:.1} %",
                phase.settled,
                phase.orders,
                phase.name,
                at_least * 100.0
            ),
        });
        Judged::all(name, judged)
    }

    fn settled_at_end(&self, at_least: f64, phase: &str) -> Check {
        let share = self.phase(phase).and_then(|phase| phase.settled_at_end);
        let figures = match share {
            Some(share) => {
                format!("{:.1} % in the last seconds; at least {:.1} %", share * 100.0, at_least * 100.0)
            }
            None => "no order then".into(),
        };
        Check::of("orders: settled at once at the end", share.is_some_and(|share| share >= at_least), figures)
    }

    fn attracts_nothing(&self, phase: &str, user_service: usize) -> Check {
        let name = "one refusing: attracts no calls";
        let Some(figures) = self.phase(phase) else { return Check::of(name, false, String::new()) };
        let (share, fair) = (figures.share(user_service), 1.0 / figures.calls.len().max(1) as f64);
        let held = figures.calls.iter().any(|calls| *calls > 0) && share <= ATTRACTION * fair;
        Check::of(name, held, format!("{:.1} % of the calls, fair {:.1} %", share * 100.0, fair * 100.0))
    }

    fn called_again(&self, dead: &str, back: &str, user_service: usize) -> Check {
        let calls = |phase: &str| self.phase(phase).and_then(|phase| phase.calls.get(user_service).copied());
        let (dead, back) = (calls(dead), calls(back));
        let held = dead == Some(0) && back.is_some_and(|calls| calls > 0);
        let figures = format!("{} calls dead, {} since", dead.unwrap_or_default(), back.unwrap_or_default());
        Check::of("one killed: called again once back", held, figures)
    }

    fn few_calls(&self, phase: &str, each: f64, spare: u64) -> Check {
        let name = "calls: few while they fail";
        let Some(figures) = self.phase(phase) else { return Check::of(name, false, String::new()) };
        let calls: u64 = figures.calls.iter().sum();
        let limit = (figures.orders as f64 * each) as u64 + spare;
        let held = figures.orders > 0 && calls <= limit;
        Check::of(name, held, format!("{calls} for {} orders, at most {limit}", figures.orders))
    }

    fn none_lost(&self) -> Check {
        let audit = &self.twin.audit;
        let held = audit.acknowledged > 0 && audit.lost == 0 && audit.duplicated == 0;
        let figures = format!(
            "{} acknowledged, {} lost, {} stored twice",
            audit.acknowledged, audit.lost, audit.duplicated
        );
        Check::of("orders: none lost, none twice", held, figures).always()
    }

    fn resolved_once(&self) -> Check {
        let audit = &self.twin.audit;
        let (wrong_times, misjudged) = (audit.resolved_wrong_number_of_times, audit.misjudged);
        let promised = self.sum(|phase| phase.accepted);
        let held =
            audit.pending == 0 && wrong_times == 0 && misjudged == 0 && audit.resolved as u64 >= promised;
        let figures = format!(
            "{promised} promised, {} resolved, {} pending, {wrong_times} not once, {misjudged} wrongly",
            audit.resolved, audit.pending
        );
        let never = wrong_times > 0 || misjudged > 0;
        let check = Check::of("orders: each 202 resolved once", held, figures);
        // What is pending at the end may only have been slow.
        if never { check.always() } else { check }
    }

    fn recovered(&self, settled: u64, resolved: u64) -> Check {
        let back = self.twin.phases.iter().filter(|phase| self.mood(phase) == Mood::Back);
        let orders = back.map(|phase| phase.settled).sum::<u64>();
        let within =
            |after: Option<f64>, seconds: u64| after.is_some_and(|after| after <= seconds as f64 * 1e3);
        let held = orders > 0
            && within(self.twin.full_service_after_ms, settled)
            && within(self.twin.resolved_after_ms, resolved);
        let told = |after: Option<f64>| after.map_or("never".into(), |after| format!("{:.1} s", after / 1e3));
        let figures = format!(
            "all at once after {} (of {settled} s), none pending after {} (of {resolved} s)",
            told(self.twin.full_service_after_ms),
            told(self.twin.resolved_after_ms),
        );
        Check::of("recovered", held, figures)
    }
}
