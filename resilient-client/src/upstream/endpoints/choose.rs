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
        let drawn = match &*self.endpoints {
            [] => return None,
            [only] => return Some(Pick { endpoint: only, panic: true }),
            endpoints => two_below(endpoints.len(), rng),
        };
        let (a, b) = (self.endpoints.get(drawn.0)?, self.endpoints.get(drawn.1)?);
        let picked = |endpoint| Some(Pick { endpoint, panic: false });
        let fresh = |endpoint: &Endpoint| !tried.contains(&endpoint.id());
        let (a_stands, b_stands) = (a.standing(now), b.standing(now));
        match (a_stands, b_stands) {
            (Standing::In, Standing::In) if fresh(a) && fresh(b) => {
                let equal = |endpoint: &Endpoint| endpoint.standing(now) == Standing::In && fresh(endpoint);
                let nth = |n: usize| self.endpoints.get(n).filter(|endpoint| equal(endpoint));
                picked(self.duel(drawn, self.endpoints.len(), nth, now, rng).unwrap_or(a))
            }
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
                let drawn = two_below(count, rng);
                let winner = self.duel(drawn, count, |n| candidates().nth(n), now, rng);
                winner.or(self.endpoints.first())?
            }
        };
        Some(Pick { endpoint, panic })
    }

    /// The one of two that costs less, if both stand for the draw. In place of one that doesn't, a third is drawn from the
    /// `count` that `nth` knows: without an opponent the other would win, whatever is known of it.
    fn duel<'a>(
        &self,
        (i, j): (usize, usize),
        count: usize,
        nth: impl Fn(usize) -> Option<&'a Arc<Endpoint>>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint>> {
        let stands = |endpoint: &Endpoint, rng: &mut Rng| {
            let chance = endpoint.standing_chance(&self.rules, now);
            chance >= 1.0 || rng.unit() < chance
        };
        let (a, b) = (nth(i)?, nth(j)?);
        let (a, b) = match (stands(a, rng), stands(b, rng)) {
            (true, true) | (false, false) => (a, b),
            (a_stands, _) => {
                let stander = if a_stands { a } else { b };
                let third =
                    another_below(count, (i, j), rng).and_then(nth).filter(|third| stands(third, rng));
                (stander, third.unwrap_or(stander))
            }
        };
        let a_wins = a.load(&self.rules, now).at_most(b.load(&self.rules, now));
        Some(if a_wins { a } else { b })
    }
}

/// A number below `count` that is neither of two different ones, each as likely as any other; `None` if there is none.
fn another_below(count: usize, (i, j): (usize, usize), rng: &mut Rng) -> Option<usize> {
    let most = count.checked_sub(3)?;
    let drawn = rng.between(0, most as u64) as usize;
    let drawn = if drawn >= i.min(j) { drawn + 1 } else { drawn };
    Some(if drawn >= i.max(j) { drawn + 1 } else { drawn })
}

/// Two different numbers below `count`, which is at least two, each pair and order as likely as any other.
fn two_below(count: usize, rng: &mut Rng) -> (usize, usize) {
    let count = count as u64;
    let a = rng.between(0, count - 1);
    let b = rng.between(0, count - 2);
    (a as usize, if b >= a { b + 1 } else { b } as usize)
}
