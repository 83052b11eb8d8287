//! Calls by gRPC: what their statuses mean, and what they are sent with.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::script::{Piece, Step, ms};
use super::*;
use crate::deadline::header::{GRPC_TIMEOUT, parse_grpc};
use crate::deadline::{self, Deadline};
use crate::event::CallEnd;
use crate::outcome::classify::grpc::Code;
use crate::outcome::{FailureKind, Outcome};
use crate::policy::concurrency::ConcurrencyPolicy;
use crate::policy::retry::RetryPolicy;
use crate::policy::throttle::ThrottlePolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;
use crate::{ErrorKind, grpc::PREVIOUS_ATTEMPTS};

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let kind = [("content-type", "application/grpc")];
    let fields = kind.iter().chain(fields);
    fields.map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value))).collect()
}

/// An answer without messages.
fn says(status: &'static str) -> Step {
    Step::Headed { status: 200, headers: headers(&[("grpc-status", status)]) }
}

fn pushes_back(ms: &'static str) -> Step {
    let fields = [("grpc-status", "14"), ("grpc-retry-pushback-ms", ms)];
    Step::Headed { status: 200, headers: headers(&fields) }
}

/// A message, and this status behind it.
fn ends_with(status: &'static str) -> Step {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
    streams(vec![Piece::Data("message".into()), Piece::Trailers(trailers)])
}

fn streams(body: Vec<Piece>) -> Step {
    Step::Streamed { headers: headers(&[]), body }
}

async fn call(rig: &Rig, options: CallOptions) -> Answer {
    call_within(rig, options, None).await
}

async fn call_within(rig: &Rig, options: CallOptions, timeout: Option<&'static str>) -> Answer {
    let mut request = Rig::request(Method::POST, options);
    *request.headers_mut() = headers(&[("te", "trailers")]);
    if let Some(timeout) = timeout {
        request.headers_mut().insert(GRPC_TIMEOUT, HeaderValue::from_static(timeout));
    }
    rig.service.clone().call(request).await
}

fn safe() -> CallOptions {
    CallOptions::new().idempotent(true)
}

fn code(answer: Answer) -> Option<Code> {
    Code::of(answer.unwrap().headers())
}

/// Data and trailers of an answer.
async fn read(answer: Answer) -> (String, Option<Code>) {
    let body = answer.unwrap().into_body().collect().await.unwrap();
    let code = body.trailers().and_then(Code::of);
    (String::from_utf8(body.to_bytes().to_vec()).unwrap(), code)
}

/// What each attempt was told, in milliseconds.
fn told(rig: &Rig) -> Vec<Option<u128>> {
    rig.script.headers().iter().map(|headers| parse_grpc(headers).map(|time| time.as_millis())).collect()
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_tried_again_where_that_is_said_to_be_safe() {
    let rig = Rig::new(&Policy::standard(), [says("14"), says("14"), ends_with("0")]);
    assert_eq!(code(call(&rig, CallOptions::new()).await), Some(Code::Unavailable));
    assert_eq!(rig.script.count(), 1, "a POST like others");

    assert_eq!(read(call(&rig, safe()).await).await, ("message".to_owned(), Some(Code::Ok)));
    assert_eq!(rig.script.count(), 3);

    let policy = Policy::standard().retry(RetryPolicy::standard().idempotent(true));
    let rig = Rig::new(&policy, [says("14"), ends_with("0"), says("14")]);
    read(call(&rig, CallOptions::new()).await).await;
    assert_eq!(rig.script.count(), 2, "its policy says so");
    call(&rig, CallOptions::new().idempotent(false)).await.unwrap();
    assert_eq!(rig.script.count(), 3, "a call speaks for itself");
}

#[tokio::test(start_paused = true)]
async fn what_only_the_caller_can_mend_is_its_answer_and_no_failure() {
    for status in ["3", "5", "7", "10", "12", "16"] {
        let rig = Rig::new(&Policy::standard(), [says(status)]);
        for _ in 0..30 {
            call(&rig, safe()).await.unwrap();
        }
        assert_eq!(
            (rig.script.count(), rig.upstream().breaker_snapshot(now()).failures),
            (30, 0),
            "{status}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pushback_is_obeyed_and_a_refusal_is_final() {
    let rig = Rig::new(&Policy::standard(), [pushes_back("400"), ends_with("0")]);
    read(call(&rig, safe()).await).await;
    let launches = rig.script.launches();
    let wait = launches[1].since(launches[0]);
    assert!(wait >= ms(400) && wait <= ms(900), "{wait:?}");

    let rig = Rig::new(&Policy::standard(), [pushes_back("-1"), ends_with("0")]);
    assert_eq!(code(call(&rig, safe()).await), Some(Code::Unavailable));
    assert_eq!(rig.script.count(), 1);
}

/// It counted as a success.
#[tokio::test(start_paused = true)]
async fn a_status_in_the_trailers_is_what_the_call_came_to() {
    let rig = Rig::new(&Policy::standard(), [ends_with("14")]);
    for _ in 0..5 {
        assert_eq!(read(call(&rig, safe()).await).await.1, Some(Code::Unavailable));
        // All at once they might tell of one server that drains.
        tokio::time::sleep(ms(300)).await;
    }
    assert_eq!(rig.script.count(), 5, "who has the message has the answer: nothing is tried again");
    assert!(matches!(rig.state(), State::Open), "{:?}", rig.state());
    let events = rig.events.lock().unwrap();
    let outcome = events.iter().find_map(|event| match event {
        Event::AttemptFinished { outcome, .. } => Some(*outcome),
        _ => None,
    });
    assert_eq!(outcome, Some(Outcome::Failure(FailureKind::Status)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_a_status_was_cut_off() {
    let rig = Rig::new(&Policy::standard(), [streams(vec![Piece::Data("message".into())])]);
    for _ in 0..5 {
        assert_eq!(read(call(&rig, CallOptions::new()).await).await.1, None);
        // All at once they might tell of one lost connection.
        tokio::time::sleep(ms(300)).await;
    }
    assert!(matches!(rig.state(), State::Open), "{:?}", rig.state());
    // One that is dropped half-read says nothing.
    let rig = Rig::new(&Policy::standard(), [ends_with("14")]);
    for _ in 0..30 {
        let mut body = call(&rig, CallOptions::new()).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
    }
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn where_the_body_is_part_of_the_attempt_its_trailers_are() {
    let rig = Rig::new(&Policy::standard(), [ends_with("14"), ends_with("0")]);
    let answer = call(&rig, safe().buffered(100)).await;
    let attempts = answer.as_ref().unwrap().body().report().attempts().to_vec();
    assert_eq!(attempts[0].outcome(), Some(Outcome::Failure(FailureKind::Status)));
    assert_eq!(read(answer).await, ("message".to_owned(), Some(Code::Ok)));
    assert_eq!(rig.script.count(), 2);

    let rig = Rig::new(&Policy::standard(), [ends_with("14")]);
    let answer = call(&rig, safe().buffered(100)).await;
    assert_eq!(read(answer).await, ("message".to_owned(), Some(Code::Unavailable)), "the last real one");
    assert_eq!(rig.script.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_tells_what_is_left_of_the_call_and_how_many_there_were() {
    let rig = Rig::new(&Policy::standard(), [pushes_back("400"), ends_with("0")]);
    read(call(&rig, safe()).await).await;
    let told = told(&rig);
    assert_eq!(told[0], Some(10_000), "the call's time, and not the attempt's");
    assert!(told[1].is_some_and(|left| (9_000..=9_600).contains(&left)), "{told:?}");
    let sent = rig.script.headers();
    let previous = sent.iter().map(|headers| headers.get(PREVIOUS_ATTEMPTS).cloned());
    assert_eq!(previous.collect::<Vec<_>>(), [None, Some(HeaderValue::from_static("1"))]);
}

#[tokio::test(start_paused = true)]
async fn what_its_caller_says_is_the_calls_time_and_is_only_shortened() {
    let hangs = || [pushes_back("20"), Step::Hang];
    let rig = Rig::new(&Policy::standard(), hangs());
    let begun = now();
    assert_eq!(code(call_within(&rig, safe(), Some("500m")).await), Some(Code::Unavailable), "kept");
    assert_eq!(now().since(begun), ms(500));
    let told_then = told(&rig);
    assert_eq!(told_then[0], Some(500));
    assert!(told_then[1].is_some_and(|left| left <= 480), "{told_then:?}");

    let rig = Rig::new(&Policy::standard(), [ends_with("0")]);
    read(call_within(&rig, safe(), Some("1M")).await).await;
    read(call_within(&rig, safe(), Some("1H")).await).await;
    assert_eq!(told(&rig), [Some(10_000); 2], "the policy's is shorter");
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_an_end_is_bounded_by_its_caller_alone() {
    let rig = Rig::new(&Policy::standard(), [ends_with("0")]);
    read(call(&rig, safe().streaming()).await).await;
    read(call_within(&rig, safe().streaming(), Some("2S")).await).await;
    read(call(&rig, safe().buffered(100)).await).await;
    assert_eq!(told(&rig), [None, Some(2_000), Some(3_000)], "the last has its body in the attempt");
    let rig = Rig::new(&Policy::none(), [ends_with("0")]);
    read(call(&rig, safe()).await).await;
    assert_eq!(told(&rig), [None]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_where_nobody_is_to_be() {
    let setup = Setup { deadline_header: None, ..Setup::default() };
    let rig = Rig::set_up(setup, [ends_with("0")]);
    read(call(&rig, safe()).await).await;
    read(call_within(&rig, safe(), Some("2S")).await).await;
    assert_eq!(told(&rig), [None, Some(2_000)], "but by its caller");
}

#[tokio::test(start_paused = true)]
async fn its_caller_gets_a_status_where_others_get_an_error() {
    let rig = Rig::new(&Policy::standard(), [says("14")]);
    for _ in 0..5 {
        call(&rig, CallOptions::new()).await.unwrap();
    }
    let refused = call(&rig, CallOptions::new()).await.unwrap();
    assert_eq!(rig.script.count(), 5);
    assert_eq!(Code::of(refused.headers()), Some(Code::Unavailable));
    assert_eq!(
        refused.headers()["grpc-message"].to_str().unwrap().split(':').next(),
        Some("circuit breaker is open")
    );
    assert_eq!(refused.extensions().get::<Arc<Error>>().unwrap().kind(), ErrorKind::CircuitOpen);
    assert!(rig.post().await.unwrap_err().is_circuit_open(), "a POST that isn't gRPC's");

    let rig = Rig::new(&Policy::standard(), [Step::Hang]);
    assert_eq!(code(call(&rig, CallOptions::new()).await), Some(Code::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_ends_in_a_status() {
    for (end, expected) in
        [(Piece::Break, Code::Unavailable), (Piece::Pause(Duration::from_secs(60)), Code::DeadlineExceeded)]
    {
        let rig = Rig::new(&Policy::standard(), [streams(vec![Piece::Data("message".into()), end])]);
        assert_eq!(read(call(&rig, safe()).await).await, ("message".to_owned(), Some(expected)));
        assert_eq!((rig.script.count(), rig.upstream().breaker_snapshot(now()).failures), (1, 1));
    }
}

/// tonic's channel ends an attempt by the same header that its server is sent.
#[tokio::test(start_paused = true)]
async fn a_transport_whose_own_timer_is_as_long_is_no_worse_than_ours() {
    let timeout = TimeoutPolicy::standard().total(ms(400)).attempt(ms(400));
    let late = Step::Break { after: ms(400) };
    let rig = Rig::new(&Policy::standard().timeout(timeout), [late.clone()]);
    assert_eq!(code(call(&rig, CallOptions::new()).await), Some(Code::DeadlineExceeded));
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 1, "it had all the time there was");

    let rig = Rig::new(&Policy::standard(), [Step::Break { after: ms(50) }]);
    assert_eq!(code(call_within(&rig, safe(), Some("50m")).await), Some(Code::DeadlineExceeded));
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0, "its caller was in a hurry");
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_server_that_was_told_is_judged_as_our_own_timer() {
    let cuts = |status| {
        let mut body = vec![Piece::Pause(ms(50))];
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        body.push(Piece::Trailers(trailers));
        streams(body)
    };
    for status in ["1", "4"] {
        let rig = Rig::new(&Policy::standard(), [cuts(status)]);
        call_within(&rig, safe(), Some("51m")).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0, "{status}: a hurried caller's");
        let rig = Rig::new(&Policy::standard(), [cuts(status)]);
        call(&rig, safe()).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 1, "{status}: the server's own");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_says_in_http_is_read_as_grpc_reads_it() {
    let page = |status| Step::Headed { status, headers: HeaderMap::new() };
    let rig = Rig::new(&Policy::standard(), [page(503), page(500)]);
    assert_eq!(call(&rig, safe()).await.unwrap().status(), 500);
    assert_eq!(rig.script.count(), 2, "UNAVAILABLE is tried again, UNKNOWN isn't");
}

fn trailers(status: &'static str) -> Piece {
    Piece::Trailers(HeaderMap::from_iter([(
        "grpc-status".parse().unwrap(),
        HeaderValue::from_static(status),
    )]))
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_time_that_its_caller_gives_it() {
    let rig = Rig::new(&Policy::standard(), [ends_with("0")]);
    read(call_within(&rig, safe().streaming(), Some("60S")).await).await;
    let asked = async { read(call(&rig, safe().streaming()).await).await };
    deadline::scope(Deadline::within(Duration::from_secs(30)), asked).await;
    assert_eq!(told(&rig), [Some(60_000), Some(30_000)], "and not the policy's ten seconds");

    // What comes after it comes too late.
    let late = vec![Piece::Data("message".into()), Piece::Pause(Duration::from_secs(3)), trailers("0")];
    let rig = Rig::new(&Policy::standard(), [streams(late)]);
    let answer = call_within(&rig, CallOptions::new().streaming(), Some("2S")).await;
    assert_eq!(read(answer).await, ("message".to_owned(), Some(Code::DeadlineExceeded)));
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_at_the_time_their_callers_set_are_no_failures() {
    for pieces in [vec![Piece::Data("message".into())], vec![]] {
        for status in [Some("4"), Some("1"), None] {
            let mut body = pieces.clone();
            body.push(Piece::Pause(ms(14_999)));
            body.extend(status.map(trailers));
            let rig = Rig::new(&Policy::standard(), [streams(body)]);
            for _ in 0..6 {
                let answer = call_within(&rig, CallOptions::new().streaming(), Some("15S")).await;
                assert_eq!(
                    read(answer).await.1.map(Code::number),
                    status.map(|status| status.parse().unwrap())
                );
            }
            let breaker = rig.upstream().breaker_snapshot(now());
            assert_eq!((rig.state(), breaker.failures), (State::Closed, 0), "{status:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_fails_once_however_many_streams_it_ends() {
    for (options, failures) in [(CallOptions::new(), 1), (CallOptions::new().streaming(), 0)] {
        for end in [trailers("14"), trailers("1"), Piece::Break] {
            let begun = vec![Piece::Data("message".into()), Piece::Pause(ms(500)), end.clone()];
            let rig = Rig::new(&Policy::standard(), [streams(begun)]);
            let mut reading = tokio::task::JoinSet::new();
            for _ in 0..30 {
                reading.spawn(read(call(&rig, options.clone()).await));
            }
            reading.join_all().await;
            assert_eq!(rig.upstream().breaker_snapshot(now()).failures, failures, "{end:?}");
        }
    }
    // A fault of its own is one, whatever had come before.
    let rig = Rig::new(&Policy::standard(), [streams(vec![Piece::Data("message".into()), trailers("13")])]);
    for _ in 0..3 {
        read(call(&rig, CallOptions::new().streaming()).await).await;
    }
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 3);
}

/// tonic makes `UNKNOWN` of errors.
#[tokio::test(start_paused = true)]
async fn trailers_are_the_end_however_late_they_are_read() {
    let rig = Rig::new(&Policy::standard(), [ends_with("0")]);
    let mut body = call(&rig, CallOptions::new()).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let last = body.frame().await.unwrap().unwrap();
    assert_eq!(Code::of(last.trailers_ref().unwrap()), Some(Code::Ok));
    assert!(body.frame().await.is_none());
    // The same of any other answer.
    let rig = Rig::new(&Policy::standard(), [ends_with("0")]);
    let mut body = rig.post().await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
}

#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_an_answer_its_reader_hears_of_it_in_a_status() {
    // Its head has said it all, and its body breaks.
    for status in [Some("0"), Some("14"), None] {
        let fields: Vec<_> = status.map(|status| ("grpc-status", status)).into_iter().collect();
        let broken = Step::Streamed { headers: headers(&fields), body: vec![Piece::Break] };
        let rig = Rig::new(&Policy::standard(), [broken]);
        assert_eq!(read(call(&rig, CallOptions::new()).await).await.1, Some(Code::Unavailable));
    }
    // What breaks after the trailers is nothing to it.
    let after = vec![Piece::Data("message".into()), trailers("0"), Piece::Break];
    let rig = Rig::new(&Policy::standard(), [streams(after)]);
    assert_eq!(read(call(&rig, CallOptions::new()).await).await.1, Some(Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn the_machines_of_an_upstream_take_a_status_for_the_one_of_http_that_it_stands_for() {
    let http = |status| Step::Headed { status, headers: HeaderMap::new() };
    let only = || Policy::standard().breaker(None).retry(None);
    for (step, refuses) in [(says("14"), true), (http(503), true), (says("13"), false), (http(500), false)] {
        let rig = Rig::new(&only().throttle(ThrottlePolicy::standard()), [step.clone()]);
        for _ in 0..200 {
            call(&rig, CallOptions::new()).await.unwrap();
        }
        assert_eq!(rig.script.count() < 30, refuses, "{step:?}");

        let limit = ConcurrencyPolicy::aimd().initial(40).max(80);
        let rig = Rig::new(&only().concurrency(limit), [step.clone()]);
        for _ in 0..100 {
            let calls = std::iter::repeat_with(|| Rig::request(Method::POST, CallOptions::new()));
            let mut sent = tokio::task::JoinSet::new();
            for mut request in calls.take(30) {
                *request.headers_mut() = headers(&[]);
                sent.spawn(rig.service.clone().call(request));
            }
            sent.join_all().await;
            tokio::time::sleep(ms(20)).await;
        }
        let limit = rig.snapshot()[0].limit.unwrap();
        assert_eq!(limit < 40, refuses, "{limit}: {step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_time_for_one_caller_holds_no_other_back() {
    let asks = |status| {
        let fields = [("grpc-status", status), ("grpc-retry-pushback-ms", "2000")];
        Step::Headed { status: 200, headers: headers(&fields) }
    };
    let http = |status| {
        let fields = [("retry-after".parse().unwrap(), HeaderValue::from_static("2"))];
        Step::Headed { status, headers: HeaderMap::from_iter(fields) }
    };
    for (step, sent) in
        [(asks("14"), 1), (http(503), 1), (asks("4"), 2), (asks("1"), 2), (http(504), 2), (asks("8"), 2)]
    {
        let rig = Rig::new(&Policy::standard().retry(None), [step.clone(), ends_with("0")]);
        call(&rig, CallOptions::new()).await.unwrap();
        call(&rig, CallOptions::new()).await.unwrap();
        assert_eq!(rig.script.count(), sent, "{step:?}");
    }
}

/// A dashboard showed an outage as nothing but successes.
#[tokio::test(start_paused = true)]
async fn a_call_that_failed_says_so_where_its_http_status_does_not() {
    let end = |rig: &Rig| {
        let events = rig.events.lock().unwrap();
        let mut ends = events.iter().filter_map(|event| match event {
            Event::CallFinished { end, .. } => Some(*end),
            _ => None,
        });
        ends.next_back().unwrap()
    };
    let failed = CallEnd::FailedResponse(StatusCode::OK, Outcome::Failure(FailureKind::Status));
    // At once, after other attempts, and after others that brought nothing.
    let last = |steps: &[Step]| Rig::new(&Policy::standard(), steps.to_vec());
    for (rig, options) in [
        (last(&[says("14")]), CallOptions::new()),
        (last(&[says("14")]), safe()),
        (last(&[says("14"), Step::Refuse]), safe()),
        (last(&[ends_with("14")]), CallOptions::new().buffered(100)),
    ] {
        call(&rig, options).await.unwrap();
        assert_eq!(end(&rig), failed);
    }
    for (step, status) in [(says("5"), 200), (Step::Headed { status: 503, headers: HeaderMap::new() }, 503)] {
        let rig = Rig::new(&Policy::standard(), [step]);
        call(&rig, CallOptions::new()).await.unwrap();
        assert_eq!(end(&rig), CallEnd::Response(StatusCode::from_u16(status).unwrap()));
    }
}

/// How each call ended, and after how long.
fn ends(rig: &Rig) -> Vec<(CallEnd, Duration)> {
    let end = |event: &Event| match event {
        Event::CallFinished { end, duration, .. } => Some((*end, *duration)),
        _ => None,
    };
    rig.events.lock().unwrap().iter().filter_map(end).collect()
}

/// It ended with its head, as a success, whatever its trailers said.
#[tokio::test(start_paused = true)]
async fn a_call_whose_status_comes_in_trailers_ends_with_it() {
    use FailureKind::{Body, BodyIdle, Status};
    let failed = |outcome| CallEnd::FailedResponse(StatusCode::OK, outcome);
    let message = || Piece::Data("message".into());
    let (ok, deadline) = (CallEnd::Response(StatusCode::OK), CallEnd::Error(ErrorKind::Deadline));
    let broken = failed(Outcome::Failure(Body));
    for (body, expected, millis) in [
        (vec![message(), Piece::Pause(ms(70)), trailers("0")], ok, 70),
        (vec![message(), Piece::Pause(ms(70)), trailers("5")], ok, 70),
        (vec![message(), Piece::Pause(ms(70)), trailers("14")], failed(Outcome::Failure(Status)), 70),
        (vec![trailers("13")], failed(Outcome::Failure(Status)), 0),
        (vec![message(), trailers("8")], failed(Outcome::Throttled), 0),
        (vec![message(), Piece::Pause(ms(40)), Piece::Break], broken, 40),
        (vec![message(), Piece::Pause(ms(40))], broken, 40),
        (vec![message(), Piece::Pause(ms(60_000))], failed(Outcome::Failure(BodyIdle)), 5_000),
        (
            vec![
                message(),
                Piece::Pause(ms(4_000)),
                message(),
                Piece::Pause(ms(4_000)),
                message(),
                Piece::Pause(ms(60_000)),
            ],
            deadline,
            10_000,
        ),
    ] {
        let rig = Rig::new(&Policy::standard(), [streams(body.clone())]);
        let response = call(&rig, CallOptions::new()).await.unwrap();
        assert_eq!(ends(&rig), [], "its head says nothing of it");
        read(Ok(response)).await;
        assert_eq!(ends(&rig), [(expected, ms(millis))], "{body:?}");
        let finished = |event: &Event| matches!(event, Event::AttemptFinished { .. });
        assert_eq!(rig.events.lock().unwrap().iter().filter(|event| finished(event)).count(), 1);
        assert_eq!(rig.core.snapshot()[0].calls, 0);
    }
}

/// A reader that leaves has no status. Of a stream that is how it may end; and its time isn't the
/// call's.
#[tokio::test(start_paused = true)]
async fn a_call_whose_reader_leaves_before_its_status_was_dropped_and_a_stream_was_answered() {
    let ok = CallEnd::Response(StatusCode::OK);
    for (options, expected) in [(CallOptions::new(), CallEnd::Dropped), (CallOptions::new().streaming(), ok)]
    {
        let endless = vec![Piece::Data("message".into()), Piece::Pause(ms(60_000))];
        let rig = Rig::new(&Policy::standard(), [streams(endless)]);
        let streaming = expected == ok;
        let mut body = call(&rig, options).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        tokio::time::sleep(ms(300)).await;
        drop(body);
        assert_eq!(ends(&rig), [(expected, ms(if streaming { 0 } else { 300 }))]);
    }
    // One that ends at the time its caller set has been served, too; one that fails hasn't.
    for (end, expected) in [
        (Piece::Pause(ms(14_999)), ok),
        (trailers("13"), CallEnd::FailedResponse(StatusCode::OK, Outcome::Failure(FailureKind::Status))),
    ] {
        let rig = Rig::new(&Policy::standard(), [streams(vec![Piece::Data("message".into()), end])]);
        let answer = call_within(&rig, CallOptions::new().streaming(), Some("10S")).await;
        read(answer).await;
        assert_eq!(ends(&rig), [(expected, ms(0))]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_there_was_no_time_is_not_silent() {
    let cut = Step::Marked { status: 504, name: crate::advice::SHED, value: "cut" };
    for step in [says("4"), says("1"), cut] {
        let policy = Policy::standard().breaker(None).retry(None);
        let rig = Rig::new(&policy, [ends_with("0")]);
        for _ in 0..200 {
            read(call(&rig, CallOptions::new()).await).await;
        }
        rig.script.then([step.clone()]);
        for _ in 0..60 {
            assert!(call(&rig, CallOptions::new()).await.unwrap().body().report().attempts().len() == 1);
        }
        assert_eq!(rig.script.count(), 260, "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_nothing_is_repeated_if_that_is_safe() {
    let nothing = || Step::Headed { status: 200, headers: headers(&[]) };
    for (step, options) in
        [(nothing(), CallOptions::new()), (streams(vec![]), CallOptions::new().buffered(100))]
    {
        for (options, sent) in [(options.clone(), 1), (options.idempotent(true), 2)] {
            let rig = Rig::new(&Policy::standard(), [step.clone(), ends_with("0")]);
            call(&rig, options).await.unwrap();
            assert_eq!(rig.script.count(), sent, "{step:?}");
        }
    }
}
