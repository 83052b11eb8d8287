//! Which request suffers which fault: pure, from the seed, the rules and how many requests have
//! matched them.
//!
//! Rules are asked in their order, and the first that matches *and* draws the request has it. The
//! n-th request that a rule matches is drawn from the seed, the rule's place and n alone, so that a
//! run can be repeated whatever else goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::envoy;
use super::limits::Limits;
use super::rule::{Asked, Delay, Kind, Matcher, Rule};
use crate::invalid::Invalid;
use crate::rng::Rng;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::time::nanos;

/// The most rules at a time: each is looked at for each request.
const MOST_RULES: usize = 100;
/// The golden-ratio step of splitmix64 keeps neighbouring numbers far apart.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

pub(super) const PAGE: &str = "<!doctype html>\n<html><head><title>Nothing to see here</title></head>\n\
    <body><h1>Nothing to see here</h1><p>This gateway knows no such service.</p></body></html>\n";

/// The rules in force, with their counts.
#[derive(Debug)]
pub(super) struct Machine {
    /// Shared with the machine that has more: a rule goes on counting when another one joins it.
    rules: Vec<Arc<Compiled>>,
    limits: Limits,
    seed: u64,
    /// Requests may ask for faults.
    envoy: Option<Arc<Counts>>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    matcher: Matcher,
    act: Act,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    matched: AtomicU64,
    injected: AtomicU64,
    capped: AtomicU64,
}

/// What a rule has done since it was put in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleCounts {
    /// Requests that matched and that no rule before it had taken.
    pub matched: u64,
    /// Those that it was done to.
    pub injected: u64,
    /// Those that were drawn, and spared because [`Limits::max_active`] faults were in force.
    pub capped: u64,
}

impl Counts {
    fn snapshot(&self) -> RuleCounts {
        let [matched, injected, capped] =
            [&self.matched, &self.injected, &self.capped].map(|count| count.load(Ordering::Relaxed));
        RuleCounts { matched, injected, capped }
    }
}

/// What happens to one request, and its place among those in force until it is over.
#[derive(Debug)]
pub(crate) struct Fault {
    /// First it waits.
    pub(crate) delay: Duration,
    pub(crate) act: Act,
    pub(crate) place: Place,
}

/// What happens after the delay.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Serve,
    Answer(Arc<Answer>),
    Reset,
    Garbage,
    Spoil(Spoil),
    /// No connection is made.
    #[cfg(feature = "testing")]
    Refuse,
    /// An answer that nobody asked the service for, and its body is spoilt.
    #[cfg(feature = "testing")]
    Spoilt(Arc<Answer>, Spoil),
}

/// What becomes of the body of an answer that is served.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spoil {
    /// The connection is reset in its place.
    Reset,
    /// It ends after so many bytes, with the connection.
    Truncate { bytes: u64 },
    /// It comes so many bytes at a time, for at most so long.
    Trickle { bytes: u64, every: Duration, most: Duration },
}

/// An answer that nobody asked the service for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[cfg(feature = "testing")]
impl Answer {
    /// As what comes over a connection that isn't there.
    pub(super) fn in_parts(&self) -> (http::response::Parts, http_body_util::Full<Bytes>) {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = self.status;
        parts.headers.clone_from(&self.headers);
        parts.headers.insert(http::header::CONTENT_LENGTH, self.body.len().into());
        (parts, http_body_util::Full::new(self.body.clone()))
    }
}

impl Machine {
    /// No rules.
    pub(super) fn new(limits: Limits, seed: u64, envoy: bool) -> Self {
        Self { rules: Vec::new(), limits, seed, envoy: envoy.then(Arc::default) }
    }

    /// These rules after its own, which go on as they are. Checks them.
    pub(super) fn and(&self, more: Vec<Rule>) -> Result<Self, Invalid> {
        let count = self.rules.len() + more.len();
        if count > MOST_RULES {
            return Err(Invalid::new("rules", format!("must be at most {MOST_RULES}, got {count}")));
        }
        let compiled = more.into_iter().enumerate().map(|(index, rule)| {
            let whose = |invalid: Invalid| invalid.of_named(format!("rules[{index}]"));
            rule.kind.check(&self.limits).map_err(whose)?;
            let matcher = rule.matcher().map_err(whose)?;
            let act = act(&rule.kind, &self.limits);
            Ok(Arc::new(Compiled { act, rule, matcher, counts: Counts::default() }))
        });
        let more = compiled.collect::<Result<Vec<_>, _>>()?;
        let rules = self.rules.iter().cloned().chain(more).collect();
        Ok(Self { rules, limits: self.limits, seed: self.seed, envoy: self.envoy.clone() })
    }

    /// Whether any request can suffer a fault.
    pub(super) fn is_armed(&self) -> bool {
        !self.rules.is_empty() || self.envoy.is_some()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = (&Rule, RuleCounts)> {
        self.rules.iter().map(|compiled| (&compiled.rule, compiled.counts.snapshot()))
    }

    pub(super) fn envoy_counts(&self) -> Option<RuleCounts> {
        self.envoy.as_ref().map(|counts| counts.snapshot())
    }

    /// What happens to a request: mostly nothing.
    pub(super) fn choose(&self, asked: &Asked<'_>, places: &Places) -> Option<Fault> {
        if let Some(counts) = &self.envoy
            && let Some(wish) = envoy::Wish::read(asked.headers, &self.limits)
        {
            // Who asks for faults by header gets these and no others.
            let nth = counts.matched.fetch_add(1, Ordering::Relaxed);
            let (delay, act) = wish.draw(&mut self.rng(u64::MAX, nth))?;
            return self.inject(counts, delay, act, places);
        }
        for (index, compiled) in self.rules.iter().enumerate() {
            let Compiled { rule, matcher, act, counts } = &**compiled;
            if !matcher.matches(asked) {
                continue;
            }
            let nth = counts.matched.fetch_add(1, Ordering::Relaxed);
            let mut rng = self.rng(index as u64, nth);
            if rng.unit() < matcher.chance {
                let delay = delay(&rule.kind, &self.limits, &mut rng);
                return self.inject(counts, delay, act.clone(), places);
            }
        }
        None
    }

    fn inject(&self, counts: &Counts, delay: Duration, act: Act, places: &Places) -> Option<Fault> {
        let Some(place) = places.take(self.limits.max_active) else {
            counts.capped.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        counts.injected.fetch_add(1, Ordering::Relaxed);
        Some(Fault { delay, act, place })
    }

    fn rng(&self, index: u64, nth: u64) -> Rng {
        let rule = Rng::seeded(self.seed ^ index.wrapping_add(1).wrapping_mul(STEP)).bits();
        Rng::seeded(rule.wrapping_add(nth.wrapping_mul(STEP)))
    }
}

fn act(kind: &Kind, limits: &Limits) -> Act {
    let answer = |status, headers, body| Act::Answer(Arc::new(Answer { status, headers, body }));
    match kind {
        Kind::Delay(_) => Act::Serve,
        Kind::Abort { status, headers, body } => answer(*status, headers.clone(), body.clone()),
        // A hang is a delay of all the time there is.
        Kind::Hang | Kind::ResetBeforeHead => Act::Reset,
        Kind::ResetAfterHead => Act::Spoil(Spoil::Reset),
        Kind::Truncate { bytes } => Act::Spoil(Spoil::Truncate { bytes: *bytes }),
        Kind::Trickle { bytes, every } => {
            Act::Spoil(Spoil::Trickle { bytes: *bytes, every: *every, most: limits.max_delay })
        }
        Kind::Garbage => Act::Garbage,
        Kind::WrongPage { status } => {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            headers.insert(SERVER, HeaderValue::from_static("a-proxy"));
            answer(*status, headers, Bytes::from_static(PAGE.as_bytes()))
        }
    }
}

fn delay(kind: &Kind, limits: &Limits, rng: &mut Rng) -> Duration {
    match kind {
        Kind::Hang => limits.max_delay,
        Kind::Delay(Delay::Fixed(delay)) => *delay,
        Kind::Delay(Delay::Uniform { min, max }) => {
            Duration::from_nanos(rng.between(nanos(*min), nanos(*max)))
        }
        Kind::Delay(Delay::LogNormal { median, p99 }) => {
            let sigma = (p99.as_secs_f64() / median.as_secs_f64()).ln() / Z99;
            let drawn = median.as_secs_f64() * (sigma * normal(rng)).exp();
            Duration::try_from_secs_f64(drawn).unwrap_or(limits.max_delay).min(limits.max_delay)
        }
        _ => Duration::ZERO,
    }
}

/// From the standard normal distribution, by Box and Muller.
fn normal(rng: &mut Rng) -> f64 {
    // Above zero, whose logarithm there isn't.
    let (u, v) = (1.0 - rng.unit(), rng.unit());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// How many faults are in force. A clone counts the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<AtomicU32>);

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Places);

#[cfg(feature = "testing")]
impl Place {
    /// One of a kind: a script's answers aren't bounded.
    pub(crate) fn alone() -> Self {
        Self(Places(Arc::new(AtomicU32::new(1))))
    }
}

impl Places {
    fn take(&self, most: u32) -> Option<Place> {
        let more = |active: u32| (active < most).then_some(active + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Place(self.clone()))
    }

    pub(super) fn active(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
