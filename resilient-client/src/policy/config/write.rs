//! Writing policies as a file would say them, so that what is in force can be shown, compared and
//! read again.

use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::policy::balance::BalancePolicy;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::budget::BudgetPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::concurrency::{ConcurrencyPolicy, Kind};
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::overload::OverloadPolicy;
use crate::policy::priority::Priority;
use crate::policy::rate_limit::RateLimitPolicy;
use crate::policy::retry::{Jitter, RetryPolicy};
use crate::policy::set::Named;
use crate::policy::throttle::ThrottlePolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::policy::{Policy, PolicySet};

/// A setting as a file has it.
enum Value {
    Off,
    Time(Duration),
    Count(u32),
    Number(f64),
    Flag(bool),
    Text(String),
    Pair(f64, f64),
    Table(Table),
    List(Vec<Table>),
}

/// Settings by name. What isn't set isn't there.
struct Table(Vec<(&'static str, Value)>);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Time(time) => serializer.collect_str(&humantime::format_duration(*time)),
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Pair(low, high) => (low, high).serialize(serializer),
            Self::Table(table) => table.serialize(serializer),
            Self::List(tables) => tables.serialize(serializer),
        }
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for PolicySet {
    /// As a file says it: each setting of the client's policy with its value; of a host or route
    /// the policies that differ from those it began from. Read again it is the same set, but for
    /// what a file can't say: a classifier, a trip rule or delays of one's own, and that a host or
    /// route lacks an attempt timeout, or a setting of its adaptive limit, which whoever it began
    /// from has.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut file = self.base().written(|_| true);
        let list = |named: Vec<Named<'_>>| {
            let tables = named.into_iter().map(|named| {
                let differs = named.began_from.names_of_differences(named.policy);
                let mut table = vec![("origin", Value::Text(named.origin.to_owned()))];
                if let Some((method, template)) = named.route {
                    table.push(("method", Value::Text(method.to_owned())));
                    table.push(("path", Value::Text(template.to_owned())));
                }
                table.extend(named.policy.written(|name| differs.contains(&name)));
                Table(table)
            });
            Value::List(tables.collect())
        };
        file.extend([("host", list(self.hosts())), ("route", list(self.routes()))]);
        // A file may name no host: an empty list is nothing to read.
        file.retain(|(_, value)| !matches!(value, Value::List(tables) if tables.is_empty()));
        Table(file).serialize(serializer)
    }
}

impl Policy {
    /// The policies that are wanted, by name.
    fn written(&self, wanted: impl Fn(&str) -> bool) -> Vec<(&'static str, Value)> {
        let Self {
            timeout,
            retry,
            budget,
            breaker,
            bulkhead,
            hedge,
            rate_limit,
            throttle,
            concurrency,
            overload,
            balance,
            priority,
            classifier: _,
        } = self;
        let mut table = vec![
            ("priority", Value::Text(name_of_priority(*priority).to_owned())),
            ("timeout", timeout.written()),
            ("retry", switch(retry.as_ref().map(RetryPolicy::written))),
            ("budget", switch(budget.as_ref().map(BudgetPolicy::written))),
            ("breaker", switch(breaker.as_ref().map(BreakerPolicy::written))),
            ("bulkhead", switch(bulkhead.as_ref().map(BulkheadPolicy::written))),
            ("hedge", switch(hedge.as_ref().map(HedgePolicy::written))),
            ("rate_limit", switch(rate_limit.as_ref().map(RateLimitPolicy::written))),
            ("throttle", switch(throttle.as_ref().map(ThrottlePolicy::written))),
            ("concurrency", switch(concurrency.as_ref().map(ConcurrencyPolicy::written))),
            ("overload", switch(overload.as_ref().map(OverloadPolicy::written))),
            ("balance", balance.written()),
        ];
        table.retain(|(name, _)| wanted(name));
        table
    }
}

fn switch(on: Option<Value>) -> Value {
    on.unwrap_or(Value::Off)
}

fn bound(time: Option<Duration>) -> Value {
    time.map_or(Value::Off, Value::Time)
}

fn table(all: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    Value::Table(Table(all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()))
}

impl TimeoutPolicy {
    fn written(&self) -> Value {
        let Self { total, attempt, attempt_is_set, connect, body_idle, stream_idle } = *self;
        table([
            ("total", Some(bound(total))),
            ("attempt", attempt_is_set.then(|| bound(attempt))),
            ("connect", Some(bound(connect))),
            ("body_idle", Some(bound(body_idle))),
            ("stream_idle", Some(bound(stream_idle))),
        ])
    }
}

impl RetryPolicy {
    fn written(&self) -> Value {
        let Self { max_attempts, initial, cap, jitter, hold_back_on_429, idempotent, delays: _ } = self;
        let jitter = match jitter {
            Jitter::Full => "full",
            Jitter::Decorrelated => "decorrelated",
            Jitter::None => "none",
        };
        table([
            ("max_attempts", Some(Value::Count(*max_attempts))),
            ("initial", Some(Value::Time(*initial))),
            ("cap", Some(Value::Time(*cap))),
            ("jitter", Some(Value::Text(jitter.to_owned()))),
            ("hold_back_on_429", Some(Value::Flag(*hold_back_on_429))),
            ("idempotent", Some(Value::Flag(*idempotent))),
        ])
    }
}

impl BudgetPolicy {
    fn written(&self) -> Value {
        let Self { capacity, initial, deposit_per_success } = *self;
        table([
            ("capacity", Some(Value::Count(capacity))),
            ("initial", Some(Value::Count(initial))),
            ("deposit_per_success", Some(Value::Number(deposit_per_success))),
        ])
    }
}

impl BreakerPolicy {
    fn written(&self) -> Value {
        let slow = self.slow_call.map(|(duration, share)| {
            table([("duration", Some(Value::Time(duration))), ("share", Some(Value::Number(share)))])
        });
        table([
            ("failure_rate", Some(Value::Number(self.failure_rate))),
            ("window", self.window_calls.is_none().then_some(Value::Time(self.window))),
            ("window_calls", self.window_calls.map(Value::Count)),
            ("slow_call", Some(switch(slow))),
            ("min_calls", Some(Value::Count(self.min_calls))),
            ("consecutive_failures", Some(Value::Count(self.consecutive_failures))),
            ("cold_consecutive_failures", Some(Value::Count(self.cold_consecutive_failures))),
            ("open_for", Some(Value::Time(self.open_for))),
            ("open_cap", Some(Value::Time(self.open_cap))),
            ("probe_share", Some(Value::Number(self.probe_share))),
            ("probes", Some(Value::Count(self.probes))),
            ("probe_timeout", Some(Value::Time(self.probe_timeout))),
            ("abandoned_after", Some(Value::Time(self.abandoned_after))),
            ("wait_for_ready", Some(Value::Flag(self.wait_for_ready))),
            ("max_waiting", Some(Value::Count(self.max_waiting))),
            ("ready_wait", Some(Value::Time(self.ready_wait))),
            ("observe_only", Some(Value::Flag(self.observe_only))),
        ])
    }
}

impl BulkheadPolicy {
    fn written(&self) -> Value {
        let Self { max_in_flight, max_queued, queue_wait, observe_only } = *self;
        table([
            ("max_in_flight", Some(Value::Count(max_in_flight))),
            ("max_queued", Some(Value::Count(max_queued))),
            ("queue_wait", Some(Value::Time(queue_wait))),
            ("observe_only", Some(Value::Flag(observe_only))),
        ])
    }
}

impl HedgePolicy {
    fn written(&self) -> Value {
        let Self { delay, max_share, burst, max_hedges } = *self;
        let delay = match delay {
            Delay::Fixed(delay) => Value::Time(delay),
            Delay::Percentile { quantile, multiplier, floor } => table([
                ("quantile", Some(Value::Number(quantile))),
                ("multiplier", Some(Value::Number(multiplier))),
                ("floor", Some(Value::Time(floor))),
            ]),
        };
        table([
            ("delay", Some(delay)),
            ("max_share", Some(Value::Number(max_share))),
            ("burst", Some(Value::Count(burst))),
            ("max_hedges", Some(Value::Count(max_hedges))),
        ])
    }
}

impl RateLimitPolicy {
    fn written(&self) -> Value {
        let Self { count, per, burst, wait, observe_only } = *self;
        table([
            ("count", Some(Value::Count(count))),
            ("per", Some(Value::Time(per))),
            ("burst", burst.map(Value::Count)),
            ("wait", Some(Value::Flag(wait))),
            ("observe_only", Some(Value::Flag(observe_only))),
        ])
    }
}

impl ThrottlePolicy {
    fn written(&self) -> Value {
        let Self { multiplier, window, observe_only } = *self;
        table([
            ("multiplier", Some(Value::Number(multiplier))),
            ("window", Some(Value::Time(window))),
            ("observe_only", Some(Value::Flag(observe_only))),
        ])
    }
}

impl ConcurrencyPolicy {
    fn written(&self) -> Value {
        let kind = match self.kind {
            Kind::Gradient => "gradient",
            Kind::Vegas => "vegas",
            Kind::Aimd => "aimd",
        };
        table([
            ("kind", Some(Value::Text(kind.to_owned()))),
            ("initial", Some(Value::Count(self.initial))),
            ("min", Some(Value::Count(self.min))),
            ("max", Some(Value::Count(self.max))),
            ("window", Some(Value::Time(self.window))),
            ("min_samples", Some(Value::Count(self.min_samples))),
            ("remeasure", self.remeasure.map(Value::Time)),
            ("tolerance", self.tolerance.map(Value::Number)),
            ("queue", self.queue.map(|(low, high)| Value::Pair(low, high))),
            ("backoff", self.backoff.map(Value::Number)),
            ("slow_after", self.slow_after.map(Value::Time)),
        ])
    }
}

impl OverloadPolicy {
    fn written(&self) -> Value {
        let Self { max_waiting, wait, observe_only } = *self;
        table([
            ("max_waiting", Some(Value::Count(max_waiting))),
            ("wait", Some(Value::Time(wait))),
            ("observe_only", Some(Value::Flag(observe_only))),
        ])
    }
}

impl BalancePolicy {
    fn written(&self) -> Value {
        let Self { decay, slow_start, penalty } = *self;
        table([
            ("decay", Some(Value::Time(decay))),
            ("slow_start", Some(Value::Time(slow_start))),
            ("penalty", Some(Value::Number(penalty))),
        ])
    }
}

fn name_of_priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Sheddable => "sheddable",
        Priority::Normal => "normal",
        Priority::Critical => "critical",
    }
}
