//! The whole stack round a service that does nothing and is always ready: what is left is what the
//! stack costs.
//!
//! Each call is polled once, by hand, inside a tokio runtime that has nothing else to do: no
//! executor is measured. Making the request and dropping the response are part of every subject,
//! the bare service's too.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use metrics::Recorder as _;
use resilient_client::{Metrics, Policy, ResilienceLayer, SendOnce};
use tokio::runtime::Runtime;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{Service, ServiceBuilder, service_fn};

use crate::subject::{Subject, cpu_time};
use crate::{lookups, peers};

type Body = Empty<Bytes>;
type Response = http::Response<Body>;

/// The service that does nothing.
fn nothing<B>() -> impl Service<
    http::Request<B>,
    Response = Response,
    Error = Infallible,
    Future = Ready<Result<Response, Infallible>>,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(|_request: http::Request<B>| ready(Ok(Response::new(Body::new()))))
}

fn subject<B, S, R>(name: &'static str, mut service: S, body: impl Fn() -> B + 'static) -> Subject
where
    S: Service<http::Request<B>, Response = R> + 'static,
    B: 'static,
{
    let runtime = runtime();
    let uri = http::Uri::from_static("http://users:3000/users/7");
    Subject::timed(name, move |n| {
        let _entered = runtime.enter();
        let mut cx = Context::from_waker(Waker::noop());
        cpu_time(n, |_| {
            let mut request = http::Request::new(body());
            request.uri_mut().clone_from(&uri);
            assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))), "{name} isn't ready");
            match pin!(service.call(request)).poll(&mut cx) {
                Poll::Ready(Ok(response)) => response,
                Poll::Ready(Err(_)) | Poll::Pending => panic!("{name} failed"),
            }
        })
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime")
}

/// The service alone.
pub fn bare(name: &'static str) -> Subject {
    subject(name, nothing(), Body::new)
}

/// Ours round it.
pub fn ours(name: &'static str, policy: &Policy) -> Subject {
    let layer = ResilienceLayer::new(policy).expect("policy");
    subject(name, ServiceBuilder::new().layer(layer).service(nothing()), Body::new)
}

/// Ours round it, telling no server how long it is waited for: that is a header, and a request
/// without headers has no map to put it into, which takes two allocations of the `http` crate's.
pub fn ours_untold(name: &'static str, policy: &Policy) -> Subject {
    let layer = ResilienceLayer::builder().policy(policy).deadline_header(None).build().expect("policy");
    subject(name, ServiceBuilder::new().layer(layer).service(nothing()), Body::new)
}

/// Ours round it, counted by a recorder of plain atomics: what is this crate's of the cost.
pub fn ours_counted(name: &'static str, policy: &Policy) -> Subject {
    metered(name, policy, Metrics::with_recorder(crate::recorder::Atomics))
}

/// Ours round it, counted for Prometheus.
pub fn ours_prometheus(name: &'static str, policy: &Policy) -> Subject {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new()
        .set_buckets(resilient_client::metrics::DURATION_BUCKETS)
        .expect("buckets")
        .build_recorder();
    metered(name, policy, Metrics::with_recorder(recorder))
}

/// What a call tells that recorder, without the call: an attempt counted, in flight and no more,
/// and two durations. Nothing that counts a call can cost less.
pub fn instruments(name: &'static str) -> Subject {
    let (recorder, key) = (crate::recorder::Atomics, metrics::Key::from_static_name("x"));
    let metadata = metrics::Metadata::new("x", metrics::Level::INFO, None);
    let attempts = recorder.register_counter(&key, &metadata);
    let active = recorder.register_gauge(&key, &metadata);
    let durations = [(); 2].map(|()| recorder.register_histogram(&key, &metadata));
    Subject::timed(name, move |n| {
        cpu_time(n, |nanos| {
            attempts.increment(1);
            active.increment(1.0);
            active.decrement(1.0);
            for duration in &durations {
                duration.record(Duration::from_nanos(nanos).as_secs_f64());
            }
        })
    })
}

fn metered(name: &'static str, policy: &Policy, metrics: Metrics) -> Subject {
    let layer = ResilienceLayer::builder().policy(policy).observer(metrics).build().expect("policy");
    subject(name, ServiceBuilder::new().layer(layer).service(nothing()), Body::new)
}

/// Ours round it, with a body that can be sent only once: no copy of the request is kept, so this
/// shows what the copy costs.
pub fn ours_unrepeatable(name: &'static str, policy: &Policy) -> Subject {
    let layer = ResilienceLayer::new(policy).expect("policy");
    let service = ServiceBuilder::new().layer(layer).service(nothing());
    subject(name, service, || SendOnce::new(Body::new()))
}

/// Ours round it, calling so many hosts in turn, by so many threads: what finding a host's state
/// costs as hosts grow.
pub fn ours_hosts(name: &'static str, hosts: usize, threads: usize) -> Subject {
    let layer = ResilienceLayer::builder().policy(Policy::standard()).max_upstreams(2 * hosts).build();
    let service = ServiceBuilder::new().layer(layer.expect("policy")).service(nothing());
    let uris = lookups::uris(hosts);
    let runtime = runtime();
    let once = move |i: u64| {
        let _entered = runtime.enter();
        let mut service = service.clone();
        let mut cx = Context::from_waker(Waker::noop());
        let mut request = http::Request::new(Body::new());
        // Steps of a prime, so that neighbours in memory aren't neighbours in time.
        request.uri_mut().clone_from(&uris[(i as usize).wrapping_mul(7919) % uris.len()]);
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        match pin!(service.call(request)).poll(&mut cx) {
            Poll::Ready(Ok(response)) => response.status(),
            Poll::Ready(Err(_)) | Poll::Pending => panic!("a call failed"),
        }
    };
    // Every host's state is made before anything is measured.
    for i in 0..hosts as u64 {
        once(i);
    }
    Subject::shared(name, threads, once)
}

/// tower's layers round it: retry, then for each attempt a concurrency limit and a timeout. No
/// breaker, no budget, no report; the attempts as in the example of tower's `Policy`.
pub fn tower(name: &'static str) -> Subject {
    let service = ServiceBuilder::new()
        .retry(Attempts { left: 3, budget: None })
        .concurrency_limit(256)
        .timeout(Duration::from_secs(3))
        .service(nothing());
    subject(name, service, Body::new)
}

/// The same with what else tower has of ours: a total timeout, and the budget its docs recommend.
pub fn tower_with_budget(name: &'static str) -> Subject {
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(10))
        .retry(Attempts { left: 3, budget: Some(Arc::new(TpsBudget::default())) })
        .concurrency_limit(256)
        .timeout(Duration::from_secs(3))
        .service(nothing());
    subject(name, service, Body::new)
}

/// tower-resilience round it: total timeout, retry, breaker, bulkhead, timeout of each attempt. No
/// budget, no report.
pub fn tower_resilience(name: &'static str) -> Subject {
    subject(name, peers::tower_resilience(nothing(), peers::ATTEMPT), Body::new)
}

/// seatbelt round it: retry, breaker, timeout of each attempt. No limit, no budget, no total
/// timeout.
pub fn seatbelt(name: &'static str) -> Subject {
    let runtime = runtime();
    let service = {
        let _entered = runtime.enter();
        let nothing = layered::Execute::new(|_request| ready(Ok::<_, ()>(Response::new(Body::new()))));
        peers::seatbelt::<http::Request<Body>, Response, (), _>(nothing, || ())
    };
    let uri = http::Uri::from_static("http://users:3000/users/7");
    Subject::timed(name, move |n| {
        let _entered = runtime.enter();
        let mut cx = Context::from_waker(Waker::noop());
        cpu_time(n, |_| {
            let mut request = http::Request::new(Body::new());
            request.uri_mut().clone_from(&uri);
            match pin!(layered::Service::execute(&service, request)).poll(&mut cx) {
                Poll::Ready(Ok(response)) => response,
                Poll::Ready(Err(())) | Poll::Pending => panic!("{name} failed"),
            }
        })
    })
}

#[derive(Clone)]
struct Attempts {
    left: usize,
    budget: Option<Arc<TpsBudget>>,
}

impl<E> tower::retry::Policy<http::Request<Body>, Response, E> for Attempts {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut http::Request<Body>,
        result: &mut Result<Response, E>,
    ) -> Option<Ready<()>> {
        if result.as_ref().is_ok_and(|response| !response.status().is_server_error()) {
            if let Some(budget) = &self.budget {
                budget.deposit();
            }
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        self.budget.as_ref().is_none_or(|budget| budget.withdraw()).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &http::Request<Body>) -> Option<http::Request<Body>> {
        Some(request.clone())
    }
}
