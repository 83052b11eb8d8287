//! What a client has done of late, kept from its events: in bounded memory, by short locks of its
//! own.

pub(crate) mod calls;
pub(crate) mod recent;
pub(crate) mod seconds;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use http::StatusCode;

use crate::event::{CallEnd, Event, Observer};
use crate::outcome::Outcome;
use crate::outcome::report::Trigger;
use crate::policy::breaker::Transition;
use crate::policy::hedge::Digest;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::{self, Tick};

use self::calls::{Calls, Explained};
use self::recent::{Entry, Recent};
use self::seconds::Seconds;

/// The most names that are followed at a time, endpoints among them: about 6 kB each.
const MOST_NAMES: usize = 4096;
const SHARDS: usize = 16;
/// How many transitions and explained calls are kept of a name.
const TRANSITIONS: usize = 32;
const EXPLAINED: usize = 12;
/// How many of them may have ended the same way: in an outage thousands are refused alike, and what
/// began it would be gone.
const ALIKE: usize = 3;

/// What is known of one name: an upstream's, or an endpoint's.
#[derive(Debug)]
pub(crate) struct Seen {
    seconds: Mutex<Seconds>,
    /// How long calls take, to their response's head.
    pub(crate) latency: Digest,
    /// By what refused them.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    story: Mutex<Story>,
    /// When something happened last, as a `Tick`.
    last: AtomicU64,
}

/// What is told in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    /// When, in milliseconds since 1970, and what; oldest first.
    pub(crate) transitions: VecDeque<(u64, Transition)>,
    pub(crate) explained: VecDeque<(u64, Explained)>,
}

impl Story {
    fn explain(&mut self, call: Explained) {
        let alike = |(_, other): &&(u64, Explained)| other.end == call.end;
        if self.explained.iter().filter(alike).count() == ALIKE {
            let oldest = self.explained.iter().position(|other| alike(&other));
            oldest.and_then(|oldest| self.explained.remove(oldest));
        }
        keep(&mut self.explained, EXPLAINED, call);
    }
}

impl Seen {
    fn new(now: Tick) -> Self {
        Self {
            seconds: Mutex::new(Seconds::new(now)),
            latency: Digest::new(),
            refused: Mutex::new(BTreeMap::new()),
            story: Mutex::new(Story::default()),
            last: AtomicU64::new(now.as_nanos()),
        }
    }

    /// Reads the last two minutes.
    pub(crate) fn seconds<T>(&self, read: impl FnOnce(&Seconds) -> T) -> T {
        read(&self.seconds.lock())
    }

    /// How many attempts were refused since the start, by what refused them.
    pub(crate) fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }

    pub(crate) fn story(&self) -> Story {
        self.story.lock().clone()
    }

    fn hear(&self, event: &Event, now: Tick) {
        self.last.store(now.as_nanos(), Ordering::Relaxed);
        match event {
            Event::CallFinished { duration, end, .. } => {
                let verdict = verdict(*end);
                if matches!(verdict, Some(Ended::Succeeded | Ended::Failed)) {
                    self.latency.record(time::nanos(*duration), now);
                }
                let mut seconds = self.seconds.lock();
                let second = seconds.at(now);
                match verdict {
                    Some(Ended::Succeeded) => second.succeeded += 1,
                    Some(Ended::Failed) => second.failed += 1,
                    Some(Ended::Refused) => second.refused += 1,
                    None => {}
                }
            }
            Event::AttemptStarted { trigger, .. } => {
                let mut seconds = self.seconds.lock();
                let second = seconds.at(now);
                second.attempts += 1;
                second.retries += u32::from(*trigger == Trigger::Retry);
                second.hedges += u32::from(*trigger == Trigger::Hedge);
            }
            Event::AttemptFinished { outcome: Outcome::Failure(_) | Outcome::Throttled, .. } => {
                self.seconds.lock().at(now).failed_attempts += 1;
            }
            Event::Rejected { rejection, .. } => {
                *self.refused.lock().entry(rejection.as_str()).or_default() += 1;
            }
            Event::BreakerTransition(transition) => {
                keep(&mut self.story.lock().transitions, TRANSITIONS, *transition);
            }
            _ => {}
        }
    }
}

enum Ended {
    Succeeded,
    Failed,
    Refused,
}

/// What a call's end says; nothing if nobody waited for it.
fn verdict(end: CallEnd) -> Option<Ended> {
    match end {
        CallEnd::Response(status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Some(Ended::Failed)
        }
        CallEnd::FailedResponse(_, Outcome::Failure(_) | Outcome::Throttled) => Some(Ended::Failed),
        CallEnd::Response(_) | CallEnd::FailedResponse(..) => Some(Ended::Succeeded),
        CallEnd::Error(kind) if kind.is_rejected() => Some(Ended::Refused),
        CallEnd::Error(_) => Some(Ended::Failed),
        CallEnd::Dropped => None,
    }
}

fn keep<T>(all: &mut VecDeque<(u64, T)>, most: usize, one: T) {
    if all.len() == most {
        all.pop_front();
    }
    all.push_back((time::unix_millis(), one));
}

/// What one client has done.
#[derive(Debug)]
pub(crate) struct History {
    client: Arc<str>,
    names: [Mutex<HashMap<Arc<str>, Arc<Seen>>>; SHARDS],
    pub(crate) calls: Calls,
    recent: Arc<Mutex<Recent>>,
}

impl History {
    pub(crate) fn new(client: Arc<str>, recent: Arc<Mutex<Recent>>) -> Self {
        let names = std::array::from_fn(|_| Mutex::new(HashMap::new()));
        Self { client, names, calls: Calls::new(), recent }
    }

    /// What is known of a name; nothing where it did nothing, or made room for another.
    pub(crate) fn of(&self, name: &str) -> Option<Arc<Seen>> {
        self.shard(name).lock().get(name).cloned()
    }

    fn shard(&self, name: &str) -> &Mutex<HashMap<Arc<str>, Arc<Seen>>> {
        // FNV-1a: names that differ in their last letter, as those of replicas do, part.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        &self.names[(hash >> 32) as usize % SHARDS]
    }

    /// The same, made if it is new. Nobody says when an endpoint is gone, or an upstream that had
    /// no place: the longest unused makes room.
    fn seen(&self, name: &str, now: Tick) -> (Arc<str>, Arc<Seen>) {
        let mut shard = self.shard(name).lock();
        if let Some((name, seen)) = shard.get_key_value(name) {
            return (Arc::clone(name), Arc::clone(seen));
        }
        if shard.len() >= MOST_NAMES / SHARDS {
            let last = |(_, seen): &(&Arc<str>, &Arc<Seen>)| seen.last.load(Ordering::Relaxed);
            let unused = shard.iter().min_by_key(last).map(|(name, _)| Arc::clone(name));
            unused.and_then(|name| shard.remove(&name));
        }
        let (name, seen) = (Arc::<str>::from(name), Arc::new(Seen::new(now)));
        shard.insert(Arc::clone(&name), Arc::clone(&seen));
        (name, seen)
    }

    /// Notes what an operator did.
    pub(crate) fn note(&self, upstream: &str, kind: &'static str, text: String) {
        self.recent.lock().push(Entry {
            id: 0,
            at: time::unix_millis(),
            client: Arc::clone(&self.client),
            upstream: upstream.into(),
            kind,
            text,
        });
    }
}

impl Observer for History {
    fn event(&self, upstream: &str, event: &Event) {
        let now = time::now();
        if let Some((kind, text)) = told(event) {
            self.note(upstream, kind, text);
        }
        match event {
            Event::UpstreamForgotten { .. } => {
                self.shard(upstream).lock().remove(upstream);
                return;
            }
            // No upstream's.
            Event::Reloaded { .. } => return,
            _ => {}
        }
        let (name, seen) = self.seen(upstream, now);
        seen.hear(event, now);
        if let Some(explained) = self.calls.hear(&name, event, now) {
            seen.story.lock().explain(explained);
        }
    }
}

/// What is told of an event to who looks at the whole: what ails upstreams, and which policies they
/// are called by. That one is met or
/// forgotten would push this out where there are many.
fn told(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::BreakerTransition(Transition { from, to, cause, .. }) => {
            ("breaker", format!("{} to {}: {cause}", from.as_str(), to.as_str()))
        }
        Event::OverloadLimit { limit: Some(limit) } => {
            ("overload", format!("{limit} attempts in flight are all it can answer in time"))
        }
        Event::OverloadLimit { limit: None } => ("overload", "the overload limit ended".to_owned()),
        Event::Silence { silent: true, duration } => (
            "silence",
            format!("silent: nothing answered for {duration:.1?}, calls wait for it or go elsewhere"),
        ),
        Event::Silence { silent: false, duration } => {
            ("silence", format!("answers again after a silence of {duration:.1?}"))
        }
        Event::Reloaded { version, changes } => {
            ("policies", format!("version {version} is in force: {}", changes.join(", ")))
        }
        Event::HeldBack { duration } => ("held_back", format!("asked for a wait of {duration:.1?}")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::outcome::call_id::CallId;

    /// Names came and went, and in the end nobody was followed any more.
    #[test]
    fn the_longest_unused_name_makes_room_for_a_new_one() {
        let history = History::new("users".into(), Arc::new(Mutex::new(Recent::default())));
        let used = Tick::from_nanos(1_000_000_000);
        for number in 0..3 * MOST_NAMES as u64 {
            history.seen("http://users:3000", used).1.last.store(u64::MAX, Ordering::Relaxed);
            history.seen(&format!("http://10.0.0.1:{number}"), Tick::from_nanos(number));
        }
        let names: usize = history.names.iter().map(|shard| shard.lock().len()).sum();
        assert!(names <= MOST_NAMES, "{names}");
        assert!(history.of("http://users:3000").is_some(), "who is used stays");
        assert!(history.of(&format!("http://10.0.0.1:{}", 3 * MOST_NAMES - 1)).is_some());
    }

    #[test]
    fn a_thousand_refusals_leave_what_began_the_outage() {
        let mut story = Story::default();
        let mut explain = |end| story.explain(Explained { call: CallId::NONE, end, text: String::new() });
        let timeout = CallEnd::Error(ErrorKind::Timeout);
        explain(timeout);
        explain(CallEnd::Response(StatusCode::BAD_GATEWAY));
        for _ in 0..1000 {
            explain(CallEnd::Error(ErrorKind::CircuitOpen));
        }
        let ends: Vec<_> = story.explained.iter().map(|(_, call)| call.end).collect();
        assert_eq!((ends.len(), ends[0]), (2 + ALIKE, timeout));
    }
}
