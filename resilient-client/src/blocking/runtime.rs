//! The thread behind blocking clients, and waiting for what it drives.
//!
//! A call is polled by the thread that makes it; the other one drives sockets and timers. So a call
//! that is given up, by a panic say, is dropped where it was made, and what it held is given back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};

/// More than tokio lets a task do before it must give way, which is 128.
const MORE_THAN_A_TASK_MAY: usize = 256;

/// A runtime on a thread of its own, which ends when this is dropped. Nobody waits for that.
#[derive(Debug)]
pub(super) struct Runtime(Option<Running>);

#[derive(Debug)]
struct Running {
    handle: Handle,
    /// Dropped, it ends the thread.
    _alive: oneshot::Sender<()>,
    #[cfg_attr(not(test), allow(dead_code, reason = "tests look whether it has ended"))]
    thread: JoinHandle<()>,
}

impl Runtime {
    pub(super) fn start() -> Result<Self, Error> {
        let config =
            |error| Error::new(ErrorKind::Config).says("no thread for a blocking client").because(error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(config)?;
        let handle = runtime.handle().clone();
        let (alive, over) = oneshot::channel::<()>();
        let drive = move || {
            let _ = runtime.block_on(over);
            // A name that is being looked up may take its time.
            runtime.shutdown_background();
        };
        let thread =
            thread::Builder::new().name("resilient-client".to_owned()).spawn(drive).map_err(config)?;
        Ok(Self(Some(Running { handle, _alive: alive, thread })))
    }

    /// One that can't drive anything, and says so.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Does something that needs a runtime about it, but doesn't wait.
    pub(super) fn inside<T>(&self, what: impl FnOnce() -> T) -> T {
        let _inside = self.0.as_ref().map(|running| running.handle.enter());
        what()
    }

    /// What a future comes to, while this thread does nothing else.
    pub(super) fn wait<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let Some(running) = &self.0 else {
            return Err(Error::new(ErrorKind::Config).says("no thread for a blocking client"));
        };
        if is_async() {
            let says = "use the async client here, or tokio::task::spawn_blocking";
            return Err(Error::new(ErrorKind::WouldBlock).says(says));
        }
        let _inside = running.handle.enter();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(output) => return Ok(output),
                Poll::Pending => thread::park(),
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Whether this thread drives tasks, so that it must not wait.
///
/// A handle is within reach in `spawn_blocking`, too. But only what a runtime polls has a budget,
/// after which it must give way; whoever may block has none. (Nor has what `block_on` polls, for
/// the rest of a poll in which it called `block_in_place`: there a call waits, and holds that
/// thread.) What is taken of it here costs a task that is refused no more than to give way earlier.
fn is_async() -> bool {
    if Handle::try_current().is_err() {
        return false;
    }
    let mut cx = Context::from_waker(Waker::noop());
    (0..MORE_THAN_A_TASK_MAY).any(|_| pin!(tokio::task::consume_budget()).poll(&mut cx).is_pending())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_waits_for_timers_that_its_thread_drives() {
        let runtime = Runtime::start().unwrap();
        let slept = runtime.wait(async { tokio::time::sleep(Duration::from_millis(5)).await });
        assert!(slept.is_ok());
    }

    #[test]
    fn its_thread_ends_with_it() {
        let mut runtime = Runtime::start().unwrap();
        let Running { thread, _alive: alive, .. } = runtime.0.take().unwrap();
        assert!(!thread.is_finished());
        drop(alive);
        thread.join().unwrap();
    }

    #[test]
    fn without_a_thread_it_says_so() {
        assert_eq!(Runtime::none().wait(async {}).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(Runtime::none().inside(|| 7), 7);
    }

    #[test]
    fn async_is_what_a_runtime_polls_and_nothing_else() {
        assert!(!is_async());
        let threads = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let one = Builder::new_current_thread().build().unwrap();
        for runtime in [&threads, &one] {
            let inside = runtime.enter();
            assert!(!is_async());
            drop(inside);
            assert!(runtime.block_on(async { is_async() }));
            assert!(runtime.block_on(async { tokio::spawn(async { is_async() }).await.unwrap() }));
            assert!(!runtime.block_on(async { tokio::task::spawn_blocking(is_async).await.unwrap() }));
        }
        let blocks = async { tokio::task::block_in_place(is_async) };
        assert!(!threads.block_on(async { tokio::spawn(blocks).await.unwrap() }));
        assert!(!threads.block_on(async { tokio::task::block_in_place(is_async) }));
        // A task that was refused goes on.
        assert!(threads.block_on(async {
            let refused = is_async();
            tokio::task::yield_now().await;
            refused && is_async()
        }));
    }
}
