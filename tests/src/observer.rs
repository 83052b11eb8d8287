//! An observer that remembers what it heard.

use resilient_client::event::{Event, Observer};
use resilient_client::outcome::Outcome;
use resilient_client::policy::breaker::State;

use crate::Watched;

/// Every event of a client, with its upstream. A clone hears and remembers the same.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    events: Watched<Vec<(String, Event)>>,
    /// The upstream to speak of; every one if `None`.
    of: Option<String>,
}

impl Observer for Heard {
    fn event(&self, upstream: &str, event: &Event) {
        self.events.change(|events| events.push((upstream.to_owned(), event.clone())));
    }
}

impl Heard {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same memory, speaking of one upstream only.
    #[must_use]
    pub fn of(&self, upstream: &str) -> Self {
        Self { of: Some(upstream.to_owned()), ..self.clone() }
    }

    /// How many attempts were handed to the transport.
    pub fn attempts(&self) -> usize {
        self.count(|event| matches!(event, Event::AttemptStarted { .. }))
    }

    /// What the attempts that ended came to, in the order they ended.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.events.read(|events| self.mine(events).filter_map(outcome).collect())
    }

    /// How many attempts came to `what`.
    pub fn ended_as(&self, what: Outcome) -> usize {
        self.count(|event| outcome(event) == Some(what))
    }

    /// How many events satisfy `which`.
    pub fn count(&self, mut which: impl FnMut(&Event) -> bool) -> usize {
        self.events.read(|events| self.mine(events).filter(|event| which(event)).count())
    }

    /// What `find` finds in each event, in their order.
    pub fn find<T>(&self, find: impl FnMut(&Event) -> Option<T>) -> Vec<T> {
        self.events.read(|events| self.mine(events).filter_map(find).collect())
    }

    /// Waits until every attempt that was sent has ended.
    pub async fn until_all_ended(&self) {
        self.events
            .until(|events| {
                let count =
                    |which: fn(&Event) -> bool| self.mine(events).filter(|event| which(event)).count();
                count(|event| matches!(event, Event::AttemptStarted { .. }))
                    == count(|event| outcome(event).is_some())
            })
            .await;
    }

    /// Everything heard, printed: what a careless observer could write to a log.
    pub fn printed(&self) -> String {
        self.events.read(|events| format!("{events:?}\n{events:#?}"))
    }

    /// Waits until a breaker has changed to `state`, this often in all.
    pub async fn until_breaker_is(&self, state: State, times: usize) {
        let changed = |event: &Event| matches!(event, Event::BreakerTransition(change) if change.to == state);
        self.events.until(|events| self.mine(events).filter(|event| changed(event)).count() >= times).await;
    }

    fn mine<'a>(&'a self, events: &'a [(String, Event)]) -> impl Iterator<Item = &'a Event> {
        let mine = |upstream: &str| self.of.as_deref().is_none_or(|of| of == upstream);
        events.iter().filter(move |(upstream, _)| mine(upstream)).map(|(_, event)| event)
    }
}

fn outcome(event: &Event) -> Option<Outcome> {
    match event {
        Event::AttemptFinished { outcome, .. } => Some(*outcome),
        _ => None,
    }
}
