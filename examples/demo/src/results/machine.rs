//! Whether this machine can be judged by.

use serde::Serialize;

use super::{Twin, quantile};
use crate::histogram::Histogram;

/// How busy the machine was with other things: nobody's fault here.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Machine {
    /// How late the load's requests were sent, in the worst phase.
    pub(crate) late_p99_ms: f64,
    /// The lone order-service's orders, in its worst phase.
    pub(crate) alone_p99_ms: f64,
    /// What the lone order-service failed to answer in time.
    pub(crate) alone_failed: u64,
}

impl Machine {
    /// The load is that of people who click; a client that falls this far behind doesn't send what
    /// it says.
    const LATE_MS: f64 = 100.0;
    /// An order of the lone order-service is one commit: a few milliseconds.
    const ALONE_MS: f64 = 400.0;

    pub(crate) fn new(late: &[Histogram], alone: &Twin) -> Self {
        let late_p99_ms = late.iter().filter_map(|late| quantile(late, 0.99)).fold(0.0, f64::max);
        Self {
            late_p99_ms,
            alone_p99_ms: alone.phases.iter().map(|phase| phase.post_p99_ms).fold(0.0, f64::max),
            alone_failed: alone
                .phases
                .iter()
                .map(|phase| phase.failed - phase.wrong + phase.reads_failed)
                .sum(),
        }
    }

    /// Why nothing can be said, if so.
    pub(crate) fn too_busy(&self) -> Option<String> {
        let Self { late_p99_ms, alone_p99_ms, alone_failed } = self;
        if *late_p99_ms > Self::LATE_MS {
            return Some(format!(
                "the load was sent late (p99 {late_p99_ms:.0} ms, bound {:.0} ms)",
                Self::LATE_MS
            ));
        }
        if *alone_failed > 0 {
            return Some(format!("the lone order-service failed {alone_failed} times"));
        }
        (*alone_p99_ms > Self::ALONE_MS).then(|| {
            format!(
                "the lone order-service was slow (p99 {alone_p99_ms:.0} ms, bound {:.0} ms)",
                Self::ALONE_MS
            )
        })
    }
}
