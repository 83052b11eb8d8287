//! The same engine round a tower service of your own, here hyper-util's client: no reqwest is
//! compiled.
//!
//! ```sh
//! cargo run -p resilient-client --no-default-features --example tower-layer
//! ```

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::{ATTEMPT_COUNT, CallOptions, Policy, ResilienceLayer};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = serve(flaky_users()).await?;

    // hyper-util's client sends each request once. Who says so has a POST that found no connection
    // tried again, too.
    let layer = ResilienceLayer::builder()
        .policy(Policy::standard().retry(RetryPolicy::standard().max_attempts(3)))
        .follows_no_redirects()
        .build()?;
    let transport = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    // Cloned, both are handles on the same breakers and budgets.
    let service = ServiceBuilder::new().layer(layer.clone()).service(transport);

    let request = Request::get(format!("{users}/users/7")).body(Full::default())?;
    let response = service.clone().oneshot(request).await?;
    println!("{}\n{}", response.status(), response.body().report());
    println!("{:?}", response.into_body().collect().await?.to_bytes());

    // What one call wants differently travels in its request: this POST only asks.
    let search = CallOptions::new().idempotent(true).timeout(Duration::from_secs(1));
    let request = Request::post(format!("{users}/search")).extension(search).body(Full::from("ada"))?;
    let response = service.oneshot(request).await?;
    println!("\n{}\n{}", response.status(), response.body().report());
    // A place is held until the body has ended, or is dropped.
    drop(response);

    for upstream in layer.snapshot() {
        println!("\n{}: {} in flight, {:?}", upstream.name, upstream.in_flight, upstream.breaker.state);
    }
    Ok(())
}

/// A service that fails at first: a retry says in this header which attempt it is.
fn flaky_users() -> Router {
    async fn answer(headers: HeaderMap) -> Result<&'static str, StatusCode> {
        if headers.contains_key(ATTEMPT_COUNT) { Ok("Ada") } else { Err(StatusCode::SERVICE_UNAVAILABLE) }
    }
    Router::new().route("/users/{id}", get(answer)).route("/search", post(answer))
}

/// Serves `app` on a free port, and returns its URL.
async fn serve(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}
