//! Who hears of what: kinds of events, observers of one upstream, and observers that come later.

use std::sync::OnceLock;

use http::StatusCode;

use super::script::{Step, answer, ms};
use super::*;
use crate::event::{CallEnd, Counts, EventKinds, KnownMethod, UpstreamIdentity};
use crate::outcome::Outcome;
use crate::outcome::report::Trigger;

/// Hears of some kinds, at each upstream by one of its own.
#[derive(Clone)]
struct Picky {
    wants: EventKinds,
    asked: Arc<Mutex<Vec<String>>>,
    heard: Arc<Mutex<Vec<String>>>,
    whose: Option<String>,
}

impl Picky {
    fn new(wants: EventKinds) -> Self {
        Self { wants, asked: Arc::default(), heard: Arc::default(), whose: None }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

impl Observer for Picky {
    fn event(&self, _: &str, event: &Event) {
        let whose = self.whose.as_deref().unwrap_or("nobody");
        self.heard.lock().unwrap().push(format!("{whose}: {:?}", event.kind()));
    }

    fn interest(&self) -> EventKinds {
        self.wants
    }

    fn of_upstream(&self, upstream: &UpstreamIdentity) -> Option<Arc<dyn Observer>> {
        self.asked.lock().unwrap().push(upstream.host().to_owned());
        Some(Arc::new(Self { whose: Some(upstream.host().to_owned()), ..self.clone() }))
    }
}

fn observed_by(observers: Vec<Arc<dyn Observer>>, steps: impl IntoIterator<Item = Step>) -> Rig {
    let script = Script::new(steps);
    let core = Arc::new(Core::new(Setup { observers, ..Setup::default() }).unwrap());
    let service = ResilienceLayer::of(Arc::clone(&core)).layer(script.clone());
    Rig { script, service, core, events: Arc::default() }
}

#[tokio::test(start_paused = true)]
async fn an_observer_hears_of_the_kinds_it_wants_and_of_no_other() {
    let wants = EventKinds::ATTEMPT_FINISHED | EventKinds::RETRY_SCHEDULED | EventKinds::UPSTREAM_MADE;
    let (picky, nothing) = (Picky::new(wants), Picky::new(EventKinds::NONE));
    let all = Picky::new(EventKinds::ALL);
    let observers: Vec<Arc<dyn Observer>> =
        vec![Arc::new(picky.clone()), Arc::new(nothing.clone()), Arc::new(all.clone())];
    let rig = observed_by(observers, [answer(503), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    let expected = [
        "users: {UpstreamMade}",
        "users: {AttemptFinished}",
        "users: {RetryScheduled}",
        "users: {AttemptFinished}",
    ];
    assert_eq!(picky.take(), expected);
    assert_eq!(nothing.take(), [""; 0]);
    assert_eq!(all.take().len(), 9, "what happened in all");
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_told_to_the_clients_observers_and_to_none_of_an_upstream() {
    let picky = Picky::new(EventKinds::RELOADED);
    let rig = observed_by(vec![Arc::new(picky.clone())], [answer(200)]);
    rig.get().await.unwrap();
    rig.core.reload(Policy::none().into()).unwrap();
    assert_eq!(picky.take(), ["nobody: {Reloaded}"]);
}

#[tokio::test(start_paused = true)]
async fn one_who_comes_later_has_one_of_its_own_for_an_upstream_already_met() {
    for others in [false, true] {
        let other: Arc<dyn Observer> = Arc::new(Picky::new(EventKinds::ALL));
        let rig = observed_by(others.then_some(other).into_iter().collect(), [answer(200), answer(200)]);
        rig.get().await.unwrap();
        let late = Picky::new(EventKinds::CALL_FINISHED);
        let observer: Arc<dyn Observer> = Arc::new(late.clone());
        rig.core.observe(&observer);
        rig.get().await.unwrap();
        rig.get().await.unwrap();
        assert_eq!(late.take(), ["users: {CallFinished}"; 2]);
        assert_eq!(*late.asked.lock().unwrap(), ["users"], "once");
    }
}

/// Who counted attempts in flight was one below for ever: it was told of the end alone.
#[tokio::test(start_paused = true)]
async fn one_who_comes_in_the_middle_of_a_call_hears_of_those_that_begin_later() {
    let first = Picky::new(EventKinds::ALL);
    let slow = Step::Answer { after: ms(40), status: 200, retry_after: None, body: Vec::new() };
    let rig = observed_by(vec![Arc::new(first.clone())], [slow, answer(200)]);
    let call = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
    tokio::time::sleep(ms(10)).await;
    let late = Picky::new(EventKinds::ATTEMPT_STARTED | EventKinds::ATTEMPT_FINISHED);
    let observer: Arc<dyn Observer> = Arc::new(late.clone());
    rig.core.observe(&observer);
    drop(call.await.unwrap().unwrap());
    assert_eq!(late.take(), [""; 0]);
    assert!(first.take().contains(&"users: {AttemptFinished}".to_owned()));
    drop(rig.get().await.unwrap());
    assert_eq!(late.take(), ["users: {AttemptStarted}", "users: {AttemptFinished}"]);
}

/// An observer that reloaded, or looked at the client, when it was asked for its own waited for
/// itself: the registry was locked.
#[tokio::test(start_paused = true)]
async fn an_observer_is_asked_for_its_own_while_no_lock_is_held() {
    struct Reloads(Arc<OnceLock<Arc<Core>>>);
    impl Observer for Reloads {
        fn event(&self, _: &str, _: &Event) {}
        fn of_upstream(&self, _: &UpstreamIdentity) -> Option<Arc<dyn Observer>> {
            let core = self.0.get().expect("asked for an upstream that is met");
            core.reload(Policy::standard().into()).unwrap();
            assert_eq!(core.snapshot().len(), 1, "it is there");
            Some(Arc::new(Picky::new(EventKinds::ALL)))
        }
    }
    let core = Arc::new(OnceLock::new());
    let rig = observed_by(vec![Arc::new(Reloads(Arc::clone(&core)))], [answer(200)]);
    core.set(Arc::clone(&rig.core)).ok().unwrap();
    assert_eq!(rig.get().await.unwrap().status(), 200);
}

/// Meters as they come and go don't cost the others what they hear.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_when_it_is_asked_hears_for_itself() {
    struct Panics(Arc<Mutex<u32>>);
    impl Observer for Panics {
        fn event(&self, _: &str, _: &Event) {
            *self.0.lock().unwrap() += 1;
        }
        fn interest(&self) -> EventKinds {
            std::panic::resume_unwind(Box::new("interest"))
        }
        fn of_upstream(&self, _: &UpstreamIdentity) -> Option<Arc<dyn Observer>> {
            std::panic::resume_unwind(Box::new("of_upstream"))
        }
    }
    let heard = Arc::<Mutex<u32>>::default();
    let rig = observed_by(vec![Arc::new(Panics(Arc::clone(&heard)))], [answer(200)]);
    rig.get().await.unwrap();
    assert!(*heard.lock().unwrap() >= 5, "all there is");
}

/// Counts, and notes whether it was told in values or by events.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<Vec<String>>>);

impl Tally {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observer for Tally {
    fn interest(&self) -> EventKinds {
        EventKinds::IN_VALUES | EventKinds::RETRY_SCHEDULED
    }

    fn event(&self, _: &str, event: &Event) {
        match *event {
            Event::AttemptStarted { method, trigger, .. } => self.attempt_started(method, trigger),
            Event::AttemptFinished { method, duration, outcome, status, .. } => {
                self.attempt_finished(method, crate::time::nanos(duration), outcome, status);
            }
            Event::CallFinished { method, duration, end, .. } => {
                self.call_finished(method, crate::time::nanos(duration), end);
            }
            ref other => return self.note(format!("event {:?}", other.kind())),
        }
        let last = self.0.lock().unwrap().pop().unwrap();
        self.note(format!("event {last}"));
    }

    fn counts(self: Arc<Self>) -> Option<Arc<dyn Counts>> {
        Some(self)
    }
}

impl Counts for Tally {
    fn attempt_started(&self, method: KnownMethod, trigger: Trigger) {
        self.note(format!("{} {trigger}", method.as_str()));
    }

    fn attempt_finished(
        &self,
        method: KnownMethod,
        nanos: u64,
        outcome: Outcome,
        status: Option<StatusCode>,
    ) {
        let status = status.map_or(0, |status| status.as_u16());
        assert!(nanos < 1_000_000_000, "{nanos} of a call that takes no time");
        self.note(format!("{} {outcome} {status}", method.as_str()));
    }

    fn event_lost(&self) {
        self.note("lost".to_owned());
    }

    fn call_finished(&self, method: KnownMethod, nanos: u64, end: CallEnd) {
        assert!(nanos < 1_000_000_000, "{nanos} of a call that takes no time");
        self.note(format!("{} {end:?}", method.as_str()));
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_only_counts_is_told_in_values_and_by_events_where_somebody_else_wants_those() {
    let expected = [
        "GET first",
        "GET status 503",
        "event {RetryScheduled}",
        "GET retry",
        "GET Response(200)",
        "GET success 200",
    ];
    for (others, by_events) in [(EventKinds::NONE, 0), (EventKinds::CALL_FINISHED, 1), (EventKinds::ALL, 5)] {
        let (first, second) = (Tally::default(), Tally::default());
        let observers: Vec<Arc<dyn Observer>> =
            vec![Arc::new(first.clone()), Arc::new(Picky::new(others)), Arc::new(second.clone())];
        let rig = observed_by(observers, [answer(503), answer(200)]);
        drop(rig.get().await.unwrap());
        let told = first.take();
        assert_eq!(second.take(), told, "each is told all of it");
        let events = told.iter().filter(|it| it.starts_with("event GET")).count();
        assert_eq!(events, by_events, "{told:?}");
        let told: Vec<_> = told.iter().map(|it| it.replace("event GET", "GET")).collect();
        assert_eq!(told, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_only_counts_and_came_in_the_middle_of_a_call_is_told_of_those_that_begin_later() {
    let slow = Step::Answer { after: ms(40), status: 200, retry_after: None, body: Vec::new() };
    let first = Tally::default();
    let rig = observed_by(vec![Arc::new(first.clone())], [slow, answer(200)]);
    let call = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
    tokio::time::sleep(ms(10)).await;
    let late = Tally::default();
    let observer: Arc<dyn Observer> = Arc::new(late.clone());
    rig.core.observe(&observer);
    drop(call.await.unwrap().unwrap());
    assert_eq!(late.take(), [""; 0]);
    assert_eq!(first.take().len(), 3);
    drop(rig.get().await.unwrap());
    assert_eq!(late.take(), ["GET first", "GET Response(200)", "GET success 200"]);
}

/// It was caught, and nobody knew that something else went without its events.
#[tokio::test(start_paused = true)]
async fn an_event_at_which_an_observer_panics_is_counted_as_lost() {
    let sick = |_: &str, event: &Event| {
        if matches!(event, Event::AttemptHead { .. }) {
            std::panic::resume_unwind(Box::new("sick"));
        }
    };
    let (tally, well) = (Tally::default(), Picky::new(EventKinds::ATTEMPT_HEAD));
    let rig =
        observed_by(vec![Arc::new(tally.clone()), Arc::new(sick), Arc::new(well.clone())], [answer(200)]);
    rig.get().await.unwrap();
    assert_eq!(tally.take().iter().filter(|told| *told == "lost").count(), 1);
    assert_eq!(well.take(), ["users: {AttemptHead}"], "the others hear it");
}
