//! What somebody forced on a name holds for all of its endpoints, and waits end with the deadline.

use std::task::{Context, Poll};

use super::*;
use crate::authority::Authority;
use crate::endpoints::Endpoints;
use crate::engine::{Core, Setup};
use crate::policy::Policy;
use crate::policy::breaker::{Control, State};
use crate::policy::bulkhead::BulkheadPolicy;
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
    // It was given back when the wait was dropped, so that as many more went as had waited for a slot.
    let bulkhead = BulkheadPolicy::standard().max_in_flight(1).max_queued(1);
    let rate = RateLimitPolicy::new(2, Duration::from_hours(1)).burst(2);
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
