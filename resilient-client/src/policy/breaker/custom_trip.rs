//! A rule of the user's own for when to open.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::invalid::Invalid;
use crate::time::Tick;

/// Decides, in place of the breaker's own rules, when it opens and for how long.
///
/// Called under the breaker's lock with every outcome that counts, so it needs no lock of its own,
/// and must be quick. A panic in it counts as "don't open".
///
/// ```
/// use std::time::Duration;
/// use resilient_client::policy::breaker::{BreakerPolicy, Trip};
/// use resilient_client::time::Tick;
///
/// /// Opens for as many seconds as there have been failures, from the third.
/// #[derive(Default)]
/// struct Patience {
///     failures: u64,
/// }
///
/// impl Trip for Patience {
///     fn success(&mut self, _now: Tick) {}
///
///     fn failure(&mut self, _now: Tick) -> Option<Duration> {
///         self.failures += 1;
///         (self.failures >= 3).then(|| Duration::from_secs(self.failures))
///     }
///
///     fn recovered(&mut self) {
///         self.failures = 0;
///     }
/// }
///
/// let policy = BreakerPolicy::standard().trip(Patience::default);
/// assert!(policy.compile().is_ok());
/// ```
pub trait Trip: Send + 'static {
    /// A call succeeded.
    fn success(&mut self, now: Tick);

    /// A call failed. `Some` opens the breaker for that long, without jitter. When it was a probe
    /// the breaker opens again in any case: for as long as the last time, if this is `None`.
    fn failure(&mut self, now: Tick) -> Option<Duration>;

    /// The breaker has closed: whatever was remembered is to be forgotten.
    fn recovered(&mut self);
}

/// Makes one [`Trip`] for each breaker.
#[derive(Clone)]
pub(crate) struct TripFactory(Arc<dyn Fn() -> Box<dyn Trip> + Send + Sync>);

impl TripFactory {
    pub(super) fn new<T: Trip>(make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Box::new(make())))
    }

    /// `None` when the user's code panics.
    pub(super) fn make(&self) -> Option<Box<Tripper>> {
        let trip = catch_unwind(AssertUnwindSafe(|| (self.0)())).ok()?;
        Some(Box::new(Tripper { trip, made_by: self.clone(), last_nanos: 0 }))
    }

    /// Whether it makes anything at all.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let made = self.make().map(drop);
        made.ok_or_else(|| Invalid::new("breaker.trip", "panicked when asked for a policy"))
    }
}

/// The same factory, not merely a like one: closures can't be compared.
impl PartialEq for TripFactory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for TripFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TripFactory")
    }
}

/// One breaker's [`Trip`], its panics kept in.
pub(super) struct Tripper {
    trip: Box<dyn Trip>,
    made_by: TripFactory,
    /// How long it last asked for, in nanoseconds.
    last_nanos: u64,
}

impl Tripper {
    pub(super) fn made_by(&self) -> &TripFactory {
        &self.made_by
    }

    pub(super) fn success(&mut self, now: Tick) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.trip.success(now)));
    }

    /// For how long to open, in nanoseconds.
    pub(super) fn failure(&mut self, now: Tick) -> Option<u64> {
        let time = catch_unwind(AssertUnwindSafe(|| self.trip.failure(now))).ok().flatten()?;
        self.last_nanos = crate::time::nanos(time.min(crate::invalid::LONGEST));
        Some(self.last_nanos)
    }

    /// For how long to open again after a failed probe, in nanoseconds; `None` when it never said.
    pub(super) fn probe_failed(&mut self, now: Tick) -> Option<u64> {
        self.failure(now).or(Some(self.last_nanos).filter(|nanos| *nanos > 0))
    }

    pub(super) fn recovered(&mut self) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.trip.recovered()));
    }
}

impl fmt::Debug for Tripper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tripper")
    }
}
