//! What `docs/metrics-and-spans.md` lists: instruments, buckets, attributes of spans.

use super::*;

#[test]
fn the_table_of_metrics_is_what_there_is() {
    use resilient_client::metrics::{DURATION_BUCKETS, INSTRUMENTS};
    let page = Repository::open().read("docs/metrics-and-spans.md");
    let row = |it: &resilient_client::metrics::Instrument| {
        let labels: Vec<_> = it.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        let kind = format!("{:?}", it.kind).to_lowercase();
        format!("| `{}` | {kind} | `{}` | {labels} | {} |", it.name, it.unit, it.help)
    };
    let rows: Vec<_> = INSTRUMENTS.iter().map(row).collect();
    assert!(page.contains(&format!("|---|---|---|---|---|\n{}\n\n", rows.join("\n"))), "{}", rows.join("\n"));
    let buckets = DURATION_BUCKETS.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    assert!(page.contains(&format!("in seconds: {buckets}.")), "{buckets}");
}

/// `tests/spans.rs` shows that they are there; here that each is written down, and nothing else.
#[test]
fn the_table_of_spans_attributes_is_what_there_is() {
    let repository = Repository::open();
    let page = repository.read("docs/metrics-and-spans.md");
    let (_, table) = page.split_once("| attribute | on | |").expect("a table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let written: BTreeSet<_> = rows(table).into_iter().map(|(name, _)| name).collect();
    let source = repository.read("resilient-client/src/telemetry/spans.rs");
    let fields = source.split("info_span!(").skip(1).flat_map(|span| {
        let (fields, _) = span.split_once("\n        );").expect("a span's end");
        fields
            .lines()
            .filter_map(|line| line.trim().split_once(" = "))
            .map(|(name, _)| name.trim_matches('"').to_owned())
    });
    assert_eq!(written, fields.collect::<BTreeSet<_>>());
}
