//! Tables of settings and statuses, against the policies and the classifier.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::time::Duration;

use resilient_client::Client;
use resilient_client::outcome::classify::{Ended, Repeat};
use resilient_client::outcome::{Outcome, Verdict};
use resilient_client::policy::PolicySet;
use resilient_client::policy::balance::BalancePolicy;
use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::policy::budget::BudgetPolicy;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::concurrency::ConcurrencyPolicy;
use resilient_client::policy::hedge::HedgePolicy;
use resilient_client::policy::overload::OverloadPolicy;
use resilient_client::policy::rate_limit::RateLimitPolicy;
use resilient_client::policy::retry::RetryPolicy;
use resilient_client::policy::throttle::ThrottlePolicy;
use resilient_client::policy::timeout::TimeoutPolicy;

use super::*;

/// The settings of a policy and their values, as its `Debug` has them, in the words of a file:
/// `Some(1s)` is `1s`, `None` is `none`, and `Full` is `full`.
fn settings(name: &str, policy: &dyn Debug) -> Vec<(String, String)> {
    let text = format!("{policy:?}");
    let inside = text.split_once("{ ").and_then(|(_, rest)| rest.strip_suffix(" }")).expect("a struct");
    let (mut depth, mut fields, mut field) = (0, Vec::new(), String::new());
    for c in inside.chars() {
        match c {
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            ',' if depth == 0 => {
                fields.push(std::mem::take(&mut field));
                continue;
            }
            _ => {}
        }
        field.push(c);
    }
    fields.push(field);
    let value = |value: &str| match value.strip_prefix("Some(").and_then(|some| some.strip_suffix(')')) {
        Some(some) => some.to_owned(),
        None if value.chars().all(char::is_alphabetic) => value.to_lowercase(),
        None => value.split_once(" { ").map_or_else(|| value.to_owned(), |(_, fields)| table(fields)),
    };
    let pairs = fields.iter().map(|field| field.trim().split_once(": ").expect("a name and a value"));
    pairs.map(|(field, text)| (format!("{name}.{field}"), value(text))).collect()
}

/// The fields of a struct as a file's table: `{ quantile = 0.9, floor = "10ms" }`.
fn table(fields: &str) -> String {
    let fields = fields.trim_end_matches(" }").split(", ").map(|field| {
        let (name, value) = field.split_once(": ").expect("a name and a value");
        format!("{name} = {}", in_toml(value))
    });
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}

fn in_toml(value: &str) -> String {
    let is_bare =
        value.parse::<f64>().is_ok() || ["true", "false"].contains(&value) || value.starts_with('{');
    if is_bare { value.to_owned() } else { format!("{value:?}") }
}

#[test]
fn the_table_of_defaults_is_what_the_policies_have() {
    let policies: [(&str, &dyn Debug); 11] = [
        ("timeout", &TimeoutPolicy::standard()),
        ("retry", &RetryPolicy::standard()),
        ("budget", &BudgetPolicy::standard()),
        ("breaker", &BreakerPolicy::standard()),
        ("bulkhead", &BulkheadPolicy::standard()),
        ("overload", &OverloadPolicy::standard()),
        ("balance", &BalancePolicy::standard()),
        ("hedge", &HedgePolicy::standard()),
        ("rate_limit", &RateLimitPolicy::new(100, Duration::from_secs(1))),
        ("throttle", &ThrottlePolicy::standard()),
        ("concurrency", &ConcurrencyPolicy::gradient()),
    ];
    let expected: Vec<_> = policies.into_iter().flat_map(|(name, policy)| settings(name, policy)).collect();
    let text = Repository::open().read("docs/defaults.md");
    let written = rows(&text);
    for (written, expected) in written.iter().zip(&expected) {
        assert_eq!(written, expected, "docs/defaults.md says the first, the code has the second");
    }
    assert_eq!(written.len(), expected.len(), "the code has: {expected:?}");
    let builder = format!("{:?}", Client::builder());
    for (field, words) in
        [("max_upstreams: 1024", "1024 upstreams"), ("max_body: 16777216", "16 MiB of a body")]
    {
        assert!(builder.contains(field) && text.contains(words), "{words}: {builder}");
    }
}

#[test]
fn the_defaults_can_be_written_into_a_file() {
    let text = Repository::open().read("docs/defaults.md");
    let (on, off) = text.split_once("## Off by default").expect("two tables");
    for rows in [rows(on), rows(off)] {
        let mut file = String::new();
        for (name, value) in rows.iter().filter(|(_, value)| value != "none") {
            writeln!(file, "{name} = {}", in_toml(value)).unwrap();
        }
        let set: PolicySet = toml::from_str(&file).unwrap_or_else(|error| panic!("{error}\n{file}"));
        assert_eq!(set.check(), Ok(()), "{file}");
    }
}

/// README repeats the most important ones.
#[test]
fn the_readmes_settings_are_the_defaults() {
    let readme = Repository::open().read("README.md");
    let defaults: BTreeMap<_, _> = rows(&Repository::open().read("docs/defaults.md")).into_iter().collect();
    let d = |name: &str| {
        let value = defaults[name].as_str();
        let digits = value.find(|c: char| c.is_alphabetic()).unwrap_or(value.len());
        format!("{} {}", &value[..digits], &value[digits..]).trim().to_owned()
    };
    for row in [
        format!("| total time of a call | {} |", d("timeout.total")),
        format!("| attempt timeout | {} | ", d("timeout.attempt")),
        format!(
            "a body may pause for {}, a stream for {} |",
            d("timeout.body_idle"),
            d("timeout.stream_idle")
        ),
        format!("| connect timeout | {} |", d("timeout.connect")),
        format!(
            "| attempts | {} in all | waits of at most {}, doubling to at most {}, full jitter;",
            d("retry.max_attempts"),
            d("retry.initial"),
            d("retry.cap")
        ),
        format!("| retry budget | {} tokens, at most {} |", d("budget.initial"), d("budget.capacity")),
        format!("| {} earned by a success at the first try", d("budget.deposit_per_success")),
        format!("at least {} calls in {}, ", d("breaker.min_calls"), d("breaker.window")),
        format!(
            "{} failures in a row, or {} with no success",
            d("breaker.consecutive_failures"),
            d("breaker.cold_consecutive_failures")
        ),
        format!("asks again after {} to {},", d("breaker.open_for"), d("breaker.open_cap")),
        format!("waits for one, up to {} |", d("overload.wait")),
        format!("| bulkhead | {} in flight |", d("bulkhead.max_in_flight")),
    ] {
        assert!(readme.contains(&row), "README hasn't: {row}");
    }
}

/// The module documentation's table, against what is done with each status.
#[test]
fn the_table_of_statuses_is_what_the_classifier_does() {
    let text = Repository::open().read("resilient-client/src/outcome/classify/mod.rs");
    let rows: Vec<Vec<_>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .collect();
    let names = |cell: &str, status: &str| {
        let listed = cell.split(" and ").next().unwrap_or_default();
        let is_list = listed.bytes().all(|byte| byte.is_ascii_digit() || b"x, ".contains(&byte));
        is_list && listed.split(", ").any(|one| one == status)
    };
    let headers = http::HeaderMap::new();
    for status in 100..600_u16 {
        let rest = if status < 500 { "not named below" } else { "other 5xx" };
        let named = rows.iter().find(|row| names(row[0], &status.to_string()));
        let row = named.or_else(|| rows.iter().find(|row| row[0].contains(rest))).expect("a row");
        let code = http::StatusCode::from_u16(status).expect("a status");
        let found = Ended::Response(code, &headers).standard();
        let outcome = match found.outcome {
            Outcome::Success => "success",
            Outcome::Failure(_) => "failure",
            Outcome::Throttled => "throttled",
            other => panic!("{status}: {other:?}"),
        };
        let breaker = match found.verdict {
            Verdict::Success => "success",
            Verdict::Failure => "failure",
            Verdict::Neutral => "nothing",
        };
        let again = match found.repeat {
            Repeat::Never => "no",
            Repeat::IfSafe => "if safe to repeat",
            Repeat::Once => "once",
            other => panic!("{status}: {other:?}"),
        };
        assert_eq!(row[1..3], [outcome, breaker], "{status}: {row:?}");
        assert!(row[3].starts_with(again), "{status}: {row:?}");
    }
}
