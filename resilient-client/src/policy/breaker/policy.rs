//! The settings.

use std::time::Duration;

use super::compiled::Rules;
use super::custom_trip::{Trip, TripFactory};
use super::rules::{Numbers, Span};
use super::state::LONGEST_STREAK;
use super::window::BUCKETS;
use crate::invalid::Invalid;
use crate::invalid::{at_most_ten_years, count, positive, rate, share};

/// Shorter windows would say more about the scheduler than about the upstream.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// A bucket can count at least this many calls before it has to round.
const MOST_MIN_CALLS: u32 = 100_000;
const MOST_PROBES: u32 = 10_000;
const MOST_WAITING: u32 = 1_000_000;
/// 12.5 kB of bits.
const LARGEST_RING: u32 = 100_000;

/// When to stop calling an upstream, and how to find out that it is back. Plain data:
/// [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BreakerPolicy {
    pub(crate) failure_rate: f64,
    pub(crate) window: Duration,
    pub(crate) window_calls: Option<u32>,
    pub(crate) min_calls: u32,
    pub(crate) consecutive_failures: u32,
    pub(crate) cold_consecutive_failures: u32,
    pub(crate) open_for: Duration,
    pub(crate) open_cap: Duration,
    pub(crate) probe_share: f64,
    pub(crate) probes: u32,
    pub(crate) probe_timeout: Duration,
    pub(crate) abandoned_after: Duration,
    pub(crate) slow_call: Option<(Duration, f64)>,
    pub(crate) trip: Option<TripFactory>,
    pub(crate) wait_for_ready: bool,
    pub(crate) max_waiting: u32,
    pub(crate) ready_wait: Duration,
    pub(crate) observe_only: bool,
}

impl BreakerPolicy {
    /// The defaults named at each setting. An outage opens it within 20 calls.
    ///
    /// A backend failing 30 % of its calls at random leaves it closed once the window holds some
    /// hundred calls. With fewer, chance weighs more: of breakers that meet such a backend from
    /// their first call, 0.6 % open early, and at 5 calls a second 4 % do within a minute.
    pub const fn standard() -> Self {
        Self {
            failure_rate: 0.5,
            window: Duration::from_secs(10),
            window_calls: None,
            min_calls: 50,
            consecutive_failures: 20,
            cold_consecutive_failures: 5,
            open_for: Duration::from_millis(250),
            open_cap: Duration::from_secs(5),
            probe_share: 0.025,
            probes: 3,
            probe_timeout: Duration::from_secs(10),
            abandoned_after: Duration::from_secs(1),
            slow_call: None,
            trip: None,
            wait_for_ready: false,
            max_waiting: 100,
            ready_wait: Duration::from_secs(5),
            observe_only: false,
        }
    }

    /// Opens when at least this share of the window's calls failed: above 0, at most 1. Default
    /// 0.5.
    pub const fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = share;
        self
    }

    /// How far back the rates look, at least 100 ms. Default 10 s. Should be at least twice the
    /// attempt timeout, or a backend that hangs is forgotten as fast as it is noticed.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self.window_calls = None;
        self
    }

    /// The rates look back on this many calls, however long ago they were: 1 to 100,000, and no
    /// fewer than `min_calls`. The default looks back in time.
    ///
    /// It takes a bit a call (two with [`slow_call`](Self::slow_call)), allocated once, and
    /// counting takes a short lock. Prefer the time window unless calls are so rare that it would
    /// never fill.
    pub const fn window_calls(mut self, calls: u32) -> Self {
        self.window_calls = Some(calls);
        self
    }

    /// Calls the window must hold before the rate means anything: 1 to 100,000. Default 50.
    pub const fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Opens after this many failures in a row: 1 to 1,000,000 (as good as never). Default 20.
    pub const fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Opens after this many failures in a row when the window holds no success: 1 to 1,000,000.
    /// Default 5.
    pub const fn cold_consecutive_failures(mut self, failures: u32) -> Self {
        self.cold_consecutive_failures = failures;
        self
    }

    /// How long an opening lasts at least, and the first one at most, give or take 10 %. Default
    /// 250 ms.
    ///
    /// Each failed recovery doubles the longest time, up to [`open_cap`](Self::open_cap). How much
    /// of that an opening lasts depends on the traffic: see [`probe_share`](Self::probe_share).
    pub const fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// The most an opening lasts after doubling, give or take 10 %; at least `open_for`, and where
    /// it equals that, every opening lasts as long as the others. Default 5 s.
    pub const fn open_cap(mut self, time: Duration) -> Self {
        self.open_cap = time;
        self
    }

    /// What share of the calls that an open breaker turns away may be probes instead: 0 to 1.
    /// Default 0.025.
    ///
    /// Each call turned away brings the next probe forward by this share of the longest time the
    /// opening may last, though not to before [`open_for`](Self::open_for). So with the defaults a
    /// dead server gets a probe after 40 calls, or after a time that doubles from 250 ms to 5 s,
    /// and where both have their part sooner still: in the long run 2.5 % of the calls and 0.2 a
    /// second, and no more than 4 a second. That is never more than 2 % and one a second. With 0
    /// the time decides alone.
    pub const fn probe_share(mut self, share: f64) -> Self {
        self.probe_share = share;
        self
    }

    /// Calls let through when half-open, all of which must succeed: 1 to 10,000. The first goes
    /// alone, the others once it has succeeded. Default 3.
    pub const fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// When this long has passed since the last probe set out and they haven't all answered, new
    /// ones may. Default 10 s. Until one has succeeded the next needn't wait for that: see the
    /// [module docs](super).
    pub const fn probe_timeout(mut self, time: Duration) -> Self {
        self.probe_timeout = time;
        self
    }

    /// A call dropped by its caller counts as a failure when its attempt had been out longer than
    /// this; a call dropped sooner doesn't count. Default 1 s. Zero counts every dropped call.
    pub const fn abandoned_after(mut self, time: Duration) -> Self {
        self.abandoned_after = time;
        self
    }

    /// Opens when more than this share of the window's calls took longer than `time`, failed or
    /// not: above 0, below 1. Like the failure rate it wants [`min_calls`](Self::min_calls), and it
    /// is checked when a slow call ends. Off by default.
    ///
    /// A probe that succeeds slowly opens the breaker again: it was slowness that had to end.
    pub const fn slow_call(mut self, time: Duration, share: f64) -> Self {
        self.slow_call = Some((time, share));
        self
    }

    /// A rule of one's own decides when to open and for how long, in place of the failure rate, the
    /// failures in a row and the open time. `factory` makes one for each breaker; two policies are
    /// equal only if they share it.
    ///
    /// Every outcome then takes a short lock.
    pub fn trip<T: Trip>(mut self, factory: impl Fn() -> T + Send + Sync + 'static) -> Self {
        self.trip = Some(TripFactory::new(factory));
        self
    }

    /// Whether a call waits, when the breaker rejects it, until the breaker would let it go, rather
    /// than fail at once. Default false: then they wait for the last probes only, once one has
    /// succeeded, for 250 ms or half of their time at most.
    /// [`CallOptions::wait_for_ready`](crate::CallOptions::wait_for_ready) says otherwise for one
    /// call.
    ///
    /// For work that nobody waits for, or that has no other way to go on: it takes up again by
    /// itself when the upstream does. Calls wait in the order in which they came, within their
    /// deadlines and for [`ready_wait`](Self::ready_wait) at most; one at a time is let through as
    /// a probe, and the others follow when the breaker closes. They hold neither a place in the
    /// bulkhead nor one in the rate meanwhile. Where a name stands for several endpoints, they wait
    /// until one of them may be asked. A call that finds [`max_waiting`](Self::max_waiting) others
    /// waiting, or has waited long enough, fails as if it hadn't. Hedges never wait, and a breaker
    /// of one's own ([`circuit`](crate::circuit)) makes nobody wait.
    pub const fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// The most calls that [wait](Self::wait_for_ready): at most 1,000,000. Default 100. All of
    /// them go when the breaker closes, so keep it below what the upstream takes at once.
    pub const fn max_waiting(mut self, calls: u32) -> Self {
        self.max_waiting = calls;
        self
    }

    /// The longest a call [waits](Self::wait_for_ready) before it fails, within its deadline;
    /// longer than zero. Default 5 s.
    pub const fn ready_wait(mut self, longest: Duration) -> Self {
        self.ready_wait = longest;
        self
    }

    /// Decides and reports as usual but rejects nothing, to try a policy out. Default false.
    ///
    /// A call that would have been rejected is [admitted](super::Admitted::would_reject) with the
    /// wait it would have been told, and its result doesn't count. So the breaker sees what it
    /// would have seen enforcing: half-open, the first calls are its probes. What it can't show is
    /// the good it would do: here the upstream does get those calls. Nothing is rejected even
    /// [forced open](super::Control::ForceOpen).
    pub const fn observe_only(mut self, observe_only: bool) -> Self {
        self.observe_only = observe_only;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Names the setting and the numbers when one lies outside the range given at its setter, when
    /// a duration is zero or longer than ten years, when `open_cap` is shorter than `open_for` or a
    /// window of calls smaller than `min_calls`, when `trip`'s factory panics, and when there is
    /// both a `trip` and a `slow_call`, which it would overrule.
    pub fn compile(&self) -> Result<Rules, Invalid> {
        let (slow_nanos, slow_rate) = self.slowness()?;
        let numbers = Numbers {
            failure_rate: rate("breaker.failure_rate", self.failure_rate)?,
            slow_rate,
            slow_nanos,
            span: self.span()?,
            min_calls: count("breaker.min_calls", self.min_calls, 1, MOST_MIN_CALLS)?,
            consecutive_failures: streak("breaker.consecutive_failures", self.consecutive_failures)?,
            cold_consecutive_failures: streak(
                "breaker.cold_consecutive_failures",
                self.cold_consecutive_failures,
            )?,
            open_nanos: positive("breaker.open_for", self.open_for)?,
            open_cap_nanos: positive("breaker.open_cap", self.open_cap)?,
            probes: count("breaker.probes", self.probes, 1, MOST_PROBES)?,
            probe_timeout_nanos: positive("breaker.probe_timeout", self.probe_timeout)?,
            // Single precision is plenty, and every breaker holds one.
            probe_share: share("breaker.probe_share", self.probe_share)? as f32,
            observe_only: self.observe_only,
        };
        if self.open_for > self.open_cap {
            let problem =
                format!("must be at least breaker.open_for ({:?}), got {:?}", self.open_for, self.open_cap);
            return Err(Invalid::new("breaker.open_cap", problem));
        }
        self.trip.as_ref().map_or(Ok(()), TripFactory::check)?;
        let abandoned_after = self.abandoned_after;
        at_most_ten_years("breaker.abandoned_after", abandoned_after)?;
        Ok(Rules {
            numbers,
            abandoned_after,
            wait_for_ready: self.wait_for_ready,
            max_waiting: count("breaker.max_waiting", self.max_waiting, 0, MOST_WAITING)?,
            ready_wait_nanos: positive("breaker.ready_wait", self.ready_wait)?,
            trip: self.trip.clone(),
        })
    }

    /// How far back it looks, if that is a time.
    pub(crate) fn window_time(&self) -> Option<Duration> {
        self.window_calls.is_none().then_some(self.window)
    }

    fn span(&self) -> Result<Span, Invalid> {
        if let Some(calls) = self.window_calls {
            let calls = count("breaker.window_calls", calls, 1, LARGEST_RING)?;
            if calls < self.min_calls {
                let problem = format!("must be at least breaker.min_calls ({}), got {calls}", self.min_calls);
                return Err(Invalid::new("breaker.window_calls", problem));
            }
            return Ok(Span::Calls(calls));
        }
        let nanos = positive("breaker.window", self.window)?;
        if self.window < SHORTEST_WINDOW {
            let problem = format!("must be at least {SHORTEST_WINDOW:?}, got {:?}", self.window);
            return Err(Invalid::new("breaker.window", problem));
        }
        Ok(Span::Time { bucket_nanos: nanos / u64::from(BUCKETS) })
    }

    /// Above how many nanoseconds a call is slow, and above which share there are too many.
    fn slowness(&self) -> Result<(u64, f64), Invalid> {
        let Some((time, share)) = self.slow_call else { return Ok((u64::MAX, 1.0)) };
        let nanos = positive("breaker.slow_call", time)?;
        if !(share > 0.0 && share < 1.0) {
            let problem = format!("share must be above 0 and below 1, got {share}");
            return Err(Invalid::new("breaker.slow_call", problem));
        }
        if self.trip.is_some() {
            return Err(Invalid::new(
                "breaker.slow_call",
                "has no effect beside breaker.trip, which decides alone",
            ));
        }
        Ok((nanos, share))
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

fn streak(setting: &'static str, value: u32) -> Result<u32, Invalid> {
    count(setting, value, 1, LONGEST_STREAK)
}
