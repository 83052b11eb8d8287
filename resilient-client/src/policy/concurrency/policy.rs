//! What one may ask of the adaptive limit, and the check of it.

use std::time::Duration;

use crate::invalid::Invalid;
use crate::invalid::{count, positive};

const MOST: u32 = 1_000_000;
const MOST_SAMPLES: u32 = 100_000;
/// Longer windows would take minutes to notice an overload.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// How a limit follows what the upstream can do. Plain data: [`compile`](Self::compile) checks it.
///
/// A setting of another kind is refused rather than ignored.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ConcurrencyPolicy {
    pub(crate) kind: Kind,
    pub(crate) initial: u32,
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) window: Duration,
    pub(crate) min_samples: u32,
    pub(crate) remeasure: Option<Duration>,
    pub(crate) tolerance: Option<f64>,
    pub(crate) queue: Option<(f64, f64)>,
    pub(crate) backoff: Option<f64>,
    pub(crate) slow_after: Option<Duration>,
}

/// What moves the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The ratio of the round trip to the one without queueing.
    Gradient,
    /// The number of attempts that seem to wait in the upstream's queue.
    Vegas,
    /// Time-outs and overload answers only.
    Aimd,
}

impl ConcurrencyPolicy {
    /// Keeps the mean round trip near [`tolerance`](Self::tolerance) times that of the upstream at
    /// rest.
    pub const fn gradient() -> Self {
        Self::of(Kind::Gradient)
    }

    /// Keeps the share of attempts that wait between two bounds, [`queue`](Self::queue).
    pub const fn vegas() -> Self {
        Self::of(Kind::Vegas)
    }

    /// Adds until attempts are dropped, then backs off. It looks at no latency unless
    /// [`slow_after`](Self::slow_after) is set, so the upstream must refuse or time out before it
    /// notices.
    pub const fn aimd() -> Self {
        Self::of(Kind::Aimd)
    }

    const fn of(kind: Kind) -> Self {
        Self {
            kind,
            initial: 20,
            min: 4,
            max: 1000,
            window: Duration::from_millis(100),
            min_samples: 50,
            remeasure: None,
            tolerance: None,
            queue: None,
            backoff: None,
            slow_after: None,
        }
    }

    /// What is set for every kind alike.
    #[cfg(feature = "config")]
    pub(crate) fn without_what_kinds_have(self) -> Self {
        let Self { remeasure, tolerance, queue, backoff, slow_after, .. } = Self::of(self.kind);
        Self { remeasure, tolerance, queue, backoff, slow_after, ..self }
    }

    /// The limit before anything is known, in attempts: `min` to `max`. Default 20.
    pub const fn initial(mut self, attempts: u32) -> Self {
        self.initial = attempts;
        self
    }

    /// The lowest limit, in attempts: 1 to 1,000,000. Default 4: fewer say too little for the way
    /// back up to be quick.
    pub const fn min(mut self, attempts: u32) -> Self {
        self.min = attempts;
        self
    }

    /// The highest limit, in attempts: `min` to 1,000,000. Default 1000.
    pub const fn max(mut self, attempts: u32) -> Self {
        self.max = attempts;
        self
    }

    /// How long samples are collected for one decision: 1 ms to 60 s. It is stretched to four round
    /// trips, though to no more than 10 s for their sake. Default 100 ms.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How many samples one decision needs: 1 to 100,000, or four times the limit if that is fewer.
    /// A window waits for them, and is thrown away when they don't come. Default 50.
    pub const fn min_samples(mut self, samples: u32) -> Self {
        self.min_samples = samples;
        self
    }

    /// How often, while a queue is seen, the limit dips for one window to measure the round trip
    /// without it: longer than zero. Default 10 s, each time up to a quarter sooner or later.
    /// Gradient and Vegas only.
    pub const fn remeasure(mut self, every: Duration) -> Self {
        self.remeasure = Some(every);
        self
    }

    /// The mean round trip that is still no queue, as a multiple of that at rest: 1.05 to 10.
    /// Default 1.25, as Envoy's `buffer`. Gradient only.
    pub const fn tolerance(mut self, multiple: f64) -> Self {
        self.tolerance = Some(multiple);
        self
    }

    /// The limit grows while a smaller share of it than `low` waits, and shrinks while more than
    /// `high` does: both above 0 and below 1, `low` below `high`. Defaults 0.20 and 0.35, and never
    /// fewer than 2 and 4 attempts. Vegas only.
    pub const fn queue(mut self, low: f64, high: f64) -> Self {
        self.queue = Some((low, high));
        self
    }

    /// What a window with too many drops multiplies the limit by: 0.5 to 0.99. Default 0.9. AIMD
    /// only.
    pub const fn backoff(mut self, ratio: f64) -> Self {
        self.backoff = Some(ratio);
        self
    }

    /// An answer slower than this counts as dropped: longer than zero. Default: none does. AIMD
    /// only.
    pub const fn slow_after(mut self, age: Duration) -> Self {
        self.slow_after = Some(age);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter,
    /// contradicts another, or belongs to another kind.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let min = count("concurrency.min", self.min, 1, MOST)?;
        let max = count("concurrency.max", self.max, 1, MOST)?;
        if min > max {
            let problem = format!("must be at most concurrency.max ({max}), got {min}");
            return Err(Invalid::new("concurrency.min", problem));
        }
        if !(min..=max).contains(&self.initial) {
            let problem = format!(
                "must lie between concurrency.min ({min}) and concurrency.max ({max}), got {}",
                self.initial
            );
            return Err(Invalid::new("concurrency.initial", problem));
        }
        if self.window < Duration::from_millis(1) || self.window > LONGEST_WINDOW {
            let problem = format!("must be between 1ms and 60s, got {:?}", self.window);
            return Err(Invalid::new("concurrency.window", problem));
        }
        self.refuse_settings_of_other_kinds()?;
        Ok(Rules {
            initial: self.initial,
            min,
            max,
            window: crate::time::nanos(self.window),
            min_samples: count("concurrency.min_samples", self.min_samples, 1, MOST_SAMPLES)?,
            remeasure: positive("concurrency.remeasure", self.remeasure.unwrap_or(Duration::from_secs(10)))?,
            law: self.law()?,
        })
    }

    fn law(&self) -> Result<Law, Invalid> {
        match self.kind {
            Kind::Gradient => {
                let tolerance = self.tolerance.unwrap_or(1.25);
                Ok(Law::Gradient { tolerance: within("concurrency.tolerance", tolerance, 1.05, 10.0)? })
            }
            Kind::Vegas => {
                let (low, high) = self.queue.unwrap_or((0.20, 0.35));
                if low > 0.0 && low < high && high < 1.0 {
                    return Ok(Law::Vegas { low, high });
                }
                let problem = format!("must be two shares with 0 < low < high < 1, got {low} and {high}");
                Err(Invalid::new("concurrency.queue", problem))
            }
            Kind::Aimd => Ok(Law::Aimd {
                backoff: within("concurrency.backoff", self.backoff.unwrap_or(0.9), 0.5, 0.99)?,
                slow_after: match self.slow_after {
                    Some(age) => positive("concurrency.slow_after", age)?,
                    None => u64::MAX,
                },
            }),
        }
    }

    fn refuse_settings_of_other_kinds(&self) -> Result<(), Invalid> {
        let (gradient, vegas, aimd) =
            (self.kind == Kind::Gradient, self.kind == Kind::Vegas, self.kind == Kind::Aimd);
        let set = [
            ("concurrency.remeasure", self.remeasure.is_some() && aimd),
            ("concurrency.tolerance", self.tolerance.is_some() && !gradient),
            ("concurrency.queue", self.queue.is_some() && !vegas),
            ("concurrency.backoff", self.backoff.is_some() && !aimd),
            ("concurrency.slow_after", self.slow_after.is_some() && !aimd),
        ];
        match set.into_iter().find(|(_, foreign)| *foreign) {
            Some((setting, _)) => {
                Err(Invalid::new(setting, format!("is no setting of the {:?} kind", self.kind)))
            }
            None => Ok(()),
        }
    }
}

impl Default for ConcurrencyPolicy {
    /// [`gradient`](Self::gradient).
    fn default() -> Self {
        Self::gradient()
    }
}

/// `value` if it lies in `low..=high`, which NaN doesn't.
fn within(setting: &'static str, value: f64, low: f64, high: f64) -> Result<f64, Invalid> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(setting, format!("must be between {low} and {high}, got {value}")))
    }
}

/// Checked settings, times in nanoseconds. Made by [`ConcurrencyPolicy::compile`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    pub(super) initial: u32,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) window: u64,
    pub(super) min_samples: u32,
    pub(super) remeasure: u64,
    pub(super) law: Law,
}

/// A kind with its own settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Law {
    Gradient { tolerance: f64 },
    Vegas { low: f64, high: f64 },
    Aimd { backoff: f64, slow_after: u64 },
}
