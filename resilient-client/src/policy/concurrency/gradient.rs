//! The gradient law: shrink by how much longer the round trip is than it may be, and always ask for
//! a little more.
//!
//! Netflix's `Gradient2Limit` and Envoy's gradient controller have this form. Its resting point is
//! where what the gradient takes away equals the headroom, so clients that share an upstream and
//! its round trip come to rest at about equal limits.

/// One window takes at most this much away, so that one bad window is no collapse.
const STEEPEST: f64 = 0.7;

/// The limit to aim at; `ratio` is the round trip over the one at rest.
pub(super) fn target(limit: f64, ratio: f64, tolerance: f64) -> f64 {
    let gradient = (tolerance / ratio).clamp(STEEPEST, 1.0);
    limit * gradient + headroom(limit)
}

/// What is asked for beyond what was found good: half the square root, so that it means less the
/// larger the limit.
fn headroom(limit: f64) -> f64 {
    (0.5 * limit.sqrt()).max(1.0)
}

/// The ratio up to which there is surely room for more.
pub(super) fn calm(tolerance: f64) -> f64 {
    1.0 + (tolerance - 1.0) / 2.0
}
