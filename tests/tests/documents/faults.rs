//! `docs/faults.md` and `docs/fault-proxy.md`, against what reads their words.

use resilient_client::fault::{self, Limits, Rule};

use super::*;

/// The code in a table's cell that follows a name in code: "`bytes`: 16; `every`: `"1s"`".
fn defaults(cell: &str) -> Vec<(String, String)> {
    let settings = cell.split("; ").filter_map(|setting| setting.split_once(": "));
    let plain = |text: &str| text.trim_matches('`').trim_matches('"').to_owned();
    settings.map(|(name, value)| (plain(name), plain(value.split(", ").next().unwrap_or_default()))).collect()
}

/// Every kind has its row; read with nothing but its name, it has the settings that the row says it
/// has.
#[test]
fn the_table_of_fault_kinds_is_what_is_read() {
    let repository = Repository::open();
    let text = repository.read("docs/faults.md");
    let (table, _) = text.split_once("## Which rule").expect("the section after the table");
    let kinds: Vec<_> = rows(table).into_iter().map(|(kind, _)| kind).filter(|kind| kind != "kind").collect();
    for line in table.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `kind`")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let kind = cells[0].trim_matches('`');
        let rule: Rule = serde_json::from_value(serde_json::json!({ "kind": kind })).expect(kind);
        let written = serde_json::to_value(&rule).expect("what was read can be written");
        let expected = defaults(cells[2]);
        for (setting, value) in &expected {
            let found = match &written[setting] {
                serde_json::Value::String(text) if text.is_empty() => "empty".to_owned(),
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Object(none) if none.is_empty() => "none".to_owned(),
                other => other.to_string(),
            };
            assert_eq!(&found, value, "{kind}: {setting}");
        }
        let settings = written.as_object().expect("a table").len();
        assert_eq!(settings, 2 + expected.len(), "{kind} has more settings than its row says: {written}");
    }
    let code = repository.read("resilient-client/src/fault/read.rs");
    let (_, names) = code.split_once("names!(Name(Tag) {").expect("the list of names");
    let (names, _) = names.split_once("});").expect("its end");
    let read: Vec<_> = names.split('"').skip(1).step_by(2).collect();
    assert_eq!(kinds, read);
}

#[test]
fn the_limits_and_files_of_faults_are_as_written() {
    let text = Repository::open().read("docs/faults.md");
    let limits = format!("{:?}", Limits::standard());
    assert_eq!(limits, "Limits { max_active: 100, max_delay: 30s, max_bytes: 65536 }");
    for row in ["| `max_active`: ", "| `max_delay`: ", "| `max_bytes`: "] {
        assert!(text.contains(row), "{row}");
    }
    for value in ["| 100 | 100,000 |", "| 30 s | 1 h |", "| 64 KiB | 16 MiB |"] {
        assert!(text.contains(value), "{value}");
    }
    assert!(text.contains(&format!("`{}`", fault::ENVIRONMENT)));
    let files: Vec<_> = text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [rules, settings] = files[..] else { panic!("two examples, got {}", files.len()) };
    serde_json::from_str::<Vec<Rule>>(rules).expect("a list of rules");
    let _ = serde_json::from_str::<fault::Settings>(settings).expect("settings");
    let most = r#"{ "max_active": 100001 }"#;
    let refused = serde_json::from_str::<fault::Settings>(most).map(fault::Faults::new);
    assert!(refused.is_ok_and(|faults| faults.is_err()), "{most}");
}

#[test]
fn the_table_of_toxics_is_what_the_proxy_reads() {
    let repository = Repository::open();
    let written: BTreeSet<_> =
        rows(&repository.read("docs/fault-proxy.md")).into_iter().map(|(name, _)| name).collect();
    let code = repository.read("examples/fault-proxy/src/toxic.rs");
    let (_, after) = code.split_once("pub enum Kind {").expect("the enum");
    let (variants, _) = after.split_once("\n}").expect("its end");
    let variants = variants.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    let snake = |name: &str| {
        let words = name.split_inclusive(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        let mut snake = String::new();
        for c in words.chars().filter(char::is_ascii_alphabetic) {
            if c.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        snake
    };
    assert_eq!(written, variants.map(snake).collect());
}
