//! What the library hands out is what `docs/public-api.txt` says. The ignored tests read the JSON
//! that `scripts/check public-api` has rustdoc write first.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use public_api::{Builder, PublicItem};
use resilient_client_tests::cargo::root;
use serde_json::Value;

/// The version of rustdoc's JSON that `public-api` reads, in its version in the workspace's
/// manifest, and the cargo-check-external-types that `scripts/check` installs. A toolchain that
/// writes another one wants other versions of both, and then this number.
const FORMAT: u64 = 57;

const HEAD: &str = "\
# The public API of resilient-client with all its features on Linux, an item a line; without parameters' names and
# blanket implementations. Derived traits are there, without their methods; types are Send and Sync unless it is said of them.
# `scripts/check public-api` compares it with the code, `scripts/check public-api-renew` writes it anew.
";

fn json() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's target folder");
    target.join("doc/resilient_client.json")
}

fn items(of: impl FnOnce(Builder) -> Builder) -> Vec<String> {
    let builder = of(Builder::from_rustdoc_json(json()).omit_blanket_impls(true));
    let api = builder.build().unwrap_or_else(|why| panic!("{}: {why}", json().display()));
    api.items().map(PublicItem::to_string).collect()
}

/// Types are `Send` and `Sync` unless this is said of them.
fn is_bound_to_its_thread(item: &str) -> bool {
    item.contains("!core::marker::Send for") || item.contains("!core::marker::Sync for")
}

/// What a trait says already: methods of one that formats, and what a macro implements beside it.
fn says_nothing(item: &str) -> bool {
    item.ends_with("&mut core::fmt::Formatter<'_>) -> core::fmt::Result")
        || item.contains("::StructuralPartialEq ")
        || item.starts_with("impl<'__pin")
}

/// An item a line; of derived traits that they are there, and of auto traits where they aren't.
fn listed() -> String {
    let text = std::fs::read_to_string(json()).unwrap_or_else(|why| panic!("{}: {why}", json().display()));
    let format = serde_json::from_str::<Value>(&text).expect("JSON")["format_version"].take();
    assert_eq!(format, FORMAT, "rustdoc's JSON is of another version than is read here: see FORMAT");
    let set = |items: Vec<String>| items.into_iter().collect::<BTreeSet<_>>();
    let without_auto = set(items(|all| all.omit_auto_trait_impls(true)));
    let written = set(items(|all| all.omit_auto_trait_impls(true).omit_auto_derived_impls(true)));
    let is_listed = |item: &String| {
        let is_derived = without_auto.contains(item) && item.starts_with("impl");
        is_bound_to_its_thread(item) || ((written.contains(item) || is_derived) && !says_nothing(item))
    };
    let items: Vec<_> = items(|all| all).into_iter().filter(is_listed).collect();
    HEAD.to_owned() + &items.join("\n") + "\n"
}

fn snapshot() -> PathBuf {
    root().join("docs/public-api.txt")
}

/// The lines that one of both has, a changed item's two below each other.
fn difference(before: &str, now: &str) -> String {
    let (before, now): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), now.lines().collect());
    let mut lines = String::new();
    for line in before.symmetric_difference(&now) {
        let sign = if now.contains(line) { '+' } else { '-' };
        writeln!(lines, "{sign} {line}").expect("a string takes it");
    }
    lines
}

#[test]
#[ignore = "scripts/check public-api, which has rustdoc write what is read here"]
fn the_public_api_is_what_its_list_says() {
    let before = std::fs::read_to_string(snapshot()).expect("docs/public-api.txt");
    let now = listed();
    assert!(now.lines().count() > 1000, "rustdoc's JSON has next to nothing");
    assert!(
        before == now,
        "docs/public-api.txt is no longer the public API:\n{}\
         If it is meant: scripts/check public-api-renew. A line with - breaks whoever uses it, and so does\n\
         one with + that takes away Send or Sync, or adds a variant or a field that all have to name.",
        difference(&before, &now)
    );
}

#[test]
#[ignore = "scripts/check public-api-renew, which writes docs/public-api.txt"]
fn renew() {
    std::fs::write(snapshot(), listed()).expect("docs/public-api.txt");
}

/// cargo-check-external-types says what isn't allowed, and not what is allowed for nothing. What
/// is, `docs/stability.md` promises.
#[test]
fn what_is_allowed_of_other_crates_is_used() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    let (allowed, listed) = (read("external-types.toml"), read("docs/public-api.txt"));
    let promised = read("docs/stability.md");
    let allowed: toml::Table = allowed.parse().expect("TOML");
    let allowed = allowed["allowed_external_types"].as_array().expect("a list");
    let begins_a_path =
        |before: &str| !before.ends_with(|last: char| last.is_alphanumeric() || "_:".contains(last));
    for entry in allowed {
        let path = entry.as_str().expect("a path").trim_end_matches('*');
        let mut uses = listed.match_indices(path).map(|(at, _)| &listed[..at]);
        assert!(uses.any(begins_a_path), "{entry} is in no line of docs/public-api.txt");
        // serde's traits are defined in a crate of their own.
        let package =
            path.split("::").next().unwrap_or(path).replace("serde_core", "serde").replace('_', "-");
        assert!(promised.contains(&format!("`{package} ")), "{package} isn't in docs/stability.md");
    }
    assert!(allowed.len() > 10, "{allowed:?}");
}

/// The paragraphs below a heading of `docs/stability.md`.
fn promised(heading: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/stability.md")).expect("docs/stability.md");
    let (_, below) = page.split_once(&format!("\n## {heading}\n")).expect("the heading");
    below.split("\n## ").next().unwrap_or_default().to_owned()
}

/// What stands between backticks, if it is a type's name, without its path.
fn types_in(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(last).filter(|name| name.starts_with(char::is_uppercase)).collect()
}

fn last(path: &str) -> Option<&str> {
    path.rsplit("::").next()
}

/// The item of a line, whatever its attributes.
fn item(line: &str) -> Option<&str> {
    let behind_attributes = || Some(line.strip_prefix("#[")?.split_once("] pub ")?.1);
    line.strip_prefix("pub ").or_else(behind_attributes)
}

/// The path of what is named there, without generics; a field's ends with a colon.
fn path(line: &str) -> Option<&str> {
    let words = item(line)?.split(' ').find(|word| word.starts_with("resilient_client"))?;
    words.split(['<', '(']).next()
}

/// `pub enum a::B<C> where D` is an enum `a::B`.
fn defined(line: &str) -> Option<(&str, &str)> {
    let (kind, _) = item(line)?.split_once(' ')?;
    matches!(kind, "struct" | "enum" | "trait").then_some((kind, path(line)?.trim_end_matches(':')))
}

/// The types and traits with two public paths. What is implemented for one stands below each of
/// them, and names it by the same one.
fn with_two_paths(listed: &str) -> BTreeSet<&str> {
    let names = |line: &str, path: &str| {
        line.match_indices(path).any(|(at, _)| {
            let rest = &line[at + path.len()..];
            !rest.starts_with(|next: char| next.is_alphanumeric() || "_:".contains(next))
        })
    };
    let lines: Vec<_> = listed.lines().collect();
    let mut twice = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((_, path)) = defined(line) else { continue };
        let below = lines[at + 1..].iter().take_while(|line| defined(line).is_none());
        let mut implemented = below.filter(|line| line.starts_with("impl")).peekable();
        if implemented.peek().is_some() && !implemented.any(|line| names(line, path)) {
            twice.extend(last(path));
        }
    }
    twice
}

#[test]
fn a_thing_has_one_path_unless_it_is_said_of_it() {
    let listed = std::fs::read_to_string(snapshot()).expect("docs/public-api.txt");
    assert_eq!(with_two_paths(&listed), types_in(&promised("Names")));
}

/// Types to which a variant or a field can't be added without breaking who matches them: enums, and
/// structs and variants with public fields, that aren't `non_exhaustive`.
fn complete(listed: &str) -> BTreeSet<&str> {
    let grows: BTreeSet<_> =
        listed.lines().filter(|line| line.starts_with("#[non_exhaustive]")).filter_map(path).collect();
    let mut complete = BTreeSet::new();
    for line in listed.lines() {
        let Some(path) = path(line) else { continue };
        // A field is `pub the::Type::name: type`, or `pub the::Type::Variant::name: type`.
        let field = path.strip_suffix(':').filter(|_| item(line).is_some_and(|item| item.starts_with(path)));
        let owner = field.and_then(|field| field.rsplit_once("::")).map(|(of, _)| of);
        let may_grow = owner.map_or_else(|| !line.contains("pub enum "), |of| grows.contains(of));
        if !may_grow && !grows.contains(path) {
            let of = owner.unwrap_or(path);
            let is_variant =
                of.rsplit("::").nth(1).is_some_and(|before| before.starts_with(char::is_uppercase));
            complete.extend(of.rsplit("::").nth(usize::from(is_variant)));
        }
    }
    complete
}

#[test]
fn what_cannot_grow_is_said_to_be_complete() {
    let listed = std::fs::read_to_string(snapshot()).expect("docs/public-api.txt");
    assert_eq!(complete(&listed), types_in(&promised("Complete")));
}

/// What isn't belongs to one task: futures, bodies on their way, and what one call asks for.
#[test]
fn types_are_send_and_sync_but_for_what_one_call_holds() {
    let listed = std::fs::read_to_string(snapshot()).expect("docs/public-api.txt");
    let without = |of: &str| -> BTreeSet<_> {
        let lines = listed
            .lines()
            .filter_map(|line| line.split_once(&format!("!core::marker::{of} for resilient_client::")));
        lines.map(|(_, path)| path.split('<').next().unwrap_or(path).to_owned()).collect()
    };
    // The error in it needn't be either, and a classifier is done with it when it returns.
    let ended = "outcome::classify::Ended";
    assert_eq!(without("Send"), BTreeSet::from([ended.to_owned()]));
    let of_one_call = [
        "Pending",
        "Prepared",
        "ResponseFuture",
        "fault::ClientFuture",
        "fault::admin::AdminFuture",
        "hyper::Answered",
        "hyper::Body",
        "hyper::Pending",
        "hyper::RequestBuilder",
        ended,
        "policy::retry::Backoff",
    ];
    assert_eq!(without("Sync"), of_one_call.map(str::to_owned).into());
}

#[test]
fn a_difference_names_what_came_and_went() {
    let before = "pub fn a()\npub fn b(u8)\npub fn c()\n";
    let now = "pub fn a()\npub fn b(u16)\npub fn c()\npub fn d()\n";
    assert_eq!(difference(before, now), "+ pub fn b(u16)\n- pub fn b(u8)\n+ pub fn d()\n");
}
