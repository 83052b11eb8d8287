//! What a call reports, and by which name: short bodies, bad addresses, silent resolvers, full
//! headers, waits asked for.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use tower::service_fn;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::Rig;
use super::script::{Step, answer, asks_to_wait, ms};
use crate::endpoints::{Endpoints, Resolve, Resolving};
use crate::error::BoxError;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::State;
use crate::time::now;
use crate::{Attempt, CallOptions, Error, ErrorKind, Policy, Prepared, ResilienceLayer};

/// A body of ten bytes, of which these come. Its size hint says what was announced, and is never
/// brought up to date.
struct Ten(VecDeque<&'static str>);

impl Body for Ten {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(10)
    }
}

/// The answer of a tower service whose body comes in these pieces.
async fn of_ten(
    pieces: &'static [&'static str],
    method: Method,
    options: CallOptions,
) -> Result<(Bytes, usize), Error> {
    let service = service_fn(async move |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(Ten(pieces.iter().copied().collect())))
    });
    let mut service = ResilienceLayer::new(Policy::standard()).unwrap().layer(service);
    let response = service.call(Rig::request(method, options)).await?;
    let attempts = response.body().report().attempts().len();
    Ok((response.into_body().collect().await?.to_bytes(), attempts))
}

#[tokio::test(start_paused = true)]
async fn a_services_body_that_ends_before_its_length_is_an_error_and_one_that_does_not_is_whole() {
    for options in [CallOptions::new(), CallOptions::new().buffered(100)] {
        let error = of_ten(&["four"], Method::GET, options.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "ended 6 bytes before its announced length"
        );
        let whole = of_ten(&["01234", "56789"], Method::GET, options.clone()).await.unwrap();
        assert_eq!(whole, ("0123456789".into(), 1));
        // Announced, and never sent: an answer to HEAD.
        assert_eq!(of_ten(&[], Method::HEAD, options).await.unwrap(), (Bytes::new(), 1));
    }
    let buffered = CallOptions::new().buffered(100);
    let error = of_ten(&["four"], Method::GET, buffered.clone()).await.unwrap_err();
    let report = error.report().unwrap();
    assert_eq!(report.attempts().len(), 4, "tried again, as any body that fails within the call");
    assert_eq!(report.attempts()[0].outcome(), Some(Outcome::Failure(FailureKind::Body)));
    let error = of_ten(&["four"], Method::POST, buffered).await.unwrap_err();
    assert_eq!(error.report().unwrap().attempts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_never_asked_for_a_port_that_there_cannot_be() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    for (url, said) in [
        ("http://users:65536/", "65536"),
        ("http://users:99999/", "99999"),
        ("http://users:-1/", "-1"),
        ("http://users:8o80/", "port"),
        ("http://[fe80::1%25eth0]/", "zone"),
        ("http://1.2.3.4.5/", "address"),
    ] {
        let request = Request::get(url).body(String::new()).unwrap();
        let error = rig.service.clone().call(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{url}");
        assert!(error.to_string().contains(said) && error.is_unsent(), "{url}: {error}");
    }
    assert_eq!((rig.script.count(), rig.core.upstreams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_address_is_one_upstream_however_it_is_written() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    for url in ["http://127.0.0.1/", "http://127.1:80/", "http://0x7f000001", "http://2130706433/a"] {
        rig.service.clone().call(Request::get(url).body(String::new()).unwrap()).await.unwrap();
    }
    assert_eq!(rig.core.upstreams(), 1);
    for url in ["http://[::1]/", "http://[0:0::1]:80/"] {
        rig.service.clone().call(Request::get(url).body(String::new()).unwrap()).await.unwrap();
    }
    assert_eq!(rig.core.upstreams(), 2);
}

#[derive(Clone)]
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _host: &str, _port: u16) -> Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_never_answers_costs_an_attempts_time_and_is_named() {
    let silent = Endpoints::dns("http://users.internal:3000").resolver(Silent);
    let layer = ResilienceLayer::builder().endpoints("http://users:3000", silent).build().unwrap();
    let service =
        service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    let mut service = layer.layer(service);
    let begun = now();
    let error = service.call(Rig::request(Method::GET, CallOptions::new())).await.unwrap_err();
    assert_eq!((error.kind(), now().since(begun)), (ErrorKind::NoEndpoint, Duration::from_secs(3)));
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "users.internal doesn't resolve");
    assert_eq!(cause.source().unwrap().to_string(), "no answer from DNS within 3.0s");

    let request = Rig::request(Method::GET, CallOptions::new().timeout(ms(300)));
    let begun = now();
    let error = service.call(request).await.unwrap_err();
    assert_eq!((error.kind(), now().since(begun)), (ErrorKind::Deadline, ms(300)));
    assert!(error.to_string().contains("users.internal doesn't resolve"), "{error}");
    assert_eq!(layer.drain(ms(1)).await, 0);
}

/// So many headers of different names.
fn many(n: usize) -> HeaderMap {
    (0..n).map(|n| (HeaderName::try_from(format!("x-{n}")).unwrap(), HeaderValue::from_static("1"))).collect()
}

#[tokio::test(start_paused = true)]
async fn headers_there_is_no_room_for_are_an_error_and_no_panic() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    let with = |n| {
        let mut request = Rig::request(Method::GET, CallOptions::new());
        *request.headers_mut() = many(n);
        request
    };
    for n in [24_001, 24_576] {
        let error = rig.service.clone().call(with(n)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.to_string().contains(&n.to_string()), "{error}");
    }
    rig.service.clone().call(with(24_000)).await.unwrap();
    assert_eq!(rig.script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hooks_headers_there_is_no_room_for_are_an_error_and_no_panic() {
    let now = |_: &Attempt<'_>| Prepared::now(many(24_000));
    let later = |_: &Attempt<'_>| Prepared::later(async { Ok::<_, BoxError>(many(24_000)) });
    for layer in [ResilienceLayer::builder().on_attempt(now), ResilienceLayer::builder().on_attempt(later)] {
        let service =
            service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
        let mut service = layer.build().unwrap().layer(service);
        let call = |service: &mut crate::Resilience<_>, n| {
            let mut request = Rig::request(Method::GET, CallOptions::new());
            *request.headers_mut() = (0..n)
                .map(|n| (HeaderName::try_from(format!("y-{n}")).unwrap(), HeaderValue::from_static("1")))
                .collect();
            service.call(request)
        };
        let error = call(&mut service, 1_000).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{error:?}");
        call(&mut service, 0).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_asked_for_is_kept_with_whatever_status_that_is_tried_again() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        for (asked, floor) in [("2", ms(2_000)), ("1.5", ms(1_500))] {
            let rig = Rig::new(&Policy::standard(), [asks_to_wait(status, asked), answer(200)]);
            rig.get().await.unwrap();
            let launches = rig.script.launches();
            assert!(launches[1].since(launches[0]) >= floor, "{status} {asked}: {launches:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_503_asks_for_everybody() {
    for status in [408, 500, 502, 504] {
        let rig = Rig::new(&Policy::standard().retry(None).breaker(None), [asks_to_wait(status, "60")]);
        for _ in 0..30 {
            rig.get().await.unwrap();
        }
        assert_eq!(rig.script.count(), 30, "{status}");
    }
}

fn grpc(status: &'static str, shed: bool) -> Step {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(status));
    if shed {
        headers.insert(crate::advice::SHED, crate::advice::SHED_DEADLINE);
    }
    Step::Headed { status: 200, headers }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_answer_that_says_unavailable_is_a_failure_and_one_that_was_shed_is_nothing() {
    let rig = Rig::new(&Policy::standard(), [grpc("14", false)]);
    for _ in 0..5 {
        assert_eq!(rig.post().await.unwrap().status(), 200);
    }
    assert!(matches!(rig.state(), State::Open), "{:?}", rig.state());
    let rig = Rig::new(&Policy::standard(), [grpc("4", true)]);
    for _ in 0..100 {
        rig.post().await.unwrap();
    }
    let breaker = rig.upstream().breaker_snapshot(now());
    assert_eq!((breaker.successes, breaker.failures, rig.script.count()), (0, 0, 100));
    let rig = Rig::new(&Policy::standard(), [grpc("14", false), grpc("0", false)]);
    rig.get().await.unwrap();
    assert_eq!(rig.script.count(), 2, "a safe one is tried again");
}
