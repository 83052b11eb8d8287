//! What the guides' "before" and "after" get of the same server.

use std::convert::Infallible;
use std::time::Duration;

use failsafe::futures::CircuitBreaker as _;
use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::{Client, Policy, ResilienceLayer};
use resilient_client_tests::{Reply, SOON, Server, within};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

/// Fails twice, then is well.
async fn recovers() -> Server {
    Server::start(|request| match request.nth {
        1 | 2 => Reply::answer(503, "not now"),
        _ => Reply::answer(200, "well"),
    })
    .await
}

fn client() -> Client {
    Client::builder().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reqwest_retry_repeats_is_repeated_but_for_a_post() {
    use reqwest_middleware::ClientBuilder;
    use reqwest_retry::RetryTransientMiddleware;
    use reqwest_retry::policies::ExponentialBackoff;

    let soon = Duration::from_millis(10);
    let policy = ExponentialBackoff::builder().retry_bounds(soon, soon).build_with_max_retries(3);
    let theirs = ClientBuilder::new(reqwest::Client::new())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .build();
    let server = recovers().await;
    let answer = within(SOON, theirs.get(server.url("/")).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.count()), (200, 3));
    let server = recovers().await;
    let answer = within(SOON, theirs.post(server.url("/")).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.count()), (200, 3), "as the guide says of it");

    let server = recovers().await;
    let answer = within(SOON, client().get(server.url("/")).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.count()), (200, 3));
    let server = recovers().await;
    let answer = within(SOON, client().post(server.url("/")).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.count()), (503, 1));
    let server = recovers().await;
    let answer = within(SOON, client().post(server.url("/")).idempotent(true).send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.count()), (200, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_backoff_repeats_is_repeated_with_its_own_delays_too() {
    use backoff::ExponentialBackoffBuilder;

    let waits = || {
        let soon = Duration::from_millis(10);
        ExponentialBackoffBuilder::new().with_initial_interval(soon).with_max_interval(soon).build()
    };
    let (server, bare) = (recovers().await, reqwest::Client::new());
    let theirs = backoff::future::retry(waits(), || async {
        let response = bare.get(server.url("/")).send().await.map_err(backoff::Error::transient)?;
        let response = response.error_for_status().map_err(backoff::Error::transient)?;
        response.text().await.map_err(backoff::Error::transient)
    });
    assert_eq!((within(SOON, theirs).await.unwrap(), server.count()), ("well".to_owned(), 3));

    let own = Policy::standard().retry(RetryPolicy::standard().delays_from(waits));
    for client in [client(), Client::builder().policy(own).build().unwrap()] {
        let server = recovers().await;
        let text = within(SOON, client.get(server.url("/")).fetch_text()).await.unwrap();
        assert_eq!((text.as_str(), server.count()), ("well", 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_failsafe_refuses_so_does_the_breaker_with_its_own_rule_too() {
    use failsafe::{Config, Error, backoff, failure_policy};

    let rule = || failure_policy::consecutive_failures(3, backoff::constant(Duration::from_secs(30)));
    let server = Server::start(|_| Reply::answer(500, "")).await;
    let (breaker, bare) = (Config::new().failure_policy(rule()).build(), reqwest::Client::new());
    for failure in 1..=4 {
        let call = async { bare.get(server.url("/")).send().await?.error_for_status() };
        let ended = within(SOON, breaker.call(call)).await;
        assert_eq!(matches!(ended, Err(Error::Rejected)), failure == 4, "{failure}");
    }
    assert_eq!(server.count(), 3);

    let cold = BreakerPolicy::standard().cold_consecutive_failures(3);
    for own in [cold, BreakerPolicy::standard().trip_when(rule)] {
        let server = Server::start(|_| Reply::answer(500, "")).await;
        let policy = Policy::standard().retry(None).breaker(own);
        let client = Client::builder().policy(policy).build().unwrap();
        for failure in 1..=4 {
            let ended = within(SOON, client.get(server.url("/")).send()).await;
            assert_eq!(ended.is_err_and(|error| error.is_circuit_open()), failure == 4, "{failure}");
        }
        assert_eq!(server.count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_stack_of_tower_resiliences_ends_so_does_the_layer() {
    use tower_resilience::circuitbreaker::CircuitBreakerLayer;
    use tower_resilience::timelimiter::TimeLimiterLayer;

    let hangs = tower::service_fn(|_: http::Request<String>| async {
        std::future::pending::<Result<http::Response<String>, Infallible>>().await
    });
    let request = || http::Request::get("http://users:3000/").body(String::new()).unwrap();
    let stack = ServiceBuilder::new()
        .layer(TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(10)).build())
        .layer(CircuitBreakerLayer::standard().build().expect("breaker"))
        .layer(TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(3)).build())
        .service(hangs);
    assert!(stack.oneshot(request()).await.is_err());
    let layer = ResilienceLayer::new(Policy::standard().retry(None)).unwrap();
    assert!(layer.layer(hangs).oneshot(request()).await.unwrap_err().is_timeout());
}
