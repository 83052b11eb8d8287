//! Rules as text, and back: JSON at the admin router and in the environment, whatever serde reads
//! elsewhere.
//!
//! Every setting is optional but a rule's `kind`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::faults::Settings;
use super::limits::Limits;
use super::rule::{Delay, Kind, Rule};
use crate::policy::config::read::{Either, Human, names, table};

table!(RuleTable by named {
    kind: Name,
    method: String,
    path: String,
    host: String,
    headers: BTreeMap<String, String>,
    percentage: f64,
    delay: Either<Human, DelayTable>,
    status: u16,
    answer_headers: BTreeMap<String, String>,
    body: String,
    bytes: u64,
    every: Human,
});
table!(DelayTable by named { min: Human, max: Human, median: Human, p99: Human });
table!(SettingsTable by named {
    rules: Rules,
    seed: u64,
    envoy_headers: bool,
    max_active: u32,
    max_delay: Human,
    max_bytes: u64,
});

#[derive(Clone, Copy, Debug, PartialEq)]
enum Tag {
    Delay,
    Abort,
    Hang,
    ResetBeforeHead,
    ResetAfterHead,
    Truncate,
    Trickle,
    Garbage,
    WrongPage,
}

names!(Name(Tag) {
    "delay" => Tag::Delay,
    "abort" => Tag::Abort,
    "hang" => Tag::Hang,
    "reset_before_head" => Tag::ResetBeforeHead,
    "reset_after_head" => Tag::ResetAfterHead,
    "truncate" => Tag::Truncate,
    "trickle" => Tag::Trickle,
    "garbage" => Tag::Garbage,
    "wrong_page" => Tag::WrongPage,
});

impl RuleTable {
    /// A setting that the kind doesn't have.
    fn stray(&self, tag: Tag) -> Option<&'static str> {
        let answers = tag == Tag::Abort;
        let set = [
            ("delay", self.delay.is_some(), tag == Tag::Delay),
            ("status", self.status.is_some(), answers || tag == Tag::WrongPage),
            ("answer_headers", self.answer_headers.is_some(), answers),
            ("body", self.body.is_some(), answers),
            ("bytes", self.bytes.is_some(), matches!(tag, Tag::Truncate | Tag::Trickle)),
            ("every", self.every.is_some(), tag == Tag::Trickle),
        ];
        set.into_iter().find(|(_, is_set, known)| *is_set && !known).map(|(name, ..)| name)
    }

    fn kind<E: Error>(&mut self, tag: Tag) -> Result<Kind, E> {
        if let Some(stray) = self.stray(tag) {
            let kind = name(tag);
            return Err(E::custom(format_args!("{stray}: not a setting of the kind {kind:?}")));
        }
        let status = |given: Option<u16>, default| match given {
            None => Ok(default),
            Some(code) => StatusCode::from_u16(code)
                .map_err(|_| E::custom(format_args!("status: must be from 200 to 599, got {code}"))),
        };
        Ok(match tag {
            Tag::Delay => Kind::Delay(delay(self.delay.take())?),
            Tag::Abort => Kind::Abort {
                status: status(self.status, StatusCode::SERVICE_UNAVAILABLE)?,
                headers: headers(self.answer_headers.take())?,
                body: self.body.take().map(Bytes::from).unwrap_or_default(),
            },
            Tag::Hang => Kind::Hang,
            Tag::ResetBeforeHead => Kind::ResetBeforeHead,
            Tag::ResetAfterHead => Kind::ResetAfterHead,
            Tag::Truncate => Kind::Truncate { bytes: self.bytes.unwrap_or(16) },
            Tag::Trickle => Kind::Trickle {
                bytes: self.bytes.unwrap_or(1),
                every: self.every.take().map_or(Duration::from_secs(1), |Human(every)| every),
            },
            Tag::Garbage => Kind::Garbage,
            Tag::WrongPage => Kind::WrongPage { status: status(self.status, StatusCode::NOT_FOUND)? },
        })
    }
}

fn delay<E: Error>(given: Option<Either<Human, DelayTable>>) -> Result<Delay, E> {
    let (min, max, median, p99) = match given {
        None => return Ok(Delay::Fixed(Duration::from_secs(1))),
        Some(Either::Text(Human(delay))) => return Ok(Delay::Fixed(delay)),
        Some(Either::Table(DelayTable { min, max, median, p99 })) => (min, max, median, p99),
    };
    match (min, max, median, p99) {
        (min, Some(Human(max)), None, None) => {
            Ok(Delay::Uniform { min: min.map_or(Duration::ZERO, |Human(min)| min), max })
        }
        (None, None, Some(Human(median)), Some(Human(p99))) => Ok(Delay::LogNormal { median, p99 }),
        _ => Err(E::custom("delay: must be a duration, `min` and `max`, or `median` and `p99`")),
    }
}

fn headers<E: Error>(given: Option<BTreeMap<String, String>>) -> Result<HeaderMap, E> {
    let header = |(name, value): (String, String)| {
        let parsed = HeaderName::try_from(&name).ok().zip(HeaderValue::try_from(&value).ok());
        parsed.ok_or_else(|| E::custom(format_args!("answer_headers: not a header: {name:?}: {value:?}")))
    };
    given.unwrap_or_default().into_iter().map(header).collect()
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = RuleTable::deserialize(deserializer)?;
        let Some(Name(tag)) = table.kind.take() else {
            return Err(D::Error::custom("kind: is missing, the one setting that a rule must have"));
        };
        let kind = table.kind(tag)?;
        let headers = table.headers.unwrap_or_default().into_iter().collect();
        let RuleTable { method, path, host, percentage, .. } = table;
        Ok(Self { kind, method, path, host, headers, percentage: percentage.unwrap_or(100.0) })
    }
}

/// A list of rules, whose refusal says which one it is about: `[1].delay: ...`.
pub(super) struct Rules(pub(super) Vec<Rule>);

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Numbered)
    }
}

struct Numbered;

impl<'de> Visitor<'de> for Numbered {
    type Value = Rules;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rules")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rules, A::Error> {
        let mut rules = Vec::new();
        loop {
            let next = seq.next_element().map_err(|error| {
                let (said, number) = (error.to_string(), rules.len());
                let joint = if field(&said).is_some() { "." } else { ": " };
                A::Error::custom(format_args!("[{number}]{joint}{said}"))
            });
            match next? {
                Some(rule) => rules.push(rule),
                None => return Ok(Rules(rules)),
            }
        }
    }
}

/// The setting that a refusal is about, and why.
pub(super) fn field(said: &str) -> Option<(&str, &str)> {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.[]".contains(&byte);
    said.split_once(": ").filter(|(field, _)| !field.is_empty() && field.bytes().all(is_part))
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = SettingsTable::deserialize(deserializer)?;
        let standard = Limits::standard();
        let limits = Limits {
            max_active: table.max_active.unwrap_or(standard.max_active),
            max_delay: table.max_delay.map_or(standard.max_delay, |Human(delay)| delay),
            max_bytes: table.max_bytes.unwrap_or(standard.max_bytes),
        };
        Ok(Self {
            rules: table.rules.map(|Rules(rules)| rules).unwrap_or_default(),
            seed: table.seed,
            limits,
            envoy_headers: table.envoy_headers.unwrap_or_default(),
        })
    }
}

fn name(tag: Tag) -> &'static str {
    match tag {
        Tag::Delay => "delay",
        Tag::Abort => "abort",
        Tag::Hang => "hang",
        Tag::ResetBeforeHead => "reset_before_head",
        Tag::ResetAfterHead => "reset_after_head",
        Tag::Truncate => "truncate",
        Tag::Trickle => "trickle",
        Tag::Garbage => "garbage",
        Tag::WrongPage => "wrong_page",
    }
}

fn tag(kind: &Kind) -> Tag {
    match kind {
        Kind::Delay(_) => Tag::Delay,
        Kind::Abort { .. } => Tag::Abort,
        Kind::Hang => Tag::Hang,
        Kind::ResetBeforeHead => Tag::ResetBeforeHead,
        Kind::ResetAfterHead => Tag::ResetAfterHead,
        Kind::Truncate { .. } => Tag::Truncate,
        Kind::Trickle { .. } => Tag::Trickle,
        Kind::Garbage => Tag::Garbage,
        Kind::WrongPage { .. } => Tag::WrongPage,
    }
}

/// A duration as it is read.
fn human(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// As it is read.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", name(tag(&self.kind)))?;
        for (setting, value) in [("method", &self.method), ("path", &self.path), ("host", &self.host)] {
            if let Some(value) = value {
                map.serialize_entry(setting, value)?;
            }
        }
        if !self.headers.is_empty() {
            map.serialize_entry("headers", &self.headers.iter().cloned().collect::<BTreeMap<_, _>>())?;
        }
        map.serialize_entry("percentage", &self.percentage)?;
        match &self.kind {
            Kind::Delay(Delay::Fixed(delay)) => map.serialize_entry("delay", &human(*delay))?,
            Kind::Delay(Delay::Uniform { min, max }) => {
                map.serialize_entry("delay", &BTreeMap::from([("min", human(*min)), ("max", human(*max))]))?;
            }
            Kind::Delay(Delay::LogNormal { median, p99 }) => {
                let table = BTreeMap::from([("median", human(*median)), ("p99", human(*p99))]);
                map.serialize_entry("delay", &table)?;
            }
            Kind::Abort { status, headers, body } => {
                map.serialize_entry("status", &status.as_u16())?;
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers = headers.iter().map(|(name, value)| (name.as_str(), text(value)));
                map.serialize_entry("answer_headers", &headers.collect::<BTreeMap<_, _>>())?;
                map.serialize_entry("body", &String::from_utf8_lossy(body))?;
            }
            Kind::Truncate { bytes } => map.serialize_entry("bytes", bytes)?,
            Kind::Trickle { bytes, every } => {
                map.serialize_entry("bytes", bytes)?;
                map.serialize_entry("every", &human(*every))?;
            }
            Kind::WrongPage { status } => map.serialize_entry("status", &status.as_u16())?,
            Kind::Hang | Kind::ResetBeforeHead | Kind::ResetAfterHead | Kind::Garbage => {}
        }
        map.end()
    }
}
