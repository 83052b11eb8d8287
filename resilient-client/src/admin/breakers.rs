//! A hand on circuit breakers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Desk;
use super::answer::{self, Operator};
use super::rows::Breaker;
use super::watched::Watched;
use crate::BreakerControl;
use crate::access::Refusal;
use crate::engine::Core;
use crate::policy::breaker::Control;

/// The longest name of an upstream, in bytes: a longer one is shown shortened to 200.
const LONGEST_NAME: usize = 256;

/// What is to be done, to which breaker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    client: String,
    upstream: String,
    /// Its own breaker is meant.
    endpoint: Option<String>,
    update_state: Update,
}

/// An operator's words.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Update {
    ForceOpen,
    ForceClosed,
    Disable,
    Observe,
    Enable,
    Reset,
}

impl Update {
    const fn control(self) -> Control {
        match self {
            Self::ForceOpen => Control::ForceOpen,
            Self::ForceClosed => Control::ForceClosed,
            Self::Disable => Control::Disable,
            Self::Observe => Control::Observe,
            Self::Enable => Control::Enable,
            Self::Reset => Control::Reset,
        }
    }

    /// What is told of it.
    const fn told(self) -> &'static str {
        match self {
            Self::ForceOpen => "an operator forced the breaker open",
            Self::ForceClosed => "an operator forced the breaker closed",
            Self::Disable => "an operator disabled the breaker",
            Self::Observe => "an operator let the breaker only observe",
            Self::Enable => "an operator enabled the breaker",
            Self::Reset => "an operator reset the breaker",
        }
    }
}

pub(super) async fn list(_: Operator, State(desk): State<Arc<Desk>>) -> Response {
    let of_client = |client: &Watched| {
        let mut all = Vec::new();
        for upstream in client.core.snapshot() {
            all.push(shown(client, &upstream.name, None, &Breaker::new(&upstream.breaker)));
            for endpoint in &upstream.endpoints {
                let breaker = Breaker::new(&endpoint.breaker);
                all.push(shown(client, &upstream.name, Some(endpoint.origin.as_str()), &breaker));
            }
        }
        all
    };
    let all: Vec<_> = desk.clients.iter().flat_map(of_client).collect();
    answer::json(json!({ "circuitbreakers": all }))
}

fn shown(client: &Watched, upstream: &str, endpoint: Option<&str>, breaker: &Breaker) -> Value {
    json!({ "client": &*client.name, "upstream": upstream, "endpoint": endpoint, "breaker": breaker })
}

pub(super) async fn control(State(desk): State<Arc<Desk>>, request: Request) -> Result<Response, Refusal> {
    let command: Command = answer::read(&desk, request).await?;
    let names = [&command.upstream, command.endpoint.as_ref().unwrap_or(&command.upstream)];
    if names.iter().any(|name| name.len() > LONGEST_NAME || name.contains(char::is_control)) {
        // It would stand in the log as it is.
        let why = format!("A name has at most {LONGEST_NAME} bytes, and no control characters.");
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    let client = desk.client(&command.client)?;
    let core = &client.core;
    // Kept while it is changed.
    let Some(_upstream) = core.upstream_known(&command.upstream) else {
        return Err(answer::unknown("upstream", core.known_names()));
    };
    let refused = |error: crate::Error| Refusal::new(StatusCode::NOT_FOUND, error.to_string());
    let mut breaker = BreakerControl::new(Arc::clone(core), &command.upstream).map_err(refused)?;
    if let Some(endpoint) = &command.endpoint {
        breaker = breaker.endpoint(endpoint).map_err(|_| no_endpoint(core, &command.upstream))?;
    }
    breaker.control(command.update_state.control()).map_err(refused)?;
    let name = command.endpoint.as_deref().unwrap_or(&command.upstream);
    // Whoever reads the log of a service that misbehaves must not have to guess.
    tracing::warn!(target: "resilient_client", upstream = name, "{}", command.update_state.told());
    client.history.note(name, "operator", command.update_state.told().to_owned());
    let breaker = Breaker::new(&breaker.snapshot().map_err(refused)?);
    Ok(answer::json(shown(client, &command.upstream, command.endpoint.as_deref(), &breaker)))
}

fn no_endpoint(core: &Core, upstream: &str) -> Refusal {
    let of = core.snapshot().into_iter().find(|snapshot| *snapshot.name == *upstream);
    let endpoints = of.map(|of| of.endpoints).unwrap_or_default();
    answer::unknown("endpoint", endpoints.into_iter().map(|endpoint| endpoint.origin.to_string()))
}
