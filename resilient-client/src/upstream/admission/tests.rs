//! What somebody forced on a name holds for all of its endpoints, and waits end with the deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use super::*;
use crate::authority::Authority;
use crate::endpoints::Endpoints;
use crate::engine::{Core, Setup};
use crate::origin::Origin;
use crate::policy::Policy;
use crate::policy::breaker::{Control, State};
use crate::policy::bulkhead::BulkheadPolicy;
use crate::policy::overload::Sample;
use crate::policy::rate_limit::RateLimitPolicy;
use crate::rng::Entropy;

const NAME: &str = "http://users:3000";

fn upstream(policy: Policy) -> Arc<Upstream> {
    let endpoints = vec![(NAME.to_owned(), Endpoints::fixed(["http://a:1", "http://b:2"]))];
    let (policies, entropy) = (policy.into(), Entropy::seeded(1));
    let core = Core::new(Setup { policies, entropy, endpoints, ..Setup::default() }).unwrap();
    core.upstream_of(&Authority::of_uri(&NAME.parse().unwrap()))
}

fn refusal(upstream: &Arc<Upstream>, now: Tick) -> Option<Rejection> {
    match upstream.admit(Ask::plainly(), now) {
        Admission::Refused(refusal) => Some(refusal.rejection),
        Admission::Admitted(_) | Admission::Waits(_) => None,
    }
}

/// Every endpoint's breaker is open.
fn all_out(upstream: &Arc<Upstream>, now: Tick) {
    use crate::outcome::FailureKind;
    use crate::outcome::classify::{Classified, Repeat};
    while let Some(mut permit) = upstream.place(now) {
        permit.sent();
        permit.settle(&Classified::failure(FailureKind::Connect, Repeat::Unprocessed), now);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_forced_open_refuses_though_its_endpoints_are_well() {
    let (upstream, now) = (upstream(Policy::standard()), time::now());
    upstream.breaker.control(Control::ForceOpen);
    assert!(matches!(refusal(&upstream, now), Some(Rejection::CircuitOpen { .. })));
    assert!(upstream.is_circuit_open(now) && upstream.in_use() == 0);
    upstream.breaker.control(Control::Enable);
    assert!(upstream.place(now).is_some() && !upstream.is_circuit_open(now));
}

#[tokio::test(start_paused = true)]
async fn a_name_forced_closed_admits_though_its_endpoints_are_out() {
    let (upstream, now) = (upstream(Policy::standard()), time::now());
    all_out(&upstream, now);
    assert!(matches!(refusal(&upstream, now), Some(Rejection::CircuitOpen { .. })));
    assert!(upstream.is_circuit_open(now));
    upstream.breaker.control(Control::ForceClosed);
    assert!((0..100).all(|_| upstream.place(now).is_some()) && !upstream.is_circuit_open(now));
    upstream.breaker.control(Control::Enable);
    assert!(refusal(&upstream, now).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_reload_gives_the_name_no_rules_of_its_own() {
    let (upstream, now) = (upstream(Policy::standard()), time::now());
    upstream.follow(&crate::policy::plan::Plan::standard());
    all_out(&upstream, now);
    let breaker = upstream.breaker_snapshot(now);
    assert_eq!((breaker.state, breaker.failures), (State::Disabled, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_comes_after_the_deadline_is_not_taken() {
    let bulkhead = BulkheadPolicy::standard().max_in_flight(1).max_queued(1);
    let (upstream, now) = (upstream(Policy::standard().bulkhead(bulkhead)), time::now());
    let first = upstream.place(now).unwrap();
    let deadline = now.after(Duration::from_millis(10));
    let Admission::Waits(mut waiting) = upstream.admit(Ask { deadline, ..Ask::plainly() }, now) else {
        panic!("it waits")
    };
    drop(first);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    assert!(waiting.poll(cx, deadline).is_pending());
    drop(waiting);
    assert_eq!(upstream.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_got_in_from_the_queue_keeps_its_place_in_the_rate() {
    // It was given back when the wait was dropped, so that as many more went as had waited for a
    // slot.
    let bulkhead = BulkheadPolicy::standard().max_in_flight(1).max_queued(1);
    let rate = RateLimitPolicy::new(2, Duration::from_secs(3600)).burst(2);
    let policy = Policy::standard().bulkhead(bulkhead).rate_limit(rate);
    let (upstream, now) = (upstream(policy), time::now());
    let first = upstream.place(now).unwrap();
    let Admission::Waits(mut waiting) = upstream.admit(Ask::plainly(), now) else { panic!("it waits") };
    drop(first);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(Ok(second)) = waiting.poll(cx, now) else { panic!("there is a slot") };
    drop((waiting, second));
    assert!(matches!(refusal(&upstream, now), Some(Rejection::RateLimited { .. })));
}

#[tokio::test(start_paused = true)]
async fn without_an_endpoint_to_ask_a_full_bulkhead_is_not_what_a_call_is_refused_for() {
    let bulkhead = BulkheadPolicy::standard().max_in_flight(1).max_queued(1);
    let (upstream, now) = (upstream(Policy::standard().bulkhead(bulkhead)), time::now());
    let _first = upstream.place(now).unwrap();
    assert!(refusal(&upstream, now).is_none(), "it would wait");
    for origin in ["http://a:1", "http://b:2"] {
        upstream.control_endpoint(&Origin::parse(origin).unwrap(), Control::ForceOpen).unwrap();
    }
    assert!(matches!(refusal(&upstream, now), Some(Rejection::CircuitOpen { .. })));
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Without endpoints, and answering 200 attempts a second, each of which takes nine tenths of its
/// time.
fn overloaded() -> (Arc<Upstream>, Tick) {
    let policies = Policy::standard().bulkhead(None).into();
    let core = Core::new(Setup { policies, entropy: Entropy::seeded(1), ..Setup::default() }).unwrap();
    let upstream = core.upstream_of(&Authority::of_uri(&NAME.parse().unwrap()));
    let mut now = time::now();
    for (seconds, per_second, took) in [(5, 300, 30), (2, 200, 450)] {
        for _ in 0..seconds * per_second {
            now = now.after(Duration::from_secs(1) / per_second);
            let sample = Sample { rtt_nanos: took * 1_000_000, allowed_nanos: 500_000_000 };
            upstream.tell_overload(None, upstream.gate(), sample, now);
        }
    }
    (upstream, now)
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_is_refused_as_soon_as_the_breaker_is_forced_open() {
    let (upstream, later) = overloaded();
    let mut in_flight = Vec::new();
    let mut waiting = loop {
        match upstream.admit(Ask::plainly(), later) {
            Admission::Admitted(permit) => in_flight.push(permit),
            Admission::Waits(waiting) => break waiting,
            Admission::Refused(why) => panic!("{why:?}"),
        }
    };
    let bell = Arc::new(Bell::default());
    let waker = Arc::clone(&bell).into();
    let mut cx = Context::from_waker(&waker);
    assert!(waiting.poll(&mut cx, later).is_pending() && !bell.0.load(Ordering::SeqCst));
    upstream.control(Control::ForceOpen);
    assert!(bell.0.load(Ordering::SeqCst));
    let polled = waiting.poll(&mut cx, later);
    assert!(matches!(polled, Poll::Ready(Err(Refusal { rejection: Rejection::CircuitOpen { .. }, .. }))));
}
