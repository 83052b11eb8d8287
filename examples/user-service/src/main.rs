//! Starts user-service; `--help` lists the settings.

use std::process::ExitCode;

use clap::Parser;
use service_kit::{health::Health, logs::LogFormat, meters::Meters, server, start, traces::TraceOptions};
use user_service::{AppState, Config, Error, app, serve};

#[derive(Parser)]
#[command(name = "user-service", version, about, max_term_width = 80)]
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
    start::traced("user-service", log_format, &traces, run(config))
}

/// Answers probes first, and listens once there is something to serve.
async fn run(config: Config) -> Result<(), Error> {
    // Before anyone can know that this process is up, and tell it to stop.
    let mut told_to_stop = Box::pin(server::signal()?);
    let (health, meters) = (Health::default(), Meters::default());
    let faults = config.faults.open()?;
    let probes = start::listen(&config.host, start::health_port(config.port, config.health_port)?).await?;
    start::announce("user-service answers probes on", &probes)?;
    faults.announce(&probes)?;
    tokio::spawn(health.clone().serve_beside(faults.admin().merge(meters.routes()), probes));
    let state = tokio::select! {
        state = AppState::open(&config) => state?.with_health(health.clone()).with_meters(meters),
        () = &mut told_to_stop => {
            tracing::info!("told to stop before it was ready");
            return Ok(());
        }
    };
    let listener = start::listen(&config.host, config.port).await?;
    start::announce("user-service listens on", &listener)?;
    let router = faults.around(app(state.clone()), &health, &config.limits);
    serve(state, router, listener, told_to_stop).await
}
