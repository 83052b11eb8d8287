//! Somebody listens in the process, but not to this crate: then none of its spans is made, and
//! nothing that would stand in one.

use std::sync::atomic::{AtomicU32, Ordering};

use resilient_client::{Client, Policy};
use resilient_client_tests::{Reply, Server};
use tracing::metadata::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

static REGISTERED: AtomicU32 = AtomicU32::new(0);
static ASKED: AtomicU32 = AtomicU32::new(0);
static MADE: AtomicU32 = AtomicU32::new(0);

/// At the level info for everybody else. Whether it wants a place of ours it says each time anew.
struct Elsewhere;

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "resilient_client"
}

impl Subscriber for Elsewhere {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_ours(metadata) && metadata.is_span() {
            REGISTERED.fetch_add(1, Ordering::Relaxed);
        }
        // Those of one kind it never wants, and of the other it can't say in general.
        if is_ours(metadata) && metadata.name().ends_with("attempt") {
            Interest::never()
        } else {
            Interest::sometimes()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if is_ours(metadata) && metadata.is_span() {
            ASKED.fetch_add(1, Ordering::Relaxed);
        }
        !is_ours(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        if is_ours(span.metadata()) {
            MADE.fetch_add(1, Ordering::Relaxed);
        }
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn where_only_others_are_listened_to_no_span_is_made() {
    const CALLS: u32 = 20;

    tracing::subscriber::set_global_default(Elsewhere).unwrap();
    let server =
        Server::start(|request| Reply::answer(if request.nth % 2 == 1 { 503 } else { 200 }, "")).await;
    let client = Client::builder().policy(Policy::standard()).build().unwrap();
    for _ in 0..CALLS {
        assert_eq!(client.get(server.url("/")).send_buffered().await.unwrap().status(), 200);
    }
    let count = |of: &AtomicU32| of.load(Ordering::Relaxed);
    assert_eq!(count(&MADE), 0);
    assert_eq!(count(&REGISTERED), 1, "the call's place, once; an attempt's isn't reached");
    assert_eq!(count(&ASKED), CALLS, "once a call");
}
