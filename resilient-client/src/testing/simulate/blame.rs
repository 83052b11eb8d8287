//! Which setting is to blame: the one whose mending helps.
//!
//! What a policy does follows from all of its settings together, and no rule of thumb says which
//! one of them it was. So the scenario is run again with each suspect at its standard, and who
//! makes the difference is named. Suspect is what differs from the standard; where a scenario is
//! bad and none of that alone makes a difference, that is said, too.

use std::fmt;
use std::time::Duration;

use super::{Finding, Recovery, Scenario, Short, simulate};
use crate::error::Error;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::budget::BudgetPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::overload::OverloadPolicy;
use crate::policy::retry::RetryPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::policy::{Policy, priority::Priority};

/// More requests for a call than this are too many.
const AMPLIFIES: f64 = 1.5;
/// As much more of success is worth a warning.
const WORTH: f64 = 0.05;
/// A server that is well again should be used before that.
const RECOVERS: Duration = Duration::from_secs(1);
/// Nobody wants to wait for longer.
const WAITS: Duration = Duration::from_secs(1);

/// What is bad in a scenario, and by which setting. `Display` says it in a sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Warning {
    /// The setting's name, as a configuration file has it: `retry.max_attempts`.
    pub setting: &'static str,
    /// Where it is bad.
    pub scenario: Scenario,
    said: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

/// A setting that may be to blame.
struct Suspect {
    setting: &'static str,
    /// As it is.
    is: String,
    /// As it might be.
    would_be: String,
    mended: Policy,
}

/// Those that aren't as the standard has them, whichever way they differ.
struct Suspects<'a> {
    policy: &'a Policy,
    all: Vec<Suspect>,
}

impl Suspects<'_> {
    fn of(policy: &Policy) -> Vec<Suspect> {
        let mut suspects = Suspects { policy, all: Vec::new() };
        suspects.retries();
        suspects.budget();
        suspects.breaker();
        suspects.places();
        suspects.beside_the_standard();
        suspects.bounds();
        suspects.all
    }

    fn add(
        &mut self,
        setting: &'static str,
        is: String,
        would_be: &str,
        mend: impl FnOnce(Policy) -> Policy,
    ) {
        let mended = mend(self.policy.clone());
        self.all.push(Suspect { setting, is, would_be: would_be.to_owned(), mended });
    }

    /// The same where its value is all there is to be said.
    fn value<T: fmt::Debug>(
        &mut self,
        setting: &'static str,
        is: T,
        would_be: &str,
        mend: impl FnOnce(Policy) -> Policy,
    ) {
        self.add(setting, format!("{setting} = {is:?}"), would_be, mend);
    }

    fn retries(&mut self) {
        let standard = RetryPolicy::standard();
        let Some(retry) = &self.policy.retry else {
            return self.value("retry", "off", "retry and budget on", |policy| {
                policy.retry(standard).budget(BudgetPolicy::standard())
            });
        };
        let of = || retry.clone();
        if retry.max_attempts != standard.max_attempts {
            let mended = of().max_attempts(standard.max_attempts);
            self.value("retry.max_attempts", retry.max_attempts, "4", |policy| policy.retry(mended));
        }
        let waits = of().initial(standard.initial).cap(standard.cap);
        if retry.initial != standard.initial {
            self.value("retry.initial", retry.initial, "20ms", |policy| policy.retry(waits));
        } else if retry.cap != standard.cap {
            self.value("retry.cap", retry.cap, "2s", |policy| policy.retry(waits));
        }
        if retry.delays.is_some() {
            let mended = RetryPolicy { delays: None, ..of() };
            self.add("retry.delays", "retry.delays".into(), "exponential ones", |policy| {
                policy.retry(mended)
            });
        }
    }

    /// What keeps retries few.
    fn budget(&mut self) {
        let (standard, Some(retry)) = (BudgetPolicy::standard(), &self.policy.retry) else { return };
        match &self.policy.budget {
            None => {
                let is = format!("retry.max_attempts = {} without budget", retry.max_attempts);
                self.add("retry.max_attempts", is, "a budget", |policy| policy.budget(standard));
            }
            Some(budget) if *budget != standard => {
                let BudgetPolicy { capacity, initial, deposit_per_success } = budget;
                let is = format!(
                    "budget = {{ capacity = {capacity}, initial = {initial}, deposit_per_success = \
                     {deposit_per_success} }}"
                );
                self.add("budget", is, "the standard one", |policy| policy.budget(standard));
            }
            Some(_) => {}
        }
    }

    fn breaker(&mut self) {
        let standard = BreakerPolicy::standard();
        let Some(breaker) = &self.policy.breaker else {
            return self.value("breaker", "off", "breaker on", |policy| policy.breaker(standard));
        };
        let of = || breaker.clone();
        if breaker.failure_rate.total_cmp(&standard.failure_rate).is_ne() {
            let mended = of().failure_rate(standard.failure_rate);
            self.value("breaker.failure_rate", breaker.failure_rate, "0.5", |policy| policy.breaker(mended));
        }
        let opens = |breaker: BreakerPolicy| breaker.open_for(standard.open_for).open_cap(standard.open_cap);
        if opens(of()) != *breaker {
            let (setting, is) = if breaker.open_for == standard.open_for {
                ("breaker.open_cap", breaker.open_cap)
            } else {
                ("breaker.open_for", breaker.open_for)
            };
            self.value(setting, is, "250ms to 5s", |policy| policy.breaker(opens(of())));
        }
        if opens(of()).failure_rate(standard.failure_rate) != standard {
            self.add("breaker", "the breaker".into(), "the standard one", |policy| policy.breaker(standard));
        }
    }

    /// Who limits how many are on their way.
    fn places(&mut self) {
        let standard = BulkheadPolicy::standard();
        match &self.policy.bulkhead {
            None => self.value("bulkhead", "off", "bulkhead on", |policy| policy.bulkhead(standard)),
            Some(own) if own.max_in_flight != standard.max_in_flight => {
                let mended = own.clone().max_in_flight(standard.max_in_flight);
                self.value("bulkhead.max_in_flight", own.max_in_flight, "256", |policy| {
                    policy.bulkhead(mended)
                });
            }
            Some(own) if *own != standard => {
                self.add("bulkhead", "the bulkhead".into(), "the standard one", |policy| {
                    policy.bulkhead(standard)
                });
            }
            Some(_) => {}
        }
        let standard = OverloadPolicy::standard();
        match &self.policy.overload {
            None => self.value("overload", "off", "overload on", |policy| policy.overload(standard)),
            Some(own) if *own != standard => {
                let is = "the overload limit".into();
                self.add("overload", is, "the standard one", |policy| policy.overload(standard));
            }
            Some(_) => {}
        }
    }

    /// What the standard doesn't have.
    fn beside_the_standard(&mut self) {
        if let Some(limit) = &self.policy.rate_limit {
            let is = format!("rate_limit = {{ count = {}, per = {:?} }}", limit.count, limit.per);
            self.add("rate_limit", is, "rate_limit off", |policy| policy.rate_limit(None));
        }
        if let Some(throttle) = &self.policy.throttle {
            let is = format!("throttle = {{ multiplier = {} }}", throttle.multiplier);
            self.add("throttle", is, "throttle off", |policy| policy.throttle(None));
        }
        if let Some(limit) = &self.policy.concurrency {
            let is = format!("concurrency = {{ kind = {:?}, max = {} }}", limit.kind, limit.max);
            self.add("concurrency", is.to_lowercase(), "concurrency off", |policy| policy.concurrency(None));
        }
        if self.policy.hedge.is_some() {
            self.value("hedge", "on", "hedge off", |policy| policy.hedge(None));
        }
        if self.policy.classifier.is_some() {
            let is = "what counts as a failure".into();
            self.add("classify", is, "the standard's", |policy| Policy { classifier: None, ..policy });
        }
        if self.policy.priority != Priority::Normal {
            self.value("priority", self.policy.priority, "normal", |policy| {
                policy.priority(Priority::Normal)
            });
        }
    }

    /// Time bounds.
    fn bounds(&mut self) {
        let (own, standard) = (self.policy.timeout.clone(), TimeoutPolicy::standard());
        let half = Duration::from_millis(500);
        let attempt_of = |attempt: Option<Duration>| own.clone().attempt(attempt);
        if own.attempt.is_none_or(|attempt| attempt > half) {
            let is = own.attempt.map_or_else(|| "\"off\"".to_owned(), |attempt| format!("{attempt:?}"));
            let is = format!("timeout.attempt = {is}");
            self.add("timeout.attempt", is, "500ms", |policy| policy.timeout(attempt_of(Some(half))));
        }
        if let Some(attempt) = own.attempt.filter(|own| standard.attempt.is_some_and(|usual| *own < usual)) {
            let mended = attempt_of(standard.attempt);
            self.value("timeout.attempt", attempt, "3s", |policy| policy.timeout(mended));
        }
        if own.total != standard.total {
            let is = own.total.map_or_else(|| "\"off\"".to_owned(), |total| format!("{total:?}"));
            let total = own.clone().total(standard.total);
            self.add("timeout.total", format!("timeout.total = {is}"), "10s", |policy| policy.timeout(total));
            if own.attempt_is_set {
                // Neither may be mended alone: an attempt has no more time than its call.
                let is = "the time bounds".into();
                self.add("timeout", is, "the standard ones", |policy| policy.timeout(standard));
            }
        }
    }
}

/// What is to be said of a scenario.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) warnings: Vec<Warning>,
    /// It is bad, and nobody is to blame that we know.
    pub(super) unmended: bool,
}

/// What is bad in a scenario, by whom.
pub(super) fn verdict(policy: &Policy, scenario: &Scenario, found: &Finding) -> Result<Verdict, Error> {
    // Nobody is to blame where all is well.
    if found.succeeded > 1.0 - WORTH
        && found.amplification < AMPLIFIES
        && found.recovered_after() < RECOVERS
        && found.p99 < WAITS
    {
        return Ok(Verdict { warnings: Vec::new(), unmended: false });
    }
    let run = |suspect: Suspect| {
        // One that can't work so is no suspect.
        let mended = simulate(&suspect.mended, scenario).ok()?;
        let bad = complaint(found, &mended, &suspect.would_be)?;
        let said = format!("{} {bad} in {scenario}", suspect.is);
        let scenario = scenario.clone();
        Some(Warning { setting: suspect.setting, scenario, said })
    };
    let warnings: Vec<_> = Suspects::of(policy).into_iter().filter_map(run).collect();
    let unmended = warnings.is_empty() && is_bad(scenario, found)?;
    Ok(Verdict { warnings, unmended })
}

/// Whether more could be had: of this scenario by any policy, or by the standard one.
fn is_bad(scenario: &Scenario, found: &Finding) -> Result<bool, Error> {
    // Of several services in a row each finds out for itself that the next one is back.
    let recovers = RECOVERS * scenario.hops() as u32;
    if found.succeeded < scenario.possible(recovers) - WORTH
        || found.amplification >= AMPLIFIES
        || found.recovered_after() >= recovers
    {
        return Ok(true);
    }
    let standard = simulate(&Policy::standard(), scenario)?;
    Ok(complaint(found, &standard, "the standard policy").is_some())
}

/// What is bad and wouldn't be.
fn complaint(found: &Finding, mended: &Finding, with: &str) -> Option<String> {
    let halved = |is: f64, would_be: f64| would_be < is / 2.0;
    let (is, would_be) = (found.amplification, mended.amplification);
    if is >= AMPLIFIES && halved(is - 1.0, would_be - 1.0) {
        return Some(format!("amplifies {is:.1}x ({would_be:.1}x with {with})"));
    }
    if mended.succeeded >= found.succeeded + WORTH {
        let [is, would_be] = [found, mended].map(|finding| finding.succeeded * 100.0);
        return Some(format!("lets {is:.1} % succeed ({would_be:.1} % with {with})"));
    }
    let [is, would_be] = [found, mended].map(Finding::recovered_after);
    if is >= RECOVERS && halved(is.as_secs_f64(), would_be.as_secs_f64()) {
        let took = match found.recovery {
            Some(Recovery::NotWithin(_)) => format!("hasn't recovered in {}", Short(is)),
            _ => format!("recovers in {}", Short(is)),
        };
        return Some(format!("{took} ({} with {with})", Short(would_be)));
    }
    let [is, would_be] = [found, mended].map(|finding| finding.p99);
    let costs = mended.succeeded < found.succeeded - WORTH;
    (is >= WAITS && !costs && halved(is.as_secs_f64(), would_be.as_secs_f64()))
        .then(|| format!("has a p99 of {} ({} with {with})", Short(is), Short(would_be)))
}
