//! What the events of a run come to: every beginning has one end.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Mutex;

use resilient_client::Rejection;
use resilient_client::Trigger;
use resilient_client::event::CallId;
use resilient_client::event::{Event, Observer};
use resilient_client::outcome::Outcome;

/// How often each began and ended.
type Pairs<K> = HashMap<K, (u32, u32)>;

#[derive(Default)]
struct Counts {
    calls: Pairs<CallId>,
    attempts: Pairs<(CallId, u32)>,
    waits: Pairs<(CallId, u32)>,
    hedges: Pairs<(CallId, u32)>,
    /// Whose first attempt has succeeded, lately.
    at_once: HashMap<String, HashSet<CallId>>,
    /// Attempts beyond the first, lately.
    extra: HashMap<String, u32>,
    /// Upstreams made, lately: with a place and without.
    made: (u32, u32),
    seen: HashMap<&'static str, u32>,
}

/// Listens to a run.
#[derive(Default)]
pub(super) struct Observed(Mutex<Counts>);

fn begin<K: Hash + Eq>(pairs: &mut Pairs<K>, key: K) {
    pairs.entry(key).or_default().0 += 1;
}

fn end<K: Hash + Eq>(pairs: &mut Pairs<K>, key: K) {
    pairs.entry(key).or_default().1 += 1;
}

fn odd<K: Debug>(what: &str, pairs: &Pairs<K>, faults: &mut Vec<String>) {
    let odd: Vec<_> = pairs.iter().filter(|(_, counts)| **counts != (1, 1)).collect();
    if let Some((key, counts)) = odd.first() {
        let (began, ended) = counts;
        faults
            .push(format!("{} {what}, {key:?} among them, began {began} and ended {ended} times", odd.len()));
    }
}

fn refused(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::CircuitOpen { .. } => "refused: circuit open",
        Rejection::BulkheadFull { .. } => "refused: bulkhead full",
        Rejection::QueueWait { displaced: false, .. } => "refused: queue wait",
        Rejection::QueueWait { displaced: true, .. } => "refused: displaced",
        Rejection::Overloaded { .. } => "refused: overloaded",
        Rejection::Silent => "refused: silent",
        Rejection::RateLimited { .. } => "refused: rate",
        Rejection::Throttled { .. } => "refused: throttled",
        Rejection::NoEndpoint => "refused: no endpoint",
        Rejection::HeldBack { .. } => "refused: held back",
        other => unreachable!("{other:?} isn't counted"),
    }
}

impl Observed {
    /// What is counted lately is counted from now on.
    pub(super) fn anew(&self) {
        let mut counts = self.0.lock().unwrap();
        (counts.at_once, counts.extra, counts.made) = Default::default();
    }

    /// Attempts beyond the first, and first ones that succeeded, lately.
    pub(super) fn spent_and_earned(&self, upstream: &str) -> (u32, usize) {
        let counts = self.0.lock().unwrap();
        let earned = counts.at_once.get(upstream).map_or(0, HashSet::len);
        (counts.extra.get(upstream).copied().unwrap_or(0), earned)
    }

    /// Upstreams made lately, with a place and without.
    pub(super) fn made(&self) -> (u32, u32) {
        self.0.lock().unwrap().made
    }

    pub(super) fn summary(&self) -> String {
        let counts = self.0.lock().unwrap();
        let mut seen: Vec<_> = counts.seen.iter().collect();
        seen.sort();
        let seen: Vec<_> = seen.iter().map(|(what, times)| format!("{what} {times}")).collect();
        format!("{} calls, {} attempts, {}", counts.calls.len(), counts.attempts.len(), seen.join(", "))
    }

    /// What didn't begin and end once.
    pub(super) fn faults(&self) -> Vec<String> {
        let (counts, mut faults) = (self.0.lock().unwrap(), Vec::new());
        odd("calls", &counts.calls, &mut faults);
        odd("attempts", &counts.attempts, &mut faults);
        // A number that was refused is given to the next attempt, which may have to wait as well.
        let waits = counts.waits.iter().find(|(_, (began, ended))| began != ended);
        faults.extend(waits.map(|wait| format!("a wait to be let in didn't end once: {wait:?}")));
        odd("hedges", &counts.hedges, &mut faults);
        faults
    }
}

impl Observer for Observed {
    fn event(&self, upstream: &str, event: &Event) {
        let mut counts = self.0.lock().unwrap();
        let counts = &mut *counts;
        let seen = match *event {
            Event::CallStarted { call, .. } => return begin(&mut counts.calls, call),
            Event::CallFinished { call, .. } => return end(&mut counts.calls, call),
            Event::AttemptQueued { call, number, .. } => {
                begin(&mut counts.waits, (call, number));
                "queued"
            }
            Event::AttemptDequeued { call, number, .. } => return end(&mut counts.waits, (call, number)),
            Event::AttemptStarted { call, number, trigger, .. } => {
                begin(&mut counts.attempts, (call, number));
                if trigger == Trigger::Hedge {
                    begin(&mut counts.hedges, (call, number));
                }
                if number > 1 {
                    *counts.extra.entry(upstream.to_owned()).or_default() += 1;
                }
                match trigger {
                    Trigger::First => "first",
                    Trigger::Retry => "retry",
                    Trigger::Hedge => "hedge",
                    other => unreachable!("{other:?} isn't counted"),
                }
            }
            Event::AttemptHead { call, number: 1, .. } => {
                counts.at_once.entry(upstream.to_owned()).or_default().insert(call);
                return;
            }
            Event::AttemptFinished { call, number, outcome, .. } => {
                end(&mut counts.attempts, (call, number));
                if number == 1 && outcome == Outcome::Success {
                    counts.at_once.entry(upstream.to_owned()).or_default().insert(call);
                }
                outcome.as_str()
            }
            Event::HedgeEnded { end: resilient_client::event::HedgeEnd::Rejected, .. } => "hedge rejected",
            Event::HedgeEnded { call, number, .. } => return end(&mut counts.hedges, (call, number)),
            Event::Rejected { rejection, .. } => refused(rejection),
            Event::BreakerTransition(transition) => transition.to.as_str(),
            Event::UpstreamMade { kept, .. } => {
                *if kept { &mut counts.made.0 } else { &mut counts.made.1 } += 1;
                if kept { "made" } else { "made without a place" }
            }
            Event::UpstreamForgotten { .. } => "forgotten",
            Event::HeldBack { .. } => "held back",
            Event::LimitChanged { .. } => "limit changed",
            Event::OverloadLimit { limit: Some(_), .. } => "overload limit",
            Event::OverloadLimit { limit: None, .. } => "overload limit ended",
            _ => return,
        };
        *counts.seen.entry(seen).or_default() += 1;
    }
}
