//! Whether a request has become a stream of its connection.
//!
//! hyper doesn't tell. Over HTTP/2 a request waits in hyper's queue; is then given to h2, which may
//! keep it until the server allows one more stream; and only then does hyper set a task to wait for
//! its answer. An error in between is reported like one of a stream's own, although the request may
//! be on the wire by then: hyper asks h2 once more after handing the request over, and if the
//! connection's `GOAWAY` has come in the meantime, it reports that.
//!
//! Two things can be seen from here. A value in the request's extensions is dropped when the
//! request is handed to h2; and the task is started with our executor, in the same run of the
//! connection's own task. So the request that was handed over last in such a task, and not another,
//! is the one whose answer is waited for from then on. As h2 numbers streams in the order in which
//! they are handed to it, its stream is known too.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use hyper::rt;
use pin_project_lite::pin_project;

thread_local! {
    /// A task of a connection runs here.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// What it handed to h2 last, and doesn't wait for yet.
    static HANDED: Cell<Option<Ticket>> = const { Cell::new(None) };
    /// Whether there is any: most tasks have none, and to look here costs less.
    static HANDS: Cell<bool> = const { Cell::new(false) };
    /// How many it has handed over that are waited for.
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

/// Marks the number of a stream whose answer isn't waited for yet. Streams have 31 bits.
const ONLY_HANDED: u32 = 1 << 31;

/// Tells what has become of one request: zero, or the stream it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticket(Arc<AtomicU32>);

impl Ticket {
    /// Its stream, once its answer is waited for there. Whether the stream has been opened is
    /// another matter.
    pub(super) fn stream(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Acquire)).filter(|stream| *stream != 0 && stream & ONLY_HANDED == 0)
    }

    /// Its stream, as soon as it has been handed to h2: the one it will have, if any. Without one
    /// it is in hyper's queue, and will have none below those that are open.
    pub(super) fn number(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Acquire) & !ONLY_HANDED).filter(|stream| *stream != 0)
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
            let next = COUNT.try_with(Cell::get).map_or(0, nth_stream);
            self.0.0.store(next | ONLY_HANDED, Ordering::Release);
            let _ = HANDED.try_with(|handed| handed.set(Some(self.0.clone())));
            let _ = HANDS.try_with(|hands| hands.set(true));
        }
    }
}

/// Runs hyper's tasks on tokio, and sees which request each is started for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executor;

impl<F: Future<Output = ()> + Send + 'static> rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        if let Some(ticket) = take_handed() {
            let nth = COUNT.replace(COUNT.get().wrapping_add(1));
            ticket.0.store(nth_stream(nth), Ordering::Release);
        }
        tokio::spawn(Task { future, handed: None, count: 0 });
    }
}

/// h2 numbers streams as they are handed to it, and a client's are the odd ones.
fn nth_stream(nth: u32) -> u32 {
    nth.wrapping_mul(2).wrapping_add(1) & !ONLY_HANDED
}

fn take_handed() -> Option<Ticket> {
    if HANDS.replace(false) { HANDED.take() } else { None }
}

pin_project! {
    /// One of hyper's tasks: a connection's own, or one that waits for an answer. What it handed
    /// over in one run it may go on with in the next.
    struct Task<F> {
        #[pin]
        future: F,
        handed: Option<Ticket>,
        count: u32,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let _inside = Inside::enter(this.handed, this.count);
        this.future.poll(cx)
    }
}

/// While one task runs. Left behind by a panic, too.
struct Inside<'a> {
    handed: &'a mut Option<Ticket>,
    count: &'a mut u32,
    /// Whether one task runs within another.
    nested: bool,
}

impl<'a> Inside<'a> {
    #[inline]
    fn enter(handed: &'a mut Option<Ticket>, count: &'a mut u32) -> Self {
        drop(take_handed());
        if handed.is_some() {
            HANDED.set(handed.take());
            HANDS.set(true);
        }
        COUNT.set(*count);
        Self { handed, count, nested: INSIDE.replace(true) }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.handed = take_handed();
        *self.count = COUNT.get();
        INSIDE.set(self.nested);
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
        Box::pin(Task { future, handed: None, count: 0 })
    }

    #[tokio::test]
    async fn a_request_has_a_stream_once_a_task_is_started_after_it_was_handed_over() {
        let (ticket, other) = (Ticket::default(), Ticket::default());
        let (slip, stays) = (ticket.slip(), other.slip());
        run(&mut task(async move {
            drop(slip);
            Executor.execute(async {});
        }));
        assert_eq!((ticket.stream(), other.stream()), (Some(1), None));
        drop(stays);
        assert_eq!(other.stream(), None);
    }

    #[tokio::test]
    async fn a_request_that_failed_as_it_was_handed_over_has_none_whatever_starts_later() {
        let ticket = Ticket::default();
        let slip = ticket.slip();
        run(&mut task(async move { drop(slip) }));
        Executor.execute(async {});
        run(&mut task(async { Executor.execute(async {}) }));
        assert_eq!(ticket.stream(), None);
    }

    #[tokio::test]
    async fn the_stream_that_a_request_will_have_is_known_as_soon_as_it_is_handed_over() {
        let (first, second, third) = (Ticket::default(), Ticket::default(), Ticket::default());
        let slips = (first.slip(), second.slip(), third.slip());
        run(&mut task(async move {
            drop(slips.0);
            Executor.execute(async {});
            drop(slips.1);
            let _stays = slips.2;
            std::future::pending::<()>().await;
        }));
        assert_eq!((first.number(), second.number(), third.number()), (Some(1), Some(3), None));
        assert_eq!((first.stream(), second.stream(), third.stream()), (Some(1), None, None));
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
        assert_eq!(ticket.stream(), None);
        run(&mut connection);
        assert_eq!((ticket.stream(), behind.stream()), (Some(1), Some(3)));
    }
}
