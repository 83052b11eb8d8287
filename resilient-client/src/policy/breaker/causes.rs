//! Which failures are one event that many calls tell of.
//!
//! A restart ends every connection at once, and one dead connection ends every call on it. Thirty such calls are one
//! thing that happened, not thirty in a row, so a breaker counts the first of them and no other:
//!
//! - Failures on one [connection](Cause::Connection) count once, for the last [`REMEMBERED`] connections.
//! - [Lost](Cause::Lost) connections, of which nobody knows which they were, count once an [`EVENT`].
//!
//! An event isn't followed by another at once: for [`APART`] after it every failure counts. Else a server that drops
//! nearly every connection would be judged by its few successes: what comes between two of these would count as one.

use crate::outcome::Cause;
use crate::time::Tick;

/// How long one event may last: longer than it takes a busy runtime to wake every call that a connection carried, and
/// than a quick restart. Half as long was too short for a restart of 20 ms on a machine whose processors were all busy.
const EVENT: u64 = 100_000_000;
/// How long after an event there is no other, in nanoseconds. Twice as long, so that most failures of a server that
/// keeps dropping connections count.
const APART: u64 = 200_000_000;
/// A client has few connections to one server that fail together.
const REMEMBERED: usize = 8;

/// See the [module docs](self).
#[derive(Debug, Default)]
pub(super) struct Causes {
    /// The connections that have failed, the oldest first to be replaced.
    connections: [Option<u64>; REMEMBERED],
    oldest: usize,
    /// When the last event began.
    lost: Option<Tick>,
}

impl Causes {
    /// Whether a failure tells of what has been counted.
    pub(super) fn is_known(&mut self, cause: Cause, now: Tick) -> bool {
        match cause {
            Cause::Own => false,
            Cause::Connection(id) => {
                let known = self.connections.contains(&Some(id));
                if !known {
                    self.connections[self.oldest] = Some(id);
                    self.oldest = (self.oldest + 1) % REMEMBERED;
                }
                known
            }
            Cause::Lost => match self.lost.map(|lost| now.nanos_since(lost)) {
                Some(..EVENT) => true,
                Some(since) if since < EVENT + APART => false,
                Some(_) | None => {
                    self.lost = Some(now);
                    false
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const START: u64 = 3_600_000_000_000;

    fn counted(times: impl IntoIterator<Item = u64>) -> usize {
        let mut causes = Causes::default();
        times.into_iter().filter(|at| !causes.is_known(Cause::Lost, Tick::from_nanos(START + at))).count()
    }

    #[test]
    fn failures_of_their_own_all_count() {
        let mut causes = Causes::default();
        assert!((0..100).all(|_| !causes.is_known(Cause::Own, Tick::from_nanos(START))));
    }

    #[test]
    fn what_one_connection_ends_counts_once() {
        let mut causes = Causes::default();
        let mut counted = |id| !causes.is_known(Cause::Connection(id), Tick::from_nanos(START));
        assert_eq!((0..30).filter(|_| counted(7)).count(), 1);
        assert_eq!((0..30).filter(|n| counted(100 + n % 3)).count(), 3);
        assert!(!counted(7), "others in between don't make it forgotten");
    }

    #[test]
    fn a_restart_counts_once_however_many_connections_it_ends() {
        assert_eq!(counted((0..48).map(|n| n * 1_000_000)), 1);
    }

    #[test]
    fn restarts_apart_count_once_each() {
        assert_eq!(counted((0..5).flat_map(|n| (0..30).map(move |_| n * 1_500_000_000))), 5);
    }

    #[test]
    fn a_clock_read_a_little_early_is_the_same_event() {
        let mut causes = Causes::default();
        assert!(!causes.is_known(Cause::Lost, Tick::from_nanos(START)));
        assert!(causes.is_known(Cause::Lost, Tick::from_nanos(START - 1000)));
    }

    /// Two thirds of the time every failure counts, so a server that drops most connections is told from one that restarts.
    #[test]
    fn a_server_that_keeps_dropping_connections_is_counted() {
        let mut rng = Rng::seeded(1);
        let dropped = (0..10_000_u64).filter(|_| rng.unit() < 0.9).map(|n| n * 1_000_000);
        let dropped: Vec<_> = dropped.collect();
        let share = counted(dropped.iter().copied()) as f64 / dropped.len() as f64;
        assert!(share > 0.6, "{share}");
    }
}
