//! Who hears of what happens at one upstream: the client's observers, or whoever stands there in
//! their place.
//!
//! Observers only ever come, so those known are a chain that grows at its end: reading it takes no
//! lock and counts no reference. Who came since it was read last is asked for his own, outside every
//! lock, before the next event that he is to hear.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::event::{Event, EventKinds, Observer, UpstreamIdentity};

/// All of one client's.
#[derive(Default)]
pub(super) struct Observers {
    /// How many there are: what every call reads.
    count: AtomicU32,
    all: ArcSwap<Vec<Arc<dyn Observer>>>,
}

impl Observers {
    pub(super) fn new(all: Vec<Arc<dyn Observer>>) -> Self {
        Self { count: AtomicU32::new(all.len() as u32), all: ArcSwap::from_pointee(all) }
    }

    /// One more.
    pub(super) fn add(&self, observer: &Arc<dyn Observer>) {
        self.all.rcu(|all| all.iter().chain([observer]).cloned().collect::<Vec<_>>());
        // Counted when it can be found.
        self.count.fetch_add(1, Ordering::Release);
    }

    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Those of one upstream. See the [module docs](self).
#[derive(Default)]
pub(super) struct Listeners {
    /// Whom they are asked about; `None` when every observer hears for itself.
    upstream: Option<UpstreamIdentity>,
    /// How many observers are in the chain, in the upper half, and what they want, in the lower.
    summary: AtomicU64,
    first: OnceLock<Box<Link>>,
}

/// Those that were new at one time.
struct Link {
    listeners: Box<[Listener]>,
    next: OnceLock<Box<Self>>,
}

struct Listener {
    observer: Arc<dyn Observer>,
    wants: EventKinds,
}

/// How many observers hear of a call, the first so many.
pub(super) type Few = u8;
/// All that there are.
pub(super) const EVERYBODY: Few = Few::MAX;

impl Listeners {
    pub(super) fn of(upstream: UpstreamIdentity) -> Self {
        Self { upstream: Some(upstream), ..Self::default() }
    }

    /// What those who are known want.
    #[inline]
    pub(super) fn want(&self) -> EventKinds {
        EventKinds::of_bits(self.summary.load(Ordering::Relaxed) as u32)
    }

    /// How many are known, once all have been asked who are there.
    #[inline]
    pub(super) fn known(&self, observers: &Observers) -> u32 {
        let known = (self.summary.load(Ordering::Relaxed) >> 32) as u32;
        if known == observers.count() { known } else { self.ask(observers) }
    }

    /// Asks those that are new.
    #[cold]
    fn ask(&self, observers: &Observers) -> u32 {
        loop {
            let (mut known, mut wants, mut end) = (0, EventKinds::NONE, &self.first);
            while let Some(link) = end.get() {
                known += link.listeners.len();
                wants = link.listeners.iter().fold(wants, |wants, listener| wants.and(listener.wants));
                end = &link.next;
            }
            // Of two that tell, the one who knows of more has the last word.
            let summary = ((known as u64) << 32) | u64::from(wants.bits());
            self.summary.fetch_max(summary, Ordering::Relaxed);
            let all = observers.all.load_full();
            let Some(new) = all.get(known..).filter(|new| !new.is_empty()) else { return known as u32 };
            let listeners = new.iter().map(|observer| self.listener(observer)).collect();
            // Whoever was quicker has asked them, too.
            let _ = end.set(Box::new(Link { listeners, next: OnceLock::new() }));
        }
    }

    fn listener(&self, observer: &Arc<dyn Observer>) -> Listener {
        let own = self.upstream.as_ref().and_then(|upstream| {
            catch_unwind(AssertUnwindSafe(|| observer.of_upstream(upstream))).ok().flatten()
        });
        let observer = own.unwrap_or_else(|| Arc::clone(observer));
        let wants = catch_unwind(AssertUnwindSafe(|| observer.interest()));
        Listener { wants: wants.unwrap_or(EventKinds::ALL), observer }
    }

    /// Tells the first so many of an event of this kind.
    #[inline]
    pub(super) fn tell(&self, upstream: &str, kind: EventKinds, event: &Event, most: Few) {
        debug_assert_eq!(kind, event.kind());
        let mut left = if most == EVERYBODY { usize::MAX } else { most.into() };
        let mut next = self.first.get();
        while let Some(link) = next {
            for listener in &link.listeners {
                if left == 0 {
                    return;
                }
                left -= 1;
                if listener.wants.has_any(kind) {
                    let _ = catch_unwind(AssertUnwindSafe(|| listener.observer.event(upstream, event)));
                }
            }
            next = link.next.get();
        }
    }
}
