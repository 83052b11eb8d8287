//! Starts order-service; `--help` lists the settings.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use order_service::{AppState, Config, Error, ResilientUsers, app, serve};
use service_kit::{
    health::Health,
    logs::{self, LogFormat},
    server, start,
};

#[derive(Parser)]
#[command(name = "order-service", version, about, max_term_width = 80)]
struct Cli {
    #[command(flatten)]
    config: Config,
    /// How log lines look on stderr; `RUST_LOG` chooses which
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    let Cli { config, log_format } = Cli::parse();
    logs::init(log_format);
    start::run("order-service", run(config))
}

/// Answers probes first, and listens once there is something to serve.
async fn run(config: Config) -> Result<(), Error> {
    let users = Arc::new(ResilientUsers::new(&config)?);
    // Before anyone can know that this process is up, and tell it to stop.
    let mut told_to_stop = Box::pin(server::signal()?);
    let health = Health::default();
    let faults = config.faults.open()?;
    let probes = start::listen(&config.host, start::health_port(config.port, config.health_port)?).await?;
    start::announce("order-service answers probes on", &probes)?;
    faults.announce(&probes)?;
    let operators = faults.admin().merge(config.admin.router(&users, &probes)?);
    tokio::spawn(health.clone().serve_beside(operators, probes));
    let state = tokio::select! {
        state = AppState::open(&config, users) => state?.with_health(health.clone()),
        () = &mut told_to_stop => {
            tracing::info!("told to stop before it was ready");
            return Ok(());
        }
    };
    let listener = start::listen(&config.host, config.port).await?;
    start::announce("order-service listens on", &listener)?;
    let router = faults.around(app(state.clone()), &health, &config.limits);
    serve(state, router, listener, told_to_stop).await
}
