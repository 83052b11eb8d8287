//! Every command that the documents and `--help` show: run here as it stands, or listed below with
//! what runs it instead.
//!
//! "As it stands" with two exceptions. Ports are free ones. And `cargo run` and `cargo demo` start
//! the binaries that the build has already made, since cargo inside of a test would build
//! everything anew with other features. So this doesn't show that cargo finds the packages (their
//! names are checked), nor how long anything takes, nor what a listed command prints.

mod held;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Who runs a command that is too long for a test.
#[derive(Clone, Copy, Debug)]
enum By {
    /// This stage of `.ci/run`: the same command, or one that does more.
    Stage(&'static str),
    /// Nobody but people, for this reason.
    Hand(&'static str),
}

const CI: &str = ".ci/run";

/// The commands that aren't run here.
const ELSEWHERE: &[(&str, By)] = &[
    (".ci/run", By::Hand("it is what CI runs")),
    ("scripts/check", By::Hand("a part of what CI runs, this test among it")),
    ("scripts/check public-api", By::Stage("public API")),
    ("scripts/check public-api-renew", By::Hand("writes docs/public-api.txt, which the next stage compares")),
    ("scripts/check external-types", By::Stage("other crates' types in the public API")),
    (
        "cargo semver-checks -p resilient-client --baseline-rev v0.1.0",
        By::Hand("needs a release, minutes, and a tool that is installed by hand"),
    ),
    ("scripts/check clippy loom", By::Stage("loom")),
    ("cargo test -p resilient-client-simulations -- recovery", By::Stage("tests")),
    ("cargo room", By::Stage("tests")),
    ("cargo test --workspace", By::Stage("tests")),
    ("cargo run -p fault-proxy", By::Stage("tests")),
    ("cargo run -p otlp -- send", By::Stage("tests")),
    ("cargo run -p otlp -- story traces.jsonl <id>", By::Stage("tests")),
    // In examples/otlp: a quick run, and its stories; and a service beside a collector.
    ("cargo demo --traces traces", By::Stage("tests")),
    ("cargo run -p otlp -- story traces", By::Stage("tests")),
    ("cargo run -p otlp -- story traces <id>", By::Stage("tests")),
    ("OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run -p order-service", By::Stage("tests")),
    ("scripts/check alerts", By::Stage("alerts on a recorded outage")),
    ("cargo room policy::breaker", By::Stage("tests")),
    (
        "cargo mutants --package resilient-client --file resilient-client/src/policy/token_bucket.rs -- -- policy::budget policy::hedge",
        By::Hand("minutes, and a tool that is installed by hand"),
    ),
    ("cargo test e9 -- --nocapture", By::Stage("tests")),
    ("cargo test --release --test million_hosts -- --nocapture", By::Stage("a million hosts")),
    ("cargo test --release --test being_watched -- --nocapture", By::Stage("tests")),
    ("AMQP_URL=amqp://127.0.0.1:5672 cargo run -p user-service --features amqp", By::Hand("needs a broker")),
    ("AMQP_URL=amqp://127.0.0.1:5672 cargo run -p order-service --features amqp", By::Hand("needs a broker")),
    (
        ".ci/with-services cargo test -p service-kit -p user-service -p order-service --features amqp",
        By::Stage("RabbitMQ and Postgres"),
    ),
    ("cargo run -p kills --features amqp -- --kills 200", By::Stage("kill -9 to everything")),
    ("cargo doc -p resilient-client --no-deps --open", By::Stage("docs")),
    ("cargo demo", By::Stage("demo, quick and checked")),
    ("cargo demo --replicas 3", By::Stage("demo of replicas, quick and checked")),
    ("cargo demo retry-storm", By::Stage("demo's other scenarios, quick and checked")),
    ("cargo demo chain", By::Stage("demo's other scenarios, quick and checked")),
    ("cargo demo chain --check --without deadlines", By::Stage("demo fails without what it shows")),
    ("cargo demo streams", By::Stage("demo's other scenarios, quick and checked")),
    ("cargo demo broker", By::Hand("it says SKIPPED; tests/processes.rs runs it")),
    (
        "AMQP_URL=amqp://127.0.0.1:5672 cargo demo-amqp broker",
        By::Stage("demo over RabbitMQ, quick and checked"),
    ),
    (".ci/with-services scripts/check demo-broker", By::Stage("demo over RabbitMQ, quick and checked")),
    ("cargo demo retry-storm --check --without budget", By::Stage("demo fails without what it shows")),
    (
        "cargo demo --naive all --report report.html",
        By::Hand("a longer run; tests/processes.rs starts all naive twins"),
    ),
    ("cargo demo hang --naive all", By::Hand("a longer run; tests/processes.rs starts all naive twins")),
    ("cargo demo --hold", By::Hand("it ends when it is told; tests/processes.rs does that")),
    ("cargo run -p resilient-client --example quickstart", By::Stage("tests")),
    (
        "cargo run -p resilient-client --example what-if --features testing,config -- policy.toml",
        By::Stage("tests"),
    ),
    (
        "cargo update --package uuid --precise 1.26.1",
        By::Hand("changes a lockfile; it is for a package of edition 2021 on Rust 1.88"),
    ),
    ("cargo update", By::Hand("changes the lockfile")),
    ("scripts/check advisories", By::Stage("advisories")),
    ("scripts/check package", By::Stage("the package, unpacked")),
    ("cargo package -p resilient-client --list", By::Stage("tests")),
    (
        "cargo publish -p resilient-client --dry-run",
        By::Hand("asks a registry, and wants nothing uncommitted"),
    ),
    ("cargo publish -p resilient-client", By::Hand("it publishes")),
    ("cargo yank resilient-client@0.1.0", By::Hand("it yanks")),
    ("cargo search resilient-client", By::Hand("asks a registry")),
    ("cargo info resilient-client", By::Hand("asks a registry")),
    ("cargo bench", By::Hand("half an hour; clippy checks that it builds")),
    ("cargo bench -- --quick", By::Hand("three minutes; clippy checks that it builds")),
    ("cargo bench -p resilient-client-benches --bench instructions", By::Stage("instructions per call")),
    ("cargo bench -p resilient-client-benches --bench http", By::Hand("a part of cargo bench")),
    (
        "cargo bench -p resilient-client-benches --bench machines -- rejected",
        By::Hand("a part of cargo bench"),
    ),
    (
        "cargo bench -p resilient-client-benches --bench storm -- rolling --rounds 1",
        By::Hand("a part of cargo bench"),
    ),
    (
        "cargo bench -p resilient-client-benches -- --quick --json target/bench.json",
        By::Hand("three minutes; clippy checks that it builds"),
    ),
    (
        "cargo run --profile bench -p resilient-client-benches --bin comparison -- target/bench.json 2026-11-26 \"A remark.\"",
        By::Hand("writes docs/COMPARISON.md anew"),
    ),
    (
        "callgrind_annotate --inclusive=yes target/tmp/callgrind.http-ours.2000",
        By::Hand("needs valgrind, and what a bench left behind"),
    ),
];

/// What this test does with a command.
#[derive(Debug, PartialEq)]
enum Fate<'a> {
    /// Starts a service, with these arguments.
    Service(&'a str, Vec<&'a str>),
    /// Runs the demo with these arguments, which end at once.
    Demo(Vec<&'a str>),
    /// Breaks a held demo.
    ByHand(Vec<&'a str>),
    /// Asks the services.
    Curl,
    Elsewhere,
    Unknown,
}

fn fate(command: &str) -> Fate<'_> {
    let words: Vec<_> = command.split_whitespace().collect();
    match words.as_slice() {
        ["curl", ..] => Fate::Curl,
        ["cargo", "run", "-p", service @ ("user-service" | "order-service"), rest @ ..] => {
            Fate::Service(service, rest.iter().copied().skip_while(|word| *word == "--").collect())
        }
        ["cargo", "demo", rest @ ..] if ["fault", "toxic"].contains(rest.first().unwrap_or(&"")) => {
            Fate::ByHand(rest.to_vec())
        }
        ["cargo", "demo", rest @ ..] if rest.contains(&"--help") || rest.contains(&"--list") => {
            Fate::Demo(rest.to_vec())
        }
        _ if ELSEWHERE.iter().any(|(known, _)| *known == command) => Fate::Elsewhere,
        _ => Fate::Unknown,
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents that show commands.
fn documents() -> Vec<String> {
    let mut documents =
        vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "benches/README.md".to_owned()];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                let path = path.strip_prefix(root()).expect("below the root");
                documents.push(path.to_string_lossy().into_owned());
            }
        }
    }
    documents
}

/// The lines of blocks marked `sh`, without comments; and what stands in backticks and begins as a
/// command.
fn commands(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            block = block.is_none().then_some(language);
            continue;
        }
        match block {
            Some("sh" | "console") => {
                let line = line.split_once("  #").map_or(line, |(command, _)| command).trim();
                found.extend(Some(line).filter(|line| !line.is_empty() && !line.starts_with('#')));
            }
            Some(_) => {}
            None => {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.filter(|span| {
                    ["cargo ", "curl ", ".ci/", "scripts/"].iter().any(|start| span.starts_with(start))
                }));
            }
        }
    }
    found
}

/// A binary of the workspace. `cargo test --workspace` makes the services' anew, for their own
/// tests; with `-p demo` alone they are those of an earlier build.
fn binary(name: &str) -> PathBuf {
    let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
    if name == "demo" {
        return demo.to_owned();
    }
    let path = demo.with_file_name(name).with_extension(demo.extension().unwrap_or_default());
    assert!(path.exists(), "{name} isn't built: test the whole workspace, or first build -p {name}");
    path
}

/// The binary without the settings that this shell may have for it.
fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    for setting in [
        "HOST",
        "PORT",
        "HEALTH_PORT",
        "DATABASE_URL",
        "USER_SERVICE_URL",
        "FAULTS",
        "FAULTS_TOKEN",
        "AMQP_URL",
    ] {
        command.env_remove(setting);
    }
    command
}

fn run(name: &str, args: &[&str]) -> Output {
    let output = command(name).args(args).output().expect(name);
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A running service, in a folder of its own; killed when dropped.
struct Service {
    child: Child,
    url: String,
    /// Where it answers probes.
    probes: String,
    folder: Rc<tempfile::TempDir>,
}

impl Service {
    fn start(name: &str, args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_in(Rc::new(tempfile::tempdir().expect("a folder")), name, args, environment)
    }

    /// Another in its place, with its folder and its port.
    fn again(mut self, name: &str, args: &[&str]) -> Self {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let (folder, port) = (Rc::clone(&self.folder), self.port().to_owned());
        Self::start_in(folder, name, args, &[("PORT", &port), ("HEALTH_PORT", "0")])
    }

    fn start_in(
        folder: Rc<tempfile::TempDir>,
        name: &str,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = command(name);
        command.args(args).current_dir(folder.path()).env("PORT", "0").envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect(name);
        let stdout = child.stdout.take().expect("its output");
        let (says, said) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for line in lines.filter(|line| line.contains(" on http://")) {
                let _ = says.send(line);
            }
        });
        // It says where it answers probes before it is ready for anybody.
        let [probes, url] = ["answers probes", "listens"].map(|what| {
            let line = said.recv_timeout(Duration::from_secs(20)).unwrap_or_default();
            assert!(line.contains(what), "{name} said {line:?}");
            line.trim().rsplit(' ').next().unwrap_or_default().to_owned()
        });
        Self { child, url, probes, folder }
    }

    fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap_or_default()
    }

    fn probes_port(&self) -> &str {
        self.probes.rsplit(':').next().unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command's answer, as JSON.
fn shell(command: &str) -> Value {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{command}\n{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn every_command_is_run_here_or_listed_with_what_runs_it() {
    let mut unknown = Vec::new();
    let mut found = 0;
    for document in documents() {
        let text = read(&document);
        for command in commands(&text) {
            found += 1;
            match fate(command) {
                Fate::Unknown => unknown.push(format!("{document}: {command}")),
                // The README's are run in the test below, those of the admin page in
                // order-service's own, and the services are started as the page on traces has it
                // in otlp's; elsewhere nobody would.
                Fate::Curl | Fate::Service(..) if ["README.md", "docs/admin.md"].contains(&&*document) => {}
                Fate::Service(..) if document == "docs/traces.md" => {}
                Fate::Curl | Fate::Service(..) => {
                    unknown.push(format!("{document}: {command} (only README's are run)"));
                }
                _ => {}
            }
        }
    }
    assert!(unknown.is_empty(), "neither run nor listed:\n{}", unknown.join("\n"));
    assert!(found > 20, "only {found} commands found: the check sees nothing");
}

#[test]
fn a_command_that_nobody_runs_is_found() {
    let text = "`cargo test --workspace` `cargo no-such`\n```sh\ncargo demo   # the demo\n# a remark\nmake all\n```\n\
                ```rust\nlet x = 1;\n```\n";
    assert_eq!(commands(text), ["cargo test --workspace", "cargo no-such", "cargo demo", "make all"]);
    assert_eq!(fate("cargo demo"), Fate::Elsewhere);
    assert_eq!(fate("cargo no-such"), Fate::Unknown);
    assert_eq!(fate("make all"), Fate::Unknown);
}

/// What a listed command names is there, and the stage that is to run it, too.
#[test]
fn what_is_listed_exists() {
    let shown: Vec<String> = documents()
        .iter()
        .flat_map(|document| commands(&read(document)).iter().map(|c| (*c).to_owned()).collect::<Vec<_>>())
        .collect();
    let (stages, alias) = (read(CI), read(".cargo/config.toml"));
    assert!(
        alias.contains("demo = \"run --profile demo --package demo --\""),
        "what `cargo demo` is: {alias}"
    );
    let manifests = [
        "resilient-client",
        "simulations",
        "tests",
        "benches",
        "examples/demo",
        "examples/kills",
        "examples/otlp",
        "examples/service-kit",
        "examples/user-service",
        "examples/order-service",
        "examples/fault-proxy",
    ];
    let packages: String = manifests.iter().map(|folder| read(&format!("{folder}/Cargo.toml"))).collect();
    for (command, by) in ELSEWHERE.iter().copied() {
        assert!(shown.iter().any(|shown| shown == command), "no document shows {command}");
        match by {
            By::Hand(why) => println!("not run by any machine, {why}: {command}"),
            By::Stage(stage) => {
                assert!(stages.contains(&format!("stage \"{stage}\"")), "{command}: {CI} has no {stage:?}");
            }
        }
        let words: Vec<_> = command.split_whitespace().take_while(|word| *word != "--").collect();
        for pair in words.windows(2) {
            let exists = |paths: [String; 2]| paths.iter().any(|path| root().join(path).exists());
            let (flag, name) = (pair[0], pair[1]);
            assert!(
                match flag {
                    "-p" => packages.contains(&format!("name = \"{name}\"")),
                    "--test" =>
                        exists([format!("tests/tests/{name}.rs"), format!("tests/tests/{name}/main.rs")]),
                    "--bench" => exists([
                        format!("benches/benches/{name}.rs"),
                        format!("benches/benches/{name}/main.rs")
                    ]),
                    "--bin" => exists([
                        format!("benches/src/bin/{name}.rs"),
                        format!("benches/src/bin/{name}/main.rs")
                    ]),
                    _ => true,
                },
                "{command}: there is no {name}"
            );
        }
        if let ["cargo", "demo", args @ ..] = words.as_slice() {
            // An unknown flag is refused before help is given.
            run("demo", &[args, &["--help"]].concat());
        }
    }
}

#[test]
fn help_says_how_each_binary_is_called_and_where_it_listens() {
    let help = |name: &str| String::from_utf8_lossy(&run(name, &["--help"]).stdout).into_owned();
    for (name, usage, port) in [
        ("demo", "Usage: cargo demo [OPTIONS] [SCENARIO]", None),
        ("user-service", "Usage: user-service [OPTIONS]", Some("3000")),
        ("order-service", "Usage: order-service [OPTIONS]", Some("3001")),
    ] {
        let help = help(name).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(usage), "{help}");
        let unknown: Vec<_> =
            commands(&help).into_iter().filter(|command| fate(command) == Fate::Unknown).collect();
        assert!(unknown.is_empty(), "{name} --help shows {unknown:?}");
        if let Some(port) = port {
            // The one that README's curl lines ask, and order-service by itself.
            assert!(help.contains(&format!("[env: PORT=] [default: {port}]")), "{help}");
            assert!(read("README.md").contains(&format!("curl -s localhost:{port}/")), "{port}");
        }
    }
    assert!(help("order-service").contains("[default: http://127.0.0.1:3000]"));
}

#[test]
fn the_readmes_commands_do_what_it_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no curl on this machine");
        return;
    }
    let readme = read("README.md");
    let (mut users, mut orders, mut id, mut last) = (None::<Service>, None::<Service>, String::new(), None);
    let (mut slow, mut seen_slow) = (false, 0);
    for command in commands(&readme) {
        match fate(command) {
            Fate::Service("user-service", args) => {
                users = Some(match users.take() {
                    None => Service::start("user-service", &args, &[]),
                    Some(running) => running.again("user-service", &args),
                });
            }
            Fate::Service(name, args) => {
                let users: &Service = users.as_ref().expect("README starts user-service first");
                orders = Some(Service::start(name, &args, &[("USER_SERVICE_URL", &users.url)]));
            }
            Fate::Demo(args) => drop(run("demo", &args)),
            Fate::Curl => {
                let (users, orders) = (users.as_ref().expect("running"), orders.as_ref().expect("running"));
                let there = command.replace("localhost:3000", &format!("localhost:{}", users.port()));
                let there = there.replace("localhost:3100", &format!("localhost:{}", users.probes_port()));
                let there = there.replace("localhost:3001", &format!("localhost:{}", orders.port()));
                let there = there.replace("<id>", &id);
                let asked = now();
                let answer = shell(&there);
                if let Some(rules) = answer["rules"].as_array() {
                    // Faults were changed.
                    slow = !rules.is_empty();
                } else if answer["orders"].is_array() {
                    settle(&there);
                } else if answer["users"].is_array() {
                    seen_slow += u32::from(slow);
                    assert_eq!(asked.elapsed() >= Duration::from_secs(3), slow, "{there}");
                } else if let Some(status) = answer["status"].as_str() {
                    seen_slow += u32::from(slow);
                    assert_eq!(status, if slow { "pending_verification" } else { "confirmed" }, "{there}");
                    assert!(asked.elapsed() < Duration::from_secs(3), "{there}");
                    last = Some(there);
                } else {
                    answer["id"].as_str().unwrap_or_else(|| panic!("{there}\n{answer}")).clone_into(&mut id);
                }
            }
            // The next test runs it.
            Fate::ByHand(_) | Fate::Elsewhere => {}
            Fate::Unknown => panic!("{command}"),
        }
    }
    assert_eq!(seen_slow, 2, "README shows what a fault does to either caller");
    let order = last.expect("README orders something");
    drop(users);
    let answer = shell(&order);
    assert_eq!(answer["status"], "pending_verification", "once user-service is gone: {order}");
}

/// Those of the documents, of `--help` and of what a held demo says.
#[test]
#[cfg(unix)]
fn what_breaks_a_held_demo_by_hand_does() {
    let held = held::Held::start(&[]);
    let help = ["fault", "toxic"].map(|command| held::text(&run("demo", &[command, "--help"]).stdout));
    let texts: Vec<_> = documents().iter().map(|document| read(document)).collect();
    let shown = texts.iter().flat_map(|text| commands(text));
    let typed = help.iter().flat_map(|help| help.lines()).chain(held.lines.iter().map(String::as_str));
    let typed = typed.map(str::trim).filter(|line| line.starts_with("cargo demo "));
    let mut broken = 0;
    for command in shown.chain(typed) {
        let Fate::ByHand(args) = fate(command) else { continue };
        let output = held.demo(&args);
        assert!(output.status.success(), "{command}: {}", held::text(&output.stderr));
        broken += 1;
    }
    assert!(broken > 10, "only {broken} commands found: the check sees nothing");
}

#[allow(clippy::disallowed_methods, reason = "what a person at a terminal waits for takes real time")]
fn now() -> Instant {
    Instant::now()
}

/// The orders of a list are confirmed, sooner or later.
fn settle(list: &str) {
    let until = now() + Duration::from_secs(30);
    loop {
        let answer = shell(list);
        let orders = answer["orders"].as_array().expect("orders");
        if orders.iter().all(|order| order["status"] == "confirmed") {
            return;
        }
        assert!(now() < until, "{answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
