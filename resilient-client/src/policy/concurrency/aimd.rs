//! Additive increase, multiplicative decrease: the simple law, driven by drops alone (Chiu and
//! Jain, 1989).

/// A smaller share of drops says nothing about the limit: some attempts fail on any day.
const TOLERATED: f64 = 0.02;

/// The limit to aim at; `dropped` is the share of attempts that were.
pub(super) fn target(limit: f64, dropped: f64, backoff: f64) -> f64 {
    if dropped > TOLERATED { limit * backoff } else { limit + 1.0 }
}
