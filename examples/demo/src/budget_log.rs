//! How many tokens the resilient order-service's retry budget holds: a byte on standard output now
//! and then.

use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use order_service::ResilientUsers;
use tokio::time::interval;

/// How often it is told.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// The byte for no tokens; above it come more...
const NONE_LEFT: u8 = 0x80;
/// ...up to what the standard budget holds.
const MOST: u8 = 100;

/// What was told last.
#[derive(Debug)]
pub(crate) struct BudgetLog(AtomicU8);

impl Default for BudgetLog {
    fn default() -> Self {
        Self(AtomicU8::new(u8::MAX))
    }
}

impl BudgetLog {
    /// A byte that says something else is none of its business.
    pub(crate) fn note(&self, byte: u8) {
        if tokens(byte).is_some() {
            self.0.store(byte, Ordering::Relaxed);
        }
    }

    /// `None` as long as nothing was told: there is no budget, say.
    pub(crate) fn tokens(&self) -> Option<u8> {
        tokens(self.0.load(Ordering::Relaxed))
    }
}

fn tokens(byte: u8) -> Option<u8> {
    byte.checked_sub(NONE_LEFT).filter(|tokens| *tokens <= MOST)
}

/// `None` without a budget, which is one without end.
fn byte(tokens: f64) -> Option<u8> {
    tokens.is_finite().then(|| NONE_LEFT + (tokens.max(0.0) as u8).min(MOST))
}

/// Tells it from now on.
pub(crate) fn tell(users: ResilientUsers) {
    tokio::spawn(async move {
        let mut ticks = interval(TELL_EVERY);
        loop {
            ticks.tick().await;
            let least = users.snapshot().iter().map(|upstream| upstream.budget).reduce(f64::min);
            let Some(byte) = least.and_then(byte) else { continue };
            let mut out = std::io::stdout().lock();
            // The reader is gone only when the demo is, and then this process ends too.
            let _ = out.write_all(&[byte]).and_then(|()| out.flush());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker_log::Breaker;
    use crate::follow::Told;

    #[test]
    fn a_byte_says_how_many_and_nothing_else() {
        for (left, said) in [(0.0, 0), (0.9, 0), (73.5, 73), (100.0, 100), (1e9, 100), (-1.0, 0)] {
            let byte = byte(left).expect("a budget");
            let log = BudgetLog::default();
            assert_eq!(log.tokens(), None);
            log.note(byte);
            log.note(b'C');
            assert_eq!(log.tokens(), Some(said));
            assert!(Breaker::of_mark(byte).is_none() && Told::of_byte(byte).is_none());
        }
        assert_eq!(byte(f64::INFINITY), None);
    }
}
