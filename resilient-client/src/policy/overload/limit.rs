//! The machine that calls share.

use std::time::Duration;

use super::law::Law;
use super::slot::Slot;
use super::{Ended, NoPlace, Sample, Snapshot};
use crate::policy::priority::Priority;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::time::Tick;

/// The limit while none is in force: the counter's own.
const UNLIMITED: u32 = u32::MAX >> 8;
/// Fewer attempts in flight without an answer may be chance, or slow by themselves.
const FEW: u32 = 4;
/// Silence is counted from the first attempt after an answer that makes it so many without one:
/// fewer may be slow by themselves, and no burst that follows them is met with silence.
const FOURTH: u32 = 4;
/// Nobody is kept back before so many have none: a breaker that opens after as many failures in a
/// row, as the standard one does, opens no later.
const MANY: u32 = 20;
/// Nor before so many have been sent since the last answer: beside many slow ones a few quick ones
/// tell nothing.
const SEVERAL: u32 = 3;
/// Samples are looked at together after so many nanoseconds.
const SLOT: u64 = 25_000_000;
/// The end of the slot of a limit that is off.
const OFF: u64 = u64::MAX;

// The word is `limit | noted | sent | unanswered | in flight`, so that who gives a place back sees
// whether anybody may wait for it.
//
// 63..40   39               38..37                        36..32                       31..0
// limit    noted as silent  sent since the last answer,   in flight then and those,    in flight
//                           up to SEVERAL                 up to MANY

const NOTED: u64 = 1 << 39;
const SENT: u64 = 0x3 << 37;
const ONE_SENT: u64 = 1 << 37;
const UNANSWERED: u64 = 0x1f << 32;
const ONE_UNANSWERED: u64 = 1 << 32;

const fn limit(word: u64) -> u32 {
    (word >> 40) as u32
}

const fn with_limit(word: u64, limit: u32) -> u64 {
    ((limit as u64) << 40) | (word & (u64::MAX >> 24))
}

const fn unanswered(word: u64) -> u32 {
    ((word & UNANSWERED) >> 32) as u32
}

const fn sent(word: u64) -> u32 {
    ((word & SENT) >> 37) as u32
}

const fn in_flight(word: u64) -> u32 {
    word as u32
}

/// No limit is in force, [`SEVERAL`] of [`MANY`] haven't been sent in vain, and nobody has noted a
/// silence: all there is to do is to count.
const fn is_plain(word: u64) -> bool {
    ((word >> 32) as u32).wrapping_sub(UNLIMITED << 8) < (SEVERAL << 5 | MANY)
}

/// How many slots of `limit` a class may fill.
const fn share(limit: u32, priority: Priority) -> u32 {
    match priority {
        Priority::Sheddable => limit - limit / 4,
        Priority::Normal | Priority::Critical => limit,
    }
}

/// Attempts in flight to one upstream, and how many of them it can answer in time.
///
/// Taking and giving back a place is one atomic step each, and a sample is two. The one that finds
/// its slot over looks at them, under a lock nobody waits for.
#[derive(Debug)]
pub struct OverloadLimit {
    word: AtomicU64,
    /// When the slot under way ends, as a `Tick`; [`OFF`] while nothing is looked at.
    ends: AtomicU64,
    slot: Slot,
    /// An attempt has found no place in this slot.
    reached: AtomicBool,
    /// Since when nothing has been answered: when the first attempt after an answer was sent that
    /// made it [`FOURTH`] or more without one. As a `Tick`.
    unanswered_since: AtomicU64,
    /// How long after that the upstream is silent, in nanoseconds.
    patience: AtomicU64,
    /// Since when the upstream has been silent that was last noted as such, as a `Tick`.
    silent_since: AtomicU64,
    /// When silence last kept anybody back, as a `Tick`.
    kept_back: AtomicU64,
    /// When the last one went to a silent upstream to find out, as a `Tick`.
    scouted: AtomicU64,
    /// One look at a time.
    law: Mutex<Law>,
}

/// The limit came into force, moved or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Before.
    pub from: Option<u32>,
    /// Now.
    pub to: Option<u32>,
}

impl OverloadLimit {
    /// One that knows nothing, and counts what is in flight whether it is on or off.
    pub fn new(on: bool) -> Self {
        Self {
            word: AtomicU64::new(with_limit(0, UNLIMITED)),
            ends: AtomicU64::new(if on { 0 } else { OFF }),
            slot: Slot::new(),
            reached: AtomicBool::new(false),
            unanswered_since: AtomicU64::new(0),
            patience: AtomicU64::new(u64::MAX),
            silent_since: AtomicU64::new(0),
            kept_back: AtomicU64::new(0),
            scouted: AtomicU64::new(0),
            law: Mutex::new(Law::default()),
        }
    }

    /// Switches it on or off. Off it forgets what it knew, and lifts the limit.
    pub fn switch(&self, on: bool) -> Option<Change> {
        let was_on = self.ends.load(Ordering::Relaxed) != OFF;
        if on == was_on {
            return None;
        }
        let mut law = self.law.lock();
        self.ends.store(if on { 0 } else { OFF }, Ordering::Relaxed);
        let _ = self.slot.take();
        *law = Law::default();
        self.patience.store(u64::MAX, Ordering::Relaxed);
        self.publish(None)
    }

    /// Takes a place, to be given back once with [`release`](Self::release).
    ///
    /// # Errors
    /// [`NoPlace`] when the limit is in force and as many are in flight as this class may have, or
    /// when the upstream is silent.
    pub fn try_acquire(&self, priority: Priority, now: Tick) -> Result<(), NoPlace> {
        let take = |word: u64| {
            if is_plain(word) || self.place_in(word, priority, now).is_ok() {
                Some(self.sent(word, now))
            } else {
                None
            }
        };
        let Err(word) = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) else {
            return Ok(());
        };
        let why = self.place_in(word, priority, now);
        match why {
            Err(NoPlace::Full { .. }) => self.reached.store(true, Ordering::Relaxed),
            Err(NoPlace::Silent) => self.kept_back.store(now.as_nanos(), Ordering::Relaxed),
            Ok(()) => {}
        }
        why
    }

    /// One more.
    fn sent(&self, word: u64, now: Tick) -> u64 {
        let before = unanswered(word);
        if before == FOURTH - 1 || (before >= FOURTH && sent(word) == 0) {
            // Before anybody can see that they are so many.
            self.unanswered_since.store(now.as_nanos(), Ordering::Relaxed);
        }
        word + 1
            + if before < MANY { ONE_UNANSWERED } else { 0 }
            + if sent(word) < SEVERAL { ONE_SENT } else { 0 }
    }

    /// Takes a place whether there is one or not, for a limit that only observes. To be given back
    /// like any other.
    pub fn overrun(&self) {
        let take = |word: u64| (in_flight(word) < u32::MAX).then(|| word + 1);
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
    }

    /// Gives a place back. Whether somebody may wait for it, or for word that a silence has ended.
    /// One release too many is ignored.
    pub fn release(&self, ended: Ended) -> bool {
        let give = |word: u64| {
            let given = (in_flight(word) > 0).then(|| word - 1)?;
            Some(match ended {
                // Those that are left have no answer yet.
                Ended::Answered => given & !(SENT | UNANSWERED) | u64::from(in_flight(given).min(MANY)) << 32,
                Ended::Unsent => {
                    given
                        - if unanswered(given) > 0 { ONE_UNANSWERED } else { 0 }
                        - if sent(given) > 0 { ONE_SENT } else { 0 }
                }
                Ended::Unanswered => given,
            })
        };
        let word = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, give);
        !is_plain(word.unwrap_or_else(|word| word))
    }

    /// Notes that the upstream is silent: who does so first is told for how long, the others
    /// nothing.
    #[cold]
    pub(crate) fn notes_silence(&self, now: Tick) -> Option<Duration> {
        let note = |word: u64| {
            if word & NOTED != 0 || !self.is_silent_in(word, now) {
                return None;
            }
            // Before anybody can see that it is noted. Who notes the same stores the same.
            let since = self.unanswered_since.load(Ordering::Relaxed);
            self.silent_since.store(since, Ordering::Relaxed);
            Some(word | NOTED)
        };
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, note).ok()?;
        Some(self.silent_for(now))
    }

    /// After an answer, or when the limit has been switched off: notes that a silence is over. Who
    /// does so first is told how long it lasted, the others nothing.
    #[cold]
    pub(crate) fn notes_answer(&self, now: Tick) -> Option<Duration> {
        let off = self.ends.load(Ordering::Relaxed) == OFF;
        let note = |word: u64| {
            let is_over = off || !self.is_silent_in(word, now);
            (word & NOTED != 0 && is_over).then_some(word & !NOTED)
        };
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, note).ok()?;
        Some(self.silent_for(now))
    }

    fn silent_for(&self, now: Tick) -> Duration {
        now.since(Tick::from_nanos(self.silent_since.load(Ordering::Relaxed)))
    }

    /// Whether there is a place, without taking it.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire) has them.
    pub fn place(&self, priority: Priority, now: Tick) -> Result<(), NoPlace> {
        self.place_in(self.word.load(Ordering::Acquire), priority, now)
    }

    #[inline(never)]
    fn place_in(&self, word: u64, priority: Priority, now: Tick) -> Result<(), NoPlace> {
        let limit = share(limit(word), priority);
        if in_flight(word) >= limit {
            Err(NoPlace::Full { limit })
        } else if self.is_silent_in(word, now) {
            Err(NoPlace::Silent)
        } else {
            Ok(())
        }
    }

    /// Whether the upstream is silent: twenty attempts have no answer, and for longer than can be
    /// chance.
    pub fn is_silent(&self, now: Tick) -> bool {
        self.is_silent_in(self.word.load(Ordering::Acquire), now)
    }

    fn is_silent_in(&self, word: u64, now: Tick) -> bool {
        self.lacks_answers(word, MANY, self.patience.load(Ordering::Relaxed), now)
    }

    /// Whether it has answered nobody for one round trip, several attempts that were sent since and
    /// others: not yet a silence, but what is late isn't one attempt.
    pub(crate) fn has_gone_quiet(&self, now: Tick) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let one_round_trip = self.patience.load(Ordering::Relaxed) / 2;
        limit(word) == UNLIMITED && self.lacks_answers(word, FOURTH + 1, one_round_trip, now)
    }

    /// Whether so many attempts have no answer, [`SEVERAL`] of them sent since the last one, for
    /// more than so many nanoseconds.
    fn lacks_answers(&self, word: u64, least: u32, nanos: u64, now: Tick) -> bool {
        sent(word) == SEVERAL
            && unanswered(word) >= least
            && in_flight(word) >= FEW
            && self.unanswered_for(now) > nanos
    }

    fn unanswered_for(&self, now: Tick) -> u64 {
        now.as_nanos().saturating_sub(self.unanswered_since.load(Ordering::Relaxed))
    }

    /// Whether this silence has kept anybody back.
    fn has_kept_back(&self) -> bool {
        self.kept_back.load(Ordering::Relaxed) >= self.unanswered_since.load(Ordering::Relaxed)
    }

    /// Whether somebody may go to a silent upstream: one when it has answered nothing for three
    /// times as long as makes it so, and one each time that is four times as long. Those it doesn't
    /// answer may be slow by themselves.
    pub fn is_scout_due(&self, now: Tick) -> bool {
        let since = self.unanswered_since.load(Ordering::Relaxed);
        let last = self.scouted.load(Ordering::Relaxed).max(since);
        let wait = (last - since).max(self.patience.load(Ordering::Relaxed)).saturating_mul(3);
        now.as_nanos().saturating_sub(last) > wait
    }

    /// The same, for who goes if so.
    pub fn scouts(&self, now: Tick) -> bool {
        let is_due = self.is_scout_due(now);
        if is_due {
            // Two at once do no harm.
            self.scouted.store(now.as_nanos(), Ordering::Relaxed);
        }
        is_due
    }

    /// Takes in how one attempt went; what that changed.
    #[inline]
    pub fn record(&self, sample: Sample, now: Tick) -> Option<Change> {
        let ends = self.ends.load(Ordering::Relaxed);
        if ends == OFF {
            return None;
        }
        self.slot.add(sample);
        if now.as_nanos() < ends {
            return None;
        }
        self.close(now)
    }

    #[inline(never)]
    fn close(&self, now: Tick) -> Option<Change> {
        // Whoever holds the lock closes the same slot.
        let mut law = self.law.try_lock()?;
        if now.as_nanos() < self.ends.load(Ordering::Relaxed) {
            return None;
        }
        self.ends.store(now.after_nanos(SLOT).as_nanos().min(OFF - 1), Ordering::Relaxed);
        let reached = self.reached.swap(false, Ordering::Relaxed);
        let is_silent = self.is_silent(now);
        let kept_back = is_silent && self.has_kept_back();
        let to = law.step(&self.slot.take(), reached, kept_back, now);
        // That time after time runs out makes the upstream no less silent.
        if !is_silent {
            self.patience.store(law.patience(), Ordering::Relaxed);
        }
        self.publish(to)
    }

    pub(super) fn publish(&self, to: Option<u32>) -> Option<Change> {
        let new = to.map_or(UNLIMITED, |to| to.min(UNLIMITED - 1));
        let set = |word: u64| Some(with_limit(word, new));
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        let from = Some(limit(before.unwrap_or_else(|word| word))).filter(|limit| *limit != UNLIMITED);
        (from != to).then_some(Change { from, to })
    }

    #[cfg(all(test, resilient_loom))]
    pub(super) fn fourth_since(&self) -> Option<Tick> {
        let sent = unanswered(self.word.load(Ordering::Acquire));
        (sent >= FOURTH).then(|| Tick::from_nanos(self.unanswered_since.load(Ordering::Relaxed)))
    }

    /// As many attempts as make it silent at any time later than this.
    #[cfg(all(test, resilient_loom))]
    pub(super) fn fall_silent(&self, now: Tick) {
        self.patience.store(0, Ordering::Relaxed);
        for _ in 0..MANY {
            let _ = self.try_acquire(Priority::Normal, now);
        }
    }

    /// Attempts that may be in flight; `None` while no limit is in force.
    pub fn limit(&self) -> Option<u32> {
        Some(limit(self.word.load(Ordering::Relaxed))).filter(|limit| *limit != UNLIMITED)
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        in_flight(self.word.load(Ordering::Relaxed))
    }

    /// What is known now. Takes the lock: for people, not for every call.
    pub fn snapshot(&self, now: Tick) -> Snapshot {
        let law = self.law.lock();
        let known = |nanos: f64| (nanos > 0.0).then(|| Duration::from_nanos(nanos as u64));
        Snapshot {
            limit: self.limit(),
            in_flight: self.in_flight(),
            round_trip: known(law.rtt),
            usual_round_trip: known(law.usual),
            silent_for: self.is_silent(now).then(|| Duration::from_nanos(self.unanswered_for(now))),
        }
    }
}
