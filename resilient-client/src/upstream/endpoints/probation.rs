//! When an endpoint on probation is asked again: one probe at a time, fewer while they decide nothing, and few beside endpoints
//! that are well.
//!
//! The breaker says how many probes there are and what they decide. It can't say when the next may set out, because it sees
//! only those that end: one whose caller went away, or that was answered with 429, gives its slot back at once, and the next
//! call would take it.
//!
//! - The first probe goes alone. Once one has succeeded the others may follow at any time: the breaker counts them.
//! - A probe that decides nothing holds the next back, for [`FIRST_WAIT`] and twice as long each time, up to [`LONGEST_WAIT`].
//! - One that never ends holds the next back for [`LEASE`].
//! - While another endpoint serves its calls, a probe risks a call that would be served there. So it has to be drawn and passed over
//!   [`PASSES`] times before, and [`MANY_PASSES`] when the call couldn't be repeated elsewhere or the last probe decided
//!   nothing: then at most one call in a hundred is risked, at whatever rate they come.
//! - One whose breaker is closed can be passed over as long: too few failures to open it are enough to lose every draw, and nobody
//!   would see that they are over until they have decayed. The same rule holds, once it isn't
//!   known for answering more slowly than the one it was drawn with: that is forgotten with time.

use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::Tick;

/// The wait after the first probe that decided nothing.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a probe that is out keeps the next one waiting: an endless stream must not do so for ever.
const LEASE: Duration = Duration::from_secs(5);
/// Draws between two probes that are calls which can be repeated elsewhere.
const PASSES: u32 = 20;
/// Draws between two other probes. Each call draws two endpoints.
const MANY_PASSES: u32 = 200;
/// As `shut_until`: no probe is out, and none need wait.
const FREE: u64 = 0;
/// Doublings that lead from the first wait beyond the longest.
const MOST_DOUBLINGS: u32 = 5;

/// See the [module docs](self). Shared by every call to one endpoint.
#[derive(Debug)]
pub(super) struct Probation {
    /// Until when no probe sets out, as a `Tick`: the end of one's lease, or of a wait.
    shut_until: AtomicU64,
    /// Probes in a row that decided nothing.
    undecided: AtomicU32,
    /// Draws that passed it over since it was last taken.
    passed: AtomicU32,
    /// 1 once a probe has succeeded: the others needn't go one by one.
    trusted: AtomicU32,
}

/// Leave to send a probe. It tells its own mark from that of a later probe.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "end it, or no other probe sets out before its lease is over"]
pub(super) struct Leave(u64);

/// What a probe decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    Well,
    Ill,
    Nothing,
    /// There was no probe: the breaker refused it, or asked for none.
    NotSent,
}

impl Probation {
    pub(super) fn new() -> Self {
        Self {
            shut_until: AtomicU64::new(FREE),
            undecided: AtomicU32::new(0),
            passed: AtomicU32::new(0),
            trusted: AtomicU32::new(0),
        }
    }

    /// How long the next probe has to wait; `None` when it may set out.
    pub(super) fn shut_for(&self, now: Tick) -> Option<Duration> {
        let until = Tick::from_nanos(self.shut_until.load(Ordering::Acquire));
        Some(now.until(until)).filter(|left| !left.is_zero())
    }

    /// A draw passes it over, or would: whether it has been passed over often enough, though others serve.
    pub(super) fn is_due(&self, repeatable: bool) -> bool {
        let passed = self.passed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let decided = self.undecided.load(Ordering::Relaxed) == 0;
        self.is_trusted() || passed >= if repeatable && decided { PASSES } else { MANY_PASSES }
    }

    /// It isn't passed over this time.
    pub(super) fn taken(&self) {
        self.passed.store(0, Ordering::Relaxed);
    }

    /// Whether the last probe succeeded: the others are likely to.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed) != 0
    }

    /// Whether the last probe decided something, if there was one.
    pub(super) fn decides(&self) -> bool {
        self.undecided.load(Ordering::Relaxed) == 0
    }

    /// A probe is about to set out: of many that ask at once, one is let go.
    pub(super) fn begin(&self, now: Tick) -> Option<Leave> {
        let shut_until = self.shut_until.load(Ordering::Acquire);
        if now.as_nanos() < shut_until {
            return None;
        }
        if self.trusted.load(Ordering::Acquire) != 0 {
            return Some(Leave(FREE));
        }
        let lease = now.after(LEASE).as_nanos();
        let taken =
            self.shut_until.compare_exchange(shut_until, lease, Ordering::AcqRel, Ordering::Acquire).is_ok();
        taken.then(|| {
            self.taken();
            Leave(lease)
        })
    }

    /// A probe has ended, or never set out.
    #[allow(clippy::needless_pass_by_value, reason = "leave is used up")]
    pub(super) fn end(&self, leave: Leave, decided: Decided, now: Tick) {
        let wait = match decided {
            Decided::Well => {
                self.undecided.store(0, Ordering::Relaxed);
                None
            }
            // How long the breaker is open is its own affair.
            Decided::Ill => {
                self.trusted.store(0, Ordering::Release);
                self.undecided.store(0, Ordering::Relaxed);
                None
            }
            Decided::Nothing => {
                self.trusted.store(0, Ordering::Release);
                let before = self.undecided.fetch_add(1, Ordering::Relaxed).min(MOST_DOUBLINGS);
                Some((FIRST_WAIT * (1 << before)).min(LONGEST_WAIT))
            }
            Decided::NotSent => None,
        };
        let until = wait.map_or(FREE, |wait| now.after(wait).as_nanos());
        if leave.0 == FREE {
            self.shut_until.fetch_max(until, Ordering::AcqRel);
            return;
        }
        if decided == Decided::Well && self.shut_until.load(Ordering::Acquire) == leave.0 {
            self.trusted.store(1, Ordering::Release);
        }
        // A later probe's mark, this one's lease being over, is left alone.
        let _ = self.shut_until.compare_exchange(leave.0, until, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The breaker has opened again, whatever the last probe's head said: the next goes alone.
    pub(super) fn distrust(&self) {
        self.trusted.store(0, Ordering::Release);
    }

    /// The breaker has closed, or opened from closed: the next probation begins anew.
    pub(super) fn reset(&self) {
        self.trusted.store(0, Ordering::Release);
        self.undecided.store(0, Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
        self.shut_until.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_nanos(1_000_000_000_000);

    fn after(millis: u64) -> Tick {
        NOW.after(Duration::from_millis(millis))
    }

    fn shut_for(probation: &Probation, now: Tick) -> u128 {
        probation.shut_for(now).map_or(0, |left| left.as_millis())
    }

    #[test]
    fn the_first_goes_alone_and_the_others_once_it_has_succeeded() {
        let probation = Probation::new();
        let first = probation.begin(NOW).unwrap();
        assert!(probation.begin(after(100)).is_none());
        probation.end(first, Decided::Well, after(100));
        let others: Vec<_> = (0..5).map(|_| probation.begin(after(100)).unwrap()).collect();
        for other in others {
            probation.end(other, Decided::Ill, after(200));
        }
        assert!(
            probation.begin(after(200)).is_some() && probation.begin(after(200)).is_none(),
            "and alone again"
        );
    }

    #[test]
    fn probes_that_decide_nothing_wait_twice_as_long_each_time() {
        let probation = Probation::new();
        let (mut now, mut waits) = (NOW, Vec::new());
        for _ in 0..8 {
            let leave = probation.begin(now).unwrap();
            probation.end(leave, Decided::Nothing, now);
            waits.push(shut_for(&probation, now));
            now = now.after(probation.shut_for(now).unwrap());
        }
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
        let leave = probation.begin(now).unwrap();
        probation.end(leave, Decided::Ill, now);
        let leave = probation.begin(now).unwrap();
        probation.end(leave, Decided::Nothing, now);
        assert_eq!(shut_for(&probation, now), 250, "one that decides ends that");
    }

    /// Whichever probe ended cleared the newest one's mark, so that another set out beside it.
    #[test]
    fn a_probe_that_ends_late_does_not_take_away_the_mark_of_the_next() {
        for decided in [Decided::Well, Decided::Ill, Decided::Nothing, Decided::NotSent] {
            let probation = Probation::new();
            let first = probation.begin(NOW).unwrap();
            let second = probation.begin(after(5_000)).unwrap();
            probation.end(first, decided, after(5_100));
            assert_eq!(shut_for(&probation, after(5_100)), 4_900, "{decided:?}");
            probation.end(second, Decided::Ill, after(5_200));
            assert_eq!(shut_for(&probation, after(5_200)), 0);
        }
    }

    #[test]
    fn one_call_in_twenty_is_risked_or_in_two_hundred() {
        let probation = Probation::new();
        let draws = |repeatable| (1..100_000).find(|_| probation.is_due(repeatable)).unwrap();
        assert_eq!(draws(true), 20);
        probation.reset();
        assert_eq!(draws(false), 200);
        let leave = probation.begin(NOW).unwrap();
        probation.end(leave, Decided::Nothing, NOW);
        assert_eq!(draws(true), 200, "nor one that might be left");
    }

    #[test]
    fn one_of_many_threads_gets_leave() {
        for _ in 0..50 {
            let probation = &Probation::new();
            let begun: usize = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| usize::from(probation.begin(NOW).is_some()))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(begun, 1);
        }
    }
}
