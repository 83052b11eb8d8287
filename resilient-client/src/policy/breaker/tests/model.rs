//! The breaker against one as one would write it on a whiteboard: every outcome in a list, everything recomputed.

use std::collections::VecDeque;

use super::super::pause::After;
use super::super::rules::{Numbers, Span};
use super::*;

#[derive(Clone, Copy, Debug)]
struct Outcome {
    at: u64,
    failed: bool,
    slow: bool,
    /// A success that was taken back.
    void: bool,
}

/// Who gets in while it is open or half-open.
#[derive(Clone, Copy, Debug)]
enum Shut {
    /// Whoever comes.
    No,
    /// Nobody before the probes that are out are decided, or this.
    Lease(u64),
    /// Nobody between these two, and in between when enough have been turned away.
    Pause { after: After, shortest: u64, longest: u64, forward: u64 },
}

#[derive(Debug)]
struct Model {
    rules: Option<Numbers>,
    state: State,
    forced: bool,
    generation: u64,
    outcomes: VecDeque<Outcome>,
    streak: u32,
    /// Bodies that failed in a row, and when one last ended well.
    bodies: u32,
    well: Option<u64>,
    /// The connections that failed, when the last event began, and what events took in since when.
    connections: VecDeque<u64>,
    lost: Option<u64>,
    taken_in: (u32, u64),
    reopens: u32,
    undecided: u32,
    newest: u32,
    followed: u32,
    shut: Shut,
    turned_away: (u32, u64),
    taken: u32,
    succeeded: u32,
    lease_end: u64,
}

impl Model {
    fn new(rules: Numbers) -> Self {
        Self {
            rules: Some(rules),
            state: State::Closed,
            forced: false,
            generation: 0,
            outcomes: VecDeque::new(),
            streak: 0,
            bodies: 0,
            well: None,
            connections: VecDeque::new(),
            lost: None,
            taken_in: (0, 0),
            reopens: 0,
            undecided: 0,
            newest: 0,
            followed: 0,
            shut: Shut::No,
            turned_away: (0, 0),
            taken: 0,
            succeeded: 0,
            lease_end: 0,
        }
    }

    fn go(&mut self, to: State, cause: Cause) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        self.generation += 1;
        self.streak = 0;
        self.taken = 0;
        self.succeeded = 0;
        self.lease_end = 0;
        (self.newest, self.followed) = (0, 0);
        Transition { from, to, cause, generation: self.generation }
    }

    fn open(&mut self, cause: Cause, now: u64, unit: f64) -> Transition {
        let falsely = self.state == State::Closed && self.reopens > 0;
        if self.state != State::HalfOpen {
            self.turned_away = (0, now);
        }
        self.undecided = 0;
        self.pause(After::Opening, now, unit);
        if let (true, Shut::Pause { forward, .. }) = (falsely, &mut self.shut) {
            *forward = 0;
        }
        self.go(State::Open, cause)
    }

    fn pause(&mut self, after: After, now: u64, unit: f64) {
        let rules = self.rules.unwrap();
        let most = if after == After::Departure { rules.probe_timeout_nanos } else { u64::MAX };
        let spread = |time: u64| now + (time - time / 10 + (time as f64 / 5.0 * unit) as u64).min(most);
        let vain = self.reopens + self.undecided;
        let time = (rules.open_nanos << vain.min(20)).min(rules.open_cap_nanos);
        let forward = (time as f64 * f64::from(rules.probe_share)) as u64;
        self.shut = Shut::Pause { after, shortest: spread(rules.open_nanos), longest: spread(time), forward };
    }

    /// How many probes may be out.
    fn slots(&self) -> u32 {
        if self.succeeded == 0 { 1 } else { self.rules.unwrap().probes }
    }

    fn offer(&mut self) {
        self.shut = if self.taken >= self.slots() { Shut::Lease(self.lease_end) } else { Shut::No };
    }

    /// For how long nobody gets in.
    fn left(&self, now: u64) -> Option<u64> {
        match self.shut {
            Shut::No => None,
            Shut::Lease(end) => Some(end.saturating_sub(now).min(self.rules.unwrap().open_nanos)),
            Shut::Pause { after, shortest, longest, forward } => {
                let (calls, since) = self.turned_away;
                let forward = forward * u64::from(calls);
                let end = longest.saturating_sub(forward);
                let at_most = end.max(shortest).min(longest).saturating_sub(now);
                if at_most == 0 {
                    return None;
                }
                let mut left = end.saturating_sub(now);
                let passed = (now / 1_000_000 - since / 1_000_000) * 1_000_000;
                if forward > 0 && passed > 0 {
                    left = (left as f64 / (1.0 + forward as f64 / passed as f64)) as u64;
                }
                let left = left.max(shortest.saturating_sub(now)).max(1);
                let hint = self.rules.unwrap().open_nanos.div_ceil(1000) * 1000;
                Some(if after == After::Departure { left.min(hint) } else { left })
            }
        }
        .filter(|left| *left > 0)
    }

    fn close(&mut self, cause: Cause) -> Transition {
        self.forced = false;
        if cause != Cause::ProbesSucceeded {
            (self.bodies, self.well) = (0, None);
        }
        self.reopens = if self.bodies == 0 { 0 } else { self.reopens + 1 };
        self.outcomes.clear();
        (self.undecided, self.shut) = (0, Shut::No);
        self.go(if self.rules.is_some() { State::Closed } else { State::Disabled }, cause)
    }

    fn acquire(&mut self, now: u64) -> Result<(u64, Option<Transition>), u64> {
        let mut transition = None;
        match self.state {
            State::ForcedOpen => return Err(self.rules.map_or(250_000_000, |rules| rules.open_nanos)),
            State::Open | State::HalfOpen => {
                if let Some(left) = self.left(now) {
                    self.turned_away.0 += 1;
                    return Err(left);
                }
                if self.state == State::Open {
                    transition = Some(self.go(State::HalfOpen, Cause::OpenTimeElapsed));
                } else if self.taken >= self.slots() {
                    if self.succeeded == 0 && now < self.lease_end {
                        self.taken -= 1;
                        self.undecided += 1;
                        self.followed = self.newest + 1;
                    } else {
                        transition = Some(self.go(State::HalfOpen, Cause::ProbesExpired));
                    }
                }
                self.taken += 1;
                self.newest += 1;
                self.turned_away = (0, now);
                self.lease_end = self.lease_end.max(now + self.rules.unwrap().probe_timeout_nanos);
                if self.succeeded == 0 {
                    self.pause(After::Departure, now, 0.5);
                } else {
                    self.offer();
                }
            }
            _ => {}
        }
        Ok((self.generation, transition))
    }

    /// Failures, successes, slow calls.
    fn window(&self, now: u64) -> (u32, u32, u32) {
        let Some(rules) = self.rules else { return (0, 0, 0) };
        let all = self.outcomes.iter();
        let recent: Vec<_> = match rules.span {
            Span::Time { bucket_nanos } => {
                all.filter(|outcome| outcome.at / bucket_nanos + 10 > now / bucket_nanos).collect()
            }
            Span::Calls(calls) => all.rev().take(calls as usize).collect(),
        };
        let count = |of: fn(&Outcome) -> bool| recent.iter().filter(|outcome| of(outcome)).count() as u32;
        (
            count(|outcome| outcome.failed && !outcome.void),
            count(|outcome| !outcome.failed && !outcome.void),
            count(|outcome| outcome.slow),
        )
    }

    /// Whether a failure tells of what has been counted.
    fn knows(&mut self, cause: FailureCause, took: u64, streak: u32, now: u64) -> bool {
        match cause {
            FailureCause::Own => false,
            FailureCause::Connection(id) if self.connections.contains(&id) => true,
            FailureCause::Connection(id) => {
                self.connections.push_back(id);
                if self.connections.len() > 8 {
                    self.connections.pop_front();
                }
                false
            }
            FailureCause::Lost => {
                let of_the_event = |lost: u64| now - lost < 250_000_000 && now - lost < 50_000_000 + took;
                if self.lost.is_some_and(of_the_event) {
                    self.taken_in.0 += 1;
                    return true;
                }
                if now - self.taken_in.1 >= 10_000_000_000 {
                    self.taken_in = (0, now);
                }
                if streak == 0 && (self.taken_in.0 == 0 || self.taken_in.0 <= self.window(now).1) {
                    self.lost = Some(now);
                }
                false
            }
        }
    }

    /// The rule that the outcome just counted breaks.
    fn broken(&self, failed: bool, slow: bool, streak: u32, cold: bool, now: u64) -> Option<Cause> {
        let rules = self.rules?;
        let (failures, successes, slow_calls) = self.window(now);
        let calls = failures + successes;
        let share = |part: u32| f64::from(part) / f64::from(calls);
        let enough = calls >= rules.min_calls;
        if self.state == State::ForcedClosed {
            None
        } else if failed && enough && share(failures) >= rules.failure_rate {
            Some(Cause::FailureRate { failures, calls })
        } else if failed && streak >= rules.consecutive_failures {
            Some(Cause::ConsecutiveFailures(streak))
        } else if failed && streak >= rules.cold_consecutive_failures && cold {
            Some(Cause::ColdFailures(streak))
        } else if slow && enough && share(slow_calls) > rules.slow_rate {
            Some(Cause::SlowRate { slow: slow_calls, calls })
        } else {
            None
        }
    }

    fn record(
        &mut self,
        (generation, number): (u64, u32),
        (verdict, cause): (Verdict, FailureCause),
        took: u64,
        now: u64,
        unit: f64,
    ) -> Option<Transition> {
        let rules = self.rules?;
        if generation != self.generation {
            return None;
        }
        let counts = matches!(self.state, State::Closed | State::ForcedClosed | State::HalfOpen);
        let known = counts && verdict == Verdict::Failure && self.knows(cause, took, self.streak, now);
        let verdict = if known { Verdict::Neutral } else { verdict };
        let (failed, slow) = (verdict == Verdict::Failure, took > rules.slow_nanos);
        let followed = number < self.followed;
        match (self.state, verdict) {
            (State::Closed | State::ForcedClosed, Verdict::Success | Verdict::Failure) => {
                self.outcomes.push_back(Outcome { at: now, failed, slow, void: false });
                self.streak = if failed { self.streak + 1 } else { 0 };
                if self.state == State::Closed && (failed || slow) && self.bodies == 0 {
                    self.reopens = 0;
                }
                let cold = self.window(now).1 == 0;
                let cause = self.broken(failed, slow, self.streak, cold, now)?;
                Some(self.open(cause, now, unit))
            }
            (State::HalfOpen, _) if followed && (slow || verdict != Verdict::Success) => None,
            (State::HalfOpen, Verdict::Failure) => {
                self.reopens += 1;
                Some(self.open(Cause::ProbeFailed, now, unit))
            }
            (State::HalfOpen, Verdict::Success) if slow => {
                self.reopens += 1;
                Some(self.open(Cause::ProbeSlow, now, unit))
            }
            (State::HalfOpen, Verdict::Success) => {
                self.succeeded += 1;
                self.taken += u32::from(followed);
                self.undecided = 0;
                if self.succeeded >= rules.probes {
                    return Some(self.close(Cause::ProbesSucceeded));
                }
                self.offer();
                None
            }
            (State::HalfOpen, Verdict::Neutral) => {
                self.taken -= 1;
                self.pause(After::Undecided, now, unit);
                self.undecided += 1;
                None
            }
            _ => None,
        }
    }

    /// A probe was never sent.
    fn release(&mut self, (generation, number): (u64, u32)) {
        if generation == self.generation && self.state == State::HalfOpen && number >= self.followed {
            self.taken -= 1;
            if !matches!(self.shut, Shut::Pause { after: After::Undecided, .. }) {
                self.offer();
            }
        }
    }

    /// What became of a body whose head succeeded at `then`.
    fn record_body(
        &mut self,
        generation: u64,
        (verdict, cause): (Verdict, FailureCause),
        then: u64,
        now: u64,
        unit: f64,
    ) -> Option<Transition> {
        let counts = matches!(self.state, State::Closed | State::ForcedClosed | State::HalfOpen);
        if generation != self.generation || !counts {
            return None;
        }
        match verdict {
            Verdict::Neutral => return None,
            Verdict::Success => {
                self.well = Some(self.well.filter(|well| now - well < 1_000_000_000).unwrap_or(now));
                self.bodies = 0;
                return None;
            }
            Verdict::Failure => {}
        }
        let rules = self.rules?;
        if self.knows(cause, 0, self.streak.max(self.bodies), now) {
            let stays = self.state == State::HalfOpen || rules.judges_slowness();
            if let (Span::Time { bucket_nanos }, false) = (rules.span, stays) {
                let success =
                    |o: &&mut Outcome| !o.failed && !o.void && o.at / bucket_nanos == then / bucket_nanos;
                if let Some(taken) = self.outcomes.iter_mut().find(success) {
                    taken.void = true;
                }
            }
            return None;
        }
        self.bodies += 1;
        if self.state == State::HalfOpen {
            self.reopens += 1;
            return Some(self.open(Cause::ProbeFailed, now, unit));
        }
        if self.bodies == 1 {
            self.reopens = 0;
        }
        let failed = Outcome { at: now, failed: true, slow: false, void: false };
        let success = |outcome: &&mut Outcome| !outcome.failed && !outcome.void;
        match rules.span {
            Span::Time { bucket_nanos } => {
                let bucket = |at: u64| at / bucket_nanos;
                let mut all = self.outcomes.iter_mut();
                if let Some(taken) = all.find(|o| success(o) && bucket(o.at) == bucket(then)) {
                    taken.void = true;
                }
                self.outcomes.push_back(failed);
            }
            Span::Calls(calls) => match self.outcomes.iter_mut().rev().take(calls as usize).find(success) {
                Some(newest) => newest.failed = true,
                None => self.outcomes.push_back(failed),
            },
        }
        let cold = match rules.span {
            Span::Time { bucket_nanos } => self.well.is_none_or(|well| now - well >= 10 * bucket_nanos),
            Span::Calls(_) => false,
        };
        let cause = self.broken(true, false, self.bodies, cold, now)?;
        Some(self.open(cause, now, unit))
    }

    fn control(&mut self, control: Control) -> Option<Transition> {
        let to = match control {
            Control::ForceOpen => State::ForcedOpen,
            Control::ForceClosed => State::ForcedClosed,
            Control::Disable => State::Disabled,
            Control::Enable => return self.forced.then(|| self.close(Cause::Released)),
            Control::Reset => return Some(self.close(Cause::Reset)),
            Control::Observe => unreachable!("`observing` observes all the time"),
        };
        if self.forced && self.state == to {
            return None;
        }
        self.forced = true;
        Some(self.go(to, Cause::Forced))
    }

    fn set_rules(&mut self, rules: Option<Numbers>) -> Option<Transition> {
        let before = std::mem::replace(&mut self.rules, rules);
        if before.map(|rules| rules.span) != rules.map(|rules| rules.span) {
            self.outcomes.clear();
        }
        if before.map(|rules| rules.judges_slowness()) != rules.map(|rules| rules.judges_slowness()) {
            self.outcomes.iter_mut().for_each(|outcome| outcome.slow = false);
        }
        if let Some(rules) = rules
            && self.state == State::HalfOpen
        {
            if self.succeeded >= rules.probes {
                return Some(self.close(Cause::ProbesSucceeded));
            }
            if !matches!(self.shut, Shut::Pause { .. }) {
                self.offer();
            }
        }
        match (before, rules) {
            (Some(_), None) if !self.forced => Some(self.go(State::Disabled, Cause::RulesChanged)),
            (None, Some(_)) if !self.forced => Some(self.close(Cause::RulesChanged)),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Acquire,
    Record { which: usize, verdict: Verdict, cause: FailureCause, took: u64, unit: f64 },
    Body { which: usize, verdict: Verdict, cause: FailureCause, unit: f64 },
    Lose { which: usize },
    Release { which: usize },
    Wait(u64),
    Control(Control),
    Rules(Option<BreakerPolicy>),
}

/// What counts as slow, where that is judged.
const SLOW: u64 = 100_000_000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict =
        || prop_oneof![3 => Just(Verdict::Success), 3 => Just(Verdict::Failure), 1 => Just(Verdict::Neutral)];
    let cause = || {
        prop_oneof![
            6 => Just(FailureCause::Own),
            1 => Just(FailureCause::Lost),
            1 => (0_u64..12).prop_map(FailureCause::Connection),
        ]
    };
    let took = prop_oneof![Just(0), Just(SLOW), Just(SLOW + 1), 0..3 * SLOW];
    let wait = prop_oneof![
        4 => 0_u64..50_000_000,
        2 => 50_000_000_u64..600_000_000,
        1 => 600_000_000_u64..5_000_000_000,
    ];
    let step = prop_oneof![
        60 => Just(Step::Acquire),
        60 => (any::<usize>(), verdict(), cause(), took, 0.0..1.0)
            .prop_map(|(which, verdict, cause, took, unit)| Step::Record { which, verdict, cause, took, unit }),
        20 => (any::<usize>(), verdict(), cause(), 0.0..1.0)
            .prop_map(|(which, verdict, cause, unit)| Step::Body { which, verdict, cause, unit }),
        10 => any::<usize>().prop_map(|which| Step::Lose { which }),
        10 => any::<usize>().prop_map(|which| Step::Release { which }),
        20 => wait.prop_map(Step::Wait),
        1 => prop::sample::select(Control::ALL.into_iter().filter(|control| *control != Control::Observe).collect::<Vec<_>>()).prop_map(Step::Control),
        1 => prop::option::weighted(0.8, policies()).prop_map(Step::Rules),
    ];
    prop::collection::vec(step, 1..400)
}

fn policies() -> impl Strategy<Value = BreakerPolicy> {
    let window = prop_oneof![(100_u64..2000).prop_map(Ok), (0_u32..100).prop_map(Err)];
    let slow = prop::option::of(0.1..0.9);
    let share = prop_oneof![Just(0.0), Just(0.02), 0.0..=1.0];
    (0.1..=1.0, window, 1_u32..12, 1_u32..10, 1_u32..6, 1_u32..4, (slow, share)).prop_map(
        |(rate, window, calls, row, cold, probes, (slow, share))| {
            let policy = BreakerPolicy::standard()
                .failure_rate(rate)
                .min_calls(calls)
                .consecutive_failures(row)
                .cold_consecutive_failures(cold)
                .probes(probes)
                .open_for(ms(100))
                .open_cap(ms(350))
                .probe_share(share)
                .probe_timeout(ms(400));
            let policy = match window {
                Ok(time) => policy.window(ms(time)),
                Err(more) => policy.window_calls(calls + more),
            };
            slow.map_or(policy.clone(), |share| policy.slow_call(Duration::from_nanos(SLOW), share))
        },
    )
}

/// A call out: its permit, and that of the breaker that only observes.
type Out = (Option<Permit>, Option<Permit>);

/// Its generation and, of a probe, its number in it.
fn of(permit: &Permit) -> (u64, u32) {
    (permit.generation(), permit.number().into())
}

/// Both machines agree with the model on whether a call may go, and the observing one lets it go all the same. (Without
/// rules there is nothing that tells it to observe only.)
fn acquire(
    breaker: &Breaker,
    observing: &Breaker,
    model: &mut Model,
    now: Tick,
) -> Result<Out, TestCaseError> {
    let peek = breaker.rejects_now(now);
    let shadow_peek = observing.rejects_now(now);
    let shadow = observing.try_acquire(now);
    match (breaker.try_acquire(now), model.acquire(now.as_nanos()), shadow) {
        (Ok(admitted), Ok((generation, transition)), Ok(shadow)) => {
            prop_assert_eq!((peek, shadow_peek), (None, None));
            prop_assert_eq!(admitted.transition, transition);
            prop_assert_eq!(admitted.would_reject, None);
            prop_assert_eq!(admitted.permit.generation(), generation);
            prop_assert_eq!(admitted.permit.is_probe(), model.state == State::HalfOpen);
            prop_assert_eq!(shadow.transition, transition);
            prop_assert_eq!(shadow.would_reject, None);
            prop_assert_eq!(shadow.permit.is_probe(), admitted.permit.is_probe());
            Ok((Some(admitted.permit), Some(shadow.permit)))
        }
        (Err(rejected), Err(wait), Ok(shadow)) => {
            prop_assert_eq!(rejected.retry_after, Duration::from_nanos(wait));
            prop_assert_eq!((peek, shadow_peek), (Some(rejected.retry_after), None));
            prop_assert_eq!(shadow.would_reject, Some(rejected.retry_after));
            prop_assert_eq!(shadow.transition, None);
            prop_assert!(!shadow.permit.is_probe());
            Ok((None, Some(shadow.permit)))
        }
        (Err(rejected), Err(wait), Err(shadow)) if model.rules.is_none() => {
            prop_assert_eq!((rejected.retry_after, shadow), (Duration::from_nanos(wait), rejected));
            Ok((None, None))
        }
        answers => Err(TestCaseError::fail(format!("they disagree: {answers:?}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_the_model_does_and_observing_changes_nothing_but_that_nothing_is_rejected(
        policy in policies(), steps in steps(),
    ) {
        let rules = policy.compile().unwrap();
        let (breaker, mut model) = (Breaker::new(rules.clone()), Model::new(rules.numbers));
        let observing = Breaker::new(policy.observe_only(true).compile().unwrap());
        let mut now = START;
        let mut out: Vec<Out> = Vec::new();
        let mut bodies: Vec<(Option<BodyPermit>, Option<BodyPermit>, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(nanos) => now = now.after_nanos(nanos),
                Step::Acquire => out.push(acquire(&breaker, &observing, &mut model, now)?),
                Step::Record { which, verdict, cause, took, unit } if !out.is_empty() => {
                    let (permit, shadow) = out.swap_remove(which % out.len());
                    if verdict == Verdict::Success {
                        let body = |permit: &Option<Permit>| permit.as_ref().map(Permit::body);
                        bodies.push((body(&permit), body(&shadow), now.as_nanos()));
                    }
                    let expected = permit.as_ref().and_then(|permit| {
                        model.record(of(permit), (verdict, cause), took, now.as_nanos(), unit)
                    });
                    let record = |breaker: &Breaker, permit| {
                        let result = CallResult::new(verdict, Duration::from_nanos(took)).caused_by(cause);
                        breaker.record(permit, result, now, || unit)
                    };
                    prop_assert_eq!(permit.and_then(|permit| record(&breaker, permit)), expected);
                    prop_assert_eq!(shadow.and_then(|permit| record(&observing, permit)), expected);
                }
                Step::Body { which, verdict, cause, unit } if !bodies.is_empty() => {
                    let (permit, shadow, then) = bodies.swap_remove(which % bodies.len());
                    let expected = permit.as_ref().and_then(|permit| {
                        let generation = permit.era.generation();
                        model.record_body(generation, (verdict, cause), then, now.as_nanos(), unit)
                    });
                    let record = |breaker: &Breaker, permit| {
                        let result = BodyResult::new(verdict, Tick::from_nanos(then)).caused_by(cause);
                        breaker.record_body(permit, result, now, || unit)
                    };
                    prop_assert_eq!(permit.and_then(|permit| record(&breaker, permit)), expected);
                    prop_assert_eq!(shadow.and_then(|permit| record(&observing, permit)), expected);
                }
                Step::Lose { which } if !out.is_empty() => drop(out.swap_remove(which % out.len())),
                Step::Release { which } if !out.is_empty() => {
                    let (permit, shadow) = out.swap_remove(which % out.len());
                    if let Some(permit) = permit {
                        model.release(of(&permit));
                        breaker.release(permit);
                    }
                    if let Some(shadow) = shadow {
                        observing.release(shadow);
                    }
                }
                Step::Record { .. } | Step::Body { .. } | Step::Lose { .. } | Step::Release { .. } => {}
                Step::Control(control) => {
                    let expected = model.control(control);
                    prop_assert_eq!(breaker.control(control), expected);
                    prop_assert_eq!(observing.control(control), expected);
                }
                Step::Rules(policy) => {
                    let rules = policy.clone().map(|policy| policy.compile().unwrap());
                    let shadow = policy.map(|policy| policy.observe_only(true).compile().unwrap());
                    let expected = model.set_rules(rules.as_ref().map(|rules| rules.numbers));
                    prop_assert_eq!(breaker.set_rules(rules), expected);
                    prop_assert_eq!(observing.set_rules(shadow), expected);
                }
            }
            let snapshot = breaker.snapshot(now);
            prop_assert_eq!((snapshot.state, snapshot.forced), (model.state, model.forced));
            prop_assert_eq!(snapshot.generation, model.generation);
            let counts = (snapshot.failures, snapshot.successes, snapshot.slow);
            prop_assert_eq!(counts, model.window(now.as_nanos()));
            prop_assert_eq!((snapshot.streak, snapshot.reopens), (model.streak, model.reopens));
            prop_assert_eq!(snapshot.probes, model.taken - model.succeeded);
            let observes = Snapshot { observe_only: model.rules.is_some(), ..snapshot };
            prop_assert_eq!(observing.snapshot(now), observes);
        }
    }
}
