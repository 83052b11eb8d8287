//! What the documents say of the repository holds: paths and links lead somewhere, tables list what the code
//! has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use resilient_client::Client;
use resilient_client::outcome::Outcome;
use resilient_client::outcome::classify::{Ended, Repeat};
use resilient_client::policy::PolicySet;
use resilient_client::policy::balance::BalancePolicy;
use resilient_client::policy::breaker::{BreakerPolicy, Verdict};
use resilient_client::policy::budget::BudgetPolicy;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::concurrency::ConcurrencyPolicy;
use resilient_client::policy::hedge::HedgePolicy;
use resilient_client::policy::overload::OverloadPolicy;
use resilient_client::policy::rate_limit::RateLimitPolicy;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::throttle::ThrottlePolicy;
use resilient_client::policy::timeout::TimeoutPolicy;

/// The repository, and where its files are.
struct Repository {
    root: PathBuf,
    /// Paths from the root, with `/`.
    files: BTreeSet<String>,
}

impl Repository {
    fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned();
        let mut files = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
                let path = entry.expect("its entry").path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !path.is_dir() {
                    let from_root = path.strip_prefix(&root).expect("below the root");
                    files.insert(from_root.to_string_lossy().replace('\\', "/"));
                } else if !["target", ".git", "node_modules"].contains(&name) {
                    folders.push(path);
                }
            }
        }
        Self { root, files }
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Every document for people.
    fn documents(&self) -> impl Iterator<Item = &str> {
        let is_document = |file: &&str| has_extension(file, "md");
        self.files.iter().map(String::as_str).filter(is_document)
    }

    /// Whether a file or folder has this path, or ends with it: `policy/hedge.rs` is in
    /// `resilient-client/src`.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let (inside, below) = (format!("/{path}/"), format!("/{path}"));
        self.files
            .iter()
            .map(|file| format!("/{file}"))
            .any(|file| file.ends_with(&below) || file.contains(&inside))
    }

    /// Whether exactly this is there, from the root or from the library's sources.
    fn has_exactly(&self, path: &str) -> bool {
        let at = |from: &str| self.root.join(from).join(path).exists();
        at("") || at("resilient-client/src")
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|own| own == extension)
}

/// The text between backticks, outside fenced blocks.
fn code_spans(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// Whether the text in backticks is a path in this repository, by its form.
fn is_path(span: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let ends = [".rs", ".md", ".toml", ".json", ".sql", ".svg"];
    let starts = ["resilient-client/", "examples/", "tests/", "benches/", "docs/", ".ci/", ".cargo/"];
    span.bytes().all(is_plain)
        && !span.starts_with('/')
        && (ends.iter().any(|end| span.len() > end.len() && span.ends_with(end))
            || starts.iter().any(|start| span.starts_with(start)))
}

/// The targets of links that lead into the repository.
fn relative_links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://") && !target.contains(' ') && !target.is_empty())
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// What a document names and isn't there.
fn missing(repository: &Repository, document: &str, text: &str) -> Vec<String> {
    // The first path in CONTRIBUTING is the one to open, so that it has to be whole.
    let whole = document == "CONTRIBUTING.md";
    let is_there = |path: &str| if whole { repository.has_exactly(path) } else { repository.has(path) };
    let paths =
        code_spans(text).into_iter().filter(|span| is_path(span) && !is_there(span)).map(str::to_owned);
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    let links = relative_links(text).filter(|target| {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let there = repository.root.join(folder).join(path);
        let known = || match (path, has_extension(path, "md")) {
            ("", _) => anchors(text).contains(anchor),
            (_, true) => std::fs::read_to_string(&there).is_ok_and(|other| anchors(&other).contains(anchor)),
            _ => false,
        };
        !(path.is_empty() || there.exists()) || !(anchor.is_empty() || known())
    });
    paths.chain(links.map(str::to_owned)).map(|what| format!("{document}: {what}")).collect()
}

#[test]
fn every_path_and_every_relative_link_leads_somewhere() {
    let repository = Repository::open();
    let mut lost = Vec::new();
    let mut looked_at = 0;
    for document in repository.documents() {
        let text = repository.read(document);
        looked_at += code_spans(&text).into_iter().filter(|span| is_path(span)).count();
        looked_at += relative_links(&text).count();
        lost.extend(missing(&repository, document, &text));
    }
    // Module documentation: its links are rustdoc's to check.
    for file in repository
        .files
        .iter()
        .filter(|file| file.starts_with("resilient-client/src/") && has_extension(file, "rs"))
    {
        let text = repository.read(file);
        let docs: Vec<_> = text.lines().filter_map(|line| line.trim_start().strip_prefix("//!")).collect();
        let docs = docs.join("\n");
        let spans = code_spans(&docs);
        let wrong = spans.iter().filter(|span| is_path(span) && !repository.has(span));
        lost.extend(wrong.map(|span| format!("{file}: {span}")));
    }
    assert!(lost.is_empty(), "not there:\n{}", lost.join("\n"));
    assert!(looked_at > 100, "only {looked_at} paths and links found: the check sees nothing");
}

#[test]
fn a_path_or_link_that_leads_nowhere_is_found() {
    let repository = Repository::open();
    let text = "# One head\n`src/no_such.rs` `docs/none/` [a](no.md) [b](#two-heads) [c](README.md#no-such-heading)\n\
                `clippy.toml` `policy/hedge.rs` [d](README.md) [e](#one-head) [f](https://example.com/x.md)";
    let found = missing(&repository, "README.md", text);
    let expected = ["src/no_such.rs", "docs/none/", "no.md", "#two-heads", "README.md#no-such-heading"];
    assert_eq!(found, expected.map(|what| format!("README.md: {what}")));
    assert_eq!(
        missing(&repository, "CONTRIBUTING.md", "`hedge.rs`"),
        ["CONTRIBUTING.md: hedge.rs"],
        "not whole"
    );
}

/// The settings of a policy and their values, as its `Debug` has them: `Some(1s)` is `1s`, and `None` is
/// `none`.
fn settings(name: &str, policy: &dyn Debug) -> Vec<(String, String)> {
    let text = format!("{policy:?}");
    let inside = text.split_once("{ ").and_then(|(_, rest)| rest.strip_suffix(" }")).expect("a struct");
    let (mut depth, mut fields, mut field) = (0, Vec::new(), String::new());
    for c in inside.chars() {
        match c {
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            ',' if depth == 0 => {
                fields.push(std::mem::take(&mut field));
                continue;
            }
            _ => {}
        }
        field.push(c);
    }
    fields.push(field);
    let value = |value: &str| match value.strip_prefix("Some(").and_then(|some| some.strip_suffix(')')) {
        Some(some) => some.to_owned(),
        None if value == "None" => "none".to_owned(),
        None => value.to_owned(),
    };
    let pairs = fields.iter().map(|field| field.trim().split_once(": ").expect("a name and a value"));
    pairs.map(|(field, text)| (format!("{name}.{field}"), value(text))).collect()
}

/// The first two cells of each row whose first is code.
fn rows(text: &str) -> Vec<(String, String)> {
    let cells = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.trim().to_owned()))
    };
    text.lines().filter_map(cells).collect()
}

#[test]
fn the_table_of_defaults_is_what_the_policies_have() {
    let policies: [(&str, &dyn Debug); 11] = [
        ("timeout", &TimeoutPolicy::standard()),
        ("retry", &RetryPolicy::standard()),
        ("budget", &BudgetPolicy::standard()),
        ("breaker", &BreakerPolicy::standard()),
        ("bulkhead", &BulkheadPolicy::standard()),
        ("overload", &OverloadPolicy::standard()),
        ("balance", &BalancePolicy::standard()),
        ("hedge", &HedgePolicy::standard()),
        ("rate_limit", &RateLimitPolicy::new(100, Duration::from_secs(1))),
        ("throttle", &ThrottlePolicy::standard()),
        ("concurrency", &ConcurrencyPolicy::gradient()),
    ];
    let expected: Vec<_> = policies.into_iter().flat_map(|(name, policy)| settings(name, policy)).collect();
    let text = Repository::open().read("docs/defaults.md");
    let written = rows(&text);
    for (written, expected) in written.iter().zip(&expected) {
        assert_eq!(written, expected, "docs/defaults.md says the first, the code has the second");
    }
    assert_eq!(written.len(), expected.len(), "the code has: {expected:?}");
    let builder = format!("{:?}", Client::builder());
    for (field, words) in
        [("max_upstreams: 1024", "1024 upstreams"), ("max_body: 16777216", "16 MiB of a body")]
    {
        assert!(builder.contains(field) && text.contains(words), "{words}: {builder}");
    }
}

/// README repeats the most important ones.
#[test]
fn the_readmes_settings_are_the_defaults() {
    let readme = Repository::open().read("README.md");
    let defaults: BTreeMap<_, _> = rows(&Repository::open().read("docs/defaults.md")).into_iter().collect();
    let d = |name: &str| {
        let value = defaults[name].as_str();
        let digits = value.find(|c: char| c.is_alphabetic()).unwrap_or(value.len());
        format!("{} {}", &value[..digits], &value[digits..]).trim().to_owned()
    };
    for row in [
        format!("| total time of a call | {} |", d("timeout.total")),
        format!("| attempt timeout | {} | ", d("timeout.attempt")),
        format!(
            "a body may pause for {}, a stream for {} |",
            d("timeout.body_idle"),
            d("timeout.stream_idle")
        ),
        format!("| connect timeout | {} |", d("timeout.connect")),
        format!(
            "| attempts | {} in all | waits of {} to {},",
            d("retry.max_attempts"),
            d("retry.initial"),
            d("retry.cap")
        ),
        format!("| retry budget | {} tokens, at most {} |", d("budget.initial"), d("budget.capacity")),
        format!("| {} earned by a success at the first try", d("budget.deposit_per_success")),
        format!("at least {} calls in {}, ", d("breaker.min_calls"), d("breaker.window")),
        format!(
            "{} failures in a row, or {} with no success",
            d("breaker.consecutive_failures"),
            d("breaker.cold_consecutive_failures")
        ),
        format!("asks again after {} to {},", d("breaker.open_for"), d("breaker.open_cap")),
        format!("waits for one, up to {} |", d("overload.wait")),
        format!("| bulkhead | {} in flight |", d("bulkhead.max_in_flight")),
    ] {
        assert!(readme.contains(&row), "README hasn't: {row}");
    }
}

/// The module documentation's table, against what is done with each status.
#[test]
fn the_table_of_statuses_is_what_the_classifier_does() {
    let text = Repository::open().read("resilient-client/src/outcome/classify/mod.rs");
    let rows: Vec<Vec<_>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .collect();
    let names = |cell: &str, status: &str| {
        let listed = cell.split(" and ").next().unwrap_or_default();
        let is_list = listed.bytes().all(|byte| byte.is_ascii_digit() || b"x, ".contains(&byte));
        is_list && listed.split(", ").any(|one| one == status)
    };
    let headers = http::HeaderMap::new();
    for status in 100..600_u16 {
        let rest = if status < 500 { "not named below" } else { "other 5xx" };
        let named = rows.iter().find(|row| names(row[0], &status.to_string()));
        let row = named.or_else(|| rows.iter().find(|row| row[0].contains(rest))).expect("a row");
        let code = http::StatusCode::from_u16(status).expect("a status");
        let found = Ended::Response(code, &headers).standard();
        let outcome = match found.outcome {
            Outcome::Success => "success",
            Outcome::Failure(_) => "failure",
            Outcome::Throttled => "throttled",
            other => panic!("{status}: {other:?}"),
        };
        let breaker = match found.verdict {
            Verdict::Success => "success",
            Verdict::Failure => "failure",
            Verdict::Neutral => "nothing",
        };
        let again = match found.repeat {
            Repeat::Never => "no",
            Repeat::IfSafe => "if safe to repeat",
            Repeat::Once => "once",
            other => panic!("{status}: {other:?}"),
        };
        assert_eq!(row[1..3], [outcome, breaker], "{status}: {row:?}");
        assert!(row[3].starts_with(again), "{status}: {row:?}");
    }
}

#[test]
fn every_kind_of_error_has_its_row() {
    let repository = Repository::open();
    let code = repository.read("resilient-client/src/error.rs");
    let (_, after) = code.split_once("pub enum ErrorKind {").expect("the enum");
    let (variants, _) = after.split_once("\n}").expect("its end");
    let kinds = variants.lines().map(str::trim).filter(|line| line.ends_with(',') && !line.starts_with("//"));
    let kinds: Vec<_> = kinds.map(|line| line.trim_end_matches(',').to_owned()).collect();
    let written: Vec<_> =
        rows(&repository.read("docs/errors.md")).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(written, kinds);
}

#[test]
fn the_readme_names_every_feature() {
    let repository = Repository::open();
    let manifest: toml::Table = repository.read("resilient-client/Cargo.toml").parse().expect("a manifest");
    let readme = repository.read("README.md");
    let (_, section) = readme.split_once("## Features").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let named: BTreeSet<_> = code_spans(section).into_iter().collect();
    let features = manifest["features"].as_table().expect("features").keys();
    for feature in features.filter(|name| *name != "default" && !name.starts_with("__")) {
        assert!(named.contains(feature.as_str()), "{feature}");
    }
    let by_default = manifest["features"]["default"].as_array().expect("a list");
    let (first, _) = section.split_once(". Off").expect("those that are on come first");
    assert_eq!(by_default.len(), code_spans(first).len(), "on by default: {by_default:?}");
}

#[tokio::test]
async fn the_readmes_configuration_file_is_one() {
    let readme = Repository::open().read("README.md");
    let files: Vec<_> =
        readme.split("```toml\n").skip(1).filter(|block| block.starts_with("preset")).collect();
    assert_eq!(files.len(), 1);
    let (text, _) = files[0].split_once("```").expect("its end");
    let policies: PolicySet = toml::from_str(text).expect("a policy set");
    Client::builder().policy(policies).build().expect("that can work");
}

#[test]
fn the_readme_asks_for_the_rust_that_the_workspace_names() {
    let repository = Repository::open();
    let manifest: toml::Table = repository.read("Cargo.toml").parse().expect("a manifest");
    let version = manifest["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert!(repository.read("README.md").contains(&format!("Rust {version} or newer")), "{version}");
}
