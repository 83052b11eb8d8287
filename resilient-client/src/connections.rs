//! What becomes of a client's connections, counted where its transport tells.
//!
//! hyper has its connections made here, so their beginnings and ends are seen; why its pool lets go
//! of one isn't: idle for too long, closed by the server, or ended with an attempt that was
//! cancelled over HTTP/1.1. reqwest makes its connections itself and tells nothing, and what is
//! below a tower service is that service's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::Mutex;

/// Connections of a client since it was built. Read while they come and go, so its parts may be one
/// apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "admin", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Connections {
    /// Begun, with the lookup of the name.
    pub begun: u64,
    /// Made, TLS and all.
    pub made: u64,
    /// Not made, for whatever reason. What was neither made nor failed is under way, or was given
    /// up.
    pub failed: u64,
    /// Those of the failed that had no more time, by the connect timeout.
    pub timed_out: u64,
    /// Made and not closed yet.
    pub open: u64,
    /// Closed after they had lost their voice: attempts timed out on them and nothing came.
    pub retired: u64,
    /// Closed after the server had said `GOAWAY` (HTTP/2).
    pub sent_away: u64,
    /// Closed for another reason, which hyper's pool keeps to itself: idle for too long, closed by
    /// the server, or ended with an attempt that was cancelled over HTTP/1.1.
    pub closed: u64,
    /// Pings sent to see whether connections are alive (HTTP/2)...
    pub pings: u64,
    /// ...and those of them that were answered.
    pub pongs: u64,
}

/// Why a connection was closed, as far as is known.
#[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "only hyper tells"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Closed {
    Retired,
    SentAway,
    Otherwise,
}

/// The counts, shared by all that a client's connections are made by.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    begun: AtomicU64,
    made: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    retired: AtomicU64,
    sent_away: AtomicU64,
    closed: AtomicU64,
    pings: AtomicU64,
    pongs: AtomicU64,
    /// How many are open to each origin, as URLs have it, those to which any are. A lock, because
    /// it is taken when one is made and when it is closed, and by who looks.
    open_to: Mutex<HashMap<Arc<str>, u64>>,
}

#[cfg_attr(not(feature = "hyper"), allow(dead_code, reason = "only hyper tells"))]
impl Counters {
    pub(crate) fn begins(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// One was made to this origin.
    pub(crate) fn made(&self, to: &Arc<str>) {
        self.made.fetch_add(1, Ordering::Relaxed);
        *self.open_to.lock().entry(Arc::clone(to)).or_default() += 1;
    }

    pub(crate) fn failed(&self, timed_out: bool) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.timed_out.fetch_add(u64::from(timed_out), Ordering::Relaxed);
    }

    /// One to this origin was closed.
    pub(crate) fn closed(&self, to: &str, why: Closed) {
        {
            let mut open_to = self.open_to.lock();
            let left = open_to.get_mut(to).map_or(0, |open| {
                *open = open.saturating_sub(1);
                *open
            });
            if left == 0 {
                open_to.remove(to);
            }
        }
        let counter = match why {
            Closed::Retired => &self.retired,
            Closed::SentAway => &self.sent_away,
            Closed::Otherwise => &self.closed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are open to this origin, written as URLs have it.
    pub(crate) fn open_to(&self, origin: &str) -> u64 {
        self.open_to.lock().get(origin).copied().unwrap_or_default()
    }

    pub(crate) fn ping(&self) {
        self.pings.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn pong(&self) {
        self.pongs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Connections {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Ends first, so that none is seen that hasn't begun.
        let (retired, sent_away, closed) = (read(&self.retired), read(&self.sent_away), read(&self.closed));
        let (pongs, pings) = (read(&self.pongs), read(&self.pings));
        let (timed_out, failed, made) = (read(&self.timed_out), read(&self.failed), read(&self.made));
        let open = made.saturating_sub(retired + sent_away + closed);
        Connections {
            begun: self.begun(),
            made,
            failed,
            timed_out,
            open,
            retired,
            sent_away,
            closed,
            pings,
            pongs,
        }
    }
}
