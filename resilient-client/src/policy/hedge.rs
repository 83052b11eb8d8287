//! Hedging: send a second attempt when the first is unusually late, and take whichever answers
//! first.
//!
//! A few calls in a hundred meet a pause that has nothing to do with them: a collection, a queue, a
//! lost packet. Their repetition is quick, so waiting for them is a waste. (Jeffrey Dean and Luiz
//! André Barroso, "The Tail at Scale", 2013.) The danger is an upstream that is slow for everyone:
//! there each hedge makes it slower. Two rules prevent that.
//!
//! - A hedge follows when an attempt has been out for longer than *twice the live 90th percentile*,
//!   and 10 ms at least ([`Delay::Percentile`]). An upstream that slows down for everyone moves its
//!   own threshold. A hundredth of calls lies beyond it if latencies are exponential, as they are
//!   in a queue, and fewer when they vary less.
//! - A [`Cap`]: hedges are at most 7 % of calls, and 5 more in a burst. It is exact under any
//!   concurrency.
//! - A cancelled attempt is measured too, at its age. Otherwise hedging would hide from itself what
//!   it hedges against.
//!
//! Simulated (`simulations/tests/simulations/hedge.rs`; log-normal latencies, median 10 ms, sigma
//! 0.5), p99 as a multiple of the unhedged:
//!
//! | | 5 % take 200 ms more | 85 % load, 10 workers | 85 % load, 1 worker | nothing late |
//! |---|---|---|---|---|
//! | standard | 0.29 for 5.0 % more attempts | 1.06 | 1.28 | 1.00 for 0.4 % |
//! | without the cap | 0.29 for 5.1 % | 9.8 | 11.4 | 1.00 for 0.4 % |
//! | a burst of 10 | 0.29 for 5.1 % | 1.07 | 1.46 | 1.00 for 0.4 % |
//! | after the 95th percentile | 0.30 for 5.3 % | 1.07 | 1.64 | 0.94 for 5.3 % |
//! | the same, cancelled attempts not measured | 0.96 for 6.9 %: healthy calls eat the cap | 1.09 | 1.63 | 0.93 for 5.7 % |
//!
//! The loaded servers finish what was cancelled; one that stops sees its p99 halved.
//!
//! Off unless asked for, and only for requests that can be sent twice without harm. A hedge also
//! needs a token of the retry budget, which the upstream's retries share.
//!
//! One caveat: with [`Delay::Percentile`] nothing is hedged until the last 5 to 10 s hold enough
//! samples: 20 for the standard policy. For an upstream with less traffic use [`Delay::Fixed`].
//!
//! ```
//! use resilient_client::policy::hedge::{Cap, Digest, HedgePolicy};
//! use resilient_client::time::Tick;
//!
//! let rules = HedgePolicy::standard().compile()?;
//! let (digest, cap, now) = (Digest::new(), Cap::new(rules), Tick::ZERO);
//! assert_eq!(rules.delay(&digest, now), None);
//!
//! // Every call pays in, every attempt is measured.
//! for _ in 0..100 {
//!     cap.deposit();
//!     digest.record(20_000_000, now);
//! }
//! # let now = now.after_nanos(200_000_000);
//! let delay = rules.delay(&digest, now).unwrap();
//! assert!(delay.abs_diff(40_000_000) < 3_000_000);
//! // That long after an attempt set out:
//! assert!(cap.try_withdraw());
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

use std::time::Duration;

use super::token_bucket::{Limit, MOST_TOKENS, TOKEN, TokenBucket, Tokens, rounded_down};
use crate::invalid::Invalid;
use crate::invalid::{at_most_ten_years, count, positive, rate};
pub use crate::policy::latency::{Digest, Quantile};
use crate::time::Tick;

const MOST_HEDGES: u32 = 4;
const MOST_MULTIPLIER: f64 = 100.0;

/// How long an attempt may be out before a hedge follows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Delay {
    /// Always this long. Zero sends all at once, as far as the cap goes.
    Fixed(Duration),
    /// As long as what is usual for this upstream says; no hedge while too little is known.
    Percentile {
        /// The share of recent attempts that were faster than what is multiplied: 0.0001 to 0.9999.
        /// Standard 0.9.
        quantile: f64,
        /// By what it is multiplied: 1 to 100. Standard 2.
        multiplier: f64,
        /// The shortest delay, for an upstream so fast that its delays are mostly ours. Standard 10
        /// ms.
        floor: Duration,
    },
}

impl Delay {
    /// Twice the 90th percentile, at least 10 ms.
    pub const fn standard() -> Self {
        Self::Percentile { quantile: 0.9, multiplier: 2.0, floor: Duration::from_millis(10) }
    }

    /// The shortest it can be.
    pub const fn least(&self) -> Duration {
        match self {
            Self::Fixed(delay) | Self::Percentile { floor: delay, .. } => *delay,
        }
    }
}

/// When to send another attempt beside one that is late. Plain data: [`compile`](Self::compile)
/// checks it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct HedgePolicy {
    pub(crate) delay: Delay,
    pub(crate) max_share: f64,
    pub(crate) burst: u32,
    pub(crate) max_hedges: u32,
}

impl HedgePolicy {
    /// One hedge after twice the 90th percentile, at least 10 ms; for at most 7 % of calls, and 5
    /// at once.
    pub const fn standard() -> Self {
        Self { delay: Delay::standard(), max_share: 0.07, burst: 5, max_hedges: 1 }
    }

    /// How long an attempt may be out. Default [`Delay::standard`].
    pub const fn delay(mut self, delay: Delay) -> Self {
        self.delay = delay;
        self
    }

    /// The most hedges, as a share of calls to the upstream: at most 1, at least 0.000001, rounded
    /// down to six places. Default 0.07.
    pub const fn max_share(mut self, share: f64) -> Self {
        self.max_share = share;
        self
    }

    /// Hedges beyond that share that may be sent in a burst: 1 to 1,000,000. Default 5; twice as
    /// many make a server with one or two workers noticeably slower, half as many aren't enough for
    /// a random cluster of late calls.
    pub const fn burst(mut self, hedges: u32) -> Self {
        self.burst = hedges;
        self
    }

    /// The most hedges in one call, each a delay after the one before: 1 to 4. Default 1.
    pub const fn max_hedges(mut self, hedges: u32) -> Self {
        self.max_hedges = hedges;
        self
    }

    /// When the last hedge of a call sets out at the earliest. One that is no shorter than the
    /// call's total can't work.
    pub fn least_cumulative_delay(&self) -> Duration {
        self.delay.least().saturating_mul(self.max_hedges)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter, or a
    /// delay is longer than ten years.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let share = rounded_down(rate("hedge.max_share", self.max_share)?);
        if share == 0 {
            let problem = format!("must be at least a millionth (0.000001), got {}", self.max_share);
            return Err(Invalid::new("hedge.max_share", problem));
        }
        let threshold = Threshold::compile(self.delay)?;
        let burst = u64::from(count("hedge.burst", self.burst, 1, MOST_TOKENS)?) * TOKEN;
        Ok(Rules {
            threshold,
            tokens: Tokens { capacity: burst, initial: burst, deposit: share },
            max_hedges: count("hedge.max_hedges", self.max_hedges, 1, MOST_HEDGES)?,
        })
    }
}

impl Default for HedgePolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// A checked [`Delay`], in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Threshold {
    Fixed(u64),
    Percentile { quantile: Quantile, multiplier: f64, floor: u64 },
}

impl Threshold {
    fn compile(delay: Delay) -> Result<Self, Invalid> {
        match delay {
            Delay::Fixed(delay) => at_most_ten_years("hedge.delay", delay).map(Self::Fixed),
            Delay::Percentile { quantile, multiplier, floor } => {
                let Some(quantile) = Quantile::new(quantile) else {
                    let problem = format!("must be between 0.0001 and 0.9999, got {quantile}");
                    return Err(Invalid::new("hedge.quantile", problem));
                };
                if !(1.0..=MOST_MULTIPLIER).contains(&multiplier) {
                    let problem = format!("must be between 1 and {MOST_MULTIPLIER}, got {multiplier}");
                    return Err(Invalid::new("hedge.multiplier", problem));
                }
                Ok(Self::Percentile { quantile, multiplier, floor: positive("hedge.floor", floor)? })
            }
        }
    }
}

/// Checked settings. Made by [`HedgePolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    threshold: Threshold,
    tokens: Tokens,
    max_hedges: u32,
}

impl Rules {
    /// How long after an attempt set out a hedge follows, in nanoseconds; `None` when too little is
    /// known of the upstream to tell a late attempt from a usual one, so that there is no hedge.
    pub fn delay(&self, digest: &Digest, now: Tick) -> Option<u64> {
        match self.threshold {
            Threshold::Fixed(delay) => Some(delay),
            Threshold::Percentile { quantile, multiplier, floor } => {
                let usual = digest.quantile(quantile, now)?;
                Some(((usual as f64 * multiplier) as u64).max(floor))
            }
        }
    }

    /// The most hedges in one call.
    pub const fn max_hedges(&self) -> u32 {
        self.max_hedges
    }
}

/// The cap on one upstream's hedges, shared by every call to it: a bucket of tokens, into which
/// each call pays a share of one and from which each hedge takes one.
///
/// It is the retry budget's bucket, so hedges never exceed `burst + max_share * calls` under any
/// concurrency.
#[derive(Debug)]
pub struct Cap {
    bucket: TokenBucket,
}

impl Cap {
    /// A cap with its burst to spend.
    pub fn new(rules: Rules) -> Self {
        Self { bucket: TokenBucket::new(Limit::Tokens(rules.tokens)) }
    }

    /// A cap that grants nothing, until [`set_rules`](Self::set_rules) gives it rules.
    pub fn closed() -> Self {
        Self { bucket: TokenBucket::new(Limit::Closed) }
    }

    /// Changes the rules and keeps the balance, as far as the new burst allows; `None` grants
    /// nothing from now on. A cap that was closed starts with its burst.
    pub fn set_rules(&self, rules: Option<Rules>) {
        self.bucket.set_limit(rules.map_or(Limit::Closed, |rules| Limit::Tokens(rules.tokens)));
    }

    /// Pays in for a call. Each does, once, whatever comes of it. With the whole burst there, as it
    /// is while nothing is late, this only reads.
    pub fn deposit(&self) {
        self.bucket.deposit();
    }

    /// Takes one token for a hedge; false, and nothing taken, when less than one is left.
    #[must_use]
    pub fn try_withdraw(&self) -> bool {
        self.bucket.try_withdraw().is_some()
    }

    /// Gives back the token of a hedge that never set out. One that did has cost the upstream its
    /// work, whoever won.
    pub fn refund(&self) {
        self.bucket.refund(self.bucket.era());
    }

    /// Hedges that could be sent now, and the part of one already paid in.
    pub fn available(&self) -> f64 {
        self.bucket.available()
    }
}

#[cfg(test)]
mod tests;
