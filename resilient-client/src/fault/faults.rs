//! The handle: rules in force, to be changed at run time, and what they have done.

use std::env;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::limits::Limits;
use super::machine::{Fault, Machine, Places, RuleCounts};
use super::rule::{Asked, Rule};
use crate::error::{Error, ErrorKind};
use crate::invalid::Invalid;
use crate::rng::Rng;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The environment variable that [`Faults::from_env`] reads.
pub const ENVIRONMENT: &str = "RESILIENT_CLIENT_FAULTS";

/// What [`Faults`] begin with. Plain data: [`Faults::new`] checks it.
///
/// serde reads it, from TOML say: `rules`, `seed`, `envoy_headers`, `max_active`, `max_delay`,
/// `max_bytes`, all optional.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Settings {
    pub(super) rules: Vec<Rule>,
    pub(super) seed: Option<u64>,
    pub(super) limits: Limits,
    pub(super) envoy_headers: bool,
}

impl Settings {
    /// No rules, the standard limits, headers of requests not heard, draws that differ from run to
    /// run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule, to be asked after those before it. At most 100.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// What faults may cost. Default [`Limits::standard`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes every draw follow from `seed`: the n-th request that a rule matches has the same fate
    /// in each run. Default random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Whether a request may ask for a fault itself, by the headers of Envoy's fault filter
    /// (`x-envoy-fault-delay-request` and so on). Default false: whoever can reach the service
    /// could.
    pub fn envoy_headers(mut self, heard: bool) -> Self {
        self.envoy_headers = heard;
        self
    }
}

/// Faults in force. A clone is a handle on the same ones.
///
/// Without a rule a request costs one load of an atomic flag.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whether there is anything to look at.
    armed: AtomicBool,
    machine: ArcSwap<Machine>,
    /// Held while both are changed.
    changing: Mutex<()>,
    places: Places,
    limits: Limits,
    seed: u64,
    envoy_headers: bool,
}

/// The rules in force, and what they have done since they were put there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FaultsSnapshot {
    /// In their order.
    pub rules: Vec<(Rule, RuleCounts)>,
    /// Requests that asked for faults themselves; `None` while that isn't heard.
    pub by_header: Option<RuleCounts>,
    /// Faults in force at the moment, those of earlier rules included.
    pub active: u32,
}

impl Faults {
    /// Checks the settings.
    ///
    /// # Errors
    /// Names the rule and the setting that can't work, and the numbers.
    pub fn new(settings: Settings) -> Result<Self, Invalid> {
        let Settings { rules, seed, limits, envoy_headers } = settings;
        limits.check()?;
        let seed = seed.unwrap_or_else(|| Rng::from_thread().bits());
        let machine = Machine::new(limits, seed, envoy_headers).and(rules)?;
        Ok(Self(Arc::new(Inner {
            armed: AtomicBool::new(machine.is_armed()),
            machine: ArcSwap::from_pointee(machine),
            changing: Mutex::new(()),
            places: Places::default(),
            limits,
            seed,
            envoy_headers,
        })))
    }

    /// From a JSON file, such as
    /// `{"seed": 7, "rules": [{"kind": "delay", "delay": "2s", "percentage": 20}]}`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it can't be read, or can't work.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let config = || Error::new(ErrorKind::Config).says(path.display().to_string());
        let text = fs::read_to_string(path).map_err(|error| config().because(error))?;
        Self::from_json(&text).map_err(|error| config().because(error))
    }

    /// From the environment variable [`RESILIENT_CLIENT_FAULTS`](ENVIRONMENT): JSON as in a
    /// [file](Self::from_file), or `@` and the path of one. Without it, no faults.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it can't be read, or can't work.
    pub fn from_env() -> Result<Self, Error> {
        let Some(text) = env::var_os(ENVIRONMENT) else {
            return Self::new(Settings::new()).map_err(Error::config);
        };
        let config = || Error::new(ErrorKind::Config).says(ENVIRONMENT);
        let Some(text) = text.to_str() else { return Err(config().says("not UTF-8")) };
        match text.trim().strip_prefix('@') {
            Some(path) => Self::from_file(path),
            None => Self::from_json(text).map_err(|error| config().because(error)),
        }
    }

    fn from_json(text: &str) -> Result<Self, crate::error::BoxError> {
        let settings: Settings = serde_json::from_str(text)?;
        Ok(Self::new(settings)?)
    }

    /// Puts other rules in force, all of them or, when one can't work, none. Faults that have begun
    /// go on.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) -> Result<(), Invalid> {
        let Inner { limits, seed, envoy_headers, .. } = &*self.0;
        let next = Machine::new(*limits, *seed, *envoy_headers).and(rules.into_iter().collect())?;
        self.change(|_| Ok(next))
    }

    /// Puts rules in force after those that are, all of them or, when one can't work, none. Those
    /// before them go on and keep their counts, whoever else adds rules at the same time.
    ///
    /// # Errors
    /// As [`new`](Self::new); and names `rules` when there would be more than 100.
    pub fn add(&self, rules: impl IntoIterator<Item = Rule>) -> Result<(), Invalid> {
        let rules = rules.into_iter().collect();
        self.change(|machine| machine.and(rules))
    }

    /// One change at a time, each of what the one before has left.
    fn change(&self, next: impl FnOnce(&Machine) -> Result<Machine, Invalid>) -> Result<(), Invalid> {
        let Inner { armed, machine, changing, .. } = &*self.0;
        let _changing = changing.lock();
        let next = next(&machine.load())?;
        let is_armed = next.is_armed();
        machine.store(Arc::new(next));
        // A request that sees one of the two before the other is served as before or after the
        // change.
        armed.store(is_armed, Ordering::Relaxed);
        Ok(())
    }

    /// Takes all rules out of force. Faults that have begun go on.
    pub fn clear(&self) {
        // Nothing is what can always be put in force.
        let _ = self.set([]);
    }

    /// What is in force, and what it has done.
    pub fn snapshot(&self) -> FaultsSnapshot {
        let machine = self.0.machine.load();
        FaultsSnapshot {
            rules: machine.rules().map(|(rule, counts)| (rule.clone(), counts)).collect(),
            by_header: machine.envoy_counts(),
            active: self.0.places.active(),
        }
    }

    /// The bounds of what faults may cost.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// What happens to a request, if anything does.
    #[inline]
    pub(super) fn draw<'a>(&self, asked: impl FnOnce() -> Asked<'a>) -> Option<Fault> {
        if !self.0.armed.load(Ordering::Relaxed) {
            return None;
        }
        self.choose(&asked())
    }

    #[cold]
    fn choose(&self, asked: &Asked<'_>) -> Option<Fault> {
        self.0.machine.load().choose(asked, &self.0.places)
    }
}
