//! The caller's side: what a client's calls came to by their reports, and the header that tells the
//! server which attempt is which.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use resilient_client::event::{CallEnd, CallId, Event};
use resilient_client::{Attempt, CallReport, Client, ClientBuilder, Error, Metrics, Prepared, Response};
use service_kit::meters::Meters;

use super::compare::{By, ToldAttempt, ToldCall};
use super::{ATTEMPT, CALLS, Problem};

/// Counts what the clients of one process do.
#[derive(Clone)]
pub(crate) struct Caller {
    metrics: Metrics,
    clients: Arc<Mutex<Vec<Client>>>,
    /// `None` where nobody will compare.
    log: Option<Arc<Log>>,
}

struct Log {
    file: File,
    /// What calls did that have no result yet: should they be dropped, they have no report.
    under_way: Mutex<HashMap<CallId, ToldCall>>,
}

impl Caller {
    /// `directory` is where reports go; without one they go nowhere.
    pub(crate) fn new(meters: &Meters, directory: Option<&Path>) -> Result<Self, Problem> {
        let metrics = Metrics::with_recorder(meters.recorder());
        let clients = Arc::<Mutex<Vec<Client>>>::default();
        let (told, all) = (metrics.clone(), Arc::clone(&clients));
        meters.before_rendering(move || {
            let all = all.lock().unwrap_or_else(PoisonError::into_inner);
            told.record_snapshot(&all.iter().flat_map(Client::snapshot).collect::<Vec<_>>());
        });
        let log = directory.map(|directory| {
            let file = File::options().create(true).append(true).open(directory.join(CALLS))?;
            Ok::<_, std::io::Error>(Arc::new(Log { file, under_way: Mutex::default() }))
        });
        Ok(Self { metrics, clients, log: log.transpose()? })
    }

    /// What a client needs to be counted.
    pub(crate) fn counting(&self, builder: ClientBuilder) -> ClientBuilder {
        let builder = builder.observer(self.metrics.clone());
        let Some(log) = self.log.clone() else { return builder };
        builder.observer(move |_: &str, event: &Event| log.event(event)).on_attempt(numbered)
    }

    /// A client that is counted, for what of it has a level.
    pub(crate) fn counted(&self, client: &Client) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
    }

    /// A call has its result.
    pub(crate) fn result(&self, result: &Result<Response, Error>) {
        match result {
            Ok(response) => self.report(response.report(), CallEnd::Response(response.status())),
            Err(error) => {
                if let Some(report) = error.report() {
                    self.report(report, CallEnd::Error(error.kind()));
                }
            }
        }
    }

    /// The same, taken apart.
    pub(crate) fn report(&self, report: &CallReport, end: CallEnd) {
        let Some(log) = &self.log else { return };
        let attempts = report.attempts().iter().map(|attempt| ToldAttempt {
            number: attempt.number(),
            trigger: attempt.trigger().as_str().to_owned(),
            status: attempt.status().map(|status| status.as_u16()),
            came_to: attempt.outcome().map(|outcome| outcome.as_str().to_owned()),
        });
        log.write(&ToldCall {
            call: report.call().as_u64(),
            by: By::Report,
            end: name(end),
            attempts: attempts.collect(),
            declined: report.declined().iter().map(|why| why.as_str().to_owned()).collect(),
        });
    }
}

/// As `/metrics` calls it.
fn name(end: CallEnd) -> String {
    match end {
        CallEnd::Response(status) => status.as_str().to_owned(),
        CallEnd::Error(kind) => kind.as_str().to_owned(),
        _ => "dropped".to_owned(),
    }
}

/// Tells the server which attempt it is.
fn numbered(attempt: &Attempt<'_>) -> Prepared {
    let id = format!("{}-{}", attempt.call(), attempt.number());
    let mut headers = HeaderMap::new();
    // Digits and a dash are a header's value.
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static(ATTEMPT), id);
    }
    Prepared::now(headers)
}

impl Log {
    /// Keeps in mind what a call does until it has its result.
    fn event(&self, event: &Event) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::AttemptStarted { call, number, trigger, .. } => {
                let (number, trigger) = (*number, trigger.as_str().to_owned());
                let told = under_way.entry(*call).or_insert_with(|| ToldCall::dropped(call.as_u64()));
                told.attempts.push(ToldAttempt { number, trigger, status: None, came_to: None });
            }
            Event::AttemptFinished { call, number, outcome, status, .. } => {
                let told = under_way.get_mut(call).and_then(|told| told.attempt(*number));
                if let Some(told) = told {
                    told.came_to = Some(outcome.as_str().to_owned());
                    told.status = status.map(|status| status.as_u16());
                }
            }
            Event::RetryDeclined { call, why, .. } => {
                let told = under_way.entry(*call).or_insert_with(|| ToldCall::dropped(call.as_u64()));
                told.declined.push(why.as_str().to_owned());
            }
            Event::CallFinished { call, end, .. } => {
                let told = under_way.remove(call);
                if *end == CallEnd::Dropped {
                    self.write(&told.unwrap_or_else(|| ToldCall::dropped(call.as_u64())));
                }
            }
            _ => {}
        }
    }

    fn write(&self, call: &ToldCall) {
        let Ok(mut line) = serde_json::to_string(call) else { return };
        line.push('\n');
        // One write for a line. A disk that is full shows as a count that differs.
        let _ = (&self.file).write_all(line.as_bytes());
    }
}
