//! What a policy would do in an outage, an overload, a slow replica, random errors and a retry
//! storm, on its own engine and a virtual clock, and which of its settings is to blame.
//!
//! ```sh
//! cargo run -p resilient-client --example what-if --features testing,config -- policy.toml
//! ```
//!
//! `--seed 7` for other calls, `--origin http://users:3000` for the policy of a host. Without a
//! file it is the standard policy.

use std::error::Error;
use std::process::ExitCode;

use resilient_client::Policy;
use resilient_client::policy::PolicySet;
use resilient_client::testing::simulate::what_if;

const USAGE: &str = "what-if [policy.toml] [--seed N] [--origin URL]";

#[derive(Debug, Default)]
struct Asked {
    file: Option<String>,
    seed: Option<u64>,
    origin: Option<String>,
}

fn asked(mut args: impl Iterator<Item = String>) -> Result<Asked, Box<dyn Error>> {
    let mut asked = Asked::default();
    while let Some(arg) = args.next() {
        match &*arg {
            "--seed" => asked.seed = Some(args.next().ok_or(USAGE)?.parse()?),
            "--origin" => asked.origin = Some(args.next().ok_or(USAGE)?),
            _ if arg.starts_with('-') || asked.file.is_some() => return Err(USAGE.into()),
            _ => asked.file = Some(arg),
        }
    }
    Ok(asked)
}

fn said(asked: &Asked) -> Result<String, Box<dyn Error>> {
    let policies: PolicySet = match &asked.file {
        Some(file) => toml::from_str(&std::fs::read_to_string(file)?)?,
        None => Policy::standard().into(),
    };
    let policy = asked.origin.as_deref().map_or(policies.base(), |origin| policies.of_origin(origin));
    Ok(what_if(policy, asked.seed.unwrap_or(1))?.to_string())
}

fn main() -> ExitCode {
    match asked(std::env::args().skip(1)).and_then(|asked| said(&asked)) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
