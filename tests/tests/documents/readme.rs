//! What README, the package's own, and pages for users list: kinds of errors, features, a
//! configuration file, versions, badges.

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

fn manifest(path: &str) -> toml::Table {
    Repository::open().read(path).parse().expect("a manifest")
}

/// The Rust that the library asks for.
fn rust_version() -> String {
    manifest("resilient-client/Cargo.toml")["package"]["rust-version"].as_str().expect("a version").to_owned()
}

#[test]
fn the_readmes_ask_for_the_rust_that_the_manifests_name() {
    let repository = Repository::open();
    let readme = repository.read("README.md");
    let version = rust_version();
    let asks = format!("You need Rust {version} or newer");
    assert!(readme.contains(&asks), "{version}");
    assert!(repository.read("resilient-client/README.md").contains(&asks), "{version}");
    assert!(repository.read("docs/stability.md").contains(&format!("\nRust {version}. ")), "{version}");
    let workspace = manifest("Cargo.toml");
    let version = workspace["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert!(readme.contains(&format!("this repository Rust {version} or newer")), "{version}");
}

/// A badge says what the manifest says. One for a version on a registry, for documentation on the
/// web or for CI would point to nothing as long as there is none.
#[test]
fn the_readmes_have_two_badges_and_both_are_true() {
    let workspace = manifest("Cargo.toml");
    let licence = workspace["workspace"]["package"]["license"].as_str().expect("a licence");
    let licence = licence.replace('-', "--").replace(" OR ", "_or_");
    let version = rust_version();
    let expected = [
        format!("https://img.shields.io/badge/rust-{version}%2B-blue"),
        format!("https://img.shields.io/badge/licence-{licence}-blue"),
    ];
    for path in ["README.md", "resilient-client/README.md"] {
        let text = Repository::open().read(path);
        let images =
            text.split("![").skip(1).filter_map(|rest| Some(rest.split_once("](")?.1.split_once(')')?.0));
        let badges: Vec<_> = images.filter(|image| image.contains("://")).collect();
        assert_eq!(badges, expected, "{path}");
        assert!(text.contains(&format!("![Rust {version} or newer](")), "{path}");
    }
}

/// The package's README shows how to depend on this version, and its links don't leave the package
/// but by a whole address.
#[test]
fn the_packages_readme_stands_alone() {
    let readme = Repository::open().read("resilient-client/README.md");
    let workspace = manifest("Cargo.toml");
    let version = workspace["workspace"]["package"]["version"].as_str().expect("a version");
    let (version, _) = version.rsplit_once('.').expect("three numbers");
    let mut shown = 0;
    for block in readme.split("```toml\n").skip(1) {
        let (block, _) = block.split_once("```").expect("its end");
        let block: toml::Table = block.parse().expect("a part of a manifest");
        let dependencies = block.get("dependencies").and_then(toml::Value::as_table).unwrap_or(&block);
        let dependency = &dependencies["resilient-client"];
        let asked = dependency.get("version").unwrap_or(dependency).as_str();
        assert_eq!(asked, Some(version), "{block}");
        shown += 1;
    }
    assert_eq!(shown, 2, "with the default features, and without");
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let inside: BTreeSet<_> = links.filter(|link| !link.contains("://") && !link.starts_with('#')).collect();
    assert_eq!(inside, BTreeSet::from(["LICENSE-APACHE", "LICENSE-MIT"]));
}

/// `bytes 1` in the table of dependencies: the major version that the manifest takes.
#[test]
fn the_public_dependencies_are_of_the_versions_that_the_manifest_takes() {
    let page = Repository::open().read("docs/stability.md");
    let (_, table) = page.split_once("## Dependencies").expect("a section");
    let (table, _) = table.split_once("\n## ").expect("its end");
    let (workspace, library) = (manifest("Cargo.toml"), manifest("resilient-client/Cargo.toml"));
    let listed: Vec<_> = code_spans(table).into_iter().filter_map(|span| span.split_once(' ')).collect();
    for (name, major) in &listed {
        let own = &library["dependencies"][name];
        let taken =
            if own.get("workspace").is_some() { &workspace["workspace"]["dependencies"][name] } else { own };
        let taken = taken.get("version").unwrap_or(taken).as_str().expect("a version");
        let parts = if taken.starts_with("0.") { 2 } else { 1 };
        let taken: Vec<_> = taken.trim_start_matches('=').split('.').take(parts).collect();
        assert_eq!(*major, taken.join("."), "{name}");
    }
    assert!(listed.len() > 15, "only {listed:?} found: the check sees nothing");
}
