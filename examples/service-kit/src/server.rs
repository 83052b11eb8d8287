//! Serving until told to stop, then draining for a bounded time.
//!
//! HTTP is hyper's. `axum::serve` puts no bounds round it: any number of connections, each as slow as it likes.

use std::{future::Future, io, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::Error;

/// Each connection is a file descriptor.
const MAX_CONNECTIONS: usize = 1024;
/// Also how long an idle connection is kept. Longer than clients keep theirs, so that it is rarely this side that closes
/// one just as a request comes.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Before trying again when the system refuses a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Work that outlives the request that started it, and work no request started. A clone is the same work.
#[derive(Clone, Debug)]
pub struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
    drain: Duration,
}

impl Background {
    /// Nothing yet; a drain will wait for at most `drain`.
    pub fn new(drain: Duration) -> Self {
        Self { tasks: TaskTracker::new(), stop: CancellationToken::new(), drain }
    }

    /// Tasks that a drain waits for.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
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

/// Serves until `shutdown` resolves. Then no new connection is taken, open requests and background tasks get the
/// drain time to finish, and what is left is abandoned with a warning.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    background: Background,
) -> Result<(), Error> {
    tracing::info!(address = %listener.local_addr()?, "listening");
    let Background { tasks, stop, drain } = background;
    // Also when this future is dropped half-way, background work must not go on without a server.
    let _stop_on_drop = stop.clone().drop_guard();
    let mut connections = JoinSet::new();
    let graceful = GracefulShutdown::new();
    tokio::select! {
        () = shutdown => {}
        () = accept(router, listener, &graceful, &mut connections) => {}
    }
    tracing::info!("shutting down");
    stop.cancel();
    tasks.close();
    let drained = timeout(drain, async {
        graceful.shutdown().await;
        tasks.wait().await;
    });
    if drained.await.is_ok() {
        tracing::info!("drained");
    } else {
        tracing::warn!(drain_ms = drain.as_millis(), "not everything finished within the drain time");
    }
    // Dropping `connections` cuts off whoever is left.
    Ok(())
}

/// Takes connections for ever. What `axum::serve` does, with bounds: on how many there are, and on how long one may
/// take to say what it wants.
async fn accept(
    router: Router,
    listener: TcpListener,
    graceful: &GracefulShutdown,
    connections: &mut JoinSet<()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            // Newcomers wait in the listener's backlog.
            connections.join_next().await;
            continue;
        }
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                // Out of file descriptors, say, or a connection that was reset before it was taken.
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for a full packet; a stream that refuses is broken and will show it.
        let _ = stream.set_nodelay(true);
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}

/// A future that resolves on ctrl-c or, on Unix, SIGTERM. From this call on, not only from the first poll, neither ends
/// the process by itself.
pub fn signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    #[cfg(windows)]
    let (mut interrupt, mut terminate) =
        (tokio::signal::windows::ctrl_c()?, tokio::signal::windows::ctrl_shutdown()?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
