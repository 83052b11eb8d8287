//! Serves the API; `--help` lists the settings.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use fault_proxy::{Proxies, ProxySpec, serve};
use tokio::net::TcpListener;

/// A TCP proxy that breaks what goes through it, and speaks Toxiproxy's API.
#[derive(Parser)]
#[command(name = "fault-proxy", version, max_term_width = 80)]
struct Cli {
    /// Where the API is served, on loopback
    #[arg(long, env = "FAULT_PROXY_LISTEN", default_value = "127.0.0.1:8474")]
    listen: SocketAddr,
    /// A JSON list of proxies to begin with: their names, `listen`, `upstream`
    #[arg(long, env = "FAULT_PROXY_CONFIG")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Cli { listen, config } = Cli::parse();
    if !listen.ip().is_loopback() {
        return Err(format!("--listen must be a loopback address, got {listen}").into());
    }
    let proxies = Proxies::new();
    if let Some(config) = config {
        let text = std::fs::read(&config).map_err(|error| format!("{}: {error}", config.display()))?;
        let specs: Vec<ProxySpec> =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", config.display()))?;
        for proxy in proxies.populate(specs).await.map_err(|(_, error)| error)? {
            println!("{} passes {} on to {}", proxy.name, proxy.listen, proxy.upstream);
        }
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    println!("fault-proxy serves its API on http://{}", listener.local_addr()?);
    tokio::select! {
        served = serve(listener, proxies) => served?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}
