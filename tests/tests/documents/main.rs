//! What the documents say of the repository holds: paths and links lead somewhere, tables list what
//! the code has.

mod faults;
mod paths;
mod policies;
mod readme;
mod telemetry;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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

/// The first two cells of each row whose first is code.
fn rows(text: &str) -> Vec<(String, String)> {
    let cells = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.trim().to_owned()))
    };
    text.lines().filter_map(cells).collect()
}
