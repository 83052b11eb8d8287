//! Events have an identity: who listens can tell every call and attempt apart, and knows in the end
//! what its report says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::script::{Piece, Step, answer, answer_with, asks_to_wait, broken, ms};
use super::*;
use crate::event::{CallEnd, HedgeEnd};
use crate::outcome::Outcome;
use crate::outcome::call_id::CallId;
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::hedge::{Delay, HedgePolicy};
use crate::policy::rate_limit::RateLimitPolicy;
use crate::policy::timeout::TimeoutPolicy;
use crate::rng::Rng;
use crate::time::Tick;
use crate::{CallReport, Trigger};

/// An attempt as its events tell it: from its call's start, and how long.
type Told = (u32, Trigger, Option<String>, Duration, Duration, Option<Outcome>, Option<u16>);

/// What a call's events say of it.
#[derive(Clone, Debug, PartialEq)]
struct Rebuilt {
    version: u64,
    began: Tick,
    attempts: Vec<Told>,
    /// How many attempts the server provably did not process.
    unprocessed: usize,
    declined: Vec<String>,
    queued: Duration,
    elapsed: Option<Duration>,
    cut: bool,
    streaming: bool,
    end: Option<CallEnd>,
    /// What hasn't ended: attempts, and waits to be let in.
    open: (u32, u32),
    hedges: Vec<HedgeEnd>,
}

#[derive(Default)]
struct Listener(BTreeMap<CallId, Rebuilt>);

impl Listener {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::CallStarted { call, at, policy_version, .. } => {
                let fresh = Rebuilt {
                    version: *policy_version,
                    began: *at,
                    attempts: Vec::new(),
                    unprocessed: 0,
                    declined: Vec::new(),
                    queued: Duration::ZERO,
                    elapsed: None,
                    cut: false,
                    streaming: false,
                    end: None,
                    open: (0, 0),
                    hedges: Vec::new(),
                };
                assert!(self.0.insert(*call, fresh).is_none(), "{call} began twice");
            }
            Event::CallFinished { call, duration, end, cut, streaming, .. } => {
                let this = self.of(*call);
                assert_eq!(this.end.replace(*end), None, "{call} ended twice");
                (this.elapsed, this.cut, this.streaming) = (Some(*duration), *cut, *streaming);
            }
            Event::AttemptQueued { call, .. } => self.of(*call).open.1 += 1,
            Event::AttemptDequeued { call, waited, .. } => {
                let this = self.of(*call);
                this.open.1 -= 1;
                this.queued += *waited;
            }
            Event::AttemptStarted { call, number, at, trigger, endpoint, .. } => {
                let this = self.of(*call);
                this.open.0 += 1;
                let endpoint = endpoint.as_ref().map(ToString::to_string);
                let started = at.since(this.began);
                this.attempts.push((*number, *trigger, endpoint, started, Duration::ZERO, None, None));
            }
            Event::AttemptHead { call, number, duration, status, .. } => {
                let attempt = self.attempt(*call, *number);
                (attempt.4, attempt.5) = (*duration, Some(Outcome::Success));
                attempt.6 = status.map(|status| status.as_u16());
            }
            Event::AttemptFinished { call, number, duration, outcome, status, unprocessed, .. } => {
                let this = self.of(*call);
                this.open.0 -= 1;
                this.unprocessed += usize::from(*unprocessed);
                let attempt = self.attempt(*call, *number);
                // A good head has said what there is to say, unless the body fails.
                if attempt.5.is_none() || *outcome != Outcome::Success {
                    let status = status.map(|status| status.as_u16());
                    (attempt.4, attempt.5, attempt.6) = (*duration, Some(*outcome), status);
                }
            }
            Event::HedgeEnded { call, end, .. } => self.of(*call).hedges.push(*end),
            Event::RetryDeclined { call, why } => self.of(*call).declined.push(why.to_string()),
            _ => {}
        }
    }

    fn of(&mut self, call: CallId) -> &mut Rebuilt {
        self.0.get_mut(&call).expect("it has begun")
    }

    fn attempt(&mut self, call: CallId, number: u32) -> &mut Told {
        let attempts = &mut self.of(call).attempts;
        attempts.iter_mut().find(|attempt| attempt.0 == number).expect("it has begun")
    }
}

/// The same, of a report.
fn said(report: &CallReport) -> (Vec<Told>, bool, Vec<String>, Duration, Duration, u64, bool, bool) {
    let attempts = report.attempts().iter().map(|attempt| {
        (
            attempt.number(),
            attempt.trigger(),
            attempt.endpoint().map(ToString::to_string),
            attempt.started(),
            attempt.duration(),
            attempt.outcome(),
            attempt.status().map(|status| status.as_u16()),
        )
    });
    (
        attempts.collect(),
        report.is_unprocessed(),
        report.declined().iter().map(ToString::to_string).collect(),
        report.queued(),
        report.elapsed(),
        report.policy_version(),
        report.is_cut(),
        report.is_streaming(),
    )
}

fn policies() -> [Policy; 5] {
    let hedge = HedgePolicy::standard().delay(Delay::Fixed(ms(5))).max_hedges(2);
    let narrow = BulkheadPolicy::standard().max_in_flight(2).max_queued(3).queue_wait(ms(30));
    [
        Policy::standard(),
        Policy::standard().hedge(hedge.clone()),
        Policy::standard().bulkhead(narrow.clone()),
        Policy::standard().hedge(hedge).bulkhead(narrow).timeout(
            TimeoutPolicy::standard().total(ms(200)).attempt(ms(40)).connect(ms(20)).body_idle(ms(30)),
        ),
        Policy::standard().rate_limit(RateLimitPolicy::new(100, Duration::from_secs(1)).burst(2).wait(true)),
    ]
}

fn step(rng: &mut Rng) -> Step {
    let after = ms(rng.between(0, 12));
    let body = |rng: &mut Rng| match rng.between(0, 3) {
        0 => Vec::new(),
        1 => vec![Piece::Data("x".into())],
        2 => vec![Piece::Data("x".into()), Piece::Pause(ms(rng.between(1, 70))), Piece::Data("y".into())],
        _ => vec![Piece::Data("x".into()), Piece::Break],
    };
    match rng.between(0, 9) {
        0 => broken(),
        1 => Step::Hang,
        2 => asks_to_wait(if rng.unit() < 0.5 { 429 } else { 503 }, "1"),
        3 => answer(404),
        4 => answer_with(503, vec![Piece::Data("x".into()), Piece::Pause(ms(100))]),
        5 => Step::Answer { after, status: 500, retry_after: None, body: body(rng) },
        _ => Step::Answer { after, status: 200, retry_after: None, body: body(rng) },
    }
}

/// Reads the response to its end and says what its report says then.
async fn report_of(call: impl Future<Output = Answer>) -> CallReport {
    match call.await {
        Err(error) => error.report().expect("of a call").clone(),
        Ok(response) => {
            let mut body = Box::pin(response.into_body());
            while let Some(Ok(_)) = body.frame().await {}
            body.report().clone()
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_can_be_rebuilt_from_the_events_alone() {
    let (mut calls, mut hedges) = (0, 0);
    for seed in 0..60 {
        for (nth, policy) in policies().iter().enumerate() {
            let mut rng = Rng::seeded(seed);
            let rig = Rig::new(policy, [answer(200)]);
            let mut steps = Rng::seeded(1000 + seed);
            rig.script.follow(move || step(&mut steps));
            let mut running = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let method = if rng.unit() < 0.7 { Method::GET } else { Method::POST };
                let options = match rng.between(0, 3) {
                    0 => CallOptions::new().buffered(100),
                    1 => CallOptions::new().streaming(),
                    _ => CallOptions::new(),
                };
                let call = rig.start(method, options);
                let patience = ms(rng.between(0, 300));
                if rng.unit() < 0.2 {
                    running.spawn(async move { tokio::time::timeout(patience, report_of(call)).await.ok() });
                } else {
                    running.spawn(async move { Some(report_of(call).await) });
                }
                tokio::time::sleep(ms(rng.between(0, 6))).await;
            }
            let reports: Vec<_> = running.join_all().await.into_iter().flatten().collect();
            let mut listener = Listener::default();
            rig.events.lock().unwrap().iter().for_each(|event| listener.hear(event));
            for report in reports {
                let told = listener.of(report.call()).clone();
                let unprocessed = told.unprocessed == told.attempts.len();
                let expected = (
                    told.attempts,
                    unprocessed,
                    told.declined,
                    told.queued,
                    told.elapsed.expect("it has ended"),
                    told.version,
                    told.cut,
                    told.streaming,
                );
                assert_eq!(said(&report), expected, "seed {seed}, policy {nth}: {report}");
                calls += 1;
            }
            for (call, told) in &listener.0 {
                assert_eq!(told.open, (0, 0), "seed {seed}, policy {nth}, call {call}: {told:?}");
                assert!(told.end.is_some(), "seed {seed}, policy {nth}, call {call} never ended");
                let sent = told.attempts.iter().filter(|attempt| attempt.1 == Trigger::Hedge).count();
                let rejected = told.hedges.iter().filter(|end| **end == HedgeEnd::Rejected).count();
                assert_eq!(told.hedges.len() - rejected, sent, "each hedge sent has one end");
                hedges += sent;
            }
        }
    }
    println!("{calls} reports rebuilt, {hedges} hedges");
    assert!(calls > 1500 && hedges > 100);
}

#[tokio::test(start_paused = true)]
async fn numbers_of_calls_are_never_used_twice() {
    let numbers = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..100_000).map(|_| CallId::next()).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let different: std::collections::HashSet<_> = numbers.iter().copied().collect();
    assert_eq!(different.len(), numbers.len());
    assert!(!different.contains(&CallId::NONE));
}

/// It waited for a lock that it held itself.
#[tokio::test(start_paused = true)]
async fn an_observer_may_reload_on_a_transition() {
    use std::sync::OnceLock;

    let core = Arc::new(OnceLock::<Arc<Core>>::new());
    let reloads = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let (own, counted) = (Arc::clone(&core), Arc::clone(&reloads));
    let observer = move |_: &str, event: &Event| {
        if let (Event::BreakerTransition(_), Some(core)) = (event, own.get()) {
            core.reload(Policy::standard().into()).expect("good policies");
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let setup = Setup {
        observers: vec![Arc::new(observer)],
        endpoints: vec![("http://named".into(), crate::Endpoints::fixed(["http://a", "http://b"]))],
        ..Setup::default()
    };
    let built = Arc::new(Core::new(setup).unwrap());
    core.set(Arc::clone(&built)).ok().unwrap();
    let script = Script::new([answer(200)]);
    let service = ResilienceLayer::of(Arc::clone(&built)).layer(script);
    for url in [URL, "http://named/"] {
        let mut request = Rig::request(Method::GET, CallOptions::new());
        *request.uri_mut() = url.parse().unwrap();
        service.clone().call(request).await.unwrap();
    }
    // Both the upstream's breaker and the endpoints' are switched off, and each says so.
    built.reload(Policy::standard().breaker(None).into()).unwrap();
    assert!(reloads.load(std::sync::atomic::Ordering::Relaxed) >= 3);
}

/// Its breaker follows the rules of now when it comes back, and says so under the locks of the
/// list: an observer that reloaded then waited for itself.
#[tokio::test(start_paused = true)]
async fn an_observer_may_reload_when_an_endpoint_returns() {
    use std::sync::OnceLock;

    let core = Arc::new(OnceLock::<Arc<Core>>::new());
    let own = Arc::clone(&core);
    let reloads = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&reloads);
    let observer = move |_: &str, event: &Event| {
        if let (Event::BreakerTransition(_), Some(core)) = (event, own.get()) {
            core.reload(Policy::standard().breaker(None).into()).expect("good policies");
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let (watched, handle) = crate::Endpoints::watched();
    handle.set(["http://a", "http://b"]).unwrap();
    let setup = Setup {
        observers: vec![Arc::new(observer)],
        endpoints: vec![("http://named".into(), watched)],
        ..Setup::default()
    };
    let built = Arc::new(Core::new(setup).unwrap());
    core.set(Arc::clone(&built)).ok().unwrap();
    let service = ResilienceLayer::of(Arc::clone(&built)).layer(Script::new([answer(200)]));
    let call = || {
        let mut request = Rig::request(Method::GET, CallOptions::new());
        *request.uri_mut() = "http://named/".parse().unwrap();
        service.clone().call(request)
    };
    call().await.unwrap();
    handle.set(["http://a"]).unwrap();
    call().await.unwrap();
    built.reload(Policy::standard().breaker(None).into()).unwrap();
    let before = reloads.load(std::sync::atomic::Ordering::Relaxed);
    handle.set(["http://a", "http://b"]).unwrap();
    call().await.unwrap();
    assert_eq!(reloads.load(std::sync::atomic::Ordering::Relaxed) - before, 1);
}
