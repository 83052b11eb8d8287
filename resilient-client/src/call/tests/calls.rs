//! What a caller sees, and what it costs the upstream.

use std::task::Poll;
use std::time::Duration;

use super::script::{Piece, Step, answer, answer_with, asks_to_wait, broken, ms};
use super::*;
use crate::call::response_body::Guard;
use crate::outcome::Verdict;
use crate::outcome::call_id::CallId;
use crate::outcome::classify::{Classified, Ended, Repeat};
use crate::outcome::report::Decline;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::breaker::BreakerPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::{Tick, now};
use crate::{ErrorKind, Trigger};

fn standard() -> Policy {
    Policy::standard()
}

fn outcomes(report: &crate::CallReport) -> Vec<&'static str> {
    report.attempts().iter().map(|attempt| attempt.outcome().map_or("none", Outcome::as_str)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_success_is_one_attempt_and_holds_its_slot_until_its_body_ends() {
    let rig = Rig::new(&standard(), [answer(200)]);
    let response = rig.get().await.unwrap();
    assert_eq!(rig.in_use(), 1);
    assert_eq!(response.body().report().attempts().len(), 1);
    assert_eq!(response.body().report().elapsed(), ms(1));
    assert_eq!(text(response).await.unwrap(), "body");
    assert_eq!((rig.in_use(), rig.script.count()), (0, 1));
    assert_eq!(rig.upstream().breaker_snapshot(now()).successes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_followed_by_another_attempt_and_the_report_tells_both() {
    let rig = Rig::new(&standard(), [answer(503), broken(), answer(200)]);
    let before = rig.tokens();
    let response = rig.get().await.unwrap();
    let report = response.body().report();
    assert_eq!(outcomes(report), ["status", "transport", "success"]);
    assert_eq!(report.attempts()[2].trigger(), Trigger::Retry);
    drop(response);
    // Two extra attempts, one of which succeeded and got its token back.
    assert!((before - rig.tokens() - 1.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn the_backoff_holds_no_slot() {
    let rig = Rig::new(&standard(), [asks_to_wait(429, "2"), answer(200)]);
    let call = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!((rig.script.count(), rig.in_use()), (1, 0));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    let launches = rig.script.launches();
    assert!(launches[1].since(launches[0]) >= Duration::from_secs(2), "Retry-After is a floor");
}

#[tokio::test(start_paused = true)]
async fn on_exhaustion_the_caller_gets_the_last_real_response_whole() {
    let rig = Rig::new(&standard(), [answer(503)]);
    let response = rig.get().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(rig.script.count(), 4);
    assert_eq!(response.body().report().declined(), [Decline::AttemptsExhausted(4)]);
    assert_eq!(text(response).await.unwrap(), "body");
}

#[tokio::test(start_paused = true)]
async fn a_response_set_aside_is_returned_when_nothing_better_comes() {
    let rig = Rig::new(&standard(), [answer(503), broken()]);
    let response = rig.get().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(outcomes(response.body().report()), ["status", "transport", "transport", "transport"]);
    assert!(!response.body().report().is_cut());
    assert_eq!(text(response).await.unwrap(), "body");
}

#[tokio::test(start_paused = true)]
async fn a_response_too_long_to_set_aside_is_marked_and_never_passed_off_as_whole() {
    let long = vec![Piece::Data(vec![b'x'; 40 * 1024].into()), Piece::Data(vec![b'x'; 40 * 1024].into())];
    let rig = Rig::new(&standard(), [answer_with(503, long), broken()]);
    let response = rig.get().await.unwrap();
    assert!(response.body().report().is_cut());
    assert_eq!(text(response).await.unwrap_err().kind(), ErrorKind::Body);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_delays_the_next_attempt_by_fifty_milliseconds_at_most() {
    let slow = vec![Piece::Data("x".into()), Piece::Pause(Duration::from_secs(9))];
    let rig = Rig::new(&standard(), [answer_with(503, slow), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    let launches = rig.script.launches();
    assert!(launches[1].since(launches[0]) <= ms(1 + 50 + 1), "{launches:?}");
}

#[tokio::test(start_paused = true)]
async fn without_any_response_the_caller_gets_the_last_error() {
    let rig = Rig::new(&standard(), [broken()]);
    let error = rig.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert_eq!(error.report().unwrap().attempts().len(), 4);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "connection reset");
}

#[tokio::test(start_paused = true)]
async fn a_hung_attempt_gives_way_to_another() {
    let rig = Rig::new(&standard(), [Step::Hang, answer(200)]);
    let begun = now();
    let response = rig.get().await.unwrap();
    assert_eq!(outcomes(response.body().report()), ["timeout", "success"]);
    assert!(now().since(begun) < Duration::from_millis(3_050));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_call_to_the_millisecond() {
    let rig = Rig::new(&standard(), [Step::Hang]);
    let begun = now();
    let error = rig.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline);
    assert_eq!(now().since(begun), Duration::from_secs(10));
    assert_eq!(rig.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_short_total_of_one_call_still_counts_against_a_hung_server() {
    let policy = standard().retry(None);
    let rig = Rig::new(&policy, [Step::Hang]);
    for _ in 0..5 {
        let error = rig.start(Method::GET, CallOptions::new().timeout(ms(100))).await.unwrap_err();
        assert!(error.is_timeout());
    }
    assert_eq!(rig.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_post_is_repeated_only_with_a_key_or_when_it_was_never_processed() {
    let rig = Rig::new(&standard(), [broken(), answer(200)]);
    let error = rig.post().await.unwrap_err();
    assert_eq!(error.report().unwrap().declined(), [Decline::NotSafe]);
    assert_eq!(rig.script.count(), 1);

    rig.script.then([broken(), answer(201)]);
    let marked = CallOptions::new().idempotent(true);
    assert_eq!(rig.start(Method::POST, marked).await.unwrap().status(), 201);

    rig.script.then([broken(), answer(201)]);
    let mut keyed = Rig::request(Method::POST, CallOptions::new());
    keyed.headers_mut().insert(crate::IDEMPOTENCY_KEY, "k".parse().unwrap());
    assert_eq!(rig.service.clone().call(keyed).await.unwrap().status(), 201);
}

#[tokio::test(start_paused = true)]
async fn a_call_may_ignore_how_long_it_was_asked_to_wait_and_others_still_wait() {
    let rig = Rig::new(
        &standard(),
        [answer(200), asks_to_wait(503, "3600"), answer(200), asks_to_wait(503, "3600"), answer(200)],
    );
    assert_eq!(rig.get().await.unwrap().status(), 200);
    let options = CallOptions::new().ignore_retry_after();
    assert_eq!(rig.start(Method::GET, options).await.unwrap().status(), 200);
    let launches = rig.script.launches();
    assert!(launches[2].since(launches[1]) <= Duration::from_millis(20), "the policy's own wait");
    assert_eq!(rig.get().await.unwrap().status(), 503, "another call obeys");
    assert_eq!(rig.script.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_the_deadline_returns_that_response_at_once() {
    let rig = Rig::new(&standard(), [asks_to_wait(429, "3600")]);
    let begun = now();
    let response = rig.get().await.unwrap();
    assert_eq!((response.status().as_u16(), now().since(begun)), (429, ms(1)));
}

#[tokio::test(start_paused = true)]
async fn a_503_with_retry_after_holds_other_calls_back_and_a_429_does_not() {
    let rig =
        Rig::new(&standard().retry(None), [asks_to_wait(429, "2"), asks_to_wait(503, "2"), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 429);
    assert_eq!(rig.get().await.unwrap().status(), 503);
    let error = rig.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert!(error.retry_after().unwrap() <= Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.script.count(), 3, "the call held back was not sent");
}

#[tokio::test(start_paused = true)]
async fn a_hostile_retry_after_holds_nobody_back_for_longer_than_five_seconds() {
    let rig = Rig::new(&standard().retry(None), [asks_to_wait(503, "99999999999999999999"), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 503);
    assert!(rig.get().await.unwrap_err().retry_after().unwrap() <= Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.get().await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_rejects_at_once_and_probes_bring_it_back() {
    let rig = Rig::new(&standard().retry(None), [answer(500)]);
    for _ in 0..5 {
        assert_eq!(rig.get().await.unwrap().status(), 500);
    }
    let begun = now();
    let error = rig.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!((now(), rig.script.count()), (begun, 5));
    tokio::time::sleep(error.retry_after().unwrap()).await;
    rig.script.then([answer(200)]);
    for _ in 0..3 {
        assert_eq!(text(rig.get().await.unwrap()).await.unwrap(), "body");
    }
    assert_eq!(rig.state(), State::Closed);
    let opened = rig
        .events
        .lock()
        .unwrap()
        .iter()
        .any(|event| matches!(event, Event::BreakerTransition(change) if change.to == State::Open));
    assert!(opened, "the transition is an event");
}

#[tokio::test(start_paused = true)]
async fn a_retry_never_waits_for_its_own_breaker() {
    let rig = Rig::new(&standard(), [answer(500)]);
    let begun = now();
    for _ in 0..2 {
        assert_eq!(rig.get().await.unwrap().status(), 500);
    }
    // Five failures in a row open it: four attempts, then one more and no retry.
    assert_eq!((rig.state(), rig.script.count()), (State::Open, 5));
    assert!(now().since(begun) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_rejects_and_says_its_size() {
    let policy = standard().bulkhead(BulkheadPolicy::standard().max_in_flight(2));
    let rig = Rig::new(&policy, [answer(200)]);
    let (a, _b) = (rig.get().await.unwrap(), rig.get().await.unwrap());
    let error = rig.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BulkheadFull);
    assert!(error.to_string().contains("2 attempts in flight"), "{error}");
    drop(a);
    assert!(rig.get().await.is_ok());
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0, "our own refusals don't count");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_is_an_error_to_the_reader_and_a_failure_to_the_breaker() {
    let stalled = vec![Piece::Data("x".into()), Piece::Pause(Duration::from_secs(60))];
    let rig = Rig::new(&standard(), [answer_with(200, stalled)]);
    let begun = now();
    let error = text(rig.get().await.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BodyIdle);
    assert_eq!(now().since(begun), ms(5_001));
    assert_eq!((rig.upstream().breaker_snapshot(now()).failures, rig.in_use()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_truncated_body_is_a_failure_too() {
    let rig = Rig::new(&standard(), [answer_with(200, vec![Piece::Data("x".into()), Piece::Break])]);
    let error = text(rig.get().await.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_past_the_deadline_is_cut_there() {
    let drip = (0..100).flat_map(|_| [Piece::Pause(ms(1_000)), Piece::Data("x".into())]).collect();
    let rig = Rig::new(&standard(), [answer_with(200, drip)]);
    let begun = now();
    let error = text(rig.get().await.unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), now().since(begun)), (ErrorKind::Deadline, Duration::from_secs(10)));
    assert_eq!(rig.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_nobody_reads_is_a_success_when_it_is_dropped() {
    let rig = Rig::new(&standard(), [answer(200)]);
    drop(rig.get().await.unwrap());
    assert_eq!((rig.upstream().breaker_snapshot(now()).successes, rig.in_use()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn policy_none_passes_everything_through() {
    let rig = Rig::new(&Policy::none(), [answer(503)]);
    for _ in 0..300 {
        let response = rig.get().await.unwrap();
        assert_eq!((response.status().as_u16(), text(response).await.unwrap().as_str()), (503, "body"));
    }
    assert_eq!((rig.script.count(), rig.state()), (300, State::Disabled));
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_the_upstream_no_more_than_its_calls_and_tokens() {
    let policy = standard().breaker(None);
    let rig = Rig::new(&policy, [answer(500)]);
    for _ in 0..1_000 {
        assert_eq!(rig.get().await.unwrap().status(), 500);
    }
    assert_eq!(rig.script.count(), 1_000 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_contradicting_override_is_a_config_error_naming_both_numbers() {
    let rig = Rig::new(&standard(), [answer(200)]);
    let options = CallOptions::new().attempt_timeout(Duration::from_secs(20));
    let error = rig.start(Method::GET, options).await.unwrap_err();
    let cause = error.to_string();
    assert_eq!((error.kind(), rig.script.count()), (ErrorKind::Config, 0));
    assert!(cause.contains("request.attempt_timeout is 20s, longer than the total timeout, 10s"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn events_tell_the_call_in_order() {
    let rig = Rig::new(&standard(), [answer(503), answer(200)]);
    text(rig.get().await.unwrap()).await.unwrap();
    let events = rig.events.lock().unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::CallStarted { .. } => "call".into(),
            Event::CallFinished { end, .. } => format!("{end:?}"),
            Event::AttemptHead { number, .. } => format!("head {number}"),
            Event::AttemptStarted { number, .. } => format!("start {number}"),
            Event::AttemptFinished { number, outcome, .. } => format!("end {number} {outcome}"),
            Event::RetryScheduled { number, after, .. } => format!("retry {number} after {after}"),
            other => format!("{other:?}"),
        })
        .collect();
    let made = "UpstreamMade { kept: true }";
    let attempts = ["start 1", "end 1 status", "retry 2 after status", "start 2", "head 2"];
    let told_of_them: Vec<_> = [made, "call"].into_iter().chain(attempts).collect();
    assert_eq!(told, [&told_of_them[..], &["Response(200)", "end 2 success"]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_window_of_timeouts_opens_the_breaker() {
    let policy = standard()
        .retry(None)
        .timeout(TimeoutPolicy::standard().attempt(ms(100)).connect(ms(50)))
        .breaker(BreakerPolicy::standard());
    let rig = Rig::new(&policy, [Step::Hang]);
    for _ in 0..5 {
        let error = rig.get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(
            error.report().unwrap().attempts()[0].outcome(),
            Some(Outcome::Failure(FailureKind::Timeout))
        );
    }
    assert_eq!(rig.state(), State::Open);
}

/// E9: one shard of ten is down. While its calls come between those of the others, one in ten is
/// far from enough to open a breaker for all, and keys change nothing. When its calls come in a
/// row, as a batch job sends them, twenty failures in a row are the end of the others' calls too,
/// unless each shard has a breaker of its own.
#[tokio::test(start_paused = true)]
async fn e9_a_breaker_by_key_loses_the_broken_shard_and_no_other() {
    const CALLS: u32 = 3_000;
    for (in_a_row, keyed, least, most) in
        [(1, true, 0.90, 0.90), (1, false, 0.90, 0.90), (30, true, 0.90, 0.90), (30, false, 0.0, 0.65)]
    {
        let rig = Rig::new(&standard(), [answer(200)]);
        let mut good = 0;
        for n in 0..CALLS {
            let shard = n / in_a_row % 10;
            rig.script.then([answer(if shard == 3 { 503 } else { 200 })]);
            let options = CallOptions::new();
            let options = if keyed { options.key(format!("shard {shard}")) } else { options };
            let call = rig.start(Method::GET, options).await;
            good += u32::from(call.is_ok_and(|response| response.status() == 200));
            tokio::time::sleep(ms(2)).await;
        }
        let share = f64::from(good) / f64::from(CALLS);
        println!(
            "E9: one shard of ten down, {in_a_row} calls in a row, keyed {keyed}: {:.1} % succeed",
            share * 100.0
        );
        assert!(share >= least && share <= most, "{share}");
    }
}

/// The report was frozen at the head, which had been fine.
#[tokio::test(start_paused = true)]
async fn the_report_of_a_body_that_failed_says_so() {
    let rig = Rig::new(&standard(), [answer_with(200, vec![Piece::Data("x".into()), Piece::Break])]);
    let error = text(rig.get().await.unwrap()).await.unwrap_err();
    assert_eq!(outcomes(error.report().unwrap()), ["body"]);
    let stalls = vec![Piece::Data("x".into()), Piece::Pause(Duration::from_secs(60))];
    rig.script.then([answer_with(200, stalls)]);
    let error = text(rig.get().await.unwrap()).await.unwrap_err();
    assert_eq!(outcomes(error.report().unwrap()), ["body_idle"]);
}

#[tokio::test(start_paused = true)]
async fn a_classifier_may_count_an_answer_as_a_failure_and_hand_it_over_all_the_same() {
    let counted = |end: Ended<'_>, standard: Classified| match end {
        Ended::Response(..) => Classified { verdict: Verdict::Failure, ..standard },
        Ended::Error(_) => Classified { outcome: Outcome::Success, verdict: Verdict::Success, ..standard },
    };
    let rig = Rig::new(&standard().classify(counted), [answer(200), answer(200), broken()]);
    assert_eq!(text(rig.get().await.unwrap()).await.unwrap(), "body");
    let buffered = rig.start(Method::GET, CallOptions::new().buffered(100)).await.unwrap();
    assert_eq!(buffered.status(), 200);
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.failures, counts.successes), (2, 0));
    rig.get().await.unwrap_err();
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.failures, counts.successes), (2, 1), "settled as the classifier said, not abandoned");
}

/// Somebody who looked away while waiting for a piece, and came back an hour later to drop the
/// response, was counted as having waited for an hour.
#[tokio::test(start_paused = true)]
async fn only_the_time_somebody_waited_for_a_piece_counts() {
    for (looks_away, failures) in [(true, 0), (false, 1)] {
        let rig = Rig::new(&standard(), [answer(200)]);
        let mut permit = rig.upstream().place(now()).unwrap().of_attempt(CallId::next(), 1, None);
        permit.heard_as(rig.upstream().heard(&Method::GET));
        permit.sent();
        permit.head(&Classified::answered(None), now());
        let report = crate::CallReport::new(CallId::next(), "x".into(), 0, now());
        let mut guard = Guard::new(permit, report, Tick::NEVER, u64::MAX);
        std::future::poll_fn(|cx| {
            assert!(guard.judge::<bytes::Bytes, crate::error::BoxError>(cx, Poll::Pending).is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::time::sleep(ms(500)).await;
        if looks_away {
            guard.look_away();
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        drop(guard);
        assert_eq!(rig.upstream().breaker_snapshot(now()).failures, failures);
    }
}

/// One 503 with `Retry-After` in ten answers silenced a server that served the other nine.
#[tokio::test(start_paused = true)]
async fn one_retry_after_among_successes_binds_its_own_call_only() {
    let rig = Rig::new(&standard(), [answer(200), asks_to_wait(503, "1"), answer(200)]);
    rig.get().await.unwrap();
    let asked = tokio::spawn(rig.start(Method::GET, CallOptions::new()));
    tokio::time::sleep(ms(10)).await;
    let began = now();
    assert_eq!(text(rig.get().await.unwrap()).await.unwrap(), "body", "another call meanwhile");
    assert!(now().since(began) < ms(10));
    let report = asked.await.unwrap().unwrap().into_body().report().clone();
    assert_eq!(outcomes(&report), ["status", "success"]);
    assert!(report.attempts()[1].started() >= Duration::from_secs(1), "{report}");

    rig.script.then([asks_to_wait(503, "1")]);
    let no_retry = || rig.start(Method::POST, CallOptions::new());
    for _ in 0..10 {
        assert_eq!(no_retry().await.unwrap().status().as_u16(), 503);
    }
    assert_eq!(
        no_retry().await.unwrap_err().kind(),
        ErrorKind::Throttled,
        "ten in a row speak for the server"
    );
}

/// Who polls late, or never, must not cost the server anything, nor himself: like any future's, a
/// call's time runs from its first poll.
#[tokio::test(start_paused = true)]
async fn a_call_begins_when_it_is_first_polled_and_holds_nothing_before() {
    let rig = Rig::new(&standard(), [answer(200)]);
    let before = rig.tokens();
    drop(rig.start(Method::GET, CallOptions::new()));
    let unpolled = rig.start(Method::GET, CallOptions::new());
    let late = rig.start(Method::GET, CallOptions::new().timeout(ms(100)));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((rig.script.count(), rig.in_use(), rig.upstream().unfinished()), (0, 0, 0));
    drop(unpolled);
    let report = late.await.unwrap().into_body().report().clone();
    assert_eq!((outcomes(&report), report.elapsed(), rig.script.count()), (vec!["success"], ms(1), 1));
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.failures, counts.successes, rig.in_use()), (0, 1, 0));
    assert!((rig.tokens() - before - 0.25).abs() < 1e-9, "{} {before}", rig.tokens());
}

/// "300 outer timeouts against a hung server must open it." A timeout of the caller's own drops the
/// call, which in every peer hides the server's silence from the breaker. The control: callers who
/// gave it no time to answer prove nothing.
#[tokio::test(start_paused = true)]
async fn three_hundred_timeouts_of_the_callers_own_open_the_circuit() {
    for (patience, opens) in [(ms(1_200), true), (ms(800), false)] {
        let rig = Rig::new(&standard(), [Step::Hang]);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let call = rig.start(Method::GET, CallOptions::new());
            calls.spawn(async move { tokio::time::timeout(patience, call).await.is_err() });
            tokio::time::sleep(ms(10)).await;
        }
        let timed_out = calls.join_all().await.into_iter().filter(|timed_out| *timed_out).count();
        let open = rig.state() != State::Closed;
        assert_eq!((open, timed_out == 300), (opens, !opens), "{timed_out} timeouts, {:?}", rig.state());
        assert_eq!((rig.in_use(), rig.upstream().unfinished()), (0, 0));
    }
}

/// What `build` refuses in a policy was accepted from a call.
#[tokio::test(start_paused = true)]
async fn a_calls_own_time_that_breaks_a_rule_is_a_config_error_and_nothing_is_sent() {
    let rig = Rig::new(&standard(), [answer(200)]);
    let options = CallOptions::new().attempt_timeout(Duration::from_secs(8));
    let error = rig.start(Method::GET, options).await.unwrap_err();
    assert_eq!((error.kind(), rig.script.count()), (ErrorKind::Config, 0));
    let why = error.to_string();
    assert!(why.contains("longer than half of breaker.window, 10s"), "{why}");
}

/// Nobody saw it: no breaker, throttle or endpoint hears of it.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_says_nothing_about_the_server_is_told_to_no_machine() {
    let unsent = |_: Ended<'_>, _: Classified| Classified::neutral(FailureKind::Unsent, Repeat::Never);
    let throttle = crate::policy::throttle::ThrottlePolicy::standard();
    let rig = Rig::new(&Policy::standard().throttle(throttle).classify(unsent), [broken()]);
    for _ in 0..200 {
        let error = rig.get().await.unwrap_err();
        assert!(!error.is_rejected(), "{error:?}");
    }
    let breaker = rig.upstream().breaker_snapshot(crate::time::now());
    assert_eq!((rig.script.count(), breaker.failures, breaker.successes), (200, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_took_three_connections_to_be_seen_pays_in_like_one_that_took_one() {
    let attempts = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let nth = Arc::clone(&attempts);
    let twice = move |_: Ended<'_>, standard: Classified| match nth
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst)
    {
        0 | 1 => Classified::neutral(FailureKind::Unsent, Repeat::Unsent),
        _ => standard,
    };
    let rig = Rig::new(&Policy::standard().classify(twice), [answer(200)]);
    let (begun, tokens) = (crate::time::now(), rig.tokens());
    let response = rig.post().await.unwrap();
    assert_eq!(response.body().report().attempts().len(), 3);
    assert_eq!(text(response).await.unwrap(), "body");
    assert_eq!(crate::time::now().since(begun), ms(3), "each at once");
    assert!((rig.tokens() - tokens - 0.25).abs() < 1e-9, "{}", rig.tokens());
}
