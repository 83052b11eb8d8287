//! The peers' whole stacks, put together as their own docs advise: round anything here, over
//! reqwest in `wire.rs`, under fault in `storm/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fetch::routing::{BaseUriConflict, Router};
use fetch::tokio::TokioDeps;
use fetch::{BaseUri, HttpClient};
use layered::Stack as _;
use reqx::advanced::{
    AdaptiveConcurrencyPolicy, CircuitBreakerPolicy, RetryBudgetPolicy, RoundRobinEndpointSelector,
};
use reqx::prelude::RetryPolicy;
use seatbelt::breaker::Breaker;
use seatbelt::retry::Retry as SeatbeltRetry;
use seatbelt::timeout::Timeout as SeatbeltTimeout;
use seatbelt::{RecoveryInfo, ResilienceContext};
use tower::limit::ConcurrencyLimit;
use tower::retry::backoff::{Backoff as _, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff as _};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::timeout::Timeout;
use tower::util::rng::HasherRng;
use tower::{Service, ServiceBuilder};
use tower_resilience::bulkhead::{Bulkhead, BulkheadLayer, BulkheadServiceError};
use tower_resilience::circuitbreaker::{CircuitBreaker, CircuitBreakerError, CircuitBreakerLayer};
use tower_resilience::core::FailureClassifier;
use tower_resilience::retry::{ExponentialRandomBackoff, Retry, RetryLayer};
use tower_resilience::timelimiter::{FixedTimeout, TimeLimiter, TimeLimiterError, TimeLimiterLayer};

/// The most attempts of a call, the first included: what our standard policy makes.
pub const ATTEMPTS: usize = 4;
/// The most calls in flight, for stacks that have such a limit.
pub const IN_FLIGHT: usize = 256;
/// The bound of a whole call, for stacks that have one.
pub const TOTAL: Duration = Duration::from_secs(10);
/// The bound of an attempt, as in our standard policy.
pub const ATTEMPT: Duration = Duration::from_secs(3);
/// The first wait of those who have none of their own for calls between services.
pub const FIRST_WAIT: Duration = Duration::from_millis(25);
/// The longest wait.
pub const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// How long a peer's breaker stays open. Ours takes 250 ms to 5 s, depending on the traffic turned
/// away.
pub const OPEN_FOR: Duration = Duration::from_secs(1);

/// A response that says whether the attempt failed.
pub trait Answer {
    /// A 5xx.
    fn failed(&self) -> bool;
}

impl<B> Answer for http::Response<B> {
    fn failed(&self) -> bool {
        self.status().is_server_error()
    }
}

impl Answer for reqwest::Response {
    fn failed(&self) -> bool {
        self.status().is_server_error()
    }
}

/// tower's: retry with a budget and a backoff round concurrency limit round timeout.
pub type TowerStack<S> = tower::retry::Retry<BackingOff, ConcurrencyLimit<Timeout<S>>>;

/// tower's own layers over reqwest.
pub fn tower(service: reqwest::Client, attempt: Duration) -> TowerStack<reqwest::Client> {
    let waits = ExponentialBackoffMaker::new(FIRST_WAIT, LONGEST_WAIT, 0.5, HasherRng::default());
    let policy = BackingOff {
        left: ATTEMPTS - 1,
        waits: waits.expect("waits").make_backoff(),
        budget: Arc::new(TpsBudget::default()),
    };
    ServiceBuilder::new().retry(policy).concurrency_limit(IN_FLIGHT).timeout(attempt).service(service)
}

/// The policy of tower's docs: transient failures, so many attempts, a backoff and the default
/// budget.
#[derive(Clone, Debug)]
pub struct BackingOff {
    left: usize,
    waits: ExponentialBackoff,
    budget: Arc<TpsBudget>,
}

impl<E> tower::retry::Policy<reqwest::Request, reqwest::Response, E> for BackingOff {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        _request: &mut reqwest::Request,
        result: &mut Result<reqwest::Response, E>,
    ) -> Option<Self::Future> {
        if result.as_ref().is_ok_and(|response| !response.failed()) {
            self.budget.deposit();
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        self.budget.withdraw().then(|| self.waits.next_backoff())
    }

    fn clone_request(&mut self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }
}

/// What an attempt through tower-resilience's breaker, bulkhead and time limiter can end with.
pub type Guarded<E> = CircuitBreakerError<BulkheadServiceError<TimeLimiterError<E>>>;
/// tower-resilience's breaker round bulkhead round time limiter.
pub type GuardedStack<S> = CircuitBreaker<Bulkhead<TimeLimiter<S, FixedTimeout>>, Failures>;
/// The whole: a time limiter round retries round those.
pub type TowerResilienceStack<S, Q, R, E> =
    TimeLimiter<Retry<GuardedStack<S>, Q, R, Guarded<E>>, FixedTimeout>;

/// Errors and 5xx are failures.
#[derive(Clone, Copy, Debug)]
pub struct Failures;

impl<R: Answer, E> FailureClassifier<R, E> for Failures {
    fn classify(&self, result: &Result<R, E>) -> bool {
        result.as_ref().map_or(true, Answer::failed)
    }
}

/// tower-resilience's layers in the order that its guide recommends to a client: total timeout,
/// retry, circuit breaker, bulkhead, timeout of each attempt. As it says, a rejection of the
/// breaker isn't retried.
pub fn tower_resilience<S, Q>(
    service: S,
    attempt: Duration,
) -> TowerResilienceStack<S, Q, S::Response, S::Error>
where
    S: Service<Q> + Clone + Send + 'static,
    S::Response: Answer + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Q: Clone + Send + 'static,
{
    let waits = ExponentialRandomBackoff::new(FIRST_WAIT, 0.5).expect("waits").max_interval(LONGEST_WAIT);
    let retry = RetryLayer::<Q, S::Response, Guarded<S::Error>>::builder()
        .max_attempts(ATTEMPTS)
        .backoff(waits)
        .retry_on(|error| !error.is_circuit_open())
        .retry_on_response(|response: &S::Response| response.failed())
        .build();
    ServiceBuilder::new()
        .layer(TimeLimiterLayer::builder().timeout_duration(TOTAL).build())
        .layer(retry)
        .layer(tower_resilience_breaker())
        .layer(BulkheadLayer::builder().max_concurrent_calls(IN_FLIGHT).build().expect("bulkhead"))
        .layer(TimeLimiterLayer::builder().timeout_duration(attempt).build())
        .service(service)
}

/// Its standard preset, half of the last 100 calls, open for [`OPEN_FOR`].
pub fn tower_resilience_breaker() -> CircuitBreakerLayer<Failures> {
    let standard = CircuitBreakerLayer::standard().wait_duration_in_open(OPEN_FOR);
    standard.failure_classifier_type(Failures).build().expect("breaker")
}

/// seatbelt's retry round breaker round timeout, in the order that its docs recommend and with its
/// defaults. It has no concurrency limit and no budget.
pub fn seatbelt<Q, R, E, S>(service: S, rejected: fn() -> E) -> impl layered::Service<Q, Out = Result<R, E>>
where
    S: layered::Service<Q, Out = Result<R, E>>,
    Q: Clone + Send + Sync + 'static,
    R: Answer + Send + 'static,
    E: Send + 'static,
{
    let clock = tick::Clock::new_tokio();
    let context = ResilienceContext::<Q, Result<R, E>>::new(&clock);
    let recovery = |result: &Result<R, E>| {
        let failed = result.as_ref().map_or(true, Answer::failed);
        if failed { RecoveryInfo::retry() } else { RecoveryInfo::never() }
    };
    (
        SeatbeltRetry::layer("retry", &context)
            .clone_input()
            .recovery_with(move |result, _| recovery(result)),
        Breaker::layer("breaker", &context)
            .recovery_with(move |result, _| recovery(result))
            .rejected_input(move |_, _| Err(rejected())),
        SeatbeltTimeout::layer("timeout", &context).timeout(ATTEMPT).timeout_output(move |_| Err(rejected())),
        service,
    )
        .into_service()
}

/// reqx with what its docs recommend: the standard retry policy, and both timeouts. Of several
/// origins each call is given the next, by its own selector.
pub fn reqx(origins: &[String], attempt: Duration) -> reqx::ClientBuilder {
    let retry =
        RetryPolicy::standard().max_attempts(ATTEMPTS).base_backoff(FIRST_WAIT).max_backoff(LONGEST_WAIT);
    reqx::Client::builder(&origins[0])
        .request_timeout(attempt)
        .total_timeout(TOTAL)
        .retry_policy(retry)
        .endpoint_selector(RoundRobinEndpointSelector::new(origins))
}

/// The same with its controls, each at its standard.
pub fn reqx_with_controls(origins: &[String], attempt: Duration) -> reqx::ClientBuilder {
    reqx(origins, attempt)
        .retry_budget_policy(RetryBudgetPolicy::standard())
        .circuit_breaker_policy(CircuitBreakerPolicy::standard())
        .adaptive_concurrency_policy(AdaptiveConcurrencyPolicy::standard())
}

/// Microsoft's fetch: its standard pipeline, which is seatbelt's total timeout round retry round
/// breaker round attempt timeout. Of several origins each attempt is given the next, by its own
/// router.
pub fn fetch(origins: &[String], attempt: Duration) -> HttpClient {
    let bases: Vec<BaseUri> =
        origins.iter().map(|origin| origin.as_str().try_into().expect("an origin")).collect();
    let (several, next) = (bases.len() > 1, AtomicUsize::new(0));
    let in_turn = Router::custom(
        move |_| Some(bases[next.fetch_add(1, Ordering::Relaxed) % bases.len()].clone()),
        several,
    );
    HttpClient::builder_tokio(TokioDeps::default())
        .insecure_allow_http()
        .router(in_turn.conflict_policy(BaseUriConflict::UseRouted))
        .standard_pipeline(move |pipeline, _| {
            pipeline
                .total_timeout(|timeout| timeout.timeout(TOTAL))
                .attempt_timeout(|timeout| timeout.timeout(attempt))
                .retry(|retry| retry.base_delay(FIRST_WAIT).max_delay(LONGEST_WAIT))
        })
        .build()
}
