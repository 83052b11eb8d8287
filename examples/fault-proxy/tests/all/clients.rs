use std::path::Path;
use std::process::Stdio;

use super::*;

/// Where a Python is that has toxiproxy-python; `.ci/run` makes one.
const PYTHON: &str = "FAULT_PROXY_PYTHON";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_written_for_toxiproxy_drives_it_unmodified() {
    let Ok(python) = std::env::var(PYTHON) else {
        println!(
            "SKIPPED a_client_written_for_toxiproxy_drives_it_unmodified: no Python with its client ({PYTHON})"
        );
        return;
    };
    let (api, upstream) = (Api::start().await, echo().await);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/clients.py");
    let mut run = tokio::process::Command::new(python);
    run.arg(script).arg(api.url.trim_start_matches("http://")).arg(upstream.to_string());
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).output();
    let output = tokio::time::timeout(2 * SOON, run).await.unwrap().unwrap();
    let says = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", says(&output.stdout), says(&output.stderr));
    print!("{}", says(&output.stdout));
}
