//! SDKs that are given a client: as a service of HTTP requests, or as a client with middlewares.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Extensions;
use http_body_util::{BodyExt as _, Full};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use resilient_client::{CallOptions, CallReport, Client, hyper};
use resilient_client_tests::server::NobodyHome;
use resilient_client_tests::{Reply, SOON, Server, within};
use tower::ServiceExt as _;
use tower::util::BoxCloneService;

async fn failing_once() -> Server {
    Server::start(|request| Reply::answer(if request.nth == 1 { 503 } else { 200 }, &request.body)).await
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// As SDKs do that take a service: bodies of their own, errors of any kind, the type forgotten.
struct Sdk(BoxCloneService<http::Request<SdkBody>, http::Response<Bytes>, AnyError>);
type SdkBody = http_body_util::combinators::UnsyncBoxBody<Bytes, AnyError>;

impl Sdk {
    fn over<S, B>(service: S) -> Self
    where
        S: tower::Service<http::Request<SdkBody>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<AnyError>,
        B: http_body::Body<Data = Bytes, Error: Into<AnyError>> + Send + 'static,
    {
        let whole = async |response: http::Response<B>| {
            let (head, body) = response.into_parts();
            let bytes = body.collect().await.map_err(Into::into)?.to_bytes();
            Ok(http::Response::from_parts(head, bytes))
        };
        Self(service.map_err(Into::into).and_then(move |response| Box::pin(whole(response))).boxed_clone())
    }

    async fn put(&self, url: String, body: &'static str) -> http::Response<Bytes> {
        let body = Full::new(Bytes::from(body)).map_err(AnyError::from).boxed_unsync();
        let request = http::Request::put(url).body(body).unwrap();
        self.0.clone().oneshot(request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sdk_that_takes_a_service_is_retried_with_its_body() {
    let server = failing_once().await;
    let sdk = Sdk::over(hyper::Client::new());
    let answer = within(SOON, sdk.put(server.url("/"), "tea")).await;
    assert_eq!((answer.status().as_u16(), answer.body()), (200, &Bytes::from("tea")));
    assert_eq!(server.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_in_a_services_request_hold_for_its_call() {
    let server = Server::start(|_| Reply::answer(200, "")).await;
    let mut request = http::Request::get(server.url("/")).body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(CallOptions::new().key("tenant-7"));
    let client = hyper::Client::new();
    let response = within(SOON, client.clone().oneshot(request)).await.unwrap();
    assert!(response.body().report().upstream().contains("tenant-7"), "{}", response.body().report());
}

/// Counts what passes, as an SDK's own middleware would.
#[derive(Clone, Default)]
struct Counts(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Middleware for Counts {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        self.0.fetch_add(1, Ordering::Relaxed);
        next.run(request, extensions).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sdk_with_middlewares_calls_over_the_engine() {
    let server = failing_once().await;
    let (counts, client) = (Counts::default(), Client::new());
    let sdk = ClientBuilder::new(reqwest::Client::new()).with(counts.clone()).with(client.clone()).build();
    let answer = within(SOON, sdk.put(server.url("/")).body("tea").send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, "tea".into()));
    assert_eq!((server.count(), counts.0.load(Ordering::Relaxed)), (2, 1));
    assert_eq!(client.snapshot()[0].calls, 0, "the call has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_middlewares_extensions_bring_options_and_take_the_report() {
    let server = failing_once().await;
    let sdk = ClientBuilder::new(reqwest::Client::new()).with(Client::new()).build();
    let mut extensions = Extensions::new();
    extensions.insert(CallOptions::new().idempotent(true));
    let mut request = reqwest::Request::new(http::Method::POST, server.url("/").parse().unwrap());
    *request.body_mut() = Some("tea".into());
    let answer = within(SOON, sdk.execute_with_extensions(request, &mut extensions)).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(extensions.get::<CallReport>().unwrap().attempts().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_middlewares_error_is_ours() {
    let sdk = ClientBuilder::new(reqwest::Client::new()).with(Client::new()).build();
    let error = within(SOON, sdk.get(NobodyHome::new().url()).send()).await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error:?}") };
    let ours = error.downcast_ref::<resilient_client::Error>().unwrap();
    assert!(ours.is_connect() && ours.report().is_some(), "{ours:?}");
}
