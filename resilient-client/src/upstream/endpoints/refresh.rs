//! When a name is resolved again, and what becomes of the answers: the pure part.
//!
//! ```text
//! Unknown --- a call ----------> Unknown, asking     Known, old --- a call --> Known, asking
//! asking ---- addresses -------> Known, fresh        asking ------ failure --> as before, for a second
//! asking ---- never answered --> asking again
//! ```
//!
//! A call goes on with an old answer while another is asked for; but not with one older than three
//! intervals, which only a name that nobody has called for so long has: by then its addresses may
//! be somebody else's. It waits for the answer then, a second at most, and goes on with the old one
//! if there is none.
//!
//! Asking is single flight. A failure, or an answer without addresses, never takes known ones away.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Scheme;

use crate::endpoints::ResolveError;
use crate::origin::{MOST_ENDPOINTS, Origin};
use crate::time::Tick;

/// How long a failure is believed, in nanoseconds.
const NEGATIVE: u64 = 1_000_000_000;
/// How long a resolver may take, in nanoseconds.
pub(super) const PATIENCE: u64 = 10_000_000_000;
/// When a question without an answer is taken for lost, in nanoseconds. Later than whoever put it
/// reports a failure: or those who wait would put it again and again, and never hear of one.
pub(super) const LOST: u64 = PATIENCE + 1_000_000_000;

/// After so many intervals an answer isn't used without asking again.
const STALE: u64 = 3;
/// How long a call waits for another answer in place of one that is too old, in nanoseconds.
const STALE_WAIT: u64 = 1_000_000_000;

type Failure = Arc<dyn StdError + Send + Sync>;

/// What a call is to do about the name.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Go on with the endpoints there are.
    Go,
    /// Start asking, and go on meanwhile.
    AskAndGo,
    /// Start asking, and wait for the answer.
    AskAndWait,
    /// Wait for the answer another call asked for.
    Wait,
    /// There are no endpoints.
    Fail(Failure),
}

/// See the [module docs](self).
#[derive(Debug)]
pub(super) struct Refresh {
    every: u64,
    /// There was an answer once.
    known: bool,
    /// Nobody need ask before.
    next: Tick,
    /// A question was put, and until then its answer is waited for.
    asking: Option<Tick>,
    /// From then on the last answer is too old to go on with.
    stale_from: Tick,
    /// Until when calls that have only such an answer wait for the one asked for.
    stale_wait: Tick,
    /// There was none in time: it has to do until there is.
    puts_up: bool,
    /// Counts questions, so that the answer to one given up is known as such.
    question: u64,
    failure: Option<Failure>,
}

impl Refresh {
    pub(super) fn new(every: u64) -> Self {
        Self {
            every,
            known: false,
            next: Tick::ZERO,
            asking: None,
            stale_from: Tick::NEVER,
            stale_wait: Tick::ZERO,
            puts_up: false,
            question: 0,
            failure: None,
        }
    }

    /// A call wants to go.
    pub(super) fn step(&mut self, now: Tick) -> Step {
        let asking = self.asking.is_some_and(|until| now < until);
        if self.known {
            let stale = now >= self.stale_from && !self.puts_up;
            if asking {
                self.puts_up |= stale && now >= self.stale_wait;
                return if stale && !self.puts_up { Step::Wait } else { Step::Go };
            }
            if now < self.next && !stale {
                return Step::Go;
            }
            self.ask(now);
            return if stale { Step::AskAndWait } else { Step::AskAndGo };
        }
        if asking {
            return Step::Wait;
        }
        if let Some(failure) = &self.failure
            && now < self.next
        {
            return Step::Fail(Arc::clone(failure));
        }
        self.ask(now);
        Step::AskAndWait
    }

    fn ask(&mut self, now: Tick) {
        self.asking = Some(now.after_nanos(LOST));
        self.stale_wait = now.after_nanos(STALE_WAIT);
        self.question += 1;
        self.failure = None;
    }

    /// How long at most to wait for the answer to the question under way, in nanoseconds.
    pub(super) fn longest_wait(&self, now: Tick) -> u64 {
        if self.known { self.stale_wait.nanos_since(now).max(1) } else { LOST }
    }

    /// The number of the question put last.
    pub(super) fn question(&self) -> u64 {
        self.question
    }

    /// How the last question ended, if that was a failure and nothing was ever known.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.clone().filter(|_| !self.known)
    }

    /// When a call need look here again; before, it can go on.
    pub(super) fn fresh_until(&self) -> Tick {
        if !self.known {
            return Tick::ZERO;
        }
        let until = self.asking.unwrap_or(self.next);
        if self.puts_up { until } else { until.min(self.stale_from) }
    }

    /// An answer came to `question`: the endpoints to have from now on, if it says any. `unit`,
    /// uniform in [0, 1), spreads the next question by 10 % either way, so that a fleet doesn't ask
    /// in step.
    pub(super) fn answered(
        &mut self,
        question: u64,
        answer: Result<Vec<SocketAddr>, ResolveError>,
        now: Tick,
        unit: f64,
    ) -> Option<Vec<Origin>> {
        if question != self.question {
            return None;
        }
        self.asking = None;
        let failure: ResolveError = match answer.map(origins) {
            Ok(origins) if !origins.is_empty() => {
                (self.known, self.puts_up, self.failure) = (true, false, None);
                self.stale_from = now.after_nanos(self.every.saturating_mul(STALE));
                let spread = self.every / 10;
                self.next = now.after_nanos(self.every - spread + (2.0 * spread as f64 * unit) as u64);
                return Some(origins);
            }
            Ok(_) => "no usable address".into(),
            Err(failure) => failure,
        };
        self.puts_up = true;
        self.next = now.after_nanos(NEGATIVE.min(self.every));
        self.failure = Some(Arc::from(failure));
        None
    }
}

/// Each address once, the lowest of too many: whoever resolves the name gets the same.
fn origins(mut addresses: Vec<SocketAddr>) -> Vec<Origin> {
    addresses.sort_unstable();
    addresses.dedup();
    let origins = addresses.into_iter().filter_map(|address| Origin::of_address(&Scheme::HTTP, address));
    origins.take(MOST_ENDPOINTS).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * SECOND)
    }

    #[allow(clippy::unnecessary_wraps, reason = "an answer is a result")]
    fn addresses(hosts: &[u8]) -> Result<Vec<SocketAddr>, ResolveError> {
        Ok(hosts.iter().map(|host| SocketAddr::from(([10, 0, 0, *host], 80))).collect())
    }

    fn name(step: &Step) -> &'static str {
        match step {
            Step::Go => "go",
            Step::AskAndGo => "ask and go",
            Step::AskAndWait => "ask and wait",
            Step::Wait => "wait",
            Step::Fail(_) => "fail",
        }
    }

    fn step(refresh: &mut Refresh, seconds: u64) -> &'static str {
        name(&refresh.step(at(seconds)))
    }

    fn answer(refresh: &mut Refresh, answer: Result<Vec<SocketAddr>, ResolveError>, seconds: u64) -> usize {
        let question = refresh.question();
        refresh.answered(question, answer, at(seconds), 0.5).map_or(0, |origins| origins.len())
    }

    #[test]
    fn the_first_call_asks_and_all_wait_for_it() {
        let mut refresh = Refresh::new(30 * SECOND);
        assert_eq!([0, 1, 2].map(|now| step(&mut refresh, now)), ["ask and wait", "wait", "wait"]);
        assert_eq!(answer(&mut refresh, addresses(&[1, 2]), 3), 2);
        assert_eq!([3, 32].map(|now| step(&mut refresh, now)), ["go", "go"]);
    }

    #[test]
    fn an_old_answer_serves_while_one_call_asks_again() {
        let mut refresh = Refresh::new(30 * SECOND);
        refresh.step(at(0));
        answer(&mut refresh, addresses(&[1]), 0);
        assert_eq!([29, 30, 30, 40].map(|now| step(&mut refresh, now)), ["go", "ask and go", "go", "go"]);
        assert_eq!(step(&mut refresh, 41), "ask and go", "a resolver that never answers is given up");
    }

    /// The first call after an hour went to an address that was an hour old.
    #[test]
    fn an_answer_older_than_three_intervals_is_not_used_before_asking_again() {
        let known = || {
            let mut refresh = Refresh::new(30 * SECOND);
            refresh.step(at(0));
            answer(&mut refresh, addresses(&[1]), 0);
            assert_eq!(refresh.fresh_until(), at(30));
            refresh
        };
        let mut refresh = known();
        assert_eq!(step(&mut refresh, 89), "ask and go");
        let mut refresh = known();
        assert_eq!([3_600, 3_600].map(|now| step(&mut refresh, now)), ["ask and wait", "wait"]);
        assert_eq!(refresh.longest_wait(at(3_600)), SECOND);
        assert!(refresh.fresh_until() <= at(3_600), "others wait as well");
        assert_eq!(answer(&mut refresh, addresses(&[2]), 3_600), 1);
        assert_eq!(step(&mut refresh, 3_600), "go");
        assert_eq!(refresh.fresh_until(), at(3_630));
    }

    #[test]
    fn without_an_answer_in_time_an_old_one_has_to_do() {
        let known = || {
            let mut refresh = Refresh::new(30 * SECOND);
            refresh.step(at(0));
            answer(&mut refresh, addresses(&[1]), 0);
            refresh
        };
        let mut failed = known();
        assert_eq!(step(&mut failed, 100), "ask and wait");
        answer(&mut failed, Err("servfail".into()), 100);
        assert_eq!([100, 101, 101].map(|now| step(&mut failed, now)), ["go", "ask and go", "go"]);
        answer(&mut failed, addresses(&[2]), 101);
        assert_eq!(step(&mut failed, 200), "ask and wait", "and the next is judged by its own age");

        let mut hung = known();
        let steps = [100, 100, 101, 105, 111].map(|now| step(&mut hung, now));
        assert_eq!(steps, ["ask and wait", "wait", "go", "go", "ask and go"], "nobody waits a second time");

        let mut asked_before = known();
        let steps = [85, 91, 91].map(|now| step(&mut asked_before, now));
        assert_eq!(steps, ["ask and go", "go", "go"], "it had its second");
    }

    #[test]
    fn failures_and_empty_answers_leave_the_last_good_one_in_place() {
        let mut refresh = Refresh::new(30 * SECOND);
        refresh.step(at(0));
        answer(&mut refresh, addresses(&[1]), 0);
        for (now, bad) in [(30, addresses(&[])), (31, Err("servfail".into())), (32, addresses(&[]))] {
            assert_eq!(step(&mut refresh, now), "ask and go");
            assert_eq!(answer(&mut refresh, bad, now), 0);
            assert_eq!(step(&mut refresh, now), "go", "and it isn't asked again at once");
        }
        assert!(refresh.failure().is_none(), "no call is told");
    }

    #[test]
    fn a_name_that_does_not_resolve_fails_calls_and_is_tried_again_after_a_second() {
        let mut refresh = Refresh::new(30 * SECOND);
        refresh.step(at(0));
        answer(&mut refresh, Err("no such host".into()), 5);
        assert!(matches!(refresh.step(at(5)), Step::Fail(error) if error.to_string() == "no such host"));
        assert_eq!(step(&mut refresh, 6), "ask and wait");
        answer(&mut refresh, addresses(&[]), 6);
        assert!(matches!(refresh.step(at(6)), Step::Fail(error) if error.to_string() == "no usable address"));
        step(&mut refresh, 7);
        answer(&mut refresh, addresses(&[1]), 7);
        assert_eq!(step(&mut refresh, 7), "go");
    }

    #[test]
    fn the_answer_to_a_question_given_up_changes_nothing() {
        let mut refresh = Refresh::new(30 * SECOND);
        refresh.step(at(0));
        let first = refresh.question();
        assert_eq!(step(&mut refresh, 11), "ask and wait");
        assert!(refresh.answered(first, addresses(&[1]), at(12), 0.5).is_none());
        assert_eq!(step(&mut refresh, 12), "wait");
    }

    #[test]
    fn addresses_are_sorted_once_each_and_bounded() {
        let mut refresh = Refresh::new(30 * SECOND);
        refresh.step(at(0));
        let question = refresh.question();
        let found = refresh.answered(question, addresses(&[3, 1, 3, 2, 1]), at(0), 0.5).unwrap();
        assert_eq!(format!("{found:?}"), "[http://10.0.0.1, http://10.0.0.2, http://10.0.0.3]");
        let many = (0..70_000_u32).map(|n| SocketAddr::from((std::net::Ipv4Addr::from(n + 1), 80)));
        assert_eq!(origins(many.collect()).len(), MOST_ENDPOINTS);
    }

    #[test]
    fn the_next_question_is_spread() {
        let next = |unit| {
            let mut refresh = Refresh::new(30 * SECOND);
            refresh.step(at(0));
            refresh.answered(1, addresses(&[1]), at(0), unit);
            refresh.fresh_until().since(at(0))
        };
        assert_eq!((next(0.0), next(0.5)), (Duration::from_secs(27), Duration::from_secs(30)));
        assert!(next(0.999) <= Duration::from_secs(33));
    }

    proptest! {
        /// Never two questions at a time, never no endpoints after there were some, and never a
        /// wait nobody answers.
        #[test]
        fn it_keeps_its_promises(steps in prop::collection::vec((0_u64..40, 0_u8..5), 1..200)) {
            let mut refresh = Refresh::new(30 * SECOND);
            let (mut now, mut known, mut asked) = (0, false, None::<u64>);
            for (gap, what) in steps {
                now += gap;
                match what {
                    0 if asked.is_some() => {
                        known |= answer(&mut refresh, addresses(&[1]), now) > 0;
                        asked = None;
                    }
                    1 if asked.is_some() => {
                        prop_assert_eq!(answer(&mut refresh, addresses(&[]), now), 0);
                        asked = None;
                    }
                    _ => match refresh.step(at(now)) {
                        Step::Go => prop_assert!(known),
                        Step::AskAndGo | Step::AskAndWait => {
                            prop_assert!(asked.is_none_or(|then| now - then >= 11), "one at a time");
                            asked = Some(now);
                        }
                        Step::Wait => {
                            let longest = if known { 1 } else { 11 };
                            prop_assert!(asked.is_some_and(|then| now - then < longest));
                        }
                        Step::Fail(_) => prop_assert!(!known && asked.is_none()),
                    },
                }
                prop_assert!(!known || refresh.failure().is_none());
            }
        }
    }
}
