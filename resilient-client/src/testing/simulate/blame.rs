//! Which setting is to blame: the one whose mending helps.
//!
//! What a policy does follows from all of its settings together, and no rule of thumb says which
//! one of them it was. So the scenario is run again with each suspect at its standard, and who
//! makes the difference is named.

use std::fmt;
use std::time::Duration;

use super::{Finding, Recovery, Scenario, Short, simulate};
use crate::policy::Policy;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::budget::BudgetPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::overload::OverloadPolicy;
use crate::policy::retry::RetryPolicy;
use crate::policy::timeout::TimeoutPolicy;

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

/// Those that aren't as the standard has them.
fn suspects(policy: &Policy) -> Vec<Suspect> {
    let mut all = Vec::new();
    let mut add = |setting, is: String, would_be: &str, mended| {
        all.push(Suspect { setting, is, would_be: would_be.to_owned(), mended });
    };
    let of = || policy.clone();
    extra_attempts(policy, &mut add);
    match &policy.breaker {
        None => {
            add("breaker", "breaker = \"off\"".into(), "breaker on", of().breaker(BreakerPolicy::standard()));
        }
        Some(breaker) => {
            let standard = BreakerPolicy::standard();
            if breaker.failure_rate < standard.failure_rate {
                let mended = of().breaker(breaker.clone().failure_rate(standard.failure_rate));
                add(
                    "breaker.failure_rate",
                    format!("breaker.failure_rate = {}", breaker.failure_rate),
                    "0.5",
                    mended,
                );
            }
            if breaker.open_for > standard.open_for {
                let open = breaker.clone().open_for(standard.open_for).open_cap(standard.open_cap);
                let is = format!("breaker.open_for = {:?}", breaker.open_for);
                add("breaker.open_for", is, "250ms", of().breaker(open));
            }
        }
    }
    if policy.overload.is_none() {
        add(
            "overload",
            "overload = \"off\"".into(),
            "overload on",
            of().overload(OverloadPolicy::standard()),
        );
    }
    match &policy.bulkhead {
        Some(bulkhead) if bulkhead.max_in_flight < BulkheadPolicy::standard().max_in_flight => {
            let is = format!("bulkhead.max_in_flight = {}", bulkhead.max_in_flight);
            let mended = bulkhead.clone().max_in_flight(BulkheadPolicy::standard().max_in_flight);
            add("bulkhead.max_in_flight", is, "256", of().bulkhead(mended));
        }
        _ => {}
    }
    bounds(policy, &mut add);
    all
}

/// Retries, and what keeps them few.
fn extra_attempts(policy: &Policy, add: &mut impl FnMut(&'static str, String, &str, Policy)) {
    let standard = RetryPolicy::standard();
    let Some(retry) = &policy.retry else {
        let mended = policy.clone().retry(standard).budget(BudgetPolicy::standard());
        return add("retry", "retry = \"off\"".into(), "retry and budget on", mended);
    };
    if policy.budget.is_none() {
        let is = format!("retry.max_attempts = {} without budget", retry.max_attempts);
        add("retry.max_attempts", is, "a budget", policy.clone().budget(BudgetPolicy::standard()));
    }
    if retry.initial > standard.initial * 5 {
        let cap = retry.cap.min(standard.cap);
        let mended = policy.clone().retry(retry.clone().initial(standard.initial).cap(cap));
        add("retry.initial", format!("retry.initial = {:?}", retry.initial), "20ms", mended);
    }
}

/// Time bounds.
fn bounds(policy: &Policy, add: &mut impl FnMut(&'static str, String, &str, Policy)) {
    let (own, half) = (&policy.timeout, Duration::from_millis(500));
    let shorter = || policy.clone().timeout(own.clone().attempt(half));
    match own.attempt {
        None => add("timeout.attempt", "timeout.attempt = \"off\"".into(), "500ms", shorter()),
        Some(attempt) if attempt > half => {
            add("timeout.attempt", format!("timeout.attempt = {attempt:?}"), "500ms", shorter());
        }
        Some(_) => {}
    }
    if own.total.is_none() {
        let total = own.clone().total(TimeoutPolicy::standard().total);
        add("timeout.total", "timeout.total = \"off\"".into(), "10s", policy.clone().timeout(total));
    }
}

/// What is bad in a scenario, by whom.
pub(super) fn warnings(policy: &Policy, scenario: &Scenario, found: &Finding) -> Vec<Warning> {
    // Nobody is to blame where all is well.
    if found.succeeded > 1.0 - WORTH
        && found.amplification < AMPLIFIES
        && found.recovered_after() < RECOVERS
        && found.p99 < WAITS
    {
        return Vec::new();
    }
    let run = |suspect: Suspect| {
        // One that can't work so is no suspect.
        let mended = simulate(&suspect.mended, scenario).ok()?;
        let bad = complaint(found, &mended, &suspect.would_be)?;
        let said = format!("{} {bad} in {scenario}", suspect.is);
        let scenario = scenario.clone();
        Some(Warning { setting: suspect.setting, scenario, said })
    };
    suspects(policy).into_iter().filter_map(run).collect()
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
