//! What README and `docs/errors.md` list: kinds of errors, features, a configuration file, the
//! version of Rust.

use resilient_client::Client;
use resilient_client::policy::PolicySet;

use super::*;

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
