//! `--admin`: docs/admin.md's commands, as they stand there, at ports of this test's own.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

struct Running {
    /// Killed when it goes out of scope.
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}?mode=rwc", folder.path().join("orders.db").display());
        let mut process = Command::new(env!("CARGO_BIN_EXE_order-service"))
            .args(["--port", "0", "--database-url", &database])
            .args(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, lines, _folder: folder }
    }

    /// What follows `words` in the line that has them.
    async fn says(&mut self, words: &str) -> String {
        loop {
            let line =
                timeout(SOON, self.lines.next_line()).await.expect("in time").unwrap().expect("a line");
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    }
}

/// The `curl` lines of docs/admin.md.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/admin.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
}

async fn shell(command: &str) -> Output {
    let run = Command::new("sh").args(["-c", command]).kill_on_drop(true).output();
    timeout(SOON, run).await.expect("in time").unwrap()
}

#[tokio::test]
async fn the_documented_commands_show_and_force_a_breaker() {
    let mut service = Running::start(&["--admin", "--admin-token", "let me see"]);
    let page = service.says("admin page is ").await;
    let (page, token) = page.split_once("; its token: ").unwrap();
    assert_eq!(token, "the one given", "a token that was given stays a secret");
    let at = page.strip_prefix("http://").unwrap();
    let commands = documented();
    assert_eq!(commands.len(), 3);
    for (command, expected) in commands.iter().zip(["\"version\":1", "\"forced_open\"", "event: hello"]) {
        let stream = command.starts_with("curl -sN");
        let command = command.replace("localhost:3101/admin", at);
        let command = if stream { format!("timeout 3 {command} || true") } else { command };
        let output = shell(&command).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(expected), "{command}: {said}");
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for page in [page.to_owned(), format!("{page}/")] {
        let answer = client.get(&page).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{page}");
        assert!(answer.text().await.unwrap().contains("<title>Upstreams</title>"));
    }
}

#[tokio::test]
async fn there_is_no_admin_page_unless_asked_for() {
    let mut service = Running::start(&[]);
    let probes = service.says("answers probes on ").await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.get(format!("{probes}/admin")).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_token_that_can_be_guessed_ends_the_start_by_name() {
    let refused = Command::new(env!("CARGO_BIN_EXE_order-service"))
        .args(["--port", "0", "--admin", "--admin-token", "short"])
        .output();
    let refused = timeout(SOON, refused).await.expect("in time").unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("admin-token"), "{said}");
}
