//! Each stack as one thing: make a call, was it a success?
//!
//! Four attempts, 500 ms for each, waits from about 25 ms to 250 ms: the same for all that can be
//! told so; the rest is what a stack's docs advise, or its default. Of several servers a stack that
//! knows of endpoints is told all; to the others each call brings the next, for all of its
//! attempts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use http::HeaderName;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{Jitter, RetryTransientMiddleware};
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::concurrency::ConcurrencyPolicy;
use resilient_client::policy::hedge::HedgePolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Endpoints, Policy};
use tower::{Layer as _, Service, ServiceExt as _};
use tower_resilience::hedge::HedgeLayer;

use super::{ATTEMPT, CALL, IN_TIME, PATH, RATE};
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
    /// reqwest-retry with waits for calls between services, and reqwest's timeout, which ends with
    /// the body.
    ReqwestRetryTuned,
    /// tower's layers, budget and backoff.
    Tower,
    /// tower-resilience's layers.
    TowerResilience,
    /// The same with its hedge innermost, after 50 ms, as in its guide.
    TowerResilienceHedge,
    /// reqx with its standard retry policy.
    Reqx,
    /// The same with its retry budget, circuit breaker and adaptive concurrency, each at its
    /// standard.
    ReqxControls,
    /// Microsoft's fetch: its standard pipeline, made of seatbelt.
    Fetch,
    /// Ours over reqwest.
    Ours,
    /// Ours with hedging.
    OursHedge,
    /// Ours with a limit of attempts in flight that adapts, in place of the fixed one, and a queue
    /// in front of it.
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

    /// A new one that gets [`PATH`] from `origins`. Call it inside a runtime.
    pub fn caller(self, origins: &[String]) -> Caller {
        match self {
            Self::Reqwest => over_reqwest(ClientWithMiddleware::from(reqwest()), origins),
            Self::ReqwestRetry => over_reqwest(
                retrying(reqwest(), ExponentialBackoff::builder().build_with_max_retries(3)),
                origins,
            ),
            Self::ReqwestRetryTuned => {
                let bounded =
                    reqwest::Client::builder().no_proxy().timeout(ATTEMPT).build().expect("reqwest");
                let waits = ExponentialBackoff::builder()
                    .retry_bounds(FIRST_WAIT, LONGEST_WAIT)
                    .jitter(Jitter::Bounded)
                    .build_with_max_retries(peers::ATTEMPTS as u32 - 1);
                over_reqwest(retrying(bounded, waits), origins)
            }
            Self::Tower => over_tower(peers::tower(reqwest(), ATTEMPT), origins, |request| request),
            Self::TowerResilience => {
                let stack = peers::tower_resilience(Repeatable::over(reqwest()), ATTEMPT);
                over_tower(stack, origins, Repeatable)
            }
            Self::TowerResilienceHedge => {
                let hedge =
                    HedgeLayer::builder().delay(Duration::from_millis(50)).max_hedged_attempts(2).build();
                // Hedging asks for errors that can be copied.
                let service = Repeatable::over(reqwest()).map_err(Arc::new);
                over_tower(peers::tower_resilience(hedge.layer(service), ATTEMPT), origins, Repeatable)
            }
            Self::Reqx => over_reqx(peers::reqx(origins, ATTEMPT)),
            Self::ReqxControls => over_reqx(peers::reqx_with_controls(origins, ATTEMPT)),
            Self::Fetch => over_fetch(peers::fetch(origins, ATTEMPT)),
            Self::Ours => ours(policy(), origins),
            Self::OursHedge => ours(policy().hedge(HedgePolicy::standard()), origins),
            Self::OursAdaptive => {
                // A second's worth of calls may wait for a second, half of the time a success may
                // take.
                let queue = BulkheadPolicy::standard().max_queued(RATE as u32).queue_wait(IN_TIME / 2);
                ours(policy().concurrency(ConcurrencyPolicy::gradient()).bulkhead(queue), origins)
            }
            Self::OursHyper => {
                let builder = resilient_client::hyper::Client::builder().policy(policy());
                let (builder, url) = match named(origins) {
                    (None, url) => (builder, url),
                    (Some(endpoints), url) => (builder.endpoints(NAME, endpoints), url),
                };
                let client = builder.build().expect("client");
                Box::new(move |call| {
                    let calling = client.get(&url).header(CALL, call.to_string()).send_buffered();
                    Box::pin(async { calling.await.is_ok_and(|response| response.status().is_success()) })
                })
            }
        }
    }
}

/// What ours knows several servers by.
const NAME: &str = "http://storm";

/// What ours gets: from the only server, or from endpoints of a name.
fn named(origins: &[String]) -> (Option<Endpoints>, String) {
    match origins {
        [only] => (None, format!("{only}{PATH}")),
        several => (Some(Endpoints::fixed(several)), format!("{NAME}{PATH}")),
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

fn ours(policy: Policy, origins: &[String]) -> Caller {
    let builder =
        resilient_client::Client::builder().policy(policy).transport(reqwest::ClientBuilder::no_proxy);
    let (builder, url) = match named(origins) {
        (None, url) => (builder, url),
        (Some(endpoints), url) => (builder.endpoints(NAME, endpoints), url),
    };
    let client = builder.build().expect("client");
    Box::new(move |call| {
        let calling = client.get(&url).header(CALL, call.to_string()).send_buffered();
        Box::pin(async { calling.await.is_ok_and(|response| response.status().is_success()) })
    })
}

/// The URLs that calls bring in turn.
struct InTurn(Vec<reqwest::Url>);

impl InTurn {
    fn of(origins: &[String]) -> Self {
        let url = |origin: &String| format!("{origin}{PATH}").parse().expect("url");
        Self(origins.iter().map(url).collect())
    }

    fn url(&self, call: u64) -> reqwest::Url {
        self.0[call as usize % self.0.len()].clone()
    }
}

fn over_reqwest(client: ClientWithMiddleware, origins: &[String]) -> Caller {
    let urls = InTurn::of(origins);
    Box::new(move |call| {
        let calling = client.get(urls.url(call)).header(CALL, call.to_string()).send();
        Box::pin(async move { whole(calling.await).await })
    })
}

fn over_tower<S, Q>(service: S, origins: &[String], request: fn(reqwest::Request) -> Q) -> Caller
where
    S: Service<Q, Response = reqwest::Response> + Clone + 'static,
    Q: 'static,
{
    let urls = InTurn::of(origins);
    Box::new(move |call| {
        let mut get = reqwest::Request::new(http::Method::GET, urls.url(call));
        get.headers_mut().insert(CALL, call.into());
        let calling = service.clone().oneshot(request(get));
        Box::pin(async move { whole(calling.await).await })
    })
}

async fn whole<E>(response: Result<reqwest::Response, E>) -> bool {
    let Ok(response) = response else { return false };
    response.status().is_success() && response.bytes().await.is_ok()
}

fn over_reqx(client: reqx::ClientBuilder) -> Caller {
    let client = client.build().expect("reqx");
    Box::new(move |call| {
        let client = client.clone();
        Box::pin(async move {
            // It has read the body, and a status that is no success is an error.
            client.get(PATH).header(HeaderName::from_static(CALL), call.into()).send().await.is_ok()
        })
    })
}

fn over_fetch(client: fetch::HttpClient) -> Caller {
    Box::new(move |call| {
        let client = client.clone();
        Box::pin(async move {
            // So it is here.
            client.get(PATH).header(CALL, call.to_string()).fetch_text_body().await.is_ok()
        })
    })
}
