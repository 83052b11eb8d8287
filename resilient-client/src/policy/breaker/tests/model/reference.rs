//! The breaker as one would write it on a whiteboard: every outcome in a list, everything
//! recomputed.

use super::super::super::pause::After;
use super::super::super::rules::{Numbers, Span};
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
pub(super) struct Model {
    pub(super) rules: Option<Numbers>,
    pub(super) state: State,
    pub(super) forced: bool,
    pub(super) generation: u64,
    outcomes: VecDeque<Outcome>,
    pub(super) streak: u32,
    /// Bodies that failed in a row, and when one last ended well.
    bodies: u32,
    well: Option<u64>,
    /// The connections that failed, when the last event began, and what events took in since when.
    connections: VecDeque<u64>,
    lost: Option<u64>,
    taken_in: (u32, u64),
    pub(super) reopens: u32,
    undecided: u32,
    newest: u32,
    followed: u32,
    shut: Shut,
    turned_away: (u32, u64),
    pub(super) taken: u32,
    pub(super) succeeded: u32,
    lease_end: u64,
}

impl Model {
    pub(super) fn new(rules: Numbers) -> Self {
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

    /// Its generation, or how long to wait if anybody knows.
    pub(super) fn acquire(&mut self, now: u64) -> Result<(u64, Option<Transition>), Option<u64>> {
        let mut transition = None;
        match self.state {
            State::ForcedOpen => return Err(None),
            State::Open | State::HalfOpen => {
                if let Some(left) = self.left(now) {
                    self.turned_away.0 += 1;
                    return Err(Some(left));
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
    pub(super) fn window(&self, now: u64) -> (u32, u32, u32) {
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

    pub(super) fn record(
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
    pub(super) fn release(&mut self, (generation, number): (u64, u32)) {
        if generation == self.generation && self.state == State::HalfOpen && number >= self.followed {
            self.taken -= 1;
            if !matches!(self.shut, Shut::Pause { after: After::Undecided, .. }) {
                self.offer();
            }
        }
    }

    /// What became of a body whose head succeeded at `then`.
    pub(super) fn record_body(
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

    pub(super) fn control(&mut self, control: Control) -> Option<Transition> {
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

    pub(super) fn set_rules(&mut self, rules: Option<Numbers>) -> Option<Transition> {
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
