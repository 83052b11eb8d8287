//! The policies in force, and whether others would load.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Desk;
use super::answer::{self, Operator};
use super::rows::millis;
use super::watched::Watched;
use crate::access::Refusal;
use crate::engine::Reloaded;
use crate::policy::{Policy, PolicySet};
use crate::time;

pub(super) async fn get(_: Operator, State(desk): State<Arc<Desk>>) -> Response {
    let now = time::now();
    let shown = |client: &Watched| {
        let (set, version, since) = client.core.in_force();
        json!({
            "client": &*client.name,
            "version": version,
            "source": if version == 0 { "given to the builder" } else { "reloaded" },
            "for": millis(now.since(since)),
            "differs_from_standard": PolicySet::new(Policy::standard()).differences(&set),
            "policy": &set,
        })
    };
    answer::json(json!({ "policies": desk.clients.iter().map(shown).collect::<Vec<_>>() }))
}

/// A policy file as JSON, and for which client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    client: String,
    policy: Value,
}

pub(super) async fn check(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Refusal> {
    let Proposal { client, policy } = answer::read(&desk, request).await?;
    let client = desk.client(&client)?;
    let unreadable =
        |error: serde_json::Error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    let set: PolicySet = serde_json::from_value(policy).map_err(unreadable)?;
    let Reloaded { version, changes, not_applied } = client
        .core
        .would_reload(&set)
        .map_err(|invalid| Refusal::of("These policies can't work.", &invalid))?;
    Ok(answer::json(json!({ "version": version, "changes": changes, "not_applied": not_applied })))
}
