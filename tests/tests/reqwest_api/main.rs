//! `docs/reqwest-api.tsv` says for every public item of reqwest's async API what its counterpart
//! is. Both crates' sources are read, so that no item is forgotten when reqwest has new ones, and no
//! counterpart is named that isn't there.

mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo keeps the sources of reqwest that this workspace is built with.
fn theirs() -> BTreeSet<String> {
    let out = Command::new(env!("CARGO")).args(["metadata", "--format-version=1", "--offline"]).output();
    let metadata: serde_json::Value = serde_json::from_slice(&out.expect("cargo").stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let reqwest = packages.iter().find(|package| {
        package["name"] == "reqwest" && package["version"].as_str().is_some_and(|it| it.starts_with("0.13."))
    });
    let manifest = reqwest.expect("reqwest 0.13")["manifest_path"].as_str().expect("a path");
    let all = scan::public(&Path::new(manifest).with_file_name("src/lib.rs"), "reqwest");
    all.into_iter().filter(|item| !item.contains("reqwest::blocking")).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn ours() -> BTreeSet<String> {
    scan::public(&root().join("resilient-client/src/lib.rs"), "resilient_client")
}

#[test]
fn dump() {
    for item in theirs() { println!("T\t{item}"); }
    for item in ours() { println!("O\t{item}"); }
}
