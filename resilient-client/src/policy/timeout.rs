//! How long things may take.
//!
//! Five bounds, because they protect from different things. The **total** is what the caller is
//! willing to wait, with queueing, every attempt, backoff and the body in it. The **attempt**
//! timeout gives up on one try while there is time for another. The **connect** timeout is separate
//! so that "never sent" stays provable: with only a total, a connect that hangs looks like a server
//! that hangs after reading the request. The **body idle** timeout bounds a body that stops coming,
//! however long the whole of it may take, and the **stream idle** timeout, which is longer, one
//! that may be silent: event streams, upgrades and calls marked streaming.
//!
//! One caveat: the connect timeout belongs to the connection pool, so it is set when the client is
//! built, and a reload doesn't change it. `hyper::Client` makes each host's connections within that
//! host's own; a client over reqwest has one for all hosts, and refuses a host's policy that sets
//! another. It is that of whom the connection goes to: endpoints behind a name have the client's. A
//! route's has no say. With `Client::from(reqwest::Client)` or a tower layer the transport's own
//! applies.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::policy::{Policy, timeout::TimeoutPolicy};
//!
//! let quick = TimeoutPolicy::standard().total(Duration::from_secs(1)).attempt(Duration::from_millis(300));
//! assert!(Policy::standard().timeout(quick).check().is_ok());
//! ```

use std::fmt;
use std::time::Duration;

use crate::invalid::{Invalid, at_most_ten_years, positive};
use crate::time::nanos;

/// The time bounds of a call. `None` means unbounded.
#[derive(Clone, PartialEq, Eq)]
pub struct TimeoutPolicy {
    pub(crate) total: Option<Duration>,
    pub(crate) attempt: Option<Duration>,
    /// Whether somebody set the attempt timeout; else it gives way to a total that somebody sets.
    pub(crate) attempt_is_set: bool,
    pub(crate) connect: Option<Duration>,
    pub(crate) body_idle: Option<Duration>,
    pub(crate) stream_idle: Option<Duration>,
}

impl TimeoutPolicy {
    /// Total 10 s, attempt 3 s, connect 1 s, body idle 5 s, stream idle 60 s.
    pub const fn standard() -> Self {
        Self {
            total: Some(Duration::from_secs(10)),
            attempt: Some(Duration::from_secs(3)),
            attempt_is_set: false,
            connect: Some(Duration::from_secs(1)),
            body_idle: Some(Duration::from_secs(5)),
            stream_idle: Some(Duration::from_secs(60)),
        }
    }

    /// No bounds at all.
    pub const fn none() -> Self {
        let attempt_is_set = true;
        Self { total: None, attempt: None, attempt_is_set, connect: None, body_idle: None, stream_idle: None }
    }

    /// The whole call: queueing, every attempt, backoff and the body. Default 10 s.
    ///
    /// An attempt timeout that nobody sets is shortened to it, and stays at the standard's 3 s
    /// below a longer one, so that a server that hangs leaves time for another attempt: for answers
    /// that take longer set [`attempt`](Self::attempt), too. The error of an attempt that ends so
    /// says that nobody set it. (A call's own total takes the attempt timeout's place.)
    #[must_use]
    pub fn total(mut self, total: impl Into<Option<Duration>>) -> Self {
        self.total = total.into();
        self
    }

    /// One attempt, from connecting to the response's head. Default 3 s, or the total if that is
    /// shorter. At most the total.
    ///
    /// One that is set here holds for every call; one that isn't gives way to a call's own
    /// [timeout](crate::RequestBuilder::timeout), be it longer or shorter.
    #[must_use]
    pub fn attempt(mut self, attempt: impl Into<Option<Duration>>) -> Self {
        self.attempt = attempt.into();
        self.attempt_is_set = true;
        self
    }

    /// Making a connection: DNS, TCP and TLS. Default 1 s. One that is longer than three quarters
    /// of the attempt timeout is shortened to that: were both to pass together, nobody could say
    /// whether the request had been sent. (The same would happen under a call's own
    /// [attempt timeout](crate::RequestBuilder::attempt_timeout) below the connect timeout, since
    /// that belongs to the pool: such a timeout is one after which a POST isn't repeated.)
    #[must_use]
    pub fn connect(mut self, connect: impl Into<Option<Duration>>) -> Self {
        self.connect = connect.into();
        self
    }

    /// The longest pause inside a response's body that isn't a [stream](Self::stream_idle). Default
    /// 5 s.
    #[must_use]
    pub fn body_idle(mut self, body_idle: impl Into<Option<Duration>>) -> Self {
        self.body_idle = body_idle.into();
        self
    }

    /// The longest pause in a stream: server-sent events, an upgrade's body, or a call marked
    /// [streaming](crate::CallOptions::streaming). Default 60 s, since heartbeats of 15 to 30 s are
    /// common. Silence isn't held against the server.
    #[must_use]
    pub fn stream_idle(mut self, stream_idle: impl Into<Option<Duration>>) -> Self {
        self.stream_idle = stream_idle.into();
        self
    }

    /// The bounds in nanoseconds, or what is wrong with them.
    pub(crate) fn compile(&self) -> Result<Rules, Invalid> {
        let attempt = self.effective_attempt();
        let rules = Rules {
            total: bound("timeout.total", self.total)?,
            attempt: bound("timeout.attempt", attempt)?,
            attempt_is_set: self.attempt_is_set,
            body_idle: bound("timeout.body_idle", self.body_idle)?,
            stream_idle: bound("timeout.stream_idle", self.stream_idle)?,
            ..Rules::UNBOUNDED
        };
        bound("timeout.connect", self.connect)?;
        ordered("timeout.attempt", attempt, "timeout.total", self.total)?;
        Ok(rules)
    }

    /// The time of one attempt.
    pub(crate) fn effective_attempt(&self) -> Option<Duration> {
        let around = self.total.filter(|_| !self.attempt_is_set);
        self.attempt.map(|attempt| around.map_or(attempt, |total| attempt.min(total)))
    }

    /// The connect timeout to give the transport: it passes well before what surrounds it.
    pub(crate) fn effective_connect(&self) -> Option<Duration> {
        let around = [self.attempt, self.total].into_iter().flatten().min();
        let most = around.map(|around| around.saturating_sub(around / 4));
        [self.connect, most].into_iter().flatten().min()
    }
}

impl fmt::Debug for TimeoutPolicy {
    /// The bounds alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total, attempt, attempt_is_set: _, connect, body_idle, stream_idle } = self;
        f.debug_struct("TimeoutPolicy")
            .field("total", total)
            .field("attempt", attempt)
            .field("connect", connect)
            .field("body_idle", body_idle)
            .field("stream_idle", stream_idle)
            .finish()
    }
}

/// Validated bounds, in nanoseconds; `u64::MAX` is unbounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) total: u64,
    pub(crate) attempt: u64,
    /// Whether it gives way to nothing but a call's own.
    pub(crate) attempt_is_set: bool,
    pub(crate) body_idle: u64,
    pub(crate) stream_idle: u64,
    // What other policies ask of these, so that a call's own can be held against it too.
    /// The breaker's window in time, which holds two attempts.
    pub(crate) window: u64,
    /// When the last hedge sets out at the earliest.
    pub(crate) last_hedge: u64,
}

impl Rules {
    pub(crate) const UNBOUNDED: Self = Self {
        total: u64::MAX,
        attempt: u64::MAX,
        attempt_is_set: true,
        body_idle: u64::MAX,
        stream_idle: u64::MAX,
        window: u64::MAX,
        last_hedge: 0,
    };

    /// These bounds with a call's own overrides.
    ///
    /// A total below the policy's attempt timeout is what a caller in a hurry asks for, so it
    /// shortens the attempts. One above it is what a caller asks for who knows that the answer
    /// takes long: the standard's 3 s, which nobody set, give way to it, and what a policy set
    /// doesn't. Two overrides that contradict each other are a mistake, and so is an attempt
    /// timeout that a policy would be refused for.
    pub(crate) fn overridden(
        mut self,
        total: Option<Duration>,
        attempt: Option<Duration>,
    ) -> Result<Self, Invalid> {
        if let Some(total) = total {
            self.total = positive("request.timeout", total)?;
            self.attempt = if self.attempt_is_set { self.attempt.min(self.total) } else { self.total };
            if self.last_hedge > self.total {
                let hedges = Duration::from_nanos(self.last_hedge);
                let problem = format!("is {total:?}, shorter than what hedge.delay adds up to, {hedges:?}");
                return Err(Invalid::new("request.timeout", problem));
            }
        }
        if let Some(attempt) = attempt {
            self.attempt = positive("request.attempt_timeout", attempt)?;
            let total = (self.total != u64::MAX).then(|| Duration::from_nanos(self.total));
            ordered("request.attempt_timeout", Some(attempt), "the total timeout", total)?;
            if self.window < self.attempt.saturating_mul(2) {
                let window = Duration::from_nanos(self.window);
                let problem = format!("is {attempt:?}, longer than half of breaker.window, {window:?}");
                return Err(Invalid::new("request.attempt_timeout", problem));
            }
        }
        Ok(self)
    }
}

fn bound(setting: &'static str, value: Option<Duration>) -> Result<u64, Invalid> {
    value.map_or(Ok(u64::MAX), |value| positive(setting, value))
}

/// Refuses a part that is longer than the whole it belongs to.
fn ordered(
    part: &'static str,
    short: Option<Duration>,
    whole: &str,
    long: Option<Duration>,
) -> Result<(), Invalid> {
    match (short, long) {
        (Some(short), Some(long)) if nanos(short) > nanos(long) => {
            Err(Invalid::new(part, format!("is {short:?}, longer than {whole}, {long:?}")))
        }
        (Some(short), _) => at_most_ten_years(part, short).map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_attempt_timeout_that_nobody_set_gives_way_to_a_total_that_somebody_did() {
        let attempt = |policy: &TimeoutPolicy, total| {
            policy.compile().unwrap().overridden(total, None).unwrap().attempt / 1_000_000
        };
        let (standard, short) = (TimeoutPolicy::standard(), TimeoutPolicy::standard().total(SECOND));
        assert_eq!((attempt(&standard, None), attempt(&short, None)), (3_000, 1_000));
        assert_eq!(attempt(&standard, Some(60 * SECOND)), 60_000);
        assert_eq!(attempt(&standard, Some(SECOND / 2)), 500);
        assert_eq!(attempt(&short, Some(5 * SECOND)), 5_000);
        let set = TimeoutPolicy::standard().attempt(2 * SECOND);
        assert_eq!((attempt(&set, Some(60 * SECOND)), attempt(&set, Some(SECOND))), (2_000, 1_000));
    }

    #[test]
    fn an_attempt_longer_than_the_total_is_refused_naming_both_numbers() {
        let policy = TimeoutPolicy::standard().total(SECOND).attempt(3 * SECOND);
        let message = policy.compile().unwrap_err().to_string();
        assert_eq!(message, "timeout.attempt is 3s, longer than timeout.total, 1s");
    }

    /// Both timers passed together, and which one fired decided whether a POST was repeated.
    #[test]
    fn a_connect_timeout_passes_well_before_its_attempt() {
        let second = TimeoutPolicy::standard().attempt(SECOND).connect(SECOND);
        assert_eq!(second.effective_connect(), Some(Duration::from_millis(750)));
        assert_eq!(TimeoutPolicy::standard().effective_connect(), Some(SECOND));
        assert_eq!(
            TimeoutPolicy::none().attempt(SECOND).effective_connect(),
            Some(Duration::from_millis(750))
        );
        assert_eq!(TimeoutPolicy::none().effective_connect(), None);
    }

    #[test]
    fn zero_and_absurd_bounds_are_refused() {
        for policy in [
            TimeoutPolicy::none().total(Duration::ZERO),
            TimeoutPolicy::none().connect(Duration::ZERO),
            TimeoutPolicy::none().body_idle(Duration::MAX),
        ] {
            assert!(policy.compile().is_err(), "{policy:?}");
        }
        assert!(TimeoutPolicy::none().compile().is_ok());
    }

    #[test]
    fn a_shorter_total_for_one_call_shortens_its_attempts() {
        let rules = TimeoutPolicy::standard().compile().unwrap();
        let rules = rules.overridden(Some(SECOND), None).unwrap();
        assert_eq!((rules.total, rules.attempt), (nanos(SECOND), nanos(SECOND)));
    }

    #[test]
    fn an_override_that_a_policy_would_be_refused_for_is_refused_naming_both_numbers() {
        use crate::policy::Policy;
        use crate::policy::hedge::{Delay, HedgePolicy};

        let hedge = HedgePolicy::standard().delay(Delay::Fixed(SECOND)).max_hedges(2);
        let rules = Policy::standard().hedge(hedge).compile(0).unwrap().timeout;
        for (total, attempt, expected) in [
            (None, Some(8), "request.attempt_timeout is 8s, longer than half of breaker.window, 10s"),
            (Some(1), None, "request.timeout is 1s, shorter than what hedge.delay adds up to, 2s"),
        ] {
            let error = rules.overridden(total.map(|n: u32| n * SECOND), attempt.map(|n: u32| n * SECOND));
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
        rules.overridden(Some(2 * SECOND), None).unwrap();
        rules.overridden(None, Some(5 * SECOND)).unwrap();
        let rules = Policy::standard().breaker(None).compile(0).unwrap().timeout;
        rules.overridden(None, Some(8 * SECOND)).unwrap();
    }

    #[test]
    fn overrides_that_contradict_each_other_are_refused() {
        let rules = TimeoutPolicy::standard().compile().unwrap();
        let error = rules.overridden(Some(SECOND), Some(2 * SECOND)).unwrap_err();
        assert_eq!(error.to_string(), "request.attempt_timeout is 2s, longer than the total timeout, 1s");
    }
}
