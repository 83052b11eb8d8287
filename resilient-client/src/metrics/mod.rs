//! What happens, by the facade of the crate `metrics`: for Prometheus, or whatever the process
//! records with.
//!
//! [`Metrics`] is an [observer](Observer), so it counts what the [events](crate::event) tell and
//! nothing else; a client without it pays nothing. What has a level rather than events (places
//! taken, tokens left, the state of breakers) is read from a [snapshot](crate::Client::snapshot)
//! when somebody is about to look.
//!
//! ```
//! # fn run() -> Result<(), resilient_client::Error> {
//! use resilient_client::{Client, Metrics};
//!
//! // After the process has chosen its recorder, `PrometheusBuilder::new().install_recorder()` say.
//! let metrics = Metrics::new();
//! let client = Client::builder().observer(metrics.clone()).build()?;
//! // ...
//! // Each time before they are rendered:
//! metrics.record_snapshot(&client.snapshot());
//! # Ok(())
//! # }
//! # run().unwrap();
//! ```
//!
//! A client that is built can be given it, too ([`observe`](crate::Client::observe)): it counts the
//! calls that begin from then on.
//!
//! [`INSTRUMENTS`] has all there is: names, units, labels, and what each stands for;
//! `docs/metrics-and-spans.md` has them as a table. Every label comes from a bounded set:
//!
//! | label | |
//! |---|---|
//! | `server.address`, `server.port` | whom calls are addressed to, the first [`max_upstreams`](Metrics::max_upstreams) of them; what comes later is `other`, without a port. For a name with several endpoints it is the name |
//! | `url.template` | the route of the policies, where it has state of its own; never a path. Calls with [keys](crate::CallOptions::key) are their host's |
//! | `http.request.method` | nine methods, and `_OTHER` |
//! | `http.response.status_code` | the statuses that HTTP's registry has; others are `1xx` to `5xx`, or `other`. Absent without a response |
//! | `error.type` | absent for a success; the status, where that says it; else [`Outcome::as_str`](crate::outcome::Outcome::as_str) of an attempt, [`ErrorKind::as_str`](crate::ErrorKind::as_str) of a call, or `dropped` |
//! | `http.connection.state` | `idle`, `active` |
//! | `reason`, `outcome`, `trigger`, `from`, `to`, `state` | the names that the types of events give themselves |
//!
//! A recorder makes histograms when it is told to: [`DURATION_BUCKETS`] are those that
//! OpenTelemetry's conventions ask for.

mod instruments;
mod labels;
mod meters;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ::metrics::{KeyName, Recorder, Unit};

pub use self::instruments::{INSTRUMENTS, Instrument, Kind};
use self::labels::Whom;
use self::meters::{Meters, Source};
use self::totals::Totals;
use crate::event::{Event, Observer, UpstreamIdentity};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::upstream::{ClientNumber, UpstreamSnapshot};

/// Upper bounds of the buckets for durations, in seconds, as OpenTelemetry's conventions for HTTP
/// advise.
pub const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// How many upstreams and routes have labels of their own, unless [`Metrics::max_upstreams`] says
/// otherwise.
const MOST: u64 = 100;

/// Counts what its clients do. A clone is the same; one may observe several clients. See the
/// [module docs](self).
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    source: Source,
    most: AtomicU64,
    /// A lock because labels are found when an upstream is made, and only then.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    described: bool,
    by_labels: HashMap<Whom, Arc<Meters>>,
    other: Option<Arc<Meters>>,
}

impl Metrics {
    /// Records with the process's recorder. It is looked for when an upstream is called for the
    /// first time: install it before.
    pub fn new() -> Self {
        Self::from(Source::Global)
    }

    /// Records with this recorder.
    pub fn with_recorder(recorder: impl Recorder + Send + Sync + 'static) -> Self {
        Self::from(Source::Own(Arc::new(recorder)))
    }

    fn from(source: Source) -> Self {
        let (most, known) = (AtomicU64::new(MOST), Mutex::new(Known::default()));
        Self(Arc::new(Shared { source, most, known }))
    }

    /// How many upstreams and routes have labels of their own, counted over the life of the
    /// process, since whoever records keeps all it has ever heard of: 100 by default.
    #[must_use]
    pub fn max_upstreams(self, most: u32) -> Self {
        self.0.most.store(most.into(), Ordering::Relaxed);
        self
    }

    /// Tells what has a level: places, tokens, breakers, connections. All of its clients' upstreams
    /// at once, as what isn't among them is told to be gone.
    pub fn record_snapshot(&self, upstreams: &[UpstreamSnapshot]) {
        // Whose limit is found tells its host's, so each client's host first, and then their sum.
        let mut of_hosts: HashMap<_, (Arc<Meters>, Totals)> = HashMap::new();
        for upstream in upstreams {
            let meters = self.meters(&upstream.identity);
            let of = (host_of(upstream), Arc::as_ptr(&meters));
            let (_, host) = of_hosts.entry(of).or_insert_with(|| (meters, Totals::default()));
            host.add(upstream);
        }
        let mut totals: HashMap<*const Meters, (Arc<Meters>, Totals)> = HashMap::new();
        for (meters, host) in of_hosts.into_values() {
            let (_, all) = totals.entry(Arc::as_ptr(&meters)).or_insert_with(|| (meters, Totals::default()));
            all.and(&host);
        }
        let gone: Vec<_> = {
            let known = self.0.known.lock();
            let all = known.by_labels.values().chain(&known.other);
            let gone = all.filter(|meters| meters.has_state() && !totals.contains_key(&Arc::as_ptr(meters)));
            gone.cloned().collect()
        };
        for meters in gone {
            meters.tell(&Totals::default());
        }
        for (meters, totals) in totals.values() {
            meters.tell(totals);
        }
        self.record_connections(upstreams);
    }

    /// Connections are a client's to a host, whatever routes and keys its upstreams are for.
    fn record_connections(&self, upstreams: &[UpstreamSnapshot]) {
        let mut hosts: HashMap<_, (Whom, u64, u64)> = HashMap::new();
        for upstream in upstreams {
            let identity = &upstream.identity;
            let Some(open) = upstream.open_connections.filter(|_| !identity.is_overflow()) else { continue };
            let known = hosts.entry(host_of(upstream));
            let (_, all, in_flight) = known.or_insert_with(|| (Whom::of_host(identity), 0, 0));
            *all = open.max(*all);
            let own = u64::from(upstream.in_flight);
            // Where a limit is found each tells its host's.
            *in_flight = if upstream.concurrency.is_some() { own.max(*in_flight) } else { *in_flight + own };
        }
        let mut told: HashMap<*const Meters, (Arc<Meters>, u64, u64)> = HashMap::new();
        for (whom, open, in_flight) in hosts.into_values() {
            let meters = self.meters_of(whom);
            let (_, all, active) = told.entry(Arc::as_ptr(&meters)).or_insert((meters, 0, 0));
            (*all, *active) = (*all + open, *active + in_flight.min(open));
        }
        let gone: Vec<_> = {
            let known = self.0.known.lock();
            let all = known.by_labels.values().chain(&known.other);
            let gone =
                all.filter(|meters| meters.has_connections() && !told.contains_key(&Arc::as_ptr(meters)));
            gone.cloned().collect()
        };
        for meters in gone {
            meters.tell_connections(0, 0);
        }
        for (meters, open, active) in told.values() {
            meters.tell_connections(*open, *active);
        }
    }

    /// The instruments of an upstream's labels.
    fn meters(&self, upstream: &UpstreamIdentity) -> Arc<Meters> {
        self.meters_of(Whom::of(upstream))
    }

    fn meters_of(&self, whom: Whom) -> Arc<Meters> {
        let Shared { source, most, known } = &*self.0;
        let has_own = whom != Whom::other();
        let mut known = known.lock();
        if !known.described {
            known.described = true;
            source.with(describe);
        }
        if let Some(meters) = known.by_labels.get(&whom) {
            return Arc::clone(meters);
        }
        if has_own && (known.by_labels.len() as u64) < most.load(Ordering::Relaxed) {
            let meters = Arc::new(Meters::new(source.clone(), &whom));
            known.by_labels.insert(whom, Arc::clone(&meters));
            return meters;
        }
        let other = || Arc::new(Meters::new(source.clone(), &Whom::other()));
        Arc::clone(known.other.get_or_insert_with(other))
    }
}

/// A host, as one client sees it.
fn host_of(upstream: &UpstreamSnapshot) -> (ClientNumber, &str, &str, Option<u16>) {
    let identity = &upstream.identity;
    (upstream.client, identity.scheme(), identity.host(), identity.port())
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("upstreams", &self.0.known.lock().by_labels.len()).finish()
    }
}

impl Observer for Metrics {
    /// A client calls it for what is its own alone, of which nothing is counted; for all else it
    /// asks for each upstream's.
    fn event(&self, _upstream: &str, _event: &Event) {}

    fn of_upstream(&self, upstream: &UpstreamIdentity) -> Option<Arc<dyn Observer>> {
        Some(self.meters(upstream))
    }
}

/// Gives every instrument its unit and its help.
fn describe(recorder: &dyn Recorder) {
    for Instrument { name, kind, unit, help, .. } in INSTRUMENTS {
        let (name, help) = (KeyName::from_const_str(name), (*help).into());
        // What is counted in braces has no unit that exporters know.
        let unit = (*unit == "s").then_some(Unit::Seconds);
        match kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        }
    }
}
