//! Retry: how often to try a call again, and how long to wait before.
//!
//! Most failures between services are brief. Trying again hides them, provided the repeats
//! neither arrive together nor outnumber the calls: the wait is random for the first, and a
//! [budget](super::budget) sees to the second.
//!
//! - A call makes at most [`max_attempts`](RetryPolicy::max_attempts) attempts, the first among
//!   them.
//! - The wait before the next doubles from [`initial`](RetryPolicy::initial) to
//!   [`cap`](RetryPolicy::cap), and each call draws its own: see [`Jitter`].
//! - A server's `Retry-After` is a floor. The wait is the floor plus up to 1.25 times as much
//!   again, so that those told the same thing don't all come back in the same instant.
//!
//! One caveat: but for [`idempotent`](RetryPolicy::idempotent) this policy doesn't decide *what*
//! may be repeated. That depends on the request and on what became of it.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::retry::{Backoff, RetryPolicy};
//! use resilient_client::rng::Rng;
//!
//! let rules = RetryPolicy::standard().initial(Duration::from_millis(50)).compile()?;
//! let (mut backoff, mut rng) = (Backoff::new(&rules), Rng::seeded(1));
//! assert!(backoff.next(&mut rng).is_some_and(|wait| wait <= 50_000_000));
//! assert!(backoff.next(&mut rng).is_some_and(|wait| wait <= 100_000_000));
//! let floor = Duration::from_secs(1);
//! assert!(backoff.with_floor(floor, &mut rng).is_some_and(|wait| wait >= 1_000_000_000));
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

mod backoff;
mod custom_delays;

use std::time::Duration;

use crate::invalid::Invalid;
use crate::invalid::{count, positive};
pub use backoff::Backoff;
pub(crate) use custom_delays::Delays;

const MOST_ATTEMPTS: u32 = 16;

/// How the waits of different calls are kept apart.
///
/// The first two are from Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture
/// Blog, 2015.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// Uniform between zero and the exponential wait. Spreads best and makes the least load.
    #[default]
    Full,
    /// Uniform between the initial wait and three times the last one, or the cap if that is
    /// less. Never shorter than the initial wait.
    Decorrelated,
    /// Exactly the exponential wait, and exactly a server's `Retry-After`. Calls that failed
    /// together come back together: for tests, and for callers that are spread out already.
    None,
}

/// How often to try again and how long to wait. Plain data: [`compile`](Self::compile) checks
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RetryPolicy {
    pub(crate) max_attempts: u32,
    pub(crate) initial: Duration,
    pub(crate) cap: Duration,
    pub(crate) jitter: Jitter,
    pub(crate) hold_back_on_429: bool,
    pub(crate) idempotent: bool,
    pub(crate) delays: Option<Delays>,
}

impl RetryPolicy {
    /// Four attempts in all; waits from 20 ms doubling to 2 s, with full jitter.
    pub const fn standard() -> Self {
        Self {
            max_attempts: 4,
            initial: Duration::from_millis(20),
            cap: Duration::from_secs(2),
            jitter: Jitter::Full,
            hold_back_on_429: false,
            idempotent: false,
            delays: None,
        }
    }

    /// The most attempts a call makes, the first included: 1 (never retry) to 16. Default 4.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The wait before the second attempt, before jitter. Default 20 ms.
    pub const fn initial(mut self, wait: Duration) -> Self {
        self.initial = wait;
        self
    }

    /// The longest wait of our own choosing; at least `initial`. A server's `Retry-After` may
    /// be longer. Default 2 s.
    pub const fn cap(mut self, wait: Duration) -> Self {
        self.cap = wait;
        self
    }

    /// How the waits of different calls are kept apart. Default [`Jitter::Full`].
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Whether a 429 with `Retry-After` holds back other calls to the upstream too, as a 503
    /// does: when ten answers in a row have asked for a wait, or at the first while nothing has
    /// succeeded for 10 s, for 5 s at most. Default false: a server often limits one tenant,
    /// not all.
    pub const fn hold_back_on_429(mut self, hold_back: bool) -> Self {
        self.hold_back_on_429 = hold_back;
        self
    }

    /// Whether every request that follows this policy is safe to repeat, whatever its method: for a
    /// route whose `POST`s only ask, or that is called by gRPC. A call
    /// [says otherwise](crate::CallOptions::idempotent) for itself. Default false.
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Waits of one's own, in place of the exponential ones: `make` is asked by each call that
    /// retries for the first time, and the call makes no other attempt when what it got ends.
    /// They are kept to as they are, without jitter, but a server's `Retry-After` is a floor
    /// for them too.
    ///
    /// Two policies are equal only if they share the factory.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilient_client::policy::retry::RetryPolicy;
    ///
    /// let policy = RetryPolicy::standard().delays(|| [10, 50, 250].map(Duration::from_millis));
    /// assert!(policy.compile().is_ok());
    /// ```
    pub fn delays<D>(mut self, make: impl Fn() -> D + Send + Sync + 'static) -> Self
    where
        D: IntoIterator<Item = Duration>,
        D::IntoIter: Send + 'static,
    {
        self.delays = Some(Delays::new(make));
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when `max_attempts` lies outside its range, a wait is
    /// zero or longer than ten years, or `initial` exceeds `cap`.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let rules = Rules {
            max_attempts: count("retry.max_attempts", self.max_attempts, 1, MOST_ATTEMPTS)?,
            initial_nanos: positive("retry.initial", self.initial)?,
            cap_nanos: positive("retry.cap", self.cap)?,
            jitter: self.jitter,
            hold_back_on_429: self.hold_back_on_429,
            idempotent: self.idempotent,
        };
        if self.initial > self.cap {
            let problem = format!("must be at most retry.cap ({:?}), got {:?}", self.cap, self.initial);
            return Err(Invalid::new("retry.initial", problem));
        }
        Ok(rules)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Checked settings, in nanoseconds. Made by [`RetryPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    initial_nanos: u64,
    cap_nanos: u64,
    max_attempts: u32,
    jitter: Jitter,
    hold_back_on_429: bool,
    idempotent: bool,
}

impl Rules {
    /// The most attempts a call makes, the first included.
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Whether a 429 with `Retry-After` holds back other calls.
    pub const fn hold_back_on_429(&self) -> bool {
        self.hold_back_on_429
    }

    /// Whether every request is safe to repeat.
    pub const fn idempotent(&self) -> bool {
        self.idempotent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_work_and_names_the_numbers() {
        let standard = RetryPolicy::standard;
        for (policy, message) in [
            (standard().max_attempts(0), "retry.max_attempts must be between 1 and 16, got 0"),
            (standard().max_attempts(17), "retry.max_attempts must be between 1 and 16, got 17"),
            (standard().initial(Duration::ZERO), "retry.initial must be longer than zero, got 0s"),
            (standard().cap(Duration::ZERO), "retry.cap must be longer than zero, got 0s"),
            (
                standard().cap(Duration::from_millis(10)),
                "retry.initial must be at most retry.cap (10ms), got 20ms",
            ),
        ] {
            assert_eq!(policy.compile().unwrap_err().to_string(), message);
        }
        let too_long = standard().cap(Duration::MAX).compile().unwrap_err().to_string();
        assert!(too_long.starts_with("retry.cap must be at most ten years"), "{too_long}");
    }

    #[test]
    fn a_constant_wait_and_a_single_attempt_are_fine() {
        let constant = RetryPolicy::standard().initial(Duration::from_secs(2)).max_attempts(1);
        assert_eq!(constant.compile().map(|rules| rules.max_attempts()), Ok(1));
    }
}
