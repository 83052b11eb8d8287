//! A call with its spans in a collector.
//!
//! ```sh
//! cargo run -p otlp -- send
//! ```
//!
//! asks a little server of its own, which refuses the first question, and sends the call's span,
//! its attempts' and the server's to the collector at `http://localhost:4318`, or where
//! `OTEL_EXPORTER_OTLP_ENDPOINT` says. `story` reads files of traces, which the example services
//! and the demo write.

mod users;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use otlp::{collector, file, propagation::TracerHeaders, spans, story};
use resilient_client::policy::hedge::{Delay, HedgePolicy};
use resilient_client::{Client, Policy};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

#[derive(Parser)]
#[command(name = "otlp", version, about, max_term_width = 80)]
enum Cli {
    /// Makes a call and sends its spans to a collector
    Send {
        /// What is asked for; a server of this example's own by default
        url: Option<String>,
        /// Begins a second attempt beside one that takes so long, such as 50ms
        #[arg(long, value_parser = humantime::parse_duration)]
        hedge: Option<Duration>,
    },
    /// Says what a file of traces has about an order
    Story {
        /// What `--traces` of the services wrote, or a folder of such files, as the demo's
        file: PathBuf,
        /// An order's id, a request's or a trace's; without it, which orders there is a story of
        sought: Option<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Send { url, hedge } => send(url, hedge),
        Cli::Story { file, sought } => tell(&file, sought.as_deref()),
    };
    done.map_or_else(
        |error| {
            eprintln!("otlp: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn send(url: Option<String>, hedge: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let provider = spans::provider("otlp-example", collector::exporter_of_environment()?);
    tracing_subscriber::registry().with(spans::layer(&provider)).init();
    tokio::runtime::Runtime::new()?.block_on(call(url, hedge))?;
    // What has ended and waits for company goes now.
    provider.shutdown()?;
    Ok(())
}

async fn call(url: Option<String>, hedge: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let url = match url {
        Some(url) => url,
        None => users::serve().await?,
    };
    let policy = match hedge {
        Some(delay) => Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(delay))),
        None => Policy::standard(),
    };
    let client = Client::builder().policy(policy).on_attempt(TracerHeaders).build()?;
    let response = client.get(url).send_buffered().await?;
    println!("{}\n{}", response.status(), response.report());
    Ok(())
}

fn tell(path: &Path, sought: Option<&str>) -> Result<(), Box<dyn Error>> {
    let spans = file::read_from(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let Some(sought) = sought else {
        let troubled = story::troubled(&spans);
        println!("{} orders whose question took more than one attempt, or failed", troubled.len());
        for order in &troubled {
            println!("{order}");
        }
        return Ok(());
    };
    let story = story::tell(&spans, sought);
    println!("{}", story.ok_or_else(|| format!("{}: nothing about {sought}", path.display()))?);
    Ok(())
}
