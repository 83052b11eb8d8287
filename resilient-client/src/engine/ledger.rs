//! The ledger: the one place that answers "may this call send another attempt, and when?".
//!
//! Separate layers can't answer it. A retry layer doesn't know the deadline, a timeout doesn't know that a retry is
//! coming, neither knows the budget. The ledger knows all of it: the deadline, the attempts made and in flight, whether
//! the request can be sent again and is safe to repeat, what the server asked for, what the budget allows, and what
//! each attempt came to. It is told (`launched`, `succeeded`, `failed`, `rejected`) and asked ([`Ledger::decide`]); it never
//! awaits, locks or reads a clock.
//!
//! ```text
//!              launched                failed, and another may follow
//!   Scheduled ----------> InFlight ------------------------------------------> Scheduled (later, a token reserved)
//!       |                     |
//!       | rejected            | succeeded, or failed and no other may follow
//!       v                     v
//!     Over <------------------+          and Over from anywhere once the deadline has passed
//! ```

use std::time::Duration;

use crate::engine::report::{Decline, Trigger};
use crate::outcome::classify::{Classified, Repeat};
use crate::policy::budget::Budget;
use crate::policy::retry::{self, Backoff};
use crate::rng::Rng;
use crate::time::{Tick, nanos};

/// What a call may do, fixed when it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The end of the whole call.
    pub(crate) deadline: Tick,
    /// The longest one attempt may take, in nanoseconds.
    pub(crate) attempt_timeout: u64,
    /// `None` when retries are off.
    pub(crate) retry: Option<retry::Rules>,
    /// Whether the request can be sent twice.
    pub(crate) replayable: bool,
    /// Whether sending it twice does no harm.
    pub(crate) safe: bool,
}

/// What the call should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send attempt `number`.
    Launch { number: u32, trigger: Trigger },
    /// The attempt in flight has used up its time: cancel it and settle it as a timeout.
    Expire,
    /// Nothing to do before this time, unless an attempt ends.
    WaitUntil(Tick),
    /// The deadline has passed, or nothing can follow: cancel whatever is in flight and return what there is.
    Finish,
}

/// What follows an attempt's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// No other attempt is allowed: this one's end is the call's.
    GiveUp(Decline),
    /// Another attempt follows: set this answer aside.
    Retry { number: u32, delay: Duration },
}

/// What the ledger must know of the world outside the call to judge a failure.
pub(crate) struct World<'a> {
    pub(crate) budget: &'a Budget,
    /// Whether the circuit breaker would refuse another attempt.
    pub(crate) circuit_open: bool,
    pub(crate) rng: &'a mut Rng,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Scheduled { at: Tick },
    InFlight { until: Tick },
    Over,
}

/// See the [module docs](self).
#[derive(Debug)]
pub(crate) struct Ledger {
    terms: Terms,
    phase: Phase,
    /// Attempts launched.
    attempts: u32,
    /// A budget token taken for an attempt that hasn't been launched.
    reserved: bool,
    /// A 425 has had its one repetition.
    tried_once_more: bool,
    backoff: Option<Backoff>,
}

impl Ledger {
    /// A call whose first attempt is due at once.
    pub(crate) fn new(terms: Terms, now: Tick) -> Self {
        Self {
            terms,
            phase: Phase::Scheduled { at: now },
            attempts: 0,
            reserved: false,
            tried_once_more: false,
            backoff: None,
        }
    }

    /// What to do now. Asking twice gives the same answer.
    pub(crate) fn decide(&self, now: Tick) -> Decision {
        let deadline = self.terms.deadline;
        if now >= deadline {
            return Decision::Finish;
        }
        match self.phase {
            Phase::Scheduled { at } if at <= now => Decision::Launch {
                number: self.attempts + 1,
                trigger: if self.attempts == 0 { Trigger::First } else { Trigger::Retry },
            },
            Phase::InFlight { until } if until <= now => Decision::Expire,
            Phase::Scheduled { at } => Decision::WaitUntil(at.min(deadline)),
            Phase::InFlight { until } => Decision::WaitUntil(until.min(deadline)),
            Phase::Over => Decision::Finish,
        }
    }

    /// Whether the attempt about to be launched can't be followed by another, so the request needn't be kept.
    pub(crate) fn is_last(&self) -> bool {
        !self.terms.replayable || self.attempts + 1 >= self.max_attempts()
    }

    /// The attempt decided on is on its way.
    pub(crate) fn launched(&mut self, now: Tick) {
        self.attempts += 1;
        self.reserved = false;
        self.phase = Phase::InFlight { until: now.after_nanos(self.terms.attempt_timeout) };
    }

    /// The attempt decided on was refused here: nothing was sent, and waiting for ourselves would be a loop.
    pub(crate) fn rejected(&mut self) {
        self.phase = Phase::Over;
    }

    /// Attempts launched so far; the number of the one in flight.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the attempt in flight is paid for by the budget.
    pub(crate) fn is_extra(&self) -> bool {
        self.attempts > 0
    }

    /// Gives up the token of an attempt that will never be launched; the caller refunds it.
    pub(crate) fn take_reserved(&mut self) -> bool {
        std::mem::take(&mut self.reserved)
    }

    /// The attempt in flight brought the answer: nothing may follow it.
    pub(crate) fn succeeded(&mut self) {
        self.phase = Phase::Over;
    }

    /// The attempt in flight ended as anything but a success: may another follow?
    pub(crate) fn failed(&mut self, end: &Classified, now: Tick, world: World<'_>) -> Next {
        match self.another(end, now, world) {
            Err(why) => {
                self.phase = Phase::Over;
                Next::GiveUp(why)
            }
            Ok(delay) => {
                self.tried_once_more |= end.repeat == Repeat::Once;
                self.reserved = true;
                self.phase = Phase::Scheduled { at: now.after(delay) };
                Next::Retry { number: self.attempts + 1, delay }
            }
        }
    }

    /// The wait before another attempt, or why there is none. The budget is asked last, so that no token is spent on
    /// an attempt that something else forbids.
    fn another(&mut self, end: &Classified, now: Tick, world: World<'_>) -> Result<Duration, Decline> {
        let World { budget, circuit_open, rng } = world;
        let Some(retry) = self.terms.retry else { return Err(Decline::RetriesOff) };
        match end.repeat {
            Repeat::Never => return Err(Decline::Final(end.outcome)),
            Repeat::IfSafe if !self.terms.safe => return Err(Decline::NotSafe),
            Repeat::Once if self.tried_once_more => return Err(Decline::TriedOnceMore),
            Repeat::IfSafe | Repeat::Once | Repeat::Unprocessed => {}
        }
        if !self.terms.replayable {
            return Err(Decline::BodyIsStream);
        }
        if self.attempts >= retry.max_attempts() {
            return Err(Decline::AttemptsExhausted(self.attempts));
        }
        if circuit_open {
            return Err(Decline::CircuitOpen);
        }
        let delay = self.delay(retry, end.retry_after, now, rng)?;
        if !budget.try_withdraw() {
            return Err(Decline::BudgetExhausted);
        }
        Ok(delay)
    }

    fn delay(
        &mut self,
        retry: retry::Rules,
        retry_after: Option<Duration>,
        now: Tick,
        rng: &mut Rng,
    ) -> Result<Duration, Decline> {
        let left = now.until(self.terms.deadline);
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(&retry));
        let Some(floor) = retry_after.filter(|floor| !floor.is_zero()) else {
            let delay = Duration::from_nanos(backoff.next(rng));
            return if delay < left { Ok(delay) } else { Err(Decline::NoTime { delay, left }) };
        };
        if floor >= left {
            return Err(Decline::RetryAfterTooLong { asked: floor, left });
        }
        let spread = Duration::from_nanos(backoff.with_floor(floor, rng));
        // The spread may not fit before the deadline although the floor does: then spread over what fits.
        Ok(if spread < left {
            spread
        } else {
            Duration::from_nanos(rng.between(nanos(floor), nanos(left).saturating_sub(1)))
        })
    }

    fn max_attempts(&self) -> u32 {
        self.terms.retry.map_or(1, |retry| retry.max_attempts())
    }
}

#[cfg(test)]
mod tests;
