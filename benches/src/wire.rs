//! Clients over loopback: a GET and its whole body, as a user would write it.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use resilient_client::Policy;
use tower::{Service, ServiceExt as _};

use crate::clock;
use crate::peers::{self, TowerResilienceStack, TowerStack};
use crate::side_by_side::quantile;
use crate::subject::Subject;

/// One way to make a call.
#[derive(Clone)]
pub enum Client {
    /// reqwest alone.
    Bare(reqwest::Client),
    /// Ours over reqwest.
    Ours(resilient_client::Client),
    /// hyper-util's pooled client alone.
    BareHyper(Box<hyper_util::client::legacy::Client<HttpConnector, Empty<Bytes>>>),
    /// Ours over it.
    OursOnHyper(resilient_client::hyper::Client),
    /// reqwest-middleware with reqwest-retry.
    Middleware(ClientWithMiddleware),
    /// tower's layers over reqwest.
    Tower(TowerStack<reqwest::Client>),
    /// tower-resilience's layers over reqwest.
    TowerResilience(Box<TowerResilienceStack<OverReqwest, Repeatable, reqwest::Response, reqwest::Error>>),
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// reqwest with its hidden retries off, which also spares it a copy of each request: the
    /// leanest there is.
    pub fn bare() -> Self {
        let never = reqwest::retry::never().max_retries_per_request(0);
        Self::Bare(reqwest::Client::builder().no_proxy().retry(never).build().expect("reqwest"))
    }

    /// reqwest as it comes: its retries of unprocessed HTTP/2 requests are on, so it keeps a copy
    /// of each request.
    pub fn bare_as_it_comes() -> Self {
        Self::Bare(as_it_comes())
    }

    /// Ours with `policy`.
    pub fn ours(policy: Policy) -> Self {
        let builder = resilient_client::Client::builder().policy(policy);
        Self::Ours(builder.transport(reqwest::ClientBuilder::no_proxy).build().expect("client"))
    }

    /// hyper-util's client with the socket option that reqwest and ours set.
    pub fn bare_hyper() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Self::BareHyper(Box::new(builder.pool_timer(TokioTimer::new()).build(connector)))
    }

    /// Ours with `policy`, over hyper.
    pub fn ours_on_hyper(policy: Policy) -> Self {
        Self::OursOnHyper(resilient_client::hyper::Client::builder().policy(policy).build().expect("client"))
    }

    /// reqwest-retry as its README sets it up, over reqwest as it comes.
    pub fn middleware() -> Self {
        let retry = ExponentialBackoff::builder().build_with_max_retries(3);
        let builder = reqwest_middleware::ClientBuilder::new(as_it_comes());
        Self::Middleware(builder.with(RetryTransientMiddleware::new_with_policy(retry)).build())
    }

    /// tower's layers over reqwest as it comes.
    pub fn tower() -> Self {
        Self::Tower(peers::tower(as_it_comes(), peers::ATTEMPT))
    }

    /// tower-resilience's layers over reqwest as it comes.
    pub fn tower_resilience() -> Self {
        let stack = peers::tower_resilience(Repeatable::over(as_it_comes()), peers::ATTEMPT);
        Self::TowerResilience(Box::new(stack))
    }

    /// Gets `url`; returns the length of its body.
    pub async fn get(&self, url: &str) -> usize {
        match self {
            Self::Bare(client) => {
                let response = client.get(url).send().await.expect("response");
                response.bytes().await.expect("body").len()
            }
            Self::Ours(client) => {
                let response = client.get(url).send().await.expect("response");
                response.bytes().await.expect("body").len()
            }
            Self::BareHyper(client) => {
                let response = client.get(url.parse().expect("url")).await.expect("response");
                response.into_body().collect().await.expect("body").to_bytes().len()
            }
            Self::OursOnHyper(client) => {
                let response = client.get(url).send().await.expect("response");
                response.bytes().await.expect("body").len()
            }
            Self::Middleware(client) => {
                let response = client.get(url).send().await.expect("response");
                response.bytes().await.expect("body").len()
            }
            Self::Tower(stack) => {
                let response = stack.clone().oneshot(request(url)).await.expect("response");
                response.bytes().await.expect("body").len()
            }
            Self::TowerResilience(stack) => {
                let calling = stack.as_ref().clone().oneshot(Repeatable(request(url)));
                calling.await.expect("response").bytes().await.expect("body").len()
            }
        }
    }
}

fn as_it_comes() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("reqwest")
}

fn request(url: &str) -> reqwest::Request {
    reqwest::Request::new(http::Method::GET, url.parse().expect("url"))
}

/// reqwest's request for layers that ask for `Clone`.
#[derive(Debug)]
pub struct Repeatable(pub reqwest::Request);

impl Clone for Repeatable {
    fn clone(&self) -> Self {
        Self(self.0.try_clone().expect("a GET has no body"))
    }
}

impl Repeatable {
    /// A service that sends them.
    pub fn over(client: reqwest::Client) -> OverReqwest {
        OverReqwest(client)
    }
}

/// reqwest as a service of [`Repeatable`].
#[derive(Clone, Debug)]
pub struct OverReqwest(reqwest::Client);

impl Service<Repeatable> for OverReqwest {
    type Response = reqwest::Response;
    type Error = reqwest::Error;
    type Future = <reqwest::Client as Service<reqwest::Request>>::Future;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Repeatable) -> Self::Future {
        self.0.call(request.0)
    }
}

/// Calls one after the other.
pub fn sequential(name: &'static str, client: Client, url: &str) -> Subject {
    let runtime = runtime();
    let url: Rc<str> = url.into();
    Subject::timed(name, move |n| {
        let mut took = Duration::ZERO;
        runtime.block_on(async {
            let start = clock::now();
            for _ in 0..n {
                assert_ne!(client.get(&url).await, 0);
            }
            took = start.elapsed();
        });
        took
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// A closed loop: so many callers, each of which calls again as soon as it has its answer.
#[derive(Debug)]
pub struct Loop {
    /// What it is called in the table.
    pub name: &'static str,
    client: Client,
    callers: usize,
    runtime: tokio::runtime::Runtime,
}

/// What a closed loop did in one slice of time.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Calls a second.
    pub rate: f64,
    /// Median latency, microseconds.
    pub p50: f64,
    /// 99th percentile of the latency, microseconds.
    pub p99: f64,
    /// CPU time per call, microseconds: the client's, all of which runs on one thread.
    pub cpu: f64,
}

impl Loop {
    /// A loop of `callers`.
    pub fn new(name: &'static str, client: Client, callers: usize) -> Self {
        Self { name, client, callers, runtime: runtime() }
    }

    /// Runs it for `length`.
    pub fn run(&self, url: &str, length: Duration) -> Slice {
        let (start, cpu) = (clock::now(), clock::thread_cpu());
        let latencies = self.runtime.block_on(async {
            let callers: Vec<_> = (0..self.callers)
                .map(|_| tokio::spawn(call_until(self.client.clone(), url.to_owned(), start + length)))
                .collect();
            let mut all = Vec::new();
            for caller in callers {
                all.append(&mut caller.await.expect("caller"));
            }
            all
        });
        let (took, calls) = (start.elapsed().as_secs_f64(), latencies.len() as f64);
        Slice {
            rate: calls / took,
            p50: quantile(latencies.clone(), 0.5),
            p99: quantile(latencies, 0.99),
            cpu: clock::thread_cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / calls,
        }
    }
}

/// One caller; its latencies in microseconds.
async fn call_until(client: Client, url: String, end: Instant) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut asked = clock::now();
    while asked < end {
        client.get(&url).await;
        let answered = clock::now();
        latencies.push((answered - asked).as_secs_f64() * 1e6);
        asked = answered;
    }
    latencies
}
