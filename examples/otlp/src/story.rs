//! What spans say about one order, in words.
//!
//! ```text
//! trace 0af7651916cd43dd8448eb211c80319c
//!     0.0 ms  order-service  POST /orders (status 201): 26.0 ms
//!     0.9 ms    resilient_client.call (status 200, 2 attempts): 24.1 ms
//!     1.0 ms      GET (first, status 503): 2.2 ms
//!     3.3 ms      - retry scheduled: delay=12ms after=status (503)
//!    15.9 ms      GET (retry, resend 1, status 200): 9.0 ms
//!    16.8 ms        user-service  GET /users/{id} (status 200): 7.7 ms
//! ```

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};

/// Events of what spans say themselves.
const SAID: [&str; 5] =
    ["upstream made", "attempt started", "attempt finished", "call finished", "finished processing request"];
/// Their fields that say nothing to people.
const UNSAID: [&str; 4] = ["level", "target", "upstream", "call"];

/// The value of an attribute, as text.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes.iter().find(|it| it.key == key).map(|it| text(it.value.as_ref()))
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        _ => String::new(),
    }
}

/// The traces in which anything is `sought` (an order's id, a request's, a trace's), oldest first;
/// `None` where there is none.
pub fn tell(spans: &[(String, Span)], sought: &str) -> Option<String> {
    let mut traces: BTreeMap<&[u8], Vec<&(String, Span)>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.1.trace_id).or_default().push(span);
    }
    let mut told: Vec<_> =
        traces.into_values().filter(|spans| spans.iter().any(|(_, span)| names(span, sought))).collect();
    let begun = |spans: &[&(String, Span)]| spans.iter().map(|(_, span)| span.start_time_unix_nano).min();
    told.sort_by_key(|spans| begun(spans));
    let told: Vec<_> = told.iter().map(|spans| trace(spans, begun(spans).unwrap_or_default())).collect();
    (!told.is_empty()).then(|| told.join("\n"))
}

/// An order whose question didn't go straight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Troubled {
    /// Its id.
    pub order: String,
    /// Which service stored it.
    pub service: String,
    /// How many attempts were sent.
    pub attempts: usize,
    /// What the call came to, if that was an error.
    pub error: Option<String>,
}

/// The orders whose calls had more than one attempt, or none, or failed, oldest first.
pub fn troubled(spans: &[(String, Span)]) -> Vec<Troubled> {
    let mut calls: BTreeMap<&[u8], &Span> = BTreeMap::new();
    for (_, span) in spans.iter().filter(|(_, span)| span.name == "resilient_client.call") {
        calls.insert(&span.parent_span_id, span);
    }
    let mut stored: Vec<_> = spans
        .iter()
        .filter_map(|(service, span)| {
            let stored = span.events.iter().find(|event| event.name == "order stored")?;
            Some((stored.time_unix_nano, attribute(&stored.attributes, "order.id")?, service, span))
        })
        .collect();
    stored.sort_by_key(|(at, ..)| *at);
    let troubled = stored.into_iter().filter_map(|(_, order, service, request)| {
        let call = calls.get(&*request.span_id)?;
        let attempts = attribute(&call.attributes, "resilient_client.call.attempts")?.parse().ok()?;
        let error = attribute(&call.attributes, "error.type");
        let went_straight = attempts == 1 && error.is_none();
        (!went_straight).then(|| Troubled { order, service: service.clone(), attempts, error })
    });
    troubled.collect()
}

impl fmt::Display for Troubled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, service, attempts, error } = self;
        let plural = if *attempts == 1 { "" } else { "s" };
        let ended = error.as_deref().unwrap_or("answered");
        write!(f, "{order}  {service}: {attempts} attempt{plural}, {ended}")
    }
}

fn names(span: &Span, sought: &str) -> bool {
    let among = |attributes: &[KeyValue]| attributes.iter().any(|it| text(it.value.as_ref()) == sought);
    hex(&span.trace_id) == sought
        || among(&span.attributes)
        || span.events.iter().any(|event| among(&event.attributes))
}

/// Ids as people write them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A span and what happened in it, in the order of time.
fn trace(spans: &[&(String, Span)], begun: u64) -> String {
    let mut told = format!("trace {}\n", spans.first().map(|(_, it)| hex(&it.trace_id)).unwrap_or_default());
    let known = |id: &[u8]| spans.iter().any(|(_, span)| span.span_id == id);
    // What came from outside, or whose parent was lost, stands at the margin.
    let mut roots: Vec<_> = spans.iter().filter(|(_, span)| !known(&span.parent_span_id)).collect();
    roots.sort_by_key(|(_, span)| span.start_time_unix_nano);
    for root in roots {
        below(&mut told, spans, root, None, 0, begun);
    }
    told
}

fn below(
    told: &mut String,
    spans: &[&(String, Span)],
    (service, span): &(String, Span),
    caller: Option<&str>,
    depth: usize,
    begun: u64,
) {
    let line = |told: &mut String, at: u64, depth: usize, words: &str| {
        let _ = writeln!(told, "{:>9.1} ms  {}{words}", ms(at.saturating_sub(begun)), "  ".repeat(depth));
    };
    let whose = if caller == Some(service) { String::new() } else { format!("{service}  ") };
    let took = ms(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano));
    let words = format!("{whose}{}{}: {took:.1} ms", span.name, remarks(span));
    line(told, span.start_time_unix_nano, depth, &words);
    // Events and what is below, in the order of time.
    let events = span.events.iter().filter(|event| !SAID.contains(&&*event.name));
    let events = events.map(|event| (event.time_unix_nano, Err(event)));
    let children = spans.iter().filter(|(_, it)| it.parent_span_id == span.span_id);
    let mut inside: Vec<_> = events.chain(children.map(|it| (it.1.start_time_unix_nano, Ok(it)))).collect();
    inside.sort_by_key(|(at, _)| *at);
    for (at, what) in inside {
        match what {
            Ok(child) => below(told, spans, child, Some(service), depth + 1, begun),
            Err(event) => {
                let shown = event.attributes.iter().filter(|it| !UNSAID.contains(&&*it.key));
                let shown = shown.fold(String::new(), |mut all, it| {
                    let _ = write!(all, " {}={}", it.key, text(it.value.as_ref()));
                    all
                });
                line(told, at, depth + 1, &format!("- {}{shown}", event.name));
            }
        }
    }
}

/// What its attributes say of how it went.
fn remarks(span: &Span) -> String {
    let of = |key| attribute(&span.attributes, key);
    let (status, error) = (of("http.response.status_code"), of("error.type"));
    let error = error.filter(|error| Some(error) != status.as_ref());
    let remarks = [
        of("resilient_client.trigger"),
        of("http.request.resend_count").map(|count| format!("resend {count}")),
        of("resilient_client.endpoint").map(|endpoint| format!("at {endpoint}")),
        status.map(|status| format!("status {status}")),
        error,
        of("resilient_client.call.attempts")
            .map(|count| format!("{count} attempt{}", if count == "1" { "" } else { "s" })),
        of("order.status"),
    ];
    let remarks: Vec<_> = remarks.into_iter().flatten().collect();
    if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) }
}

fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
