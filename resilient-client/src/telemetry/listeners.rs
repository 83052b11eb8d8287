//! Who hears of what happens at one upstream: the client's observers, or whoever stands there in
//! their place.
//!
//! Observers only ever come, so those known are a chain that grows at its end: reading it takes no
//! lock and counts no reference. Who came since it was read last is asked for its own, outside
//! every lock, before the next event that it is to hear.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::event::{Counts, Event, EventKinds, Observer, UpstreamIdentity};

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
    /// A [`Summary`] of the chain.
    summary: AtomicU64,
    first: OnceLock<Box<Link>>,
    /// The first of them that only counts: most often there is no other.
    counting: OnceLock<Counting>,
}

/// The one who only counts, where there is no other.
pub(crate) struct OnlyOne<'a> {
    counts: &'a dyn Counts,
    all: &'a Listeners,
}

impl OnlyOne<'_> {
    #[inline]
    pub(crate) fn tell(self, tell: impl FnOnce(&dyn Counts)) {
        if catch_unwind(AssertUnwindSafe(|| tell(self.counts))).is_err() {
            self.all.lost_one();
        }
    }
}

/// One who only counts, and how many are in the chain before it.
struct Counting {
    counts: Arc<dyn Counts>,
    behind: Few,
}

/// Those that were new at one time.
struct Link {
    listeners: Box<[Listener]>,
    next: OnceLock<Box<Self>>,
}

struct Listener {
    observer: Arc<dyn Observer>,
    wants: EventKinds,
    /// The same observer, if it only counts.
    counts: Option<Arc<dyn Counts>>,
}

impl Listener {
    /// What it must have as events.
    fn wants_as_events(&self) -> EventKinds {
        if self.counts.is_some() { self.wants.without(EventKinds::IN_VALUES) } else { self.wants }
    }
}

/// What is asked of a chain with every event, in one number: in its lowest 32 bits what those in it
/// want, above that what of [`EventKinds::IN_VALUES`] they want as events and whether several only
/// count, and highest how many they are.
#[derive(Clone, Copy)]
pub(super) struct Summary(u64);

impl Summary {
    const VALUES: u32 = EventKinds::IN_VALUES.bits();
    const KINDS: u32 = 32;
    const SEVERAL: u32 = Self::KINDS + u32::BITS - Self::VALUES.leading_zeros();
    const COUNT: u32 = Self::SEVERAL + 1;

    fn of(known: usize, wants: EventKinds, as_events: EventKinds, several: bool) -> Self {
        let as_events = u64::from(as_events.bits() & Self::VALUES);
        let above = ((known as u64) << Self::COUNT) | (u64::from(several) << Self::SEVERAL);
        Self(above | (as_events << Self::KINDS) | u64::from(wants.bits()))
    }

    #[inline]
    pub(super) fn known(self) -> u32 {
        (self.0 >> Self::COUNT) as u32
    }

    /// What somebody wants.
    #[inline]
    pub(super) const fn want(self) -> EventKinds {
        EventKinds::of_bits(self.0 as u32)
    }

    /// What of [`EventKinds::IN_VALUES`] somebody wants as an event.
    #[inline]
    pub(super) const fn as_events(self) -> EventKinds {
        EventKinds::of_bits((self.0 >> Self::KINDS) as u32 & Self::VALUES)
    }

    /// Whether more than one only counts.
    #[inline]
    const fn has_several(self) -> bool {
        self.0 & (1 << Self::SEVERAL) != 0
    }
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
    pub(super) fn summary(&self) -> Summary {
        Summary(self.summary.load(Ordering::Relaxed))
    }

    /// How many are known, once all have been asked who are there.
    #[inline]
    pub(super) fn known(&self, observers: &Observers) -> u32 {
        let known = self.summary().known();
        if known == observers.count() { known } else { self.ask(observers) }
    }

    /// Asks those that are new.
    #[cold]
    fn ask(&self, observers: &Observers) -> u32 {
        loop {
            let (mut known, mut wants, mut as_events) = (0, EventKinds::NONE, EventKinds::NONE);
            let (mut end, mut counting) = (&self.first, 0);
            while let Some(link) = end.get() {
                for listener in &link.listeners {
                    wants = wants.and(listener.wants);
                    as_events = as_events.and(listener.wants_as_events());
                    if let Some(counts) = &listener.counts {
                        let behind = Few::try_from(known).unwrap_or(EVERYBODY).min(EVERYBODY - 1);
                        self.counting.get_or_init(|| Counting { counts: Arc::clone(counts), behind });
                        counting += 1;
                    }
                    known += 1;
                }
                end = &link.next;
            }
            // Of two that tell, the one who knows of more has the last word.
            let summary = Summary::of(known, wants, as_events, counting > 1);
            self.summary.fetch_max(summary.0, Ordering::Relaxed);
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
        let wants = wants.unwrap_or(EventKinds::ALL);
        let counts = catch_unwind(AssertUnwindSafe(|| Arc::clone(&observer).counts())).ok().flatten();
        Listener { observer, wants, counts }
    }

    /// The one among the first so many who only counts, if there is one and no more.
    #[inline]
    pub(super) fn only_one(&self, summary: Summary, most: Few) -> Option<OnlyOne<'_>> {
        let one = self.counting.get()?;
        let only = !summary.has_several() && one.behind < most;
        only.then(|| OnlyOne { counts: &*one.counts, all: self })
    }

    /// Tells those of the first so many who only count, in values.
    pub(super) fn count(&self, most: Few, tell: impl Fn(&dyn Counts)) {
        let mut left = if most == EVERYBODY { usize::MAX } else { most.into() };
        let mut next = self.first.get();
        while let Some(link) = next {
            for listener in link.listeners.iter().take(left) {
                if let Some(counts) = &listener.counts
                    && catch_unwind(AssertUnwindSafe(|| tell(&**counts))).is_err()
                {
                    self.lost_one();
                }
            }
            left = left.saturating_sub(link.listeners.len());
            next = link.next.get();
        }
    }

    /// An observer has panicked: whoever counts is told, and if that one does as well, nobody.
    #[cold]
    fn lost_one(&self) {
        let mut next = self.first.get();
        while let Some(link) = next {
            for counts in link.listeners.iter().filter_map(|listener| listener.counts.as_ref()) {
                let _ = catch_unwind(AssertUnwindSafe(|| counts.event_lost()));
            }
            next = link.next.get();
        }
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
                if listener.wants.has_any(kind)
                    && catch_unwind(AssertUnwindSafe(|| listener.observer.event(upstream, event))).is_err()
                {
                    self.lost_one();
                }
            }
            next = link.next.get();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_gives_back_what_it_was_made_of() {
        let (all, none) = (EventKinds::ALL, EventKinds::NONE);
        for (known, several) in [(0, false), (1, false), (255, true), (1 << 20, true)] {
            for (wants, as_events) in [(none, none), (all, none), (all, all), (EventKinds::REJECTED, none)] {
                let summary = Summary::of(known, wants, as_events, several);
                assert_eq!((summary.known() as usize, summary.want()), (known, wants));
                assert_eq!(summary.has_several(), several);
                let in_values = EventKinds::IN_VALUES;
                assert_eq!(summary.as_events(), if as_events == all { in_values } else { none });
            }
        }
        assert!(
            Summary::of(1, all, all, true).0 < Summary::of(2, none, none, false).0,
            "who knows more is more"
        );
    }
}
