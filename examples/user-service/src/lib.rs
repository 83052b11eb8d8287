//! user-service: the service that order-service depends on and that the demo breaks on purpose.
//!
//! | route | answers |
//! |---|---|
//! | `POST /users` `{"name", "email"}` | 201 with `Location`; honours `Idempotency-Key` |
//! | `GET /users?limit=1..100&after=<id>` | 200 `{"users": [..], "next": <id or null>, "last_change": <number>, "database": <id>, "mark": <text>}`, each user with the `version` of its last change, in the order of their commits: who follows `next`, or goes on after the last row seen, misses none |
//! | `PUT /users/{id}` `{"name", "email"}` | 200, or 404 as below |
//! | `GET /users/{id}` | 200, or 404 of type `urn:problem:user-not-found` with the id in `instance` |
//! | `GET /users/events` | 200, server-sent events: users as they are created and changed; goes on after `Last-Event-ID` |
//! | `GET /openapi.json` | all this in `OpenAPI` 3.1 |
//! | `GET /healthz`, `GET /readyz` | the process is alive; its own database answers. The binary answers them at a port of their own, too, and there alone `GET /metrics` |
//!
//! With `--amqp-url` (feature `amqp`) every new and changed user is an event in `RabbitMQ`, too:
//! `outbox.rs`, `relay.rs`.
//!
//! Every error is `application/problem+json` (RFC 9457).
//!
//! ```text
//! main.rs ── Config ──> AppState::open ──> app(state): Router ──> serve(state, router, listener, shutdown)
//!                          │                  │
//!                       store.rs           routes.rs            plumbing/: what any service needs
//! ```
//!
//! [`run`] is those steps in a row. To put a layer round the service, fault injection for instance,
//! take them apart:
//!
//! ```no_run
//! # async fn example(config: user_service::Config, listener: tokio::net::TcpListener) -> Result<(), user_service::Error> {
//! let state = user_service::AppState::open(&config).await?;
//! let router = user_service::app(state.clone()); // .layer(faults)
//! user_service::serve(state, router, listener, std::future::pending()).await
//! # }
//! ```

mod changes;
mod config;
mod events;
mod openapi;
mod outbox;
#[cfg(feature = "amqp")]
mod relay;
mod routes;
mod store;

use axum::Router;
use service_kit::server::Serving;
use tokio::net::TcpListener;

pub use config::Config;
pub use routes::{AppState, app};
pub use service_kit::{clock::Clock, error::Error};
pub use store::User;

/// Serves `router` on `listener` until `shutdown` resolves, then drains for at most the configured
/// time.
///
/// `state` is the state `router` was built from: its background work runs as long as the server
/// does.
pub async fn serve(
    state: AppState,
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let keys = state.keys.clone();
    state.background.spawn("idempotency keys", move |stop| keys.sweep_until(stop));
    #[cfg(feature = "amqp")]
    if let Some(broker) = state.broker.clone() {
        let (database, outbox, clock) = (state.database.clone(), state.outbox.clone(), state.clock.clone());
        let relay = relay::Relay { broker, database, outbox, clock };
        state.background.spawn("relay", move |stop| relay.run_until(stop));
    }
    let meters = state.meters.clone();
    state.background.spawn("meters", move |stop| meters.keep_until(stop));
    let AppState { background, health, limits, .. } = state;
    service_kit::server::serve(router, listener, shutdown, Serving { background, health, limits }).await
}

/// Opens the database, brings its schema up to date and serves on `listener` until `shutdown`
/// resolves.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let state = AppState::open(&config).await?;
    let router = app(state.clone());
    serve(state, router, listener, shutdown).await
}
