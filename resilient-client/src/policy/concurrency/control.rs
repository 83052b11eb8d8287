//! One decision per window: what the limit should be now.

use super::baseline::{Baseline, Decline};
use super::policy::{Law, Rules};
use super::window::Seen;
use super::{aimd, gradient, vegas};
use crate::time::Tick;

/// The limit was reached when this share of it was in flight: a limit nobody reaches must not grow.
const REACHED: f64 = 0.8;
/// Growth speeds up by this share of the limit with every window in a row that reached it and saw
/// no queue ...
const ACCELERATION: f64 = 0.05;
/// ... to this at most.
const FASTEST: f64 = 0.5;
/// Standard errors up to which a difference is put down to chance.
const CHANCE: f64 = 1.5;
/// Standard errors beyond which a difference is no chance.
const SURELY: f64 = 2.5;
/// There is a queue worth looking behind.
const QUEUED: f64 = 1.1;
/// A dip goes this far below where the queue should be gone: a round trip that still falls then
/// shows a base too high.
const BELOW_EMPTY: f64 = 0.9;
const DEEPEST_DIP: f64 = 0.5;
/// A dip that found the base too high is followed by another, this much deeper.
const DEEPER: f64 = 0.8;

/// The plain state behind [`Concurrency`](super::Concurrency).
#[derive(Clone, Debug)]
pub(super) struct Control {
    /// Fractional, so that small steps add up.
    pub(super) limit: f64,
    pub(super) baseline: Baseline,
    /// The mean round trip of the last window that had one.
    pub(super) rtt: f64,
    /// Windows in a row that reached the limit and saw no queue.
    streak: u32,
    decline: Option<Decline>,
    /// The limit to return to after the window under way, in which the limit dips.
    dip: Option<f64>,
    next_dip: Tick,
    /// Drops drove the limit to its minimum, so what was known about the upstream may be out of
    /// date.
    fell: bool,
}

impl Control {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            limit: f64::from(rules.initial),
            baseline: Baseline::default(),
            rtt: 0.0,
            streak: 0,
            decline: None,
            dip: None,
            next_dip: Tick::ZERO,
            fell: false,
        }
    }

    /// Keeps what was learnt; a dip under way ends.
    pub(super) fn set_rules(&mut self, rules: &Rules) {
        if let Some(limit) = self.dip.take() {
            self.limit = limit;
        }
        self.decline = None;
        self.clamp(rules);
    }

    fn clamp(&mut self, rules: &Rules) {
        self.limit = self.limit.clamp(f64::from(rules.min), f64::from(rules.max));
    }

    /// How many attempts a window needs before it says anything.
    pub(super) fn needed(&self, rules: &Rules) -> u64 {
        u64::from(rules.min_samples).min(4 * self.limit as u64).max(1)
    }

    /// Moves the limit by what one window saw.
    pub(super) fn decide(&mut self, rules: &Rules, seen: &Seen, now: Tick) {
        match rules.law {
            Law::Aimd { backoff, .. } => self.by_drops_alone(rules, seen, backoff),
            Law::Gradient { .. } | Law::Vegas { .. } => self.by_latency(rules, seen, now),
        }
        self.clamp(rules);
    }

    fn by_drops_alone(&mut self, rules: &Rules, seen: &Seen, backoff: f64) {
        self.rtt = seen.rtt().unwrap_or(self.rtt);
        self.baseline.learn(self.rtt, CHANCE * seen.noise());
        let target = aimd::target(self.limit, seen.dropped_share(), backoff);
        if target < self.limit || self.is_reached(seen) {
            self.limit = target.max(f64::from(rules.min));
        }
    }

    fn by_latency(&mut self, rules: &Rules, seen: &Seen, now: Tick) {
        // DCTCP's rule (RFC 8257): back off by half of the share that was dropped, so one stray
        // drop is one small step.
        let kept = 1.0 - seen.dropped_share() / 2.0;
        let dip = self.dip.take();
        let rtt = seen.rtt().filter(|_| seen.completed * 2 >= self.needed(rules));
        match (dip, rtt) {
            (Some(before), rtt) => self.end_dip(rules, before, rtt, seen, now),
            (None, Some(rtt)) => self.follow(rules, rtt, seen, now),
            (None, None) => {}
        }
        self.limit *= kept;
        if kept < 1.0 {
            self.streak = 0;
            self.fell |= self.limit <= f64::from(rules.min);
        }
    }

    /// Compares the round trip with the one at rest and moves the limit as the law says.
    fn follow(&mut self, rules: &Rules, rtt: f64, seen: &Seen, now: Tick) {
        self.rtt = rtt;
        if self.fell && seen.dropped == 0 {
            self.fell = false;
            self.baseline.forget();
        }
        // Among more and more attempts the answers are of the young ones, which are the fast ones.
        let young = if self.streak > 1 { ACCELERATION * f64::from(self.streak) } else { 0.0 };
        let noise = CHANCE * seen.noise() + young;
        let base = self.baseline.learn(rtt, SURELY * seen.noise() + young);
        // Between a shorter and a longer time than at rest lies what chance may have made.
        let ratio = if rtt > base { (rtt / base - noise).max(1.0) } else { rtt / base };
        let before = self.limit;
        let (target, calm) = law(rules.law, before, ratio);
        let reached = self.is_reached(seen);
        if !reached {
            // Whatever the latency is, this limit isn't what makes it.
            self.streak = 0;
        } else if target < self.limit {
            self.streak = 0;
            self.shrink(target, rtt, seen);
        } else {
            // Vegas may rest on its way down; a limit that can grow has no decline to explain.
            self.decline =
                if target > self.limit { None } else { self.decline.take().and_then(Decline::rests) };
            self.streak = if ratio <= calm { self.streak.saturating_add(1) } else { 0 };
            let faster = 1.0 + (ACCELERATION * f64::from(self.streak)).min(FASTEST);
            self.limit = target.max(if self.streak > 1 { self.limit * faster } else { target });
        }
        if reached && ratio > calm {
            if before < f64::from(rules.min) + 1.0 {
                self.baseline.at_floor(rtt);
            }
            self.baseline.creep();
        }
        let steady = target >= self.limit * BELOW_EMPTY;
        if reached && steady && ratio > QUEUED && now >= self.next_dip {
            self.dip = Some(self.limit);
            self.limit *= (BELOW_EMPTY / ratio).clamp(DEEPEST_DIP, BELOW_EMPTY);
        }
    }

    fn shrink(&mut self, target: f64, rtt: f64, seen: &Seen) {
        let here = Decline::starting(self.limit, rtt, seen.in_flight());
        let decline = self.decline.get_or_insert(here);
        if decline.is_in_vain(rtt, seen.in_flight()) {
            // Fewer in flight and no shorter round trip: it is not our queue.
            self.limit = decline.from;
            self.decline = None;
            self.baseline.raise(rtt);
        } else {
            self.limit = target;
        }
    }

    /// A dip can only lower the base. That it had no effect says little: a client among many moves
    /// no queue alone.
    fn end_dip(&mut self, rules: &Rules, before: f64, rtt: Option<f64>, seen: &Seen, now: Tick) {
        let lower = rtt.is_some_and(|rtt| self.baseline.lower(rtt, SURELY * seen.noise()));
        if lower && self.limit * DEEPER >= before * DEEPEST_DIP {
            // There may be a queue even here.
            self.dip = Some(before);
            self.limit *= DEEPER;
        } else {
            self.limit = before;
            let wait = if lower { 0 } else { spread(rules.remeasure, seen.round_trips) };
            self.next_dip = now.after_nanos(wait);
        }
    }

    fn is_reached(&self, seen: &Seen) -> bool {
        f64::from(seen.most_in_flight) >= self.limit.floor() * REACHED
    }
}

/// The limit to aim at, and the ratio up to which there is surely room.
fn law(law: Law, limit: f64, ratio: f64) -> (f64, f64) {
    match law {
        Law::Gradient { tolerance } => (gradient::target(limit, ratio, tolerance), gradient::calm(tolerance)),
        Law::Vegas { low, high } => (vegas::target(limit, ratio, low, high), vegas::calm(low)),
        Law::Aimd { .. } => (limit, 1.0),
    }
}

/// `nanos` up to a quarter sooner or later, by the noise in measured times: clients must not dip
/// together for ever.
fn spread(nanos: u64, noise: u64) -> u64 {
    let quarter = nanos / 4;
    (nanos - quarter).saturating_add(noise.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (2 * quarter + 1))
}
