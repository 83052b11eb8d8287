//! What is typed after `fault` and `toxic`, as what the fault kit and the proxy are asked for.
//! Pure.

use std::fmt;

use serde_json::{Map, Value, json};

/// What is to be done about faults.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    List,
    Clear,
    /// A rule for one user-service, counted from zero, or for all.
    Set(Option<usize>, Value),
}

/// What is to be done about toxics.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Toxic {
    List,
    Clear,
    /// As Toxiproxy's API has it, but for the direction.
    Add(Value),
}

/// What was typed means nothing; why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclear(String);

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unclear {}

/// What a value is of.
#[derive(Clone, Copy)]
enum Unit {
    /// `500ms`, as text.
    Span,
    /// `500ms`, in milliseconds.
    Millis,
    /// `100us`, in microseconds.
    Micros,
    /// A bare number.
    Count,
}

/// A kind by its name here, its name there, and the values it takes, in order.
type Kind = (&'static str, &'static str, &'static [(&'static str, Unit)]);

/// Those that do nothing, or end all at once, without their first value.
const NEEDY: [&str; 5] = ["latency", "bandwidth", "limit-data", "slow-close", "slicer"];

static FAULTS: [Kind; 9] = [
    ("delay", "delay", &[("delay", Unit::Span)]),
    ("abort", "abort", &[("status", Unit::Count)]),
    ("hang", "hang", &[]),
    ("reset-before-head", "reset_before_head", &[]),
    ("reset-after-head", "reset_after_head", &[]),
    ("truncate", "truncate", &[("bytes", Unit::Count)]),
    ("trickle", "trickle", &[("bytes", Unit::Count), ("every", Unit::Span)]),
    ("garbage", "garbage", &[]),
    ("wrong-page", "wrong_page", &[("status", Unit::Count)]),
];

static TOXICS: [Kind; 7] = [
    ("latency", "latency", &[("latency", Unit::Millis), ("jitter", Unit::Millis)]),
    ("timeout", "timeout", &[("timeout", Unit::Millis)]),
    ("reset-peer", "reset_peer", &[("timeout", Unit::Millis)]),
    ("bandwidth", "bandwidth", &[("rate", Unit::Count)]),
    ("limit-data", "limit_data", &[("bytes", Unit::Count)]),
    ("slow-close", "slow_close", &[("delay", Unit::Millis)]),
    (
        "slicer",
        "slicer",
        &[("average_size", Unit::Count), ("size_variation", Unit::Count), ("delay", Unit::Micros)],
    ),
];

/// `list`, `clear`, or a service, a kind, its values and a share: `user-service delay 500ms 30%`.
pub(super) fn fault(words: &[String], user_services: usize) -> Result<Fault, Unclear> {
    match words {
        [] => Ok(Fault::List),
        [only] if only == "list" => Ok(Fault::List),
        [only] if only == "clear" => Ok(Fault::Clear),
        [service, kind, values @ ..] => {
            let service = self::service(service, user_services)?;
            let ((_, name, _), mut rule, share) = read(&FAULTS, kind, values)?;
            rule.insert("kind".into(), (*name).into());
            if let Some(percent) = share {
                rule.insert("percentage".into(), percent.into());
            }
            Ok(Fault::Set(service, Value::Object(rule)))
        }
        [service] => {
            self::service(service, user_services)?;
            Err(Unclear(format!("which fault? There are {}", names(&FAULTS))))
        }
    }
}

/// `list`, `clear`, or a kind, its values and a share of the connections: `latency 200ms 30%`.
pub(super) fn toxic(words: &[String]) -> Result<Toxic, Unclear> {
    match words {
        [] => Ok(Toxic::List),
        [only] if only == "list" => Ok(Toxic::List),
        [only] if only == "clear" => Ok(Toxic::Clear),
        [kind, values @ ..] => {
            let (known, mut attributes, share) = read(&TOXICS, kind, values)?;
            let (here, name, fields) = known;
            for (field, _) in *fields {
                if attributes.is_empty() && NEEDY.contains(here) {
                    return Err(Unclear(format!(
                        "{here} needs its {field}; `cargo demo toxic --help` has examples"
                    )));
                }
                // All of them, for it may take the place of one that has others.
                attributes.entry(*field).or_insert_with(|| 0.into());
            }
            let toxicity = share.unwrap_or(100.0) / 100.0;
            Ok(Toxic::Add(json!({ "type": name, "attributes": attributes, "toxicity": toxicity })))
        }
    }
}

/// `user-service` is all of them, `user-service-2` the second.
fn service(name: &str, user_services: usize) -> Result<Option<usize>, Unclear> {
    let number = name.strip_prefix("user-service-").and_then(|number| number.parse::<usize>().ok());
    match number.and_then(|number| number.checked_sub(1)) {
        _ if name == "user-service" => Ok(None),
        Some(index) if index < user_services => Ok(Some(index)),
        _ if user_services == 1 => Err(Unclear(format!("no service {name:?}: there is user-service"))),
        _ => Err(Unclear(format!(
            "no service {name:?}: there are user-service (all) and user-service-1 to -{user_services}"
        ))),
    }
}

/// The kind, its values, and the share in percent.
type Read = (&'static Kind, Map<String, Value>, Option<f64>);

fn read(kinds: &'static [Kind], kind: &str, mut values: &[String]) -> Result<Read, Unclear> {
    let known = kinds.iter().find(|(here, there, _)| kind == *here || kind == *there);
    let Some(known @ (_, _, fields)) = known else {
        return Err(Unclear(format!("no kind {kind:?}: there are {}", names(kinds))));
    };
    let mut share = None;
    if let Some((percent, rest)) = values.split_last().filter(|(last, _)| last.ends_with('%')) {
        share = Some(self::share(percent)?);
        values = rest;
    }
    if let Some(stray) = values.get(fields.len()) {
        let takes: Vec<_> = fields.iter().map(|(field, _)| *field).collect();
        let takes = if takes.is_empty() { "nothing".into() } else { takes.join(", ") };
        return Err(Unclear(format!("{kind} takes {takes} and a share (30%), not {stray:?}")));
    }
    let mut read = Map::new();
    for ((field, unit), text) in fields.iter().zip(values) {
        read.insert((*field).to_owned(), unit.read(text).map_err(|why| Unclear(format!("{field} {why}")))?);
    }
    Ok((known, read, share))
}

fn share(text: &str) -> Result<f64, Unclear> {
    let percent = text.trim_end_matches('%').parse::<f64>().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| Unclear(format!("a share must be from 0% to 100%, got {text:?}")))
}

impl Unit {
    fn read(self, text: &str) -> Result<Value, String> {
        let nanos = nanos(text).ok_or_else(|| format!("must be a time, 500ms say, got {text:?}"));
        Ok(match self {
            Self::Span => nanos.map(|_| text.into())?,
            Self::Millis => (nanos? / 1_000_000).into(),
            Self::Micros => (nanos? / 1_000).into(),
            Self::Count => text
                .parse::<u64>()
                .map_err(|_| format!("must be a whole number without a unit, got {text:?}"))?
                .into(),
        })
    }
}

/// A number and its unit.
fn nanos(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_fault_is_read_as_a_rule_of_the_fault_kit() {
        for (line, service, rule) in [
            (
                "user-service delay 500ms 30%",
                None,
                json!({ "kind": "delay", "delay": "500ms", "percentage": 30.0 }),
            ),
            ("user-service-2 abort 503", Some(1), json!({ "kind": "abort", "status": 503 })),
            ("user-service hang", None, json!({ "kind": "hang" })),
            ("user-service hang 0.5%", None, json!({ "kind": "hang", "percentage": 0.5 })),
            ("user-service wrong-page 200", None, json!({ "kind": "wrong_page", "status": 200 })),
            ("user-service reset_after_head", None, json!({ "kind": "reset_after_head" })),
            ("user-service trickle 1 2s", None, json!({ "kind": "trickle", "bytes": 1, "every": "2s" })),
        ] {
            assert_eq!(fault(&words(line), 3), Ok(Fault::Set(service, rule)), "{line}");
        }
        for (line, meant) in [("", Fault::List), ("list", Fault::List), ("clear", Fault::Clear)] {
            assert_eq!(fault(&words(line), 1), Ok(meant), "{line}");
        }
    }

    #[test]
    fn a_toxic_is_read_as_toxiproxy_has_it() {
        for (line, kind, attributes, toxicity) in [
            ("latency 200ms", "latency", json!({ "latency": 200, "jitter": 0 }), 1.0),
            ("latency 1s 100ms 30%", "latency", json!({ "latency": 1000, "jitter": 100 }), 0.3),
            ("reset-peer", "reset_peer", json!({ "timeout": 0 }), 1.0),
            ("limit-data 0", "limit_data", json!({ "bytes": 0 }), 1.0),
            (
                "slicer 10 5 100us",
                "slicer",
                json!({ "average_size": 10, "size_variation": 5, "delay": 100 }),
                1.0,
            ),
        ] {
            let spec = json!({ "type": kind, "attributes": attributes, "toxicity": toxicity });
            assert_eq!(toxic(&words(line)), Ok(Toxic::Add(spec)), "{line}");
        }
        assert_eq!(toxic(&[]), Ok(Toxic::List));
        assert_eq!(toxic(&words("clear")), Ok(Toxic::Clear));
    }

    #[test]
    fn what_means_nothing_is_answered_with_what_there_is() {
        for (line, says) in [
            ("user-service", "which fault? There are delay, abort"),
            ("order-service hang", "no service \"order-service\": there is user-service"),
            ("user-service-2 hang", "no service"),
            ("user-service-0 hang", "no service"),
            ("user-service poison", "no kind \"poison\": there are delay, abort"),
            ("user-service delay 99999999999m", "delay must be a time"),
            ("user-service delay 500", "delay must be a time, 500ms say, got \"500\""),
            ("user-service delay 5 parsecs", "not \"parsecs\""),
            ("user-service hang 5", "hang takes nothing and a share (30%), not \"5\""),
            ("user-service abort 5xx", "status must be a whole number"),
            ("user-service hang 101%", "from 0% to 100%, got \"101%\""),
        ] {
            let why = fault(&words(line), 1).unwrap_err().to_string();
            assert!(why.contains(says), "{line}: {why}");
        }
        let several = fault(&words("user-service-4 hang"), 3).unwrap_err().to_string();
        assert!(several.ends_with("user-service-1 to -3"), "{several}");
        assert!(toxic(&words("poison")).unwrap_err().to_string().contains("latency, timeout"));
        for (line, needs) in [
            ("latency", "latency needs its latency"),
            ("latency 30%", "latency needs its latency"),
            ("bandwidth", "bandwidth needs its rate"),
            ("limit_data", "limit-data needs its bytes"),
            ("slow-close", "slow-close needs its delay"),
            ("slicer", "slicer needs its average_size"),
        ] {
            let why = toxic(&words(line)).unwrap_err().to_string();
            assert!(why.starts_with(needs), "{line}: {why}");
        }
    }
}
