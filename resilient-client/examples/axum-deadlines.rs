//! Deadlines that travel: a caller's time is the time of all who work for it, and whoever is in the
//! middle keeps enough of it to answer.
//!
//! ```text
//! the caller --- 2 s ---> orders --- 1 s ---> users, which takes a minute
//! ```
//!
//! ```sh
//! cargo run -p resilient-client --features server --example axum-deadlines
//! ```

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use resilient_client::server::{DeadlineLayer, DeadlinePolicy};
use resilient_client::{Client, Deadline, deadline};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = serve(users()).await?;
    let orders = serve(orders(Client::builder().base_url(users).build()?)?).await?;

    // Its requests say how long their answer is waited for. That header goes to local origins only,
    // unless `deadline_origins` names others.
    let caller = Client::builder().base_url(orders).build()?;
    let wait = Duration::from_secs(2);

    let order = caller.get("/orders/7").timeout(wait).fetch_text().await?;
    println!("the caller has in time: {order}");

    let report = caller.get("/report").timeout(wait).send().await?;
    println!("the report isn't begun: {}\n{}", report.status(), report.report());
    Ok(())
}

/// The service in the middle.
fn orders(users: Client) -> Result<Router, Box<dyn Error>> {
    // By default a tenth, 100 ms at most, is kept for the answer.
    let deadlines = DeadlineLayer::new(&DeadlinePolicy::standard().reserve(Duration::from_secs(1)))?;
    // What takes five seconds at best isn't begun for those who wait for less.
    let five = DeadlineLayer::new(&DeadlinePolicy::standard().need(Duration::from_secs(5)))?;
    Ok(Router::new()
        .route("/orders/{id}", get(order))
        .route("/report", get(async || "a lot of work").layer(five))
        .layer(deadlines)
        .with_state(users))
}

/// No timeout is set here: the call has what the request has left, less what is kept.
async fn order(State(users): State<Client>, Path(id): Path<u64>) -> String {
    match users.get(format!("/users/{id}")).fetch_text().await {
        Ok(name) => format!("order {id} of {name}"),
        Err(error) => {
            println!("orders goes on without users: {error}");
            format!("order {id}, whose user isn't known yet")
        }
    }
}

/// The service that is slow today. With the layer it stops as soon as nobody waits.
fn users() -> Router {
    async fn user() -> &'static str {
        let left = deadline::current().map(Deadline::remaining);
        println!("users is to answer within {} ms", left.unwrap_or_default().as_millis());
        tokio::time::sleep(Duration::from_secs(60)).await;
        "Ada"
    }
    Router::new().route("/users/{id}", get(user)).layer(DeadlineLayer::standard())
}

/// Serves `app` on a free port, and returns its URL.
async fn serve(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}
