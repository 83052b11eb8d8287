//! What the other processes run: the two services, as they are, with what the demo puts round them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use order_service::{Existence, LookupFuture, LookupRequest, ResilientUsers, UserLookup};
use resilient_client::access::Access;
use resilient_client::admin::Admin;
use service_kit::database::Synchronous;
use service_kit::faults::FaultOptions;
use service_kit::health::Health;
use service_kit::limits::Limits;
use service_kit::meters::Meters;
use service_kit::traces::{TraceOptions, Traces};
use tokio::net::TcpListener;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::Problem;
use crate::ask_first::AskFirst;
use crate::believing::BelievingUsers;
use crate::breaker_log;
use crate::broker;
use crate::budget_log;
use crate::cli::{Client, ServeGateway, ServeOrder, ServeUser};
use crate::counted::{Caller, ServerLog};
use crate::faults::Switch;
use crate::follow::{HEARTBEAT, Reader};
use crate::gateway;
use crate::load::NOBODY;
use crate::naive::NaiveUsers;
use crate::orphan_guard;
use crate::parts::{Part, Without};

/// user-service, several times: for each order-service behind the faults, and for the demo without.
pub(crate) async fn serve_user(options: ServeUser) -> Result<(), Problem> {
    orphan_guard::exit_with_parent();
    let _traces = log("user-service", options.traces)?;
    let mut config = user_service::Config {
        database_url: sqlite(&options.database),
        events_heartbeat_ms: HEARTBEAT.as_millis() as u64,
        ..Default::default()
    };
    share_of_one_host(&mut config.limits);
    let faults_token = options.faults_token;
    config.faults = FaultOptions { faults: faults_token.is_some(), faults_token };
    let (faulty, health) = (config.faults.open()?, Health::default());
    let state = user_service::AppState::open(&config).await?;
    let mut publishing = state.clone();
    if options.broker {
        // The demo makes its users at the third door; one that publishes is enough.
        config.amqp_url = broker::url();
        publishing = user_service::AppState::open(&config).await?;
    }
    let app = || faulty.around(user_service::app(state.clone()), &health, &config.limits);
    let switch = Switch::default();
    let log = options.log.as_deref().map(ServerLog::open).transpose()?;
    let door = |client: Client| {
        let log = log.clone().filter(|_| client == Client::Resilient);
        switch.door(app(), client, options.seed, log)
    };
    let (tell, told) = tokio::sync::watch::channel(false);
    let mut signal = Box::pin(service_kit::server::signal()?);
    tokio::spawn(async move {
        (&mut signal).await;
        let _ = tell.send(true);
    });
    let control =
        switch.control(user_service::app(publishing.clone()), &options.control_token).merge(faulty.admin());
    let serve = async |state, router, port| {
        let listener = listen(port).await?;
        let mut told = told.clone();
        // It ends with the demo, or when the demo kills it or tells it to stop.
        let shutdown = async move {
            let _ = told.wait_for(|told| *told).await;
        };
        user_service::serve(state, router, listener, shutdown).await?;
        Ok::<_, Problem>(())
    };
    let doors = options.door.iter().map(|(client, port)| serve(state.clone(), door(*client), *port));
    let doors = futures_util::future::try_join_all(doors.collect::<Vec<_>>());
    tokio::try_join!(doors, serve(publishing, control, options.control_port))?;
    Ok(())
}

/// order-service with one client or the other.
pub(crate) async fn serve_order(options: ServeOrder) -> Result<(), Problem> {
    orphan_guard::exit_with_parent();
    let _traces = log(&format!("{} order-service", options.client.name()), options.traces)?;
    let mut config = order_service::Config {
        database_url: sqlite(&options.database),
        // Nobody pulls the plug here, and a commit that waits for the disk would show what else is
        // written to it.
        sqlite_synchronous: Synchronous::Normal,
        ..Default::default()
    };
    share_of_one_host(&mut config.limits);
    if let Some(user_service) = options.user_service {
        config.user_service_url = user_service;
    }
    let without = Without { unprotected: options.unprotected, parts: options.without };
    if options.broker && without.has(Part::Copy) {
        config.amqp_url = broker::url();
    }
    let show = |client: &resilient_client::Client| match (options.admin_port, &options.admin_token) {
        (Some(port), Some(token)) => show_operator(client, port, token),
        _ => Ok(()),
    };
    let meters = Meters::default();
    let caller = Caller::new(&meters, options.reports.as_deref())?;
    let reader = match options.client {
        Client::Naive | Client::NaiveToo | Client::NaiveThree if options.streams => {
            Some(Reader::naive(options.naive)?)
        }
        Client::Resilient if options.streams => Some(Reader::resilient(&without, &caller)?),
        _ => None,
    };
    if let Some(reader) = reader {
        reader.follow(&config.user_service_url);
    }
    let (state, router) = match options.client {
        Client::Naive | Client::NaiveToo | Client::NaiveThree => {
            let users = NaiveUsers::new(options.naive, &config.user_service_url)?;
            asked_first(&config, AskFirst::new(users)).await?
        }
        Client::Resilient if !without.has(Part::AnswerCheck) => {
            let users = BelievingUsers::new(&config, caller, |policy| without.adjust(policy))?;
            show(users.client())?;
            with_fallback(&config, users, &without).await?
        }
        Client::Resilient => {
            let client = resilient_client::Client::builder().observer(breaker_log::reporter());
            let mut client = caller.counting(client);
            if !without.has(Part::Deadlines) {
                client = client.deadline_header(None);
            }
            let users = ResilientUsers::adjusted(&config, client, |policy| without.adjust(policy))?;
            caller.counted(users.client());
            let users = users.reporting(move |report, end| caller.report(report, end));
            budget_log::tell(users.clone());
            show(users.client())?;
            with_fallback(&config, users, &without).await?
        }
        Client::Alone => keeping(&config, KnownUsers).await?,
    };
    // It ends with the demo, or when the demo kills it.
    let listener = listen(options.port).await?;
    let router = router.merge(meters.routes());
    Ok(order_service::serve(state, router, listener, std::future::pending()).await?)
}

/// The admin page of its client, on this host, by the token.
fn show_operator(client: &resilient_client::Client, port: u16, token: &str) -> Result<(), Problem> {
    let admin: Router = Admin::new(Access::token(token)).client("user-service", client).router()?;
    tokio::spawn(async move {
        let listener = listen(port).await?;
        Health::default().serve_beside(Router::new().nest_service("/admin", admin), listener).await;
        std::io::Result::Ok(())
    });
    Ok(())
}

/// What stands in front of an order-service in a chain of three.
pub(crate) async fn serve_gateway(options: ServeGateway) -> Result<(), Problem> {
    orphan_guard::exit_with_parent();
    let _traces = log(&format!("{} gateway", options.client.name()), options.traces)?;
    let without = Without { unprotected: options.unprotected, parts: options.without };
    let router = gateway::router(options.client, &options.order_service, &without)?;
    let mut limits = Limits::default();
    share_of_one_host(&mut limits);
    // It ends with the demo, or when the demo kills it.
    service_kit::server::serve_forever(router, listen(options.port).await?, limits.bounds()).await;
    Ok(())
}

type Service = (order_service::AppState, Router);

/// order-service as it is: an order whose question isn't answered is kept.
async fn keeping(config: &order_service::Config, users: impl UserLookup) -> Result<Service, Problem> {
    let state = order_service::AppState::open(config, Arc::new(users)).await?;
    Ok((state.clone(), order_service::app(state)))
}

/// The same, but such an order fails.
async fn asked_first(config: &order_service::Config, users: AskFirst) -> Result<Service, Problem> {
    let (state, router) = keeping(config, users.clone()).await?;
    Ok((state, users.in_front_of(router)))
}

async fn with_fallback(
    config: &order_service::Config,
    users: impl UserLookup,
    without: &Without,
) -> Result<Service, Problem> {
    if without.has(Part::Fallback) {
        keeping(config, users).await
    } else {
        asked_first(config, AskFirst::new(users)).await
    }
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

/// Warnings, and all that circuit breakers do, to the log; what it does for whom to `traces`.
fn log(service: &str, traces: Option<PathBuf>) -> Result<Traces, Problem> {
    let traces = TraceOptions::to_file(traces).open(service)?;
    let interesting = Targets::new().with_default(Level::WARN).with_target("resilient_client", Level::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(interesting)).with(traces.layer()).try_init()?;
    Ok(traces)
}
