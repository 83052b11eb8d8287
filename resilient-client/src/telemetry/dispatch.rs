//! Sends events to observers and to the log, outside every lock.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use http::Method;

use super::listeners::{EVERYBODY, Few, Listeners, Observers, OnlyOne};
use super::{log, spans};
use crate::event::{Counts, Event, EventKinds, KnownMethod, Observer, UpstreamIdentity};

thread_local! {
    /// Whether events wait for locks to be released. Apart, because every event asks, and what is
    /// kept below has to be looked after until the thread ends.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    /// Those that wait.
    static HELD: RefCell<Vec<HeldEvent>> = const { RefCell::new(Vec::new()) };
}

struct HeldEvent {
    events: Events,
    upstream: String,
    event: Event,
    most: Few,
}

/// While it lives, events of this thread wait. Made before a lock is taken, it is dropped after the
/// lock: observers run outside every lock, and may do whatever a call may, reload policies among
/// it.
#[must_use]
pub(crate) struct Held {
    outermost: bool,
}

impl Held {
    pub(crate) fn begin() -> Self {
        // On a thread that ends none is held any more.
        let outermost = HELD.try_with(|_| ()).is_ok() && !HOLDS.replace(true);
        Self { outermost }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.outermost {
            return;
        }
        HOLDS.set(false);
        let held = HELD.try_with(RefCell::take).unwrap_or_default();
        for HeldEvent { events, upstream, event, most } in held {
            events.deliver(&upstream, event.kind(), &event, most);
        }
    }
}

/// That a call is heard, by whom, and the method that its events bear. Asked once, when it begins,
/// so that whoever hears of it hears all of it: one who counts what begins and ends must not be
/// told of ends alone. Two bytes, as every attempt is moved with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) method: KnownMethod,
    by: Few,
}

/// Where the engine sends events. Clones share their listeners.
#[derive(Clone, Default)]
pub(crate) struct Events {
    observers: Arc<Observers>,
    listeners: Arc<Listeners>,
}

impl Events {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        Self { observers: Arc::new(Observers::new(observers)), listeners: Arc::default() }
    }

    /// One more observer, who hears of the calls that begin from now on, and of what else happens.
    pub(crate) fn add(&self, observer: &Arc<dyn Observer>) {
        self.observers.add(observer);
    }

    /// The same for what happens at one upstream, of which some observers may have one of their
    /// own. Those are asked for later, when no lock is held.
    pub(crate) fn of(&self, upstream: UpstreamIdentity) -> Self {
        Self { observers: Arc::clone(&self.observers), listeners: Arc::new(Listeners::of(upstream)) }
    }

    /// Whether anybody hears of a call that begins, or looks at its spans.
    #[inline]
    pub(crate) fn heard(&self, method: &Method) -> Option<Heard> {
        if self.observers.count() == 0 && !spans::heard() { None } else { self.hearing(method) }
    }

    #[inline(never)]
    fn hearing(&self, method: &Method) -> Option<Heard> {
        let summary = self.listeners.summary();
        if summary.known() != self.observers.count() {
            return self.hearing_anew(method);
        }
        let heard = summary.want().has_any(EventKinds::OF_CALLS)
            || spans::heard()
            || log::written().has_any(EventKinds::OF_CALLS);
        let by = summary.known().min(EVERYBODY.into()) as Few;
        heard.then(|| Heard { method: KnownMethod::of(method), by })
    }

    /// Somebody is new.
    #[cold]
    fn hearing_anew(&self, method: &Method) -> Option<Heard> {
        let by = self.listeners.known(&self.observers).min(EVERYBODY.into()) as Few;
        let heard = spans::heard() || self.wants(EventKinds::OF_CALLS);
        heard.then(|| Heard { method: KnownMethod::of(method), by })
    }

    /// Whether somebody wants to hear of one of these kinds, or the log writes one.
    #[inline]
    pub(crate) fn wants(&self, kinds: EventKinds) -> bool {
        self.listeners.summary().want().has_any(kinds) || log::written().has_any(kinds)
    }

    /// Tells of something that happened to an upstream. Builds the event only when somebody
    /// listens.
    #[inline]
    pub(crate) fn emit(&self, upstream: &str, event: impl FnOnce() -> Event) {
        if self.observers.count() != 0 || log::heard() {
            self.tell(upstream, &event());
        }
    }

    #[cold]
    fn tell(&self, upstream: &str, event: &Event) {
        self.hand_on(upstream, event.kind(), event, EVERYBODY);
    }

    /// Tells of something that happened to a call that is heard. Builds the event only when
    /// somebody wants one of its `kind`.
    #[inline]
    pub(crate) fn emit_of_call(
        &self,
        heard: Heard,
        kind: EventKinds,
        upstream: &str,
        event: impl FnOnce() -> Event,
    ) {
        if self.wants(kind) {
            self.hand_on(upstream, kind, &event(), heard.by);
        }
    }

    /// The one to be told in values of something that happened to a call that is heard, where that
    /// is all there is to do; else it is [`count_of_call`](Self::count_of_call)'s.
    #[inline]
    pub(crate) fn only_counted(&self, heard: Heard, kind: EventKinds) -> Option<OnlyOne<'_>> {
        debug_assert!(EventKinds::IN_VALUES.contains(kind));
        let summary = self.listeners.summary();
        if summary.as_events().has_any(kind) || log::written().has_any(kind) || HOLDS.get() {
            return None;
        }
        self.listeners.only_one(summary, heard.by)
    }

    /// Tells of what every call tells: whoever only counts is told in values, by `count`. The event
    /// is built when somebody wants it as one, or when it has to wait.
    pub(crate) fn count_of_call(
        &self,
        heard: Heard,
        kind: EventKinds,
        upstream: &str,
        event: impl FnOnce() -> Event,
        count: impl Fn(&dyn Counts),
    ) {
        debug_assert!(EventKinds::IN_VALUES.contains(kind));
        let summary = self.listeners.summary();
        if summary.as_events().has_any(kind) || log::written().has_any(kind) || HOLDS.get() {
            self.emit_of_call(heard, kind, upstream, event);
        } else if summary.want().has_any(kind) {
            self.listeners.count(heard.by, count);
        }
    }

    #[inline(never)]
    fn hand_on(&self, upstream: &str, kind: EventKinds, event: &Event, most: Few) {
        if HOLDS.get() {
            self.hold(upstream, event, most);
        } else {
            self.deliver(upstream, kind, event, most);
        }
    }

    #[cold]
    fn hold(&self, upstream: &str, event: &Event, most: Few) {
        let held =
            HeldEvent { events: self.clone(), upstream: upstream.to_owned(), event: event.clone(), most };
        let _ = HELD.try_with(|all| all.borrow_mut().push(held));
    }

    #[inline]
    fn deliver(&self, upstream: &str, kind: EventKinds, event: &Event, most: Few) {
        if log::heard() {
            log::write(upstream, event);
        }
        if most == EVERYBODY {
            self.listeners.known(&self.observers);
        }
        self.listeners.tell(upstream, kind, event, most);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} observers)", self.observers.count())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// What a thread keeps to its end, a runtime say, may drop its calls then: it aborted the
    /// process.
    #[test]
    fn what_happens_as_a_thread_ends_is_told() {
        struct Late(Events);
        impl Drop for Late {
            fn drop(&mut self) {
                self.0.emit("users", || Event::LimitChanged { limit: 1 });
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Late>> = const { RefCell::new(None) };
        }
        let heard = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&heard);
        let observer = move |_: &str, _: &Event| _ = counted.fetch_add(1, Ordering::Relaxed);
        let events = Events::new(vec![Arc::new(observer)]);
        let thread = std::thread::spawn(move || {
            // Kept first, it goes last.
            LAST.set(Some(Late(events.clone())));
            events.emit("users", || Event::LimitChanged { limit: 2 });
        });
        thread.join().unwrap();
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
