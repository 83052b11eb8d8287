//! Toxics: what a proxy does to the bytes of one direction. Values alone, in Toxiproxy's form.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::clock;
use crate::error::Error;

/// A wait of more than an hour is a mistake, and would overflow clocks sooner or later.
const MOST_MILLIS: u64 = 3_600_000;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the upstream.
    Upstream,
    /// From the upstream to the client.
    #[default]
    Downstream,
}

impl Direction {
    fn parse(text: &str) -> Result<Self, Error> {
        // As Toxiproxy has it, which doesn't look at case.
        match &*text.to_ascii_lowercase() {
            "upstream" => Ok(Self::Upstream),
            "downstream" | "" => Ok(Self::Downstream),
            _ => Err(Error::InvalidStream),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        }
    }
}

/// What a toxic does. Times are milliseconds and sizes bytes where nothing else is said; an
/// attribute that isn't given is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "attributes", rename_all = "snake_case")]
pub enum Kind {
    /// Nothing.
    Noop {},
    /// Bytes arrive `latency` later, give or take as much as `jitter`.
    Latency {
        /// Milliseconds.
        #[serde(default)]
        latency: u64,
        /// Milliseconds, either way.
        #[serde(default)]
        jitter: u64,
    },
    /// So many bytes pass in a second.
    Bandwidth {
        /// Kilobytes (1,000 bytes) a second; 0 for no limit.
        #[serde(default)]
        rate: u64,
    },
    /// When one side has closed, the other hears of it later.
    SlowClose {
        /// Milliseconds.
        #[serde(default)]
        delay: u64,
    },
    /// Nothing passes; after the time the connection is closed.
    Timeout {
        /// Milliseconds; 0 for never.
        #[serde(default)]
        timeout: u64,
    },
    /// After the time the connection is reset.
    ResetPeer {
        /// Milliseconds; 0 for at once.
        #[serde(default)]
        timeout: u64,
    },
    /// Bytes arrive in small pieces.
    Slicer {
        /// Bytes in a piece on average; 0 leaves pieces as they come.
        #[serde(default)]
        average_size: u64,
        /// How many more or fewer there may be.
        #[serde(default)]
        size_variation: u64,
        /// Microseconds between pieces.
        #[serde(default)]
        delay: u64,
    },
    /// The connection is closed once so many bytes have passed.
    LimitData {
        /// Bytes.
        #[serde(default)]
        bytes: u64,
    },
}

impl Kind {
    fn read(name: &str, attributes: &Map<String, Value>) -> Result<Self, Error> {
        const NAMES: [&str; 8] =
            ["noop", "latency", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data"];
        if !NAMES.contains(&name) {
            return Err(Error::InvalidToxicType);
        }
        let whole = serde_json::json!({ "type": name, "attributes": attributes });
        let kind: Self = serde_json::from_value(whole).map_err(|error| bad(&error))?;
        kind.check()?;
        Ok(kind)
    }

    fn check(self) -> Result<(), Error> {
        let (field, millis) = match self {
            Self::Latency { latency, jitter } => ("latency and jitter", latency.max(jitter)),
            Self::SlowClose { delay } => ("delay", delay),
            Self::Timeout { timeout } | Self::ResetPeer { timeout } => ("timeout", timeout),
            Self::Slicer { delay, .. } => ("delay", delay / 1_000),
            Self::Noop {} | Self::Bandwidth { .. } | Self::LimitData { .. } => return Ok(()),
        };
        if millis <= MOST_MILLIS {
            return Ok(());
        }
        Err(Error::BadRequestBody(format!("{field} must be an hour at most")))
    }

    /// Its name and its attributes.
    fn parts(self) -> (String, Map<String, Value>) {
        let mut whole = match serde_json::to_value(self) {
            Ok(Value::Object(whole)) => whole,
            _ => Map::new(),
        };
        let name = whole.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let attributes = match whole.remove("attributes") {
            Some(Value::Object(attributes)) => attributes,
            _ => Map::new(),
        };
        (name, attributes)
    }
}

fn bad(error: &impl ToString) -> Error {
    Error::BadRequestBody(error.to_string())
}

/// A toxic as a request asks for it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ToxicSpec {
    /// Default: the type and the direction.
    #[serde(default)]
    pub name: String,
    /// See [`Kind`].
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Default downstream.
    #[serde(default)]
    pub stream: String,
    /// The share of connections that have it, from 0 to 1; default 1.
    pub toxicity: Option<f64>,
    /// See [`Kind`].
    #[serde(default)]
    pub attributes: Map<String, Value>,
}

/// A toxic in force.
#[derive(Clone, Debug, Serialize)]
pub struct Toxic {
    /// Its name, of which a proxy has each once.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub kind: Kind,
    /// The direction it does that to.
    pub stream: Direction,
    /// The share of connections that have it.
    pub toxicity: f64,
    /// Since when it is what it is: times count from then, or from when a connection was made.
    #[serde(skip)]
    pub(crate) since: Instant,
    /// Another one of the same name has another.
    #[serde(skip)]
    pub(crate) id: u64,
}

impl Toxic {
    pub(crate) fn new(spec: ToxicSpec, id: u64) -> Result<Self, Error> {
        let kind = Kind::read(&spec.kind, &spec.attributes)?;
        let stream = Direction::parse(&spec.stream)?;
        let name = match spec.name {
            name if name.is_empty() => format!("{}_{}", spec.kind, stream.name()),
            name => name,
        };
        let toxicity = share(spec.toxicity.unwrap_or(1.0))?;
        Ok(Self { name, kind, stream, toxicity, since: clock::now(), id })
    }

    /// The same with other attributes; those that aren't given stay. Neither its type nor its
    /// direction can be changed.
    pub(crate) fn updated(&self, spec: ToxicSpec) -> Result<Self, Error> {
        let (name, mut attributes) = self.kind.parts();
        attributes.extend(spec.attributes);
        let kind = Kind::read(&name, &attributes)?;
        let toxicity = spec.toxicity.map_or(Ok(self.toxicity), share)?;
        Ok(Self { kind, toxicity, since: clock::now(), ..self.clone() })
    }

    /// Whether a connection that drew `lot`, from 0 to 1, has it. It keeps its lot, so that a
    /// toxicity that grows takes more in.
    pub(crate) fn takes(&self, lot: u64) -> bool {
        // Another toxic shuffles the lots anew.
        let lot = fastrand::Rng::with_seed(lot ^ self.id.wrapping_mul(0x9E37_79B9_7F4A_7C15)).f64();
        lot < self.toxicity
    }
}

fn share(toxicity: f64) -> Result<f64, Error> {
    if (0.0..=1.0).contains(&toxicity) {
        return Ok(toxicity);
    }
    Err(bad(&format!("toxicity must be from 0 to 1, got {toxicity}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> ToxicSpec {
        serde_json::from_str(json).unwrap()
    }

    #[tokio::test]
    async fn it_is_written_as_toxiproxy_writes_it() {
        let toxic =
            Toxic::new(spec(r#"{"type":"latency","attributes":{"latency":100},"stream":"upstream"}"#), 1);
        let written = serde_json::to_value(toxic.unwrap()).unwrap();
        let expected = serde_json::json!({
            "name": "latency_upstream", "type": "latency", "stream": "upstream", "toxicity": 1.0,
            "attributes": { "latency": 100, "jitter": 0 },
        });
        assert_eq!(written, expected);
    }

    #[tokio::test]
    async fn an_update_keeps_what_it_does_not_name() {
        let json =
            r#"{"name":"slow","type":"latency","attributes":{"latency":100,"jitter":7},"toxicity":0.5}"#;
        let toxic = Toxic::new(spec(json), 1).unwrap();
        let toxic = toxic.updated(spec(r#"{"attributes":{"latency":5},"type":"bandwidth"}"#)).unwrap();
        assert_eq!(toxic.kind, Kind::Latency { latency: 5, jitter: 7 });
        assert_eq!((&*toxic.name, toxic.toxicity), ("slow", 0.5));
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_by_name() {
        for (json, says) in [
            (r#"{"type":"poison"}"#, "invalid toxic type"),
            (r#"{"type":"noop","stream":"sideways"}"#, "stream was invalid"),
            (r#"{"type":"noop","toxicity":1.5}"#, "toxicity must be from 0 to 1, got 1.5"),
            (r#"{"type":"latency","attributes":{"latency":-1}}"#, "bad request body"),
            (r#"{"type":"timeout","attributes":{"timeout":3600001}}"#, "timeout must be an hour at most"),
        ] {
            let error = Toxic::new(spec(json), 1).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[tokio::test]
    async fn its_share_of_connections_has_it_and_those_that_had_it_keep_it_as_it_grows() {
        let mut toxic = Toxic::new(spec(r#"{"type":"noop","toxicity":0.3}"#), 7).unwrap();
        let has: Vec<bool> = (0..10_000).map(|lot| toxic.takes(lot)).collect();
        let share = has.iter().filter(|has| **has).count();
        assert!((2_800..3_200).contains(&share), "{share}");
        toxic.toxicity = 0.6;
        assert!(has.iter().enumerate().all(|(lot, had)| !had || toxic.takes(lot as u64)));
    }
}
