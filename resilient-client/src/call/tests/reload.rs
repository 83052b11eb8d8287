//! Policies change under load, and a client drains.

use std::time::Duration;

use super::script::{Piece, Step, answer, answer_with, asks_to_wait, broken, ms};
use super::*;
use crate::ErrorKind;
use crate::policy::PolicySet;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::concurrency::ConcurrencyPolicy;
use crate::policy::retry::RetryPolicy;
use crate::policy::timeout::TimeoutPolicy;

fn slow(after: Duration) -> Step {
    Step::Answer { after, status: 200, retry_after: None, body: Vec::new() }
}

fn attempts(n: u32) -> Policy {
    Policy::standard().retry(RetryPolicy::standard().max_attempts(n))
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_across_a_hundred_reloads_lose_nothing() {
    let rig = Rig::new(&attempts(2), [answer(200)]);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..10_000_u32 {
        if n % 100 == 0 {
            let reloaded = rig.core.reload(attempts(2 + (n / 100) % 5).into()).unwrap();
            assert!(n == 0 || reloaded.changes == ["client: retry"], "{reloaded:?}");
        }
        calls.spawn(rig.start(Method::GET, CallOptions::new()));
        if n % 200 == 199 {
            while let Some(end) = calls.join_next().await {
                assert_eq!(text(end.unwrap().unwrap()).await.unwrap(), "body");
            }
        }
    }
    assert_eq!((rig.script.count(), rig.in_use()), (10_000, 0));
    let counts = rig.upstream().breaker_snapshot(crate::time::now());
    assert_eq!(counts.successes, 10_000, "the breaker has counted every call through every reload");
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_what_calls_do_and_keeps_what_upstreams_know() {
    let rig = Rig::new(&attempts(1), [answer(500)]);
    while rig.state() != State::Open {
        assert_eq!(rig.get().await.unwrap().status(), 500);
    }
    let reloaded = rig.core.reload(attempts(3).into()).unwrap();
    assert_eq!((reloaded.version, reloaded.changes), (1, vec!["client: retry".to_owned()]));
    assert_eq!(rig.state(), State::Open);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    rig.script.then([answer(200)]);
    let response = rig.get().await.unwrap();
    assert_eq!(response.body().report().policy_version(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_told_once_and_before_what_comes_of_it() {
    let rig = Rig::new(&attempts(1), [answer(200)]);
    rig.get().await.unwrap();
    let told = |event: &Event| match event {
        Event::Reloaded { version, changes } => Some((*version, changes.join(", "))),
        _ => None,
    };
    rig.core.reload(attempts(1).into()).unwrap();
    assert!(rig.events.lock().unwrap().iter().all(|event| told(event).is_none()), "nothing changed");

    rig.events.lock().unwrap().clear();
    let policy = attempts(2).breaker(None).concurrency(ConcurrencyPolicy::gradient());
    rig.core.reload(policy.into()).unwrap();
    let heard = std::mem::take(&mut *rig.events.lock().unwrap());
    assert_eq!(told(&heard[0]), Some((1, "client: retry, client: breaker, client: concurrency".to_owned())));
    assert!(heard.len() > 1 && heard[1..].iter().all(|event| told(event).is_none()), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_cannot_work_changes_nothing_and_says_why() {
    let rig = Rig::new(&attempts(1), [broken()]);
    let bad = attempts(3).timeout(TimeoutPolicy::standard().total(ms(1)).attempt(ms(3_000)));
    let why = rig.core.reload(bad.into()).unwrap_err().to_string();
    assert_eq!(why, "timeout.attempt is 3s, longer than timeout.total, 1ms");
    assert_eq!(rig.get().await.unwrap_err().report().unwrap().attempts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_made_smaller_takes_effect_without_taking_slots_away() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    let held = (rig.get().await.unwrap(), rig.get().await.unwrap());
    let small = Policy::standard().bulkhead(BulkheadPolicy::standard().max_in_flight(1));
    rig.core.reload(small.into()).unwrap();
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::BulkheadFull);
    drop(held);
    assert!(rig.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_breaker_switched_off_by_a_reload_lets_calls_through_at_once() {
    let rig = Rig::new(&attempts(1), [answer(500)]);
    while rig.state() != State::Open {
        assert_eq!(rig.get().await.unwrap().status(), 500);
    }
    rig.core.reload(attempts(1).breaker(None).into()).unwrap();
    assert_eq!(rig.get().await.unwrap().status(), 500);
    rig.core.reload(attempts(1).into()).unwrap();
    assert_eq!(rig.state(), State::Closed, "it starts anew");
}

#[tokio::test(start_paused = true)]
async fn a_route_with_a_breaker_of_its_own_fails_alone() {
    let own = |policy: Policy| {
        policy.breaker(BreakerPolicy::standard().consecutive_failures(2).cold_consecutive_failures(2))
    };
    let set = PolicySet::new(attempts(1)).route("http://users:3000", "POST", "/users/{id}", own);
    let rig = Rig::with(set, None, [answer(500)]);
    for _ in 0..2 {
        assert_eq!(rig.post().await.unwrap().status(), 500);
    }
    assert_eq!(rig.post().await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    rig.script.then([answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_new_calls_and_waits_for_those_in_flight_in_backoff_and_being_read() {
    for steps in [
        vec![Step::Answer {
            after: ms(900),
            status: 200,
            retry_after: None,
            body: vec![Piece::Data("x".into())],
        }],
        vec![asks_to_wait(429, "1"), answer(200)],
    ] {
        let rig = Rig::new(&Policy::standard(), steps);
        let call = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
        tokio::time::sleep(ms(500)).await;
        let begun = crate::time::now();
        let core = Arc::clone(&rig.core);
        let drain = tokio::spawn(async move { core.drain(Duration::from_secs(5)).await });
        tokio::time::sleep(ms(10)).await;
        assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::Draining);
        let response = call.await.unwrap().unwrap();
        assert!(!drain.is_finished(), "its body hasn't been read");
        drop(response);
        assert_eq!(drain.await.unwrap(), 0);
        assert!(crate::time::now().since(begun) < Duration::from_secs(3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_up_at_its_limit_and_counts_what_is_left() {
    let rig = Rig::new(&Policy::standard(), [Step::Hang]);
    let _calls = [(); 3].map(|()| tokio::spawn(rig.start(Method::GET, CallOptions::new())));
    tokio::time::sleep(ms(10)).await;
    let begun = crate::time::now();
    assert_eq!(rig.core.drain(ms(200)).await, 3);
    assert_eq!(crate::time::now().since(begun), ms(200));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_outlives_the_total_and_keeps_the_idle_bound() {
    let drip = (0..20).flat_map(|_| [Piece::Pause(ms(1_000)), Piece::Data("x".into())]).collect();
    let rig = Rig::new(&Policy::standard(), [answer_with(200, drip)]);
    let response = rig.start(Method::GET, CallOptions::new().streaming()).await.unwrap();
    assert!(response.body().report().is_streaming());
    assert_eq!(text(response).await.unwrap().len(), 20);
    let stall = vec![Piece::Data("x".into()), Piece::Pause(Duration::from_secs(120))];
    rig.script.then([answer_with(200, stall)]);
    let response = rig.start(Method::GET, CallOptions::new().streaming()).await.unwrap();
    assert_eq!(text(response).await.unwrap_err().kind(), ErrorKind::BodyIdle);
}

/// A retry is for a moment neither waiting nor in flight: a drain saw nothing of it. A call that
/// nobody has polled hasn't begun, and is refused when it would.
#[tokio::test(start_paused = true)]
async fn a_drain_sees_every_call_that_began_before_it() {
    let rig = Rig::new(&attempts(2), [answer(503), answer(200)]);
    let unpolled = rig.start(Method::GET, CallOptions::new());
    let mut begun = Box::pin(rig.start(Method::GET, CallOptions::new()));
    assert!(tokio::time::timeout(Duration::ZERO, &mut begun).await.is_err(), "polled once");
    assert_eq!(rig.core.drain(ms(10)).await, 1, "begun, and not answered");
    let response = begun.await.unwrap();
    assert_eq!((response.status().as_u16(), rig.core.drain(ms(10)).await), (200, 1), "its body is unread");
    assert_eq!(text(response).await.unwrap(), "body");
    assert_eq!(rig.core.drain(ms(10)).await, 0);
    for error in [unpolled.await.unwrap_err(), rig.get().await.unwrap_err()] {
        assert_eq!((error.kind(), rig.core.drain(ms(10)).await), (ErrorKind::Draining, 0));
    }
}

/// The bulkhead's own number was installed before the one that is found: all who waited were let in
/// at once.
#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_nothing_lets_nobody_out_of_the_adaptive_limits_queue() {
    let adaptive = ConcurrencyPolicy::gradient().initial(4).min(4).max(4);
    let bulkhead = BulkheadPolicy::standard().max_queued(500).queue_wait(Duration::from_secs(5));
    let policy = Policy::standard().concurrency(adaptive).bulkhead(bulkhead.clone());
    let rig = Rig::new(&policy, [slow(Duration::from_secs(1))]);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        calls.spawn(rig.start(Method::GET, CallOptions::new()));
    }
    tokio::time::sleep(ms(500)).await;
    assert_eq!((rig.script.count(), rig.queued()), (4, 196));
    for _ in 0..3 {
        rig.core.reload(policy.clone().into()).unwrap();
        tokio::time::sleep(ms(10)).await;
    }
    assert_eq!((rig.script.count(), rig.queued(), rig.in_use()), (4, 196, 4));
    // Without the adaptive limit it is the bulkhead's number again, and with it the one that was
    // found.
    rig.core.reload(policy.clone().concurrency(None).into()).unwrap();
    tokio::time::sleep(ms(10)).await;
    assert_eq!((rig.script.count(), rig.queued()), (200, 0));
    rig.core.reload(policy.into()).unwrap();
    assert_eq!(rig.core.snapshot()[0].limit, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_reload_says_which_hosts_connect_timeouts_it_cannot_change() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    let set = PolicySet::new(Policy::standard())
        .host("http://far", |policy| policy.timeout(TimeoutPolicy::standard().connect(ms(2_000))));
    let reloaded = rig.core.reload(set).unwrap();
    assert_eq!(reloaded.not_applied, ["http://far: timeout.connect belongs to the connection pool"]);
}
