//! The instruments of one set of labels. Those that every call needs are found by index; the others
//! by a map.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use http::StatusCode;

use super::instruments as names;
use super::instruments::Instrument;
use super::labels::{End, STATUSES, Status, Whom};
use super::totals::{HELD, STATES, Totals};
use crate::event::{CallEnd, Counts, Event, EventKinds, KnownMethod, Observer};
use crate::outcome::Outcome;
use crate::outcome::report::Trigger;
use crate::sync::Mutex;
use crate::time::nanos;

/// Where instruments are registered.
#[derive(Clone)]
pub(super) enum Source {
    /// Wherever the process says, once it has said so.
    Global,
    /// Here.
    Own(Arc<dyn Recorder + Send + Sync>),
}

const METADATA: Metadata<'static> = Metadata::new("resilient_client", Level::INFO, Some("resilient_client"));

impl Source {
    pub(super) fn with<T>(&self, f: impl FnOnce(&dyn Recorder) -> T) -> T {
        match self {
            Self::Global => ::metrics::with_recorder(f),
            Self::Own(recorder) => f(&**recorder),
        }
    }
}

const METHODS: usize = KnownMethod::Other as usize + 1;

/// In their own order, so that each is its index.
const TRIGGERS: [Trigger; 3] = [Trigger::First, Trigger::Retry, Trigger::Hedge];

pub(super) struct Meters {
    source: Source,
    whom: Vec<Label>,
    attempts: [Counter; TRIGGERS.len()],
    /// Both there from the beginning: what grows from nothing to one is no growth to who looks
    /// later.
    lost: Counter,
    silences: Counter,
    methods: [OnceLock<Box<OfMethod>>; METHODS],
    /// Counters of what is rare, by instrument and labels' values.
    rare: Mutex<HashMap<(&'static str, &'static str, &'static str), Counter>>,
    state: OnceLock<StateOf>,
    /// Idle and active ones.
    connections: OnceLock<[Gauge; 2]>,
}

/// What requests of one method have.
struct OfMethod {
    active: Gauge,
    attempts: Durations,
    calls: Durations,
}

/// Durations by how it ended.
struct Durations {
    instrument: Instrument,
    /// Where the status says all, by status.
    by_status: [OnceLock<Histogram>; STATUSES],
    /// Where something else went wrong.
    others: Mutex<HashMap<(Status, &'static str), Histogram>>,
}

/// What a snapshot tells.
struct StateOf {
    states: [Gauge; STATES.len()],
    held: [Gauge; HELD.len()],
    in_use: Gauge,
    queued: Gauge,
    silent: Gauge,
    limit: OnceLock<Gauge>,
    budget: OnceLock<Gauge>,
}

impl Meters {
    pub(super) fn new(source: Source, whom: &Whom) -> Self {
        let mut labels = vec![Label::new("server.address", whom.address.clone())];
        labels.extend(whom.port.map(|port| Label::new("server.port", port.to_string())));
        labels.extend(whom.template.clone().map(|template| Label::new("url.template", template)));
        let attempts =
            TRIGGERS.map(|trigger| counter(&source, &labels, &names::ATTEMPTS, [trigger.as_str()]));
        let lost = counter(&source, &labels, &names::LOST, []);
        let silences = counter(&source, &labels, &names::SILENCES, []);
        Self {
            source,
            whom: labels,
            attempts,
            lost,
            silences,
            methods: [const { OnceLock::new() }; METHODS],
            rare: Mutex::new(HashMap::new()),
            state: OnceLock::new(),
            connections: OnceLock::new(),
        }
    }

    #[inline]
    fn of(&self, method: KnownMethod) -> &OfMethod {
        // No closure: it would put what it needs into memory each time.
        match self.methods[method as usize].get() {
            Some(known) => known,
            None => self.methods[method as usize].get_or_init(|| self.make(method)),
        }
    }

    #[cold]
    fn make(&self, method: KnownMethod) -> Box<OfMethod> {
        let labels = with(&self.whom, &names::ACTIVE_REQUESTS, [method.as_str()]);
        let key = Key::from_parts(names::ACTIVE_REQUESTS.name, labels);
        let active = self.source.with(|recorder| recorder.register_gauge(&key, &METADATA));
        let (attempts, calls) =
            (Durations::new(names::REQUEST_DURATION), Durations::new(names::CALL_DURATION));
        Box::new(OfMethod { active, attempts, calls })
    }

    /// One more of what is rare.
    #[cold]
    fn count(&self, instrument: &'static Instrument, values: [&'static str; 2]) {
        let id = (instrument.name, values[0], values[1]);
        let made = || counter(&self.source, &self.whom, instrument, values);
        let counter = self.rare.lock().entry(id).or_insert_with(made).clone();
        counter.increment(1);
    }

    pub(super) fn tell(&self, totals: &Totals) {
        let state = self.state.get_or_init(|| StateOf {
            states: STATES.map(|state| self.gauge(&names::BREAKER_STATE, &[state.as_str()])),
            held: HELD.map(|control| self.gauge(&names::BREAKER_HELD, &[control.as_str()])),
            in_use: self.gauge(&names::IN_USE, &[]),
            queued: self.gauge(&names::QUEUED, &[]),
            silent: self.gauge(&names::SILENT, &[]),
            limit: OnceLock::new(),
            budget: OnceLock::new(),
        });
        for (gauge, count) in state.states.iter().zip(totals.states) {
            gauge.set(count);
        }
        for (gauge, count) in state.held.iter().zip(totals.held) {
            gauge.set(count);
        }
        state.in_use.set(totals.in_use as f64);
        state.queued.set(totals.queued as f64);
        state.silent.set(totals.silent);
        if totals.limit.is_some() || state.limit.get().is_some() {
            let gauge = state.limit.get_or_init(|| self.gauge(&names::LIMIT, &[]));
            // None any more is no number: zero would be a limit that lets nothing in.
            gauge.set(totals.limit.map_or(f64::NAN, |limit| limit as f64));
        }
        if totals.budget.is_some() || state.budget.get().is_some() {
            let gauge = state.budget.get_or_init(|| self.gauge(&names::BUDGET, &[]));
            gauge.set(totals.budget.unwrap_or(f64::NAN));
        }
    }

    /// How many connections are open to a host, and how many of them are in use.
    pub(super) fn tell_connections(&self, open: u64, active: u64) {
        let gauges = || ["idle", "active"].map(|state| self.gauge(&names::CONNECTIONS, &[state]));
        let [idle, busy] = self.connections.get_or_init(gauges);
        idle.set((open - active.min(open)) as f64);
        busy.set(active.min(open) as f64);
    }

    /// Whether any were told of.
    pub(super) fn has_connections(&self) -> bool {
        self.connections.get().is_some()
    }

    /// Whether a snapshot has been told.
    pub(super) fn has_state(&self) -> bool {
        self.state.get().is_some()
    }

    fn gauge(&self, instrument: &Instrument, values: &[&'static str]) -> Gauge {
        let key = Key::from_parts(instrument.name, with(&self.whom, instrument, values.iter().copied()));
        self.source.with(|recorder| recorder.register_gauge(&key, &METADATA))
    }
}

/// Labels with an instrument's own beside them.
fn with(
    whom: &[Label],
    instrument: &Instrument,
    values: impl IntoIterator<Item = &'static str>,
) -> Vec<Label> {
    let own = instrument.labels.iter().zip(values).map(|(name, value)| Label::new(*name, value));
    whom.iter().cloned().chain(own).collect()
}

fn counter<const N: usize>(
    source: &Source,
    whom: &[Label],
    instrument: &Instrument,
    values: [&'static str; N],
) -> Counter {
    let key = Key::from_parts(instrument.name, with(whom, instrument, values));
    source.with(|recorder| recorder.register_counter(&key, &METADATA))
}

#[inline]
fn seconds(nanos: u64) -> f64 {
    // Signed ones become floats in one step, and no duration is that long.
    nanos.cast_signed() as f64 / 1e9
}

impl Durations {
    fn new(instrument: Instrument) -> Self {
        Self {
            instrument,
            by_status: [const { OnceLock::new() }; STATUSES],
            others: Mutex::new(HashMap::new()),
        }
    }

    fn record(&self, meters: &Meters, method: KnownMethod, end: End, nanos: u64) {
        let made = || self.make(meters, method, end);
        match end.error {
            None => self.by_status[end.status.index()].get_or_init(made).record(seconds(nanos)),
            Some(error) => {
                let histogram = self.others.lock().entry((end.status, error)).or_insert_with(made).clone();
                histogram.record(seconds(nanos));
            }
        }
    }

    #[cold]
    fn make(&self, meters: &Meters, method: KnownMethod, end: End) -> Histogram {
        let mut labels = meters.whom.clone();
        labels.push(Label::new("http.request.method", method.as_str()));
        labels.extend(end.status.text().map(|status| Label::new("http.response.status_code", status)));
        labels.extend(end.error_type().map(|error| Label::new("error.type", error)));
        let key = Key::from_parts(self.instrument.name, labels);
        meters.source.with(|recorder| recorder.register_histogram(&key, &METADATA))
    }
}

/// What is counted: nothing else is built for it.
const COUNTED: EventKinds = EventKinds::ATTEMPT_STARTED
    .and(EventKinds::ATTEMPT_FINISHED)
    .and(EventKinds::CALL_FINISHED)
    .and(EventKinds::RETRY_SCHEDULED)
    .and(EventKinds::RETRY_DECLINED)
    .and(EventKinds::REJECTED)
    .and(EventKinds::WOULD_REJECT)
    .and(EventKinds::HEDGE_ENDED)
    .and(EventKinds::SILENCE)
    .and(EventKinds::BREAKER_TRANSITION);

impl Observer for Meters {
    fn interest(&self) -> EventKinds {
        COUNTED
    }

    fn event(&self, _upstream: &str, event: &Event) {
        match *event {
            Event::AttemptStarted { method, trigger, .. } => self.attempt_started(method, trigger),
            Event::AttemptFinished { method, duration, outcome, status, .. } => {
                self.attempt_finished(method, nanos(duration), outcome, status);
            }
            Event::CallFinished { method, duration, end, .. } => {
                self.call_finished(method, nanos(duration), end);
            }
            _ => self.rare(event),
        }
    }

    fn counts(self: Arc<Self>) -> Option<Arc<dyn Counts>> {
        Some(self)
    }
}

/// What every call needs is found first, and what isn't there yet, or isn't a success, is left to a
/// function of its own: so these keep next to nothing while they tell others.
impl Counts for Meters {
    fn attempt_started(&self, method: KnownMethod, trigger: Trigger) {
        let Some(of_method) = self.methods[method as usize].get() else {
            return self.attempt_started_first(method, trigger);
        };
        self.attempts[trigger as usize].increment(1);
        of_method.active.increment(1.0);
    }

    fn attempt_finished(
        &self,
        method: KnownMethod,
        nanos: u64,
        outcome: Outcome,
        status: Option<StatusCode>,
    ) {
        if outcome == Outcome::Success
            && let Some(code) = status
            && let Some(of_method) = self.methods[method as usize].get()
            && let Some(durations) = of_method.attempts.by_status[Status::of(code).index()].get()
        {
            durations.record(seconds(nanos));
            of_method.active.decrement(1.0);
        } else {
            self.attempt_finished_otherwise(method, nanos, outcome, status);
        }
    }

    fn call_finished(&self, method: KnownMethod, nanos: u64, end: CallEnd) {
        if let CallEnd::Response(code) = end
            && let Some(of_method) = self.methods[method as usize].get()
            && let Some(durations) = of_method.calls.by_status[Status::of(code).index()].get()
        {
            durations.record(seconds(nanos));
        } else {
            self.call_finished_otherwise(method, nanos, end);
        }
    }

    fn event_lost(&self) {
        self.lost.increment(1);
    }
}

impl Meters {
    #[cold]
    fn attempt_started_first(&self, method: KnownMethod, trigger: Trigger) {
        let of_method = self.of(method);
        self.attempts[trigger as usize].increment(1);
        of_method.active.increment(1.0);
    }

    #[cold]
    fn attempt_finished_otherwise(
        &self,
        method: KnownMethod,
        nanos: u64,
        outcome: Outcome,
        status: Option<StatusCode>,
    ) {
        let of_method = self.of(method);
        of_method.active.decrement(1.0);
        of_method.attempts.record(self, method, End::of_attempt(outcome, status), nanos);
    }

    #[cold]
    fn call_finished_otherwise(&self, method: KnownMethod, nanos: u64, end: CallEnd) {
        self.of(method).calls.record(self, method, End::of_call(end), nanos);
    }
}

impl Meters {
    #[cold]
    fn rare(&self, event: &Event) {
        match *event {
            Event::RetryScheduled { after, .. } => self.count(&names::RETRIES, [after.as_str(), ""]),
            Event::RetryDeclined { ref why, .. } => self.count(&names::DECLINED, [why.as_str(), ""]),
            Event::Rejected { rejection, .. } => self.count(&names::REJECTIONS, [rejection.as_str(), ""]),
            Event::WouldReject { rejection } => self.count(&names::WOULD_REJECT, [rejection.as_str(), ""]),
            Event::Silence { silent: true, .. } => self.silences.increment(1),
            Event::HedgeEnded { end, .. } => self.count(&names::HEDGES, [end.as_str(), ""]),
            Event::BreakerTransition(change) => {
                self.count(&names::TRANSITIONS, [change.from.as_str(), change.to.as_str()]);
            }
            _ => {}
        }
    }
}
