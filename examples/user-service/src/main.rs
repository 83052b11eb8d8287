//! Starts user-service; `--help` lists the settings.

use std::error::Error;

use clap::Parser;
use tokio::net::TcpListener;
use user_service::{
    Config,
    plumbing::{
        logs::{self, LogFormat},
        server,
    },
};

#[derive(Parser)]
#[command(name = "user-service", version, about)]
struct Cli {
    #[command(flatten)]
    config: Config,
    /// How log lines look on stderr; `RUST_LOG` chooses which
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Cli { config, log_format } = Cli::parse();
    logs::init(log_format);
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await?;
    // On stdout, so that whoever asked for port 0 can read which port it became.
    println!("user-service listens on http://{}", listener.local_addr()?);
    user_service::run(config, listener, server::signal()).await?;
    Ok(())
}
