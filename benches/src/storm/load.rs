//! The open loop: calls set out on time, however many are still out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep_until;

use super::fault::{Fault, Gone};
use super::server::{Counts, Servers};
use super::stack::{Caller, Stack};
use super::{IN_TIME, RATE, WORKERS};
use crate::args::Effort;
use crate::clock;
use crate::side_by_side::{median, quantile};

/// What one stack made of one fault. What means nothing under a fault is NaN.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Percent of calls.
    pub success: f64,
    /// Requests counted by the servers, over calls.
    pub amplification: f64,
    /// 99th percentile of how long calls took, whatever their end, ms.
    pub p99: f64,
    /// Percent of the requests that had been told when to come again that came no sooner.
    pub obeyed: f64,
    /// Seconds from when the workers are back to when 90 % of calls succeed again, for good; less
    /// than 0: before that; infinite if they don't at the end of the run.
    pub recovered: f64,
    /// Milliseconds from when an ended server listens again to when each call set out begins to
    /// succeed, for half a second at least; infinite if none of that came.
    pub back: f64,
    /// Percent of calls that the workers could have served while calls set out, at the pace they
    /// were measured at.
    pub possible: f64,
}

impl Outcome {
    /// The medians of some rounds.
    pub fn medians(rounds: &[Self]) -> Self {
        Self::over(rounds, median)
    }

    /// The highest of each less the lowest.
    pub fn spread(rounds: &[Self]) -> Self {
        Self::over(rounds, |values| {
            let (lowest, highest) = (quantile(values.clone(), 0.0), quantile(values, 1.0));
            // Never back in one round as in the other: no difference.
            if lowest.total_cmp(&highest).is_eq() { 0.0 } else { highest - lowest }
        })
    }

    fn over(rounds: &[Self], sum_up: impl Fn(Vec<f64>) -> f64) -> Self {
        let of = |quantity: fn(&Self) -> f64| {
            let values: Vec<f64> = rounds.iter().map(quantity).filter(|value| !value.is_nan()).collect();
            if values.is_empty() { f64::NAN } else { sum_up(values) }
        };
        Self {
            success: of(|outcome| outcome.success),
            amplification: of(|outcome| outcome.amplification),
            p99: of(|outcome| outcome.p99),
            obeyed: of(|outcome| outcome.obeyed),
            recovered: of(|outcome| outcome.recovered),
            back: of(|outcome| outcome.back),
            possible: of(|outcome| outcome.possible),
        }
    }
}

/// Sends `stack` against `fault`, in a runtime of its own, against servers of its own. `sent` is
/// called when the last call has set out.
pub fn run(stack: Stack, fault: Fault, seed: u64, effort: Effort, sent: impl FnOnce()) -> Outcome {
    let mut servers = Servers::start(fault, effort, seed);
    let origins = servers.origins();
    let start = clock::now() + Duration::from_millis(50);
    let restarts = fault.restarts(effort);
    let restarting = thread::spawn(move || {
        let up = servers.restart(&restarts, start);
        (servers, up)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let calls = LocalSet::new().block_on(&runtime, async {
        let mut calls = OpenLoop { call: stack.caller(&origins), out: Vec::new(), done: Rc::default() };
        calls.send(start, fault.length(effort)).await;
        sent();
        calls.end().await
    });
    let (servers, up) = restarting.join().expect("servers");
    let up: Vec<Duration> = up.into_iter().map(|up| up.saturating_duration_since(start)).collect();
    Run { fault, effort, calls, up }.sum_up(servers.end())
}

struct Call {
    /// When it set out, from the first one's.
    at: Duration,
    took: Duration,
    succeeded: bool,
}

struct OpenLoop {
    call: Caller,
    out: Vec<JoinHandle<()>>,
    done: Rc<RefCell<Vec<Call>>>,
}

impl OpenLoop {
    /// Until the last call has set out.
    async fn send(&mut self, start: Instant, length: Duration) {
        for number in 0..length.as_secs() * RATE {
            let at = Duration::from_secs(1) * number as u32 / RATE as u32;
            sleep_until((start + at).into()).await;
            let (calling, done) = ((self.call)(number), self.done.clone());
            self.out.push(spawn_local(async move {
                let began = clock::now();
                let whole = calling.await;
                let took = began.elapsed();
                done.borrow_mut().push(Call { at, took, succeeded: whole && took <= IN_TIME });
            }));
        }
    }

    /// Until the last of them has ended.
    async fn end(self) -> Vec<Call> {
        for call in self.out {
            call.await.expect("call");
        }
        self.done.take()
    }
}

struct Run {
    fault: Fault,
    effort: Effort,
    calls: Vec<Call>,
    /// When ended servers listened again.
    up: Vec<Duration>,
}

impl Run {
    fn sum_up(mut self, counts: Counts) -> Outcome {
        self.calls.sort_unstable_by_key(|call| call.at);
        let percent = |part: u64, of: u64| 100.0 * part as f64 / of as f64;
        let all = self.calls.len() as u64;
        let succeeded = self.calls.iter().filter(|call| call.succeeded).count() as u64;
        let took = self.calls.iter().map(|call| call.took.as_secs_f64() * 1e3).collect();
        let gone = self.fault.gone(self.effort);
        Outcome {
            success: percent(succeeded, all),
            amplification: counts.requests as f64 / all as f64,
            p99: quantile(took, 0.99),
            obeyed: percent(counts.obeyed, counts.told),
            recovered: gone.map_or(f64::NAN, |gone| self.last_bad() - gone.back().as_secs_f64()),
            back: match self.up[..] {
                [up] => back(&self.calls, up),
                _ => f64::NAN,
            },
            possible: gone.map_or(f64::NAN, |gone| self.possible(gone, counts)),
        }
    }

    /// The end of the last tenth of a second in which more than a tenth of the calls failed.
    fn last_bad(&self) -> f64 {
        let mut tenths = BTreeMap::<u128, (u32, u32)>::new();
        for call in &self.calls {
            let (failed, all) = tenths.entry(call.at.as_millis() / 100).or_default();
            *failed += u32::from(!call.succeeded);
            *all += 1;
        }
        let bad = tenths.iter().rev().find(|(_, (failed, all))| failed * 10 > *all);
        match (bad, tenths.last_key_value()) {
            (Some((tenth, _)), Some((last, _))) if tenth == last => f64::INFINITY,
            (Some((tenth, _)), _) => (tenth + 1) as f64 / 10.0,
            (None, _) => 0.0,
        }
    }

    /// Not counted: what a queue carries over to when the workers are back.
    fn possible(&self, gone: Gone, counts: Counts) -> f64 {
        let pace = counts.worked as f64 / counts.busy.as_secs_f64();
        let least = (pace * f64::from(WORKERS - gone.workers)).min(RATE as f64);
        let (gone, all) = (gone.length.as_secs_f64(), self.fault.length(self.effort).as_secs_f64());
        100.0 * (1.0 - (1.0 - least / RATE as f64) * gone / all)
    }
}

/// `calls` in the order in which they set out.
fn back(calls: &[Call], up: Duration) -> f64 {
    const FOR_GOOD: Duration = Duration::from_millis(500);
    let mut good = None;
    for call in calls.iter().filter(|call| call.at >= up) {
        if !call.succeeded {
            good = None;
            continue;
        }
        let since = *good.get_or_insert(call.at);
        if call.at.saturating_sub(since) >= FOR_GOOD {
            return since.saturating_sub(up).as_secs_f64() * 1e3;
        }
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call every tenth of a second; `.` is a success.
    fn calls(story: &str) -> Vec<Call> {
        let call = |(number, end): (usize, char)| Call {
            at: Duration::from_millis(100 * number as u64),
            took: Duration::from_millis(1),
            succeeded: end == '.',
        };
        story.chars().enumerate().map(call).collect()
    }

    #[test]
    fn back_is_when_half_a_second_of_successes_begins() {
        let at = |story, up| back(&calls(story), Duration::from_millis(up));
        assert!(
            (at("..xxx......", 450) - 50.0).abs() < 1e-6,
            "the first call after it, not the instant itself"
        );
        assert!(
            (at("..xxx...x......", 500) - 400.0).abs() < 1e-6,
            "three good ones and a bad one aren't back"
        );
        assert!(at("..xxx.....", 500).is_infinite(), "the run ended too soon to tell");
        assert!(at("......xxxx", 500).is_infinite());
    }

    #[test]
    fn spread_and_medians_pass_over_what_means_nothing() {
        let round = |success, back| Outcome {
            success,
            amplification: 1.0,
            p99: 5.0,
            obeyed: f64::NAN,
            recovered: f64::NAN,
            back,
            possible: f64::NAN,
        };
        let never = f64::INFINITY;
        let rounds = [round(90.0, never), round(99.0, 30.0), round(95.0, never)];
        let (median, spread) = (Outcome::medians(&rounds), Outcome::spread(&rounds));
        assert_eq!((median.success, spread.success), (95.0, 9.0));
        assert!(median.obeyed.is_nan() && spread.obeyed.is_nan());
        assert!(median.back.is_infinite() && spread.back.is_infinite());
        let same = Outcome::spread(&[round(90.0, never), round(90.0, never)]);
        assert_eq!((same.back, same.success), (0.0, 0.0));
    }
}
