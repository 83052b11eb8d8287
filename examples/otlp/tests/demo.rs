//! A quick run of the demo with its traces: they alone tell why an order's question was asked
//! twice, and why another's wasn't asked.
#![cfg(unix)]

#[allow(dead_code, reason = "another test's")]
mod processes;

use std::{path::Path, time::Duration};

use otlp::{
    file,
    story::{self, Troubled},
};
use processes::binary;
use tokio::{process::Command, time::timeout};

/// The run itself takes under half of it.
const SOON: Duration = Duration::from_secs(90);

async fn run(command: &mut Command) -> String {
    let output = timeout(SOON, command.kill_on_drop(true).output()).await.expect("in time").unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn story(folder: &Path, id: Option<&str>) -> String {
    run(Command::new(env!("CARGO_BIN_EXE_otlp")).arg("story").arg(folder).args(id)).await
}

#[tokio::test]
async fn a_run_of_the_demo_leaves_the_story_of_each_order() {
    let folder = tempfile::tempdir().unwrap();
    let traces = folder.path().join("traces");
    let said = run(Command::new(binary("demo"))
        .args(["hang", "--quick", "--orders", "20", "--reads", "10", "--traces"])
        .arg(&traces))
    .await;
    let shown = traces.display();
    assert!(said.contains(&format!("\nTraces of each process: {shown}\n")), "{said}");
    for name in ["naive-order-service", "resilient-order-service", "alone-order-service", "user-service"] {
        let file = traces.join(format!("{name}.jsonl"));
        assert!(!file::read_from(&file).unwrap().is_empty(), "{}", file.display());
    }

    let troubled = story::troubled(&file::read_from(&traces).unwrap());
    let listed = story(&traces, None).await;
    assert!(troubled.iter().all(|order| listed.contains(&order.to_string())), "{listed}");
    assert!(troubled.iter().all(|order| order.service == "resilient order-service"), "{listed}");
    let found = |wanted: &dyn Fn(&Troubled) -> bool| {
        let found = troubled.iter().find(|order| wanted(order)).unwrap_or_else(|| panic!("{listed}"));
        found.order.clone()
    };
    let retried = found(&|order| order.attempts > 1);
    let refused = found(&|order| order.error.as_deref() == Some("circuit_open") && order.attempts == 0);

    let retried = story(&traces, Some(&retried)).await;
    for words in [
        "resilient order-service  POST /orders (status 20",
        "resilient_client.call (",
        "GET (first, timeout): ",
        "- retry scheduled number=2 ",
        "after=timeout",
        "GET (retry, resend 1",
    ] {
        assert!(retried.contains(words), "{words}: {retried}");
    }
    let refused = story(&traces, Some(&refused)).await;
    for words in [
        "resilient order-service  POST /orders (status 202",
        "resilient_client.call (circuit_open, 0 attempts)",
        "- rejected",
        "reason=circuit_open",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    // How it was settled later is in a trace of its own.
    let request = refused.split("\ntrace ").next().unwrap_or_default();
    assert!(!request.contains("GET ("), "nothing was sent: {refused}");
    // Both sides of an order that went straight are in one story.
    let spans = file::read_from(&traces).unwrap();
    let served = spans.iter().filter(|(service, _)| service == "user-service");
    let mut traces_served = served.map(|(_, span)| &span.trace_id);
    let both = traces_served
        .any(|id| spans.iter().any(|(service, it)| service != "user-service" && it.trace_id == *id));
    assert!(both, "user-service's part has the caller's trace");
}
