//! Every metric, label and value of a label in the dashboard and the alerts is one that is
//! exported.

use std::collections::{BTreeMap, BTreeSet};

use resilient_client::metrics::{INSTRUMENTS, Kind};
use resilient_client::policy::breaker::State;
use resilient_client::{Decline, Rejection};
use serde_json::Value;

use super::outage::{BRIEF, record};
use super::read;

/// What Prometheus adds to what it scrapes.
const ITS_OWN: [&str; 2] = ["job", "instance"];
/// What that run hasn't: the services' own, which `metrics.rs` of order-service shows.
const OF_SERVICES: [(&str, &[&str]); 3] = [
    (
        "http_server_request_duration_seconds",
        &["http_request_method", "http_route", "http_response_status_code"],
    ),
    ("http_server_active_requests", &["http_request_method"]),
    // Over hyper, which tests/hyper shows.
    ("http_client_open_connections", &["server_address", "server_port", "http_connection_state"]),
];

/// Words of the language that no parenthesis follows.
const NO_METRIC: [&str; 8] = ["and", "or", "unless", "sum", "min", "max", "count", "avg"];

/// A metric as an expression asks for it.
#[derive(Debug)]
struct Selector {
    name: String,
    /// Labels, and the values that they are compared with.
    labels: Vec<(String, String)>,
}

/// The metrics of an expression, and the labels it groups or joins by.
fn read_expression(expression: &str) -> (Vec<Selector>, BTreeSet<String>) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut selectors, mut grouped) = (Vec::new(), BTreeSet::new());
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let word = &rest[start..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        let next = after.trim_start();
        rest = after;
        if ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&name) {
            let (labels, after) = next.strip_prefix('(').and_then(|it| it.split_once(')')).expect("labels");
            grouped.extend(labels.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()));
            rest = after;
        } else if !next.starts_with('(') && !NO_METRIC.contains(&name) {
            let mut selector = Selector { name: name.to_owned(), labels: Vec::new() };
            if let Some(inside) = next.strip_prefix('{') {
                let (matchers, after) = inside.split_once('}').expect("its end");
                rest = after;
                selector.labels = matchers.split("\",").filter(|it| !it.is_empty()).map(matcher).collect();
            }
            // A range, or a unit of one.
            rest =
                rest.trim_start().strip_prefix('[').and_then(|it| it.split_once(']')).map_or(rest, |it| it.1);
            selectors.push(selector);
        }
    }
    (selectors, grouped)
}

fn matcher(text: &str) -> (String, String) {
    let (label, value) = text.split_once('"').expect("a value");
    (label.trim_end_matches(['=', '~', '!']).trim().to_owned(), value.trim_end_matches('"').to_owned())
}

/// What is exported: metrics with their labels, and the labels' values that were seen or may be.
struct Exported {
    labels: BTreeMap<String, BTreeSet<String>>,
    values: BTreeMap<String, BTreeSet<String>>,
}

impl Exported {
    async fn by_a_run() -> Self {
        let recording = record(BRIEF).await;
        let (mut labels, mut values) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for series in recording.series() {
            let known = labels.entry(series.name.clone()).or_default();
            for (label, value) in &series.labels {
                known.insert(label.clone());
                values.entry(label.clone()).or_default().insert(value.clone());
            }
        }
        for (name, its) in OF_SERVICES {
            let parts: &[&str] =
                if name.ends_with("_seconds") { &["_bucket", "_count", "_sum"] } else { &[""] };
            for part in parts {
                let bound = (*part == "_bucket").then_some("le");
                let its = its.iter().copied().chain(bound).map(str::to_owned);
                labels.insert(format!("{name}{part}"), its.collect());
            }
        }
        // What didn't happen in that run.
        let states = [State::Open, State::HalfOpen, State::Closed, State::ForcedOpen, State::ForcedClosed];
        for label in ["state", "from", "to"] {
            values.entry(label.to_owned()).or_default().extend(states.map(|it| it.as_str().to_owned()));
        }
        let reasons = [
            Rejection::CircuitOpen { retry_after: None }.as_str(),
            Decline::BudgetExhausted.as_str(),
            Decline::HedgeCap.as_str(),
        ];
        values.entry("reason".to_owned()).or_default().extend(reasons.map(str::to_owned));
        Self { labels, values }
    }

    /// What of an expression isn't there.
    fn missing(&self, expression: &str) -> Vec<String> {
        let (selectors, grouped) = read_expression(expression);
        let mut missing = Vec::new();
        let mut known: BTreeSet<_> = ITS_OWN.map(str::to_owned).into();
        for Selector { name, labels } in &selectors {
            let Some(its) = self.labels.get(name) else {
                missing.push(format!("{name} is no metric"));
                continue;
            };
            known.extend(its.iter().cloned());
            for (label, compared) in labels {
                if !its.contains(label) && !ITS_OWN.contains(&label.as_str()) {
                    missing.push(format!("{name} has no label {label}"));
                }
                // Alternatives that are words; a variable or a pattern may be anything.
                let words = compared.split('|').filter(|word| !word.contains(['$', '.', '*', '[']));
                let values = self.values.get(label);
                missing.extend(
                    words
                        .filter(|word| !word.is_empty() && values.is_some_and(|it| !it.contains(*word)))
                        .map(|word| format!("{label} is never {word}")),
                );
            }
        }
        missing.extend(grouped.difference(&known).map(|label| format!("no metric has {label}")));
        if selectors.is_empty() {
            missing.push("no metric in it".to_owned());
        }
        missing
    }
}

/// The alerts' expressions, each a block or a line.
fn of_alerts(rules: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in rules.split("expr: >\n").skip(1) {
        let lines = part.lines().take_while(|line| !line.trim_start().starts_with("for:"));
        found.push(lines.map(str::trim).collect::<Vec<_>>().join(" "));
    }
    found
}

/// The dashboard's: each panel's, each variable's query; and the labels that its legends show.
fn of_dashboard(dashboard: &Value) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            let labels =
                legend.split("{{").skip(1).filter_map(|it| Some(it.split_once("}}")?.0.trim().to_owned()));
            found.push((target["expr"].as_str().expect("an expression").to_owned(), labels.collect()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let query = variable["definition"].as_str().unwrap_or_default();
        if let Some(of) = query.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')')) {
            let (metric, label) = of.rsplit_once(',').expect("a metric and a label");
            found.push((metric.to_owned(), vec![label.trim().to_owned()]));
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn every_name_in_them_is_exported() {
    let exported = Exported::by_a_run().await;
    let mut missing = Vec::new();
    let alerts = of_alerts(&read("alerts.yml"));
    assert_eq!(alerts.len(), 8);
    for expression in &alerts {
        missing
            .extend(exported.missing(expression).into_iter().map(|it| format!("alerts: {it}: {expression}")));
    }
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = of_dashboard(&dashboard);
    assert!(panels.len() > 20, "{}", panels.len());
    for (expression, shown) in &panels {
        missing.extend(
            exported.missing(expression).into_iter().map(|it| format!("dashboard: {it}: {expression}")),
        );
        // A legend shows what the expression leaves: what it groups by, or all.
        let (selectors, grouped) = read_expression(expression);
        let has =
            |it: &Selector, label: &str| exported.labels.get(&it.name).is_some_and(|its| its.contains(label));
        let left = |label: &String| {
            if grouped.is_empty() {
                selectors.iter().any(|it| has(it, label))
            } else {
                grouped.contains(label)
            }
        };
        let unknown = shown.iter().filter(|label| !left(label) && !ITS_OWN.contains(&label.as_str()));
        missing.extend(unknown.map(|label| format!("dashboard: the legend's {label}: {expression}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    // And all there is can be seen.
    for instrument in INSTRUMENTS {
        let name = instrument.name.replace('.', "_");
        let name = if instrument.kind == Kind::Histogram { format!("{name}_seconds") } else { name };
        assert!(panels.iter().any(|(it, _)| it.contains(&name)), "{name} is in no panel");
    }
}

/// One instance whose limit is gone would make `NaN` of the sum over all.
#[test]
fn what_may_be_gone_is_left_out() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = of_dashboard(&dashboard);
    let may_be_gone = INSTRUMENTS.iter().filter(|instrument| instrument.help.contains("NaN"));
    let names: Vec<_> = may_be_gone.map(|instrument| instrument.name.replace('.', "_")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let asks = |expression: &str| names.iter().any(|name| expression.contains(name.as_str()));
    for (expression, _) in panels.iter().filter(|(expression, _)| asks(expression)) {
        assert!(expression.ends_with(" >= 0)"), "{expression}");
    }
}

#[test]
fn expressions_are_read() {
    let (selectors, grouped) = read_expression(
        r#"sum by (job, le) (rate(a_total{x="1",y=~"b|c"}[5m])) / on (job) group_left () b{} > 0.5 and c"#,
    );
    let names: Vec<_> = selectors.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a_total", "b", "c"]);
    let of = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    assert_eq!(selectors[0].labels, [of("x", "1"), of("y", "b|c")]);
    assert_eq!(grouped, ["job", "le"].map(str::to_owned).into());
}
