//! A reading of your own for a server that means something else by a status than others do.
//!
//! ```sh
//! cargo run -p resilient-client --example custom-classifier
//! ```

use std::error::Error;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use resilient_client::outcome::classify::{Classified, Ended, Repeat};
use resilient_client::policy::PolicySet;
use resilient_client::{ATTEMPT_COUNT, Client, Policy};
use tokio::net::TcpListener;

/// What the partner's documentation says of its answers. It is given what the standard table says,
/// and returns that for all else.
fn partner(end: Ended<'_>, standard: Classified) -> Classified {
    match end {
        // "Another request holds the account, try again." A repeat makes a failure of it; that the
        // breaker takes it for a success stays.
        Ended::Response(StatusCode::CONFLICT, _) => standard.with_repeat(Repeat::IfSafe),
        // "There is no such account." Final, and no sign that the server is unwell.
        Ended::Response(StatusCode::INTERNAL_SERVER_ERROR, headers)
            if headers.contains_key("x-no-account") =>
        {
            Classified::SUCCESS
        }
        _ => standard,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = serve(accounts()).await?;

    // For this host alone: a 409 of any other is what it was.
    let policies = PolicySet::new(Policy::standard()).host(&url, |base| base.classify(partner));
    let client = Client::builder().policy(policies).base_url(&url).build()?;

    let locked = client.get("/accounts/7").send().await?;
    println!("{}\n{}", locked.status(), locked.report());

    let unknown = client.get("/accounts/8").send().await?;
    println!("\n{}\n{}", unknown.status(), unknown.report());

    let counts = client.breaker(&url)?.snapshot()?;
    println!("\nthe breaker has counted {} failures, {} successes", counts.failures, counts.successes);
    Ok(())
}

/// The partner: one account is held at first, and of the other it knows nothing.
fn accounts() -> Router {
    async fn account(headers: HeaderMap) -> Result<&'static str, StatusCode> {
        // A retry says so.
        if headers.contains_key(ATTEMPT_COUNT) { Ok("12 pounds") } else { Err(StatusCode::CONFLICT) }
    }
    let unknown = (StatusCode::INTERNAL_SERVER_ERROR, [("x-no-account", "8")]);
    Router::new().route("/accounts/7", get(account)).route("/accounts/8", get(unknown))
}

/// Serves `app` on a free port, and returns its URL.
async fn serve(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}
