//! Policies from a file, changed while the service runs: `kill -HUP` puts the file in force, all of
//! it or nothing of it. Breakers, budgets and calls under way stay as they are.
//!
//! ```sh
//! cargo run -p resilient-client --features config --example reload-on-sighup
//! ```
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use resilient_client::policy::PolicySet;
use resilient_client::{Client, Reloaded};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// What a service spawns once.
#[cfg(unix)]
async fn reload_on_sighup(mut hangups: Signal, client: Client, file: PathBuf, seen: Arc<Notify>) {
    while hangups.recv().await.is_some() {
        match reload(&client, &file) {
            Ok(Reloaded { version, changes, .. }) => println!("version {version}: {}", changes.join(", ")),
            Err(error) => println!("nothing is changed: {error}"),
        }
        // For the operator in `main`; a service has no use for it.
        seen.notify_one();
    }
}

fn reload(client: &Client, file: &Path) -> Result<Reloaded, Box<dyn Error>> {
    Ok(client.reload(read(file)?)?)
}

fn read(file: &Path) -> Result<PolicySet, Box<dyn Error>> {
    Ok(toml::from_str(&std::fs::read_to_string(file)?)?)
}

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = serve(Router::new().route("/users/7", get(StatusCode::SERVICE_UNAVAILABLE))).await?;
    let file = std::env::temp_dir().join(format!("policy-{}.toml", std::process::id()));
    std::fs::write(&file, "retry = { max_attempts = 3 }\n")?;

    let client = Client::builder().policy(read(&file)?).base_url(users).build()?;
    let seen = Arc::new(Notify::new());
    // From here on the signal doesn't end the process.
    let hangups = signal(SignalKind::hangup())?;
    tokio::spawn(reload_on_sighup(hangups, client.clone(), file.clone(), Arc::clone(&seen)));
    ask(&client).await?;

    // The second file has a slip of the pen in it.
    for text in ["retry = \"off\"\nbulkhead = { max_in_flight = 64 }\n", "retry = { max_atempts = 3 }\n"] {
        std::fs::write(&file, text)?;
        // As an operator does it; to the shell this process is its parent.
        Command::new("sh").args(["-c", "kill -HUP $PPID"]).status()?;
        seen.notified().await;
        ask(&client).await?;
    }
    std::fs::remove_file(file)?;
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!("there is no SIGHUP here");
}

async fn ask(client: &Client) -> Result<(), resilient_client::Error> {
    let response = client.get("/users/7").send().await?;
    let report = response.report();
    println!("attempts under version {}: {}\n", report.policy_version(), report.attempts().len());
    Ok(())
}

/// Serves `app` on a free port, and returns its URL.
async fn serve(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}
