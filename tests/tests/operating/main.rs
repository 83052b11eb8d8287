//! What `docs/operating/` gives operators: names in the dashboard and the alerts are those that are
//! exported, and the alerts fire in an outage, end with it, and are silent on a calm day.

mod names;
mod outage;
mod promtool;
mod recording;

use std::path::PathBuf;

/// The folder for operators.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/operating")
}

fn read(file: &str) -> String {
    let path = folder().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
