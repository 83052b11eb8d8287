//! What the other processes run: the two services, as they are, with what the demo puts round them.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use crate::Problem;
use crate::cli::{Client, ServeOrder, ServeUser};
use crate::faults::Switch;
use crate::lifeline;
use crate::naive::NaiveUsers;

/// user-service, three times: for either order-service behind the faults, and for the demo without.
pub(crate) async fn serve_user(options: ServeUser) -> Result<(), Problem> {
    lifeline::hold();
    let config = user_service::Config { database_url: sqlite(&options.database), ..user_service::Config::default() };
    let state = user_service::AppState::open(&config).await?;
    let app = || user_service::app(state.clone());
    let switch = Switch::default();
    let naive = switch.door(app(), Client::Naive, options.seed);
    let resilient = switch.door(app(), Client::Resilient, options.seed);
    tokio::try_join!(
        serve(naive, options.naive_port),
        serve(resilient, options.resilient_port),
        serve(switch.control(app()), options.control_port),
    )?;
    Ok(())
}

/// order-service with one client or the other.
pub(crate) async fn serve_order(options: ServeOrder) -> Result<(), Problem> {
    lifeline::hold();
    let config = order_service::Config {
        database_url: sqlite(&options.database),
        user_service_url: options.user_service,
        ..order_service::Config::default()
    };
    let listener = listen(options.port).await?;
    let (state, router) = match options.client {
        Client::Naive => {
            let users = NaiveUsers::new(config.user_service_url.clone());
            let state = order_service::AppState::open(&config, Arc::new(users.clone())).await?;
            (state.clone(), users.in_front_of(order_service::app(state)))
        }
        Client::Resilient => {
            let users = NaiveUsers::tmp(config.user_service_url.clone()); // TMP
            let state = order_service::AppState::open(&config, Arc::new(users)).await?;
            (state.clone(), order_service::app(state))
        }
    };
    // It ends with the demo, or when the demo kills it.
    Ok(order_service::serve(state, router, listener, std::future::pending()).await?)
}

async fn serve(router: Router, port: u16) -> std::io::Result<()> {
    axum::serve(listen(port).await?, router).await
}

async fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

fn sqlite(file: &Path) -> String {
    format!("sqlite://{}?mode=rwc", file.display())
}
