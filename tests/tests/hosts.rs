//! E8 and E9 over real sockets: what fails, fails by itself. A host that hangs takes nothing from
//! one that works, and nor does a broken shard from the others, if calls say which shard they are
//! for.

use std::time::Duration;

use resilient_client::policy::breaker::BreakerPolicy;
use resilient_client::policy::bulkhead::BulkheadPolicy;
use resilient_client::policy::timeout::TimeoutPolicy;
use resilient_client::{Client, Policy};
use resilient_client_tests::{Reply, Server, clock, within};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

const SECOND: Duration = Duration::from_secs(1);
const CALLS: usize = 300;
/// 100 a second.
const EVERY: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Seen {
    success: f64,
    p99: Duration,
}

/// Calls `y` and, if there is one, `x` 100 times a second each; what became of the calls to `y`.
async fn drive(x: Option<String>, y: String) -> Seen {
    let timeout = TimeoutPolicy::standard().total(SECOND * 2).attempt(SECOND);
    let bulkhead = BulkheadPolicy::standard().max_in_flight(50);
    // The breaker would end the hang, and the overload limit ease it; here the bulkheads have to do
    // it alone.
    let policy = Policy::standard().timeout(timeout).bulkhead(bulkhead).breaker(None).overload(None);
    let client = Client::builder().policy(policy).build().unwrap();
    let (mut calls, mut hanging) = (JoinSet::new(), JoinSet::new());
    let mut ticks = tokio::time::interval(EVERY);
    // After a pause of the machine's, no burst: one of more than the bulkhead takes is turned away
    // by right.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..CALLS {
        ticks.tick().await;
        if let Some(x) = &x {
            hanging.spawn(client.get(x.as_str()).send());
        }
        let (begun, call) = (clock::now(), client.get(y.as_str()).fetch_text());
        calls.spawn(async move { call.await.ok().map(|_| begun.elapsed()) });
    }
    let mut took: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    for hung in hanging.join_all().await {
        hung.unwrap_err();
    }
    took.sort();
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or(Duration::MAX);
    Seen { success: took.len() as f64 / CALLS as f64, p99 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hangs_takes_nothing_from_one_that_works() {
    within(SECOND * 30, async {
        let hangs = || Server::start(|_| Reply::nothing().then_hang());
        let works = || Server::start(|_| Reply::answer(200, "well").delayed(Duration::from_millis(5)));
        let (x, y, alone) = (hangs().await, works().await, works().await);
        // The control: one host for both, as where nothing keeps them apart.
        let both = Server::start(|request| match &*request.target {
            "/x" => Reply::nothing().then_hang(),
            _ => Reply::answer(200, "well").delayed(Duration::from_millis(5)),
        })
        .await;
        let (beside, alone, shared) = tokio::join!(
            drive(Some(x.url("/x")), y.url("/y")),
            drive(None, alone.url("/y")),
            drive(Some(both.url("/x")), both.url("/y")),
        );
        for (which, seen) in
            [("beside a hanging x", &beside), ("alone", &alone), ("in one pool with x (control)", &shared)]
        {
            println!("E8 over sockets: y {which}: {:.1} %, p99 {:.1?}", seen.success * 100.0, seen.p99);
        }
        assert!(x.count() > 0, "x was called");
        assert!(beside.success >= 0.999, "{beside:?}");
        assert!(shared.success < 0.5, "the control fails: {shared:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_by_key_loses_the_broken_shard_and_no_other() {
    const SHARDS: usize = 10;
    within(SECOND * 30, async {
        let mut shares = Vec::new();
        for keyed in [true, false] {
            let server = Server::start(|request| match &*request.target {
                "/shards/3" => Reply::answer(503, "down"),
                _ => Reply::answer(200, "well"),
            })
            .await;
            // So strict that one shard of ten opens it, if it is one breaker for all.
            let breaker = BreakerPolicy::standard().failure_rate(0.05).cold_consecutive_failures(5);
            let policy = Policy::standard().retry(None).breaker(breaker);
            let client = Client::builder().policy(policy).build().unwrap();
            let mut good = 0;
            for n in 0..100 * SHARDS {
                let shard = n % SHARDS;
                let call = client.get(server.url(&format!("/shards/{shard}")));
                let call = if keyed { call.key(format!("shard {shard}")) } else { call };
                good += usize::from(call.fetch_text().await.is_ok());
            }
            shares.push(good as f64 / (100 * SHARDS) as f64);
        }
        let [keyed, one_for_all] = shares[..] else { panic!("two runs") };
        println!(
            "E9 over sockets: one shard of ten down, {:.1} % succeed with a breaker by key, {:.1} % with one for all",
            keyed * 100.0,
            one_for_all * 100.0
        );
        assert!((0.9 - keyed).abs() < 1e-9, "{keyed}");
        assert!(one_for_all < 0.5, "the control fails: {one_for_all}");
    })
    .await;
}
