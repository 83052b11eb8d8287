//! The library stands on floors: a module imports only from floors below its own. The floors are the diagram in
//! `resilient-client/src/lib.rs`, which this test reads, so that the diagram is checked and not promised.
//!
//! Tests may import whatever they like. `crate::Error` and its like count as the modules that lib.rs takes them from.

mod source;

use std::collections::BTreeMap;
use std::path::Path;

use source::{Import, Source};

/// The most lines a file may have, its tests apart.
const LONGEST_FILE: usize = 400;
/// The most lines of code a function may have.
const LONGEST_FUNCTION: usize = 60;

fn library() -> Vec<Source> {
    Source::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../resilient-client/src"))
}

/// Rooms by name, with the number of the floor they stand on, from the top.
struct Floors(BTreeMap<String, usize>);

impl Floors {
    /// Reads the diagram: after the heading `# Floors`, one floor a line, its rooms separated by commas, two spaces before
    /// what is said of them.
    fn read(lib: &str) -> Self {
        let docs = lib.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim);
        let diagram =
            docs.skip_while(|line| *line != "# Floors").skip_while(|line| *line != "```text").skip(1);
        let floors = diagram.take_while(|line| *line != "```").enumerate();
        let rooms = floors.flat_map(|(floor, line)| {
            let rooms = line.split("  ").next().unwrap_or_default();
            rooms
                .split(',')
                .map(str::trim)
                .filter(|room| !room.is_empty())
                .map(move |room| (room.to_owned(), floor))
        });
        Self(rooms.collect())
    }

    /// The room that a path leads into, and its floor.
    fn of(&self, path: &[String]) -> Option<(&str, usize)> {
        (1..=path.len()).rev().find_map(|n| {
            let (room, floor) = self.0.get_key_value(&path[..n].join("::"))?;
            Some((room.as_str(), *floor))
        })
    }
}

/// The imports that don't go down, as a reader would want them told.
fn upward(sources: &[Source]) -> Vec<String> {
    let lib = sources.iter().find(|source| source.module.is_empty()).expect("lib.rs is there");
    let (floors, root) = (Floors::read(&lib.text), lib.hands_out());
    assert!(floors.0.len() > 20, "the diagram in lib.rs wasn't found");
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        let Some((room, floor)) = floors.of(&source.module) else {
            found.push(format!("{}: stands on no floor of the diagram in lib.rs", source.file));
            continue;
        };
        for Import { line, path } in source.imports() {
            // What lib.rs hands out is imported from where it stands.
            let path = path.first().and_then(|first| root.get(first)).unwrap_or(&path);
            let Some((to, below)) = floors.of(path) else { continue };
            if to != room && below <= floor {
                found.push(format!("{}:{line}: {room} imports {} from above", source.file, path.join("::")));
            }
        }
    }
    found
}

#[test]
fn every_import_goes_down() {
    let found = upward(&library());
    assert!(found.is_empty(), "{} imports run up:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_planted_upward_import_is_found() {
    let plants = [
        (
            "policy/budget.rs",
            "use crate::call::state::CallState;",
            "policy imports call::state::CallState from above",
        ),
        (
            "policy/budget.rs",
            "pub(crate) use super::super::{engine::Core, time};",
            "policy imports engine::Core from above",
        ),
        (
            "upstream/registry.rs",
            "type Planted = crate::Client;",
            "upstream imports client::Client from above",
        ),
        ("hyper/mod.rs", "use crate::layer;", "hyper imports layer from above"),
        (
            "outcome/mod.rs",
            "use crate::outcome::classify::Classified;",
            "outcome imports outcome::classify::Classified",
        ),
    ];
    for (file, plant, told) in plants {
        let mut sources = library();
        let source = sources.iter_mut().find(|source| source.file == file).expect(file);
        source.text = format!("{}\n{plant}\n", source.text);
        let found = upward(&sources);
        assert!(found.iter().any(|line| line.starts_with(file) && line.contains(told)), "{plant}: {found:?}");
    }
}

#[test]
fn what_is_no_import_is_none() {
    for plant in [
        "// use crate::call::state::CallState;",
        "const PLANTED: &str = \"use crate::call::state::CallState;\";",
        "#[cfg(test)]\nmod planted {\n    use crate::call::state::CallState;\n}",
        "#[cfg(all(test, not(resilient_loom)))]\nuse crate::call::state::CallState;",
    ] {
        let mut sources = library();
        let source =
            sources.iter_mut().find(|source| source.file == "policy/budget.rs").expect("it is there");
        source.text = format!("{}\n{plant}\n", source.text);
        assert_eq!(upward(&sources), upward(&library()), "{plant}");
    }
}

#[test]
fn a_new_room_must_find_its_floor() {
    let mut sources = library();
    sources.push(Source::new("cellar.rs", "//! A room that the diagram doesn't show.\n"));
    assert!(upward(&sources).iter().any(|line| line.starts_with("cellar.rs: stands on no floor")));
}

#[test]
fn files_are_short_enough_to_read_whole() {
    let long = library().into_iter().map(|source| (source.lines_without_tests(), source.file));
    let long: Vec<_> = long.filter(|(lines, _)| *lines > LONGEST_FILE).collect();
    assert!(long.is_empty(), "longer than {LONGEST_FILE} lines: {long:?}");
}

#[test]
fn functions_are_short_enough_to_read_whole() {
    let sources = library();
    let all = sources.iter().flat_map(|source| {
        source.functions().into_iter().map(|(name, lines)| (source.file.as_str(), name, lines))
    });
    let long: Vec<_> = all.filter(|(_, _, lines)| *lines > LONGEST_FUNCTION).collect();
    assert!(long.is_empty(), "longer than {LONGEST_FUNCTION} lines: {long:?}");
}
