//! order-service: takes orders, and keeps taking them while user-service is down.
//!
//! | route | answers |
//! |---|---|
//! | `POST /orders` `{"user_id", "items": [{"sku", "quantity"}]}` | 201 `confirmed`, 422 unknown user, 202 `pending_verification`; all but 5xx with `Idempotency-Key` replayed |
//! | `GET /orders?limit=1..100&after=<id>&status=<status>` | 200 `{"orders": [..], "next": <id or null>}`, in the order of their commits: who follows `next`, or goes on after the last row seen, misses none (of one status one may: an order changes it later) |
//! | `GET /orders/{id}` | 200, or 404 |
//! | `GET /openapi.json` | all this in `OpenAPI` 3.1 |
//! | `GET /healthz`, `GET /readyz` | the process is alive; its own database answers. The binary answers them at a port of their own, too, and there alone `GET /metrics` |
//!
//! With `--admin` the port for probes has `/admin`, too: a live page of what the client for
//! user-service does, with a token.
//!
//! Every error is `application/problem+json` (RFC 9457). Reads never ask user-service.
//!
//! ```text
//! POST /orders ── routes.rs ── user_lookup.rs: does the user exist? ──> resilient_users.rs ──> user-service
//!                    │   its own 200 about this user: confirmed, 201
//!                    │   its own 404 about this user: nothing stored, 422
//!                    │   anything else: pending_verification, 202
//!                    v
//!                 store.rs <── reconciler.rs: asks again, oldest first: confirmed or rejected
//! ```
//!
//! With `--amqp-url` (feature `amqp`) it keeps a copy of users that follows user-service's events
//! in `RabbitMQ`, and asks user-service only about users that the copy hasn't got: `user_copy/`.
//!
//! A caller that says how long it waits (`x-envoy-expected-rq-timeout-ms`, as resilient-client
//! does) has its answer by then: the question to user-service gets what is left less the time to
//! store the order, and user-service is told the same.
//!
//! An order as JSON: `id`, `user_id`, `items`, `status` (`confirmed`, `pending_verification`,
//! `rejected`), `created_at_ms`, `resolved_at_ms` (null until the reconciler settles it) and
//! `resolutions` (how often the reconciler settled it: 0 or 1).
//!
//! Who answers "does the user exist?" is a trait, [`UserLookup`], so that another client can take
//! the place of [`ResilientUsers`]:
//!
//! ```no_run
//! use order_service::{Existence, LookupRequest, LookupFuture, Unavailable, UserLookup};
//!
//! struct NobodyHome;
//!
//! impl UserLookup for NobodyHome {
//!     fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
//!         Box::pin(async move { Err(Unavailable::new(format!("nobody asked about {}", lookup.user_id))) })
//!     }
//! }
//! ```

mod admin;
mod caller_deadline;
mod config;
mod openapi;
pub mod reconciler;
mod resilient_users;
mod routes;
mod store;
mod user_answer;
#[cfg(feature = "amqp")]
mod user_copy;
mod user_lookup;

use std::sync::Arc;

use axum::Router;
use service_kit::server::Serving;
use tokio::net::TcpListener;

pub use config::Config;
pub use resilient_users::ResilientUsers;
pub use routes::{AppState, app};
pub use service_kit::{clock::Clock, error::Error};
pub use store::{Item, Order, OrderStatus};
pub use user_lookup::{Existence, LookupFuture, LookupRequest, Unavailable, UserLookup};

/// Serves `router` on `listener` until `shutdown` resolves, then drains for at most the configured
/// time.
///
/// `state` is the state `router` was built from: its reconciler runs as long as the server does.
pub async fn serve(
    state: AppState,
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let keys = state.keys.clone();
    state.background.spawn("idempotency keys", move |stop| keys.sweep_until(stop));
    let reconciler = state.reconciler();
    state.background.spawn("reconciler", move |stop| reconciler.run_until(stop));
    #[cfg(feature = "amqp")]
    if let Some(follower) = state.follower.clone() {
        state.background.spawn("copy of users", move |stop| follower.run_until(stop));
    }
    let meters = state.meters.clone();
    state.background.spawn("meters", move |stop| meters.keep_until(stop));
    let AppState { background, health, limits, .. } = state;
    service_kit::server::serve(router, listener, shutdown, Serving { background, health, limits }).await
}

/// Opens the database, brings its schema up to date and serves on `listener` until `shutdown`
/// resolves.
///
/// `users` is asked before an order is stored; `main` passes a [`ResilientUsers`].
pub async fn run(
    config: Config,
    users: Arc<dyn UserLookup>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let state = AppState::open(&config, users).await?;
    let router = app(state.clone());
    serve(state, router, listener, shutdown).await
}
