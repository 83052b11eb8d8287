//! Which requests suffer which faults.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;

use super::super::*;
use crate::fault::machine::{Act, Fault};
use crate::fault::rule::Asked;

fn asked<'a>(method: &'a Method, path: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
    Asked { method, path, host: Some("users"), port: None, query: None, headers, body: None }
}

fn ask(faults: &Faults, path: &str) -> Option<Fault> {
    faults.draw(|| asked(&Method::GET, path, &EMPTY))
}

static EMPTY: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);

fn faults(rules: impl IntoIterator<Item = Rule>) -> Faults {
    let settings = rules.into_iter().fold(Settings::new().seed(7), Settings::rule);
    Faults::new(settings.limits(Limits::standard().max_active(1000))).unwrap()
}

#[test]
fn a_rule_is_for_the_requests_that_it_names() {
    let delay = || Rule::delay(Duration::from_secs(1));
    let tenant: HeaderMap =
        [(http::HeaderName::from_static("x-tenant"), "7".parse().unwrap())].into_iter().collect();
    for (rule, request, matches) in [
        (delay(), asked(&Method::GET, "/", &EMPTY), true),
        (delay().method("POST"), asked(&Method::GET, "/", &EMPTY), false),
        (delay().method("GET"), asked(&Method::GET, "/", &EMPTY), true),
        (delay().path("/users/{id}"), asked(&Method::GET, "/users/7", &EMPTY), true),
        (delay().path("/users/{id}"), asked(&Method::GET, "/users/7/a", &EMPTY), false),
        (delay().path("/users/*"), asked(&Method::GET, "/users/7/a", &EMPTY), true),
        (delay().path("/users/*"), asked(&Method::GET, "/users", &EMPTY), false),
        (delay().host("USERS"), asked(&Method::GET, "/", &EMPTY), true),
        (delay().host("orders"), asked(&Method::GET, "/", &EMPTY), false),
        (delay().header("X-Tenant", "7"), asked(&Method::GET, "/", &tenant), true),
        (delay().header("x-tenant", "*"), asked(&Method::GET, "/", &tenant), true),
        (delay().header("x-tenant", "8"), asked(&Method::GET, "/", &tenant), false),
        (delay().header("x-tenant", "*"), asked(&Method::GET, "/", &EMPTY), false),
    ] {
        let told = format!("{rule:?} {request:?}");
        assert_eq!(faults([rule]).draw(|| request).is_some(), matches, "{told}");
    }
}

#[test]
fn a_host_is_taken_from_the_header_without_its_port_where_the_url_has_none() {
    for (header, host) in
        [("users:3000", "users"), ("users", "users"), ("[::1]:3000", "[::1]"), ("[::1]", "[::1]")]
    {
        let headers: HeaderMap = [(http::header::HOST, header.parse().unwrap())].into_iter().collect();
        let request = Asked { host: None, ..asked(&Method::GET, "/", &headers) };
        assert!(faults([Rule::new(Kind::Hang).host(host)]).draw(|| request).is_some(), "{header}");
    }
}

#[test]
fn the_first_rule_that_matches_and_draws_a_request_has_it() {
    let faults = faults([
        Rule::abort(StatusCode::BAD_GATEWAY).path("/a"),
        Rule::new(Kind::ResetBeforeHead).percentage(0.0),
        Rule::new(Kind::Garbage),
    ]);
    assert!(matches!(ask(&faults, "/a").unwrap().act, Act::Answer(answer) if answer.status == 502));
    assert!(matches!(ask(&faults, "/b").unwrap().act, Act::Garbage));
    let counts: Vec<_> =
        faults.snapshot().rules.iter().map(|(_, counts)| (counts.matched, counts.injected)).collect();
    assert_eq!(counts, [(1, 1), (1, 0), (1, 1)]);
}

#[test]
fn a_place_is_given_back_when_its_fault_is_dropped_and_without_one_there_is_no_fault() {
    let settings = Settings::new().rule(Rule::new(Kind::Hang)).limits(Limits::standard().max_active(2));
    let faults = Faults::new(settings).unwrap();
    let held = (ask(&faults, "/"), ask(&faults, "/"));
    assert!(held.0.is_some() && held.1.is_some() && ask(&faults, "/").is_none());
    // Other rules don't make more places.
    faults.set([Rule::new(Kind::Garbage)]).unwrap();
    assert!(ask(&faults, "/").is_none());
    let snapshot = faults.snapshot();
    assert_eq!((snapshot.active, snapshot.rules[0].1.capped), (2, 1));
    drop(held.0);
    assert!(ask(&faults, "/").is_some());
    drop(held.1);
    assert_eq!(faults.snapshot().active, 0);
}

#[test]
fn rules_are_swapped_whole_or_not_at_all() {
    let faults = faults([Rule::new(Kind::Hang)]);
    faults.set([Rule::new(Kind::Garbage), Rule::new(Kind::Hang).percentage(-1.0)]).unwrap_err();
    assert_eq!(faults.snapshot().rules[0].0, Rule::new(Kind::Hang));
    faults.clear();
    assert!(faults.snapshot().rules.is_empty() && ask(&faults, "/").is_none());
}

#[test]
fn a_hang_ends_and_every_delay_is_within_the_bounds() {
    let most = Limits::standard().max_delay;
    assert_eq!(ask(&faults([Rule::new(Kind::Hang)]), "/").unwrap().delay, most);
    let (median, p99) = (Duration::from_secs(1), Duration::from_secs(29));
    let slow = faults([Rule::new(Kind::Delay(Delay::LogNormal { median, p99 }))]);
    let mut delays: Vec<_> = (0..10_000).map(|_| ask(&slow, "/").unwrap().delay).collect();
    delays.sort();
    let (middle, late, last) = (delays[5000].as_secs_f64(), delays[9900].as_secs_f64(), delays[9999]);
    assert!((0.9..1.1).contains(&middle) && (23.0..=30.0).contains(&late), "{middle} {late}");
    assert!(last <= most, "{last:?}");
    let (min, max) = (Duration::from_millis(10), Duration::from_millis(20));
    let even = faults([Rule::new(Kind::Delay(Delay::Uniform { min, max }))]);
    assert!((0..1000).all(|_| (min..=max).contains(&ask(&even, "/").unwrap().delay)));
}

#[test]
fn headers_of_requests_are_heard_only_when_that_was_asked_for() {
    let headers: HeaderMap =
        [(http::HeaderName::from_static("x-envoy-fault-abort-request"), "503".parse().unwrap())]
            .into_iter()
            .collect();
    let request = || asked(&Method::GET, "/", &headers);
    let rule = || Settings::new().rule(Rule::new(Kind::Garbage));
    assert!(matches!(Faults::new(rule()).unwrap().draw(request).unwrap().act, Act::Garbage));
    let heard = Faults::new(rule().envoy_headers(true)).unwrap();
    assert!(matches!(heard.draw(request).unwrap().act, Act::Answer(_)));
    assert_eq!(heard.snapshot().by_header.unwrap().injected, 1);
    // Without rules, too.
    assert!(Faults::new(Settings::new().envoy_headers(true)).unwrap().draw(request).is_some());
}

proptest! {
    /// Of those that match, as many as was said, to five standard deviations; the same in every
    /// run, whatever else there is.
    #[test]
    fn the_share_of_faults_is_the_percentage(percentage in 0.0..=100.0_f64, seed: u64, others in 0_u32..4) {
        let rule = Rule::new(Kind::Garbage).path("/a").percentage(percentage);
        let faults = Faults::new(Settings::new().rule(rule).seed(seed)).unwrap();
        let run = |others: u32| {
            faults.set([Rule::new(Kind::Garbage).path("/a").percentage(percentage)]).unwrap();
            (0..2000).map(|_| {
                (0..others).for_each(|_| assert!(ask(&faults, "/b").is_none()));
                ask(&faults, "/a").is_some()
            }).collect::<Vec<_>>()
        };
        let drawn = run(others);
        let share = drawn.iter().filter(|drawn| **drawn).count() as f64 / 2000.0;
        let chance = percentage / 100.0;
        let bound = 5.0 * (chance * (1.0 - chance) / 2000.0).sqrt() + 1e-9;
        prop_assert!((share - chance).abs() <= bound, "{share} for {chance}");
        prop_assert_eq!(drawn, run(0));
    }

    /// However faults come and go.
    #[test]
    fn the_cap_is_never_passed_and_every_place_comes_back(most in 1_u32..6, steps in prop::collection::vec(0_usize..12, 1..200)) {
        let settings = Settings::new().rule(Rule::new(Kind::Hang).percentage(80.0));
        let faults = Faults::new(settings.limits(Limits::standard().max_active(most))).unwrap();
        let mut held = Vec::new();
        for step in steps {
            if step < 7 {
                held.extend(ask(&faults, "/"));
            } else if !held.is_empty() {
                held.swap_remove(step % held.len());
            }
            prop_assert!(held.len() <= most as usize);
            prop_assert_eq!(faults.snapshot().active as usize, held.len());
        }
        drop(held);
        prop_assert_eq!(faults.snapshot().active, 0);
    }
}
