//! An attempt that ends without its answer: cancelled, given up, or out of time.

use std::time::Duration;

use super::{AttemptPermit, Said, Stage};
use crate::outcome::classify::{Classified, Repeat};
use crate::outcome::{FailureCause, FailureKind, Outcome};
use crate::sync::Ordering;
use crate::time::{Tick, nanos};

impl AttemptPermit {
    /// The attempt's time goes into what is known of the upstream's: it brought its answer, or was
    /// cancelled at its age.
    pub(crate) fn timed(&mut self, now: Tick) {
        if self.stage != Stage::Sent {
            return;
        }
        self.answered = now;
        self.upstream.took(now.nanos_since(self.started), now);
    }

    /// Another attempt of its call has brought the answer: this one is cancelled, and lost if it
    /// had set out `first`.
    pub(crate) fn lose(&mut self, first: bool, now: Tick) {
        self.timed(now);
        if let Some(endpoint) = self.beside.as_ref().and_then(|beside| beside.endpoint.as_ref())
            && first
            && self.is_sent()
        {
            endpoint.overtaken(nanos(now.since(self.started)), now);
        }
        self.settle(&Classified::ABANDONED, now);
    }

    /// Whether the server had so much time, and the attempt was on its way.
    pub(crate) fn is_late(&self, waited: Duration, enough: u64) -> bool {
        let out_for = nanos(waited);
        let late = out_for > self.upstream.abandoned_after.load(Ordering::Relaxed) || out_for >= enough;
        late && self.is_sent()
    }

    /// The attempt ended because nobody waits for it any more. How long somebody had waited decides
    /// what that says about the server: longer than `abandoned_after`, or `enough` nanoseconds, is
    /// a failure of `kind`.
    pub(crate) fn abandon(
        &mut self,
        kind: FailureKind,
        cause: FailureCause,
        waited: Duration,
        enough: u64,
        now: Tick,
    ) -> Outcome {
        let end = if self.is_late(waited, enough) {
            Classified { cause, ..Classified::failure(kind, Repeat::IfSafe) }
        } else {
            Classified::ABANDONED
        };
        match self.said {
            Said::Nothing => {
                if self.is_sent() && self.answered.is_never() {
                    self.upstream.takes_longer_than(now.nanos_since(self.started), now);
                }
                self.settle(&end, now);
            }
            Said::Head => self.body_after(waited, end.verdict, &end, now),
            Said::Everything => {}
        }
        end.outcome
    }
}
