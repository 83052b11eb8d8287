//! What a head says and what its body adds, to the machines that want to know, when it is known.

use std::time::Duration;

use super::script::{Piece, Step, answer, answer_with, asks_to_wait, broken, ms};
use super::*;
use crate::ErrorKind;
use crate::deadline::{self, Deadline};
use crate::policy::breaker::State;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;

const HOUR: Duration = Duration::from_secs(3600);

fn data() -> Piece {
    Piece::Data("data".into())
}

/// A body that brings something and then, for an hour, nothing.
fn open_ended() -> Step {
    answer_with(200, vec![data(), Piece::Pause(HOUR)])
}

fn streaming() -> CallOptions {
    CallOptions::new().streaming()
}

async fn fail_until_open(rig: &Rig) {
    rig.script.then([broken()]);
    while rig.state() != State::Open {
        let _ = rig.post().await;
        tokio::time::sleep(ms(200)).await;
    }
}

/// "Half-open for ever": the probes were streams that never ended, so no verdict ever came.
#[tokio::test(start_paused = true)]
async fn an_upstream_of_streams_is_closed_by_the_first_good_heads() {
    let rig = Rig::new(&Policy::standard(), [broken()]);
    fail_until_open(&rig).await;
    rig.script.then([open_ended()]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(rig.start(Method::GET, streaming()).await.expect("served from the first probe on"));
    }
    assert_eq!((rig.state(), rig.in_use()), (State::Closed, 200));
}

#[tokio::test(start_paused = true)]
async fn downloads_of_fifteen_seconds_do_not_keep_a_breaker_half_open() {
    let rig = Rig::new(&Policy::standard(), [broken()]);
    fail_until_open(&rig).await;
    let download = || {
        let pieces = (0..15).flat_map(|_| [data(), Piece::Pause(Duration::from_secs(1))]);
        answer_with(200, pieces.collect())
    };
    rig.script.then([download()]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut refused, mut reading) = (0, tokio::task::JoinSet::new());
    for _ in 0..100 {
        match rig.start(Method::GET, streaming()).await {
            Ok(response) => _ = reading.spawn(text(response)),
            Err(_) => refused += 1,
        }
        tokio::time::sleep(ms(200)).await;
    }
    assert_eq!(refused, 0);
    assert!(reading.join_all().await.into_iter().all(|whole| whole.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn five_scattered_failures_among_good_streams_do_not_open_it() {
    let rig = Rig::new(&Policy::standard(), [open_ended()]);
    let mut streams = Vec::new();
    for n in 0..103 {
        rig.script.then([if n % 20 == 19 { answer(500) } else { open_ended() }]);
        streams.push(rig.start(Method::POST, streaming()).await);
        tokio::time::sleep(ms(20)).await;
    }
    assert_eq!(rig.state(), State::Closed);
}

/// Twenty streams, each cut by itself, as a rolling restart does.
#[tokio::test(start_paused = true)]
async fn streams_that_are_cut_off_say_nothing_against_the_server() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    rig.script.then([answer_with(200, vec![data(), Piece::Pause(ms(900)), Piece::Break])]);
    for _ in 0..20 {
        let stream = rig.start(Method::GET, streaming()).await.unwrap();
        assert_eq!(text(stream).await.unwrap_err().kind(), ErrorKind::Body);
    }
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.state, counts.failures), (State::Closed, 0));
    // The control: one that is cut off before it has brought anything is a failure like any other.
    rig.script.then([answer_with(200, vec![Piece::Pause(ms(900)), Piece::Break])]);
    for _ in 0..20 {
        let Ok(stream) = rig.start(Method::GET, streaming()).await else { break };
        text(stream).await.unwrap_err();
    }
    assert_eq!(rig.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_cuts_twenty_downloads_is_one_failure() {
    let rig =
        Rig::new(&Policy::standard(), [answer_with(200, vec![data(), Piece::Pause(ms(900)), Piece::Break])]);
    let mut downloads = tokio::task::JoinSet::new();
    for _ in 0..20 {
        downloads.spawn(text(rig.get().await.unwrap()));
    }
    assert!(downloads.join_all().await.into_iter().all(|whole| whole.is_err()));
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.state, counts.failures, counts.streak), (State::Closed, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_and_then_stalls_opens_its_breaker() {
    let rig = Rig::new(&Policy::standard(), [open_ended()]);
    let begun = now();
    let mut reading = tokio::task::JoinSet::new();
    while rig.state() == State::Closed {
        if let Ok(response) = rig.get().await {
            reading.spawn(text(response));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let took = now().since(begun).as_secs();
    assert!((9..=11).contains(&took), "five bodies, one a second, each stalling for five: {took} s");
}

/// All of a hundred calls ended as Deadline, and the breaker had seen neither a failure nor a
/// success.
#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_past_the_total_leaves_its_heads_success() {
    let trickle = (0..200).flat_map(|_| [data(), Piece::Pause(ms(100))]).collect();
    let rig = Rig::new(&Policy::standard(), [answer_with(200, trickle)]);
    for _ in 0..10 {
        assert_eq!(text(rig.get().await.unwrap()).await.unwrap_err().kind(), ErrorKind::Deadline);
        let counts = rig.upstream().breaker_snapshot(now());
        assert_eq!((counts.failures, counts.successes), (0, 0), "the heads of ten seconds ago");
    }
    drop(rig.get().await.unwrap());
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.failures, counts.successes), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_a_heartbeat_of_fifteen_seconds_is_not_cut() {
    let beats = (0..8).flat_map(|_| [data(), Piece::Pause(Duration::from_secs(15))]).collect();
    let rig = Rig::new(&Policy::standard(), [answer_with(200, beats)]);
    let stream = rig.start(Method::GET, streaming()).await.unwrap();
    assert_eq!(text(stream).await.unwrap().len(), 8 * 4);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_ended_after_a_minute_and_not_held_against_the_server() {
    let rig = Rig::new(&Policy::standard(), [open_ended()]);
    for _ in 0..6 {
        let begun = now();
        let stream = rig.start(Method::GET, streaming()).await.unwrap();
        assert_eq!(text(stream).await.unwrap_err().kind(), ErrorKind::BodyIdle);
        assert_eq!(now().since(begun).as_secs(), 60);
    }
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.state, counts.failures), (State::Closed, 0));
    let timeout = TimeoutPolicy::standard().stream_idle(Duration::from_secs(20));
    let rig = Rig::new(&Policy::standard().timeout(timeout), [open_ended()]);
    let begun = now();
    text(rig.start(Method::GET, streaming()).await.unwrap()).await.unwrap_err();
    assert_eq!(now().since(begun).as_secs(), 20);
}

/// Total 300 ms, and a reader that takes a piece now and then was still reading after three
/// seconds.
#[tokio::test(start_paused = true)]
async fn the_total_holds_while_data_is_ready() {
    let timeout = TimeoutPolicy::standard().total(ms(300)).attempt(ms(300));
    let pieces = (0..1000).map(|_| data()).collect();
    let rig = Rig::new(&Policy::standard().timeout(timeout), [answer_with(200, pieces)]);
    let mut body = std::pin::pin!(rig.get().await.unwrap().into_body());
    let begun = now();
    let ended = loop {
        match body.as_mut().frame().await.expect("a thousand pieces") {
            Ok(_) => tokio::time::sleep(ms(30)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(ended.kind(), ErrorKind::Deadline);
    assert!(now().since(begun) <= ms(330), "{:?}", now().since(begun));
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.failures, counts.successes, rig.in_use()), (0, 1, 0));
}

/// What had been set aside kept its slot, and a retry that was due its token, for as long as the
/// caller kept the call.
#[tokio::test(start_paused = true)]
async fn a_finished_call_holds_nothing_even_if_it_is_not_dropped() {
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(ms(50)));
    let rig = Rig::new(&Policy::standard().hedge(hedge), [Step::Hang]);
    let slow_failure = answer_with(503, vec![data(), Piece::Pause(HOUR)]);
    let first = Step::Answer { after: ms(60), status: 200, retry_after: None, body: Vec::new() };
    rig.script.then([first, slow_failure, Step::Hang]);
    let tokens = rig.tokens();
    let mut call = std::pin::pin!(rig.start(Method::GET, CallOptions::new()));
    let response = call.as_mut().await.unwrap();
    assert_eq!((response.status().as_u16(), rig.script.count()), (200, 2));
    drop(response);
    assert_eq!((rig.in_use(), rig.upstream().unfinished()), (0, 0));
    let spent = tokens + 0.25 - rig.tokens();
    assert!((spent - 1.0).abs() < 1e-9, "the hedge that was sent, and no other: {spent}");
}

/// A hung upstream under callers' deadlines of 300 to 900 ms never opened: each attempt was the
/// caller's haste.
#[tokio::test(start_paused = true)]
async fn a_hung_server_opens_its_breaker_whoever_ended_the_wait() {
    for patience in [ms(300), ms(600), ms(900)] {
        let rig = Rig::new(&Policy::standard(), [Step::Hang]);
        for _ in 0..5 {
            let error = deadline::scope(Deadline::within(patience), rig.get()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Deadline);
        }
        assert_eq!(rig.state(), State::Open, "{patience:?}");
    }
}

/// The control: a server that answers in its usual time is well, however hasty some of its callers
/// are.
#[tokio::test(start_paused = true)]
async fn a_deadline_shorter_than_the_usual_time_is_the_callers_haste() {
    let usual = Step::Answer { after: ms(200), status: 200, retry_after: None, body: Vec::new() };
    let rig = Rig::new(&Policy::standard(), [usual]);
    for n in 0..200 {
        if n % 20 == 0 {
            rig.get().await.unwrap();
        }
        let hasty = deadline::scope(Deadline::within(ms(150)), rig.get()).await;
        assert_eq!(hasty.unwrap_err().kind(), ErrorKind::Deadline);
    }
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_short_beyond_the_usual_time_makes_the_usual_time_longer() {
    let quick = Step::Answer { after: ms(10), status: 200, retry_after: None, body: Vec::new() };
    let rig = Rig::new(&Policy::standard(), [quick]);
    for _ in 0..20 {
        rig.get().await.unwrap();
    }
    assert!(rig.upstream().usual(now()).unwrap() < 12_000_000);
    rig.script.then([Step::Hang]);
    for _ in 0..30 {
        assert!(tokio::time::timeout(ms(100), rig.get()).await.is_err());
    }
    let usual = rig.upstream().usual(now()).unwrap();
    assert!(usual > 90_000_000, "{usual}");
    for _ in 0..200 {
        assert!(tokio::time::timeout(ms(1), rig.get()).await.is_err());
    }
    assert_eq!(rig.upstream().usual(now()), Some(usual), "who left at once says nothing of it");
}

/// A 503 that asks to be left alone, among others: nothing here waits for a body.
#[tokio::test(start_paused = true)]
async fn an_answer_with_a_body_to_come_ends_a_row_of_retry_after_answers() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    rig.get().await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..3 {
        rig.script.then([asks_to_wait(503, "1")]);
        for _ in 0..9 {
            assert_eq!(rig.post().await.unwrap().status().as_u16(), 503);
        }
        rig.script.then([open_ended()]);
        streams.push(rig.start(Method::POST, streaming()).await.unwrap());
    }
}

/// Behind a layer such a connection was 20 failures.
#[tokio::test(start_paused = true)]
async fn bodies_that_stall_on_a_connection_they_share_are_one_failure() {
    let stalls = Step::Streamed { headers: http::HeaderMap::new(), body: vec![data(), Piece::Pause(HOUR)] };
    let rig = Rig::new(&Policy::standard(), [stalls]);
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..20 {
        reading.spawn(text(rig.post().await.unwrap()));
    }
    while let Some(read) = reading.join_next().await {
        assert_eq!(read.unwrap().unwrap_err().kind(), ErrorKind::BodyIdle);
    }
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 1);
}
