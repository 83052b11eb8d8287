//! What would a policy do? Its own engine, tokio's virtual clock, and servers that fail.
//!
//! [`simulate`] runs some thousand calls against one [`Scenario`] in less than a second, and says
//! what became of them. [`what_if`] does that for every scenario and looks for the setting to blame
//! where it is bad, by running it again with that setting mended. Its table is text to be checked
//! in: the same policy and seed give the same, to the last digit, on one machine.
//!
//! ```
//! use resilient_client::Policy;
//! use resilient_client::testing::simulate::{Scenario, simulate};
//!
//! let finding = simulate(&Policy::standard(), &Scenario::outage())?;
//! assert!(finding.amplification < 1.1, "an outage isn't multiplied: {finding}");
//! let without = simulate(&Policy::standard().budget(None).breaker(None), &Scenario::outage())?;
//! assert!(without.amplification > 3.0, "{without}");
//! # Ok::<(), resilient_client::Error>(())
//! ```
//!
//! | scenario | what happens |
//! |---|---|
//! | [`outage`](Scenario::outage) | 503s for five seconds |
//! | [`overload`](Scenario::overload) | half of ten workers gone for 6.7 s, a queue before the others |
//! | [`slow_replica`](Scenario::slow_replica) | one of three takes a second for each answer, and the client knows all three |
//! | [`errors`](Scenario::errors) | a share of 503s, for good |
//! | [`retry_storm`](Scenario::retry_storm) | the outage behind three services that are each other's clients |
//!
//! A success is a 200 within two seconds. One caveat: these are worlds in small, one client process
//! of them before each server. They compare policies, and don't foretell a production.

mod blame;
mod queue;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::time::Duration;

pub use blame::Warning;
#[doc(hidden)]
pub use queue::Queue;
pub use scenario::Scenario;

use crate::error::{Error, ErrorKind};
use crate::policy::Policy;
use world::{Call, Run};

/// A success comes within this.
const IN_TIME: Duration = Duration::from_secs(2);
/// How long all calls must succeed for a server to be back.
const BACK: Duration = Duration::from_millis(500);

/// What became of a scenario's calls. `Display` says it in a line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// How many calls there were.
    pub calls: usize,
    /// The share of them that succeeded: a 200 within two seconds.
    pub succeeded: f64,
    /// The share of them that was refused on this side, so that nothing was sent.
    pub refused: f64,
    /// How many requests the last server got for each call that began while something was wrong.
    pub amplification: f64,
    /// How long all but one call in a hundred took at most, whatever they came to.
    pub p99: Duration,
    /// How long after the trouble's end calls succeed again, each for half a second: `None` where
    /// it has no end.
    pub recovery: Option<Recovery>,
}

/// Whether calls succeed again once the server is well, and how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// So long after it was.
    After(Duration),
    /// Not within as long as the run went on.
    NotWithin(Duration),
}

impl Finding {
    fn of(scenario: &Scenario, run: &Run) -> Self {
        let calls = &run.calls;
        let share = |count: usize| count as f64 / calls.len().max(1) as f64;
        let troubled = scenario.trouble().map_or(calls.len(), |(from, to)| {
            calls.iter().filter(|call| (from..to).contains(&call.began)).count()
        });
        let mut took: Vec<_> = calls.iter().map(|call| call.took).collect();
        took.sort();
        let refused = |call: &&Call| call.end.is_err_and(ErrorKind::is_rejected);
        Self {
            calls: calls.len(),
            succeeded: share(calls.iter().filter(|call| is_good(call)).count()),
            refused: share(calls.iter().filter(refused).count()),
            amplification: run.requests as f64 / troubled.max(1) as f64,
            p99: took.get(took.len() * 99 / 100).copied().unwrap_or_default(),
            recovery: scenario.trouble().map(|(_, to)| recovery(calls, to, scenario.lasts)),
        }
    }

    /// How long it took to recover, as far as that is known.
    fn recovered_after(&self) -> Duration {
        match self.recovery {
            Some(Recovery::After(time) | Recovery::NotWithin(time)) => time,
            None => Duration::ZERO,
        }
    }
}

fn is_good(call: &Call) -> bool {
    call.end.is_ok_and(|status| status.is_success()) && call.took <= IN_TIME
}

/// From the trouble's end to the first call since from which on all of half a second are good.
fn recovery(calls: &[Call], well: Duration, lasts: Duration) -> Recovery {
    let after = || calls.iter().filter(|call| call.began >= well && call.began + BACK <= lasts);
    let is_back = |first: &&Call| {
        let soon = calls.iter().filter(|call| (first.began..first.began + BACK).contains(&call.began));
        soon.clone().all(is_good)
    };
    let back = after().find(is_back);
    back.map_or(Recovery::NotWithin(lasts.saturating_sub(well)), |call| {
        Recovery::After(call.began.saturating_sub(well))
    })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        write!(f, "{:.1} % succeed, amplifies {:.2}x", percent(self.succeeded), self.amplification)?;
        match self.recovery {
            Some(Recovery::After(time)) => write!(f, ", recovers in {}", Short(time))?,
            Some(Recovery::NotWithin(time)) => write!(f, ", not recovered in {}", Short(time))?,
            None => {}
        }
        write!(f, ", p99 {}, {:.1} % refused here", Short(self.p99), percent(self.refused))
    }
}

/// In milliseconds below a second, else in seconds.
#[derive(Clone, Copy, Debug)]
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

/// What becomes of a scenario's calls under a policy. It takes a thread of its own, and may be
/// called anywhere, in async code too, whose thread it holds up for a moment.
///
/// # Errors
/// [`ErrorKind::Config`] when the policy can't work.
pub fn simulate(policy: &Policy, scenario: &Scenario) -> Result<Finding, Error> {
    let run = world::on_a_virtual_clock(policy, scenario)?;
    Ok(Finding::of(scenario, &run))
}

/// What a policy does in every scenario, and which of its settings are to blame. `Display` is a
/// table to check in.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WhatIf {
    /// What became of each.
    pub findings: Vec<(Scenario, Finding)>,
    /// What is bad, and by which setting.
    pub warnings: Vec<Warning>,
    /// Those that are bad although no single setting that we know mends them.
    pub unmended: Vec<Scenario>,
}

/// Runs a policy through [all scenarios](Scenario::all), and looks for what to blame.
///
/// # Errors
/// [`ErrorKind::Config`] when the policy can't work.
pub fn what_if(policy: &Policy, seed: u64) -> Result<WhatIf, Error> {
    let mut found = WhatIf { findings: Vec::new(), warnings: Vec::new(), unmended: Vec::new() };
    for scenario in Scenario::all().map(|scenario| scenario.seed(seed)) {
        let finding = simulate(policy, &scenario)?;
        let verdict = blame::verdict(policy, &scenario, &finding)?;
        found.warnings.extend(verdict.warnings);
        found.unmended.extend(verdict.unmended.then(|| scenario.clone()));
        found.findings.push((scenario, finding));
    }
    Ok(found)
}

impl fmt::Display for WhatIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| scenario | succeed | amplifies | recovers in | p99 | refused here |")?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|")?;
        for (scenario, finding) in &self.findings {
            let Finding { succeeded, refused, amplification, p99, recovery, .. } = finding;
            let recovery = match recovery {
                Some(Recovery::After(time)) => Short(*time).to_string(),
                Some(Recovery::NotWithin(time)) => format!("more than {}", Short(*time)),
                None => "-".to_owned(),
            };
            let (succeeded, refused) = (succeeded * 100.0, refused * 100.0);
            writeln!(
                f,
                "| {scenario} | {succeeded:.1} % | {amplification:.2}x | {recovery} | {} | {refused:.1} % |",
                Short(*p99)
            )?;
        }
        if self.warnings.is_empty() && self.unmended.is_empty() {
            return f.write_str("\nNo setting is to blame for anything.");
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\n- {warning}"))?;
        let unmended = |bad| write!(f, "\n- {bad} is bad; no single setting we know mends it");
        self.unmended.iter().try_for_each(unmended)
    }
}
