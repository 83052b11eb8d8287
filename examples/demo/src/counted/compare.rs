//! The comparison: pure, so that it can be shown to find what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::page::{Counts, Page};

/// How many differences are named.
const MOST_NAMED: usize = 5;
/// A label of [`Page`].
const STATUS: &str = "http_response_status_code";
const ERROR: &str = "error_type";

/// Who says what a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    Report,
    /// Nobody waited for it: it has no report.
    Events,
}

/// What a call came to.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ToldCall {
    pub(super) call: u64,
    pub(super) by: By,
    /// A status, an error's kind, or `dropped`.
    pub(super) end: String,
    pub(super) attempts: Vec<ToldAttempt>,
    pub(super) declined: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ToldAttempt {
    pub(super) number: u32,
    pub(super) trigger: String,
    pub(super) status: Option<u16>,
    /// `None` when its call ended first.
    pub(super) came_to: Option<String>,
}

impl ToldCall {
    pub(super) fn dropped(call: u64) -> Self {
        let (attempts, declined) = Default::default();
        Self { call, by: By::Events, end: "dropped".to_owned(), attempts, declined }
    }

    pub(super) fn attempt(&mut self, number: u32) -> Option<&mut ToldAttempt> {
        self.attempts.iter_mut().find(|attempt| attempt.number == number)
    }
}

/// A line of the server's log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Arrival {
    /// The call's number and its own; empty for a request of another client.
    pub(super) attempt: String,
    /// `None` as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answered: Option<u16>,
}

/// What the three say.
pub(super) struct Evidence {
    pub(super) metrics: Page,
    pub(super) calls: Vec<ToldCall>,
    /// At every user-service.
    pub(super) arrivals: Vec<Arrival>,
    /// Whether a client that isn't counted asks user-service, too.
    pub(super) others: bool,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    pub(crate) calls: u64,
    /// Those of the calls that nobody waited for.
    pub(crate) dropped: u64,
    pub(crate) attempts: u64,
    /// Those that a user-service took up.
    pub(crate) arrived: u64,
    /// The others, by what they came to.
    pub(crate) never_came: BTreeMap<String, u64>,
    /// Requests of a client that isn't counted: that of the copy of users.
    pub(crate) of_others: u64,
    /// What one says and another doesn't.
    pub(crate) differences: Vec<String>,
}

impl Counted {
    pub(crate) fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    /// In words.
    pub(crate) fn figures(&self) -> String {
        let Self { calls, dropped, attempts, arrived, never_came, of_others, differences } = self;
        let mut text = format!("{calls} calls, {attempts} attempts, {arrived} of them in user-service's log");
        if !never_came.is_empty() {
            let each: Vec<_> = never_came.iter().map(|(end, count)| format!("{count} {end}")).collect();
            let _ = write!(text, "; never taken up: {}", each.join(", "));
        }
        if *dropped > 0 {
            let _ = write!(text, "; {dropped} calls without a report");
        }
        if *of_others > 0 {
            let _ = write!(text, "; {of_others} requests of the copy's own client");
        }
        if !differences.is_empty() {
            let named: Vec<_> = differences.iter().take(MOST_NAMED).map(String::as_str).collect();
            let _ = write!(text, "; {} differ: {}", differences.len(), named.join("; "));
        }
        text
    }

    pub(super) fn of(evidence: &Evidence) -> Self {
        let Evidence { metrics, calls, .. } = evidence;
        let all = |of: &dyn Fn(&ToldCall) -> Vec<String>| count(calls.iter().flat_map(of));
        let mut this = Self {
            calls: metrics.sum("resilient_client_call_duration_seconds_count"),
            dropped: calls.iter().filter(|call| call.by == By::Events).count() as u64,
            attempts: metrics.sum("resilient_client_attempts_total"),
            ..Self::default()
        };
        if this.calls == 0 {
            this.differences.push("/metrics has no call".to_owned());
        }
        this.same(
            "calls that ended with",
            &metrics.by("resilient_client_call_duration_seconds_count", &[STATUS, ERROR]),
            &all(&|call| vec![call.end.clone()]),
        );
        this.same(
            "attempts for reason",
            &metrics.by("resilient_client_attempts_total", &["trigger"]),
            &all(&|call| call.attempts.iter().map(|attempt| attempt.trigger.clone()).collect()),
        );
        this.same(
            "retries declined for",
            &metrics.by("resilient_client_retries_declined_total", &["reason"]),
            &all(&|call| call.declined.clone()),
        );
        this.statuses(evidence);
        this.arrivals(evidence);
        this
    }

    fn same(&mut self, what: &str, counters: &Counts, reports: &Counts) {
        let keys: BTreeSet<_> = counters.keys().chain(reports.keys()).collect();
        for key in keys {
            let of = |counts: &Counts| counts.get(key).copied().unwrap_or_default();
            let (counters, reports) = (of(counters), of(reports));
            if counters != reports {
                self.differences.push(format!("{what} {key}: {counters} on /metrics, {reports} in reports"));
            }
        }
    }

    /// By status: what is still being read, a stream say, has its status in its report and isn't
    /// finished on `/metrics`, which has it as active.
    fn statuses(&mut self, evidence: &Evidence) {
        let Evidence { metrics, calls, .. } = evidence;
        let finished = metrics.by("http_client_request_duration_seconds_count", &[STATUS]);
        let active = metrics.sum("http_client_active_requests");
        let attempts = calls.iter().flat_map(|call| &call.attempts);
        let reported = count(attempts.filter_map(|attempt| attempt.status).map(|status| status.to_string()));
        let mut unread = 0;
        // What has no status is under nothing.
        let statuses = finished.keys().filter(|status| !status.is_empty()).chain(reported.keys());
        for status in statuses.collect::<BTreeSet<_>>() {
            let of = |counts: &Counts| counts.get(status).copied().unwrap_or_default();
            let (finished, count) = (of(&finished), of(&reported));
            if finished > count {
                let told = format!("status {status}: {finished} on /metrics, {count} in reports");
                self.differences.push(told);
            }
            unread += count.saturating_sub(finished);
        }
        let ended: u64 = finished.values().sum();
        if ended + active != self.attempts || unread > active {
            let attempts = self.attempts;
            let told = format!(
                "attempts: {attempts} sent, {ended} ended, {active} active, {unread} answered and not ended"
            );
            self.differences.push(told);
        }
    }

    /// Attempt by attempt: what came was sent, what was answered came, and each once.
    fn arrivals(&mut self, evidence: &Evidence) {
        let (mut came, mut answered) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u16>::new());
        for Arrival { attempt, answered: status } in &evidence.arrivals {
            match status {
                None if attempt.is_empty() => self.of_others += 1,
                None => *came.entry(attempt).or_default() += 1,
                Some(status) => _ = answered.insert(attempt, *status),
            }
        }
        if self.of_others > 0 && !evidence.others {
            self.differences.push(format!("{} requests are nobody's", self.of_others));
        }
        self.arrived = came.values().sum();
        let attempts = evidence.calls.iter().flat_map(|call| {
            let name = |number: u32| format!("{}-{number}", call.call);
            call.attempts.iter().map(move |attempt| (name(attempt.number), attempt))
        });
        let mut sent = BTreeSet::new();
        for (name, attempt) in attempts {
            match (came.get(&*name), attempt.status) {
                (None, Some(status)) => {
                    self.differences.push(format!("{name} was answered {status} and never came"));
                }
                (None, None) => {
                    let end = attempt.came_to.as_deref().unwrap_or("overtaken");
                    *self.never_came.entry(end.to_owned()).or_default() += 1;
                }
                (Some(1), Some(status)) if answered.get(&*name) != Some(&status) => {
                    let theirs = answered.get(&*name);
                    self.differences.push(format!("{name} was answered {status}, and {theirs:?} there"));
                }
                (Some(1), _) => {}
                (Some(times), _) => self.differences.push(format!("{name} came {times} times")),
            }
            if !sent.insert(name.clone()) {
                self.differences.push(format!("{name} is in two reports"));
            }
        }
        for name in came.keys().filter(|name| !sent.contains(**name)) {
            self.differences.push(format!("{name} came and is in no report"));
        }
        let never: u64 = self.never_came.values().sum();
        if self.arrived + never != self.attempts {
            let (attempts, arrived) = (self.attempts, self.arrived);
            let told = format!("{attempts} attempts on /metrics, {arrived} came and {never} never did");
            self.differences.push(told);
        }
    }
}

fn count(keys: impl Iterator<Item = String>) -> Counts {
    let mut counts = Counts::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

#[cfg(test)]
#[path = "compare/tests.rs"]
mod tests;
