//! Whether an attempt that failed is followed by another, and when.

use std::time::Duration;

use super::{Due, Ledger, MOST_WALKED, Next, REFUSED, UNSENT, World, grant};
use crate::outcome::classify::{Classified, Repeat};
use crate::outcome::report::{Decline, Trigger};
use crate::outcome::{FailureKind, Outcome, Verdict};
use crate::policy::retry;
use crate::policy::retry::{Backoff, Delays};
use crate::time::{Tick, nanos};

impl Ledger {
    /// Attempt `number` ended as anything but a success: may another follow?
    pub(crate) fn failed(&mut self, number: u32, end: &Classified, now: Tick, mut world: World<'_>) -> Next {
        self.in_flight.retain(|flight| flight.number != number);
        if self.in_flight.is_empty() {
            // There is nothing left to send a hedge beside.
            self.hedge_at = Tick::NEVER;
        }
        if let Some(asked) = self.asked(end) {
            self.hold_until = self.hold_until.max(now.after(asked));
            self.hedge_at = Tick::NEVER;
        }
        self.free += u32::from(end.repeat.is_free());
        // What failed here, before the server could say anything, says nothing about an attempt
        // that is well on its way.
        let local = end.verdict == Verdict::Neutral && end.status.is_none();
        let final_end = end.repeat.is_final() && !local;
        if !final_end && (!self.in_flight.is_empty() || self.due.is_some()) {
            return Next::Wait;
        }
        match self.another(end, now, &mut world) {
            Err(why) => {
                self.in_flight.clear();
                self.due = None;
                Next::GiveUp(why)
            }
            Ok(delay) => {
                self.tried_once_more |= end.repeat == Repeat::Once;
                self.due = Some(Due { at: now.after(delay), trigger: Trigger::Retry });
                Next::Retry { number: self.attempts + 1, delay }
            }
        }
    }

    /// The time the server asked for, if this call gives it.
    pub(crate) fn asked(&self, end: &Classified) -> Option<Duration> {
        end.retry_after.filter(|_| self.terms.obeys_retry_after)
    }

    /// The wait before another attempt, or why there is none. The budget is asked last, so that no
    /// token is spent on an attempt that something else forbids.
    pub(super) fn another(
        &mut self,
        end: &Classified,
        now: Tick,
        world: &mut World<'_>,
    ) -> Result<Duration, Decline> {
        if self.walks_on(end, world) {
            self.has_time(Duration::ZERO, now, world.usual)?;
            self.walked += 1;
            return Ok(Duration::ZERO);
        }
        match end.repeat {
            Repeat::Never | Repeat::Futile => return Err(Decline::Final(end.outcome)),
            Repeat::Once if self.tried_once_more => return Err(Decline::TriedOnceMore),
            repeat => self.may_repeat(repeat, world)?,
        }
        // What another attempt, since ended, was told still holds, of the endpoint that said it.
        let hold_until = world.again_from.unwrap_or(self.hold_until);
        let told = now < hold_until || self.asked(end).is_some();
        let hold = Some(now.until(hold_until)).filter(|hold| !hold.is_zero() && !world.elsewhere);
        if end.repeat.is_free() {
            return self.in_place(end.repeat, hold, now, world);
        }
        let at_once = !told || world.elsewhere;
        if at_once && let Some(hedged) = self.hedge_at_once(now, world) {
            return hedged.map(|()| Duration::ZERO);
        }
        let retry = self.terms.retry.ok_or(if at_once && self.hedges_left > 0 {
            Decline::HedgeCap
        } else {
            Decline::RetriesOff
        })?;
        let delay = self.delay(retry, hold, now, world)?;
        self.has_time(delay, now, world.usual)?;
        self.reserved = Some(grant(world, false)?);
        Ok(delay)
    }

    /// Whether a request that an endpoint never saw goes on to the next. Like a name's addresses,
    /// which are tried one by one until one answers: at once, since who is asked next had nothing
    /// to do with it, and neither paid for nor counted, since it is the first attempt anybody sees.
    /// There are as many steps as other endpoints that may be asked.
    ///
    /// A transport that may have followed a redirect can't prove that the endpoint it failed to
    /// reach is the one that was asked: then only a request that is safe to repeat goes on.
    pub(super) fn walks_on(&self, end: &Classified, world: &World<'_>) -> bool {
        let unseen = match end.repeat {
            Repeat::Unprocessed => true,
            Repeat::IfSafe => end.outcome == Outcome::Failure(FailureKind::Connect) && self.terms.safe,
            _ => false,
        };
        unseen
            && world.elsewhere
            && self.terms.retry.is_some_and(|retry| retry.max_attempts() > 1)
            && self.walked < MOST_WALKED
            && self.terms.replayable
            && world.replayable
    }

    /// The wait before another attempt takes the place of one that was never processed.
    pub(super) fn in_place(
        &mut self,
        repeat: Repeat,
        hold: Option<Duration>,
        now: Tick,
        world: &mut World<'_>,
    ) -> Result<Duration, Decline> {
        let retry = self.repeats().ok_or(Decline::RetriesOff)?;
        // A connection that was no more is out of the pool now, so the next is closer to a live
        // one. Who refuses is there, and should be given time.
        let delay = if repeat == Repeat::Unsent && hold.is_none() {
            Duration::ZERO
        } else {
            self.delay(retry, hold, now, world)?
        };
        self.has_time(delay, now, world.usual)?;
        Ok(delay)
    }

    /// With hedging on, a failure before the hedge was due is as good a reason to send it, and
    /// there is no slow attempt to wait for. `None` when there is no hedge to send, or the cap has
    /// none left: then it is a retry like any other.
    pub(super) fn hedge_at_once(&mut self, now: Tick, world: &World<'_>) -> Option<Result<(), Decline>> {
        if self.hedges_left == 0 {
            return None;
        }
        if let Err(why) = self.has_time(Duration::ZERO, now, world.usual) {
            return Some(Err(why));
        }
        if !world.cap.try_withdraw() {
            return None;
        }
        Some(grant(world, true).map(|grant| {
            self.hedges_left -= 1;
            self.reserved = Some(grant);
        }))
    }

    /// The rules that bind every attempt but the first.
    pub(super) fn may_repeat(&self, repeat: Repeat, world: &World<'_>) -> Result<(), Decline> {
        if matches!(repeat, Repeat::IfSafe | Repeat::Doubtful) && !self.terms.safe {
            return Err(Decline::NotSafe);
        }
        if !self.terms.replayable {
            return Err(Decline::BodyIsStream);
        }
        let exhausted = match repeat {
            Repeat::Unsent => self.free > UNSENT,
            Repeat::Refused | Repeat::Doubtful => self.free > REFUSED,
            _ => self.counted() >= self.max_attempts(),
        };
        match (exhausted, self.max_attempts()) {
            (true, 1) => return Err(Decline::RetriesOff),
            (true, _) => return Err(Decline::AttemptsExhausted(self.attempts)),
            (false, _) => {}
        }
        // After the count: the last attempt takes the request with it, which is not a reason of its
        // own.
        if !world.replayable {
            return Err(Decline::BodyNotKept);
        }
        if world.circuit_open { Err(Decline::CircuitOpen) } else { Ok(()) }
    }

    /// An attempt that can't be expected to end before the deadline is load without use.
    pub(super) fn has_time(&self, delay: Duration, now: Tick, usual: Option<u64>) -> Result<(), Decline> {
        let left = now.until(self.terms.deadline);
        let needed = delay.saturating_add(Duration::from_nanos(usual.unwrap_or(1)));
        if needed <= left { Ok(()) } else { Err(Decline::NoTime { needed, left }) }
    }

    pub(super) fn delay(
        &mut self,
        retry: retry::Rules,
        hold: Option<Duration>,
        now: Tick,
        world: &mut World<'_>,
    ) -> Result<Duration, Decline> {
        let left = now.until(self.terms.deadline);
        let (delays, rng) = (world.delays, &mut *world.rng);
        let new = || Box::new(delays.map_or_else(|| Backoff::new(&retry), Delays::backoff));
        let backoff = self.backoff.get_or_insert_with(new);
        let Some(floor) = hold else {
            return backoff.next(rng).map(Duration::from_nanos).ok_or(Decline::DelaysEnded);
        };
        if floor >= left {
            return Err(Decline::RetryAfterTooLong { asked: floor, left });
        }
        let spread = backoff.with_floor(floor, rng).map(Duration::from_nanos).ok_or(Decline::DelaysEnded)?;
        // The spread may not fit before the deadline although the floor does: then spread over what
        // fits.
        Ok(if spread < left {
            spread
        } else {
            Duration::from_nanos(rng.between(nanos(floor), nanos(left).saturating_sub(1)))
        })
    }
}
