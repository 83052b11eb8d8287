//! Labels are bounded, and counters say what events and reports say.
#![allow(clippy::cast_possible_wrap, reason = "counts are far from there")]

use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicI64;

use ::metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, Metadata, SharedString};
use http::{Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::authority::Authority;
use crate::authority::key::{Key as UpstreamKey, Scope};
use crate::error::ErrorKind;
use crate::event::{CallEnd, CallId, KnownMethod};
use crate::outcome::report::Trigger;
use crate::outcome::{FailureKind, Outcome};
use crate::time::Tick;

/// Keeps every series it is asked for, with what it was told.
#[derive(Clone, Default)]
struct Kept(Arc<StdMutex<BTreeMap<String, Arc<Series>>>>);

#[derive(Default)]
struct Series {
    /// What a counter counted, how many values a histogram was given, where a gauge stands, in
    /// thousandths.
    value: AtomicI64,
}

/// Where a gauge stands that was set to NaN.
const NO_NUMBER: i64 = i64::MIN;

impl Kept {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    /// All that begin so, with what they came to.
    fn all(&self, prefix: &str) -> BTreeMap<String, i64> {
        let kept = self.0.lock().unwrap();
        let found = kept.iter().filter(|(name, _)| name.starts_with(prefix));
        found.map(|(name, series)| (name.clone(), series.value.load(Ordering::Relaxed))).collect()
    }

    fn sum(&self, prefix: &str) -> i64 {
        self.all(prefix).values().sum()
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.value.fetch_add(value.cast_signed(), Ordering::Relaxed);
    }
    fn absolute(&self, _value: u64) {}
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.value.fetch_add((value * 1000.0) as i64, Ordering::Relaxed);
    }
    fn decrement(&self, value: f64) {
        self.value.fetch_sub((value * 1000.0) as i64, Ordering::Relaxed);
    }
    fn set(&self, value: f64) {
        let thousandths = if value.is_nan() { NO_NUMBER } else { (value * 1000.0) as i64 };
        self.value.store(thousandths, Ordering::Relaxed);
    }
}

impl HistogramFn for Series {
    fn record(&self, _value: f64) {
        self.value.fetch_add(1, Ordering::Relaxed);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}

fn identity(uri: &str, scope: Option<Scope<&Arc<str>>>) -> UpstreamIdentity {
    UpstreamIdentity::of(&UpstreamKey::new(&Authority::of_uri(&uri.parse().unwrap()), scope))
}

fn finished(method: &str, status: u16) -> [Event; 3] {
    let (call, method) = (CallId::NONE, KnownMethod::of(&Method::from_bytes(method.as_bytes()).unwrap()));
    let (duration, status) = (std::time::Duration::from_millis(3), StatusCode::from_u16(status).unwrap());
    [
        Event::AttemptStarted {
            call,
            method,
            number: 1,
            at: Tick::from_nanos(1),
            trigger: Trigger::First,
            endpoint: None,
        },
        Event::AttemptFinished {
            call,
            method,
            number: 1,
            duration,
            outcome: Outcome::Success,
            status: Some(status),
            unprocessed: false,
        },
        Event::CallFinished {
            call,
            method,
            duration,
            end: CallEnd::Response(status),
            cut: false,
            streaming: false,
        },
    ]
}

#[test]
fn a_million_hosts_keys_methods_and_statuses_are_no_more_series_than_a_few() {
    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone()).max_upstreams(10);
    for i in 0..1_000_000_u32 {
        let key: Arc<str> = format!("tenant-{i}").into();
        let scope = (i % 2 == 0).then_some(Scope::Key(&key));
        let upstream = identity(&format!("http://h{i}.example:{}/", 1 + i % 60_000), scope);
        let own = metrics.of_upstream(&upstream).unwrap();
        let method = format!("M{}", i % 977);
        for event in finished(&method, 100 + (i % 900) as u16) {
            own.event("", &event);
        }
    }
    let other = "resilient_client.attempts{server.address=other,trigger=first}";
    assert_eq!(kept.sum(other), 1_000_000 - 10);
    assert_eq!(kept.sum("http.client.request.duration"), 1_000_000);
    assert_eq!(kept.sum("resilient_client.call.duration"), 1_000_000);
    assert_eq!(kept.sum("http.client.active_requests"), 0);
    let series = kept.all("").len();
    // Of `other`: two durations by 62 statuses and 6 classes, three triggers, what is lost,
    // silences and a gauge; of the ten others one each.
    assert!(series <= 2 * 68 + 6 + 10 * 8, "{series} series");
    assert!(kept.all("").keys().all(|name| !name.contains("tenant")), "a key is a label");
}

/// Those begun are counted, and a counter that is there before them shows the first.
#[test]
fn silences_are_counted_from_nothing() {
    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let own = metrics.of_upstream(&identity("http://users:3000/", None)).unwrap();
    let all = || kept.all("resilient_client.silences").into_values().collect::<Vec<_>>();
    assert_eq!(all(), [0]);
    for silent in [true, false, true] {
        let duration = std::time::Duration::from_millis(90);
        own.event("http://users:3000", &Event::Silence { silent, duration });
    }
    assert_eq!(all(), [2]);
}

#[test]
fn one_hosts_series_are_bounded_whatever_it_answers() {
    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let own = metrics.of_upstream(&identity("http://users:3000/", None)).unwrap();
    for method in ["GET", "POST", "PURGE", "get", "M-1", "M-2"] {
        for status in 100..1000 {
            for event in finished(method, status) {
                own.event("", &event);
            }
        }
    }
    let durations = kept.all("http.client.request.duration");
    assert_eq!(durations.len(), 3 * 68, "three methods by 62 statuses and 6 classes");
}

#[test]
fn a_route_is_its_template_and_a_key_its_host() {
    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let (route, key): (Arc<str>, Arc<str>) = ("GET /users/{id}".into(), "s3cret".into());
    for scope in [None, Some(Scope::Route(&route)), Some(Scope::Key(&key))] {
        let own = metrics.of_upstream(&identity("https://users/", scope)).unwrap();
        for event in finished("GET", 200) {
            own.event("", &event);
        }
    }
    let attempts = kept.all("resilient_client.attempts");
    assert_eq!(attempts["resilient_client.attempts{server.address=users,server.port=443,trigger=first}"], 2);
    let of_route = "resilient_client.attempts{server.address=users,server.port=443,url.template=/users/{id},trigger=first}";
    assert_eq!(attempts[of_route], 1);
    assert_eq!(attempts.len(), 6, "{attempts:?}");
}

#[test]
fn every_series_has_a_name_and_labels_that_the_table_has() {
    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let own = metrics.of_upstream(&identity("http://users:3000/", None)).unwrap();
    for event in finished("GET", 404) {
        own.event("", &event);
    }
    let after = Outcome::Failure(FailureKind::Timeout);
    let (call, number) = (CallId::NONE, 2);
    own.event("", &Event::RetryScheduled { call, number, delay: std::time::Duration::ZERO, after });
    let end = CallEnd::Error(ErrorKind::CircuitOpen);
    let duration = std::time::Duration::ZERO;
    let method = KnownMethod::Get;
    own.event("", &Event::CallFinished { call, method, duration, end, cut: false, streaming: false });
    for series in kept.all("").keys() {
        let (name, labels) = series.split_once('{').unwrap();
        let of_all = ["server.address", "server.port", "url.template"];
        let instrument = INSTRUMENTS.iter().find(|instrument| instrument.name == name);
        let known = instrument.unwrap_or_else(|| panic!("{series}")).labels;
        for label in labels.trim_end_matches('}').split(',') {
            let label = label.split_once('=').unwrap().0;
            assert!(of_all.contains(&label) || known.contains(&label), "{series}");
        }
    }
    assert_eq!(kept.sum("resilient_client.retries{server.address=users,server.port=3000,reason=timeout}"), 1);
    let refused = "resilient_client.call.duration{server.address=users,server.port=3000,\
        http.request.method=GET,error.type=circuit_open}";
    assert_eq!(kept.sum(refused), 1);
}

proptest! {
    /// Whatever hosts and keys there are, in whatever order: no more sets of labels than were
    /// allowed, and one.
    #[test]
    fn sets_of_labels_never_outgrow_their_bound(
        calls in proptest::collection::vec(("[a-z]{1,3}", 1_u16..9, proptest::option::of("[ -~]{0,9}")), 1..300),
        most in 0_u32..8,
    ) {
        let kept = Kept::default();
        let metrics = Metrics::with_recorder(kept.clone()).max_upstreams(most);
        for (host, port, key) in &calls {
            let key: Option<Arc<str>> = key.as_deref().map(Into::into);
            let upstream = identity(&format!("http://{host}:{port}/"), key.as_ref().map(Scope::Key));
            metrics.of_upstream(&upstream).unwrap().event("", &finished("GET", 200)[0]);
        }
        let series = kept.all("resilient_client.attempts");
        prop_assert!(series.len() <= 3 * (most as usize + 1), "{series:?}");
        prop_assert_eq!(series.values().sum::<i64>(), calls.len() as i64);
    }
}

/// Over faults of every kind, hedges among the attempts: what was counted is what the server saw
/// and what the reports say.
#[tokio::test(start_paused = true)]
async fn counters_are_the_servers_own_count_and_the_sums_of_the_reports() {
    use crate::policy::hedge::{Delay, HedgePolicy};
    use crate::rng::Rng;
    use crate::testkit::rig::Rig;
    use crate::testkit::script::{Script, Step, answer, broken, ms};
    use crate::{CallOptions, CallReport, Policy, ResilienceLayer};
    use tower::{Layer as _, Service as _};

    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let script = Script::new([]);
    let mut rng = Rng::seeded(7);
    script.follow(move || match (rng.unit() * 8.0) as u32 {
        0 => answer(503),
        1 => broken(),
        2 => Step::Refuse,
        3 => Step::Answer { after: ms(40), status: 200, retry_after: None, body: Vec::new() },
        4 => answer(404),
        _ => answer(200),
    });
    let hedged = HedgePolicy::standard().delay(Delay::Fixed(ms(20)));
    let policy = Policy::standard().hedge(hedged);
    let layer = ResilienceLayer::builder().policy(&policy).observer(metrics.clone()).build().unwrap();
    let service = layer.layer(script.clone());
    let mut reports: Vec<CallReport> = Vec::new();
    let (mut errors, mut refused) = (0, 0);
    for n in 0..2000_u64 {
        let method = if n % 3 == 0 { Method::POST } else { Method::GET };
        match service.clone().call(Rig::request(method, CallOptions::new())).await {
            Ok(response) => reports.push(response.body().report().clone()),
            Err(error) => {
                errors += 1;
                refused += i64::from(error.is_rejected());
                reports.extend(error.report().cloned());
            }
        }
        tokio::time::sleep(ms(3)).await;
    }
    let attempts = reports.iter().flat_map(CallReport::attempts);
    let by = |trigger: Trigger| attempts.clone().filter(|it| it.trigger() == trigger).count() as i64;
    for trigger in [Trigger::First, Trigger::Retry, Trigger::Hedge] {
        let series = format!(
            "resilient_client.attempts{{server.address=users,server.port=3000,trigger={}}}",
            trigger.as_str()
        );
        assert_eq!(kept.sum(&series), by(trigger), "{trigger}");
    }
    assert!(by(Trigger::Retry) > 50 && by(Trigger::Hedge) > 20, "the run had all kinds");
    let all = attempts.clone().count() as i64;
    assert_eq!(kept.sum("resilient_client.attempts"), all);
    assert_eq!(script.count() as i64, all, "what the server saw");
    assert_eq!(kept.sum("http.client.request.duration"), all);
    assert_eq!(kept.sum("http.client.active_requests"), 0);
    assert_eq!(kept.sum("resilient_client.call.duration"), 2000);
    assert_eq!(kept.sum("resilient_client.hedges"), by(Trigger::Hedge) + hedges_rejected(&kept));
    let statuses = attempts.clone().filter(|it| it.status().is_some_and(|it| it == 503)).count() as i64;
    let of_503 = kept.all("http.client.request.duration");
    let of_503: i64 =
        of_503.iter().filter(|(name, _)| name.contains("status_code=503")).map(|(_, n)| n).sum();
    assert_eq!(of_503, statuses);
    let declined: usize = reports.iter().map(|report| report.declined().len()).sum();
    assert_eq!(kept.sum("resilient_client.retries.declined"), declined as i64);
    let ended_by_error = kept.all("resilient_client.call.duration");
    let without_status: i64 =
        ended_by_error.iter().filter(|(name, _)| !name.contains("status_code")).map(|(_, n)| n).sum();
    assert_eq!(without_status, errors);
    assert!(kept.sum("resilient_client.rejections") >= refused, "a retry that is refused, too");
}

fn hedges_rejected(kept: &Kept) -> i64 {
    let series = "resilient_client.hedges{server.address=users,server.port=3000,outcome=rejected}";
    kept.sum(series)
}

#[tokio::test]
async fn a_snapshot_tells_levels_and_that_an_upstream_is_gone() {
    use crate::ResilienceLayer;

    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let client = ResilienceLayer::builder().observer(metrics.clone()).build().unwrap();
    client.breaker("http://users:3000").unwrap().force_open().unwrap();
    let snapshot = client.snapshot();
    metrics.record_snapshot(&snapshot);
    let users = "server.address=users,server.port=3000";
    assert_eq!(kept.sum(&format!("resilient_client.breaker.state{{{users},state=forced_open}}")), 1000);
    assert_eq!(kept.sum("resilient_client.breaker.state"), 1000, "one in all");
    assert_eq!(kept.sum(&format!("resilient_client.breaker.held{{{users},control=force_open}}")), 1000);
    assert_eq!(kept.sum("resilient_client.breaker.held"), 1000, "one in all");
    assert_eq!(kept.sum(&format!("resilient_client.bulkhead.limit{{{users}}}")), 256_000);
    assert_eq!(kept.sum(&format!("resilient_client.budget.available{{{users}}}")), 10_000);
    assert_eq!(kept.sum("resilient_client.breaker.transitions"), 1);
    metrics.record_snapshot(&[]);
    assert_eq!(kept.sum("resilient_client.breaker.state"), 0);
    assert_eq!(kept.sum("resilient_client.bulkhead.in_use"), 0);
    for gone in ["resilient_client.bulkhead.limit", "resilient_client.budget.available"] {
        assert_eq!(kept.sum(gone), NO_NUMBER, "0 would be one that lets nothing in");
    }
}

/// One that was told to observe was seen nowhere, nor was that of a whole name forced open: of a
/// name only the endpoints' were counted.
#[tokio::test]
async fn whoever_holds_a_breaker_is_told_whatever_it_was_told_and_whose_it_is() {
    use crate::policy::breaker::BreakerPolicy;
    use crate::{Control, Endpoints, Policy, ResilienceLayer};

    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let observing = BreakerPolicy::standard().observe_only(true);
    let client = ResilienceLayer::builder()
        .policy(Policy::standard().breaker(observing))
        .observer(metrics.clone())
        .endpoints("http://users:3000", Endpoints::fixed(["http://a:3000", "http://b:3000"]))
        .build()
        .unwrap();
    let breaker = client.breaker("http://users:3000").unwrap();
    let told = |control: &str| {
        metrics.record_snapshot(&client.snapshot());
        let held = kept.sum("resilient_client.breaker.held");
        let labels = format!("server.address=users,server.port=3000,control={control}");
        (held, kept.sum(&format!("resilient_client.breaker.held{{{labels}}}")))
    };
    assert_eq!(told("observe"), (0, 0), "what is so by the policy is held by nobody");
    for control in [Control::Observe, Control::ForceOpen, Control::ForceClosed, Control::Disable] {
        breaker.control(control).unwrap();
        assert_eq!(told(control.as_str()), (1000, 1000), "{control}");
        assert_eq!(breaker.snapshot().unwrap().held, Some(control));
    }
    let endpoint = breaker.endpoint("http://a:3000").unwrap();
    endpoint.force_open().unwrap();
    endpoint.observe().unwrap();
    assert_eq!(told("observe"), (2000, 1000), "the last word");
    breaker.enable().unwrap();
    endpoint.reset().unwrap();
    assert_eq!(told("observe"), (0, 0));
}

#[tokio::test]
async fn a_limit_or_a_budget_that_is_switched_off_is_no_number_and_one_that_never_was_is_absent() {
    use crate::policy::concurrency::ConcurrencyPolicy;
    use crate::{Policy, ResilienceLayer};

    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let levels = || {
        let of = |name: &str| kept.all(name).into_values().next();
        (of("resilient_client.bulkhead.limit"), of("resilient_client.budget.available"))
    };
    let client = ResilienceLayer::builder().policy(Policy::none()).observer(metrics.clone()).build().unwrap();
    client.breaker("http://users:3000").unwrap().force_open().unwrap();
    let tell = || metrics.record_snapshot(&client.snapshot());
    tell();
    assert_eq!(levels(), (None, None), "neither ever was");
    client.reload(Policy::standard()).unwrap();
    tell();
    assert_eq!(levels(), (Some(256_000), Some(10_000)));
    client.reload(Policy::standard().bulkhead(None).retry(None)).unwrap();
    tell();
    assert_eq!(levels().0, Some(NO_NUMBER), "switched off");
    client.reload(Policy::none()).unwrap();
    tell();
    assert_eq!(levels(), (Some(NO_NUMBER), Some(NO_NUMBER)), "both are");
    client.reload(Policy::standard().concurrency(ConcurrencyPolicy::gradient())).unwrap();
    tell();
    assert!(levels().0.is_some_and(|limit| limit > 0), "and there again");
}

/// A limit that is found is its client's, whatever another found.
#[tokio::test]
async fn clients_of_one_host_have_a_limit_each() {
    use crate::policy::concurrency::ConcurrencyPolicy;
    use crate::{Policy, ResilienceLayer};

    let kept = Kept::default();
    let metrics = Metrics::with_recorder(kept.clone());
    let policy = Policy::standard().concurrency(ConcurrencyPolicy::gradient());
    let [one, other] = [(); 2].map(|()| {
        let client = ResilienceLayer::builder().policy(policy.clone()).build().unwrap();
        client.breaker("http://users:3000").unwrap().enable().unwrap();
        client
    });
    let limit = |of: &[&ResilienceLayer]| {
        metrics.record_snapshot(&of.iter().flat_map(|client| client.snapshot()).collect::<Vec<_>>());
        kept.sum("resilient_client.bulkhead.limit")
    };
    assert_eq!([limit(&[&one]), limit(&[&one, &other])], [20_000, 40_000]);
}

/// Given to a client that had met its upstreams it counted none of them.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_built_and_at_work_can_be_given_metrics() {
    use crate::testkit::rig::Rig;
    use crate::testkit::script::{Step, answer, ms};
    use crate::{CallOptions, Policy};

    let slow = Step::Answer { after: ms(40), status: 200, retry_after: None, body: Vec::new() };
    let rig = Rig::new(&Policy::standard(), [answer(200), slow, answer(200)]);
    drop(rig.get().await.unwrap());
    let under_way = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
    tokio::time::sleep(ms(10)).await;
    let kept = Kept::default();
    let observer: Arc<dyn Observer> = Arc::new(Metrics::with_recorder(kept.clone()));
    rig.core.observe(&observer);
    drop(under_way.await.unwrap().unwrap());
    assert_eq!(kept.sum("http.client.active_requests"), 0, "an end whose beginning wasn't counted");
    drop(rig.get().await.unwrap());
    let labels = "server.address=users,server.port=3000";
    assert_eq!(kept.sum(&format!("resilient_client.attempts{{{labels},trigger=first}}")), 1);
    for name in ["http.client.request.duration", "resilient_client.call.duration"] {
        assert_eq!(kept.sum(name), 1, "{name}");
    }
    assert_eq!(kept.sum("http.client.active_requests"), 0);
}
