//! What is known of one connection.

use std::fmt;

use std::net::SocketAddr;

use std::sync::Arc;

use std::sync::atomic::AtomicBool;

use std::sync::atomic::AtomicU32;

use std::sync::atomic::AtomicU64;

use std::sync::atomic::Ordering;

use crate::connections::{Closed, Counters};
use crate::hyper::frames::Opened;
use crate::time;
use crate::time::Tick;

/// After so many attempt timeouts in a row nothing is sent on a connection any more.
const TIMEOUTS: u32 = 2;

/// Numbers connections, over all clients of the process.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Numbers the attempts on shared connections as they set out, so that a connection can say which
/// of them it has been heard since.
#[derive(Clone, Debug, Default)]
pub(super) struct Sends(pub(super) Arc<Counts>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) connections: Arc<Counters>,
}

impl Sends {
    /// The number of one that sets out now; the first is 1.
    pub(super) fn next(&self) -> u64 {
        self.0.sent.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many connections have been begun. An attempt between whose beginning and end none was,
    /// over HTTP/1, was on one from the pool.
    pub(super) fn connects(&self) -> u64 {
        self.0.connections.begun()
    }

    pub(super) fn connections(&self) -> &Arc<Counters> {
        &self.0.connections
    }

    pub(super) fn last(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }
}

/// What is known of one connection. It travels with the responses on it.
#[derive(Clone)]
pub(crate) struct Link(pub(super) Arc<State>);

pub(super) struct State {
    pub(super) id: u64,
    pub(super) remote_addr: Option<SocketAddr>,
    /// Its streams, if several attempts are on it at once.
    pub(super) opened: Option<Box<Opened>>,
    /// Something has been written on it, if attempts have it to themselves.
    pub(super) used: AtomicBool,
    /// Attempts that timed out since the last answer.
    pub(super) timeouts: AtomicU32,
    /// Nothing is sent on it any more.
    retired: AtomicBool,
    pub(super) sends: Sends,
    /// The last attempt that had set out when anything came.
    pub(super) heard: AtomicU64,
}

impl Link {
    pub(super) fn new(remote_addr: Option<SocketAddr>, shared: bool, sends: Sends) -> Self {
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let (timeouts, heard) = (AtomicU32::new(0), AtomicU64::new(0));
        let opened = shared.then(|| Box::new(Opened::new(time::now(), Arc::clone(sends.connections()))));
        let (used, retired) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(State { id, remote_addr, opened, used, timeouts, retired, sends, heard }))
    }

    /// Its number, if it is one that attempts share.
    pub(super) fn shared(&self) -> Option<u64> {
        self.0.opened.is_some().then_some(self.0.id)
    }

    /// Whether it has carried a request.
    pub(super) fn was_used(&self) -> bool {
        self.0.opened.as_ref().map_or_else(|| self.0.used.load(Ordering::Relaxed), |opened| opened.any())
    }

    pub(super) fn writes(&self) {
        if !self.0.used.load(Ordering::Relaxed) {
            self.0.used.store(true, Ordering::Relaxed);
        }
    }

    /// How long a request that set out then waited until its stream was opened, in nanoseconds;
    /// `None` while it does.
    pub(super) fn waited(&self, stream: Option<u32>, set_out: Tick) -> Option<u64> {
        let opened = self.0.opened.as_ref()?;
        opened.waited(stream?, set_out)
    }

    /// Whether the server has said that it will not process this stream or, of one that isn't
    /// opened, whichever that may become.
    pub(super) fn excludes(&self, stream: Option<u32>) -> bool {
        self.0.opened.as_ref().is_some_and(|opened| opened.excludes(stream))
    }

    /// Something came.
    pub(super) fn hears(&self) {
        self.0.heard.store(self.0.sends.last(), Ordering::Relaxed);
    }

    /// Whether an answer has surely come in the last so many nanoseconds. Of a connection that is
    /// busy that is known, of others it may not be.
    pub(super) fn has_answered_within(&self, nanos: u64, now: Tick) -> bool {
        self.0.opened.as_ref().is_some_and(|opened| now.nanos_since(opened.last_answered()) < nanos)
    }

    /// A number for an attempt that is on it and waits on.
    pub(super) fn sets_out_again(&self) -> u64 {
        self.0.sends.next()
    }

    /// Whether anything has come since the attempt of that number set out.
    pub(super) fn has_been_heard_since(&self, sent: u64) -> bool {
        self.0.heard.load(Ordering::Relaxed) >= sent
    }

    pub(crate) fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.remote_addr
    }

    /// An answer came: it is alive.
    pub(super) fn answered(&self) {
        // Read first: attempts in parallel share this, and it is nearly always 0.
        if self.0.timeouts.load(Ordering::Relaxed) != 0 {
            self.0.timeouts.store(0, Ordering::Relaxed);
        }
        if let Some(opened) = &self.0.opened {
            opened.answered();
        }
    }

    /// The attempt of that number timed out. True when that was one too many: the second in a row,
    /// or the first when nothing at all has come since it set out.
    pub(super) fn timed_out(&self, sent: u64) -> bool {
        let retires = self.0.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS
            || !self.has_been_heard_since(sent);
        if retires {
            self.0.retired.store(true, Ordering::Relaxed);
        }
        retires
    }

    /// It is closed, for all that is known because of this.
    fn why_closed(&self) -> Closed {
        if self.0.retired.load(Ordering::Relaxed) {
            Closed::Retired
        } else if self.0.opened.as_ref().is_some_and(|opened| opened.was_sent_away()) {
            Closed::SentAway
        } else {
            Closed::Otherwise
        }
    }
}

/// A connection for as long as it is open, which its link may outlive in a response.
#[derive(Debug)]
pub(super) struct Life {
    link: Link,
    /// The origin that it goes to.
    to: Arc<str>,
}

impl Life {
    pub(super) fn of(link: &Link, to: Arc<str>) -> Self {
        link.0.sends.connections().made(&to);
        Self { link: link.clone(), to }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.link.0.sends.connections().closed(&self.to, self.link.why_closed());
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("remote_addr", &self.0.remote_addr).finish_non_exhaustive()
    }
}
