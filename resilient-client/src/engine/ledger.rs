//! The ledger: the one place that answers "may this call send another attempt, and when?".
//!
//! Separate layers can't answer it. A retry layer doesn't know the deadline, a timeout doesn't know that a retry is
//! coming, neither knows the budget. The ledger knows all of it: the deadline, the attempts made and in flight, whether
//! the request can be sent again and is safe to repeat, what the server asked for, what the budget allows, and what
//! each attempt came to. It is told (`launched`, `succeeded`, `failed`, `rejected`) and asked ([`Ledger::decide`]); it never
//! awaits, locks or reads a clock.
//!
//! ```text
//!                    launched              succeeded, or failed and final
//!     due: an attempt -------> in flight --------------------------------> over
//!         ^          |            |  |
//!         |          | rejected   |  | hedge time: one more is due beside it
//!         |          v            v  v
//!         |         over       failed, and another may follow, a token reserved
//!         +-----------------------+          and over from anywhere once the deadline has passed
//! ```
//!
//! Attempts that the server processed, or may have, are bounded by the policy and paid for: there are never more of them than
//! calls and tokens. An attempt that provably was not processed is another matter. Its repeat adds no load that anybody saw:
//! it inherits what its predecessor was granted, be it nothing, counts as the same attempt, and has a bound of its own.
//!
//! A retry and a hedge are the same act, one more attempt, set off by different events. So they share one budget, one
//! limit on attempts and one set of reasons not to.

use std::time::Duration;

use smallvec::SmallVec;

use crate::engine::report::{Decline, Trigger};
use crate::outcome::classify::{Classified, Repeat};
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::Verdict;
use crate::policy::budget::{Budget, Token};
use crate::policy::hedge::Cap;
use crate::policy::retry::{self, Backoff, Delays};
use crate::rng::Rng;
use crate::time::{Tick, nanos};

/// The most endpoints that a call may find dead and still go on to another.
const MOST_WALKED: u32 = 16;
/// The most attempts of a call that may turn out never sent, each on a connection that was no more.
const UNSENT: u32 = 16;
/// The most that may be refused unseen.
const REFUSED: u32 = 8;

/// What a call may do, fixed when it starts.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Terms {
    /// The end of the whole call.
    pub(crate) deadline: Tick,
    /// The longest one attempt may take, in nanoseconds.
    pub(crate) attempt_timeout: u64,
    /// `None` when retries are off.
    pub(crate) retry: Option<retry::Rules>,
    /// How long an attempt may be out before another is sent beside it, in nanoseconds; `None` for never.
    pub(crate) hedge_after: Option<u64>,
    /// How many attempts may be sent beside others.
    pub(crate) hedges: u32,
    /// Whether the request can be sent twice.
    pub(crate) replayable: bool,
    /// Whether sending it twice does no harm.
    pub(crate) safe: bool,
    /// Whether the next attempt waits for as long as the server asks with `Retry-After`.
    pub(crate) obeys_retry_after: bool,
    /// Whether an attempt waits for an open breaker rather than be refused.
    pub(crate) waits_for_ready: bool,
}

/// What the call should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send attempt `number`.
    Launch { number: u32, trigger: Trigger },
    /// The time to send one more attempt beside those in flight: ask [`Ledger::hedge`].
    Hedge,
    /// This attempt has used up its time: cancel it and tell [`Ledger::failed`].
    Expire { number: u32 },
    /// Nothing to do before this time, unless an attempt ends.
    WaitUntil(Tick),
    /// The deadline has passed, or nothing can follow: cancel whatever is in flight and return what there is.
    Finish,
}

/// What follows a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// No other attempt is allowed: this one's end is the call's.
    GiveUp(Decline),
    /// Another attempt follows: set this one's answer aside.
    Retry { number: u32, delay: Duration },
    /// Another attempt is in flight: set this one's answer aside and wait.
    Wait,
}

/// What the ledger must know of the world outside the call to allow another attempt.
pub(crate) struct World<'a> {
    pub(crate) budget: &'a Budget,
    /// The cap on hedges.
    pub(crate) cap: &'a Cap,
    /// Whether the circuit breaker would refuse another attempt.
    pub(crate) circuit_open: bool,
    /// Whether the name stands for several endpoints, and one may be asked that the call hasn't tried.
    pub(crate) elsewhere: bool,
    /// With several endpoints: from when on one of them may be asked, as far as those that the call has tried asked it for time.
    pub(crate) again_from: Option<Tick>,
    /// Whether the request can still be sent again: a streamed body may have outgrown its buffer since the call began.
    pub(crate) replayable: bool,
    /// How long an attempt usually takes, in nanoseconds, where that is known.
    pub(crate) usual: Option<u64>,
    /// Waits of the user's own between attempts.
    pub(crate) delays: Option<&'a Delays>,
    pub(crate) rng: &'a mut Rng,
}

/// What an attempt beyond the first was granted. It is given back when the attempt never sets out.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a grant that is dropped is spent"]
pub(crate) struct Grant {
    pub(crate) token: Token,
    /// It also took its place under the cap on hedges.
    pub(crate) capped: bool,
}

/// The attempt to launch next.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Tick,
    trigger: Trigger,
}

/// An attempt launched and not ended.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    number: u32,
    until: Tick,
}

/// See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Ledger {
    terms: Terms,
    due: Option<Due>,
    in_flight: SmallVec<[InFlight; 1]>,
    /// When to consider a hedge; never once none is left.
    hedge_at: Tick,
    hedges_left: u32,
    /// Attempts launched.
    attempts: u32,
    /// Those of them that never reached an endpoint, and were followed by one to another.
    walked: u32,
    /// Those of them that were free to repeat, repeated or not.
    free: u32,
    /// What was granted to an attempt that hasn't been launched.
    reserved: Option<Grant>,
    /// The attempt that is due waits to be let in.
    waiting: bool,
    /// Until when the server asked to be left alone.
    quiet_until: Tick,
    /// A 425 has had its one repetition.
    tried_once_more: bool,
    /// Boxed, as only calls that are retried have one.
    backoff: Option<Box<Backoff>>,
}

impl Ledger {
    /// A call whose first attempt is due at once.
    pub(crate) fn new(terms: Terms, now: Tick) -> Self {
        Self {
            terms,
            due: Some(Due { at: now, trigger: Trigger::First }),
            in_flight: SmallVec::new(),
            hedge_at: Tick::NEVER,
            hedges_left: if terms.hedge_after.is_some() { terms.hedges } else { 0 },
            attempts: 0,
            walked: 0,
            free: 0,
            reserved: None,
            waiting: false,
            quiet_until: Tick::ZERO,
            tried_once_more: false,
            backoff: None,
        }
    }

    /// What to do now. Asking twice gives the same answer.
    pub(crate) fn decide(&self, now: Tick) -> Decision {
        if now >= self.terms.deadline || self.due.is_none() && self.in_flight.is_empty() {
            return Decision::Finish;
        }
        if let Some(expired) = self.in_flight.iter().find(|flight| flight.until <= now) {
            return Decision::Expire { number: expired.number };
        }
        if let Some(due) = self.due
            && due.at <= now
            && !self.waiting
        {
            return Decision::Launch { number: self.attempts + 1, trigger: due.trigger };
        }
        if self.hedge_at <= now {
            return Decision::Hedge;
        }
        let due = self.due.filter(|_| !self.waiting).map_or(Tick::NEVER, |due| due.at);
        let first_to_expire = self.in_flight.iter().map(|flight| flight.until).min();
        let expiry = first_to_expire.unwrap_or(Tick::NEVER);
        Decision::WaitUntil(self.terms.deadline.min(due).min(expiry).min(self.hedge_at))
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The attempt decided on waits to be let in.
    pub(crate) fn waits(&mut self) {
        self.waiting = true;
    }

    /// Whether the attempt about to be launched can't be followed by another, so the request needn't be kept.
    pub(crate) fn is_last(&self) -> bool {
        !self.terms.replayable
            || self.counted() + 1 >= self.max_attempts() && (self.repeats().is_none() || self.free >= UNSENT)
    }

    /// The attempt decided on is on its way.
    pub(crate) fn launched(&mut self, now: Tick) {
        self.attempts += 1;
        self.due = None;
        self.waiting = false;
        let until = now.after_nanos(self.terms.attempt_timeout);
        self.in_flight.push(InFlight { number: self.attempts, until });
        self.hedge_at = match self.terms.hedge_after {
            Some(after) if self.hedges_left > 0 => now.after_nanos(after),
            _ => Tick::NEVER,
        };
    }

    /// Whether the attempt about to be launched could be followed by another even if it took all its time.
    pub(crate) fn has_room_for_another(&self, now: Tick) -> bool {
        let left = nanos(now.until(self.terms.deadline));
        self.terms.safe && !self.is_last() && left / 2 >= self.terms.attempt_timeout
    }

    /// Until when an attempt launched now would be waited for.
    pub(crate) fn would_end(&self, now: Tick) -> Tick {
        now.after_nanos(self.terms.attempt_timeout).min(self.terms.deadline)
    }

    /// Attempt `number` has its time only since then, because the server couldn't have had it before. Until when, then.
    pub(crate) fn begins_anew(&mut self, number: u32, since: Tick) -> Tick {
        let until = since.after_nanos(self.terms.attempt_timeout);
        if let Some(flight) = self.in_flight.iter_mut().find(|flight| flight.number == number) {
            flight.until = until;
        }
        until
    }

    /// The attempt decided on was refused here: nothing was sent, and waiting for ourselves would be a loop.
    pub(crate) fn rejected(&mut self) {
        self.due = None;
        self.waiting = false;
    }

    /// Whether another attempt has followed the first, or was to.
    pub(crate) fn has_followed(&self) -> bool {
        self.attempts > 1 || self.reserved.is_some()
    }

    /// The server has asked for time, and a hedge is due that hasn't set out: it would ask once more at once. Whether there was one;
    /// what it was granted is given back by whoever asks.
    pub(crate) fn withdraw_hedge(&mut self) -> bool {
        let due = self.due.is_some_and(|due| due.trigger == Trigger::Hedge);
        if due {
            self.hedges_left += 1;
            (self.due, self.waiting) = (None, false);
        }
        due
    }

    /// What the attempt about to be launched was granted, for whoever sees it off or gives it back; `None` for the first.
    pub(crate) fn take_grant(&mut self) -> Option<Grant> {
        self.reserved.take()
    }

    /// Whether the attempt about to be launched was granted something of its own; the first, and one that takes another's
    /// place, isn't.
    pub(crate) fn has_grant(&self) -> bool {
        self.reserved.is_some()
    }

    /// The attempt that ended was never processed, and another takes its place, with what it was granted.
    pub(crate) fn inherit(&mut self, grant: Grant) {
        self.reserved = Some(grant);
    }

    /// An attempt in flight brought the answer: nothing may follow it.
    pub(crate) fn succeeded(&mut self) {
        self.in_flight.clear();
        self.due = None;
    }

    /// It is time for a hedge. One more attempt becomes due at once if the rules that bind retries and the cap on hedges
    /// allow it. Whatever comes of it, this attempt isn't hedged again.
    pub(crate) fn hedge(&mut self, now: Tick, world: &World<'_>) -> Result<(), Decline> {
        self.hedge_at = Tick::NEVER;
        self.may_repeat(Repeat::IfSafe, world)?;
        self.has_time(Duration::ZERO, now, world.usual)?;
        if !world.cap.try_withdraw() {
            return Err(Decline::HedgeCap);
        }
        self.reserved = Some(grant(world, true)?);
        self.hedges_left -= 1;
        self.due = Some(Due { at: now, trigger: Trigger::Hedge });
        Ok(())
    }

    /// Attempt `number` ended as anything but a success: may another follow?
    pub(crate) fn failed(&mut self, number: u32, end: &Classified, now: Tick, mut world: World<'_>) -> Next {
        self.in_flight.retain(|flight| flight.number != number);
        if self.in_flight.is_empty() {
            // There is nothing left to send a hedge beside.
            self.hedge_at = Tick::NEVER;
        }
        if let Some(asked) = self.asked(end) {
            self.quiet_until = self.quiet_until.max(now.after(asked));
            self.hedge_at = Tick::NEVER;
        }
        self.free += u32::from(end.repeat.is_free());
        // What failed here, before the server could say anything, says nothing about an attempt that is well on its way.
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

    /// The wait before another attempt, or why there is none. The budget is asked last, so that no token is spent on
    /// an attempt that something else forbids.
    fn another(&mut self, end: &Classified, now: Tick, world: &mut World<'_>) -> Result<Duration, Decline> {
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
        let quiet_until = world.again_from.unwrap_or(self.quiet_until);
        let told = now < quiet_until || self.asked(end).is_some();
        let quiet = Some(now.until(quiet_until)).filter(|quiet| !quiet.is_zero() && !world.elsewhere);
        if end.repeat.is_free() {
            return self.in_place(end.repeat, quiet, now, world);
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
        let delay = self.delay(retry, quiet, now, world)?;
        self.has_time(delay, now, world.usual)?;
        self.reserved = Some(grant(world, false)?);
        Ok(delay)
    }

    /// Whether a request that an endpoint never saw goes on to the next. Like a name's addresses, which are tried one by one until
    /// one answers: at once, since who is asked next had nothing to do with it, and neither paid for nor counted, since it is
    /// the first attempt anybody sees. There are as many steps as other endpoints that may be asked.
    ///
    /// A transport that may have followed a redirect can't prove that the endpoint it failed to reach is the one that was asked:
    /// then only a request that is safe to repeat goes on.
    fn walks_on(&self, end: &Classified, world: &World<'_>) -> bool {
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
    fn in_place(
        &mut self,
        repeat: Repeat,
        quiet: Option<Duration>,
        now: Tick,
        world: &mut World<'_>,
    ) -> Result<Duration, Decline> {
        let retry = self.repeats().ok_or(Decline::RetriesOff)?;
        // A connection that was no more is out of the pool now, so the next is closer to a live one. Who refuses is there,
        // and should be given time.
        let delay = if repeat == Repeat::Unsent && quiet.is_none() {
            Duration::ZERO
        } else {
            self.delay(retry, quiet, now, world)?
        };
        self.has_time(delay, now, world.usual)?;
        Ok(delay)
    }

    /// With hedging on, a failure before the hedge was due is as good a reason to send it, and there is no slow attempt
    /// to wait for. `None` when there is no hedge to send, or the cap has none left: then it is a retry like any other.
    fn hedge_at_once(&mut self, now: Tick, world: &World<'_>) -> Option<Result<(), Decline>> {
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
    fn may_repeat(&self, repeat: Repeat, world: &World<'_>) -> Result<(), Decline> {
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
        // After the count: the last attempt takes the request with it, which is not a reason of its own.
        if !world.replayable {
            return Err(Decline::BodyNotKept);
        }
        if world.circuit_open { Err(Decline::CircuitOpen) } else { Ok(()) }
    }

    /// An attempt that can't be expected to end before the deadline is load without use.
    fn has_time(&self, delay: Duration, now: Tick, usual: Option<u64>) -> Result<(), Decline> {
        let left = now.until(self.terms.deadline);
        let needed = delay.saturating_add(Duration::from_nanos(usual.unwrap_or(1)));
        if needed <= left { Ok(()) } else { Err(Decline::NoTime { needed, left }) }
    }

    fn delay(
        &mut self,
        retry: retry::Rules,
        quiet: Option<Duration>,
        now: Tick,
        world: &mut World<'_>,
    ) -> Result<Duration, Decline> {
        let left = now.until(self.terms.deadline);
        let (delays, rng) = (world.delays, &mut *world.rng);
        let new = || Box::new(delays.map_or_else(|| Backoff::new(&retry), Delays::backoff));
        let backoff = self.backoff.get_or_insert_with(new);
        let Some(floor) = quiet else {
            return backoff.next(rng).map(Duration::from_nanos).ok_or(Decline::DelaysEnded);
        };
        if floor >= left {
            return Err(Decline::RetryAfterTooLong { asked: floor, left });
        }
        let spread = backoff.with_floor(floor, rng).map(Duration::from_nanos).ok_or(Decline::DelaysEnded)?;
        // The spread may not fit before the deadline although the floor does: then spread over what fits.
        Ok(if spread < left {
            spread
        } else {
            Duration::from_nanos(rng.between(nanos(floor), nanos(left).saturating_sub(1)))
        })
    }

    /// Attempts that the server processed, or may have.
    fn counted(&self) -> u32 {
        self.attempts - self.free - self.walked
    }

    /// The rules of retrying, where they allow any.
    fn repeats(&self) -> Option<retry::Rules> {
        self.terms.retry.filter(|retry| retry.max_attempts() > 1)
    }

    fn max_attempts(&self) -> u32 {
        // Hedging without retries is one more attempt for each hedge.
        self.terms.retry.map_or(1 + self.terms.hedges, |retry| retry.max_attempts())
    }
}

/// Takes what an attempt beyond the first needs, the budget last; `capped` says that the cap on hedges granted it a place,
/// which goes back when the budget refuses.
fn grant(world: &World<'_>, capped: bool) -> Result<Grant, Decline> {
    let token = world.budget.try_withdraw();
    if token.is_none() && capped {
        world.cap.refund();
    }
    token.map(|token| Grant { token, capped }).ok_or(Decline::BudgetExhausted)
}

#[cfg(test)]
mod tests;
