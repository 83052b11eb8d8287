//! Liveness and readiness. Neither asks another service: its outage must not take this one out of
//! rotation.
//!
//! They are answered at a listener of their own, so that neither a flood of connections nor a
//! database that isn't there yet makes a living process look dead; and once more beside the
//! service's own routes.
//!
//! Two routes that ask this service's own database: nothing here that a library could know.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

use crate::{
    database::Database,
    http,
    limits::Limits,
    problem::Problem,
    server::{Bounds, serve_forever},
};

/// A probe gives up long before its orchestrator does.
const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes are few, short and soon back.
const BOUNDS: Bounds = Bounds {
    connections: 64,
    connections_per_peer: 64,
    idle: Duration::from_secs(30),
    head: Duration::from_secs(2),
    write: Duration::from_secs(2),
};

/// How the service is. A clone is the same service's.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Empty until the service is ready.
    database: Arc<OnceLock<Database>>,
    leaving: Arc<AtomicBool>,
}

impl Health {
    /// From now on the service is as ready as its database.
    pub fn started(&self, database: &Database) {
        // A second database would be another service's.
        let _ = self.database.set(database.clone());
    }

    /// From now on the service wants no new requests.
    pub fn leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// `/healthz` and `/readyz`.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/healthz", get(async || Json(json!({ "status": "alive" }))))
            .route("/readyz", get(ready).with_state(self.clone()))
    }

    /// Answers the two at a listener of their own, for as long as the future is polled.
    pub async fn serve(self, listener: TcpListener) {
        self.serve_beside(Router::new(), listener).await;
    }

    /// The same, with other routes of the operator's.
    pub async fn serve_beside(self, routes: Router, listener: TcpListener) {
        let limits = Limits::default();
        serve_forever(http::wrap(self.routes().merge(routes), &limits), listener, BOUNDS).await;
    }
}

async fn ready(State(health): State<Health>) -> Result<Json<Value>, Problem> {
    let not_ready = |why| Err(Problem::unavailable(Duration::from_secs(1)).detail(why));
    if health.leaving.load(Ordering::Relaxed) {
        return not_ready("The service is shutting down.");
    }
    let Some(database) = health.database.get() else {
        return not_ready("The service is starting: its database doesn't answer yet.");
    };
    match timeout(READY_TIMEOUT, database.ping()).await {
        Ok(Ok(())) => return Ok(Json(json!({ "status": "ready" }))),
        Ok(Err(error)) => tracing::warn!(%error, "not ready"),
        Err(_elapsed) => tracing::warn!("not ready: the database did not answer in time"),
    }
    not_ready("The service's own database does not answer, or stores nothing.")
}
