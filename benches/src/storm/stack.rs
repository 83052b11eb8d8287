//! Each stack as one thing: make a call, was it a success?
//!
//! Four attempts, 500 ms for each, waits from about 25 ms to 250 ms: the same for all that can be told so; the rest is
//! what a stack's docs advise, or its default.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{Jitter, RetryTransientMiddleware};
use resilient_client::Policy;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::concurrency::ConcurrencyPolicy;
use resilient_client::policy::hedge::HedgePolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_resilience::hedge::HedgeLayer;

use super::server::CALL;
use super::{ATTEMPT, IN_TIME, RATE};
use crate::peers::{self, FIRST_WAIT, LONGEST_WAIT};
use crate::wire::Repeatable;

/// Makes the call of a number; whether it ended with a whole body and a 2xx.
pub type Caller = Box<dyn Fn(u64) -> LocalBoxFuture<'static, bool>>;

/// A stack to storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// reqwest alone: no timeout, no retry.
    Reqwest,
    /// reqwest-retry as its README sets it up: three retries.
    ReqwestRetry,
    /// reqwest-retry with waits for calls between services, and reqwest's timeout, which ends with the body.
    ReqwestRetryTuned,
    /// tower's layers, budget and backoff.
    Tower,
    /// tower-resilience's layers.
    TowerResilience,
    /// The same with its hedge innermost, after 50 ms, as in its guide.
    TowerResilienceHedge,
    /// reqx with its standard retry policy.
    Reqx,
    /// The same with its retry budget, circuit breaker and adaptive concurrency, each at its standard.
    ReqxControls,
    /// Microsoft's fetch: its standard pipeline, made of seatbelt.
    Fetch,
    /// Ours over reqwest.
    Ours,
    /// Ours with hedging.
    OursHedge,
    /// Ours with a limit of attempts in flight that adapts, in place of the fixed one, and a queue in front of it.
    OursAdaptive,
    /// Ours over hyper.
    OursHyper,
}

impl Stack {
    /// In the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Reqwest,
        Self::ReqwestRetry,
        Self::ReqwestRetryTuned,
        Self::Tower,
        Self::TowerResilience,
        Self::TowerResilienceHedge,
        Self::Reqx,
        Self::ReqxControls,
        Self::Fetch,
        Self::Ours,
        Self::OursHedge,
        Self::OursAdaptive,
        Self::OursHyper,
    ];
    /// Those of `--quick`.
    pub const QUICK: [Self; 6] = [
        Self::Reqwest,
        Self::ReqwestRetryTuned,
        Self::TowerResilience,
        Self::Ours,
        Self::OursHedge,
        Self::OursAdaptive,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reqwest => "bare reqwest",
            Self::ReqwestRetry => "reqwest-retry, defaults",
            Self::ReqwestRetryTuned => "reqwest-retry, tuned",
            Self::Tower => "tower",
            Self::TowerResilience => "tower-resilience",
            Self::TowerResilienceHedge => "tower-resilience, hedge",
            Self::Reqx => "reqx",
            Self::ReqxControls => "reqx, all controls",
            Self::Fetch => "fetch (seatbelt)",
            Self::Ours => "ours",
            Self::OursHedge => "ours, hedge",
            Self::OursAdaptive => "ours, adaptive limit",
            Self::OursHyper => "ours on hyper",
        }
    }

    /// Whether the goals are about it.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursHedge | Self::OursAdaptive | Self::OursHyper)
    }

    /// A new one that gets `url`. Call it inside a runtime.
    pub fn caller(self, url: &str) -> Caller {
        match self {
            Self::Reqwest => over_reqwest(ClientWithMiddleware::from(reqwest()), url),
            Self::ReqwestRetry => over_reqwest(
                retrying(reqwest(), ExponentialBackoff::builder().build_with_max_retries(3)),
                url,
            ),
            Self::ReqwestRetryTuned => {
                let bounded =
                    reqwest::Client::builder().no_proxy().timeout(ATTEMPT).build().expect("reqwest");
                let waits = ExponentialBackoff::builder()
                    .retry_bounds(FIRST_WAIT, LONGEST_WAIT)
                    .jitter(Jitter::Bounded)
                    .build_with_max_retries(peers::ATTEMPTS as u32 - 1);
                over_reqwest(retrying(bounded, waits), url)
            }
            Self::Tower => over_tower(peers::tower(reqwest(), ATTEMPT), url, |request| request),
            Self::TowerResilience => {
                let stack = peers::tower_resilience(Repeatable::over(reqwest()), ATTEMPT);
                over_tower(stack, url, Repeatable)
            }
            Self::TowerResilienceHedge => {
                let hedge =
                    HedgeLayer::builder().delay(Duration::from_millis(50)).max_hedged_attempts(2).build();
                // Hedging asks for errors that can be copied.
                let service = Repeatable::over(reqwest()).map_err(Arc::new);
                over_tower(peers::tower_resilience(hedge.layer(service), ATTEMPT), url, Repeatable)
            }
            Self::Reqx => over_reqx(peers::reqx(&[url.to_owned()], ATTEMPT)),
            Self::ReqxControls => over_reqx(peers::reqx_with_controls(&[url.to_owned()], ATTEMPT)),
            Self::Fetch => {
                let client = peers::fetch(&[url.to_owned()], ATTEMPT);
                Box::new(move |call| {
                    let client = client.clone();
                    Box::pin(async move {
                        client.get("/").header(CALL, call.to_string()).fetch_text_body().await.is_ok()
                    })
                })
            }
            Self::Ours => ours(policy(), url),
            Self::OursHedge => ours(policy().hedge(HedgePolicy::standard()), url),
            Self::OursAdaptive => {
                // A second's worth of calls may wait for a second, half of the time a success may take.
                let queue = BulkheadPolicy::standard().max_queued(RATE as u32).queue_wait(IN_TIME / 2);
                ours(policy().concurrency(ConcurrencyPolicy::gradient()).bulkhead(queue), url)
            }
            Self::OursHyper => {
                let client = resilient_client::hyper::Client::builder().policy(policy()).build();
                let (client, url) = (client.expect("client"), url.to_owned());
                Box::new(move |call| {
                    let calling = client.get(&url).header(CALL, call.to_string()).send_buffered();
                    Box::pin(async { calling.await.is_ok_and(|response| response.status().is_success()) })
                })
            }
        }
    }
}

fn reqwest() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("reqwest")
}

fn retrying(client: reqwest::Client, waits: ExponentialBackoff) -> ClientWithMiddleware {
    let retry = RetryTransientMiddleware::new_with_policy(waits);
    reqwest_middleware::ClientBuilder::new(client).with(retry).build()
}

/// The standard policy with the storm's bound for attempts.
fn policy() -> Policy {
    Policy::standard().timeout(TimeoutPolicy::standard().attempt(ATTEMPT))
}

fn ours(policy: Policy, url: &str) -> Caller {
    let builder = resilient_client::Client::builder().policy(policy);
    let client = builder.transport(reqwest::ClientBuilder::no_proxy).build().expect("client");
    let url = url.to_owned();
    Box::new(move |call| {
        let calling = client.get(&url).header(CALL, call.to_string()).send_buffered();
        Box::pin(async { calling.await.is_ok_and(|response| response.status().is_success()) })
    })
}

fn over_reqwest(client: ClientWithMiddleware, url: &str) -> Caller {
    let url = url.to_owned();
    Box::new(move |call| {
        let calling = client.get(&url).header(CALL, call.to_string()).send();
        Box::pin(async move { whole(calling.await).await })
    })
}

fn over_reqx(client: reqx::ClientBuilder) -> Caller {
    let client = client.build().expect("reqx");
    Box::new(move |call| {
        let client = client.clone();
        Box::pin(async move {
            let get = client.get("/").try_header(CALL, &call.to_string()).expect("header");
            get.send().await.is_ok()
        })
    })
}

fn over_tower<S, Q>(service: S, url: &str, request: fn(reqwest::Request) -> Q) -> Caller
where
    S: Service<Q, Response = reqwest::Response> + Clone + 'static,
    Q: 'static,
{
    let url: reqwest::Url = url.parse().expect("url");
    Box::new(move |call| {
        let mut get = reqwest::Request::new(http::Method::GET, url.clone());
        get.headers_mut().insert(CALL, call.into());
        let calling = service.clone().oneshot(request(get));
        Box::pin(async move { whole(calling.await).await })
    })
}

async fn whole<E>(response: Result<reqwest::Response, E>) -> bool {
    let Ok(response) = response else { return false };
    response.status().is_success() && response.bytes().await.is_ok()
}
