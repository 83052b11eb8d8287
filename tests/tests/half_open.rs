//! The breaker half open: exactly so many probes at any concurrency, the first of them alone, and
//! nothing a probe does can wedge it.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use resilient_client::event::Event;
use resilient_client::policy::breaker::{BreakerPolicy, State};
use resilient_client::{Client, ErrorKind, Policy, Response};
use resilient_client_tests::{Gate, Heard, Reply, SOON, Server, Watched, clock, within};
use tokio::task::JoinSet;

const PROBES: usize = 3;
const OPEN_FOR: Duration = Duration::from_millis(150);

fn breaker() -> BreakerPolicy {
    BreakerPolicy::standard().probes(PROBES as u32).open_for(OPEN_FOR).open_cap(OPEN_FOR)
}

struct Rig {
    server: Server,
    client: Client,
    heard: Heard,
}

impl Rig {
    /// A breaker that has just opened on a server that answers 500.
    async fn opened(policy: Policy) -> Self {
        Self::opened_with(policy, |_| {}).await
    }

    async fn opened_with(policy: Policy, also: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let server = Server::start(|_| Reply::answer(500, "")).await;
        let heard = Heard::new();
        let client = Client::builder()
            // The bulkhead is another story; so is a retry.
            .policy(policy.retry(None).bulkhead(None))
            .observer(heard.clone())
            .observer(move |_: &str, event: &Event| also(event))
            .build()
            .unwrap();
        let rig = Self { server, client, heard };
        while let Ok(response) = rig.get().await {
            assert_eq!(response.status(), 500);
        }
        rig
    }

    fn get(&self) -> impl Future<Output = Result<Response, resilient_client::Error>> + Send + use<> {
        self.client.get(self.server.url("/")).send()
    }

    /// Waits until the open time is over, as long as the rejection says.
    async fn reopening(&self) {
        let rejected = self.get().await.unwrap_err();
        assert_eq!(rejected.kind(), ErrorKind::CircuitOpen);
        tokio::time::sleep(rejected.retry_after().unwrap()).await;
    }

    /// Waits until as many requests have come as there were before, plus `more`.
    async fn until_more(&self, before: usize, more: usize) {
        within(SOON, self.server.until_count(before + more)).await;
    }

    /// The server is well again: the probes pass, the breaker closes, and twenty calls at once
    /// succeed, all within a second.
    async fn assert_recovers_at_once(&self) {
        self.server.now(|_| Reply::answer(200, "well"));
        let begun = clock::now();
        within(SOON, async {
            for _ in 0..PROBES {
                assert_eq!(self.get().await.unwrap().text().await.unwrap(), "well");
            }
            let mut calls = JoinSet::new();
            for _ in 0..20 {
                let call = self.get();
                calls.spawn(async move { call.await.unwrap().text().await.unwrap() });
            }
            assert!(calls.join_all().await.iter().all(|text| text == "well"));
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_tasks_at_reopening_send_exactly_the_probes() {
    let rig = Rig::opened(Policy::standard().breaker(breaker())).await;
    rig.reopening().await;
    let all = rig.server.count();
    for probes in [1, PROBES - 1] {
        let (before, gate) = (rig.server.count(), Gate::new());
        let hold = gate.clone();
        rig.server.now(move |_| Reply::answer(200, "probed").after(&hold));
        let start = Gate::new();
        let mut calls = JoinSet::new();
        for _ in 0..1000 {
            let (call, start) = (rig.client.get(rig.server.url("/")), start.clone());
            calls.spawn(async move {
                start.pass().await;
                call.send().await
            });
        }
        start.open();
        // Everyone but the probes is turned away while the probes are still out.
        within(SOON, async {
            for _ in 0..1000 - probes {
                let rejected = calls.join_next().await.unwrap().unwrap().unwrap_err();
                assert_eq!(rejected.kind(), ErrorKind::CircuitOpen);
                assert!(rejected.retry_after().unwrap() <= Duration::from_secs(1), "{rejected}");
            }
            rig.until_more(before, probes).await;
            gate.open();
            for probe in calls.join_all().await {
                assert_eq!(probe.unwrap().text().await.unwrap(), "probed");
            }
        })
        .await;
    }
    assert_eq!(rig.server.count() - all, PROBES);
    within(SOON, rig.heard.until_breaker_is(State::Closed, 1)).await;
    rig.assert_recovers_at_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_on_real_threads_send_exactly_one_probe_before_it_has_succeeded() {
    const THREADS: usize = 50;
    const CALLS_EACH: usize = 20;
    let rig = Rig::opened(Policy::standard().breaker(breaker())).await;
    let gate = Gate::new();
    let hold = gate.clone();
    rig.server.now(move |_| Reply::answer(200, "probed").after(&hold));

    let (start, turned_away) = (Arc::new(Barrier::new(THREADS + 1)), Watched::<usize>::default());
    let before = rig.server.count();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (client, url) = (rig.client.clone(), rig.server.url("/"));
            let (start, turned_away) = (Arc::clone(&start), turned_away.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                start.wait();
                runtime.block_on(async {
                    let mut calls = JoinSet::new();
                    for _ in 0..CALLS_EACH {
                        let (call, turned_away) = (client.get(&url).send(), turned_away.clone());
                        calls.spawn(async move {
                            match call.await {
                                Ok(response) => assert_eq!(response.text().await.unwrap(), "probed"),
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::CircuitOpen, "{error}");
                                    turned_away.change(|count| *count += 1);
                                }
                            }
                        });
                    }
                    calls.join_all().await;
                });
            })
        })
        .collect();
    rig.reopening().await;
    tokio::task::spawn_blocking(move || start.wait()).await.unwrap();
    // Everyone but the probe is turned away while it is still out.
    within(SOON, turned_away.until(|count| *count == THREADS * CALLS_EACH - 1)).await;
    rig.until_more(before, 1).await;
    gate.open();
    let join = || threads.into_iter().for_each(|thread| thread.join().unwrap());
    within(SOON, tokio::task::spawn_blocking(join)).await.unwrap();
    assert_eq!(rig.server.count() - before, 1);
    // Those threads are gone, and with them the tasks that drove their connections.
    rig.assert_recovers_at_once().await;
}

#[tokio::test]
async fn a_dropped_probe_gives_its_place_back() {
    let rig = Rig::opened(Policy::standard().breaker(breaker())).await;
    rig.server.now(|_| Reply::nothing().then_hang());
    rig.reopening().await;
    let before = rig.server.count();
    for round in 0..5 {
        let probe = tokio::spawn(rig.get());
        rig.until_more(before, round + 1).await;
        assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::CircuitOpen, "the probe is out");
        probe.abort();
        assert!(probe.await.unwrap_err().is_cancelled());
        rig.reopening().await;
    }
    assert_eq!(rig.server.count() - before, 5);
    rig.assert_recovers_at_once().await;
}

#[tokio::test]
async fn a_hung_probe_fails_at_its_timeout_and_the_next_one_has_its_chance() {
    let rig = Rig::opened(Policy::standard().breaker(breaker())).await;
    rig.server.now(|_| Reply::nothing().then_hang());
    rig.reopening().await;
    let probe = rig.client.get(rig.server.url("/")).attempt_timeout(Duration::from_millis(100));
    let hung = within(SOON, probe.send()).await.unwrap_err();
    assert_eq!(hung.kind(), ErrorKind::Timeout);
    within(SOON, rig.heard.until_breaker_is(State::Open, 2)).await;
    rig.reopening().await;
    rig.assert_recovers_at_once().await;
}

/// Nobody reads them, so no timer of ours can end them. Their heads have said that the server is
/// well.
#[tokio::test]
async fn probes_whose_bodies_nobody_reads_are_decided_by_their_heads() {
    let rig = Rig::opened(Policy::standard().breaker(breaker())).await;
    let endless = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx";
    rig.server.now(move |_| Reply::raw(endless).then_hang());
    rig.reopening().await;
    let mut held = Vec::new();
    for _ in 0..PROBES {
        held.push(rig.get().await.unwrap());
    }
    within(SOON, rig.heard.until_breaker_is(State::Closed, 1)).await;
    rig.assert_recovers_at_once().await;
    // Old news: what they say now belongs to another generation.
    drop(held);
    assert_eq!(rig.get().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_task_that_panics_with_a_probe_in_hand_wedges_nothing() {
    let rig = Rig::opened(Policy::standard().breaker(breaker())).await;
    let endless = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx";
    rig.server.now(move |_| Reply::raw(endless).then_hang());
    rig.reopening().await;
    // Fewer than would close it: to have seen a good head and no more is a success.
    for _ in 0..PROBES - 1 {
        let call = rig.get();
        let probe = tokio::spawn(async move {
            let _response = call.await.unwrap();
            resume_unwind(Box::new("a caller's bug"));
        });
        assert!(within(SOON, probe).await.unwrap_err().is_panic());
    }
    rig.server.now(|_| Reply::nothing().then_hang());
    let before = rig.server.count();
    for round in 0..5 {
        let (call, server) = (rig.get(), rig.server.seen().clone());
        let probe = tokio::spawn(async move {
            tokio::select! {
                _ = call => {}
                () = server.until(|seen| seen.requests.len() > before + round) => {
                    resume_unwind(Box::new("a caller's bug, while the probe is out"));
                }
            }
        });
        assert!(within(SOON, probe).await.unwrap_err().is_panic());
        rig.reopening().await;
    }
    rig.assert_recovers_at_once().await;
}

#[tokio::test]
async fn an_observer_that_panics_at_every_event_wedges_nothing() {
    let panics = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&panics);
    let rig = Rig::opened_with(Policy::standard().breaker(breaker()), move |_| {
        if armed.load(Ordering::SeqCst) {
            resume_unwind(Box::new("an observer's bug"));
        }
    })
    .await;
    rig.reopening().await;
    panics.store(true, Ordering::SeqCst);
    // One probe fails, amid panics: open again.
    assert_eq!(rig.get().await.unwrap().status(), 500);
    rig.reopening().await;
    // One is dropped, amid panics.
    let before = rig.server.count();
    rig.server.now(|_| Reply::nothing().then_hang());
    let probe = tokio::spawn(rig.get());
    rig.until_more(before, 1).await;
    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    rig.reopening().await;
    rig.assert_recovers_at_once().await;
    let told = rig
        .heard
        .count(|event| matches!(event, Event::BreakerTransition(change) if change.to == State::Closed));
    assert_eq!(told, 1, "the other observer still hears");
}
