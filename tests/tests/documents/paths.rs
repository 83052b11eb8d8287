//! Paths and links lead somewhere, and every page is in its index.

use super::*;

/// Whether the text in backticks is a path in this repository, by its form.
fn is_path(span: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let ends = [".rs", ".md", ".toml", ".json", ".sql", ".svg"];
    let starts = ["resilient-client/", "examples/", "tests/", "benches/", "docs/", ".ci/", ".cargo/"];
    span.bytes().all(is_plain)
        && !span.starts_with('/')
        && (ends.iter().any(|end| span.len() > end.len() && span.ends_with(end))
            || starts.iter().any(|start| span.starts_with(start)))
}

/// The targets of links that lead into the repository.
fn relative_links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://") && !target.contains(' ') && !target.is_empty())
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// What a document names and isn't there.
fn missing(repository: &Repository, document: &str, text: &str) -> Vec<String> {
    // The first path in CONTRIBUTING is the one to open, so that it has to be whole.
    let whole = document == "CONTRIBUTING.md";
    let is_there = |path: &str| if whole { repository.has_exactly(path) } else { repository.has(path) };
    let paths =
        code_spans(text).into_iter().filter(|span| is_path(span) && !is_there(span)).map(str::to_owned);
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    let links = relative_links(text).filter(|target| {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let there = repository.root.join(folder).join(path);
        let known = || match (path, has_extension(path, "md")) {
            ("", _) => anchors(text).contains(anchor),
            (_, true) => std::fs::read_to_string(&there).is_ok_and(|other| anchors(&other).contains(anchor)),
            _ => false,
        };
        !(path.is_empty() || there.exists()) || !(anchor.is_empty() || known())
    });
    paths.chain(links.map(str::to_owned)).map(|what| format!("{document}: {what}")).collect()
}

#[test]
fn every_path_and_every_relative_link_leads_somewhere() {
    let repository = Repository::open();
    let mut lost = Vec::new();
    let mut looked_at = 0;
    for document in repository.documents() {
        let text = repository.read(document);
        looked_at += code_spans(&text).into_iter().filter(|span| is_path(span)).count();
        looked_at += relative_links(&text).count();
        lost.extend(missing(&repository, document, &text));
    }
    // Module documentation: its links are rustdoc's to check.
    for file in repository
        .files
        .iter()
        .filter(|file| file.starts_with("resilient-client/src/") && has_extension(file, "rs"))
    {
        let text = repository.read(file);
        let docs: Vec<_> = text.lines().filter_map(|line| line.trim_start().strip_prefix("//!")).collect();
        let docs = docs.join("\n");
        let spans = code_spans(&docs);
        let wrong = spans.iter().filter(|span| is_path(span) && !repository.has(span));
        lost.extend(wrong.map(|span| format!("{file}: {span}")));
    }
    assert!(lost.is_empty(), "not there:\n{}", lost.join("\n"));
    assert!(looked_at > 100, "only {looked_at} paths and links found: the check sees nothing");
}

/// Of the repository on the web: what stands in front of a path in it.
const ON_THE_WEB: &str = "https://github.com/resilient-client/resilient-client/blob/main/";

/// The absolute links into the repository that lead nowhere, and how many there are.
fn lost_on_the_web(repository: &Repository, text: &str) -> (Vec<String>, usize) {
    let ends = |c: char| c.is_whitespace() || ")>\"`,".contains(c);
    let links: Vec<_> = text.split(ON_THE_WEB).skip(1).filter_map(|rest| rest.split(ends).next()).collect();
    let is_lost = |link: &&&str| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let there = std::fs::read_to_string(repository.root.join(path));
        there.map_or(true, |text| !anchor.is_empty() && !anchors(&text).contains(anchor))
    };
    (links.iter().filter(is_lost).map(|link| (*link).to_owned()).collect(), links.len())
}

/// The package's README and the crate's documentation are read where there is no repository.
#[test]
fn every_absolute_link_into_the_repository_leads_somewhere() {
    let repository = Repository::open();
    let manifest: toml::Table = repository.read("Cargo.toml").parse().expect("a manifest");
    let address = manifest["workspace"]["package"]["repository"].as_str().expect("an address");
    assert_eq!(ON_THE_WEB, format!("{address}/blob/main/"));
    let mut found = 0;
    for file in &repository.files {
        if has_extension(file, "md") || (file.starts_with("resilient-client/") && has_extension(file, "rs")) {
            let (lost, links) = lost_on_the_web(&repository, &repository.read(file));
            assert!(lost.is_empty(), "{file}: {lost:?}");
            found += links;
        }
    }
    assert!(found > 5, "only {found} links found: the check sees nothing");
    let text =
        format!("[a]({ON_THE_WEB}no.md) [b]({ON_THE_WEB}README.md#none) {ON_THE_WEB}README.md#licence");
    assert_eq!(
        lost_on_the_web(&repository, &text),
        (vec!["no.md".to_owned(), "README.md#none".to_owned()], 3)
    );
}

#[test]
fn a_path_or_link_that_leads_nowhere_is_found() {
    let repository = Repository::open();
    let text = "# One head\n`src/no_such.rs` `docs/none/` [a](no.md) [b](#two-heads) [c](README.md#no-such-heading)\n\
                `clippy.toml` `policy/hedge.rs` [d](README.md) [e](#one-head) [f](https://example.com/x.md)";
    let found = missing(&repository, "README.md", text);
    let expected = ["src/no_such.rs", "docs/none/", "no.md", "#two-heads", "README.md#no-such-heading"];
    assert_eq!(found, expected.map(|what| format!("README.md: {what}")));
    assert_eq!(
        missing(&repository, "CONTRIBUTING.md", "`hedge.rs`"),
        ["CONTRIBUTING.md: hedge.rs"],
        "not whole"
    );
}

/// `docs/DESIGN.md` lists the rooms' pages, `docs/decisions/README.md` the decisions.
#[test]
fn every_page_is_in_its_index_and_short() {
    let repository = Repository::open();
    let mut pages = 0;
    for (folder, index) in
        [("docs/design/", "docs/DESIGN.md"), ("docs/decisions/", "docs/decisions/README.md")]
    {
        let text = repository.read(index);
        let from = Path::new(index).parent().expect("a folder");
        let linked: BTreeSet<_> = relative_links(&text).map(|link| from.join(link)).collect();
        for page in repository.documents().filter(|page| page.starts_with(folder) && *page != index) {
            pages += 1;
            assert!(linked.contains(Path::new(page)), "{page} isn't in {index}");
            let lines = repository.read(page).lines().count();
            assert!(lines <= 90, "{page} has {lines} lines");
        }
    }
    assert!(pages > 30, "only {pages} pages found: the check sees nothing");
}
