//! Which failures are one event that many calls tell of.
//!
//! A restart ends every connection at once, and one dead connection ends every call on it. Thirty
//! such calls are one thing that happened, not thirty in a row, so a breaker counts the first of
//! them and no other:
//!
//! - Failures on one [connection](FailureCause::Connection) count once, for the last [`REMEMBERED`]
//!   connections.
//! - [Lost](FailureCause::Lost) connections, of which nobody knows which they were, count once an
//!   event. It takes in the attempts that set out before it or within [`EVENT`] of its beginning,
//!   if they fail within [`TOLD`].
//!
//! A server that drops nearly every connection mustn't pass for one that restarts often. So there
//! is an event only for a server that is well apart from it: an attempt has succeeded since the
//! last failure that counted, and in the last [`RECENT`] seconds no more failures were taken in by
//! events than attempts succeeded. Otherwise every failure counts.

use crate::outcome::FailureCause;
use crate::time::Tick;

/// How long after its beginning an attempt may set out and still be the event's, in nanoseconds:
/// longer than a quick restart.
const EVENT: u64 = 50_000_000;
/// Until when the calls that an event ended have told of it, in nanoseconds: longer than it takes a
/// busy runtime to wake them all.
const TOLD: u64 = 250_000_000;
/// For how long what events took in is held against successes, in nanoseconds.
const RECENT: u64 = 10_000_000_000;
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
    /// How many failures events have taken in since `from`.
    taken_in: u32,
    from: Option<Tick>,
}

/// What a failure is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenFailure {
    pub(super) cause: FailureCause,
    /// How long the attempt took, in nanoseconds.
    pub(super) took: u64,
    pub(super) now: Tick,
    /// How many failures have counted since the last success.
    pub(super) streak: u32,
}

impl Causes {
    /// Whether a failure tells of what has been counted. `successes` says how many attempts have
    /// succeeded lately.
    pub(super) fn is_known(&mut self, seen: SeenFailure, successes: impl FnOnce() -> u32) -> bool {
        match seen.cause {
            FailureCause::Own => false,
            FailureCause::Connection(id) => {
                let known = self.connections.contains(&Some(id));
                if !known {
                    self.connections[self.oldest] = Some(id);
                    self.oldest = (self.oldest + 1) % REMEMBERED;
                }
                known
            }
            FailureCause::Lost => self.is_of_the_event(seen, successes),
        }
    }

    fn is_of_the_event(&mut self, seen: SeenFailure, successes: impl FnOnce() -> u32) -> bool {
        let SeenFailure { took, now, streak, .. } = seen;
        if let Some(since) = self.lost.map(|lost| now.nanos_since(lost))
            && since < TOLD
            && since < EVENT.saturating_add(took)
        {
            self.taken_in = self.taken_in.saturating_add(1);
            return true;
        }
        if self.from.is_none_or(|from| now.nanos_since(from) >= RECENT) {
            (self.taken_in, self.from) = (0, Some(now));
        }
        if streak == 0 && (self.taken_in == 0 || self.taken_in <= successes()) {
            self.lost = Some(now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const START: u64 = 3_600_000_000_000;
    const MS: u64 = 1_000_000;

    /// A server's answers to a breaker's ears: what there is of its streak and its window.
    #[derive(Default)]
    struct Server {
        causes: Causes,
        streak: u32,
        successes: u32,
        counted: usize,
    }

    impl Server {
        fn answers(&mut self) {
            (self.streak, self.successes) = (0, self.successes + 1);
        }

        fn fails(&mut self, cause: FailureCause, at: u64, took: u64) {
            let seen = SeenFailure { cause, took, now: Tick::from_nanos(START + at), streak: self.streak };
            if !self.causes.is_known(seen, || self.successes) {
                self.streak += 1;
                self.counted += 1;
            }
        }

        fn loses(&mut self, at: u64) {
            self.fails(FailureCause::Lost, at, 0);
        }
    }

    #[test]
    fn failures_of_their_own_all_count() {
        let mut server = Server::default();
        (0..100).for_each(|_| server.fails(FailureCause::Own, 0, 0));
        assert_eq!(server.counted, 100);
    }

    #[test]
    fn what_one_connection_ends_counts_once() {
        let mut server = Server::default();
        (0..30).for_each(|_| server.fails(FailureCause::Connection(7), 0, 0));
        assert_eq!(server.counted, 1);
        (0..30).for_each(|n| server.fails(FailureCause::Connection(100 + n % 3), 0, 0));
        assert_eq!(server.counted, 4);
        server.fails(FailureCause::Connection(7), 0, 0);
        assert_eq!(server.counted, 4, "others in between don't make it forgotten");
    }

    #[test]
    fn a_restart_counts_once_however_many_connections_it_ends() {
        let mut server = Server::default();
        (0..48).for_each(|n| server.loses(n * MS));
        assert_eq!(server.counted, 1);
    }

    /// Idle connections expire under one burst after the other.
    #[test]
    fn events_in_quick_succession_count_once_each_while_the_server_answers() {
        let mut server = Server::default();
        for burst in 0..20 {
            (0..23).for_each(|_| server.loses(burst * 60 * MS));
            (0..40).for_each(|_| server.answers());
        }
        assert_eq!(server.counted, 20);
    }

    #[test]
    fn who_set_out_before_the_event_may_hear_of_it_late() {
        let mut server = Server::default();
        (0..48).for_each(|n| server.fails(FailureCause::Lost, n * 4 * MS, 200 * MS));
        assert_eq!(server.counted, 1);
        server.fails(FailureCause::Lost, 200 * MS, 100 * MS);
        assert_eq!(server.counted, 2, "it set out long after");
    }

    #[test]
    fn a_server_that_never_answers_has_one_event() {
        let mut server = Server::default();
        (0..1000).for_each(|n| server.loses(n * MS));
        assert_eq!(server.counted, 1000 - 49);
    }

    #[test]
    fn a_clock_read_a_little_early_is_the_same_event() {
        let mut server = Server::default();
        server.loses(1000);
        server.loses(0);
        assert_eq!(server.counted, 1);
    }

    /// It is told from one that restarts by how little it does in between.
    #[test]
    fn a_server_that_keeps_dropping_connections_is_counted() {
        let mut rng = Rng::seeded(1);
        let mut server = Server::default();
        for n in 0..10_000 {
            if rng.unit() < 0.9 { server.loses(n * MS) } else { server.answers() }
        }
        assert!(server.counted > 7000, "{}", server.counted);
    }
}
