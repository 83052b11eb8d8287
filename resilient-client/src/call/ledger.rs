//! The ledger: the one place that answers "may this call send another attempt, and when?".
//!
//! Separate layers can't answer it. A retry layer doesn't know the deadline, a timeout doesn't know
//! that a retry is coming, neither knows the budget. The ledger knows all of it: the deadline, the
//! attempts made and in flight, whether the request can be sent again and is safe to repeat, what
//! the server asked for, what the budget allows, and what how each attempt ended. The loop reports
//! to it (`launched`, `succeeded`, `failed`, `rejected`) and asks it ([`Ledger::decide`]); it never
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
//! Attempts that the server processed, or may have, are bounded by the policy and paid for: there
//! are never more of them than calls and tokens. An attempt that provably was not processed is
//! another matter. Its repeat adds no load that anybody saw: it inherits what its predecessor was
//! granted, be it nothing, counts as the same attempt, and has a bound of its own.
//!
//! A retry and a hedge are the same act, one more attempt, set off by different events. So they
//! share one budget, one limit on attempts and one set of reasons not to.

use std::time::Duration;

use smallvec::SmallVec;

use crate::outcome::classify::Repeat;
use crate::outcome::report::{Decline, Trigger};
use crate::policy::breaker::ForReady;
use crate::policy::budget::Budget;
use crate::policy::grant::Grant;
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
    /// How long an attempt may be out before another is sent beside it, in nanoseconds; `None` for
    /// never.
    pub(crate) hedge_after: Option<u64>,
    /// How many attempts may be sent beside others.
    pub(crate) hedges: u32,
    /// Whether the request can be sent twice.
    pub(crate) replayable: bool,
    /// Whether sending it twice does no harm.
    pub(crate) safe: bool,
    /// Whether the next attempt waits for as long as the server asks with `Retry-After`.
    pub(crate) obeys_retry_after: bool,
    /// What an attempt waits for rather than be refused by the breaker.
    pub(crate) for_ready: ForReady,
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
    /// The deadline has passed, or nothing can follow: cancel whatever is in flight and return what
    /// there is.
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
    /// Whether the name stands for several endpoints, and one may be asked that the call hasn't
    /// tried.
    pub(crate) elsewhere: bool,
    /// With several endpoints: from when on one of them may be asked, as far as those that the call
    /// has tried asked it for time.
    pub(crate) again_from: Option<Tick>,
    /// Whether the request can still be sent again: a streamed body may have outgrown its buffer
    /// since the call began.
    pub(crate) replayable: bool,
    /// How long an attempt usually takes, in nanoseconds, where that is known.
    pub(crate) usual: Option<u64>,
    /// Waits of the user's own between attempts.
    pub(crate) delays: Option<&'a Delays>,
    pub(crate) rng: &'a mut Rng,
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
    hold_until: Tick,
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
            hold_until: Tick::ZERO,
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

    /// Whether the attempt about to be launched can't be followed by another, so the request
    /// needn't be kept.
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

    /// Whether the attempt about to be launched could be followed by another even if it took all
    /// its time.
    pub(crate) fn has_room_for_another(&self, now: Tick) -> bool {
        let left = nanos(now.until(self.terms.deadline));
        self.terms.safe && !self.is_last() && left / 2 >= self.terms.attempt_timeout
    }

    /// Until when an attempt launched now would be waited for.
    pub(crate) fn would_end(&self, now: Tick) -> Tick {
        now.after_nanos(self.terms.attempt_timeout).min(self.terms.deadline)
    }

    /// Attempt `number` has its time only since then, because the server couldn't have had it
    /// before. Until when, then.
    pub(crate) fn begins_anew(&mut self, number: u32, since: Tick) -> Tick {
        let until = since.after_nanos(self.terms.attempt_timeout);
        if let Some(flight) = self.in_flight.iter_mut().find(|flight| flight.number == number) {
            flight.until = until;
        }
        until
    }

    /// The attempt decided on was refused here: nothing was sent, and waiting for ourselves would
    /// be a loop.
    pub(crate) fn rejected(&mut self) {
        self.due = None;
        self.waiting = false;
    }

    /// Whether another attempt has followed the first, or was to.
    pub(crate) fn has_followed(&self) -> bool {
        self.attempts > 1 || self.reserved.is_some()
    }

    /// The server has asked for time, and a hedge is due that hasn't set out: it would ask once
    /// more at once. Whether there was one; what it was granted is given back by whoever asks.
    pub(crate) fn withdraw_hedge(&mut self) -> bool {
        let due = self.due.is_some_and(|due| due.trigger == Trigger::Hedge);
        if due {
            self.hedges_left += 1;
            (self.due, self.waiting) = (None, false);
        }
        due
    }

    /// What the attempt about to be launched was granted, for whoever sees it off or gives it back;
    /// `None` for the first.
    pub(crate) fn take_grant(&mut self) -> Option<Grant> {
        self.reserved.take()
    }

    /// Whether the attempt about to be launched was granted something of its own; the first, and
    /// one that takes another's place, isn't.
    pub(crate) fn has_grant(&self) -> bool {
        self.reserved.is_some()
    }

    /// The attempt that ended was never processed, and another takes its place, with what it was
    /// granted.
    pub(crate) fn inherit(&mut self, grant: Grant) {
        self.reserved = Some(grant);
    }

    /// An attempt in flight brought the answer: nothing may follow it.
    pub(crate) fn succeeded(&mut self) {
        self.in_flight.clear();
        self.due = None;
    }

    /// It is time for a hedge. One more attempt becomes due at once if the rules that bind retries
    /// and the cap on hedges allow it. Whatever comes of it, this attempt isn't hedged again.
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

/// Takes what an attempt beyond the first needs, the budget last; `capped` says that the cap on
/// hedges granted it a place, which goes back when the budget refuses.
fn grant(world: &World<'_>, capped: bool) -> Result<Grant, Decline> {
    let token = world.budget.try_withdraw();
    if token.is_none() && capped {
        world.cap.refund();
    }
    token.map(|token| Grant { token, capped }).ok_or(Decline::BudgetExhausted)
}

mod repeat;
#[cfg(test)]
mod tests;
