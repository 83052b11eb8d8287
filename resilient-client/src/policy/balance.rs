//! Balancing: which of several endpoints takes a call, so that a bad one takes few.
//!
//! Turns (round robin) send a replica that answers ten times slower, or not at all, its full share.
//! Here each call draws two endpoints at random and goes to the one that costs less: its recent
//! latency times the calls it would have in flight. (The power of two choices: Michael
//! Mitzenmacher, 2001. The cost: Finagle's peak EWMA.)
//!
//! - *Latency* rises to a slower answer at once and falls over [`decay`](BalancePolicy::decay), 10
//!   s, with faster ones or without any, so that an endpoint that was slow is tried again. An
//!   attempt that was cancelled counts as a slower answer if it was out for longer.
//! - *Failures* make an endpoint cost more: divide by the share that succeeded lately, down to a
//!   hundredth ([`penalty`](BalancePolicy::penalty)). That is the work it takes to get one success
//!   there. A failure never lowers the latency, so failing at once makes no endpoint look fast. One
//!   failure raises the cost by a third and ten successes undo that: a constant penalty would shun
//!   a healthy endpoint for a minute after one error. An answer that isn't what was asked for (429,
//!   a 504 for want of time) counts as one here, though in no breaker: it is quick, and would
//!   attract calls. After two in a row the latency of an earlier success is forgotten, and the
//!   endpoint is passed over while another serves, but for one draw in twenty.
//! - *Nothing known* yet: an endpoint counts as fast as the one it is compared with.
//! - An endpoint whose own circuit breaker is open takes no calls but its probes, however many
//!   others are out: there is no share of endpoints below which the dead ones take calls again
//!   (Envoy's panic threshold; see below).
//! - The first probe goes alone, the others once it has succeeded. While another endpoint is well,
//!   one in twenty of the draws of a broken one is a probe, and one in two hundred when the call
//!   couldn't be repeated elsewhere or the last probe decided nothing (a 429, a caller who left).
//!   One that decides nothing also holds the next back: 250 ms, doubling up to 5 s.
//! - A name refuses a call only when none of its endpoints may be asked, and says when the first
//!   may be. The name has no breaker of its own: it would count its endpoints' failures a second
//!   time, and turn the well ones' calls away for the sick ones.
//! - An endpoint that answers with 503 and `Retry-After` isn't asked while another may be, for as
//!   long as it says (5 s at most, as for an upstream that is alone: whoever is left may be worse).
//!   The call that was told goes elsewhere at once. Only when there is nobody else does it wait.
//! - A new or recovered endpoint [starts slowly](BalancePolicy::slow_start): it stands for a draw
//!   with a probability that grows from 10 % to 1 over 10 s, which makes its share grow likewise
//!   (Envoy's slow start has the same numbers).
//! - A retry or hedge goes to an endpoint the call hasn't tried, while there is one.
//!
//! Simulated (`upstream/endpoints/simulation.rs`: three replicas at 300 calls a second, 10 ms each,
//! one replica bad, no retries; a failure counts as 3 s), the bad one's share as a multiple of a
//! fair one, and p99:
//!
//! | | ten times slower | hung | refusing at once |
//! |---|---|---|---|
//! | round robin | 1.0, 3000 ms | 1.0, 3000 ms | 1.0, 3000 ms |
//! | tower's `balance` with `PeakEwma` | 0.04, 63 ms | 0.004, 33 ms | 2.0, 3000 ms |
//! | this | 0.03, 53 ms | 0.004, 33 ms | 0.004, 33 ms |
//! | this, without breakers | 0.03, 53 ms | 0.002, 33 ms | 0.006, 34 ms |
//!
//! Beside a slow replica tower's and this differ by chance: with other seeds it was 55 ms and 57
//! ms.
//!
//! Why no panic threshold: the living are known to be well, and what they can't carry their own
//! limits turn away. With it, of 1,390 calls in 6 s to ten endpoints of which 8 or 9 refused, 3 to
//! 21 were served. The price is paid when most of a fleet is only slow: the rest is asked for
//! everything, until it has failed as well and all are probed.
//!
//! One caveat: at a low rate calls rarely overlap, and then the fastest endpoint takes nearly all
//! of them.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::balance::BalancePolicy;
//!
//! BalancePolicy::standard().slow_start(Duration::ZERO).compile()?;
//! let refused = BalancePolicy::standard().penalty(0.5).compile().unwrap_err();
//! assert_eq!(refused.to_string(), "balance.penalty must be between 1 and 1000000, got 0.5");
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

use std::time::Duration;

use crate::invalid::Invalid;
use crate::invalid::{at_most_ten_years, positive};
use crate::time::Tick;

/// Which endpoint takes a call. Plain data: [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BalancePolicy {
    pub(crate) decay: Duration,
    pub(crate) slow_start: Duration,
    pub(crate) penalty: f64,
}

impl BalancePolicy {
    /// The defaults named at each setting.
    pub const fn standard() -> Self {
        Self { decay: Duration::from_secs(10), slow_start: Duration::from_secs(10), penalty: 100.0 }
    }

    /// The time in which what is known of an endpoint loses all but 37 % of its weight: 10 ms to a
    /// day. Default 10 s, as in Finagle.
    pub const fn decay(mut self, time: Duration) -> Self {
        self.decay = time;
        self
    }

    /// How long a new or recovered endpoint takes to come to its full share; zero for at once.
    /// Default 10 s. The endpoints of the first list don't: there is nobody else to take the load.
    pub const fn slow_start(mut self, time: Duration) -> Self {
        self.slow_start = time;
        self
    }

    /// How many times its cost an endpoint is charged when all it does is fail: 1 (off) to
    /// 1,000,000. Default 100.
    pub const fn penalty(mut self, times: f64) -> Self {
        self.penalty = times;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter, and
    /// when a duration is longer than ten years.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        const SHORTEST: Duration = Duration::from_millis(10);
        const LONGEST: Duration = Duration::from_secs(86_400);
        let decay_nanos = positive("balance.decay", self.decay)?;
        if !(SHORTEST..=LONGEST).contains(&self.decay) {
            let problem = format!("must be between {SHORTEST:?} and {LONGEST:?}, got {:?}", self.decay);
            return Err(Invalid::new("balance.decay", problem));
        }
        if !(1.0..=1_000_000.0).contains(&self.penalty) {
            let problem = format!("must be between 1 and 1000000, got {}", self.penalty);
            return Err(Invalid::new("balance.penalty", problem));
        }
        Ok(Rules {
            decay_millis: (decay_nanos / 1_000_000) as f32,
            slow_start_nanos: at_most_ten_years("balance.slow_start", self.slow_start)?,
            least_success: (1.0 / self.penalty) as f32,
        })
    }
}

impl Default for BalancePolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Checked settings. Made by [`BalancePolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    pub(crate) decay_millis: f32,
    slow_start_nanos: u64,
    /// The share of successes below which it makes no difference.
    pub(crate) least_success: f32,
}

impl Rules {
    /// Those of the standard policy, which a test holds them against.
    pub(crate) const STANDARD: Self =
        Self { decay_millis: 10_000.0, slow_start_nanos: 10_000_000_000, least_success: 0.01 };

    /// The probability with which an endpoint that started at `since` takes part in a draw; zero is
    /// long ago.
    pub(crate) fn share_of_draws(&self, since: u64, now: Tick) -> f64 {
        const LEAST: f64 = 0.1;
        let age = now.as_nanos().saturating_sub(since);
        if since == 0 || age >= self.slow_start_nanos {
            return 1.0;
        }
        (age as f64 / self.slow_start_nanos as f64).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        BalancePolicy::standard().compile().unwrap()
    }

    #[test]
    fn a_newcomer_comes_in_over_ten_seconds() {
        const SECOND: u64 = 1_000_000_000;
        let percent = |seconds: u64| {
            (rules().share_of_draws(SECOND, Tick::from_nanos((1 + seconds) * SECOND)) * 100.0).round()
        };
        assert_eq!([0, 1, 3, 10, 11].map(|age| percent(age) as u32), [10, 10, 30, 100, 100]);
        let off = BalancePolicy::standard().slow_start(Duration::ZERO).compile().unwrap();
        assert!(off.share_of_draws(SECOND, Tick::from_nanos(SECOND)) >= 1.0);
        assert!(rules().share_of_draws(0, Tick::from_nanos(1)) >= 1.0, "the first list starts in full");
    }

    #[test]
    fn refuses_what_cannot_work_and_names_the_numbers() {
        let standard = BalancePolicy::standard;
        for (policy, message) in [
            (standard().decay(Duration::ZERO), "balance.decay must be longer than zero, got 0s"),
            (
                standard().decay(Duration::from_millis(1)),
                "balance.decay must be between 10ms and 86400s, got 1ms",
            ),
            (standard().penalty(0.5), "balance.penalty must be between 1 and 1000000, got 0.5"),
            (standard().penalty(f64::INFINITY), "balance.penalty must be between 1 and 1000000, got inf"),
        ] {
            assert_eq!(policy.compile().unwrap_err().to_string(), message);
        }
        assert!(standard().slow_start(Duration::MAX).compile().is_err());
    }
}
