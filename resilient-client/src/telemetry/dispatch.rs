//! Sends events to observers and to the log, outside every lock.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::log;
use crate::event::{Event, Observer, UpstreamIdentity};

thread_local! {
    /// Events that wait for locks to be released; `None` while none has to.
    static HELD: RefCell<Option<Vec<(Events, String, Event)>>> = const { RefCell::new(None) };
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
        let begin = |held: &RefCell<Option<_>>| {
            let mut held = held.borrow_mut();
            let outermost = held.is_none();
            held.get_or_insert_default();
            outermost
        };
        Self { outermost: HELD.try_with(begin).unwrap_or(false) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.outermost {
            return;
        }
        let held = HELD.try_with(RefCell::take).ok().flatten();
        for (events, upstream, event) in held.unwrap_or_default() {
            events.deliver(&upstream, &event);
        }
    }
}

/// One upstream's, in the place of the observer of all.
type OwnObserver = Option<Arc<dyn Observer>>;

/// Where the engine sends events. Clones share their observers.
#[derive(Clone, Default)]
pub(crate) struct Events {
    shared: Arc<Observers>,
    /// Who hears in an observer's place of what happens at one upstream, in the order of the
    /// observers.
    own: Option<Arc<[OwnObserver]>>,
}

#[derive(Default)]
struct Observers {
    /// Whether there is any: what every call reads.
    any: AtomicBool,
    all: ArcSwap<Vec<Arc<dyn Observer>>>,
}

impl Events {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        let any = AtomicBool::new(!observers.is_empty());
        Self { shared: Arc::new(Observers { any, all: ArcSwap::from_pointee(observers) }), own: None }
    }

    /// One more observer, who hears of what happens from now on.
    pub(crate) fn add(&self, observer: &Arc<dyn Observer>) {
        self.shared.all.rcu(|all| all.iter().chain([observer]).cloned().collect::<Vec<_>>());
        self.shared.any.store(true, Ordering::Relaxed);
    }

    /// The same for what happens at one upstream, of which some observers may have one of their
    /// own.
    pub(crate) fn of(&self, upstream: impl FnOnce() -> UpstreamIdentity) -> Self {
        let observers = self.shared.all.load();
        if observers.is_empty() {
            return self.clone();
        }
        let upstream = &upstream();
        let own = |observer: &Arc<dyn Observer>| {
            catch_unwind(AssertUnwindSafe(|| observer.of_upstream(upstream))).ok().flatten()
        };
        let own: Arc<[_]> = observers.iter().map(own).collect();
        let own = own.iter().any(Option::is_some).then_some(own);
        Self { shared: Arc::clone(&self.shared), own }
    }

    /// Builds the event only when somebody listens.
    #[inline]
    pub(crate) fn emit(&self, upstream: &str, event: impl FnOnce() -> Event) {
        if self.heard() {
            self.tell(upstream, event());
        }
    }

    /// Whether anybody listens.
    #[inline]
    pub(crate) fn heard(&self) -> bool {
        self.shared.any.load(Ordering::Relaxed) || log::heard()
    }

    #[cold]
    fn tell(&self, upstream: &str, event: Event) {
        let mut event = Some(event);
        // On a thread that ends none is held any more.
        let _ = HELD.try_with(|held| {
            if let Some(held) = &mut *held.borrow_mut()
                && let Some(event) = event.take()
            {
                held.push((self.clone(), upstream.to_owned(), event));
            }
        });
        if let Some(event) = event {
            self.deliver(upstream, &event);
        }
    }

    fn deliver(&self, upstream: &str, event: &Event) {
        log::write(upstream, event);
        let own = self.own.as_deref().unwrap_or_default();
        // Who comes later comes behind.
        for (index, observer) in self.shared.all.load().iter().enumerate() {
            let observer = own.get(index).and_then(Option::as_ref).unwrap_or(observer);
            let _ = catch_unwind(AssertUnwindSafe(|| observer.event(upstream, event)));
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} observers)", self.shared.all.load().len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

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
