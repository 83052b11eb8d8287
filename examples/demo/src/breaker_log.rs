//! When the circuit breaker of the resilient order-service changed.
//!
//! An observer inside that order-service passes each change on to the demo as one byte on standard
//! output.

use std::io::Write;
use std::time::{Duration, Instant};

use resilient_client::event::{Event, Observer};
use resilient_client::policy::breaker::State;

/// What a circuit breaker may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Breaker {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl Breaker {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }

    /// `None` for a byte that is no change.
    pub(crate) const fn of_mark(mark: u8) -> Option<Self> {
        match mark {
            b'C' => Some(Self::Closed),
            b'O' => Some(Self::Open),
            b'H' => Some(Self::HalfOpen),
            _ => None,
        }
    }
}

/// Makes the process it is installed in tell the demo what its circuit breaker does. Replicas have
/// breakers of their own, which would be heard too: with several the demo shows none.
pub(crate) fn reporter() -> impl Observer {
    |_upstream: &str, event: &Event| {
        let Event::BreakerTransition(change) = event else { return };
        let Some(mark) = mark(change.to) else { return };
        let mut out = std::io::stdout().lock();
        // The reader is gone only when the demo is, and then this process ends too.
        let _ = out.write_all(&[mark]).and_then(|()| out.flush());
    }
}

/// The byte that stands for a change; the demo forces no state.
const fn mark(to: State) -> Option<u8> {
    match to {
        State::Closed => Some(b'C'),
        State::Open => Some(b'O'),
        State::HalfOpen => Some(b'H'),
        _ => None,
    }
}

/// Its changes, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct BreakerLog(Vec<(Instant, Breaker)>);

impl BreakerLog {
    pub(crate) fn note(&mut self, at: Instant, state: Breaker) {
        self.0.push((at, state));
    }

    pub(crate) fn state(&self) -> Breaker {
        self.0.last().map_or_else(Breaker::default, |(_, state)| *state)
    }

    /// How long after `start` it opened for the first time since `from`, which also counts from
    /// `start`.
    pub(crate) fn first_open(&self, start: Instant, from: Duration) -> Option<Duration> {
        let opened = self.0.iter().find(|(at, state)| *at >= start + from && *state == Breaker::Open);
        opened.map(|(at, _)| *at - start)
    }

    /// How often it let probes through between two times after `start`.
    pub(crate) fn half_opens(&self, start: Instant, from: Duration, to: Duration) -> usize {
        let span = start + from..=start + to;
        self.0.iter().filter(|(at, state)| *state == Breaker::HalfOpen && span.contains(at)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    #[test]
    fn a_mark_names_its_state() {
        for (state, shown) in [
            (State::Closed, Breaker::Closed),
            (State::Open, Breaker::Open),
            (State::HalfOpen, Breaker::HalfOpen),
        ] {
            assert_eq!(mark(state).and_then(Breaker::of_mark), Some(shown));
        }
    }

    #[test]
    fn remembers_when_it_opened_and_how_often_it_probed() {
        let (start, second) = (now(), Duration::from_secs);
        let mut log = BreakerLog::default();
        assert_eq!(log.state(), Breaker::Closed);
        for (at, mark) in [(1, b'O'), (2, b'H'), (3, b'O'), (5, b'H')] {
            log.note(start + second(at), Breaker::of_mark(mark).expect("a mark"));
        }
        assert_eq!(log.first_open(start, second(2)), Some(second(3)));
        assert_eq!(log.first_open(start, second(4)), None);
        assert_eq!(log.half_opens(start, second(1), second(4)), 1);
        assert_eq!(log.state(), Breaker::HalfOpen);
    }
}
