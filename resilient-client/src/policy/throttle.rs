//! Client throttle: send an overloaded upstream about as much as it accepts, and refuse the rest
//! here.
//!
//! Refusing a request costs the upstream something too. One that gets ten times what it can do
//! may spend itself on saying no. A breaker answers by sending nothing for a while; a throttle
//! goes on sending what is likely to be accepted, and finds out by itself when that changes. (The
//! rule is "client-side throttling" in Google's *Site Reliability Engineering*, chapter 21.)
//!
//! - Each client counts its requests and the upstream's accepts over the last
//!   [`window`](ThrottlePolicy::window), and refuses a request with probability
//!   `max(0, (requests - K * accepts) / (requests + 1))`.
//! - Requests refused here count as requests: while nothing is accepted the probability goes on
//!   rising.
//! - With K = 2 nothing is refused until fewer than half of the requests are accepted; under
//!   lasting overload the upstream gets twice what it accepts, so that it shows when it could do
//!   more.
//! - A request counts once its fate is known, not when it sets out. Otherwise the first calls of
//!   a client, all in flight and none accepted yet, would throttle one another. (gRPC's adaptive
//!   throttler counts likewise.)
//! - Accepted is what the upstream took on, however it ended: only refusals for overload (429,
//!   503), refused connections and answers that never came count against it. A call its own
//!   caller cancelled says nothing and isn't counted.
//!
//! Off unless asked for.
//!
//! One caveat: it recovers by what it sends, and K of what follows for each accepted. Simulated
//! at 100 calls a second, all are sent again about 80 s after an overload of five times the
//! capacity ends. After a total outage, when one call in `requests + 1` is sent, it takes about
//! 12 minutes. Both shorten with the window.
//!
//! ```
//! use resilient_client::policy::throttle::{Throttle, ThrottlePolicy};
//! use resilient_client::time::Tick;
//!
//! let throttle = Throttle::new(ThrottlePolicy::standard().compile()?);
//! let now = Tick::ZERO;
//! for _ in 0..9 {
//!     throttle.refused(now);
//! }
//! assert_eq!(throttle.probability(now), 0.9);
//! assert!(throttle.admit(now, 0.5).is_err(), "the draw is the caller's");
//! assert!(throttle.admit(now, 0.95).is_ok());
//! # Ok::<(), resilient_client::policy::Invalid>(())
//! ```

use std::fmt;
use std::time::Duration;

use super::breaker::window::{BUCKETS, HalfFull, Totals, Window};
use crate::invalid::Invalid;
use crate::sync::{AtomicU64, Ordering};
use crate::time::{Tick, nanos};

const LEAST_MULTIPLIER: f64 = 1.0;
const MOST_MULTIPLIER: f64 = 100.0;
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
/// The multiplier, in bits, of a throttle that is off. No compiled one is zero.
const OFF: u64 = 0;

/// When requests are refused here because too few are accepted there. Plain data:
/// [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ThrottlePolicy {
    pub(crate) multiplier: f64,
    pub(crate) window: Duration,
    pub(crate) observe_only: bool,
}

impl ThrottlePolicy {
    /// K = 2 over two minutes, the book's own values.
    pub const fn standard() -> Self {
        Self { multiplier: 2.0, window: Duration::from_secs(120), observe_only: false }
    }

    /// K, how much more is sent than is accepted: 1 to 100. Default 2.
    ///
    /// Lower refuses more here and spares the upstream more; at 1 the first refusal counts.
    /// Higher notices sooner that the upstream recovers.
    pub const fn multiplier(mut self, k: f64) -> Self {
        self.multiplier = k;
        self
    }

    /// How far back requests and accepts count: 1 s to an hour. Default 2 minutes. It moves on in
    /// tenths.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Whether it only says what it would have refused, and lets it through. Default no.
    pub const fn observe_only(mut self, observe_only: bool) -> Self {
        self.observe_only = observe_only;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let Self { multiplier, window, .. } = *self;
        if !(LEAST_MULTIPLIER..=MOST_MULTIPLIER).contains(&multiplier) {
            let problem =
                format!("must be between {LEAST_MULTIPLIER} and {MOST_MULTIPLIER}, got {multiplier}");
            return Err(Invalid::new("throttle.multiplier", problem));
        }
        if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
            let problem =
                format!("must be between {SHORTEST_WINDOW:?} and {LONGEST_WINDOW:?}, got {window:?}");
            return Err(Invalid::new("throttle.window", problem));
        }
        Ok(Rules { multiplier, bucket_nanos: nanos(window) / u64::from(BUCKETS) })
    }
}

impl Default for ThrottlePolicy {
    fn default() -> Self {
        Self::standard()
    }
}

/// Checked settings. Made by [`ThrottlePolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    multiplier: f64,
    bucket_nanos: u64,
}

/// Refused here, because the upstream accepts too little.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Throttled {
    /// The probability with which it was refused.
    pub probability: f64,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} % of requests are held back", self.probability * 100.0)
    }
}

impl std::error::Error for Throttled {}

/// What became of the last requests, shared by every call to one upstream. Ten words, whatever
/// the traffic.
#[derive(Debug)]
pub struct Throttle {
    /// K, as an `f64`'s bits, or [`OFF`].
    multiplier: AtomicU64,
    bucket_nanos: AtomicU64,
    /// Successes are accepts; failures are requests refused there or here.
    window: Window,
}

impl Throttle {
    /// A throttle that knows of no requests.
    pub fn new(rules: Rules) -> Self {
        Self {
            multiplier: AtomicU64::new(rules.multiplier.to_bits()),
            bucket_nanos: AtomicU64::new(rules.bucket_nanos),
            window: Window::new(rules.bucket_nanos),
        }
    }

    /// A throttle that refuses nothing.
    pub fn off() -> Self {
        Self { multiplier: AtomicU64::new(OFF), bucket_nanos: AtomicU64::new(0), window: Window::new(0) }
    }

    /// Changes the rules, or turns it off. What it knows is kept unless the window's length
    /// changes.
    ///
    /// Calls to this must not overlap one another; they may overlap anything else.
    pub fn set_rules(&self, rules: Option<Rules>) {
        let Some(rules) = rules else {
            self.multiplier.store(OFF, Ordering::Relaxed);
            return;
        };
        if self.bucket_nanos.swap(rules.bucket_nanos, Ordering::Relaxed) != rules.bucket_nanos {
            self.window.resize(rules.bucket_nanos);
        }
        self.multiplier.store(rules.multiplier.to_bits(), Ordering::Relaxed);
    }

    /// Whether it refuses anything ever.
    pub fn is_on(&self) -> bool {
        self.multiplier.load(Ordering::Relaxed) != OFF
    }

    /// Whether a request may be sent; `draw` is uniform in `[0, 1)`. A request sent is to be
    /// followed by [`accepted`](Self::accepted) or [`refused`](Self::refused) when that is known.
    ///
    /// # Errors
    /// [`Throttled`] when the draw lies below the [`probability`](Self::probability). That counts
    /// as a request.
    pub fn admit(&self, now: Tick, draw: f64) -> Result<(), Throttled> {
        let probability = self.probability(now);
        if draw < probability {
            self.refused(now);
            return Err(Throttled { probability });
        }
        Ok(())
    }

    /// The upstream took a request on.
    pub fn accepted(&self, now: Tick) {
        self.count(now, Window::success);
    }

    /// The upstream refused a request for overload, or never answered.
    pub fn refused(&self, now: Tick) {
        self.count(now, Window::failure);
    }

    /// The probability with which the next request is refused here: 0 while it is off, always
    /// below 1.
    pub fn probability(&self, now: Tick) -> f64 {
        let bits = self.multiplier.load(Ordering::Relaxed);
        if bits == OFF {
            return 0.0;
        }
        let totals = self.totals(now);
        let (requests, accepts) = (f64::from(totals.calls()), f64::from(totals.successes));
        ((requests - f64::from_bits(bits) * accepts) / (requests + 1.0)).max(0.0)
    }

    fn totals(&self, now: Tick) -> Totals {
        self.window.totals(now, None)
    }

    fn count(&self, now: Tick, one: fn(&Window, Tick) -> Result<(), HalfFull>) {
        if self.multiplier.load(Ordering::Relaxed) == OFF {
            return;
        }
        if one(&self.window, now).is_err() {
            self.window.round(now, None);
            // Full again at once takes half a million racing calls; then one isn't missed.
            let _ = one(&self.window, now);
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the formula is the same, so are its results")]
mod tests;
