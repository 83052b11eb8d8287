//! Serving until told to stop, then draining for a bounded time.

use std::{future::Future, time::Duration};

use axum::{Router, serve::ListenerExt as _};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::error::Error;

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
    // Small answers must not wait for a full packet.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let Background { tasks, stop, drain } = background;
    // Also when this future is dropped half-way, background work must not go on without a server.
    let _stop_on_drop = stop.clone().drop_guard();
    let stopping = stop.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        tracing::info!("shutting down");
        stopping.cancel();
    });

    let drained = async {
        let served = server.await;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        served
    };
    tokio::select! {
        served = drained => {
            served?;
            tracing::info!("drained");
        }
        () = async { stop.cancelled().await; sleep(drain).await } => {
            tracing::warn!(drain_ms = drain.as_millis(), "not everything finished within the drain time");
        }
    }
    Ok(())
}

/// Resolves on ctrl-c or, on Unix, SIGTERM.
pub async fn signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
