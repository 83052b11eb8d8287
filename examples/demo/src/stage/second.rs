//! A second of a run, as it is kept.

use crate::cli::Client;
use crate::live::{Spark, TwinStanding};
use crate::report::Second;
use crate::results::{SecondFigures, millis};

/// Calls of each twin that reached each user-service.
pub(super) type Counts = [Vec<u64>; Client::ALL.len()];

impl TwinStanding {
    pub(super) fn note(&mut self, second: &Second) {
        let Second { tally, in_vain, streams, waiting, .. } = second;
        self.seconds.push(Spark {
            settled: tally.settled,
            later: tally.accepted,
            failed: tally.failed,
            p99_ms: tally.post.quantile(0.99).map(millis),
        });
        self.failed += tally.failed;
        self.later += tally.accepted;
        self.in_vain += in_vain;
        (self.in_flight, self.streams) = (*waiting, streams.unwrap_or_default());
    }
}

pub(super) fn figures(at: u64, phase: usize, second: &Second) -> SecondFigures {
    let Second { tally, calls, in_vain, streams, waiting } = second;
    SecondFigures {
        at,
        phase,
        settled: tally.settled,
        accepted: tally.accepted,
        failed: tally.failed,
        post_p99_ms: tally.post.quantile(0.99).map(millis),
        read_p99_ms: tally.read.quantile(0.99).map(millis),
        reads_failed: tally.reads_failed,
        calls: calls.iter().sum(),
        in_vain: *in_vain,
        streams: *streams,
        waiting: *waiting,
    }
}

pub(super) fn difference(before: &Counts, after: &Counts) -> Counts {
    Client::ALL.map(|client| {
        let (after, before) = (&after[client as usize], &before[client as usize]);
        after.iter().zip(before).map(|(after, before)| after - before).collect()
    })
}
