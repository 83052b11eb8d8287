//! Deadlines: when an answer stops being of use, known to everyone who works on it.
//!
//! A timeout bounds one caller's patience. The services behind it don't know of it, and go on with
//! work nobody waits for, which is what keeps an overloaded system overloaded. A deadline travels:
//! the server takes it from the request's header, holds it while the request is handled, and every
//! call made meanwhile inherits what is left. (gRPC does the same; see "Deadlines" in its guides.)
//!
//! - [`current`] is the deadline of what this task is doing; `None` where nobody set one.
//! - [`for_calls`] is that of the calls it makes, whose totals are never longer. A server keeps
//!   some of the time to itself, so that a handler whose calls have had theirs can still answer.
//! - [`scope`] sets one for a future. Inside another scope the earlier of the two holds: nesting
//!   never extends.
//! - [`header`] says how a deadline is written and read between services: as the time left, so that
//!   clocks needn't agree.
//! - With the feature `server`, `DeadlineLayer` does all of it for an axum or hyper server.
//!
//! One caveat: it stays with the task. What `tokio::spawn` starts has none, unless it is handed
//! over, as below.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::deadline::{self, Deadline};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! deadline::scope(Deadline::within(Duration::from_secs(2)), async {
//!     let deadline = deadline::current().expect("set just above");
//!     assert!(deadline.remaining() <= Duration::from_secs(2));
//!
//!     let longer = Deadline::within(Duration::from_secs(60));
//!     deadline::scope(longer, async move { assert_eq!(deadline::current(), Some(deadline)) }).await;
//!
//!     // A task of its own:
//!     tokio::spawn(deadline::scope(deadline, async { /* ... */ }));
//! })
//! .await;
//! assert_eq!(deadline::current(), None);
//! # }
//! ```

pub mod header;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::time::{self, Tick};

/// The time after which an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Tick);

impl Deadline {
    /// No deadline: the default of everything.
    const NONE: Self = Self(Tick::NEVER);

    /// This long from now. An absurdly long time means never.
    pub fn within(time: Duration) -> Self {
        Self(time::now().after(time))
    }

    /// At `tick`.
    pub const fn at(tick: Tick) -> Self {
        Self(tick)
    }

    /// When it is.
    pub const fn tick(self) -> Tick {
        self.0
    }

    /// The time left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        time::now().until(self.0)
    }

    /// Whether no time is left.
    pub fn is_past(self) -> bool {
        self.0 <= time::now()
    }

    /// The earlier of the two.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        self.min(other)
    }
}

thread_local! {
    /// The deadline of what this thread is polling. A plain cell in place of `tokio::task_local`:
    /// there is nothing to drop, it works under any executor, and reading it costs a load.
    static CURRENT: Cell<Ambient> = const { Cell::new(Ambient::NONE) };
}

/// What holds for a task, and for the calls it makes: never later.
#[derive(Clone, Copy, Debug)]
struct Ambient {
    task: Deadline,
    calls: Deadline,
}

impl Ambient {
    const NONE: Self = Self { task: Deadline::NONE, calls: Deadline::NONE };
}

/// The deadline of what this task is doing, set by the innermost [`scope`].
pub fn current() -> Option<Deadline> {
    CURRENT.try_with(Cell::get).ok().map(|now| now.task).filter(|deadline| *deadline != Deadline::NONE)
}

/// The deadline of the calls that this task makes: [`current`], less what a server's
/// `DeadlineLayer` keeps back for the answer.
pub fn for_calls() -> Option<Deadline> {
    CURRENT.try_with(Cell::get).ok().map(|now| now.calls).filter(|deadline| *deadline != Deadline::NONE)
}

/// `future` under `deadline`, or under an earlier one that already holds wherever the result is
/// polled.
///
/// Nothing is cancelled when the time has passed; who waits for an answer does that, and the calls
/// made inside.
pub fn scope<F: Future>(deadline: Deadline, future: F) -> Scope<F> {
    Scope { deadline, future }
}

/// What `act` returns, run under `deadline` or an earlier one that already holds.
pub fn sync_scope<T>(deadline: Deadline, act: impl FnOnce() -> T) -> T {
    let _entered = Entered::under(deadline, deadline);
    act()
}

/// The same, with an earlier one for the calls that are made meanwhile.
#[cfg(any(test, feature = "server"))]
pub(crate) fn sync_scope_reserving<T>(deadline: Deadline, calls: Deadline, act: impl FnOnce() -> T) -> T {
    let _entered = Entered::under(deadline, calls);
    act()
}

pin_project! {
    /// A future under a deadline. Made by [`scope`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you await or poll them"]
    pub struct Scope<F> {
        deadline: Deadline,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        sync_scope(*this.deadline, || this.future.poll(cx))
    }
}

/// Puts the deadline before back when it is dropped, by a panic too.
struct Entered {
    before: Ambient,
}

impl Entered {
    fn under(task: Deadline, calls: Deadline) -> Self {
        let enter = |current: &Cell<Ambient>| {
            let now = current.get();
            let (task, calls) = (now.task.earlier(task), now.calls.earlier(calls));
            current.replace(Ambient { task, calls })
        };
        Self { before: CURRENT.try_with(enter).unwrap_or(Ambient::NONE) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Err: the thread is ending, and with it the cell.
        let _ = CURRENT.try_with(|current| current.set(self.before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn counts_down_to_zero_and_stays_there() {
        let deadline = Deadline::within(SECOND);
        assert_eq!(deadline.remaining(), SECOND);
        tokio::time::advance(Duration::from_nanos(999_999_999)).await;
        assert!(!deadline.is_past());
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert_eq!((deadline.remaining(), deadline.is_past()), (Duration::ZERO, true));
        tokio::time::advance(SECOND).await;
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[test]
    fn an_absurd_time_means_never() {
        let never = Deadline::within(Duration::MAX);
        assert!(never.tick().is_never() && !never.is_past());
        assert_eq!(never.earlier(Deadline::at(Tick::ZERO)), Deadline::at(Tick::ZERO));
        assert_eq!(sync_scope(never, current), None);
    }

    #[test]
    fn there_is_none_outside_a_scope_or_a_runtime() {
        assert_eq!(current(), None);
        let deadline = Deadline::at(Tick::from_nanos(7));
        assert_eq!(sync_scope(deadline, current), Some(deadline));
        assert_eq!(current(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nesting_never_extends() {
        let (short, long) = (Deadline::within(SECOND), Deadline::within(2 * SECOND));
        scope(short, async {
            scope(long, async { assert_eq!(current(), Some(short)) }).await;
            assert_eq!(current(), Some(short));
        })
        .await;
        scope(long, async {
            scope(short, async { assert_eq!(current(), Some(short)) }).await;
            assert_eq!(current(), Some(long));
        })
        .await;
    }

    /// What counts is where it is polled, not where it was made.
    #[tokio::test(start_paused = true)]
    async fn a_scope_made_elsewhere_still_does_not_extend() {
        let (short, long) = (Deadline::within(SECOND), Deadline::within(2 * SECOND));
        let made_outside = scope(long, async { current() });
        assert_eq!(scope(short, made_outside).await, Some(short));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_take_turns_on_a_thread_keep_their_own() {
        let task = |seconds: u32| async move {
            let deadline = Deadline::within(seconds * SECOND);
            scope(deadline, async {
                for _ in 0..10 {
                    assert_eq!(current(), Some(deadline));
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(current(), None);
        };
        tokio::join!(task(1), task(2), async { task(3).await });
    }

    #[tokio::test(start_paused = true)]
    async fn a_spawned_task_has_none_unless_it_is_handed_over() {
        let deadline = Deadline::within(SECOND);
        scope(deadline, async {
            let spawned = tokio::spawn(async { current() });
            let handed = tokio::spawn(scope(deadline, async { current() }));
            assert_eq!((spawned.await.unwrap(), handed.await.unwrap()), (None, Some(deadline)));
        })
        .await;
    }

    #[test]
    fn a_panic_inside_leaves_nothing_behind() {
        let panics = || sync_scope(Deadline::at(Tick::ZERO), || panic!("as it happens"));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(current(), None);
    }
}
