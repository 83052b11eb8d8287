//! The first ten minutes: one client for the whole program. It repeats what is worth repeating, and
//! tells what it did.
//!
//! ```sh
//! cargo run -p resilient-client --example quickstart
//! ```

use std::error::Error;

use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use resilient_client::{ATTEMPT_COUNT, Client};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Deserialize, Serialize)]
struct User {
    id: u64,
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = serve(flaky_users()).await?;

    // Policy::standard(). Build one client and clone it: the clones share breakers, budgets and
    // connections.
    let client = Client::builder().base_url(users).build()?;

    // The body is part of the call, and a 4xx or 5xx an error. The server's 503 isn't seen here.
    let user: User = client.get("/users/7").fetch_json().await?;
    println!("user {} is {}", user.id, user.name);

    // Every response and every error says how it came about.
    let response = client.get("/users/8").send().await?;
    println!("\n{}\n{}", response.status(), response.report());

    // A POST may have been processed before it failed, so its 503 is the answer...
    let user = User { id: 9, name: "Grace".to_owned() };
    let response = client.post("/users").json(&user).send().await?;
    println!("\n{}\n{}", response.status(), response.report());

    // ...unless it has a key by which the server knows it again.
    let response = client.post("/users").idempotency_key("user-9").json(&user).send().await?;
    println!("\n{}\n{}", response.status(), response.report());

    // Nobody listens there.
    if let Err(error) = client.get("http://127.0.0.1:1/users/7").send().await {
        println!("\n{error}; the server has seen nothing of it: {}", error.is_unsent());
        if let Some(report) = error.report() {
            println!("{report}");
        }
    }
    Ok(())
}

/// A service that fails at first: a retry says in this header which attempt it is.
fn flaky_users() -> Router {
    async fn fail_at_first(request: Request, next: Next) -> Response {
        if request.headers().contains_key(ATTEMPT_COUNT) {
            next.run(request).await
        } else {
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
    let user = async |Path(id): Path<u64>| Json(User { id, name: "Ada".to_owned() });
    let make = async |Json(user): Json<User>| (StatusCode::CREATED, Json(user));
    Router::new()
        .route("/users/{id}", get(user))
        .route("/users", post(make))
        .layer(middleware::from_fn(fail_at_first))
}

/// Serves `app` on a free port, and returns its URL.
async fn serve(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}
