//! What there is to count: names, units, and what each stands for.

/// What kind of instrument it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Values by how often they came, in [buckets](super::DURATION_BUCKETS).
    Histogram,
}

/// One instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instrument {
    /// Its name. The first three are OpenTelemetry's, whose semantic conventions for HTTP say what
    /// they are.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Its unit, as UCUM writes it: `s`, or what is counted in braces.
    pub unit: &'static str,
    /// What it stands for.
    pub help: &'static str,
    /// Its labels besides `server.address`, `server.port` and `url.template`, which all have.
    pub labels: &'static [&'static str],
}

macro_rules! instruments {
    ($($id:ident: $kind:ident $name:literal $unit:literal [$($label:literal)*] $help:literal;)*) => {
        $(pub(super) const $id: Instrument = Instrument {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            help: $help,
            labels: &[$($label),*],
        };)*
        /// Every instrument, with its labels.
        pub const INSTRUMENTS: &[Instrument] = &[$($id),*];
    };
}

instruments! {
    REQUEST_DURATION: Histogram "http.client.request.duration" "s"
        ["http.request.method" "http.response.status_code" "error.type"]
        "Duration of an attempt, from its launch to the end of its response's body.";
    ACTIVE_REQUESTS: Gauge "http.client.active_requests" "{request}"
        ["http.request.method"]
        "Attempts in flight, responses whose bodies haven't ended among them.";
    CONNECTIONS: Gauge "http.client.open_connections" "{connection}"
        ["http.connection.state"]
        "Open connections to a host, active ones with an attempt on them; absent where the transport doesn't tell.";
    CALL_DURATION: Histogram "resilient_client.call.duration" "s"
        ["http.request.method" "http.response.status_code" "error.type"]
        "Duration of a call: every attempt and the waits between them, to its response's head or its error.";
    ATTEMPTS: Counter "resilient_client.attempts" "{attempt}"
        ["trigger"]
        "Attempts handed to the transport.";
    RETRIES: Counter "resilient_client.retries" "{retry}"
        ["reason"]
        "Further attempts decided on, by what the last one came to. One may be refused before it is sent.";
    DECLINED: Counter "resilient_client.retries.declined" "{decision}"
        ["reason"]
        "Decisions not to send another attempt after one that failed, or beside one in flight.";
    REJECTIONS: Counter "resilient_client.rejections" "{attempt}"
        ["reason"]
        "Attempts refused here, before anything was sent.";
    WOULD_REJECT: Counter "resilient_client.rejections.observed" "{attempt}"
        ["reason"]
        "Attempts that a policy which only observes would have refused or made to wait.";
    HEDGES: Counter "resilient_client.hedges" "{attempt}"
        ["outcome"]
        "Attempts sent, or to be sent, beside another, by what became of them.";
    TRANSITIONS: Counter "resilient_client.breaker.transitions" "{transition}"
        ["from" "to"]
        "Changes of circuit breakers' states: the upstream's, or its endpoints'.";
    SILENCES: Counter "resilient_client.silences" "{silence}" []
        "Times that the upstream, or one of its endpoints, answered nothing for longer than can be chance.";
    LOST: Counter "resilient_client.events.lost" "{event}" []
        "Events that an observer of the client lost, because it panicked.";
    BREAKER_STATE: Gauge "resilient_client.breaker.state" "{breaker}"
        ["state"]
        "Circuit breakers in this state: of an upstream that is one, 1 in one state and 0 in the others; else its endpoints'.";
    BREAKER_HELD: Gauge "resilient_client.breaker.held" "{breaker}"
        ["control"]
        "Circuit breakers that somebody told so and has not told otherwise since: the upstream's, and its endpoints'.";
    IN_USE: Gauge "resilient_client.bulkhead.in_use" "{attempt}" []
        "Places taken by attempts in flight, responses whose bodies haven't ended among them.";
    LIMIT: Gauge "resilient_client.bulkhead.limit" "{attempt}" []
        "The most places; absent without a limit, NaN when it is gone.";
    QUEUED: Gauge "resilient_client.bulkhead.queued" "{attempt}" []
        "Attempts that wait for a place.";
    SILENT: Gauge "resilient_client.overload.silent" "{upstream}" []
        "Upstreams that are silent, so that attempts wait for an answer: 1 or 0 of one that is one, else its endpoints.";
    BUDGET: Gauge "resilient_client.budget.available" "{token}" []
        "Tokens left for retries and hedges; absent without a budget, NaN when it is gone.";
}
