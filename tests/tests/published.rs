//! What whoever depends on the library gets: which packages are locked and compiled, and from which
//! version of Rust on. Read from what cargo says, without building anything, and without the
//! network: of the packages this asks for, building this workspace has fetched all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use resilient_client_tests::cargo::{host, offline, root};
use serde_json::Value;

fn cargo(folder: &Path, args: &[&str]) -> String {
    offline(folder, args).unwrap_or_else(|why| panic!("{why}"))
}

/// The names of the packages in the lockfile of a new package that depends on the library so. Their
/// versions are ours.
fn locked(dependency: &str) -> BTreeSet<String> {
    let user = tempfile::tempdir().expect("a folder");
    let library = root().join("resilient-client");
    let manifest = format!(
        "[package]\nname = \"user\"\nedition = \"2024\"\n\n[dependencies]\n\
         resilient-client = {{ path = '{}', {dependency} }}\n",
        library.display()
    );
    let write = |path: &str, text: &[u8]| std::fs::write(user.path().join(path), text).expect(path);
    std::fs::create_dir(user.path().join("src")).expect("a folder");
    write("src/lib.rs", b"");
    write("Cargo.toml", manifest.as_bytes());
    write("Cargo.lock", &std::fs::read(root().join("Cargo.lock")).expect("a lockfile"));
    cargo(user.path(), &["update", "--quiet", "--workspace"]);
    let lock = std::fs::read_to_string(user.path().join("Cargo.lock")).expect("it has been locked");
    let lock: toml::Table = lock.parse().expect("a lockfile");
    let packages = lock["package"].as_array().expect("packages").iter();
    let names: BTreeSet<_> =
        packages.map(|package| package["name"].as_str().expect("a name").to_owned()).collect();
    println!("{dependency}: {} packages", lock["package"].as_array().map_or(0, Vec::len));
    assert!(names.contains("resilient-client") && names.len() > 20, "{names:?}");
    names
}

/// It was a dependency of a target that nobody has, which cargo locks all the same.
#[test]
fn loom_is_in_nobodys_lockfile() {
    for dependency in ["default-features = true", "default-features = false"] {
        let names = locked(dependency);
        for ours in ["loom", "proptest", "tracing-subscriber"] {
            assert!(!names.contains(ours), "{dependency}: {ours}");
        }
    }
}

/// What is compiled on this machine.
fn compiled(features: &[&str]) -> BTreeSet<String> {
    let args = ["tree", "--package", "resilient-client", "--edges", "normal,build", "--prefix", "none"];
    let tree = cargo(&root(), &[&args[..], &["--locked", "--format", "{p}"], features].concat());
    let names: BTreeSet<_> =
        tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    println!("{features:?}: {} packages", names.len());
    assert!(names.contains("tokio"), "{tree}");
    names
}

#[test]
fn a_tower_user_locks_and_compiles_no_reqwest() {
    let layer = ["--no-default-features"];
    let beside = ["--features", "admin,backoff,config,failsafe,fault,metrics,server,stream"];
    let hyper = ["--features", "charset,form,http2,hyper-rustls,json,query"];
    let tests = ["--features", "grpc,testing"];
    let without = [&[][..], &beside, &hyper, &tests];
    for features in without.map(|features| [&layer[..], features].concat()) {
        let features = &features[..];
        let names = compiled(features);
        for theirs in ["reqwest", "tower-http", "hyper-tls"] {
            assert!(!names.contains(theirs), "{features:?}: {theirs}");
        }
    }
    assert!(!locked("default-features = false").contains("reqwest"));
    assert!(compiled(&[]).contains("reqwest"), "by default it is there");
}

/// A version of Rust, such as `1.88` or `1.85.0`.
fn version(text: &str) -> Vec<u32> {
    let mut numbers: Vec<_> = text.split('.').map(|number| number.parse().expect("a number")).collect();
    numbers.resize(3, 0);
    numbers
}

/// The versions that are locked here, as many of them as this machine has: with all features on
/// every platform where somebody fetched those (`cargo fetch --locked`), and no fewer than what
/// this workspace is built of here.
#[test]
fn no_dependency_asks_for_a_newer_rust_than_the_library() {
    let host = host();
    let says = |which: &[&str]| {
        let args = ["metadata", "--format-version", "1", "--locked"];
        let said = offline(&root(), &[&args[..], which].concat());
        said.inspect(|_| println!("{which:?}"))
    };
    let metadata = says(&["--all-features"])
        .or_else(|_| says(&["--all-features", "--filter-platform", &host]))
        .or_else(|_| says(&["--filter-platform", &host]))
        .unwrap_or_else(|why| panic!("{why}"));
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let items = list.as_array().expect("a list").iter();
        items.map(|item| (item["id"].as_str().expect("an id").to_owned(), item.clone())).collect()
    };
    let (packages, nodes) = (by_id(&metadata["packages"]), by_id(&metadata["resolve"]["nodes"]));
    let library = packages.values().find(|package| package["name"] == "resilient-client").expect("it");
    let most = version(library["rust_version"].as_str().expect("the library states it"));
    let mut seen = BTreeSet::new();
    let mut rest = vec![library["id"].as_str().expect("an id").to_owned()];
    let mut newer = Vec::new();
    while let Some(id) = rest.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let package = &packages[&id];
        let asks = package["rust_version"].as_str();
        if asks.is_some_and(|asks| version(asks) > most) {
            newer.push(format!("{} {} asks for {}", package["name"], package["version"], asks.unwrap_or("")));
        }
        for dependency in nodes[&id]["deps"].as_array().expect("a list") {
            let kinds = dependency["dep_kinds"].as_array().expect("a list");
            // One that is for development alone is nobody else's.
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                rest.push(dependency["pkg"].as_str().expect("an id").to_owned());
            }
        }
    }
    println!("{} packages", seen.len());
    assert!(seen.len() > 100, "only {} packages found: the check sees nothing", seen.len());
    assert!(newer.is_empty(), "the library is for {most:?}:\n{}", newer.join("\n"));
}
