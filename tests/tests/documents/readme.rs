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

/// What a table says of features: on by default or not, and whether reqwest comes with it.
fn told(table: &str) -> BTreeMap<String, (bool, bool)> {
    let mut told = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        for feature in code_spans(cells[0]) {
            told.insert(feature.to_owned(), (cells[1] == "yes", cells[2] == "yes"));
        }
    }
    told
}

/// Whether a feature switches another on, by others or itself.
fn implies(features: &toml::Table, feature: &str, other: &str) -> bool {
    let implied = features[feature].as_array().expect("a list").iter().filter_map(toml::Value::as_str);
    feature == other
        || implied.filter(|name| features.contains_key(*name)).any(|name| implies(features, name, other))
}

/// `features.md` is what the library's own documentation shows.
#[test]
fn two_tables_tell_of_every_feature_what_the_manifest_says() {
    let repository = Repository::open();
    let manifest: toml::Table = repository.read("resilient-client/Cargo.toml").parse().expect("a manifest");
    let features = manifest["features"].as_table().expect("features");
    let public = features.keys().filter(|name| *name != "default" && !name.starts_with("__"));
    let expected: BTreeMap<_, _> = public
        .map(|name| (name.clone(), (implies(features, "default", name), implies(features, name, "reqwest"))))
        .collect();
    assert_eq!(told(&repository.read("resilient-client/src/features.md")), expected);
    let readme = repository.read("README.md");
    let (_, section) = readme.split_once("## Features").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    assert_eq!(told(section), expected);
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
fn the_readme_asks_for_the_rust_that_the_manifests_name() {
    let repository = Repository::open();
    let manifest = |path: &str| -> toml::Table { repository.read(path).parse().expect("a manifest") };
    let (workspace, library) = (manifest("Cargo.toml"), manifest("resilient-client/Cargo.toml"));
    let readme = repository.read("README.md");
    let version = library["package"]["rust-version"].as_str().expect("a version");
    assert!(readme.contains(&format!("You need Rust {version} or newer")), "{version}");
    let version = workspace["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert!(readme.contains(&format!("this repository Rust {version} or newer")), "{version}");
}
