//! Whatever callers make up, what is kept of it stays few: hosts, paths, keys, methods and statuses
//! that nobody has seen before, through whole calls, with metrics recorded, spans listened to and
//! an operator looking.
//!
//! A million in a release build, or as many as two and a half minutes allow there, and no fewer
//! than a hundred thousand; five thousand otherwise, which is fifty times what any of the sets
//! holds. There are no sockets: the layer's service answers at once.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use resilient_client::access::Access;
use resilient_client::admin::Admin;
use resilient_client::{CallOptions, Metrics, Policy, ResilienceLayer};
use resilient_client_tests::clock;
use service_kit::meters::Meters;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{self, SubscriberExt as _};

const CALLS: u32 = if cfg!(debug_assertions) { 5_000 } else { 1_000_000 };
const LONGEST: Duration = Duration::from_secs(150);
/// Few, so that newcomers, who copy the table, are quick.
const UPSTREAMS: usize = 100;
/// Of metrics, unless they are told otherwise.
const OWN_LABELS: usize = 100;
const TOKEN: &str = "open sesame";

/// What spans are called and what they have, apart from values that are one request's.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeSet<String>>>);

impl Spans {
    fn keep(&self, metadata: &tracing::Metadata<'_>, visit: impl FnOnce(&mut dyn Visit)) {
        struct Kept<'a>(&'a mut BTreeSet<String>);
        impl Visit for Kept<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                // The name, and what a backend counts by.
                let by =
                    ["otel.name", "http.request.method", "url.template", "error.type", "otel.status_code"];
                let value = if by.contains(&field.name()) { format!("{value:?}") } else { String::new() };
                self.0.insert(format!("{}={value}", field.name()));
            }
        }
        let mut kept = self.0.lock().unwrap();
        kept.insert(metadata.name().to_owned());
        visit(&mut Kept(&mut kept));
    }
}

impl<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> layer::Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: layer::Context<'_, S>) {
        self.keep(attributes.metadata(), |to| attributes.record(to));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: layer::Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        self.keep(span.metadata(), |to| values.record(to));
    }

    fn on_event(&self, _: &Event<'_>, _: layer::Context<'_, S>) {}
}

/// A call of which nothing has been there before.
fn call(layer: &ResilienceLayer, n: u32) {
    let status = StatusCode::from_u16(100 + u16::try_from(n % 900).expect("below 900")).expect("a status");
    let answer = service_fn(move |_: Request<String>| async move {
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let method = match n % 3 {
        0 => Method::GET,
        1 => Method::POST,
        _ => Method::from_bytes(format!("MADE-UP-{n}").as_bytes()).expect("a method"),
    };
    let uri = format!("http://host-{n}.example:{}/users/made-up-{n}?token=made-up-{n}", 1 + n % 60_000);
    let mut request = Request::builder().method(method).uri(uri).body(String::new()).expect("a request");
    if n.is_multiple_of(2) {
        request.extensions_mut().insert(CallOptions::new().key(format!("made-up-{n}")));
    }
    let mut call = Box::pin(layer.layer(answer).call(request));
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(matches!(call.as_mut().poll(cx), Poll::Ready(Ok(_))), "it is answered at once");
}

async fn snapshot(router: &Router) -> String {
    let request = Request::get("/snapshot").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {TOKEN}"));
    let mut request = request.body(Body::empty()).expect("a request");
    request.extensions_mut().insert(ConnectInfo::<SocketAddr>(([127, 0, 0, 1], 7).into()));
    let response = router.clone().oneshot(request).await.expect("an answer");
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn what_callers_make_up_is_no_label_however_many_they_are() {
    let (meters, spans) = (Meters::default(), Spans::default());
    let metrics = Metrics::with_recorder(meters.recorder());
    let layer = ResilienceLayer::builder()
        .policy(Policy::standard().retry(None))
        .max_upstreams(UPSTREAMS)
        .observer(metrics.clone())
        .build()
        .expect("it can work");
    let router = Admin::new(Access::token(TOKEN)).client("users", &layer).router().expect("it can work");
    let listens = tracing::Dispatch::new(tracing_subscriber::registry().with(spans.clone()));
    let (mut most, mut longest) = (0, 0);
    let (begun, mut calls) = (clock::now(), 0);
    for n in 0..CALLS {
        if calls >= CALLS / 10 && begun.elapsed() > LONGEST {
            break;
        }
        calls += 1;
        tracing::dispatcher::with_default(&listens, || call(&layer, n));
        if n % (CALLS / 10) == CALLS / 20 {
            metrics.record_snapshot(&layer.snapshot());
            most = most.max(layer.snapshot().len());
            longest = longest.max(snapshot(&router).await.len());
        }
    }

    let page = meters.render();
    let series: Vec<_> = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let addresses: BTreeSet<_> =
        series.iter().filter_map(|line| line.split("server_address=\"").nth(1)?.split('"').next()).collect();
    assert!(addresses.len() <= OWN_LABELS + 1, "{} addresses", addresses.len());
    // Of `other`, two histograms of 18 lines by 3 methods and 68 statuses; of the rest one status
    // and method each, and what they have besides.
    let bound = 2 * 18 * 3 * 68 + OWN_LABELS * 60;
    assert!(series.len() < bound, "{} series", series.len());
    for made_up in ["made-up", "MADE-UP", "token"] {
        assert!(!page.contains(made_up), "{made_up} is in a label");
    }
    assert!(most <= UPSTREAMS, "{most} upstreams");
    // About two kilobytes each, with two minutes of seconds.
    assert!(longest < UPSTREAMS * 4096, "a snapshot of {longest} bytes");
    let kept = spans.0.lock().unwrap();
    // Three names, their attributes, methods, and statuses as errors' types.
    assert!(kept.len() < 40 + 600, "{} names and labels of spans: {kept:?}", kept.len());
    assert!(!kept.iter().any(|name| name.to_lowercase().contains("made-up")), "{kept:?}");
    println!(
        "{calls} calls: {} series of {} addresses, {most} upstreams, a snapshot of {} kB, {} names and labels of spans",
        series.len(),
        addresses.len(),
        longest / 1024,
        kept.len()
    );
}
