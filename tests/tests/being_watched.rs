//! What it costs a call that somebody looks: with every stream of the admin router open and
//! snapshots asked for without a pause, beside the same calls with nobody there.
//!
//! Measured is the CPU time of the thread that makes the calls, in turns, so that neither the
//! others' work nor a busy machine counts; what is left are locks and caches that they share. It is
//! printed, and nothing is asserted of it: that no lock of the path is held while JSON is written
//! has a test of its own (`calls_go_on_while_a_snapshot_is_being_written`).
//! `cargo test --release --test being_watched -- --nocapture` prints it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use resilient_client::access::Access;
use resilient_client::admin::Admin;
use resilient_client::{Policy, ResilienceLayer};
use rustix::time::{ClockId, clock_gettime};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

const TOKEN: &str = "open sesame";
/// Fewer than the most that the router has: those of the round before may not have ended yet.
const STREAMS: usize = 12;
const UPSTREAMS: u32 = 50;
const CALLS: u32 = 1_000;
const ROUNDS: usize = if cfg!(debug_assertions) { 20 } else { 200 };

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
}

/// The CPU time of a call.
fn calls(layer: &ResilienceLayer) -> f64 {
    let answer =
        service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    let mut service = layer.layer(answer);
    let cx = &mut Context::from_waker(Waker::noop());
    let begun = cpu();
    for n in 0..CALLS {
        let uri = format!("http://host-{}:3000/", n % UPSTREAMS);
        let mut call = Box::pin(service.call(Request::get(uri).body(String::new()).expect("a request")));
        assert!(matches!(call.as_mut().poll(cx), Poll::Ready(Ok(_))), "it is answered at once");
    }
    cpu().saturating_sub(begun).as_nanos() as f64 / f64::from(CALLS)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn ask(router: &Router, path: &str) -> Body {
    let request =
        Request::get(path).header("host", "localhost").header("authorization", format!("Bearer {TOKEN}"));
    let mut request = request.body(Body::empty()).expect("a request");
    request.extensions_mut().insert(ConnectInfo::<SocketAddr>(([127, 0, 0, 1], 7).into()));
    let response = router.clone().oneshot(request).await.expect("an answer");
    assert!(response.status().is_success(), "{path}: {}", response.status());
    response.into_body()
}

/// Looks without a pause for as long as it is told to.
fn watch(router: &Router, looks: &AtomicBool, ends: &AtomicBool, snapshots: &AtomicU64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        while !ends.load(Ordering::Relaxed) {
            if !looks.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(ask(router, "/stream").await);
            }
            while looks.load(Ordering::Relaxed) {
                ask(router, "/snapshot").await.collect().await.expect("a snapshot");
                snapshots.fetch_add(1, Ordering::Relaxed);
                for stream in &mut streams {
                    let _ = tokio::time::timeout(Duration::ZERO, stream.frame()).await;
                }
            }
        }
    });
}

#[test]
fn every_call_is_answered_at_once_while_everybody_looks() {
    let layer = ResilienceLayer::new(Policy::standard()).expect("it can work");
    let bare = ResilienceLayer::new(Policy::standard()).expect("it can work");
    let router = Admin::new(Access::token(TOKEN)).client("users", &layer).router().expect("it can work");
    let [looks, ends] = [(); 2].map(|()| Arc::<AtomicBool>::default());
    let snapshots = Arc::<AtomicU64>::default();
    let watcher = std::thread::spawn({
        let (looks, ends, snapshots) = (Arc::clone(&looks), Arc::clone(&ends), Arc::clone(&snapshots));
        move || watch(&router, &looks, &ends, &snapshots)
    });
    for layer in [&layer, &bare] {
        calls(layer);
    }
    let (mut without, mut alone, mut watched) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(calls(&bare));
        alone.push(calls(&layer));
        looks.store(true, Ordering::Relaxed);
        let before = snapshots.load(Ordering::Relaxed);
        while snapshots.load(Ordering::Relaxed) == before {
            assert!(!watcher.is_finished(), "what looks has panicked");
            std::thread::yield_now();
        }
        watched.push(calls(&layer));
        looks.store(false, Ordering::Relaxed);
    }
    ends.store(true, Ordering::Relaxed);
    watcher.join().expect("it looked");
    let [without, alone, watched] = [without, alone, watched].map(median);
    let share = watched / alone;
    println!(
        "a call takes {without:.0} ns of CPU without the admin router, {alone:.0} ns with it and nobody there, and \
         {watched:.0} ns with {STREAMS} streams and {} snapshots of {UPSTREAMS} upstreams meanwhile: {share:.2} times",
        snapshots.load(Ordering::Relaxed),
    );
}
