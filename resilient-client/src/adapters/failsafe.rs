//! Feature `failsafe`: any [`FailurePolicy`] of the crate of that name decides when our breaker
//! opens.
//!
//! That crate's own breaker lets every concurrent caller through when it half-opens, and a result
//! from before the trip close it. Its failure policies have neither fault: here they say *when*,
//! and our machine does the rest.

use std::time::Duration;

use ::failsafe::FailurePolicy;

use crate::policy::breaker::{BreakerPolicy, Trip};
use crate::time::Tick;

impl BreakerPolicy {
    /// A [`FailurePolicy`] decides when to open and for how long, in place of our rules (feature
    /// `failsafe`). `factory` makes one for each breaker. It's as [`trip`](Self::trip), of which
    /// this is a special case.
    ///
    /// The probes, their number and their expiry stay ours. The failure policies of that crate read
    /// the system's clock by themselves.
    ///
    /// ```
    /// use std::time::Duration;
    /// use failsafe::{backoff, failure_policy};
    /// use resilient_client::policy::breaker::BreakerPolicy;
    ///
    /// let policy = BreakerPolicy::standard().trip_when(|| {
    ///     let open_times = backoff::equal_jittered(Duration::from_secs(1), Duration::from_secs(30));
    ///     failure_policy::consecutive_failures(3, open_times)
    /// });
    /// assert!(policy.compile().is_ok());
    /// ```
    pub fn trip_when<P>(self, factory: impl Fn() -> P + Send + Sync + 'static) -> Self
    where
        P: FailurePolicy + Send + 'static,
    {
        self.trip(move || Adapter(factory()))
    }
}

struct Adapter<P>(P);

impl<P: FailurePolicy + Send + 'static> Trip for Adapter<P> {
    fn success(&mut self, _now: Tick) {
        self.0.record_success();
    }

    fn failure(&mut self, _now: Tick) -> Option<Duration> {
        self.0.mark_dead_on_failure()
    }

    fn recovered(&mut self) {
        self.0.revived();
    }
}

#[cfg(test)]
mod tests {
    use ::failsafe::{backoff, clock, failure_policy};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::circuit::{CircuitBreaker, CircuitPermit};
    use crate::policy::breaker::{Cause, State, Transition};
    use crate::{ErrorKind, Policy, ResilienceLayer};

    const SECOND: Duration = Duration::from_secs(1);

    fn consecutive() -> BreakerPolicy {
        BreakerPolicy::standard()
            .probes(1)
            .trip_when(|| failure_policy::consecutive_failures(3, backoff::exponential(SECOND, 60 * SECOND)))
    }

    fn permit(breaker: &CircuitBreaker) -> CircuitPermit {
        breaker.try_acquire().unwrap()
    }

    /// How long it is shut, having just opened.
    fn open_for(breaker: &CircuitBreaker) -> Duration {
        breaker.try_acquire().unwrap_err().retry_after.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn consecutive_failures_open_our_breaker_for_the_policys_own_times() {
        let causes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = std::sync::Arc::clone(&causes);
        let observer = move |change: &Transition| heard.lock().unwrap().push(change.cause);
        let breaker = CircuitBreaker::with_observer(&consecutive(), observer).unwrap();
        permit(&breaker).failure();
        permit(&breaker).failure();
        permit(&breaker).success();
        for _ in 0..3 {
            assert_eq!(breaker.state(), State::Closed);
            permit(&breaker).failure();
        }
        for expected in [1, 2, 4, 8] {
            assert_eq!(open_for(&breaker), expected * SECOND);
            tokio::time::advance(expected * SECOND).await;
            let probe = permit(&breaker);
            assert!(breaker.try_acquire().is_err(), "one probe, however many callers: that part is ours");
            probe.failure();
        }
        tokio::time::advance(16 * SECOND).await;
        permit(&breaker).success();
        assert_eq!(breaker.state(), State::Closed);
        for _ in 0..3 {
            permit(&breaker).failure();
        }
        assert_eq!(open_for(&breaker), SECOND, "it was told of the revival");
        assert_eq!(causes.lock().unwrap()[..2], [Cause::Tripped, Cause::OpenTimeElapsed]);
    }

    #[test]
    fn a_success_rate_over_a_time_window_opens_our_breaker() {
        clock::freeze(|time| {
            let policy = BreakerPolicy::standard().trip_when(|| {
                failure_policy::success_rate_over_time_window(
                    0.5,
                    10,
                    10 * SECOND,
                    backoff::constant(7 * SECOND),
                )
            });
            let breaker = CircuitBreaker::new(&policy).unwrap();
            for _ in 0..20 {
                time.advance(SECOND);
                permit(&breaker).success();
                permit(&breaker).failure();
            }
            assert_eq!(breaker.state(), State::Closed, "half succeed, give or take");
            let failures = (1..100).find(|_| {
                time.advance(SECOND);
                permit(&breaker).failure();
                breaker.state() == State::Open
            });
            assert!(failures.is_some_and(|failures| failures < 10), "{failures:?}");
            let wait = open_for(&breaker);
            assert!(wait > 6 * SECOND && wait <= 7 * SECOND, "{wait:?}");
        });
    }

    #[test]
    fn a_policy_that_panics_over_its_own_settings_is_refused() {
        let policy = BreakerPolicy::standard().trip_when(|| {
            failure_policy::success_rate_over_time_window(1.5, 10, SECOND, backoff::constant(SECOND))
        });
        assert_eq!(policy.compile().unwrap_err().setting(), "breaker.trip");
    }

    #[tokio::test(start_paused = true)]
    async fn it_decides_for_the_calls_of_a_client_too() {
        let service = service_fn(async |_: http::Request<String>| {
            http::Response::builder().status(500).body(Full::<Bytes>::default())
        });
        let policy = Policy::standard().retry(None).breaker(consecutive());
        let service = ResilienceLayer::new(policy).unwrap().layer(service);
        let call = || {
            let request = http::Request::get("http://users:3000/").body(String::new()).unwrap();
            service.clone().oneshot(request)
        };
        for _ in 0..3 {
            let mut body = call().await.unwrap().into_body();
            // The verdict is given when the body has ended.
            assert!(body.frame().await.is_none());
        }
        let error = call().await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::CircuitOpen, Some(SECOND)));
    }
}
