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

fn library() -> toml::Table {
    let text = std::fs::read_to_string(root().join("resilient-client/Cargo.toml")).expect("a manifest");
    text.parse().expect("a manifest")
}

/// The files of the package, as paths in it.
fn packaged() -> BTreeSet<String> {
    let args = ["package", "--package", "resilient-client", "--list", "--allow-dirty"];
    cargo(&root(), &args).lines().map(str::to_owned).collect()
}

/// The files below a folder of the library.
fn below(folder: &str) -> BTreeSet<String> {
    let library = root().join("resilient-client");
    let (mut files, mut folders) = (BTreeSet::new(), vec![library.join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the library") {
            let path = entry.expect("its entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(&library).expect("below it");
                files.insert(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    files
}

/// Sources and examples, what a reader looks for, and what cargo adds: not a file more or less.
#[test]
fn the_package_is_whole_and_holds_nothing_else() {
    let mut packaged = packaged();
    // Which commit it is of: there where this is a git repository.
    packaged.remove(".cargo_vcs_info.json");
    let papers =
        ["Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];
    let mut expected: BTreeSet<_> = papers.map(str::to_owned).into();
    expected.extend([below("src"), below("examples")].into_iter().flatten());
    println!("{} files", packaged.len());
    let missing: Vec<_> = expected.difference(&packaged).collect();
    let besides: Vec<_> = packaged.difference(&expected).collect();
    assert!(missing.is_empty() && besides.is_empty(), "missing: {missing:?}\nbesides: {besides:?}");
}

#[test]
fn the_packages_licences_are_the_repositorys() {
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let read = |folder: &str| std::fs::read_to_string(root().join(folder).join(name)).expect(name);
        assert_eq!(read("resilient-client"), read(""), "{name}");
    }
}

/// A path in the package, from one of its files: `src/../README.md` is `README.md`. None for what
/// is outside.
fn from(file: &str, path: &str) -> Option<String> {
    let mut folders: Vec<_> = file.split('/').collect();
    folders.pop();
    for part in path.split('/') {
        match part {
            ".." => drop(folders.pop()?),
            "." => {}
            part => folders.push(part),
        }
    }
    Some(folders.join("/"))
}

/// What the compiler reads beside the sources is in the package, or it doesn't compile there.
#[test]
fn what_sources_include_is_in_the_package() {
    assert_eq!(from("src/lib.rs", "../README.md").as_deref(), Some("README.md"));
    assert_eq!(from("src/lib.rs", "../../README.md"), None);
    let packaged = packaged();
    let (mut found, mut lost) = (0, Vec::new());
    for file in packaged.iter().filter(|file| Path::new(file).extension().is_some_and(|end| end == "rs")) {
        let text = std::fs::read_to_string(root().join("resilient-client").join(file)).expect(file);
        let included = ["include_str!(\"", "include_bytes!(\"", "include!(\""].into_iter();
        let paths =
            included.flat_map(|how| text.split(how).skip(1)).filter_map(|rest| rest.split('"').next());
        for path in paths {
            found += 1;
            if from(file, path).is_none_or(|path| !packaged.contains(&path)) {
                lost.push(format!("{file}: {path}"));
            }
        }
    }
    assert!(lost.is_empty(), "not in the package: {lost:?}");
    assert!(found > 5, "only {found} files included: the check sees nothing");
}

/// Cargo leaves out of a package's manifest what tests depend on by its path alone.
#[test]
fn all_that_the_package_and_its_tests_need_comes_from_a_registry() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let workspace: toml::Table = workspace.parse().expect("a manifest");
    let ours = &workspace["workspace"]["dependencies"];
    let library = library();
    let targets = library["target"].as_table().expect("targets").values();
    let tables = std::iter::once(&library).chain(targets.filter_map(toml::Value::as_table));
    let mut found = 0;
    for table in tables {
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let listed = kinds.into_iter().filter_map(|kind| table.get(kind)?.as_table());
        for (name, own) in listed.flatten() {
            let dependency = if own.get("workspace").is_some() { &ours[name] } else { own };
            assert!(dependency.is_str() || dependency.get("version").is_some(), "{name}: no version");
            assert!(dependency.get("path").is_none(), "{name}: a path");
            assert!(dependency.get("git").is_none(), "{name}: a repository");
            found += 1;
        }
    }
    assert!(found > 30, "only {found} dependencies found: the check sees nothing");
}

/// What the documentation of a release is built with: every feature but this repository's own.
#[test]
fn the_documentation_is_built_with_every_public_feature() {
    let library = library();
    let features = library["features"].as_table().expect("features").keys();
    let public = features.filter(|name| *name != "default" && !name.starts_with("__"));
    let mut public: Vec<_> = public.cloned().collect();
    public.sort();
    let docs = &library["package"]["metadata"]["docs"]["rs"];
    let list = |name: &str| -> Vec<_> {
        let list = docs[name].as_array().expect(name).iter();
        list.map(|item| item.as_str().expect("a text").to_owned()).collect()
    };
    assert_eq!(list("features"), public, "in the order of the alphabet");
    assert_eq!(list("rustdoc-args"), ["--cfg", "docsrs"], "each item says which feature brings it");
}
