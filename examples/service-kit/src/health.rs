//! Liveness and readiness. Neither asks another service: its outage must not take this one out of rotation.
//!
//! Two routes that ask this service's own database: nothing here that a library could know.

use std::time::Duration;

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{database::Database, problem::Problem};

/// A probe gives up long before its orchestrator does.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// `/healthz` and `/readyz`.
pub fn routes(database: Database) -> Router {
    Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(ready).with_state(database))
}

async fn ready(State(database): State<Database>) -> Result<Json<Value>, Problem> {
    match timeout(READY_TIMEOUT, database.ping()).await {
        Ok(Ok(())) => return Ok(Json(json!({ "status": "ready" }))),
        Ok(Err(error)) => tracing::warn!(%error, "not ready"),
        Err(_elapsed) => tracing::warn!("not ready: the database did not answer in time"),
    }
    Err(Problem::unavailable(Duration::from_secs(1)).detail("The service's own database does not answer."))
}
