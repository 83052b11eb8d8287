//! The services, each as its own binary runs it: probes first, and it listens once it has a
//! database.

use std::{future::pending, sync::Arc};

use order_service::{Error, ResilientUsers};
use service_kit::{health::Health, start};

pub(crate) async fn users(config: user_service::Config) -> Result<(), Error> {
    let health = probes(&config.host, config.port, config.health_port).await?;
    let state = user_service::AppState::open(&config).await?.with_health(health);
    let listener = start::listen(&config.host, config.port).await?;
    user_service::serve(state.clone(), user_service::app(state), listener, pending()).await
}

pub(crate) async fn orders(config: order_service::Config) -> Result<(), Error> {
    let users = Arc::new(ResilientUsers::new(&config)?);
    let health = probes(&config.host, config.port, config.health_port).await?;
    let state = order_service::AppState::open(&config, users).await?.with_health(health);
    let listener = start::listen(&config.host, config.port).await?;
    order_service::serve(state.clone(), order_service::app(state), listener, pending()).await
}

async fn probes(host: &str, port: u16, health_port: Option<u16>) -> Result<Health, Error> {
    let health = Health::default();
    let listener = start::listen(host, start::health_port(port, health_port)?).await?;
    tokio::spawn(health.clone().serve(listener));
    Ok(health)
}
