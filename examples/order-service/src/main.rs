//! Starts order-service; `--help` lists the settings.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use order_service::{AppState, Config, Error, ResilientUsers, app, serve};
use service_kit::{health::Health, logs::LogFormat, meters::Meters, server, start, traces::TraceOptions};

#[derive(Parser)]
#[command(name = "order-service", version, about, max_term_width = 80)]
struct Cli {
    #[command(flatten)]
    config: Config,
    /// How log lines look on stderr; `RUST_LOG` chooses which
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    traces: TraceOptions,
}

fn main() -> ExitCode {
    let Cli { config, log_format, traces } = Cli::parse();
    start::traced("order-service", log_format, &traces, run(config))
}

/// Answers probes first, and listens once there is something to serve.
async fn run(config: Config) -> Result<(), Error> {
    let meters = Meters::default();
    let users = Arc::new(ResilientUsers::metered(&config, &meters)?);
    // Before anyone can know that this process is up, and tell it to stop.
    let mut told_to_stop = Box::pin(server::signal()?);
    let health = Health::default();
    let faults = config.faults.open()?;
    let probes = start::listen(&config.host, start::health_port(config.port, config.health_port)?).await?;
    start::announce("order-service answers probes on", &probes)?;
    faults.announce(&probes)?;
    let operators = faults.admin().merge(meters.routes()).merge(config.admin.router(&users, &probes)?);
    tokio::spawn(health.clone().serve_beside(operators, probes));
    let state = tokio::select! {
        state = AppState::open(&config, users) => state?.with_health(health.clone()).with_meters(meters),
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
