//! What the other processes run: the two services, as they are, with what the demo puts round them.

use std::path::Path;
use std::sync::Arc;

use order_service::{Existence, LookupFuture, LookupRequest, ResilientUsers, UserLookup};
use service_kit::limits::Limits;
use tokio::net::TcpListener;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::Problem;
use crate::breaker_log;
use crate::cli::{Client, ServeOrder, ServeUser};
use crate::faults::Switch;
use crate::load::NOBODY;
use crate::naive::NaiveUsers;
use crate::orphan_guard;

/// user-service, three times: for either order-service behind the faults, and for the demo without.
pub(crate) async fn serve_user(options: ServeUser) -> Result<(), Problem> {
    orphan_guard::exit_with_parent();
    log()?;
    let mut config = user_service::Config { database_url: sqlite(&options.database), ..Default::default() };
    share_of_one_host(&mut config.limits);
    let state = user_service::AppState::open(&config).await?;
    let app = || user_service::app(state.clone());
    let switch = Switch::default();
    let naive = switch.door(app(), Client::Naive, options.seed);
    let resilient = switch.door(app(), Client::Resilient, options.seed);
    let serve = async |router, port| {
        let listener = listen(port).await?;
        // It ends with the demo, or when the demo kills it.
        user_service::serve(state.clone(), router, listener, std::future::pending()).await?;
        Ok::<_, Problem>(())
    };
    tokio::try_join!(
        serve(naive, options.naive_port),
        serve(resilient, options.resilient_port),
        serve(switch.control(app()), options.control_port),
    )?;
    Ok(())
}

/// order-service with one client or the other.
pub(crate) async fn serve_order(options: ServeOrder) -> Result<(), Problem> {
    orphan_guard::exit_with_parent();
    log()?;
    let mut config = order_service::Config { database_url: sqlite(&options.database), ..Default::default() };
    share_of_one_host(&mut config.limits);
    if let Some(user_service) = options.user_service {
        config.user_service_url = user_service;
    }
    let open = async |users: Arc<dyn UserLookup>| order_service::AppState::open(&config, users).await;
    let (state, router) = match options.client {
        Client::Naive => {
            let users = NaiveUsers::new(&config.user_service_url)?;
            let state = open(Arc::new(users.clone())).await?;
            (state.clone(), users.in_front_of(order_service::app(state)))
        }
        Client::Resilient => {
            let state = open(Arc::new(ResilientUsers::observed(&config, breaker_log::reporter())?)).await?;
            (state.clone(), order_service::app(state))
        }
        Client::Alone => {
            let state = open(Arc::new(KnownUsers)).await?;
            (state.clone(), order_service::app(state))
        }
    };
    // It ends with the demo, or when the demo kills it.
    let listener = listen(options.port).await?;
    Ok(order_service::serve(state, router, listener, std::future::pending()).await?)
}

/// Here every client is on this host, so one peer is all of them.
fn share_of_one_host(limits: &mut Limits) {
    limits.max_connections_per_peer = limits.max_connections;
}

/// Knows who exists without asking.
struct KnownUsers;

impl UserLookup for KnownUsers {
    fn lookup<'a>(&'a self, lookup: LookupRequest<'a>) -> LookupFuture<'a> {
        let existence = if lookup.user_id == NOBODY { Existence::Unknown } else { Existence::Exists };
        Box::pin(async move { Ok(existence) })
    }
}

async fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

fn sqlite(file: &Path) -> String {
    format!("sqlite://{}?mode=rwc", file.display())
}

/// Warnings, and all that circuit breakers do, to the log.
fn log() -> Result<(), Problem> {
    let interesting = Targets::new().with_default(Level::WARN).with_target("resilient_client", Level::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(interesting)).try_init()?;
    Ok(())
}
