//! Bodies that are part of their attempt, and classifiers of the user's own.

use std::time::Duration;

use super::script::{Piece, answer, answer_with, ms};
use super::*;
use crate::ErrorKind;
use crate::outcome::classify::{Classified, Ended, Repeat};
use crate::outcome::{FailureKind, Outcome};
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;

fn whole() -> CallOptions {
    CallOptions::new().buffered(1024)
}

fn quick() -> Policy {
    Policy::standard().timeout(TimeoutPolicy::standard().attempt(ms(500)))
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_costs_its_attempt_and_not_the_call() {
    let stalled = answer_with(200, vec![Piece::Data("bo".into()), Piece::Pause(Duration::from_secs(60))]);
    let rig = Rig::new(&quick(), [stalled, answer(200)]);
    let begun = now();
    let response = rig.start(Method::GET, whole()).await.unwrap();
    assert_eq!(rig.in_use(), 0, "a body that was read holds nothing");
    assert!(now().since(begun) < ms(550));
    let report = response.body().report();
    assert_eq!(report.attempts()[0].outcome(), Some(Outcome::Failure(FailureKind::Timeout)));
    assert_eq!(text(response).await.unwrap(), "body");
}

#[tokio::test(start_paused = true)]
async fn a_truncated_body_is_retried_and_counts_against_the_breaker() {
    let cut = answer_with(200, vec![Piece::Data("bo".into()), Piece::Break]);
    let rig = Rig::new(&quick(), [cut, answer(200)]);
    let response = rig.start(Method::GET, whole()).await.unwrap();
    let first = &response.body().report().attempts()[0];
    assert_eq!(
        (first.outcome(), first.status().unwrap().as_u16()),
        (Some(Outcome::Failure(FailureKind::Body)), 200)
    );
    assert_eq!(text(response).await.unwrap(), "body");
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.failures, counts.successes), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_to_a_post_is_an_error_and_not_a_second_post() {
    let cut = answer_with(200, vec![Piece::Data("bo".into()), Piece::Break]);
    let rig = Rig::new(&quick(), [cut, answer(200)]);
    let error = rig.start(Method::POST, whole()).await.unwrap_err();
    assert_eq!((error.kind(), rig.script.count()), (ErrorKind::Body, 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_an_error_at_once_and_no_failure_of_the_server() {
    let rig = Rig::new(&quick(), [answer_with(200, vec![Piece::Data(vec![b'x'; 1025].into())])]);
    let error = rig.start(Method::GET, whole()).await.unwrap_err();
    assert_eq!((error.kind(), rig.script.count()), (ErrorKind::BodyTooLarge, 1));
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0);
    let rig = Rig::new(&quick(), [answer_with(200, vec![Piece::Data(vec![b'x'; 1024].into())])]);
    assert!(rig.start(Method::GET, whole()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_in_many_pieces_arrives_whole() {
    let pieces = ["a", "b", "c"].map(|piece| Piece::Data(piece.into())).to_vec();
    let rig = Rig::new(&quick(), [answer_with(200, pieces)]);
    assert_eq!(text(rig.start(Method::GET, whole()).await.unwrap()).await.unwrap(), "abc");
}

#[tokio::test(start_paused = true)]
async fn a_classifier_of_ones_own_decides_what_is_tried_again() {
    let warming_up = |end: Ended<'_>, standard: Classified| match end {
        Ended::Response(status, _) if status == 404 => {
            Classified { status: standard.status, ..Classified::failure(FailureKind::Status, Repeat::IfSafe) }
        }
        _ => standard,
    };
    let rig = Rig::new(&Policy::standard().classify(warming_up), [answer(404), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_leaves_the_standard_table_in_force() {
    let broken = |_: Ended<'_>, _: Classified| -> Classified { panic!("a bug in the user's closure") };
    let rig = Rig::new(&Policy::standard().classify(broken), [answer(503), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!((rig.script.count(), rig.in_use()), (2, 0));
}

/// The attempt's own timer was the only one, so a body could pause for as long as that, whatever
/// the policy said.
#[tokio::test(start_paused = true)]
async fn a_body_that_pauses_for_too_long_is_given_up_before_its_attempt_is() {
    let stalls =
        vec![Piece::Data("x".into()), Piece::Pause(ms(60)), Piece::Data("y".into()), Piece::Pause(ms(2_000))];
    let policy = Policy::standard().timeout(TimeoutPolicy::standard().body_idle(ms(100)));
    let rig = Rig::new(&policy, [answer_with(200, stalls), answer(200)]);
    let begun = now();
    let response = rig.start(Method::GET, CallOptions::new().buffered(100)).await.unwrap();
    let first = &response.body().report().attempts()[0];
    assert_eq!(first.outcome(), Some(Outcome::Failure(FailureKind::BodyIdle)));
    assert_eq!(first.duration(), ms(1 + 60 + 100));
    assert!(now().since(begun) < ms(200));
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_names_it() {
    let rig = Rig::new(&Policy::standard(), [answer(200)]);
    let error = rig.start(Method::GET, CallOptions::new().buffered(3)).await.unwrap_err();
    assert_eq!(error.to_string(), "response body is too large: more than 3 bytes (http://users:3000)");
}
