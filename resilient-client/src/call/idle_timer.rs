//! The body idle timeout: how long a body may pause while somebody waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::Sleep;

use crate::time::{self, Tick};

/// Watches the pauses of one body.
#[derive(Debug)]
pub(super) struct IdleTimer {
    /// The longest pause, in nanoseconds.
    idle: u64,
    /// Since when the next frame is waited for; never while it isn't.
    since: Tick,
    /// When the reader looked away, still without it; never while it looks.
    until: Tick,
    /// Made only once the body pends; most bodies arrive with their head.
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    pub(super) fn new(idle: u64) -> Self {
        Self { idle, since: Tick::NEVER, until: Tick::NEVER, timer: None }
    }

    /// A frame came.
    pub(super) fn rest(&mut self) {
        (self.since, self.until) = (Tick::NEVER, Tick::NEVER);
    }

    /// The reader looks away.
    pub(super) fn look_away(&mut self) {
        if !self.since.is_never() {
            self.until = time::now();
        }
    }

    /// From when to when the next frame was waited for; `None` when nobody waits for one.
    pub(super) fn waited(&self, now: Tick) -> Option<(Tick, Tick)> {
        (!self.since.is_never()).then(|| (self.since, self.until.min(now)))
    }

    /// Ready once the idle timeout or `deadline` has passed without a frame.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Tick) -> Poll<()> {
        self.until = Tick::NEVER;
        loop {
            if self.since.is_never() {
                self.since = time::now();
            }
            let until = self.since.after_nanos(self.idle).min(deadline);
            if until.is_never() {
                return Poll::Pending;
            }
            let instant = time::instant(until);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(instant)));
            // Never pushed later: between frames it is cheaper to let it fire early and look again.
            if timer.deadline() > instant || timer.is_elapsed() && timer.deadline() < instant {
                timer.as_mut().reset(instant);
            }
            ready!(timer.as_mut().poll(cx));
            if time::now() >= until {
                return Poll::Ready(());
            }
        }
    }
}
