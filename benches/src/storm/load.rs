//! The open loop: calls set out on time, however many are still out.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::sleep_until;

use super::server::{Counts, Server};
use super::stack::Stack;
use super::{Fault, IN_TIME, RATE};
use crate::clock;
use crate::side_by_side::quantile;

/// What one stack made of one fault.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Percent of calls.
    pub success: f64,
    /// Requests counted by the server, over calls.
    pub amplification: f64,
    /// 99th percentile of how long calls took, whatever their end, ms.
    pub p99: f64,
    /// Percent of the requests that had been told when to come again that came no sooner; NaN if there were none.
    pub obeyed: f64,
    /// Seconds from when the workers are back to when 90 % of calls succeed again, for good; less than 0: before that. NaN if
    /// none were gone.
    pub recovered: f64,
}

/// Sends `stack` against `fault` for `length`, in a runtime of its own, against a server of its own.
pub fn run(stack: Stack, fault: Fault, seed: u64, length: Duration) -> Outcome {
    let server = Server::start(fault, seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let (calls, counts) = LocalSet::new().block_on(&runtime, async {
        let calls = open_loop(stack, &server.url(), length).await;
        (calls, server.counts().await)
    });
    sum_up(fault, &calls, counts)
}

struct Call {
    /// When it set out, from the first one's.
    at: Duration,
    took: Duration,
    succeeded: bool,
}

async fn open_loop(stack: Stack, url: &str, length: Duration) -> Vec<Call> {
    let call = stack.caller(url);
    let done = Rc::new(RefCell::new(Vec::new()));
    let total = length.as_secs() * RATE;
    let start = clock::now();
    let mut out = Vec::with_capacity(total as usize);
    for number in 0..total {
        let at = Duration::from_secs(1) * number as u32 / RATE as u32;
        sleep_until((start + at).into()).await;
        let (calling, done) = (call(number), done.clone());
        out.push(tokio::task::spawn_local(async move {
            let began = clock::now();
            let whole = calling.await;
            let took = began.elapsed();
            done.borrow_mut().push(Call { at, took, succeeded: whole && took <= IN_TIME });
        }));
    }
    for call in out {
        call.await.expect("call");
    }
    done.take()
}

fn sum_up(fault: Fault, calls: &[Call], counts: Counts) -> Outcome {
    let percent = |part: u64, of: u64| 100.0 * part as f64 / of as f64;
    let succeeded = calls.iter().filter(|call| call.succeeded).count();
    Outcome {
        success: percent(succeeded as u64, calls.len() as u64),
        amplification: counts.requests as f64 / calls.len() as f64,
        p99: quantile(calls.iter().map(|call| call.took.as_secs_f64() * 1e3).collect(), 0.99),
        obeyed: percent(counts.obeyed, counts.told),
        recovered: fault
            .gone()
            .map_or(f64::NAN, |gone| last_bad(calls) - (gone.from + gone.length).as_secs_f64()),
    }
}

/// The end of the last tenth of a second in which more than a tenth of the calls failed.
fn last_bad(calls: &[Call]) -> f64 {
    let mut tenths = std::collections::BTreeMap::<u128, (u32, u32)>::new();
    for call in calls {
        let (failed, all) = tenths.entry(call.at.as_millis() / 100).or_default();
        *failed += u32::from(!call.succeeded);
        *all += 1;
    }
    let bad = tenths.iter().rev().find(|(_, (failed, all))| failed * 10 > *all);
    bad.map_or(0.0, |(tenth, _)| (tenth + 1) as f64 / 10.0)
}
