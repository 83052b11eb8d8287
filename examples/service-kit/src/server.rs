//! Serving until told to stop, then draining for a bounded time.
//!
//! HTTP is hyper's. `axum::serve` puts no bounds round it: any number of connections, each as slow
//! as it likes. Here
//!
//! - there are at most so many connections, and so many from one peer (`peers.rs`);
//! - one that idles, sends its request's head or reads its answer too slowly is ended
//!   (`stream.rs`);
//! - the end is announced, so that no client loses a request to it.
//!
//! ```text
//! serving ── told to stop ──> lame duck: not ready, still serving, every answer says `Connection: close`
//!                                 │ its time is over
//!                                 v
//!             draining: no new connections, unused ones closed, requests and background work finish
//!                                 │ all done, or the drain time is over
//!                                 v
//!                               ended
//! ```

mod activity;
mod connection;
mod peers;
mod signal;
mod socket;
mod stream;

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    connection::Ending,
    peers::{Full, Peers},
};
use crate::{error::Error, health::Health, limits::Limits};

pub use self::signal::signal;

/// Before trying again when the system refuses a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections there may be, and how slow each.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In all. Each is a file descriptor.
    pub connections: usize,
    /// From one peer: an IPv4 address, or 64 bits of an IPv6 address.
    pub connections_per_peer: usize,
    /// How long one is kept without a request. Longer than clients keep theirs, so that it is
    /// rarely this side that closes one just as a request comes.
    pub idle: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// How long an answer may wait for the client to read on.
    pub write: Duration,
}

/// Work that outlives the request that started it, and work no request started. A clone is the same
/// work.
#[derive(Clone, Debug, Default)]
pub struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Background {
    /// Tasks that a drain waits for.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Comes when requests that would never end by themselves should: streams, say.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// Starts a task that ends when the token it is given is cancelled.
    pub fn spawn<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = task(self.stop.clone());
        self.tasks.spawn(async move {
            work.await;
            tracing::debug!(task = name, "background task ended");
        });
    }
}

/// What a server has to do with besides its routes.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Stopped and waited for at the end.
    pub background: Background,
    /// Told when the end begins.
    pub health: Health,
    /// Bounds and times.
    pub limits: Limits,
}

/// Serves until `shutdown` resolves, then for the lame-duck time, then drains; what isn't finished
/// within the drain time is abandoned with a warning.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    serving: Serving,
) -> Result<(), Error> {
    tracing::info!(address = %listener.local_addr()?, "listening");
    let Serving { background: Background { tasks, stop }, health, limits } = serving;
    // Also when this future is dropped half-way, background work must not go on without a server.
    let _stop_on_drop = stop.clone().drop_guard();
    let ending = Ending::default();
    let mut door = Door::new(router, listener, limits.bounds(), ending.clone());
    tokio::select! {
        () = shutdown => {}
        () = door.accept() => {}
    }
    tracing::info!(
        lame_duck_ms = limits.lame_duck().as_millis(),
        "told to stop: answers end their connections"
    );
    health.leaving();
    ending.answers_close.cancel();
    // It never ends by itself.
    let _ = timeout(limits.lame_duck(), door.accept()).await;
    let mut connections = door.close();
    ending.close_unused.cancel();
    stop.cancel();
    tasks.close();
    let drained = timeout(limits.drain_timeout(), async {
        while connections.join_next().await.is_some() {}
        tasks.wait().await;
    });
    if drained.await.is_ok() {
        tracing::info!("drained");
    } else {
        let drain_ms = limits.drain_timeout().as_millis();
        tracing::warn!(drain_ms, "not everything finished within the drain time");
    }
    // Dropping `connections` cuts off whoever is left.
    Ok(())
}

/// Serves `router` for as long as the future is polled. Dropped, it cuts everyone off.
pub async fn serve_forever(router: Router, listener: TcpListener, bounds: Bounds) {
    Door::new(router, listener, bounds, Ending::default()).accept().await;
}

/// Where connections come in.
struct Door {
    router: Router,
    listener: TcpListener,
    bounds: Bounds,
    ending: Ending,
    peers: Peers,
    connections: JoinSet<()>,
}

impl Door {
    fn new(router: Router, listener: TcpListener, bounds: Bounds, ending: Ending) -> Self {
        let peers = Peers::new(bounds.connections, bounds.connections_per_peer);
        Self { router, listener, bounds, ending, peers, connections: JoinSet::new() }
    }

    /// Takes connections for ever.
    async fn accept(&mut self) {
        loop {
            while self.connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, peer)) => self.admit(stream, peer).await,
                Err(error) => {
                    // Out of file descriptors, say, or a connection that was reset before it was
                    // taken.
                    tracing::warn!(%error, "a connection could not be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let place = loop {
            match self.peers.admit(peer.ip()) {
                Ok(place) => break place,
                Err(Full::OfOne) => return,
                // Meanwhile newcomers wait in the listener's backlog.
                Err(Full::OfAll) => self.peers.order.room.notified().await,
            }
        };
        // Small answers must not wait for a full packet; a stream that refuses is broken and will
        // show it.
        let _ = stream.set_nodelay(true);
        let (router, ending) = (self.router.clone(), self.ending.clone());
        self.connections.spawn(connection::serve(stream, router, place, ending, self.bounds));
    }

    /// Takes no more; returns those that are still served.
    fn close(self) -> JoinSet<()> {
        self.connections
    }
}
