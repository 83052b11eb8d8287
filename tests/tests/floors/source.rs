//! Reading Rust, as far as imports and lengths need it: comments, strings and tests are blanked,
//! the rest is looked through for `use`, paths and functions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One file of the library that isn't a test's.
pub(crate) struct Source {
    /// From `src/`.
    pub(crate) file: String,
    /// As in `call::state`; empty for lib.rs.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
}

/// A path that a file names, from the crate's root.
pub(crate) struct Import {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
}

impl Source {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        Self { file: file.to_owned(), module, text: text.to_owned() }
    }

    /// Every file under `src` but those that are declared as tests.
    pub(crate) fn all(src: &Path) -> Vec<Self> {
        let (mut files, mut folders) = (Vec::new(), vec![src.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the folder can be read") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let file = path.strip_prefix(src).expect("within").to_string_lossy().replace('\\', "/");
                    files.push(Self::new(&file, &fs::read_to_string(&path).expect("a file can be read")));
                }
            }
        }
        files.sort_by(|a, b| a.file.cmp(&b.file));
        let tests: Vec<_> = files.iter().flat_map(Self::test_modules).collect();
        files.retain(|file| !tests.iter().any(|test| file.module.starts_with(test)));
        files
    }

    /// The modules that are declared for tests only, each in a file of its own.
    fn test_modules(&self) -> Vec<Vec<String>> {
        let blank = blanked(&self.text);
        let items = test_items(&blank).into_iter().filter_map(|(from, to)| {
            let item = blank.get(from..to)?.rsplit(']').next()?.trim();
            let name = item.strip_suffix(';')?.rsplit(' ').next()?;
            item.contains("mod ").then(|| [self.module.clone(), vec![name.to_owned()]].concat())
        });
        items.collect()
    }

    /// The code alone, at the same places.
    fn code(&self) -> String {
        let blank = blanked(&self.text);
        let mut code = blank.clone().into_bytes();
        for (from, to) in test_items(&blank) {
            code[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        String::from_utf8_lossy(&code).into_owned()
    }

    /// Its lines, those of its tests apart.
    pub(crate) fn lines_without_tests(&self) -> usize {
        let blank = blanked(&self.text);
        let tests = test_items(&blank).into_iter().map(|(from, to)| blank[from..to].lines().count());
        self.text.lines().count() - tests.sum::<usize>()
    }

    /// Names that the file hands out, with the paths they stand for.
    pub(crate) fn hands_out(&self) -> BTreeMap<String, Vec<String>> {
        let code = self.code();
        let paths = statements(&code, "pub use ").into_iter().flat_map(|(_, tree)| leaves(tree, &[]));
        paths.filter_map(|path| Some((path.last()?.clone(), path))).collect()
    }

    /// Everything it names by `crate::`, `self::` or `super::`, in `use` and elsewhere.
    pub(crate) fn imports(&self) -> Vec<Import> {
        let code = self.code();
        let mut paths = Vec::new();
        for (at, tree) in statements(&code, "use ") {
            paths.extend(leaves(tree, &[]).into_iter().map(|path| (at, path)));
        }
        for start in ["crate::", "super::"] {
            for (at, _) in code.match_indices(start) {
                let before = code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || "_:$".contains(c)) {
                    continue;
                }
                let end = code[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let path = &code[at..end.map_or(code.len(), |end| at + end)];
                paths.push((
                    at,
                    path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(),
                ));
            }
        }
        let line = |at: usize| code[..at].matches('\n').count() + 1;
        let absolute = paths.into_iter().filter_map(|(at, path)| {
            // Where it stands matters to what is relative only.
            let relative = path.first().is_some_and(|first| first == "super");
            let module = if relative { self.module_at(&code, at) } else { Vec::new() };
            Some(Import { line: line(at), path: absolute(&module, &path)? })
        });
        absolute.filter(|import| !import.path.is_empty()).collect()
    }

    /// The module at a place in the file, modules within it counted.
    fn module_at(&self, code: &str, at: usize) -> Vec<String> {
        let mut module = self.module.clone();
        for (start, _) in code.match_indices("mod ") {
            let rest = &code[start + 4..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let open = start + 4 + name.len();
            let declares =
                code[..start].chars().next_back().is_none_or(char::is_whitespace) && !name.is_empty();
            if declares
                && code[open..].starts_with(" {")
                && (open + 1..end_of_block(code, open + 1)).contains(&at)
            {
                module.push(name);
            }
        }
        module
    }

    /// Its functions with their lines of code: without empty lines and comments.
    pub(crate) fn functions(&self) -> Vec<(String, usize)> {
        let code = self.code();
        let mut found = Vec::new();
        for (start, _) in code.match_indices("fn ") {
            if code[..start].chars().next_back().is_some_and(|c| !c.is_whitespace()) {
                continue;
            }
            let name: String =
                code[start + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(open) = code[start..].find(['{', ';']).map(|open| start + open) else { continue };
            if !name.is_empty() && code.as_bytes()[open] == b'{' {
                let body = &code[open..end_of_block(&code, open)];
                let lines = body.lines().filter(|line| !line.trim().is_empty()).count().saturating_sub(2);
                found.push((name, lines));
            }
        }
        found
    }
}

/// `path` as seen from `module`, from the root; `None` for another crate's.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let path: Vec<_> = path.iter().filter(|part| *part != "self" || supers > 0).cloned().collect();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat()),
        _ => None,
    }
}

/// Statements that begin with `head`, up to their semicolon: where, and what follows the head.
fn statements<'a>(code: &'a str, head: &str) -> Vec<(usize, &'a str)> {
    let starts = code
        .match_indices(head)
        .filter(|(at, _)| code[..*at].chars().next_back().is_none_or(char::is_whitespace));
    let whole = starts.filter_map(|(at, _)| {
        let rest = &code[at + head.len()..];
        Some((at, &rest[..rest.find(';')?]))
    });
    whole.collect()
}

/// The paths of a `use` tree.
fn leaves(tree: &str, prefix: &[String]) -> Vec<Vec<String>> {
    let parts = |text: &str| -> Vec<String> {
        text.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![[prefix.to_vec(), parts(path)].concat()];
    };
    let prefix = [prefix.to_vec(), parts(&tree[..open])].concat();
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[from..at].trim().is_empty() {
                    found.extend(leaves(&inner[from..at], &prefix));
                }
                from = (at + 1).min(inner.len());
            }
            _ => {}
        }
    }
    found
}

/// Where the items under a `#[cfg(test)]` begin and end, attribute included.
fn test_items(blank: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (at, _) in blank.match_indices("#[cfg(") {
        let attribute = &blank[at..at + blank[at..].find(']').unwrap_or(0)];
        let inside = found.last().is_some_and(|(_, end)| at < *end);
        if inside || !attribute.starts_with("#[cfg(test") && !attribute.starts_with("#[cfg(all(test") {
            continue;
        }
        let (mut depth, mut end) = (0_i32, blank.len());
        for (offset, c) in blank[at + attribute.len()..].char_indices() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' => depth -= 1,
                ']' if offset > 0 => depth -= 1,
                _ => {}
            }
            let over = depth == 0 && (c == ';' || c == '}' || c == ',');
            if over || depth < 0 {
                end = at + attribute.len() + offset + usize::from(over);
                break;
            }
        }
        found.push((at, end));
    }
    found
}

/// The place after the brace that closes the one at `open`.
fn end_of_block(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in code[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The text without its comments and without what stands in strings and characters, byte for byte
/// as long.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let raw = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with('"') {
            string(rest)
        } else if let Some(hashes) = raw.filter(|hashes| !word_before && rest[1 + hashes..].starts_with('"'))
        {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else {
            character(rest)
        };
        out[at..at + length].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        let next = at + length.max(1);
        at = (next..=bytes.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(bytes.len());
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == '"' && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// How long a character literal is; 0 for a lifetime, or for anything else.
fn character(rest: &str) -> usize {
    let Some(inner) = rest.strip_prefix('\'') else { return 0 };
    if inner.starts_with('\\') {
        return inner.get(2..).and_then(|tail| tail.find('\'')).map_or(0, |end| end + 4);
    }
    let first = inner.chars().next().map_or(0, char::len_utf8);
    if inner.get(first..).is_some_and(|tail| tail.starts_with('\'')) { first + 2 } else { 0 }
}
