//! Every example of the crate runs, ends by itself, says what it is there to show, and is in the
//! index with the features that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use resilient_client_tests::cargo::{offline, root};
use serde_json::Value;
use tokio::process::Command;

/// What each says, in this order. `what-if` wants a file and has a test of its own below; what it
/// finds is shown by `what_if.rs`.
const SAID: &[(&str, &[&str])] = &[
    (
        "quickstart",
        &[
            "user 7 is Ada",
            "200 OK",
            "2 attempts",
            "#1 first",
            "status (503)",
            "#2 retry",
            "success (200)",
            "503 Service Unavailable",
            "1 attempt in",
            "not retried: not idempotent, and no Idempotency-Key",
            "201 Created",
            "2 attempts",
            "no connection",
            "the server has seen nothing of it: true",
            "not retried: all 4 attempts made",
        ],
    ),
    (
        "tower-layer",
        &["200 OK", "2 attempts", "b\"Ada\"", "200 OK", "2 attempts", "#2 retry", "0 in flight, Closed"],
    ),
    (
        "axum-deadlines",
        &[
            "users is to answer within ",
            "orders goes on without users: ",
            "the caller has in time: order 7, whose user isn't known yet",
            "the report isn't begun: 504 Gateway Timeout",
            "1 attempt in",
            "ignored (504)",
        ],
    ),
    (
        "custom-classifier",
        &[
            "200 OK",
            "2 attempts",
            "status (409)",
            "success (200)",
            "500 Internal Server Error",
            "1 attempt in",
            "success (500)",
            "the breaker has counted 0 failures, 3 successes",
        ],
    ),
    (
        "reload-on-sighup",
        &[
            "attempts under version 0: 3",
            "version 1: client: retry, client: bulkhead",
            "attempts under version 1: 1",
            "nothing is changed: ",
            "did you mean `max_attempts`?",
            "attempts under version 1: 1",
        ],
    ),
    (
        "endpoints",
        // By name: Ada would come first.
        &[
            "three replicas: 20 of 20 answered",
            "ada is stopped: 20 of 20 answered, {\"ben\"",
            "the registry: 1 added, 1 removed",
            "dan in ada's place: 20 of 20 answered, {\"ben\"",
        ],
    ),
    (
        "circuit-handle",
        &[
            "users: Closed -> ForcedOpen",
            "refused: circuit breaker is open",
            "refused: circuit breaker is open",
            "refused: circuit breaker is open",
            "users: ForcedOpen -> Closed",
            "answered: Ada",
            "7: Ada",
            "8: NotFound",
            "9: TimedOut",
            "9: TimedOut",
            "9: TimedOut",
            "7: circuit breaker is open: next probe in ",
            "database: Open",
        ],
    ),
    ("testing", &["Hello, Ada!", "Hello!", "GET /users/7", "GET /users/7", "GET /users/8"]),
    ("what-if", &[]),
];

/// The names in the folder.
fn in_the_folder() -> BTreeSet<String> {
    let folder = root().join("resilient-client/examples");
    let entries = folder.read_dir().expect("the examples");
    let names = entries.map(|entry| entry.expect("an entry").path());
    names.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// The binaries, by name. Built as `cargo test --workspace` builds them, features and all, so that
/// nothing is left to build after it.
fn built() -> &'static BTreeMap<String, PathBuf> {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> BTreeMap<String, PathBuf> {
    // target/PROFILE/deps/this
    let this = std::env::current_exe().expect("this test");
    let [profile, target] = [2, 3].map(|above| this.ancestors().nth(above).expect("a target folder"));
    let profile = match profile.file_name().and_then(|name| name.to_str()).expect("a profile") {
        "debug" => "dev",
        other => other,
    };
    let target = target.to_str().expect("UTF-8");
    let args = ["build", "--workspace", "--examples", "--message-format", "json", "--profile", profile];
    let said = offline(&root(), &[&args[..], &["--target-dir", target]].concat());
    let said = said.unwrap_or_else(|why| panic!("{why}"));
    let messages = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let built = messages.filter_map(|message| {
        let name = message["target"]["name"].as_str()?.to_owned();
        let is_example = message["target"]["kind"][0] == "example";
        Some((name, message["executable"].as_str().filter(|_| is_example)?.into()))
    });
    built.collect()
}

async fn output(program: &PathBuf) -> String {
    let (succeeded, said, cried) = run(program, &[]).await;
    assert!(succeeded, "{}: it failed\n{said}{cried}", program.display());
    said
}

/// Whether it ended well, and what it said, and on stderr.
async fn run(program: &PathBuf, args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(program);
    let run = command.args(args).current_dir(root()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_mins(1), run).await;
    let output = output.unwrap_or_else(|_| panic!("{}: no end", program.display())).expect("it starts");
    let [said, cried] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
    (output.status.success(), said, cried)
}

/// Whether `text` has all of these, each after the one before.
fn has_in_order(text: &str, parts: &[&str]) -> Result<(), String> {
    let mut rest = text;
    for part in parts {
        rest = rest.split_once(part).ok_or_else(|| format!("{part:?} isn't in\n{rest}"))?.1;
    }
    Ok(())
}

#[tokio::test]
async fn every_example_runs_and_says_what_it_shows() {
    let known: BTreeSet<_> = SAID.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(in_the_folder(), known, "what an example says is to be listed here");
    let built = built();
    for (name, says) in SAID.iter().filter(|(_, says)| !says.is_empty()) {
        if cfg!(not(unix)) && *name == "reload-on-sighup" {
            continue;
        }
        let program = built.get(*name).unwrap_or_else(|| panic!("{name} isn't built: {built:?}"));
        let said = output(program).await;
        println!("{name}\n{said}");
        has_in_order(&said, says).unwrap_or_else(|missing| panic!("{name}: {missing}"));
    }
}

/// A file that wasn't there was "No such file", and one that couldn't work said where in it, and
/// neither said which.
#[tokio::test]
async fn what_if_reads_a_file_and_says_what_is_wrong_with_one_that_it_cannot() {
    let built = built();
    let program = built.get("what-if").expect("what-if is built");
    let ours = "resilient-client/examples/what-if/policies/ours.toml";
    let (succeeded, said, cried) = run(program, &[ours, "--seed", "7"]).await;
    assert!(succeeded && cried.is_empty(), "{said}{cried}");
    let table =
        [ours, "what holds for every host", "| scenario | succeed |", "| outage |", "| retry storm |"];
    has_in_order(&said, &table).unwrap();

    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let typo = file("typo.toml", "retry = { max_atempts = 3 }");
    let zero = file("zero.toml", "retry = { max_attempts = 0 }");
    let no_toml = file("no.toml", "retry = {");
    let missing = folder.path().join("missing.toml").to_str().expect("UTF-8").to_owned();
    for (args, whys) in [
        (&[&*typo][..], [&*typo, "max_attempts"]),
        (&[&zero], [&zero, "max_attempts"]),
        (&[&no_toml], [&no_toml, "line 1"]),
        (&[&missing], [&missing, "No such file"]),
        (&[ours, "--origin", "http://users:3000"], [ours, "no policy for http://users:3000"]),
        (&[ours, "--sed", "7"], ["what-if [policy.toml]", "--seed N"]),
        (&[ours, "--seed", "seven"], ["--seed", "invalid digit"]),
    ] {
        let (succeeded, said, cried) = run(program, args).await;
        assert!(!succeeded && said.is_empty(), "{args:?}: {said}");
        for why in whys {
            assert!(cried.contains(why), "{args:?}: {cried}");
        }
    }
}

#[test]
fn what_is_missing_or_out_of_order_is_found() {
    assert_eq!(has_in_order("one, two, one", &["one", "two", "one"]), Ok(()));
    has_in_order("one, two", &["two", "one"]).unwrap_err();
    has_in_order("one", &["one", "one"]).unwrap_err();
}

/// The features that an example needs and that aren't there by default, by the manifest.
fn needed() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = std::fs::read_to_string(root().join("resilient-client/Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let texts = |list: &toml::Value| -> BTreeSet<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|text| text.as_str().expect("a text").to_owned()).collect()
    };
    let default = texts(&manifest["features"]["default"]);
    let of = |example: &toml::Value| {
        let name = example["name"].as_str().expect("a name").to_owned();
        let required = example.get("required-features").map(texts).unwrap_or_default();
        (name, required.difference(&default).cloned().collect())
    };
    let named = manifest["example"].as_array().expect("examples").iter().map(of);
    let without_any = in_the_folder().into_iter().map(|name| (name, BTreeSet::new()));
    without_any.chain(named).collect()
}

/// In the index, and in the command at its own beginning.
#[test]
fn every_example_says_how_it_is_run() {
    let words = |text: &str| -> BTreeSet<String> {
        text.split(',')
            .map(|word| word.trim_matches([' ', '`']).to_owned())
            .filter(|w| !w.is_empty())
            .collect()
    };
    let index = std::fs::read_to_string(root().join("resilient-client/src/examples.md")).expect("the index");
    let rows = index.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((name.to_owned(), words(rest.split_once('|')?.0)))
    });
    let needed = needed();
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), needed, "the index");
    for (name, features) in needed {
        let folder = root().join("resilient-client/examples");
        let [file, main] = [format!("{name}.rs"), format!("{name}/main.rs")].map(|path| folder.join(path));
        let text = std::fs::read_to_string(if file.exists() { file } else { main }).expect("its code");
        let mut commands = text.lines().filter_map(|line| {
            let (before, after) =
                line.split_once("//! cargo run -p resilient-client")?.1.split_once("--example")?;
            (after.split_whitespace().next() == Some(&*name)).then(|| format!("{before}{after}"))
        });
        let command = commands.next().unwrap_or_else(|| panic!("{name} doesn't say how it is run"));
        let asked = command.split_once("--features ").and_then(|(_, rest)| rest.split_whitespace().next());
        assert_eq!(words(asked.unwrap_or_default()), features, "{name}: {command}");
    }
}
