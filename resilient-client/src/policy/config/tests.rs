use proptest::option;
use proptest::prelude::*;

use super::read::edits;
use super::*;
use crate::policy::hedge::Delay;

fn read(text: &str) -> Result<PolicySet, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
}

fn refused(text: &str) -> String {
    read(text).unwrap_err()
}

#[test]
fn an_empty_file_is_the_standard_policy() {
    assert_eq!(read("").unwrap(), PolicySet::new(Policy::standard()));
    assert_eq!(read("preset = \"none\"").unwrap(), PolicySet::new(Policy::none()));
}

#[test]
fn every_setting_reaches_its_policy() {
    let set = read(
        r#"
        timeout = { total = "2s", attempt = "500ms", connect = "off", body_idle = "1m 30s" }
        retry = { max_attempts = 3, initial = "5ms", cap = "1s", jitter = "decorrelated", hold_back_on_429 = true, idempotent = true }
        budget = { capacity = 50, initial = 5, deposit_per_success = 0.1 }
        bulkhead = { max_in_flight = 8 }
        [breaker]
        failure_rate = 0.4
        window = "20s"
        min_calls = 10
        consecutive_failures = 9
        cold_consecutive_failures = 4
        open_for = "2s"
        open_cap = "8s"
        probe_share = 0.1
        probes = 1
        probe_timeout = "3s"
        abandoned_after = "2s"
        wait_for_ready = true
        max_waiting = 20
        ready_wait = "3s"
        "#,
    );
    let seconds = Duration::from_secs;
    let timeout = TimeoutPolicy::standard()
        .total(seconds(2))
        .attempt(Duration::from_millis(500))
        .connect(None)
        .body_idle(seconds(90));
    let retry = RetryPolicy::standard()
        .max_attempts(3)
        .initial(Duration::from_millis(5))
        .cap(seconds(1))
        .jitter(Jitter::Decorrelated)
        .hold_back_on_429(true)
        .idempotent(true);
    let breaker = BreakerPolicy::standard()
        .failure_rate(0.4)
        .window(seconds(20))
        .min_calls(10)
        .consecutive_failures(9)
        .cold_consecutive_failures(4)
        .open_for(seconds(2))
        .open_cap(seconds(8))
        .probe_share(0.1)
        .probes(1)
        .probe_timeout(seconds(3))
        .abandoned_after(seconds(2))
        .wait_for_ready(true)
        .max_waiting(20)
        .ready_wait(seconds(3));
    let policy = Policy::standard()
        .timeout(timeout)
        .retry(retry)
        .budget(BudgetPolicy::standard().capacity(50).initial(5).deposit_per_success(0.1))
        .breaker(breaker)
        .bulkhead(BulkheadPolicy::standard().max_in_flight(8));
    assert_eq!(set.unwrap(), PolicySet::new(policy));
}

#[test]
fn a_hedge_is_off_until_it_is_named_and_its_delay_is_a_time_or_what_is_usual() {
    let hedge = |text: &str| read(text).unwrap();
    let with = |hedge: HedgePolicy| PolicySet::new(Policy::standard().hedge(hedge));
    let ms = Duration::from_millis;
    assert_eq!(hedge("hedge = {}"), with(HedgePolicy::standard()));
    let fixed = HedgePolicy::standard().delay(Delay::Fixed(ms(50))).max_share(0.02);
    assert_eq!(hedge("hedge = { delay = \"50ms\", max_share = 0.02 }"), with(fixed));
    let usual = Delay::Percentile { quantile: 0.95, multiplier: 2.0, floor: ms(5) };
    let text = "hedge = { delay = { quantile = 0.95, floor = \"5ms\" } }";
    assert_eq!(hedge(text), with(HedgePolicy::standard().delay(usual)));
}

#[test]
fn a_window_is_of_time_or_of_calls_and_a_slow_call_needs_both_its_numbers() {
    let with = |breaker: BreakerPolicy| PolicySet::new(Policy::standard().breaker(breaker));
    let text =
        "[breaker]\nwindow_calls = 100\nobserve_only = true\nslow_call = { duration = \"1s\", share = 0.5 }";
    let breaker =
        BreakerPolicy::standard().window_calls(100).slow_call(Duration::from_secs(1), 0.5).observe_only(true);
    assert_eq!(read(text).unwrap(), with(breaker));
    let got = refused("[[host]]\norigin = \"http://a\"\nbreaker = { slow_call = { share = 0.5 } }");
    assert_eq!(got, "slow_call needs both `duration` and `share`");
}

#[test]
fn json_says_the_same() {
    let json = r#"{"retry": "off", "host": [{"origin": "http://a", "retry": {"max_attempts": 2}}]}"#;
    let set: PolicySet = serde_json::from_str(json).unwrap();
    let on = |policy: Policy| policy.retry(RetryPolicy::standard().max_attempts(2));
    assert_eq!(set, PolicySet::new(Policy::standard().retry(None)).host("http://a", on));
}

#[test]
fn a_host_and_a_route_say_only_what_differs() {
    let set = read(
        r#"
        retry = { max_attempts = 2 }
        [[host]]
        origin = "http://a"
        retry = { cap = "1s" }
        [[route]]
        origin = "http://a"
        path = "/x/{id}"
        bulkhead = "off"
        "#,
    );
    let expected = PolicySet::new(Policy::standard().retry(RetryPolicy::standard().max_attempts(2)))
        .host("http://a", |policy| {
            policy.retry(RetryPolicy::standard().max_attempts(2).cap(Duration::from_secs(1)))
        })
        .route("http://a", "*", "/x/{id}", |policy| policy.bulkhead(None));
    assert_eq!(set.unwrap(), expected);
}

#[test]
fn a_misspelt_name_is_refused_with_the_one_that_was_meant() {
    for (text, message) in [
        ("retires = \"off\"", "unknown setting `retires`, did you mean `retry`?"),
        ("timeout = { totl = \"1s\" }", "unknown setting `totl`, did you mean `total`?"),
        ("[breaker]\nmincalls = 5", "unknown setting `mincalls`, did you mean `min_calls`?"),
        ("preset = \"standart\"", "unknown setting `standart`, did you mean `standard`?"),
        ("retry = { jitter = \"ful\" }", "unknown setting `ful`, did you mean `full`?"),
        ("xyzzyplugh = 1", "unknown setting `xyzzyplugh`, known are preset, host, route, timeout, retry"),
        ("[[host]]\nretry = \"off\"", "host without `origin`"),
        ("[[route]]\norigin = \"http://a\"", "route without `path`"),
    ] {
        let got = refused(text);
        assert!(got.starts_with(message), "{got}");
    }
}

#[test]
fn a_duration_without_a_unit_is_refused_saying_how_to_write_one() {
    for text in ["timeout = { total = 5 }", "timeout = { total = 5.5 }", "retry = { cap = 100 }"] {
        let got = refused(text);
        assert!(got.contains("a duration with its unit, such as \"250ms\" or \"2s\""), "{got}");
    }
    for text in ["timeout = { total = \"5\" }", "timeout = { total = \"soon\" }", "retry = { cap = \"-1s\" }"]
    {
        let got = refused(text);
        assert!(got.contains("is not a duration such as"), "{got}");
    }
}

#[test]
fn what_would_be_read_as_something_else_is_refused() {
    for (text, message) in [
        ("timeout = { total = \"1M\" }", "M would be a month, write m for minutes"),
        ("retry = { cap = \"1h 2M\" }", "M would be a month, write m for minutes"),
        (
            "breaker = { window = \"10s\", window_calls = 100 }",
            "breaker takes `window` or `window_calls`, not both",
        ),
        (
            "[[host]]\norigin = \"http://users\"\n[[host]]\norigin = \"http://users:80/\"",
            "host \"http://users:80/\" is the same as host \"http://users\": give it one table",
        ),
    ] {
        let got = refused(text);
        assert!(got.contains(message), "{got}");
    }
    let month = read("budget = \"off\"\nbreaker = \"off\"\ntimeout = { total = \"1month\" }");
    assert!(month.is_ok(), "who writes it out means it");
}

#[test]
fn the_tables_of_one_origin_meet_however_it_is_spelled() {
    let set = read(
        r#"
        [[route]]
        origin = "http://users:80"
        path = "/x"
        bulkhead = "off"
        [[host]]
        origin = "http://users/"
        retry = "off"
        "#,
    );
    let expected = PolicySet::new(Policy::standard())
        .host("http://users/", |policy| policy.retry(None))
        .route("http://users:80", "*", "/x", |policy| policy.retry(None).bulkhead(None));
    let set = set.unwrap();
    assert_eq!(set, expected);
    set.check().unwrap();
}

#[test]
fn what_cannot_work_is_found_by_the_check_and_not_by_the_reading() {
    let set = read("timeout = { total = \"1s\", attempt = \"3s\" }").unwrap();
    let why = set.check().unwrap_err().to_string();
    assert_eq!(why, "timeout.attempt is 3s, longer than timeout.total, 1s");
}

#[test]
fn distance_counts_edits() {
    for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("total", "totl", 1)] {
        assert_eq!((edits(a, b), edits(b, a)), (expected, expected), "{a} {b}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let _ = read(&text);
    }

    #[test]
    fn no_value_in_a_known_place_makes_the_reader_panic(
        name in prop::sample::select(vec!["timeout", "retry", "budget", "breaker", "host", "route", "preset"]),
        field in prop::sample::select(vec!["total", "cap", "window", "probes", "deposit_per_success", "origin", "path"]),
        value in prop::sample::select(vec!["\"1s\"", "-1", "1e308", "\"off\"", "[]", "{}", "true", "nan", "\"\""]),
    ) {
        let _ = read(&format!("{name} = {value}"));
        let _ = read(&format!("[{name}]\n{field} = {value}"));
        let _ = read(&format!("[[{name}]]\n{field} = {value}")).map(|set| set.check());
    }
}

#[test]
fn what_guards_the_way_in_can_be_set() {
    let set = read(
        r#"
        priority = "critical"
        bulkhead = { max_in_flight = 8, max_queued = 4, queue_wait = "200ms", observe_only = true }
        rate_limit = { count = 100, per = "1s", burst = 5, wait = true }
        throttle = { multiplier = 1.5, window = "1m" }
        balance = { decay = "5s", slow_start = "1s", penalty = 10.0 }
        overload = { max_waiting = 64, wait = "500ms", observe_only = true }
        concurrency = { kind = "vegas", initial = 30, min = 5, max = 200, window = "200ms", queue = [0.1, 0.2] }

        [[host]]
        origin = "http://reports:80"
        priority = "sheddable"
        overload = "off"
        rate_limit = "off"
        throttle = { observe_only = true }
        "#,
    );
    let second = Duration::from_secs(1);
    let bulkhead =
        BulkheadPolicy::standard().max_in_flight(8).max_queued(4).queue_wait(second / 5).observe_only(true);
    let throttle = ThrottlePolicy::standard().multiplier(1.5).window(60 * second);
    let base = Policy::standard()
        .priority(Priority::Critical)
        .bulkhead(bulkhead)
        .rate_limit(RateLimitPolicy::new(100, second).burst(5).wait(true))
        .throttle(throttle.clone())
        .concurrency(
            ConcurrencyPolicy::vegas().initial(30).min(5).max(200).window(second / 5).queue(0.1, 0.2),
        )
        .overload(OverloadPolicy::standard().max_waiting(64).wait(second / 2).observe_only(true))
        .balance(BalancePolicy::standard().decay(5 * second).slow_start(second).penalty(10.0));
    let expected = PolicySet::new(base).host("http://reports:80", |base| {
        base.priority(Priority::Sheddable)
            .overload(None)
            .rate_limit(None)
            .throttle(throttle.observe_only(true))
    });
    assert_eq!(set.unwrap(), expected);
    assert_eq!(refused("rate_limit = { count = 100 }"), "rate_limit needs both `count` and `per`");
    assert_eq!(
        refused("[[route]]\norigin = \"http://a\"\npath = \"/\"\nrate_limit = { per = \"1s\" }"),
        "rate_limit needs both `count` and `per`"
    );
    assert!(refused("priority = \"hihg\"").contains("sheddable"));
}

#[test]
fn every_policy_can_be_set_in_a_file_but_the_classifier_which_is_code() {
    let (set, none) = (read(TOML).unwrap(), Policy::none());
    let all = none.compared(&none).map(|(name, ..)| format!("file: {name}"));
    let but_the_classifier = all.into_iter().filter(|name| name != "file: classifier");
    assert_eq!(set.base().differences(&none, "file"), but_the_classifier.collect::<Vec<_>>());
}

/// Files that use everything there is.
const TOML: &str = r#"
preset = "standard"
timeout = { total = "2s", attempt = "500ms", connect = "off", body_idle = "1m 30s" }
retry = { max_attempts = 3, initial = "5ms", cap = "1s", jitter = "decorrelated", hold_back_on_429 = true, idempotent = true }
budget = { capacity = 50, initial = 5, deposit_per_success = 0.1 }
bulkhead = { max_in_flight = 8, max_queued = 4, queue_wait = "200ms" }
rate_limit = { count = 100, per = "1s", wait = true }
throttle = { multiplier = 1.5, window = "1m" }
concurrency = { kind = "vegas", initial = 30 }
overload = { wait = "500ms" }
balance = { decay = "5s" }
priority = "critical"
hedge = { delay = { quantile = 0.95, multiplier = 2.0, floor = "5ms" }, max_share = 0.05, burst = 5, max_hedges = 2 }
[breaker]
failure_rate = 0.4
window = "20s"
min_calls = 10
slow_call = { duration = "1s", share = 0.5 }
open_for = "2s"
probe_share = 0.01
probes = 1
observe_only = true
[[host]]
origin = "http://users:3000"
breaker = "off"
[[route]]
origin = "http://users:3000"
method = "GET"
path = "/users/{id}"
timeout = { total = "1s", attempt = "300ms" }
"#;
const JSON: &str = r#"{"preset": "none", "timeout": {"total": "2s", "attempt": "off"}, "retry": {"max_attempts": 2},
"budget": {"capacity": 5, "initial": 1, "deposit_per_success": 0.5}, "breaker": {"window_calls": 100, "failure_rate": 0.5},
"bulkhead": "off", "hedge": {"delay": "50ms"}, "host": [{"origin": "http://a", "retry": "off"}],
"route": [{"origin": "http://a", "method": "*", "path": "/x/{id}", "hedge": "off"}]}"#;

/// One change to a file: what typing, cutting, pasting and a bad disk do.
#[derive(Clone, Debug)]
enum Edit {
    Put(u8),
    Insert(&'static str),
    Cut(usize),
    Repeat(usize),
}

fn edited(text: &str, edits: &[(prop::sample::Index, Edit)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, edit) in edits {
        let at = at.index(bytes.len() + 1);
        let end = |length: usize| (at + length).min(bytes.len());
        match edit {
            Edit::Put(byte) if at < bytes.len() => bytes[at] = *byte,
            Edit::Put(byte) => bytes.push(*byte),
            Edit::Insert(text) => drop(bytes.splice(at..at, text.bytes())),
            Edit::Cut(length) => drop(bytes.drain(at..end(*length))),
            Edit::Repeat(length) => {
                let again = bytes[at..end(*length)].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
    bytes
}

fn edits_of_a_file() -> impl Strategy<Value = Vec<(prop::sample::Index, Edit)>> {
    let pieces = [
        "-1",
        "0",
        "1e999",
        "nan",
        "\"off\"",
        "\"1s\"",
        "99999999999999999999",
        "\"18446744073709551615y\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        ",",
        "\"",
        "null",
        "true",
        "{}",
        "[]",
        "é",
        "\u{0}",
    ];
    let edit = prop_oneof![
        any::<u8>().prop_map(Edit::Put),
        prop::sample::select(pieces.to_vec()).prop_map(Edit::Insert),
        (1_usize..20).prop_map(Edit::Cut),
        (1_usize..60).prop_map(Edit::Repeat),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), edit), 1..6)
}

/// Reading, checking and building must all end in a value or an error that says something.
fn ends_well<E: std::fmt::Display>(read: Result<PolicySet, E>) -> Result<(), TestCaseError> {
    match read.map(|set| set.check()) {
        Ok(Ok(())) => {}
        Ok(Err(invalid)) => prop_assert!(!invalid.setting().is_empty() && !invalid.to_string().is_empty()),
        Err(error) => prop_assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

#[test]
fn the_files_that_are_edited_are_good_ones() {
    assert_eq!(read(TOML).unwrap().check(), Ok(()));
    assert_eq!(serde_json::from_str::<PolicySet>(JSON).unwrap().check(), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]
    #[test]
    fn no_edit_of_a_good_file_makes_the_reader_or_the_check_panic(edits in edits_of_a_file()) {
        let (toml, json) = (edited(TOML, &edits), edited(JSON, &edits));
        ends_well(toml::from_slice::<PolicySet>(&toml))?;
        ends_well(serde_json::from_slice::<PolicySet>(&json))?;
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        ends_well(toml::from_slice::<PolicySet>(&bytes))?;
        ends_well(serde_json::from_slice::<PolicySet>(&bytes))?;
    }
}

/// A policy of which each setting is another than the standard one, or may be.
fn policies() -> impl Strategy<Value = Policy> {
    let millis = || (1_u64..100_000).prop_map(Duration::from_millis);
    let share = || 0.01_f64..0.99;
    let count = || 1_u32..1000;
    let timeout =
        (option::of(millis()), option::of(millis()), millis()).prop_map(|(total, connect, idle)| {
            TimeoutPolicy::standard().total(total).connect(connect).body_idle(idle)
        });
    let retry = (count(), millis(), any::<bool>()).prop_map(|(most, cap, hold)| {
        RetryPolicy::standard().max_attempts(most).cap(cap).hold_back_on_429(hold).idempotent(!hold)
    });
    let breaker = (share(), option::of(count()), option::of((millis(), share())), millis()).prop_map(
        |(rate, calls, slow, open)| {
            let mut breaker =
                BreakerPolicy::standard().failure_rate(rate).open_for(open).wait_for_ready(true);
            if let Some(calls) = calls {
                breaker = breaker.window_calls(calls);
            }
            if let Some((duration, share)) = slow {
                breaker = breaker.slow_call(duration, share);
            }
            breaker
        },
    );
    let delay = prop_oneof![
        millis().prop_map(Delay::Fixed),
        (share(), millis()).prop_map(|(quantile, floor)| Delay::Percentile {
            quantile,
            multiplier: 3.5,
            floor
        }),
    ];
    let hedge =
        (delay, share()).prop_map(|(delay, share)| HedgePolicy::standard().delay(delay).max_share(share));
    let rate = (count(), millis(), option::of(count())).prop_map(|(count, per, burst)| {
        let rate = RateLimitPolicy::new(count, per);
        burst.map_or(rate.clone(), |burst| rate.burst(burst))
    });
    let adaptive = prop_oneof![
        Just(ConcurrencyPolicy::gradient()),
        Just(ConcurrencyPolicy::vegas()),
        Just(ConcurrencyPolicy::aimd()),
    ];
    let (retry, breaker, hedge) = (option::of(retry), option::of(breaker), option::of(hedge));
    let some = (timeout, retry, breaker, hedge, option::of(rate), option::of(adaptive), any::<bool>());
    some.prop_map(|(timeout, retry, breaker, hedge, rate, adaptive, others)| {
        let policy = Policy::standard().timeout(timeout).retry(retry).breaker(breaker).hedge(hedge);
        let policy = policy.rate_limit(rate).concurrency(adaptive);
        if others {
            policy
                .priority(Priority::Critical)
                .throttle(ThrottlePolicy::standard().multiplier(1.5))
                .budget(None)
        } else {
            policy.bulkhead(None).overload(None).balance(BalancePolicy::standard().penalty(7.0))
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(base in policies(), host in policies(), route in policies()) {
        let set = PolicySet::new(base)
            .host("http://users:3000", |_| host)
            .route("http://users:3000", "GET", "/users/{id}", |_| route);
        let text = toml::to_string(&set).unwrap();
        let again = read(&text);
        prop_assert_eq!(again.as_ref().map(|again| again.differences(&set)), Ok(Vec::new()), "{}", text);
    }
}
