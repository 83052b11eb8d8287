//! `docs/reqwest-api.tsv` says for every public item of reqwest's async API what its counterpart
//! is. Both crates' sources are read, so that no item is forgotten when reqwest has new ones, and
//! no counterpart is named that isn't there.

mod scan;

use std::collections::BTreeSet;
use std::path::Path;

use resilient_client_tests::cargo::{host, offline, root};

/// What a row says of an item.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// Under the same path, in our crate.
    Same,
    /// Under the name in the row.
    Named,
    /// By the adjustment of reqwest's builder.
    Transport,
    /// reqwest's own, which goes with our client as it goes with reqwest's.
    Theirs,
    /// Not at all; the row says why.
    No,
}

struct Row {
    item: String,
    how: How,
    counterpart: String,
    note: String,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("docs/reqwest-api.tsv")).expect("the table");
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    let row = |line: &str| {
        let mut cells = line.split('\t').map(str::to_owned);
        let mut next = || cells.next().unwrap_or_default();
        let (item, how, counterpart, note) = (next(), next(), next(), next());
        let how = match how.as_str() {
            "same" => How::Same,
            "named" => How::Named,
            "transport" => How::Transport,
            "theirs" => How::Theirs,
            "no" => How::No,
            other => panic!("{line}: what is {other:?}?"),
        };
        assert_eq!(cells.next(), None, "{line}");
        Row { item, how, counterpart, note }
    };
    lines.map(row).collect()
}

/// What cargo knows of the packages of this workspace. For this target alone: what others need was
/// never downloaded where nothing but this workspace was built.
fn metadata() -> serde_json::Value {
    let args = ["metadata", "--format-version=1", "--locked", "--filter-platform", &host()];
    let said = offline(&root(), &args).unwrap_or_else(|why| panic!("{why}"));
    serde_json::from_str(&said).expect("JSON")
}

/// Cargo keeps the sources of the reqwest that this workspace is built with.
fn theirs() -> BTreeSet<String> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let version = |package: &serde_json::Value| package["version"].as_str().unwrap_or_default().to_owned();
    let is_it =
        |package: &&serde_json::Value| package["name"] == "reqwest" && version(package).starts_with("0.13.");
    let reqwest = packages.iter().find(is_it).expect("reqwest 0.13");
    let manifest = Path::new(reqwest["manifest_path"].as_str().expect("a path"));
    let all = scan::public(&manifest.with_file_name("src/lib.rs"), "reqwest");
    all.into_iter().filter(|item| !item.contains("reqwest::blocking")).collect()
}

fn ours() -> BTreeSet<String> {
    scan::public(&root().join("resilient-client/src/lib.rs"), "resilient_client")
}

#[test]
fn every_public_item_of_reqwest_has_a_row() {
    let (rows, theirs) = (rows(), theirs());
    let written: Vec<_> = rows.iter().map(|row| row.item.clone()).collect();
    let sorted: BTreeSet<_> = written.iter().cloned().collect();
    assert_eq!(written, sorted.iter().cloned().collect::<Vec<_>>(), "in order, each once");
    let missing: Vec<_> = theirs.difference(&sorted).collect();
    let gone: Vec<_> = sorted.difference(&theirs).collect();
    assert!(missing.is_empty() && gone.is_empty(), "without a row: {missing:#?}\nno longer there: {gone:#?}");
    // What is read is what one would expect.
    assert!(theirs.len() > 300 && theirs.contains("reqwest::RequestBuilder::try_clone"), "{}", theirs.len());
}

#[test]
fn every_counterpart_is_there() {
    let ours = ours();
    let mut wrong = Vec::new();
    for Row { item, how, counterpart, note } in rows() {
        let same = item.replace("reqwest::", "resilient_client::");
        let problem = match how {
            How::Same if !ours.contains(&same) => Some("isn't there under the same name"),
            How::Same | How::Theirs if !counterpart.is_empty() => Some("has its own name, and another"),
            How::Named if !ours.contains(&counterpart) => Some("its counterpart isn't there"),
            How::Transport if !item.starts_with("reqwest::ClientBuilder::") => Some("is no setting"),
            How::No if note.is_empty() => Some("why not?"),
            How::Transport | How::Theirs | How::No if ours.contains(&same) && !item.contains("impl ") => {
                Some("is there under the same name")
            }
            _ => None,
        };
        wrong.extend(problem.map(|problem| format!("{item}: {problem} ({counterpart})")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the blocking client doesn't have, and why.
const ASYNC_ALONE: [&str; 3] = [
    // There is `Read`.
    "Response::bytes_stream",
    // What comes of it is for async code.
    "Response::upgrade",
    // Of what isn't there.
    "Pending",
];

#[test]
fn the_blocking_client_has_what_the_async_one_has() {
    let ours = ours();
    let of = ["Client", "ClientBuilder", "RequestBuilder", "Response"];
    let missing = ours.iter().filter(|item| {
        let Some(own) = item.strip_prefix("resilient_client::") else { return false };
        own.split_once("::").is_some_and(|(of_whom, _)| of.contains(&of_whom))
            && !ASYNC_ALONE.contains(&own)
            && !ours.contains(&format!("resilient_client::blocking::{own}"))
    });
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn what_is_read_of_a_crate_is_what_it_hands_out() {
    let ours = ours();
    for item in [
        "resilient_client::Client::get",
        "resilient_client::hyper::Client::get",
        "resilient_client::Pending",
        "resilient_client::policy::Policy",
        "resilient_client::ErrorKind::Connect",
        "impl From<Client> for resilient_client::Client",
    ] {
        assert!(ours.contains(item), "{item}");
    }
    for item in ["resilient_client::engine::Core", "resilient_client::Client::core"] {
        assert!(!ours.contains(item), "{item}");
    }
}

#[test]
#[ignore = "prints what is read, for whoever writes rows"]
fn list() {
    for item in theirs().iter().chain(&ours()) {
        println!("{item}");
    }
}
