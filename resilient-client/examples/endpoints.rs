//! Three replicas behind one name: the client knows them apart, goes round the one that is gone,
//! and follows the list that a registry keeps.
//!
//! ```sh
//! cargo run -p resilient-client --example endpoints
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use axum::Router;
use axum::routing::get;
use resilient_client::{Client, Endpoints};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [ada, ben, cyd] = [start("ada").await?, start("ben").await?, start("cyd").await?];

    // A list to be replaced at any time, by whoever watches the registry. Where it never changes:
    // Endpoints::fixed; where DNS has it: Endpoints::dns.
    let (endpoints, registry) = Endpoints::watched();
    registry.set([&ada.origin, &ben.origin, &cyd.origin])?;
    let client = Client::builder().endpoints("http://users", endpoints).build()?;
    ask(&client, "three replicas").await?;

    // One is stopped, and the registry doesn't know it yet: what finds nobody there goes elsewhere.
    ada.stop().await?;
    ask(&client, "ada is stopped").await?;
    for endpoint in client.snapshot().iter().flat_map(|upstream| &upstream.endpoints) {
        println!("  {}: {:.0} % fail lately", endpoint.origin, endpoint.failing * 100.0);
    }

    // Now it does. Who stays keeps what is known of it; who comes starts slowly.
    let dan = start("dan").await?;
    let changed = registry.set([&ben.origin, &cyd.origin, &dan.origin])?;
    println!("the registry: {} added, {} removed", changed.added, changed.removed);
    ask(&client, "dan in ada's place").await
}

/// Twenty calls at once, and who answered them.
async fn ask(client: &Client, when: &str) -> Result<(), Box<dyn Error>> {
    let mut calls: JoinSet<_> = (0..20).map(|_| client.get("http://users/name").fetch_text()).collect();
    let mut answers = BTreeMap::<String, u32>::new();
    while let Some(name) = calls.join_next().await {
        *answers.entry(name??).or_default() += 1;
    }
    println!("{when}: {} of 20 answered, {answers:?}", answers.values().sum::<u32>());
    Ok(())
}

/// A server that says its name, on a free port.
struct Replica {
    origin: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

async fn start(name: &'static str) -> std::io::Result<Replica> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel();
    let app = Router::new().route("/name", get(name));
    let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) });
    Ok(Replica { origin, stop, server: tokio::spawn(async { server.await }) })
}

impl Replica {
    /// Closes its port and its connections.
    async fn stop(self) -> Result<(), Box<dyn Error>> {
        drop(self.stop);
        Ok(self.server.await??)
    }
}
