//! What a connection is doing at the moment: its stream sees bytes, its service sees requests, and
//! whoever must choose a connection to close asks here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Counts the moments at which connections fell idle, so that the one that has been idle longest
/// can be found.
#[derive(Clone, Debug, Default)]
pub(super) struct IdleOrder {
    last: Arc<AtomicU64>,
    /// Told whenever a connection begins to give way to others, or ends.
    pub(super) room: Arc<Notify>,
}

impl IdleOrder {
    pub(super) fn new_connection(&self) -> Activity {
        let idle_since = AtomicU64::new(self.next());
        Activity {
            order: self.clone(),
            answering: AtomicBool::new(false),
            streaming: AtomicBool::new(false),
            half_read: AtomicBool::new(false),
            since: idle_since,
        }
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }
}

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    order: IdleOrder,
    /// From a whole request head to the end of its answer.
    answering: AtomicBool,
    /// Its answer may never end: a stream of events.
    streaming: AtomicBool,
    /// Some bytes of a request head have come, but not all.
    half_read: AtomicBool,
    /// When it fell idle, or began to stream.
    since: AtomicU64,
}

impl Activity {
    /// Bytes have come. Returns whether they may be the first of a request.
    pub(super) fn bytes_read(&self) -> bool {
        !self.is_answering() && !self.half_read.swap(true, Ordering::Relaxed)
    }

    /// A request is there, head and all.
    pub(super) fn request_read(&self) {
        self.answering.store(true, Ordering::Relaxed);
        self.half_read.store(false, Ordering::Relaxed);
    }

    /// Its answer may never end.
    pub(super) fn streams(&self) {
        self.since.store(self.order.next(), Ordering::Relaxed);
        self.streaming.store(true, Ordering::Relaxed);
        self.order.room.notify_one();
    }

    /// Its answer is over.
    pub(super) fn answered(&self) {
        self.since.store(self.order.next(), Ordering::Relaxed);
        self.streaming.store(false, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
        self.order.room.notify_one();
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.streaming.load(Ordering::Relaxed)
    }

    pub(super) fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    /// Whether nothing of a request has come since the last answer.
    pub(super) fn is_between_requests(&self) -> bool {
        !self.is_answering() && !self.half_read.load(Ordering::Relaxed)
    }

    /// Its turn to give way to another: idle ones before streams, each the longest first. `None`
    /// while a request is being answered that has an end.
    pub(super) fn turn(&self) -> Option<(bool, u64)> {
        let streams = self.is_streaming();
        (streams || !self.is_answering()).then(|| (streams, self.since.load(Ordering::Relaxed)))
    }
}
