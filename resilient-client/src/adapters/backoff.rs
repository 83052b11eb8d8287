//! Feature `backoff`: the delays between attempts from any [`Backoff`] of the crate of that name.
//!
//! That crate is unmaintained (RUSTSEC-2025-0012), and so is its dependency `instant`
//! (RUSTSEC-2024-0384): this is for those who have a policy of its kind and want to keep it.

use ::backoff::backoff::Backoff;

use crate::policy::retry::RetryPolicy;

impl RetryPolicy {
    /// Waits as a [`Backoff`] says, in place of the exponential ones (feature `backoff`). `make` is
    /// asked by each call that retries for the first time. `None` from the backoff means that there
    /// is to be no other attempt.
    ///
    /// Everything else still applies: the most attempts, the budget, the deadline, and a server's
    /// `Retry-After` as a floor. The backoffs of that crate read the system's clock by themselves
    /// for their maximum elapsed time.
    ///
    /// ```
    /// use backoff::ExponentialBackoff;
    /// use resilient_client::policy::retry::RetryPolicy;
    ///
    /// let policy = RetryPolicy::standard().delays_from(ExponentialBackoff::default);
    /// assert!(policy.compile().is_ok());
    /// ```
    pub fn delays_from<B>(self, make: impl Fn() -> B + Send + Sync + 'static) -> Self
    where
        B: Backoff + Send + 'static,
    {
        self.delays(move || {
            let mut backoff = make();
            std::iter::from_fn(move || backoff.next_backoff())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use ::backoff::backoff::{Constant, Stop};
    use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
    use bytes::Bytes;
    use http_body_util::Full;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::rng::Rng;
    use crate::{Decline, Policy, ResilienceLayer, time};

    fn waits(policy: &RetryPolicy, most: usize) -> Vec<u64> {
        let mut backoff = policy.delays.as_ref().unwrap().backoff();
        let mut rng = Rng::seeded(1);
        std::iter::from_fn(|| backoff.next(&mut rng)).take(most).map(|nanos| nanos / 1_000_000).collect()
    }

    fn exponential() -> ExponentialBackoff {
        ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(10))
            .with_multiplier(3.0)
            .with_randomization_factor(0.0)
            .with_max_interval(Duration::from_millis(100))
            .build()
    }

    #[test]
    fn an_exponential_backoff_supplies_the_delays_to_each_call_anew() {
        let policy = RetryPolicy::standard().delays_from(exponential);
        for _ in 0..2 {
            assert_eq!(waits(&policy, 5), [10, 30, 90, 100, 100]);
        }
    }

    #[test]
    fn a_backoff_that_ends_stops_the_retries() {
        assert_eq!(waits(&RetryPolicy::standard().delays_from(|| Stop {}), 5), [0; 0]);
        let short =
            || ExponentialBackoff { max_elapsed_time: Some(Duration::from_millis(5)), ..exponential() };
        assert_eq!(waits(&RetryPolicy::standard().delays_from(short), 5), [0; 0]);
    }

    #[test]
    fn a_servers_retry_after_is_a_floor_for_it() {
        let policy = RetryPolicy::standard().delays_from(|| Constant::new(Duration::from_millis(1)));
        let mut backoff = policy.delays.as_ref().unwrap().backoff();
        let wait = backoff.with_floor(Duration::from_secs(1), &mut Rng::seeded(1));
        assert!(wait.is_some_and(|wait| wait >= 1_000_000_000));
    }

    /// When the attempts of one call reach a service that always answers 503, and why there was no
    /// other.
    async fn attempts_at(policy: RetryPolicy) -> (Vec<Duration>, Vec<Decline>) {
        let begun = time::now();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let attempts = Arc::clone(&heard);
        let service = service_fn(move |_: http::Request<String>| {
            attempts.lock().unwrap().push(time::now().since(begun));
            let unavailable = http::Response::builder().status(503).body(Full::<Bytes>::default());
            std::future::ready(unavailable)
        });
        let layer = ResilienceLayer::new(Policy::standard().retry(policy)).unwrap();
        let request = http::Request::get("http://users:3000/").body(String::new()).unwrap();
        let response = layer.layer(service).oneshot(request).await.unwrap();
        let declined = response.body().report().declined().to_vec();
        (heard.lock().unwrap().clone(), declined)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_as_the_backoff_says() {
        let (attempts, declined) = attempts_at(RetryPolicy::standard().delays_from(exponential)).await;
        assert_eq!(attempts, [0, 10, 40, 130].map(Duration::from_millis));
        assert_eq!(declined, [Decline::AttemptsExhausted(4)], "the most attempts still apply");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_stops_when_the_backoff_does_and_says_so() {
        let (attempts, declined) = attempts_at(RetryPolicy::standard().delays_from(|| Stop {})).await;
        assert_eq!((attempts.len(), declined), (1, vec![Decline::DelaysEnded]));
    }
}
