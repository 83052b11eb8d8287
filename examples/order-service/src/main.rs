//! Starts order-service; `--help` lists the settings.

use std::{error::Error, process::ExitCode, sync::Arc};

use clap::Parser;
use order_service::{Config, ResilientUsers};
use service_kit::{
    error::causes,
    logs::{self, LogFormat},
    server,
};
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(name = "order-service", version, about)]
struct Cli {
    #[command(flatten)]
    config: Config,
    /// How log lines look on stderr; `RUST_LOG` chooses which
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { config, log_format } = Cli::parse();
    logs::init(log_format);
    match start(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("order-service: {}", causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn start(config: Config) -> Result<(), Box<dyn Error>> {
    let users = Arc::new(ResilientUsers::new(&config)?);
    // Before anyone can know that this process is up, and tell it to stop.
    let shutdown = server::signal()?;
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await?;
    // On stdout, so that whoever asked for port 0 can read which port it became.
    println!("order-service listens on http://{}", listener.local_addr()?);
    order_service::run(config, users, listener, shutdown).await?;
    Ok(())
}
