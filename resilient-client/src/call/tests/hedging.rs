//! One more attempt beside one that is late: the same rules as a retry, set off by the clock.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use super::script::{Piece, Step, answer, asks_to_wait, broken, ms};
use super::*;
use crate::outcome::Outcome;
use crate::outcome::report::Decline;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::retry::RetryPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;
use crate::{ErrorKind, Trigger};

fn hedged() -> Policy {
    Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(50))))
}

fn slow(status: u16, after: Duration) -> Step {
    Step::Answer { after, status, retry_after: None, body: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_overtakes_a_hung_attempt_whose_loss_says_nothing_about_the_server() {
    let rig = Rig::new(&hedged(), [Step::Hang, answer(200)]);
    let (begun, tokens) = (now(), rig.tokens());
    let response = rig.get().await.unwrap();
    assert_eq!(now().since(begun), ms(51));
    let report = response.body().report();
    assert_eq!(report.attempts()[1].trigger(), Trigger::Hedge);
    assert_eq!(report.attempts()[0].outcome(), Some(Outcome::Abandoned));
    assert_eq!(text(response).await.unwrap(), "body");
    let counts = rig.upstream().breaker_snapshot(now());
    assert_eq!((counts.failures, counts.successes, rig.in_use()), (0, 1, 0));
    assert!((tokens - rig.tokens()).abs() < 1e-9, "an extra attempt that succeeds gets its token back");
}

#[tokio::test(start_paused = true)]
async fn the_loser_is_cancelled_when_the_winner_answers() {
    let rig = Rig::new(&hedged(), [slow(200, ms(70)), slow(200, ms(400))]);
    let begun = now();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!((now().since(begun), rig.script.count(), rig.in_use()), (ms(70), 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_answers_in_time_is_not_hedged() {
    let rig = Rig::new(&hedged(), [slow(200, ms(49))]);
    for _ in 0..100 {
        assert_eq!(rig.get().await.unwrap().status(), 200);
    }
    assert_eq!(rig.script.count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_fast_failure_fires_the_next_at_once() {
    let rig = Rig::new(&hedged(), [broken(), answer(200)]);
    let begun = now();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(now().since(begun), ms(2));
}

#[tokio::test(start_paused = true)]
async fn a_failure_beside_an_attempt_in_flight_waits_for_that_one() {
    let rig = Rig::new(&hedged(), [slow(503, ms(60)), slow(200, ms(40))]);
    let begun = now();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!((now().since(begun), rig.script.count()), (ms(90), 2));
}

#[tokio::test(start_paused = true)]
async fn when_both_fail_the_call_goes_on_as_any_other() {
    let rig = Rig::new(&hedged(), [slow(503, ms(60)), slow(503, ms(40)), answer(200)]);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.script.count(), 3);
    let policy = hedged().retry(None);
    let rig = Rig::new(&policy, [slow(503, ms(60)), slow(504, ms(40))]);
    let response = rig.get().await.unwrap();
    assert_eq!((response.status().as_u16(), rig.script.count()), (504, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_safe_to_repeat_is_not_hedged() {
    let rig = Rig::new(&hedged(), [slow(201, ms(500))]);
    let response = rig.post().await.unwrap();
    assert_eq!(response.body().report().declined(), [Decline::NotSafe]);
    assert_eq!(rig.script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn hedges_keep_to_their_cap_when_every_call_is_late() {
    let rig = Rig::new(&hedged().budget(None), [slow(200, ms(100))]);
    for _ in 0..1_000 {
        assert_eq!(rig.get().await.unwrap().status(), 200);
    }
    let hedges = rig.script.count() - 1_000;
    assert!((60..=75).contains(&hedges), "{hedges} hedges for a cap of 7 % and a burst of 5");
}

#[tokio::test(start_paused = true)]
async fn hedges_spend_the_budget_that_retries_spend() {
    let rig = Rig::new(&hedged().breaker(None), [slow(503, ms(100))]);
    let mut calls = 0;
    while rig.tokens() >= 1.0 {
        assert_eq!(rig.get().await.unwrap().status(), 503);
        calls += 1;
    }
    for _ in 0..50 {
        assert_eq!(rig.get().await.unwrap().status(), 503);
    }
    assert_eq!(rig.script.count(), calls + 50 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_is_waited_for_also_with_hedging_on() {
    let rig = Rig::new(&hedged(), [asks_to_wait(429, "1"), answer(200)]);
    let begun = now();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert!(now().since(begun) >= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_with_two_attempts_in_flight_gives_both_back() {
    let rig = Rig::new(&hedged(), [Step::Hang]);
    for _ in 0..3 {
        let call = rig.start(Method::GET, CallOptions::new());
        assert!(tokio::time::timeout(ms(100), call).await.is_err());
        assert_eq!(rig.in_use(), 0);
    }
    assert_eq!(rig.script.count(), 6);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_out_at_the_deadline_is_cancelled() {
    let policy = hedged().timeout(TimeoutPolicy::standard().total(ms(500)).attempt(ms(500)));
    let rig = Rig::new(&policy, [Step::Hang]);
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::Deadline);
    assert_eq!((rig.in_use(), rig.script.count()), (0, 2));
}

/// Its place under the cap was lost, so a full bulkhead used the cap up with hedges that were never
/// sent.
#[tokio::test(start_paused = true)]
async fn a_hedge_refused_here_keeps_its_place_under_the_cap() {
    let policy = hedged().bulkhead(BulkheadPolicy::standard().max_in_flight(1));
    let rig = Rig::new(&policy, [slow(200, ms(100))]);
    let (cap, tokens) = (rig.upstream().hedges().available(), rig.tokens());
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.script.count(), 1);
    assert!((rig.upstream().hedges().available() - cap).abs() < 1e-9);
    assert!(rig.tokens() >= tokens);
}

/// An answer set aside in the same instant as the call ended was taken for one that had been cut.
#[tokio::test(start_paused = true)]
async fn an_answer_set_aside_at_the_last_moment_is_whole() {
    let late =
        Step::Answer { after: ms(60), status: 503, retry_after: None, body: vec![Piece::Data("why".into())] };
    let policy = hedged().retry(RetryPolicy::standard().max_attempts(2));
    let rig = Rig::new(&policy, [late, Step::Break { after: ms(10) }]);
    let response = rig.get().await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().report().is_cut()), (503, false));
    assert_eq!(text(response).await.unwrap(), "why");
}

/// Sets to work when it is called. A hedge that is called lets the first answer, before it is
/// itself looked at.
#[derive(Clone, Default)]
struct Eager {
    called: Arc<AtomicUsize>,
    hedged: Arc<tokio::sync::Notify>,
}

impl tower_service::Service<Request<String>> for Eager {
    type Response = Response<http_body_util::Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.called.fetch_add(1, Ordering::SeqCst);
        let hedged = Arc::clone(&self.hedged);
        if request.headers().contains_key(crate::ATTEMPT_COUNT) {
            hedged.notify_one();
            return Box::pin(std::future::pending());
        }
        Box::pin(async move {
            hedged.notified().await;
            Ok(Response::new(http_body_util::Full::default()))
        })
    }
}

/// What broke: 400 requests for 200 calls, each hedge given its token back because nobody had
/// looked at it yet.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_was_handed_to_an_eager_service_was_sent() {
    let policy = Policy::standard().hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(50))).burst(1000));
    let layer = ResilienceLayer::new(policy.breaker(None)).unwrap();
    let eager = Eager::default();
    let service = layer.layer(eager.clone());
    let mut answered = 0_u32;
    for _ in 0..200 {
        // Without a hedge nothing lets it answer.
        let options = CallOptions::new().timeout(ms(500));
        answered += u32::from(service.clone().call(Rig::request(Method::GET, options)).await.is_ok());
    }
    let extra = eager.called.load(Ordering::SeqCst) - 200;
    let tokens = 10.0 + 0.25 * f64::from(answered);
    assert!(extra >= 10 && extra as f64 <= tokens, "{extra} for {tokens}");
}

/// A client of ours below the layer refuses the hedge (its bulkhead is full, say): the first
/// attempt is well on its way.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_an_inner_client_refuses_ends_nothing() {
    let layer = ResilienceLayer::new(hedged()).unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&called);
    let inner = tower::service_fn(move |request: Request<String>| {
        counts.fetch_add(1, Ordering::SeqCst);
        async move {
            if request.headers().contains_key(crate::ATTEMPT_COUNT) {
                return Err(crate::Error::rejected(crate::outcome::rejection::Rejection::BulkheadFull {
                    limit: 1,
                }));
            }
            tokio::time::sleep(ms(200)).await;
            Ok(Response::new(http_body_util::Full::<bytes::Bytes>::default()))
        }
    });
    let mut service = layer.layer(inner);
    let begun = now();
    let response = service.call(Rig::request(Method::GET, CallOptions::new())).await.unwrap();
    assert_eq!((response.status().as_u16(), now().since(begun)), (200, ms(200)));
    let report = response.body().report();
    assert_eq!(report.attempts()[1].outcome(), Some(Outcome::Ignored), "{report}");
    assert_eq!(called.load(Ordering::SeqCst), 2);
}

/// One that waited for a place was sent as soon as there was one, a moment after the server had
/// asked for a second.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_waits_to_be_let_in_stays_when_the_server_asks_for_time() {
    let narrow = BulkheadPolicy::standard().max_in_flight(2).max_queued(8).queue_wait(Duration::from_secs(5));
    let rig = Rig::new(&hedged().bulkhead(narrow), [Step::Hang]);
    let other = tokio::spawn(rig.start(Method::POST, CallOptions::new()));
    tokio::task::yield_now().await;
    let asks = Step::Answer { after: ms(80), status: 503, retry_after: Some("1"), body: Vec::new() };
    rig.script.then([asks, answer(200)]);
    let begun = now();
    let response = rig.get().await.unwrap();
    let report = response.into_body().report().clone();
    assert_eq!(report.attempts().len(), 2, "{report}");
    assert_eq!(report.attempts()[1].trigger(), Trigger::Retry);
    assert!(now().since(begun) >= ms(1080), "{report}");
    other.abort();
    let ends = rig.events.lock().unwrap();
    let rejected =
        |event: &Event| matches!(event, Event::HedgeEnded { end: crate::event::HedgeEnd::Rejected, .. });
    assert!(ends.iter().any(rejected));
}

/// It said that the cap on hedges forbade another, which nobody had asked.
#[tokio::test(start_paused = true)]
async fn without_retries_an_answer_that_asks_for_time_ends_the_call_for_want_of_retries() {
    let rig = Rig::new(&hedged().retry(None), [asks_to_wait(503, "1")]);
    let response = rig.get().await.unwrap();
    let report = response.body().report();
    assert_eq!((response.status().as_u16(), report.declined()), (503, &[Decline::RetriesOff][..]));
}
