//! A head that has come stays known, whatever becomes of its body: events, spans and metrics have
//! its status beside what went wrong.

use super::script::{Piece, Step, answer_with, ms};
use super::*;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::timeout::TimeoutPolicy;

const IDLE: u64 = 100;
const ATTEMPT: u64 = 300;
const TOTAL: u64 = 400;

fn policy() -> Policy {
    let timeout = TimeoutPolicy::standard().total(ms(TOTAL)).attempt(ms(ATTEMPT)).body_idle(ms(IDLE));
    Policy::standard().timeout(timeout).retry(None).breaker(None)
}

/// A head at once, a piece, and another after a while.
fn pauses(pause: u64) -> Step {
    answer_with(200, vec![Piece::Data("x".into()), Piece::Pause(ms(pause)), Piece::Data("y".into())])
}

fn breaks() -> Step {
    answer_with(200, vec![Piece::Data("x".into()), Piece::Break])
}

/// Pieces that come often enough, for ever.
fn trickles() -> Step {
    let pieces = (0..100).flat_map(|_| [Piece::Data("x".into()), Piece::Pause(ms(IDLE / 2))]);
    answer_with(200, pieces.collect())
}

/// What its attempts came to, and with which status.
fn ended(rig: &Rig) -> Vec<(Outcome, Option<u16>)> {
    let events = rig.events.lock().unwrap();
    let ended = events.iter().filter_map(|event| match event {
        Event::AttemptFinished { outcome, status, .. } => Some((*outcome, status.map(|it| it.as_u16()))),
        _ => None,
    });
    ended.collect()
}

/// The same, of the report.
fn said(report: &crate::CallReport) -> Vec<Option<u16>> {
    report.attempts().iter().map(|attempt| attempt.status().map(|it| it.as_u16())).collect()
}

async fn read(rig: &Rig) {
    let body = rig.get().await.unwrap().into_body();
    let error = body.collect().await.unwrap_err();
    assert_eq!(said(error.report().unwrap()), [Some(200)]);
}

fn failure(kind: FailureKind) -> Outcome {
    Outcome::Failure(kind)
}

#[tokio::test(start_paused = true)]
async fn of_a_body_handed_over() {
    let rig = Rig::new(&policy(), [breaks()]);
    read(&rig).await;
    assert_eq!(ended(&rig), [(failure(FailureKind::Body), Some(200))]);

    let rig = Rig::new(&policy(), [pauses(10 * IDLE)]);
    read(&rig).await;
    assert_eq!(ended(&rig), [(failure(FailureKind::BodyIdle), Some(200))], "it stalled");

    let rig = Rig::new(&policy(), [trickles()]);
    read(&rig).await;
    assert_eq!(ended(&rig), [(Outcome::Abandoned, Some(200))], "the call's time was up while it came");

    // Waited for in vain until the call's time was up.
    let slow = Step::Answer {
        after: ms(TOTAL - IDLE / 2),
        status: 200,
        retry_after: None,
        body: vec![Piece::Pause(ms(10 * IDLE))],
    };
    let attempt = TimeoutPolicy::standard().total(ms(TOTAL)).attempt(ms(TOTAL)).body_idle(ms(IDLE));
    let rig = Rig::new(&policy().timeout(attempt), [slow]);
    read(&rig).await;
    assert_eq!(ended(&rig), [(Outcome::Abandoned, Some(200))], "it was waited for in vain");

    let rig = Rig::new(&policy(), [pauses(10)]);
    drop(rig.get().await.unwrap());
    assert_eq!(ended(&rig)[0].1, Some(200), "nobody wanted it");
}

#[tokio::test(start_paused = true)]
async fn of_a_body_that_somebody_waited_for_and_left() {
    let timeout = TimeoutPolicy::standard().total(ms(60_000)).attempt(ms(1000)).body_idle(ms(50_000));
    // Its breaker says after how long leaving is a failure.
    let rig = Rig::new(&Policy::standard().timeout(timeout).retry(None), [pauses(40_000)]);
    let mut body = Box::pin(rig.get().await.unwrap().into_body());
    body.frame().await.unwrap().unwrap();
    tokio::time::timeout(ms(5000), body.frame()).await.unwrap_err();
    drop(body);
    assert_eq!(ended(&rig), [(failure(FailureKind::BodyIdle), Some(200))]);
}

#[tokio::test(start_paused = true)]
async fn of_a_body_that_is_part_of_the_attempt() {
    let buffered = || CallOptions::new().buffered(100);
    for (step, outcome) in [
        (breaks(), failure(FailureKind::Body)),
        (pauses(10 * IDLE), failure(FailureKind::BodyIdle)),
        (trickles(), failure(FailureKind::Timeout)),
    ] {
        let rig = Rig::new(&policy(), [step]);
        let error = rig.start(Method::GET, buffered()).await.unwrap_err();
        assert_eq!(
            (ended(&rig), said(error.report().unwrap())),
            (vec![(outcome, Some(200))], vec![Some(200)])
        );
    }

    let whole = TimeoutPolicy::standard().total(ms(TOTAL)).attempt(ms(TOTAL)).body_idle(ms(IDLE));
    let rig = Rig::new(&policy().timeout(whole), [trickles()]);
    let error = rig.start(Method::GET, buffered()).await.unwrap_err();
    assert_eq!(ended(&rig)[0].1, Some(200), "the call's time was up");
    assert_eq!(said(error.report().unwrap()), [Some(200)]);

    let rig = Rig::new(&policy(), [trickles()]);
    tokio::time::timeout(ms(IDLE), rig.start(Method::GET, buffered())).await.unwrap_err();
    assert_eq!(ended(&rig), [(Outcome::Abandoned, Some(200))], "the call was dropped");

    let hedged = policy().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(30))));
    let rig = Rig::new(&hedged, [trickles(), super::script::answer(200)]);
    let response = rig.start(Method::GET, buffered()).await.unwrap();
    let statuses: Vec<_> = ended(&rig).into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [Some(200); 2], "it lost to a hedge");
    assert_eq!(said(response.body().report()), [Some(200); 2]);
}
