//! Kinds of events, as a set: what an observer wants to hear of.

use std::fmt;
use std::ops::BitOr;

use super::Event;

/// A set of kinds of [events](Event): what an [observer](crate::Observer::interest) wants to hear
/// of.
///
/// ```
/// use resilient_client::event::EventKinds;
///
/// let ends = EventKinds::CALL_FINISHED | EventKinds::ATTEMPT_FINISHED;
/// assert!(ends.contains(EventKinds::CALL_FINISHED));
/// assert!(!ends.contains(EventKinds::ATTEMPT_HEAD));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventKinds(u32);

macro_rules! kinds {
    ($($bit:literal $name:ident $variant:ident;)*) => {
        impl EventKinds {
            $(
                #[doc = concat!("[`", stringify!($variant), "`](Event::", stringify!($variant), ").")]
                pub const $name: Self = Self(1 << $bit);
            )*

            const NAMES: &[(Self, &'static str)] = &[$((Self::$name, stringify!($variant))),*];
        }

        impl Event {
            /// Its kind: a set of one.
            #[inline]
            pub const fn kind(&self) -> EventKinds {
                match self {
                    $(Self::$variant { .. } => EventKinds::$name,)*
                }
            }
        }
    };
}

// In the order of the variants, so that a kind is a shift and no table.
kinds! {
    0 CALL_STARTED CallStarted;
    1 CALL_FINISHED CallFinished;
    2 ATTEMPT_QUEUED AttemptQueued;
    3 ATTEMPT_DEQUEUED AttemptDequeued;
    4 ATTEMPT_STARTED AttemptStarted;
    5 ATTEMPT_HEAD AttemptHead;
    6 ATTEMPT_FINISHED AttemptFinished;
    7 HEDGE_ENDED HedgeEnded;
    8 RETRY_SCHEDULED RetryScheduled;
    9 RETRY_DECLINED RetryDeclined;
    10 REJECTED Rejected;
    11 WOULD_REJECT WouldReject;
    12 BREAKER_TRANSITION BreakerTransition;
    13 LIMIT_CHANGED LimitChanged;
    14 OVERLOAD_LIMIT OverloadLimit;
    15 UPSTREAM_MADE UpstreamMade;
    16 UPSTREAM_FORGOTTEN UpstreamForgotten;
    17 HELD_BACK HeldBack;
    18 SILENCE Silence;
    19 RELOADED Reloaded;
}

impl EventKinds {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// Every kind, and those that later versions add.
    pub const ALL: Self = Self(u32::MAX);

    /// What happens to calls; all others happen to upstreams, or to
    /// the client.
    pub(crate) const OF_CALLS: Self = Self(Self::WOULD_REJECT.0 - 1);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `others` are among these.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether one of `others` is among these.
    #[inline]
    pub(crate) const fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Those that aren't among `others`.
    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn of_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl BitOr for EventKinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl fmt::Debug for EventKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("all");
        }
        let mut names = f.debug_set();
        for (_, name) in Self::NAMES.iter().filter(|(kind, _)| self.contains(*kind)) {
            names.entry(&format_args!("{name}"));
        }
        names.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_one_bit_each_and_those_of_calls_come_first() {
        for (index, (kind, name)) in EventKinds::NAMES.iter().enumerate() {
            assert_eq!(kind.bits(), 1 << index, "{name}");
        }
        let of_calls = |(kind, _): &&(EventKinds, &str)| EventKinds::OF_CALLS.contains(*kind);
        let named: Vec<_> = EventKinds::NAMES.iter().filter(of_calls).map(|(_, name)| *name).collect();
        assert_eq!((named.first(), named.last(), named.len()), (Some(&"CallStarted"), Some(&"Rejected"), 11));
        assert_eq!(Event::LimitChanged { limit: 1 }.kind(), EventKinds::LIMIT_CHANGED);
        let two = EventKinds::REJECTED | EventKinds::HELD_BACK;
        assert_eq!(format!("{two:?} {:?}", EventKinds::ALL), "{Rejected, HeldBack} all");
        assert_eq!(two.without(EventKinds::OF_CALLS), EventKinds::HELD_BACK);
    }
}
