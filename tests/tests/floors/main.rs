//! The library stands on floors: a module imports only from floors below its own. The floors are
//! the diagram in `resilient-client/src/lib.rs`, which this test reads, so that the diagram is
//! checked and not promised.
//!
//! Tests may import whatever they like. `crate::Error` and its like count as the modules that
//! lib.rs takes them from.

mod source;

use std::collections::BTreeMap;
use std::path::Path;

use source::{Import, Source};

/// The most lines a file may have, its tests apart.
const LONGEST_FILE: usize = 400;
/// The most columns of a comment.
const WIDEST_COMMENT: usize = 100;
/// The most lines of code a function may have.
const LONGEST_FUNCTION: usize = 60;

fn library() -> Vec<Source> {
    Source::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../resilient-client/src"))
}

/// Rooms by name, with the number of the floor they stand on, from the top.
struct Floors(BTreeMap<String, usize>);

impl Floors {
    /// Reads the diagram: after the heading `# Floors`, one floor a line, its rooms separated by
    /// commas, two spaces before what is said of them.
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

/// Where a comment is wider than that. What can't be broken may be: tables, code, and what a link
/// leads to.
fn wide_comments(file: &str, text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut wide = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(said) = line.trim_start().strip_prefix("//") else {
            in_code = false;
            continue;
        };
        let said = said.trim_start_matches(['/', '!']).trim_start();
        in_code ^= said.starts_with("```");
        let is_one_word = said.split_whitespace().count() == 1;
        let is_link = said.starts_with('[') && said.contains("]: ");
        if line.chars().count() > WIDEST_COMMENT
            && !(in_code || is_one_word || is_link || said.starts_with('|'))
        {
            wide.push(format!("{file}:{number}"));
        }
    }
    wide
}

#[test]
fn comments_are_narrow_enough_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut folders, mut wide, mut files) = (vec![root], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !["target", ".git", "node_modules"].contains(&name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| end == "rs") {
                files += 1;
                let text = std::fs::read_to_string(&path).expect("a source");
                wide.extend(wide_comments(&path.display().to_string(), &text));
            }
        }
    }
    assert!(files > 300, "the sources weren't found: {files}");
    assert!(wide.is_empty(), "comments over {WIDEST_COMMENT} columns:\n{}", wide.join("\n"));
}

#[test]
fn a_wide_comment_is_found_and_a_wide_table_is_none() {
    let wide = format!("    /// {}", "many words ".repeat(10));
    assert_eq!(wide_comments("a.rs", &wide), ["a.rs:1"]);
    for fine in [
        format!("//! | {} |", "a cell ".repeat(20)),
        format!("//! ```\n//! {}\n//! ```", "let x = y; ".repeat(10)),
        format!("/// [a link]: {}", "x".repeat(100)),
        format!("let wide = \"{}\";", "many words ".repeat(10)),
    ] {
        assert!(wide_comments("a.rs", &fine).is_empty(), "{fine}");
    }
}
