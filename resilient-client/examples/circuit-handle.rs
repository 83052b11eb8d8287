//! Circuit breakers in one's own hand: those that a client holds, and one round something else.
//!
//! ```sh
//! cargo run -p resilient-client --example circuit-handle
//! ```

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use resilient_client::circuit::{CircuitBreaker, CircuitError};
use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::{Client, Event};
use tokio::net::TcpListener;
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    maintenance().await?;
    println!();
    database().await
}

/// An upstream is taken out of service: calls to it are refused here, before anything is sent.
async fn maintenance() -> Result<(), Box<dyn Error>> {
    let users = serve(Router::new().route("/users/7", get("Ada"))).await?;
    let client = Client::builder()
        .base_url(&users)
        .observer(|_upstream: &str, event: &Event| {
            if let Event::BreakerTransition(change) = event {
                println!("users: {:?} -> {:?}", change.from, change.to);
            }
        })
        .build()?;

    // By the origin, which needn't have been called yet.
    let breaker = client.breaker(&users)?;
    breaker.force_open()?;
    for _ in 0..3 {
        if let Err(error) = client.get("/users/7").fetch_text().await {
            println!("refused: {error}");
        }
    }
    breaker.enable()?;
    println!("answered: {}", client.get("/users/7").fetch_text().await?);
    Ok(())
}

/// The same machine round a call of another kind. Its timeout is inside: what hangs for ever tells
/// the breaker nothing.
async fn database() -> Result<(), Box<dyn Error>> {
    let database = CircuitBreaker::new(&BreakerPolicy::standard().consecutive_failures(3))?;
    // That there is no such row shows that the database works.
    let is_failure = |error: &DbError| !matches!(error, DbError::NotFound);

    for id in [7, 8, 9, 9, 9, 7] {
        match database.call_if(is_failure, name(id)).await {
            Ok(name) => println!("{id}: {name}"),
            Err(CircuitError::Inner(error)) => println!("{id}: {error:?}"),
            Err(CircuitError::Open(open)) => println!("{id}: {open}"),
        }
    }
    println!("database: {:?}", database.state());
    Ok(())
}

#[derive(Debug)]
enum DbError {
    NotFound,
    TimedOut,
}

/// A table of one row, and of some that somebody has locked.
async fn name(id: u64) -> Result<&'static str, DbError> {
    let query = async {
        match id {
            7 => Ok("Ada"),
            8 => Err(DbError::NotFound),
            _ => pending().await,
        }
    };
    timeout(Duration::from_millis(20), query).await.unwrap_or(Err(DbError::TimedOut))
}

/// Serves `app` on a free port, and returns its URL.
async fn serve(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}
