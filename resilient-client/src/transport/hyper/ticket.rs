//! Whether a request has become a stream of its connection.
//!
//! hyper doesn't tell. Over HTTP/2 a request waits in hyper's queue; is then given to h2, which may keep it until the server
//! allows one more stream; and only then does hyper set a task to wait for its answer. An error in between is reported like
//! one of a stream's own, although the request may be on the wire by then: hyper asks h2 once more after handing the request
//! over, and if the connection's `GOAWAY` has come in the meantime, it reports that.
//!
//! Two things can be seen from here. A value in the request's extensions is dropped when the request is handed to h2; and the
//! task is started with our executor, in the same run of the connection's own task. So the request that was handed over last
//! in such a task, and not another, is the one whose answer is waited for from then on.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::rt;
use pin_project_lite::pin_project;

use crate::time::{self, Tick};

thread_local! {
    /// A task of a connection runs here.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// What it handed to h2 last, and doesn't wait for yet.
    static HANDED: Cell<Option<Ticket>> = const { Cell::new(None) };
    /// It had handed something over in an earlier run, which h2 kept until now.
    static KEPT: Cell<bool> = const { Cell::new(false) };
}

/// Without a stream.
const NONE: u64 = 0;
/// With one, that it got as soon as it could be handed over. Else the time when it got it, which is later than this.
const AT_ONCE: u64 = 1;

/// Tells what has become of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticket(Arc<AtomicU64>);

/// Whether a request has a stream of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// None yet.
    None,
    /// Since it set out.
    AtOnce,
    /// Since then, when the server had allowed one more.
    Since(Tick),
}

impl Ticket {
    /// Whether its answer is waited for, on a stream of its own.
    pub(super) fn stream(&self) -> Stream {
        match self.0.load(Ordering::Acquire) {
            NONE => Stream::None,
            AT_ONCE => Stream::AtOnce,
            at => Stream::Since(Tick::from_nanos(at)),
        }
    }

    pub(super) fn has_stream(&self) -> bool {
        self.stream() != Stream::None
    }

    fn gets_stream(&self) {
        // Those behind one that was kept have waited as well. The others need no clock.
        let at = if KEPT.get() { time::now().as_nanos().max(AT_ONCE + 1) } else { AT_ONCE };
        self.0.store(at, Ordering::Release);
    }

    /// What travels in the request.
    pub(super) fn slip(&self) -> Slip {
        Slip(self.clone())
    }
}

/// Hands its ticket over when it is dropped inside a connection's task.
#[derive(Clone)]
pub(super) struct Slip(Ticket);

impl Drop for Slip {
    fn drop(&mut self) {
        // Neither is there any more on a thread that ends.
        if INSIDE.try_with(Cell::get).unwrap_or(false) {
            let _ = HANDED.try_with(|handed| handed.set(Some(self.0.clone())));
        }
    }
}

/// Runs hyper's tasks on tokio, and sees which request each is started for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executor;

impl<F: Future<Output = ()> + Send + 'static> rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        if let Some(ticket) = HANDED.take() {
            ticket.gets_stream();
        }
        tokio::spawn(Task { future, handed: None });
    }
}

pin_project! {
    /// One of hyper's tasks: a connection's own, or one that waits for an answer. What it handed over in one run it may go on
    /// with in the next.
    struct Task<F> {
        #[pin]
        future: F,
        handed: Option<Ticket>,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let _inside = Inside::enter(this.handed);
        this.future.poll(cx)
    }
}

/// While one task runs. Left behind by a panic, too.
struct Inside<'a> {
    handed: &'a mut Option<Ticket>,
    /// Whether one task runs within another, and what was said of that.
    nested: (bool, bool),
}

impl<'a> Inside<'a> {
    fn enter(handed: &'a mut Option<Ticket>) -> Self {
        let nested = (INSIDE.replace(true), KEPT.replace(handed.is_some()));
        HANDED.set(handed.take());
        Self { handed, nested }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.handed = HANDED.take();
        INSIDE.set(self.nested.0);
        KEPT.set(self.nested.1);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use hyper::rt::Executor as _;

    use super::*;

    fn run(task: &mut Pin<Box<Task<impl Future<Output = ()>>>>) {
        let _ = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    fn task<F: Future<Output = ()>>(future: F) -> Pin<Box<Task<F>>> {
        Box::pin(Task { future, handed: None })
    }

    #[tokio::test]
    async fn a_request_has_a_stream_once_a_task_is_started_after_it_was_handed_over() {
        let (ticket, other) = (Ticket::default(), Ticket::default());
        let (slip, stays) = (ticket.slip(), other.slip());
        run(&mut task(async move {
            drop(slip);
            Executor.execute(async {});
        }));
        assert_eq!((ticket.stream(), other.stream()), (Stream::AtOnce, Stream::None));
        drop(stays);
        assert!(!other.has_stream());
    }

    #[tokio::test]
    async fn a_request_that_failed_as_it_was_handed_over_has_none_whatever_starts_later() {
        let ticket = Ticket::default();
        let slip = ticket.slip();
        run(&mut task(async move { drop(slip) }));
        Executor.execute(async {});
        run(&mut task(async { Executor.execute(async {}) }));
        assert!(!ticket.has_stream());
    }

    #[tokio::test]
    async fn a_request_that_waited_for_its_stream_has_it_when_its_own_task_goes_on() {
        let (ticket, behind) = (Ticket::default(), Ticket::default());
        let slips = (ticket.slip(), behind.slip());
        let mut connection = task(async move {
            drop(slips.0);
            tokio::task::yield_now().await;
            Executor.execute(async {});
            drop(slips.1);
            Executor.execute(async {});
        });
        run(&mut connection);
        // Another connection runs on the same thread meanwhile.
        run(&mut task(async { Executor.execute(async {}) }));
        assert!(!ticket.has_stream());
        run(&mut connection);
        let waited = |ticket: &Ticket| matches!(ticket.stream(), Stream::Since(_));
        assert!(waited(&ticket) && waited(&behind), "{ticket:?} {behind:?}");
    }
}
