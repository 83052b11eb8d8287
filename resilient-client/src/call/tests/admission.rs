//! What an attempt may have to wait for before it is sent, and what may refuse it.

use std::time::Duration;

use tower::service_fn;

use super::script::{Step, answer, ms};
use super::*;
use crate::outcome::report::Decline;
use crate::policy::breaker::BreakerPolicy;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::concurrency::ConcurrencyPolicy;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::priority::Priority;
use crate::policy::rate_limit::RateLimitPolicy;
use crate::policy::retry::RetryPolicy;
use crate::policy::throttle::ThrottlePolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::time::now;
use crate::{ErrorKind, Rejection};

const SECOND: Duration = Duration::from_secs(1);

fn slow(after: Duration) -> Step {
    Step::Answer { after, status: 200, retry_after: None, body: Vec::new() }
}

fn one_at_a_time(queued: u32) -> BulkheadPolicy {
    BulkheadPolicy::standard().max_in_flight(1).max_queued(queued)
}

fn spawn(rig: &Rig, options: CallOptions) -> tokio::task::JoinHandle<Answer> {
    tokio::spawn(rig.start(Method::GET, options))
}

/// Long enough for every task to have been polled, and no time.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_place_and_the_report_says_how_long() {
    let rig = Rig::new(&Policy::standard().bulkhead(one_at_a_time(1)), [slow(ms(100))]);
    let first = spawn(&rig, CallOptions::new());
    settle().await;
    let second = spawn(&rig, CallOptions::new());
    settle().await;
    let third = rig.get().await.unwrap_err();
    assert_eq!(third.to_string(), "bulkhead is full: 1 attempts in flight (http://users:3000)");
    assert_eq!((rig.script.count(), rig.queued()), (1, 1));
    let response = first.await.unwrap().unwrap();
    assert_eq!(response.body().report().queued(), Duration::ZERO);
    drop(response);
    let response = second.await.unwrap().unwrap();
    let report = response.body().report();
    assert_eq!(
        (report.queued(), report.elapsed(), report.attempts()[0].started()),
        (ms(100), ms(200), ms(100))
    );
    assert!(report.to_string().contains("in 200.0ms, 100.0ms of it waiting to be let in"), "{report}");
    drop(response);
    assert_eq!((rig.in_use(), rig.script.count()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_place_ends_with_its_limit_or_the_deadline() {
    let wait = one_at_a_time(9).queue_wait(ms(50));
    let rig = Rig::new(&Policy::standard().bulkhead(wait), [slow(ms(500))]);
    let _first = spawn(&rig, CallOptions::new());
    settle().await;
    let begun = now();
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.kind(), now().since(begun)), (ErrorKind::BulkheadFull, ms(50)));
    assert_eq!(error.to_string(), "bulkhead is full: waited 50.0ms for a place (http://users:3000)");
    assert!(error.is_rejected() && error.is_unsent());
    let begun = now();
    let hurried = rig.start(Method::GET, CallOptions::new().timeout(ms(20))).await.unwrap_err();
    assert_eq!((hurried.kind(), now().since(begun), rig.queued()), (ErrorKind::Deadline, ms(20), 0));
    assert_eq!(rig.script.count(), 1);
    assert_eq!(rig.upstream().breaker_snapshot(now()).failures, 0, "nothing was sent, so nothing failed");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_leaves_the_queue_and_loses_no_place() {
    let rig = Rig::new(&Policy::standard().bulkhead(one_at_a_time(2)), [slow(ms(100))]);
    let first = spawn(&rig, CallOptions::new());
    settle().await;
    let (second, third) = (spawn(&rig, CallOptions::new()), spawn(&rig, CallOptions::new()));
    settle().await;
    assert_eq!(rig.queued(), 2);
    second.abort();
    settle().await;
    assert_eq!(rig.queued(), 1);
    drop(first.await.unwrap().unwrap());
    // The place is handed over, and dropped with the call before it hears of it.
    third.abort();
    settle().await;
    assert_eq!((rig.in_use(), rig.queued(), rig.upstream().unfinished()), (0, 0, 0));
    assert_eq!(rig.get().await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_critical_call_takes_the_place_of_one_that_can_be_shed() {
    let rig = Rig::new(&Policy::standard().bulkhead(one_at_a_time(1)), [slow(ms(100))]);
    let first = spawn(&rig, CallOptions::new());
    settle().await;
    let sheddable = spawn(&rig, CallOptions::new().priority(Priority::Sheddable));
    settle().await;
    let critical = spawn(&rig, CallOptions::new().priority(Priority::Critical));
    let error = sheddable.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("to a call of a higher priority"), "{error}");
    drop(first.await.unwrap().unwrap());
    assert_eq!(critical.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_say_what_its_calls_are_worth() {
    let policy = Policy::standard().bulkhead(BulkheadPolicy::standard().max_in_flight(4));
    let rig = Rig::new(&policy.priority(Priority::Sheddable), [slow(ms(100))]);
    let held: Vec<_> = (0..3).map(|_| spawn(&rig, CallOptions::new())).collect();
    settle().await;
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::BulkheadFull, "a quarter is for those above");
    let normal = rig.start(Method::GET, CallOptions::new().priority(Priority::Normal)).await;
    assert_eq!(normal.unwrap().status(), 200);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_refuses_and_says_when() {
    let limit = RateLimitPolicy::new(10, SECOND).burst(2);
    let rig = Rig::new(&Policy::standard().rate_limit(limit), [answer(200)]);
    for _ in 0..2 {
        assert_eq!(rig.get().await.unwrap().status(), 200);
    }
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.kind(), error.is_rejected()), (ErrorKind::RateLimited, true));
    let retry_after = error.retry_after().unwrap();
    assert!(retry_after <= ms(100), "{retry_after:?}");
    tokio::time::sleep(retry_after).await;
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.script.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_may_let_calls_wait_for_their_turn_within_their_deadlines() {
    let limit = RateLimitPolicy::new(10, SECOND).burst(1).wait(true);
    let rig = Rig::new(&Policy::standard().rate_limit(limit), [answer(200)]);
    let calls: Vec<_> = (0..5).map(|_| spawn(&rig, CallOptions::new())).collect();
    settle().await;
    let hurried = rig.start(Method::GET, CallOptions::new().timeout(ms(400))).await.unwrap_err();
    assert_eq!((hurried.kind(), hurried.retry_after()), (ErrorKind::RateLimited, Some(ms(500))));
    let dropped = spawn(&rig, CallOptions::new());
    settle().await;
    dropped.abort();
    settle().await;
    let last = spawn(&rig, CallOptions::new());
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    let last = last.await.unwrap().unwrap();
    let launches = rig.script.launches();
    let gaps: Vec<_> = launches.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert_eq!(gaps, [ms(100); 5], "the place of the dropped one was taken by the one after it");
    assert_eq!(last.body().report().queued(), ms(500));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_refused_further_on_gives_its_place_in_the_rate_back() {
    let limit = RateLimitPolicy::new(1, Duration::from_secs(3600));
    let rig = Rig::new(&Policy::standard().rate_limit(limit).bulkhead(one_at_a_time(0)), [answer(200)]);
    let held = rig.upstream().place(now()).unwrap();
    rig.core
        .reload(
            Policy::standard()
                .rate_limit(RateLimitPolicy::new(2, Duration::from_secs(3600)))
                .bulkhead(one_at_a_time(0))
                .into(),
        )
        .unwrap();
    for _ in 0..10 {
        assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::BulkheadFull);
    }
    drop(held);
    assert_eq!(rig.get().await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_needs_its_own_place_in_the_rate() {
    let limit = RateLimitPolicy::new(2, Duration::from_secs(3600));
    let rig = Rig::new(&Policy::standard().rate_limit(limit), [answer(503)]);
    let response = rig.get().await.unwrap();
    assert_eq!((response.status().as_u16(), rig.script.count()), (503, 2));
    let declined = response.body().report().declined();
    assert!(matches!(declined, [Decline::Rejected(Rejection::RateLimited { .. })]), "{declined:?}");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_holds_back_what_an_overloaded_upstream_would_refuse() {
    let policy = Policy::standard().breaker(None).retry(None).throttle(ThrottlePolicy::standard());
    let rig = Rig::new(&policy, [answer(503)]);
    let mut held_back = 0;
    for _ in 0..1000 {
        match rig.get().await {
            Ok(response) => assert_eq!(response.status(), 503),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Throttled);
                held_back += 1;
            }
        }
    }
    assert_eq!(rig.script.count(), 1000 - held_back);
    assert!(rig.script.count() < 30, "{} sent", rig.script.count());
    // What the caller did wrong is no sign of overload.
    let rig = Rig::new(&policy, [answer(404)]);
    for _ in 0..1000 {
        assert_eq!(rig.get().await.unwrap().status(), 404);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_only_observes_says_what_it_would_have_done_and_refuses_nothing() {
    let policy = Policy::standard()
        .breaker(None)
        .retry(None)
        .bulkhead(one_at_a_time(5).observe_only(true))
        .rate_limit(RateLimitPolicy::new(1, Duration::from_secs(3600)).wait(true).observe_only(true))
        .throttle(ThrottlePolicy::standard().multiplier(1.0).observe_only(true));
    let rig = Rig::new(&policy, [answer(503)]);
    let calls: Vec<_> = (0..100).map(|_| spawn(&rig, CallOptions::new())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 503);
    }
    for _ in 0..100 {
        assert_eq!(rig.get().await.unwrap().status(), 503);
    }
    assert_eq!((rig.script.count(), rig.in_use()), (200, 0));
    let would = |which: fn(&Rejection) -> bool| {
        let events = rig.events.lock().unwrap();
        events
            .iter()
            .filter(|event| matches!(event, Event::WouldReject { rejection } if which(rejection)))
            .count()
    };
    assert_eq!(would(|why| matches!(why, Rejection::BulkheadFull { .. })), 99);
    assert_eq!(would(|why| matches!(why, Rejection::RateLimited { .. })), 199);
    assert!(would(|why| matches!(why, Rejection::Throttled { .. })) > 50);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_still_waits_when_the_first_answers_gives_everything_back() {
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(ms(10)));
    let rig = Rig::new(&Policy::standard().bulkhead(one_at_a_time(5)).hedge(hedge), [slow(ms(50))]);
    let before = (rig.tokens(), rig.upstream().hedges().available());
    let response = rig.get().await.unwrap();
    assert_eq!((response.status().as_u16(), rig.script.count(), rig.queued()), (200, 1, 0));
    drop(response);
    let after = (rig.tokens(), rig.upstream().hedges().available());
    assert!(after.0 >= before.0 && (after.1 - before.1).abs() < 1e-9, "{before:?} {after:?}");
    assert_eq!((rig.in_use(), rig.upstream().unfinished()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_a_place_like_any_attempt() {
    let policy = Policy::standard().bulkhead(one_at_a_time(5)).retry(RetryPolicy::standard().max_attempts(2));
    let rig = Rig::new(&policy, [answer(503), slow(ms(400)), answer(200)]);
    let first = spawn(&rig, CallOptions::new());
    settle().await;
    let second = spawn(&rig, CallOptions::new());
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.status(), 200);
    let report = first.body().report();
    assert!(report.queued() > ms(370) && report.attempts().len() == 2, "{report}");
    drop(second.await.unwrap().unwrap());
}

/// Every number of polls after which a caller may lose patience, with a queue and a rate in its
/// way.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_any_poll_gives_everything_back() {
    let policy = Policy::standard()
        .bulkhead(one_at_a_time(2).queue_wait(ms(300)))
        .rate_limit(RateLimitPolicy::new(20, SECOND).burst(1).wait(true))
        .hedge(HedgePolicy::standard().delay(Delay::Fixed(ms(30))));
    for polls in 1..30 {
        let rig = Rig::new(&policy, [slow(ms(100)), answer(503), slow(ms(100)), answer(200)]);
        let (tokens, cap) = (rig.tokens(), rig.upstream().hedges().available());
        let beside: Vec<_> = (0..2).map(|_| spawn(&rig, CallOptions::new())).collect();
        settle().await;
        let mut call = Box::pin(rig.start(Method::GET, CallOptions::new()));
        let mut left = polls;
        let dropped = std::future::poll_fn(|cx| {
            left -= 1;
            match call.as_mut().poll(cx) {
                std::task::Poll::Ready(answer) => std::task::Poll::Ready(Some(answer)),
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        });
        drop(dropped.await);
        drop(call);
        for call in beside {
            drop(call.await.unwrap());
        }
        let upstream = rig.upstream();
        assert_eq!((rig.in_use(), rig.queued(), upstream.unfinished()), (0, 0, 0), "after {polls} polls");
        let spent = tokens + 3.0 * 0.25 - rig.tokens();
        assert!(spent <= 3.0 + 1e-9 && rig.tokens() <= tokens + 0.75 + 1e-9, "after {polls} polls: {spent}");
        assert!(upstream.hedges().available() <= cap + 1e-9, "after {polls} polls");
    }
}

/// PROOF E8: one host hangs, the other must not notice.
#[tokio::test(start_paused = true)]
async fn e8_a_host_that_hangs_takes_nothing_from_one_that_works() {
    let (with_bulkhead, alone) = (
        e8(BulkheadPolicy::standard().max_in_flight(50), true).await,
        e8(BulkheadPolicy::standard(), false).await,
    );
    // The control: both hosts share what there is, as they do where nothing keeps them apart.
    let shared = e8_shared(50).await;
    println!(
        "E8: y beside a hanging x {with_bulkhead:?}, alone {alone:?}; one pool for both (control) {shared:?}"
    );
    assert!(
        with_bulkhead.success >= 0.999 && with_bulkhead.p99 <= alone.p99.mul_f64(1.2),
        "{with_bulkhead:?}"
    );
    assert!(shared.success < 0.5, "the control fails: {shared:?}");
}

#[derive(Debug)]
struct Seen {
    success: f64,
    p99: Duration,
}

async fn e8(bulkhead: BulkheadPolicy, x: bool) -> Seen {
    let timeout = TimeoutPolicy::standard().total(SECOND * 2).attempt(SECOND);
    let policy = Policy::standard().timeout(timeout).breaker(None).overload(None).bulkhead(bulkhead);
    drive(ResilienceLayer::new(policy).unwrap(), x, false).await
}

async fn e8_shared(limit: u32) -> Seen {
    let timeout = TimeoutPolicy::standard().total(SECOND * 2).attempt(SECOND);
    let bulkhead = BulkheadPolicy::standard().max_in_flight(limit);
    let policy = Policy::standard().timeout(timeout).breaker(None).overload(None).bulkhead(bulkhead);
    drive(ResilienceLayer::new(policy).unwrap(), true, true).await
}

/// 100 calls a second to each host for 20 s. With `shared`, both are one upstream: their paths tell
/// them apart.
async fn drive(layer: ResilienceLayer, x: bool, shared: bool) -> Seen {
    let service = layer.layer(service_fn(async |request: Request<String>| {
        if request.uri().path() == "/x" {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(ms(10)).await;
        Ok::<_, std::io::Error>(Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
    }));
    let request = |which: &str| {
        let host = if shared { "both" } else { which };
        Request::get(format!("http://{host}/{which}")).body(String::new()).unwrap()
    };
    let mut calls = Vec::new();
    for _ in 0..2_000 {
        if x {
            tokio::spawn(service.clone().call(request("x")));
        }
        let (call, begun) = (service.clone().call(request("y")), now());
        calls.push(tokio::spawn(async move { (call.await.is_ok(), now().since(begun)) }));
        tokio::time::sleep(ms(10)).await;
    }
    let mut took = Vec::new();
    for call in calls {
        let (ok, time) = call.await.unwrap();
        if ok {
            took.push(time);
        }
    }
    took.sort_unstable();
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or(Duration::MAX);
    Seen { success: took.len() as f64 / 2_000.0, p99 }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_while_a_call_waits_refuses_it() {
    let breaker = BreakerPolicy::standard().cold_consecutive_failures(1);
    let policy = Policy::standard().retry(None).breaker(breaker).bulkhead(one_at_a_time(5));
    let failing = Step::Answer { after: ms(100), status: 500, retry_after: None, body: Vec::new() };
    let rig = Rig::new(&policy, [failing]);
    let first = spawn(&rig, CallOptions::new());
    settle().await;
    let second = spawn(&rig, CallOptions::new());
    assert_eq!(first.await.unwrap().unwrap().status(), 500);
    assert_eq!(second.await.unwrap().unwrap_err().kind(), ErrorKind::CircuitOpen);
    assert_eq!((rig.script.count(), rig.in_use()), (1, 0));
}

/// PROOF E12 in small, through whole calls: `Concurrency` has the long form. A server of 20 workers
/// at 50 ms gets 1.2 times what it can do; half of its workers go and come back.
#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_finds_what_the_upstream_can_do_and_follows_it() {
    let (adaptive, control) = (overloaded(Some(ConcurrencyPolicy::gradient())).await, overloaded(None).await);
    println!("E12 in calls: adaptive {adaptive:?}, fixed at 256 (control) {control:?}");
    for (phase, capacity) in adaptive.iter().zip([400.0, 200.0, 400.0]) {
        assert!(phase.per_second >= 0.95 * capacity && phase.p99 <= ms(150), "{adaptive:?}");
    }
    assert!(control.iter().all(|phase| phase.p99 > ms(500)), "{control:?}");
}

#[derive(Debug)]
struct Phase {
    per_second: f64,
    p99: Duration,
}

/// Three phases of 30 s; the last 15 s of each are looked at.
async fn overloaded(concurrency: Option<ConcurrencyPolicy>) -> Vec<Phase> {
    const SERVICE: Duration = Duration::from_millis(50);
    let timeout = TimeoutPolicy::standard().attempt(SECOND * 5);
    let policy = Policy::standard().timeout(timeout).retry(None).breaker(None).concurrency(concurrency);
    let layer = ResilienceLayer::builder().policy(policy).seed(5).build().unwrap();
    let workers = Arc::new(tokio::sync::Semaphore::new(20));
    let served = Arc::clone(&workers);
    let service = layer.layer(service_fn(move |_: Request<String>| {
        let served = Arc::clone(&served);
        async move {
            let _worker = served.acquire().await;
            tokio::time::sleep(SERVICE).await;
            Ok::<_, std::io::Error>(Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        }
    }));
    let mut rng = crate::rng::Rng::seeded(3);
    let mut phases = Vec::new();
    let mut away = None;
    for capacity in [400.0, 200.0, 400.0] {
        if capacity < 400.0 {
            away = Some(Arc::clone(&workers).acquire_many_owned(10).await.unwrap());
        } else {
            drop(away.take());
        }
        let (begun, mut calls) = (now(), Vec::new());
        let mut next = Duration::ZERO;
        while next < SECOND * 30 {
            let request = Request::get(URL).body(String::new()).unwrap();
            let (call, sent) = (service.clone().call(request), now());
            calls.push((sent, tokio::spawn(async move { call.await.is_ok().then(|| now().since(sent)) })));
            // Timers tick in milliseconds: a wait for each gap would round every one of them up.
            next += Duration::from_secs_f64(-(1.0 - rng.unit()).ln() / (1.2 * capacity));
            tokio::time::sleep(next.saturating_sub(now().since(begun))).await;
        }
        let mut took = Vec::new();
        for (sent, call) in calls {
            if let Some(time) = call.await.unwrap()
                && sent.since(begun) >= SECOND * 15
            {
                took.push(time);
            }
        }
        took.sort_unstable();
        phases.push(Phase { per_second: took.len() as f64 / 15.0, p99: took[took.len() * 99 / 100] });
    }
    phases
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_survives_a_reload_and_ends_with_its_policy() {
    let fixed = Policy::standard().bulkhead(BulkheadPolicy::standard().max_in_flight(7));
    let rig = Rig::new(&fixed.clone().concurrency(ConcurrencyPolicy::gradient().initial(40)), [answer(200)]);
    let limit = |rig: &Rig| rig.core.snapshot()[0].limit;
    drop(rig.get().await);
    assert_eq!(limit(&rig), Some(40), "it replaces the bulkhead's");
    rig.core
        .reload(fixed.clone().concurrency(ConcurrencyPolicy::gradient().initial(20).max(30)).into())
        .unwrap();
    assert_eq!(limit(&rig), Some(30), "kept, as far as it may");
    rig.core.reload(fixed.into()).unwrap();
    assert_eq!(limit(&rig), Some(7));
}

/// Only the newest place came back: 2 of 120 were served, and the next waited 9 s with nobody in
/// line.
#[tokio::test(start_paused = true)]
async fn callers_who_leave_the_rates_line_move_those_behind_them_up() {
    let limit = RateLimitPolicy::new(1, SECOND).burst(1).wait(true);
    let timeout = TimeoutPolicy::standard().total(Duration::from_secs(600));
    let rig = Rig::new(&Policy::standard().timeout(timeout).rate_limit(limit), [answer(200)]);
    let patient = spawn(&rig, CallOptions::new());
    settle().await;
    let hurried: Vec<_> = (0..120)
        .map(|_| tokio::spawn(tokio::time::timeout(ms(999), rig.start(Method::GET, CallOptions::new()))))
        .collect();
    settle().await;
    let last = spawn(&rig, CallOptions::new());
    assert_eq!(patient.await.unwrap().unwrap().status(), 200);
    for call in hurried {
        call.await.unwrap().unwrap_err();
    }
    let begun = now();
    assert_eq!(last.await.unwrap().unwrap().status(), 200);
    assert!(now().since(begun) <= ms(10), "{:?}", now().since(begun));
    let begun = now();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert!(now().since(begun) <= SECOND + ms(10), "{:?}", now().since(begun));
    assert_eq!(rig.script.count(), 3);
}
