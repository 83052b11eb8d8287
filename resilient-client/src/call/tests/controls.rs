//! An operator's hand on the breakers that a client holds.

use std::time::Duration;

use super::script::answer;
use super::*;
use crate::BreakerControl;
use crate::ErrorKind;
use crate::endpoints::Endpoints;
use crate::policy::breaker::{BreakerPolicy, Cause, Control, Transition};

const USERS: &str = "http://users:3000";

fn transitions(rig: &Rig) -> Vec<(State, Cause)> {
    let told = |event: &Event| match event {
        Event::BreakerTransition(Transition { to, cause, .. }) => Some((*to, *cause)),
        _ => None,
    };
    rig.events.lock().unwrap().iter().filter_map(told).collect()
}

#[tokio::test(start_paused = true)]
async fn an_upstream_is_forced_before_it_was_ever_called_and_observers_are_told() {
    let rig = Rig::new(&Policy::standard().retry(None), [answer(200)]);
    let users = rig.service.breaker(USERS).unwrap();
    assert_eq!(users.snapshot().unwrap().state, State::Closed);
    assert_eq!(users.force_open().unwrap().unwrap().to, State::ForcedOpen);
    assert_eq!(users.force_open().unwrap(), None, "it is already");
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    rig.core.reload(Policy::standard().breaker(BreakerPolicy::standard().probes(1)).into()).unwrap();
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::CircuitOpen, "new rules don't undo it");
    users.enable().unwrap();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    let expected = [(State::ForcedOpen, Cause::Forced), (State::Closed, Cause::Released)];
    assert_eq!(transitions(&rig), expected);
}

#[tokio::test(start_paused = true)]
async fn forced_closed_disabled_and_observing_it_lets_calls_through_and_reset_forgets() {
    let rig = Rig::new(&Policy::standard().retry(None), [answer(500)]);
    let users = rig.service.breaker(USERS).unwrap();
    for (control, failures) in [(Control::ForceClosed, 30), (Control::Disable, 0), (Control::Observe, 5)] {
        users.control(control).unwrap();
        for _ in 0..30 {
            assert_eq!(rig.get().await.unwrap().status(), 500, "{control}");
        }
        let snapshot = users.snapshot().unwrap();
        assert_eq!(snapshot.failures, failures, "{control}");
        users.reset().unwrap();
        let snapshot = users.snapshot().unwrap();
        assert_eq!((snapshot.state, snapshot.failures, snapshot.observe_only), (State::Closed, 0, false));
    }
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_is_taken_out_and_put_back() {
    let endpoints = Endpoints::fixed(["http://10.0.0.1", "http://10.0.0.2"]);
    let setup = Setup { endpoints: vec![(USERS.into(), endpoints)], ..Setup::default() };
    let rig = Rig::set_up(setup, [answer(200)]);
    let users = rig.service.breaker(USERS).unwrap();
    let first = users.endpoint("http://10.0.0.1:80/").unwrap();
    first.force_open().unwrap();
    for _ in 0..20 {
        let response = rig.get().await.unwrap();
        let attempt = &response.body().report().attempts()[0];
        assert_eq!(attempt.endpoint().unwrap().as_str(), "http://10.0.0.2");
    }
    assert_eq!(first.snapshot().unwrap().state, State::ForcedOpen);
    assert!(!users.snapshot().unwrap().forced, "that was the endpoint's");
    first.enable().unwrap();
    assert_eq!(transitions(&rig).len(), 2);
    let error = users.endpoint("http://10.0.0.9").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_keys_breaker_goes_by_the_name_that_the_snapshot_shows() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    let keyed = || rig.start(Method::GET, CallOptions::new().key("tenant 7"));
    keyed().await.unwrap();
    let tenant = rig.service.breaker("http://users:3000 \"tenant 7\"").unwrap();
    tenant.force_open().unwrap();
    assert_eq!(keyed().await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    assert_eq!(rig.get().await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_is_neither_an_origin_nor_known_or_has_no_place_is_a_config_error() {
    let setup = Setup { max_upstreams: 1, ..Setup::default() };
    let rig = Rig::set_up(setup, [answer(200)]);
    let error = |of: Result<BreakerControl, Error>| {
        let error = of.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    for name in ["users", "overflow", "http://users:3000 \"nobody\"", "http://users/path"] {
        assert!(error(rig.service.breaker(name)).contains("is no origin and isn't known"), "{name}");
    }
    // Held, it keeps the only place for ever.
    let users = rig.service.breaker(USERS).unwrap();
    users.observe().unwrap();
    tokio::time::advance(Duration::from_secs(100_000)).await;
    assert!(error(rig.service.breaker("http://other")).contains("all max_upstreams are busy"));
    users.enable().unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(rig.service.breaker("http://other").is_ok());
}

#[test]
fn every_door_has_the_same_hand() {
    let layer = ResilienceLayer::new(Policy::standard()).unwrap();
    let controls = [layer.breaker(USERS), layer.layer(()).breaker(USERS)].into_iter();
    #[cfg(feature = "reqwest")]
    let controls = controls.chain([crate::Client::builder().build().unwrap().breaker(USERS)]);
    #[cfg(feature = "hyper")]
    let controls = controls.chain([crate::hyper::Client::builder().build().unwrap().breaker(USERS)]);
    for control in controls {
        let control = control.unwrap();
        assert_eq!(control.force_open().unwrap().unwrap().to, State::ForcedOpen);
        // The layer and its services share one.
        assert_eq!(control.enable().unwrap().unwrap().to, State::Closed);
    }
}

/// How many attempts a breaker that only observes would have refused.
fn would_refuse(rig: &Rig) -> usize {
    let refused = |event: &&Event| matches!(event, Event::WouldReject { rejection } if rejection.as_str() == "circuit_open");
    rig.events.lock().unwrap().iter().filter(refused).count()
}

/// It judged on, and nobody was told what would have come of that.
#[tokio::test(start_paused = true)]
async fn one_that_only_observes_says_whom_it_would_have_refused() {
    for by_hand in [false, true] {
        let breaker = BreakerPolicy::standard().observe_only(!by_hand);
        let rig = Rig::new(&Policy::standard().retry(None).breaker(breaker), [answer(500)]);
        if by_hand {
            rig.service.breaker(USERS).unwrap().observe().unwrap();
        }
        for _ in 0..30 {
            assert_eq!(rig.get().await.unwrap().status(), 500);
        }
        assert_eq!(rig.script.count(), 30);
        assert_eq!(would_refuse(&rig), 25, "all after those that opened it");
        assert!(!rig.events.lock().unwrap().iter().any(|event| matches!(event, Event::Rejected { .. })));
    }
}

/// With others to ask an attempt would have gone there.
#[tokio::test(start_paused = true)]
async fn endpoints_that_only_observe_would_have_refused_when_all_of_them_would() {
    let endpoints = Endpoints::fixed(["http://10.0.0.1", "http://10.0.0.2"]);
    let setup = Setup { endpoints: vec![(USERS.into(), endpoints)], ..Setup::default() };
    let rig = Rig::set_up(setup, [answer(200)]);
    let users = rig.service.breaker(USERS).unwrap();
    for (origin, expected) in [("http://10.0.0.1", 0), ("http://10.0.0.2", 20)] {
        let endpoint = users.endpoint(origin).unwrap();
        endpoint.force_open().unwrap();
        endpoint.observe().unwrap();
        for _ in 0..20 {
            assert_eq!(rig.get().await.unwrap().status(), 200);
        }
        assert_eq!(would_refuse(&rig), expected, "{origin}");
    }
}

/// It said "next probe in 250ms", and there was none.
#[tokio::test(start_paused = true)]
async fn nobody_is_told_when_to_ask_again_what_somebody_has_forced_open() {
    let endpoints = Endpoints::fixed(["http://10.0.0.1", "http://10.0.0.2"]);
    for named in [None, Some(endpoints)] {
        let endpoints = named.into_iter().map(|endpoints| (USERS.into(), endpoints)).collect();
        let rig = Rig::set_up(Setup { endpoints, ..Setup::default() }, [answer(200)]);
        let users = rig.service.breaker(USERS).unwrap();
        let refused = async || {
            let error = rig.get().await.unwrap_err();
            assert_eq!((error.kind(), error.retry_after()), (ErrorKind::CircuitOpen, None));
            let told = error.to_string();
            assert!(told.contains("somebody has forced it") && !told.contains("probe"), "{told}");
        };
        users.force_open().unwrap();
        refused().await;
        // It waits, and no longer than it has to.
        let waits = tokio::spawn(rig.start(Method::GET, CallOptions::new().wait_for_ready(true)));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let lifted = crate::time::now();
        users.enable().unwrap();
        assert_eq!(waits.await.unwrap().unwrap().status(), 200);
        assert!(crate::time::now().since(lifted) <= Duration::from_millis(1));
        for origin in ["http://10.0.0.1", "http://10.0.0.2"] {
            let Ok(endpoint) = users.endpoint(origin) else { continue };
            endpoint.force_open().unwrap();
        }
        if rig.core.snapshot()[0].endpoints.is_empty() {
            continue;
        }
        refused().await;
    }
}
