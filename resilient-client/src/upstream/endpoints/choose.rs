//! Which endpoint takes the next attempt.
//!
//! Two are drawn. While both take any call and the call hasn't tried either, that is all there is
//! to do, whatever the number of endpoints. Otherwise all of them are looked at: with one of n out
//! that happens to two calls in n, so it costs each call a constant on average.
//!
//! Of those that may be asked, in this order:
//!
//! 1. one that takes any call, hasn't been tried, and didn't fail its last two,
//! 2. one on probation whose first probe has succeeded,
//! 3. another on probation that hasn't been tried, if the call can still be repeated,
//! 4. one that takes any call, hasn't been tried, and does fail: with 429, say, which opens no
//!    breaker,
//! 5. one that has been tried, and failed this very call,
//! 6. any other on probation,
//! 7. one that asked for time.
//!
//! Whoever is passed over so must be tried now and then. A call's first attempt is taken for that,
//! of an endpoint it drew, when that has been [passed over](super::probation) often enough. It must
//! not have to win a comparison: what is known of a broken endpoint speaks against it.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::endpoint::{Endpoint, Takes};
use super::{Heeds, List, Seek, Shut, has_been, rests_until};
use crate::event::Event;
use crate::outcome::rejection::Rejection;
use crate::policy::breaker::Probing;
use crate::policy::overload::NoPlace;
use crate::rng::Rng;
use crate::time::Tick;

/// How good a reason there is to ask an endpoint, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Well,
    Recovering,
    ProbeFirst,
    Failing,
    Tried,
    Probe,
    TriedProbe,
    Spared,
    SparedProbe,
}

/// Of the endpoints that may be asked.
#[derive(Default)]
struct Places {
    /// One has a place.
    free: bool,
    /// One answers nothing, so that an attempt would wait.
    silent: bool,
    /// The limit of one that has as many attempts as it can answer.
    full: Option<u32>,
}

impl List {
    /// The endpoint for an attempt. `None` when none may be asked.
    pub(super) fn choose(&self, seek: &Seek<'_>, now: Tick, rng: &mut Rng) -> Option<&Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return self.search(seek, now, rng);
        }
        let drawn = two_below(self.endpoints.len(), rng);
        let (a, b) = (self.endpoints.get(drawn.0)?, self.endpoints.get(drawn.1)?);
        let fits = |endpoint: &Endpoint| {
            (endpoint.is_well(now) || seek.overrules)
                && seek.fits(endpoint, now)
                && !has_been(seek.tried, endpoint)
        };
        let winner = if fits(a) && fits(b) {
            let nth = |n: usize| self.endpoints.get(n).filter(|endpoint| fits(endpoint));
            Some(self.duel(drawn, self.endpoints.len(), nth, now, rng).unwrap_or(a))
        } else {
            None
        };
        // Both may fail: then it is chance that neither of the two serves, and somebody else may.
        let winner = winner.filter(|winner| seek.overrules || !winner.score.is_failing());
        if seek.tried.is_empty() && !seek.overrules {
            for (passed, other) in [(a, b), (b, a)] {
                let wins = winner.is_some_and(|winner| Arc::ptr_eq(winner, passed));
                if !wins && seek.fits(passed, now) && self.is_due(passed, other, seek, now) {
                    return Some(passed);
                }
            }
        }
        winner.or_else(|| self.search(seek, now, rng))
    }

    /// Whether an endpoint that a first attempt would pass over, for what is known of it, is asked
    /// all the same. `other` is the one it was drawn with.
    fn is_due(&self, passed: &Endpoint, other: &Endpoint, seek: &Seek<'_>, now: Tick) -> bool {
        if passed.is_spared(now) {
            return false;
        }
        if !passed.takes_any() {
            let probe = passed.takes(now) == Takes::Probe;
            let due = || passed.probation.is_due(passed.breaker.probing(), seek.repeatable);
            return probe && (due() || !self.somebody_serves(now));
        }
        let suspect = passed.score.is_failing() || passed.score.remembers_failures(&self.rules, now);
        // Repeated elsewhere, a call still spends the time in which a hung one doesn't answer.
        let due = suspect
            && !passed.score.is_slower(&other.score, &self.rules, now)
            && passed.probation.is_due(Probing::First, seek.repeatable);
        if due {
            passed.probation.taken();
        }
        due
    }

    /// Whether a probe risks a call that would be served elsewhere.
    fn somebody_serves(&self, now: Tick) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_well(now) && !endpoint.score.is_failing())
    }

    /// Looks at every endpoint.
    #[cold]
    fn search(&self, seek: &Seek<'_>, now: Tick, rng: &mut Rng) -> Option<&Arc<Endpoint>> {
        // Each is judged once: breakers change between two looks.
        let mut best = None;
        let mut candidates: SmallVec<[&Arc<Endpoint>; 16]> = SmallVec::new();
        for endpoint in &self.endpoints {
            if !seek.fits(endpoint, now) {
                continue;
            }
            let Some(rank) = rank(endpoint, seek, now) else { continue };
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
                candidates.clear();
            }
            if best == Some(rank) {
                candidates.push(endpoint);
            }
        }
        match &*candidates {
            [] => None,
            [only] => Some(only),
            [first, ..] => {
                let drawn = two_below(candidates.len(), rng);
                let winner = self.duel(drawn, candidates.len(), |n| candidates.get(n).copied(), now, rng);
                Some(winner.unwrap_or(first))
            }
        }
    }

    /// Nobody may be asked: a call that each endpoint whose breaker is open has turned away.
    #[cold]
    pub(super) fn turn_away(&self, now: Tick) {
        for endpoint in &self.endpoints {
            if matches!(endpoint.takes(now), Takes::Nothing(_)) {
                endpoint.breaker.turn_away();
            }
        }
    }

    /// Those that answer nothing.
    pub(super) fn silent(&self, now: Tick) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(move |endpoint| endpoint.overload.is_silent(now))
    }

    /// Nobody else may be asked: whether one goes to find out about them.
    #[cold]
    pub(super) fn scouts(&self, now: Tick) -> bool {
        // All of them are asked, as the one that is chosen may be any.
        self.silent(now).filter(|endpoint| endpoint.overload.scouts(now)).count() > 0
    }

    /// What those that may be asked have, and lack.
    #[cold]
    fn places(&self, seek: &Seek<'_>, now: Tick) -> Places {
        let mut places = Places::default();
        for endpoint in self.endpoints.iter().filter(|endpoint| rank(endpoint, seek, now).is_some()) {
            match seek.lacks(endpoint, now) {
                Some(NoPlace::Silent) => places.silent = true,
                Some(NoPlace::Full { .. }) => {
                    places.full = Some(endpoint.overload.limit().unwrap_or_default());
                }
                None => places.free = true,
            }
        }
        places
    }

    /// Whether those that may be asked have no place, and one of them because it answers nothing.
    #[cold]
    pub(super) fn keeps_back(&self, seek: &Seek<'_>, now: Tick) -> bool {
        let Places { free, silent, .. } = self.places(seek, now);
        silent && !free && !self.scouts(now)
    }

    /// What the first endpoint to be asked again waits for, and for how long.
    #[cold]
    pub(super) fn shut(&self, seek: &Seek<'_>, now: Tick) -> Shut {
        // The refusal where no endpoint refuses any more.
        const SOON: Duration = Duration::from_millis(1);
        let waits = |endpoint: &Arc<Endpoint>| match endpoint.takes(now) {
            Takes::Nothing(wait) => Some((wait.unwrap_or(Duration::MAX), Shut::Open(wait))),
            Takes::Held(wait) => Some((wait, Shut::Held(wait))),
            Takes::Any | Takes::Probe if seek.rests(endpoint, now) => {
                let wait = now.until(rests_until(seek.tried, endpoint));
                Some((wait, Shut::Held(wait)))
            }
            Takes::Any | Takes::Probe => None,
        };
        if self.endpoints.is_empty() {
            return Shut::Empty;
        }
        // One that is free by now has a line to wait in like the others.
        match self.places(seek, now) {
            // Nobody is refused while there is one that only may be late.
            Places { silent: true, .. } => return Shut::Silent,
            Places { full: Some(limit), .. } => return Shut::Full(limit),
            Places { .. } => {}
        }
        let first = self.endpoints.iter().filter_map(waits).min_by_key(|(wait, _)| *wait);
        first.map_or(Shut::Open(Some(SOON)), |(_, shut)| shut)
    }

    /// An attempt goes to an endpoint whose breaker would have refused it, did it more than
    /// observe. It would have gone to another, or, if theirs all would, been refused.
    #[cold]
    pub(super) fn would_refuse(&self, to: &Endpoint, now: Tick) {
        let refusals = self.endpoints.iter().map(|endpoint| endpoint.breaker.would_reject(now));
        let Some(refusals) = refusals.collect::<Option<Vec<_>>>() else { return };
        let retry_after = refusals.into_iter().filter_map(|refusal| refusal.retry_after).min();
        to.tell(|| Event::WouldReject { rejection: Rejection::CircuitOpen { retry_after } });
    }

    /// The one of two that costs less, if both stand for the draw. In place of one that doesn't, a
    /// third is drawn from the `count` that `nth` knows: without an opponent the other would win,
    /// whatever is known of it.
    fn duel<'a>(
        &self,
        (i, j): (usize, usize),
        count: usize,
        nth: impl Fn(usize) -> Option<&'a Arc<Endpoint>>,
        now: Tick,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint>> {
        let stands = |endpoint: &Endpoint, rng: &mut Rng| {
            let chance = endpoint.share_of_draws(&self.rules, now);
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

impl Seek<'_> {
    /// Whether it has a place.
    fn fits(&self, endpoint: &Endpoint, now: Tick) -> bool {
        self.lacks(endpoint, now).is_none()
    }

    /// Why it has no place.
    fn lacks(&self, endpoint: &Endpoint, now: Tick) -> Option<NoPlace> {
        let why = endpoint.overload.place(self.priority, now).err()?;
        if why == NoPlace::Silent && self.heeds != Heeds::Nothing {
            endpoint.found_silent(now);
        }
        self.heeds(why, endpoint).then_some(why)
    }

    /// A probe is there to find out whether an endpoint answers.
    fn heeds(&self, why: NoPlace, endpoint: &Endpoint) -> bool {
        match why {
            NoPlace::Full { .. } => self.heeds != Heeds::Nothing,
            NoPlace::Silent => self.heeds == Heeds::Silence && endpoint.takes_any(),
        }
    }

    /// Takes a place, if there is one or none is needed.
    pub(super) fn enters(&self, endpoint: &Endpoint, now: Tick) -> bool {
        match endpoint.overload.try_acquire(self.priority, now) {
            Ok(()) => true,
            Err(why) if self.heeds(why, endpoint) => false,
            Err(_) => {
                endpoint.overload.overrun();
                true
            }
        }
    }

    /// Whether it asked the call to stay away.
    fn rests(&self, endpoint: &Endpoint, now: Tick) -> bool {
        now < rests_until(self.tried, endpoint)
    }
}

/// `None` for one that may not be asked.
fn rank(endpoint: &Endpoint, seek: &Seek<'_>, now: Tick) -> Option<Rank> {
    if seek.rests(endpoint, now) {
        return None;
    }
    let tried = has_been(seek.tried, endpoint);
    let takes = if seek.overrules { Takes::Any } else { endpoint.takes(now) };
    let rank = match (takes, tried) {
        (Takes::Any, false) if endpoint.score.is_failing() => Rank::Failing,
        (Takes::Any, false) => Rank::Well,
        (Takes::Any, true) => Rank::Tried,
        (Takes::Probe, false) => match endpoint.breaker.probing() {
            Probing::Recovering => Rank::Recovering,
            Probing::First if seek.repeatable => Rank::ProbeFirst,
            Probing::First | Probing::Undecided => Rank::Probe,
        },
        (Takes::Probe, true) => Rank::TriedProbe,
        (Takes::Nothing(_) | Takes::Held(_), _) => return None,
    };
    Some(match (endpoint.is_spared(now), takes) {
        (false, _) => rank,
        (true, Takes::Any) => Rank::Spared,
        (true, _) => Rank::SparedProbe,
    })
}

/// A number below `count` that is neither of two different ones, each as likely as any other;
/// `None` if there is none.
fn another_below(count: usize, (i, j): (usize, usize), rng: &mut Rng) -> Option<usize> {
    let most = count.checked_sub(3)?;
    let drawn = rng.between(0, most as u64) as usize;
    let drawn = if drawn >= i.min(j) { drawn + 1 } else { drawn };
    Some(if drawn >= i.max(j) { drawn + 1 } else { drawn })
}

/// Two different numbers below `count`, which is at least two, each pair and order as likely as any
/// other.
fn two_below(count: usize, rng: &mut Rng) -> (usize, usize) {
    let count = count as u64;
    let a = rng.between(0, count - 1);
    let b = rng.between(0, count - 2);
    (a as usize, if b >= a { b + 1 } else { b } as usize)
}
