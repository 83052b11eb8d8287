//! The services' binaries.
#![allow(unreachable_pub, reason = "a part of its test")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

const SOON: Duration = Duration::from_secs(20);

/// `cargo test --workspace` makes them anew, for their own tests; with `-p otlp` alone they are
/// those of an earlier build.
pub fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_otlp")).with_file_name(name);
    assert!(path.exists(), "{name} isn't built: test the whole workspace, or first build -p {name}");
    path
}

/// A running service; killed when dropped.
pub struct Service {
    process: Child,
    pub url: String,
    /// Where it answers probes.
    pub probes: String,
}

impl Service {
    /// With its database in `folder`, at ports of its own.
    pub async fn start(name: &str, folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(binary(name))
            .args(["--host", "127.0.0.1", "--port", "0", "--health-port", "0", "--lame-duck-ms", "0"])
            .args(args)
            .current_dir(folder)
            .env_remove("DATABASE_URL")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut said = async |words: &str| loop {
            let line = timeout(SOON, lines.next_line()).await.expect("in time").unwrap();
            if let Some((_, rest)) = line.expect("a line").split_once(words) {
                return rest.to_owned();
            }
        };
        let probes = said(" answers probes on ").await;
        let url = said(" listens on ").await;
        Self { process, url, probes }
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(mut self) {
        let id = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(id, Signal::TERM).unwrap();
        let ended = timeout(SOON, self.process.wait()).await.expect("in time").unwrap();
        assert!(ended.success(), "{ended}");
    }
}

/// Asks until the answer is yes.
pub async fn eventually(mut check: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !check().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, asking).await.expect("in time");
}
