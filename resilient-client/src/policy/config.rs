//! Policies from a configuration file: TOML, JSON, YAML, whatever serde reads (feature `config`).
//! What may be in one is said where a user finds it, at [`PolicySet`]: `config/files.md`.

mod hedge_delay;
pub(crate) mod read;
mod write;

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use self::hedge_delay::HedgeDelay;
use self::read::{Human, Several, Switch, names, table};
use super::balance::BalancePolicy;
use super::breaker::BreakerPolicy;
use super::budget::BudgetPolicy;
use super::bulkhead::BulkheadPolicy;
use super::concurrency::{ConcurrencyPolicy, Kind};
use super::hedge::HedgePolicy;
use super::overload::OverloadPolicy;
use super::priority::Priority;
use super::rate_limit::RateLimitPolicy;
use super::retry::{Jitter, RetryPolicy};
use super::throttle::ThrottlePolicy;
use super::timeout::TimeoutPolicy;
use super::{Policy, PolicySet};

/// A change to `T`, as a file says it.
trait Change<T> {
    fn apply(self, to: T) -> T;
}

impl<C> Switch<C> {
    /// What becomes of a policy: nothing, or a change to what it was, or to its standard if it was
    /// off.
    fn turn<T: Default>(self, from: Option<T>) -> Option<T>
    where
        C: Change<T>,
    {
        match self {
            Self::Off => None,
            Self::On(change) => Some(change.apply(from.unwrap_or_default())),
        }
    }
}

table!(Timeout { total: Switch<Human>, attempt: Switch<Human>, connect: Switch<Human>, body_idle: Switch<Human>, stream_idle: Switch<Human> });
#[rustfmt::skip]
table!(Retry { max_attempts: u32, initial: Human, cap: Human, jitter: JitterName, hold_back_on_429: bool, idempotent: bool });
table!(Budget { capacity: u32, initial: u32, deposit_per_success: f64 });
table!(Breaker {
    failure_rate: f64,
    window: Human,
    window_calls: u32,
    slow_call: Switch<SlowCall>,
    min_calls: u32,
    consecutive_failures: u32,
    cold_consecutive_failures: u32,
    open_for: Human,
    open_cap: Human,
    probe_share: f64,
    probes: u32,
    probe_timeout: Human,
    abandoned_after: Human,
    wait_for_ready: bool,
    max_waiting: u32,
    ready_wait: Human,
    observe_only: bool,
});
table!(SlowCall { duration: Human, share: f64 });
table!(Bulkhead { max_in_flight: u32, max_queued: u32, queue_wait: Human, observe_only: bool });
table!(Hedge { delay: HedgeDelay, max_share: f64, burst: u32, max_hedges: u32 });
table!(RateLimit { count: u32, per: Human, burst: u32, wait: bool, observe_only: bool });
table!(Adaptive {
    kind: KindName,
    initial: u32,
    min: u32,
    max: u32,
    window: Human,
    min_samples: u32,
    remeasure: Human,
    tolerance: f64,
    queue: (f64, f64),
    backoff: f64,
    slow_after: Human,
});
table!(Balance { decay: Human, slow_start: Human, penalty: f64 });
table!(Overload { max_waiting: u32, wait: Human, observe_only: bool });
table!(Throttle { multiplier: f64, window: Human, observe_only: bool });

/// A table that says what its calls follow, beside what it is about.
macro_rules! policies {
    ($name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        table!($name {
            $($field: $type,)+
            timeout: Timeout,
            retry: Switch<Retry>,
            budget: Switch<Budget>,
            breaker: Switch<Breaker>,
            bulkhead: Switch<Bulkhead>,
            hedge: Switch<Hedge>,
            rate_limit: Switch<RateLimit>,
            throttle: Switch<Throttle>,
            concurrency: Switch<Adaptive>,
            overload: Switch<Overload>,
            balance: Balance,
            priority: PriorityName,
        });

        impl $name {
            /// What can't be a rule whatever it is applied to.
            fn half_a_rule(&self) -> Option<&'static str> {
                if let Some(Switch::On(Breaker { slow_call: Some(Switch::On(slow)), .. })) = &self.breaker
                    && (slow.duration.is_none() || slow.share.is_none())
                {
                    return Some("slow_call needs both `duration` and `share`");
                }
                if let Some(Switch::On(Breaker { window: Some(_), window_calls: Some(_), .. })) = &self.breaker {
                    return Some("breaker takes `window` or `window_calls`, not both");
                }
                if let Some(Switch::On(rate)) = &self.rate_limit
                    && (rate.count.is_none() || rate.per.is_none())
                {
                    return Some("rate_limit needs both `count` and `per`");
                }
                None
            }
        }
    };
}

// The whole file: the client's own policy, then hosts and routes.
policies!(File { preset: Preset, host: Several<HostTable>, route: Several<RouteTable> });
policies!(HostTable { origin: String });
policies!(RouteTable { origin: String, method: String, path: String });

names!(KindName(Kind) { "gradient" => Kind::Gradient, "vegas" => Kind::Vegas, "aimd" => Kind::Aimd });
names!(PriorityName(Priority) {
    "sheddable" => Priority::Sheddable,
    "normal" => Priority::Normal,
    "critical" => Priority::Critical,
});
names!(JitterName(Jitter) {
    "full" => Jitter::Full,
    "decorrelated" => Jitter::Decorrelated,
    "none" => Jitter::None,
});
// What a file starts from.
names!(Preset(Policy) { "standard" => Policy::standard(), "none" => Policy::none() });

/// Sets the fields that a table names.
macro_rules! set {
    ($to:ident, $from:ident, { $($field:ident $(. $inner:tt)?),+ $(,)? }) => {
        $(if let Some(value) = $from.$field { $to.$field = value $(. $inner)?; })+
    };
}

impl Change<TimeoutPolicy> for Timeout {
    fn apply(self, mut to: TimeoutPolicy) -> TimeoutPolicy {
        let turn = |bound: &mut Option<Duration>, switch: Option<Switch<Human>>| match switch {
            None => {}
            Some(Switch::Off) => *bound = None,
            Some(Switch::On(Human(duration))) => *bound = Some(duration),
        };
        turn(&mut to.total, self.total);
        to.attempt_is_set |= self.attempt.is_some();
        turn(&mut to.attempt, self.attempt);
        turn(&mut to.connect, self.connect);
        turn(&mut to.body_idle, self.body_idle);
        turn(&mut to.stream_idle, self.stream_idle);
        to
    }
}

impl Change<RetryPolicy> for Retry {
    fn apply(self, mut to: RetryPolicy) -> RetryPolicy {
        set!(to, self, { max_attempts, initial.0, cap.0, jitter.0, hold_back_on_429, idempotent });
        to
    }
}

impl Change<BudgetPolicy> for Budget {
    fn apply(self, mut to: BudgetPolicy) -> BudgetPolicy {
        set!(to, self, { capacity, initial, deposit_per_success });
        to
    }
}

impl Change<BreakerPolicy> for Breaker {
    fn apply(self, mut to: BreakerPolicy) -> BreakerPolicy {
        // The two kinds of window exclude each other: no table names both, and the setters see to
        // what was there before.
        if let Some(Human(window)) = self.window {
            to = to.window(window);
        }
        if let Some(calls) = self.window_calls {
            to = to.window_calls(calls);
        }
        match self.slow_call {
            Some(Switch::On(SlowCall { duration: Some(Human(duration)), share: Some(share) })) => {
                to = to.slow_call(duration, share);
            }
            Some(Switch::Off) => to.slow_call = None,
            _ => {} // Half a rule was refused.
        }
        set!(to, self, {
            failure_rate,
            min_calls,
            consecutive_failures,
            cold_consecutive_failures,
            open_for.0,
            open_cap.0,
            probe_share,
            probes,
            probe_timeout.0,
            abandoned_after.0,
            wait_for_ready,
            max_waiting,
            ready_wait.0,
            observe_only,
        });
        to
    }
}

impl Change<BulkheadPolicy> for Bulkhead {
    fn apply(self, mut to: BulkheadPolicy) -> BulkheadPolicy {
        set!(to, self, { max_in_flight, max_queued, queue_wait.0, observe_only });
        to
    }
}

impl Change<HedgePolicy> for Hedge {
    fn apply(self, mut to: HedgePolicy) -> HedgePolicy {
        set!(to, self, { delay.0, max_share, burst, max_hedges });
        to
    }
}

impl Switch<RateLimit> {
    /// A rate has no standard to start from: a table names all of it.
    fn rate(self) -> Option<RateLimitPolicy> {
        let Self::On(RateLimit { count: Some(count), per: Some(Human(per)), burst, wait, observe_only }) =
            self
        else {
            return None;
        };
        let mut to = RateLimitPolicy::new(count, per);
        to.burst = burst;
        to.wait = wait.unwrap_or(to.wait);
        to.observe_only = observe_only.unwrap_or(to.observe_only);
        Some(to)
    }
}

impl Change<ThrottlePolicy> for Throttle {
    fn apply(self, mut to: ThrottlePolicy) -> ThrottlePolicy {
        set!(to, self, { multiplier, window.0, observe_only });
        to
    }
}

impl Change<ConcurrencyPolicy> for Adaptive {
    fn apply(self, mut to: ConcurrencyPolicy) -> ConcurrencyPolicy {
        if self.kind.as_ref().is_some_and(|KindName(kind)| *kind != to.kind) {
            to = to.without_what_kinds_have();
        }
        set!(to, self, { kind.0, initial, min, max, window.0, min_samples });
        to.remeasure = self.remeasure.map(|Human(every)| every).or(to.remeasure);
        to.tolerance = self.tolerance.or(to.tolerance);
        to.queue = self.queue.or(to.queue);
        to.backoff = self.backoff.or(to.backoff);
        to.slow_after = self.slow_after.map(|Human(age)| age).or(to.slow_after);
        to
    }
}

impl Change<OverloadPolicy> for Overload {
    fn apply(self, mut to: OverloadPolicy) -> OverloadPolicy {
        set!(to, self, { max_waiting, wait.0, observe_only });
        to
    }
}

impl Change<BalancePolicy> for Balance {
    fn apply(self, mut to: BalancePolicy) -> BalancePolicy {
        set!(to, self, { decay.0, slow_start.0, penalty });
        to
    }
}

/// Applies the policies that a table names to one that is there.
macro_rules! apply {
    ($table:ident, $to:ident) => {{
        let mut policy = $to;
        if let Some(change) = $table.timeout {
            policy.timeout = change.apply(policy.timeout);
        }
        if let Some(switch) = $table.retry {
            policy.retry = switch.turn(policy.retry);
        }
        if let Some(switch) = $table.budget {
            policy.budget = switch.turn(policy.budget);
        }
        if let Some(switch) = $table.breaker {
            policy.breaker = switch.turn(policy.breaker);
        }
        if let Some(switch) = $table.bulkhead {
            policy.bulkhead = switch.turn(policy.bulkhead);
        }
        if let Some(switch) = $table.hedge {
            policy.hedge = switch.turn(policy.hedge);
        }
        if let Some(switch) = $table.rate_limit {
            policy.rate_limit = switch.rate();
        }
        if let Some(switch) = $table.throttle {
            policy.throttle = switch.turn(policy.throttle);
        }
        if let Some(switch) = $table.concurrency {
            policy.concurrency = switch.turn(policy.concurrency);
        }
        if let Some(switch) = $table.overload {
            policy.overload = switch.turn(policy.overload);
        }
        if let Some(change) = $table.balance {
            policy.balance = change.apply(policy.balance);
        }
        if let Some(PriorityName(priority)) = $table.priority {
            policy.priority = priority;
        }
        policy
    }};
}

impl<'de> Deserialize<'de> for PolicySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = File::deserialize(deserializer)?;
        let missing = |table: &str, what: &str| D::Error::custom(format_args!("{table} without `{what}`"));
        let of_hosts = file.host.iter().flat_map(|Several(hosts)| hosts).find_map(HostTable::half_a_rule);
        let of_routes =
            file.route.iter().flat_map(|Several(routes)| routes).find_map(RouteTable::half_a_rule);
        if let Some(problem) = file.half_a_rule().or(of_hosts).or(of_routes) {
            return Err(D::Error::custom(problem));
        }
        let base = file.preset.map_or_else(Policy::standard, |Preset(policy)| policy);
        let mut set = Self::new(apply!(file, base));
        for host in file.host.map_or_else(Vec::new, |Several(hosts)| hosts) {
            let origin = host.origin.ok_or_else(|| missing("host", "origin"))?;
            if let Some(earlier) = set.host_like(&origin) {
                let problem =
                    format_args!("host {origin:?} is the same as host {earlier:?}: give it one table");
                return Err(D::Error::custom(problem));
            }
            set = set.host(origin, |policy| apply!(host, policy));
        }
        for route in file.route.map_or_else(Vec::new, |Several(routes)| routes) {
            let origin = route.origin.ok_or_else(|| missing("route", "origin"))?;
            let path = route.path.ok_or_else(|| missing("route", "path"))?;
            let method = route.method.unwrap_or_else(|| "*".to_owned());
            set = set.route(origin, method, path, |policy| apply!(route, policy));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests;
