//! Which endpoint takes the next attempt.
//!
//! Two are drawn. While both take any call and the call hasn't tried either, that is all there is to do, whatever the number
//! of endpoints. Otherwise all of them are looked at: with one of n out that happens to two calls in n, so it costs each call
//! a constant on average.

use std::sync::Arc;

use super::List;
use super::endpoint::{Endpoint, EndpointId, Standing};
use crate::rng::Rng;
use crate::time::Tick;

/// An endpoint, and whether its breaker is to be asked or overruled.
#[derive(Debug)]
pub(crate) struct Pick<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    /// Too many are out: take it even if its breaker refuses.
    pub(crate) panic: bool,
}

impl List {
    /// The endpoint for an attempt of a call that has `tried` those before. `None` only when there is none at all.
    pub(super) fn choose(&self, tried: &[EndpointId], now: Tick, rng: &mut Rng) -> Option<Pick<'_>> {
        let (a, b) = match &*self.endpoints {
            [] => return None,
            [only] => return Some(Pick { endpoint: only, panic: true }),
            endpoints => {
                let (a, b) = two_below(endpoints.len(), rng);
                (endpoints.get(a)?, endpoints.get(b)?)
            }
        };
        let picked = |endpoint| Some(Pick { endpoint, panic: false });
        let fresh = |endpoint: &Endpoint| !tried.contains(&endpoint.id());
        let (a_stands, b_stands) = (a.standing(now), b.standing(now));
        match (a_stands, b_stands) {
            (Standing::In, Standing::In) if fresh(a) && fresh(b) => picked(self.duel(a, b, now, rng)),
            // A probe must not have to win a comparison: what is known of a broken endpoint speaks against it. It is left to
            // a call's first attempt, which can be repeated elsewhere.
            (Standing::Probing, _) if tried.is_empty() && a.wants_probe(now) => picked(a),
            (_, Standing::Probing) if tried.is_empty() && b.wants_probe(now) => picked(b),
            _ => self.search(tried, now, rng),
        }
    }

    /// Looks at every endpoint.
    #[cold]
    fn search(&self, tried: &[EndpointId], now: Tick, rng: &mut Rng) -> Option<Pick<'_>> {
        let out = self.endpoints.iter().filter(|endpoint| endpoint.standing(now) == Standing::Out).count();
        let panic = out > self.rules.most_ejected(self.endpoints.len());
        // From the best to the worst reason to take an endpoint.
        let rank = |endpoint: &Endpoint| {
            let stands = endpoint.standing(now);
            match (stands, tried.contains(&endpoint.id())) {
                (Standing::In, false) => Some(0),
                (_, false) if panic => Some(0),
                (Standing::In, true) => Some(1),
                (_, true) if panic => Some(1),
                (Standing::Probing, false) => Some(2),
                (Standing::Probing, true) => Some(3),
                (Standing::Out, _) => None,
            }
        };
        let best = self.endpoints.iter().filter_map(|endpoint| rank(endpoint)).min();
        let candidates = || self.endpoints.iter().filter(|endpoint| best.is_some() && rank(endpoint) == best);
        let endpoint = match candidates().count() {
            // Breakers changed between two looks. Any endpoint will do, and its breaker has the last word.
            0 => self.endpoints.first()?,
            1 => candidates().next().or(self.endpoints.first())?,
            count => {
                let (a, b) = two_below(count, rng);
                let first = self.endpoints.first()?;
                self.duel(
                    candidates().nth(a).unwrap_or(first),
                    candidates().nth(b).unwrap_or(first),
                    now,
                    rng,
                )
            }
        };
        Some(Pick { endpoint, panic })
    }

    /// The one that costs less, if both stand for the draw.
    fn duel<'a>(
        &self,
        a: &'a Arc<Endpoint>,
        b: &'a Arc<Endpoint>,
        now: Tick,
        rng: &mut Rng,
    ) -> &'a Arc<Endpoint> {
        let mut stands = |endpoint: &Endpoint| {
            let chance = endpoint.standing_chance(&self.rules, now);
            chance >= 1.0 || rng.unit() < chance
        };
        let a_wins = match (stands(a), stands(b)) {
            (true, false) => true,
            (false, true) => false,
            _ => a.load(&self.rules, now).at_most(b.load(&self.rules, now)),
        };
        if a_wins { a } else { b }
    }
}

/// Two different numbers below `count`, which is at least two, each pair and order as likely as any other.
fn two_below(count: usize, rng: &mut Rng) -> (usize, usize) {
    let count = count as u64;
    let a = rng.between(0, count - 1);
    let b = rng.between(0, count - 2);
    (a as usize, if b >= a { b + 1 } else { b } as usize)
}
