//! The Vegas law: estimate how many attempts wait, and keep that number between two bounds.
//!
//! TCP Vegas (Brakmo and Peterson, 1995): of `limit` attempts in flight `limit * (1 - base / rtt)`
//! wait, by Little's law. The bounds are shares of the limit with a floor: a bound of a few
//! attempts, right for TCP, would ask to know the base to within a hundredth when the limit is some
//! hundreds.

/// One window takes at most this much away.
const STEEPEST: f64 = 0.7;
const FEWEST_LOW: f64 = 2.0;
const FEWEST_HIGH: f64 = 4.0;

/// The limit to aim at; `ratio` is the round trip over the one at rest.
pub(super) fn target(limit: f64, ratio: f64, low: f64, high: f64) -> f64 {
    let waiting = limit * (1.0 - 1.0 / ratio);
    let (low, high) = ((low * limit).max(FEWEST_LOW), (high * limit).max(FEWEST_HIGH));
    if waiting < low {
        limit + limit.ln().max(1.0)
    } else if waiting > high {
        (limit - (waiting - low)).max(limit * STEEPEST)
    } else {
        limit
    }
}

/// The ratio up to which there is surely room for more: half of `low` waits.
pub(super) fn calm(low: f64) -> f64 {
    1.0 / (1.0 - low / 2.0)
}
